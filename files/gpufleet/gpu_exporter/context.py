"""What every collector is given."""

from __future__ import annotations

import dataclasses
import typing as t

if t.TYPE_CHECKING:
    from .config import Config
    from .inventory import Store


@dataclasses.dataclass
class Context:
    """The configuration, and what the lanes share."""

    config: Config
    inventory: Store
