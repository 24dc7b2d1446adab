# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: grafana_ini
short_description: Write a dictionary as Grafana's configuration file
version_added: "0.1.0"
description:
  - Quotes what Grafana would otherwise cut at a C(#) or C(;).
  - Refuses passwords and the like in plain text, since every user of the host reads the file, and what Grafana would
    never see.
author:
  - The gpufleet authors (@gpufleet)
positional: _input, secrets
options:
  _input:
    description: The user's part, section -> key -> value.
    type: dict
    required: true
  secrets:
    description: Names of the service's credentials, which C($__file{/run/credentials/grafana.service/NAME}) may name.
    type: list
    elements: str
    default: []
  choices:
    description: What holds where the user says nothing else.
    type: dict
    default: {}
  own:
    description: What holds always. It is an error when the user says any of it.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: A configuration
  ansible.builtin.copy:
    content: "{{ {'server': {'http_port': 3000}} | gpufleet.monitoring.grafana_ini }}"
    dest: /etc/grafana/grafana.ini
    mode: "0644"
"""

RETURN = r"""
_value:
  description: The file's content.
  type: str
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ..plugin_utils.grafana import check_config, check_secret

Sections = t.Mapping[str, t.Any]


def grafana_ini(
    config: Sections, secrets: t.Sequence[str] = (), choices: Sections | None = None, own: Sections | None = None
) -> str:
    """Return the text of grafana.ini. Raises AnsibleFilterError with all that is wrong."""
    faults = list(check_config(config, own or {}))
    blocks = []
    for section, keys in _merged(choices or {}, config, own or {}).items():
        lines = [f"{key} = {_value(section, key, value, secrets, faults)}" for key, value in keys.items()]
        blocks.append("\n".join([f"[{section}]", *lines]))
    if faults:
        raise AnsibleFilterError("\n- ".join(["grafana_config cannot be used:", *faults]))
    return "\n\n".join(blocks)


def _merged(*parts: Sections) -> dict[str, dict[str, t.Any]]:
    sections: dict[str, dict[str, t.Any]] = {}
    for part in parts:
        for section, keys in part.items():
            sections.setdefault(section, {}).update(keys if isinstance(keys, dict) else {})
    return sections


def _value(section: str, key: str, value: t.Any, secrets: t.Sequence[str], faults: list[str]) -> str:
    where = f"{section}.{key}"
    if value is None:
        return ""
    if not isinstance(value, (str, int, float)):
        faults.append(f"{where} is {type(value).__name__}, where text, a number or true or false can be")
        return ""
    text = str(value)
    if isinstance(value, bool) or text in ("True", "False"):
        return text.lower()
    if "\n" in text or '"""' in text:
        faults.append(f'{where} has a line break or """ in it, which the file cannot hold')
    faults += check_secret(where, key, text, secrets)
    quoted = set(text) & set("#;`\\") or text.startswith(('"', "'"))
    return f'"""{text}"""' if quoted else text


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return name -> function."""
        return {"grafana_ini": grafana_ini}
