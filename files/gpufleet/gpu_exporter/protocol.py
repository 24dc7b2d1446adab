"""What server and sampler say to each other: one JSON object a line.

The server writes one Order to the sampler's standard input and keeps that open; its end is the sampler's end. The
sampler writes Reports.
"""

from __future__ import annotations

import json
import mmap
import os
import typing as t


class Order(t.NamedTuple):
    """What a new sampler has to know."""

    config: str
    """Path of the configuration file; empty for the defaults."""
    states: dict[str, t.Any]
    """Collector to the state that the sampler before it left."""
    suspended: dict[str, float]
    """Lane to seconds for which it must not run, because it blocked."""
    reason: str = ""
    """Why, in words."""
    once: bool = False
    """Read every collector once and end."""
    quarantine: t.Mapping[str, float] = {}
    """GPU (bus id) to seconds for which it must not be asked, because it blocked who did."""
    board: int = -1
    """Descriptor of the Board."""


class Report(t.NamedTuple):
    """A collector begins, or has ended, a reading."""

    collector: str
    begins: bool
    seconds: float = 0.0
    families: t.Mapping[str, list[list[t.Any]] | None] | None = None
    """Family to rows of value and label values; to None when they are as in the report before of this sampler."""
    failures: t.Sequence[str] = ()
    """Parts that failed."""
    dropped: int = 0
    error: str | None = None
    """Why the reading as a whole failed."""
    state: t.Any = None


class Board:
    """Memory that both processes see: which GPU is asked now, by bus id. A message for each would cost more than the
    asking.
    """

    _SIZE = 32

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, self._SIZE)

    @staticmethod
    def create() -> int:
        """Return a descriptor for a new board."""
        descriptor = os.memfd_create("gpu-exporter")
        os.ftruncate(descriptor, Board._SIZE)
        return descriptor

    def write(self, bus_id: str) -> None:
        """Say which GPU is asked now; "" for none."""
        self._memory[:] = bus_id.encode("ascii", "replace")[: self._SIZE].ljust(self._SIZE, b"\0")

    def read(self) -> str:
        """Return which one it is."""
        return self._memory[:].rstrip(b"\0").decode("ascii", "replace")


def encode(message: Order | Report) -> bytes:
    """Return a message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode_order(line: bytes) -> Order:
    """Return the order in a line. Raises ValueError."""
    return Order(*json.loads(line))


def decode_report(line: bytes) -> Report:
    """Return the report in a line. Raises ValueError, TypeError."""
    return Report(*json.loads(line))


EXIT_DRIVER_REPLACED = 3
"""The sampler ends with this when only a new process can load the new driver's library."""
