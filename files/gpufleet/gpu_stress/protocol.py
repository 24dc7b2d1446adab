"""What parent and worker say to each other: lines of JSON, orders on the worker's stdin, reports on its stdout.

The first line is the order. "go" begins the load. The end of the stream, which is also how a parent's death looks, ends
it.
"""

from __future__ import annotations

import json
import typing as t


class Order(t.NamedTuple):
    """What one worker has to do."""

    uuid: str
    mig: bool
    frameworks: list[str]
    target: float
    """Utilisation, 0 to 1."""
    memory: int | None
    """Bytes that are used with all that belongs to it; None: as few as the load needs."""
    duration: float
    interval: float
    """Seconds from one sample to the next."""
    force: bool
    """Whether it may be with others on the GPU."""


class Ready(t.NamedTuple):
    """The GPU is prepared, and idle."""

    framework: str
    kernel_seconds: float


class Sample(t.NamedTuple):
    """One interval. None is what nobody measures."""

    measured: float | None
    """NVML's utilisation, the mean of what was read."""
    duty: float
    """What the control loop allows."""
    busy: float
    """What the kernels took, by the worker's clock."""
    at_limit: bool
    taken: int | None
    """Bytes that the GPU's used memory has grown by since before."""
    used: int | None
    total: int | None
    watts: float | None
    celsius: float | None


class Note(t.NamedTuple):
    """Something that the user should know."""

    text: str


class End(t.NamedTuple):
    """The last word. status is an Exit."""

    status: int
    text: str


Report = t.Union[Ready, Sample, Note, End]
_KINDS: dict[str, t.Callable[..., Report]] = {kind.__name__: kind for kind in (Ready, Sample, Note, End)}


def encode(message: Order | Report) -> bytes:
    """Return a line."""
    return json.dumps([type(message).__name__, message._asdict()]).encode() + b"\n"


def decode_order(line: bytes) -> Order:
    """Undo encode."""
    return Order(**json.loads(line)[1])


def decode_report(line: bytes) -> Report:
    """Undo encode. Raises ValueError, TypeError, KeyError for what is no report."""
    kind, content = json.loads(line)
    return _KINDS[kind](**content)
