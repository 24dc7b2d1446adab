"""What NVML said last about which GPUs there are and who runs on them.

The NVML lane writes it, all other lanes read it: they never wait for the driver.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import threading
import typing as t


@dataclasses.dataclass(frozen=True)
class MigInstance:
    """One MIG device: a compute instance within a GPU instance."""

    uuid: str
    """MIG-..., as Docker and CUDA name it."""
    gpu_instance: int
    compute_instance: int
    profile: str
    """As nvidia-smi writes it: 1g.5gb, 1c.3g.20gb."""
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One GPU as NVML knows it."""

    index: int
    uuid: str
    pci_bus_id: str
    """As sysfs writes it: 0000:01:00.0, in lower case."""
    minor: int | None
    model: str
    mig_enabled: bool = False
    mig: tuple[MigInstance, ...] = ()

    @property
    def gpu_instances(self) -> tuple[MigInstance, ...]:
        """Its GPU instances: of several compute instances in one, the first, and the profile of the whole."""
        found: dict[int, MigInstance] = {}
        for mig in self.mig:
            profile = re.sub(r"^\d+c\.", "", mig.profile)  # 1c.3g.20gb is a third of a 3g.20gb
            found.setdefault(mig.gpu_instance, dataclasses.replace(mig, profile=profile))
        return tuple(found.values())

    def labels(self, hostname: str, driver_version: str) -> tuple[str, ...]:
        """Return the values of metrics.GPU."""
        device = "" if self.minor is None else f"nvidia{self.minor}"
        return (str(self.index), self.uuid, self.pci_bus_id, device, self.model, hostname, driver_version)


@dataclasses.dataclass(frozen=True)
class Process:
    """One process that uses a GPU."""

    pid: int
    device_uuid: str
    """UUID of the GPU, or of the MIG device where it runs in one."""
    memory_bytes: int | None
    """None where the driver does not tell, as in other PID namespaces."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why NVML does not answer."""

    kind: str
    """no_library, driver_not_loaded, driver_mismatch, no_permission, unresponsive or error."""
    message: str


@dataclasses.dataclass(frozen=True)
class Inventory:
    """One consistent view."""

    gpus: tuple[Gpu, ...] = ()
    lost: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    """PCI bus id to NVML's words, of GPUs that NVML lists and cannot reach."""
    processes: tuple[Process, ...] = ()
    driver_version: str = ""
    problem: Problem | None = None
    complete: bool = False
    """Whether NVML has been asked at all."""
    library_replaced: bool = False
    """Whether the driver was upgraded on the disk while it is in use."""
    failures: tuple[str, ...] = ()
    """Parts that did not answer."""


class Store:
    """The place where lanes meet. References are replaced as a whole, which Python does in one step."""

    def __init__(self, hostname: str) -> None:
        self.hostname = hostname
        self.known: t.Mapping[str, Gpu] = {}
        """By bus id, every GPU that NVML has ever named: one that is lost keeps its labels, and so its series."""
        self.driver_version = ""
        """As NVML said last; a driver that does not answer must not give all series another name."""
        self._current = Inventory()
        self._known = threading.Event()
        self._xids: collections.deque[tuple[str, int]] = collections.deque(maxlen=10000)

    @property
    def current(self) -> Inventory:
        """What was said last."""
        return self._current

    @current.setter
    def current(self, inventory: Inventory) -> None:
        self.known = {**self.known, **{gpu.pci_bus_id: gpu for gpu in inventory.gpus}}
        self.driver_version = inventory.driver_version or self.driver_version
        self._current = inventory
        if inventory.complete:
            self._known.set()

    def wait(self, seconds: float = 3.0) -> bool:
        """Wait until NVML has been asked for the first time; return whether it has."""
        return self._known.wait(seconds)

    def put_xids(self, xids: t.Iterable[tuple[str, int]]) -> None:
        """Hand XID errors (PCI bus id, code) on to the collector that counts them."""
        self._xids.extend(xids)

    def take_xids(self) -> t.Iterator[tuple[str, int]]:
        """Yield what was handed on, once."""
        while self._xids:
            yield self._xids.popleft()

    def labels(self, gpu: Gpu) -> tuple[str, ...]:
        """Return the values of metrics.GPU."""
        return gpu.labels(self.hostname, self.driver_version)

    def labels_of(self, bus_id: str) -> tuple[str, ...]:
        """Return the values of metrics.GPU for what is on the PCI bus, as far as NVML has ever named it."""
        gpu = self.known.get(bus_id)
        return self.labels(gpu) if gpu else ("", "", bus_id, "", "", self.hostname, "")
