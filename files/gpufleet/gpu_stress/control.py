"""The control loop: which part of the time the GPU has to be busy so that its utilisation is as was asked.

What is controlled is nearly static. NVML's utilisation is the part of the last sample period, 1/6 s to 1 s, in which a
kernel ran; so it follows the duty cycle one to one, a bit below it (gaps between kernels) and up to about two seconds
late. For such a plant the integral part does the work: it removes what is constantly missing, or what somebody else
adds. The proportional part is small: it answers a disturbance a little sooner, and noise hardly at all.
"""

from __future__ import annotations

import collections
import statistics

_INTEGRAL = 0.3
"""Per second. Below 1/(e*delay) for a delay of 1.2 s: such a loop does not swing."""
_PROPORTIONAL = 0.1
_START = 0.8
"""Of the target: it is reached from below ..."""
_SETTLING = 2.5
"""... and held there for so many seconds. What is measured before says how idle the GPU was, and nothing of the load.
Then the GPU's own gain is known, one step leads to nearly where the target is, and that, too, has to be seen first."""
_STEP = 0.9
"""How far that step goes: what it was reckoned from, the mean of the last readings, is noisy."""
_READINGS = 4
_LEAST_GAIN = 0.6
"""Utilisation by duty cycle. Where a GPU measures less than this, the duty cycle does not follow: a reading that is
wrong, always 0 for example, must not become full load."""


class Controller:
    """PI with a limit, and without wind-up: the integral never leaves what can be done."""

    def __init__(self, target: float) -> None:
        """``target`` is the utilisation to hold, 0 to 1."""
        self.target = target
        self.limit = min(1.0, target / _LEAST_GAIN)
        self._settling, self._stepped = _SETTLING, False
        self._readings: collections.deque[float] = collections.deque(maxlen=_READINGS)
        self.duty = self._integral = _START * target
        """The part of the time that the GPU has to be busy."""

    def update(self, measured: float, seconds: float) -> None:
        """Take what was measured, so long after the last time."""
        error = self.target - measured
        self._readings.append(measured)
        if self._settling > 0:
            self._settling -= seconds
            if error > 0:
                if self._settling <= 0 and not self._stepped:
                    self._step(statistics.fmean(self._readings))
                return
            self._stepped = True  # too much load is answered at once, and then there is nothing to reckon from
        self._integral = self._bounded(self._integral + _INTEGRAL * error * seconds)
        self.duty = self._bounded(self._integral + _PROPORTIONAL * error)

    def _step(self, measured: float) -> None:
        wanted = self.duty * self.target / max(measured, _LEAST_GAIN * self.duty)
        self.duty = self._integral = self._bounded(self.duty + _STEP * (wanted - self.duty))
        self._stepped, self._settling = True, _SETTLING

    def open_loop(self) -> None:
        """Nothing is measured: the duty cycle is the target itself, and so never more than that."""
        self.duty = self._integral = self.target

    def blind(self) -> None:
        """Nothing was measured this time: go on as before, but not beyond the target."""
        self.duty = self._integral = min(self._integral, self.target)

    @property
    def at_limit(self) -> bool:
        """Whether more was wanted than is allowed, or than there is."""
        return self.target > 0 and self.duty >= self.limit

    def _bounded(self, duty: float) -> float:
        return min(self.limit, max(0.0, duty))
