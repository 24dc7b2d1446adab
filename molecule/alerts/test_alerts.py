"""A thing goes wrong on a host: somebody hears of it, once, and hears when it is over."""

from __future__ import annotations

import time

import pytest
from fleet import SECONDS
from gpufleet_lab.waiting import eventually


def test_a_gpu_that_overheats(incident, gpus, calm):
    """Above the limit of the warning, too, which is not said beside the critical alert."""
    machine = gpus["gpu2"]
    hot = incident("GPU overheats")
    machine.heat(0, core=93)
    (mail,) = hot.told("DS01GPUCriticalTemperature", "gpu2")
    assert "[CRITICAL] lab: gpu2, GPU 0" in mail["subject"]
    assert "93 °C" in mail["subject"]
    time.sleep(3 * SECONDS)
    calm("gpu2")
    hot.over("DS01GPUCriticalTemperature")


def test_a_gpu_that_falls_off_the_bus_with_its_xid_error_is_one_message(incident, gpus, calm, sh):
    machine = gpus["gpu2"]
    lost = incident("GPU falls off the bus")
    with machine.together():
        machine.lose(0)
        machine.xid(0, 79)
    (mail,) = lost.told("GPULost", "gpu2")
    assert "[CRITICAL] lab: gpu2, GPU 0" in mail["subject"]
    assert "is lost" in mail["subject"]
    time.sleep(3 * SECONDS)
    calm("gpu2")
    sh("gpu2", "systemctl restart gpu_exporter")  # as a reboot does; by itself it looks again after two minutes
    lost.over("GPULost")


def test_an_xid_error_of_a_gpu_that_is_still_there(incident, gpus):
    machine = gpus["gpu1"]
    error = incident("XID 79")
    machine.xid(0, 79)
    (mail,) = error.told("GPUXidCritical", "gpu1")
    assert "XID 79" in mail["subject"]
    assert "fallen off the bus" in mail["text"]
    error.over("GPUXidCritical")


def test_a_container_that_idles_on_its_gpu(incident, gpus, calm):
    """alice's; the others on this host have MIG instances."""
    machine = gpus["gpu1"]
    idle = incident("container idles on its GPU")
    machine.set(0, "utilization.gpu", "0")
    (mail,) = idle.told("DS01GPUWaste", "gpu1")
    assert "alice" in mail["subject"]
    assert "User: alice" in mail["text"]
    calm("gpu1")
    idle.over("DS01GPUWaste")


def test_a_service_that_is_stopped(incident, sh):
    stopped = incident("gpu_exporter is stopped")
    sh("gpu2", "systemctl stop gpu_exporter")
    stopped.told("DS01ExporterDown", "gpu2")
    time.sleep(3 * SECONDS)
    sh("gpu2", "systemctl start gpu_exporter")
    stopped.over("DS01ExporterDown")


def test_a_host_without_power_is_one_message_and_not_one_for_each_service(incident, lab):
    dead = incident("host without power")
    lab.hosts["gpu2"].kill()
    (mail,) = dead.told("NodeDown", "gpu2")
    assert mail["subject"] == "[CRITICAL] lab: gpu2 is down"
    time.sleep(5 * SECONDS)
    lab.boot()
    lab.wait()
    dead.over("NodeDown")


def test_a_mail_server_that_refuses_is_told_by_the_other_way_and_nothing_is_lost(incident, sh, post, gpus, calm):
    """Alertmanager itself cannot say by mail that mail fails."""
    machine = gpus["gpu2"]
    sh("mail", "echo '450 4.2.1 greylisted, come again' > /var/inbox.refused")
    refused = incident("mail server refuses")
    machine.heat(0, core=93)
    try:
        assert eventually(lambda: post.calls(refused.begun, words="AlertmanagerNotificationsFailing"), 90)
    finally:
        sh("mail", "rm /var/inbox.refused")
    assert eventually(lambda: post.mails(refused.begun, "DS01GPUCriticalTemperature"), 90)
    calm("gpu2")


def test_the_dead_mans_switch_is_called_again_and_again(post):
    assert eventually(lambda: len(post.calls(0, "/alive")) > 2, 150)


@pytest.mark.parametrize("host", ["master1", "master2"])
def test_secrets_are_where_nobody_finds_them(sh, host):
    for secret in ("correct horse", "mail.lab.invalid:8000"):
        found = sh(host, f"grep -rl '{secret}' /etc/alertmanager /etc/systemd /run/systemd/system || true").split()
        assert all(path.startswith("/etc/alertmanager/secrets/") for path in found), found
        assert sh(host, f"journalctl --no-pager | grep -c '{secret}' || true") == "0"
        assert secret not in sh(host, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert set(sh(host, "stat -c '%a %U' /etc/alertmanager/secrets/*").splitlines()) == {"600 root"}
