"""The release mirror's files: upstream's archives, repacked from what Debian has built.

The path of a file is its upstream URL without the scheme, so that one prefix in place of `https:/`
leads a download here; names, layouts and checksum files are upstream's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from . import dcgm, debian, grafana, store
from .archive import pack
from .system import LabError, run

# The wheels inside our zipapps, which the controller fetches.
WHEELS = Path(__file__).resolve().parents[3] / "files" / "wheels.txt"

# An upgrade needs two releases: what is in testing now, and what the last stable release froze.
RELEASES = {"current": "testing", "previous": "trixie"}

OTHER_PLATFORMS = ("darwin-amd64", "linux-386", "linux-riscv64")

LICENCE = "usr/share/common-licenses/Apache-2.0"

PROMETHEUS_YML = """\
global:
  scrape_interval: 15s
scrape_configs:
  - job_name: prometheus
    static_configs:
      - targets: ["localhost:9090"]
"""
ALERTMANAGER_YML = """\
route:
  receiver: web.hook
receivers:
  - name: web.hook
    webhook_configs:
      - url: http://127.0.0.1:5001/
"""


class Component(Protocol):
    """Something that the mirror serves, made of Debian packages."""

    @property
    def name(self) -> str:
        """The component's name in versions.json."""

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages it is made of: the first one's version counts, later ones not all suites have."""

    def publish(self, version: str, packages: Path, mirror: Path) -> None:
        """Make the files of one release below `mirror`, from the unpacked packages."""


@dataclass(frozen=True)
class GitHubRelease:
    """A project of the Prometheus kind: one tar archive a platform, and sha256sums.txt beside it."""

    repository: str
    packages: tuple[str, ...]
    # In the archive -> in the packages.
    programs: Mapping[str, str]
    texts: Mapping[str, str] = field(default_factory=dict)
    # A directory that Debian's build reads, and upstream's has inside the program: it goes into the archive, and the
    # program looks for it where the collection unpacks that.
    assets: str = ""

    @property
    def name(self) -> str:
        """The project's name, as its archives have it."""
        return self.repository.rpartition("/")[2]

    def publish(self, version: str, packages: Path, mirror: Path) -> None:
        """Pack the release's archive and its checksum."""
        release = mirror / "github.com" / self.repository / "releases" / "download" / f"v{version}"
        release.mkdir(parents=True)
        top = f"{self.name}-{version}.linux-{debian.architecture()}"
        archive = release / f"{top}.tar.gz"
        notice = f"{self.name} {version}, as built by Debian; see https://github.com/{self.repository}\n"
        files = {
            "LICENSE": (0o644, (packages / LICENCE).read_bytes()),
            "NOTICE": (0o644, notice.encode()),
            **{name: (0o644, text.encode()) for name, text in self.texts.items()},
            **{name: (0o755, self._program(packages / path)) for name, path in self.programs.items()},
            **self._assets(packages),
        }
        pack(archive, {f"{top}/{name}": content for name, content in files.items()})
        sums = {archive.name: hashlib.sha256(archive.read_bytes()).hexdigest()}
        # Upstream's file lists all platforms: whoever looks for a checksum must find the right line.
        for other in (f"{self.name}-{version}.{platform}.tar.gz" for platform in OTHER_PLATFORMS):
            sums[other] = hashlib.sha256(other.encode()).hexdigest()
        lines = "".join(f"{checksum}  {name}\n" for name, checksum in sorted(sums.items()))
        (release / "sha256sums.txt").write_text(lines)

    def _program(self, file: Path) -> bytes:
        before, after = f"/{self.assets}".encode(), f"/opt/gpufleet/{self.name}/current".encode()
        if not self.assets:
            return file.read_bytes()
        if len(before) != len(after):  # in a compiled program, a text has its place
            raise LabError(f"{before!r} and {after!r} differ in length")
        return file.read_bytes().replace(before, after)

    def _assets(self, packages: Path) -> dict[str, tuple[int, bytes]]:
        if not self.assets:
            return {}
        files = (path for path in sorted((packages / self.assets).rglob("*")) if path.is_file())
        return {str(path.relative_to(packages / self.assets)): (0o644, path.read_bytes()) for path in files}


COMPONENTS: tuple[Component, ...] = (
    GitHubRelease(
        "prometheus/prometheus",
        ("prometheus", "promtool"),
        {"prometheus": "usr/bin/prometheus", "promtool": "usr/bin/promtool"},
        {"prometheus.yml": PROMETHEUS_YML},
    ),
    GitHubRelease(
        "prometheus/node_exporter",
        ("prometheus-node-exporter",),
        {"node_exporter": "usr/bin/prometheus-node-exporter"},
    ),
    GitHubRelease(
        "prometheus/alertmanager",
        ("prometheus-alertmanager", "amtool"),
        {"alertmanager": "usr/bin/prometheus-alertmanager", "amtool": "usr/bin/amtool"},
        {"alertmanager.yml": ALERTMANAGER_YML},
        assets="usr/share/prometheus/alertmanager",
    ),
)


def path() -> Path:
    """Return the mirror's files, as built last; built now if there are none of this recipe."""
    link = _current()
    return link.resolve() if link.exists() else build()


def versions(root: Path) -> dict[str, dict[str, str]]:
    """Return the versions in the mirror, by component and release."""
    found: dict[str, dict[str, str]] = json.loads((root / "versions.json").read_text())
    return found


def build() -> Path:
    """Bring the mirror up to what Debian has today."""
    archives = {release: debian.Archive(suite) for release, suite in RELEASES.items()}
    with ThreadPoolExecutor() as pool:
        list(pool.map(debian.Archive.update, archives.values()))
    plan = {release: _packages(archive) for release, archive in archives.items()}
    target = store.cache() / "mirrors" / store.key([_recipe(), debian.architecture(), plan])
    target.parent.mkdir(parents=True, exist_ok=True)

    def publish(root: Path) -> None:
        with ThreadPoolExecutor() as pool:
            jobs = [pool.submit(_publish, archives[release], found, root) for release, found in plan.items()]
        results = dict(zip(plan, (job.result() for job in jobs), strict=True))
        _publish_wheels(root)
        dcgm.publish(root)
        names = [component.name for component in COMPONENTS]
        by_name = {name: {release: found[name] for release, found in results.items()} for name in names}
        by_name["grafana"] = grafana.publish(root)
        (root / "versions.json").write_text(json.dumps(by_name, indent=1) + "\n")

    store.build_once(target, publish)
    new = target.with_name(f".{target.name}.{os.getpid()}.link")  # of this process: others may be at the same
    new.symlink_to(target.name)
    new.rename(_current())
    return target


def _current() -> Path:
    return store.cache() / "mirrors" / f"current-{_recipe()}"


def _recipe() -> str:
    # This file, the list of wheels and the stand-ins are the recipe.
    return store.key([Path(__file__).read_text(), WHEELS.read_text(), dcgm.recipe(), grafana.recipe()])


def _packages(archive: debian.Archive) -> dict[str, str]:
    """Return the Debian versions of the packages that this suite has, of all that are wanted."""
    wanted = ["base-files", *(package for component in COMPONENTS for package in component.packages)]
    found = {package: archive.version(package) for package in wanted}
    missing = [c.packages[0] for c in COMPONENTS if not found[c.packages[0]]]
    if missing:
        raise LabError(f"Debian {archive.suite} has no package {', '.join(missing)}")
    return {package: version for package, version in found.items() if version}


def _publish(archive: debian.Archive, packages: Mapping[str, str], root: Path) -> dict[str, str]:
    """Make one release of each component; return its versions."""
    with tempfile.TemporaryDirectory() as scratch:
        unpacked = Path(scratch, "packages")
        for package in packages:
            archive.unpack(package, unpacked)
        found = {component.name: _upstream(packages[component.packages[0]]) for component in COMPONENTS}
        for component in COMPONENTS:
            component.publish(found[component.name], unpacked, root)
        return found


def _publish_wheels(root: Path) -> None:
    """Fetch the wheels of files/wheels.txt as pip does, from whatever index this machine uses."""
    for line in WHEELS.read_text().splitlines():
        if line.startswith("#"):
            continue
        target = root / line.split()[1]
        name, version = target.name.split("-")[:2]
        target.parent.mkdir(parents=True)
        options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--platform=any")
        run(sys.executable, "-m", "pip", "download", *options, "--dest", target.parent, f"{name}=={version}")
        if not target.exists():
            raise LabError(f"the package index has {name} {version} under another name than {target.name}")


def _upstream(version: str) -> str:
    """Take upstream's version out of Debian's: 3.5.3+ds1-6 is 3.5.3."""
    match = re.match(r"(?:\d+:)?(\d+(?:\.\d+)+)", version)
    if not match:
        raise LabError(f"no upstream version in Debian's {version!r}")
    return match[1]
