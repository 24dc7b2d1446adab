"""PCIe errors from the kernel's AER counters."""

from __future__ import annotations

import typing as t

from .. import metrics, pci
from ..collector import Readings, State

if t.TYPE_CHECKING:
    from ..context import Context

SEVERITIES = ("correctable", "nonfatal", "fatal")
"""From mild to bad; GPU_AER_ERROR_STATE is the place of the worst, from 1."""


class PcieCollector:
    """Reads sysfs."""

    name = "pcie"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sysfs = context.config.paths.sysfs

    def collect(self, out: Readings) -> None:
        """Read every GPU on the bus once. A kernel without AER counters gives no series."""
        store = self._context.inventory
        store.wait()  # for the labels; without them the bus id has to do
        try:
            on_bus = pci.gpus(self._sysfs)
        except OSError:
            return  # no PCI bus
        for device in on_bus:
            self._read(device.bus_id, store.labels_of(device.bus_id), out)

    def state(self) -> State:
        """Nothing: the kernel counts."""
        return None

    def restore(self, state: State) -> None:
        """Nothing."""

    def _read(self, bus_id: str, labels: tuple[str, ...], out: Readings) -> None:
        worst = None
        for place, severity in enumerate(SEVERITIES, 1):
            try:
                counters = pci.aer_counters(self._sysfs, bus_id, severity)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                out.failed(f"{bus_id} aer_dev_{severity}", error)
                continue
            for kind, count in counters.items():
                out.add(metrics.AER_ERRORS, count, *labels, severity, kind)
            worst = place if any(counters.values()) else worst or 0
        out.add(metrics.AER_STATE, worst, *labels)
