"""What systemd says of units."""

from __future__ import annotations

import datetime
import os
import subprocess
import time
import typing as t

from .ask import Unanswered

_PROPERTIES = {
    "LoadState": "load",
    "ActiveState": "active",
    "SubState": "sub",
    "Result": "result",
    "UnitFileState": "file",
    "NRestarts": "restarts",
    "StateChangeTimestampMonotonic": "changed",
    "ActiveEnterTimestamp": "started",
    "ActiveEnterTimestampMonotonic": "entered",
    "CanReload": "can_reload",
    "NeedDaemonReload": "needs_daemon_reload",
}
_UP = ("active", "reloading")


class Unit(t.NamedTuple):
    """Properties of org.freedesktop.systemd1."""

    load: str = "loaded"
    active: str = "active"
    sub: str = "running"
    result: str = "success"
    file: str = "enabled"
    restarts: int = 0
    since: float = 0
    """Seconds in its state; a reload is none of its own."""
    started: float | None = None
    """When it became active, in whole seconds since the epoch."""
    can_reload: bool = False
    needs_daemon_reload: bool = False

    @property
    def runs(self) -> bool:
        """Whether it is up."""
        return self.active in _UP

    @property
    def off(self) -> bool:
        """Whether it is stopped, and not started at boot either: the inventory's state "stopped"."""
        return self.active == "inactive" and self.file == "disabled"


def show(units: t.Sequence[str], within: float) -> dict[str, Unit]:
    """Return the states of units. Raises Unanswered."""
    if not units:
        return {}
    # Times are in words only, in the reader's zone and language.
    environment = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}
    words = ["systemctl", "show", f"--property={','.join(_PROPERTIES)}", "--", *units]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=within, env=environment, check=True)
    except subprocess.TimeoutExpired as error:
        raise Unanswered(f"systemd does not answer within {within:g} s") from error
    except subprocess.CalledProcessError as error:
        raise Unanswered(f"systemctl show failed: {error.stderr.strip()}") from error
    except OSError as error:
        raise Unanswered(f"systemctl: {error.strerror}") from error
    return dict(zip(units, parse(done.stdout, time.monotonic())))


def parse(output: str, now: float) -> list[Unit]:
    """Return the units of ``systemctl show``, in its order. ``now`` is the monotonic clock's."""
    return [_unit(block, now) for block in output.strip("\n").split("\n\n")]


def _unit(block: str, now: float) -> Unit:
    lines = (line.partition("=")[::2] for line in block.splitlines())
    said = {_PROPERTIES[name]: value for name, value in lines if name in _PROPERTIES}
    active = said.get("active", "")
    changed = said.get("entered" if active in _UP else "changed")
    return Unit(
        load=said.get("load", ""),
        active=active,
        sub=said.get("sub", ""),
        result=said.get("result", ""),
        file=said.get("file", ""),
        restarts=int(said.get("restarts") or 0),
        since=max(0, now - int(changed or 0) / 1e6),
        started=_moment(said.get("started", "")),
        can_reload=said.get("can_reload") == "yes",
        needs_daemon_reload=said.get("needs_daemon_reload") == "yes",
    )


def _moment(text: str) -> float | None:
    """Such as: Tue 2026-11-24 12:57:31 UTC."""
    try:
        parsed = datetime.datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return None
    return parsed.replace(tzinfo=datetime.timezone.utc).timestamp()
