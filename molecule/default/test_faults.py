"""Hosts and services fail."""

from __future__ import annotations

import json

import pytest
from fleet import all_up
from gpufleet_lab.waiting import eventually

# With new connections, of which it is known after 5 s that nobody answers; those that are held want 30.
IMPATIENT = {"ansible_ssh_args": "-o ControlMaster=no -o ControlPath=none"}


def test_a_worker_that_cannot_be_reached_keeps_its_target_and_holds_nobody_up(play, lab, prometheus):
    lab.hosts["gpu2"].plug(connected=False)
    try:
        done = play("site", "--tags", "node_exporter,prometheus", "-e", json.dumps(IMPATIENT))
        assert done.stats["gpu2"]["unreachable"] == 1
        assert all(not counts["failures"] for counts in done.stats.values())
        assert done.stats["master1"]["ok"] > 0
        assert eventually(lambda: prometheus.targets()["node_exporter", "gpu2"]["health"] == "down")
    finally:
        lab.hosts["gpu2"].plug(connected=True)
    assert eventually(lambda: all_up(prometheus))


@pytest.mark.parametrize(
    ("host", "service"), [("gpu1", "node_exporter"), ("gpu3", "node_exporter"), ("master1", "prometheus")]
)
def test_a_killed_service_is_back_within_seconds(sh, host, service):
    pid = sh(host, f"systemctl show -P MainPID {service}")
    sh(host, f"kill -KILL {pid}")
    assert eventually(lambda: sh(host, f"systemctl show -P MainPID {service}") not in ("0", pid), 5)
    assert eventually(lambda: sh(host, f"systemctl is-active {service}", check=False) == "active", 5)


@pytest.mark.parametrize("host", ["master1", "gpu3"])
def test_after_a_reboot_all_services_are_up(lab, prometheus, host):
    def started():
        """When node_exporter was started, in microseconds since the boot: the kernel's boot id is shared here."""
        return lab.ssh(host, "systemctl show -P ActiveEnterTimestampMonotonic -P MainPID node_exporter").stdout

    before = started()
    lab.ssh(host, "systemctl reboot")
    assert eventually(lambda: (now := started()) and now != before, 60)
    assert eventually(lambda: all_up(prometheus), 60), prometheus.targets()
