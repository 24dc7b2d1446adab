"""DCGM's families are on DCGM's port, from DCGM or from this exporter: never from both, never from neither."""

from __future__ import annotations

import http.client
import socket
import time
import urllib.error

import pytest
from exporter import Metrics, free_port
from gpufleet_lab.gpu import Machine

UNIT = "nvidia-dcgm-exporter.service"


class Worker:
    """An exporter, and systemd's notes beside it."""

    def __init__(self, exporter, directory, port):
        self.port = port
        self._wants = directory / "systemd" / "multi-user.target.wants"
        self._wants.mkdir(parents=True)
        self.exporter = exporter(Machine.of("a100"), dcgm={"port": port, "address": "127.0.0.1"})

    def enable_dcgm(self):
        """What `systemctl enable` does."""
        (self._wants / UNIT).symlink_to(f"/usr/lib/systemd/system/{UNIT}")

    def disable_dcgm(self):
        (self._wants / UNIT).unlink()

    def mask_dcgm(self):
        (self._wants.parent / UNIT).symlink_to("/dev/null")

    def served(self, wanted, seconds=10):
        """Wait until DCGM's families are served, or are not."""
        end = time.monotonic() + seconds
        while self._serves() != wanted:
            assert time.monotonic() < end, self.exporter.log
            time.sleep(0.1)

    def _serves(self):
        try:
            return bool(Metrics(self.exporter.get("/metrics", self.port)[1]).values("DCGM_FI_DEV_GPU_TEMP"))
        except (OSError, urllib.error.URLError):
            return False


@pytest.fixture
def worker(exporter, tmp_path):
    return Worker(exporter, tmp_path, free_port())


def test_the_port_has_dcgms_families_and_nothing_else(worker):
    worker.served(True)
    there = Metrics(worker.exporter.get("/metrics", worker.port)[1])
    here = worker.exporter.wait(lambda metrics: metrics.value("gpu_exporter_dcgm_served") == 1)
    assert there.values("DCGM_FI_DEV_XID_ERRORS") == [0]
    assert there.values("gpu_power_watts") == []
    assert not {family.name for family in there.families} & {family.name for family in here.families}


def test_the_port_is_left_to_dcgm_when_its_unit_is_enabled(worker):
    worker.served(True)
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=5)
    connection.request("GET", "/metrics")
    assert b"DCGM_FI_DEV_GPU_TEMP" in connection.getresponse().read()  # Prometheus stays connected like this
    worker.enable_dcgm()
    metrics = worker.exporter.wait(lambda metrics: metrics.value("gpu_exporter_dcgm_served") == 0)
    with pytest.raises((OSError, http.client.HTTPException)):
        connection.request("GET", "/metrics")
        connection.getresponse()
    with socket.create_server(("127.0.0.1", worker.port)):
        pass  # as DCGM will
    assert metrics.values("DCGM_FI_DEV_GPU_TEMP") == []
    assert metrics.values("gpu_power_watts")
    assert worker.exporter.health()[0] == 200


@pytest.mark.parametrize("ended", [Worker.disable_dcgm, Worker.mask_dcgm])
def test_the_port_is_served_again_without_dcgm(worker, ended):
    worker.enable_dcgm()
    worker.served(False)
    ended(worker)
    worker.served(True)


def test_a_port_that_somebody_else_has_is_taken_when_it_is_free(exporter, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        worker = Worker(exporter, tmp_path, other.getsockname()[1])
        worker.exporter.wait(lambda metrics: metrics.values("gpu_power_watts"))
        time.sleep(1.2)  # it looks again, and says nothing more
        assert worker.exporter.metrics().value("gpu_exporter_dcgm_served") == 0
        assert worker.exporter.log.count("cannot serve DCGM's families on 127.0.0.1") == 1
    worker.served(True)


def test_without_a_port_of_their_own_they_are_left_to_dcgm_too(exporter, tmp_path):
    worker = Worker(exporter, tmp_path, 0)
    worker.exporter.wait(lambda metrics: metrics.values("DCGM_FI_DEV_GPU_TEMP"))
    worker.enable_dcgm()
    metrics = worker.exporter.wait(lambda metrics: not metrics.values("DCGM_FI_DEV_GPU_TEMP"))
    assert metrics.values("DCGM_FI_DEV_XID_ERRORS") == []
    assert metrics.value("gpu_exporter_dcgm_served") == 0
