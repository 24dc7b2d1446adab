# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A copy of a mirror on the host that serves it: what it lacks, and how that comes in."""

from __future__ import annotations

import json
import shutil
import typing as t
from collections.abc import Mapping, Sequence
from pathlib import Path

from .files import remove_empty
from .native_service.release import sha256_of

MANIFEST = ".gpufleet-mirror.json"  # what was copied here, to know later what may go


class CopyError(Exception):
    """A file cannot be taken. The text says which and why."""


def is_path(path: t.Any) -> bool:
    """Whether it names a file in the mirror: relative, and with no part that is empty or leads elsewhere."""
    return isinstance(path, str) and "\0" not in path and not {"", ".", ".."} & {*path.split("/")}


def missing(directory: Path, files: Mapping[str, str]) -> list[str]:
    """Return those of ``files``, path to SHA-256, that are not there or are not as they should be."""
    return [path for path, sha256 in files.items() if _sum(directory / path) != sha256]


def _sum(file: Path) -> str:
    return sha256_of(file) if file.is_file() and not file.is_symlink() else ""


def others(directory: Path, files: Mapping[str, str]) -> list[str]:
    """Return what was copied here earlier, and does not belong to the mirror any more. Raises CopyError."""
    try:
        known = json.loads((directory / MANIFEST).read_text())
    except (OSError, ValueError):
        return []
    if not isinstance(known, list) or not all(is_path(path) for path in known):
        raise CopyError(f"{directory / MANIFEST} names what is no file of a mirror: somebody changed it; remove it")
    return [path for path in known if path not in files and (directory / path).is_file()]


def place(directory: Path, files: Mapping[str, str], arrived: Mapping[str, str]) -> None:
    """Take in what arrived, path to where it lies. Each file is verified and has its name at once. Raises CopyError."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    for path, source in arrived.items():
        if not is_path(path) or path not in files:
            raise CopyError(f"{path} is no file of this mirror")
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".{target.name}.new")
        shutil.copyfile(source, new)
        if sha256_of(new) != files[path]:
            new.unlink()
            raise CopyError(f"{path} did not arrive as the lock has it: expected sha256 {files[path]}")
        new.chmod(0o644)
        new.replace(target)


def note(directory: Path, paths: Sequence[str]) -> None:
    """Write down what belongs to the mirror."""
    new = directory / f"{MANIFEST}.new"
    new.write_text(json.dumps(sorted(paths), indent=1) + "\n")
    new.replace(directory / MANIFEST)


def remove(directory: Path, paths: t.Iterable[str]) -> None:
    """Remove files, and directories that are empty then."""
    for path in paths:
        (directory / path).unlink(missing_ok=True)
        remove_empty(parent for parent in (directory / path).parents if directory in parent.parents)
