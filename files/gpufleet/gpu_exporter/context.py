"""What every collector is given."""

from __future__ import annotations

import dataclasses
import functools
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

    @functools.cached_property
    def nvml(self) -> Session:
        """The one session, made by the first collector that needs it: pynvml is loaded for these alone."""
        from .nvml import Session

        return Session()
