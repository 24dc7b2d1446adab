"""Serves what is in memory. No request ever waits for a driver."""

from __future__ import annotations

import json
import socket
import threading
import typing as t
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from . import exposition
from .supervisor import own_families

if t.TYPE_CHECKING:
    from .config import Server
    from .supervisor import Supervisor

_CONNECTIONS = 128
"""Served at the same time; further ones are closed. Prometheus needs one."""

_INDEX = b"gpu-exporter: see /metrics and /health\n"


class Pages:
    """What there is to read."""

    def __init__(self, supervisor: Supervisor, build_info: bytes) -> None:
        self._supervisor = supervisor
        self._build_info = build_info

    def get(self, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body of a path."""
        path = path.partition("?")[0]
        if path == "/metrics":
            own = exposition.render(own_families(self._supervisor))
            body = b"".join([self._build_info, own, *self._supervisor.readings.fresh()])
            return 200, exposition.CONTENT_TYPE, body
        if path == "/health":
            return self._health()
        if path == "/":
            return 200, "text/plain; charset=utf-8", _INDEX
        return 404, "text/plain; charset=utf-8", b"not found\n"

    def _health(self) -> tuple[int, str, bytes]:
        """Well is who samples: that there is no GPU, or no driver, is for the metrics to say."""
        readings = self._supervisor.readings
        collectors = {
            name: {"fresh": readings.is_fresh(name, reading), "error": reading.error}
            for name, reading in readings.all().items()
        }
        well = any(collector["fresh"] for collector in collectors.values())
        body = json.dumps({"status": "ok" if well else "no fresh readings", "collectors": collectors}).encode() + b"\n"
        return (200 if well else 503), "application/json", body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "gpu-exporter", ""
    timeout = 70.0  # seconds of silence; Prometheus keeps its connection from one scrape to the next
    disable_nagle_algorithm = True
    pages: Pages

    def do_GET(self) -> None:
        status, content_type, body = self.pages.get(self.path)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """A scrape is no news."""


class HttpServer(ThreadingHTTPServer):
    """One thread a connection, up to a bound."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, settings: Server, pages: Pages) -> None:
        """Listen. Raises OSError when the address cannot be had."""
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        address = settings.address or "::"
        if ":" in address:
            self.address_family = socket.AF_INET6
        handler = type("Handler", (_Handler,), {"pages": pages})
        try:
            super().__init__((address, settings.port), handler)
        except OSError:
            if settings.address:
                raise
            self.address_family = socket.AF_INET  # a kernel without IPv6
            super().__init__(("0.0.0.0", settings.port), handler)  # noqa: S104

    def server_bind(self) -> None:
        """Take IPv4 as well where IPv6 listens on every address. No look-up of the own name, which may take long."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "", self.server_address[1]

    def process_request(self, request: t.Any, client_address: t.Any) -> None:
        """Serve in a thread, or close when there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: t.Any, client_address: t.Any) -> None:
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """A client that goes away is no news."""
