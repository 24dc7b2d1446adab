"""What is said at the end of a run about each host."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from ansible_collections.gpufleet.monitoring.plugins.callback.fleet_report import CallbackModule
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils.fleet_report import Report


def said(before: str, wanted: str, name: str = "node_exporter", **result: object) -> dict:
    return {"service": {"name": name, "from": before, "to": wanted}, "changed": before != wanted, **result}


@pytest.fixture
def upgrade() -> Report:
    report = Report("upgrade", check_mode=False)
    report.expect(["gpu1", "gpu2", "gpu10", "master1"])
    report.begin(["gpu1", "gpu2"])
    report.add("gpu1", said("1.9.0", "1.10.0"), failed=False)
    report.add("gpu1", said("0.1.0", "0.1.0", "gpu_exporter"), failed=False)
    reason = "node_exporter.service ended: exit-code. Rolled back\n  journal: no such flag"
    report.add("gpu2", said("1.9.0", "1.10.0", changed=False, rolled_back=True, msg=reason), failed=True)
    return report


def test_it_is_a_table_of_what_changed_failed_or_was_not_begun(upgrade):
    assert upgrade.text().splitlines() == [
        "",
        "HOST     SERVICE        FROM   TO      OUTCOME",
        "gpu1     node_exporter  1.9.0  1.10.0  updated",
        "gpu2     node_exporter  1.9.0  1.10.0  rolled back: node_exporter.service ended: exit-code. Rolled back",
        "gpu10    -              -      -       not begun",
        "master1  -              -      -       not begun",
        "1 services on 1 hosts are as they were.",
    ]


def test_for_programs_it_is_everything(upgrade, tmp_path):
    upgrade.add_failure("gpu2", "dcgm", "failed", "no repository")
    upgrade.write(str(tmp_path / "report.json"))
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["kind"], report["check_mode"]) == ("upgrade", False)
    rows = {(row["host"], row["service"]): row for row in report["services"]}
    assert rows["gpu1", "gpu_exporter"]["outcome"] == "unchanged"
    assert rows["gpu1", "node_exporter"] == {
        **{"host": "gpu1", "service": "node_exporter", "from": "1.9.0", "to": "1.10.0"},
        **{"outcome": "updated", "reason": ""},
    }
    assert rows["gpu2", "dcgm"]["reason"] == "no repository"
    assert rows["master1", ""]["outcome"] == "not begun"


@pytest.mark.parametrize(
    ("before", "wanted", "result", "outcome"),
    [
        ("", "1.0", {}, "installed"),
        ("1.0", "", {}, "removed"),
        ("1.0", "1.0", {"changed": True}, "configured"),
        ("1.0", "2.0", {}, "updated"),
    ],
)
@pytest.mark.parametrize("check_mode", [False, True])
def test_check_mode_says_what_would_be(before, wanted, result, outcome, check_mode):
    report = Report("upgrade", check_mode)
    report.add("gpu1", said(before, wanted, **result), failed=False)
    (row,) = report.rows()
    assert row.outcome == outcome + (" (check mode)" if check_mode else "")


def test_after_a_rollback_it_says_what_to_pin():
    report = Report("rollback", check_mode=False)
    for host, version in (("gpu1", "1.9.0"), ("gpu2", "1.9.0"), ("gpu3", "1.8.0")):
        report.add(host, said("1.10.0", version), failed=False)
    assert report.text().splitlines()[-3:] == [
        "The next run would upgrade these again, unless the inventory says:",
        "  node_exporter_version: 1.8.0  # gpu3",
        "  node_exporter_version: 1.9.0  # gpu1, gpu2",
    ]


def test_what_is_to_be_pinned_is_a_variable_that_there_is():
    report = Report("rollback", check_mode=False)
    for service in ("nvidia-dcgm-exporter", "gpufleet-certificate"):
        report.add("host1", said("2.0", "1.0", service), failed=False)
    assert report.text().splitlines()[-5:] == [
        "The next run would upgrade these again, unless the inventory says:",
        "  dcgm_exporter_version: 1.0  # host1",
        "",
        "The next run upgrades these again, which come with this collection:",
        "  gpufleet-certificate  # host1",
    ]


def test_a_service_that_never_was_there_is_not_worth_a_line():
    report = Report("upgrade", check_mode=False)
    report.add("gpu1", said("", ""), failed=False)
    assert report.rows() == []


def play(hosts, batch=None, **variables):
    """A play, as it tells a callback of itself."""
    known = {"groups": {"gpu_workers": ["gpu1", "gpu2", "gpu3"], "monitoring_master": ["master1"]}, **variables}
    known |= {"ansible_play_hosts_all": hosts, "ansible_play_batch": batch or hosts}
    manager = SimpleNamespace(get_vars=lambda play: known)
    return SimpleNamespace(get_variable_manager=lambda: manager, check_mode=False)


@pytest.mark.parametrize("hosts", [["localhost", "gpu1", "gpu2", "master1"], ["gpu1", "gpu2", "master1"]])
def test_hosts_of_which_only_the_inventory_was_checked_are_not_begun(hosts, tmp_path):
    callback = CallbackModule()
    path = tmp_path / "report.json"
    common = {"fleet_report": "upgrade", "fleet_report_file": str(path)}
    # With --limit, localhost is not among them.
    callback.v2_playbook_on_play_start(play(hosts, fleet_report_begins=False, **common))
    callback.v2_playbook_on_play_start(play(["gpu1", "gpu2"], ["gpu1"], **common))
    callback.v2_playbook_on_stats(None)
    rows = json.loads(path.read_text())["services"]
    assert [(row["host"], row["outcome"]) for row in rows] == [("gpu2", "not begun"), ("master1", "not begun")]
