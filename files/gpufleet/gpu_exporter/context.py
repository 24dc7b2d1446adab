"""What every collector is given."""

from __future__ import annotations

import dataclasses
import functools
import time
import typing as t

if t.TYPE_CHECKING:
    from .config import Config
    from .inventory import Store
    from .nvml import Session


@dataclasses.dataclass
class Context:
    """The configuration, and what the lanes share."""

    config: Config
    inventory: Store
    quarantine: t.Mapping[str, float] = dataclasses.field(default_factory=dict)
    """GPU (bus id) to the moment, by the monotonic clock, until which it must not be asked."""
    progress: t.Callable[[str], None] = lambda bus_id: None
    """Says which GPU is asked from now on, so that the one that never answers is known."""

    def quarantined(self) -> set[str]:
        """Return the GPUs that must not be asked now."""
        now = time.monotonic()
        return {bus_id for bus_id, moment in self.quarantine.items() if now < moment}

    def may_ask(self, bus_id: str) -> bool:
        """Say that a GPU is asked now; False when it must not be."""
        if bus_id in self.quarantined():
            return False
        self.progress(bus_id)
        return True

    @functools.cached_property
    def nvml(self) -> Session:
        """The one session, made by the first collector that needs it: pynvml is loaded for these alone."""
        from .nvml import Session

        return Session(self.may_ask)
