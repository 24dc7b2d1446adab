"""A mirror's directory and its lock: what is fetched, kept, refused, and removed."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import lzma
import shutil
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.gpufleet.monitoring.plugins.module_utils.distributions import find, scheme
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.release import (
    ReleaseError,
    from_params,
)
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils.mirror import apt, pin
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils.mirror.fill import Settings, fill
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils.mirror.needs import File, Needs, Repository, Users
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils.mirror.packages import mirror_of_packages, with_mirror
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils.mirror.store import MirrorError, read_lock

ARCHIVE = "example.org/v1/tool-1.tar.gz"
SUMS = "example.org/v1/sums.txt"
REPOSITORY = "repo.example.org/debian12"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Upstream:
    """A web server over a directory, and what it was asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []

    def put(self, path: str, content: bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(content)

    def release(self, content: bytes = b"one") -> None:
        self.put(ARCHIVE, content)
        self.put(SUMS, f"{sha256(content)}  tool-1.tar.gz\n".encode())


@pytest.fixture
def upstream(tmp_path):
    found = Upstream(tmp_path / "upstream")
    found.root.mkdir()
    found.release()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *_):
            found.asked.append(self.path.lstrip("/"))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(found.root))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        found.url = f"http://127.0.0.1:{server.server_port}"
        yield found
        server.shutdown()


def users(*hosts, role="tool"):
    found = Users()
    for host in hosts:
        found.add(role, host)
    return found


def needs(*hosts, sha=None, version="1", path=ARCHIVE):
    return Needs(files={path: File(path, version, sha, SUMS, users(*(hosts or ("gpu1",))))})


@pytest.fixture
def run(upstream, tmp_path):
    """Fill the mirror: run(needs(), update=True)."""

    def go(wanted=None, **options):
        upstream.asked.clear()
        settings = Settings(tmp_path / "mirror", tmp_path / "lock.json", upstream.url, **options)
        return fill(wanted or needs(), settings)

    return go


@pytest.fixture
def lock(tmp_path):
    return lambda: json.loads((tmp_path / "lock.json").read_text())


def test_a_file_comes_with_its_sums_and_is_written_down(run, lock, tmp_path):
    assert run().fetched == [SUMS, ARCHIVE]
    assert (tmp_path / "mirror" / ARCHIVE).read_bytes() == b"one"
    entry = {
        "url": f"https://{ARCHIVE}",
        "version": "1",
        "sha256": sha256(b"one"),
        "size": 3,
        "needed_by": {"tool": ["gpu1"]},
    }
    assert lock()["files"][ARCHIVE] == entry
    assert set(lock()["files"]) == {ARCHIVE, SUMS}


def test_a_second_run_asks_nobody_and_writes_nothing(run, upstream, tmp_path):
    run()
    before = (tmp_path / "lock.json").stat()
    report = run()
    assert (report.fetched, report.lock_before == report.lock_after, upstream.asked) == ([], True, [])
    assert (tmp_path / "lock.json").stat().st_mtime_ns == before.st_mtime_ns
    assert (tmp_path / "lock.json").stat().st_ino == before.st_ino


def test_check_mode_says_what_would_come_and_writes_nothing(run, tmp_path, upstream):
    assert run(check=True).fetched == [SUMS, ARCHIVE]
    assert not (tmp_path / "mirror").exists()
    assert not (tmp_path / "lock.json").exists()
    assert not upstream.asked


def test_another_host_changes_the_lock_alone(run, lock, upstream):
    run()
    assert not run(needs("gpu2", "gpu1")).fetched
    assert lock()["files"][ARCHIVE]["needed_by"] == {"tool": ["gpu1", "gpu2"]}
    assert not upstream.asked


def test_a_lost_file_is_fetched_again_if_it_is_the_same(run, tmp_path, upstream):
    run()
    (tmp_path / "mirror" / ARCHIVE).unlink()
    assert run().fetched == [ARCHIVE]
    (tmp_path / "mirror" / ARCHIVE).unlink()
    upstream.put(ARCHIVE, b"two")
    with pytest.raises(MirrorError, match=rf"{ARCHIVE} is not what the lock says.*{sha256(b'two')}"):
        run()
    assert not (tmp_path / "mirror" / ARCHIVE).exists()


def test_upstream_that_changes_what_it_published_is_found_out_and_taken_on_request_only(run, tmp_path, upstream, lock):
    run()
    before = (tmp_path / "lock.json").read_text()
    for path in (ARCHIVE, SUMS):
        (tmp_path / "mirror" / path).unlink()
    upstream.release(b"changed")
    with pytest.raises(MirrorError, match=f"{SUMS} is not what the lock says"):
        run()
    assert (tmp_path / "lock.json").read_text() == before
    assert run(update=True).fetched == [SUMS, ARCHIVE]
    assert lock()["files"][ARCHIVE]["sha256"] == sha256(b"changed")


def test_an_update_without_news_changes_nothing(run, upstream):
    run()
    report = run(update=True)
    assert (report.fetched, report.lock_before == report.lock_after) == ([], True)
    assert upstream.asked == [SUMS]


def test_a_file_that_was_changed_here_is_named(run, tmp_path):
    run()
    (tmp_path / "mirror" / ARCHIVE).write_bytes(b"evil")
    with pytest.raises(MirrorError, match=f"mirror/{ARCHIVE} is not what the lock says"):
        run()


def test_a_wrong_download_has_no_name_in_the_mirror(run, tmp_path, upstream):
    upstream.put(ARCHIVE, b"cut")
    with pytest.raises(MirrorError, match=r"checksum of .* is wrong"):
        run()
    assert not (tmp_path / "mirror" / ARCHIVE).exists()
    assert not (tmp_path / "lock.json").exists()
    upstream.release()
    run()
    assert not (tmp_path / "mirror/.download").exists()


def test_the_inventorys_own_sum_decides(run):
    with pytest.raises(MirrorError, match="is wrong"):
        run(needs(sha="0" * 64))


def test_all_that_fails_is_said_and_the_rest_is_there_already(run, tmp_path):
    wanted = needs()
    for name in ("a", "b"):
        wanted.files[f"example.org/{name}"] = File(f"example.org/{name}", "1", "0" * 64, None, users("gpu1"))
    with pytest.raises(MirrorError) as error:
        run(wanted)
    assert all(f"example.org/{name}: HTTP status 404" in str(error.value) for name in ("a", "b"))
    assert (tmp_path / "mirror" / ARCHIVE).exists()


def test_what_nobody_needs_stays_until_it_is_to_go(run, lock, upstream, tmp_path):
    run()
    new = "example.org/v2/tool-2.tar.gz"
    upstream.put(new, b"new")
    wanted = Needs(files={new: File(new, "2", sha256(b"new"), None, users("gpu1"))})
    assert run(wanted).unneeded == [SUMS, ARCHIVE]
    assert lock()["files"][ARCHIVE]["needed_by"] == {}
    (tmp_path / "mirror/foreign").write_text("somebody's own")
    assert run(wanted, prune=True).removed == [SUMS, ARCHIVE]
    assert set(lock()["files"]) == {new}
    left = sorted(path.name for path in (tmp_path / "mirror").rglob("*") if path.is_file())
    assert left == ["foreign", "tool-2.tar.gz"]


def test_what_is_elsewhere_is_in_the_lock(run, lock):
    wanted = needs()
    wanted.packages["nginx"] = users("master1", role="nginx")
    wanted.elsewhere["http://own.example/x"] = users("gpu1")
    run(wanted)
    assert lock()["elsewhere"] == {
        "package nginx": {"nginx": ["master1"]},
        "http://own.example/x": {"tool": ["gpu1"]},
    }


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 9, "files": {}, "elsewhere": {}}'])
def test_a_lock_that_is_none_is_an_error(tmp_path, text):
    (tmp_path / "lock.json").write_text(text)
    with pytest.raises(MirrorError, match=r"lock\.json"):
        read_lock(tmp_path / "lock.json")


@pytest.mark.parametrize("path", ["../out", "a/../../out", "/etc/passwd", "a//b", "a/./b", "", "a/"])
def test_a_lock_that_leads_out_of_the_mirror_is_refused_and_nothing_removed(run, lock, tmp_path, path):
    run()
    (tmp_path / "out").write_text("somebody's own")
    changed = lock()
    changed["files"][path] = changed["files"][ARCHIVE]
    (tmp_path / "lock.json").write_text(json.dumps(changed))
    with pytest.raises(MirrorError, match=r"lock\.json names .* no path in a mirror"):
        run(prune=True)
    assert (tmp_path / "out").exists()


# -- a vendor's apt repository ----------------------------------------------------------------------


def entry(name, version, depends="", content=None):
    content = (content or f"{name} {version}").encode()
    file = f"./{name}_{version.partition(':')[2] or version}_amd64.deb"
    lines = [f"Package: {name}", f"Version: {version}", "Architecture: amd64", "Description: x", " more of it"]
    lines += [f"Depends: {depends}"] if depends else []
    return "\n".join([*lines, f"Filename: {file}", f"SHA256: {sha256(content)}"]), file[2:], content


def publish(upstream, *entries):
    index = gzip.compress("\n\n".join(text for text, _, _ in entries).encode(), mtime=0)
    for _, file, content in entries:
        upstream.put(f"{REPOSITORY}/{file}", content)
    upstream.put(f"{REPOSITORY}/Packages.gz", index)
    release = f"Origin: X\nMD5Sum:\n 0 1 Packages.gz\nSHA256:\n {'0' * 64} 5 Sources\n {sha256(index)} 9 Packages.gz\n"
    upstream.put(f"{REPOSITORY}/InRelease", f"-----BEGIN\n\n{release}-----BEGIN PGP SIGNATURE-----\n".encode())
    upstream.put(f"{REPOSITORY}/key.pub", b"a key")


ENTRIES = (
    entry("core", "1:4.6-1"),
    entry("core", "1:4.7-1"),
    entry("core", "1:4.10-1"),
    entry("cuda", "1:4.7-1", "core (= 1:4.7-1), libc6 (>= 2.30)"),
    entry("exporter", "4.9-1", "missing | core (>= 1:4.7)"),
    entry("driver", "580", "core"),
)


def repository(**versions):
    found = Repository(REPOSITORY, f"{REPOSITORY}/key.pub", None, users=users("gpu1", role="dcgm"))
    for name, version in versions.items():
        found.packages[name, version] = users("gpu1", role="dcgm")
    return Needs(repositories={REPOSITORY: found})


def debs(report):
    return [path.rpartition("/")[2] for path in report.fetched if path.endswith(".deb")]


def test_a_repository_is_there_as_it_was_signed_with_the_packages_that_are_needed(run, upstream, tmp_path, lock):
    publish(upstream, *ENTRIES)
    report = run(repository(cuda="4.7"))
    assert debs(report) == ["core_4.7-1_amd64.deb", "cuda_4.7-1_amd64.deb"]
    for name in ("key.pub", "InRelease", "Packages.gz"):
        assert (tmp_path / "mirror" / REPOSITORY / name).read_bytes() == (
            upstream.root / REPOSITORY / name
        ).read_bytes()
    assert lock()["files"][f"{REPOSITORY}/cuda_4.7-1_amd64.deb"]["version"] == "1:4.7-1"
    assert not run(repository(cuda="4.7")).fetched
    assert not upstream.asked


def test_without_a_version_the_newest_comes_and_with_it_what_it_needs(run, upstream):
    publish(upstream, *ENTRIES)
    assert debs(run(repository(exporter=""))) == ["core_4.10-1_amd64.deb", "exporter_4.9-1_amd64.deb"]


def test_what_another_one_needs_comes_in_the_version_that_is_wanted(run, upstream):
    publish(upstream, *ENTRIES)
    assert debs(run(repository(exporter="", core="4.7"))) == ["core_4.7-1_amd64.deb", "exporter_4.9-1_amd64.deb"]


def test_an_index_that_moved_on_is_read_on_request(run, upstream):
    publish(upstream, *ENTRIES)
    run(repository(core="4.7"))
    publish(upstream, *ENTRIES, entry("core", "1:5.0-1"))
    with pytest.raises(MirrorError, match=r"it has no core 5\.0, but 1:4\.10-1, .*mirror_update"):
        run(repository(core="5.0"))
    assert debs(run(repository(core="5.0"), update=True)) == ["core_5.0-1_amd64.deb"]


def test_a_package_that_is_not_the_indexs_is_refused(run, upstream, tmp_path):
    publish(upstream, *ENTRIES)
    upstream.put(f"{REPOSITORY}/core_4.7-1_amd64.deb", b"evil")
    with pytest.raises(MirrorError, match=r"checksum of .*core_4\.7-1_amd64\.deb is wrong"):
        run(repository(core="4.7"))
    assert not list((tmp_path / "mirror").rglob("core*.deb"))


def test_an_index_that_leads_out_of_the_mirror_is_refused(run, upstream):
    text, _, _ = entry("core", "1.0")
    publish(upstream, (text.replace("./core", "../../../core"), "core", b"x"))
    with pytest.raises(MirrorError, match="no path that a mirror can have"):
        run(repository(core=""))


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ("1.0", "1.1"),
        ("1.9", "1.10"),
        ("1.0~rc1", "1.0"),
        ("1.0~~", "1.0~"),
        ("1.0", "1.0a"),
        ("1.0a", "1.0+b"),
        ("9.0", "1:0.1"),
        ("1.0-1", "1.0-2"),
        ("1.0-1", "1.0-1+b1"),
        ("1.0-2", "1.0-10"),
        ("1.0", "1.0-1"),
    ],
)
def test_versions_are_in_dpkgs_order(less, more):
    assert apt.compare(less, more) < 0 < apt.compare(more, less)
    assert apt.compare(less, less) == 0


# -- a distribution's own packages ------------------------------------------------------------------

DEBIAN = "deb.debian.org/debian"
SECURITY = "deb.debian.org/debian-security"


def package(name, version, depends="", **more):
    """An entry of a pool: package("nginx", "1-1", Provides="httpd")."""
    text, file, content = entry(name, version, depends)
    path = f"pool/{file}"
    fields = "".join(f"\n{key.replace('_', '-')}: {value}" for key, value in more.items())
    return text.replace(f"Filename: ./{file}", f"Filename: {path}") + fields, path, content


def publish_suite(upstream, url, suite, *entries, architectures=("amd64",)):
    """Publish a suite as Debian does, each architecture with the same packages."""
    rows = []
    for architecture in architectures:
        index = lzma.compress("\n\n".join([text for text, _, _ in entries] + [f"X: {architecture}"]).encode())
        name = f"main/binary-{architecture}/Packages.xz"
        upstream.put(f"{url}/dists/{suite}/{name}", index)
        rows.append(f" {sha256(index)} {len(index)} {name}\n")
    release = f"Suite: {suite}\nSHA256:\n {'0' * 64} 5 main/source/Sources.xz\n{''.join(rows)}"
    upstream.put(f"{url}/dists/{suite}/InRelease", f"-----BEGIN\n\n{release}-----BEGIN PGP SIGN\n".encode())
    for _, path, content in entries:
        upstream.put(f"{url}/{path}", content)


BOOKWORM = (
    package("nginx", "1.22-9", "nginx-common (= 1.22-9), libc6, nginx-api-3 | gone, base", Pre_Depends="early"),
    package("nginx-common", "1.22-9", "debconf (>= 0.5) | debconf-2.0"),
    package("nginx-common", "1.20-1"),
    package("early", "1"),
    package("libc6", "2.36-9"),
    package("base", "12", Essential="yes"),
    package("debconf", "1.5", "only-for-debconf", Priority="required"),
    package("only-for-debconf", "1"),
    package("one", "1", Provides="other, nginx-api-3 (= 3)"),
    package("two", "1", Provides="nginx-api-3"),
    package("openssl", "3.0-1", "libc6"),
    package("stranger", "1"),
)


def publish_debian(upstream, *more, **options):
    publish_suite(upstream, DEBIAN, "bookworm", *BOOKWORM, *more, **options)
    publish_suite(upstream, DEBIAN, "bookworm-updates", **options)
    publish_suite(upstream, SECURITY, "bookworm-security", package("openssl", "3.0-2", "libc6"), **options)


def debian(*names, architectures=("amd64",)):
    wanted = {name: users("master1", role="nginx") for name in names}
    return Needs(distributions={("debian12", architecture): dict(wanted) for architecture in architectures})


def test_a_distribution_is_there_as_it_was_signed_with_what_a_bare_host_lacks(run, upstream, tmp_path, lock):
    """The newest of all suites, and all that may provide what no package is called."""
    publish_debian(upstream)
    report = run(debian("nginx", "openssl"))
    expected = ["early_1", "libc6_2.36-9", "nginx-common_1.22-9", "nginx_1.22-9", "one_1", "openssl_3.0-2", "two_1"]
    assert sorted(debs(report)) == [f"{name}_amd64.deb" for name in expected]
    indexes = {path for path in lock()["files"] if "/dists/" in path}
    assert indexes == {
        f"{url}/dists/{suite}/{name}"
        for url, suite in ((DEBIAN, "bookworm"), (DEBIAN, "bookworm-updates"), (SECURITY, "bookworm-security"))
        for name in ("InRelease", "main/binary-amd64/Packages.xz")
    }
    for path in indexes:
        assert (tmp_path / "mirror" / path).read_bytes() == (upstream.root / path).read_bytes()
    assert lock()["files"][f"{SECURITY}/pool/openssl_3.0-2_amd64.deb"]["sha256"] == sha256(b"openssl 3.0-2")
    assert not lock()["elsewhere"]
    assert not run(debian("nginx", "openssl")).fetched
    assert not upstream.asked


def test_what_several_hosts_need_of_a_distribution_is_all_theirs(run, upstream, lock):
    publish_debian(upstream, architectures=("amd64", "arm64"))
    wanted = debian("nginx", architectures=("amd64", "arm64"))
    wanted.distributions["debian12", "arm64"] = {"openssl": users("master2", role="certificate")}
    run(wanted)
    both = {"certificate": ["master2"], "nginx": ["master1"]}
    needed_by = {path.rpartition("/")[2]: file["needed_by"] for path, file in lock()["files"].items()}
    assert needed_by["InRelease"] == needed_by["libc6_2.36-9_amd64.deb"] == both
    assert needed_by["openssl_3.0-2_amd64.deb"] == {"certificate": ["master2"]}
    assert f"{DEBIAN}/dists/bookworm/main/binary-arm64/Packages.xz" in lock()["files"]


def test_a_package_that_the_distribution_lacks_is_named(run, upstream):
    publish_debian(upstream)
    with pytest.raises(MirrorError, match="it has no apache3, but none"):
        run(debian("apache3"))


def test_a_package_that_went_since_the_index_was_read_is_had_on_request(run, upstream):
    publish_debian(upstream)
    run(debian("openssl"))
    (upstream.root / DEBIAN / "pool/early_1_amd64.deb").unlink()
    with pytest.raises(MirrorError, match=r"early_1_amd64\.deb: HTTP status 404[\s\S]*mirror_update: true"):
        run(debian("openssl", "nginx"))
    publish_debian(upstream, package("early", "2"))
    assert "early_2_amd64.deb" in debs(run(debian("openssl", "nginx"), update=True))


def test_an_update_that_fails_leaves_the_mirror_as_it_was(run, upstream, lock, tmp_path):
    publish_debian(upstream)
    run(debian("openssl"))
    before = lock()
    publish_debian(upstream, package("new", "1"))
    (upstream.root / SECURITY / "dists/bookworm-security/InRelease").unlink()
    with pytest.raises(MirrorError, match="bookworm-security/InRelease: HTTP status 404"):
        run(debian("openssl"), update=True)
    assert lock() == before
    assert not run(debian("openssl")).fetched
    publish_debian(upstream, package("new", "1"))
    assert f"{DEBIAN}/dists/bookworm/InRelease" in run(debian("openssl"), update=True).fetched
    assert not (tmp_path / "mirror/.download").exists()


def test_a_lock_without_its_directory_says_what_becomes_of_an_index(run, upstream, tmp_path):
    publish_debian(upstream)
    run(debian("openssl"))
    shutil.rmtree(tmp_path / "mirror")
    publish_debian(upstream, package("new", "1"))
    with pytest.raises(MirrorError, match=r"An index changes .* bring the directory along"):
        run(debian("openssl"))


def test_an_architecture_that_comes_later_may_need_a_newer_index(run, upstream):
    both = ("amd64", "arm64")
    publish_debian(upstream, architectures=both)
    run(debian("openssl"))
    publish_debian(upstream, package("new", "1"), architectures=both)
    with pytest.raises(MirrorError, match=r"binary-arm64/Packages\.xz is wrong[\s\S]*mirror_update: true"):
        run(debian("openssl", architectures=both))


def test_all_suites_that_cannot_be_had_are_named_at_once(run, upstream):
    publish_debian(upstream)
    for url, suite in ((DEBIAN, "bookworm-updates"), (SECURITY, "bookworm-security")):
        (upstream.root / url / "dists" / suite / "InRelease").unlink()
    with pytest.raises(MirrorError, match=r"bookworm-updates/InRelease[\s\S]*bookworm-security/InRelease"):
        run(debian("openssl"))


def test_an_index_that_is_none_is_an_error_and_no_crash(run, upstream, monkeypatch):
    publish_debian(upstream)
    (upstream.root / SECURITY / "dists/bookworm-security/InRelease").write_bytes(b"\xff\xfe")
    with pytest.raises(MirrorError, match="bookworm-security: its InRelease has no SHA-256"):
        run(debian("openssl"))
    monkeypatch.setattr(apt, "LONGEST", 100)
    with pytest.raises(apt.AptError, match="it is no index of packages"):
        apt.parse("Packages.xz", lzma.compress(b"x" * 101), DEBIAN)
    with pytest.raises(apt.AptError, match="cannot be unpacked"):
        apt.parse("Packages.gz", gzip.compress(b"x" * 100)[:15] + b"\xff" * 30, DEBIAN)


def test_check_mode_reads_the_indexes_that_are_there_and_no_others(run, upstream):
    publish_debian(upstream)
    suites = ((SECURITY, "bookworm-security"), (DEBIAN, "bookworm-updates"), (DEBIAN, "bookworm"))
    assert run(debian("openssl"), check=True).fetched == [f"{url}/dists/{suite}/InRelease" for url, suite in suites]
    run(debian("openssl"))
    assert f"{DEBIAN}/pool/early_1_amd64.deb" in run(debian("openssl", "nginx"), check=True).fetched


def test_only_ubuntus_own_servers_are_asked_without_tls():
    """They have none; apt checks what comes from there."""
    places = [archive.url for name in ("ubuntu2404", "debian12") for archive in find(name, "amd64").archives]
    places += [archive.url for archive in find("ubuntu2204", "arm64").archives]
    assert {url: scheme(f"{url}/dists") for url in places} == {
        "archive.ubuntu.com/ubuntu": "http:/",
        "ports.ubuntu.com/ubuntu-ports": "http:/",
        DEBIAN: "https:/",
        SECURITY: "https:/",
    }
    assert scheme(ARCHIVE) == "https:/"


@pytest.mark.parametrize(
    ("relation", "version", "here"),
    [("api (>= 2)", "2", True), ("api (>= 2)", "1", False), ("api (>= 2)", "", False), ("api", "", True)],
)
def test_a_version_that_is_provided_counts(relation, version, here):
    provided = f"api (= {version})" if version else "api"
    index = [package("app", "1", relation)[0], package("lib", "1", Provides=provided)[0]]
    chosen = apt.choose([("app", "")], apt.parse("Packages", "\n\n".join(index).encode(), DEBIAN))
    assert [found.name for found in chosen] == (["app", "lib"] if here else ["app"])


# -- which hosts are told of a mirror ----------------------------------------------------------------

ACTION = SimpleNamespace(_templar=SimpleNamespace(template=lambda value: value))
PACKAGES = {"names": ["nginx"], "hold": False}


@pytest.mark.parametrize(
    ("variables", "mirror"),
    [
        ({}, ""),
        ({"gpufleet_mirror_url": "http://mirror"}, ""),
        ({"gpufleet_mirror_url": "http://mirror", "gpufleet_mirror_packages": "no"}, ""),
        ({"gpufleet_mirror_url": "http://mirror", "gpufleet_mirror_packages": "true"}, "http://mirror"),
    ],
)
def test_a_mirror_has_the_distributions_packages_only_if_that_is_said(variables, mirror):
    assert mirror_of_packages(ACTION, variables) == mirror


def test_what_is_to_be_absent_needs_no_mirror():
    args = {"name": "nginx", "state": "absent", "packages": PACKAGES}
    assert with_mirror(ACTION, args, {"gpufleet_mirror_packages": True}) == args


@pytest.mark.parametrize("url", [{}, {"gpufleet_mirror_url": "file:///srv/mirror"}])
def test_packages_without_a_web_server_are_an_error_that_names_the_variables(url):
    with pytest.raises(AnsibleActionFail, match="gpufleet_mirror_packages is true, and gpufleet_mirror_url is"):
        mirror_of_packages(ACTION, {"gpufleet_mirror_packages": True, **url})


@pytest.mark.parametrize(
    ("args", "packages"),
    [
        ({"packages": PACKAGES}, {**PACKAGES, "mirror": "http://mirror"}),
        ({"packages": {**PACKAGES, "repository": {"url": "x"}}}, {**PACKAGES, "repository": {"url": "x"}}),
        ({"packages": {**PACKAGES, "mirror": "http://own"}}, {**PACKAGES, "mirror": "http://own"}),
        ({"release": {}}, None),
    ],
)
def test_only_packages_without_a_repository_come_by_a_mirror(args, packages):
    variables = {"gpufleet_mirror_url": "http://mirror", "gpufleet_mirror_packages": True}
    assert with_mirror(ACTION, {"name": "nginx", **args}, variables).get("packages") == packages
    assert with_mirror(ACTION, args, {}) == args


def test_what_is_no_package_needs_no_web_server():
    args = {"name": "node_exporter", "release": {}}
    variables = {"gpufleet_mirror_url": "file:///srv/mirror", "gpufleet_mirror_packages": True}
    assert with_mirror(ACTION, args, variables) == args


# -- what hosts make of the lock --------------------------------------------------------------------

RELEASE = {"version": "1", "url": "http://mirror/example.org/v1/tool-1.tar.gz", "sha256": "", "checksum_url": "x"}


def pinned(tmp_path, args, mirror="http://mirror"):
    return pin.pinned({"name": "tool", "state": "started", **args}, tmp_path / "lock.json", mirror)


@pytest.mark.parametrize("mirror", ["http://mirror", "http://mirror/"])
def test_a_host_takes_what_the_lock_has_and_asks_for_no_other_sum(run, tmp_path, mirror):
    run()
    release = pinned(tmp_path, {"release": RELEASE}, mirror)["release"]
    assert release["sha256"]["amd64"] == sha256(b"one")
    assert release["checksum_url"] is None


def test_without_a_mirror_upstream_is_held_to_the_lock(run, tmp_path):
    run()
    args = {"release": {**RELEASE, "url": f"https://{ARCHIVE}"}}
    assert pinned(tmp_path, args, "https:/")["release"]["sha256"]["amd64"] == sha256(b"one")


def test_by_architecture(run, tmp_path, upstream):
    path = "example.org/v1/tool-arm64.tgz"
    upstream.put(path, b"arm")
    run(Needs(files={path: File(path, "1", sha256(b"arm"), None, users("gpu1"))}))
    args = {"release": {**RELEASE, "url": "http://mirror/example.org/v1/tool-{arch}.tgz"}}
    assert pinned(tmp_path, args)["release"]["sha256"] == {"arm64": sha256(b"arm")}


def test_what_is_not_in_the_lock_is_not_installed(run, tmp_path):
    run()
    newer = {**RELEASE, "url": "http://mirror/example.org/v2/tool-2.tar.gz"}
    with pytest.raises(MirrorError, match=r"example\.org/v2/tool-2\.tar\.gz is not in .*lock\.json"):
        pinned(tmp_path, {"release": newer})


@pytest.mark.parametrize(
    ("url", "mirror"),
    [
        ("http://own.example/tool-2.tar.gz", "http://mirror"),
        ("https://example.org/v2/tool-2.tar.gz", "http://mirror"),
        ("http://example.org/v2/tool-2.tar.gz", "https:/"),
        ("file:///srv/mirror/example.org/v2/tool-2.tar.gz", "file:///srv/mirror"),
    ],
)
def test_whoever_serves_it_what_has_no_sum_here_is_not_installed(run, tmp_path, url, mirror):
    run()
    with pytest.raises(MirrorError, match=r"tool-2\.tar\.gz is not in .*say the SHA-256 yourself"):
        pinned(tmp_path, {"release": {**RELEASE, "url": url}}, mirror)


@pytest.mark.parametrize("url", [f"https://{ARCHIVE}", f"http://{ARCHIVE}", f"https://{ARCHIVE}?x=1"])
def test_beside_a_mirror_upstream_is_held_to_the_lock(run, tmp_path, url):
    run()
    assert pinned(tmp_path, {"release": {**RELEASE, "url": url}})["release"]["sha256"]["amd64"] == sha256(b"one")


def test_own_sums_go_before_the_locks_and_the_lock_has_the_others(run, tmp_path, upstream):
    wanted = Needs()
    for name in ("amd64", "arm64"):
        path = f"example.org/v1/tool-{name}.tgz"
        upstream.put(path, name.encode())
        wanted.files[path] = File(path, "1", sha256(name.encode()), None, users("gpu1"))
    run(wanted)
    release = {**RELEASE, "url": "http://mirror/example.org/v1/tool-{arch}.tgz", "sha256": {"amd64": "a" * 64}}
    found = pinned(tmp_path, {"release": release})["release"]
    assert found["sha256"] == {"amd64": "a" * 64, "arm64": sha256(b"arm64")}
    assert found["checksum_url"] is None


def test_own_sums_for_one_architecture_let_no_other_one_in(run, tmp_path):
    """Whose archive a list of checksums would have let in, without a lock."""
    run()
    release = {**RELEASE, "url": "http://own.example/tool-{arch}.tgz", "sha256": {"amd64": "a" * 64, "arm64": ""}}
    found = pinned(tmp_path, {"release": release})["release"]
    assert from_params(found, "amd64").sha256 == "a" * 64
    with pytest.raises(ReleaseError, match="no entry for arm64"):
        from_params(found, "arm64")


def test_an_own_sum_is_all_that_counts(run, tmp_path):
    run()
    own = {**RELEASE, "url": "http://own.example/tool.tgz", "sha256": "a" * 64}
    assert pinned(tmp_path, {"release": own})["release"] == {**own, "checksum_url": None}


@pytest.mark.parametrize(
    "args",
    [
        {"release": {**RELEASE, "url": "file:///built/here.pyz"}},
        {"release": {**RELEASE, "url": "file:///built/here.pyz", "sha256": "a" * 64}},
        {"release": {**RELEASE, "url": "http://mirror/nothing"}, "state": "absent"},
        {"packages": {"names": ["nginx"]}},
    ],
)
def test_what_is_no_business_of_the_mirrors_is_left_alone(run, tmp_path, args):
    run()
    assert pinned(tmp_path, args) == {"name": "tool", "state": "started", **args}


def test_the_key_of_a_repository_is_the_locks(run, upstream, tmp_path):
    publish(upstream, *ENTRIES)
    run(repository(core=""))
    where = {"url": f"http://mirror/{REPOSITORY}/", "key_url": f"http://mirror/{REPOSITORY}/key.pub"}
    found = pinned(tmp_path, {"packages": {"names": ["core"], "repository": where}})["packages"]
    assert found == {"names": ["core"], "repository": {**where, "key_sha256": sha256(b"a key")}}


def test_a_repository_of_your_own_needs_the_sum_of_its_key(run, tmp_path):
    run()
    where = {"url": "https://own.example/", "key_url": "https://own.example/key.pub"}
    with pytest.raises(MirrorError, match=r"https://own\.example/key\.pub is not in"):
        pinned(tmp_path, {"packages": {"names": ["core"], "repository": where}})
    known = {"packages": {"names": ["core"], "repository": {**where, "key_sha256": "a" * 64}}}
    assert pinned(tmp_path, known)["packages"] == known["packages"]
