#!/usr/bin/python3
"""Writes down each POST: time, path and body, a line of JSON each."""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LOG = Path("/var/calls.jsonl")


class Handler(BaseHTTPRequestHandler):
    """One call."""

    def do_POST(self):
        """Write it down."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with LOG.open("a") as log:
            print(json.dumps({"time": time.time(), "path": self.path, "body": body}), file=log)
        self.send_response(200)
        self.end_headers()


LOG.touch()
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
