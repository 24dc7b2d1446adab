"""Keeps the inventory for all other collectors. It serves nothing of its own but its health."""

from __future__ import annotations

import dataclasses
import time
import typing as t

import pynvml

from .. import pci
from ..collector import CollectorError, Readings, State
from ..inventory import Gpu, Inventory, MigInstance
from ..nvml import NvmlDown, XidEvents

if t.TYPE_CHECKING:
    from ..context import Context


_BUS_SECONDS = 30.0
"""From one look at the bus to the next: it is only to notice GPUs that NVML does not list."""


class DriverReplaced(Exception):
    """The driver's library on disk is a new one: this process has to go, so that the next one loads it."""


class InventoryCollector:
    """Asks NVML which GPUs there are."""

    name = "inventory"

    def __init__(self, context: Context) -> None:
        self._store = context.inventory
        self._session = context.nvml
        self._sysfs = context.config.paths.sysfs
        self._expected: list[str] = []
        self._looked = -_BUS_SECONDS
        self._events = XidEvents(context.nvml) if context.config.xid.enabled else None
        self._with_processes = context.config.allocations.enabled and context.config.allocations.processes

    def collect(self, out: Readings) -> None:
        """Look once. That there is no driver is no failure: a host may have no GPU."""
        try:
            self._store.current = self._session.refresh(self._with_processes, self._with_driver())
            for failure in self._store.current.failures:
                out.failed("inventory", failure)
            self._poll_xids(out)
        except NvmlDown as error:
            before = self._store.current
            self._store.current = Inventory(gpus=before.gpus, problem=error.problem, complete=True)
            if self._session.library_replaced():
                raise DriverReplaced from error
            if error.problem.kind != "no_library":
                raise CollectorError(error.problem.message) from error

    def _with_driver(self) -> list[str]:
        """Return the GPUs that NVIDIA's driver has, by bus id: NVML should know them all. The bus is read seldom."""
        if time.monotonic() - self._looked > _BUS_SECONDS:
            self._looked = time.monotonic()
            try:
                self._expected = [gpu.bus_id for gpu in pci.gpus(self._sysfs) if gpu.driver == "nvidia"]
            except OSError:
                self._expected = []
        return self._expected

    def _poll_xids(self, out: Readings) -> None:
        if self._events is None:
            return
        try:
            self._store.put_xids(self._events.poll())
        except pynvml.NVMLError as error:
            out.failed("events", error)

    def state(self) -> State:
        """Return the GPUs, so that those which are lost keep their labels."""
        store = self._store
        return {"gpus": [dataclasses.asdict(gpu) for gpu in store.known.values()], "driver": store.driver_version}

    def restore(self, state: State) -> None:
        """Know the GPUs before NVML has answered."""
        gpus = tuple(Gpu(**{**gpu, "mig": tuple(MigInstance(**mig) for mig in gpu["mig"])}) for gpu in state["gpus"])
        self._store.current = Inventory(gpus=gpus, driver_version=state["driver"])
        self._session.know(gpus)
