"""The length of a kernel is the GPU's, not that of what the machine did meanwhile; a broken framework says so."""

from __future__ import annotations

import pytest
from gpufleet.gpu_stress import backends


class Gpu:
    """A backend on a simulated clock, with hiccups of the host that add to every second wait."""

    version = "simulated"

    def __init__(self, speed, hiccup=0.0):
        self.now, self.size, self._speed, self._hiccup = 0.0, 0, speed, hiccup
        self._queued = self._waits = 0

    def matrices(self, size):
        self.size, self._waits = size, 0

    def launch(self):
        self._queued += 1

    def wait(self):
        self._waits += 1
        first = 0.5 if self._waits == 1 else 0.0  # code is loaded
        self.now += first + self._queued * self.size**3 / self._speed + (self._hiccup if self._waits % 2 else 0.0)
        self._queued = 0

    def clock(self):
        return self.now


@pytest.mark.parametrize("speed", [1e11, 1e12, 1e13, 1e14])
@pytest.mark.parametrize("hiccup", [0.0, 0.05])
def test_a_kernel_takes_about_a_millisecond_on_any_gpu(speed, hiccup):
    gpu = Gpu(speed, hiccup)
    took = backends.calibrate(gpu, gpu.clock)
    assert 0.0005 <= took <= 0.006
    assert took == pytest.approx(gpu.size**3 / speed)


def test_a_gpu_of_the_far_future_gets_the_largest_matrices():
    gpu = Gpu(1e18)
    assert backends.calibrate(gpu, gpu.clock) > 0
    assert gpu.size == 8192


def test_a_framework_that_breaks_when_it_is_loaded_is_one_that_cannot_be_used(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ValueError('libcublas.so.*[0-9] not found')")
    (tmp_path / "cupy.py").write_text("import not_there")
    monkeypatch.syspath_prepend(tmp_path)
    assert backends.installed("auto") == ["torch", "cupy"]
    with pytest.raises(backends.Unusable, match=r"torch cannot be loaded: libcublas.*; cupy cannot be loaded"):
        backends.load(["torch", "cupy"])
