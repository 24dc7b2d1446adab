"""NVIDIA GPUs on the PCI bus, from sysfs. No driver is asked, so that this answers when a GPU does not."""

from __future__ import annotations

import os
import typing as t

NVIDIA = 0x10DE
_DISPLAY = 0x03  # base class "display controller": 0300 VGA, 0302 3D (PCI Code and ID Assignment)

# Drivers that hold a GPU for a virtual machine.
PASSTHROUGH_DRIVERS = {"vfio-pci", "pci-stub", "xen-pciback", "nvgrace_gpu_vfio_pci", "nvidia-vgpu-vfio"}


class PciGpu(t.NamedTuple):
    """One GPU on the bus."""

    bus_id: str
    device: int
    driver: str | None
    """The kernel's driver that is bound to it."""


def gpus(sysfs: str) -> list[PciGpu]:
    """Return the NVIDIA GPUs on the bus, by address. A device that goes while it is read is not there.

    Virtual functions (SR-IOV, for vGPU) are parts of a GPU that is there itself.

    Raises OSError when there is no PCI bus at all.
    """
    found = []
    for bus_id in sorted(os.listdir(f"{sysfs}/bus/pci/devices")):
        directory = f"{sysfs}/bus/pci/devices/{bus_id}"
        try:
            if _hex(f"{directory}/vendor") != NVIDIA or _hex(f"{directory}/class") >> 16 != _DISPLAY:
                continue
            if not os.path.lexists(f"{directory}/physfn"):
                found.append(PciGpu(bus_id.lower(), _hex(f"{directory}/device"), _driver(directory)))
        except (OSError, ValueError):
            continue
    return found


def device_id(sysfs: str, bus_id: str) -> int:
    """Return the PCI device id of a GPU, 0 when it is not on the bus."""
    try:
        return _hex(f"{sysfs}/bus/pci/devices/{bus_id}/device")
    except (OSError, ValueError):
        return 0


def resource0(sysfs: str, bus_id: str) -> str:
    """Return the file that is the GPU's BAR0."""
    return f"{sysfs}/bus/pci/devices/{bus_id}/resource0"


def sysfs_bus_id(bus_id: str) -> str:
    """Return a bus id as sysfs writes it: NVML writes 00000000:65:00.0, sysfs 0000:65:00.0."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{domain[-4:].rjust(4, '0')}:{rest}"


def bus_number(bus_id: str) -> int:
    """Return the bus of an address: 0x65 of 0000:65:00.0."""
    return int(bus_id.split(":")[1], 16)


def aer_counters(sysfs: str, bus_id: str, severity: str) -> dict[str, int]:
    """Return the counters of one severity by the kernel's name of the error, without the kernel's own total.

    Source: Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats. Raises OSError where the device or the kernel
    has none, ValueError for a file of another form.
    """
    with open(f"{sysfs}/bus/pci/devices/{bus_id}/aer_dev_{severity}", encoding="ascii") as file:
        return parse_aer(file.read())


def parse_aer(text: str) -> dict[str, int]:
    """Return the counters of an aer_dev_* file. Raises ValueError."""
    counters = {}
    for line in text.splitlines():
        name, _, count = line.rpartition(" ")
        if not name.startswith("TOTAL_ERR_"):
            counters[name.strip()] = int(count)
    if "" in counters:
        raise ValueError("a line without a name")
    return counters


def _hex(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read(), 16)


def _driver(directory: str) -> str | None:
    try:
        return os.path.basename(os.readlink(f"{directory}/driver"))
    except OSError:
        return None
