"""One line of the log: ``{"timestamp": "2026-11-23T09:14:03Z", "event_type": "gpu.allocate", ...}``."""

from __future__ import annotations

import datetime
import functools
import json
import re
import typing as t

from ..text import label

LONGEST = 4000
"""Bytes. DS01 writes no longer line, so that a line is written in one piece."""

_LONGEST_TYPE = 100
_UNIX_EPOCH = datetime.date(1970, 1, 1).toordinal()
_DAY = 86400
# RFC 3339, and the spellings of Python's isoformat() and of date(1).
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,][0-9]{1,9})?"
    r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))?"
)


class Event(t.NamedTuple):
    """What counts of an event."""

    second: int
    """In Unix time; the part of a second is dropped."""
    kind: str


def parse(line: bytes) -> Event | None:
    """Return the event of a line, None when it is none."""
    if len(line) > LONGEST:
        return None
    try:
        content = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    kind, when = content.get("event_type"), content.get("timestamp")
    if not isinstance(kind, str) or not 0 < len(kind) <= _LONGEST_TYPE or not isinstance(when, str):
        return None
    second = unix_time(when)
    return None if second is None else Event(second, label(kind))


def unix_time(timestamp: str) -> int | None:
    """Return the second that a timestamp names, None for what is no timestamp. Without an offset it is UTC."""
    match = _TIMESTAMP.fullmatch(timestamp)
    if match is None:
        return None
    date, hour, minute, second, sign, hours, minutes = match.groups()
    day = _day(date)
    if (
        day is None or max(hour, hours or "") > "23" or max(minute, minutes or "") > "59" or second > "60"
    ):  # 60: a leap second
        return None
    offset = (int(hours) * 60 + int(minutes)) * 60 if sign else 0
    found = day * _DAY + int(hour) * 3600 + int(minute) * 60 + int(second)
    return found - (offset if sign == "+" else -offset)


@functools.lru_cache(maxsize=4)
def _day(date: str) -> int | None:
    """Return the days since 1970. A log has few dates."""
    try:
        return datetime.date(int(date[:4]), int(date[5:7]), int(date[8:])).toordinal() - _UNIX_EPOCH
    except ValueError:
        return None
