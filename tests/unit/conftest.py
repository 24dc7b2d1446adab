from __future__ import annotations

import http.server
import ssl
import threading

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service import release as releases
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils.fleet_ca import FleetCa


class Server:
    """Serves ``files``; ``cuts`` answers break off half-way, ``statuses`` are given before anything else."""

    def __init__(self, context: ssl.SSLContext | None = None):
        self.files: dict[str, bytes] = {}
        self.cuts = 0
        self.statuses: list[int] = []
        self.requests: list[tuple[str, str | None]] = []
        self.etag = '"1"'
        self.redirects: dict[str, str] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.scheme = "https" if context else "http"
        if context:
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def base(self):
        return f"{self.scheme}://127.0.0.1:{self.http.server_port}"

    def answer(self, handler):
        name = handler.path.lstrip("/")
        self.requests.append((name, handler.headers.get("Range")))
        if self.statuses:
            return handler.send_error(self.statuses.pop(0))
        if name in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[name])
            return handler.end_headers()
        if name not in self.files:
            return handler.send_error(404)
        body, first = self.files[name], 0
        if handler.headers.get("Range") and handler.headers.get("If-Range") == self.etag:
            first = int(handler.headers["Range"][6:-1])
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        else:
            handler.send_response(200)
        handler.send_header("ETag", self.etag)
        handler.send_header("Content-Length", str(len(body) - first))
        handler.end_headers()
        rest = body[first:]
        if self.cuts and not name.endswith(".txt"):
            self.cuts -= 1
            rest = rest[: len(rest) // 2]
        handler.wfile.write(rest)
        return None


@pytest.fixture
def server(monkeypatch):
    """A server of releases, by HTTP; whoever asks it again does not wait."""
    monkeypatch.setattr(releases.time, "sleep", lambda _seconds: None)
    server = Server()
    yield server
    server.http.shutdown()


@pytest.fixture
def secure(server, tmp_path, monkeypatch):
    """A second server, by HTTPS, whose certificate is trusted here."""
    found, _ = FleetCa(tmp_path / "ca").certificate("host", ["127.0.0.1"], 90, may_create=True)
    (tmp_path / "host.pem").write_text(found.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca/ca.crt"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "host.pem")
    secure = Server(context)
    yield secure
    secure.http.shutdown()
