# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files of this host: how they are, and as they are to be again, with owner and mode."""

from __future__ import annotations

import base64
import errno
import glob
import grp
import os
import pwd
import shutil
import typing as t
from pathlib import Path

from ..files import write_file
from .plan import File, FileState


def matching(patterns: t.Iterable[str]) -> tuple[str, ...]:
    """The files that there are of some patterns; a link is none."""
    found = (path for pattern in patterns for path in sorted(glob.glob(pattern)))  # noqa: PTH207 (they begin at /)
    return tuple(path for path in found if Path(path).is_file() and not Path(path).is_symlink())


def files_below(directory: Path) -> list[Path]:
    """Return all files in a directory and those below it."""
    return [path for path in directory.rglob("*") if path.is_file()]


def copy(source: Path, target: Path) -> None:
    """Copy a file with its owner and mode, and see it on the disk.

    One of the two is in a directory of the service's user, who may have put links there.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    from_it = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    to_it = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(from_it, "rb") as old, os.fdopen(to_it, "wb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        status = os.fstat(old.fileno())
        os.fchown(new.fileno(), status.st_uid, status.st_gid)
        os.fchmod(new.fileno(), status.st_mode & 0o777)
        new.flush()
        os.fsync(new.fileno())
    fresh.replace(target)


def duplicate(source: Path, target: Path) -> None:
    """Copy a file with its owner and mode, or a link as one."""
    if not source.is_symlink():
        copy(source, target)
        return
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.symlink_to(source.readlink())


def delete(path: Path) -> None:
    """Remove a file, a link, or a directory with all that is in it."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def read_state(path: Path) -> FileState | None:
    """Return a file as it is, or None where there is none; a link counts as what it leads to."""
    try:
        status = path.stat()
        return FileState(path.read_bytes(), status.st_mode & 0o7777, _user(status.st_uid), _group(status.st_gid))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def place(file: File) -> None:
    """Put a file where it belongs."""
    restore(Path(file.path), FileState(file.content, file.mode, file.owner, file.group))


def restore(path: Path, state: FileState | None) -> None:
    """Make ``path`` as ``state`` says; None means that there is no such file."""
    if state is None:
        path.unlink(missing_ok=True)
        return
    uid = int(state.owner) if state.owner.isdigit() else pwd.getpwnam(state.owner).pw_uid
    gid = int(state.group) if state.group.isdigit() else grp.getgrnam(state.group).gr_gid
    write_file(path, state.content, state.mode, uid, gid)


def frozen(state: FileState | None) -> dict[str, t.Any] | None:
    """Return a state as JSON can hold it."""
    return {**state._asdict(), "content": base64.b64encode(state.content).decode()} if state else None


def thawed(known: dict[str, t.Any] | None) -> FileState | None:
    """Return a state that was frozen."""
    return FileState(**{**known, "content": base64.b64decode(known["content"])}) if known else None
