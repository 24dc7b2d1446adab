"""Stands in for an ACME server that has had enough: pebble, which it passes everything on to, has no rate limits.

rate_limited.py PORT PEBBLES-PORT
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROBLEM = {
    "type": "urn:ietf:params:acme:error:rateLimited",
    "detail": "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s",
    "status": 429,
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", int(sys.argv[2]), context=ssl._create_unverified_context()
        )
        connection.request(self.command, self.path, body or None, dict(self.headers.items()))
        answer = connection.getresponse()
        status, content, kind = answer.status, answer.read(), answer.getheader("Content-Type", "")
        if "order" in self.path and self.command == "POST":
            status, content, kind = 429, json.dumps(PROBLEM).encode(), "application/problem+json"
        self.send_response(status)
        for name in ("Replay-Nonce", "Location", "Link"):
            for value in answer.headers.get_all(name) or []:
                self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_POST = do_HEAD = do_GET  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


server = ThreadingHTTPServer(("", int(sys.argv[1])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/root/acme.pem", "/root/acme.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
