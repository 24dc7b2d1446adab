# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""New configuration is checked by its program before it is live: beside the files that it will stand among."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from .health import Run
from .plan import File, Plan, Service
from .records import ServiceError


def check_files(want: Service, plan: Plan, release: Path, run: Run) -> None:
    """Run the validation commands on the new files before any of them is live. Raises ServiceError.

    ``release`` is the directory of the release that will read them.
    """
    touched = {file.path for file in plan.write} | set(plan.remove)
    for file in want.files:
        scope = _scope(want, file.path)
        if not file.validate or not (plan.switch or any(_within(path, scope) for path in touched)):
            continue
        with tempfile.TemporaryDirectory(prefix="gpufleet-") as stage:
            staged = _stage(want, plan, file, scope, Path(stage))
            places = {"{file}": str(staged), "{release}": str(release)}
            code, out, err = run([_filled(word, places) for word in file.validate])
            if code != 0:
                said = (err + out).strip().replace(f"{stage}/", "")
                raise ServiceError(f"the new {file.path} is refused, the old one stays: {said}")


def _scope(want: Service, path: str) -> str:
    """The widest of the service's own directories that holds ``path``: what the file may refer to."""
    return min((parent for parent in want.directories if _within(path, parent)), key=len, default=path)


def _stage(want: Service, plan: Plan, file: File, scope: str, stage: Path) -> Path:
    """Build what ``scope`` will look like, files that others put there included, and return where ``file`` is."""
    if scope == file.path:
        staged = stage / Path(file.path).name
        staged.write_bytes(file.content)
        return staged
    copy = stage / Path(scope).name
    if Path(scope).is_dir():
        shutil.copytree(scope, copy, symlinks=True)
    for path in plan.remove:
        if _within(path, scope):
            _staged(copy, path, scope).unlink()
    for new in want.files:
        if _within(new.path, scope):
            target = _staged(copy, new.path, scope)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # a link would lead to the host's own file
            target.write_bytes(new.content)
    return copy / Path(file.path).relative_to(scope)


def _filled(word: str, places: dict[str, str]) -> str:
    for place, value in places.items():
        word = word.replace(place, value)
    return word


def _staged(copy: Path, path: str, scope: str) -> Path:
    """Where ``path`` is in the copy of ``scope``. What links of the copy lead to is the host's own, and not touched."""
    staged = copy / Path(path).relative_to(scope)
    if not staged.parent.resolve().is_relative_to(copy.resolve()):
        raise ServiceError(
            f"{path} cannot be checked before it is live, since its directory is a link out of {scope}:"
            f" put a directory in the place of {Path(path).parent}"
        )
    return staged


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
