"""The collectors, one module each. Importing this package imports none of them: what is off costs no memory."""

from __future__ import annotations

import importlib
import typing as t

from ..inventory import Inventory, Problem

if t.TYPE_CHECKING:
    from ..collector import Collector
    from ..context import Context

# The inventory comes first: others need it, so it is always on.
_CLASSES = {
    "inventory": "InventoryCollector",
    "gpu": "GpuCollector",
    "dcgm": "DcgmCollector",
    "presence": "PresenceCollector",
    "pcie": "PcieCollector",
    "xid": "XidCollector",
    "allocations": "AllocationsCollector",
    "events": "EventsCollector",
    "system": "SystemCollector",
    "ipmi": "IpmiCollector",
}


def build(context: Context) -> list[Collector]:
    """Return the collectors that the configuration switches on."""
    enabled = [name for name in _CLASSES if name == "inventory" or context.config.section(name).enabled]
    return [_load(name)(context) for name in enabled]


def _load(name: str) -> t.Callable[[Context], Collector]:
    module = importlib.import_module(f".{name}", __name__)
    return t.cast("t.Callable[[Context], Collector]", getattr(module, _CLASSES[name]))


def assume_unresponsive(context: Context, reason: str) -> None:
    """Say that NVML does not answer, without asking it again."""
    gpus = context.inventory.current.gpus
    context.inventory.current = Inventory(gpus=gpus, problem=Problem("unresponsive", reason), complete=True)
