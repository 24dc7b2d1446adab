"""The stand-in for Grafana fails as Grafana does, and a real archive takes its place on the mirror."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import tarfile
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import contextmanager

import pytest
from gpufleet_lab import debian, grafana
from gpufleet_lab.system import LabError

CURRENT, PREVIOUS = (grafana.VERSIONS[release] for release in ("current", "previous"))
PROMETHEUS = {"name": "P", "uid": "p", "type": "prometheus", "url": "http://x", "isDefault": True}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    root = tmp_path_factory.mktemp("mirror")
    grafana.publish(root)
    return root


@pytest.fixture(scope="module")
def homes(mirror):
    """Version -> directory of the release, unpacked."""
    return {version: unpacked(mirror, version) for version in (CURRENT, PREVIOUS)}


def unpacked(mirror, version):
    name = f"{grafana.DOWNLOADS}/grafana-{version}.linux-{debian.architecture()}.tar.gz"
    shutil.unpack_archive(mirror / name, mirror)
    return mirror / f"grafana-{version}"


class Installation:
    """A configuration, with ways to run releases on it."""

    def __init__(self, homes, root):
        self._homes, self._root = homes, root
        self.database = root / "data/grafana.db"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        for kind in ("datasources", "dashboards"):
            (root / "provisioning" / kind).mkdir(parents=True)
        (root / "json").mkdir()
        (root / "password").write_text("of the first user\n")
        self.configure()

    def configure(self, **sections):
        given = {
            "paths": {"data": self._root / "data", "provisioning": self._root / "provisioning"},
            "server": {"http_addr": "127.0.0.1", "http_port": self.port},
            "security": {"admin_password": f"$__file{{{self._root}/password}}"},
        }
        for section, keys in sections.items():
            given.setdefault(section, {}).update(keys)
        lines = [f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()) for name, keys in given.items()]
        (self._root / "grafana.ini").write_text("".join(lines))

    def provision(self, kind, content):
        text = content if isinstance(content, str) else json.dumps(content)
        (self._root / "provisioning" / kind / "one.yaml").write_text(text)

    def dashboard(self, name, content):
        provider = {"name": "x", "options": {"path": str(self._root / "json")}}
        self.provision("dashboards", {"apiVersion": 1, "providers": [provider]})
        (self._root / "json" / name).write_text(content)

    def command(self, version, *words):
        options = [f"--homepath={self._homes[version]}", f"--config={self._root}/grafana.ini"]
        return [self._homes[version] / "bin/grafana", words[0], *options, *words[1:]]

    @contextmanager
    def running(self, version=CURRENT):
        """Run the server; yields what it says, line by line, to its end."""
        command = self.command(version, "server")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                yield process.stdout
            finally:
                process.terminate()

    def said(self, version=CURRENT, until="HTTP Server Listen"):
        """Run the server up to these words; return whether they came, and all that it said."""
        lines = []
        with self.running(version) as output:
            for line in output:
                lines.append(line)
                if until in line:
                    return True, "".join(lines)
        return False, "".join(lines)

    def status(self, password, path="/api/org"):
        """What the server answers to the admin with a password."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        request.add_header("Authorization", f"Basic {b64encode(f'admin:{password}'.encode()).decode()}")
        try:
            return urllib.request.urlopen(request, timeout=5).status
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture
def installation(homes, tmp_path):
    return Installation(homes, tmp_path)


def test_it_says_what_it_is(homes):
    version = subprocess.run([homes[CURRENT] / "bin/grafana", "--version"], capture_output=True, text=True, check=True)
    assert "stand-in" in version.stdout
    assert (homes[CURRENT] / "README.md").read_text().startswith("# STAND-IN for Grafana")
    assert (homes[CURRENT] / "VERSION").read_text() == CURRENT
    assert grafana.is_stand_in(CURRENT) and not grafana.is_stand_in("13.2.3")


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"security": {"secret_key": "$__file{/nowhere}"}}, "error while expanding security.secret_key"),
        ({"database": {"type": "oracle"}}, "unknown database type: oracle"),
        ({"server": {"root_url": "grafana.example.org"}}, "invalid root_url"),
        ({"broken]\nno delimiter\n[x": {}}, "key-value delimiter not found"),
    ],
)
def test_a_configuration_that_grafana_would_not_start_with(installation, sections, complaint):
    installation.configure(**sections)
    up, said = installation.said()
    assert not up and complaint in said


@pytest.mark.parametrize(
    ("kind", "text", "complaint"),
    [
        ("datasources", "datasources: [", "Datasource provisioning error"),
        ("datasources", {"datasources": [PROMETHEUS, {**PROMETHEUS, "name": "Q", "uid": "q"}]}, "Only one datasource"),
        (
            "datasources",
            {"datasources": [PROMETHEUS, {**PROMETHEUS, "name": "Q", "isDefault": False}]},
            "data source with the same uid already exists",
        ),
        ("dashboards", {"providers": [{"name": "x"}]}, "path param is not a string"),
        ("dashboards", {"providers": [{"name": "x", "type": "git"}]}, "type git is not supported"),
    ],
)
def test_provisioning_that_ends_grafana(installation, kind, text, complaint):
    installation.provision(kind, text)
    _, said = installation.said(until="Error:")
    assert complaint in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{,}", "failed to load dashboard from"),
        ('{"uid": "x"}', "Dashboard title cannot be empty"),
        ('{"uid": "same", "title": "B"}', "the same uid is used more than once"),
    ],
)
def test_dashboards_that_grafana_only_complains_of(installation, content, complaint):
    installation.dashboard("a.json", '{"uid": "same", "title": "A"}')
    installation.dashboard("b.json", content)
    assert installation.said(until=complaint)[0]


def test_the_password_of_the_configuration_counts_once_and_the_command_line_sets_another(installation, tmp_path):
    assert installation.said()[0]
    (tmp_path / "password").write_text("another one\n")
    reset = installation.command(CURRENT, "cli", "admin", "reset-admin-password", "--password-from-stdin")
    subprocess.run(reset, input="a third one\n", text=True, check=True, capture_output=True)
    with installation.running() as output:
        assert any("HTTP Server Listen" in line for line in output)
        found = [installation.status(word) for word in ("of the first user", "another one", "a third one")]
    assert found == [401, 401, 200]
    weak = subprocess.run(reset, input="abc\n", text=True, check=False, capture_output=True)
    assert weak.returncode == 1 and "too short" in weak.stderr


@pytest.mark.parametrize(("version", "code"), [(CURRENT, 0), ("11.2.0+stand-in", 1)])
def test_without_the_first_user_the_command_line_sets_nothing_and_newer_ones_do_not_say_so(
    installation, mirror, homes, version, code
):
    if version not in homes:
        grafana.release_stand_in(mirror, version, 4)
        homes[version] = unpacked(mirror, version)
    assert installation.said(version)[0]
    with sqlite3.connect(installation.database) as database:
        database.execute("UPDATE user SET id = 2")
    reset = installation.command(version, "cli", "admin", "reset-admin-password", "--password-from-stdin")
    done = subprocess.run(reset, input="a third one\n", text=True, check=False, capture_output=True)
    assert done.returncode == code and "changed successfully" not in done.stdout


def test_an_empty_value_is_none(installation):
    installation.configure(server={"root_url": ""})
    assert installation.said()[0]


def test_a_secret_with_a_dollar_is_cut(installation, tmp_path):
    (tmp_path / "secret").write_text("pa$word")
    secret = {"secureJsonData": {"basicAuthPassword": f"$__file{{{tmp_path}/secret}}"}}
    installation.provision("datasources", {"datasources": [{**PROMETHEUS, **secret}]})
    assert installation.said()[0]
    with sqlite3.connect(installation.database) as database:
        assert database.execute("SELECT secrets FROM data_source").fetchone() == ('{"basicAuthPassword": "pa"}',)


def test_a_data_source_is_as_well_as_its_plugin_and_the_plugins_socket(installation, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setitem(os.environ, "PLUGIN_UNIX_SOCKET_DIR", str(tmp_path / "run"))
    orphan = {"name": "O", "uid": "o", "type": "gone"}
    installation.provision("datasources", {"datasources": [{**PROMETHEUS, "url": "http://127.0.0.1:1"}, orphan]})
    with installation.running() as output:
        assert any("HTTP Server Listen" in line for line in output)

        def health(uid):
            return installation.status("of the first user", f"/api/datasources/uid/{uid}/health")

        assert (health("p"), health("o")) == (400, 500)
        (socket_file,) = (tmp_path / "run").iterdir()
        socket_file.unlink()
        assert health("p") == 500


def test_a_release_does_not_start_on_what_a_newer_one_has_migrated(installation):
    assert installation.said(PREVIOUS)[0]
    assert installation.said(CURRENT)[0]
    up, said = installation.said(PREVIOUS)
    assert not up and "no such table" in said


def test_a_real_archive_is_offered_in_its_place(tmp_path, monkeypatch):
    source = tmp_path / "grafana-99.1.0.linux-amd64.tar.gz"
    (tmp_path / "VERSION").write_text("99.1.0\n")
    with tarfile.open(source, "w:gz") as tar:
        tar.add(tmp_path / "VERSION", "grafana-99.1.0/VERSION")
    assert grafana.offer_real(tmp_path / "mirror") is None
    monkeypatch.setitem(os.environ, grafana.REAL, str(source))
    assert grafana.offer_real(tmp_path / "mirror") == "99.1.0"
    served = tmp_path / "mirror" / grafana.DOWNLOADS / f"grafana-99.1.0.linux-{debian.architecture()}.tar.gz"
    assert served.read_bytes() == source.read_bytes()
    monkeypatch.setitem(os.environ, grafana.REAL, str(tmp_path / "VERSION"))
    with pytest.raises(LabError, match=r"GRAFANA_ARCHIVE: .* is no archive"):
        grafana.offer_real(tmp_path / "mirror")
