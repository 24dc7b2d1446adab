# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One service on this host: see how it is, and carry a plan out so that nothing is lost when it fails.

/opt/gpufleet/<service>/<version>/     releases, each complete
/opt/gpufleet/<service>/current        link to the one that runs
/opt/gpufleet/<service>/manifest.json  what was placed on this host, to know later what to remove
/opt/gpufleet/<service>/journal.json   exists only while a plan is being carried out: the state to go back to
/opt/gpufleet/<service>/data/          copies of what releases wrote, by release and path
/opt/gpufleet/<service>/found/         copies of files of others that ours replaced, by path
"""

from __future__ import annotations

import base64
import contextlib
import errno
import glob
import grp
import json
import os
import pwd
import shutil
import tempfile
import time
import typing as t
from pathlib import Path

from ..files import remove_empty, write_file
from ..lock import exclusive
from . import health as healths
from . import packages as pkgs
from . import release as releases
from .package_manager import package_manager
from .plan import File, FileState, Found, Host, Plan, Service, drop_in_path, make_plan, timer_path, unit_path
from .systemd import Systemd, SystemdError

ROOT = Path("/opt/gpufleet")
LOCK_PATIENCE = 300  # seconds beyond what the start of the service, and of the one before it, may take


class ServiceError(Exception):
    """The service could not be brought to its state; ``journal`` holds its last log lines."""

    def __init__(self, message: str, journal: t.Sequence[str] = (), rolled_back: bool = False) -> None:
        super().__init__(message)
        self.journal = list(journal)
        self.rolled_back = rolled_back


class ServiceHost:
    """This host, as far as one service is concerned."""

    def __init__(self, want: Service, health: healths.Health | None, run: healths.Run) -> None:
        self.want = want
        self.health = health
        self.root = ROOT / want.name
        self.unit = f"{want.name}.service"
        self._run = run
        self._systemd = Systemd(run)
        self._manifest_file = self.root / "manifest.json"
        self._journal_file = self.root / "journal.json"
        self._scratch = self.root / ".packages"
        self._data = self.root / "data"
        self._found = self.root / "found"
        self._refusal_file = Path(f"/run/gpufleet-{want.name}.refused")

    # -- see ----------------------------------------------------------------------------------

    def observe(self) -> Host:
        """Return this host as it is."""
        manifest, journal = self._records()
        # What a run that was cut has placed is ours, too.
        placed = {**dict.fromkeys(journal.get("files", {}), "restart"), **manifest.get("files", {})}
        own_user = manifest.get("user") or journal.get("user")
        # Packages that a run which was cut found missing are ours by now.
        fresh = {name for name, version in journal.get("packages", {}).items() if version is None}
        own_packages = {*manifest.get("packages", []), *fresh}
        paths = [file.path for file in self.want.files] + list(placed) + [self.want.unit_path]
        state = self._systemd.show(self.want.watched)
        if state.file.startswith("masked") and self.want.state != "absent":
            raise ServiceError(f"{self.want.watched} is masked on this host: systemctl unmask {self.want.watched}")
        active, enabled = state.active in ("active", "reloading"), state.file.startswith("enabled")
        found = _found(manifest or journal, Found(active, enabled) if state.file else None)
        return Host(
            files={path: state for path in paths for state in [_file_state(Path(path))] if state},
            directories=frozenset(path for path in self.want.tree if Path(path).is_dir()),
            placed={path: effect for path, effect in placed.items() if os.path.lexists(path)},
            managed=bool(manifest or journal or self._current()),
            leftovers=self.root.exists(),
            releases=releases.installed(self.root),
            current=self._current(),
            previous=manifest.get("previous"),
            ran=journal.get("current"),
            users=frozenset(user for user in (self.want.user, own_user) if user and _user_exists(user)),
            own_user=own_user,
            active=active,
            trying=state.active == "activating",
            enabled=enabled,
            unfinished=bool(journal),
            packages=self._packages({*own_packages, *manifest.get("held", [])}),
            own_packages=frozenset(own_packages),
            held=frozenset(manifest.get("held", [])),
            secrets=frozenset([*manifest.get("secrets", []), *journal.get("secrets", [])]),
            data=tuple(filter(_exists, [*self._data_directories(), *self._with_data(manifest)])),
            rewritable=_matching(self.want.data),
            found=found,
            outputs=_matching(pattern for pattern in manifest.get("outputs", []) if pattern not in self.want.outputs),
            generated=frozenset(manifest.get("generated", [])),
        )

    def _records(self) -> tuple[dict[str, t.Any], dict[str, t.Any]]:
        """What was written down: the manifest, and the journal of a run that was cut."""
        return _read_json(self._manifest_file), _read_json(self._journal_file)

    def _placed(self, plan: Plan) -> set[str]:
        """The files that services of ours have placed on this host."""
        records = ROOT.glob("*/manifest.json")
        return {*plan.remove, *(path for record in records for path in _read_json(record).get("files", ()))}

    def _made_by_others(self) -> set[str]:
        """The directories that are other services' of ours, too."""
        records = set(ROOT.glob("*/manifest.json")) - {self._manifest_file}
        return {path for record in records for path in _made(record)}

    def _data_directories(self) -> tuple[str, ...]:
        """Where its data are. Those of a program of the distribution go with its package, if they go."""
        return () if self.want.shared else _data_directories(self.want.name)

    def _with_data(self, manifest: t.Mapping[str, t.Any]) -> list[str]:
        """Files that stay and go with the data."""
        if self.want.state != "absent":
            return []
        return list(dict.fromkeys([*(file.path for file in self.want.files), *manifest.get("generated", [])]))

    def _packages(self, known: t.Iterable[str]) -> dict[str, pkgs.Installed]:
        want = self.want.packages
        names = {*known, *(want.names if want else ()), *(want.replaces if want else ())}
        return package_manager(self._run).installed(names) if names else {}

    def _current(self) -> str | None:
        link = self.root / "current"
        return str(link.readlink()) if link.is_symlink() else None

    def probe(self) -> str | None:
        """Look at the running service once. Return None when it is well, else the reason in words."""
        if self.want.timer and self._systemd.show(self.unit).active == "failed":
            return f"it failed when its timer started it: journalctl --unit {self.unit}"
        return healths.probe(self.health, self.unit, self._run) if self.health else None

    # -- do -----------------------------------------------------------------------------------

    def refuse(self, reason: str) -> None:
        """Note that the host is not as described, until it is or boots: monitoring-status tells who asks there."""
        note = json.dumps({"time": time.time(), "reason": reason})
        with contextlib.suppress(OSError):  # what went wrong is told anyway
            write_file(self._refusal_file, note.encode(), 0o600)

    def settle(self) -> None:
        """Note that the host is as described."""
        self._refusal_file.unlink(missing_ok=True)

    def locked(self) -> t.ContextManager[None]:
        """Keep two runs from working on the same service at once."""
        patience = LOCK_PATIENCE + 2 * (self.health.timeout if self.health else 0)
        busy = ServiceError(f"another run has been working on {self.unit} for too long")
        return exclusive(Path(f"/run/gpufleet-{self.want.name}.lock"), patience, busy)

    def install(self, delivered: Path | None) -> None:
        """Put the wanted release beside what runs. ``delivered`` is an archive that is on this host already."""
        release = self.want.release
        assert release is not None
        downloads = self.root / ".download"
        if delivered:
            assert release.sha256 is not None
            releases.verify(delivered, release.sha256, f"the delivered {release.filename}")
            archive, sha256 = delivered, release.sha256
        else:
            archive, sha256 = releases.fetch(release, downloads)
        try:
            releases.install(release, archive, sha256, self.root)
        finally:
            shutil.rmtree(downloads, ignore_errors=True)

    def fetch_packages(self, plan: Plan, have: Host) -> dict[str, str]:
        """Download packages beside what runs. Returns their versions. Raises PackageError."""
        if not plan.packages.get:
            return {}
        assert self.want.packages is not None
        try:
            return package_manager(self._run).fetch(self.want.packages, plan.packages, have.packages, self._scratch)
        except pkgs.PackageError:
            shutil.rmtree(self._scratch, ignore_errors=True)
            if not have.managed:
                self._forget()
            raise

    def check_files(self, plan: Plan) -> None:
        """Run the validation commands on the new files before any of them is live. Raises ServiceError."""
        release = self.root / (plan.current or "current")
        touched = {file.path for file in plan.write} | set(plan.remove)
        for file in self.want.files:
            scope = self._scope(file.path)
            if not file.validate or not (plan.switch or any(_within(path, scope) for path in touched)):
                continue
            with tempfile.TemporaryDirectory(prefix="gpufleet-") as stage:
                staged = self._stage(scope, file, Path(stage), plan)
                places = {"{file}": str(staged), "{release}": str(release)}
                code, out, err = self._run([_filled(word, places) for word in file.validate])
                if code != 0:
                    said = (err + out).strip().replace(f"{stage}/", "")
                    raise ServiceError(f"the new {file.path} is refused, the old one stays: {said}")

    def _scope(self, path: str) -> str:
        """The widest of the service's own directories that holds ``path``: what the file may refer to."""
        return min((parent for parent in self.want.directories if _within(path, parent)), key=len, default=path)

    def _stage(self, scope: str, file: File, stage: Path, plan: Plan) -> Path:
        """Build what ``scope`` will look like, files that others put there included, and return where ``file`` is."""
        if scope == file.path:
            staged = stage / Path(file.path).name
            staged.write_bytes(file.content)
            return staged
        copy = stage / Path(scope).name
        if Path(scope).is_dir():
            shutil.copytree(scope, copy, symlinks=True)
        for path in plan.remove:
            if _within(path, scope):
                _staged(copy, path, scope).unlink()
        for new in self.want.files:
            if _within(new.path, scope):
                target = _staged(copy, new.path, scope)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)  # a link would lead to the host's own file
                target.write_bytes(new.content)
        return copy / Path(file.path).relative_to(scope)

    def apply(self, plan: Plan, have: Host, versions: t.Mapping[str, str]) -> None:
        """Carry ``plan`` out. When the service does not get well, go back and raise ServiceError."""
        begun = time.time()
        self._begin(plan, have)
        try:
            self._save_data(plan)
            self._install_packages(plan, versions)
            self._place(plan)
            self._order(plan)
            reason = self._wait(self.health) if self._must_run(plan) else None
        except (OSError, SystemdError, KeyError, pkgs.PackageError, ServiceError) as error:
            reason = str(error)
        if reason:
            journal = self._systemd.journal(self.unit, begun)
            self._go_back(reason, journal)
        self._finish(plan, have)

    def _must_run(self, plan: Plan) -> bool:
        return plan.action in ("start", "restart", "reload")

    def _wait(self, health: healths.Health | None) -> str | None:
        """Return None when the service is well, else the reason in words. A job that succeeded is well."""
        if self.want.timer and health is None:
            return None
        return healths.wait(health, self._systemd, self.want.watched, self._run)

    def _begin(self, plan: Plan, have: Host) -> None:
        """Write down the state to go back to. After a run that was cut, that is still the one before it."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._keep_found(plan)
        if self._journal_file.exists():
            known = {"packages": {}, "held": [], **_read_json(self._journal_file)}
        else:
            # What systemd starts again and again is meant to run: the next time it may succeed, if it is left alone.
            active = have.active or have.trying
            known = {"files": {}, "packages": {}, "current": have.current, "active": active, "enabled": have.enabled}
            known["held"] = sorted(name for name, package in have.packages.items() if package.held)
            known["before"] = have.found and have.found._asdict()
            known["hold"] = self.want.packages and self.want.packages.hold
        known["made"] = [*known.get("made", []), *plan.make]
        known["user"] = known.get("user") or plan.add_user
        known["secrets"] = [*known.get("secrets", []), *(file.path for file in self.want.files if file.secret)]
        for path in [file.path for file in plan.write] + list(plan.remove):
            known["files"].setdefault(path, _frozen(have.files.get(path)))
        for name in [*plan.packages.get, *plan.packages.drop]:
            installed = have.packages.get(name)
            known["packages"].setdefault(name, installed.version if installed else None)
        write_file(self._journal_file, json.dumps(known).encode(), 0o600)

    def _keep_found(self, plan: Plan) -> None:
        """Copy what others have where ours is to be, for when that goes. What was made up is not replaced."""
        ours = {path for known in self._records() for path in known.get("files", {})}
        for file in plan.write:
            if file.path not in ours and not file.generated:
                copy = self._copy_of_found(file.path)
                copy.unlink(missing_ok=True)
                if os.path.lexists(file.path):
                    _duplicate(Path(file.path), copy)

    def _copy_of_found(self, path: str) -> Path:
        return self._found / path.lstrip("/")

    def _take_away(self, path: str) -> None:
        """Remove a file of ours; the one that was there before is back."""
        Path(path).unlink(missing_ok=True)
        copy = self._copy_of_found(path)
        if os.path.lexists(copy):
            _duplicate(copy, Path(path))

    def _save_data(self, plan: Plan) -> None:
        """Copy what the new release may rewrite, while nobody writes to it."""
        known = _read_json(self._journal_file)
        if not plan.switch or not (plan.save or "data" in known):
            return
        self._stop()
        if "data" not in known:
            copies = self._copies(known)
            shutil.rmtree(copies, ignore_errors=True)
            copies.mkdir(mode=0o700, parents=True)
            for path in plan.save:
                _copy(Path(path), copies / path.lstrip("/"))
            write_file(self._journal_file, json.dumps({**known, "data": list(self.want.data)}).encode(), 0o600)
        elif plan.current == known["current"]:  # back, after a run that was cut, to the release that wrote the copies
            self._restore_data(known)
        copies = self._data / (plan.current or "none")
        if self.want.restore and copies.is_dir():
            self._put_back(self.want.data, copies)

    def _stop(self) -> None:
        """Stop the service. One that was taken away, and whose data stayed, has no unit that could be stopped."""
        if self._systemd.show(self.unit).active != "inactive":
            self._systemd.order("stop", self.unit)

    def _copies(self, known: t.Mapping[str, t.Any]) -> Path:
        """Where copies are of what the release wrote that ran before; another one's stay beside them."""
        return self._data / (known["current"] or "none")

    def _restore_data(self, known: t.Mapping[str, t.Any]) -> None:
        """Put back the copies of the release that ran before."""
        self._put_back(known["data"], self._copies(known))

    def _put_back(self, patterns: t.Iterable[str], copies: Path) -> None:
        """Put back copies. What else matches has come since, and would not fit to them."""
        for path in _matching(patterns):
            Path(path).unlink()
        for copy in _files_below(copies):
            _copy(copy, Path("/", copy.relative_to(copies)))

    def _install_packages(self, plan: Plan, versions: t.Mapping[str, str]) -> None:
        """Install what was fetched. It is the new program that has to accept the new files."""
        manager = package_manager(self._run) if self.want.packages else None
        if manager and plan.packages.get:
            manager.install(versions, plan.packages.drop, self._scratch)
            self.check_files(plan)
        elif manager and plan.packages.drop:
            manager.remove(plan.packages.drop, self.want.packages)
        if manager:
            manager.hold(plan.packages.hold, True)

    def _place(self, plan: Plan) -> None:
        for path in plan.make:
            Path(path).mkdir(mode=0o755, exist_ok=True)  # a package may have brought it just now
        accounts = [file for file in plan.write if file.path.startswith("/etc/sysusers.d/")]
        for file in accounts:
            _place_file(file)
        if plan.add_user:
            self._systemd.add_user(plan.add_user)
        for file in plan.write:  # these may belong to the new user
            if file not in accounts:
                _place_file(file)
        for path in plan.remove:
            self._take_away(path)
        for path in plan.sweep:  # and nothing to put back: what writes them does so again
            Path(path).unlink(missing_ok=True)
        if plan.switch and plan.current:
            self._switch(plan.current)

    def _switch(self, name: str | None) -> None:
        link = self.root / "current"
        if name is None:
            link.unlink(missing_ok=True)
            return
        fresh = self.root / ".current"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(name)
        fresh.replace(link)

    def _order(self, plan: Plan) -> None:
        if plan.daemon_reload:
            self._systemd.daemon_reload()
        if plan.enable is not None:
            self._systemd.enable(self.want.watched, plan.enable)
        if plan.action:
            self._command(plan.action)

    def _command(self, verb: str) -> None:
        """Start, restart, reload or stop the service. A job runs now, and its timer counts once it has succeeded."""
        if self.want.timer and verb == "stop":
            self._systemd.order("stop", self.want.watched)
        self._systemd.order("restart" if self.want.timer and verb != "stop" else verb, self.unit)
        if self.want.timer and verb != "stop":
            self._systemd.order("restart", self.want.watched)

    def _go_back(self, reason: str, journal: t.Sequence[str]) -> t.NoReturn:
        """Put back what was there before, see it run again, and raise ServiceError."""
        known = _read_json(self._journal_file)
        problem = None
        try:
            now = self._systemd.show(self.want.watched)
            if not known["active"] and now.active != "inactive":
                self._command("stop")
            if not known["enabled"] and now.file == "enabled":
                self._systemd.enable(self.want.watched, False)
            if "data" in known:
                self._stop()
                self._restore_data(known)
            if known["packages"]:
                manager = package_manager(self._run)
                manager.go_back(known["packages"], self._scratch)
                manager.hold(known["held"], True)
            self._restore_files(known["files"])
            self._switch(known["current"])
            self._systemd.daemon_reload()
            self._systemd.reset_failed(self.unit)
            if known["active"]:
                self._command("restart")
                problem = self._wait(self._former_health())
        except (OSError, SystemdError, KeyError, pkgs.PackageError) as error:
            problem = str(error)
        if problem:
            raise ServiceError(f"{reason}. The previous state was put back but is not well either: {problem}", journal)
        self._clear(known)
        was = (
            "the previous state is back and runs" if known["active"] else "it did not run before, and is stopped again"
        )
        raise ServiceError(f"{reason}. Rolled back: {was}", journal, rolled_back=True)

    def _restore_files(self, states: t.Mapping[str, dict[str, t.Any] | None]) -> None:
        """Put back files as they were. Of those of others there are copies, which are links where those were."""
        ours = _read_json(self._manifest_file).get("files", {})
        for path, state in states.items():
            if path not in ours and os.path.lexists(self._copy_of_found(path)):
                self._take_away(path)
            else:
                _restore(Path(path), _thawed(state))

    def _former_health(self) -> healths.Health | None:
        """What shows that the previous state works; the new one may have moved to another port."""
        return _health_of(_read_json(self._manifest_file))

    def _clear(self, known: dict[str, t.Any]) -> None:
        """Remove what a change that failed has brought: directories, a user, the release."""
        remove_empty(known["made"])
        if known["user"] and _user_exists(known["user"]):
            self._systemd.remove_user(known["user"])
        if not self._manifest_file.exists():  # there was nothing of ours before
            self._forget()
            return
        keep = {known["current"], _read_json(self._manifest_file).get("previous")}
        for name in set(releases.installed(self.root)) - keep:
            shutil.rmtree(self.root / name)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._journal_file.unlink()

    def _forget(self) -> None:
        shutil.rmtree(self.root)
        with contextlib.suppress(OSError):
            ROOT.rmdir()

    def _finish(self, plan: Plan, have: Host) -> None:
        for name in plan.prune:
            shutil.rmtree(self.root / name)
        for copies in set(self._data.glob("*")) - {self._data / name for name in releases.installed(self.root)}:
            shutil.rmtree(copies)
        shutil.rmtree(self._scratch, ignore_errors=True)
        known = _read_json(self._journal_file)  # what a run that was cut has made is in it, too
        names = set(self.want.packages.names if self.want.packages else ())
        fresh = {name for name, version in known["packages"].items() if version is None}
        # The last one to go takes along what it shares with others, whoever has made it.
        shared = set(self.want.tree) & self._made_by_others()
        directories = {*_made(self._manifest_file), *known["made"], *self.want.directories, *shared}
        manifest = {
            "files": {file.path: file.effect for file in self.want.files},
            "directories": sorted(directories),
            "previous": have.previous_to(plan.current),
            "back_to": self._back_to(plan, have),
            "data": list(self.want.data),
            "secrets": [file.path for file in self.want.files if file.secret],
            "generated": [file.path for file in self.want.files if file.generated],
            "user": known["user"] or have.own_user,
            "packages": sorted((have.own_packages | fresh) & names),
            "held": sorted((have.held | set(plan.packages.hold)) & names),
            "hold": self.want.packages and self.want.packages.hold,
            "before": have.found and have.found._asdict(),
            "outputs": list(self.want.outputs),
            "health": self.health and self.health._asdict(),
        }
        # Nothing in it is secret, and who is not root may ask how the service is: monitoring-status reads it.
        write_file(self._manifest_file, json.dumps(manifest, indent=1).encode(), 0o644)
        self._journal_file.unlink()

    def _back_to(self, plan: Plan, have: Host) -> str | None:
        """The release that ran before the last change of releases; none after one has gone back, or would go forth."""
        last = have.ran or have.current
        if plan.current == last:
            return t.cast("str | None", _read_json(self._manifest_file).get("back_to"))
        return None if self.want.going_back else last

    def remove(self, plan: Plan, have: Host) -> None:
        """Carry a removal out; repeating one that was cut is safe, since the manifest goes last."""
        goes_on = plan.action == "restart"
        self._order(plan._replace(daemon_reload=False, action=None if goes_on else plan.action))
        if have.held:
            package_manager(self._run).hold(sorted(have.held & have.packages.keys()), False)
        if plan.packages.drop:
            package_manager(self._run).remove(plan.packages.drop, self.want.packages, self._placed(plan))
        for path in plan.remove:
            self._take_away(path)
        for path in plan.sweep:
            Path(path).unlink(missing_ok=True)
        for path in plan.purge:
            _delete(Path(path))
        manifest, journal = self._records()
        made = {*self.want.directories, *manifest.get("directories", []), *journal.get("made", [])}
        remove_empty(made - self._made_by_others())
        if plan.daemon_reload:
            self._systemd.daemon_reload()
            self._systemd.reset_failed(self.unit)
        if goes_on:
            self._command("restart")
        if plan.remove_user:
            self._systemd.remove_user(plan.remove_user)
        if plan.forget:
            self._forget()


def previously(
    name: str, run: healths.Run, restore: bool, leaving: str | None
) -> tuple[Service, healths.Health | None]:
    """Return a service as it is, with the release that ran before its own and is kept; with none if there is none.

    With ``leaving`` there is none, either, where that version does not run.
    """
    root = ROOT / name
    manifest = _read_json(root / "manifest.json")
    kept = releases.installed(root)
    back = kept.get(manifest.get("back_to") or "")
    if back is None or not back.intact or not _runs(root, kept, leaving):
        return Service(name, "started", unit_path(name), going_back=True), None
    states = {path: _file_state(Path(path)) for path in manifest["files"]}
    files = tuple(
        File(path, *state, manifest["files"][path], path in manifest["secrets"], (), path in manifest["generated"])
        for path, state in states.items()
        if state
    )
    service = Service(
        name,
        "started",
        unit_path(name),
        files,
        release=releases.Release(back.version, "", back.sha256, None),
        packages=_known_packages(manifest),
        user=manifest["user"],
        data=tuple(manifest["data"]),
        timer=timer_path(name) in manifest["files"],
        outputs=tuple(manifest["outputs"]),
        going_back=True,
        restore=restore,
    )
    enabled = Systemd(run).show(service.watched).file.startswith("enabled")
    return service if enabled else service._replace(state="stopped"), _health_of(manifest)


def _runs(root: Path, kept: t.Mapping[str, releases.Installed], version: str | None) -> bool:
    link = root / "current"
    now = kept.get(str(link.readlink())) if link.is_symlink() else None
    return version is None or (now is not None and now.version == version)


def removed(described: Service) -> Service:
    """Return a service that is to be absent as it was described when it came, whatever is said of it now."""
    root = ROOT / described.name
    journal, manifest = _read_json(root / "journal.json"), _read_json(root / "manifest.json")
    if not (journal or manifest):
        return described
    files = {**journal.get("files", {}), **manifest.get("files", {})}
    known = {**journal, **manifest}
    drop_in = drop_in_path(described.name)
    return described._replace(
        unit_path=drop_in if drop_in in files else unit_path(described.name),
        timer=timer_path(described.name) in files,
        packages=_known_packages(known),
    )


def _known_packages(record: t.Mapping[str, t.Any]) -> pkgs.Packages | None:
    """Those that came with the service; which others it was described with is not written down."""
    hold = record.get("hold")
    return None if hold is None else pkgs.Packages(tuple(record["packages"]), "", (), None, hold)


def bring(host: ServiceHost, delivered: Path | None) -> tuple[Plan, Host]:
    """Bring this host's service to its state. Return the plan that was carried out, and the host as it was.

    Raises ServiceError, ReleaseError, PackageError.
    """
    with host.locked():
        try:
            done = _bring(host, delivered)
        except (ServiceError, releases.ReleaseError, pkgs.PackageError) as error:
            host.refuse(str(error))
            raise
        host.settle()
        return done


def _bring(host: ServiceHost, delivered: Path | None) -> tuple[Plan, Host]:
    before = have = host.observe()
    first = plan = make_plan(host.want, have)
    if plan.forget or plan.purge:
        host.remove(plan, have)
        return first, before
    if plan.install:
        host.install(delivered)
        have = host.observe()
        plan = make_plan(host.want, have)
    if plan.changes:
        versions = host.fetch_packages(plan, have)
        if not versions:
            host.check_files(plan)
        host.apply(plan, have, versions)
    return first, before


def _found(known: t.Mapping[str, t.Any], now: Found | None) -> Found | None:
    """How the unit was before us. Where we have not been yet, that is how it is now."""
    before = known.get("before") if known else now and now._asdict()
    return Found(**before) if before else None


def _made(record: Path) -> list[str]:
    """The directories that a service has made, by its manifest."""
    return t.cast("list[str]", _read_json(record).get("directories", []))


def _health_of(manifest: t.Mapping[str, t.Any]) -> healths.Health | None:
    known = manifest.get("health")
    return healths.Health(**{**known, "command": tuple(known["command"])}) if known else None


# -- files --------------------------------------------------------------------------------------


def _data_directories(name: str) -> tuple[str, ...]:
    """Where StateDirectory=, CacheDirectory= and LogsDirectory= named as the service live (systemd.exec(5))."""
    return tuple(f"/var/{kind}/{private}{name}" for kind in ("lib", "cache", "log") for private in ("", "private/"))


def _exists(path: str) -> bool:
    return Path(path).exists()


def _matching(patterns: t.Iterable[str]) -> tuple[str, ...]:
    """The files that there are of some patterns; a link is none."""
    found = (path for pattern in patterns for path in sorted(glob.glob(pattern)))  # noqa: PTH207 (they begin at /)
    return tuple(path for path in found if Path(path).is_file() and not Path(path).is_symlink())


def _files_below(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its owner and mode, and see it on the disk.

    One of the two is in a directory of the service's user, who may have put links there.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    from_it = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    to_it = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(from_it, "rb") as old, os.fdopen(to_it, "wb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        status = os.fstat(old.fileno())
        os.fchown(new.fileno(), status.st_uid, status.st_gid)
        os.fchmod(new.fileno(), status.st_mode & 0o777)
        new.flush()
        os.fsync(new.fileno())
    fresh.replace(target)


def _duplicate(source: Path, target: Path) -> None:
    """Copy a file with its owner and mode, or a link as one."""
    if not source.is_symlink():
        _copy(source, target)
        return
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.symlink_to(source.readlink())


def _delete(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _filled(word: str, places: dict[str, str]) -> str:
    for place, value in places.items():
        word = word.replace(place, value)
    return word


def _staged(copy: Path, path: str, scope: str) -> Path:
    """Where ``path`` is in the copy of ``scope``. What links of the copy lead to is the host's own, and not touched."""
    staged = copy / Path(path).relative_to(scope)
    if not staged.parent.resolve().is_relative_to(copy.resolve()):
        raise ServiceError(
            f"{path} cannot be checked before it is live, since its directory is a link out of {scope}:"
            f" put a directory in the place of {Path(path).parent}"
        )
    return staged


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _file_state(path: Path) -> FileState | None:
    try:
        status = path.stat()
        return FileState(path.read_bytes(), status.st_mode & 0o7777, _user(status.st_uid), _group(status.st_gid))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def _user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _place_file(file: File) -> None:
    _restore(Path(file.path), FileState(file.content, file.mode, file.owner, file.group))


def _restore(path: Path, state: FileState | None) -> None:
    """Make ``path`` as ``state`` says; None means that there is no such file."""
    if state is None:
        path.unlink(missing_ok=True)
        return
    uid = int(state.owner) if state.owner.isdigit() else pwd.getpwnam(state.owner).pw_uid
    gid = int(state.group) if state.group.isdigit() else grp.getgrnam(state.group).gr_gid
    write_file(path, state.content, state.mode, uid, gid)


def _read_json(path: Path) -> dict[str, t.Any]:
    try:
        return t.cast(dict[str, t.Any], json.loads(path.read_text()))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ServiceError(f"{path} is damaged: {error}") from error


def _frozen(state: FileState | None) -> dict[str, t.Any] | None:
    return {**state._asdict(), "content": base64.b64encode(state.content).decode()} if state else None


def _thawed(frozen: dict[str, t.Any] | None) -> FileState | None:
    return FileState(**{**frozen, "content": base64.b64decode(frozen["content"])}) if frozen else None
