"""How the stand-ins for nv-hostengine, dcgmi and dcgm-exporter speak with each other: a line of JSON each way."""

import json
import socket
from pathlib import Path

VERSION = Path("/usr/lib/x86_64-linux-gnu/libdcgm.so.4").read_text().split()[-1]
"""Of the library that this process has loaded; the one on the disk may be newer by now."""


class EngineError(Exception):
    """The host engine does not answer, or will not."""


class Connection:
    """To a host engine, kept open."""

    def __init__(self, address):
        host, _, port = address.partition(":")
        try:
            self._socket = socket.create_connection((host, int(port or 5555)), timeout=30)
        except OSError as error:
            raise EngineError(f"unable to establish a connection to the specified host: {host} ({error})") from error
        self._lines = self._socket.makefile("r")

    def ask(self):
        """Return what the engine says: its version, and its GPUs."""
        try:
            self._socket.sendall(json.dumps({"version": VERSION}).encode() + b"\n")
            line = self._lines.readline()
        except OSError as error:
            raise EngineError(f"the connection is not valid any longer ({error})") from error
        if not line:
            raise EngineError("the connection is not valid any longer")
        answer = json.loads(line)
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer
