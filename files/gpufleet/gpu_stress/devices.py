"""Which GPUs were meant, and who uses them. Asked once, before anything is started."""

from __future__ import annotations

import os
import pwd
import re
import typing as t
import urllib.request

import pynvml

from ..gpu_exporter.allocations import slots
from ..gpu_exporter.nvml import GpuLost, NvmlDown, Session
from .exits import Exit, Refused
from .meter import Memory, Meter

if t.TYPE_CHECKING:
    from ..gpu_exporter.inventory import Inventory

SLOT_FORMAT = "{gpu}.{mig}"
"""As the exporter and its dashboards name MIG devices."""
_MIG_NAME = re.compile(r"[0-9]{1,4}[:.][0-9]{1,4}")
_NOTHING = "there is no GPU to put a load on"
_EXPORTER_SECONDS = 3.0


class Target(t.NamedTuple):
    """One GPU, or MIG device."""

    name: str
    """NVML's index, or GPU.DEVICE as nvidia-smi -L numbers MIG devices."""
    uuid: str
    gpu_uuid: str
    """Of the GPU that it is, or is a part of."""
    model: str
    mig: bool

    @property
    def title(self) -> str:
        """As it is spoken of."""
        return f"{'MIG' if self.mig else 'GPU'} {self.name}"


def known() -> Inventory:
    """Ask NVML which GPUs there are. Raises Refused."""
    session = Session()
    try:
        inventory = session.refresh(with_processes=False)
    except NvmlDown as error:
        raise Refused(Exit.NO_NVML, f"NVML does not answer: {error}. Is the NVIDIA driver loaded?") from error
    session.close()
    return inventory


def everything(inventory: Inventory) -> list[Target]:
    """Return all that a load can be put on: a GPU in MIG mode is its MIG devices."""
    return choose(["all"], inventory)


def choose(words: t.Iterable[str], inventory: Inventory) -> list[Target]:
    """Return the GPUs that are meant, each once. Raises Refused."""
    if not inventory.gpus:
        raise Refused(Exit.USAGE, _NOTHING)
    gpus = {gpu.index: gpu for gpu in inventory.gpus}
    found: dict[str, Target] = {}
    for word in words:
        for slot in slots.Slots(inventory, SLOT_FORMAT).find(word):
            index = slot.name.partition(".")[0]
            gpu = gpus.get(int(index)) if index.isdigit() else None
            if gpu is None or not slot.uuid:
                raise Refused(Exit.USAGE, _no_such(word, inventory))
            if gpu.pci_bus_id in inventory.lost:
                raise Refused(Exit.NO_NVML, f"GPU {gpu.index} does not answer: {inventory.lost[gpu.pci_bus_id]}")
            if gpu.mig_enabled and not slot.mig:
                if word == "all":
                    continue
                raise Refused(Exit.USAGE, f"GPU {gpu.index} is in MIG mode and has no MIG device to put a load on")
            model = f"{gpu.model} {slot.profile}" if slot.mig else gpu.model
            found[slot.uuid] = Target(slot.name, slot.uuid, gpu.uuid, model, slot.mig)
    if not found:
        raise Refused(Exit.USAGE, _NOTHING)
    return list(found.values())


def _no_such(word: str, inventory: Inventory) -> str:
    there = ", ".join(f"{target.name} ({target.uuid})" for target in everything(inventory))
    kind = "MIG device" if _MIG_NAME.fullmatch(word) or word.upper().startswith("MIG-") else "GPU"
    return f"--device {word}: there is no such {kind}. There are: {there}"


# -- who uses them --------------------------------------------------------------------------------


def holders(target: Target, meter: Meter) -> list[str]:
    """Return who uses a GPU, in words for people. A driver that does not tell is somebody, too."""
    pids = meter.pids()
    if pids is None:
        return ["nobody knows who: this driver does not tell us the processes on it"]
    return [_process(pid) for pid in sorted(pids)]


def _process(pid: int) -> str:
    """Name a process; what cannot be seen (another PID namespace, hidepid) still has its number."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            command = file.read().strip()
        return f"process {pid} ({command}) of {_user(os.stat(f'/proc/{pid}').st_uid)}"
    except OSError:
        return f"process {pid}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class Allocations:
    """What our exporter says about who was given which GPU: a job that holds one and is idle has no process on it."""

    def __init__(self, url: str) -> None:
        """Raises OSError when the exporter does not answer, ValueError when it says what nobody understands."""
        from prometheus_client.parser import text_string_to_metric_families  # takes long to load

        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this host is behind no proxy
        with opener.open(url, timeout=_EXPORTER_SECONDS) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        self._labels = [
            sample.labels for family in families for sample in family.samples
            if sample.name == "ds01_gpu_allocated" and sample.value == 1
        ]  # fmt: skip

    def holders(self, target: Target) -> list[str]:
        """Return to whom a GPU was given; what the caller has is the caller's."""
        mine = {str(os.getuid()), _user(os.getuid())}
        found = []
        for labels in self._labels:
            uuids, user = {target.uuid, target.gpu_uuid}, labels.get("user", "")
            if labels.get("UUID") in uuids and user not in mine:
                container = f" (container {labels['container']})" if labels.get("container") else ""
                found.append(f"gpu_exporter: it is allocated to {user or 'somebody'}{container}")
        return found


# -- how it is now --------------------------------------------------------------------------------


def look(target: Target) -> tuple[Meter, Memory]:
    """Return a meter of a GPU, and its memory. Raises Refused."""
    try:
        meter = Meter(target.uuid)
        memory = meter.memory()
    except (NvmlDown, GpuLost, pynvml.NVMLError) as error:
        raise Refused(Exit.NO_NVML, f"{target.title} does not answer: {error}") from error
    if memory is None:
        raise Refused(Exit.NO_NVML, f"{target.title}: NVML does not tell its memory")
    return meter, memory
