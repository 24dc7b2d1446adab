# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Packages on Debian and Ubuntu."""

from __future__ import annotations

import re
import shutil
import time
import typing as t
from pathlib import Path

from .. import distributions
from .health import Run
from .packages import Changes, Installed, PackageError, Packages, Repository, choose, fetch_key

CONFIGURATION = Path("/etc")
LOCK_PATIENCE = 300  # seconds that another run of apt may take


class Apt:
    """apt-get(8), apt-cache(8), dpkg-query(1)."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def installed(self, names: t.Iterable[str]) -> dict[str, Installed]:
        """Return those packages that are there, whole."""
        wanted = sorted(set(names))
        if not wanted:
            return {}
        form = "--showformat=${Package}\\t${db:Status-Status}\\t${db:Status-Want}\\t${Version}\\n"
        lines = self._run(["dpkg-query", "--show", form, *wanted])[1].splitlines()
        rows = [line.split("\t") for line in lines]
        return {
            name: Installed(version, want == "hold") for name, status, want, version in rows if status == "installed"
        }

    def fetch(
        self, want: Packages, changes: Changes, before: t.Mapping[str, Installed], scratch: Path
    ) -> dict[str, str]:
        """Download what ``changes`` needs, and what is there now, to go back to. Nothing is installed yet.

        Returns the version of each package to get. Raises PackageError.
        """
        try:
            return self._fetch(want, changes, before, scratch)
        except PackageError as error:
            if not want.mirror or want.repository:
                raise
            try:
                return self._fetch(want, changes, before, scratch, want.mirror)
            except PackageError as other:
                raise PackageError(f"{error}; and by the mirror {want.mirror}: {other}") from None

    def _fetch(
        self,
        want: Packages,
        changes: Changes,
        before: t.Mapping[str, Installed],
        scratch: Path,
        mirror: str = "",
    ) -> dict[str, str]:
        """Do it, by the vendor's repository, a mirror of the distribution's, or the host's own sources."""
        shutil.rmtree(scratch, ignore_errors=True)
        archives = scratch / "archives"
        (archives / "partial").mkdir(parents=True)
        if want.repository:
            options = self._source(want.repository, scratch)
        else:
            options = self._mirror(mirror, scratch) if mirror else self._own_sources(want)
        versions = {name: self._choose(name, want, options) for name in changes.get}
        install = _install(versions, changes.drop, [*options, *_option(f"Dir::Cache::archives={archives}/")])
        self._refuse_side_effects([*install, "--simulate"], {*changes.get, *changes.drop})
        self._get([*install, "--download-only"], "the packages could not be downloaded")
        former = scratch / "former"
        former.mkdir()
        for name in [*changes.get, *changes.drop]:
            if name in before:
                # Best effort: whoever installed a package by hand may have taken it from nowhere that is left.
                self._run(["sh", "-c", 'cd "$0" && exec "$@"', str(former), "apt-get", "download", *options,
                           f"{name}={before[name].version}"])  # fmt: skip
        return versions

    def install(self, versions: t.Mapping[str, str], drop: t.Sequence[str], scratch: Path) -> None:
        """Install what was fetched. Raises PackageError."""
        self._run(_quiet("dpkg", "--configure", "-a"))  # finishes what a run before this one had to leave
        archives = _option(f"Dir::Cache::archives={scratch}/archives/")
        vendor = _sources(scratch) if (scratch / "vendor.list").exists() else []
        options = [*vendor, *archives, "--no-download"]
        self._get(_install(versions, drop, options), "the packages could not be installed")

    def go_back(self, before: t.Mapping[str, str | None], scratch: Path) -> None:
        """Put back the versions that were there; None stands for not there. Raises PackageError."""
        self._run(_quiet("dpkg", "--configure", "-a"))
        now = self.installed(before)
        former = {name: version for name, version in before.items() if version and _version(now, name) != version}
        files = {name: next(iter(sorted((scratch / "former").glob(f"{name}_*.deb"))), None) for name in former}
        missing = [f"{name} {former[name]}" for name, file in files.items() if file is None]
        if missing:
            raise PackageError(f"{', '.join(missing)} cannot be put back: the repository has it no longer")
        gone = [f"{name}-" for name, version in before.items() if version is None and name in now]
        words = [*gone, *(str(file) for file in files.values())]
        if words:
            self._get(_apt("install", *_CHANGE, *words), "the packages from before could not be put back")

    def remove(
        self, names: t.Sequence[str], want: Packages | None = None, placed: t.Container[str] = frozenset()
    ) -> None:
        """Remove packages with their configuration and with what came along, and nothing that needs them.

        Of the distribution's, the configuration stays where others than us, who ``placed`` some files, have put files
        beside it. Raises PackageError.
        """
        if want and not want.hold:
            # The distribution's: by now, others of its packages may need them.
            names = [name for name in names if not self._needed(name, names)]
        if not names:
            return
        self._refuse_side_effects([*_apt("purge", *names), "--simulate"], set(names))
        gone = [*names, *self._came_along(names)]
        keeps = want and not want.hold and self._has_others_files(gone, placed)
        words = _apt("remove" if keeps else "purge", *gone)
        self._get([*words, "--yes", "--allow-change-held-packages"], "the packages could not be removed")

    def _has_others_files(self, names: t.Sequence[str], placed: t.Container[str]) -> bool:
        """Whether others put files into directories of the packages' own below /etc: a purge may delete them whole."""
        listed = self._run(["dpkg-query", "--listfiles", *names])[1].splitlines()
        packaged = {path for path in listed if path.startswith("/")}
        directories = [path for path in packaged if Path(path).parent == CONFIGURATION and Path(path).is_dir()]
        return any(
            not _is_known(file, packaged, placed)
            for directory in self._their_own(directories, names)
            for file in Path(directory).rglob("*")
        )

    def _their_own(self, directories: t.Sequence[str], names: t.Sequence[str]) -> list[str]:
        """Those directories that belong to no other packages, as /etc/default does."""
        if not directories:
            return []
        said = self._run(["dpkg-query", "--search", *directories])[1]
        lines = re.findall("^(.+): (/.+)$", said, re.MULTILINE)
        # A package may be named with its architecture.
        return [path for who, path in lines if {name.partition(":")[0] for name in who.split(", ")} <= {*names}]

    def _needed(self, name: str, others: t.Sequence[str]) -> bool:
        """Whether a package is needed by one that is not among ``others``."""
        return not self._would_go("purge", name) <= {*others}

    def _came_along(self, names: t.Sequence[str]) -> list[str]:
        """Packages that nobody asked for, and that nobody needs any more without ``names``.

        What nobody needs already is the host's own affair.
        """
        return sorted(self._would_go("purge", "--auto-remove", *names) - self._would_go("autoremove") - {*names})

    def _would_go(self, verb: str, *words: str) -> set[str]:
        out = self._run([*_apt(verb, *words), "--simulate"])[1]
        return set(re.findall(r"^(?:Remv|Purg) (\S+)", out, re.MULTILINE))

    def hold(self, names: t.Sequence[str], wanted: bool) -> None:
        """Keep packages from being upgraded by whoever upgrades the host, or no longer."""
        if names:
            self._get(["apt-mark", "hold" if wanted else "unhold", *names], "the packages could not be held")

    def _own_sources(self, want: Packages) -> list[str]:
        """Read what the host's own sources have. One that is ill does not matter, if another has the packages."""
        options = _IMPATIENT if want.mirror else []
        self._run(_apt("update", *options))
        return options

    def _mirror(self, mirror: str, scratch: Path) -> list[str]:
        """Read the mirror's copy of the distribution's indexes, and return the options that let apt see it alone.

        The distribution has signed them, and the host has its keys. It need not have been lately.
        """
        architecture = self._run(["dpkg", "--print-architecture"])[1].strip()
        system = distributions.find(distributions.distribution(), architecture)
        if system is None:
            raise PackageError("it has Debian's and Ubuntu's packages, of releases that this host's is not among")
        said = f"arch={architecture} signed-by={system.keyring} target=Packages by-hash=no check-valid-until=no"
        lines = [
            f"deb [{said}] {mirror}/{archive.url} {suite} {' '.join(system.components)}\n"
            for archive in system.archives
            for suite in archive.suites
        ]
        (scratch / "vendor.list").write_text("".join(lines))
        (scratch / "sources").mkdir()
        (scratch / "lists" / "partial").mkdir(parents=True)  # tens of MB, which go with it
        options = _sources(scratch)
        self._get(_apt("update", *options, *_option("APT::Update::Error-Mode=any")), "its index cannot be used")
        return options

    def _source(self, repository: Repository, scratch: Path) -> list[str]:
        """Read the repository's index, and return the options that let apt see it beside the host's own sources."""
        key = fetch_key(repository, scratch)
        (scratch / "vendor.list").write_text(f"deb [signed-by={key}] {repository.url} /\n")
        parts = scratch / "sources"
        parts.mkdir()
        place = repository.url.partition("://")[2].rstrip("/")
        # A source of the host's own for the same repository would clash with ours, by its key.
        for file in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]:
            if file.is_file() and place not in file.read_text(errors="replace"):
                (parts / file.name).symlink_to(file)
        alone = [*_option(f"Dir::Etc::sourcelist={scratch}/vendor.list"), *_option("Dir::Etc::sourceparts=-")]
        update = _apt("update", *alone, *_option("APT::Get::List-Cleanup=0"), *_option("APT::Update::Error-Mode=any"))
        self._get(update, f"the repository {repository.url} cannot be used (its key is {repository.key_url})")
        return _sources(scratch)

    def _choose(self, name: str, want: Packages, options: t.Sequence[str]) -> str:
        """Return the newest version that is wanted. Raises PackageError."""
        if not want.repository and not want.version:
            return self._candidate(name, options)
        lines = self._run(["apt-cache", *options, "madison", name])[1].splitlines()  # the newest first
        found = [fields[1] for fields in ([word.strip() for word in line.split("|")] for line in lines)]
        return choose(want, name, found)

    def _candidate(self, name: str, options: t.Sequence[str]) -> str:
        """Return the version that the host's owner would get, whose preferences count. Raises PackageError."""
        said = self._run(_quiet("apt-cache", *options, "policy", name))[1]
        found = re.search(r"^ *Candidate: (\S+)", said, re.MULTILINE)
        if found is None or found[1] == "(none)":
            raise PackageError(f"apt knows no package {name} on this host: look with apt-get update, apt policy {name}")
        return found[1]

    def _refuse_side_effects(self, words: t.Sequence[str], ours: t.Container[str]) -> None:
        """What else is on the host stays as it is: jobs run on it. Libraries that are missing may come."""
        code, out, err = self._run(list(words))
        if code != 0:
            raise PackageError(f"apt finds no way: {_reason(out, err)}")
        for name in re.findall(r"^(?:Remv|Purg) (\S+)|^Inst (\S+) \[", out, re.MULTILINE):
            package = "".join(name)
            if package not in ours:
                raise PackageError(
                    f"apt would remove or change {package}, too, which is not ours: look with {' '.join(words)}"
                )

    def _get(self, words: t.Sequence[str], problem: str) -> None:
        """Run a command that may have to wait for another one. Raises PackageError."""
        deadline = time.monotonic() + LOCK_PATIENCE
        while True:
            code, out, err = self._run(list(words))
            if code == 0:
                return
            if "Could not get lock" not in err or time.monotonic() > deadline:
                raise PackageError(f"{problem}: {_reason(out, err)}")
            time.sleep(2)


def _is_known(file: Path, packaged: t.Container[str], placed: t.Container[str]) -> bool:
    """Whether a file is nobody else's. Packages make links to their own files, too: what is switched on of them."""
    if file.is_dir() and not file.is_symlink():
        return True
    return any(str(path) in packaged or str(path) in placed for path in (file, file.resolve()))


_CHANGE = ("--yes", "--no-install-recommends", "--allow-downgrades", "--allow-change-held-packages")


def _option(setting: str) -> list[str]:
    return ["--option", setting]


# Where a mirror stands behind the host's own sources, these may well lead nowhere.
_IMPATIENT = [
    word
    for setting in ("Acquire::Retries=0", "Acquire::http::Timeout=10", "Acquire::https::Timeout=10")
    for word in _option(setting)
]


def _quiet(*words: str) -> list[str]:
    # needrestart would restart services of the host's owner.
    return ["env", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1", *words]


def _apt(verb: str, *words: str) -> list[str]:
    dpkg = [*_option("Dpkg::Options::=--force-confdef"), *_option("Dpkg::Options::=--force-confold")]
    return _quiet("apt-get", verb, "--quiet", *_option(f"DPkg::Lock::Timeout={LOCK_PATIENCE}"), *dpkg, *words)


def _install(versions: t.Mapping[str, str], drop: t.Sequence[str], options: t.Sequence[str]) -> list[str]:
    wanted = [f"{name}={version}" for name, version in versions.items()]
    return _apt("install", *_CHANGE, *options, *wanted, *(f"{name}-" for name in drop))


def _sources(scratch: Path) -> list[str]:
    lists = scratch / "lists"
    settings = [f"Dir::Etc::sourcelist={scratch}/vendor.list", f"Dir::Etc::sourceparts={scratch}/sources"]
    if lists.is_dir():
        settings += [f"Dir::State::lists={lists}/"]
        settings += [f"Dir::Cache::pkgcache={lists}.bin", f"Dir::Cache::srcpkgcache={lists}.src"]
        settings += ["APT::Get::Always-Include-Phased-Updates=true"]  # the mirror has the newest
    return [word for setting in settings for word in _option(setting)]


def _version(found: t.Mapping[str, Installed], name: str) -> str | None:
    return found[name].version if name in found else None


def _reason(out: str, err: str) -> str:
    """Apt's errors and warnings, which stand between its progress."""
    said = [line[3:].strip() for line in err.splitlines() if line.startswith(("E: ", "W: "))]
    return "; ".join(dict.fromkeys(said)) or (err or out).strip()
