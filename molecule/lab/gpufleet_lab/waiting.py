"""Waiting for what a test expects."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def eventually(condition: Callable[[], Value], seconds: float = 30) -> Value:
    """Ask ``condition()`` until it is true or the time is over, and return its last answer.

    An OSError or LookupError counts as false, but is raised when the time is over: nobody answers yet.
    """
    deadline = time.monotonic() + seconds
    while True:
        over = time.monotonic() > deadline
        try:
            value = condition()
            if value or over:
                return value
        except (OSError, LookupError):
            if over:
                raise
        time.sleep(0.2)
