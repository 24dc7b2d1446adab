"""Who has which GPU or MIG device: from Docker, else DS01's state file, and from the processes on the GPUs.

Docker and the file say what was given to a container; the driver says who really runs on a GPU, also outside of
containers and in containers of others than Docker.
"""

from __future__ import annotations

import os
import time
import typing as t

from ... import __version__
from .. import metrics
from ..allocations import cgroup, state_file
from ..allocations.docker_source import Container, DockerSource
from ..allocations.interfaces import BARE_METAL, INTERFACES, interface
from ..allocations.processes import Owner, Processes
from ..allocations.slots import Slots
from ..allocations.table import Holder, Table, holder
from ..allocations.users import UNKNOWN, Users, user_of_slice
from ..collector import CollectorError, Readings, State
from ..docker import DockerError, NoDocker

if t.TYPE_CHECKING:
    from ..context import Context


class AllocationsCollector:
    """Asks Docker, reads the state file, looks at processes."""

    name = "allocations"

    def __init__(self, context: Context) -> None:
        self._store = context.inventory
        self._settings = context.config.allocations
        self._docker = DockerSource(self._settings)
        self._users = Users(self._settings, context.config.paths.passwd)
        self._processes = Processes(context.config.paths.proc)
        self._cgroup = context.config.paths.cgroup
        self._docker_answered: float | None = None
        self._strangers: set[str] = set()

    def collect(self, out: Readings) -> None:
        """Read once. Raises CollectorError when a source that is there does not answer, or NVML has not been asked."""
        if not self._store.wait():
            raise CollectorError("NVML has not answered yet")
        settings, inventory = self._settings, self._store.current
        slots, table = Slots(inventory, settings.slot_format), Table()
        containers = self._ask_docker(out)
        known: dict[str, Holder | None] = {}
        source = "docker" if containers is not None else ""
        if containers is not None:
            known = self._take_containers(containers, slots, table, out)
        elif self._take_file(slots, table, out):
            source = "state_file"
        if settings.processes:
            self._take_processes(known, slots, table, source)
            source = source or "processes"
        self._report(slots, table, source, out)

    def state(self) -> State:
        """Nothing."""
        return None

    def restore(self, state: State) -> None:
        """Nothing."""

    def _ask_docker(self, out: Readings) -> list[Container] | None:
        """Return Docker's containers; None where another source has to do. Raises CollectorError."""
        if not self._settings.docker:
            return None
        try:
            containers = self._docker.read(out)
        except NoDocker:
            return None
        except DockerError as error:
            if not self._file_stands_in():
                raise CollectorError(str(error)) from error
            out.failed("docker", error)
            return None
        self._docker_answered = time.monotonic()
        return containers

    def _file_stands_in(self) -> bool:
        """Whether the state file replaces a Docker that is there and does not answer.

        Not as long as Docker's own last words may be served: a short break must not change every series twice.
        """
        last = self._docker_answered
        recent = last is not None and time.monotonic() - last <= self._settings.allowed_age
        return not recent and os.path.exists(self._settings.state_file)

    def _take_containers(
        self, containers: list[Container], slots: Slots, table: Table, out: Readings
    ) -> dict[str, Holder | None]:
        """Note what Docker says. Returns the running containers by id, None for those that do not run."""
        counts = {(status, kind): 0 for status in ("running", "stopped") for kind in INTERFACES}
        users: dict[str, int] = {}
        groups: dict[tuple[str, str], tuple[str, str]] = {}
        known: dict[str, Holder | None] = {}
        for one, detail in containers:
            labels = detail.labels if detail else one.labels
            kind = interface(one.name, labels, self._settings)
            counts["running" if one.running else "stopped", kind] += 1
            known[one.id] = None
            if one.running:
                user = self._users.of_container(one.name, labels, detail.cgroup_parent if detail else "")
                who = known[one.id] = holder(one.name, user, kind)
                users[who.user] = users.get(who.user, 0) + 1
                groups[who.container, who.user] = (one.id, detail.cgroup_parent if detail else "")
                table.hold(who, (slot for device in (detail.devices if detail else ()) for slot in slots.find(device)))
        for (status, kind), count in counts.items():
            out.add(metrics.CONTAINERS, count, status, kind)
        for user, count in sorted(users.items()):
            out.add(metrics.USER_CONTAINERS, count, user)
        self._report_usage(groups, out)
        return known

    def _report_usage(self, groups: dict[tuple[str, str], tuple[str, str]], out: Readings) -> None:
        """Add what containers use, by name and user; count those beyond the bound as dropped."""
        for number, labels in enumerate(sorted(groups)):
            found = cgroup.of_container(self._cgroup, *groups[labels])
            if number < self._settings.containers_limit:
                out.add(metrics.CONTAINER_CPU, found.cpu_seconds, *labels)
                out.add(metrics.CONTAINER_MEMORY, found.memory, *labels)
                out.add(metrics.CONTAINER_MEMORY_LIMIT, found.memory_limit, *labels)
            else:
                out.dropped += sum(value is not None for value in found)

    def _take_file(self, slots: Slots, table: Table, out: Readings) -> bool:
        """Note what the state file says. Returns whether there is one. Raises CollectorError."""
        try:
            found = state_file.read(self._settings.state_file)
        except state_file.StateFileError as error:
            raise CollectorError(str(error)) from error
        if found is None:
            return False
        entries, bad = found
        for words in bad:
            out.failed(self._settings.state_file, words)
        for entry in entries:
            labels = {self._settings.interface_label: entry.interface}
            user = entry.user or self._users.of_container(entry.container, {}, "")
            who = holder(entry.container, user, interface(entry.container, labels, self._settings))
            table.hold(who, (slot for device in entry.devices for slot in slots.find(device)))
        return True

    def _take_processes(self, known: dict[str, Holder | None], slots: Slots, table: Table, source: str) -> None:
        """Note who runs on the GPUs."""
        processes = self._store.current.processes
        owners = self._processes.look(process.pid for process in processes)
        held, strangers = table.held(), set[str]()
        for process in processes:
            if process.pid not in owners:
                continue
            owner = owners[process.pid]
            who = self._whose(owner, known, source, strangers)
            if who is None:
                continue
            for slot in slots.find(process.device_uuid):
                # The file names containers, a process has an id: what it says of a slot counts. And a process that
                # is hidden from us is most likely of the one who was given the slot.
                given = (slot.name, slot.uuid) in held
                if given and (owner is None or (source == "state_file" and owner.home.container)):
                    continue
                table.hold(who, [slot])
                table.run(who, slot, process.memory_bytes)
        self._strangers = strangers

    def _whose(
        self, owner: Owner | None, known: dict[str, Holder | None], source: str, strangers: set[str]
    ) -> Holder | None:
        """Return whose a process is, None while that is not certain."""
        if owner is None:
            return Holder("", UNKNOWN, BARE_METAL)
        if not owner.home.container:
            return holder("", self._users.by_number(owner.user), BARE_METAL)
        if owner.home.container in known:
            return known[owner.home.container]
        # Docker and the driver were not asked in the same moment: a container that one of them does not know yet is
        # named by its id only when that has not changed until the next time.
        strangers.add(owner.home.container)
        if source == "docker" and owner.home.container not in self._strangers:
            return None
        # Root in a container says nothing of whose it is.
        user = user_of_slice(owner.home.path) or (self._users.by_number(owner.user) if owner.user else UNKNOWN)
        return holder(owner.home.container[:12], user, "docker" if owner.home.docker else "other")

    def _report(self, slots: Slots, table: Table, source: str, out: Readings) -> None:
        for gpu in self._store.current.gpus:
            labels = (str(gpu.index), str(gpu.index), gpu.uuid, "true" if gpu.mig_enabled else "false")
            out.add(metrics.GPU_SLOT, 1, *labels)
            for slot, mig in zip(slots.migs(gpu), gpu.mig):
                out.add(metrics.MIG_SLOT, 1, str(gpu.index), str(mig.gpu_instance), slot.name, mig.uuid, mig.profile)
        table.report(out, self._settings.containers_limit)
        table.report_users(out, self._settings.mig_per_gpu)
        if source == "docker":
            table.report_unmanaged(out, self._settings.containers_limit)
        if source:
            out.add(metrics.ALLOCATION_SOURCE, 1, source)
        out.add(metrics.DS01_INFO, 1, __version__, "native")
