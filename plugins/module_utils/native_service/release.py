# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Releases: fetch an archive, verify it, unpack it where nothing runs from yet.

Used on the host by the module and, for hosts without a way out, on the controller by the action plugin.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import platform
import re
import shutil
import socket
import stat
import tarfile
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

# Name of a machine in uname(2) -> its name in the archives of Go projects.
ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}

CHUNK = 1 << 20
ATTEMPTS = 4
TIMEOUT = 30  # seconds without a single byte
RECORD = ".release.json"


class ReleaseError(Exception):
    """A release could not be had. The text says which, why, and what to do."""


class DownloadError(ReleaseError):
    """A server gave no answer, or no good one."""


class Release(t.NamedTuple):
    """What is to be installed. ``url`` and ``checksum_url`` have no placeholders left."""

    version: str
    url: str
    sha256: str | None
    checksum_url: str | None

    @property
    def filename(self) -> str:
        """The archive's file name, as it stands in the URL and in the checksum file."""
        return self.url.rpartition("/")[2]


class Installed(t.NamedTuple):
    """A release below ``/opt/gpufleet/<service>/``. ``intact`` is False when files are missing or cut."""

    version: str
    sha256: str
    intact: bool


def architecture(machine: str | None = None) -> str:
    """Return the release architecture (amd64, arm64) of this machine."""
    machine = machine or platform.machine()
    try:
        return ARCHITECTURES[machine]
    except KeyError:
        raise ReleaseError(f"no releases are known for the architecture {machine!r}") from None


def from_params(params: t.Mapping[str, t.Any], arch: str) -> Release:
    """Return the release that the ``release`` option of the module describes, for one architecture.

    Raises ReleaseError when the option cannot be verified or is not a usable version.
    """
    sha256 = params.get("sha256")
    if isinstance(sha256, dict):
        sha256 = sha256.get(arch)
        if not sha256 and not params.get("checksum_url"):
            raise ReleaseError(
                f"release.sha256 has no entry for {arch}, and there is no release.checksum_url, "
                "which gpufleet_mirror_lock does not let count"
            )
    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", str(sha256)):
        raise ReleaseError(f"release.sha256 is not a SHA-256 in hexadecimal: {sha256!r}")
    if not sha256 and not params.get("checksum_url"):
        raise ReleaseError("release needs sha256 or checksum_url: nothing is installed unverified")
    version = str(params["version"])
    # A digit, so that no version is called "current" or "manifest.json".
    if not re.fullmatch(r"(?=.*\d)[A-Za-z0-9][A-Za-z0-9.+~_-]*", version):
        raise ReleaseError(f"release.version cannot name a directory: {version!r}")
    return Release(
        version,
        params["url"].replace("{arch}", arch),
        sha256.lower() if sha256 else None,
        (params.get("checksum_url") or "").replace("{arch}", arch) or None,
    )


# -- what is on the host ------------------------------------------------------------------------


def installed(root: Path) -> dict[str, Installed]:
    """Return directory name -> release for every finished release below ``root``."""
    found = {}
    for record in sorted(root.glob(f"*/{RECORD}")):
        if record.parent.is_symlink():
            continue  # "current"
        try:
            data = json.loads(record.read_text())
            intact = all(_size(record.parent / name) == size for name, size in data["files"].items())
            found[record.parent.name] = Installed(data["version"], data["sha256"], intact)
        except (ValueError, KeyError, TypeError):
            continue  # an unreadable record makes it no release; it is installed anew
    return found


def find(release: Release, present: t.Mapping[str, Installed]) -> str | None:
    """Return the directory name of ``release`` among those present and intact, or None."""
    for name, candidate in present.items():
        same = candidate.sha256 == release.sha256 if release.sha256 else True
        if candidate.version == release.version and same and candidate.intact:
            return name
    return None


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except OSError:
        return None


# -- fetch --------------------------------------------------------------------------------------


def fetch(release: Release, directory: Path, local: bool = False) -> tuple[Path, str]:
    """Download the archive of ``release`` into ``directory`` and return its path and SHA-256.

    ``local`` says that ``file://`` is meant: on the controller it is the operator's own file, on a host it is not.

    A download that was cut resumes where the server supports it (RFC 9110 ranges with If-Range), also in
    a later run. A file that does not match its checksum is removed.

    Raises ReleaseError.
    """
    schemes = ("http://", "https://", *(["file://"] if local else []))
    for url in (release.url, release.checksum_url or release.url):
        if not url.startswith(schemes):
            raise ReleaseError(f"cannot download {url}: URLs begin with {' or '.join(schemes)} here")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        expected = release.sha256 or _published_checksum(release)
        archive = directory / release.filename
        if not (archive.exists() and sha256_of(archive) == expected):
            download(release.url, archive)
        verify(archive, expected, release.url)
    except DownloadError as error:
        raise ReleaseError(
            f"{error}. Where hosts have no way out, set gpufleet_release_delivery: controller, or gpufleet_mirror_url"
        ) from error
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)  # on a full disk, leave the room to the host
        raise ReleaseError(f"cannot download {release.url} to {directory}: {error.strerror or error}") from error
    return archive, expected


def verify(archive: Path, expected: str, origin: str) -> None:
    """Raise ReleaseError, and remove ``archive``, unless its SHA-256 is ``expected``."""
    actual = sha256_of(archive)
    if actual != expected:
        archive.unlink()
        raise ReleaseError(f"checksum of {origin} is wrong: expected sha256 {expected}, got {actual}")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        for chunk in iter(lambda: source.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _published_checksum(release: Release) -> str:
    """Look the archive up in the release's checksum file: ``<hex>  <file name>`` lines, or the sum of one archive."""
    url = t.cast(str, release.checksum_url)
    text: str = _retrying(url, lambda: _open(url).read()).decode("utf-8", "replace")
    return checksum_in(text, release.filename, url)


def checksum_in(text: str, filename: str, url: str) -> str:
    """Return the checksum of a file in the text that ``url`` has. Raises ReleaseError."""
    if re.fullmatch(r"\s*[0-9a-fA-F]{64}\s*", text):
        return text.strip().lower()
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[1].lstrip("*") == filename:
            if not re.fullmatch(r"[0-9a-fA-F]{64}", words[0]):
                raise ReleaseError(f"{url} does not give a SHA-256 for {filename}")
            return words[0].lower()
    raise ReleaseError(f"{url} has no checksum for {filename}: is the version right?")


def download(url: str, target: Path) -> None:
    """Fetch a file. Raises ReleaseError."""
    part = target.with_name(target.name + ".part")
    _retrying(url, lambda: _continue(url, part))
    part.replace(target)
    _validator_file(part).unlink(missing_ok=True)


def _validator_file(part: Path) -> Path:
    return part.with_name(part.name + ".validator")


def _continue(url: str, part: Path) -> None:
    """Fetch what ``part`` still lacks. The server's validator is kept beside it, so that two builds never mix."""
    validator_file = _validator_file(part)
    have = part.stat().st_size if part.exists() and validator_file.exists() else 0
    headers = {"Range": f"bytes={have}-", "If-Range": validator_file.read_text()} if have else {}
    try:
        response = _open(url, headers)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        part.unlink()
        response = _open(url)
    with response:
        resumed = response.status == http.client.PARTIAL_CONTENT
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if validator and not validator.startswith("W/"):
            validator_file.write_text(validator)
        else:
            validator_file.unlink(missing_ok=True)
        with part.open("ab" if resumed else "wb") as sink:
            # read() raises IncompleteRead when the server closes before Content-Length is reached.
            for chunk in iter(lambda: response.read(CHUNK), b""):
                sink.write(chunk)
        _check_length(response, part)


def _check_length(response: t.Any, part: Path) -> None:
    """A cut is not an error to HTTPResponse.read(n): compare with the length that was announced."""
    content_range = response.headers.get("Content-Range", "")
    announced = content_range.rpartition("/")[2] or response.headers.get("Content-Length") or ""
    if announced.isdigit() and part.stat().st_size < int(announced):
        raise http.client.IncompleteRead(b"", int(announced) - part.stat().st_size)


def _open(url: str, headers: dict[str, str] | None = None) -> t.Any:
    request = urllib.request.Request(url, headers={"User-Agent": "gpufleet.monitoring", **(headers or {})})
    return urllib.request.build_opener(_StaysHttps).open(request, timeout=TIMEOUT)


class _StaysHttps(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not out of HTTPS: a list of checksums is as good as the connection it comes by."""

    def redirect_request(
        self, req: urllib.request.Request, fp: t.Any, code: int, msg: str, headers: t.Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request. Raises ReleaseError."""
        before, after = (urllib.parse.urlsplit(url).scheme for url in (req.full_url, newurl))
        if before == "https" != after:
            raise ReleaseError(f"{req.full_url} leads to {newurl.partition('?')[0]}, which is not HTTPS any more")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


T = t.TypeVar("T")


def _retrying(url: str, attempt: t.Callable[[], T]) -> T:
    """Call ``attempt``, again after a pause when the failure may pass: a cut, a time-out, a 5xx."""
    for pause in [2**n for n in range(ATTEMPTS - 1)] + [None]:
        try:
            return attempt()
        except urllib.error.HTTPError as error:
            reason = f"HTTP status {error.code} {error.reason}"
            if error.code < 500:
                pause = None
        except urllib.error.URLError as error:
            reason = str(error.reason)
        except (http.client.HTTPException, ConnectionError, TimeoutError, socket.timeout) as error:
            reason = f"the connection was cut ({error or type(error).__name__})"
        except ValueError as error:
            raise ReleaseError(f"cannot download {url}: {error}") from error
        if pause is None:
            break
        time.sleep(pause)
    raise DownloadError(f"cannot download {url}: {reason}")


# -- unpack -------------------------------------------------------------------------------------


def install(release: Release, archive: Path, sha256: str, root: Path) -> str:
    """Unpack ``archive`` below ``root`` and return the new directory's name.

    The directory appears complete or not at all; one that is there is not touched.

    Raises ReleaseError; nothing is left behind then.
    """
    unfinished = root / ".unpacking"
    try:
        with _said_of(release.filename, root):
            content = unpack(archive, unfinished, release.filename)
            files = {str(path.relative_to(content)): path.lstat().st_size for path in _files(content)}
            record = {"version": release.version, "sha256": sha256, "files": files}
            _write(content / RECORD, json.dumps(record, indent=1).encode())
            content.chmod(0o755)
            name = _free_name(root, release.version, sha256)
            content.rename(root / name)
            return name
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def unpack(archive: Path, directory: Path, filename: str) -> Path:
    """Unpack an archive of that name into a new directory, in place of what is there; return where its content is.

    Raises ReleaseError.
    """
    with _said_of(filename, directory.parent):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        _unpack(archive, directory, filename)
        return _only_directory(directory)


@contextlib.contextmanager
def _said_of(filename: str, root: Path) -> t.Iterator[None]:
    """Turn what goes wrong while an archive is unpacked into a ReleaseError."""
    try:
        yield
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise ReleaseError(f"no space left on the filesystem of {root} to unpack {filename}") from error
        raise ReleaseError(f"cannot unpack {filename}: {error}") from error


def _free_name(root: Path, version: str, sha256: str) -> str:
    """Return ``version``, or, where another build has that name, one made distinct by its checksum."""
    present = installed(root)
    intact = version in present and present[version].intact
    name = f"{version}-{sha256[:8]}" if intact else version
    if (root / name).exists():  # damaged, since an intact one would have been used
        shutil.rmtree(root / name)
    return name


def _unpack(archive: Path, target: Path, filename: str) -> None:
    if filename.endswith((".tar.gz", ".tgz", ".tar.xz", ".tar")):
        with tarfile.open(archive) as tar:
            for member in tar:
                _extract_tar_member(tar, member, target)
    elif filename.endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                _extract_zip_member(zipped, info, target)
    else:
        with archive.open("rb") as source:  # a single file is the program itself
            _copy(source, target / filename, 0o755)
    _refuse_links_out(target)


def _refuse_links_out(target: Path) -> None:
    """What a chain of links resolves to is only known once all of them are there."""
    for path in target.rglob("*"):
        if path.is_symlink() and target.resolve() not in path.resolve().parents:
            raise ReleaseError(f"the archive is refused: its link {path.relative_to(target)} leads to the outside")


def _inside(target: Path, name: str) -> Path:
    """Return where an archive's member goes. Raises ReleaseError if that is not below ``target``."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0].startswith("/") or ".." in parts or ":" in parts[0] or "\0" in name:
        raise ReleaseError(f"the archive is refused: its member {name!r} would leave the release directory")
    path = target.joinpath(*parts)
    parent = path.parent.resolve()
    if parent != target.resolve() and target.resolve() not in parent.parents:
        raise ReleaseError(f"the archive is refused: its member {name!r} goes through a link to the outside")
    return path


def _extract_tar_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    if PurePosixPath(member.name) == PurePosixPath("."):
        return
    path = _inside(target, member.name)
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
    elif member.isreg():
        source = tar.extractfile(member)
        assert source is not None
        _copy(source, path, 0o755 if member.mode & 0o111 else 0o644)
    elif member.issym():
        _inside(target, os.path.normpath(str(PurePosixPath(member.name).parent / member.linkname)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(member.linkname)
    else:
        raise ReleaseError(f"the archive is refused: its member {member.name!r} is a hard link or a device")


def _extract_zip_member(zipped: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    path = _inside(target, info.filename)
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        raise ReleaseError(f"the archive is refused: its member {info.filename!r} is a link")
    if info.is_dir():
        path.mkdir(parents=True, exist_ok=True)
    else:
        with zipped.open(info) as source:
            _copy(source, path, 0o755 if mode & 0o111 else 0o644)


def _copy(source: t.IO[bytes], path: Path, mode: int) -> None:
    """Write a file and see it on the disk: a release that survives a power cut must be a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # O_EXCL: a name that occurs twice, the second time behind a link, is never written through.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as sink:
        shutil.copyfileobj(source, sink, CHUNK)
        os.fchmod(sink.fileno(), mode)
        sink.flush()
        os.fsync(sink.fileno())


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as sink:
        sink.write(content)
        sink.flush()
        os.fsync(sink.fileno())


def _only_directory(path: Path) -> Path:
    """Archives by convention hold one directory named as they are; its content is the release."""
    entries = list(path.iterdir())
    one = len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink()
    return entries[0] if one else path


def _files(root: Path) -> t.Iterator[Path]:
    for directory, _subdirectories, names in os.walk(root):
        for name in names:
            yield Path(directory, name)
