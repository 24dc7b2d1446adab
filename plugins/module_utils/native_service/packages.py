# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs that come as packages, by the host's own package manager: from the distribution, or from their vendor.

A vendor's repository is asked only while something is to be installed, and never becomes one of the host's own sources:
the vendor's other packages (a GPU driver, of all things) must not arrive with somebody's next upgrade, and a source
that the host's owner adds later must not clash with ours.
"""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

from . import release as releases


class PackageError(Exception):
    """Packages could not be had. The text says which, why, and what to do."""


class Repository(t.NamedTuple):
    """Where packages come from, and the key that has to have signed it."""

    url: str
    key_url: str
    key_sha256: str | None = None


class Packages(t.NamedTuple):
    """Packages as they are to be. An empty version is any that is there, else the newest.

    Without a repository they come from the host's own sources, or, where these have them not, from the copy of the
    distribution's repositories that ``mirror`` has. ``hold`` keeps them from other people's upgrades.
    """

    names: tuple[str, ...]
    version: str
    replaces: tuple[str, ...]
    repository: Repository | None
    hold: bool = True
    mirror: str = ""


class Installed(t.NamedTuple):
    """A package on the host. ``held`` is True when upgrades leave it alone."""

    version: str
    held: bool


class Changes(t.NamedTuple):
    """Names of packages to install or bring to another version, to remove, and to keep from upgrades."""

    get: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()


def matches(version: str, wanted: str) -> bool:
    """Whether a package's version (epoch:upstream-revision) is what an operator means by ``wanted``.

    4.7.1 means any revision of it, in whatever epoch.
    """
    if not wanted:
        return True
    bare = version if ":" in wanted else version.partition(":")[2] or version
    return bare == wanted or bare.startswith(f"{wanted}-")


def from_params(params: t.Mapping[str, t.Any]) -> Packages:
    """Return what the ``packages`` option describes. Raises PackageError."""
    for name in [*params["names"], *params["replaces"]]:
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9.+_-]*[a-zA-Z0-9+]", name):
            raise PackageError(f"packages.names: {name!r} is no name of a package")
    return Packages(
        tuple(params["names"]),
        params["version"] or "",
        tuple(params["replaces"]),
        _repository(params["repository"]) if params.get("repository") else None,
        params.get("hold", True),
        _mirror(params.get("mirror") or ""),
    )


def _mirror(url: str) -> str:
    if url and not re.match(r"https?://[^\s\[\]]+$", url):
        raise PackageError(f"packages.mirror is no http(s) URL, by which hosts reach packages: {url!r}")
    return url.rstrip("/")


def _repository(params: t.Mapping[str, t.Any]) -> Repository:
    for name in ("url", "key_url"):
        if not re.match(r"https?://[^\s\[\]]+$", params[name]):
            raise PackageError(f"packages.repository.{name} is no http(s) URL: {params[name]!r}")
    sha256 = params.get("key_sha256")
    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise PackageError(f"packages.repository.key_sha256 is not a SHA-256 in hexadecimal: {sha256!r}")
    return Repository(params["url"].rstrip("/") + "/", params["key_url"], sha256 and sha256.lower())


def fetch_key(repository: Repository, scratch: Path) -> Path:
    """Download the repository's public key. Raises PackageError."""
    fetched = scratch / "key"
    try:
        releases.download(repository.key_url, fetched)
    except releases.ReleaseError as error:
        raise PackageError(f"the key of the repository {repository.url} cannot be had: {error}") from error
    sha256 = releases.sha256_of(fetched)
    if repository.key_sha256 not in (None, sha256):
        raise PackageError(
            f"{repository.key_url} is not the expected key: its SHA-256 is {sha256}, not {repository.key_sha256}"
        )
    armoured = fetched.read_bytes().lstrip().startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK")
    return fetched.rename(fetched.with_suffix(".asc" if armoured else ".gpg"))  # apt goes by the name


def choose(want: Packages, name: str, found: t.Sequence[str]) -> str:
    """Return the newest version that is wanted; ``found`` has the newest first. Raises PackageError."""
    for version in found:
        if matches(version, want.version):
            return version
    has = f"it has {', '.join(dict.fromkeys(found))}" if found else "it has none of that name"
    whose = want.repository.url if want.repository else "the host's list of sources"
    raise PackageError(f"{whose} has no {name} {want.version}".rstrip() + f": {has}")
