#!/usr/bin/python
# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: grafana_plugins
short_description: Bring a set of Grafana's plugins to a host
version_added: "0.1.0"
description:
  - Every set of plugins is a directory of its own, complete or not there, so that Grafana changes from one to another
    by its configuration, and back the same way.
  - A plugin is verified by SHA-256 before it is unpacked. Whether its signature is good is for Grafana to say.
author:
  - The gpufleet authors (@gpufleet)
attributes:
  check_mode:
    description: Says whether a set would be installed or removed.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
  platform:
    description: Any Linux.
    support: full
    platforms: linux
options:
  plugins:
    description: The plugins. An empty list needs no directory.
    type: list
    elements: dict
    required: true
    suboptions:
      id:
        description: The plugin's id.
        type: str
        required: true
      version:
        description: Its version.
        type: str
        required: true
      sha256:
        description: SHA-256 of its zip in hexadecimal, or a dictionary of them by architecture.
        type: raw
        required: true
      url:
        description: Where its zip is. C({arch}) stands for V(amd64) or V(arm64). By default, at grafana.com.
        type: str
  mirror:
    description: What the URL of grafana.com, without its scheme, is put behind.
    type: str
    default: "https:/"
  delivery:
    description:
      - V(host) lets the host download.
      - V(controller) downloads once to the controller's cache, and hands over what a host lacks.
    type: str
    choices: [host, controller]
    default: host
  archives:
    description: Paths on the host of zips that were handed over, by the plugin's id. The action plugin sets it.
    type: dict
    default: {}
  directory:
    description: Where sets are.
    type: path
    default: /opt/gpufleet/grafana-plugins
  prune:
    description: Remove all other sets, once nobody needs them for the way back.
    type: bool
    default: false
requirements:
  - python >= 3.9 on the host
"""

EXAMPLES = r"""
- name: A plugin
  gpufleet.monitoring.grafana_plugins:
    plugins:
      - id: grafana-clock-panel
        version: 3.0.0
        sha256: "{{ sum_of_the_zip }}"
  register: set_of_plugins
"""

RETURN = r"""
path:
  description: Directory of the set, empty for no plugins.
  returned: always
  type: str
  sample: /opt/gpufleet/grafana-plugins/5f0c1d2e3b4a5968
others:
  description: Directories of the other sets that are there.
  returned: always
  type: list
  elements: str
  sample: []
"""

import hashlib
import json
import os
import shutil
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.grafana_plugins import plugin_release
from ..module_utils.native_service import release as releases

PLUGIN_OPTIONS = {
    "id": {"type": "str", "required": True},
    "version": {"type": "str", "required": True},
    "sha256": {"type": "raw", "required": True},
    "url": {"type": "str"},
}
ARGUMENTS = {
    "plugins": {"type": "list", "elements": "dict", "required": True, "options": PLUGIN_OPTIONS},
    "mirror": {"type": "str", "default": "https:/"},
    "delivery": {"type": "str", "choices": ["host", "controller"], "default": "host"},
    "archives": {"type": "dict", "default": {}},
    "directory": {"type": "path", "default": "/opt/gpufleet/grafana-plugins"},
    "prune": {"type": "bool", "default": False},
}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    os.umask(0o022)
    try:
        module.exit_json(**_run(module))
    except (releases.ReleaseError, ValueError, OSError) as error:
        module.fail_json(f"grafana_plugins: {error}. The plugins that are in use stay as they are")


def _run(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    directory = Path(params["directory"])
    plugins = {row["id"]: plugin_release(row, params["mirror"], releases.architecture()) for row in params["plugins"]}
    if len(plugins) != len(params["plugins"]):
        raise ValueError("a plugin is listed twice")
    wanted = directory / _name(plugins) if plugins else None
    missing = wanted is not None and not wanted.exists()
    others = [path for path in sorted(directory.glob("*")) if path != wanted]
    prune = bool(others and params["prune"])
    if missing and not module.check_mode:
        if params["delivery"] == "controller" and not params["archives"]:
            return {"changed": False, "wants_archives": releases.architecture()}
        assert wanted is not None
        _install(plugins, wanted, params["archives"])
    if prune and not module.check_mode:
        _remove(others, directory)
        others = []
    return {"changed": missing or prune, "path": str(wanted or ""), "others": [str(path) for path in others]}


def _name(plugins: t.Mapping[str, releases.Release]) -> str:
    """A set is what it holds."""
    content = sorted((name, release.version, release.sha256) for name, release in plugins.items())
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _install(plugins: t.Mapping[str, releases.Release], target: Path, archives: t.Mapping[str, str]) -> None:
    """Make the set, which appears complete or not at all. Nothing is added to a plugin: Grafana would refuse it."""
    new = target.with_name(f".{target.name}")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        for name, release in plugins.items():
            if name in archives:
                archive = Path(archives[name])
                releases.verify(archive, t.cast(str, release.sha256), f"the delivered {name}")
            else:
                archive, _ = releases.fetch(release, new / ".download")
            content = releases.unpack(archive, new / ".unpacking", f"{name}-{release.version}.zip")
            _check(name, content)
            content.rename(new / name)
            (new / name).chmod(0o755)
            shutil.rmtree(new / ".unpacking", ignore_errors=True)
        shutil.rmtree(new / ".download", ignore_errors=True)
        new.chmod(0o755)
        new.rename(target)
    except BaseException:
        _remove([new], target.parent)
        raise


def _check(name: str, content: Path) -> None:
    """A zip of something else would lie there, and nobody would know why it does not show."""
    for path in (content / "plugin.json", content / "dist" / "plugin.json"):
        if path.exists():
            found = json.loads(path.read_text()).get("id")
            if found != name:
                raise ValueError(f"the zip of {name} holds the plugin {found}")
            return
    raise ValueError(f"the zip of {name} holds no plugin.json")


def _remove(paths: t.Iterable[Path], directory: Path) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


if __name__ == "__main__":
    main()
