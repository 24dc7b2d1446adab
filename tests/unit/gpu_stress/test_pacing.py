"""The GPU is busy for the part of the time that was said, or less; in simulated time."""

from __future__ import annotations

import pytest
from gpufleet.gpu_stress.pacing import PERIOD, Pacer


class Gpu:
    """Kernels that take so long, on a clock that only they and sleeping move."""

    def __init__(self, kernel=0.001):
        self.now, self.kernel = 0.0, kernel
        self.busy = 0.0
        self.longest = 0.0
        """The longest time without a pause."""
        self._queued = 0
        self._run = 0.0

    def launch(self):
        self._queued += 1

    def wait(self):
        took = self._queued * self.kernel
        self._queued = 0
        self.now += took
        self.busy += took
        self._run += took
        self.longest = max(self.longest, self._run)

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self._run = 0.0

    def run(self, pacer, duty, seconds):
        """Return the part of the time in which it was busy."""
        begin, before = self.now, self.busy
        while self.now < begin + seconds:
            pacer.period(duty)
        return (self.busy - before) / (self.now - begin)


def pacer_of(gpu, thought=None):
    return Pacer(gpu, thought or gpu.kernel, gpu.clock, gpu.sleep)


@pytest.mark.parametrize("kernel", [0.0002, 0.001, 0.004])
@pytest.mark.parametrize("duty", [0.01, 0.05, 0.333, 0.5, 0.9, 0.99])
def test_any_duty_with_any_kernel(duty, kernel):
    gpu = Gpu(kernel)
    busy = gpu.run(pacer_of(gpu), duty, 20)
    assert duty - 0.01 <= busy <= duty + 0.001


def test_full_duty_has_no_pause():
    gpu = Gpu()
    assert gpu.run(pacer_of(gpu), 1.0, 5) == 1.0


def test_no_duty_launches_nothing_and_still_looks():
    gpu, looked = Gpu(), []
    pacer = pacer_of(gpu)
    for _ in range(10):
        pacer.period(0.0, lambda: looked.append(1))
    assert gpu.busy == 0
    assert len(looked) == 10
    assert gpu.now == pytest.approx(10 * PERIOD)


def test_kernels_that_become_slow_are_fewer_kernels():
    gpu = Gpu()
    pacer = pacer_of(gpu)
    gpu.run(pacer, 0.5, 2)
    gpu.kernel = 0.01  # the clock fell, or somebody shares the GPU
    assert gpu.run(pacer, 0.5, 10) <= 0.51


def test_a_kernel_longer_than_a_period_is_paid_for_with_pauses():
    gpu = Gpu(0.2)
    assert 0.2 <= gpu.run(pacer_of(gpu, thought=0.001), 0.25, 60) <= 0.25


def test_time_that_was_lost_is_not_made_up_for():
    gpu = Gpu()
    pacer = pacer_of(gpu)
    gpu.run(pacer, 0.5, 1)
    gpu.now += 3600  # the process was stopped
    gpu.longest = 0.0
    assert gpu.run(pacer, 0.5, 1) <= 0.51
    assert gpu.longest <= PERIOD / 2 + 2 * gpu.kernel


def test_a_look_at_the_driver_that_takes_long_is_no_reason_for_more_load():
    gpu = Gpu()
    pacer = pacer_of(gpu)
    begin = gpu.now

    def slow():
        gpu.now += 0.03

    while gpu.now < begin + 10:
        pacer.period(0.3, slow)
    assert gpu.busy / (gpu.now - begin) <= 0.3


def test_it_says_how_busy_it_kept_the_gpu():
    gpu = Gpu()
    pacer = pacer_of(gpu)
    pacer.busy()
    part = gpu.run(pacer, 0.4, 3)
    assert pacer.busy() == pytest.approx(part)
    gpu.sleep(1)
    assert pacer.busy() == 0
