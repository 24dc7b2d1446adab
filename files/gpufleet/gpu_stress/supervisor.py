"""The parent: a process for each GPU, so that one that fails or hangs takes no other along.

It never asks NVML while they run: a driver that does not answer must not keep it from ending what it has started.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
import typing as t

from . import protocol
from .devices import Target
from .exits import Exit
from .output import Summary, View, say

_TICK = 0.1
_REAP_SECONDS = 2.0
# The first of these that a GPU ended with is what the program ends with.
_WORST = (Exit.FAILED, Exit.NO_NVML, Exit.NO_FRAMEWORK, Exit.USAGE, Exit.IN_USE)
_SIGNALS = {
    signal.SIGINT: Exit.INTERRUPTED,
    signal.SIGTERM: Exit.TERMINATED,
    signal.SIGHUP: Exit.TERMINATED,
}


class Patience(t.NamedTuple):
    """Seconds after which a worker counts as hung."""

    start: float
    """Until it is ready: frameworks load for long."""
    silence: float
    """Without a word, while it runs, or after it was told to end."""


def worker_command() -> list[str]:
    """The same program, from the zipapp or from its sources. A framework must not come from the current directory."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = (
        f"import sys; sys.path = [{root!r}, *filter(None, sys.path)]; "
        "from gpufleet.gpu_stress.worker import main; main()"
    )
    return [sys.executable, "-c", code]


class _Worker:
    """One GPU's process."""

    def __init__(self, target: Target, order: protocol.Order) -> None:
        self.target, self.order = target, order
        self.process = subprocess.Popen(
            worker_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": target.uuid},
            start_new_session=True,  # Ctrl-C is for the parent, which tells them
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self.out = self.process.stdin, self.process.stdout
        self._unread = b""
        self.ready = False
        self.end: protocol.End | None = None
        self.heard = self.began = time.monotonic()
        self.samples: list[float | None] = []
        self.seconds = 0.0
        self.send(protocol.encode(order))

    def send(self, line: bytes) -> None:
        """Write to a worker that may be dead; its end is read elsewhere."""
        with contextlib.suppress(OSError, ValueError):
            self._in.write(line)
            self._in.flush()

    def go(self) -> None:
        """Begin the load."""
        self.heard = self.began = time.monotonic()
        self.send(b"go\n")

    def stop(self) -> None:
        """Let it end by itself."""
        with contextlib.suppress(OSError):
            self._in.close()

    def read(self) -> t.Iterator[protocol.Report]:
        """Yield what it said. Its death without a last word is an end, too."""
        part = os.read(self.out.fileno(), 65536)
        self.heard = time.monotonic()
        *lines, self._unread = (self._unread + part).split(b"\n")
        for line in lines:
            yield protocol.decode_report(line)
        if not part:
            yield protocol.End(Exit.FAILED, f"its process died ({self._death()})")

    def _death(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self.process.wait(_REAP_SECONDS)
            return signal.strsignal(-status) or str(-status) if status < 0 else f"exit status {status}"
        return "it closed its output"


class Supervisor:
    """Runs all of them to their end."""

    def __init__(self, orders: t.Iterable[tuple[Target, protocol.Order]], patience: Patience, view: View) -> None:
        self._view = view
        self._patience = patience
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []
        self._signals: list[int] = []
        self._status = Exit.DONE
        self._going = False
        self._stopping: float | None = None
        for number in _SIGNALS:
            signal.signal(number, lambda received, _: self._signals.append(received))
        for target, order in orders:
            worker = _Worker(target, order)
            self._workers.append(worker)
            self._selector.register(worker.out, selectors.EVENT_READ, worker)

    def run(self) -> Exit:
        """Return the exit status, when all have ended."""
        while self._running():
            for key, _ in self._selector.select(_TICK):
                self._read(key.data)
            self._obey_signals()
            self._start_load()
            self._end_the_hung()
        self._reap()
        ends = {worker.end.status for worker in self._workers if worker.end}
        return next((status for status in _WORST if status in ends), self._status)

    def _running(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.end is None]

    def _read(self, worker: _Worker) -> None:
        for report in worker.read():
            if isinstance(report, protocol.End):
                self._ended(worker, report)
                return
            worker.ready = worker.ready or isinstance(report, protocol.Ready)
            if isinstance(report, protocol.Sample):
                worker.samples.append(report.measured)
            with self._reader() as view:
                view.report(worker.target, worker.order.target, report)

    def _start_load(self) -> None:
        """All begin together, when each is ready or has failed."""
        if not self._going and not self._stopping and all(worker.ready for worker in self._running()):
            self._going = True
            for worker in self._running():
                worker.go()

    def _obey_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if self._stopping is None:
                self._status = _SIGNALS[signal.Signals(number)]
                self._stop()
            else:  # impatient
                for worker in self._running():
                    self._kill(worker, "killed before it had cleaned up")

    def _stop(self) -> None:
        if self._stopping is None:
            self._stopping = time.monotonic()
            for worker in self._workers:
                worker.stop()

    def _end_the_hung(self) -> None:
        now = time.monotonic()
        for worker in self._running():
            if self._stopping is not None:
                since, patience = self._stopping, self._patience.silence
            elif self._going:
                since, patience = worker.heard, self._patience.silence + worker.order.interval
            elif not worker.ready:
                since, patience = worker.began, self._patience.start
            else:
                continue  # it waits for the others
            if now - since > patience:
                self._kill(worker, f"hung: no word for {now - since:.0f} s, so it was killed")

    def _kill(self, worker: _Worker, why: str) -> None:
        worker.process.kill()
        try:
            worker.process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            why += f"; process {worker.process.pid} does not end, the driver holds it in the kernel"
        self._ended(worker, protocol.End(Exit.FAILED, why))

    def _reap(self) -> None:
        """Their last words are not yet their end."""
        for worker in self._workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(_REAP_SECONDS)
            worker.process.kill()

    def _ended(self, worker: _Worker, end: protocol.End) -> None:
        worker.end = end
        self._selector.unregister(worker.out)
        worker.stop()
        seconds = time.monotonic() - worker.began if self._going else 0.0
        half = [value for value in worker.samples[len(worker.samples) // 2 :] if value is not None]
        summary = Summary(end, seconds, sum(half) / len(half) if half else None)
        with self._reader() as view:
            view.ended(worker.target, worker.order.target, summary)
        if not self._going and end.status in (Exit.NO_FRAMEWORK, Exit.USAGE):
            self._stop()  # nothing has begun, and what was asked for cannot be had

    @contextlib.contextmanager
    def _reader(self) -> t.Iterator[View]:
        """Yield the view; when nobody reads it any more, that is the end."""
        try:
            yield self._view
        except BrokenPipeError:
            say("nobody reads the output any more")
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own last flush
            self._status = Exit.TERMINATED
            self._stop()
