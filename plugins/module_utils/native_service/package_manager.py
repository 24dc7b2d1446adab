# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which package manager a host has."""

from __future__ import annotations

import shutil
import typing as t
from pathlib import Path

from .apt import Apt
from .dnf import Dnf
from .health import Run
from .packages import Changes, Installed, PackageError, Packages


class PackageManager(t.Protocol):
    """What a service asks of it. Each may raise PackageError."""

    def installed(self, names: t.Iterable[str]) -> dict[str, Installed]:
        """Return those packages that are there, whole."""

    def fetch(
        self, want: Packages, changes: Changes, before: t.Mapping[str, Installed], scratch: Path
    ) -> dict[str, str]:
        """Download what ``changes`` needs, and what is there now, to go back to. Nothing is installed yet.

        Returns the version of each package to get.
        """

    def install(self, versions: t.Mapping[str, str], drop: t.Sequence[str], scratch: Path) -> None:
        """Install what was fetched."""

    def go_back(self, before: t.Mapping[str, str | None], scratch: Path) -> None:
        """Put back the versions that were there; None stands for not there."""

    def remove(
        self, names: t.Sequence[str], want: Packages | None = None, placed: t.Container[str] = frozenset()
    ) -> None:
        """Remove packages with their configuration, and nothing that needs them, nor files of others.

        ``placed`` are those that we did.
        """

    def hold(self, names: t.Sequence[str], wanted: bool) -> None:
        """Keep packages from being upgraded by whoever upgrades the host, or no longer."""


def package_manager(run: Run) -> PackageManager:
    """Return the host's own. Raises PackageError."""
    if shutil.which("apt-get"):
        return Apt(run)
    if shutil.which("dnf") and shutil.which("rpm"):
        return Dnf(run)
    raise PackageError("this host has neither apt-get nor dnf, which install packages here")
