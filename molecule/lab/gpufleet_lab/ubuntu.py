"""Ubuntu's archive, and the keys that sign it, which Debian has no package of."""

from __future__ import annotations

import hashlib
import urllib.request
from pathlib import Path

from . import store
from .system import LabError, run

SUITES = ("jammy", "noble")
ARCHIVE = "http://archive.ubuntu.com/ubuntu"
COMPONENTS = "main universe"
# What every server has, and the smallest system not.
PACKAGES = ("apt",)
# Debian's packages that are parts of others there.
PARTS = ("docker-cli",)

KEYS = "pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"
KEYS_SHA256 = "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8"


def sources(suite: str) -> tuple[str, ...]:
    """Return the lines of sources.list that a server has of this suite."""
    return tuple(f"deb {ARCHIVE} {suite}{pocket} {COMPONENTS}" for pocket in ("", "-updates", "-security"))


def mirrors() -> dict[str, str]:
    """Return where this machine finds what Ubuntu's own server has, as debian.mirrors does."""
    return {ARCHIVE.removeprefix("http://"): ARCHIVE}


def keyring() -> Path:
    """Return the file of Ubuntu's keys, downloaded on first use."""
    return store.build_once(store.cache() / "keys" / f"ubuntu-{KEYS_SHA256[:16]}", _fetch) / (
        "usr/share/keyrings/ubuntu-archive-keyring.gpg"
    )


def _fetch(into: Path) -> None:
    with urllib.request.urlopen(f"{ARCHIVE}/{KEYS}", timeout=60) as response:
        content = response.read()
    if (found := hashlib.sha256(content).hexdigest()) != KEYS_SHA256:
        raise LabError(f"{ARCHIVE}/{KEYS} is not what it was: its SHA-256 is {found}")
    package = into / "keys.deb"
    package.write_bytes(content)
    run("dpkg-deb", "--extract", package, into)
