"""Files and links that are whole at any time."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, text: str, mode: int) -> None:
    """Replace a file in one step; it never has a wider mode than ``mode``."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def point(link: Path, target: Path | None) -> None:
    """Let ``link`` point to ``target``, in one step; None takes it away."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    if target is None:
        link.unlink(missing_ok=True)
        return
    fresh.symlink_to(os.path.relpath(target, link.parent))
    fresh.replace(link)
