# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One run at a time on a host."""

from __future__ import annotations

import contextlib
import fcntl
import time
import typing as t
from pathlib import Path


@contextlib.contextmanager
def exclusive(path: Path, patience: float, busy: Exception) -> t.Iterator[None]:
    """Hold the lock of a file. Raises ``busy`` where another has had it for more than ``patience`` seconds."""
    with path.open("w") as lock:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise busy from error
                time.sleep(0.2)
        yield
