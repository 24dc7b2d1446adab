# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: front_door
short_description: Check and complete the table of services behind nginx
version_added: "0.1.0"
description:
  - Returns the rows with all their defaults, and fails with everything that is wrong with them at once.
  - A service that asks nobody who they are is let out only with authentication and a list of networks.
author:
  - The gpufleet authors (@gpufleet)
positional: _input, names
options:
  _input:
    description: The rows, as C(nginx_services) of the role C(nginx) has them.
    type: list
    elements: dict
    required: true
  names:
    description: The main server's names.
    type: list
    elements: str
    required: true
  known:
    description:
      - What is known of a service by its name, as rows. C(guarded) is true for those that ask nobody who they are.
    type: dict
    default: {}
  users:
    description: Users and hashes of their passwords.
    type: dict
    default: {}
  client_ca:
    description: Whether there is a CA for clients' certificates.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Where people find what
  ansible.builtin.debug:
    msg: "{{ [{'name': 'ipmi', 'path': '/ipmi/', 'upstream': 'http://127.0.0.1:5000', 'auth': 'own'}]
             | gpufleet.monitoring.front_door(['monitoring.example.org']) }}"
"""

RETURN = r"""
_value:
  description: The rows, complete.
  type: list
  elements: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ..module_utils.front_door import FrontDoorError, Row, Service
from ..module_utils.front_door import front_door as complete


def front_door(
    rows: t.Sequence[Row],
    names: t.Sequence[str],
    known: t.Mapping[str, Row] | None = None,
    users: t.Mapping[str, str] | None = None,
    client_ca: bool = False,
) -> list[Service]:
    """Return the complete rows, or fail with all that is wrong."""
    try:
        return complete(rows, names, known or {}, users or {}, client_ca)
    except FrontDoorError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return name -> function."""
        return {"front_door": front_door}
