"""What Grafana is told: what it would ignore, or only log, is an error that says what to do."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible_collections.gpufleet.monitoring.plugins.filter.grafana_datasources import grafana_datasources
from ansible_collections.gpufleet.monitoring.plugins.filter.grafana_ini import grafana_ini
from ansible_collections.gpufleet.monitoring.plugins.filter.grafana_password import grafana_password
from ansible_collections.gpufleet.monitoring.plugins.lookup.grafana_dashboards import LookupModule
from ansible_collections.gpufleet.monitoring.plugins.module_utils.grafana_plugins import plugin_release
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.release import ReleaseError
from ansible_collections.gpufleet.monitoring.plugins.modules import grafana_plugins
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils.grafana import Dashboard, dashboard_files

ROLE = Path(__file__).resolve().parents[2] / "roles/grafana"
SECRET = "$__file{/run/credentials/grafana.service/smtp}"
LOKI = {"name": "Loki", "uid": "loki", "type": "loki", "url": "http://192.0.2.1:3100"}
OWN = {"name": "Prometheus", "uid": "prometheus", "type": "prometheus", "url": "http://127.0.0.1:9090"}


# -- passwords ----------------------------------------------------------------------------------


@pytest.mark.parametrize("good", ["correct horse battery", "kM3-password-of-ours", "8473920164857", "ünïcode-wörter!"])
def test_a_password_that_nobody_guesses_is_taken(good):
    assert grafana_password(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        *("admin1", "ds01admin", "your_secure_password", "StrongPassword", "grafana-admin-1", "Password123456"),
        *("aaaaaaaaaaaaaaaa", " spaces around it ", "two\nlines-of-text", "${HOME}-and-others", "100%(name)s of it"),
        "operator-42",
    ],
)
def test_a_password_that_is_weak_known_or_would_be_changed_is_refused_and_not_shown(bad):
    with pytest.raises(AnsibleFilterError, match=r"^grafana_admin_password .*: choose another one") as error:
        grafana_password(bad, "operator")
    assert bad not in str(error.value)


# -- grafana.ini --------------------------------------------------------------------------------


def test_values_are_written_as_grafana_reads_them():
    text = grafana_ini({"users": {"allow_sign_up": False, "default_theme": "light"}}, own={"server": {"http_port": 80}})
    assert text == "[users]\nallow_sign_up = false\ndefault_theme = light\n\n[server]\nhttp_port = 80"


def test_the_users_part_is_stronger_than_a_choice_and_what_is_the_roles_stays():
    choices = {"log": {"mode": "console", "level": "info"}}
    text = grafana_ini({"log": {"mode": "syslog"}}, choices=choices, own={"log": {"level": "warn"}})
    assert text == "[log]\nmode = syslog\nlevel = warn"


@pytest.mark.parametrize("value", ["a#b", "a;b", "`a", '"a"', "a\\"])
def test_what_would_be_cut_is_quoted(value):
    assert grafana_ini({"s": {"k": value}}) == f'[s]\nk = """{value}"""'


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"smtp": {"password": "hunter2"}}, "smtp.password is in plain text: put it into grafana_secrets"),
        ({"auth.generic_oauth": {"client_secret": "hunter2"}}, "client_secret is in plain text"),
        ({"smtp": {"password": SECRET}}, "refers to the secret smtp, which grafana_secrets does not have"),
        ({"smtp": "on"}, "section smtp is not a dictionary"),
        ({"smtp": {"host": ["a", "b"]}}, "smtp.host is list"),
        ({"smtp": {"host": "a\nb"}}, "line break"),
        ({"smtp": {"password": "$__file{/etc/hunter}"}}, "smtp.password refers to /etc/hunter, which is no secret"),
        ({"smtp": {"host": "$__file{/run/credentials/grafana.service/../x}"}}, "refers to the secret ../x, which"),
        ({"remote_cache": {"connstr": "password=hunter2"}}, "remote_cache.connstr is in plain text"),
        ({"external_image_storage.azure_blob": {"account_key": "hunter2"}}, "account_key is in plain text"),
        ({"smtp": {"host": ""}}, "smtp.host is empty, for which Grafana takes its default"),
        ({"smtp": {"host": None}}, "smtp.host is empty"),
        ({"server": {"http_port": 80}}, "server.http_port has a variable of its own: grafana_port"),
        ({"database": {"url": "postgres://me:hunter2@x"}}, "database.url .*: grafana_database_host"),
        ({"server": {"protocol": "https"}}, "server.protocol is what the role needs it to be: leave it out"),
    ],
)
def test_a_configuration_that_is_wrong_or_gives_a_secret_away_is_refused(sections, words):
    with pytest.raises(AnsibleFilterError, match=words) as error:
        grafana_ini(sections, own={"server": {"protocol": "http", "http_port": 3000}})
    assert "hunter2" not in str(error.value)


def test_what_the_role_says_always_is_refused_from_others():
    own = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__grafana_own"]
    own["database"] = {"type": "sqlite3"}  # a template, which depends on the type
    for section, keys in own.items():
        for key in keys:
            with pytest.raises(AnsibleFilterError, match=rf"{section}\.{key} (has a variable|is what the role needs)"):
                grafana_ini({section: {key: "x"}}, own=own)


def test_a_secret_that_systemd_hands_out_is_fine():
    assert SECRET in grafana_ini({"smtp": {"password": SECRET}}, ["smtp"])
    assert grafana_ini({"auth": {"use_refresh_token": True}}) == "[auth]\nuse_refresh_token = true"


# -- data sources -------------------------------------------------------------------------------


def test_data_sources_become_a_provisioning_file_that_prunes():
    document = grafana_datasources([OWN], [LOKI])
    assert (document["apiVersion"], document["prune"]) == (1, True)
    assert [(row["name"], row["access"], row["editable"]) for row in document["datasources"]] == [
        ("Prometheus", "proxy", False),
        ("Loki", "proxy", False),
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"name": "X", "type": "loki"}, "number 1 .X. has no uid"),
        ({**LOKI, "uid": "prometheus"}, "the uid prometheus is another data source's"),
        ({**LOKI, "name": "Prometheus"}, "there is a data source of this name already"),
        ({**LOKI, "uid": "with space"}, "is not 1 to 40 letters"),
        ({**LOKI, "type": "ours", "url": ""}, "a data source of type ours needs a url"),
        ({**LOKI, "jsondata": {}}, "Grafana knows no key jsondata"),
        ({**LOKI, "isDefault": True}, "isDefault is Prometheus's"),
        ({**LOKI, "url": "http://me:hunter2@192.0.2.1"}, "there is a password in its url"),
        ({**LOKI, "secureJsonData": {"basicAuthPassword": "hunter2"}}, "secureJsonData.basicAuthPassword is in plain"),
        ({**LOKI, "secureJsonData": {"basicAuthPassword": SECRET}}, "refers to the secret smtp"),
    ],
)
def test_a_data_source_that_grafana_would_not_take_is_named(row, words):
    with pytest.raises(AnsibleFilterError, match=words) as error:
        grafana_datasources([OWN], [row])
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("own", "change", "words"),
    [
        ({"url": "http://me:hunter2@x"}, {}, "grafana_prometheus_url has a password in it: .* grafana_prometheus_dat"),
        ({"url": "prometheus:9090"}, {}, "grafana_prometheus_url is not http:// or https://"),
        (
            {},
            {"url": "http://x"},
            "grafana_prometheus_datasource: url has a variable of its own: grafana_prometheus_url",
        ),
        ({}, {"uid": "mine"}, "grafana_prometheus_datasource: uid stays"),
        ({}, {"jsondata": {}}, "grafana_prometheus_datasource: Grafana knows no key jsondata"),
        ({}, {"jsonData": ["a"]}, "grafana_prometheus_datasource: jsonData is not a dictionary"),
        (
            {},
            {"secureJsonData": {"basicAuthPassword": "hunter2"}},
            "Prometheus: secureJsonData.basicAuthPassword is in",
        ),
    ],
)
def test_what_does_not_go_with_the_collections_own_data_source_is_named(own, change, words):
    with pytest.raises(AnsibleFilterError, match=words) as error:
        grafana_datasources([{**OWN, **own}], changes={"prometheus": change})
    assert "hunter2" not in str(error.value)


def test_the_collections_own_data_source_takes_a_log_in_and_keeps_the_rest():
    change = {"basicAuth": True, "jsonData": {"a": 2, "c": 3}, "secureJsonData": {"basicAuthPassword": SECRET}}
    own = {**OWN, "jsonData": {"a": 1, "b": 1}}
    (row,) = grafana_datasources([own], secrets=["smtp"], changes={"prometheus": change})["datasources"]
    assert (row["url"], row["basicAuth"], row["jsonData"]) == (OWN["url"], True, {"a": 2, "b": 1, "c": 3})
    assert row["secureJsonData"] == {"basicAuthPassword": SECRET}


@pytest.mark.parametrize("secret", ["pa$word", "hunter2$$", "${HOME}x", "a$1b"])
def test_a_secret_that_grafana_would_change_is_refused_and_not_shown(secret):
    row = {**LOKI, "secureJsonData": {"basicAuthPassword": SECRET}}
    with pytest.raises(AnsibleFilterError, match=r"Loki: grafana_secrets.smtp has a \$ in it") as error:
        grafana_datasources([OWN], [row], ["smtp"], contents={"smtp": secret})
    assert secret not in str(error.value)
    assert grafana_datasources([OWN], [LOKI], ["smtp"], contents={"smtp": secret})  # which nobody names


def test_some_of_grafanas_own_go_without_a_url_and_secrets_come_from_systemd():
    assert grafana_datasources([OWN], [{"name": "T", "uid": "t", "type": "grafana-testdata-datasource"}])
    assert grafana_datasources([OWN], [{**LOKI, "secureJsonData": {"basicAuthPassword": SECRET}}], ["smtp"])


# -- dashboards ---------------------------------------------------------------------------------


def dashboard(uid="one", title="One", folder="GPU fleet", path="", **more):
    return Dashboard(folder, path or f"/d/{uid}.json", json.dumps({"uid": uid, "title": title, "panels": [], **more}))


def test_dashboards_become_files_of_a_folder_that_grafana_watches():
    providers, one, two = dashboard_files([dashboard(), dashboard("two", "Two", "Team Ä / B")], "/etc/grafana")
    assert providers["path"] == "/etc/grafana/provisioning/dashboards/gpufleet.yaml"
    found = json.loads(providers["content"])["providers"]
    assert [(row["folder"], row["options"]["path"]) for row in found] == [
        ("GPU fleet", "/etc/grafana/dashboards/gpu-fleet"),
        ("Team Ä / B", "/etc/grafana/dashboards/team-b"),
    ]
    assert (one["path"], one["on_change"]) == ("/etc/grafana/dashboards/gpu-fleet/one.json", "none")
    assert two["path"] == "/etc/grafana/dashboards/team-b/two.json"


@pytest.mark.parametrize(
    ("dashboards", "words"),
    [
        ([Dashboard("F", "/d/x.json", "{,}")], "/d/x.json is no JSON: .*line 1"),
        ([Dashboard("F", "/d/x.json", "[]")], "is not the model of a dashboard"),
        ([Dashboard("F", "/d/x.json", '{"dashboard": {}, "meta": {}}')], "is not the model of a dashboard"),
        ([dashboard(uid="")], "has no uid of 1 to 40"),
        ([dashboard(uid="x" * 41)], "has no uid of 1 to 40"),
        ([dashboard(uid=7, path="/d/7.json")], "/d/7.json has no uid"),
        ([dashboard(title=" ")], "has no title"),
        ([dashboard(__inputs=[{"name": "DS_PROMETHEUS"}])], "was exported for sharing"),
        ([dashboard(), dashboard(title="Two", path="/e/two.json")], "/d/one.json and /e/two.json share the uid one"),
        ([dashboard(), dashboard("two", folder="GPU fleet")], 'share the title "One" in the folder "GPU fleet"'),
        ([dashboard(), dashboard("two", "Two", path="/e/one.json")], "share the file name"),
        ([dashboard(), dashboard("two", "Two", "gpu-fleet")], "too much alike"),
    ],
)
def test_a_dashboard_that_grafana_would_not_show_is_named(dashboards, words):
    with pytest.raises(ValueError, match=words):
        dashboard_files(dashboards, "/etc/grafana")


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError, match=r"(?s)/d/a.json.*/d/b.json"):
        dashboard_files([Dashboard("F", "/d/a.json", ""), Dashboard("F", "/d/b.json", "")], "/etc/grafana")


@pytest.fixture
def lookup(tmp_path, monkeypatch):
    """The lookup, with options as Ansible would set them."""
    (tmp_path / "one.json").write_text(dashboard().content)

    def run(folders, optional=()):
        plugin = LookupModule(loader=DataLoader())
        monkeypatch.setattr(plugin, "set_options", lambda **_: None)
        monkeypatch.setattr(plugin, "get_option", {"optional": optional, "directory": "/etc/grafana"}.get)
        return plugin.run([folders])

    return run


def test_files_are_found_by_pattern_and_one_that_finds_nothing_is_an_error(lookup, tmp_path):
    assert len(lookup({"F": [f"{tmp_path}/*.json"]})) == 2
    with pytest.raises(Exception, match=r'no file matches .*/two.json, which the folder "F" asks for'):
        lookup({"F": [f"{tmp_path}/two.json"]})
    assert len(lookup({"F": [f"{tmp_path}/two.json"]}, optional=["F"])) == 1
    with pytest.raises(Exception, match="needs a list of files"):
        lookup({"F": f"{tmp_path}/one.json"})


# -- plugins ------------------------------------------------------------------------------------


def test_a_plugin_comes_from_grafana_com_or_a_mirror_with_its_paths():
    row = {"id": "our-panel", "version": "1.0.0", "sha256": {"amd64": "a" * 64, "arm64": "b" * 64}}
    release = plugin_release(row, "https:/", "arm64")
    path = "grafana.com/api/plugins/our-panel/versions/1.0.0/download?os=linux&arch=arm64"
    assert (release.url, release.sha256) == (f"https://{path}", "b" * 64)
    assert plugin_release(row, "http://mirror", "amd64").url == f"http://mirror/{path.replace('arm64', 'amd64')}"


@pytest.mark.parametrize("change", [{"id": "../x"}, {"sha256": ""}, {"sha256": {}}, {"sha256": "abc"}])
def test_a_plugin_that_cannot_be_verified_or_would_lie_elsewhere_is_refused(change):
    with pytest.raises(ReleaseError):
        plugin_release({"id": "our-panel", "version": "1.0.0", "sha256": "a" * 64, **change}, "https:/", "amd64")


@pytest.fixture
def host(tmp_path):
    """host(*plugins): run the module with these, of which each has its zip on the host."""
    directory = tmp_path / "sets"

    def archive(name):
        path = tmp_path / f"{name}.zip"
        if not path.exists():
            with zipfile.ZipFile(path, "w") as zipped:
                zipped.writestr(f"{name}/plugin.json", json.dumps({"id": name}))
        return path

    def run(*names, check_mode=False, **more):
        archives = {name: str(archive(name)) for name in names}
        sums = {name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for name, path in archives.items()}
        rows = [{"id": name, "version": "1.0.0", "sha256": sums[name]} for name in names]
        params = {"plugins": rows, "mirror": "https:/", "delivery": "host", "archives": archives, "prune": False}
        return grafana_plugins._run(
            SimpleNamespace(params={**params, "directory": str(directory), **more}, check_mode=check_mode)
        )

    run.directory = directory
    return run


def test_a_set_of_plugins_comes_once_and_the_others_go_when_they_are_told_to(host):
    one = host("a-panel")
    assert (one["changed"], one["others"]) == (True, [])
    assert (Path(one["path"]) / "a-panel/plugin.json").exists()
    assert host("a-panel") == {**one, "changed": False}
    two = host("a-panel", "b-panel")
    assert (two["changed"], two["others"]) == (True, [one["path"]])
    assert host("a-panel")["path"] == one["path"]  # the same again, without another copy
    pruned = host("a-panel", "b-panel", prune=True)
    assert (pruned["changed"], pruned["others"]) == (True, [])
    assert [str(path) for path in host.directory.iterdir()] == [two["path"]]
    assert not host("a-panel", "b-panel", prune=True)["changed"]


def test_without_plugins_there_is_no_set_and_in_the_end_no_directory(host):
    old = host("a-panel")["path"]
    assert host() == {"changed": False, "path": "", "others": [old]}
    assert host(prune=True)["changed"]
    assert not host.directory.exists()
    assert not host(prune=True)["changed"]


def test_check_mode_says_what_would_come_and_go_and_leaves_all_as_it_is(host):
    assert host("a-panel", check_mode=True)["changed"]
    assert not host.directory.exists()
    old = host("a-panel")["path"]
    assert host(check_mode=True, prune=True) == {"changed": True, "path": "", "others": [old]}
    assert Path(old).exists()


def test_a_zip_of_another_plugin_leaves_nothing_behind(host, tmp_path):
    host("a-panel")
    (tmp_path / "a-panel.zip").rename(tmp_path / "b-panel.zip")
    with pytest.raises(ValueError, match="the zip of b-panel holds the plugin a-panel"):
        host("b-panel")
    assert len(list(host.directory.iterdir())) == 1


def test_the_controller_is_asked_for_what_is_missing(host):
    assert host("a-panel", delivery="controller", archives={})["wants_archives"] in ("amd64", "arm64")
    assert not host.directory.exists()


# -- the admin's password -----------------------------------------------------------------------

CLI = """#!/bin/sh
read -r password; echo "$password $*" >> {calls}
echo "{says}"; exit {code}
"""
DONE = "Admin password changed successfully"


@pytest.fixture
def start(tmp_path):
    """start(): what the unit does until Grafana is there, with a `grafana cli` that says something and exits."""
    state, home = tmp_path / "state", tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    state.mkdir()
    (tmp_path / "admin_password").write_text("first\n")
    script = (ROLE / "files/admin_password.py").read_text()
    (tmp_path / "script.py").write_text(script.replace("/opt/gpufleet/grafana/current", str(home)))
    calls = tmp_path / "calls"

    def run(*arguments, says=DONE, code=0):
        (home / "bin/grafana").write_text(CLI.format(calls=calls, says=says, code=code))
        (home / "bin/grafana").chmod(0o755)
        environment = {**os.environ, "STATE_DIRECTORY": str(state), "CREDENTIALS_DIRECTORY": str(tmp_path)}
        command = [sys.executable, "-I", str(tmp_path / "script.py"), *arguments, "/bin/echo", "server", "--always"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.stdout == "server --always\n") == (done.returncode == 0)  # Grafana has its arguments, or never ran
        passwords = [line.split()[0] for line in calls.read_text().splitlines()] if calls.exists() else []
        return done.returncode, passwords, done.stderr

    run.state, run.password = state, tmp_path / "admin_password"
    return run


def test_grafana_makes_its_first_database_with_the_password_itself(start):
    assert start() == (0, [], "")
    (start.state / "grafana.db").touch()
    assert start() == (0, [], "")
    assert "first" not in (start.state / "admin_password.applied").read_text()


def test_a_new_password_is_set_once_and_so_is_one_of_a_database_elsewhere(start):
    start()
    (start.state / "grafana.db").touch()
    start.password.write_text("second\n")
    assert start()[:2] == (0, ["second"])
    assert start()[:2] == (0, ["second"])
    (start.state / "admin_password.applied").unlink()
    (start.state / "grafana.db").unlink()
    assert start("--always")[:2] == (0, ["second", "second"])


@pytest.mark.parametrize(("says", "code"), [("Admin user cannot be found", 0), ("", 0), ("could not read user", 1)])
def test_a_new_password_that_was_not_set_ends_the_start_until_the_old_one_is_back(start, says, code):
    start()
    (start.state / "grafana.db").touch()
    start.password.write_text("second\n")
    for _ in range(2):  # it is tried again
        found, _, said = start(says=says, code=code)
        assert found == 1 and says in said and "was not set" in said and "second" not in said
    start.password.write_text("first\n")
    assert start(says=says, code=code)[0] == 0


def test_grafana_starts_where_no_password_was_ever_set_and_none_can_be(start):
    (start.state / "grafana.db").touch()
    for _ in range(2):
        found, _, said = start(says="Admin user cannot be found")
        assert found == 0 and "was not set" in said
    assert start()[1] == ["first"] * 3  # until it can
    assert start()[1] == ["first"] * 3
