"""A lab: hosts, their network and the release mirror, found again by checkout and name."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from . import cgroup, faults, grafana, image, mirror, network
from .host import Host, HostSpec
from .system import LabError, boot_id, check_machine, locked, raise_sysctl, run, wait_until

CHECKOUT = Path(__file__).resolve().parents[3]
# On a disk, unlike /run: the hosts' file systems are in it.
STATE = Path(os.environ.get("GPUFLEET_LAB_STATE") or "/var/lib/gpufleet-lab")
# Subnets are shared by all labs, and a lab by its users: changes happen one at a time.
LOCK = Path("/run/lock/gpufleet-lab.lock")

MIRROR_PORT = 8080
FIRST_HOST = 10
MOST_HOSTS = 240

# systemd, journald, dbus, networkd and logind of every host watch files, all as the same root.
INOTIFY_PER_HOST = 32


class Lab:
    """A lab that `up` has made; `Lab.open` finds it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state: dict[str, Any] = json.loads((directory / "lab.json").read_text())
        self.faults = faults.Faults(directory / "mirror")

    # Finding labs

    @classmethod
    def open(cls, name: str = "") -> Lab:
        """Return this checkout's lab of that name, or that of the Molecule scenario that runs."""
        name = name or os.environ.get("MOLECULE_SCENARIO_NAME", "")
        directory = STATE / identify(name)
        if not (directory / "lab.json").exists():
            raise LabError(f"there is no lab {name!r}; `lab.py up {name} --host ...` makes one")
        return cls(directory)

    @classmethod
    def all(cls) -> list[Lab]:
        """Return the labs of all checkouts."""
        found = []
        for path in sorted(STATE.glob("*/lab.json")):
            with suppress(FileNotFoundError):  # taken down this moment
                found.append(cls(path.parent))
        return found

    # What it is made of

    @property
    def name(self) -> str:
        """The name it was made under: a scenario's."""
        return str(self.state["name"])

    @property
    def id(self) -> str:
        """Eight hex digits, in the names of all that the lab has on this machine."""
        return self.directory.name

    @property
    def bridge(self) -> str:
        """The lab's bridge."""
        return f"gf{self.id}"

    @property
    def table(self) -> str:
        """The lab's nft table."""
        return f"gpufleet_lab_{self.id}"

    @property
    def cgroup(self) -> Path:
        """The group that all of the lab's processes are in."""
        return cgroup.root() / f"gpufleet-lab-{self.id}"

    @property
    def gateway(self) -> str:
        """This machine's address in the lab's network."""
        return str(ipaddress.IPv4Network(self.state["subnet"])[1])

    @property
    def key(self) -> Path:
        """The SSH key that opens all hosts."""
        return self.directory / "key"

    @property
    def mirror_url(self) -> str:
        """What stands for `https:/` in a release's URL."""
        return f"http://{self.gateway}:{MIRROR_PORT}"

    @property
    def versions(self) -> dict[str, dict[str, str]]:
        """The releases in the mirror: {"prometheus": {"current": ..., "previous": ...}, ...}."""
        found = mirror.versions(Path(self.state["mirror"]))
        real = self.state.get("grafana")
        return {**found, "grafana": {"current": real, "previous": real}} if real else found

    @property
    def hosts(self) -> dict[str, Host]:
        """The lab's hosts by name."""
        network_ = ipaddress.IPv4Network(self.state["subnet"])
        return {
            name: Host(
                HostSpec(
                    name,
                    entry["suite"],
                    entry["way_out"],
                    tuple(entry["disks"]),
                    tuple(entry["packages"]),
                    entry["gpu"],
                ),
                str(network_[entry["number"]]),
                f"{self.id}-{entry['number']}",
                Path(entry["image"]),
                self.directory / "hosts" / name,
                self.cgroup / f"host-{name}",
            )
            for name, entry in self.state["hosts"].items()
        }

    def host(self, name: str) -> Host:
        """Return one host."""
        try:
            return self.hosts[name]
        except KeyError:
            raise LabError(f"lab {self.name} has no host {name!r}, but {', '.join(self.hosts)}") from None

    def describe(self) -> dict[str, Any]:
        """All that a user of the lab needs to know, for `lab.py show`."""
        return {
            "name": self.name,
            "id": self.id,
            "checkout": self.state["checkout"],
            "subnet": self.state["subnet"],
            "gateway": self.gateway,
            "bridge": self.bridge,
            "cgroup": str(self.cgroup),
            "directory": str(self.directory),
            "key": str(self.key),
            "mirror_url": self.mirror_url,
            "versions": self.versions,
            "hosts": {
                name: {"address": host.address, "link": host.link, "alive": host.alive, **asdict(host.spec)}
                for name, host in self.hosts.items()
            },
        }

    # Using it

    def ssh_command(self, host: str, *command: str) -> list[str]:
        """Return the command line that runs `command` on the host as root."""
        options = {
            "IdentityFile": self.key,
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "ConnectTimeout": 10,
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", *words, f"root@{self.host(host).address}", *command]

    def ssh(self, host: str, command: str, *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the host."""
        words = self.ssh_command(host, command)
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout)

    # Making it

    def boot(self) -> None:
        """Start what does not run: the way to make a lab, to repair it, to power a host on."""
        hosts = self.hosts
        everywhere = sum(len(lab.state["hosts"]) for lab in Lab.all())
        raise_sysctl("fs.inotify.max_user_instances", 128 + INOTIFY_PER_HOST * everywhere)
        cgroup.create(self.cgroup)
        if not network.exists(self.bridge):
            self._say("network", f"{self.state['subnet']} on {self.bridge}")
        network.set_bridge(self.bridge, self.gateway)
        way_out = [host.address for host in hosts.values() if host.spec.way_out]
        network.set_way_out(self.table, self.bridge, way_out)
        self._start_mirror()
        for name, host in hosts.items():
            if not host.alive:
                self._say(name, f"{host.spec.suite} boots as {host.address}")
                if not host.directory.exists():
                    host.create(self.gateway, self.key.with_suffix(".pub").read_text())
                host.start(self.bridge)
            elif network.unplugged(host.link):
                self._say(name, "cable plugged in")
                host.plug(connected=True)

    def _start_mirror(self) -> None:
        group = self.cgroup / "mirror"
        if cgroup.alive(group):
            return
        self._say("mirror", self.mirror_url)
        cgroup.create(group)
        state = self.directory / "mirror"
        (state / "extra").mkdir(parents=True, exist_ok=True)
        program = (sys.executable, CHECKOUT / "molecule" / "lab" / "lab.py", "serve")
        where = (self.gateway, str(MIRROR_PORT), self.state["mirror"], state)
        cgroup.start(group, state / "server.log", *program, *where)

    def wait(self) -> None:
        """Return once the mirror and all hosts' SSH servers answer."""
        if not wait_until(self._mirror_answers, 10):
            raise LabError(f"the mirror does not answer: {(self.directory / 'mirror/server.log').read_text()}")
        hosts = list(self.hosts.values())
        with ThreadPoolExecutor(max(1, len(hosts))) as pool:
            list(pool.map(lambda host: host.wait(60 + 3 * len(hosts)), hosts))

    def _mirror_answers(self) -> bool:
        with suppress(OSError), socket.create_connection((self.gateway, MIRROR_PORT), timeout=1):
            return True
        return False

    def remove(self) -> None:
        """Leave nothing: processes first (hosts' mounts and cables go with them), then the rest."""
        self._say("lab", "goes down")
        cgroup.kill(self.cgroup)
        network.remove(self.table, self.bridge)
        # lab.json last: an interrupted removal must be found again.
        shutil.rmtree(self.directory / "hosts", ignore_errors=True)
        shutil.rmtree(self.directory)

    def _say(self, subject: str, what: str) -> None:
        # Only what changes is said: `up` on a healthy lab is silent on stderr.
        print(f"{self.name}: {subject}: {what}", file=sys.stderr, flush=True)


def identify(name: str) -> str:
    """Name a lab by checkout and name, so that scenarios and checkouts do not meet."""
    return hashlib.sha256(f"{CHECKOUT}\0{name}".encode()).hexdigest()[:8]


def up(name: str, specs: dict[str, HostSpec]) -> Lab:
    """Make the lab, or make it whole again: afterwards all its hosts, and these, answer SSH."""
    check_machine()
    releases = _prepare({(spec.suite, spec.packages) for spec in specs.values()})
    with locked(LOCK):
        _forget_ended_labs()
        directory = STATE / identify(name)
        if not (directory / "lab.json").exists():
            _create(directory, name, releases)
        lab = Lab(directory)
        _offer_grafana(lab)
        _add_hosts(lab, specs)
        lab.boot()
    lab.wait()
    return lab


def _offer_grafana(lab: Lab) -> None:
    """Take the real Grafana where there is one. It makes nothing of what the stand-in wrote, or the other way round."""
    version = grafana.offer_real(lab.faults.extra)
    if lab.state["hosts"] and lab.state.get("grafana") != version:
        raise LabError(f"lab {lab.name} has hosts with another Grafana already: `make clean` first")
    lab.state["grafana"] = version


def down(lab: Lab) -> None:
    """Remove the lab and all that it has on this machine."""
    with locked(LOCK):
        if lab.directory.exists():
            lab.remove()


def fill_cache() -> None:
    """Build what the scenarios' labs are made of, as far as it is not in the cache."""
    check_machine()
    scenarios = (yaml.safe_load(path.read_text()) for path in CHECKOUT.glob("molecule/*/molecule.yml"))
    hosts = [host for scenario in scenarios for host in scenario["platforms"]]
    _prepare({(host["suite"], tuple(host.get("packages", ()))) for host in hosts})


def _prepare(wanted: Iterable[tuple[str, tuple[str, ...]]]) -> Path:
    """Build what is not in the cache yet, all at once, outside the lock; return the mirror's files."""
    with ThreadPoolExecutor() as pool:
        images = [pool.submit(image.path, suite, packages) for suite, packages in wanted]
        releases = pool.submit(mirror.path)
        for built in images:
            built.result()
        return releases.result()


def _create(directory: Path, name: str, releases: Path) -> None:
    taken = [lab.state["subnet"] for lab in Lab.all()]
    subnet = network.free_subnet(int(directory.name, 16), taken)
    shutil.rmtree(directory, ignore_errors=True)  # of an `up` that was cut short
    directory.mkdir(parents=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {name}", "-f", directory / "key")
    state = {
        "name": name,
        "checkout": str(CHECKOUT),
        "boot_id": boot_id(),
        "subnet": str(subnet),
        "mirror": str(releases),
        "hosts": {},
    }
    _save(directory, state)


def _add_hosts(lab: Lab, specs: dict[str, HostSpec]) -> None:
    hosts = lab.state["hosts"]
    numbers = _free_numbers({entry["number"] for entry in hosts.values()})
    for name, spec in specs.items():
        entry = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(spec).items()}
        del entry["name"]
        if name not in hosts:
            # The image of today: an overlay must keep what it was made on.
            hosts[name] = {"number": next(numbers), "image": str(image.path(spec.suite, spec.packages)), **entry}
        elif {**hosts[name], **entry} != hosts[name]:
            raise LabError(f"host {name} runs as {hosts[name]}: take the lab down to change it")
    _save(lab.directory, lab.state)


def _free_numbers(taken: set[int]) -> Iterator[int]:
    yield from (number for number in range(FIRST_HOST, FIRST_HOST + MOST_HOSTS) if number not in taken)
    raise LabError(f"a lab has room for {MOST_HOSTS} hosts")


def _save(directory: Path, state: dict[str, Any]) -> None:
    new = directory / "lab.json.new"
    new.write_text(json.dumps(state, indent=1) + "\n")
    new.rename(directory / "lab.json")


def _forget_ended_labs() -> None:
    """Drop the files of labs that a reboot of the machine has ended; nothing else is left of them."""
    for lab in Lab.all():
        if lab.state["boot_id"] != boot_id():
            shutil.rmtree(lab.directory)
