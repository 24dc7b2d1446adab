"""Values as people and Prometheus write them."""

from __future__ import annotations

import datetime
import re
import typing as t

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
SHOWN = 5
"""How many of a list people are shown."""


def seconds(duration: str) -> float:
    """Return a duration of Prometheus', such as 1m30s, in seconds."""
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9.]+)(ms|[smhdwy])", duration))


def moment(text: str) -> float | None:
    """Return a time of Go's, such as 2026-11-24T13:04:05.016876105Z, in seconds since the epoch; None for never."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        raise ValueError(f"{text!r} is not a time")
    if text.startswith("0001-"):
        return None
    whole = datetime.datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    return whole.timestamp() + float(match[2] or 0)


def span(length: float) -> str:
    """Return seconds as people say them: 90 s, 12 min, 3 h, 5 d."""
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if length < limit:
            return f"{length / size:.0f} {unit}"
    return f"{length / 86400:.0f} d"


def size(number: float) -> str:
    """Return bytes as people say them, in powers of 1024, which is what Prometheus calls GB."""
    power = 0
    while number >= 1023.5 and power < len(_BYTES) - 1:
        number, power = number / 1024, power + 1
    return f"{number:.0f} {_BYTES[power]}" if number >= 9.95 or not power else f"{number:.1f} {_BYTES[power]}"


def plain(text: str) -> str:
    """Return a text of somebody else's in one line, without what would move a terminal's cursor."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


def some(items: t.Sequence[str]) -> tuple[str, ...]:
    """Return the first of many, and how many more there are."""
    rest = len(items) - SHOWN
    return (*items[:SHOWN], f"and {rest} more: --json has them all") if rest > 0 else tuple(items)
