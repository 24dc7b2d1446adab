# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""This host: what of the old systems is here, how they make way, and how they come back."""

from __future__ import annotations

import os
import re
import shutil
import time
import typing as t
from datetime import datetime, timezone
from pathlib import Path

from ..native_service import health, installed
from ..native_service.health import Run
from ..native_service.systemd import Systemd, SystemdError
from . import data
from . import known as k
from .docker import Docker, Json, data_path, read
from .plan import (
    TAKEN_OVER,
    Container,
    Found,
    Holder,
    MigrationError,
    Plan,
    Row,
    Source,
    Target,
    Unit,
    is_ours,
    our_role,
    ports,
    who,
)
from .record import Record

Services = t.Mapping[str, t.Sequence[int]]
Before = t.Mapping[str, t.Any]

_DS01 = "/opt/ds01-infra/"
_PROPERTIES = ("LoadState", "ActiveState", "UnitFileState", "FragmentPath", "DropInPaths")
_PATIENCE = 10  # seconds until the kernel has let go of a port


class OldSystems:
    """The old systems on this host. ``run`` takes words and returns exit status, stdout and stderr."""

    def __init__(self, run: Run, record: Record) -> None:
        self._run = run
        self._record = record
        self._docker = Docker(run)
        self._systemd = Systemd(run)

    # -- see ----------------------------------------------------------------------------------

    def observe(self, services: Services, old_data: t.Mapping[str, str] | None = None) -> Found:
        """Return what there is.

        ``old_data`` (role -> directory) goes before what containers say of theirs. None: nobody asks for data.
        """
        said = self._docker.containers()
        holders = tuple(_holders(ports(services), read(said)))
        held = {holder.container for holder in holders} | set(self._record.containers)
        containers = read(said, ports(services), held)
        ours = frozenset(installed.names())
        return Found(
            units=tuple(self._units(ours)),
            containers=tuple(containers),
            paths=tuple(path for path in k.PATHS if _is_old(path)),
            holders=holders,
            sources=() if old_data is None else tuple(_sources(said, containers, services, old_data)),
            targets={role: self._target(Path(path)) for role, (_, _, path) in k.DATA.items()},
            ours=ours,
        )

    def _units(self, ours: t.Collection[str]) -> t.Iterator[Unit]:
        names = [unit.name for unit in k.UNITS]
        text = self._run(["systemctl", "show", "--property", ",".join(_PROPERTIES), *names])[1]
        for known, block in zip(k.UNITS, text.strip().split("\n\n")):
            said = dict(line.partition("=")[::2] for line in block.splitlines())
            if said.get("LoadState") in (None, "not-found") or known.name.rpartition(".")[0] in ours:
                continue
            yield Unit(
                known,
                active=said["ActiveState"] in ("active", "activating", "reloading"),
                enabled=said["UnitFileState"] in ("enabled", "enabled-runtime"),
                path=said["FragmentPath"],
                link=_link(k.unit_path(known.name)),
                drop_ins=tuple(sorted({str(Path(path).parent) for path in said["DropInPaths"].split()})),
            )

    def _target(self, path: Path) -> Target:
        running = self._systemd.show(f"{path.name}.service").active == "active"
        reader = path.name == "prometheus" and data.PROMETHEUS.exists()
        return Target(str(path), data.is_empty(path) and not running, data.free(path), reader)

    # -- do -----------------------------------------------------------------------------------

    def make_way(self, plan: Plan, services: Services) -> None:
        """Carry a plan out. Raises MigrationError, SystemdError, OSError; the record then has what was done."""
        self._record.note(plan)
        for unit in plan.units:
            # First of all: it might start its container again. Stopped before it is disabled, which takes away a file
            # that is a link: systemd then knows no unit to stop.
            if unit.known.stop:
                self._systemd.order("stop", unit.known.name)
            self._systemd.enable(unit.known.name, False)
        for container in plan.containers:
            self._docker.restart(container.name, "no")
            if container.running:
                self._docker.stop(container.name, bool(container.known and container.known.data))
        for path in plan.aside:
            self._move(Path(path), Path(self._record.aside[path]))
        if plan.aside:
            self._read_again(plan.aside)
        for copy in plan.copies:
            data.bring(copy)
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            self._record.data[copy.source.role] = {"from": copy.source.path, "size": copy.source.size, "at": now}
            self._record.write()
        self._wait_for_ports(services)

    def _wait_for_ports(self, services: Services) -> None:
        """Somebody whom nobody knows may have started what was stopped."""
        ends = time.monotonic() + _PATIENCE
        while True:
            found = self.observe(services)
            held = [holder for holder in found.holders if not our_role(holder, found) and holder.unit not in TAKEN_OVER]
            if not held:
                return
            if time.monotonic() > ends:
                names = ", ".join(f"{holder.port} by {who(holder)}" for holder in held)
                raise MigrationError(f"the old systems are stopped, and ports are still held: {names}")
            time.sleep(0.2)

    @staticmethod
    def _move(path: Path, to: Path) -> None:
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.path.lexists(path):
            shutil.move(path, to)

    def _read_again(self, paths: t.Iterable[str]) -> None:
        """Let those read their configuration again who read one of these files."""
        if any(path.startswith("/etc/systemd/") for path in paths):
            self._systemd.daemon_reload()
        if (
            any(path.startswith("/etc/nginx/") for path in paths)
            and self._systemd.show("nginx.service").active == "active"
        ):
            self._systemd.order("reload", "nginx.service")

    # -- undo ---------------------------------------------------------------------------------

    def undo_rows(self) -> list[Row]:
        """Return what the record has, as a report."""
        rows = [Row("file", path, "", f"at {place}", "put back") for path, place in sorted(self._record.aside.items())]
        for name, before in sorted(self._record.containers.items()):
            running = "running" if before["running"] else "stopped"
            rows.append(Row("container", name, "", "", f"{running} again, restart {before['restart']}"))
        for name, before in sorted(self._record.units.items()):
            unit = Unit(k.KnownUnit(name, "", ""), before["active"], before["enabled"])
            rows.append(Row("unit", name, "", "", f"{unit.state} again"))
        for role, source in sorted(self._record.data.items()):
            target = k.DATA[role][2]
            rows.append(Row("data", source["from"], "", f"copied on {source['at']}", f"the copy in {target} stays"))
        return rows

    def undo_faults(self, services: Services, ours_go: bool = False) -> list[str]:
        """Return what is in the way of the old systems; ``ours_go`` where ours are to go first."""
        try:
            found = self.observe(services)
        except MigrationError as error:
            return [str(error)]
        faults = [
            f"{path} is there again: take this collection's service off first (playbooks/migrate_undo.yml does)"
            for path, place in sorted(self._record.aside.items())
            if os.path.lexists(path) and os.path.lexists(place) and not (ours_go and is_ours(path, found.ours))
        ]
        for holder in found.holders:
            if ours_go and our_role(holder, found):
                continue
            old = [one.name for one in found.containers if holder.container in (one.name, one.id)]
            known = holder.unit in self._record.units or holder.unit in TAKEN_OVER
            if not known and not any(name in self._record.containers for name in old):
                faults.append(f"port {holder.port} is held by {who(holder)}, process {holder.pid}: stop it first")
        return list(dict.fromkeys(faults))

    def undo(self) -> list[str]:
        """Put all back, and forget the record. Return what could not be put back because it is gone.

        What fails does not keep the rest from coming back. Raises MigrationError with all of that, and OSError; the
        record stays, so that it can be tried again.
        """
        gone = self._files_back()
        failed = []
        there = {container.name for container in read(self._docker.containers())} if self._record.containers else set()
        steps: list[tuple[t.Callable[[str, Before], list[str]], str, Before]] = [
            # What others need was stopped last.
            *(
                (self._start, name, before)
                for name, before in reversed(self._record.containers.items())
                if name in there
            ),
            *((self._bring_back, name, before) for name, before in self._record.units.items()),
        ]
        for step, name, before in steps:
            try:
                gone += step(name, before)
            except (MigrationError, SystemdError, OSError) as error:
                failed.append(str(error))
        if failed:
            raise MigrationError("\n".join(["All else is back. Mend this, and run it again:", *failed]))
        gone += [
            f"the container {name} is gone: its compose file makes it again"
            for name in self._record.containers
            if name not in there
        ]
        self._record.remove()
        return gone

    def _files_back(self) -> list[str]:
        for path, link in self._record.links().items():
            if not os.path.lexists(path) and not os.path.lexists(self._record.aside.get(path, "")):
                Path(path).symlink_to(link)
        gone = []
        for path, place in self._record.aside.items():
            if os.path.lexists(place):
                shutil.move(place, path)
            elif not os.path.lexists(path):
                gone.append(f"{path} is gone, and so it is not put back")
        self._read_again([*self._record.aside, *self._record.links()])
        return gone

    def _start(self, name: str, before: Before) -> list[str]:
        self._docker.restart(name, before["restart"], before["retries"])
        if before["running"]:
            self._docker.start(name)
        return []

    def _bring_back(self, name: str, before: Before) -> list[str]:
        if "not-found" in self._run(["systemctl", "show", "--property", "LoadState", name])[1]:
            return [f"the unit {name} is gone, and so it is not started"]
        if before["enabled"]:
            self._systemd.enable(name, True)
        if before["active"]:
            self._systemd.order("start", name)
        return []


def _link(path: str) -> str:
    return str(Path(path).readlink()) if Path(path).is_symlink() else ""


def _is_old(known: k.KnownPath) -> bool:
    path = Path(known.path)
    if not os.path.lexists(path):
        return False
    if not known.mark or (path.is_symlink() and str(path.readlink()).startswith(_DS01)):
        return True
    return path.is_file() and known.mark in path.read_bytes()[:100_000].decode("utf-8", "replace").lower()


def _sources(
    said: t.Sequence[Json], containers: t.Sequence[Container], services: Services, given: t.Mapping[str, str]
) -> t.Iterator[Source]:
    for role, path in given.items():
        if role not in services:
            continue
        if not Path(path).is_dir():
            raise MigrationError(f"data: {path}, the old data for {role}, is no directory on this host")
        yield Source(role, os.path.realpath(path), data.size(Path(path)), "given")
    for one, container in zip(said, containers):
        known = container.known
        if known is None or not known.data or known.role in given or known.role not in services:
            continue
        argument, usual, _ = k.DATA[known.role]
        path = data_path(one, argument, usual)
        if path and Path(path).is_dir():
            yield Source(known.role, path, data.size(Path(path)), container.name)


def _holders(wanted: t.Iterable[int], containers: t.Sequence[Container]) -> t.Iterator[Holder]:
    names = {container.id: container.name for container in containers}
    for port in sorted(wanted):
        published = [container.name for container in containers if port in container.ports]
        yield from (Holder(port, 0, "docker-proxy", "docker.service", name) for name in published)
        for listener in health.holders(port):
            if published and Path(listener.command).name == "docker-proxy":
                continue
            identity = _container_of(listener.pid)
            yield Holder(port, listener.pid, listener.command, listener.unit, names.get(identity, identity))


def _container_of(pid: int, proc: Path = Path("/proc")) -> str:
    """Return the id of the container that a process is in, "" for none."""
    try:
        found = re.findall(r"(?:docker[-/])([0-9a-f]{64})", (proc / str(pid) / "cgroup").read_text())
    except OSError:
        return ""
    return found[-1] if found else ""
