"""GPUs and MIG devices by the names that others give them: UUIDs, indices, "all".

A slot is DS01's name of what one job gets: the GPU's NVML index, or GPU and MIG device as nvidia-smi -L numbers it.
"""

from __future__ import annotations

import re
import typing as t

from ..text import label

if t.TYPE_CHECKING:
    from ..inventory import Gpu, Inventory

UNKNOWN = "unknown"

_INDEX = re.compile(r"[0-9]{1,4}")
_MIG_INDEX = re.compile(r"([0-9]{1,4})[:.]([0-9]{1,4})")
# As drivers before 470 wrote it: MIG-GPU-<UUID>/<GPU instance>/<compute instance>.
_OLD_MIG = re.compile(r"MIG-(GPU-[^/]+)/([0-9]{1,4})/([0-9]{1,4})", re.IGNORECASE)
_PROFILE = re.compile(r"(?:([0-9])c\.)?([0-9])g\.[0-9]+gb.*", re.ASCII)
_SHORTEST_PREFIX = len("GPU-01234567")


class Slot(t.NamedTuple):
    """One GPU or MIG device."""

    name: str
    uuid: str
    """Empty for an index of which NVML knows nothing."""
    profile: str = ""
    """Of the MIG device; empty for a whole GPU."""
    mig: bool = False

    @property
    def equivalents(self) -> float | None:
        """How much of a GPU it is: compute slices by 7 for a MIG device. None where nobody knows."""
        if self.mig:
            return mig_equivalents(self.profile)
        return 1.0 if self.name != UNKNOWN or self.uuid.upper().startswith("GPU-") else None


def mig_equivalents(profile: str) -> float | None:
    """Return the part of a GPU that a profile is: 3/7 for 3g.20gb, 1/7 for 1c.3g.20gb. None for no profile."""
    match = _PROFILE.fullmatch(profile)
    if match is None:
        return None
    slices = int(match.group(1) or match.group(2))
    return slices / 7 if 1 <= slices <= 7 else None


class Slots:
    """The slots of one inventory."""

    def __init__(self, inventory: Inventory, slot_format: str) -> None:
        self._format = slot_format
        self._gpus = {gpu.index: gpu for gpu in inventory.gpus}
        self._by_uuid: dict[str, list[Slot]] = {}
        for gpu in inventory.gpus:
            # Who has a GPU that is in MIG mode has its MIG devices: nothing else of it can be used.
            self._by_uuid[gpu.uuid.lower()] = self.migs(gpu) or [Slot(str(gpu.index), gpu.uuid)]
            for slot in self.migs(gpu):
                self._by_uuid[slot.uuid.lower()] = [slot]

    def migs(self, gpu: Gpu) -> list[Slot]:
        """Return the slots of a GPU's MIG devices."""
        return [
            Slot(self.mig_name(gpu.index, number), mig.uuid, mig.profile, mig=True)
            for number, mig in enumerate(gpu.mig)
            if gpu.mig_enabled
        ]

    def mig_name(self, gpu: int, mig: int) -> str:
        """Return the name of a MIG device's slot."""
        return self._format.replace("{gpu}", str(gpu)).replace("{mig}", str(mig))

    def all(self) -> list[Slot]:
        """Return every slot. Where no GPU is known it is one unknown slot, so that who holds all stays visible."""
        found = [slot for gpu in self._gpus.values() for slot in self._by_uuid[gpu.uuid.lower()]]
        return found or [Slot(UNKNOWN, "")]

    def find(self, device: str) -> list[Slot]:
        """Return the slots that a name stands for: a UUID, "0", "0:1" or "all".

        What NVML does not know (it is down, the GPU is lost, the name is stale) stays visible, too: a UUID in the slot
        "unknown", an index, which is a slot's name, in that slot without a UUID.
        """
        if device == "all":
            return self.all()
        if _INDEX.fullmatch(device):
            gpu = self._gpus.get(int(device))
            return self._by_uuid[gpu.uuid.lower()] if gpu else [Slot(str(int(device)), "")]
        match = _MIG_INDEX.fullmatch(device)
        if match:
            return [self._mig_by_index(int(match.group(1)), int(match.group(2)))]
        return self._by_uuid.get(device.lower()) or self._old_mig(device) or self._by_prefix(device)

    def _mig_by_index(self, gpu: int, mig: int) -> Slot:
        slots = self.migs(self._gpus[gpu]) if gpu in self._gpus else []
        return slots[mig] if mig < len(slots) else Slot(self.mig_name(gpu, mig), "", mig=True)

    def _old_mig(self, device: str) -> list[Slot]:
        match = _OLD_MIG.fullmatch(device)
        for gpu in self._gpus.values() if match else ():
            for slot, mig in zip(self.migs(gpu), gpu.mig):
                wanted = (gpu.uuid.lower(), str(mig.gpu_instance), str(mig.compute_instance))
                if match and (match.group(1).lower(), match.group(2), match.group(3)) == wanted:
                    return [slot]
        return []

    def _by_prefix(self, device: str) -> list[Slot]:
        """NVIDIA's tools take the beginning of a UUID where only one device has it."""
        if len(device) >= _SHORTEST_PREFIX:
            found = [uuid for uuid in self._by_uuid if uuid.startswith(device.lower())]
            if len(found) == 1:
                return self._by_uuid[found[0]]
        return [Slot(UNKNOWN, label(device), mig=device.upper().startswith("MIG-"))]


def split(words: str) -> list[str]:
    """Return the devices of a comma-separated list."""
    return [word.strip() for word in words.split(",") if word.strip()]
