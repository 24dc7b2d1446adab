"""From a small CA of our own, whose certificate an operator hands to browsers once."""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

from ..authority import Authority
from ..config import Config
from ..store import Issued, Material
from .mode import Mode


class SelfSigned(Mode):
    """Signs by itself."""

    def __init__(self, config: Config, state: Path) -> None:
        super().__init__(config, state)
        self._authority = Authority(state, self.names)

    def origin(self) -> dict[str, t.Any]:
        """A lifetime that is another is another certificate, and so is one of another CA."""
        ca = self._authority.certificate()
        return {**super().origin(), "days": self.config.selfsigned_days, "ca": ca.fingerprint if ca else ""}

    def due(self, current: Issued | None, now: float) -> bool:
        """Also when the CA is to be renewed."""
        return self._authority.need(now) != "" or super().due(current, now)

    def obtain(self) -> Material:
        """Sign a new key with the CA, which is made or renewed first where that is needed."""
        self._authority.prepare(time.time())
        return Material(*self._authority.issue(self.config.selfsigned_days))
