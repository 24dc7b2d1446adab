# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: grafana_password
short_description: Refuse a password that anybody would guess
version_added: "0.1.0"
description:
  - Returns the password as it is, when it may be the one of Grafana's first user. An error never shows it.
author:
  - The gpufleet authors (@gpufleet)
positional: _input, user
options:
  _input:
    description: The password.
    type: str
    required: true
  user:
    description: The user's name, which is no part of a good password.
    type: str
    default: admin
"""

EXAMPLES = r"""
- name: A password that is good enough
  ansible.builtin.debug:
    msg: "{{ vaulted | gpufleet.monitoring.grafana_password('admin') | length }}"
"""

RETURN = r"""
_value:
  description: The password.
  type: str
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ..plugin_utils.grafana import password_fault


def grafana_password(password: str, user: str = "admin") -> str:
    """Return the password, or raise AnsibleFilterError."""
    fault = password_fault(str(password), user)
    if fault:
        raise AnsibleFilterError(
            f"grafana_admin_password {fault}: choose another one, or leave it empty, and the host makes one up"
        )
    return password


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return name -> function."""
        return {"grafana_password": grafana_password}
