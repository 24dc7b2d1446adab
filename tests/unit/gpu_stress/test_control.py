"""The utilisation is held at the target, from below, whatever the GPU makes of a duty cycle.

The plant is what is known of NVML: a window over which it measures, after which it shows a new whole per cent; a lag of
the GPU's own, noise, and a gain, for kernels have gaps.
"""

from __future__ import annotations

import collections
import random

import pytest
from gpufleet.gpu_stress.control import Controller

STEP = 0.05
ASKED = 0.25


class Plant:
    """A GPU that is busy as the controller says, as NVML shows it."""

    def __init__(self, target, gain=1.0, window=0.5, others=lambda _: 0.0, reading=lambda shown: shown, seed=1):
        self.controller = Controller(target)
        self.gain, self.others, self.reading = gain, others, reading
        self.true = []
        """Utilisation of each step."""
        self._window = collections.deque([0.0], maxlen=max(1, round(window / STEP)))
        self._hold = window
        self._random = random.Random(seed)

    def run(self, seconds):
        ours = shown = next_shown = asked = 0.0
        for step in range(round(seconds / STEP)):
            now = step * STEP
            ours += (min(1.0, self.gain * self.controller.duty) - ours) * STEP / (0.1 + STEP)
            self.true.append(min(1.0, ours + self.others(now)))
            self._window.append(self.true[-1])
            if now >= next_shown:
                mean = sum(self._window) / self._window.maxlen + self._random.gauss(0, 0.015)
                shown, next_shown = round(100 * min(1.0, max(0.0, mean))) / 100, now + self._hold
            if now - asked >= ASKED:
                self.controller.update(self.reading(shown), now - asked)
                asked = now
        return self

    def between(self, begin, end):
        return self.true[round(begin / STEP) : round(end / STEP)]


GPUS = [(gain, window) for gain in (0.7, 0.9, 1.0, 1.2) for window in (1 / 6, 0.5, 1.0)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("target", [0.1, 0.3, 0.65])
@pytest.mark.parametrize(("gain", "window"), GPUS)
def test_it_gets_there_in_four_seconds_and_stays_without_overshoot(gain, window, target, seed):
    plant = Plant(target, gain, window, seed=seed).run(60)
    assert max(plant.true) <= target + 0.04
    assert min(plant.between(4, 60)) >= target - 0.06
    assert min(plant.between(10, 60)) >= target - 0.03
    later = plant.between(15, 60)
    assert sum(later) / len(later) == pytest.approx(target, abs=0.01)


@pytest.mark.parametrize(("gain", "window"), GPUS)
def test_what_others_add_is_taken_off_and_given_back(gain, window):
    plant = Plant(0.6, gain, window, others=lambda now: 0.25 if 10 <= now < 30 else 0.0).run(50)
    assert max(plant.between(18, 30)) <= 0.65
    assert min(plant.between(18, 29.9)) >= 0.55
    assert min(plant.between(38, 50)) >= 0.55
    assert max(plant.between(31, 50)) <= 0.65


def test_where_others_use_more_than_the_target_it_stands_aside():
    plant = Plant(0.4, others=lambda now: 0.7).run(20)
    assert plant.controller.duty == 0
    assert max(plant.between(10, 20)) == pytest.approx(0.7, abs=0.01)


def test_a_pause_at_full_duty_leaves_nothing_behind_that_has_to_be_worked_off():
    """No wind-up: others keep it at nothing for long, and when they are gone it comes back soon and without a swing."""
    plant = Plant(0.5, others=lambda now: 0.9 if now < 60 else 0.0).run(80)
    assert min(plant.between(73, 80)) >= 0.45
    assert max(plant.between(61, 80)) <= 0.54


def test_a_reading_that_is_always_0_does_not_become_full_load():
    plant = Plant(0.3, reading=lambda _: 0.0).run(60)
    assert max(plant.true) <= 0.51
    assert plant.controller.at_limit


def test_a_target_that_cannot_be_reached_is_said_to_be_at_its_limit():
    plant = Plant(0.9, gain=0.7).run(30)
    assert plant.controller.duty == 1
    assert plant.controller.at_limit


def test_full_load_is_full_load():
    plant = Plant(1.0).run(20)
    assert min(plant.between(10, 20)) > 0.99


def test_no_load_is_none():
    plant = Plant(0.0).run(5)
    assert max(plant.true) == 0
    assert not plant.controller.at_limit


def test_without_a_measurement_the_duty_is_never_more_than_the_target():
    controller = Controller(0.5)
    controller.open_loop()
    assert controller.duty == 0.5
    for _ in range(100):
        controller.update(0.3, 0.25)
    assert controller.duty > 0.5
    controller.blind()
    assert controller.duty == 0.5
