"""What is installed on this host: found by what the module native_service leaves, not by a list."""

from __future__ import annotations

import json
import os
import typing as t
import urllib.parse
from pathlib import Path

from .ask import Unasked


class Places(t.NamedTuple):
    """Where to look."""

    root: Path = Path("/opt/gpufleet")
    settings: Path = Path("/etc/monitoring-manage.json")
    run: Path = Path("/run")


class Health(t.NamedTuple):
    """What shows that a service works: a URL that answers 200, or a command that exits 0."""

    url: str | None
    command: tuple[str, ...]
    timeout: float
    client_certificate: str | None = None

    @property
    def base(self) -> str:
        """Where the service is, without a path."""
        parts = urllib.parse.urlsplit(self.url or "")
        return f"{parts.scheme}://{parts.netloc}"


class Refusal(t.NamedTuple):
    """A change that the last run wanted, and that the host did not take."""

    time: float
    reason: str


class Service(t.NamedTuple):
    """A service that the collection installed."""

    name: str
    version: str | None
    """Of its release; None where the distribution's packages have it."""
    files: t.Mapping[str, str] = {}
    """What was placed, and what a change of it asks of the running service: restart, reload or none."""
    health: Health | None = None
    unfinished: bool = False
    """A change is under way, or was cut."""
    changed: float = 0
    """When it was changed last, in seconds since the epoch."""
    refusal: Refusal | None = None
    problem: str = ""
    """Why nothing more is known of it."""

    @property
    def timer(self) -> str | None:
        """The timer that starts it, of a job that runs and ends."""
        return f"{self.name}.timer" if f"/etc/systemd/system/{self.name}.timer" in self.files else None

    @property
    def unit(self) -> str:
        """What is started and stopped."""
        return self.timer or f"{self.name}.service"


class Settings(t.NamedTuple):
    """What the role says."""

    tls_addresses: tuple[str, ...] = ()
    certificate_warning_days: float = 14
    certificate_critical_days: float = 3
    update_command: str = "ansible-playbook -i YOUR_INVENTORY gpufleet.monitoring.site"


def services(places: Places) -> list[Service]:
    """Return the services of this host, and those that were to come and were refused. Raises Unasked."""
    refusals = {path.name[len("gpufleet-") : -len(".refused")]: path for path in places.run.glob("gpufleet-*.refused")}
    try:
        found = {path.name: _service(path) for path in places.root.iterdir() if _is_service(path)}
    except FileNotFoundError:
        found = {}
    except OSError as error:
        raise Unasked(f"{places.root} cannot be read: {error.strerror}") from error
    for name, path in refusals.items():
        found[name] = found.get(name, Service(name, None))._replace(refusal=_refusal(path))
    return [service for _, service in sorted(found.items())]


def settings(places: Places) -> Settings:
    """Return what the role says; where it does not, the defaults. Raises Unasked."""
    try:
        said = json.loads(places.settings.read_text())
        known = {name: said[name] for name in Settings._fields if said.get(name) is not None}
        days = {name: float(value) for name, value in known.items() if name.endswith("_days")}
        return Settings(**{**known, **days, "tls_addresses": tuple(known.get("tls_addresses", ()))})
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError, TypeError) as error:
        raise Unasked(f"{places.settings} cannot be read: {error}") from error


def _is_service(directory: Path) -> bool:
    """Whether a service is in it. A first installation that was cut has a journal, and no manifest yet.

    The firewall has a manifest of its own kind, which knows of no files.
    """
    records = [directory / name for name in ("manifest.json", "journal.json")]
    return any(map(os.path.lexists, records)) and not _is_of_another_kind(records[0])


def _is_of_another_kind(manifest: Path) -> bool:
    """Whether a manifest is whole, and none of a service."""
    try:
        known = json.loads(manifest.read_text())
    except (OSError, ValueError):
        return False  # what is wrong with it is told as the service's state
    return isinstance(known, dict) and "files" not in known


def _service(directory: Path) -> Service:
    link = directory / "current"
    known = Service(
        name=directory.name,
        version=str(link.readlink()) if link.is_symlink() else None,
        unfinished=(directory / "journal.json").exists(),
    )
    try:
        path = directory / "manifest.json"
        manifest = json.loads(path.read_text())
        health = manifest["health"]
        return known._replace(
            files=dict(manifest["files"]),
            health=Health(**{**health, "command": tuple(health["command"])}) if health else None,
            changed=path.stat().st_mtime,
        )
    except FileNotFoundError:
        return known
    except PermissionError:
        return known._replace(problem="what is known of it can be read by root alone: ask again with sudo")
    except (OSError, ValueError, TypeError, KeyError) as error:
        return known._replace(problem=f"{path} is damaged: {error}")


def _refusal(path: Path) -> Refusal | None:
    try:
        when = path.stat().st_mtime
    except OSError:  # settled in this moment
        return None
    try:
        return Refusal(when, str(json.loads(path.read_text())["reason"]))
    except (OSError, ValueError, TypeError, KeyError):
        return Refusal(when, "root is told why")
