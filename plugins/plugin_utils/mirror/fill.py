# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fills a mirror's directory with what is needed, and writes its lock."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ...module_utils import distributions
from ...module_utils.mirror import remove
from ...module_utils.native_service import release as releases
from . import apt, store
from .needs import File, Needs, NeedsError, Repository, Users, path_of

T = t.TypeVar("T")


class Settings(t.NamedTuple):
    """What an operator chooses."""

    directory: Path
    lock: Path
    source: str = "https:/"
    update: bool = False
    prune: bool = False
    check: bool = False


class Report(t.NamedTuple):
    """What was done, or in check mode would be."""

    fetched: list[str]
    removed: list[str]
    unneeded: list[str]
    lock_before: str
    lock_after: str


def fill(needs: Needs, settings: Settings) -> Report:
    """Bring what is missing, and write the lock. Raises MirrorError with all that failed; the lock is as it was then.

    Files that were brought before stay, for the next run.
    """
    before = store.read_lock(settings.lock)
    brought = store.Store(settings.directory, before, settings.source, update=settings.update, check=settings.check)
    filling = _Filling(brought)
    for path, file in needs.files.items():
        filling.file(path, file)
    for repository in needs.repositories.values():
        filling.repository(repository)
    for (name, architecture), packages in needs.distributions.items():
        filling.distribution(name, architecture, packages)
    if filling.problems:
        brought.drop()
        lines = "\n".join(f"- {line}" for line in dict.fromkeys(filling.problems))
        raise store.MirrorError(f"The mirror {settings.directory} lacks files, and its lock is as it was:\n{lines}")
    return _finish(needs, settings, brought, before)


def _finish(needs: Needs, settings: Settings, brought: store.Store, before: store.Lock) -> Report:
    unneeded = brought.unneeded()
    removed = sorted(unneeded) if settings.prune else []
    # What is only to be fetched is unknown to a check, and so is the new lock.
    kept = {} if settings.prune else unneeded
    after = before if settings.check and brought.fetched else store.Lock({**kept, **brought.entries}, _elsewhere(needs))
    if not settings.check:
        remove(settings.directory, removed)
        brought.settle()
        store.clear_downloads(settings.directory)
        if after != before or not settings.lock.exists():
            store.write_lock(settings.lock, after)
    return Report(sorted(brought.fetched), removed, sorted(kept), before.text(), after.text())


def _elsewhere(needs: Needs) -> dict[str, dict[str, list[str]]]:
    packages = {f"package {name}": users.by_role() for name, users in needs.packages.items()}
    return {**packages, **{url: users.by_role() for url, users in needs.elsewhere.items()}}


class _Filling:
    """Goes on after a file that cannot be had, so that an operator learns of all of them at once."""

    def __init__(self, brought: store.Store) -> None:
        self._store = brought
        self._users: dict[str, Users] = {}  # of files that several others need, by path
        self.problems: list[str] = []

    def file(self, path: str, file: File) -> None:
        """Bring an archive, and what it is verified against."""
        sha256 = file.sha256
        if file.checksum_url:
            listed = self._shared(file.checksum_url, file.version, file.users)
            if listed is None:
                return
            if sha256 is None and listed.is_file():  # in check mode it need not be
                text, name = listed.read_text(errors="replace"), file.url.rpartition("/")[2]
                sha256 = self._trying(lambda: releases.checksum_in(text, name, f"https://{file.checksum_url}"))
                if sha256 is None:
                    return
        self._bring(path, file.url, file.version, file.users, sha256)

    def repository(self, repository: Repository) -> None:
        """Bring a repository's key, its index, and those packages that are needed."""
        users, url = repository.users, repository.url
        key = self._bring(path_of(repository.key_url), repository.key_url, "", users, repository.key_sha256)
        release = self._bring(f"{url}/InRelease", f"{url}/InRelease", "", users, None)
        if key is None:
            return
        packages = self._index(url, release, url, "", users)
        if packages is not None:
            self._packages(url, repository.packages, packages)

    def distribution(self, name: str, architecture: str, wanted: Mapping[str, Users]) -> None:
        """Bring a distribution's indexes, as they are signed, and of its packages those that are needed."""
        found = distributions.find(name, architecture)
        assert found is not None
        users = _merged(wanted.values())
        indexes = [
            self._index(place, release, archive.url, f"{component}/binary-{architecture}/", users)
            for archive in found.archives
            for suite in archive.suites
            for place in [f"{archive.url}/dists/{suite}"]
            for release in [self._shared(f"{place}/InRelease", "", users)]
            for component in found.components
        ]
        if None not in indexes:
            packages = [package for index in indexes for package in index or ()]
            self._packages(
                f"{name} ({architecture})", {(package, ""): who for package, who in wanted.items()}, packages
            )

    def _index(
        self, place: str, release: Path | None, url: str, directory: str, users: Users
    ) -> list[apt.Package] | None:
        """Bring the index that an InRelease file names, and return what is in it; None where it cannot be had."""
        if release is None or not release.is_file():  # in check mode it need not be
            return None
        index = self._trying(lambda: apt.index_of(release.read_text(errors="replace"), directory), place)
        if index is None:
            return None
        name, sha256 = index
        file = self._shared(f"{place}/{name}", "", users, sha256)
        if file is None:
            self._hint(place)
        if file is None or not file.is_file():
            return None
        return self._trying(lambda: apt.parse(name, file.read_bytes(), url), place)

    def _packages(self, place: str, wanted: Mapping[apt.Wanted, Users], packages: list[apt.Package]) -> None:
        chosen = self._trying(lambda: apt.choose(wanted, packages), place) or {}
        before = len(self.problems)
        for package, reasons in chosen.items():
            merged = _merged(wanted[reason] for reason in reasons)
            self._trying(lambda p=package, m=merged: self._shared(p.path, p.version, m, p.sha256))  # type: ignore[misc]
        if len(self.problems) > before:
            self._hint(place)

    def _hint(self, place: str) -> None:
        self.problems.append(
            f"what {place} has may be newer than the index that the mirror has: then set mirror_update: true"
        )

    def _shared(self, url: str, version: str, users: Users, sha256: str | None = None) -> Path | None:
        """Bring a file that is needed for several reasons; whoever has one of them needs it."""
        path = path_of(url)
        known = self._users.setdefault(path, Users())
        known.update(users)
        return self._bring(path, url, version, known, sha256)

    def _bring(self, path: str, url: str, version: str, users: Users, sha256: str | None) -> Path | None:
        if path in self._store.entries:
            self._store.entries[path]["needed_by"] = users.by_role()
            return self._store.file(path)
        return self._trying(lambda: self._store.bring(path, url, version, users.by_role(), sha256))

    def _trying(self, what: Callable[[], T], place: str = "") -> T | None:
        try:
            return what()
        except apt.AptError as error:
            self.problems.append(
                f"the repository {place}: {error}. If it was published since the mirror was filled, set "
                "mirror_update: true"
            )
        except (store.MirrorError, releases.ReleaseError, NeedsError) as error:
            self.problems.append(str(error))
        return None


def _merged(groups: Iterable[Users]) -> Users:
    merged = Users()
    for users in groups:
        merged.update(users)
    return merged
