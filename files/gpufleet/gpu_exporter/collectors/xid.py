"""XID errors, counted by GPU and code, from NVML's events and the kernel's log.

Both tell of the same errors, and either may miss some: NVML is deaf while a GPU is lost, the log may not be readable.
Each is counted by itself, and the larger count is served, which never counts an error twice and never goes back.
"""

from __future__ import annotations

import os
import re
import time
import typing as t

from .. import metrics, pci
from ..collector import CollectorError, Readings, State
from ..pci import sysfs_bus_id

if t.TYPE_CHECKING:
    from ..context import Context

KNOWN_CODES = (
    8, 13, 31, 32, 38, 43, 44, 45, 46, 48, 61, 62, 63, 64, 65, 68, 69, 73, 74, 79, 92, 94, 95, 109, 110, 119, 120, 121,
    122, 123, 124, 136, 137, 140, 143, 144, 145, 149, 154,
)  # fmt: skip
"""Codes that are served as 0 before they occur: those of NVIDIA's XID catalogue that operators meet."""

# "NVRM: Xid (PCI:0000:65:00): 79, pid=1234, name=python, GPU has fallen off the bus."
# At the line's beginning: further on, it may be the name of somebody's program, of which the kernel says that it
# crashed.
_LOG_LINE = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2})(?:\.\d)?\): (\d{1,4})(?!\d)")

_CODES_LIMIT = 100
"""Most codes of one GPU that are counted; NVIDIA's catalogue has fewer that a card ever shows."""
_KERNEL = 0
"""The facility of what the kernel itself says (syslog(3)); programs write into its log as another one."""


def parse_kernel_message(message: str) -> tuple[str, int] | None:
    """Return bus id (as sysfs writes it) and code of a line of the kernel's log, None for any other line."""
    match = _LOG_LINE.match(message)
    if match is None:
        return None
    return sysfs_bus_id(f"{match.group(1)}.0"), int(match.group(2))


class Tally:
    """Errors by bus id and code as each source saw them."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[tuple[str, int], int]] = {"nvml": {}, "log": {}}
        self.last: dict[tuple[str, int], float] = {}
        self.newest: dict[str, int] = {}
        self.errors = 0
        """Grows with each error."""

    def saw(self, source: str, bus_id: str, code: int) -> None:
        """Count one error."""
        counts, before = self.counts[source], self.count(bus_id, code)
        if before == 0 and len(self.codes(bus_id)) >= _CODES_LIMIT:
            return
        counts[bus_id, code] = counts.get((bus_id, code), 0) + 1
        if self.count(bus_id, code) > before:  # else the other source told of it already
            self.errors += 1
            self.last[bus_id, code] = time.time()
            self.newest[bus_id] = code

    def count(self, bus_id: str, code: int) -> int:
        """Return how often the error was seen."""
        return max(counts.get((bus_id, code), 0) for counts in self.counts.values())

    def codes(self, bus_id: str) -> list[int]:
        """Return the codes seen on a GPU."""
        return sorted({code for counts in self.counts.values() for seen, code in counts if seen == bus_id})

    def state(self) -> State:
        """Return everything, as JSON has it."""
        return {
            "counts": {
                source: [[bus_id, code, count] for (bus_id, code), count in counts.items()]
                for source, counts in self.counts.items()
            },
            "last": [[bus_id, code, when] for (bus_id, code), when in self.last.items()],
            "newest": self.newest,
        }

    def restore(self, state: State) -> None:
        """Count on."""
        self.errors += 1
        for source, rows in state["counts"].items():
            self.counts[source] = {(bus_id, code): count for bus_id, code, count in rows}
        self.last = {(bus_id, code): when for bus_id, code, when in state["last"]}
        self.newest = dict(state["newest"])


class KernelLog:
    """New records of /dev/kmsg, without waiting. The format is in the kernel's Documentation/ABI/testing/dev-kmsg."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: int | None = None
        self.sequence: int | None = None
        """Number of the last record that was read; None until then."""

    def messages(self) -> t.Iterator[str]:
        """Yield what the kernel says and is new. Raises OSError."""
        if self._file is None:
            self._file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        first, self.sequence = self.sequence is None, -1 if self.sequence is None else self.sequence
        for line in self._lines(self._file):
            head, _, message = line.partition(";")
            # What was before the exporter started is not counted. Its last number is, for the process after this one.
            if self._is_new(head) and not first:
                yield message

    @staticmethod
    def _lines(file: int) -> t.Iterator[str]:
        while True:
            try:
                record = os.read(file, 8192)  # one record a read
            except BlockingIOError:
                return
            except BrokenPipeError:  # records were overwritten before they were read
                continue
            if not record:
                return
            yield from record.decode(errors="replace").splitlines()

    def _is_new(self, head: str) -> bool:
        fields = head.split(",")
        if len(fields) < 3 or not fields[0].isdigit() or not fields[1].isdigit():
            return False
        number = int(fields[1])
        if self.sequence is not None and number <= self.sequence:
            return False  # a new process reads the log from its beginning
        self.sequence = number
        return int(fields[0]) >> 3 == _KERNEL


class XidCollector:
    """Counts what NVML and the kernel's log tell."""

    name = "xid"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tally = Tally()
        self._said: dict[str, list[list[t.Any]]] = {}
        self._said_of: t.Any = None
        self._log = KernelLog(context.config.xid.kernel_log_path) if context.config.xid.kernel_log else None

    def collect(self, out: Readings) -> None:
        """Count what is new since the last time. Raises CollectorError before NVML has been asked."""
        if self._log is not None:
            try:
                for message in self._log.messages():
                    error = parse_kernel_message(message)
                    if error is not None:
                        self._tally.saw("log", *error)
            except OSError as error:
                out.failed("kernel log", error)
        for bus_id, code in self._context.inventory.take_xids():
            self._tally.saw("nvml", bus_id, code)
        if not self._context.inventory.wait():
            raise CollectorError("NVML has not answered yet")
        self._report(out)

    def state(self) -> State:
        """Return the counts, and how far the log was read."""
        return {**self._tally.state(), "sequence": self._log and self._log.sequence}

    def restore(self, state: State) -> None:
        """Count on."""
        self._tally.restore(state)
        if self._log is not None:
            self._log.sequence = state["sequence"]

    def _report(self, out: Readings) -> None:
        """Say again what was said before as long as nothing has happened: errors are rare, and codes are many."""
        store = self._context.inventory
        gpus = [(bus_id, store.labels_of(bus_id)) for bus_id in [*store.known, *self._unnamed()]]
        if self._said_of != (gpus, self._tally.errors):
            said = Readings()
            self._count(gpus, said)
            self._said, self._said_of = said.families, (gpus, self._tally.errors)
        out.again(self._said)

    def _unnamed(self) -> list[str]:
        """Return GPUs with errors that NVML has never named: they may have died before it came up."""
        seen = {bus_id for counts in self._tally.counts.values() for bus_id, _ in counts}
        strangers = sorted(seen - self._context.inventory.known.keys())
        try:
            on_bus = {gpu.bus_id for gpu in pci.gpus(self._context.config.paths.sysfs)} if strangers else set()
        except OSError:
            return []
        return [bus_id for bus_id in strangers if bus_id in on_bus]

    def _count(self, gpus: t.Sequence[tuple[str, tuple[str, ...]]], out: Readings) -> None:
        for bus_id, labels in gpus:
            for code in sorted({*KNOWN_CODES, *self._tally.codes(bus_id)}):
                out.add(metrics.XID_EVENTS, self._tally.count(bus_id, code), *labels, str(code))
                out.add(metrics.XID_LAST, self._tally.last.get((bus_id, code)), *labels, str(code))
            if self._context.config.dcgm.enabled:
                out.add(metrics.XID_ERRORS, self._tally.newest.get(bus_id, 0), *labels)
