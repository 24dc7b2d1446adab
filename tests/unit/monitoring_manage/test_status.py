"""monitoring-status as it is called: exit status, words and JSON, for each thing that may be wrong."""

from __future__ import annotations

import json
import os
import time

import pytest
from small_host import alert, api, group, now, rule, target

LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture
def status(host, capsys):
    """Return the exit status, and the checks by kind and name."""

    def ask(*words):
        code = host.run("status", "--json", *words)
        report = json.loads(capsys.readouterr().out)
        return code, {f"{check['kind']} {check['name']}".strip(): check for check in report["checks"]}

    return ask


def test_when_all_is_well_it_says_so_and_exits_with_0(host, capsys):
    assert host.run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(": all is well")
    assert {line.split()[0] for line in lines[2:]} == {"ok"}
    assert host.run("--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["schema"], report["healthy"], report["state"]) == (1, True, "ok")
    assert {(check["kind"], check["name"]) for check in report["checks"]} == {
        ("service", "prometheus"),
        ("service", "grafana"),
        ("targets", "node_exporter"),
        ("rules", ""),
        ("alerts", ""),
        ("storage", ""),
        ("configuration", ""),
    }


def rules_say(*rules, evaluated=None):
    def do(host):
        host.pages["/api/v1/rules"] = api({"groups": [group(*rules, evaluated=evaluated or now())]})

    return do


def targets_say(*targets):
    return lambda host: host.pages.update({"/api/v1/targets": api({"activeTargets": list(targets)})})


def unit_says(name, **changes):
    return lambda host: host.unit(name, **changes)


FAULTS = {
    "stopped": (unit_says("grafana.service", ActiveState="inactive", SubState="dead"), "service grafana", "inactive"),
    "failed": (
        unit_says("grafana.service", ActiveState="failed", SubState="failed", Result="exit-code"),
        "service grafana",
        "exit-code",
    ),
    "exits again and again": (
        unit_says("grafana.service", ActiveState="activating", SubState="auto-restart", NRestarts="7"),
        "service grafana",
        "7 times",
    ),
    "500": (lambda host: host.grafana.pages.update({"/api/health": (500, "")}), "service grafana", "http 500"),
    "503": (lambda host: host.pages.update({"/-/ready": (503, "")}), "service prometheus", "http 503"),
    "target down": (
        targets_say(target("node_exporter", "gpu1", "10.0.0.1:9100", "connection refused")),
        "targets node_exporter",
        "0 of 1 up",
    ),
    "target missing": (targets_say(), "targets node_exporter", "1 of the inventory not scraped"),
    "no samples": (
        lambda host: host.answer("max by (job) (time() - timestamp(up))", []),
        "targets node_exporter",
        "no sample",
    ),
    "old samples": (
        lambda host: host.answer(
            "max by (job) (time() - timestamp(up))", [{"metric": {"job": "node_exporter"}, "value": [0, "200"]}]
        ),
        "targets node_exporter",
        "last sample 3 min ago",
    ),
    "rule fails": (
        rules_say(rule("gpu:x", health="err", error="many-to-many"), rule("Watchdog", alert("Watchdog", "info"))),
        "rules",
        "1 of 2 rules fail",
    ),
    "rules late": (
        rules_say(rule("Watchdog", alert("Watchdog", "info")), evaluated="2026-01-01T00:00:00Z"),
        "rules",
        "1 of 1 groups late",
    ),
    "watchdog silent": (rules_say(rule("Watchdog")), "rules", "Watchdog, which always fires, does not"),
    "critical alert": (rules_say(rule("GPULost", alert("GPULost", "critical"))), "alerts critical", "1 firing"),
    "configuration refused": (
        lambda host: host.pages.update({"/metrics": (200, "prometheus_config_last_reload_successful 0\n")}),
        "configuration prometheus",
        "refuses the configuration",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_named_and_the_exit_status_is_1(host, status, fault):
    break_it, check, words = FAULTS[fault]
    break_it(host)
    code, checks = status()
    assert code == 1
    assert checks[check]["state"] == "failed"
    assert words in checks[check]["detail"]


def test_the_reason_of_a_target_that_is_down_is_told_with_its_name(host, status, capsys):
    targets_say(target("node_exporter", "gpu1", "10.0.0.1:9100", "context deadline\n exceeded\x1b[31m"))(host)
    assert status()[1]["targets node_exporter"]["down"] == {"gpu1": "context deadline  exceeded [31m"}
    host.run("status")
    assert "gpu1 is down: context deadline  exceeded [31m" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("severity", "state", "code"),
    [("critical", "failed", 1), ("warning", "warning", 1), ("page", "warning", 1), ("info", "ok", 0)],
)
def test_alerts_count_by_their_severity(host, status, severity, state, code):
    rules_say(rule("One", alert("One", severity), alert("One", severity, state="pending")))(host)
    assert (status()[0], status()[1][f"alerts {severity}"]["state"]) == (code, state)
    assert [row["alert"] for row in status()[1][f"alerts {severity}"]["firing"]] == ["One"]


def test_the_dead_mans_switch_is_no_alert(host, status):
    code, checks = status()
    assert (code, checks["alerts"]["detail"]) == (0, "none firing, 0 pending")


def test_a_service_that_the_inventory_stops_is_no_fault(host, status):
    host.unit("grafana.service", ActiveState="inactive", SubState="dead", UnitFileState="disabled")
    host.grafana.server.shutdown()
    host.grafana.server.server_close()
    code, checks = status()
    assert (code, checks["service grafana"]["detail"]) == (0, "stopped, and not started at boot")


def test_a_job_is_judged_by_its_timer_and_its_last_run(host, status):
    host.install("renewal", files={"/etc/systemd/system/renewal.timer": "none"})
    host.unit("renewal.timer", SubState="waiting")
    host.unit("renewal.service", ActiveState="inactive", SubState="dead", UnitFileState="static")
    assert status()[0] == 0
    host.unit("renewal.service", ActiveState="failed", SubState="failed", Result="exit-code")
    code, checks = status()
    assert (code, checks["service renewal"]["state"]) == (1, "failed")
    assert "last run failed" in checks["service renewal"]["detail"]


@pytest.mark.parametrize(("command", "state"), [("exit 0", "ok"), ("echo broken >&2; exit 3", "failed")])
def test_a_health_command_is_run(host, status, command, state):
    host.install("engine", health={"url": None, "command": ["sh", "-c", command], "timeout": 30})
    checks = status()[1]
    # Whether it fails for who is not root, says nothing.
    assert checks["service engine"]["state"] == (state if state == "ok" or os.geteuid() == 0 else "unknown")
    assert state == "ok" or "broken" in checks["service engine"]["detail"]


# -- not to know --------------------------------------------------------------------------------


def test_what_cannot_be_asked_is_unknown_and_never_well(host, status):
    host.prometheus.server.shutdown()
    host.prometheus.server.server_close()
    code, checks = status()
    assert code == 1
    assert checks["service prometheus"]["state"] == "failed"
    for check in ("targets", "rules", "alerts", "storage"):
        assert checks[check]["state"] == "unknown"
        assert "does not answer: Connection refused" in checks[check]["detail"]


@pytest.mark.parametrize("answer", ["{}", "<html>", '{"data": 7}', '{"data": {"activeTargets": [{}], "groups": [{}]}}'])
def test_an_answer_that_makes_no_sense_is_unknown(host, status, answer):
    host.pages.update({"/api/v1/targets": (200, answer), "/api/v1/rules": (200, answer)})
    code, checks = status()
    assert code == 1
    assert (checks["targets"]["state"], checks["rules"]["state"]) == ("unknown", "unknown")


def test_targets_and_rules_that_had_no_turn_yet_are_unknown(host, status):
    targets_say({**target("node_exporter", "gpu1", "10.0.0.1:9100"), "health": "unknown"})(host)
    rules_say(rule("Watchdog", evaluated="0001-01-01T00:00:00Z"), evaluated="0001-01-01T00:00:00Z")(host)
    checks = status()[1]
    assert (checks["targets node_exporter"]["state"], checks["rules"]["state"]) == ("unknown", "unknown")


@pytest.mark.parametrize("hung", ["/-/ready", "/api/v1/targets", "/api/v1/rules", "/metrics"])
def test_a_service_that_hangs_does_not_hang_it_and_hides_nothing_else(host, status, hung):
    host.pages[hung] = "hangs"
    begun = time.monotonic()
    code, checks = status("--timeout", "0.5")
    assert time.monotonic() - begun < 1.5
    assert code == 1
    assert checks["service grafana"]["state"] == "ok"
    assert checks["service prometheus"]["state"] == ("failed" if hung == "/-/ready" else "ok")


def test_a_service_that_answers_byte_by_byte_does_not_hang_it(host, status):
    def drip():
        for _ in range(100):
            time.sleep(0.1)
            yield "x"

    host.grafana.pages["/api/health"] = (200, drip())
    begun = time.monotonic()
    code, checks = status("--timeout", "0.5")
    assert time.monotonic() - begun < 1.5
    assert (code, checks["service grafana"]["state"]) == (1, "failed")
    assert "no answer within 0.5 s" in checks["service grafana"]["detail"]


def test_a_systemd_that_hangs_does_not_hang_it(host, status):
    (host.units / "systemctl").write_text("#!/bin/sh\nexec sleep 30\n")
    begun = time.monotonic()
    code, checks = status("--timeout", "0.5")
    assert time.monotonic() - begun < 1.5
    assert (code, checks["service grafana"]["state"], checks["targets node_exporter"]["state"]) == (1, "unknown", "ok")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": {}}'])
def test_a_damaged_manifest_is_named(host, status, content):
    (host.root / "grafana/manifest.json").write_text(content)
    code, checks = status()
    assert (code, checks["service grafana"]["state"]) == (1, "unknown")
    assert "grafana/manifest.json is damaged" in checks["service grafana"]["detail"]


def test_the_firewall_with_a_manifest_of_its_own_kind_is_no_service(host, status):
    (host.root / "firewall").mkdir()
    before = {"package": False, "active": False, "defaults": {"incoming": "deny"}}
    (host.root / "firewall/manifest.json").write_text(json.dumps(before))
    code, checks = status()
    assert code == 0
    assert "service firewall" not in checks


def test_a_host_without_anything_is_not_well(host, tmp_path, capsys):
    host.root = tmp_path / "nothing"
    assert host.run() == 1
    assert "nothing is installed" in capsys.readouterr().out


def test_without_a_prometheus_targets_are_unknown(host, status):
    (host.root / "prometheus/manifest.json").unlink()
    code, checks = status()
    assert (code, checks["targets"]["state"]) == (1, "unknown")


def test_directories_that_are_no_services_are_left_out(host, status):
    (host.root / "grafana-plugins").mkdir()
    assert status()[0] == 0


# -- configuration ------------------------------------------------------------------------------


def newer(path):
    os.utime(path, (time.time() + 3600,) * 2)


def test_a_configuration_that_is_newer_than_what_runs_is_a_warning(host, status):
    newer(host.configuration)
    code, checks = status()
    assert (code, checks["configuration prometheus"]["state"]) == (1, "warning")
    assert f"an older {host.configuration} than" in checks["configuration prometheus"]["detail"]


def test_targets_are_read_by_prometheus_itself(host, status):
    newer(host.targets)
    assert status()[0] == 0


def test_a_file_that_is_read_at_the_start_is_compared_with_that(host, status, tmp_path):
    path = tmp_path / "grafana.ini"
    path.write_text("")
    host.install("other", files={str(path): "restart"})
    assert status()[0] == 0
    host.unit("other.service", ActiveEnterTimestamp="Tue 2020-01-07 00:00:00 UTC")
    assert status()[1]["configuration other"]["state"] == "warning"
    path.unlink()
    assert "is gone" in status()[1]["configuration other"]["detail"]


def test_a_change_that_was_cut_is_a_warning(host, status):
    (host.root / "grafana/journal.json").write_text("{}")
    code, checks = status()
    assert (code, checks["configuration grafana"]["state"]) == (1, "warning")


@pytest.mark.parametrize(("note", "words"), [('{"reason": "promtool says no"}', "promtool"), ("", "root is told why")])
def test_a_change_of_the_inventory_that_was_refused_is_a_warning(host, status, note, words):
    (host.runtime / "gpufleet-prometheus.refused").write_text(note)
    code, checks = status()
    assert (code, checks["configuration prometheus"]["state"]) == (1, "warning")
    assert "older than the inventory's" in checks["configuration prometheus"]["detail"]
    assert words in checks["configuration prometheus"]["detail"]


def test_a_service_that_was_to_come_and_was_refused_is_missed(host, status):
    (host.runtime / "gpufleet-loki.refused").write_text('{"reason": "404"}')
    code, checks = status()
    assert (code, checks["service loki"]["state"], checks["configuration loki"]["state"]) == (1, "failed", "warning")


def test_a_unit_that_systemd_has_not_read_is_a_warning(host, status):
    host.unit("grafana.service", NeedDaemonReload="yes")
    assert "daemon-reload" in status()[1]["configuration grafana"]["detail"]


# -- how it says it -----------------------------------------------------------------------------


def test_quiet_says_nothing_at_all(host, capsys):
    assert host.run("--quiet") == 0
    host.grafana.pages.clear()
    assert host.run("status", "-q") == 1
    assert capsys.readouterr() == ("", "")


def test_the_worst_is_first_in_columns_and_without_colours_in_a_pipe(host, capsys):
    host.grafana.pages.clear()
    rules_say(rule("Waste", alert("Waste", "warning", summary="gpu1 is idle")))(host)
    host.run()
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].endswith(": 1 failed, 1 warning")
    assert [line.split()[0] for line in lines[2:6]] == ["failed", "warning", "Waste", "ok"]
    assert "\x1b" not in out
    details = [line.index(word) for line, word in ((lines[2], "active for"), (lines[3], "1 firing"))]
    assert len(set(details)) == 1


def test_of_many_targets_people_see_some_and_programs_all(host, status, capsys):
    targets_say(*(target("node_exporter", f"gpu{n}", f"10.0.0.{n}:9100", "refused") for n in range(1, 30)))(host)
    assert len(status()[1]["targets node_exporter"]["down"]) == 29
    host.run()
    assert "more: --json has them all" in capsys.readouterr().out
