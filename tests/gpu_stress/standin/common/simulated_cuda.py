"""A stand-in for CUDA, for the stand-ins for PyTorch and CuPy: kernels that take time, and memory that is used.

It fails on request: SIMULATED_CUDA=none for no GPU at all, and a file fault.UUID beside the scenario, with hang or fail
in it, for a kernel that does so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import simulated_driver

CONTEXT = 400 << 20
_SPEED = 5e12  # multiplications a second
THERE = os.environ.get("SIMULATED_CUDA") != "none"
UUID = os.environ.get("CUDA_VISIBLE_DEVICES", "")


class CudaError(Exception):
    """What a GPU that fails says."""


class OutOfMemory(Exception):  # noqa: N818
    """There is not so much."""


def available() -> bool:
    """Whether there is a GPU for this process."""
    return THERE and simulated_driver.find(UUID) is not None


class Gpu:
    """The one GPU that this process sees. Made at its first use, as CUDA makes its context."""

    def __init__(self) -> None:
        with simulated_driver.scenario() as lines:
            gpu, mig = simulated_driver.find_in(lines, UUID)
            prefix = f"gpu.{gpu}" if mig is None else f"gpu.{gpu}.mig.{mig}"
            self._free = int(lines[f"{prefix}.memory.total"]) - int(lines[f"{prefix}.memory.used"])
        self._driver = subprocess.Popen(
            [sys.executable, simulated_driver.__file__, str(os.getpid()), UUID],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.allocated = 0
        self._done_at = 0.0
        self._fault = Path(os.environ["SIMULATED_GPU"]).with_name(f"fault.{UUID}")
        self._use(CONTEXT)

    def launch(self, size: int) -> None:
        """Queue a product of matrices."""
        begin = max(time.monotonic(), self._done_at)
        self._done_at = begin + size**3 / _SPEED
        self._tell(f"busy {begin} {self._done_at}")

    def wait(self) -> None:
        """Wait for what was queued; or for ever, or for an error, where the GPU is one that fails."""
        fault = self._fault.read_text() if self._fault.exists() else ""
        if fault == "hang":
            time.sleep(3600)
        if fault == "fail":
            raise CudaError("CUDA error: an illegal memory access was encountered\nfor example")
        time.sleep(max(0.0, self._done_at - time.monotonic()))

    def take(self, size: int) -> None:
        """Allocate."""
        if self.allocated + size + CONTEXT > self._free:
            raise OutOfMemory(f"out of memory: tried to allocate {size} bytes\nand more")
        self.allocated += size
        self._use(CONTEXT + self.allocated)

    def give(self, size: int) -> None:
        """Free."""
        self.allocated -= size
        self._use(CONTEXT + self.allocated)

    def _use(self, size: int) -> None:
        """Return when NVML has it."""
        self._tell(f"memory {size}")
        self._driver.stdout.readline()

    def _tell(self, line: str) -> None:
        self._driver.stdin.write(line.encode() + b"\n")
        self._driver.stdin.flush()


_GPUS: list[Gpu] = []


def gpu() -> Gpu:
    """Return the GPU."""
    if not _GPUS:
        _GPUS.append(Gpu())
    return _GPUS[0]


class Array:
    """Memory of the GPU."""

    def __init__(self, rows: int, size: int) -> None:
        self.rows, self._size = rows, 0
        gpu().take(size)
        self._size = size

    def __del__(self) -> None:
        gpu().give(self._size)
