"""VRAM and hotspot temperatures below NVML: the table of known cards, NVAPI, and registers in PCIe BAR0.

All of it is undocumented by NVIDIA and was found out by others, see thermal_sources.toml. So every value is checked,
and none is better than a wrong one.
"""

from __future__ import annotations

import ctypes
import dataclasses
import mmap
import os
import pkgutil
import typing as t

import tomli  # tomllib is there from Python 3.11 on only

LOWEST, HIGHEST = 1.0, 126.0
"""Degrees that a GPU in operation can have. 127 and 255 are what registers without a sensor say."""


def plausible(celsius: float | None) -> float | None:
    """Return the temperature, or None when no card can be so cold or hot."""
    return celsius if celsius is not None and LOWEST <= celsius <= HIGHEST else None


@dataclasses.dataclass(frozen=True)
class Register:
    """One sensor, or several equal ones, in BAR0."""

    offset: int
    decode: str
    step: int = 0
    count: int = 1


@dataclasses.dataclass(frozen=True)
class Card:
    """What is known of one PCI device id."""

    nvapi: t.Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Reading (hotspot, vram) to NVAPI's index."""
    bar0: t.Mapping[str, Register] = dataclasses.field(default_factory=dict)
    """Reading to register."""


class Cards:
    """The table of known cards."""

    def __init__(self, text: str | None = None) -> None:
        if text is None:
            text = t.cast("bytes", pkgutil.get_data(__package__, "thermal_sources.toml")).decode()
        table = tomli.loads(text)
        self._nvapi = [(int(row["devices"][0], 16), int(row["devices"][1], 16), row) for row in table["nvapi"]]
        self._bar0 = {int(device, 16): row for row in table["bar0"] for device in row["devices"]}

    def card(self, device_id: int) -> Card:
        """Return what is known of a PCI device id, which may be nothing."""
        nvapi: dict[str, t.Any] = next((row for first, last, row in self._nvapi if first <= device_id <= last), {})
        bar0 = self._bar0.get(device_id, {})
        return Card(
            {reading: nvapi[reading] for reading in ("hotspot", "vram") if reading in nvapi},
            {reading: Register(**bar0[reading]) for reading in ("hotspot", "vram") if reading in bar0},
        )


# -- BAR0 ---------------------------------------------------------------------------------------
def read_bar0(path: str, register: Register) -> float | None:
    """Read a sensor from a PCI resource file, opened and mapped read-only. None where it gives no sane value.

    Raises OSError: no such file, no permission, or a kernel that keeps drivers' memory to itself (lockdown,
    CONFIG_IO_STRICT_DEVMEM).
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _hottest(file, register)
    finally:
        os.close(file)


def _hottest(file: int, register: Register) -> float | None:
    first = register.offset - register.offset % mmap.PAGESIZE
    last = register.offset + register.step * (register.count - 1) + _VALIDITY + 4
    with (
        mmap.mmap(file, last - first, mmap.MAP_SHARED, mmap.PROT_READ, offset=first) as mapped,
        memoryview(mapped) as view,
        view.cast("I") as words,
    ):  # 32 bits in one access, as the register wants it

        def word(offset: int) -> int:
            return words[(offset - first) // 4]

        offsets = [register.offset + register.step * sensor for sensor in range(register.count)]
        values = [_decode(register.decode, offset, word) for offset in offsets]
    good = [value for value in map(plausible, values) if value is not None]
    return max(good, default=None)


_VALIDITY = 0x10  # a GDDR7 module's word of validity lies this far behind its value


def _decode(name: str, offset: int, word: t.Callable[[int], int]) -> float | None:
    raw = word(offset)
    if is_dead(raw):
        return None
    if name == "gddr7":
        return decode_gddr7(raw, word(offset + _VALIDITY))
    return DECODERS[name](raw)


def is_dead(raw: int) -> bool:
    """Whether this is what a card off the bus (all ones) or a register that does not answer (0xBAD.....) reads as."""
    return raw == 0xFFFFFFFF or raw >> 20 == 0xBAD


def decode_gddr6(raw: int) -> float:
    """Twelve bits in 1/32 degree."""
    return (raw & 0xFFF) / 32


def decode_hotspot(raw: int) -> float:
    """One byte in degrees."""
    return float(raw >> 8 & 0xFF)


def decode_blackwell_hotspot(raw: int) -> float | None:
    """Sixteen bits in 1/256 degree; bit 30 says that they count."""
    return (raw & 0xFFFF) / 256 if raw >> 30 & 1 else None


def decode_gddr7(raw: int, validity: int) -> float | None:
    """JEDEC's code of GDDR7: two degrees a step from -40 on, up to code 80."""
    code = raw >> 16 & 0xFF
    if is_dead(validity) or validity >> 24 & 0xF != 0xF or code > 80:
        return None
    return 2.0 * code - 40


DECODERS: dict[str, t.Callable[[int], float | None]] = {
    "gddr6": decode_gddr6,
    "hotspot": decode_hotspot,
    "blackwell_hotspot": decode_blackwell_hotspot,
}


# -- NVAPI --------------------------------------------------------------------------------------
class NvapiError(Exception):
    """NVAPI is not there or refuses."""


class _Thermals(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("mask", ctypes.c_int32), ("values", ctypes.c_int32 * 40))


_MAX_GPUS = 64


class Nvapi:
    """The thermal query of libnvidia-api.so.1, as LACT found it. Only the NVML lane uses it."""

    _INITIALIZE, _ENUM_GPUS, _GET_BUS_ID, _THERMALS = 0x0150E828, 0xE5AC921F, 0x1BE0B8E5, 0x65FE3AAD
    _THERMALS_VERSION = 0x000200A8

    def __init__(self) -> None:
        """Load and initialise. Raises NvapiError."""
        try:
            query = ctypes.CDLL("libnvidia-api.so.1").nvapi_QueryInterface
        except (OSError, AttributeError) as error:
            raise NvapiError(f"libnvidia-api.so.1: {error}") from error
        query.restype, query.argtypes = ctypes.c_void_p, [ctypes.c_uint32]
        self._query = query
        self._call(self._INITIALIZE)
        self._masks: dict[int, int] = {}
        self._gpus = self._by_bus()

    def temperature(self, bus: int, index: int) -> float | None:
        """Return degrees at an index for the GPU on a PCI bus, None where it has none. Raises NvapiError."""
        gpu = self._gpus.get(bus)
        if gpu is None:
            return None
        if bus not in self._masks:
            self._masks[bus] = self._find_mask(gpu)
        if not self._masks[bus] >> index & 1:
            return None
        return plausible(self._read(gpu, self._masks[bus]).values[index] / 256)

    def _by_bus(self) -> dict[int, ctypes.c_void_p]:
        """GPUs by bus. NVAPI knows no PCI domains: a bus that is there twice is nobody's."""
        handles, count = (ctypes.c_void_p * _MAX_GPUS)(), ctypes.c_uint32()
        self._call(self._ENUM_GPUS, handles, ctypes.byref(count))
        found: dict[int, ctypes.c_void_p] = {}
        twice = set()
        for handle in handles[: count.value]:
            bus = ctypes.c_uint32()
            self._call(self._GET_BUS_ID, ctypes.c_void_p(handle), ctypes.byref(bus))
            if bus.value in found:
                twice.add(bus.value)
            found[bus.value] = ctypes.c_void_p(handle)
        return {bus: handle for bus, handle in found.items() if bus not in twice}

    def _find_mask(self, gpu: ctypes.c_void_p) -> int:
        """Which values a GPU has is found bit by bit: the first one that it lacks gives an error."""
        mask = 0
        for bit in range(32):
            try:
                self._read(gpu, 1 << bit)
            except NvapiError:
                break
            mask |= 1 << bit
        return mask

    def _read(self, gpu: ctypes.c_void_p, mask: int) -> _Thermals:
        thermals = _Thermals(version=self._THERMALS_VERSION, mask=ctypes.c_int32(mask).value)
        self._call(self._THERMALS, gpu, ctypes.byref(thermals))
        return thermals

    def _call(self, function: int, *args: t.Any) -> None:
        pointer = self._query(function)
        if not pointer:
            raise NvapiError(f"NVAPI has no function {function:#010x}")
        status = ctypes.CFUNCTYPE(ctypes.c_int32)(pointer)(*args)
        if status != 0:
            raise NvapiError(f"NVAPI function {function:#010x} answered {status}")
