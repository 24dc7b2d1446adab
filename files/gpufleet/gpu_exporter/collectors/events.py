"""DS01's log of events, counted over exactly the last 24 hours, and the filesystem of its state."""

from __future__ import annotations

import os
import time
import typing as t

from .. import metrics
from ..collector import CollectorError, Readings, State
from ..events import line, window
from ..events.log import Log

if t.TYPE_CHECKING:
    from ..context import Context

_JUMP = 60.0
"""Seconds by which the clock and time itself may differ from one reading to the next."""


class EventsCollector:
    """Reads what is new in the log."""

    name = "events"

    def __init__(self, context: Context) -> None:
        self._settings = context.config.events
        self._log = Log(self._settings.path)
        self._window = window.Window(self._settings.types_limit)
        self._bad_lines = 0
        self._log_seen = False
        self._clocks: tuple[float, float] | None = None

    def collect(self, out: Readings) -> None:
        """Read what is new. No log is no failure. Raises CollectorError when there are more events than fit."""
        self._add_disk(out)
        now = self._now()
        try:
            self._read(now)
        except OSError as error:
            out.failed(self._settings.path, error.strerror or error)
            return
        self._log_seen = self._log_seen or self._log.seen
        if not self._log_seen:
            return
        out.add(metrics.EVENTS_BAD_LINES, self._bad_lines)
        for name, changed in self._log.compressed:
            if changed > now - window.SECONDS:
                out.failed(name, "it is compressed: its events of the last 24 hours are not counted")
        if self._window.full:
            raise CollectorError(f"{self._settings.path} has events in too many seconds: more than {window.LARGEST}")
        if self._log.behind:  # a part of the events would be a wrong number
            out.failed(self._settings.path, "the events of the last 24 hours are not read to their end yet")
            return
        for kind, count in self._window.counts(now).items():
            out.add(metrics.EVENTS_24H, count, kind)
        out.dropped += self._window.refused

    def state(self) -> State:
        """Return the bad lines and where they were counted; the events are read again."""
        return {"bad": self._bad_lines, "counted": [[*key, place] for key, place in self._log.counted.items()]}

    def restore(self, state: State) -> None:
        """Count on."""
        self._bad_lines = state["bad"]
        self._log.counted = {(device, inode): place for device, inode, place in state["counted"]}

    def _now(self) -> int:
        """Return the time. When the clock was set, what was dropped or kept by it is read again."""
        wall, steady = time.time(), time.monotonic()
        before, self._clocks = self._clocks, (wall, steady)
        if before is not None and abs((wall - before[0]) - (steady - before[1])) > _JUMP:
            self._restart()
        return int(wall)

    def _restart(self) -> None:
        self._log.restart()
        self._window = window.Window(self._settings.types_limit)

    def _read(self, now: int) -> None:
        """Count new lines. Raises OSError."""
        self._window.forget(now)
        if self._window.full:
            return
        if self._log.follow(now - window.KEPT, min(self._window.newest, now)):
            self._restart()
            self._log.follow(now - window.KEPT, 0)
        for lines, counts in self._log.read():
            bad = sum(not self._count(words, now) for words in lines)
            self._bad_lines += bad if counts else 0
            if self._window.full:
                return

    def _count(self, words: bytes, now: int) -> bool:
        """Count one line; return whether it is good."""
        event = line.parse(words)
        if event is None:
            return not words.strip()
        return self._window.add(event, now)

    def _add_disk(self, out: Readings) -> None:
        try:
            status = os.statvfs(self._settings.state_directory)
        except FileNotFoundError:
            return
        except OSError as error:
            out.failed(self._settings.state_directory, error.strerror)
            return
        out.add(metrics.STATE_DISK, (status.f_blocks - status.f_bfree) * status.f_frsize, "used")
        # What is left for others than root, as df shows it.
        out.add(metrics.STATE_DISK, status.f_bavail * status.f_frsize, "free")
        out.add(metrics.STATE_DISK, status.f_blocks * status.f_frsize, "total")
