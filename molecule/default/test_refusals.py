"""Input that makes no sense is refused with words that name it, and nothing changes."""

from __future__ import annotations

import pytest
from fleet import WORKERS, all_up, master_with, same_run

SAME_ADDRESS = "{{ hostvars['gpu1'].ansible_host }}"
CONFIGURATION = "cd /etc/prometheus && find . -type f | sort | xargs sha256sum"


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"prometheus_extra_scrape_configs": [{"job_name": "x", "scrape_intervall": "5s"}]}, "scrape_intervall"),
        ({"prometheus_scrape_interval": "soon"}, "soon"),
        ({"prometheus_rule_files": ["{{ inventory_dir }}/bad.yml"]}, "could not parse expression"),
    ],
)
def test_a_configuration_that_promtool_refuses_never_goes_live(play, prometheus, sh, tmp_path, variables, complaint):
    (tmp_path / "bad.yml").write_text("groups: [{name: g, rules: [{record: a:b, expr: 'sum('}]}]\n")
    before = sh("master1", CONFIGURATION), sh("master1", same_run("prometheus"))
    for arguments in (["--check"], []):
        done = play("monitoring_master", "--tags", "prometheus", *arguments, variables=master_with(**variables))
        assert done.rc != 0
        assert complaint in done.messages()
        assert "the old one stays" in done.messages()
    assert (sh("master1", CONFIGURATION), sh("master1", same_run("prometheus"))) == before
    assert all_up(prometheus)


@pytest.fixture
def to_do(sh):
    """A run that goes through would change something."""
    sh("gpu1", "mv /etc/sysusers.d/node_exporter.conf /root/")
    yield
    sh("gpu1", "mv /root/node_exporter.conf /etc/sysusers.d/")


@pytest.mark.parametrize(
    ("workers", "masters", "words"),
    [
        ({}, None, ["gpu_workers", "is empty"]),
        (WORKERS, {}, ["monitoring_master", "is empty"]),
        ({"gpu2": {"ansible_host": SAME_ADDRESS}}, None, ["gpu1", "gpu2", "ansible_host"]),
        ({"gpu2": {"gpufleet_labels": {"rack-no": "1"}}}, None, ["gpu2", "gpufleet_labels", "rack-no"]),
        ({"gpu2": {"gpufleet_exporters": ["node_exportr"]}}, None, ["gpu2", "gpufleet_exporters", "node_exporter"]),
        ({"gpu2": {"node_exporter_verison": "1"}}, None, ["gpu2", "node_exporter_verison", "node_exporter_version"]),
        ({"gpu2": {"node_exporter_port": "nine"}}, None, ["gpu2", "node_exporter_port"]),
        (
            {"gpu2": {"gpufleet_alert_thresholds": {"gpu_temprature_high_celsius": 75}}},
            None,
            ["gpu2", "gpufleet_alert_thresholds", "gpu_temprature_high_celsius", "gpu_temperature_high_celsius"],
        ),
    ],
)
def test_an_inventory_that_makes_no_sense_changes_nothing(play, to_do, workers, masters, words):
    done = play("site", workers=workers and {**WORKERS, **workers}, masters=masters)
    assert done.rc != 0
    assert all(word in done.messages() for word in words), done.messages()
    assert done.changed == 0
