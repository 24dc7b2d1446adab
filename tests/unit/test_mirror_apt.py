"""A distribution's packages by way of a mirror, with the real apt: only the distribution and its keys are made up.

Nothing is installed on this machine: apt is told of another list of installed packages, and downloads.
"""

from __future__ import annotations

import hashlib
import http.server
import lzma
import subprocess
import threading
from email.utils import formatdate
from functools import partial

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils import distributions
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.apt import Apt
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.packages import (
    Changes,
    PackageError,
    Packages,
)
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils.mirror.fill import Settings, fill
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils.mirror.needs import Needs, Users

ARCHITECTURE = subprocess.run(
    ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
).stdout.strip()
BASE, SECURITY = (archive.url for archive in distributions.find("debian12", ARCHITECTURE).archives)
SUITES = {(BASE, "bookworm"): [], (BASE, "bookworm-updates"): [], (SECURITY, "bookworm-security"): []}
CONTROL = "Package: {}\nVersion: {}\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"


@pytest.fixture(scope="module")
def gpg(tmp_path_factory):
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)

    def run(*words):
        done = subprocess.run(["gpg", "--homedir", home, "--batch", "--quiet", *words], capture_output=True, check=True)
        return done.stdout

    for name in ("signer", "other"):
        run("--passphrase", "", "--quick-generate-key", f"{name}@example.org", "ed25519", "sign", "never")
    yield run
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)


@pytest.fixture(scope="module")
def serve():
    """Serve a directory: serve(path) returns its URL."""
    servers = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    def start(root):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def build(root, url, name, version, depends=""):
    """Build a package, and return its entry in the index."""
    tree, file = root / f"{name}_{version}", root / url / f"pool/{name}_{version}_all.deb"
    (tree / "DEBIAN").mkdir(parents=True)
    control = CONTROL.format(name, version) + (f"Depends: {depends}\n" if depends else "")
    (tree / "DEBIAN/control").write_text(control)
    file.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, file], capture_output=True, check=True)
    content = file.read_bytes()
    place = f"Filename: {file.relative_to(root / url)}\nSize: {len(content)}\n"
    return f"{control}{place}SHA256: {hashlib.sha256(content).hexdigest()}\n"


@pytest.fixture(scope="module")
def mirror(gpg, serve, tmp_path_factory):
    """The URL of a mirror that was filled from a distribution of its own."""
    root, target = tmp_path_factory.mktemp("upstream"), tmp_path_factory.mktemp("mirror")
    suites = {
        **SUITES,
        (BASE, "bookworm"): [
            build(root, BASE, "demo", "1-1", "demo-common (= 1-1)"),
            build(root, BASE, "demo-common", "1-1", "demo-api"),
            build(root, BASE, "demo-other", "1-1"),
            build(root, BASE, "provider", "1-1").replace("Version", "Provides: demo-api\nVersion"),
        ],
        (SECURITY, "bookworm-security"): [
            build(root, SECURITY, "demo", "1-1+deb12u1", "demo-common (>= 1)"),
        ],
    }
    for (url, suite), entries in suites.items():
        # Sums of both are in the list, and only the compressed one is there, as Debian has it.
        text, name = "\n".join(entries).encode(), f"main/binary-{ARCHITECTURE}/Packages"
        index = lzma.compress(text)
        file = root / url / "dists" / suite / f"{name}.xz"
        file.parent.mkdir(parents=True)
        file.write_bytes(index)
        dates = f"Date: {formatdate(1e9, usegmt=True)}\n"
        architectures = f"Architectures: {ARCHITECTURE}\nComponents: main\nAcquire-By-Hash: yes\n"
        sums = [f" {hashlib.sha256(text).hexdigest()} {len(text)} {name}\n"]
        sums += [f" {hashlib.sha256(index).hexdigest()} {len(index)} {name}.xz\n"]
        release = root / url / "dists" / suite / "Release"
        release.write_text(f"Suite: {suite}\nCodename: {suite}\n{dates}{architectures}SHA256:\n{''.join(sums)}")
        gpg("--local-user", "signer@example.org", "--clearsign", "--output", release.parent / "InRelease", release)
    users = Users()
    users.add("nginx", "master1")
    needs = Needs(distributions={("debian12", ARCHITECTURE): {"demo": users}})
    fill(needs, Settings(target, target / "lock.json", serve(root)))
    return serve(target)


@pytest.fixture
def fetch(mirror, gpg, monkeypatch, tmp_path):
    """Fetch a package as a host does that has none, and no sources of its own: fetch("demo")."""
    for name in ("status", "none.list", "key.gpg"):
        (tmp_path / name).touch()
    (tmp_path / "none").mkdir()
    known = distributions.find
    monkeypatch.setattr(distributions, "distribution", lambda: "debian12")
    monkeypatch.setattr(distributions, "find", lambda *names: known(*names)._replace(keyring=str(tmp_path / "key.gpg")))

    def run(words):
        own = [f"Dir::Etc::sourcelist={tmp_path}/none.list", f"Dir::Etc::sourceparts={tmp_path}/none"]
        own += [f"Dir::State::lists={tmp_path}/none", "Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache="]
        own += [f"Dir::State::status={tmp_path}/status", "APT::Sandbox::User=root", "Debug::NoLocking=true"]
        tool = next((word for word in words if word in ("apt-get", "apt-cache")), None)
        if tool:  # what it is told further on counts
            place = words.index(tool) + 1
            words = [*words[:place], *(word for setting in own for word in ("--option", setting)), *words[place:]]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def go(name, signer="signer"):
        (tmp_path / "key.gpg").write_bytes(gpg("--export", f"{signer}@example.org"))
        want = Packages((name,), "", (), None, hold=False, mirror=mirror)
        versions = Apt(run).fetch(want, Changes(get=(name,)), {}, tmp_path / "host")
        return versions, sorted(file.name for file in (tmp_path / "host/archives").glob("*.deb"))

    return go


def test_what_the_mirror_has_is_all_that_apt_needs(fetch):
    versions, archives = fetch("demo")
    assert versions == {"demo": "1-1+deb12u1"}
    assert archives == ["demo-common_1-1_all.deb", "demo_1-1+deb12u1_all.deb", "provider_1-1_all.deb"]


def test_a_mirror_that_the_distribution_has_not_signed_is_refused(fetch):
    with pytest.raises(PackageError, match=r"by the mirror .*its index cannot be used.*is not signed"):
        fetch("demo", signer="other")


def test_a_package_that_nobody_needed_is_in_the_index_alone(fetch):
    with pytest.raises(PackageError, match=r"demo-other_1-1_all\.deb +404"):
        fetch("demo-other")
