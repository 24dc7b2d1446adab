# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run made of the versions of a fleet."""

from __future__ import annotations

import json
import re
import typing as t
from pathlib import Path

from .roles import ROLES

HEADER = ("HOST", "SERVICE", "FROM", "TO", "OUTCOME")
UNCHANGED = "unchanged"
ROLLBACK = "rollback"


class Row(t.NamedTuple):
    """What became of one service on one host, or of the whole host where ``service`` is empty."""

    host: str
    service: str
    before: str
    wanted: str
    outcome: str
    reason: str = ""


class Report:
    """Collects rows while a run goes on. ``kind`` is what it was for: upgrade or rollback."""

    def __init__(self, kind: str, check_mode: bool) -> None:
        self._kind = kind
        self._check_mode = check_mode
        self._rows: list[Row] = []
        self._expected: dict[str, None] = {}
        self._begun: set[str] = set()

    def expect(self, hosts: t.Iterable[str]) -> None:
        """Hosts that the run is for."""
        self._expected.update(dict.fromkeys(hosts))

    def begin(self, hosts: t.Iterable[str]) -> None:
        """Hosts whose turn it is."""
        self._begun.update(hosts)

    def add(self, host: str, said: t.Mapping[str, t.Any], failed: bool) -> None:
        """What native_service returned."""
        service = said["service"]
        reason = _first_line(str(said.get("msg", ""))) if failed else ""
        row = Row(host, service["name"], service["from"], service["to"], self._outcome(said, failed), reason)
        if row.before or row.wanted or failed:  # what never was there is not there now
            self._rows.append(row)

    def add_failure(self, host: str, service: str, outcome: str, reason: str) -> None:
        """What else went wrong."""
        self._rows.append(Row(host, service, "", "", outcome, _first_line(reason)))

    def _outcome(self, said: t.Mapping[str, t.Any], failed: bool) -> str:
        if failed:
            return "rolled back" if said.get("rolled_back") else "failed"
        if not said.get("changed"):
            return UNCHANGED
        before, wanted = said["service"]["from"], said["service"]["to"]
        done = (
            "installed" if not before else "removed" if not wanted else "updated" if before != wanted else "configured"
        )
        if self._kind == ROLLBACK and done == "updated":
            done = "went back"
        return f"{done} (check mode)" if self._check_mode else done

    def rows(self) -> list[Row]:
        """Return all rows in the inventory's order, those of hosts that the run did not come to among them."""
        seen = self._begun | {row.host for row in self._rows}
        unseen = [Row(host, "", "", "", "not begun") for host in self._expected if host not in seen]
        places = {host: place for place, host in enumerate(self._expected)}
        return sorted(self._rows + unseen, key=lambda row: places.get(row.host, len(places)))

    def text(self) -> str:
        """Return the report for people."""
        rows = self.rows()
        shown = [row for row in rows if row.outcome != UNCHANGED]
        unchanged = [row for row in rows if row.outcome == UNCHANGED]
        lines = ["", *(_table(shown) if shown else [])]
        if unchanged:
            lines.append(f"{len(unchanged)} services on {len({row.host for row in unchanged})} hosts are as they were.")
        return "\n".join([*lines, *self._pins(), ""])

    def _pins(self) -> list[str]:
        """What keeps the next run from upgrading what went back, in the inventory's words."""
        hosts: dict[tuple[str, str], list[str]] = {}
        for row in self.rows():
            if row.outcome.startswith("went back"):
                hosts.setdefault((row.service, row.wanted), []).append(row.host)
        known = _version_variables()
        pins, others = [], []
        for (service, version), on in sorted(hosts.items()):
            variable = f"{service.removeprefix('nvidia-').replace('-', '_')}_version"
            if variable in known:
                pins.append(f"  {variable}: {version}  # {', '.join(on)}")
            else:
                others.append(f"  {service}  # {', '.join(on)}")
        said = {
            "The next run would upgrade these again, unless the inventory says:": pins,
            "The next run upgrades these again, which come with this collection:": others,
        }
        return [line for title, lines in said.items() if lines for line in ("", title, *lines)]

    def write(self, path: str) -> None:
        """Write the report for programs."""
        names = ("host", "service", "from", "to", "outcome", "reason")
        rows = [dict(zip(names, row)) for row in self.rows()]
        text = json.dumps({"kind": self._kind, "check_mode": self._check_mode, "services": rows}, indent=1)
        Path(path).write_text(f"{text}\n")


def _version_variables() -> set[str]:
    """The variables of roles by which an inventory says a version."""
    texts = (path.read_text() for path in ROLES.glob("*/defaults/main.yml"))
    return {name for text in texts for name in re.findall(r"^(\w+_version):", text, re.MULTILINE)}


def _table(rows: t.Iterable[Row]) -> list[str]:
    """Return rows in columns, as wide as they need."""
    lines = [HEADER, *((row.host, row.service, row.before, row.wanted, _words(row)) for row in rows)]
    widths = [max(len(cell or "-") for cell in column) for column in zip(*lines)]
    return ["  ".join((cell or "-").ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]


def _words(row: Row) -> str:
    return f"{row.outcome}: {row.reason}" if row.reason else row.outcome


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""
