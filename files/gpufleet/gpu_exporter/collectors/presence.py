"""GPUs on the PCI bus against GPUs in NVML. A GPU that falls off the bus becomes a metric, not a gap.

It asks no driver: NVML's view comes from the inventory, so that this answers when NVML hangs.
"""

from __future__ import annotations

import typing as t

from .. import metrics, pci
from ..collector import CollectorError, Readings, State
from ..inventory import Inventory, Problem

if t.TYPE_CHECKING:
    from ..context import Context

STATES = ("ok", "lost", "passthrough", "driver_mismatch", "no_driver", "unresponsive", "unknown")

# What NVML's silence as a whole says of a GPU that is on the bus.
_BY_PROBLEM = {
    "no_library": "no_driver",
    "driver_not_loaded": "no_driver",
    "driver_mismatch": "driver_mismatch",
    "unresponsive": "unresponsive",
}


class Presence(t.NamedTuple):
    """The state of one GPU."""

    bus_id: str
    state: str
    reason: str


def judge(
    on_bus: t.Sequence[pci.PciGpu],
    inventory: Inventory,
    known: t.Collection[str],
    quarantined: t.Collection[str] = (),
) -> list[Presence]:
    """Return the state of every GPU that is on the bus or has been seen before."""
    in_nvml = {gpu.pci_bus_id for gpu in inventory.gpus}
    found = []
    for device in on_bus:
        if device.bus_id in quarantined:
            found.append(Presence(device.bus_id, "unresponsive", "it did not answer, and is left alone for a while"))
        else:
            found.append(Presence(device.bus_id, *_state(device, inventory, device.bus_id in in_nvml)))
    present = {device.bus_id for device in on_bus}
    for bus_id in known:
        if bus_id not in present:
            found.append(Presence(bus_id, "lost", "it is no longer on the PCI bus"))
    return sorted(found)


def _state(device: pci.PciGpu, inventory: Inventory, in_nvml: bool) -> tuple[str, str]:
    if device.driver in pci.PASSTHROUGH_DRIVERS:
        return "passthrough", f"bound to {device.driver} for a virtual machine"
    problem = inventory.problem
    if problem is not None:
        return _BY_PROBLEM.get(problem.kind, "unknown"), problem.message
    if device.bus_id in inventory.lost:
        return "lost", f"NVML: {inventory.lost[device.bus_id]}"
    if not in_nvml:
        if device.driver is None:
            return "no_driver", "no driver is bound to it"
        return "lost", f"on the PCI bus with driver {device.driver}, not in NVML"
    return "ok", ""


class PresenceCollector:
    """Compares sysfs with the inventory."""

    name = "presence"

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self, out: Readings) -> None:
        """Judge every GPU once. Raises CollectorError before NVML has been asked: nothing is known then."""
        store = self._context.inventory
        if not store.wait():
            raise CollectorError("NVML has not answered yet")
        inventory = store.current
        found = judge(self._on_bus(), inventory, store.known, self._context.quarantined())
        out.add(metrics.GPU_COUNT, len(found))
        for presence in found:
            _report(presence, store.labels_of(presence.bus_id), out)
        _report_nvml(inventory.problem, out)
        if inventory.problem is None:
            out.add(metrics.LIBRARY_REPLACED, int(inventory.library_replaced))

    def state(self) -> State:
        """Nothing: the inventory's own state has the GPUs."""
        return None

    def restore(self, state: State) -> None:
        """Nothing."""

    def _on_bus(self) -> list[pci.PciGpu]:
        try:
            return pci.gpus(self._context.config.paths.sysfs)
        except OSError:
            return []  # a machine without a PCI bus has no GPU on it


def _report(presence: Presence, labels: tuple[str, ...], out: Readings) -> None:
    if presence.state != "unknown":  # who may not ask knows nothing of what others may do
        out.add(metrics.GPU_AVAILABLE, int(presence.state == "ok"), *labels)
    for state in STATES:
        out.add(metrics.GPU_STATE, int(state == presence.state), *labels, state)
    out.add(metrics.GPU_STATE_INFO, 1, *labels, presence.state, presence.reason)


def _report_nvml(problem: Problem | None, out: Readings) -> None:
    out.add(metrics.NVML_UP, 0 if problem else 1, problem.kind if problem else "")
