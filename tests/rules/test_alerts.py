"""When alerts fire, when they stay quiet, and what they say: the cases are in alerts/*.yml, for promtool."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

import alert_settings
import names
import pytest
import yaml

HERE = Path(__file__).parent
CASES = sorted(path.name for path in (HERE / "alerts").glob("*.yml"))
RELEASES = ["current", "previous"]
RULES = [rule for file in names.own_alerts() for rule in names.raw_rules(file)]
ALERTS = sorted({rule["alert"] for rule in RULES})
# What a label that is missing, a template that fails or a threshold that is left leaves behind.
FAULTS = ("<no value>", "<error", "()", "  ", " ,", "threshold:", "{{")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory) -> Path:
    """Return a directory with the rules, as the role would write them for some hosts, and the cases."""
    directory = tmp_path_factory.mktemp("rules")
    names.deploy(directory, **alert_settings.SETTINGS)
    for case in CASES:
        shutil.copy(HERE / "alerts" / case, directory)
    return directory


def promtool(prometheus: Path, directory: Path, *words: str) -> None:
    done = subprocess.run([prometheus / "promtool", *words], cwd=directory, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@functools.cache
def expectations() -> list[tuple[str, list[dict]]]:
    """Return each alert that a case asks for, with what it expects."""
    tests = [test for case in CASES for test in yaml.safe_load((HERE / "alerts" / case).read_text())["tests"]]
    return [(ask["alertname"], ask["exp_alerts"]) for test in tests for ask in test["alert_rule_test"]]


@pytest.mark.parametrize("release", RELEASES)
def test_promtool_finds_no_fault(prometheus, release):
    files = map(str, names.own_alerts())
    promtool(prometheus[release], HERE, "check", "rules", "--lint=all", "--lint-fatal", *files)


@pytest.mark.parametrize("release", RELEASES)
def test_promtool_finds_no_fault_in_what_is_deployed(prometheus, release, deployed):
    """Where hosts differ, an alert is there more than once, which is not wrong."""
    files = sorted(path.name for path in deployed.glob("gpufleet_*.yml"))
    promtool(prometheus[release], deployed, "check", "rules", "--lint=none", *files)


def test_a_minute_may_become_a_second(prometheus, tmp_path):
    """So that a scenario need not wait, and has these rules nevertheless."""
    files = names.deploy(tmp_path, **alert_settings.SETTINGS, time_factor=1 / 60)
    for release in RELEASES:
        promtool(prometheus[release], tmp_path, "check", "rules", "--lint=none", *map(str, files))
    times = {rule["alert"]: rule.get("for") for file in files for rule in names.raw_rules(file) if "alert" in rule}
    assert (times["DS01GPUWaste"], times["NodeDown"], times["GPUDoubleBitECC"]) == ("30000ms", "2000ms", None)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("case", CASES)
def test_case(prometheus, release, case, deployed):
    promtool(prometheus[release], deployed, "test", "rules", case)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_case_in_which_it_fires(alert):
    assert [expected for name, expected in expectations() if name == alert and expected]


@pytest.mark.parametrize("alert", [alert for alert in ALERTS if alert != "Watchdog"])
def test_an_alert_has_a_case_in_which_it_stays_quiet(alert):
    assert [expected for name, expected in expectations() if name == alert and not expected]


def test_cases_ask_for_alerts_that_exist():
    assert {name for name, _ in expectations()} <= set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_what_is_said_is_whole(alert):
    """Every field that a summary or description takes from its labels is there."""
    for name, expected in expectations():
        for one in expected if name == alert else []:
            texts = one["exp_annotations"]
            assert set(texts) == {"summary", "description", "runbook_url"}
            assert texts["runbook_url"] == f"https://runbooks.example/{alert}"
            for text in texts.values():
                assert text and not any(sign in text for sign in FAULTS), text


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_runbook(alert):
    text = (HERE.parents[1] / f"docs/runbooks/{alert}.md").read_text()
    assert text.startswith(f"# {alert}\n")
    for part in ("## Meaning", "## Causes", "## Look", "## Do"):
        assert part in text


def test_a_runbook_has_an_alert():
    assert sorted(path.stem for path in (HERE.parents[1] / "docs/runbooks").glob("*.md")) == ALERTS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_labels_are_those_that_routes_rely_on(rule):
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["labels"]["component"]


def test_alerts_of_a_host_name_it():
    """Routes and inhibition go by instance; only alerts about the whole fleet have none."""
    fleet = {rule["alert"] for rule in RULES if rule["group"].endswith("_fleet")}
    for name, expected in expectations():
        for one in expected:
            assert ("instance" in one["exp_labels"]) == (name not in fleet), name


def test_alerts_of_a_gpu_name_it():
    for name, expected in expectations():
        for one in expected:
            if "gpu" in one["exp_labels"]:
                assert {"instance", "UUID"} <= set(one["exp_labels"]), name
