"""Releases of the service, packed and put on the lab's mirror as upstream projects publish theirs."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
import zipfile
from pathlib import Path

SERVICE = Path(__file__).with_name("service.py")
FORMS = ("tar.gz", "tar.xz", "zip", "")


class Releases:
    """What example.org publishes."""

    def __init__(self, lab) -> None:
        self._directory = lab.faults.extra / "example.org/demo"
        self._url = f"{lab.mirror_url}/example.org/demo"

    def publish(self, version: str, behaviour: str = "works", form: str = "tar.gz", members=None) -> dict:
        """Pack a release, and return the module's option `release` for it.

        `form` is the archive's extension; an empty one makes the program itself the release. `members` is
        a list of TarInfo in place of the regular content.
        """
        program = SERVICE.read_text().replace("{version}", version).replace("{behaviour}", behaviour).encode()
        # A megabyte that does not compress: a link may be cut in the middle of it, and it fills a small disk.
        ballast = random.Random(version).randbytes(1 << 20)
        top = f"demo-{version}.linux-amd64"
        name = f"{top}.{form}" if form else top
        directory = self._directory / f"v{version}"
        directory.mkdir(parents=True, exist_ok=True)
        archive = directory / name
        if members is not None:
            _pack_members(archive, members)
        elif form == "zip":
            _pack_zip(archive, top, program)
        elif form:
            _pack_tar(archive, top, {"demo": program, "ballast": ballast})
        else:
            archive.write_bytes(program)
        self._write_checksum(directory, archive)
        url = f"{self._url}/v{version}"
        return {
            "version": version,
            "url": f"{url}/{name.replace('amd64', '{arch}')}",
            "checksum_url": f"{url}/sha256sums.txt",
        }

    def _write_checksum(self, directory: Path, archive: Path) -> None:
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        (directory / "sha256sums.txt").write_text(f"{digest}  {archive.name}\n")


def _pack_tar(archive: Path, top: str, files: dict[str, bytes]) -> None:
    with tarfile.open(archive, "w:" + archive.suffix[1:]) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))


def _pack_zip(archive: Path, top: str, program: bytes) -> None:
    with zipfile.ZipFile(archive, "w") as zipped:
        info = zipfile.ZipInfo(f"{top}/demo")
        info.external_attr = 0o755 << 16
        zipped.writestr(info, program)


def _pack_members(archive: Path, members) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(b"x" * info.size))
