# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs the module, and hands it the files that the host lacks."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..plugin_utils.delivery import hand_over
from ..plugin_utils.mirror.store import MirrorError, read_lock

MODULE = "gpufleet.monitoring.copy_mirror"


class ActionModule(ActionBase):
    """copy_mirror on the controller's side."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module; when it answers that it wants files, deliver them and run it again."""
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        try:
            args["files"] = {path: entry["sha256"] for path, entry in read_lock(Path(args["lock_file"])).files.items()}
        except MirrorError as error:
            raise AnsibleActionFail(str(error)) from None
        result = self._call(args, task_vars)
        wanted = result.pop("wants_files", None)
        if wanted is None:
            return result
        args["arrived"] = self._deliver(Path(args["source"]), [path for path in wanted if path in args["files"]])
        result = self._call(args, task_vars)
        if result.pop("wants_files", None):
            raise AnsibleActionFail(f"files of the mirror do not stay as they are copied to {args['directory']}")
        return result

    def _deliver(self, source: Path, paths: list[str]) -> dict[str, str]:
        missing = [path for path in paths if not (source / path).is_file()]
        if missing:
            raise AnsibleActionFail(f"{source} lacks {', '.join(missing)}: run playbooks/mirror.yml there first")
        there = hand_over(self, {f"file{number}": source / path for number, path in enumerate(paths)})
        return dict(zip(paths, there.values()))

    def _call(self, args: dict[str, t.Any], task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", self._execute_module(MODULE, args, task_vars=task_vars))
