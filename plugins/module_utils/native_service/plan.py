# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to happen for a host to run a service as described. Nothing here touches a host."""

from __future__ import annotations

import typing as t
from pathlib import PurePath

from . import packages as pkgs
from . import release as releases

# What a change of a file asks of the running service, the weakest first.
EFFECTS = ("none", "reload", "restart")


def unit_path(name: str) -> str:
    """Where a unit of our own is."""
    return f"/etc/systemd/system/{name}.service"


def drop_in_path(name: str) -> str:
    """Where our part of a unit is that somebody else wrote."""
    return f"/etc/systemd/system/{name}.service.d/gpufleet.conf"


def timer_path(name: str) -> str:
    """Where the timer of a job is."""
    return f"/etc/systemd/system/{name}.timer"


class File(t.NamedTuple):
    """A file as it is to be. ``effect`` is one of EFFECTS; ``validate`` is a command, split into words.

    What is ``generated`` was made up just now, and gives way to what the host has already.
    """

    path: str
    content: bytes
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    effect: str = "restart"
    secret: bool = False
    validate: tuple[str, ...] = ()
    generated: bool = False


class FileState(t.NamedTuple):
    """A file as it is on the host."""

    content: bytes
    mode: int
    owner: str
    group: str


class Service(t.NamedTuple):
    """A service as it is to be. The unit file is one of ``files``, at ``unit_path``.

    Of a service that is to be absent, ``files`` are those that stay with its data. ``data`` are patterns of paths which
    a new release may rewrite, so that the old one cannot read them any more.
    """

    name: str
    state: str  # started, stopped or absent
    unit_path: str
    files: tuple[File, ...] = ()
    directories: tuple[str, ...] = ()
    release: releases.Release | None = None
    can_reload: bool = False
    user: str | None = None  # a user account that has to exist; None with a user that systemd makes up
    purge: bool = False
    packages: pkgs.Packages | None = None
    data: tuple[str, ...] = ()
    timer: bool = False  # the unit is a job, which NAME.timer starts
    outputs: tuple[str, ...] = ()  # patterns of files elsewhere that the running service writes, and that go with it
    going_back: bool = False  # to what ran before; the next time there is nothing to go back to
    restore: bool = False  # with the data that was copied when that release was left

    @property
    def watched(self) -> str:
        """The unit whose state is the service's: between its runs, a job is inactive."""
        return f"{self.name}.{'timer' if self.timer else 'service'}"

    @property
    def shared(self) -> bool:
        """Whether unit and packages are the distribution's, for everybody on the host."""
        return self.unit_path == drop_in_path(self.name) and self.packages is not None and not self.packages.hold

    @property
    def unit_paths(self) -> tuple[str, ...]:
        """The files that systemd reads."""
        return (self.unit_path, *([timer_path(self.name)] if self.timer else []))

    @property
    def tree(self) -> tuple[str, ...]:
        """Every directory that has to exist, parents first."""
        leaves = [PurePath(path) for path in self.directories] + [PurePath(file.path).parent for file in self.files]
        return tuple(dict.fromkeys(str(path) for leaf in leaves for path in [*reversed(leaf.parents), leaf]))


class Found(t.NamedTuple):
    """How a unit was that somebody else had brought before us."""

    active: bool
    enabled: bool


class Host(t.NamedTuple):
    """A host as it is, in everything that concerns one service.

    ``placed`` is path -> effect of the files that earlier runs put there. ``unfinished`` is True when
    an earlier run was cut between its first change and its last: what runs may not be what is on disk.
    ``ran`` is the release that ran before such a run. ``trying`` is True while systemd starts the service again and
    again. ``users`` are those of the service's users that exist, ``own_user`` is one that an earlier run added.
    ``secrets`` are placed files whose content nobody may see. ``packages`` are those installed, of all that are wanted,
    replaced or were installed earlier; ``own_packages`` are those that earlier runs installed, ``held`` those that they
    held back from upgrades.
    """

    files: t.Mapping[str, FileState]
    directories: frozenset[str] = frozenset()
    placed: t.Mapping[str, str] = {}
    managed: bool = False
    leftovers: bool = False  # of a run that was cut, or failed, before it placed anything
    releases: t.Mapping[str, releases.Installed] = {}
    current: str | None = None
    previous: str | None = None
    users: frozenset[str] = frozenset()
    own_user: str | None = None
    active: bool = False
    enabled: bool = False
    unfinished: bool = False
    data: tuple[str, ...] = ()
    ran: str | None = None
    trying: bool = False
    secrets: frozenset[str] = frozenset()
    packages: t.Mapping[str, pkgs.Installed] = {}
    own_packages: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    rewritable: tuple[str, ...] = ()  # what is there of Service.data
    found: Found | None = None  # the unit, if it was there before us
    outputs: tuple[str, ...] = ()  # what is there of outputs that are not wanted any more
    generated: frozenset[str] = frozenset()  # placed files that the host made up, and that stay with the data

    def previous_to(self, current: str | None) -> str | None:
        """Return the release that stays beside ``current``: what ran last, to go back to without a download."""
        last = self.ran or self.current
        return self.previous if current == last else last


class Plan(t.NamedTuple):
    """The difference between a Service and a Host. Empty when there is none."""

    install: bool = False
    switch: bool = False
    current: str | None = None  # directory of the release to run, None while it is not installed
    write: tuple[File, ...] = ()
    remove: tuple[str, ...] = ()
    make: tuple[str, ...] = ()
    add_user: str | None = None
    remove_user: str | None = None
    daemon_reload: bool = False
    enable: bool | None = None  # None: leave as it is
    action: str | None = None  # start, restart, reload, stop
    prune: tuple[str, ...] = ()
    forget: bool = False  # remove everything that was ever placed
    purge: tuple[str, ...] = ()
    packages: pkgs.Changes = pkgs.Changes()
    sweep: tuple[str, ...] = ()  # outputs to be removed
    save: tuple[str, ...] = ()  # paths to be copied before the new release starts

    @property
    def changes(self) -> bool:
        """True when the host is not as described."""
        return self != Plan(current=self.current)


def make_plan(want: Service, have: Host) -> Plan:
    """Return what turns ``have`` into ``want``."""
    if want.state == "absent":
        return _removal(want, have)
    current = releases.find(want.release, have.releases) if want.release else None
    install = want.release is not None and current is None
    switch = want.release is not None and (install or current != have.current)
    files = [_kept(file, have.files.get(file.path)) for file in want.files]
    write = tuple(file for file in files if _differs(file, have.files.get(file.path)))
    wanted = {file.path for file in want.files}
    remove = tuple(path for path in have.placed if path not in wanted)
    packages = _packages(want.packages, have)
    effect = _strongest(
        [file.effect for file in write],
        [have.placed[path] for path in remove],
        ["restart"] if switch or packages.get or packages.drop or have.unfinished else [],
    )
    return Plan(
        install=install,
        switch=switch,
        current=current,
        write=write,
        remove=remove,
        make=tuple(path for path in want.tree if path not in have.directories),
        add_user=want.user if want.user not in have.users else None,
        daemon_reload=bool(packages.get) or have.unfinished or any(file.path in want.unit_paths for file in write),
        enable=None if have.enabled == (want.state == "started") else not have.enabled,
        action=_action(want, have, effect, fresh=bool(packages.get)),
        prune=_outdated(current, have) if want.release and not install else (),
        packages=packages,
        sweep=have.outputs,
        save=have.rewritable if switch else (),
    )


def _packages(want: pkgs.Packages | None, have: Host) -> pkgs.Changes:
    """What is there in a version that will do stays. What an earlier run installed and nobody wants goes."""
    names = want.names if want else ()
    unwanted = (have.own_packages - set(names)) | set(want.replaces if want else ())
    get = tuple(name for name in names if not _serves(have.packages.get(name), want.version if want else ""))
    return pkgs.Changes(
        get=get,
        drop=tuple(sorted(unwanted & have.packages.keys())),
        # To install a package that is held lets it go.
        hold=tuple(name for name in names if name in get or not have.packages[name].held) if want and want.hold else (),
    )


def _serves(installed: pkgs.Installed | None, version: str) -> bool:
    return installed is not None and pkgs.matches(installed.version, version)


def _removal(want: Service, have: Host) -> Plan:
    """Take away what was placed. A unit of the same name that somebody else wrote stays as it is."""
    keep = set() if want.purge else {file.path for file in want.files} | have.generated
    purge = have.data if want.purge else ()
    if not have.managed:
        return Plan(forget=have.leftovers, purge=purge)
    # A program of the distribution that was there before us goes on as it was before us: others use it.
    after = have.found if want.shared and have.found else Found(active=False, enabled=False)
    return Plan(
        remove=tuple(path for path in have.placed if path not in keep),
        remove_user=have.own_user if have.own_user in have.users else None,
        daemon_reload=True,
        enable=None if have.enabled == after.enabled else after.enabled,
        action="restart" if after.active else "stop" if have.active else None,
        forget=True,
        purge=purge,
        sweep=have.outputs,
        packages=pkgs.Changes(drop=tuple(sorted(have.own_packages & have.packages.keys()))),
    )


def _kept(file: File, state: FileState | None) -> File:
    return file._replace(content=state.content) if file.generated and state and state.content else file


def _differs(file: File, state: FileState | None) -> bool:
    return state != FileState(file.content, file.mode, file.owner, file.group)


def _strongest(*effects: t.Iterable[str]) -> str:
    return max((effect for group in effects for effect in group), key=EFFECTS.index, default="none")


def _action(want: Service, have: Host, effect: str, fresh: bool) -> str | None:
    if want.state == "stopped":
        return "stop" if have.active else None
    if not have.active:
        # What is starting now may be up, as it was, before it is told to start. So may what a package starts.
        return "restart" if (have.trying and effect != "none") or fresh else "start"
    if effect == "reload" and not want.can_reload:
        return "restart"
    return None if effect == "none" else effect


def _outdated(current: str | None, have: Host) -> tuple[str, ...]:
    """Two releases stay: the one that runs and the one before it."""
    keep = {current, have.previous_to(current)}
    return tuple(name for name in have.releases if name not in keep)


def summary(plan: Plan, want: Service, have: Host) -> list[str]:
    """Return the plan in words, one line a change."""
    version = want.release.version if want.release else ""
    before = _version(have) or "none"
    lines = []
    if plan.switch:
        lines.append(f"release {before} -> {version}")
    lines += [f"package {name} {before} -> {after}" for name, before, after in _package_changes(plan, want, have)]
    lines += [f"hold package {name}" for name in plan.packages.hold]
    lines += [f"copy {path}, for the way back" for path in plan.save]
    lines += [f"directory {path}" for path in plan.make]
    lines += [f"add user {plan.add_user}"] if plan.add_user else []
    lines += [f"remove user {plan.remove_user}"] if plan.remove_user else []
    lines += [f"write {file.path}" for file in plan.write]
    lines += [f"remove {path}" for path in [*plan.remove, *plan.sweep]]
    lines += [f"remove release {name}" for name in plan.prune]
    lines += ["remove all releases"] if plan.forget else []
    lines += [f"remove {path} with all data" for path in plan.purge]
    if plan.enable is not None:
        lines.append("enable" if plan.enable else "disable")
    if plan.action:
        lines.append(plan.action)
    if have.unfinished:
        lines.append("finish an earlier run that was cut")
    return lines


def versions(want: Service, have: Host) -> dict[str, str]:
    """Return the version that is there, and the one that is wanted. Without a release, the first package says it."""
    names = want.packages.names if want.packages else sorted(have.own_packages)
    packages = [have.packages[name].version for name in names if name in have.packages and not want.release]
    before = _version(have) or next(iter(packages), "")
    if want.state == "absent":
        wanted = ""
    elif want.release:
        wanted = want.release.version
    elif want.packages and not all(_serves(have.packages.get(name), want.packages.version) for name in names):
        wanted = want.packages.version or "newest"
    else:
        wanted = before
    return {"from": before, "to": wanted}


def _package_changes(plan: Plan, want: Service, have: Host) -> t.Iterator[tuple[str, str, str]]:
    """Name, version before and version after; which one is the newest is known when it has been installed."""
    wanted = (want.packages.version if want.packages else "") or "newest"
    for name in plan.packages.get:
        yield name, have.packages[name].version if name in have.packages else "none", wanted
    for name in plan.packages.drop:
        yield name, have.packages[name].version, "none"


def diff(plan: Plan, want: Service, have: Host) -> list[dict[str, str]]:
    """Return the plan in Ansible's diff format. The content of a secret never appears."""
    entries = []
    if plan.switch and want.release:
        entries.append(_entry(f"{want.name} release", _version(have), want.release.version))
    for name, before, after in _package_changes(plan, want, have):
        entries.append(_entry(f"package {name}", f"{before}\n", f"{after}\n"))
    for file in plan.write:
        state = have.files.get(file.path)
        secret = file.secret or file.path in have.secrets
        entries.append(_entry(file.path, _before(state, secret), _after(file)))
    entries += [_entry(path, _before(have.files.get(path), path in have.secrets), "") for path in plan.remove]
    return entries


def _version(have: Host) -> str:
    current = have.releases.get(have.current or "")
    return current.version if current else ""


def _entry(header: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": header, "after_header": header, "before": before, "after": after}


def _before(state: FileState | None, secret: bool = False) -> str:
    """What only its owner may read on the host is not shown to whoever reads the log."""
    if state is None:
        return ""
    return "(old secret content)\n" if secret or not state.mode & 0o004 else _text(state)


def _after(file: File) -> str:
    state = FileState(file.content, file.mode, file.owner, file.group)
    return "(new secret content)\n" if file.secret else _text(state)


def _text(state: FileState) -> str:
    head = f"# {state.owner}:{state.group} {state.mode:04o}\n"
    try:
        return head + state.content.decode()
    except UnicodeDecodeError:
        return head + f"({len(state.content)} bytes, not text)\n"
