"""The cache outside the source tree: what takes long to make is made once per recipe."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from .system import locked


def cache() -> Path:
    """Say where built things live; deleting it costs a minute, never more."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("GPUFLEET_CACHE") or base / "gpufleet")


def key(recipe: object) -> str:
    """Turn a recipe into a name: another recipe is another thing, so nothing is ever outdated."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Return `target`, built if it does not exist.

    `build` fills a directory beside it, which appears under its name only when complete; the lock
    makes a second builder wait for the first one's result.
    """
    if target.exists():
        return target
    with locked(target.with_name(f".{target.name}.lock")):
        if not target.exists():
            partial = target.with_name(f".{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)  # of a builder that was killed
            partial.mkdir(parents=True)
            build(partial)
            partial.rename(target)
    return target
