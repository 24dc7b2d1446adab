# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Holds what hosts download to a mirror's lock, whoever serves it to them."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping
from pathlib import Path

from ...module_utils.native_service import release as releases
from .needs import MIRROR
from .store import Entry, MirrorError, read_lock

__all__ = ["LOCK", "MIRROR", "MirrorError", "pinned"]

LOCK = "gpufleet_mirror_lock"


def pinned(args: Mapping[str, t.Any], lock: Path, mirror: str) -> dict[str, t.Any]:
    """Return native_service's arguments with the SHA-256 of the lock, where they have none of their own.

    The controller's own files are left alone. Raises MirrorError for what the lock does not have, and has no SHA-256.
    """
    args, release, packages = dict(args), args.get("release"), args.get("packages")
    if args.get("state") == "absent":
        return args
    if isinstance(release, Mapping) and _from_elsewhere(release.get("url"), mirror):
        # Without a list of checksums that is published: it would do for an architecture that has no sum here.
        args["release"] = {**release, "sha256": _sums(release, lock, mirror), "checksum_url": None}
    repository = packages.get("repository") if isinstance(packages, Mapping) else None
    if repository and not repository.get("key_sha256") and _from_elsewhere(repository.get("key_url"), mirror):
        key = next(iter(_locked(repository["key_url"], lock, mirror).values()))  # the same for all architectures
        args["packages"] = {**t.cast("Mapping[str, t.Any]", packages), "repository": {**repository, "key_sha256": key}}
    return args


def _from_elsewhere(url: t.Any, mirror: str) -> bool:
    """Whether it is not a file that the controller has made, or its operator has chosen there."""
    return isinstance(url, str) and (not url.startswith("file://") or url.startswith(_below(mirror)))


def _below(mirror: str) -> str:
    return f"{mirror.rstrip('/')}/"


def _sums(release: Mapping[str, t.Any], lock: Path, mirror: str) -> str | dict[str, str]:
    """Return a release's own SHA-256; where it has it for some architectures alone, with the lock's for the others."""
    own = release.get("sha256") or {}
    if not isinstance(own, Mapping):
        return t.cast(str, own)
    said = {name: sha256 for name, sha256 in own.items() if sha256}
    return {**_locked(release["url"], lock, mirror, needed=not said), **said}


def _locked(url: str, lock: Path, mirror: str, *, needed: bool = True) -> dict[str, str]:
    """Return the SHA-256 that the lock has, by architecture. Raises MirrorError for none where one is needed."""
    below = _below(mirror)
    path = url.removeprefix(below) if url.startswith(below) else re.sub(r"^\w+://", "", url)
    path = re.sub(r"[?#].*", "", path).lstrip("/")
    files: dict[str, Entry] = read_lock(lock).files
    architectures = dict.fromkeys(releases.ARCHITECTURES.values())
    found = {name: files.get(path.replace("{arch}", name)) for name in architectures}
    sums = {name: entry["sha256"] for name, entry in found.items() if entry}
    if needed and not sums:
        raise MirrorError(
            f"{url} is not in {lock}, and gpufleet_mirror_lock lets hosts take nothing else: fill the mirror with "
            "playbooks/mirror.yml, or say the SHA-256 yourself if the URL is your own"
        )
    return sums
