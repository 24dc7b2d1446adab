"""The simulated machines that a lab's hosts can be: which GPUs each has, and the libraries that speak for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import gpu, store
from .system import run


def _a100() -> gpu.Machine:
    """A university's server: one card whole, one cut into MIG instances, and an old one."""
    machine = gpu.Machine.of("a100", "a100", "v100", host="a100", driver_version="575.57.08")
    machine.partition(1, "3g.20gb", "2g.10gb", "1g.5gb")
    machine.animate()
    return machine


def _rtx4090() -> gpu.Machine:
    """A Vast.ai host: temperatures that NVML does not know."""
    machine = gpu.Machine.of("rtx4090", "rtx3090", host="rtx4090", driver_version="575.57.08")
    machine.animate()
    return machine


def _h100() -> gpu.Machine:
    """A datacentre's server with the newest driver."""
    machine = gpu.Machine.of("h100", "h100", host="h100")
    machine.animate()
    return machine


def _mixed() -> gpu.Machine:
    """A laboratory's server, with whatever was bought when."""
    machine = gpu.Machine.of("h100", "h100", "v100", "rtx5090", host="mixed")
    machine.animate()
    return machine


def _bench() -> gpu.Machine:
    """What the benchmark runs against."""
    machine = gpu.Machine.of(*["a100"] * 8, host="bench")
    machine.animate()
    return machine


MACHINES: dict[str, Callable[[], gpu.Machine]] = {
    "a100": _a100,
    "rtx4090": _rtx4090,
    "h100": _h100,
    "mixed": _mixed,
    "bench": _bench,
    "none": lambda: gpu.Machine.of("none"),
}


def libraries() -> Path:
    """Return the directory with the stand-ins for NVIDIA's libraries, compiled on first use."""
    sources = {path.name: path.read_text() for path in sorted(gpu.SOURCES.glob("*.[ch]"))}
    target = store.cache() / "simulated-gpu" / store.key(sources)
    target.parent.mkdir(parents=True, exist_ok=True)

    def build(directory: Path) -> None:
        gpu.build(directory)

    return store.build_once(target, build)


def library_path() -> str:
    """Return where the dynamic linker of a Debian host looks first, without a leading slash."""
    return f"usr/lib/{run('gcc', '-print-multiarch').strip()}"
