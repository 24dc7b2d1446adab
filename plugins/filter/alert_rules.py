# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter alert_rules; what it does is in plugin_utils/alerts.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: alert_rules
short_description: Put an inventory's thresholds and times into files of alert rules
version_added: "0.1.0"
author:
  - The gpufleet authors (@gpufleet)
description:
  - Takes files of alerting rules in Prometheus' own format, and returns them with the numbers, times and links that the
    inventory calls for.
  - >-
    Where an expression or an annotation says C(threshold:NAME), the threshold of that name is put in its place. Hosts
    that have another one are taken out of the rule, and get one of their own, by the label C(instance). In groups whose
    name ends in C(_fleet), alerts are about all hosts together, which therefore must agree.
  - >-
    A host's own thresholds are its variable C(gpufleet_alert_thresholds), a dictionary of those that differ, and
    C(gpufleet_gpus_expected), which is the threshold C(gpus_expected).
  - Each alert gets the annotation C(runbook_url).
positional: _input, groups, hostvars, jobs
options:
  _input:
    description: Name and content of each file.
    type: dict
    required: true
  groups:
    description: The groups of the inventory, Ansible's variable C(groups).
    type: dict
    required: true
  hostvars:
    description: Ansible's variable C(hostvars).
    type: dict
    required: true
  jobs:
    description:
      - The table of scrape jobs, see P(gpufleet.monitoring.scrape_targets#filter). It says which hosts there are.
    type: list
    elements: dict
    required: true
  thresholds:
    description:
      - The thresholds of hosts that have none of their own. Each is a number, or a duration such as V(1h), which
        becomes a number of seconds.
      - Exactly those that the files use.
    type: dict
    required: true
  durations:
    description: By alert, how long its condition has to hold, in place of its own C(for).
    type: dict
    default: {}
  disabled:
    description: Names of alerts to leave out.
    type: list
    elements: str
    default: []
  time_factor:
    description:
      - Multiplies every time in the rules - C(for), C(keep_firing_for), ranges, offsets and thresholds that are
        durations - so that a test need not wait. With V(0.0167), a minute becomes a second.
    type: float
    default: 1
  runbook_url:
    description: The page about an alert. C({alert}) stands for its name.
    type: str
    required: true
notes:
  - All that is wrong is in one error, which names variables and, of a host's own, the host.
seealso:
  - plugin: gpufleet.monitoring.check_inventory
    plugin_type: module
"""

EXAMPLES = r"""
- name: Alerts, with another limit in the hall without cooling
  # there, group_vars say: gpufleet_alert_thresholds: {temperature_celsius: 75}
  ansible.builtin.debug:
    msg: >-
      {{ {'heat.yml': lookup('ansible.builtin.file', 'heat.yml')}
         | gpufleet.monitoring.alert_rules(groups, hostvars, prometheus_scrape_jobs,
                                           thresholds={'temperature_celsius': 85},
                                           runbook_url='https://wiki.example.com/alerts/{alert}') }}
"""

RETURN = r"""
_value:
  description: Name and content of each file.
  type: dict
  sample:
    heat.yml: "groups: [{name: heat, rules: [{alert: Hot, expr: 'gpu:core_temperature:celsius > 85'}]}]"
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ..module_utils import inventory
from ..plugin_utils import alerts


def alert_rules(
    files: t.Mapping[str, str],
    groups: inventory.Groups,
    hostvars: inventory.HostVars,
    jobs: object,
    thresholds: t.Mapping[str, t.Any],
    runbook_url: str,
    durations: t.Mapping[str, str] | None = None,
    disabled: t.Sequence[str] = (),
    time_factor: float = 1,
) -> dict[str, str]:
    """Return the files with all settings applied; raise AnsibleFilterError with all that is wrong."""
    try:
        hosts = inventory.alert_thresholds(groups, hostvars, jobs, thresholds)
        settings = alerts.Settings(thresholds, hosts, durations or {}, disabled, time_factor, runbook_url)
        return alerts.render(files, settings)
    except (inventory.InventoryError, alerts.AlertError) as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """Ansible's way to find the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter by name."""
        return {"alert_rules": alert_rules}
