"""The hosts' root file systems: minimal Debian with systemd, SSH and Python, one per suite."""

from __future__ import annotations

import shlex
from pathlib import Path

from . import debian, store
from .system import DEBIAN_KEYRING, LabError, run

SUITES = ("bookworm", "trixie")

# What a fleet's servers have anyway, no more: what a role needs beyond this, it must install itself.
PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
)

# Units that would only disturb tests: apt's timers hold its lock at random moments, and nobody
# sits at the console.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
)

# Shell, run by mmdebstrap with the new root as $1. What makes a host itself is not in the image.
HOOKS = (
    'rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/machine-id" "$1/etc/hostname" "$1/etc/resolv.conf"',
    f'for unit in {" ".join(MASKED)}; do ln -sf /dev/null "$1/etc/systemd/system/$unit"; done',
    'systemctl --root="$1" enable systemd-networkd.service',
    'install -d -m 0700 "$1/root/.ssh"',
    'chmod 0755 "$1"',
)


def path(suite: str, packages: tuple[str, ...] = ()) -> Path:
    """Return the suite's root file system with these packages more, built on first use (half a minute)."""
    if suite not in SUITES:
        raise LabError(f"no image of {suite!r}; there are {', '.join(SUITES)}")
    options = _options(suite, packages)
    target = store.cache() / "images" / f"{suite}-{store.key([suite, options])}"

    def build(root: Path) -> None:
        run("mmdebstrap", *options, f"--keyring={DEBIAN_KEYRING}", suite, root, debian.mirror())

    return store.build_once(target, build)


def _options(suite: str, packages: tuple[str, ...]) -> list[str]:
    # All that shapes the image is here, so that the cache's key covers all of it.
    hooks = [f"--customize-hook={hook}" for hook in HOOKS]
    return ["--mode=root", "--format=directory", *_content(suite, packages), *hooks]


def _content(suite: str, packages: tuple[str, ...]) -> list[str]:
    """Say what is installed: packages come into a copy of the plain image, for a quarter of what a new one costs."""
    if not packages:
        return ["--variant=minbase", f"--include={','.join(PACKAGES)}"]
    copy = f'--setup-hook=cp -a {shlex.quote(str(path(suite)))}/. "$1"'
    return ["--variant=custom", copy, f"--include={','.join(packages)}"]
