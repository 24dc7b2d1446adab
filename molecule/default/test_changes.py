"""The inventory changes: hosts, exporters, ports, labels, versions, and runs that touch only a part."""

from __future__ import annotations

import json

import pytest
from fleet import VARIABLES, WORKERS, all_up, master_with, same_run
from gpufleet_lab.playbook import run_playbook
from gpufleet_lab.waiting import eventually

RULES = "groups: [{{name: {}, rules: [{{record: one, expr: 1}}]}}]\n"


def test_a_removed_host_leaves_prometheus_and_an_added_one_comes_with_limited_runs(fleet, inventory, prometheus):
    two = {name: own for name, own in WORKERS.items() if name != "gpu3"}
    assert run_playbook("site", "--limit", "master1", inventory=inventory(two, **VARIABLES)).rc == 0
    assert eventually(lambda: ("node_exporter", "gpu3") not in prometheus.targets())
    done = run_playbook("site", "--limit", "gpu3,master1", inventory=inventory(WORKERS, **VARIABLES))
    assert set(done.stats) == {"gpu3", "master1"}
    assert eventually(lambda: all_up(prometheus)), prometheus.targets()


def test_prometheus_takes_new_targets_without_a_restart_or_a_reload(fleet, inventory, prometheus, sh):
    def generation():
        reloaded = prometheus.query("prometheus_config_last_reload_success_timestamp_seconds")[0]["value"][1]
        return sh("master1", same_run("prometheus")), reloaded

    before = generation()
    path = inventory(WORKERS, **{**VARIABLES, "all": {"gpufleet_labels": {"site": "moved"}}})
    assert run_playbook("site", "--limit", "master1", inventory=path).rc == 0
    assert eventually(lambda: prometheus.targets()["node_exporter", "gpu1"]["labels"]["site"] == "moved")
    assert generation() == before


def test_an_exporter_that_is_taken_away_leaves_the_host_and_the_targets(fleet, inventory, prometheus, sh):
    path = inventory({**WORKERS, "gpu2": {"gpufleet_exporters": []}}, **VARIABLES)
    done = run_playbook("site", inventory=path)
    assert done.rc == 0, done.messages()
    assert {host for host, counts in done.stats.items() if counts["changed"]} == {"gpu2", "master1"}
    assert eventually(lambda: ("node_exporter", "gpu2") not in prometheus.targets())
    assert sh("gpu2", "ls -d /opt/gpufleet /etc/sysusers.d/node_exporter.conf", check=False) == ""
    assert sh("gpu2", "getent passwd node_exporter", check=False) == ""
    assert sh("gpu2", "systemctl show -P LoadState node_exporter") == "not-found"


def test_the_port_variable_moves_listener_and_target(fleet, inventory, prometheus):
    path = inventory({**WORKERS, "gpu2": {**WORKERS["gpu2"], "node_exporter_port": 19100}}, **VARIABLES)
    assert run_playbook("site", inventory=path).rc == 0

    def moved():
        target = prometheus.targets()["node_exporter", "gpu2"]
        return target["scrapeUrl"].endswith(":19100/metrics") and target["health"] == "up"

    assert eventually(moved)


@pytest.mark.parametrize(("tag", "other"), [("node_exporter", "prometheus"), ("prometheus", "node_exporter")])
def test_a_tag_runs_one_role_and_works_on_its_own(fleet, sh, tag, other):
    sh("master1", f"systemctl stop {tag}")
    done = run_playbook("site", "--tags", tag, "--limit", "master1", inventory=fleet)
    assert done.rc == 0, done.messages()
    assert sh("master1", f"systemctl is-active {tag}") == "active"
    assert not done.of("master1", f"{other.capitalize()} is")


def test_rules_and_settings_go_live_by_reload_and_rules_of_others_stay(fleet, inventory, prometheus, sh, tmp_path):
    def groups():
        """Of others: the collection's own are always there."""
        found = prometheus.get("rules")["groups"]
        return {group["name"] for group in found if "/gpufleet_" not in group["file"]}

    mine = tmp_path / "mine.yml"
    mine.write_text(RULES.format("mine"))
    sh("master1", f"echo '{RULES.format('byhand')}' > /etc/prometheus/rules/byhand.yml")
    run = sh("master1", same_run("prometheus"))
    try:
        path = inventory(WORKERS, **master_with(prometheus_rule_files=[str(mine)]))
        done = run_playbook("monitoring_master", inventory=path)
        assert done.rc == 0, done.messages()
        assert eventually(lambda: groups() == {"mine", "byhand"})
        assert run_playbook("monitoring_master", inventory=inventory(WORKERS, **VARIABLES)).rc == 0
        assert eventually(lambda: groups() == {"byhand"})
        assert sh("master1", same_run("prometheus")) == run
    finally:
        sh("master1", "rm /etc/prometheus/rules/byhand.yml")


def test_a_secret_that_is_new_and_a_proxy_with_a_path(fleet, inventory, prometheus, sh):
    """promtool looks for credentials before systemd hands them out, and a path in the URL would move every page."""
    scrape = {
        "job_name": "secured",
        "authorization": {"credentials_file": "/run/credentials/prometheus.service/token"},
        "static_configs": [{"targets": ["127.0.0.1:9"]}],
    }
    path = inventory(
        WORKERS,
        **master_with(
            prometheus_secrets={"token": "hunter2"},
            prometheus_extra_scrape_configs=[scrape],
            prometheus_external_url="https://mon.example.org/prometheus/",
        ),
    )
    done = run_playbook("monitoring_master", "--tags", "prometheus", "--diff", inventory=path)
    assert done.rc == 0, done.messages()
    assert "hunter2" not in done.stdout
    assert eventually(lambda: ("secured", "127.0.0.1:9") in prometheus.targets())
    assert eventually(lambda: ("prometheus", "master1") in prometheus.targets())
    assert eventually(lambda: prometheus.targets()["prometheus", "master1"]["health"] == "up")
    assert sh("master1", "stat -c %a /etc/prometheus/secrets/token") == "600"


def test_prometheus_goes_up_a_major_version_and_keeps_its_data(lab, fleet, inventory, prometheus, sh):
    def install(version):
        path = inventory(WORKERS, **master_with(prometheus_version=version))
        done = run_playbook("monitoring_master", "--tags", "prometheus", inventory=path)
        assert done.rc == 0, done.messages()
        assert prometheus.get("status/buildinfo")["version"].startswith(version)

    # An older version does not read what a newer one wrote.
    sh("master1", "systemctl stop prometheus && rm -rf /var/lib/private/prometheus/*")
    install(lab.versions["prometheus"]["previous"])
    _, first = eventually(lambda: prometheus.query("min(timestamp(up))"))[0]["value"]
    install(lab.versions["prometheus"]["current"])
    assert prometheus.query(f"count(up @ {first})"), "the samples from before the upgrade are gone"


@pytest.mark.parametrize("host", ["gpu1", "gpu3"])
def test_node_exporter_goes_back_without_a_download(lab, fleet, host):
    versions = lab.versions["node_exporter"]
    older = json.dumps({"node_exporter_version": versions["previous"]})
    assert run_playbook("gpu_workers", "--limit", host, "-e", older, inventory=fleet).rc == 0
    before = len(lab.faults.requests())
    done = run_playbook("gpu_workers", "--limit", host, inventory=fleet)
    assert done.of(host, "Node_exporter")[-1]["release"]["version"] == versions["current"]
    assert len(lab.faults.requests()) == before
