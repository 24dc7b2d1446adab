"""What all modes have in common."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ..config import Config
from ..store import Issued, Material


class Mode:
    """Where certificates come from."""

    def __init__(self, config: Config, state: Path) -> None:
        self.config = config
        self.names = config.names
        self.state = state

    def origin(self) -> dict[str, t.Any]:
        """What a certificate is asked for: a new one is wanted when this is another."""
        return {"mode": self.config.mode, "names": sorted(self.names)}

    def check(self) -> None:
        """Raise CertificateError where the configuration makes no sense."""

    def obtain(self) -> Material:
        """Return a new certificate. Raises CertificateError."""
        raise NotImplementedError

    def due(self, current: Issued | None, now: float) -> bool:
        """Whether a new certificate is wanted in place of ``current``."""
        return current is None or current.origin != self.origin() or current.leaf.due(now)
