# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The directory of a mirror, and the lock file that says what is in it."""

from __future__ import annotations

import json
import os
import typing as t
from collections.abc import Mapping
from pathlib import Path

from ...module_utils.distributions import scheme
from ...module_utils.files import remove_empty
from ...module_utils.mirror import is_path
from ...module_utils.native_service import release as releases

FORMAT = 1
DOWNLOADS = ".download"


class MirrorError(Exception):
    """The mirror cannot be filled, or its lock not be read. The text says why and what to do."""


class Entry(t.TypedDict):
    """What the lock says of a file."""

    url: str
    version: str
    sha256: str
    size: int
    needed_by: dict[str, list[str]]  # hosts by role; empty for what nobody needs any more


class Lock(t.NamedTuple):
    """The lock file's content."""

    files: dict[str, Entry]  # by their path in the mirror
    elsewhere: dict[str, dict[str, list[str]]]  # what hosts need and a mirror has not, with hosts by role

    def text(self) -> str:
        """Return what is written: sorted, and a line for each fact."""
        content = {"format": FORMAT, "files": self.files, "elsewhere": self.elsewhere}
        return json.dumps(content, indent=1, sort_keys=True) + "\n"


def read_lock(path: Path) -> Lock:
    """Return a lock; where there is none yet, an empty one. Raises MirrorError."""
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise MirrorError(f"{path} is of another version of this collection: remove it, and fill the mirror anew")
        wrong = [path for path in content["files"] if not is_path(path)]
        if wrong:
            raise MirrorError(f"{path} names {wrong[0]!r}, which is no path in a mirror: somebody changed it")
        return Lock(dict(content["files"]), content["elsewhere"])
    except FileNotFoundError:
        return Lock({}, {})
    except OSError as error:
        raise MirrorError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise MirrorError(f"{path} is no lock file of a mirror, or is damaged: it is JSON, as it was written") from None


class Store:
    """Brings files to the directory, each verified before it has its name there, and notes them for a new lock."""

    def __init__(self, directory: Path, lock: Lock, source: str, *, update: bool, check: bool) -> None:
        self._directory = directory
        self._lock = lock
        self._source = source.rstrip("/") if source != "https:/" else ""  # upstream itself
        self._update = update
        self._check = check
        self._waiting: dict[str, Path] = {}  # what takes the place of a file that the lock has
        self.entries: dict[str, Entry] = {}
        self.fetched: dict[str, None] = {}

    def file(self, path: str) -> Path:
        """Return where a file of the mirror lies, or waits for its place."""
        return self._waiting.get(path, self._directory / path)

    def settle(self) -> None:
        """Put the files that replace others in their places: together, and together with the lock that knows them."""
        for path, new in self._waiting.items():
            new.replace(self._directory / path)
        self._waiting.clear()

    def drop(self) -> None:
        """Remove the files that would replace others."""
        for new in self._waiting.values():
            new.unlink()
        self._waiting.clear()

    def bring(self, path: str, url: str, version: str, users: Mapping[str, list[str]], sha256: str | None) -> Path:
        """Return a file of the mirror, downloaded where it is not there. ``url`` has no scheme.

        Without ``sha256`` it is a file that upstream has for the others' sake (checksums, an index, a key): the lock
        alone knows it. In check mode, the file that is returned need not be there. Raises MirrorError.
        """
        file, locked = self._directory / path, self._lock.files.get(path)
        fixed = locked["sha256"] if locked and not self._update else None
        if sha256 and fixed and sha256 != fixed:
            raise MirrorError(_differs(path, fixed, f"now published, or wanted, is {sha256}"))
        expected = sha256 or fixed
        actual = releases.sha256_of(file) if file.is_file() else None
        if actual and fixed and actual != fixed:
            raise MirrorError(
                f"{file} is not what the lock says: its SHA-256 is {actual}, not {fixed}. It was changed or damaged on "
                "this machine; remove it, and it is fetched again"
            )
        if actual is None or actual != expected:
            actual = self._fetch(path, url, expected, locked, actual)
        if actual:
            size = self.file(path).stat().st_size
            self.entries[path] = Entry(
                url=f"{scheme(url)}/{url}", version=version, sha256=actual, size=size, needed_by=dict(users)
            )
        return self.file(path)

    def _fetch(self, path: str, url: str, expected: str | None, locked: Entry | None, before: str | None) -> str | None:
        """Download a file and put it in its place; return its SHA-256, in check mode None."""
        if self._check:
            self.fetched[path] = None
            return None
        new = self._directory / DOWNLOADS / path
        source = f"{self._source or scheme(url)}/{url}"
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            releases.download(source, new)
            actual = releases.sha256_of(new)
            if expected and actual != expected:
                new.unlink()
                if locked and not self._update:
                    raise MirrorError(_differs(path, expected, f"{source} has {actual}"))
                raise MirrorError(f"checksum of {source} is wrong: expected {expected}, got {actual}")
            target = self._directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            new.chmod(0o644)  # whatever web server runs as whoever
            if locked and actual != locked["sha256"]:
                self._waiting[path] = new
            else:
                new.replace(target)
        except OSError as error:
            raise MirrorError(f"{path} cannot be written to {self._directory}: {error.strerror or error}") from None
        except releases.ReleaseError as error:
            raise MirrorError(f"{error}") from None
        if actual != before:
            self.fetched[path] = None
        return actual

    def unneeded(self) -> dict[str, Entry]:
        """Return what the lock has, and nobody needs any more."""
        return {
            path: Entry(**{**entry, "needed_by": {}})
            for path, entry in self._lock.files.items()
            if path not in self.entries
        }


def _differs(path: str, locked: str, now: str) -> str:
    says = f"{path} is not what the lock says, which has the SHA-256 {locked}; {now}."
    if path.endswith("/InRelease"):
        return (
            f"{says} An index changes with every package that its repository publishes: bring the directory along with "
            "the lock, or take what is there now by mirror_update: true"
        )
    return (
        f"{says} Upstream does not change what it has published: find out who did. To take the new one, set "
        "mirror_update: true"
    )


def clear_downloads(directory: Path) -> None:
    """Remove the directories that downloads have left; what was cut stays, to go on with."""
    top = directory / DOWNLOADS
    remove_empty([top, *top.rglob("*")])


def write_lock(path: Path, lock: Lock) -> None:
    """Write a lock so that it is never there by half. Raises MirrorError."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(lock.text())
        new.replace(path)
    except OSError as error:
        raise MirrorError(f"{path} cannot be written: {error.strerror or error}") from None
