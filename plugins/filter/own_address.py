# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: own_address
short_description: Where a host reaches a service of its own
version_added: "0.1.0"
description:
  - Turns the address that a service binds into the one at which programs on the same host reach it. That is the
    loopback address where the service listens on every address, and else the address itself.
author:
  - The gpufleet authors (@gpufleet)
positional: _input, port
options:
  _input:
    description: The address that the service binds; empty is every address.
    type: str
    required: true
  port:
    description: The service's port. Without it, the address alone is returned.
    type: int
  ipv6_only:
    description: Whether C(::) is every address of IPv6 alone, as nginx has it, and not of IPv4 as well.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: A service is asked whether it is well
  gpufleet.monitoring.native_service:
    name: node_exporter
    command: ["{release}/node_exporter"]
    health:
      url: "http://{{ '0.0.0.0' | gpufleet.monitoring.own_address(9100) }}/"
"""

RETURN = r"""
_value:
  description: The address, or address and port as in a URL, with IPv6 in brackets.
  type: str
  sample: 127.0.0.1:9100
"""

import ipaddress
import re
import typing as t

from ansible.errors import AnsibleFilterError


def own_address(address: str | None, port: int | str | None = None, ipv6_only: bool = False) -> str:
    """Return where a service that binds ``address`` is reached from its own host. Raises AnsibleFilterError."""
    address = address or ""
    if not re.fullmatch(r"[A-Za-z0-9.-]*", address) and not _is_ipv6(address):
        raise AnsibleFilterError(f"{address!r} is no address to bind: say 0.0.0.0, ::, 10.0.0.5 or a name of the host")
    if address in ("", "0.0.0.0", "::"):  # noqa: S104 (nothing is bound)
        address = "::1" if address == "::" and ipv6_only else "127.0.0.1"
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _is_ipv6(address: str) -> bool:
    try:
        return ipaddress.IPv6Address(address).scope_id is None
    except ValueError:
        return False


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return name -> function."""
        return {"own_address": own_address}
