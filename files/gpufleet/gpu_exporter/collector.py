"""What a collector is: one subject, read at one interval."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from .metrics import Family

# A state that a collector hands on to the next sampling process, as JSON has it.
State = t.Any


LANES = {
    "inventory": "nvml",
    "gpu": "nvml",
    "dcgm": "nvml",
    "presence": "bus",
    "pcie": "bus",
    "xid": "bus",
    "allocations": "docker",
    "events": "host",
    "system": "host",
    "ipmi": "ipmi",
}
"""Collectors of the same lane run one after the other in one thread: NVML calls are serialised, and a lane that blocks
holds up no other."""


class CollectorError(Exception):
    """A reading failed as a whole. The message is for the operator."""


class Readings:
    """The values of one reading, and what of it failed."""

    def __init__(self) -> None:
        self.families: dict[str, list[list[t.Any]]] = {}
        self.failures: list[str] = []
        self.dropped = 0

    def add(self, family: Family, value: float | None, *labels: str) -> None:
        """Add one value with its labels in the family's order. None means that it could not be read: it is absent."""
        assert len(labels) == len(family.labels), family.name
        if value is not None:
            self.families.setdefault(family.name, []).append([value, *labels])

    def again(self, families: t.Mapping[str, list[list[t.Any]]]) -> None:
        """Add families as they were in an earlier reading."""
        self.families.update(families)

    def bound(self, limit: int) -> None:
        """Keep so many series and count the others as dropped."""
        left = limit
        for name, rows in self.families.items():
            self.dropped += max(0, len(rows) - left)
            self.families[name] = rows[:left]
            left -= len(self.families[name])
        self.families = {name: rows for name, rows in self.families.items() if rows}

    def failed(self, subject: str, error: object) -> None:
        """Say that a part of the reading failed while the rest goes on."""
        self.failures.append(f"{subject}: {error}")


class Collector(t.Protocol):
    """One subject."""

    name: str

    def collect(self, out: Readings) -> None:
        """Read once. Raises CollectorError when nothing could be read; parts that fail go to ``out.failed``."""

    def state(self) -> State:
        """Return what the next sampling process has to go on from (counters), None for nothing."""

    def restore(self, state: State) -> None:
        """Go on from a state of a process before."""
