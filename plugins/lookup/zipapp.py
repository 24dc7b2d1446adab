# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: zipapp
short_description: Build one of the collection's own programs on the controller
version_added: "0.1.0"
description:
  - Packs a program of the collection and the libraries it needs into one file, which runs on any host with Python 3.9
    or newer.
  - The file is built once and kept in the controller's cache (C($XDG_CACHE_HOME/gpufleet/zipapps)). Equal sources give
    equal bytes.
author:
  - The gpufleet authors (@gpufleet)
options:
  _terms:
    description: The programs' names.
    type: list
    elements: str
    required: true
  mirror:
    description: What the libraries' URLs, without their scheme, are put behind.
    type: str
    default: "https:/"
  version:
    description:
      - A version that was built from other sources. It is not built, but taken from the host, or else from the
        controller's cache.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Run the program as a service, built with libraries from an internal mirror
  gpufleet.monitoring.native_service:
    name: gpu_exporter
    release: "{{ lookup('gpufleet.monitoring.zipapp', 'gpu_exporter', mirror='http://mirror.example.org') }}"
    command: [/usr/bin/python3, -I, /opt/gpufleet/gpu_exporter/current/gpu-exporter.pyz]
"""

RETURN = r"""
_raw:
  description:
    - For each program what O(gpufleet.monitoring.native_service#module:release) takes.
  type: list
  elements: dict
  sample:
    - url: file:///root/.cache/gpufleet/zipapps/0.1.0-5f0c1d2e/gpu-exporter.pyz
      version: 0.1.0-5f0c1d2e
      sha256: 3b1f9a...
      delivery: controller
"""

import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ..plugin_utils.zipapp import Zipapp, ZipappError, build, place


class LookupModule(LookupBase):
    """The lookup's face to Ansible."""

    def run(self, terms: list[str], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[dict[str, str]]:
        """Build what is not built yet."""
        self.set_options(var_options=variables, direct=kwargs)
        version = self.get_option("version")
        if version:
            return [_pinned(term, version) for term in terms]
        try:
            built = [build(term, self.get_option("mirror")) for term in terms]
        except ZipappError as error:
            raise AnsibleLookupError(str(error)) from error
        return [_release(zipapp) for zipapp in built]


def _pinned(program: str, version: str) -> dict[str, str]:
    """Nothing is read, since the host may have it."""
    url = f"file://{place(program, version)}"
    return {"version": version, "url": url, "checksum_url": f"{url}.sha256", "delivery": "controller"}


def _release(zipapp: Zipapp) -> dict[str, str]:
    url = f"file://{zipapp.path}"
    return {"version": zipapp.version, "url": url, "sha256": zipapp.sha256, "delivery": "controller"}
