"""What the recording rules make of what exporters say: the cases are in the .yml files, for promtool."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

import names
import pytest
import yaml

HERE = Path(__file__).parent
CASES = sorted(path.name for path in HERE.glob("*.yml"))
RELEASES = ["current", "previous"]

# What says who asked, and not which GPU: no record may have it.
EXPORTERS = {
    *("job", "hostname", "Hostname", "modelName", "device", "driver_version"),
    *("DCGM_FI_DRIVER_VERSION", "DCGM_FI_SYSTEM_DRIVER_VERSION", "container", "namespace", "pod", "hpc_job"),
}
COMMON = {"__name__", "instance", "gpu", "UUID", "model", "site", "rack"}


def promtool(prometheus: Path, *words: str) -> None:
    done = subprocess.run([prometheus / "promtool", *words], cwd=HERE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("release", RELEASES)
def test_promtool_finds_no_fault(prometheus, release):
    promtool(prometheus[release], "check", "rules", "--lint=all", "--lint-fatal", *map(str, names.own_rules()))


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("case", CASES)
def test_case(prometheus, release, case):
    promtool(prometheus[release], "test", "rules", case)


@functools.cache
def expected_series() -> list[tuple[str, dict[str, str]]]:
    """Return each series that a case expects: the record that is asked for, and its labels."""
    found = []
    for case in CASES:
        for test in yaml.safe_load((HERE / case).read_text())["tests"]:
            for ask in test["promql_expr_test"]:
                for sample in ask["exp_samples"]:
                    labels = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
                    found.append((ask["expr"], labels))
    return found


def test_every_record_has_a_case_that_expects_a_value():
    asked = set().union(*(names.metrics_of(expression) for expression, _ in expected_series()))
    assert not names.records(names.own_rules()) - asked


def test_every_value_of_a_label_that_a_rule_sets_is_expected():
    for rule in names.rules_of(names.own_rules()):
        if rule.labels:
            ask = [labels for expression, labels in expected_series() if expression == rule.name]
            assert any(rule.labels.items() <= labels.items() for labels in ask), rule


def test_records_have_the_labels_that_their_comments_say():
    said = {record.name: record for file in names.own_rules() for record in names.documented(file)}
    assert [name for name, record in said.items() if not record.meaning] == []
    for expression, labels in expected_series():
        if expression in said:
            assert labels.keys() <= COMMON | set(said[expression].labels), expression


def test_no_rule_forgets_a_label_of_an_exporter():
    lists = []
    for rule in names.rules_of([names.RULES / "gpu.yml"]):
        for labels in re.findall(r"max without \(([^)]*)\) \(\s*label_replace", rule.expression):
            lists.append(rule)
            assert set(re.split(r",\s*", labels)) >= EXPORTERS, rule
    assert len(lists) > 100
