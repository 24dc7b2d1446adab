# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs the module, and hands it an archive where the host asks for one.

In the usual case, nothing to change, this is the module's one round trip and no more.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.native_service import release as releases
from ..plugin_utils.delivery import hand_over
from ..plugin_utils.mirror import pin
from ..plugin_utils.mirror.packages import with_mirror

MODULE = "gpufleet.monitoring.native_service"


class ActionModule(ActionBase):
    """native_service on the controller's side."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module; when it answers that it wants an archive, deliver that and run it again."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        args = with_mirror(self, self._pinned(dict(self._task.args), variables), variables)
        result = self._call(args, task_vars)
        architecture = result.pop("wants_archive", None)
        if architecture is None:
            return result
        archive, sha256 = cached(_release(args, architecture))
        (remote,) = hand_over(self, {archive.name: archive}).values()
        args["release"] = {**args["release"], "sha256": sha256, "archive": remote}
        return self._call(args, task_vars)

    def _pinned(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """With a lock file, hosts take what is in it."""
        lock, mirror = (self._templar.template(task_vars.get(name) or "") for name in (pin.LOCK, pin.MIRROR))
        try:
            return pin.pinned(args, Path(lock), mirror or "https:/") if lock else args
        except pin.MirrorError as error:
            raise AnsibleActionFail(f"{error}. {args.get('name')} is as it was") from None

    def _call(self, args: dict[str, t.Any], task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        # Modules log their arguments on the host; whole configuration files do not belong into the journal.
        quiet = {**(task_vars or {}), "ansible_no_target_syslog": True}
        return t.cast("dict[str, t.Any]", self._execute_module(module_name=MODULE, module_args=args, task_vars=quiet))


def _release(args: dict[str, t.Any], architecture: t.Any) -> releases.Release:
    """What the task describes. A host says its architecture and no more: it may be anybody's by now."""
    described = args.get("release") or {}
    if described.get("delivery") != "controller" or architecture not in releases.ARCHITECTURES.values():
        raise AnsibleActionFail(f"the host asks for a release that the task does not hand over ({architecture!r})")
    try:
        return releases.from_params(described, architecture)
    except releases.ReleaseError as error:
        raise AnsibleActionFail(str(error)) from error


def cached(release: releases.Release) -> tuple[Path, str]:
    """Return the archive from the controller's cache, and its SHA-256; the first host that asks fetches it."""
    directory = _cache() / hashlib.sha256(release.url.encode()).hexdigest()[:16]
    archive, known = directory / release.filename, directory / "sha256"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            sha256 = known.read_text() if known.exists() and archive.exists() else None
            if sha256 and release.sha256 in (None, sha256) and releases.sha256_of(archive) == sha256:
                return archive, sha256
            archive, sha256 = releases.fetch(release, directory, local=True)
            known.write_text(sha256)
            return archive, sha256
    except (releases.ReleaseError, OSError) as error:
        raise AnsibleActionFail(f"the controller could not fetch the release: {error}") from error


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpufleet" / "releases"
