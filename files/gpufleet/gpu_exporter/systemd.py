"""What systemd was told, read from where it notes it (systemd.unit(5)); asking it would need its socket."""

from __future__ import annotations

import os


def is_enabled(unit: str, directory: str) -> bool:
    """Whether a service is started at boot, and nobody has masked it. Asked twice a second, so it must cost nothing."""
    if not unit or not os.path.lexists(f"{directory}/multi-user.target.wants/{unit}"):
        return False
    return os.path.realpath(f"{directory}/{unit}") != os.devnull
