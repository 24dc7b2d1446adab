#!/usr/bin/python
# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: native_service_info
short_description: Say which services of native_service are on a host
version_added: "0.1.0"
description:
  - Lists what the module M(gpufleet.monitoring.native_service) has placed, by what it wrote down on the host. So
    services are found, too, that no role and no inventory speaks of any more.
author:
  - The gpufleet authors (@gpufleet)
attributes:
  check_mode:
    description: Changes nothing, and says the same.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
  platform:
    description: Hosts run by systemd.
    support: full
    platforms: linux
options: {}
notes:
  - Needs root on the host.
"""

EXAMPLES = r"""
- name: What is here
  gpufleet.monitoring.native_service_info:
  register: installed

- name: Take it all away
  gpufleet.monitoring.native_service:
    name: "{{ item }}"
    state: absent
  loop: "{{ installed.services }}"
"""

RETURN = r"""
services:
  description: Names, in an order in which they can be removed, a service before the one that it is a part of.
  returned: always
  type: list
  elements: str
  sample: [gpu_exporter, node_exporter, nvidia-dcgm-exporter, nvidia-dcgm]
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.native_service.installed import in_order, names
from ..module_utils.native_service.systemd import Systemd, SystemdError


def main() -> None:
    """Entry point."""
    module = AnsibleModule({}, supports_check_mode=True)
    try:
        found = names()
        systemd = Systemd(module.run_command)
        parts = {name: systemd.part_of(f"{name}.service") for name in found} if Systemd.is_running() else {}
        module.exit_json(changed=False, services=in_order(found, parts))
    except (SystemdError, OSError) as error:
        module.fail_json(str(error))


if __name__ == "__main__":
    main()
