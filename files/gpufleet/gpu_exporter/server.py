"""Serves what is in memory. No request ever waits for a driver."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import threading
import time
import typing as t
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from . import exposition, metrics, systemd
from .supervisor import log, own_families

if t.TYPE_CHECKING:
    from .config import Config
    from .supervisor import Supervisor
    from .tls import TlsServer

_CONNECTIONS = 128
"""Served at the same time; a further one takes the place of the one that has been silent longest."""

_POLL = 0.5
"""Seconds between looks at whether a port is to be had or given up."""

_INDEX = b"gpu-exporter: see /metrics and /health\n"


class Pages:
    """What there is to read on DCGM's port."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def get(self, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body of a path."""
        path = path.partition("?")[0]
        if path == "/metrics":
            return 200, exposition.CONTENT_TYPE, b"".join(self._metrics())
        if path == "/health":
            return self._health()
        if path == "/":
            return 200, "text/plain; charset=utf-8", _INDEX
        return 404, "text/plain; charset=utf-8", b"not found\n"

    def _metrics(self) -> t.Iterable[bytes]:
        return self._supervisor.readings.fresh(dcgms=True)

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


class MainPages(Pages):
    """What there is to read on the exporter's own port."""

    def __init__(self, supervisor: Supervisor, build_info: bytes, dcgm: DcgmPort) -> None:
        super().__init__(supervisor)
        self._build_info = build_info
        self._dcgm = dcgm

    def _metrics(self) -> t.Iterable[bytes]:
        yield self._build_info
        serves = self._dcgm.serves
        yield exposition.render({**own_families(self._supervisor), metrics.DCGM_SERVED.name: [[int(serves)]]})
        yield from self._supervisor.readings.fresh(dcgms=False)
        if serves and self._dcgm.shared:
            yield from self._supervisor.readings.fresh(dcgms=True)


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
        t.cast("HttpServer", self.server).answered(self.connection)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """A scrape is no news."""


class HttpServer(ThreadingHTTPServer):
    """One thread a connection, up to a bound."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: str, port: int, pages: Pages, tls: TlsServer | None = None) -> None:
        """Listen on an address, or with "" on all. Raises OSError when it cannot be had."""
        self._tls = tls
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        self._open: dict[socket.socket, float] = {}
        """Connection to the moment since which a request is waited for."""
        self._closed = False
        everywhere = not address
        address = address or "::"
        if ":" in address:
            self.address_family = socket.AF_INET6
        handler = type("Handler", (_Handler,), {"pages": pages})
        try:
            super().__init__((address, port), handler)
        except OSError as error:
            if not everywhere or error.errno == errno.EADDRINUSE:
                raise
            self.address_family = socket.AF_INET  # a kernel without IPv6
            super().__init__(("0.0.0.0", port), handler)  # noqa: S104
        threading.Thread(target=self.serve_forever, args=(_POLL,), daemon=True).start()

    def close(self) -> None:
        """Free the port. Whoever is connected has to ask anew: who serves it next answers."""
        self._closed = True
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            _hang_up(connection)

    def server_bind(self) -> None:
        """Take IPv4 as well where IPv6 listens on every address. No look-up of the own name, which may take long."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "", self.server_address[1]

    def process_request(self, request: t.Any, client_address: t.Any) -> None:
        """Serve in a thread. Whoever holds connections without asking keeps nobody out."""
        if not self._free.acquire(blocking=False):
            self._close_oldest()
            if not self._free.acquire(timeout=1.0):
                self.shutdown_request(request)
                return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self._free.release()
            self.shutdown_request(request)

    def answered(self, connection: socket.socket) -> None:
        """Note that a connection waits for its next request from now on."""
        self._open[connection] = time.monotonic()

    def _close_oldest(self) -> None:
        waiting = dict(self._open)
        if waiting:
            _hang_up(min(waiting, key=waiting.__getitem__))

    def process_request_thread(self, request: t.Any, client_address: t.Any) -> None:
        """Serve one connection. A client that takes its time with TLS holds up its own thread alone."""
        connection = request
        try:
            if self._tls:
                connection = self._tls.wrap(request)
            self.answered(connection)
            if self._tls:
                self._tls.shake_hands(connection)
            if not self._closed:
                super().process_request_thread(connection, client_address)
        except OSError:
            self.shutdown_request(connection)  # of TLS: whoever is not let in is no news
        finally:
            self._open.pop(connection, None)
            self._free.release()

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """A client that goes away is no news."""


def _hang_up(connection: socket.socket) -> None:
    """Wake the thread that waits for this connection. What TLS has to say is that thread's own to say."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class DcgmPort:
    """Serves DCGM's families for as long as DCGM itself does not.

    They have a port of their own so that Prometheus finds them in one place, whoever serves them: its targets follow
    from the inventory alone, and a host that changes sides keeps its series.
    """

    def __init__(self, config: Config, pages: Pages, tls: TlsServer | None) -> None:
        self.shared = config.dcgm.port == 0
        """Whether they are on the exporter's own port."""
        self._tls = tls
        self._config = config
        self._pages = pages
        self._server: HttpServer | None = None
        self._refused = ""

    @property
    def serves(self) -> bool:
        """Whether they are served here, now."""
        return self._wanted() if self.shared else self._server is not None

    def _wanted(self) -> bool:
        return self._config.dcgm.enabled and not systemd.is_enabled(
            self._config.dcgm.yields_to, self._config.paths.systemd
        )

    def run(self) -> t.NoReturn:
        """Take the port and let go of it, for ever."""
        while True:
            if not self.shared:
                self._turn(self._wanted())
            time.sleep(_POLL)

    def _turn(self, wanted: bool) -> None:
        where = f"{self._config.dcgm.address or '*'}:{self._config.dcgm.port}"
        if self._server and not wanted:
            self._server.close()
            self._server = None
            log(f"{where} is left to {self._config.dcgm.yields_to}")
        elif wanted and not self._server:
            try:
                self._server = HttpServer(self._config.dcgm.address, self._config.dcgm.port, self._pages, self._tls)
            except OSError as error:
                self._refuse(f"cannot serve DCGM's families on {where}: {error.strerror}")
            else:
                self._refuse("")
                log(f"serves DCGM's families on {where}")

    def _refuse(self, reason: str) -> None:
        """The port will be free some day; until then, the reason is said once."""
        if reason and reason != self._refused:
            log(reason)
        self._refused = reason
