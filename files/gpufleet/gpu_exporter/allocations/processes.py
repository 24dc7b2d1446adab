"""Processes on GPUs: in which container, and whose. Sources: proc(5), cgroups(7)."""

from __future__ import annotations

import re
import typing as t

# A container's id in a control group's path, as Docker, containerd, CRI-O and Podman write it with either of their
# cgroup drivers: /docker/ID, docker-ID.scope, cri-containerd-ID.scope, libpod-ID.scope, kubepods/.../ID.
_ID = re.compile(r"(?:([a-z0-9-]+)-)?([0-9a-f]{64})(?:\.scope)?")


class Home(t.NamedTuple):
    """Where a process runs."""

    container: str
    """The whole id; empty outside of containers."""
    docker: bool
    """Whether the path says that it is Docker's."""
    path: str
    """Of the control group."""


def home(cgroup: str) -> Home:
    """Return where the process of a /proc/PID/cgroup runs, of version 1 or 2."""
    paths = [line.split(":", 2)[2] for line in cgroup.splitlines() if line.count(":") >= 2]
    for path in paths:
        if _delegated(path):
            break  # a user names the groups below his own as he likes
        # The outermost container is the one that the host's Docker knows.
        before = ""
        for part in path.split("/"):
            match = _ID.fullmatch(part)
            if match and not (match.group(1) or "").endswith("conmon"):  # Podman's watcher, not its container
                return Home(match.group(2), "docker" in (match.group(1), before), path)
            before = part
    return Home("", False, max(paths, key=len, default=""))


def _delegated(path: str) -> bool:
    """Whether a path is below a user's own systemd, or his session."""
    return any(part == "user.slice" or re.fullmatch(r"user@[0-9]+\.service", part) for part in path.split("/"))


def user_number(status: str) -> int:
    """Return the real user id of a /proc/PID/status. Raises ValueError."""
    match = re.search(r"^Uid:\s+([0-9]{1,10})\s", status, re.MULTILINE)
    if match is None:
        raise ValueError("no Uid")
    return int(match.group(1))


class Owner(t.NamedTuple):
    """Whose a process is."""

    home: Home
    user: int


class Processes:
    """Looks at processes in a proc tree."""

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self._hidden: set[int] = set()

    def look(self, pids: t.Iterable[int]) -> dict[int, Owner | None]:
        """Return the owners of processes. A process that is gone is left out.

        None for a process that the driver still lists at the second look: it is there, but hidden from us (hidepid).
        """
        owners: dict[int, Owner | None] = {}
        hidden: set[int] = set()
        for pid in set(pids):
            try:
                owners[pid] = Owner(home(self._read(pid, "cgroup")), user_number(self._read(pid, "status")))
            except PermissionError:
                owners[pid] = None
            except (OSError, ValueError):
                hidden.add(pid)
                if pid in self._hidden:
                    owners[pid] = None
        self._hidden = hidden
        return owners

    def _read(self, pid: int, name: str) -> str:
        with open(f"{self._proc}/{pid}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read(65536)
