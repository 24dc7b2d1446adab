"""The PCI side of the simulated GPUs: what the kernel shows in sysfs, and the registers behind resource0."""

from __future__ import annotations

import math
import os
import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .gpu_models import Model

BAR0_SIZE = 16 << 20
DEAD = 0xFFFFFFFF

# Names and order of Linux 6.1, drivers/pci/pcie/aer.c.
_CORRECTABLE = ("RxErr", "BadTLP", "BadDLLP", "Rollover", "Timeout", "NonFatalErr", "CorrIntErr", "HeaderOF")
_UNCORRECTABLE = (
    "Undefined", "DLP", "SDES", "TLP", "FCP", "CmpltTO", "CmpltAbrt", "UnxCmplt", "RxOF", "MalfTLP", "ECRC", "UnsupReq",
    "ACSViol", "UncorrIntErr", "BlockedTLP", "AtomicOpBlocked", "TLPBlockedErr", "PoisonTLPBlocked",
)  # fmt: skip
AER = {
    "correctable": (_CORRECTABLE, "TOTAL_ERR_COR"),
    "nonfatal": (_UNCORRECTABLE, "TOTAL_ERR_NONFATAL"),
    "fatal": (_UNCORRECTABLE, "TOTAL_ERR_FATAL"),
}
_SPEEDS = {1: "2.5 GT/s PCIe", 2: "5.0 GT/s PCIe", 3: "8.0 GT/s PCIe", 4: "16.0 GT/s PCIe", 5: "32.0 GT/s PCIe"}


@dataclass(frozen=True)
class PciState:
    """What is shown of a card that is on the bus."""

    model: Model
    bus_id: str
    number: int
    driver: str | None
    alive: bool
    generation: int
    width: int
    max_generation: int
    max_width: int
    aer: Mapping[str, Mapping[str, int]]
    registers: Mapping[int, int]


def replace(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file so that readers see the old or the new one. One that is as it should be is left alone."""
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.chmod(mode)
    new.rename(path)


def write_module(module: Path, version: str | None) -> None:
    """Show the kernel module that is loaded; None for none."""
    if version is None:
        (module / "version").unlink(missing_ok=True)
    else:
        replace(module / "version", f"{version}\n".encode())


def remove_device(devices: Path, bus_id: str) -> None:
    """Take a card, and its sound device, off the bus: at once, as readers see it."""
    for device in (bus_id, sound(bus_id)):
        if (devices / device).exists():
            gone = devices.parent / f".gone-{device}-{time.monotonic_ns()}"
            (devices / device).rename(gone)
            shutil.rmtree(gone)


def sound(bus_id: str) -> str:
    """Return the address of the sound device that a GeForce card has beside the GPU."""
    return f"{bus_id[:-1]}1"


def write_device(devices: Path, state: PciState) -> None:
    """Show a card on the bus, or what has changed about it."""
    directory = devices / state.bus_id
    for name, text in _files(state):
        replace(directory / name, f"{text}\n".encode())
    _bind(directory, state.driver)
    write_bar0(directory / "resource0", state)
    if state.model.pci_class == 0x030000:
        beside = devices / sound(state.bus_id)
        for name, text in (("vendor", "0x10de"), ("device", "0x22ba"), ("class", "0x040300")):
            replace(beside / name, f"{text}\n".encode())
        _bind(beside, "snd_hda_intel" if state.driver == "nvidia" else state.driver)


def _files(state: PciState) -> Iterator[tuple[str, str]]:
    """The kernel has "Unknown" and 63 lanes for a card whose configuration reads as all ones."""
    yield "vendor", "0x10de"
    yield "device", f"0x{state.model.device:04x}"
    yield "subsystem_vendor", f"0x{state.model.subsystem & 0xFFFF:04x}"
    yield "subsystem_device", f"0x{state.model.subsystem >> 16:04x}"
    yield "class", f"0x{state.model.pci_class:06x}"
    yield "numa_node", str(state.number // 4)
    yield "current_link_speed", _SPEEDS.get(state.generation, "Unknown") if state.alive else "Unknown"
    yield "max_link_speed", _SPEEDS.get(state.max_generation, "Unknown")
    yield "current_link_width", str(state.width if state.alive else 63)
    yield "max_link_width", str(state.max_width)
    yield "resource", _resource(state)
    for severity, (names, total) in AER.items():
        counters = state.aer.get(severity, {})
        lines = [f"{name} {counters.get(name, 0)}" for name in names]
        yield f"aer_dev_{severity}", "\n".join([*lines, f"{total} {sum(counters.values())}"])


def _resource(state: PciState) -> str:
    """Start, end and flags of each BAR; flags are a part of the line, not of the address."""
    start = 0xB0000000 + state.number * BAR0_SIZE
    prefetchable = 0x30_0000_0000 + state.number * (state.model.bar1_mebibytes << 20)
    ranges = [
        (start, start + BAR0_SIZE - 1, 0x40200),
        (prefetchable, prefetchable + (state.model.bar1_mebibytes << 20) - 1, 0x14220C),
        *[(0, 0, 0)] * 11,
    ]
    return "\n".join(f"0x{first:016x} 0x{last:016x} 0x{flags:016x}" for first, last, flags in ranges)


def _bind(directory: Path, driver: str | None) -> None:
    link = directory / "driver"
    if driver is None:
        link.unlink(missing_ok=True)
        return
    (directory.parents[1] / "drivers" / driver).mkdir(parents=True, exist_ok=True)
    target = f"../../drivers/{driver}"
    if link.is_symlink() and link.readlink() == Path(target):
        return
    new = directory / ".driver.new"
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.rename(link)


# -- registers ----------------------------------------------------------------------------------
VRAM, HOTSPOT = 0xE2A8, 0x2046C
BLACKWELL_HOTSPOT, BLACKWELL_SENSORS = 0xAD0A90, 6
GDDR7, GDDR7_STEP, GDDR7_VALIDITY, GDDR7_MODULES, GDDR7_FITTED = 0x9024C0, 0x4000, 0x10, 16, 8


def registers(model: Model, hotspot: float, memory: float, answer: int | None = None) -> dict[int, int]:
    """Return offset to value of what this model's BAR0 says; answer: all temperatures read as this instead."""
    if model.registers is None:
        return {0: 0x170000A1}
    if model.registers.generation == "blackwell":
        words = {**_blackwell_hotspot(hotspot), **_gddr7(memory)}
    else:
        # Bits around the value that a reader has to mask off.
        words = {VRAM: 0x1000 | round(memory * 32) & 0xFFF, HOTSPOT: 0x40000000 | round(hotspot) << 8 | 0x55}
    if answer is not None:
        words = dict.fromkeys(words, answer)
    return {0: model.registers.boot, **words}


def _blackwell_hotspot(celsius: float) -> dict[int, int]:
    """Six sensors: the second is the hottest, the last one is hotter still, but not valid."""
    words = {}
    for sensor in range(BLACKWELL_SENSORS):
        degrees = celsius if sensor == 1 else celsius - 1 - sensor
        words[BLACKWELL_HOTSPOT + 4 * sensor] = 1 << 30 | round(degrees * 256)
    words[BLACKWELL_HOTSPOT + 4 * (BLACKWELL_SENSORS - 1)] = round((celsius + 20) * 256)
    return words


def _gddr7(celsius: float) -> dict[int, int]:
    """Sixteen places, eight of them with a module; the third is the hottest. The sensor knows even degrees only."""
    words = {}
    for module in range(GDDR7_MODULES):
        offset = GDDR7 + module * GDDR7_STEP
        degrees = celsius if module == 2 else celsius - 4
        fitted = module < GDDR7_FITTED
        words[offset] = math.floor((degrees + 40) / 2) << 16 if fitted else 0xBADF1100 | module
        words[offset + GDDR7_VALIDITY] = 0x0F000000 if fitted else 0xBADF1100 | module
    return words


def write_bar0(path: Path, state: PciState) -> None:
    """Write the registers into the file as it is: a process may have mapped it. Sparse but for a dead card's."""
    if not path.exists():
        new = path.with_name(".resource0.new")
        with new.open("wb") as file:
            file.truncate(BAR0_SIZE)
        new.chmod(0o600)
        new.rename(path)
    with path.open("r+b", buffering=0) as file:
        dead = file.read(4) == struct.pack("<I", DEAD)
        if dead == state.alive:  # it went or came back
            os.pwrite(file.fileno(), (b"\0" if state.alive else b"\xff") * BAR0_SIZE, 0)
        if state.alive:
            for offset, value in state.registers.items():
                os.pwrite(file.fileno(), struct.pack("<I", value), offset)
