"""A stand-in for CuPy: as much of its interface as gpu-stress uses, on a simulated GPU."""

from __future__ import annotations

import simulated_cuda

__version__ = "14.0-stand-in"
float32, uint8 = 4, 1


class cuda:  # noqa: N801
    class runtime:  # noqa: N801
        CUDARuntimeError = simulated_cuda.CudaError

        @staticmethod
        def getDeviceCount() -> int:  # noqa: N802
            if not simulated_cuda.available():
                raise simulated_cuda.CudaError("cudaErrorNoDevice: no CUDA-capable device is detected")
            return 1

    class memory:  # noqa: N801
        OutOfMemoryError = simulated_cuda.OutOfMemory

    class Event:
        def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
            pass

        def record(self) -> None:
            pass

        def synchronize(self) -> None:
            simulated_cuda.gpu().wait()

    class Device:
        def synchronize(self) -> None:
            simulated_cuda.gpu().wait()


class _Pool:
    def total_bytes(self) -> int:
        return simulated_cuda.gpu().allocated

    def free_all_blocks(self) -> None:
        pass


def get_default_memory_pool():
    return _Pool()


def ones(shape, dtype):
    return simulated_cuda.Array(shape[0], shape[0] * shape[1] * dtype)


def zeros(size, dtype):
    return simulated_cuda.Array(size, size * dtype)


def matmul(left, right, *, out):
    assert left.rows == right.rows == out.rows
    simulated_cuda.gpu().launch(left.rows)
