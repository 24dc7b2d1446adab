"""What Grafana is told: what it would ignore, or only log, is an error that says what to do."""

from __future__ import annotations

import json

import pytest
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible_collections.gpufleet.monitoring.plugins.filter.grafana_datasources import grafana_datasources
from ansible_collections.gpufleet.monitoring.plugins.filter.grafana_ini import grafana_ini
from ansible_collections.gpufleet.monitoring.plugins.filter.grafana_password import grafana_password
from ansible_collections.gpufleet.monitoring.plugins.lookup.grafana_dashboards import LookupModule
from ansible_collections.gpufleet.monitoring.plugins.module_utils.grafana_plugins import plugin_release
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.release import ReleaseError
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils.grafana import Dashboard, dashboard_files

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
    text = grafana_ini({"users": {"allow_sign_up": False, "default_theme": "light"}, "server": {"http_port": 3000}})
    assert text == "[users]\nallow_sign_up = false\ndefault_theme = light\n\n[server]\nhttp_port = 3000"


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
    ],
)
def test_a_configuration_that_is_wrong_or_gives_a_secret_away_is_refused(sections, words):
    with pytest.raises(AnsibleFilterError, match=words) as error:
        grafana_ini(sections)
    assert "hunter2" not in str(error.value)


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
