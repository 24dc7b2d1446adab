"""A stand-in for PyTorch: as much of its interface as gpu-stress uses, on a simulated GPU."""

from __future__ import annotations

import importlib.metadata

import simulated_cuda

# PyTorch's import looks for entry points of all that is on the path, and so at the name of each.
assert all(found.metadata["Name"] for found in importlib.metadata.distributions())

__version__ = "2.0-stand-in"
float32, uint8 = 4, 1


class version:  # noqa: N801
    cuda = "12.8" if simulated_cuda.THERE else None


class cuda:  # noqa: N801
    OutOfMemoryError = simulated_cuda.OutOfMemory
    is_available = staticmethod(simulated_cuda.available)

    class Event:
        def __init__(self, blocking: bool = False) -> None:
            pass

        def record(self) -> None:
            pass

        def synchronize(self) -> None:
            simulated_cuda.gpu().wait()

    @staticmethod
    def synchronize() -> None:
        simulated_cuda.gpu().wait()

    @staticmethod
    def empty_cache() -> None:
        pass

    @staticmethod
    def memory_reserved() -> int:
        return simulated_cuda.gpu().allocated


def rand(rows, columns, *, device, dtype):
    assert device == "cuda"
    return simulated_cuda.Array(rows, rows * columns * dtype)


def zeros(size, *, dtype, device):
    assert device == "cuda"
    return simulated_cuda.Array(size, size * dtype)


def mm(left, right, *, out):
    assert left.rows == right.rows == out.rows
    simulated_cuda.gpu().launch(left.rows)
