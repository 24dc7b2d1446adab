"""Busy for a part of each period: pulse width modulation with kernels."""

from __future__ import annotations

import time
import typing as t

PERIOD = 0.05
"""Seconds. Several fit into the shortest time over which NVML measures (1/6 s), and one holds many kernels."""
_SMOOTHING = 0.5
"""Of what a kernel is thought to take. Where that is wrong for a moment, the account stays right."""
_LONGEST_DEBT = 5.0


class Kernels(t.Protocol):
    """What makes a GPU busy."""

    def launch(self) -> None:
        """Queue one kernel."""

    def wait(self) -> None:
        """Return when all that was queued has run."""


class Pacer:
    """Launches as many kernels as the duty cycle allows.

    It keeps an account of busy seconds: each period pays in its duty, and what the GPU was busy is drawn. So a kernel
    that takes longer than it was thought to (a clock that falls, somebody else on the GPU) is made up for by fewer of
    them later, and the busy part of the time is the duty cycle, or less.
    """

    def __init__(
        self,
        kernels: Kernels,
        kernel_seconds: float,
        clock: t.Callable[[], float] = time.monotonic,
        sleep: t.Callable[[float], None] = time.sleep,
    ) -> None:
        self._kernels, self._clock, self._sleep = kernels, clock, sleep
        self._kernel = kernel_seconds
        self._account = 0.0
        self._last: float | None = None
        self._busy, self._since = 0.0, clock()

    def period(self, duty: float, meanwhile: t.Callable[[], None] = lambda: None) -> None:
        """Run one period; ``meanwhile`` is called while the GPU works."""
        begin = self._clock()
        elapsed = PERIOD if self._last is None else begin - self._last
        self._last = begin
        count = self._pay_in(duty, elapsed)
        for _ in range(count):
            self._kernels.launch()
        if not count:
            meanwhile()
        else:
            self._draw(begin, count, meanwhile)
        rest = begin + PERIOD - self._clock()
        # At full duty the next period begins at once; else a pause shorter than a kernel would be lost to rounding.
        if rest > 0 and duty < 1:
            self._sleep(rest)

    def busy(self) -> float:
        """Return which part of the time the GPU was busy with our kernels since the last call."""
        now = self._clock()
        part = self._busy / max(now - self._since, 1e-9)
        self._busy, self._since = 0.0, now
        return min(1.0, part)

    def _pay_in(self, duty: float, elapsed: float) -> int:
        """Return how many kernels the account is good for."""
        # Time that was lost (a stopped process, a slow driver) is not made up for: that would be a burst.
        self._account += duty * min(elapsed, 2 * PERIOD)
        self._account = max(-_LONGEST_DEBT, min(self._account, duty * PERIOD + self._kernel))
        return max(0, int(self._account / self._kernel + 1e-9)) if duty > 0 else 0

    def _draw(self, begin: float, count: int, meanwhile: t.Callable[[], None]) -> None:
        meanwhile()
        self._kernels.wait()
        took = self._clock() - begin
        self._account -= took
        self._busy += took
        self._kernel += _SMOOTHING * (took / count - self._kernel)
