"""What systemd was told, read from where it notes it (systemd.unit(5)); asking it would need its socket."""

from __future__ import annotations

import os


def is_enabled(unit: str, directory: str) -> bool:
    """Whether a unit is started at boot: a target wants it, and nobody has masked it."""
    if not unit or os.path.realpath(os.path.join(directory, unit)) == os.devnull:
        return False
    try:
        targets = [entry for entry in os.listdir(directory) if entry.endswith((".wants", ".requires"))]
    except OSError:
        return False
    return any(os.path.lexists(os.path.join(directory, target, unit)) for target in targets)
