"""Whether nginx serves what was just written: which server is asked for it, and which complaints are repeated."""

from __future__ import annotations

import importlib.util
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from gpufleet_lab.authority import Authority

PROGRAM = Path(__file__).resolve().parents[2] / "roles/nginx/files/health.py"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """health.py, with a log of its own."""
    spec = importlib.util.spec_from_file_location("nginx_health", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LOG", tmp_path / "error.log")
    return module


@pytest.fixture
def nginx(tmp_path):
    """A stand-in that serves revision "new" where nobody has the name it is asked for; returns its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404 if self.headers["Host"].startswith("127.0.0.1") else 200)
            self.end_headers()
            self.wfile.write(b"no such page" if self.headers["Host"].startswith("127.0.0.1") else b"new\n")

        def log_message(self, *arguments):
            pass

    ours = Authority(tmp_path / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours.certificate, ours.key("ca"))
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(program, nginx, monkeypatch, capsys):
    def asked(revision, port=nginx):
        monkeypatch.setattr(program.sys, "argv", ["health.py", "127.0.0.1", str(port), revision])
        return program.main(), capsys.readouterr().err

    return asked


def test_the_default_server_is_asked_even_where_the_address_is_the_name_of_another(ask):
    assert ask("new") == (0, "")
    assert ask("newer")[0] == 1


def test_what_nginx_says_is_repeated_unless_it_is_old(ask, program):
    def line(age, text):
        return f"{time.strftime('%Y/%m/%d %H:%M:%S', time.localtime(time.time() - age))} [emerg] 1#1: {text}\n"

    program.LOG.write_text(line(86400, "of yesterday") + line(2, "bind() failed"))
    code, said = ask("newer")
    assert code == 1
    assert "bind() failed" in said
    assert "of yesterday" not in said
