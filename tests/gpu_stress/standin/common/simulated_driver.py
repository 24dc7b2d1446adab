"""A stand-in for the driver below CUDA: what one process does to a simulated GPU shows in the scenario that NVML reads.

It is a process of its own, so that the GPU becomes idle, and its memory free, however the one that used it ends.

    python3 simulated_driver.py PID UUID, with "busy FROM TO" and "memory BYTES" on its stdin
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import re
import select
import sys
import time
from pathlib import Path

_TICK = 0.05
_WINDOW = 0.5  # NVML's sample period is between 1/6 s and 1 s


@contextlib.contextmanager
def scenario(path=None):
    """Yield the scenario's lines as a dict, and write what has become of them; one at a time."""
    path = path or Path(os.environ["SIMULATED_GPU"])
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = path.read_text()
        lines = dict(line.split(" = ", 1) for line in before.splitlines())
        yield lines
        after = "".join(f"{key} = {value}\n" for key, value in lines.items())
        if after != before:
            new = path.with_suffix(f".{os.getpid()}")
            new.write_text(after)
            new.replace(path)


def find(uuid):
    """Return GPU and MIG device (None: the whole GPU) of a UUID, None where there is none."""
    with scenario() as lines:
        return find_in(lines, uuid)


def find_in(lines, uuid):
    """Do so in lines that were read."""
    for key, value in lines.items():
        match = re.fullmatch(r"gpu\.(\d+)\.(?:mig\.(\d+)\.)?uuid", key)
        if match and value == uuid:
            return match.group(1), match.group(2)
    return None


def main(pid, uuid):
    gpu, mig = find(uuid)
    memory_key = f"gpu.{gpu}.memory.used" if mig is None else f"gpu.{gpu}.mig.{mig}.memory.used"
    process, where = f"gpu.{gpu}.process.{pid}", "" if mig is None else f" mig={mig}"
    others = Path(os.environ["SIMULATED_GPU"]).with_name(f"others.{gpu}")  # what somebody else adds: "0.3"
    intervals, memory, shown, unread, ends, due = collections.deque(), 0, 0, b"", False, 0.0
    while not ends:
        wait = max(0.0, due - time.monotonic())
        news = bool(select.select([0], [], [], wait)[0])
        if news:
            part = os.read(0, 65536)
            ends = not part
            *complete, unread = (unread + part).split(b"\n")
            for line in complete:
                word, *numbers = line.split()
                if word == b"busy":
                    intervals.append(tuple(map(float, numbers)))
                else:
                    memory, due = int(numbers[0]), 0.0  # at once: who allocated waits for it
        now = time.monotonic()
        if now < due:
            continue
        due = now + _TICK
        while intervals and intervals[0][1] < now - _WINDOW:
            intervals.popleft()
        busy = sum(max(0.0, min(to, now) - max(since, now - _WINDOW)) for since, to in intervals) / _WINDOW
        busy += float(others.read_text()) if others.exists() else 0.0
        with scenario() as lines:
            lines[process] = f"compute memory={memory}{where}"
            lines[memory_key] = str(int(lines[memory_key]) + memory - shown)
            if mig is None:
                lines[f"gpu.{gpu}.utilization.gpu"] = str(round(100 * min(1.0, busy)))
        if memory != shown:
            print(memory, flush=True)
        shown = memory
    with scenario() as lines:
        lines.pop(process, None)
        lines[memory_key] = str(int(lines[memory_key]) - shown)
        if mig is None:
            lines[f"gpu.{gpu}.utilization.gpu"] = "0"


if __name__ == "__main__":
    main(*sys.argv[1:])
