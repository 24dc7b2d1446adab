"""Words for people, who read them in the journal."""

from __future__ import annotations

import sys
import time


def say(text: str) -> None:
    """Tell the journal."""
    print(text, file=sys.stderr, flush=True)


def day(seconds: float) -> str:
    """Return a time, in seconds since the epoch, for people to read."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
