"""Stands in for Grafana behind the front door: a page that talks over a WebSocket, a log-in, and an echo of requests.

Its journal has a line for each request.

upstream.py PORT, on 127.0.0.1.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
# The picture comes late, so that a browser has not loaded the page before it has heard from the WebSocket.
PAGE = b"""<!DOCTYPE html><title>stand-in</title><p id=state>loading</p><img src=late><script>
const socket = new WebSocket(`wss://${location.host}/api/live/ws`);
socket.onopen = () => socket.send("hello");
socket.onmessage = (message) => { document.getElementById("state").textContent = `live: ${message.data}`; };
</script>"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/api/live/ws"):
            self._websocket()
        elif self.path == "/":
            self._answer(200, PAGE, "text/html")
        else:
            time.sleep(self.path == "/late")
            seen = {"method": self.command, "path": self.path, "headers": dict(self.headers.items())}
            self._answer(200, json.dumps(seen).encode(), "application/json")

    do_HEAD = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET  # noqa: N815

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(401 if self.path == "/login" else 200, b"{}", "application/json")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _websocket(self) -> None:
        """Shake hands, and echo short text messages until the client goes."""
        accept = base64.b64encode(hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + GUID).digest())
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept.decode())
        self.end_headers()
        self.close_connection = True
        while head := self.rfile.read(2):
            if len(head) < 2 or head[0] & 0x0F != 1:  # not a text: the end
                return
            mask = self.rfile.read(4)
            text = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.rfile.read(head[1] & 0x7F)))
            self.wfile.write(bytes([0x81, len(text)]) + text)


ThreadingHTTPServer.request_queue_size = 256
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
