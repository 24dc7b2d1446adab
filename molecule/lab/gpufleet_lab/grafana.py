"""Grafana's releases on the mirror: stand-ins in upstream's paths and layout, or a real archive that somebody has.

Debian has no Grafana to repack. The stand-in's programs are in molecule/lab/grafana; its version says what it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import yaml

from . import debian
from .archive import pack
from .system import LabError

PROGRAMS = Path(__file__).resolve().parents[1] / "grafana"
DOWNLOADS = "dl.grafana.com/oss/release"

SUFFIX = "+stand-in"
VERSIONS = {"current": f"13.2.3{SUFFIX}", "previous": f"13.1.7{SUFFIX}"}
# How many of the migrations in molecule/lab/grafana/database.py a release knows.
MIGRATIONS = {"current": 4, "previous": 3}

# The one plugin of those that Grafana 13 brings.
PROMETHEUS = {"id": "prometheus", "type": "datasource", "backend": True}

PROGRAM = """\
#!/usr/bin/python3
import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).resolve().parents[1] / "stand-in/main.py"), run_name="__main__")
"""
LICENCE = "This is a stand-in for Grafana, under the licence of gpufleet.monitoring. Grafana's own is the AGPL.\n"

REAL = "GRAFANA_ARCHIVE"
"""Environment variable with the path of a real archive, which the lab offers in place of the stand-in."""


def recipe() -> object:
    """Return all that the stand-ins are made of."""
    return [Path(__file__).read_text(), {path.name: path.read_text() for path in _sources()}, yaml.__version__]


def publish(root: Path) -> dict[str, str]:
    """Put the stand-ins below the root of a mirror, and return their versions."""
    for release, version in VERSIONS.items():
        release_stand_in(root, version, MIGRATIONS[release])
    return VERSIONS


def release_stand_in(root: Path, version: str, migrations: int, fails: str = "") -> None:
    """Put one stand-in below the root of a mirror. One that `fails` migrates the database, and ends with that."""
    top = f"grafana-{version}"
    release = {"version": version, "migrations": migrations, "fails": fails}
    files = {
        "bin/grafana": (0o755, PROGRAM),
        "conf/defaults.ini": (0o644, (PROGRAMS / "defaults.ini").read_text()),
        "conf/sample.ini": (0o644, ""),
        "public/robots.txt": (0o644, "User-agent: *\nDisallow: /\n"),
        "data/plugins-bundled/prometheus/plugin.json": (0o644, json.dumps(PROMETHEUS)),
        "data/plugins-bundled/prometheus/MANIFEST.txt": (0o644, "This is a stand-in, and nobody has signed it.\n"),
        "stand-in/release.json": (0o644, json.dumps(release)),
        "LICENSE": (0o644, LICENCE),
        "README.md": (0o644, (PROGRAMS / "README.md").read_text()),
        "VERSION": (0o644, version),
        **{f"stand-in/{path.name}": (0o644, path.read_text()) for path in PROGRAMS.glob("*.py")},
        **{f"stand-in/yaml/{path.name}": (0o644, path.read_text()) for path in Path(yaml.__file__).parent.glob("*.py")},
    }
    target = _place(root, version)
    pack(target, {f"{top}/{name}": (mode, text.encode()) for name, (mode, text) in files.items()})
    _write_checksum(target)


def offer_real(root: Path) -> str | None:
    """Put the archive that the environment names, if it does, below a directory of the mirror; return its version."""
    if not (path := os.environ.get(REAL)):
        return None
    try:
        with tarfile.open(path) as tar:
            version = _version(tar)
    except (OSError, tarfile.TarError) as error:
        raise LabError(f"{REAL}: {path} is no archive that can be read: {error}") from error
    target = _place(root, version)
    shutil.copyfile(path, target)
    _write_checksum(target)
    return version


def is_stand_in(version: str) -> bool:
    """Say whether what calls itself so is not Grafana."""
    return version.endswith(SUFFIX)


def _version(tar: tarfile.TarFile) -> str:
    """Return the version of a release's archive, which its file VERSION has."""
    for member in tar:
        if re.fullmatch(r"(\./)?[^/]+/VERSION", member.name):
            content = tar.extractfile(member)
            assert content is not None
            return content.read().decode().strip().removeprefix("v")
    raise LabError(f"{REAL}: {tar.name!s} has no file VERSION in its directory: is it Grafana's .linux-*.tar.gz?")


def _place(root: Path, version: str) -> Path:
    directory = root / DOWNLOADS
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"grafana-{version}.linux-{debian.architecture()}.tar.gz"


def _write_checksum(target: Path) -> None:
    """The sum alone, without a name, as dl.grafana.com has it."""
    target.with_name(f"{target.name}.sha256").write_text(hashlib.sha256(target.read_bytes()).hexdigest())


def _sources() -> list[Path]:
    return sorted(path for path in PROGRAMS.iterdir() if path.is_file())
