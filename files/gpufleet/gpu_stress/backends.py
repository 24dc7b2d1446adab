"""PyTorch and CuPy: kernels that keep a GPU busy, and memory that is held.

CUDA_VISIBLE_DEVICES shows this process one GPU, so that it is always the first. Both frameworks do the same: a product
of square matrices of 32-bit numbers, chosen so large that a kernel takes about a millisecond. That is long against what
it costs to launch one, and short against a period.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
import typing as t

KERNEL_SECONDS = 0.001
_SMALLEST, _LARGEST = 256, 8192
_REPEATS = 5
_TRIES = 3
_BLOCK = 1 << 30

FRAMEWORKS = ("torch", "cupy")
"""In the order in which they are tried."""


class Unusable(Exception):
    """A framework is not there, or cannot use this GPU."""


class OutOfMemory(Exception):
    """The GPU has not as much memory as was asked for."""


class Backend(t.Protocol):
    """One framework on one GPU."""

    version: str

    def matrices(self, size: int) -> None:
        """Use matrices of so many rows from now on; those before are freed."""

    def launch(self) -> None:
        """Queue one kernel."""

    def wait(self) -> None:
        """Return when all that was queued has run. The CPU sleeps meanwhile."""

    def allocated(self) -> int:
        """Return the bytes that the framework has taken from the driver."""

    def hold(self, size: int) -> None:
        """Take so many bytes more, and keep them. Raises OutOfMemory."""

    def release(self) -> None:
        """Give all memory back."""


class Torch:
    """PyTorch."""

    def __init__(self) -> None:
        """Raises Unusable."""
        torch = _import("torch")
        if not torch.cuda.is_available():
            build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
            raise Unusable(f"PyTorch {torch.__version__} ({build}) cannot use this GPU")
        self.version = f"PyTorch {torch.__version__}"
        self._torch = torch
        self._done = torch.cuda.Event(blocking=True)
        self._held: list[t.Any] = []
        self._matrices: tuple[t.Any, ...] = ()

    def matrices(self, size: int) -> None:
        """See Backend."""
        torch, self._matrices = self._torch, ()
        torch.cuda.empty_cache()
        with _memory_errors(torch.cuda.OutOfMemoryError):
            self._matrices = tuple(torch.rand(size, size, device="cuda", dtype=torch.float32) for _ in range(3))

    def launch(self) -> None:
        """See Backend."""
        left, right, product = self._matrices
        self._torch.mm(left, right, out=product)

    def wait(self) -> None:
        """See Backend."""
        self._done.record()
        self._done.synchronize()

    def allocated(self) -> int:
        """See Backend."""
        return int(self._torch.cuda.memory_reserved())

    def hold(self, size: int) -> None:
        """See Backend."""
        torch = self._torch
        with _memory_errors(torch.cuda.OutOfMemoryError):
            for block in _blocks(size):
                self._held.append(torch.zeros(block, dtype=torch.uint8, device="cuda"))
            torch.cuda.synchronize()

    def release(self) -> None:
        """See Backend."""
        self._held, self._matrices = [], ()
        self._torch.cuda.empty_cache()


class Cupy:
    """CuPy."""

    def __init__(self) -> None:
        """Raises Unusable."""
        cupy = _import("cupy")
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise Unusable(f"CuPy {cupy.__version__} cannot use this GPU: {error}") from error
        if not count:
            raise Unusable(f"CuPy {cupy.__version__} cannot use this GPU")
        self.version = f"CuPy {cupy.__version__}"
        self._cupy = cupy
        self._pool = cupy.get_default_memory_pool()
        self._done = cupy.cuda.Event(block=True, disable_timing=True)
        self._held: list[t.Any] = []
        self._matrices: tuple[t.Any, ...] = ()

    def matrices(self, size: int) -> None:
        """See Backend."""
        cupy, self._matrices = self._cupy, ()
        self._pool.free_all_blocks()
        with _memory_errors(cupy.cuda.memory.OutOfMemoryError):
            self._matrices = tuple(cupy.ones((size, size), dtype=cupy.float32) for _ in range(3))

    def launch(self) -> None:
        """See Backend."""
        left, right, product = self._matrices
        self._cupy.matmul(left, right, out=product)

    def wait(self) -> None:
        """See Backend."""
        self._done.record()
        self._done.synchronize()

    def allocated(self) -> int:
        """See Backend."""
        return int(self._pool.total_bytes())

    def hold(self, size: int) -> None:
        """See Backend."""
        cupy = self._cupy
        with _memory_errors(cupy.cuda.memory.OutOfMemoryError):
            for block in _blocks(size):
                self._held.append(cupy.zeros(block, dtype=cupy.uint8))
            cupy.cuda.Device().synchronize()

    def release(self) -> None:
        """See Backend."""
        self._held, self._matrices = [], ()
        self._pool.free_all_blocks()


_CLASSES: dict[str, t.Callable[[], Backend]] = {"torch": Torch, "cupy": Cupy}


def installed(framework: str) -> list[str]:
    """Return which of the wanted frameworks this Python has, without loading them: that takes seconds."""
    wanted = FRAMEWORKS if framework == "auto" else (framework,)
    specs = {name: importlib.util.find_spec(name) for name in wanted}
    return [name for name, spec in specs.items() if spec and spec.origin]  # any directory of the name is a namespace


def load(names: t.Iterable[str]) -> Backend:
    """Return the first framework that can use the GPU. Raises Unusable with what was wrong with each."""
    reasons = []
    for name in names:
        try:
            return _CLASSES[name]()
        except Unusable as error:
            reasons.append(str(error))
    raise Unusable("; ".join(reasons))


def calibrate(backend: Backend, clock: t.Callable[[], float] = time.monotonic) -> float:
    """Choose the matrices, and return how long one kernel takes. The framework's first calls are behind us then."""
    size = _SMALLEST
    while True:
        backend.matrices(size)
        took = _measure(backend, clock)
        if took >= KERNEL_SECONDS / 2 or size >= _LARGEST:
            return max(took, 1e-6)
        size *= 2


def _measure(backend: Backend, clock: t.Callable[[], float]) -> float:
    """Return the shortest of several: whatever else the machine does only makes them longer."""
    backend.launch()  # the first one loads code
    backend.wait()
    found = []
    for _ in range(_TRIES):
        begin = clock()
        for _ in range(_REPEATS):
            backend.launch()
        backend.wait()
        found.append((clock() - begin) / _REPEATS)
    return min(found)


def _import(name: str) -> t.Any:
    """Import a framework; a broken installation is no traceback. Raises Unusable."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # PyTorch without a library of CUDA's raises ValueError, for example
        raise Unusable(f"{name} cannot be loaded: {error}") from error


@contextlib.contextmanager
def _memory_errors(kind: type[Exception]) -> t.Iterator[None]:
    """Turn a framework's error into OutOfMemory."""
    try:
        yield
    except kind as error:
        raise OutOfMemory(str(error).partition("\n")[0]) from error


def _blocks(size: int) -> t.Iterator[int]:
    """A single block might not fit between what is there."""
    while size > 0:
        yield min(size, _BLOCK)
        size -= _BLOCK
