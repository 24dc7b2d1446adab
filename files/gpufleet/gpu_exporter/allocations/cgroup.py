"""What a container uses of the host, as the kernel counts it: control groups of version 2.

Sources: cgroup-v2.rst of the kernel's documentation; Docker's names of control groups with either of its drivers.
"""

from __future__ import annotations

import typing as t


class Usage(t.NamedTuple):
    """What a container uses. None is what the host does not tell."""

    cpu_seconds: float | None
    """CPU time since the container was started."""
    memory: int | None
    """Bytes, without files that the kernel only keeps there until somebody needs the room, as docker stats has it."""
    memory_limit: int | None
    """Bytes. None without a limit, too."""


def of_container(root: str, container: str, parent: str) -> Usage:
    """Return what a container uses. ``parent`` is as Docker has it."""
    for path in _paths(container, parent):
        found = Usage(_cpu_seconds(f"{root}/{path}"), _memory(f"{root}/{path}"), _memory_limit(f"{root}/{path}"))
        if found != _NOTHING:
            return found
    return _NOTHING


_NOTHING = Usage(None, None, None)


def _cpu_seconds(group: str) -> float | None:
    try:
        return _value(_read(f"{group}/cpu.stat"), "usage_usec") / 1e6
    except (OSError, ValueError):
        return None


def _memory(group: str) -> int | None:
    try:
        cached = _value(_read(f"{group}/memory.stat"), "inactive_file")
        return max(int(_read(f"{group}/memory.current")) - cached, 0)
    except (OSError, ValueError):
        return None


def _memory_limit(group: str) -> int | None:
    try:
        return int(_read(f"{group}/memory.max"))
    except (OSError, ValueError):  # "max" is no limit
        return None


def _paths(container: str, parent: str) -> list[str]:
    """Return where the container's control group may be: by systemd's names, and by Docker's own."""
    parent = parent.strip("/")
    if ".." in parent.split("/"):
        return []
    if parent.endswith(".slice") or not parent:
        return [f"{_slice(parent or 'system.slice')}/docker-{container}.scope", f"docker/{container}"]
    return [f"{parent}/{container}"]


def _slice(name: str) -> str:
    """Return the path of a slice: a-b.slice is in a.slice."""
    parts = name[: -len(".slice")].split("-")
    return "/".join("-".join(parts[: number + 1]) + ".slice" for number in range(len(parts)))


def _value(table: str, wanted: str) -> int:
    for line in table.splitlines():
        key, _, value = line.partition(" ")
        if key == wanted:
            return int(value)
    raise ValueError(f"no {wanted}")


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read(65536)
