# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: config_files
short_description: Turn names and contents into the files of a native service
version_added: "0.1.0"
description:
  - Builds entries for the O(gpufleet.monitoring.native_service#module:files) option from a dictionary.
author:
  - The gpufleet authors (@gpufleet)
positional: _input, directory
options:
  _input:
    description:
      - Name of each file, with what it holds; as a dictionary, or as a list of such pairs.
      - What is not text is written as JSON. It is an error when a name occurs twice.
    type: raw
    required: true
  directory:
    description: The directory that the files go into.
    type: path
    required: true
  suffix:
    description: Added to every name.
    type: str
    default: ""
  pattern:
    description:
      - Regular expression that every name has to match, for directories in which others would silently be ignored.
    type: str
    default: ""
  secret:
    description: Whether the content must not appear in output, diffs and logs.
    type: bool
    default: false
  attributes:
    description: Further options of each entry, such as C(on_change), as keyword arguments.
    type: dict
"""

EXAMPLES = r"""
- name: One file a scrape job
  gpufleet.monitoring.native_service:
    name: prometheus
    command: ["{release}/prometheus"]
    files: "{{ {'node_exporter': [{'targets': ['10.0.0.1:9100']}]}
               | gpufleet.monitoring.config_files('/etc/prometheus/targets', suffix='.json', on_change='none') }}"
"""

RETURN = r"""
_value:
  description: One entry a file, in the order of the dictionary.
  type: list
  elements: dict
"""

import json
import re
import typing as t

from ansible.errors import AnsibleFilterError

Pairs = t.Union[t.Mapping[str, t.Any], t.Iterable[tuple[str, t.Any]]]


def config_files(
    contents: Pairs, directory: str, suffix: str = "", pattern: str = "", secret: bool = False, **attributes: str
) -> list[dict[str, str]]:
    """Return one entry of native_service's ``files`` for each name and content."""
    pairs = list(contents.items() if isinstance(contents, t.Mapping) else contents)
    names = [name for name, _content in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        path = f"{directory}/{twice[0]}{suffix}"
        raise AnsibleFilterError(f"several files would become {path}: rename all but one of them")
    for name in names:
        if not re.search(pattern, name):
            raise AnsibleFilterError(f"{directory}/{name} would never be read: rename the file, to match {pattern}")
    key = "secret_content" if secret else "content"
    return [{"path": f"{directory}/{name}{suffix}", key: _text(content), **attributes} for name, content in pairs]


def _text(content: t.Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, indent=1) + "\n"


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return name -> function."""
        return {"config_files": config_files}
