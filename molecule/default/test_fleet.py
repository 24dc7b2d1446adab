"""What is watched is what the inventory says; the services are locked in, and measure the whole host all the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fleet import EVERYWHERE, all_up
from gpufleet_lab.playbook import run_playbook
from gpufleet_lab.waiting import eventually

COMPARE = Path(__file__).with_name("compare_sandbox.sh").read_text()
# A mount that only its user may enter, and one below a directory that only its user may enter.
ALICE = "mkdir -p /home/alice && mount -t tmpfs -o mode=700,size=3M none /home/alice"
BOB = "mkdir -p /home/bob/data && chmod 700 /home/bob && mount -t tmpfs none /home/bob/data"


def test_exactly_the_hosts_of_the_inventory_are_watched_and_up(prometheus):
    assert eventually(lambda: all_up(prometheus)), prometheus.targets()


def test_series_carry_the_names_and_labels_of_the_inventory(prometheus):
    targets = prometheus.targets()
    labels = {"job": "node_exporter", "instance": "gpu1", "site": "lab", "rack": "r1", "gpus": "simulated"}
    assert targets["node_exporter", "gpu1"]["labels"] == labels
    assert "rack" not in targets["node_exporter", "gpu2"]["labels"]  # an empty label is none


@pytest.mark.parametrize("role", ["node_exporter", "dcgm", "gpu_exporter"])
def test_a_role_costs_a_worker_at_most_five_tasks(fleet, role):
    done = run_playbook("gpu_workers", "--limit", "gpu1", "--tags", role, inventory=fleet)
    checks = [task for task in done.of("gpu1") if "validate_args_context" in task]  # each role has one, in every run
    assert len(done.of("gpu1")) - len(checks) + 1 <= 5


@pytest.mark.parametrize("host", EVERYWHERE)
def test_services_are_locked_in(sh, host):
    own = ["prometheus", "alertmanager", "grafana"] if host == "master1" else ["gpu_exporter"]
    for service in ["node_exporter", *own]:
        verdict = sh(host, f"systemd-analyze security {service} --no-pager | tail -1")
        assert float(re.search(r"level for \S+: ([0-9.]+)", verdict)[1]) <= 2.0, verdict
        pid = sh(host, f"systemctl show -P MainPID {service}")
        assert sh(host, f"ps -o user= -p {pid}") != "root"
        if (host, service) != ("gpu2", "gpu_exporter"):  # it opens registers
            assert sh(host, f"grep CapEff /proc/{pid}/status").split()[1] == "0000000000000000"


@pytest.mark.parametrize("host", ["gpu1", "gpu3"])
def test_the_sandbox_does_not_change_what_is_measured(sh, host):
    sh(host, ALICE)
    try:
        found = json.loads(sh(host, f"bash -s <<'END'\n{COMPARE}\nEND\n"))
    finally:
        sh(host, "umount /home/alice; rmdir /home/alice", check=False)
    assert found["only_sandboxed"] == found["only_plain"] == found["different"] == []
    assert found["compared"] > 50


def test_what_only_root_may_see_is_measured_where_it_is_asked_for(prometheus, sh, play):
    def bobs_disk():
        return prometheus.query('node_filesystem_size_bytes{instance="gpu1", mountpoint="/home/bob/data"}')

    sh("gpu1", BOB)
    try:
        assert eventually(lambda: prometheus.query('node_filesystem_device_error{mountpoint="/home/bob/data"} == 1'))
        assert not bobs_disk()
        arguments = ["--limit", "gpu1", "--tags", "node_exporter", "-e", '{"node_exporter_read_all": true}']
        assert play("gpu_workers", *arguments).rc == 0
        assert eventually(bobs_disk)
    finally:
        sh("gpu1", "umount /home/bob/data; rm -r /home/bob", check=False)
