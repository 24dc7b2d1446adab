"""Recording rules, on what the fleet's exporters really serve."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from gpufleet_lab.gpu import Process
from gpufleet_lab.waiting import eventually

NAMES = Path(__file__).resolve().parents[2] / "tests/rules/names.py"


def missing(prometheus, *rules):
    """What names.py says of rules, asked of the fleet's Prometheus."""
    done = subprocess.run(
        [sys.executable, NAMES, "--prometheus", prometheus.base, *rules], text=True, capture_output=True
    )
    assert done.returncode in (0, 1) and not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_every_metric_in_a_rule_is_one_that_an_exporter_serves(prometheus, gpus, value):
    assert eventually(lambda: value('gpu_state{instance="gpu2", gpu="1", state="ok"}') == 1)
    gpus("gpu2").xid(1, 31)  # the one thing that is served only once it has happened
    assert eventually(lambda: missing(prometheus) == [], seconds=30), missing(prometheus)


def test_no_rule_fails(prometheus):
    """On series that are really there, joins find one where they expect one."""
    groups = prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {"Watchdog", "gpu:power:watts"} <= {rule["name"] for rule in rules}
    assert [rule for rule in rules if rule["health"] != "ok"] == []
    assert prometheus.query("prometheus_rule_evaluation_failures_total > 0") == []


def test_a_metric_that_nobody_serves_is_named_with_its_rule(prometheus, tmp_path):
    rules = tmp_path / "mine.yml"
    rules.write_text("groups: [{name: mine, rules: [{alert: Hot, expr: 'DCGM_FI_DEV_GPU_TEMPERATURE > 80'}]}]")
    assert missing(prometheus, rules) == ["mine.yml, group mine, Hot: nobody has DCGM_FI_DEV_GPU_TEMPERATURE"]


@pytest.mark.parametrize(("instance", "number"), [("gpu1", 3), ("gpu2", 2), ("gpu3", 4)])
def test_each_gpu_is_one_series_whoever_reports_it(prometheus, instance, number):
    """gpu1 has DCGM as it was before the renaming, gpu2 has none, gpu3 has it as it is now."""

    def cards(record):
        found = prometheus.query(f'{record}{{instance="{instance}", GPU_I_ID=""}}')
        return sorted((one["metric"]["gpu"], one["metric"]["UUID"], one["metric"]["model"]) for one in found)

    assert eventually(lambda: len(cards("gpu:available:bool")) == number)
    known = cards("gpu:available:bool")
    assert len(set(known)) == number
    for record in ("gpu:core_temperature:celsius", "gpu:power:watts", "gpu:memory_used:bytes"):
        assert eventually(lambda record=record: cards(record) == known), record


@pytest.mark.parametrize(
    ("record", "least", "most"),
    [
        ("gpu:utilization:ratio", 0, 1),
        ("gpu:memory_used:ratio", 0, 1),
        ("gpu:memory_total:bytes", 4 << 30, 90 << 30),
        ("gpu:sm_clock:hertz", 1e8, 4e9),
        ("gpu:fan_speed:ratio", 0.1, 1),
        ("gpu:core_temperature:celsius", 20, 100),
        ("gpu:power:watts", 20, 800),
    ],
)
def test_units_are_the_same_whoever_reports_a_gpu(prometheus, record, least, most):
    def values():
        return {one["metric"]["instance"]: float(one["value"][1]) for one in prometheus.query(record)}

    # The A100 and V100 of gpu1 have no fans.
    assert eventually(lambda: {"gpu2", "gpu3"} <= set(values()))
    assert all(least <= value <= most for value in values().values()), values()


def test_a_slot_of_a_mig_instance_is_measured_in_per_cent(prometheus, gpus, sh):
    """Of the A100 of gpu1 that is cut, each instance is a slot, and the card is none."""

    def slots():
        found = prometheus.query('ds01:gpu_utilization_by_slot{instance="gpu1", gpu="1"}')
        return {one["metric"]["gpu_slot"]: float(one["value"][1]) for one in found}

    assert eventually(lambda: set(slots()) == {"1.0", "1.1", "1.2"})
    assert slots()["1.0"] < 5
    process = Process(memory=9 << 30, mig=0)
    gpus("gpu1").add_process(1, int(sh("gpu1", "systemctl show -P MainPID ssh")), process)
    assert eventually(lambda: 40 < slots()["1.0"] < 60), slots()
    assert slots()["1.1"] < 5
