"""The sampling process: reads everything, serves nothing, and may be killed at any time.

Each lane is a thread, so that a driver that blocks one lane leaves the others running.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import socket
import sys
import threading
import time
import traceback
import typing as t

from . import collectors, config, protocol
from .collector import LANES, CollectorError, Readings
from .collectors.inventory import DriverReplaced
from .context import Context
from .inventory import Store

if t.TYPE_CHECKING:
    from .collector import Collector


def main() -> int:
    """Do what the order on standard input says, until that is closed."""
    reports = _take_stdout()
    order = protocol.decode_order(sys.stdin.buffer.readline())
    settings = config.load(order.config) if order.config else config.Config()
    now = time.monotonic()
    quarantine = {bus_id: now + seconds for bus_id, seconds in order.quarantine.items()}
    context = Context(settings, Store(socket.gethostname()), quarantine)
    if order.board >= 0:
        context.progress = protocol.Board(order.board).write
    active = collectors.build(context)
    for collector in active:
        if order.states.get(collector.name) is not None:
            collector.restore(order.states[collector.name])
    if "nvml" in order.suspended:
        collectors.assume_unresponsive(context, order.reason)
    lanes = [
        _Lane(context, [collector for collector in active if LANES[collector.name] == lane], reports, order)
        for lane in dict.fromkeys(LANES[collector.name] for collector in active)
    ]
    _settle()
    for lane in lanes:
        lane.start()
    if order.once:
        for lane in lanes:
            lane.join()
    else:
        sys.stdin.buffer.read()  # ends when the server does
    os._exit(0)  # a lane may be held by the driver


def _settle() -> None:
    """What is loaded now stays: it is not looked at again for garbage, and what loading it took is given back.

    Compiling the NVML binding out of a zipapp leaves 10 MiB.
    """
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


class _Reports:
    """The way to the server, one report at a time."""

    def __init__(self, file: t.BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def send(self, report: protocol.Report) -> None:
        line = protocol.encode(report)
        with self._lock:
            self._file.write(line)
            self._file.flush()


def _take_stdout() -> _Reports:
    """Keep standard output for reports: what a driver's library prints must not get in between."""
    file = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return _Reports(file)


class _Lane(threading.Thread):
    """Collectors that run one after the other, each at its interval."""

    def __init__(
        self, context: Context, active: t.Sequence[Collector], reports: _Reports, order: protocol.Order
    ) -> None:
        super().__init__(name=LANES[active[0].name], daemon=True)
        self._context = context
        self._collectors = active
        self._reports = reports
        self._once = order.once
        self._delay = order.suspended.get(self.name, 0.0)
        self._reported: dict[str, dict[str, list[list[t.Any]]]] = {}
        """Collector to the families of its last good reading."""

    def run(self) -> None:
        """Read until the process ends."""
        try:
            time.sleep(self._delay)
            self._loop()
        except DriverReplaced:
            os._exit(protocol.EXIT_DRIVER_REPLACED)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def _loop(self) -> None:
        due = dict.fromkeys(range(len(self._collectors)), time.monotonic())
        while True:
            number = min(due, key=due.__getitem__)
            time.sleep(max(0.0, due[number] - time.monotonic()))
            self._read(self._collectors[number])
            if self._once:
                del due[number]
                if not due:
                    return
            else:  # a reading that came late does not make the next ones come in a crowd
                due[number] = max(due[number] + self._interval(self._collectors[number]), time.monotonic())

    def _interval(self, collector: Collector) -> float:
        return self._context.config.section(collector.name).interval

    def _read(self, collector: Collector) -> None:
        self._reports.send(protocol.Report(collector.name, begins=True))
        out, error, began = Readings(), None, time.monotonic()
        try:
            collector.collect(out)
        except CollectorError as failure:
            error = str(failure)
        except DriverReplaced:
            raise
        except Exception as failure:
            traceback.print_exc()
            error = f"{type(failure).__name__}: {failure}"
        if self.name == "nvml":
            self._context.progress("")
        seconds = time.monotonic() - began
        out.bound(self._context.config.server.series_limit)
        families = None if error else self._news(collector.name, out.families)
        state = collector.state()
        self._reports.send(
            protocol.Report(collector.name, False, seconds, families, out.failures, out.dropped, error, state)
        )

    def _news(self, collector: str, families: dict[str, list[list[t.Any]]]) -> dict[str, list[list[t.Any]] | None]:
        """Leave out what has not changed: most of what a GPU says is the same each time."""
        before, self._reported[collector] = self._reported.get(collector, {}), families
        return {name: None if rows == before.get(name) else rows for name, rows in families.items()}
