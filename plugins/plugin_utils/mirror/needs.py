# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a mirror has to have, and for whom."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ...module_utils.mirror import is_path

MIRROR = "gpufleet_mirror_url"
MIRROR_PACKAGES = "gpufleet_mirror_packages"


class NeedsError(Exception):
    """What the inventory needs cannot be told. The text has a line for each reason."""


class Users:
    """Which hosts need a thing, by the role that brings it there."""

    def __init__(self) -> None:
        self._hosts: dict[str, dict[str, None]] = {}

    def add(self, role: str, host: str) -> None:
        """Note one more."""
        self._hosts.setdefault(role, {})[host] = None

    def update(self, other: Users) -> None:
        """Note all of another's."""
        for role, hosts in other._hosts.items():
            self._hosts.setdefault(role, {}).update(hosts)

    def by_role(self) -> dict[str, list[str]]:
        """Return them in an order of their own."""
        return {role: sorted(hosts) for role, hosts in sorted(self._hosts.items())}


@dataclass
class File:
    """A file that the mirror has to have."""

    url: str  # without the scheme; the path in the mirror is this without a query
    version: str
    sha256: str | None  # as the inventory or the collection has it
    checksum_url: str | None  # likewise without the scheme
    users: Users = field(default_factory=Users)


@dataclass
class Repository:
    """The part of a vendor's apt repository that is needed."""

    url: str  # without the scheme
    key_url: str
    key_sha256: str | None
    packages: dict[tuple[str, str], Users] = field(default_factory=dict)  # name, and version or ""
    users: Users = field(default_factory=Users)


@dataclass
class Needs:
    """All that the mirror has to have, by path, and what it cannot have."""

    files: dict[str, File] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)
    # Of distributions, by distribution and architecture, and by name.
    distributions: dict[tuple[str, str], dict[str, Users]] = field(default_factory=dict)
    packages: dict[str, Users] = field(default_factory=dict)  # likewise by name, and the mirror has them not
    elsewhere: dict[str, Users] = field(default_factory=dict)  # other URLs


def path_of(url: str) -> str:
    """Return the path in the mirror of a URL without its scheme. Raises NeedsError."""
    path = re.sub(r"[?#].*", "", url).rstrip("/")
    if not is_path(path):
        raise NeedsError(f"{url!r} is no path that a mirror can have")
    return path
