"""Cards that the simulated GPUs are models of: what NVML, NVAPI, the PCI bus and the registers say about each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

# A number, or text of the scenario: "sine:40:70:60", "unsupported", "error:GPU_IS_LOST", "slow:200:55" ...
Reading = Union[float, str]

MIB = 1 << 20
GEFORCE, NVIDIA = 5, 14  # nvmlBrandType_t


@dataclass(frozen=True)
class MigProfile:
    """What an instance of such a profile has."""

    slices: int
    mebibytes: int
    multiprocessors: int
    copy_engines: int
    decoders: int
    jpegs: int = 0
    ofas: int = 0


@dataclass(frozen=True)
class Registers:
    """Where the temperatures are in BAR0. Only cards without HBM have them."""

    generation: str
    """"ampere" (Ada is the same) or "blackwell"."""
    boot: int
    """The first register, which names the chip: a card that is alive does not read as all ones."""


@dataclass(frozen=True)
class Model:
    """One card."""

    name: str
    device: int
    subsystem: int
    pci_class: int
    bar1_mebibytes: int
    readings: Mapping[str, Reading]
    """Lines of the scenario, without "gpu.N."."""
    nvml_hotspot: bool = False
    """Whether sensor 1 is there, from driver 615 on."""
    nvml_memory: bool = False
    """Whether field 82, the memory's temperature, is there."""
    nvapi: Mapping[str, int] = field(default_factory=dict)
    """core, hotspot and memory to NVAPI's index."""
    registers: Registers | None = None
    mig: Mapping[str, MigProfile] = field(default_factory=dict)


def _limits(default: int, minimum: int, maximum: int) -> dict[str, Reading]:
    limits = {"enforced": default, "management": default, "default": default, "minimum": minimum, "maximum": maximum}
    return {f"power.limit.{name}": watts * 1000 for name, watts in limits.items()}


def _clocks(graphics: int, memory: int, video: int) -> dict[str, Reading]:
    clocks: dict[str, Reading] = {"graphics": graphics, "sm": graphics, "memory": memory, "video": video}
    return {f"clock.{which}{name}": mhz for which in ("", "max.") for name, mhz in clocks.items()}


def _group(prefix: str, **readings: Reading) -> dict[str, Reading]:
    return {f"{prefix}.{name}": reading for name, reading in readings.items()}


_ERRORS = (
    "correctable", "naks_received", "receiver", "bad_tlp", "naks_sent", "bad_dllp", "non_fatal", "fatal",
    "unsupported_request", "lcrc", "lane",
)  # fmt: skip

_EVERY: dict[str, Reading] = {
    "utilization.gpu": 87,
    "utilization.memory": 41,
    "utilization.encoder": 0,
    "utilization.decoder": 0,
    "clock.event_reasons": 0,
    "performance_state": 0,
    "pcie.replays": 0,
    # NVML measures for 20 ms.
    "pcie.throughput.tx": "slow:20:120000",
    "pcie.throughput.rx": "slow:20:340000",
    "bar1.used": 3 * MIB,
}

_VOLTA: dict[str, Reading] = {
    "brand": NVIDIA,
    "fan.count": 0,
    "events": 0x1F,
    "ecc.mode": 1,
    "ecc.pending_mode": 1,
    **{f"retired_pages.{name}": 0 for name in ("single_bit", "double_bit", "pending")},
    **{
        f"ecc.{period}.{kind}{where}": 0
        for period in ("volatile", "aggregate")
        for kind in ("corrected", "uncorrected")
        for where in ("", ".dram", ".sram")
    },
    **{f"pcie.errors.{name}": 0 for name in _ERRORS},
}

# Since Ampere, a card is cut into MIG instances, and replaces rows of its memory where others retire pages.
_DATA_CENTRE: dict[str, Reading] = {
    **{name: reading for name, reading in _VOLTA.items() if not name.startswith("retired_pages.")},
    "mig.mode": 0,
    "mig.pending_mode": 0,
    "mig.max": 7,
    **{f"remapped_rows.{name}": 0 for name in ("correctable", "uncorrectable", "pending", "failure")},
}

_GEFORCE: dict[str, Reading] = {
    "brand": GEFORCE,
    "events": 0x1C,
    "fan.count": 2,
    "fan.0.speed": 54,
    "fan.1.speed": 55,
}


def _pcie(generation: int) -> dict[str, Reading]:
    return {
        "pcie.link.generation": generation,
        "pcie.link.max_generation": generation,
        "pcie.link.width": 16,
        "pcie.link.max_width": 16,
    }


V100 = Model(
    name="Tesla V100-SXM2-32GB",
    device=0x1DB5,
    subsystem=0x124910DE,
    pci_class=0x030200,
    bar1_mebibytes=32768,
    nvml_memory=True,
    readings={
        **_EVERY,
        **_VOLTA,
        **_pcie(3),
        **_limits(300, 150, 300),
        **_clocks(1530, 877, 1372),
        **_group("compute_capability", major=7, minor=0),
        **_group("temperature.threshold", shutdown=90, slowdown=87, memory_max=85, gpu_max=83),
        **_group("memory", total=32768 * MIB, used=14020 * MIB, reserved=271 * MIB),
        "power.usage": 214000,
        "vbios": "88.00.80.00.02",
    },
)

A100 = Model(
    name="NVIDIA A100-SXM4-40GB",
    device=0x20B0,
    subsystem=0x134F10DE,
    pci_class=0x030200,
    bar1_mebibytes=65536,
    nvml_hotspot=True,
    nvml_memory=True,
    readings={
        **_EVERY,
        **_DATA_CENTRE,
        **_pcie(4),
        **_limits(400, 100, 400),
        **_clocks(1410, 1215, 1290),
        **_group("compute_capability", major=8, minor=0),
        **_group("temperature.threshold", shutdown=92, slowdown=89, memory_max=95, gpu_max=85),
        **_group("memory", total=40960 * MIB, used=17250 * MIB, reserved=635 * MIB),
        "power.usage": 311000,
        "vbios": "92.00.45.00.03",
    },
    mig={
        "1g.5gb": MigProfile(1, 4864, 14, 1, 0),
        "2g.10gb": MigProfile(2, 9856, 28, 2, 1),
        "3g.20gb": MigProfile(3, 19968, 42, 3, 2),
        "4g.20gb": MigProfile(4, 19968, 56, 4, 2),
        "7g.40gb": MigProfile(7, 40192, 98, 7, 5, 1, 1),
    },
)

H100 = Model(
    name="NVIDIA H100 80GB HBM3",
    device=0x2330,
    subsystem=0x16C110DE,
    pci_class=0x030200,
    bar1_mebibytes=131072,
    nvml_hotspot=True,
    nvml_memory=True,
    readings={
        **_EVERY,
        **_DATA_CENTRE,
        **_pcie(5),
        **_limits(700, 200, 700),
        **_clocks(1980, 2619, 1545),
        **_group("compute_capability", major=9, minor=0),
        **_group("temperature.tlimit", shutdown=-8, slowdown=-2, memory_max=0, gpu_max=0),
        **_group("memory", total=81559 * MIB, used=61234 * MIB, reserved=551 * MIB),
        "power.usage": 560000,
        "vbios": "96.00.61.00.01",
    },
    mig={
        "1g.10gb": MigProfile(1, 9984, 16, 1, 1, 1),
        "2g.20gb": MigProfile(2, 20096, 32, 2, 2, 2),
        "3g.40gb": MigProfile(3, 40448, 60, 3, 3, 3),
        "4g.40gb": MigProfile(4, 40448, 64, 4, 4, 4),
        "7g.80gb": MigProfile(7, 81152, 132, 8, 7, 7, 1),
    },
)

RTX_3090 = Model(
    name="NVIDIA GeForce RTX 3090",
    device=0x2204,
    subsystem=0x403B1458,
    pci_class=0x030000,
    bar1_mebibytes=256,
    nvapi={"core": 1, "hotspot": 9, "memory": 15},
    registers=Registers("ampere", 0x172000A1),
    readings={
        **_EVERY,
        **_GEFORCE,
        **_pcie(4),
        **_limits(350, 100, 366),
        **_clocks(2100, 9751, 1950),
        **_group("compute_capability", major=8, minor=6),
        **_group("temperature.threshold", shutdown=98, slowdown=95, gpu_max=93),
        **_group("memory", total=24576 * MIB, used=9321 * MIB, reserved=316 * MIB),
        "power.usage": 288000,
        "vbios": "94.02.42.80.6c",
    },
)

RTX_4090 = Model(
    name="NVIDIA GeForce RTX 4090",
    device=0x2684,
    subsystem=0x889D1043,
    pci_class=0x030000,
    bar1_mebibytes=32768,
    nvapi={"core": 1, "hotspot": 9, "memory": 15},
    registers=Registers("ampere", 0x192000A1),
    readings={
        **_EVERY,
        **_GEFORCE,
        **_pcie(4),
        **_limits(450, 150, 600),
        **_clocks(3105, 10501, 2415),
        **_group("compute_capability", major=8, minor=9),
        **_group("temperature.threshold", shutdown=95, slowdown=92, gpu_max=90),
        **_group("temperature.tlimit", shutdown=-7, slowdown=-2, gpu_max=0),
        **_group("memory", total=24564 * MIB, used=11020 * MIB, reserved=346 * MIB),
        "ecc.mode": 0,
        "ecc.pending_mode": 0,
        "power.usage": 362000,
        "vbios": "95.02.3c.00.8a",
    },
)

RTX_5090 = Model(
    name="NVIDIA GeForce RTX 5090",
    device=0x2B85,
    subsystem=0x53001462,
    pci_class=0x030000,
    bar1_mebibytes=32768,
    nvapi={"core": 9, "memory": 10},
    registers=Registers("blackwell", 0x1B2000A1),
    readings={
        **_EVERY,
        **_GEFORCE,
        **_pcie(5),
        **_limits(575, 400, 600),
        **_clocks(3090, 14001, 2385),
        **_group("compute_capability", major=12, minor=0),
        **_group("temperature.threshold", shutdown=95, slowdown=92, gpu_max=90),
        **_group("temperature.tlimit", shutdown=-5, slowdown=-2, gpu_max=0),
        **_group("memory", total=32607 * MIB, used=20480 * MIB, reserved=486 * MIB),
        "ecc.mode": 0,
        "ecc.pending_mode": 0,
        "power.usage": 498000,
        "vbios": "98.02.2e.40.c1",
    },
)

MODELS: dict[str, Model] = {
    "v100": V100,
    "a100": A100,
    "h100": H100,
    "rtx3090": RTX_3090,
    "rtx4090": RTX_4090,
    "rtx5090": RTX_5090,
}
