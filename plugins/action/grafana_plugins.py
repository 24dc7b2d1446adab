# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs the module, and hands it the plugins' zips where the host asks for them."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.grafana_plugins import plugin_release
from ..module_utils.native_service import release as releases
from ..plugin_utils.delivery import hand_over
from .native_service import cached

MODULE = "gpufleet.monitoring.grafana_plugins"


class ActionModule(ActionBase):
    """grafana_plugins on the controller's side."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module; when it answers that it wants archives, deliver them and run it again."""
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        result = t.cast("dict[str, t.Any]", self._execute_module(MODULE, args, task_vars=task_vars))
        architecture = result.pop("wants_archives", None)
        if architecture is None:
            return result
        if args.get("delivery") != "controller" or architecture not in releases.ARCHITECTURES.values():
            raise AnsibleActionFail(f"the host asks for plugins that the task does not hand over ({architecture!r})")
        mirror = args.get("mirror") or "https:/"
        zips = {plugin["id"]: cached(plugin_release(plugin, mirror, architecture))[0] for plugin in args["plugins"]}
        there = hand_over(self, {f"{name}.zip": archive for name, archive in zips.items()})
        args["archives"] = {name: there[f"{name}.zip"] for name in zips}
        return t.cast("dict[str, t.Any]", self._execute_module(MODULE, args, task_vars=task_vars))
