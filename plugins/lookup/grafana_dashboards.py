# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: grafana_dashboards
short_description: Turn dashboards on the controller into the files that have Grafana serve them
version_added: "0.1.0"
description:
  - Reads dashboards and builds entries for the O(gpufleet.monitoring.native_service#module:files) option, the file
    for Grafana's provisioning of dashboards among them.
  - A file that is no JSON, has no uid or no title, or has those of another one, is an error. Grafana itself would only
    log it, and show one of the two, or none.
author:
  - The gpufleet authors (@gpufleet)
options:
  _terms:
    description: Dictionaries of folders' titles and lists of JSON files, in which C(*) stands for many.
    type: list
    elements: dict
    required: true
  directory:
    description: Directory of Grafana's configuration on the host.
    type: path
    default: /etc/grafana
  optional:
    description: Titles of folders that may be without any file.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Dashboards in a folder
  gpufleet.monitoring.native_service:
    name: grafana
    command: ["{release}/bin/grafana", server]
    files: "{{ query('gpufleet.monitoring.grafana_dashboards', {'Team A': [inventory_dir ~ '/dashboards/*.json']}) }}"
"""

RETURN = r"""
_raw:
  description: One entry a file.
  type: list
  elements: dict
"""

import glob
import typing as t
from collections.abc import Iterator
from pathlib import Path

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ..plugin_utils.grafana import Dashboard, dashboard_files


class LookupModule(LookupBase):
    """The lookup's face to Ansible."""

    def run(self, terms: list[t.Any], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[t.Any]:
        """Read the dashboards."""
        self.set_options(var_options=variables, direct=kwargs)
        optional = self.get_option("optional")
        try:
            dashboards = [one for folders in terms for one in self._read(folders, optional)]
            return dashboard_files(dashboards, self.get_option("directory"))
        except (ValueError, OSError) as error:
            raise AnsibleLookupError(f"grafana_dashboards: {error}") from error

    def _read(self, folders: t.Mapping[str, t.Any], optional: t.Sequence[str]) -> Iterator[Dashboard]:
        if not isinstance(folders, dict):
            raise ValueError("a dictionary of folders and lists of files is needed")
        for folder, patterns in folders.items():
            if not isinstance(patterns, list):
                raise ValueError(f'the folder "{folder}" needs a list of files')
            for pattern in patterns:
                paths = sorted(glob.glob(self._loader.path_dwim(pattern)))  # noqa: PTH207 (Path.glob takes none from /)
                if not paths and folder not in optional:
                    raise ValueError(f'no file matches {pattern}, which the folder "{folder}" asks for')
                yield from (Dashboard(folder, path, Path(path).read_text()) for path in paths)
