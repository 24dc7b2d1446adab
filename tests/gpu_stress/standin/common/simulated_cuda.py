"""A stand-in for CUDA, for the stand-ins for PyTorch and CuPy: kernels that take time, and memory that is used.

It fails on request, SIMULATED_CUDA being JSON: {"no_cuda": true}, {"hang": UUID}, {"fail": UUID}, {"gain": 0.8} for a GPU
whose kernels run for that part of the time that they seem to.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import simulated_driver

CONTEXT = 400 << 20
_SPEED = 5e12  # multiplications a second
_FAULT_AFTER = 1.0
SETTINGS = json.loads(os.environ.get("SIMULATED_CUDA", "{}"))
UUID = os.environ.get("CUDA_VISIBLE_DEVICES", "")


class CudaError(Exception):
    """What a GPU that fails says."""


class OutOfMemory(Exception):
    """There is not so much."""


def available() -> bool:
    """Whether there is a GPU for this process."""
    return not SETTINGS.get("no_cuda") and simulated_driver.find(UUID) is not None


class Gpu:
    """The one GPU that this process sees. Made at its first use, as CUDA makes its context."""

    def __init__(self) -> None:
        with simulated_driver.scenario() as lines:
            gpu, mig = simulated_driver.find_in(lines, UUID)
            prefix = f"gpu.{gpu}" if mig is None else f"gpu.{gpu}.mig.{mig}"
            self._free = int(lines[f"{prefix}.memory.total"]) - int(lines[f"{prefix}.memory.used"])
        self._driver = subprocess.Popen(
            [sys.executable, str(Path(simulated_driver.__file__)), str(os.getpid()), UUID], stdin=subprocess.PIPE
        )
        self.allocated = 0
        self._done_at = self._begin = 0.0
        self._fault_at = 0.0
        self._tell(f"memory {CONTEXT}")

    def launch(self, size: int) -> None:
        """Queue a product of matrices."""
        begin = max(time.monotonic(), self._done_at)
        self._done_at = begin + size**3 / _SPEED
        self._tell(f"busy {begin} {begin + SETTINGS.get('gain', 1.0) * (self._done_at - begin)}")

    def wait(self) -> None:
        """Wait for what was queued; or for ever, or for an error, where the GPU is one that fails."""
        self._fault_at = self._fault_at or time.monotonic() + _FAULT_AFTER
        if time.monotonic() > self._fault_at:
            if SETTINGS.get("hang") == UUID:
                time.sleep(3600)
            if SETTINGS.get("fail") == UUID:
                raise CudaError("CUDA error: an illegal memory access was encountered\nfor example")
        time.sleep(max(0.0, self._done_at - time.monotonic()))

    def take(self, size: int) -> None:
        """Allocate."""
        if self.allocated + size + CONTEXT > self._free:
            raise OutOfMemory(f"out of memory: tried to allocate {size} bytes\nand more")
        self.allocated += size
        self._tell(f"memory {CONTEXT + self.allocated}")
        time.sleep(0.12)  # until NVML has it

    def give(self, size: int) -> None:
        """Free."""
        self.allocated -= size
        self._tell(f"memory {CONTEXT + self.allocated}")

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
