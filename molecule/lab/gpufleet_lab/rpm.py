"""A repository for dnf, of the packages that the one for apt has."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .system import run

if TYPE_CHECKING:
    from .dcgm import Keys, Package

# Debian's fields -> rpm's. Where Debian says Replaces, too, NVIDIA's rpm may say Obsoletes or not: nobody has looked.
FIELDS = {"Depends": "Requires", "Conflicts": "Conflicts", "Provides": "Provides"}
SCRIPTS = {"postinst": "%post", "prerm": "%preun"}

SPEC = """\
Name: {name}
Epoch: {epoch}
Version: {version}
Release: {release}
Summary: STAND-IN for NVIDIA's {name}, for the lab of gpufleet.monitoring
License: GPL-3.0-or-later
BuildArch: x86_64
AutoReqProv: no
{relations}
%description
Not NVIDIA's.
{scripts}
%files
{files}
"""


def publish(packages: Iterable[Package], directory: Path, keys: Keys) -> None:
    """Make a repository of the packages."""
    directory.mkdir(parents=True)
    for package in packages:
        _build(package, directory)
    keys.sign_packages(directory)
    run("createrepo_c", "--quiet", directory)


def _build(package: Package, directory: Path) -> None:
    epoch, _, rest = package.version.rpartition(":")
    version, _, release = rest.partition("-")
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")
        for path, (mode, content) in package.files.items():
            target = tree / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
            target.chmod(mode)
        spec = Path(scratch, "package.spec")
        spec.write_text(
            SPEC.format(
                name=package.name,
                epoch=epoch or "0",
                version=version,
                release=release or "1",
                relations="".join(
                    f"{FIELDS[key]}: {_plain(package.fields[key])}\n" for key in FIELDS if key in package.fields
                ),
                scripts="".join(
                    f"{SCRIPTS[key]}\n{package.scripts[key]}\n" for key in SCRIPTS if key in package.scripts
                ),
                files="\n".join(f"/{path}" for path in package.files),
            )
        )
        settings = {
            "_rpmdir": directory,
            "_rpmfilename": "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm",
            "_topdir": scratch,
        }
        defined = [word for name, value in settings.items() for word in ("--define", f"{name} {value}")]
        run("rpmbuild", "-bb", "--quiet", *defined, "--buildroot", tree, spec)


def _plain(relation: str) -> str:
    return re.sub("[()]", "", relation)  # a (= 1) is a = 1
