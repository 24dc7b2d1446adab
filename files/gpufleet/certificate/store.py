"""What was issued, and the link to what is served."""

from __future__ import annotations

import json
import shutil
import typing as t
from pathlib import Path

from . import files
from .errors import CertificateError
from .x509 import Certificate, chain_of

KEPT = 2  # certificates: the one that is served and the one before it


class Material(t.NamedTuple):
    """A new certificate, before it lies anywhere."""

    chain: str
    key: str


class Issued(t.NamedTuple):
    """A certificate with its key in a directory, and what it was asked for."""

    directory: Path
    chain: list[Certificate]
    origin: dict[str, t.Any]

    @classmethod
    def read(cls, directory: Path) -> Issued | None:
        """Return what is in ``directory``, None where that is nothing that could be served."""
        try:
            chain = chain_of((directory / "fullchain.pem").read_text())
            origin = json.loads((directory / "origin.json").read_text())
            (directory / "privkey.pem").stat()
        except (OSError, ValueError, KeyError, CertificateError):
            return None
        return cls(directory, chain, origin) if chain else None

    @property
    def leaf(self) -> Certificate:
        """The server's own certificate."""
        return self.chain[0]


class Store:
    """Certificates below the program's state."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._link = state / "current"
        self._ca = state / "ca"
        self._issued = state / "issued"

    def current(self) -> Issued | None:
        """Return what is served, None where that is a placeholder or nothing."""
        return Issued.read(self._link.resolve()) if self._link.is_symlink() else None

    def add(self, material: Material, origin: dict[str, t.Any]) -> Issued:
        """Put a new certificate beside the others."""
        self._issued.mkdir(mode=0o755, exist_ok=True)  # everybody may ask for the status; keys are root's
        target = self._issued / str(1 + max(self._numbers(), default=0))
        target.mkdir(mode=0o755)
        try:
            files.write(target / "privkey.pem", material.key, 0o600)
            files.write(target / "fullchain.pem", material.chain, 0o644)
            files.write(target / "origin.json", json.dumps(origin), 0o644)
            found = Issued.read(target)
            if found is None:
                raise CertificateError("what came back is no certificate")
        except (CertificateError, OSError):
            shutil.rmtree(target)
            raise
        return found

    def activate(self, directory: Path) -> None:
        """Let ``directory`` be what is served."""
        files.point(self._link, directory)

    def links(self) -> dict[Path, Path | None]:
        """Return where the links point, for restore()."""
        return {link: link.resolve() if link.is_symlink() else None for link in (self._link, self._ca)}

    def restore(self, links: dict[Path, Path | None]) -> None:
        """Let them point there again."""
        for link, target in links.items():
            if self.links()[link] != target:
                files.point(link, target)

    def unserved(self) -> Issued | None:
        """Return what was issued last, where it could not be served."""
        newest = self._issued / str(max(self._numbers(), default=0))
        return Issued.read(newest) if newest != self.links()[self._link] else None

    def prune(self) -> None:
        """Remove all but the last ones, and CAs that are no longer ours."""
        old = [self._issued / str(number) for number in sorted(self._numbers())[:-KEPT]]
        for path in (*old, *self.state.glob("authorities/*")):
            if path.resolve() not in self.links().values():
                shutil.rmtree(path)

    def _numbers(self) -> list[int]:
        return [int(path.name) for path in self._issued.glob("[0-9]*")] if self._issued.is_dir() else []
