# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Does a service answer, and is it really that service which answers?"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import sys
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
START = 30  # seconds that it may take to start


class Health(t.NamedTuple):
    """What shows that a service works: a URL that answers 200, or a command that exits 0. Seconds."""

    url: str | None
    command: tuple[str, ...]
    timeout: float
    client_certificate: str | None = None  # a file with key and certificate, for who asks for one


def wait(health: Health | None, systemd: Systemd, unit: str, run: Run) -> str | None:
    """Wait until ``unit`` works. Return None then, or the reason in words why it does not."""
    before = systemd.show(unit).restarts  # a reload does not set systemd's count back
    if health is None:
        return _stays_up(systemd, unit, before)
    deadline = time.monotonic() + health.timeout
    pause = 0.05
    while True:
        reason, final = _look(health, systemd, unit, run, before)
        if reason is None or final or time.monotonic() > deadline:
            return reason
        time.sleep(pause)
        pause = min(pause * 1.5, 1)


def _stays_up(systemd: Systemd, unit: str, restarts_before: int) -> str | None:
    """Without a health check, a service works that does not end for a while. It may take its time to start."""
    deadline = time.monotonic() + START
    while True:
        begun = systemd.show(unit)
        if begun.active in ("active", "failed") or begun.restarts > restarts_before or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    time.sleep(SETTLE)
    state = systemd.show(unit)
    if state.active != "active":
        return f"{unit} is {state.active} ({state.sub}, {state.result})"
    return None if state.restarts == restarts_before else f"{unit} exits again and again"


def _look(health: Health, systemd: Systemd, unit: str, run: Run, restarts_before: int) -> tuple[str | None, bool]:
    """Return the reason why ``unit`` is not well, or None, and whether waiting is in vain."""
    state = systemd.show(unit)
    if state.active == "failed":
        return f"{unit} failed ({state.result}){_taken_port(health, unit)}", True
    if state.restarts > restarts_before + RESTARTS_TOLERATED:
        return f"{unit} exits again and again{_taken_port(health, unit)}", True
    if state.active != "active":
        return f"{unit} is {state.active} ({state.sub})", False
    return probe(health, unit, run), False


def _taken_port(health: Health, unit: str) -> str:
    """Say who holds the service's port, which is what most often keeps a new service from starting."""
    stranger = _stranger(health.url, unit) if health.url else None
    return f": {stranger}" if stranger else ""


def probe(health: Health, unit: str, run: Run) -> str | None:
    """Look once. Return None when the service answers, else the reason in words."""
    if health.command:
        code, out, err = run(["timeout", str(health.timeout), *health.command])
        if code == TIMED_OUT:
            return f"the health command did not end within {health.timeout:g} s"
        return None if code == 0 else f"the health command exited with {code}: {(err or out).strip()}"
    assert health.url is not None
    return _answer(health.url, health.client_certificate) or _stranger(health.url, unit)


def _answer(url: str, client_certificate: str | None) -> str | None:
    try:
        handlers = [_https(client_certificate)] if client_certificate else []
        with opener(*handlers).open(url, timeout=PROBE_TIMEOUT) as response:
            response.read(1)
            return None if response.status == 200 else f"{url} answered {response.status}"
    except urllib.error.HTTPError as error:
        return f"{url} answered {error.code} {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        return f"{url} does not answer: {getattr(error, 'reason', error)}"


def opener(*handlers: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
    """Return what asks this host's own ports: a proxy that the environment names is for the way out."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), *handlers)


def _https(client_certificate: str) -> urllib.request.BaseHandler:
    """Who answers on this host's own port is told by the port's owner, not by a name in a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(client_certificate)
    return urllib.request.HTTPSHandler(context=context)


def _stranger(url: str, unit: str) -> str | None:
    """Another program on the port would pass for the service while the service fails to bind."""
    parts = urllib.parse.urlsplit(url)
    port = parts.port
    owners = listeners(parts.hostname or "", port) if port else []
    if not owners or unit in [owner.unit for owner in owners]:
        return None
    owner = owners[0]
    return f"port {port} belongs to another service: {owner.unit}, process {owner.pid} ({owner.command}). Stop it first"


class Listener(t.NamedTuple):
    """The process that listens on a TCP port, and the systemd unit it runs in."""

    pid: int
    command: str
    unit: str


def listeners(host: str, port: int, proc: Path = Path("/proc")) -> list[Listener]:
    """Return who listens on a TCP port of this host; nobody when nobody does or the kernel does not tell.

    On one port, each address may be another program's. Who has the very address that is asked answers, else who has
    all of them.
    """
    found = list(_listening(port, proc))
    asked = _addresses(host)
    exact = {inode for address, inode in found if address in asked}
    inodes = exact or {inode for address, inode in found if address.is_unspecified}
    return list(_holders({f"socket:[{inode}]" for inode in inodes}, proc)) if inodes else []


def holders(port: int, proc: Path = Path("/proc")) -> list[Listener]:
    """Return who listens on a TCP port, at whatever address of this host."""
    inodes = {inode for _, inode in _listening(port, proc)}
    return list(_holders({f"socket:[{inode}]" for inode in inodes}, proc)) if inodes else []


def _holders(sockets: set[str], proc: Path) -> t.Iterator[Listener]:
    for process in proc.glob("[0-9]*"):
        try:
            if any(_target(descriptor) in sockets for descriptor in (process / "fd").iterdir()):
                yield Listener(int(process.name), _command(process), _unit(process))
        except OSError:
            continue  # it ended, or is not ours to look at


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""  # closed in this moment


Address = t.Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


def _addresses(host: str) -> set[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found}


def _listening(port: int, proc: Path) -> t.Iterator[tuple[Address, str]]:
    """Columns of /proc/net/tcp (proc_pid_net(5)): 1 local address:port in hex, 3 state (0A is LISTEN), 9 inode."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in (line.split() for line in lines):
            address, _, number = fields[1].rpartition(":")
            if fields[3] == "0A" and int(number, 16) == port:
                yield _address(address), fields[9]


def _address(text: str) -> Address:
    """The kernel writes an address as numbers of 32 bits, each in the host's own order of bytes."""
    words = [int(text[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address


def _command(process: Path) -> str:
    return (process / "cmdline").read_bytes().split(b"\0")[0].decode("utf-8", "replace")


def _unit(process: Path) -> str:
    """The last unit in the control group's path; both cgroup hierarchies write it so."""
    units = re.findall(r"([^/\n]+\.(?:service|scope))(?=/|\n|$)", (process / "cgroup").read_text())
    return units[-1] if units else "no unit"
