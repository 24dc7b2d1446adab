# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Builds the collection's own programs on the controller: one file that needs python3 on the host and nothing else.

Equal sources give equal bytes, wherever and whenever they are built: names are sorted, times are fixed, and nothing is
compressed, since that depends on the controller's zlib.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import typing as t
import zipfile
from pathlib import Path

from ..module_utils.native_service import release as releases

FILES = Path(__file__).resolve().parents[2] / "files"


class Program(t.NamedTuple):
    """A package below files/gpufleet."""

    entry_point: str
    libraries: bool = False
    """Whether it needs those of wheels.txt."""
    borrowed: tuple[str, ...] = ()
    """Files that it uses of other packages."""


PROGRAMS = {
    "certificate": Program("gpufleet.certificate.cli:main"),
    "gpu_exporter": Program("gpufleet.gpu_exporter.cli:main", libraries=True),
    "gpu_stress": Program(
        "gpufleet.gpu_stress.cli:main",
        libraries=True,
        borrowed=tuple(
            f"gpu_exporter/{name}.py"
            for name in ("__init__", "nvml", "inventory", "pci", "text", "allocations/__init__", "allocations/slots")
        ),
    ),
    "monitoring_manage": Program("gpufleet.monitoring_manage.cli:main"),
}

_MAIN = """\
import sys

from {module} import {function}

sys.exit({function}())
"""
_SHEBANG = b"#!/usr/bin/env python3\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip file can say


class ZipappError(Exception):
    """A program could not be built. The text says why and what to do."""


class Wheel(t.NamedTuple):
    """One library."""

    sha256: str
    location: str
    """URL without its scheme."""

    @property
    def filename(self) -> str:
        """The file's name."""
        return self.location.rpartition("/")[2]


class Zipapp(t.NamedTuple):
    """A program that was built."""

    path: Path
    version: str
    """The distribution's version and the first digits of what the file is made of."""
    sha256: str


def build(program: str, mirror: str, cache: Path | None = None) -> Zipapp:
    """Return the zipapp of a program, built now if it is not in the controller's cache.

    ``mirror`` is what a wheel's location is put behind. Raises ZipappError.
    """
    if program not in PROGRAMS:
        raise ZipappError(f"there is no program {program!r}, only {', '.join(PROGRAMS)}")
    cache = cache or _cache()
    needed, sources = wheels(program), _sources(program)
    key = _key(program, needed, sources)
    version = f"{_version(sources)}-{key[:8]}"
    target = place(program, version, cache)
    checksum = target.with_name(f"{target.name}.sha256")
    try:
        if not (target.exists() and checksum.exists()):
            target.parent.mkdir(parents=True, exist_ok=True)
            with (cache / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # forks of one run, and runs beside each other
                libraries = {wheel: _fetch(wheel, mirror, cache) for wheel in needed}
                _write(target, _pack(program, sources, libraries))
                _write(checksum, f"{_sha256(target.read_bytes())}\n".encode())  # for who asks for it by its version
        return Zipapp(target, version, _sha256(target.read_bytes()))
    except OSError as error:
        raise ZipappError(f"{program} could not be built in {cache}: {error}") from error


def place(program: str, version: str, cache: Path | None = None) -> Path:
    """Where a version of a program is, once it is built. Its SHA-256 is beside it."""
    return (cache or _cache()) / version / f"{program.replace('_', '-')}.pyz"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpufleet" / "zipapps"


def wheels(program: str) -> list[Wheel]:
    """Return the libraries that a program is made with."""
    if not PROGRAMS[program].libraries:
        return []
    lines = (FILES / "wheels.txt").read_text().splitlines()
    return [Wheel(*line.split()) for line in lines if line and not line.startswith("#")]


def _sources(program: str) -> dict[str, bytes]:
    """Return the program's files by their names in the zipapp."""
    package = FILES / "gpufleet"
    paths = [package / "__init__.py", *(package / program).rglob("*")]
    paths += [package / name for name in PROGRAMS[program].borrowed]
    wanted = [path for path in paths if path.suffix in (".py", ".toml")]
    return {path.relative_to(FILES).as_posix(): path.read_bytes() for path in sorted(wanted)}


def _version(sources: t.Mapping[str, bytes]) -> str:
    match = re.search(rb'__version__ = "([^"]+)"', sources["gpufleet/__init__.py"])
    assert match is not None
    return match.group(1).decode()


def _key(program: str, wheels: t.Iterable[Wheel], sources: t.Mapping[str, bytes]) -> str:
    """Name what the zipapp is made of. This file is a part of that: it says how."""
    digest = hashlib.sha256(Path(__file__).read_bytes() + PROGRAMS[program].entry_point.encode())
    for wheel in wheels:
        digest.update(wheel.sha256.encode())
    for name, content in sources.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _fetch(wheel: Wheel, mirror: str, cache: Path) -> bytes:
    """Return a wheel's bytes, from the cache or from the mirror."""
    kept, url = cache / wheel.filename, f"{mirror}/{wheel.location}"
    try:
        if not (kept.exists() and releases.sha256_of(kept) == wheel.sha256):
            releases.download(url, kept)
            releases.verify(kept, wheel.sha256, url)
    except releases.DownloadError as error:
        raise ZipappError(
            f"{error}. Without a way out, put the file into {cache}, or serve it from gpufleet_mirror_url"
        ) from error
    except releases.ReleaseError as error:
        raise ZipappError(str(error)) from error
    return kept.read_bytes()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _pack(program: str, sources: t.Mapping[str, bytes], libraries: t.Mapping[Wheel, bytes]) -> bytes:
    module, _, function = PROGRAMS[program].entry_point.partition(":")
    members = {"__main__.py": _MAIN.format(module=module, function=function).encode(), **sources}
    for wheel, content in libraries.items():
        members.update(_unpack(wheel, content))
    packed = io.BytesIO(_SHEBANG)
    packed.seek(0, io.SEEK_END)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(members.items()):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr, info.create_system = 0o100644 << 16, 3  # as Unix has it, on every controller
            archive.writestr(info, content)
    return packed.getvalue()


def _unpack(wheel: Wheel, content: bytes) -> dict[str, bytes]:
    """Return a wheel's modules, licence and metadata: a distribution without a name breaks those who look at all.

    What else it brings is for pip.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if _is_module(name) or _is_kept(name)]
        return {name: archive.read(name) for name in names}


def _is_module(name: str) -> bool:
    return name.endswith(".py") and name != "example.py"  # nvidia-ml-py installs one at the top


def _is_kept(name: str) -> bool:
    return "/licenses/" in name or name.endswith(".dist-info/METADATA")


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is never there by half."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_bytes(content)
    new.replace(path)
