"""Thresholds, times and links get into alert rules, and settings that do not fit are refused with their names."""

from __future__ import annotations

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.monitoring.plugins.filter.alert_rules import alert_rules

JOBS = [
    {"job": "prometheus", "groups": ["monitoring_master"], "port": 9090, "bind_address": "127.0.0.1"},
    {"job": "node_exporter", "groups": ["gpu_workers"], "port": 9100, "exporter": True},
]
HOT = {
    "alert": "Hot",
    "expr": 'celsius{note="threshold:hot [5m]"} > threshold:hot and rate(x[5m]) > 0 unless y offset 1h',
    "for": "5m",
    "keep_firing_for": "1m30s",
    "labels": {"severity": "warning"},
    "annotations": {"summary": "above threshold:hot"},
}
EVENT = {
    "alert": "Event",
    "expr": "seen > time() - threshold:recent",
    "labels": {"severity": "info"},
    "annotations": {"summary": "{{ $value }}"},
}
GPUS = {
    "alert": "Missing",
    "expr": "gpus < threshold:gpus_expected",
    "labels": {"severity": "critical"},
    "annotations": {"summary": "{{ $value }} of threshold:gpus_expected"},
}
FULL = {
    "alert": "Full",
    "expr": "free < threshold:free",
    "labels": {"severity": "info"},
    "annotations": {"summary": "less than threshold:free"},
}
FILE = yaml.safe_dump(
    {"groups": [{"name": "heat", "rules": [HOT, EVENT, GPUS]}, {"name": "capacity_fleet", "rules": [FULL]}]}
)
THRESHOLDS = {"hot": 85, "recent": "1h", "gpus_expected": 0, "free": 0.5}


def render(workers=(), masters=None, **settings):
    """Return the rules that become of FILE, by alert, for workers with these variables."""
    workers = {f"gpu{number}": {"ansible_host": f"10.0.0.{number}", **own} for number, own in enumerate(workers, 1)}
    masters = {"master1": {"ansible_host": "10.0.1.1", **(masters or {})}}
    groups = {"gpu_workers": list(workers), "monitoring_master": list(masters)}
    settings = {"thresholds": THRESHOLDS, "runbook_url": "https://wiki/{alert}.md", **settings}
    (text,) = alert_rules({"heat.yml": FILE}, groups, {**workers, **masters}, JOBS, **settings).values()
    found: dict[str, list[dict]] = {}
    for group in yaml.safe_load(text)["groups"]:
        for rule in group["rules"]:
            found.setdefault(rule["alert"], []).append(rule)
    return found


def refused(*args, **kwargs):
    with pytest.raises(AnsibleFilterError) as caught:
        render(*args, **kwargs)
    return str(caught.value)


def test_thresholds_become_numbers():
    (hot,) = render()["Hot"]
    assert hot["expr"] == 'celsius{note="threshold:hot [5m]"} > 85 and rate(x[5m]) > 0 unless y offset 1h'
    assert hot["annotations"] == {"summary": "above 85", "runbook_url": "https://wiki/Hot.md"}
    assert (hot["for"], hot["keep_firing_for"], hot["labels"]) == ("5m", "1m30s", {"severity": "warning"})
    assert render()["Event"][0]["expr"] == "seen > time() - 3600"
    assert render()["Full"][0]["expr"] == "free < 0.5"


def test_a_host_that_differs_gets_a_rule_of_its_own():
    default, own = render([{}, {"gpufleet_alert_thresholds": {"hot": 75}}])["Hot"]
    assert default["expr"].endswith('unless on (instance) up{instance=~"gpu2"}')
    assert "> 85 and" in default["expr"]
    assert own["expr"].endswith('and on (instance) up{instance=~"gpu2"}')
    assert "> 75 and" in own["expr"]
    assert own["annotations"]["summary"] == "above 75"


def test_hosts_that_agree_share_a_rule_and_other_alerts_stay_one():
    hot = {"gpufleet_alert_thresholds": {"hot": 75}}
    found = render([hot, {}, hot, {"gpufleet_alert_thresholds": {"hot": 70}}])
    assert len(found["Hot"]) == 3
    assert 'up{instance=~"gpu1|gpu3"}' in found["Hot"][1]["expr"]
    assert len(found["Event"]) == len(found["Missing"]) == 1


def test_what_all_hosts_say_is_as_good_as_a_default():
    cold = {"gpufleet_alert_thresholds": {"hot": 60}}
    (hot,) = render([cold, cold], cold)["Hot"]
    assert "> 60 and" in hot["expr"]
    assert "instance" not in hot["expr"]


def test_the_number_of_gpus_is_a_variable_of_its_own():
    """So that a group may set thresholds, and a host its GPUs: Ansible does not merge dictionaries."""
    default, four = render([{}, {"gpufleet_gpus_expected": 4, "gpufleet_alert_thresholds": {"hot": 75}}])["Missing"]
    assert default["expr"] == '(gpus < 0)\nunless on (instance) up{instance=~"gpu2"}'
    assert four["expr"] == '(gpus < 4)\nand on (instance) up{instance=~"gpu2"}'
    assert four["annotations"]["summary"] == "{{ $value }} of 4"


def test_a_hosts_name_is_no_pattern():
    groups = {"gpu_workers": ["gpu.1"], "monitoring_master": ["m"]}
    hosts = {"gpu.1": {"ansible_host": "10.0.0.1", "gpufleet_gpus_expected": 4}, "m": {"ansible_host": "10.0.0.2"}}
    (text,) = alert_rules({"a": FILE}, groups, hosts, JOBS, thresholds=THRESHOLDS, runbook_url="{alert}").values()
    assert r'up{instance=~"gpu\\.1"}' in text


def test_an_alert_about_the_fleet_has_one_threshold():
    assert "Full is about the whole fleet, so all hosts must have the same" in refused(
        [{}, {"gpufleet_alert_thresholds": {"free": 3}}]
    )
    all_alike = {"gpufleet_alert_thresholds": {"free": 3}}
    assert render([all_alike], all_alike)["Full"][0]["expr"] == "free < 3"


def test_alerts_are_switched_off_and_hold_for_another_time():
    found = render(disabled=["Event"], durations={"Hot": "2h", "Full": "1m"})
    assert sorted(found) == ["Full", "Hot", "Missing"]
    assert found["Hot"][0]["for"] == "2h"
    assert found["Full"][0]["for"] == "1m"
    assert "for" not in found["Missing"][0]


def test_all_times_are_shortened_at_once():
    found = render(time_factor=0.01, durations={"Full": "10m"})
    (hot,) = found["Hot"]
    assert hot["expr"] == 'celsius{note="threshold:hot [5m]"} > 85 and rate(x[3000ms]) > 0 unless y offset 36000ms'
    assert (hot["for"], hot["keep_firing_for"]) == ("3000ms", "900ms")
    assert found["Event"][0]["expr"] == "seen > time() - 36"
    assert found["Full"][0]["for"] == "6000ms"


def test_numbers_may_be_strings():
    """As templates of older Ansible and the command line make them."""
    default, own = render([{"gpufleet_alert_thresholds": {"hot": "75"}}], time_factor="1")["Hot"]
    assert "> 85 and" in default["expr"]
    assert "> 75 and" in own["expr"]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"thresholds": {"hot": 85}}, "prometheus_alert_thresholds lacks recent"),
        ({"thresholds": {**THRESHOLDS, "hott": 1}}, "has hott, which no alert uses; did you mean 'hot'?"),
        ({"thresholds": {**THRESHOLDS, "hot": "warm"}}, "hot must be a number or a duration such as 1h"),
        ({"thresholds": {**THRESHOLDS, "hot": True}}, "hot must be a number"),
        ({"thresholds": {**THRESHOLDS, "hot": None}}, "hot must be a number"),
        ({"thresholds": [85]}, "prometheus_alert_thresholds must be a dictionary, not a list"),
        ({"durations": {"Hoot": "5m"}}, "prometheus_alert_for has Hoot, which is no alert; did you mean 'Hot'?"),
        ({"durations": {"Hot": 5}}, "prometheus_alert_for: Hot must be a duration such as 5m"),
        ({"disabled": ["Evnt"]}, "prometheus_alerts_disabled has Evnt, which is no alert; did you mean 'Event'?"),
        ({"time_factor": 0}, "prometheus_alert_time_factor must be a number above 0"),
        ({"runbook_url": "https://wiki/"}, "prometheus_alert_runbook_url must have {alert} in it"),
    ],
)
def test_settings_that_do_not_fit(settings, complaint):
    assert complaint in refused(**settings)


@pytest.mark.parametrize(
    ("own", "complaint"),
    [
        (
            {"gpufleet_alert_thresholds": {"hott": 75}},
            "gpu2: gpufleet_alert_thresholds has 'hott', which is no threshold of an alert; did you mean 'hot'?",
        ),
        (
            {"gpufleet_alert_thresholds": {"hot": "1h"}},
            "gpu2: hot of gpufleet_alert_thresholds must be a number such as 85",
        ),
        (
            {"gpufleet_alert_thresholds": {"recent": 60}},
            "gpu2: recent of gpufleet_alert_thresholds must be a duration such as 1h",
        ),
        (
            {"gpufleet_alert_thresholds": [75]},
            "gpu2: gpufleet_alert_thresholds must be a dictionary, not a list",
        ),
        ({"gpufleet_gpus_expected": "eight"}, "gpu2: gpufleet_gpus_expected must be a whole number"),
        ({"gpufleet_gpus_expected": -1}, "gpu2: gpufleet_gpus_expected must be a whole number"),
    ],
)
def test_a_hosts_own_threshold_that_does_not_fit(own, complaint):
    assert complaint in refused([{}, own])


def test_all_that_is_wrong_is_said_at_once():
    complaint = refused(disabled=["A"], durations={"B": "x"}, time_factor=-1)
    assert complaint.count("\n- ") == 4
