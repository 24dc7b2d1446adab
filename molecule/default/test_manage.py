"""monitoring-status and monitoring-manage on the master."""

from __future__ import annotations

import json
import time
import typing as t

import pytest
from fleet import FLEET, same_run
from gpufleet_lab.waiting import eventually


class Answer(t.NamedTuple):
    """What a command on the master came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def master(lab):
    """Run a command on the master, whatever comes of it."""

    def run(command):
        done = lab.ssh("master1", command)
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def checks(master):
    """What is not well by now: kind and name -> check. Alerts say the same, later, and are left out."""

    def ask():
        report = json.loads(master("monitoring-status --json").out)
        found = {f"{check['kind']} {check['name']}".strip(): check for check in report["checks"]}
        assert report["healthy"] == all(check["state"] == "ok" for check in found.values())
        return {name: found[name] for name in found if found[name]["state"] != "ok" and found[name]["kind"] != "alerts"}

    return ask


@pytest.fixture
def calm(sh):
    """Nobody has to act on what other tests did to GPUs and hosts: all alerts are for information."""
    sh(
        "master1",
        "cp -rp /etc/prometheus/rules /tmp/ && sed -Ei 's/severity: .+/severity: info/' /etc/prometheus/rules/*",
    )
    sh("master1", "monitoring-manage reload prometheus")
    yield
    sh("master1", "cp -p /tmp/rules/* /etc/prometheus/rules/ && monitoring-manage reload prometheus")


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_of_a_fleet_that_is_well_it_says_so_to_everybody(calm, master, user):
    """In a pipe, as here, without colours."""
    ask = f"runuser -u {user} -- monitoring-status"
    assert eventually(lambda: master(f"{ask} --quiet") == Answer(0, "", "")), master(ask).out
    out = master(ask).out
    assert out.startswith("master1: all is well\n") and "\x1b" not in out
    report = json.loads(master(f"{ask} --json").out)
    assert report["healthy"] and report["schema"] == 1
    assert {check["name"] for check in report["checks"] if check["kind"] == "service"} == {
        "prometheus",
        "alertmanager",
        "grafana",
        "node_exporter",
        "nginx",
        "gpufleet-certificate",
    }
    jobs = {check["name"]: check["total"] for check in report["checks"] if check["kind"] == "targets"}
    assert jobs == {job: sum(name == job for name, _ in FLEET) for job, _ in FLEET}


def test_on_a_terminal_it_has_colours_and_none_for_who_wants_none(master):
    command = "TERM=xterm {}script -qec monitoring-status /dev/null"
    assert "\x1b[32mok" in master(command.format("")).out
    assert "\x1b" not in master(command.format("NO_COLOR=1 ")).out


def test_a_service_is_stopped_and_that_is_said_and_started_again(master, checks):
    try:
        assert master("monitoring-manage stop grafana").code == 0
        assert master("monitoring-status --quiet") == Answer(1, "", "")
        assert "inactive" in checks()["service grafana"]["detail"]
    finally:
        started = master("monitoring-manage start grafana")
    assert started.code == 0, started
    assert "http 200" in started.out
    assert eventually(lambda: not checks())


def test_a_target_that_is_down_is_named_with_the_reason(sh, checks):
    sh("gpu2", "systemctl stop node_exporter")
    try:
        assert eventually(lambda: "targets node_exporter" in checks())
        assert "connection refused" in checks()["targets node_exporter"]["down"]["gpu2"]
    finally:
        sh("gpu2", "systemctl start node_exporter")
    assert eventually(lambda: not checks())


def test_a_prometheus_that_hangs_does_not_hang_it(sh, master, checks):
    sh("master1", "systemctl kill --signal STOP prometheus")
    try:
        begun = time.monotonic()
        answer = master("monitoring-status --timeout 2")
        assert time.monotonic() - begun < 5
    finally:
        sh("master1", "systemctl kill --signal CONT prometheus")
    assert answer.code == 1
    lines = [line.split()[:3] for line in answer.out.splitlines()]
    assert ["failed", "service", "prometheus"] in lines
    assert ["unknown", "targets"] in [line[:2] for line in lines]
    assert ["ok", "service", "grafana"] in lines
    assert eventually(lambda: not checks())


def test_a_configuration_that_is_refused_is_said_when_it_is_reloaded(sh, master, checks):
    run = sh("master1", same_run("prometheus"))
    sh("master1", "cp -p /etc/prometheus/prometheus.yml /tmp/ && echo broken >> /etc/prometheus/prometheus.yml")
    try:
        assert "older /etc/prometheus/prometheus.yml" in checks()["configuration prometheus"]["detail"]
        answer = master("monitoring-manage reload prometheus")
        assert (answer.code, "refuses the configuration" in answer.out) == (1, True), answer
    finally:
        sh("master1", "cp -p /tmp/prometheus.yml /etc/prometheus/")
    answer = master("monitoring-manage reload")
    assert answer.code == 0, answer
    assert "left as they are: gpufleet-certificate, grafana, node_exporter" in answer.err
    assert sh("master1", same_run("prometheus")) == run
    assert eventually(lambda: not checks())


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("monitoring-manage reload grafana", 2, "monitoring-manage restart grafana"),
        ("runuser -u nobody -- monitoring-manage stop", 2, "only root can stop services"),
        ("monitoring-manage build", 3, "gpufleet.monitoring.site"),
        ("monitoring-manage update", 3, "gpufleet.monitoring.site"),
        ("monitoring-manage logs grafana --lines 3", 0, "grafana"),
    ],
)
def test_what_it_does_not_do_it_says(master, command, code, words):
    answer = master(command)
    assert (answer.code, words in answer.out + answer.err) == (code, True), answer
