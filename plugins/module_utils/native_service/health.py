# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Does a service answer, and is it really that service which answers?"""

from __future__ import annotations

import http.client
import re
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from .systemd import Systemd

Run = t.Callable[["list[str]"], tuple[int, str, str]]

TIMED_OUT = 124  # timeout(1) ended the command
PROBE_TIMEOUT = 5  # seconds for one answer
RESTARTS_TOLERATED = 1  # a service that dies twice within one health check will not come up
SETTLE = 1  # seconds that a service without a health check has to stay up


class Health(t.NamedTuple):
    """What shows that a service works: a URL that answers 200, or a command that exits 0. Seconds."""

    url: str | None
    command: tuple[str, ...]
    timeout: float


def wait(health: Health | None, systemd: Systemd, unit: str, run: Run) -> str | None:
    """Wait until ``unit`` works. Return None then, or the reason in words why it does not."""
    if health is None:
        time.sleep(SETTLE)
    deadline = time.monotonic() + (health.timeout if health else SETTLE)
    pause = 0.05
    before = systemd.show(unit).restarts  # a reload does not set systemd's count back
    while True:
        reason, final = _look(health, systemd, unit, run, before)
        if reason is None or final or time.monotonic() > deadline:
            return reason
        time.sleep(pause)
        pause = min(pause * 1.5, 1)


def _look(
    health: Health | None, systemd: Systemd, unit: str, run: Run, restarts_before: int
) -> tuple[str | None, bool]:
    """Return the reason why ``unit`` is not well, or None, and whether waiting is in vain."""
    state = systemd.show(unit)
    if state.active == "failed":
        return f"{unit} failed ({state.result}){_taken_port(health, unit)}", True
    if state.restarts > restarts_before + RESTARTS_TOLERATED:
        return f"{unit} exits again and again{_taken_port(health, unit)}", True
    if state.active != "active":
        return f"{unit} is {state.active} ({state.sub})", False
    return (probe(health, unit, run) if health else None), False


def _taken_port(health: Health | None, unit: str) -> str:
    """Say who holds the service's port, which is what most often keeps a new service from starting."""
    stranger = _stranger(health.url, unit) if health and health.url else None
    return f": {stranger}" if stranger else ""


def probe(health: Health, unit: str, run: Run) -> str | None:
    """Look once. Return None when the service answers, else the reason in words."""
    if health.command:
        code, out, err = run(["timeout", str(health.timeout), *health.command])
        if code == TIMED_OUT:
            return f"the health command did not end within {health.timeout:g} s"
        return None if code == 0 else f"the health command exited with {code}: {(err or out).strip()}"
    assert health.url is not None
    return _answer(health.url) or _stranger(health.url, unit)


def _answer(url: str) -> str | None:
    # A proxy that the environment names is for the way out, never for this host's own ports.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=PROBE_TIMEOUT) as response:
            response.read(1)
            return None if response.status == 200 else f"{url} answered {response.status}"
    except urllib.error.HTTPError as error:
        return f"{url} answered {error.code} {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        return f"{url} does not answer: {getattr(error, 'reason', error)}"


def _stranger(url: str, unit: str) -> str | None:
    """Another program on the port would pass for the service while the service fails to bind."""
    port = urllib.parse.urlsplit(url).port
    owner = listener(port) if port else None
    if owner is None or owner.unit == unit:
        return None
    return f"port {port} belongs to another service: {owner.unit}, process {owner.pid} ({owner.command}). Stop it first"


class Listener(t.NamedTuple):
    """The process that listens on a TCP port, and the systemd unit it runs in."""

    pid: int
    command: str
    unit: str


def listener(port: int, proc: Path = Path("/proc")) -> Listener | None:
    """Return who listens on a TCP port, or None when nobody does or the kernel does not tell."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port, proc)}
    if not inodes:
        return None
    for process in proc.glob("[0-9]*"):
        try:
            if any(str(descriptor.readlink()) in inodes for descriptor in (process / "fd").iterdir()):
                return Listener(int(process.name), _command(process), _unit(process))
        except OSError:
            continue  # it ended, or is not ours to look at
    return None


def _listening_inodes(port: int, proc: Path) -> t.Iterator[str]:
    """Columns of /proc/net/tcp (proc_pid_net(5)): 1 local address:port in hex, 3 state (0A is LISTEN), 9 inode."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in (line.split() for line in lines):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _command(process: Path) -> str:
    return (process / "cmdline").read_bytes().split(b"\0")[0].decode("utf-8", "replace")


def _unit(process: Path) -> str:
    """The last unit in the control group's path; both cgroup hierarchies write it so."""
    units = re.findall(r"([^/\n]+\.(?:service|scope))(?=/|\n|$)", (process / "cgroup").read_text())
    return units[-1] if units else "no unit"
