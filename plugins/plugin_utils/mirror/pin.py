# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Holds what hosts download to a mirror's lock, whoever serves it to them."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping
from pathlib import Path

from ...module_utils.native_service import release as releases
from .store import Entry, MirrorError, read_lock

__all__ = ["LOCK", "MIRROR", "MirrorError", "pinned"]

LOCK = "gpufleet_mirror_lock"
MIRROR = "gpufleet_mirror_url"


def pinned(args: Mapping[str, t.Any], lock: Path, mirror: str) -> dict[str, t.Any]:
    """Return native_service's arguments with the SHA-256 of the lock, where they have none of their own.

    What does not come from the mirror is left alone. Raises MirrorError for what should and is not in the lock.
    """
    args, release, packages = dict(args), args.get("release"), args.get("packages")
    if args.get("state") == "absent":
        return args
    if isinstance(release, Mapping) and not release.get("sha256") and _below(release.get("url"), mirror):
        # Without the mirror's own list of checksums: it would do for an architecture that the lock does not have.
        args["release"] = {**release, "sha256": _sums(release["url"], lock, mirror), "checksum_url": None}
    repository = packages.get("repository") if isinstance(packages, Mapping) else None
    if repository and not repository.get("key_sha256") and _below(repository.get("key_url"), mirror):
        key = next(iter(_sums(repository["key_url"], lock, mirror).values()))  # the same for all architectures
        args["packages"] = {**t.cast("Mapping[str, t.Any]", packages), "repository": {**repository, "key_sha256": key}}
    return args


def _below(url: t.Any, mirror: str) -> bool:
    return isinstance(url, str) and url.startswith(f"{mirror.rstrip('/')}/")


def _sums(url: str, lock: Path, mirror: str) -> dict[str, str]:
    """Return the SHA-256 that the lock has, by architecture."""
    path = url.removeprefix(f"{mirror.rstrip('/')}").lstrip("/")
    files: dict[str, Entry] = read_lock(lock).files
    architectures = dict.fromkeys(releases.ARCHITECTURES.values())
    found = {name: files.get(path.replace("{arch}", name)) for name in architectures}
    sums = {name: entry["sha256"] for name, entry in found.items() if entry}
    if not sums:
        raise MirrorError(
            f"{path} is not in {lock}, and gpufleet_mirror_lock lets hosts take nothing else: fill the mirror with "
            "playbooks/mirror.yml, or say the SHA-256 yourself if the URL is your own"
        )
    return sums
