# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter scrape_targets; what it does is in module_utils/inventory.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: scrape_targets
short_description: Prometheus targets of an inventory
version_added: "0.1.0"
author:
  - The gpufleet authors (@gpufleet)
description:
  - Turns the groups and host variables of an inventory, and a table of scrape jobs, into targets in the form of
    Prometheus' C(file_sd).
  - It needs no facts and no connection to any host, so hosts that are down or outside of C(--limit) keep their
    targets.
  - >-
    A target's address is the first of: the host variable C(gpufleet_address); the address that the service listens
    on, if it is a particular one; C(ansible_host); the host's name in the inventory, if it is an IP address or has a
    dot in it. The master reaches itself at C(127.0.0.1) where nothing else is said.
  - A service that listens on the loopback address only is a target on the master itself, and an error elsewhere. Of
    several masters, each scrapes its own.
  - The host variable C(gpufleet_exporters) lists the exporters of a host. Those that none of the host's groups call
    for are ignored in it, so that C(group_vars/all) may hold one list for workers and masters.
  - The host variable C(gpufleet_labels) is a dictionary of further labels. Their values are strings or numbers.
positional: _input, hostvars, jobs
options:
  _input:
    description: The groups of the inventory, Ansible's variable C(groups).
    type: dict
    required: true
  hostvars:
    description: Ansible's variable C(hostvars).
    type: dict
    required: true
  jobs:
    description: The table of jobs. All but the keys named here are left to the template of C(prometheus.yml).
    type: list
    elements: dict
    required: true
    suboptions:
      job:
        description:
          - Name of the job, of letters, digits, C(_) and C(-).
          - In the names of host variables, C(-) becomes C(_).
        type: str
        required: true
      groups:
        description: Groups whose hosts have the job. Groups that the inventory lacks have no hosts.
        type: list
        elements: str
        required: true
      port:
        description: Port of the target. A host variable C(<job>_port) overrides it.
        type: int
        required: true
      exporter:
        description: Whether only those hosts have the job that name it in C(gpufleet_exporters), or do not set that.
        type: bool
        default: false
      bind_address:
        description:
          - Address on which the service listens. Empty means all. A host variable C(<job>_bind_address) overrides it.
        type: str
        default: ""
  master:
    description:
      - Name of the host whose Prometheus scrapes the targets.
      - By default, the first host of the group C(monitoring_master).
    type: str
  as_json:
    description:
      - Whether each job's targets are returned as text, one line a target, ready to be a C(file_sd) file.
      - Ansible wraps and checks every element of what a template passes on, and a text is only one. With 10,000 hosts
        that saves seconds.
    type: bool
    default: false
notes:
  - All that is wrong with the inventory is in one error, which names hosts and variables.
  - Ansible evaluates a variable anew each time that it is used. Use the filter once, and its result many times.
seealso:
  - plugin: gpufleet.monitoring.check_inventory
    plugin_type: module
"""

EXAMPLES = r"""
- name: One file_sd file for each job
  ansible.builtin.copy:
    dest: /etc/prometheus/targets/{{ item.key }}.json
    content: "{{ item.value }}"
    mode: "0644"
  loop: "{{ groups | gpufleet.monitoring.scrape_targets(hostvars, jobs, as_json=true) | dict2items }}"
  loop_control:
    label: "{{ item.key }}"
  vars:
    jobs:
      - {job: prometheus, groups: [monitoring_master], port: 9090, bind_address: 127.0.0.1}
      - {job: node_exporter, groups: [gpu_workers, monitoring_master], port: 9100, exporter: true}

- name: As another of several masters sees them
  ansible.builtin.debug:
    msg: "{{ groups | gpufleet.monitoring.scrape_targets(hostvars, prometheus_scrape_jobs, master='master2') }}"
"""

RETURN = r"""
_value:
  description:
    - A list of targets for each job, each with the label C(instance), the host's name in the inventory.
    - Every job is in it, with an empty list where no host has it. The order is that of the table, of its groups and
      of the inventory.
  type: dict
  sample:
    node_exporter:
      - targets: ["10.0.0.1:9100"]
        labels: {instance: gpu1, site: fra1}
"""

import json
import typing as t

from ansible.errors import AnsibleFilterError

from ..module_utils import inventory


def scrape_targets(
    groups: inventory.Groups,
    hostvars: inventory.HostVars,
    jobs: object,
    master: str | None = None,
    as_json: bool = False,
) -> dict[str, t.Any]:
    """Return the targets of each job; raise AnsibleFilterError with all that is wrong with the inventory."""
    try:
        targets = inventory.scrape_targets(groups, hostvars, jobs, master)
    except inventory.InventoryError as error:
        raise AnsibleFilterError(str(error)) from None
    return {job: _text(found) for job, found in targets.items()} if as_json else targets


def _text(targets: list[inventory.Target]) -> str:
    # One line a target, so that --diff shows a host in one line.
    return "[" + ",".join(f"\n {json.dumps(target)}" for target in targets) + "\n]\n"


class FilterModule:
    """Ansible's way to find the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter by name."""
        return {"scrape_targets": scrape_targets}
