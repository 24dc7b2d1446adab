"""Control groups: how the lab knows, counts and ends exactly the processes that it started."""

from __future__ import annotations

from pathlib import Path

from .system import LabError, run, wait_until


def root() -> Path:
    """Find the cgroup v2 tree, which machines with cgroup v1 have mounted beside it."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    found = next((Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"), None)
    if not found:
        raise LabError("no cgroup v2 tree is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
    return found


def create(group: Path) -> None:
    """Create the group, its parent's controllers at its disposal."""
    group.mkdir(exist_ok=True)
    for controller in (group.parent / "cgroup.controllers").read_text().split():
        try:
            (group.parent / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            # The root of a container's cgroup namespace holds processes and cannot share out; the
            # hosts then run without resource limits, which only tests of limits miss.
            continue


def alive(group: Path) -> bool:
    """Say whether a process runs in the group or below it."""
    events = group / "cgroup.events"
    return events.exists() and "populated 1" in events.read_text()


def start(group: Path, log: Path, *command: str | Path) -> None:
    """Run the command in the group, as a daemon: a session of its own, its output in the log.

    The shell joins the group before anything forks, so there is no moment at which a process of
    the lab is outside.
    """
    join = 'echo $$ >"$0/cgroup.procs" && exec setsid --fork "$@" >"$LOG" 2>&1 </dev/null'
    run("env", f"LOG={log}", "sh", "-c", join, group, *command)


def kill(group: Path) -> None:
    """Kill all processes of the group and remove it. Nothing that the lab started can be elsewhere."""
    if not group.exists():
        return
    (group / "cgroup.kill").write_text("1")
    if not wait_until(lambda: not alive(group), 30):
        raise LabError(f"processes in {group} do not die")
    for directory in sorted(group.rglob("*/"), reverse=True):
        directory.rmdir()
    group.rmdir()
