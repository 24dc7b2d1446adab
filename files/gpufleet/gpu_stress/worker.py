"""The process that makes the load on one GPU. It ends when its time is over, or its stdin does."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import statistics
import time
import typing as t

import pynvml

from ..gpu_exporter.nvml import GpuLost, NvmlDown
from . import backends, protocol
from .control import Controller
from .exits import Exit, Refused
from .meter import Meter
from .pacing import Pacer

T = t.TypeVar("T")

_MEASURE_SECONDS = 0.25
_WATCH_SECONDS = 2.0
"""From one look at who else is on the GPU to the next."""
_UNMEASURED = (
    "NVML measures no utilisation of it, as of all MIG devices: our kernels run for the target's part of the time, and "
    "nothing is held by feedback"
)
_FORGIVEN = 8
"""Times in a row that NVML may fail to answer."""


def main() -> None:
    """Entry point of the process. All that it has to say goes to the parent; it has no exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    parent = _Parent()
    order = parent.order()
    end = protocol.End(Exit.DONE, "")
    try:
        Worker(order, parent).run()
    except Refused as error:
        end = protocol.End(error.status, str(error))
    except backends.Unusable as error:
        end = protocol.End(Exit.NO_FRAMEWORK, str(error))
    except backends.OutOfMemory as error:
        end = protocol.End(Exit.FAILED, f"out of memory: {error}")
    except (NvmlDown, GpuLost, pynvml.NVMLError) as error:
        end = protocol.End(Exit.FAILED, f"NVML: {error}")
    except Exception as error:  # frameworks have errors of their own, which differ by version
        end = protocol.End(Exit.FAILED, f"{type(error).__name__}: {error}".partition("\n")[0])
    parent.tell(end)
    # A framework's own end may hang on a GPU that failed. The driver frees all when the process ends.
    os._exit(0)


class _Parent:
    """The two pipes. What frameworks print is no report: it goes to stderr."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._unread = b""
        self.gone = False

    def order(self) -> protocol.Order:
        """Wait for the first line."""
        while b"\n" not in self._unread:
            self._read()
            if self.gone:
                os._exit(0)
        line, _, self._unread = self._unread.partition(b"\n")
        return protocol.decode_order(line)

    def wait_for_go(self) -> bool:
        """Return False when it never comes."""
        while b"go\n" not in self._unread and not self.gone:
            self._read()
        return not self.gone

    def wants_end(self) -> bool:
        """Look, without waiting, whether the parent closed the pipe, or died."""
        if not self.gone and select.select([0], [], [], 0)[0]:
            self._read()
        return self.gone

    def tell(self, report: protocol.Report) -> None:
        """Send a report."""
        with contextlib.suppress(BrokenPipeError):  # wants_end sees it, too
            os.write(self._out, protocol.encode(report))

    def _read(self) -> None:
        part = os.read(0, 4096)
        self._unread += part
        self.gone = not part


class Worker:
    """One GPU under load."""

    def __init__(self, order: protocol.Order, parent: _Parent) -> None:
        self._order, self._parent = order, parent
        self._meter = Meter(order.uuid)
        self._controller = Controller(order.target)
        self._closed_loop = not order.mig
        self._measured: list[float] = []
        self._measured_at = self._watched_at = 0.0
        self._watches = not order.force
        self._failures = 0
        if order.mig:
            self._controller.open_loop()
            parent.tell(protocol.Note(_UNMEASURED))

    def run(self) -> None:
        """Prepare, wait for the others, load, and clean up."""
        before = self._used()
        backend = backends.load(self._order.frameworks)
        kernel = backends.calibrate(backend)
        self._hold(backend, before)
        self._parent.tell(protocol.Ready(backend.version, kernel))
        try:
            if self._parent.wait_for_go():
                self._load(Pacer(backend, kernel), before)
        finally:
            with contextlib.suppress(Exception):  # what it says of a GPU that failed is known already
                backend.release()

    def _load(self, pacer: Pacer, before: int | None) -> None:
        begin = self._measured_at = self._watched_at = time.monotonic()
        told = begin
        while not self._parent.wants_end():
            now = time.monotonic()
            if now - begin >= self._order.duration:
                return
            if now - told >= self._order.interval:
                told = now
                self._parent.tell(self._sample(pacer, before))
            pacer.period(self._controller.duty, self._look)

    def _hold(self, backend: backends.Backend, before: int | None) -> None:
        """Take memory, so much that with context and matrices it is what was asked for."""
        if self._order.memory is None:
            return
        taken = backend.allocated()
        used = self._used()
        if before is not None and used is not None:
            taken = max(taken, used - before)
        if taken > self._order.memory:
            raise Refused(
                Exit.USAGE,
                f"--memory: {backend.version} and its kernels alone take {taken} bytes, more than was asked for",
            )
        backend.hold(self._order.memory - taken)

    def _look(self) -> None:
        """Measure, and look who is there, while the GPU works. Each when it is due."""
        now = time.monotonic()
        if now - self._measured_at >= _MEASURE_SECONDS:
            seconds, self._measured_at = now - self._measured_at, now
            self._measure(seconds)
        if self._watches and now - self._watched_at >= _WATCH_SECONDS:
            self._watched_at = now
            self._watch()

    def _measure(self, seconds: float) -> None:
        if not self._closed_loop:
            return
        failed = self._failures
        measured = self._ask(self._meter.utilisation)
        if measured is not None:
            self._measured.append(measured)
            self._controller.update(measured, seconds)
        elif self._failures > failed:
            self._controller.blind()
        else:
            self._closed_loop = False
            self._controller.open_loop()
            self._parent.tell(protocol.Note(_UNMEASURED))

    def _watch(self) -> None:
        """Give the GPU up when somebody else comes."""
        failed = self._failures
        pids = self._ask(self._meter.pids)
        if self._failures > failed:
            return
        if pids is None or os.getpid() not in pids:
            # In a container the driver may know us by another number, or list nobody.
            self._watches = False
            self._parent.tell(protocol.Note("NVML does not list us on it, so it will not be seen if somebody comes"))
        elif pids != {os.getpid()}:
            others = ", ".join(str(pid) for pid in sorted(pids - {os.getpid()}))
            raise Refused(Exit.IN_USE, f"somebody else came (process {others}) and has it now")

    def _sample(self, pacer: Pacer, before: int | None) -> protocol.Sample:
        memory = self._ask(self._meter.memory)
        taken = memory.used - before if memory and before is not None else None
        measured, self._measured = self._measured, []
        return protocol.Sample(
            measured=statistics.fmean(measured) if measured else None,
            duty=self._controller.duty,
            busy=pacer.busy(),
            at_limit=self._closed_loop and self._controller.at_limit,
            taken=None if taken is None else max(0, taken),
            used=memory.used if memory else None,
            total=memory.total if memory else None,
            watts=self._ask(self._meter.watts),
            celsius=self._ask(self._meter.celsius),
        )

    def _used(self) -> int | None:
        memory = self._meter.memory()
        return memory.used if memory else None

    def _ask(self, question: t.Callable[[], T | None]) -> T | None:
        """Return None, too, when NVML fails to answer; raises what it says when it fails again and again."""
        try:
            answer = question()
            self._failures = 0
            return answer
        except pynvml.NVMLError:
            self._failures += 1
            if self._failures > _FORGIVEN:
                raise
            return None
