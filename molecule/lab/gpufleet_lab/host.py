"""One host of a lab: a systemd-nspawn machine that boots real systemd from an overlay of an image."""

from __future__ import annotations

import hashlib
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from . import cgroup, image, machines, network
from .system import LabError, run, wait_until

RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))

NSPAWN = (
    "--boot",
    "--quiet",
    "--register=no",
    "--keep-unit",
    "--console=pipe",
    "--resolv-conf=off",
    "--timezone=off",
    "--link-journal=no",
    # What Docker inside the host asks for, beyond nspawn's defaults.
    "--system-call-filter=add_key keyctl bpf",
)

NETWORK = """\
[Match]
Name=host0
[Network]
Address={address}/24
{gateway}
LinkLocalAddressing=no
IPv6AcceptRA=no
"""


@dataclass(frozen=True)
class HostSpec:
    """What a scenario asks for: NAME:SUITE[,no-way-out][,gpu=MACHINE][,disk=PATH]...[,package=NAME]..."""

    name: str
    suite: str
    way_out: bool = True
    # Directories on the machine's own file system: Docker's storage cannot lie on an overlay.
    disks: tuple[str, ...] = ()
    # Debian packages that its image has beyond all hosts'.
    packages: tuple[str, ...] = ()
    # Name of a simulated machine: which GPUs the host has.
    gpu: str = ""

    @classmethod
    def parse(cls, text: str) -> HostSpec:
        """Read the command line's form."""
        name, _, rest = text.partition(":")
        suite, *words = rest.split(",")
        options: dict[str, list[str]] = {"no-way-out": [], "disk": [], "package": [], "gpu": []}
        for word in words:
            option, _, value = word.partition("=")
            if option not in options or bool(value) == (option == "no-way-out"):
                raise LabError(f"{text!r}: {word!r} is not one of no-way-out, disk=/PATH, package=NAME, gpu=MACHINE")
            options[option].append(value)
        if not name.replace("-", "").isalnum() or not all(disk.startswith("/") for disk in options["disk"]):
            raise LabError(f"{text!r} is not NAME:SUITE[,OPTION]...")
        if suite not in image.SUITES:
            raise LabError(f"{text!r}: the suites are {', '.join(image.SUITES)}")
        machine = "".join(options["gpu"])
        if machine and machine not in machines.MACHINES:
            raise LabError(f"{text!r}: the simulated machines are {', '.join(machines.MACHINES)}")
        return cls(name, suite, not options["no-way-out"], tuple(options["disk"]), tuple(options["package"]), machine)


@dataclass(frozen=True)
class Host:
    """A host in its lab."""

    spec: HostSpec
    address: str
    machine: str
    image: Path
    directory: Path
    cgroup: Path

    @property
    def link(self) -> str:
        """The host's cable, at the bridge's end; systemd-nspawn names it."""
        return f"vb-{self.machine}"

    @property
    def gpus(self) -> Path:
        """The host's simulated GPUs, which it sees as /etc/simulated-gpu: what is changed here, changes there."""
        return self.directory / "gpus"

    @property
    def alive(self) -> bool:
        """Whether the host has power."""
        return cgroup.alive(self.cgroup)

    def create(self, gateway: str, public_key: str) -> None:
        """Make the host's directory, complete or not at all."""
        partial = self.directory.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        replace(self, directory=partial)._furnish(gateway, public_key)
        partial.rename(self.directory)

    def _furnish(self, gateway: str, public_key: str) -> None:
        """Give a new host what is its own: name, identity, network, the key that opens it."""
        seeds = {
            "etc/hostname": f"{self.spec.name}\n",
            "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {self.spec.name}\n",
            "etc/machine-id": hashlib.sha256(self.machine.encode()).hexdigest()[:32] + "\n",
            "etc/resolv.conf": _resolver() if self.spec.way_out else "",
            "etc/systemd/network/10-host0.network": NETWORK.format(
                address=self.address, gateway=f"Gateway={gateway}" if self.spec.way_out else ""
            ),
            "root/.ssh/authorized_keys": public_key,
        }
        for path, content in seeds.items():
            self._upper(path).write_text(content)
        key = self._upper("etc/ssh/ssh_host_ed25519_key")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.spec.name, "-f", key)
        for disk in self.spec.disks:
            self._disk(disk).mkdir(parents=True)
        if self.spec.gpu:
            machines.MACHINES[self.spec.gpu]().write(self.gpus)
            for library in sorted(machines.libraries().glob("*.so.*")):
                shutil.copy(library, self._upper(f"{machines.library_path()}/{library.name}"))

    def _upper(self, path: str) -> Path:
        # A directory of the overlay's upper layer hides the image's mode and owner: repeat them.
        target = self.directory / "upper"
        target.mkdir(parents=True, exist_ok=True)
        source = self.image
        for part in Path(path).parent.parts:
            target, source = target / part, source / part
            if not target.exists():
                target.mkdir()
                shutil.copystat(source, target)
        return target / Path(path).name

    def _disk(self, path: str) -> Path:
        return self.directory / "disks" / path.strip("/").replace("/", "-")

    def start(self, bridge: str) -> None:
        """Press the power button; `wait` says when SSH answers."""
        network.delete_link(self.link)  # of a host that lost power a moment ago
        for group in (self.cgroup, self.cgroup / "power", self.cgroup / "system"):
            cgroup.create(group)
        cgroup.start(
            self.cgroup / "power",
            self.directory / "console.log",
            *("env", f"CGROUP_ROOT={cgroup.root()}", "unshare", "--mount", "sh"),
            *(Path(__file__).with_name("host.sh"), self.cgroup),
            *(self.image, self.directory, *NSPAWN),
            *(f"--machine={self.machine}", f"--hostname={self.spec.name}", f"--network-bridge={bridge}"),
            *(f"--bind={self._disk(disk)}:{disk}" for disk in self.spec.disks),
            *([f"--bind={self.gpus}:/etc/simulated-gpu"] if self.spec.gpu else []),
        )

    def wait(self, timeout: float) -> None:
        """Return once the host's SSH server answers."""
        wait_until(lambda: self._ssh_answers() or not self.alive, timeout)
        if not self._ssh_answers():
            log = self.directory / "console.log"
            last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            power = "is on" if self.alive else "is off"
            raise LabError(f"{self.spec.name} ({self.address}) does not answer; its power {power}\n{last}")

    def _ssh_answers(self) -> bool:
        try:
            with socket.create_connection((self.address, 22), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def plug(self, *, connected: bool) -> None:
        """Pull the network cable, or put it back."""
        network.plug(self.link, connected=connected)

    def kill(self) -> None:
        """Cut the power. The disk stays; the lab's `up` presses the power button again."""
        cgroup.kill(self.cgroup)
        network.delete_link(self.link)


def _resolver() -> str:
    # systemd-resolved's stub in /etc/resolv.conf is a loopback address, of no use in another network.
    return next(path.read_text() for path in RESOLVERS if path.exists())


def resolve(specs: Iterator[HostSpec]) -> dict[str, HostSpec]:
    """Index the specifications by name; a name given twice is a mistake."""
    hosts: dict[str, HostSpec] = {}
    for spec in specs:
        if spec.name in hosts:
            raise LabError(f"host {spec.name} is given twice")
        hosts[spec.name] = spec
    return hosts
