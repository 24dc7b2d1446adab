# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files and directories, changed so that nobody ever sees half of a change."""

from __future__ import annotations

import contextlib
import os
import typing as t
from pathlib import Path


def write_file(path: Path, content: bytes, mode: int, uid: int = 0, gid: int = 0) -> None:
    """Replace ``path`` in one step, so that a reader sees the old content or the new. Raises OSError."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as sink:
        sink.write(content)
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)
        sink.flush()
        os.fsync(descriptor)
    fresh.replace(path)


def remove_empty(paths: t.Iterable[str | Path]) -> None:
    """Remove directories, but not what others put there. What is no directory stays."""
    for path in sorted(map(str, paths), reverse=True):  # those within others first
        with contextlib.suppress(OSError):
            Path(path).rmdir()
