# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What was done to a host, so that it can be undone: written before anything is done."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

from ..files import remove_empty, write_file
from . import known as k
from .plan import MigrationError, Plan

ROOT = Path("/var/lib/gpufleet-migration")


class Record:
    """The record of a host. What was first found of a unit or a container counts, whatever later runs find."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.file = root / "record.json"
        self.units: dict[str, dict[str, t.Any]] = {}
        self.containers: dict[str, dict[str, t.Any]] = {}
        self.aside: dict[str, str] = {}  # path -> where it is now
        self.data: dict[str, dict[str, t.Any]] = {}  # role -> where they came from
        self.exists = self.file.exists()
        if self.exists:
            self._read()

    def _read(self) -> None:
        try:
            said = json.loads(self.file.read_text())
            self.units, self.containers = dict(said["units"]), dict(said["containers"])
            self.aside, self.data = dict(said["aside"]), dict(said["data"])
        except (ValueError, KeyError, TypeError) as error:
            raise MigrationError(f"{self.file} is damaged, so nothing is done: {error!r}") from error

    def note(self, plan: Plan) -> None:
        """Write down how things are that the plan changes."""
        for unit in plan.units:
            before = {"active": unit.active, "enabled": unit.enabled, "link": unit.link}
            self.units.setdefault(unit.known.name, before)
        for container in plan.containers:
            self.containers.setdefault(
                container.name,
                {"running": container.running, "restart": container.restart, "retries": container.retries},
            )
        for path in plan.aside:
            self.aside.setdefault(path, str(self.root / "aside" / path.strip("/").replace("/", "_")))
        self.write()

    def links(self) -> dict[str, str]:
        """Return the units' files that were links (systemctl link), and where to."""
        return {k.unit_path(name): before["link"] for name, before in self.units.items() if before.get("link")}

    def write(self) -> None:
        """Put the record onto the disk, for root alone, in one step."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        said = {"units": self.units, "containers": self.containers, "aside": self.aside, "data": self.data}
        write_file(self.file, json.dumps(said, indent=2).encode(), 0o600)
        self.exists = True

    def remove(self) -> None:
        """Forget all of it: it is undone."""
        self.file.unlink()
        remove_empty([self.root / "aside", self.root])
