"""With TLS, whoever has no certificate of the fleet's learns nothing, and nobody waits for anybody else."""

from __future__ import annotations

import socket
import ssl
import time
import urllib.request

import pytest
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils import fleet_ca
from exporter import free_port
from gpufleet_lab.gpu import Machine


class Fleet:
    """An authority, and the certificates that it gives out."""

    def __init__(self, directory):
        self.directory = directory
        self.ca = fleet_ca.FleetCa(directory / "ca")
        self.worker = directory / "worker"
        self.renew()

    def renew(self):
        """Give the worker a new certificate, in the way of native_service: each file is replaced in one step."""
        self.put(self.worker, self._certificate("gpu1"))

    def put(self, path, certificate):
        for suffix, text in ((".pem", certificate.pem), (".ca", certificate.authorities)):
            fresh = path.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(path.with_suffix(suffix))

    def _certificate(self, host):
        for former in self.ca.directory.glob("hosts/*.pem"):
            former.unlink()
        addresses = [host] if ":" in host else ["127.0.0.1"]
        return self.ca.certificate(host, addresses, 90, may_create=True)[0]

    def client(self, host, ca=None):
        """What a host of the fleet, or with another authority's certificate, asks with."""
        certificate = self._certificate(host)
        path = self.directory / host
        self.put(path, certificate)
        context = ssl.create_default_context(cadata=certificate.authorities)
        if ca:
            self.put(path, ca.certificate(host, [], 90, may_create=True)[0])
        context.load_cert_chain(path.with_suffix(".pem"))
        return context

    @property
    def settings(self):
        pem = str(self.worker.with_suffix(".pem"))
        authorities = str(self.worker.with_suffix(".ca"))
        clients = ["master1", "gpu1", "fd00::9"]
        return {"cert_file": pem, "key_file": pem, "client_ca_file": authorities, "client_allowed_sans": clients}


@pytest.fixture
def fleet(tmp_path):
    return Fleet(tmp_path)


@pytest.fixture
def worker(exporter, fleet):
    """An exporter that speaks TLS, and a client that it lets in."""
    dcgm = {"port": free_port(), "address": "127.0.0.1"}
    return exporter(Machine.of("a100"), client=fleet.client("master1"), tls=fleet.settings, dcgm=dcgm)


def ask(worker, context, port=None):
    url = f"https://127.0.0.1:{port or worker.port}/metrics"
    with urllib.request.urlopen(url, timeout=5, context=context) as answer:
        return answer.read()


def dcgm_port(worker):
    return int(next(line for line in worker.log.splitlines() if "serves DCGM's families" in line).rpartition(":")[2])


def serial(worker, context):
    """Which certificate it shows to a new connection."""
    with (
        socket.create_connection(("127.0.0.1", worker.port), 5) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        return connection.getpeercert()["serialNumber"]


def test_who_has_a_certificate_is_served_on_both_ports(worker, fleet):
    served = {"gpu_exporter_dcgm_served": 1, "gpu_exporter_collector_up": 1}
    worker.wait(lambda metrics: all(set(metrics.values(name)) == {value} for name, value in served.items()))
    assert b"gpu_power_watts" in ask(worker, fleet.client("gpu1"))
    assert b"gpu_power_watts" in ask(worker, fleet.client("fd00::9"))  # which OpenSSL spells in another way
    assert b"DCGM_FI_DEV_GPU_TEMP" in ask(worker, fleet.client("gpu1"), dcgm_port(worker))


def expired(fleet, monkeypatch):
    context = fleet.client("master1")
    monkeypatch.setattr(fleet_ca, "HOST_DAYS", -0.5)
    fleet.put(fleet.directory / "late", fleet._certificate("master1"))
    context.load_cert_chain(fleet.directory / "late.pem")
    return context


STRANGERS = {
    "nothing": lambda fleet, _: ssl.create_default_context(cadata=fleet._certificate("x").authorities),
    "another worker's": lambda fleet, _: fleet.client("gpu2"),
    "another authority's": lambda fleet, _: fleet.client("master1", ca=fleet_ca.FleetCa(fleet.directory / "other")),
    "an expired one": expired,
}


def test_who_has_none_that_counts_is_not(worker, fleet, monkeypatch):
    worker.wait(lambda metrics: metrics.value("gpu_exporter_dcgm_served") == 1)
    for stranger in STRANGERS.values():
        context = stranger(fleet, monkeypatch)
        for port in (worker.port, dcgm_port(worker)):
            with pytest.raises(OSError, match=r"(?i)alert|closed|reset|EOF|handshake"):
                ask(worker, context, port)
    with pytest.raises(OSError, match=r"reset|closed|Remote end"):
        urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/metrics", timeout=5)
    worker.metrics()


def test_a_new_certificate_is_used_without_a_restart_or_a_lost_request(worker, fleet):
    context = fleet.client("master1")
    before = serial(worker, context)
    for _ in range(20):
        fleet.renew()
        worker.metrics()
    assert serial(worker, context) != before


def test_files_that_are_no_certificate_leave_the_former_one_in_use(worker, fleet):
    context = fleet.client("master1")
    before = serial(worker, context)
    fleet.worker.with_suffix(".pem").write_text("cut")
    assert serial(worker, context) == before
    assert "tls: what is in the files is not used" in worker.log
    fleet.renew()
    assert serial(worker, context) != before


def test_clients_that_are_slow_with_tls_hold_up_nobody(worker):
    """Also more of them than are served at a time."""
    idle = []
    try:
        for _ in range(300):
            idle.append(socket.create_connection(("127.0.0.1", worker.port), 5))
            idle[-1].send(b"\x16\x03")
        began = time.monotonic()
        worker.metrics()
        assert time.monotonic() - began < 4  # less than a handshake may take
    finally:
        for connection in idle:
            connection.close()


def test_without_its_files_it_does_not_start(exporter, fleet):
    """Rather than serve without TLS."""
    fleet.worker.with_suffix(".pem").unlink()
    with pytest.raises(AssertionError, match=r"gpu-exporter: tls: .*worker.pem: \[Errno 2\]"):
        exporter(Machine.of("a100"), client=fleet.client("master1"), tls=fleet.settings)
