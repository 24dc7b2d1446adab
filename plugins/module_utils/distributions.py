# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Distributions by their names in NVIDIA's repositories, and where those that use apt have their own packages."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

OS_RELEASE = Path("/etc/os-release")


class Archive(t.NamedTuple):
    """An apt repository of a distribution, its URL without the scheme, and what of it is used."""

    url: str
    suites: tuple[str, ...]


class Distribution(t.NamedTuple):
    """Where a distribution's packages come from, as its own installer sets it up."""

    archives: tuple[Archive, ...]
    components: tuple[str, ...]
    keyring: str  # on each host


_DEBIAN = {"debian12": "bookworm", "debian13": "trixie"}
_UBUNTU = {"ubuntu2204": "jammy", "ubuntu2404": "noble"}
_UBUNTU_URLS = {"amd64": "archive.ubuntu.com/ubuntu", "arm64": "ports.ubuntu.com/ubuntu-ports"}


def find(name: str, architecture: str) -> Distribution | None:
    """Return a distribution that uses apt and is known here."""
    if name in _DEBIAN:
        suite = _DEBIAN[name]
        archives = (
            Archive("deb.debian.org/debian", (suite, f"{suite}-updates")),
            Archive("deb.debian.org/debian-security", (f"{suite}-security",)),
        )
        return Distribution(archives, ("main",), "/usr/share/keyrings/debian-archive-keyring.gpg")
    if name in _UBUNTU and architecture in _UBUNTU_URLS:
        suite = _UBUNTU[name]
        archive = Archive(_UBUNTU_URLS[architecture], (suite, f"{suite}-updates", f"{suite}-security"))
        return Distribution((archive,), ("main", "universe"), "/usr/share/keyrings/ubuntu-archive-keyring.gpg")
    return None


def scheme(url: str) -> str:
    """Return what upstream's URLs begin with. Ubuntu's own servers have no HTTPS: apt's signatures are all there is."""
    return "http:/" if url.startswith(tuple(f"{place}/" for place in _UBUNTU_URLS.values())) else "https:/"


def distribution(os_release: Path = OS_RELEASE) -> str:
    """Return the name of a distribution in NVIDIA's repositories, from os-release(5)."""
    fields = dict(re.findall(r"^(\w+)=[\"']?([^\"'\n]*)", _read(os_release), re.MULTILINE))
    name, version = fields.get("ID", ""), fields.get("VERSION_ID", "")
    if name == "ubuntu":
        return f"ubuntu{version.replace('.', '')}"
    if name == "debian":
        return f"debian{version}" if version else ""  # testing has none
    major = version.partition(".")[0]
    if {name, *fields.get("ID_LIKE", "").split()} & {"rhel", "centos"} and major.isdigit() and int(major) >= 8:
        return f"rhel{major}"
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
