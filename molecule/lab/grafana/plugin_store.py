"""STAND-IN for Grafana: plugins that lie on the disk, and the backend of that for Prometheus, which Grafana brings."""

import json
import os
import secrets
import socket
import socketserver
import threading
import urllib.request
from pathlib import Path


def find(directories, log):
    """Return id -> plugin of those that are signed, which here means that they say so. The first of an id counts."""
    found = {}
    for path in (path for directory in directories for path in sorted(directory.glob("*/plugin.json"))):
        plugin = json.loads(path.read_text())
        if not (path.parent / "MANIFEST.txt").exists():
            log("plugin.signature.validator", "error", "Plugin is unsigned, and is not loaded", id=plugin["id"])
        elif plugin["id"] not in found:
            backend = Backend() if plugin.get("backend") else None
            found[plugin["id"]] = {"type": plugin.get("type"), "info": plugin.get("info", {}), "backend": backend}
    return found


class Backend:
    """A plugin's own process, here a thread. It is reached by a unix socket alone (hashicorp/go-plugin)."""

    def __init__(self):
        directory = os.environ.get("PLUGIN_UNIX_SOCKET_DIR", "") or "/tmp"
        self._socket = Path(directory) / f"plugin{secrets.randbelow(10**10)}"
        server = socketserver.ThreadingUnixStreamServer(str(self._socket), _Health)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def health(self, url):
        """Return whether the data source at a URL is well, and a message. Raises OSError without the plugin."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self._socket))
            connection.sendall(f"{url}\n".encode())
            return json.loads(connection.makefile().readline())


class _Health(socketserver.StreamRequestHandler):
    def handle(self):
        """Ask Prometheus what 1+1 is."""
        url = self.rfile.readline().decode().strip()
        try:
            with urllib.request.urlopen(f"{url}/api/v1/query?query=1%2B1", timeout=5) as answer:
                answer.read()
            found = (True, "Successfully queried the Prometheus API.")
        except (OSError, ValueError) as error:
            found = (False, f"ReadAll error: {error}")
        self.wfile.write(f"{json.dumps(found)}\n".encode())
