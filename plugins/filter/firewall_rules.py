# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter firewall_rules; what it does is in module_utils/firewall/access.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: firewall_rules
short_description: Who may reach which port of a host, by the inventory
version_added: "0.1.0"
author:
  - The gpufleet authors (@gpufleet)
description:
  - Turns the groups and host variables of an inventory, the table of scrape jobs and a table of further services into
    the O(gpufleet.monitoring.firewall#module:rules) of one host.
  - It needs no facts and no connection to any host.
  - What Prometheus scrapes on the host is open to the hosts of C(monitoring_master), and to the networks of O(admins).
    What listens on the loopback address only needs no rule.
  - A host's connections come from the addresses in its variable C(firewall_source_addresses), or else from the address
    at which it is reached. A name there is an error, since a firewall wants to know addresses.
positional: _input, hostvars, host, jobs, services
options:
  _input:
    description: The groups of the inventory, Ansible's variable C(groups).
    type: dict
    required: true
  hostvars:
    description: Ansible's variable C(hostvars).
    type: dict
    required: true
  host:
    description: The host whose rules are asked for.
    type: str
    required: true
  jobs:
    description: The table of scrape jobs, see P(gpufleet.monitoring.scrape_targets#filter).
    type: list
    elements: dict
    required: true
  services:
    description: The table of further services.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      groups:
        description: Groups whose hosts have it. By default, every host.
        type: list
        elements: str
      ports:
        description: Its ports. A range is a string such as V(6000:6010).
        type: list
        elements: raw
        required: true
      proto:
        description: Protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
      from:
        description: Who may reach them. Addresses, networks, groups of the inventory, or V(any).
        type: list
        elements: str
        required: true
  admins:
    description: Networks that may reach whatever Prometheus scrapes.
    type: list
    elements: str
    default: []
notes:
  - All that is wrong is in one error, which names hosts and variables.
seealso:
  - module: gpufleet.monitoring.firewall
"""

EXAMPLES = r"""
- name: Who may reach what here
  ansible.builtin.debug:
    msg: "{{ groups | gpufleet.monitoring.firewall_rules(hostvars, inventory_hostname, jobs, services) }}"
  vars:
    jobs:
      - {job: node_exporter, groups: [gpu_workers, monitoring_master], port: 9100, exporter: true}
    services:
      - {name: web, groups: [monitoring_master], ports: [80, 443], from: [any]}
      - {name: alertmanager_cluster, groups: [monitoring_master], ports: [9094], from: [monitoring_master]}
"""

RETURN = r"""
_value:
  description: Each port of a service once, with the networks that it is open to.
  type: list
  elements: dict
  sample:
    - {name: node_exporter, port: "9100", proto: tcp, from: [192.0.2.10]}
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ..module_utils.firewall import access
from ..module_utils.inventory import Groups, HostVars, InventoryError


def firewall_rules(
    groups: Groups, hostvars: HostVars, host: str, jobs: object, services: object, admins: object = None
) -> list[access.Access]:
    """Return who may reach which port; raise AnsibleFilterError with all that is wrong with the inventory."""
    try:
        return access.firewall_rules(groups, hostvars, host, jobs, services, admins)
    except InventoryError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """Ansible's way to find the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return the filter by name."""
        return {"firewall_rules": firewall_rules}
