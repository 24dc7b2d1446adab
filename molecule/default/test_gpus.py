"""GPUs of the fleet, as an operator sees them in Prometheus: what they read, who has them, and what goes wrong."""

from __future__ import annotations

import json

import pytest
from gpufleet_lab.waiting import eventually


@pytest.mark.parametrize(
    ("host", "model", "source"),
    [("gpu1", "NVIDIA A100-SXM4-40GB", "nvml"), ("gpu2", "NVIDIA GeForce RTX 4090", "nvapi")],
)
def test_temperatures_come_from_the_best_source_of_each_card(prometheus, host, model, source):
    def vram():
        return prometheus.query(f'DCGM_FI_DEV_VRAM_TEMP{{instance="{host}", gpu="0"}}')

    assert eventually(vram)
    (series,) = vram()
    assert (series["metric"]["modelName"], series["metric"]["source"]) == (model, source)
    assert series["metric"]["gpus"] == "simulated"
    assert 55 < float(series["value"][1]) < 95


def test_who_has_which_gpu(prometheus):
    def holders():
        found = prometheus.query('ds01_gpu_allocated{instance="gpu1"}')
        return {(one["metric"]["gpu_slot"], one["metric"]["user"], one["metric"]["interface"]) for one in found}

    expected = {("0", "alice", "orchestration"), ("1.0", "vastai", "docker"), ("1.2", "bob", "atomic")}
    assert eventually(lambda: holders() == expected), holders()
    counts = prometheus.query('sum(ds01_containers_total{instance="gpu1", status="running"})')
    assert counts[0]["value"][1] == "4"


def test_a_container_that_ends_gives_its_gpu_back(prometheus, sh):
    def held():
        return prometheus.query('ds01_gpu_allocated{instance="gpu1", container="C.4711"}')

    assert eventually(held)
    sh("gpu1", "docker stop -t 0 C.4711")
    try:
        assert eventually(lambda: not held())
    finally:
        sh("gpu1", "docker start C.4711")
    assert eventually(held)


def test_docker_that_is_down_or_hangs_is_said_and_hides_no_gpu(value, sh):
    sh("gpu1", "systemctl stop docker.service docker.socket")
    try:
        assert eventually(lambda: value('count(ds01_gpu_allocated{instance="gpu1"})') is None, 30)
        assert value('gpu_power_watts{instance="gpu1", gpu="0"}') > 0
    finally:
        sh("gpu1", "systemctl start docker.socket docker.service")
    assert eventually(lambda: value('count(ds01_gpu_allocated{instance="gpu1"})') == 3)
    pid = sh("gpu1", "systemctl show -P MainPID docker")
    sh("gpu1", f"kill -STOP {pid}")
    try:
        up = 'gpu_exporter_collector_up{instance="gpu1", collector="%s"}'
        assert eventually(lambda: value(up % "allocations") == 0, 30)
        assert value(up % "gpu") == 1
    finally:
        sh("gpu1", f"kill -CONT {pid}")
    assert eventually(lambda: value('count(ds01_gpu_allocated{instance="gpu1"})') == 3, 30)


def test_docker_that_may_not_be_asked_is_said(value, sh):
    sh("gpu1", "chgrp root /run/docker.sock")
    try:
        up = 'gpu_exporter_collector_up{instance="gpu1", collector="%s"}'
        assert eventually(lambda: value(up % "allocations") == 0, 30)
        assert value(up % "gpu") == 1
        assert "ermission denied" in sh("gpu1", "journalctl -u gpu_exporter -n 20 -o cat")
    finally:
        sh("gpu1", "chgrp docker /run/docker.sock")
    assert eventually(lambda: value('count(ds01_gpu_allocated{instance="gpu1"})') == 3)


def test_a_job_without_a_container_is_its_users(prometheus, gpus, sh):
    sh("gpu3", "id carol >/dev/null 2>&1 || useradd carol; systemd-run --quiet --uid carol --unit job sleep 1000")
    try:
        gpus("gpu3").add_process(0, int(sh("gpu3", "systemctl show -P MainPID job")))

        def holders():
            return [one["metric"] for one in prometheus.query('ds01_gpu_allocated{instance="gpu3"}')]

        assert eventually(lambda: [one["user"] for one in holders()] == ["carol"]), holders()
        assert holders()[0]["interface"] == "bare_metal"
    finally:
        sh("gpu3", "systemctl stop job; userdel carol", check=False)


def test_a_gpu_that_falls_off_the_bus_is_seen_by_prometheus_and_the_others_stay(value, gpus):
    machine = gpus("gpu3")
    assert eventually(lambda: value('gpu_state{instance="gpu3", gpu="1", state="ok"}') == 1)
    with machine.together():
        machine.lose(1)
        machine.xid(1, 79)
    assert eventually(lambda: value('gpu_state{instance="gpu3", gpu="1", state="lost"}') == 1)
    assert eventually(lambda: value('increase(gpu_xid_errors_total{instance="gpu3", gpu="1", xid="79"}[1m])') > 0)
    assert value('dc_exporter_gpu_available{instance="gpu3", gpu="1"}') == 0
    assert value('dc_exporter_gpu_available{instance="gpu3", gpu="0"}') == 1
    assert value('gpu_power_watts{instance="gpu3", gpu="0"}') > 0
    assert value('up{instance="gpu3", job="gpu_exporter"}') == 1


def test_a_killed_exporter_is_back_within_seconds(value, sh):
    sh("gpu2", "kill -KILL $(systemctl show -P MainPID gpu_exporter)")
    assert eventually(lambda: sh("gpu2", "systemctl show -P NRestarts gpu_exporter") != "0")
    assert eventually(lambda: value('gpu_power_watts{instance="gpu2", gpu="0"}') is not None)
    assert sh("gpu2", "pgrep -c -f gpu-exporter.pyz") == "2"  # the sampler of the killed one is gone


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"gpu": {"intervall": 5}}, "unknown key in [gpu]: intervall; did you mean interval?"),
        ({"paths": {"sysfs": 5}}, "paths.sysfs wants a string"),
    ],
)
def test_a_wrong_configuration_is_refused_and_the_old_one_stays(play, sh, config, says):
    before = sh("gpu2", "cat /etc/gpu_exporter/config.toml; systemctl show -P InvocationID gpu_exporter")
    variables = json.dumps({"gpu_exporter_config": config})
    done = play("site", "--limit", "gpu2", "--tags", "gpu_exporter", "-e", variables)
    assert done.rc != 0
    assert says in done.messages()
    assert sh("gpu2", "cat /etc/gpu_exporter/config.toml; systemctl show -P InvocationID gpu_exporter") == before


def test_what_cannot_start_is_rolled_back(play, sh):
    """A setting that is fine in itself and cannot work here: somebody else has the port."""
    before = sh("gpu2", "cat /etc/gpu_exporter/config.toml")
    arguments = ["--limit", "gpu2", "--tags", "gpu_exporter", "-e", '{"gpu_exporter_port": 22}']
    done = play("site", *arguments)
    assert done.rc != 0
    assert sh("gpu2", "cat /etc/gpu_exporter/config.toml") == before
    assert sh("gpu2", "systemctl is-active gpu_exporter") == "active"


def test_rights_are_given_with_what_needs_them_only(sh):
    """gpu3 reads NVML alone; gpu2 opens registers; gpu1 talks to Docker."""
    assert sh("gpu3", "systemctl show -P CapabilityBoundingSet gpu_exporter") == ""
    assert sh("gpu3", "systemctl show -P SupplementaryGroups gpu_exporter") == ""
    assert sh("gpu2", "systemctl show -P CapabilityBoundingSet gpu_exporter") == "cap_dac_read_search"
    assert sh("gpu1", "systemctl show -P SupplementaryGroups gpu_exporter") == "docker"
    for host in ("gpu1", "gpu2", "gpu3"):
        pid = sh(host, "systemctl show -P MainPID gpu_exporter")
        assert sh(host, f"ps -o user= -p {pid}") != "root"
