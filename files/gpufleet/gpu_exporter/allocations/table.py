"""Who holds what, and the series made of it."""

from __future__ import annotations

import typing as t

from .. import metrics
from ..text import label
from .interfaces import BARE_METAL, MANAGED

if t.TYPE_CHECKING:
    from ..collector import Readings
    from .slots import Slot


class Holder(t.NamedTuple):
    """A container, or with no container's name a user's processes outside of any."""

    container: str
    user: str
    interface: str

    @property
    def unmanaged(self) -> bool:
        """Whether it is a container that came by none of DS01's interfaces."""
        return self.interface not in (*MANAGED, BARE_METAL)


def holder(container: str, user: str, interface: str) -> Holder:
    """Return a holder whose words any label can hold."""
    return Holder(label(container), label(user), interface)


class _Load:
    """Processes of one holder on one slot."""

    def __init__(self) -> None:
        self.count = 0
        self.memory: int | None = 0


class Table:
    """Holders and their slots. A slot may have many holders; who runs on one holds it."""

    def __init__(self) -> None:
        self._slots: dict[Holder, dict[tuple[str, str], Slot]] = {}
        self._loads: dict[tuple[Holder, Slot], _Load] = {}

    def hold(self, who: Holder, slots: t.Iterable[Slot]) -> None:
        """Note what a holder has; twice is once."""
        for slot in slots:
            self._slots.setdefault(who, {})[slot.name, slot.uuid] = slot

    def run(self, who: Holder, slot: Slot, memory: int | None) -> None:
        """Note a process of a holder, with its bytes of GPU memory where they are known."""
        load = self._loads.setdefault((who, slot), _Load())
        load.count += 1
        # A sum without one of its parts would be too small.
        load.memory = None if load.memory is None or memory is None else load.memory + memory

    def held(self) -> set[tuple[str, str]]:
        """Return name and UUID of each slot that somebody holds."""
        return {key for slots in self._slots.values() for key in slots}

    def report(self, out: Readings, limit: int) -> None:
        """Add the series of at most ``limit`` holders; count those of the others as dropped."""
        served = set(sorted(self._slots)[:limit])
        for who, slots in self._slots.items():
            for slot in slots.values():
                if who in served:
                    labels = (slot.name, *who, slot.profile, slot.uuid)
                    out.add(metrics.GPU_ALLOCATED, 1, *labels)
                    out.add(metrics.GPU_EQUIVALENTS, slot.equivalents, *labels)
                else:
                    out.dropped += 1 if slot.equivalents is None else 2
        for (who, slot), load in self._loads.items():
            if who in served:
                out.add(metrics.PROCESS_COUNT, load.count, slot.name, slot.uuid, who.user, who.container)
                out.add(metrics.PROCESS_MEMORY, load.memory, slot.name, slot.uuid, who.user, who.container)
            else:
                out.dropped += 1 if load.memory is None else 2

    def report_users(self, out: Readings, mig_per_gpu: int) -> None:
        """Add each user's sums. A slot that two containers of one user share counts once."""
        by_user: dict[str, dict[tuple[str, str], Slot]] = {}
        for who, slots in self._slots.items():
            by_user.setdefault(who.user, {}).update(slots)
        for user, held in sorted(by_user.items()):
            sizes = [slot.equivalents for slot in held.values()]
            out.add(metrics.USER_GPUS, len(held), user)
            # Without the size of one slot the sum would be wrong.
            out.add(metrics.USER_EQUIVALENTS, None if None in sizes else sum(size or 0 for size in sizes), user)
            out.add(metrics.USER_MIG, sum(1 if slot.mig else mig_per_gpu for slot in held.values()), user)

    def report_unmanaged(self, out: Readings, limit: int) -> None:
        """Add the containers that came by none of DS01's interfaces."""
        found = sorted(who for who in self._slots if who.unmanaged)
        for who in found[:limit]:
            out.add(metrics.UNMANAGED, 1, *who)
        out.dropped += len(found[limit:])
        out.add(metrics.UNMANAGED_COUNT, len(found))
