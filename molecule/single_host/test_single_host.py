"""A server that is worker and master at once watches itself, and nobody else gets at what it says."""

from __future__ import annotations

import json
import socket

import pytest
from gpufleet_lab.playbook import run_playbook
from gpufleet_lab.waiting import eventually

HOST = "gpu-server"
ASK_FOR_TARGETS = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9090/api/v1/targets').read().decode())"
JOBS = ("node_exporter", "gpu_exporter", "dcgm_exporter", "prometheus", "alertmanager", "grafana")
# python3 runs the GPU exporter, which serves DCGM's port, too: there is no GPU here.
PORTS = {
    **{9100: "node_exporter", 9090: "prometheus", 9093: "alertmanager", 3000: "grafana"},
    **{9500: "python3", 9400: "python3"},
}


@pytest.fixture
def targets(sh):
    """(job, instance) -> health of Prometheus' targets, asked on the host itself."""

    def ask() -> dict[tuple[str, str], str]:
        found = json.loads(sh(HOST, f'python3 -c "{ASK_FOR_TARGETS}"'))["data"]["activeTargets"]
        return {(target["labels"]["job"], target["labels"]["instance"]): target["health"] for target in found}

    return ask


def test_it_watches_itself(targets):
    all_up = {(job, HOST): "up" for job in JOBS}
    assert eventually(lambda: targets() == all_up, 40), targets()


def test_monitoring_status_looks_at_all_that_is_installed(sh):
    report = json.loads(sh(HOST, "monitoring-status --json", check=False))
    states = {check["name"]: check["state"] for check in report["checks"] if check["kind"] == "service"}
    assert states == dict.fromkeys(["node_exporter", "gpu_exporter", "prometheus", "alertmanager", "grafana"], "ok")


def test_a_server_without_a_gpu_or_driver_says_so_and_is_well(sh):
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9500/metrics').read().decode())"
    metrics = sh(HOST, f'python3 -c "{ask}"').splitlines()
    assert "dc_exporter_gpu_count 0.0" in metrics
    assert 'gpu_nvml_up{reason="no_library"} 0.0' in metrics
    assert 'gpu_exporter_collector_up{collector="gpu"} 1.0' in metrics
    assert sh(HOST, "systemctl is-active gpu_exporter") == "active"


def test_only_ssh_listens_beyond_the_host(sh):
    beyond, within = set(), {}
    for line in sh(HOST, "ss --no-header --listening --tcp --udp --numeric --processes").splitlines():
        _, _, _, _, local, _, *users = line.split()
        address, _, port = local.rpartition(":")
        program = users[0].split('"')[1] if users else local
        if program == "systemd-resolve" and address == "127.0.0.53%lo":
            continue  # Ubuntu's own
        if address in ("127.0.0.1", "[::1]"):
            within[int(port)] = program
        else:
            beyond.add(program)
    assert beyond == {"sshd"}
    assert within == PORTS


@pytest.mark.parametrize("port", PORTS)
def test_nobody_else_reaches_a_service(lab, port):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((lab.hosts[HOST].address, port), timeout=5)


def test_node_exporter_is_deployed_once(sh):
    done = run_playbook("site", "--tags", "node_exporter")
    assert done.rc == 0, done.messages()
    tasks = done.of(HOST, "Node_exporter is started")
    assert [task.get("skipped", False) for task in tasks] == [False, True]  # as a worker; not as the master again
    assert sh(HOST, "pgrep --count --exact node_exporter") == "1"
