"""What a test makes go wrong with the mirror, and what it sees of the downloads.

The test writes rules into a file, the server reads it at each request: no protocol, no restart.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import debian
from .archive import pack


@dataclass(frozen=True)
class Rule:
    """One fault, for requests whose path (without the first slash) matches the glob `path`.

    `times` ends it after so many requests. Effects can be combined.
    """

    path: str
    status: int | None = None  # answer with this status and no content
    truncate: int | None = None  # announce all, send so many bytes, close
    corrupt: bool = False  # one bit in the middle of the file is wrong
    delay: float = 0  # seconds before the answer
    rate: int | None = None  # bytes a second
    times: int | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


class Faults:
    """The mirror's side door, below a lab's state directory."""

    def __init__(self, directory: Path) -> None:
        self._rules = directory / "faults.json"
        self._log = directory / "requests.jsonl"
        # Files here are served before the mirror's own: <extra>/github.com/...
        self.extra = directory / "extra"

    def rules(self) -> list[Rule]:
        """Return the rules in force, the latest first: it decides."""
        try:
            return [Rule(**entry) for entry in json.loads(self._rules.read_text())]
        except FileNotFoundError:
            return []

    def add(self, path: str, **effects: Any) -> Rule:
        """Put a fault in force: add("*/node_exporter-*.tar.gz", status=404, times=1)."""
        rule = Rule(path, **effects)
        self._write([rule, *self.rules()])
        return rule

    def remove(self, rule: Rule) -> None:
        """Take one fault back."""
        self._write([other for other in self.rules() if other.id != rule.id])

    def clear(self) -> None:
        """Take all faults back."""
        self._rules.unlink(missing_ok=True)

    @contextmanager
    def injected(self, path: str, **effects: Any) -> Iterator[Rule]:
        """Have a fault for the length of a with block."""
        rule = self.add(path, **effects)
        try:
            yield rule
        finally:
            self.remove(rule)

    def broken_release(self, project: str, version: str) -> str:
        """Publish a release of one of Prometheus' projects whose program ends at once; return its SHA-256."""
        name = f"{project}-{version}.linux-{debian.architecture()}"
        archive = self.extra / f"github.com/prometheus/{project}/releases/download/v{version}/{name}.tar.gz"
        archive.parent.mkdir(parents=True, exist_ok=True)
        pack(archive, {f"{name}/{project}": (0o755, b"#!/bin/sh\necho 'the flux capacitor is missing'; exit 1\n")})
        return hashlib.sha256(archive.read_bytes()).hexdigest()

    def _write(self, rules: list[Rule]) -> None:
        new = self._rules.with_suffix(".new")
        new.write_text(json.dumps([asdict(rule) for rule in rules], indent=1))
        new.rename(self._rules)

    def requests(self) -> list[dict[str, Any]]:
        """Return the requests so far: time, client, method, path, range, status, bytes (of content sent)."""
        try:
            return [json.loads(line) for line in self._log.read_text().splitlines()]
        except FileNotFoundError:
            return []

    def log(self, request: dict[str, Any]) -> None:
        """Note a request; the server's side."""
        with self._log.open("a") as log:
            log.write(json.dumps(request) + "\n")
