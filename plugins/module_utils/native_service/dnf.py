# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Packages on RHEL and its relatives."""

from __future__ import annotations

import re
import shutil
import typing as t
from pathlib import Path

from .health import Run
from .packages import Changes, Installed, PackageError, Packages, Repository, choose, fetch_key

# What `dnf versionlock` writes, a line for each package: name-epoch:version-release.*
LOCKS = Path("/etc/dnf/plugins/versionlock.list")
LOCK_PLUGIN = "python3-dnf-plugin-versionlock"

OWN_SOURCES = ("/etc/yum.repos.d", "/etc/yum/repos.d", "/etc/distro.repos.d")  # dnf.conf(5), reposdir
VENDOR = "gpufleet-vendor"


class Dnf:
    """dnf(8) of version 4, rpm(8), rpmkeys(8). Dnf itself waits for another run of it."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def installed(self, names: t.Iterable[str]) -> dict[str, Installed]:
        """Return those packages that are there."""
        wanted = sorted(set(names))
        if not wanted:
            return {}
        form = "%{NAME}\\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\\n"
        lines = self._run(["rpm", "--query", "--queryformat", form, *wanted])[1].splitlines()
        found = dict(line.split("\t") for line in lines if "\t" in line)  # else: package X is not installed
        locks = LOCKS.read_text().split() if LOCKS.exists() else []
        return {name: Installed(version, f"{name}-{version}.*" in locks) for name, version in found.items()}

    def fetch(
        self, want: Packages, changes: Changes, before: t.Mapping[str, Installed], scratch: Path
    ) -> dict[str, str]:
        """Download what ``changes`` needs, and what is there now, to go back to. Nothing is installed yet.

        Returns the version of each package to get. Raises PackageError.
        """
        repository = want.repository
        if repository is None:
            raise PackageError("packages of the distribution are installed by apt alone so far")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        signed = self._trust(repository, scratch)
        options = self._source(want, repository, scratch)
        versions = {name: self._choose(name, want, options) for name in changes.get}
        words = [*options, *(f"{name}-{version}" for name, version in versions.items())]
        if self._dnf("versionlock", *_ALONE, "list")[0] != 0:
            words.append(LOCK_PLUGIN)
        self._refuse_side_effects("install", [*_CHANGE, *words], {*changes.get, *changes.drop})
        archives = scratch / "archives"
        download = ("--downloadonly", f"--downloaddir={archives}")
        self._get("the packages could not be downloaded", "install", *_CHANGE, *download, *words)
        ours = [f"{name}-{version.partition(':')[2]}" for name, version in versions.items()]
        self._verify([*signed, *(str(file) for name in ours for file in archives.glob(f"{name}.*.rpm"))], repository)
        for name in [*changes.get, *changes.drop]:
            if name in before:
                # Best effort: whoever installed a package by hand may have taken it from nowhere that is left.
                former = scratch / "former" / name
                self._dnf("reinstall", *_CHANGE, *options, "--downloadonly", f"--downloaddir={former}", name)
                if self._run([*signed, *map(str, former.glob("*.rpm"))])[0] != 0:
                    shutil.rmtree(former, ignore_errors=True)
        return versions

    def install(self, versions: t.Mapping[str, str], drop: t.Sequence[str], scratch: Path) -> None:
        """Install what was fetched; what is to be dropped conflicts with it. Raises PackageError."""
        files = map(str, sorted((scratch / "archives").glob("*.rpm")))
        self._get("the packages could not be installed", "install", *_CHANGE, *_ALONE, *files)
        left = [name for name in drop if name in self.installed(drop)]
        if left:
            self.remove(left)

    def go_back(self, before: t.Mapping[str, str | None], scratch: Path) -> None:
        """Put back the versions that were there; None stands for not there. Raises PackageError."""
        now = self.installed(before)
        former = {name: old for name, old in before.items() if old and (name not in now or now[name].version != old)}
        files = {name: next((scratch / "former" / name).glob("*.rpm"), None) for name in former}
        missing = [f"{name} {former[name]}" for name, file in files.items() if file is None]
        if missing:
            raise PackageError(f"{', '.join(missing)} cannot be put back: the repository has it no longer")
        gone = [name for name, version in before.items() if version is None and name in now]
        self.hold(gone, False)
        problem = "the packages from before could not be put back"
        if gone:
            self._get(problem, "remove", *_CHANGE, *gone)
        if files:
            self._get(problem, "install", *_CHANGE, *_ALONE, *(str(file) for file in files.values()))

    def remove(
        self, names: t.Sequence[str], want: Packages | None = None, placed: t.Container[str] = frozenset()
    ) -> None:
        """Remove packages, and nothing that needs them; files of others stay by themselves. Raises PackageError."""
        self._refuse_side_effects("remove", [*_CHANGE, *names], set(names))
        self._get("the packages could not be removed", "remove", *_CHANGE, *names)

    def hold(self, names: t.Sequence[str], wanted: bool) -> None:
        """Keep packages from being upgraded by whoever upgrades the host, or no longer."""
        for name in names:
            self._dnf("versionlock", *_ALONE, "delete", name)  # of the version before; an error where there is none
        if names and wanted:
            self._get("the packages could not be held", "versionlock", *_ALONE, "add", *names)

    def _source(self, want: Packages, repository: Repository, scratch: Path) -> list[str]:
        """Return the options that let dnf see the repository, and only what is wanted of it, beside the host's own."""
        names = ",".join([*want.names, *want.replaces])
        sources = scratch / "sources"
        sources.mkdir()
        # Signatures are checked afterwards: dnf would do so by adding the key to those that the host trusts.
        (sources / "vendor.repo").write_text(
            f"[{VENDOR}]\nname={VENDOR}\nbaseurl={repository.url}\nincludepkgs={names}\n"
            "gpgcheck=0\nrepo_gpgcheck=0\nmetadata_expire=0\nskip_if_unavailable=0\n"
        )
        options = [f"--setopt=reposdir={','.join([*OWN_SOURCES, str(sources)])}"]
        problem = f"the repository {repository.url} cannot be used"
        self._get(problem, "makecache", *options, f"--repo={VENDOR}")
        return options

    def _choose(self, name: str, want: Packages, options: t.Sequence[str]) -> str:
        """Return the newest version that is wanted. Raises PackageError."""
        form = "--queryformat=%{epoch}:%{version}-%{release}"
        words = [*options, f"--repo={VENDOR}", "--showduplicates", form, name]
        found = self._get("dnf cannot say what there is", "repoquery", *words).split()
        return choose(want, name, sorted(found, key=_age, reverse=True))  # it sorts them as texts

    def _refuse_side_effects(self, verb: str, words: t.Sequence[str], ours: t.Container[str]) -> None:
        """What else is on the host stays as it is: jobs run on it. Libraries that are missing may come."""
        _, out, err = self._run([*_DNF, verb, *words, "--assumeno"])
        if "Transaction Summary" not in out:
            raise PackageError(f"dnf finds no way: {_reason(out, err)}")
        for package in _changed(out):
            if package not in ours:
                raise PackageError(
                    f"dnf would remove or change {package}, too, which is not ours: look with "
                    f"{' '.join([*_DNF, verb, *words])}"
                )

    def _trust(self, repository: Repository, scratch: Path) -> list[str]:
        """Return the command that says whether files are signed by the repository's key, and no other's."""
        key = fetch_key(repository, scratch)
        keys = scratch / "keys"
        keys.mkdir()
        rpmkeys = ["env", "LC_ALL=C", "rpmkeys", "--dbpath", str(keys)]
        code, out, err = self._run([*rpmkeys, "--import", str(key)])
        if code != 0:
            raise PackageError(f"{repository.key_url} is no key that rpm takes: {_reason(out, err)}")
        return [*rpmkeys, "--define", "_pkgverify_level all", "--checksig"]  # no signature is a wrong one

    def _verify(self, words: t.Sequence[str], repository: Repository) -> None:
        """Refuse packages that are not signed by this very key. Raises PackageError."""
        code, out, err = self._run(list(words))
        if code != 0:
            said = [line.rpartition("/")[2] for line in out.splitlines() if "NOT OK" in line] or [err.strip()]
            raise PackageError(
                f"{repository.url} has packages without a signature by {repository.key_url}: {'; '.join(said)}"
            )

    def _dnf(self, verb: str, *words: str) -> tuple[int, str, str]:
        return self._run([*_DNF, verb, "--quiet", "--assumeyes", *words])

    def _get(self, problem: str, verb: str, *words: str) -> str:
        """Return what a run of dnf printed. Raises PackageError."""
        code, out, err = self._dnf(verb, *words)
        if code != 0:
            raise PackageError(f"{problem}: {_reason(out, err)}")
        return out


_DNF = ("env", "LC_ALL=C", "dnf")
_CHANGE = (
    "--allowerasing",
    "--setopt=install_weak_deps=False",
    "--setopt=clean_requirements_on_remove=False",
    # Else the next change that succeeds removes what was downloaded before it, and with it the way back.
    "--setopt=keepcache=True",
    # The first forbids other versions, also to us; the second offers again whatever was downloaded, without a key.
    "--disableplugin=versionlock,local",
)
_ALONE = ("--disablerepo=*",)  # with what is on the host, and nothing else


def _changed(table: str) -> t.Iterator[str]:
    """Yield the packages of a transaction that are there already, as its table has them."""
    section = ""
    for line in table.splitlines():
        section = line if re.match(r"[A-Z].*:$", line) else section
        replaced = re.match(r"  +replacing +(\S+)\.[^.\s]+ ", line)
        row = re.match(r" (\S+)", line)
        if replaced:
            yield replaced[1]
        elif row and section.startswith(("Upgrading", "Downgrading", "Reinstalling", "Removing")):
            yield row[1]


def _age(version: str) -> list[tuple[bool, int, str]]:
    """Order versions as rpm does, as far as they have numbers and words alone."""
    parts = re.findall(r"\d+|[a-zA-Z]+", version)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _reason(out: str, err: str) -> str:
    """Dnf's errors, which stand between its warnings."""
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    begin = next((number for number, line in enumerate(lines) if line.startswith("Error")), 0)
    return "; ".join(dict.fromkeys(lines[begin:])) or out.strip()
