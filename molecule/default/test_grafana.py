"""Grafana on the master: what it shows, who gets in, and what becomes of its database.

The lab has a stand-in for Grafana (molecule/lab/grafana), which keeps to the same files and fails as Grafana does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import shutil
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest
from fleet import WORKERS, master_with, same_run
from gpufleet_lab import grafana as releases
from gpufleet_lab.https import Client
from gpufleet_lab.playbook import run_playbook
from gpufleet_lab.waiting import eventually

PASSWORD_FILE = "/etc/grafana/secrets/admin_password"
NEW_PASSWORD = f"correct horse {secrets.token_hex(8)}"
BY_HAND = f"set in a browser {secrets.token_hex(8)}"
BROKEN = f"13.9.9{releases.SUFFIX}"
# What is there, and the process that runs.
EVIDENCE = f"{same_run('grafana')}; find /etc/grafana /opt/gpufleet/grafana | sort; cat $(find /etc/grafana -type f)"
# Files that others than root may read, and that hold what is on standard input.
LEAKS = 'read secret; find /etc /opt /var /run /tmp -xdev -type f -perm /o=r -exec grep -lF -- "$secret" {} + || true'


class Grafana:
    """Its HTTP API."""

    def __init__(self, address, password):
        self._base = f"http://{address}:3000"
        self.password = password

    def ask(self, path, password=None, user="admin", **body):
        """Return status and answer, as the admin unless another password is given; an empty one is nobody."""
        password = self.password() if password is None else password
        request = urllib.request.Request(f"{self._base}{path}", json.dumps(body).encode() if body else None)
        request.add_header("Content-Type", "application/json")
        if password:
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        if path == "/api/user/password":
            request.method = "PUT"
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, None

    def version(self):
        return self.ask("/api/health")[1]["version"]

    def save(self, uid):
        """What somebody makes by hand."""
        assert self.ask("/api/dashboards/db", dashboard={"uid": uid, "title": f"Of {uid}"})[0] == 200

    def has(self, uid):
        return self.ask(f"/api/dashboards/uid/{uid}")[0] == 200

    def folders(self):
        """Folder and title of every dashboard."""
        return {(found["folderTitle"], found["title"]) for found in self.ask("/api/search")[1]}


@pytest.fixture
def grafana(lab, sh):
    return Grafana(lab.hosts["master1"].address, lambda: sh("master1", f"cat {PASSWORD_FILE}"))


def play(inventory, *arguments, **variables):
    path = inventory(WORKERS, **master_with(**variables))
    return run_playbook("monitoring_master", "--tags", "grafana", "--limit", "master1", *arguments, inventory=path)


@pytest.fixture
def bring(inventory):
    """Run the role with further variables; in the end it is as it was."""
    last = {}

    def run(*arguments, **variables):
        last["as it was"] = not arguments and not variables
        return play(inventory, *arguments, **variables)

    yield run
    if not last.get("as it was"):
        done = play(inventory)
        assert done.rc == 0, done.messages()


@pytest.fixture
def brought(bring):
    """As bring, and it has to succeed."""

    def run(*arguments, **variables):
        done = bring(*arguments, **variables)
        assert done.rc == 0, done.messages()
        return done.of("master1", "Grafana is")[-1]

    return run


def write(directory, name, content):
    path = directory / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


# -- what it is like ----------------------------------------------------------------------------


def test_only_the_admin_gets_in_with_the_password_that_the_host_made_up(grafana):
    assert grafana.ask("/api/org")[0] == 200
    for password in ("", "admin", grafana.password()[:-1]):
        assert grafana.ask("/api/org", password)[0] == 401


def test_data_sources_are_there_under_fixed_names_and_a_restart_changes_nothing(grafana, sh):
    def sources():
        return {row["uid"]: (row["type"], row["url"], row["isDefault"]) for row in grafana.ask("/api/datasources")[1]}

    assert sources() == {
        "prometheus": ("prometheus", "http://127.0.0.1:9090", True),
        "alertmanager": ("alertmanager", "http://127.0.0.1:9093", False),
    }
    sh("master1", "systemctl restart grafana")
    assert eventually(lambda: grafana.ask("/api/org")[0] == 200, 10)
    assert len(sources()) == 2


def test_prometheus_answers_through_its_plugin_when_systemd_has_emptied_tmp(grafana, sh):
    def health():
        return grafana.ask("/api/datasources/uid/prometheus/health")

    assert health() == (200, {"status": "OK", "message": "Successfully queried the Prometheus API."})
    # What systemd-tmpfiles does with what is some weeks old.
    sh("master1", "find /tmp/systemd-private-*-grafana.service-* -mindepth 2 -delete")
    assert health()[0] == 200
    assert sh("master1", "ls /run/grafana").startswith("plugin")


def test_the_collections_dashboards_are_all_there(grafana):
    files = (Path(__file__).resolve().parents[2] / "roles/grafana/files/dashboards").glob("*.json")
    titles = {json.loads(path.read_text())["title"] for path in files}
    assert {title for folder, title in grafana.folders() if folder == "GPU fleet"} == titles


@pytest.mark.parametrize("secret", ["admin_password", "secret_key"])
def test_secrets_are_roots_alone(sh, secret):
    path = f"/etc/grafana/secrets/{secret}"
    assert sh("master1", f"stat -c '%U %a' {path}") == "root 600"
    assert sh("master1", f"cat {path} | bash -c '{LEAKS}'") == ""
    process = "/proc/$(systemctl show -P MainPID grafana)"
    for place in ("systemctl cat grafana", f"cat {process}/cmdline {process}/environ", "journalctl -u grafana"):
        assert sh("master1", f"{place} | tr '\\0' '\\n' | grep -cF -f {path} || true") == "0", place


# -- its password -------------------------------------------------------------------------------


def test_a_password_changes_with_the_variable_and_one_that_was_set_by_hand_stays_until_then(brought, grafana, sh):
    old = grafana.password()
    assert grafana.ask("/api/user/password", oldPassword=old, newPassword=BY_HAND)[0] == 200
    sh("master1", "systemctl restart grafana")
    assert eventually(lambda: grafana.ask("/api/org", BY_HAND)[0] == 200, 10)
    done = brought("--diff", grafana_admin_password=NEW_PASSWORD)
    assert done["actions"] == [f"write {PASSWORD_FILE}", "restart"]
    assert NEW_PASSWORD not in json.dumps(done)
    assert [grafana.ask("/api/org", word)[0] for word in (NEW_PASSWORD, BY_HAND, old)] == [200, 401, 401]
    assert sh("master1", f"journalctl -u grafana | grep -cF '{NEW_PASSWORD}' || true") == "0"
    brought(grafana_admin_password=old)  # it stays when the variable goes


def test_a_password_that_grafana_does_not_take_fails_the_run_and_the_old_one_stays(bring, grafana, sh):
    """Its command line says that the first user is gone, and exits with 0."""
    old = grafana.password()
    move = "import sqlite3 as s; d = s.connect('/var/lib/grafana/grafana.db'); d.execute('UPDATE user SET id = {}')"
    change = 'systemctl stop grafana && python3 -c "{}; d.commit()" && systemctl start grafana'
    sh("master1", change.format(move.format(2)))
    done = bring(grafana_admin_password=NEW_PASSWORD)
    assert done.of("master1", "Grafana is")[-1]["rolled_back"], done.messages()
    assert "Admin user cannot be found" in done.messages() and NEW_PASSWORD not in done.stdout
    assert grafana.password() == old
    assert eventually(lambda: grafana.ask("/api/org", old)[0] == 200, 10)
    sh("master1", change.format(move.format(1)))


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"grafana_admin_password": "grafana-admin-1"}, ["grafana_admin_password", "well-known", "choose another one"]),
        ({"grafana_dashboards": {"Team": ["{{ inventory_dir }}/*.json"]}}, ["one.json", "two.json", "the uid twins"]),
        ({"grafana_plugins": [{"id": "a-panel", "version": "1.0.0"}]}, ["sha256", "grafana_plugins"]),
        ({"grafana_datasources": [{"name": "Ours", "uid": "ours", "type": "ours"}]}, ["Ours", "needs a url"]),
        ({"grafana_database_type": "postgres"}, ["grafana_database_host and grafana_database_password"]),
        ({"grafana_config": {"server": {"http_port": 80}}}, ["server.http_port", "grafana_port"]),
        ({"grafana_prometheus_url": "http://me:hunter2hunter2@x"}, ["grafana_prometheus_url has a password"]),
    ],
)
def test_what_makes_no_sense_changes_nothing(inventory, sh, tmp_path, variables, words):
    for name in ("one.json", "two.json"):
        write(tmp_path, name, {"uid": "twins", "title": name})
    before = sh("master1", EVIDENCE)
    done = play(inventory, **variables)
    assert done.rc != 0
    assert all(word in done.messages() for word in ["master1", *words]), done.messages()
    assert not any(secret in done.stdout for secret in ("grafana-admin-1", "hunter2hunter2"))
    assert sh("master1", EVIDENCE) == before


def test_postgres_is_said_to_grafana_and_its_password_to_nobody_else(inventory):
    """In check mode: the stand-in has no PostgreSQL."""
    variables = {"grafana_database_host": "192.0.2.1:5432", "grafana_database_password": "hunter2hunter2"}
    done = play(inventory, "--check", "--diff", grafana_database_type="postgres", **variables)
    assert done.rc == 0, done.messages()
    diff = {entry["after_header"]: entry["after"] for entry in done.of("master1", "Grafana is")[-1]["diff"]}
    assert "type = postgres\nhost = 192.0.2.1:5432" in diff["/etc/grafana/grafana.ini"]
    assert "password = $__file{/run/credentials/grafana.service/database_password}" in diff["/etc/grafana/grafana.ini"]
    assert "admin_password.py --always" in diff["/etc/systemd/system/grafana.service"]
    assert "hunter2hunter2" not in done.stdout


# -- what users add -----------------------------------------------------------------------------


def test_users_add_dashboards_data_sources_and_a_proxy_with_a_path(brought, grafana, sh, tmp_path):
    variables = {
        "grafana_dashboards": {"Team A": [write(tmp_path, "mine.json", {"uid": "mine", "title": "First"})]},
        "grafana_secrets": {"loki": "hunter2hunter2"},
        "grafana_prometheus_datasource": {
            "basicAuth": True,
            "secureJsonData": {"basicAuthPassword": "$__file{/run/credentials/grafana.service/loki}"},
        },
        "grafana_datasources": [
            {
                "name": "Loki",
                "uid": "loki",
                "type": "loki",
                "url": "http://192.0.2.1:3100",
                "secureJsonData": {"basicAuthPassword": "$__file{/run/credentials/grafana.service/loki}"},
            }
        ],
        "grafana_external_url": "https://mon.example.org/grafana/",
    }
    brought(**variables)
    assert eventually(lambda: ("Team A", "First") in grafana.folders())
    for uid in ("loki", "prometheus"):
        source = grafana.ask(f"/api/datasources/uid/{uid}")[1]
        assert (source["secureJsonFields"], source["readOnly"]) == ({"basicAuthPassword": True}, True)
    assert sh("master1", f"echo hunter2hunter2 | bash -c '{LEAKS}'") == ""
    run = sh("master1", same_run("grafana"))
    write(tmp_path, "mine.json", {"uid": "mine", "title": "Second"})
    brought(**variables)
    assert eventually(lambda: ("Team A", "Second") in grafana.folders())
    assert sh("master1", same_run("grafana")) == run
    brought()
    assert eventually(lambda: not grafana.has("mine"))
    assert grafana.ask("/api/datasources/uid/loki")[0] == 404


def test_plugins_come_verified_by_host_or_controller_and_go(lab, brought, bring, grafana, sh):
    def plugins():
        return [plugin["id"] for plugin in grafana.ask("/api/plugins")[1] if plugin["id"] != "prometheus"]

    def sets():
        return len(sh("master1", "ls /opt/gpufleet/grafana-plugins 2>/dev/null || true").splitlines())

    path = lab.faults.extra / "grafana.com/api/plugins/our-panel/versions/1.0.0/download"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("our-panel/plugin.json", json.dumps({"id": "our-panel", "type": "panel"}))
        zipped.writestr("our-panel/MANIFEST.txt", "signed")
    plugin = {"id": "our-panel", "version": "1.0.0", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    brought(grafana_plugins=[plugin])
    assert plugins() == ["our-panel"]
    done = bring(grafana_plugins=[{**plugin, "sha256": "0" * 64}])
    assert "checksum" in done.messages() and plugins() == ["our-panel"]
    brought()
    assert (plugins(), sets()) == ([], 0)
    shutil.copytree(path.parent, path.parents[1] / "1.0.1", dirs_exist_ok=True)
    brought(grafana_plugins=[{**plugin, "version": "1.0.1"}], gpufleet_release_delivery="controller")
    assert (plugins(), sets()) == (["our-panel"], 1)
    brought(grafana_state="absent")
    assert sets() == 0


def test_the_front_door_leads_to_it_but_not_to_its_metrics(lab, grafana):
    address = lab.hosts["master1"].address
    door = Client(address, address)
    assert json.loads(door.get("/api/health").text)["version"] == grafana.version()
    wrong = door.request("POST", "/login", {"Content-Type": "application/json"}, '{"user": "admin", "password": "x"}')
    assert wrong.status == 401
    assert urllib.request.urlopen(f"http://{address}:3000/metrics", timeout=5).status == 200
    assert door.get("/metrics").status == 404


# -- its database -------------------------------------------------------------------------------


def test_what_people_made_is_there_again_after_a_stop_and_after_it_was_taken_away(brought, grafana, sh):
    grafana.save("kept")
    password = grafana.password()
    assert brought(grafana_state="stopped")["actions"] == ["disable", "stop"]
    assert sh("master1", "ls /etc/grafana/grafana.ini; systemctl is-active grafana || true").endswith("inactive")
    brought(grafana_state="absent")
    assert sh("master1", "ls /etc/grafana; ls -d /opt/gpufleet/grafana", check=False) == "secrets"
    assert brought(grafana_state="absent")["actions"] == []
    brought()
    assert (grafana.has("kept"), grafana.password()) == (True, password)


def test_what_people_made_survives_an_upgrade_and_ways_back(lab, brought, bring, grafana, inventory, sh):
    """Up with the data; not back, since the older release does not read them; and not on to a release that fails."""
    versions = lab.versions["grafana"]
    sh("master1", "systemctl stop grafana && rm /var/lib/grafana/*")
    brought(grafana_version=versions["previous"])
    grafana.save("by-hand")
    before = grafana.password()
    brought(grafana_version=versions["current"])
    assert (grafana.version(), grafana.has("by-hand")) == (versions["current"], True)
    copies = f"/opt/gpufleet/grafana/data/{versions['previous']}"
    assert sh("master1", f"stat -c %a {copies}; ls {copies}/var/lib/grafana/grafana.db").splitlines()[0] == "700"
    grafana.save("since-then")

    releases.release_stand_in(lab.faults.extra, BROKEN, 5, "the flux capacitor is missing")
    for version, complaint in ((versions["previous"], "no such table"), (BROKEN, "flux capacitor")):
        done = bring(grafana_version=version)
        result = done.of("master1", "Grafana is")[-1]
        assert result["rolled_back"], done.messages()
        assert complaint in done.messages()
        assert (grafana.version(), grafana.password()) == (versions["current"], before)
        assert grafana.has("by-hand") and grafana.has("since-then")

    # As docs/upgrades.md says for who wants to go back all the same.
    back = {"rollback_services": ["grafana"], "rollback_data": True}
    done = run_playbook(
        "rollback", "--limit", "master1", inventory=inventory(WORKERS, **master_with()), extra_vars=back
    )
    assert done.rc == 0, done.messages()
    assert not brought(grafana_version=versions["previous"])["changed"]
    assert grafana.has("by-hand") and not grafana.has("since-then")
    assert sh("master1", f"ls /opt/gpufleet/grafana/data/{versions['current']}/var/lib/grafana/grafana.db")
