# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of check_inventory, which plugins/action/check_inventory.py runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_inventory
short_description: Find what is wrong with an inventory before anything changes
version_added: "0.1.0"
author:
  - The gpufleet authors (@gpufleet)
description:
  - Checks the groups and host variables on which this collection depends, and reports all that is wrong at once,
    naming hosts and variables.
  - The groups C(gpu_workers) and C(monitoring_master) have hosts.
  - Everything that the filter P(gpufleet.monitoring.scrape_targets#filter) depends on - addresses, ports, labels,
    exporters, duplicates.
  - >-
    Alerts. The first master's settings of them have to fit the rules, and the thresholds of hosts
    (C(gpufleet_alert_thresholds), C(gpufleet_gpus_expected)) have to be known ones, of the right type.
  - Misspelt variables. A variable of a host that starts with C(gpufleet_) or with the name of one of this
    collection's roles, but is none of theirs, is an error if it resembles one that is, or starts with C(gpufleet_);
    otherwise, and where some other variable resembles one of ours closely, it is a warning.
  - Only hosts that are in those two groups or in a group of the table of jobs are looked at.
options:
  jobs:
    description:
      - The table of scrape jobs, see P(gpufleet.monitoring.scrape_targets#filter).
      - By default, the first master's variable C(prometheus_scrape_jobs), or else the role's default.
    type: list
    elements: dict
attributes:
  check_mode:
    support: full
    description: It changes nothing.
  diff_mode:
    support: none
    description: It changes nothing.
  action:
    support: full
    description: It runs on the controller, and connects to no host.
  async:
    support: none
    description: It runs on the controller.
  bypass_host_loop:
    support: full
    description: It runs once for all hosts of a play.
seealso:
  - plugin: gpufleet.monitoring.scrape_targets
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Check the inventory
  # A host of any kind will do, so that there is one with --limit, too.
  hosts: all:localhost
  gather_facts: false
  tasks:
    - name: The inventory makes sense
      gpufleet.monitoring.check_inventory:
"""

RETURN = r"""
hosts:
  description: How many hosts were checked.
  returned: success
  type: int
  sample: 4
targets:
  description: How many targets each job has.
  returned: success
  type: dict
  sample: {prometheus: 1, node_exporter: 4}
"""
