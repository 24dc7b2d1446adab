"""NVIDIA's repositories, as far as DCGM goes: stand-ins under the names, paths and versions of the real packages.

They are signed with a key that is made with them, and installed by the hosts' own apt and dnf. The programs are in
molecule/lab/dcgm.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

from . import rpm
from .system import run

PROGRAMS = Path(__file__).resolve().parents[1] / "dcgm"

REPOSITORY = "developer.download.nvidia.com/compute/cuda/repos"
DISTRIBUTIONS = ("debian12", "debian13", "ubuntu2204", "ubuntu2404")
KEY = "3bf863cc.pub"
RPM_KEY = "D42D0685.pub"
OTHER_KEY = "wrong.pub"
"""A key that has signed nothing."""

_SHARED = "usr/lib/dcgm-stand-in"
_LIBRARY = "usr/lib/x86_64-linux-gnu/libdcgm.so.4"

ENGINE_UNIT = """\
[Unit]
Description=NVIDIA DCGM service (stand-in)

[Service]
User=root
PrivateTmp=false
ExecStart=/usr/bin/nv-hostengine -n --service-account nvidia-dcgm
Restart=on-abort

[Install]
WantedBy=multi-user.target
"""
EXPORTER_UNIT = """\
[Unit]
Description=NVIDIA DCGM-exporter service (stand-in)
Wants=nvidia-dcgm.service
After=nvidia-dcgm.service

[Service]
User=root
PrivateTmp=false
StandardOutput=append:/var/log/dcgm-exporter.log
StandardError=append:/var/log/dcgm-exporter.log
ExecStart=/usr/bin/dcgm-exporter -f /etc/dcgm-exporter/default-counters.csv
Restart=on-abort

[Install]
WantedBy=multi-user.target
"""
DEFAULT_COUNTERS = """\
# DCGM FIELD, Prometheus metric type, help message
DCGM_FI_DEV_GPU_UTIL, gauge, GPU utilization (in %).
DCGM_FI_DEV_GPU_TEMP, gauge, GPU temperature (in C).
"""
ADD_USER = """\
#!/bin/sh
set -e
id nvidia-dcgm >/dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin nvidia-dcgm
"""
STOP = """\
#!/bin/sh
set -e
case "$1" in
  remove | 0) if [ -d /run/systemd/system ]; then systemctl stop {unit} || true; fi ;; # dpkg says remove, rpm 0
esac
"""


@dataclass(frozen=True)
class Package:
    """One package: its files by path, and its maintainer scripts."""

    name: str
    version: str
    files: Mapping[str, tuple[int, str]]
    fields: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)


# A host of the lab has its shell from Debian, of which rpm knows nothing.
SHELL = Package("bash", "5.1.8-6", {}, {"Provides": "/bin/sh"})


def recipe() -> object:
    """Return all that the repository is made of."""
    sources = [Path(__file__), Path(rpm.__file__), *sorted(PROGRAMS.iterdir())]
    return {path.name: path.read_text() for path in sources}


def publish(root: Path) -> None:
    """Make the repositories below the root of a mirror."""
    with tempfile.TemporaryDirectory() as scratch:
        pool = Path(scratch, "pool")
        pool.mkdir()
        index = "".join(_build(package, Path(scratch), pool) for package in packages())
        keys = Keys(Path(scratch, "keys"))
        try:
            for name in DISTRIBUTIONS:
                _publish(root / REPOSITORY / name / "x86_64", pool, index, keys)
            rpm.publish([*packages(), SHELL], root / REPOSITORY / "rhel9/x86_64", keys)
        finally:
            keys.close()


def packages() -> Iterator[Package]:
    """Yield every package in every version."""
    engine = {
        f"{_SHARED}/nvml_fields.py": (0o644, _program("nvml_fields")),
        f"{_SHARED}/engine.py": (0o644, _program("engine")),
        "usr/bin/nv-hostengine": (0o755, f"#!/usr/bin/python3\n{_program('nv_hostengine')}"),
        "usr/bin/dcgmi": (0o755, f"#!/usr/bin/python3\n{_program('dcgmi')}"),
        "usr/lib/systemd/system/nvidia-dcgm.service": (0o644, ENGINE_UNIT),
    }
    scripts = {"postinst": ADD_USER, "prerm": STOP.format(unit="nvidia-dcgm.service")}
    yield Package("datacenter-gpu-manager", "1:3.3.9", {**engine, **_library("3.3.9")}, scripts=scripts)
    for version in ("4.6.1", "4.7.1"):
        core = {"Conflicts": "datacenter-gpu-manager", "Replaces": "datacenter-gpu-manager"}
        files = {**engine, **_library(version)}
        yield Package("datacenter-gpu-manager-4-core", f"1:{version}-1", files, core, scripts)
        depends = {"Depends": f"datacenter-gpu-manager-4-core (= 1:{version}-1)"}
        for part in ("cuda11", "cuda12", "cuda13", "proprietary"):
            share = {f"usr/share/dcgm-stand-in/{part}": (0o644, f"{version}\n")}
            yield Package(f"datacenter-gpu-manager-4-{part}", f"1:{version}-1", share, depends)
    yield _exporter("4.8.2", "4.6.1", hostname_label="Hostname")
    yield _exporter("4.8.4", "4.6.1")
    yield _exporter("4.8.9", "4.6.1", starts=False)
    yield _exporter("4.9.0", "4.7.1")


def _exporter(version: str, dcgm: str, hostname_label: str = "hostname", starts: bool = True) -> Package:
    release = {"version": version, "dcgm": dcgm, "hostname_label": hostname_label, "starts": starts}
    files = {
        f"{_SHARED}/exporter.json": (0o644, json.dumps(release)),
        "usr/bin/dcgm-exporter": (0o755, f"#!/usr/bin/python3\n{_program('dcgm_exporter')}"),
        "etc/dcgm-exporter/default-counters.csv": (0o644, DEFAULT_COUNTERS),
        "usr/lib/systemd/system/nvidia-dcgm-exporter.service": (0o644, EXPORTER_UNIT),
    }
    scripts = {
        "prerm": STOP.format(unit="nvidia-dcgm-exporter.service"),
        "conffiles": "/etc/dcgm-exporter/default-counters.csv\n",
    }
    depends = {"Depends": "datacenter-gpu-manager-4-core"}
    return Package("datacenter-gpu-manager-exporter", f"{version}-1", files, depends, scripts)


def _library(version: str) -> dict[str, tuple[int, str]]:
    return {_LIBRARY: (0o644, f"stand-in for libdcgm {version}\n")}


def _program(name: str) -> str:
    return (PROGRAMS / f"{name}.py").read_text()


def _build(package: Package, scratch: Path, pool: Path) -> str:
    """Build a package into the pool, and return its entry in the index."""
    tree = scratch / "tree"
    control = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": "amd64",
        "Maintainer": "the gpufleet authors",
        **package.fields,
        "Description": f"STAND-IN for NVIDIA's {package.name}, for the lab of gpufleet.monitoring",
    }
    text = "".join(f"{name}: {value}\n" for name, value in control.items())
    written = {"DEBIAN/control": (0o644, text), **package.files}
    for name, script in package.scripts.items():
        written[f"DEBIAN/{name}"] = (0o644 if name == "conffiles" else 0o755, script)
    for path, (mode, content) in written.items():
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        target.chmod(mode)
    # As apt names what it downloads, the epoch aside.
    archive = pool / f"{package.name}_{package.version.partition(':')[2] or package.version}_amd64.deb"
    run("dpkg-deb", "--build", "--root-owner-group", "-Zgzip", "-z1", tree, archive)
    shutil.rmtree(tree)
    built = archive.read_bytes()
    return f"{text}Filename: ./{archive.name}\nSize: {len(built)}\nSHA256: {_sha256(built)}\n\n"


def _publish(directory: Path, pool: Path, index: str, keys: Keys) -> None:
    """Lay a repository out flat, as NVIDIA does."""
    shutil.copytree(pool, directory)
    (directory / "Packages").write_text(index)
    (directory / "Packages.gz").write_bytes(gzip.compress(index.encode(), mtime=0))
    files = [directory / name for name in ("Packages", "Packages.gz")]
    sums = "".join(f" {_sha256(path.read_bytes())} {path.stat().st_size} {path.name}\n" for path in files)
    release = (
        f"Origin: NVIDIA\nLabel: NVIDIA CUDA\nArchitecture: x86_64\nDate: {formatdate(usegmt=True)}\nSHA256:\n{sums}"
    )
    (directory / "Release").write_text(release)
    keys.sign(directory)


class Keys:
    """A key that signs, and one that does not."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self._home = home
        for name in ("signer", "other"):
            self._gpg("--passphrase", "", "--quick-generate-key", f"{name}@lab.invalid", "rsa3072", "sign", "never")

    def sign(self, directory: Path) -> None:
        """Sign the Release file of an apt repository, and put the keys beside it."""
        release = directory / "Release"
        self._gpg("--local-user", "signer@lab.invalid", "--clearsign", "--output", directory / "InRelease", release)
        self._gpg(
            *("--local-user", "signer@lab.invalid", "--armor", "--detach-sign"),
            *("--output", directory / "Release.gpg", release),
        )
        self._gpg("--output", directory / "cuda-archive-keyring.gpg", "--export", "signer@lab.invalid")
        self._export(directory, KEY)

    def sign_packages(self, directory: Path) -> None:
        """Sign the packages of a dnf repository, and put the keys beside them."""
        settings = {"_gpg_path": self._home, "_gpg_name": "signer@lab.invalid", "__gpg": "/usr/bin/gpg"}
        defined = [word for name, value in settings.items() for word in ("--define", f"{name} {value}")]
        run("rpmsign", *defined, "--addsign", *sorted(directory.glob("*.rpm")))
        self._export(directory, RPM_KEY)

    def _export(self, directory: Path, name: str) -> None:
        self._gpg("--armor", "--output", directory / name, "--export", "signer@lab.invalid")
        self._gpg("--armor", "--output", directory / OTHER_KEY, "--export", "other@lab.invalid")

    def close(self) -> None:
        """End gpg's agent, which would outlive its directory."""
        run("gpgconf", "--homedir", self._home, "--kill", "all")

    def _gpg(self, *words: str | Path) -> None:
        run("gpg", "--homedir", self._home, "--batch", "--quiet", "--digest-algo", "SHA256", *words)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
