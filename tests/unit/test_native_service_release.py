"""Releases: nothing unverified, nothing outside its directory, nothing half-written, over a real HTTP server."""

from __future__ import annotations

import hashlib
import http.server
import io
import ssl
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service import release as releases
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils.fleet_ca import FleetCa
from hypothesis import given
from hypothesis import strategies as st

CONTENT = {"demo-1.0/demo": b"#!/bin/sh\n" + b"x" * 100_000, "demo-1.0/LICENSE": b"free\n"}


def tar_of(members, compression="gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as tar:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(content, tarfile.TarInfo) else content
            info.size, info.mode = len(data), 0o4755 if name.endswith("demo") else 0o600
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_of(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o100755 if name.endswith("demo") else 0o100644) << 16
            zipped.writestr(info, content)
    return buffer.getvalue()


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


class Server:
    """Serves ``files``; ``cuts`` answers break off half-way, ``statuses`` are given before anything else."""

    def __init__(self, context: ssl.SSLContext | None = None):
        self.files: dict[str, bytes] = {}
        self.cuts = 0
        self.statuses: list[int] = []
        self.requests: list[tuple[str, str | None]] = []
        self.etag = '"1"'
        self.redirects: dict[str, str] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.scheme = "https" if context else "http"
        if context:
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def base(self):
        return f"{self.scheme}://127.0.0.1:{self.http.server_port}"

    def answer(self, handler):
        name = handler.path.lstrip("/")
        self.requests.append((name, handler.headers.get("Range")))
        if self.statuses:
            return handler.send_error(self.statuses.pop(0))
        if name in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[name])
            return handler.end_headers()
        if name not in self.files:
            return handler.send_error(404)
        body, first = self.files[name], 0
        if handler.headers.get("Range") and handler.headers.get("If-Range") == self.etag:
            first = int(handler.headers["Range"][6:-1])
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        else:
            handler.send_response(200)
        handler.send_header("ETag", self.etag)
        handler.send_header("Content-Length", str(len(body) - first))
        handler.end_headers()
        rest = body[first:]
        if self.cuts and not name.endswith(".txt"):
            self.cuts -= 1
            rest = rest[: len(rest) // 2]
        handler.wfile.write(rest)
        return None


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(releases.time, "sleep", lambda _seconds: None)
    server = Server()
    yield server
    server.http.shutdown()


@pytest.fixture
def secure(server, tmp_path, monkeypatch):
    """A second server, by HTTPS, whose certificate is trusted here."""
    found, _ = FleetCa(tmp_path / "ca").certificate("host", ["127.0.0.1"], 90, may_create=True)
    (tmp_path / "host.pem").write_text(found.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca/ca.crt"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "host.pem")
    secure = Server(context)
    yield secure
    secure.http.shutdown()


def publish(server, name, archive, version="1.0", listed=None):
    server.files[name] = archive
    server.files["sha256sums.txt"] = f"{listed or hashlib.sha256(archive).hexdigest()}  {name}\n".encode()
    return releases.Release(version, f"{server.base}/{name}", None, f"{server.base}/sha256sums.txt")


def put(server, tmp_path, name, archive):
    release = publish(server, name, archive)
    path, sha256 = releases.fetch(release, tmp_path / ".download")
    return tmp_path / releases.install(release, path, sha256, tmp_path)


@pytest.mark.parametrize(
    ("name", "archive"),
    [
        ("demo-1.0.linux-amd64.tar.gz", tar_of(CONTENT)),
        ("demo-1.0.linux-amd64.tar.xz", tar_of(CONTENT, "xz")),
        ("demo-1.0.linux-amd64.zip", zip_of(CONTENT)),
        ("demo", CONTENT["demo-1.0/demo"]),
    ],
)
def test_every_kind_of_archive_arrives_executable_and_without_privileges(server, tmp_path, name, archive):
    directory = put(server, tmp_path, name, archive)
    program = directory / "demo"
    assert program.read_bytes() == CONTENT["demo-1.0/demo"]
    assert program.stat().st_mode & 0o7777 == 0o755  # the set-user-id bit of the archive is gone
    assert releases.installed(tmp_path)["1.0"].intact


@pytest.mark.parametrize("name", ["demo", "sha256sums.txt"])
def test_a_redirect_out_of_https_is_refused(server, secure, tmp_path, name):
    release = publish(secure, "demo", b"a program")
    publish(server, "demo", b"a program")
    secure.redirects = {name: f"{server.base}/{name}?secret=1"}
    with pytest.raises(releases.ReleaseError, match=rf"leads to http://.*/{name}, which is not HTTPS any more"):
        releases.fetch(release, tmp_path)
    assert not server.requests
    assert len([path for path, _ in secure.requests if path == name]) == 1  # another attempt would change nothing


def test_a_redirect_is_refused_wherever_it_leaves_https(server, secure, tmp_path):
    secure.redirects = {"first": "/second", "second": f"{server.base}/demo"}
    with pytest.raises(releases.ReleaseError, match="second leads to"):
        releases.download(f"{secure.base}/first", tmp_path / "file")


def test_other_redirects_are_followed(server, secure, tmp_path):
    secure.files["demo"] = b"a program"
    secure.redirects = {"first": "/demo"}
    server.redirects = {"first": f"{secure.base}/first"}
    for base in (secure.base, server.base):
        releases.download(f"{base}/first", tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == b"a program"


@pytest.mark.parametrize(
    "members",
    [
        {"../evil": b"x"},
        {"/etc/evil": b"x"},
        {"a/../../evil": b"x"},
        {"a": link("a", "/etc/passwd")},
        {"a": link("a", "../../outside")},
        {"a": link("a", "."), "b": link("b", "a/..")},
        {"a": link("a", "/etc/passwd", tarfile.LNKTYPE)},
        {"a": link("a", "", tarfile.FIFOTYPE)},
        {"a": link("a", "", tarfile.CHRTYPE)},
        {"a": link("a", "", tarfile.BLKTYPE)},
        {"a/b": link("a/b", "../../etc"), "a/b/evil": b"x"},
        {"a": link("a", "b"), "b": b"1", "a ": b"2", "b/../../c": b"x"},
    ],
)
def test_an_archive_that_reaches_out_is_refused_and_leaves_nothing(server, tmp_path, members):
    root = tmp_path / "root"
    with pytest.raises(releases.ReleaseError, match="refused"):
        put(server, root, "demo-1.0.tar.gz", tar_of(members))
    assert not list(tmp_path.glob("*evil*"))
    assert [path.name for path in root.iterdir()] == [".download"]


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil"])
def test_a_zip_that_reaches_out_is_refused(server, tmp_path, name):
    with pytest.raises(releases.ReleaseError, match="refused"):
        put(server, tmp_path, "demo-1.0.zip", zip_of({name: b"x"}))


def test_links_within_the_release_stay(server, tmp_path):
    directory = put(server, tmp_path, "demo-1.0.tar.gz", tar_of({**CONTENT, "demo-1.0/d": link("demo-1.0/d", "demo")}))
    assert (directory / "d").resolve() == (directory / "demo").resolve()


@given(st.text(max_size=30))
def test_no_name_leads_out_of_the_release(tmp_path_factory, name):
    target = tmp_path_factory.getbasetemp()
    try:
        path = releases._inside(target, name)
    except releases.ReleaseError:
        return
    assert target in path.resolve().parents


def test_a_download_that_is_cut_goes_on_where_it_ended(server, tmp_path):
    archive = tar_of(CONTENT, "")
    release = publish(server, "demo-1.0.tar", archive)
    server.cuts = 2
    path, _ = releases.fetch(release, tmp_path)
    assert path.read_bytes() == archive
    ranges = [range_ for name, range_ in server.requests if name.endswith(".tar")]
    assert ranges[0] is None
    assert [range_ is not None for range_ in ranges[1:]] == [True, True]


def test_a_cut_download_goes_on_in_the_next_run(server, tmp_path):
    release = publish(server, "demo-1.0.tar", tar_of(CONTENT, ""))
    server.cuts = 99
    with pytest.raises(releases.ReleaseError, match="cut"):
        releases.fetch(release, tmp_path)
    assert not (tmp_path / "demo-1.0.tar").exists()
    server.cuts = 0
    releases.fetch(release, tmp_path)
    assert server.requests[-1][1] is not None


def test_two_builds_are_never_mixed(server, tmp_path):
    release = publish(server, "demo-1.0.tar", tar_of(CONTENT, ""))
    server.cuts = 99
    with pytest.raises(releases.ReleaseError):
        releases.fetch(release, tmp_path)
    server.cuts, server.etag = 0, '"2"'
    rebuilt = tar_of({"demo-1.0/demo": b"#!/bin/sh\n" + b"y" * 100_000}, "")
    path, _ = releases.fetch(publish(server, "demo-1.0.tar", rebuilt), tmp_path)
    assert path.read_bytes() == rebuilt


def test_a_wrong_checksum_is_named_and_the_file_is_gone(server, tmp_path):
    release = publish(server, "demo-1.0.tar.gz", tar_of(CONTENT), listed="0" * 64)
    with pytest.raises(releases.ReleaseError, match=r"checksum .* expected sha256 0{64}, got"):
        releases.fetch(release, tmp_path)
    assert not (tmp_path / "demo-1.0.tar.gz").exists()


def test_an_archive_that_the_checksum_file_does_not_list_is_refused(server, tmp_path):
    publish(server, "other.tar.gz", b"")
    release = releases.Release("1", f"{server.base}/demo.tar.gz", None, f"{server.base}/sha256sums.txt")
    with pytest.raises(releases.ReleaseError, match=r"no checksum for demo\.tar\.gz"):
        releases.fetch(release, tmp_path)


@pytest.mark.parametrize("listed", ["{}", "{}\n", "{}  demo.tar.gz\n"])
def test_a_checksum_file_may_be_of_one_archive_and_hold_its_sum_alone(server, tmp_path, listed):
    """As dl.grafana.com has them."""
    server.files["demo.tar.gz"] = archive = tar_of(CONTENT)
    server.files["demo.tar.gz.sha256"] = listed.format(hashlib.sha256(archive).hexdigest()).encode()
    url = f"{server.base}/demo.tar.gz"
    path, _ = releases.fetch(releases.Release("1", url, None, f"{url}.sha256"), tmp_path)
    assert path.read_bytes() == archive


def test_a_missing_archive_is_not_asked_for_again_and_a_busy_server_is(server, tmp_path):
    release = publish(server, "demo-1.0.tar.gz", tar_of(CONTENT))._replace(sha256="0" * 64)
    server.statuses = [404]
    with pytest.raises(releases.ReleaseError, match="404"):
        releases.fetch(release, tmp_path)
    assert len(server.requests) == 1
    server.statuses = [503, 500]
    releases.fetch(publish(server, "demo-1.0.tar.gz", tar_of(CONTENT)), tmp_path)


def test_nobody_listening_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(releases.time, "sleep", lambda _seconds: None)
    release = releases.Release("1", "http://127.0.0.1:1/demo.tar.gz", "0" * 64, None)
    with pytest.raises(releases.ReleaseError, match=r"127\.0\.0\.1:1/demo\.tar\.gz.*gpufleet_release_delivery"):
        releases.fetch(release, tmp_path)


def test_a_file_that_is_no_archive_is_a_clear_error(server, tmp_path):
    with pytest.raises(releases.ReleaseError, match=r"cannot unpack demo-1\.0\.tar\.gz"):
        put(server, tmp_path, "demo-1.0.tar.gz", b"<html>log in first</html>")
    assert releases.installed(tmp_path) == {}


def test_a_release_with_a_missing_file_is_not_intact_and_is_replaced(server, tmp_path):
    archive = tar_of(CONTENT)
    directory = put(server, tmp_path, "demo-1.0.tar.gz", archive)
    (directory / "LICENSE").unlink()
    assert not releases.installed(tmp_path)["1.0"].intact
    assert put(server, tmp_path, "demo-1.0.tar.gz", archive) == directory
    assert releases.installed(tmp_path)["1.0"].intact


def test_another_build_of_a_version_gets_its_own_directory(server, tmp_path):
    first = put(server, tmp_path, "demo-1.0.tar.gz", tar_of(CONTENT))
    second = put(server, tmp_path, "demo-1.0.tar.gz", tar_of({"demo-1.0/demo": b"#!/bin/sh\n"}))
    assert first.name == "1.0"
    assert second.name.startswith("1.0-")
    assert first.is_dir()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"version": "1", "url": "u"}, "unverified"),
        ({"version": "1", "url": "u", "sha256": "abc"}, "not a SHA-256"),
        ({"version": "1", "url": "u", "sha256": {"arm64": "0" * 64}}, "no entry for amd64"),
        ({"version": "../1", "url": "u", "sha256": "0" * 64}, "cannot name a directory"),
        ({"version": "current", "url": "u", "sha256": "0" * 64}, "cannot name a directory"),
    ],
)
def test_bad_descriptions_are_refused(params, message):
    with pytest.raises(releases.ReleaseError, match=message):
        releases.from_params(params, "amd64")


def test_the_architecture_goes_into_the_url():
    params = {"version": "1", "url": "x/demo-{arch}.tar.gz", "sha256": {"amd64": "A" * 64}}
    release = releases.from_params(params, "amd64")
    assert release.filename == "demo-amd64.tar.gz"
    assert release.sha256 == "a" * 64
    assert releases.architecture("aarch64") == "arm64"
    with pytest.raises(releases.ReleaseError, match="riscv64"):
        releases.architecture("riscv64")


def test_unpacking_onto_a_full_disk_is_a_clear_error(server, tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(releases, "_copy", full)
    with pytest.raises(releases.ReleaseError, match="no space left"):
        put(server, tmp_path, "demo-1.0.tar.gz", tar_of(CONTENT))
    assert not (tmp_path / ".unpacking").exists()


def test_a_stranger_among_the_releases_is_no_release(tmp_path):
    Path(tmp_path, "notes").mkdir()
    Path(tmp_path, "1.0").mkdir()
    Path(tmp_path, "1.0", releases.RECORD).write_text("{}")
    assert releases.installed(tmp_path) == {}


def test_a_file_url_is_the_controllers_own(tmp_path):
    """A host that fetched one would install whatever lies there; a controller reads what the operator built."""
    program = tmp_path / "tool"
    program.write_bytes(b"#!/bin/sh\n")
    release = releases.Release("1.0", f"file://{program}", releases.sha256_of(program), None)
    with pytest.raises(releases.ReleaseError, match="URLs begin with http:// or https:// here"):
        releases.fetch(release, tmp_path / "cache")
    archive, _ = releases.fetch(release, tmp_path / "cache", local=True)
    assert archive.read_bytes() == program.read_bytes()
