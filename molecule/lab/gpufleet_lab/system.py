"""What the lab asks of the machine it runs on: programs, privileges, locks, kernel settings."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Program -> the Debian package that brings it.
PROGRAMS = {
    "apt-cache": "apt",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "setsid": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
}
DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Bits of CapEff in /proc/self/status.
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_CHROOT": 18, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27}


class LabError(Exception):
    """Something the user can act on; the command line prints it without a traceback."""


def run(*command: str | Path, stdin: str | None = None) -> str:
    """Run a program for its output; a failure carries what the program said."""
    words = [str(word) for word in command]
    # C.UTF-8: the lab reads what programs print, so their words must not depend on the user's language.
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"`{' '.join(words)}` failed ({done.returncode}): {said[-2000:]}")
    return done.stdout


def check_machine() -> None:
    """Say everything that is missing at once, before anything is changed."""
    if platform.system() != "Linux":
        raise LabError(f"the lab's hosts are Linux containers; this machine runs {platform.system()}")
    if os.geteuid() != 0:
        raise LabError("the lab makes network interfaces, mounts and containers: run it as root (sudo)")
    missing = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)})
    if not DEBIAN_KEYRING.exists():
        missing.append("debian-archive-keyring")
    if missing:
        raise LabError(f"programs are missing; on Debian: apt install {' '.join(missing)}")
    if lacking := _lacking_capabilities():
        raise LabError(
            f"root here lacks {', '.join(lacking)}, which systemd-nspawn needs; "
            "inside a container, give it --privileged"
        )


def _lacking_capabilities() -> list[str]:
    status = Path("/proc/self/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    return [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file as a lock; the kernel lets go of it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Return whether the condition came true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def raise_sysctl(name: str, least: int) -> None:
    """Raise a kernel limit that is lower than the lab needs.

    It stays raised: who else relies on the higher value by the time the lab goes cannot be known.
    """
    path = Path("/proc/sys", name.replace(".", "/"))
    if int(path.read_text()) < least:
        path.write_text(str(least))


def boot_id() -> str:
    """Name this run of the machine, to tell a lab that a reboot of the machine has ended."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
