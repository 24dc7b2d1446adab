# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is written down of each service on this host, and what follows from it alone."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

from . import health as healths
from . import packages as pkgs
from . import release as releases
from .filesystem import read_state
from .plan import File, Found, Service, drop_in_path, timer_path, unit_path
from .systemd import Systemd

ROOT = Path("/opt/gpufleet")


class ServiceError(Exception):
    """The service could not be brought to its state; ``journal`` holds its last log lines."""

    def __init__(self, message: str, journal: t.Sequence[str] = (), rolled_back: bool = False) -> None:
        super().__init__(message)
        self.journal = list(journal)
        self.rolled_back = rolled_back


def read_json(path: Path) -> dict[str, t.Any]:
    """Return a manifest or a journal; an empty one where there is none. Raises ServiceError."""
    try:
        return t.cast(dict[str, t.Any], json.loads(path.read_text()))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ServiceError(f"{path} is damaged: {error}") from error


def found_before(known: t.Mapping[str, t.Any], now: Found | None) -> Found | None:
    """How the unit was before us. Where we have not been yet, that is how it is now."""
    before = known.get("before") if known else now and now._asdict()
    return Found(**before) if before else None


def made(record: Path) -> list[str]:
    """The directories that a service has made, by its manifest."""
    return t.cast("list[str]", read_json(record).get("directories", []))


def health_of(manifest: t.Mapping[str, t.Any]) -> healths.Health | None:
    """Return what shows that a service is well, as it was when it came."""
    known = manifest.get("health")
    return healths.Health(**{**known, "command": tuple(known["command"])}) if known else None


def previously(
    name: str, run: healths.Run, restore: bool, leaving: str | None
) -> tuple[Service, healths.Health | None]:
    """Return a service as it is, with the release that ran before its own and is kept; with none if there is none.

    With ``leaving`` there is none, either, where that version does not run.
    """
    root = ROOT / name
    manifest = read_json(root / "manifest.json")
    kept = releases.installed(root)
    back = kept.get(manifest.get("back_to") or "")
    if back is None or not back.intact or not _runs(root, kept, leaving):
        return Service(name, "started", unit_path(name), going_back=True), None
    states = {path: read_state(Path(path)) for path in manifest["files"]}
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
    return service if enabled else service._replace(state="stopped"), health_of(manifest)


def _runs(root: Path, kept: t.Mapping[str, releases.Installed], version: str | None) -> bool:
    link = root / "current"
    now = kept.get(str(link.readlink())) if link.is_symlink() else None
    return version is None or (now is not None and now.version == version)


def removed(described: Service) -> Service:
    """Return a service that is to be absent as it was described when it came, whatever is said of it now."""
    root = ROOT / described.name
    journal, manifest = read_json(root / "journal.json"), read_json(root / "manifest.json")
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
