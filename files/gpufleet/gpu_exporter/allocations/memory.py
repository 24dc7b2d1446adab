"""How much of its memory limit a container uses, as the kernel counts it: control groups of version 2.

Sources: cgroup-v2.rst of the kernel's documentation; Docker's names of control groups with either of its drivers.
"""

from __future__ import annotations

import typing as t


class Memory(t.NamedTuple):
    """Memory of a container, in bytes."""

    used: int
    """Without files that the kernel only keeps in memory as long as nobody needs the room, as docker stats has it."""
    limit: int | None
    """None without a limit."""


def of_container(root: str, container: str, parent: str) -> Memory | None:
    """Return the memory of a container, None where the host does not tell it. ``parent`` is as Docker has it."""
    for path in _paths(container, parent):
        try:
            used = int(_read(f"{root}/{path}/memory.current")) - _inactive(_read(f"{root}/{path}/memory.stat"))
            limit = _read(f"{root}/{path}/memory.max").strip()
            return Memory(max(used, 0), None if limit == "max" else int(limit))
        except (OSError, ValueError):
            continue
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


def _inactive(stat: str) -> int:
    for line in stat.splitlines():
        key, _, value = line.partition(" ")
        if key == "inactive_file":
            return int(value)
    raise ValueError("no inactive_file")


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read(65536)
