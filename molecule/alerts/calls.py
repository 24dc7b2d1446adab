#!/usr/bin/python3
"""Writes down each POST: time, path and body, a line of JSON each. Paths that /var/calls.refused names get 503."""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LOG, REFUSED = Path("/var/calls.jsonl"), Path("/var/calls.refused")


class Handler(BaseHTTPRequestHandler):
    """One call."""

    def do_POST(self):
        """Write it down, and refuse it if it is to be refused."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refused = REFUSED.exists() and self.path in REFUSED.read_text().split()
        with LOG.open("a") as log:
            print(json.dumps({"time": time.time(), "path": self.path, "refused": refused, "body": body}), file=log)
        self.send_response(503 if refused else 200)
        self.end_headers()


LOG.touch()
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
