"""Packages from any Debian suite, without touching the machine's own apt configuration."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from . import store
from .system import DEBIAN_KEYRING, LabError, locked, run

UPSTREAM = "deb.debian.org"
PARTS = ("debian", "debian-security")


def mirrors() -> dict[str, str]:
    """Return where this machine's apt finds what Debian's own server has: path with that server's name -> URL."""
    listing = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    found = {uri.rpartition("/")[2]: uri for uri in (line.rstrip("/") for line in listing.splitlines())}
    return {f"{UPSTREAM}/{part}": found.get(part, f"http://{UPSTREAM}/{part}") for part in PARTS}


def mirror() -> str:
    """Return the Debian mirror that this machine's apt uses, so that the lab loads from there too."""
    return mirrors()[f"{UPSTREAM}/debian"]


def architecture() -> str:
    """Return Debian's name of this machine's architecture, which is Go's and so upstream's as well."""
    return run("dpkg", "--print-architecture").strip()


class Archive:
    """One suite of the Debian archive, signatures checked with Debian's keyring."""

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self._home = store.cache() / "apt" / suite

    def update(self) -> None:
        """Load the suite's package lists."""
        with locked(self._home / "lock"):
            (self._home / "lists" / "partial").mkdir(parents=True, exist_ok=True)
            (self._home / "status").touch()
            source = f"deb [signed-by={DEBIAN_KEYRING}] {mirror()} {self.suite} main\n"
            (self._home / "sources.list").write_text(source)
            run("apt-get", *self._options(), "update")

    def version(self, package: str) -> str | None:
        """Return the package's Debian version, or None where the suite does not have it."""
        command = ["apt-cache", *self._options(), "show", "--no-all-versions", package]
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return next((line.split()[1] for line in shown.splitlines() if line.startswith("Version:")), None)

    def unpack(self, package: str, into: Path) -> None:
        """Download the package and unpack its files; nothing of it is installed or run."""
        download = into.parent / f".{package}"
        download.mkdir()
        command = ["apt-get", *self._options(), "download", package]
        done = subprocess.run(command, cwd=download, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LabError(f"cannot download {package} from {self.suite}: {done.stderr.strip()}")
        run("dpkg-deb", "--extract", next(download.glob("*.deb")), into)
        shutil.rmtree(download)

    def _options(self) -> list[str]:
        # The machine's apt.conf stays in force: it may hold the proxy.
        settings = {
            "Dir::Etc::SourceList": self._home / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": self._home,
            "Dir::State::Lists": self._home / "lists",
            "Dir::State::Status": self._home / "status",
            "Dir::Cache": self._home,
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
        }
        return [f"-o{name}={value}" for name, value in settings.items()]
