#!/usr/bin/python3
"""The service that this scenario installs: it answers on its port with what it is.

    demo [--port=PORT] [--config=FILE] [WORD...]
    demo --check FILE      exit with 1 when the configuration is wrong

VERSION and BEHAVIOUR are filled in when a release is packed: `works`, `exits` or `keeps silent`.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import sys
import time
from pathlib import Path

VERSION, BEHAVIOUR = "{version}", "{behaviour}"
reloads = 0
configuration = ""


def option(name: str) -> str:
    return next((word.partition("=")[2] for word in sys.argv if word.startswith(f"--{name}=")), "")


def load(*_signal: object) -> None:
    global reloads, configuration
    reloads += bool(_signal)
    configuration = Path(option("config")).read_text() if option("config") else ""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer = {
            "version": VERSION,
            "arguments": sys.argv[1:],
            "configuration": configuration,
            "reloads": reloads,
            "pid": os.getpid(),
        }
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_words: object) -> None:
        """Silent, so that the journal holds only what a test looks for."""


def main() -> None:
    if sys.argv[1:2] == ["--check"]:
        sys.exit("colour: there is no such colour" if "wrong" in Path(sys.argv[2]).read_text() else 0)
    if BEHAVIOUR == "exits":
        sys.exit(f"demo {VERSION}: cannot go on, the flux capacitor is missing")
    while BEHAVIOUR == "keeps silent":
        time.sleep(60)
    signal.signal(signal.SIGHUP, load)
    load()
    http.server.ThreadingHTTPServer(("", int(option("port"))), Handler).serve_forever()


main()
