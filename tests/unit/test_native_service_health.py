"""Health: an answer counts only if it comes from the service itself."""

from __future__ import annotations

import http.server
import os
import socket
import ssl
import threading

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service import health as healths
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.systemd import Systemd, UnitState
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils.fleet_ca import FleetCa


@pytest.fixture
def port():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(500 if self.path == "/ill" else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.server_port
    server.shutdown()


class FakeSystemd(Systemd):
    """Gives one prepared state after the other, the last one for ever."""

    def __init__(self, *states):
        super().__init__(lambda _words: (0, "", ""))
        self.states = list(states)

    def show(self, _unit):
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


RUNNING = UnitState("active", "running", "enabled", "success", 0)


def wait(systemd, url=None, command=(), timeout=1.0, run=None):
    health = healths.Health(url, tuple(command), timeout)
    return healths.wait(health, systemd, "demo.service", run or (lambda _words: (0, "", "")))


def test_who_asks_for_a_certificate_is_shown_one(tmp_path, port):
    """And is well only if it takes it."""
    ca, other = (FleetCa(tmp_path / name) for name in ("ours", "others"))
    files = {}
    for name, authority in (("host", ca), ("stranger", other)):
        found, _ = authority.certificate(name, ["127.0.0.1"], 90, may_create=True)
        files[name] = tmp_path / f"{name}.pem"
        files[name].write_text(found.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["host"])
    context.load_verify_locations(tmp_path / "ours/ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}/"
        assert "does not answer" in answer(url, None)
        assert "does not answer" in answer(url, files["stranger"])
        assert "does not answer" in answer(url, tmp_path / "none.pem")
        # It answers as this process, which is not the unit: the certificate was taken.
        assert "belongs to another service" in answer(url, files["host"])
        server.shutdown()


def answer(url, certificate):
    health = healths.Health(url, (), 1.0, certificate and str(certificate))
    return healths.probe(health, "demo.service", lambda _words: (0, "", ""))


def test_the_kernel_tells_who_listens(port):
    (owner,) = healths.listeners("127.0.0.1", port)
    assert owner.pid == os.getpid()
    assert healths.listeners("127.0.0.1", 1) == []


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_who_has_all_addresses_answers_on_each(address):
    with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
        (owner,) = healths.listeners("127.0.0.1" if "." in address else "::1", server.getsockname()[1])
        assert owner.pid == os.getpid()


def test_a_stranger_on_another_address_of_the_port_does_no_harm(port):
    """docker-proxy may have 127.0.0.1 of a port, and an exporter the address of the private network."""
    with socket.create_server(("127.0.0.2", port)):
        assert len(healths.listeners("127.0.0.2", port)) == 1
    assert healths.listeners("127.0.0.2", port) == []


def died(restarts):
    return UnitState("activating", "auto-restart", "enabled", "exit-code", restarts)


@pytest.mark.parametrize(
    ("states", "well"),
    [
        ([RUNNING], True),
        ([RUNNING, UnitState("activating", "start", "enabled", "success", 0), RUNNING], True),
        # It dies 0.3 s after each start, and happens to run when it is looked at.
        ([RUNNING, RUNNING, RUNNING._replace(restarts=1)], False),
        ([RUNNING, died(1), RUNNING._replace(restarts=1)], False),
        ([RUNNING, UnitState("failed", "failed", "enabled", "exit-code", 0)], False),
    ],
)
def test_without_a_health_check_a_service_has_to_stay_up(monkeypatch, states, well):
    monkeypatch.setattr(healths, "SETTLE", 0)
    reason = healths.wait(None, FakeSystemd(*states), "demo.service", lambda _words: (0, "", ""))
    assert (reason is None) == well, reason


def test_an_answer_of_another_program_is_not_the_services(port):
    reason = wait(FakeSystemd(RUNNING), f"http://127.0.0.1:{port}/")
    assert f"port {port} belongs to another service" in reason
    assert str(os.getpid()) in reason


def test_an_answer_of_the_service_counts(port, monkeypatch):
    monkeypatch.setattr(healths, "_unit", lambda _process: "demo.service")
    assert wait(FakeSystemd(RUNNING), f"http://127.0.0.1:{port}/") is None


def test_an_error_status_is_not_an_answer(port):
    assert "500" in wait(FakeSystemd(RUNNING), f"http://127.0.0.1:{port}/ill", timeout=0.1)


def test_a_proxy_of_the_environment_is_not_asked(port, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setattr(healths, "_unit", lambda _process: "demo.service")
    assert wait(FakeSystemd(RUNNING), f"http://127.0.0.1:{port}/") is None


def test_nobody_listening_is_a_reason():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        reason = wait(FakeSystemd(RUNNING), f"http://127.0.0.1:{free.getsockname()[1]}/", timeout=0.1)
    assert "does not answer" in reason


def test_a_service_that_failed_is_not_waited_for():
    failed = UnitState("failed", "failed", "enabled", "exit-code", 0)
    assert "failed (exit-code)" in wait(FakeSystemd(failed), "http://127.0.0.1:1/", timeout=3600)


def test_a_service_that_keeps_dying_is_not_waited_for():
    dying = [UnitState("activating", "auto-restart", "enabled", "exit-code", restarts) for restarts in range(3)]
    assert "again and again" in wait(FakeSystemd(*dying), "http://127.0.0.1:1/", timeout=3600)


def test_restarts_of_long_ago_do_not_count():
    assert wait(FakeSystemd(RUNNING._replace(restarts=7)), command=["true"]) is None


def test_a_service_may_take_its_time():
    starting = UnitState("activating", "start", "enabled", "success", 0)
    assert wait(FakeSystemd(starting, starting, RUNNING), command=["true"]) is None


def test_the_command_decides_and_its_words_are_the_reason():
    reason = wait(FakeSystemd(RUNNING), command=["check"], timeout=0.1, run=lambda _words: (3, "", "no key\n"))
    assert reason == "the health command exited with 3: no key"


def test_a_command_that_hangs_is_ended():
    def run(words):
        assert words[0] == "timeout"
        return 124, "", ""

    assert "did not end within 0.1 s" in wait(FakeSystemd(RUNNING), command=["check"], timeout=0.1, run=run)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/system.slice/demo.service\n", "demo.service"),
        ("0::/system.slice/docker-0123.scope\n", "docker-0123.scope"),
        ("12:pids:/x\n1:name=systemd:/system.slice/demo.service\n0::/\n", "demo.service"),
        ("0::/user.slice/user-0.slice/session-1.scope\n", "session-1.scope"),
        ("0::/\n", "no unit"),
    ],
)
def test_the_unit_is_read_from_either_control_group_hierarchy(tmp_path, text, unit):
    (tmp_path / "cgroup").write_text(text)
    assert healths._unit(tmp_path) == unit
