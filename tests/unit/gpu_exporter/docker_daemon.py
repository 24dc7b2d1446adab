"""A Docker daemon of a few lines, for the three questions that the exporter asks. It can also behave badly."""

from __future__ import annotations

import contextlib
import copy
import json
import socket
import threading
import time
from pathlib import Path

INSPECTION = json.loads((Path(__file__).parent / "docker_inspect.json").read_text())


def container_id(number):
    return f"{number:064x}"


def request(devices=None, count=0, driver="", capabilities=("gpu",)):
    """A DeviceRequest as docker run --gpus makes it."""
    return {
        "Driver": driver,
        "Count": count,
        "DeviceIDs": devices,
        "Capabilities": [list(capabilities)],
        "Options": {},
    }


class Daemon:
    """Listens on a Unix socket. ``containers`` is by id: name, state, inspection."""

    def __init__(self, path):
        self.path = str(path)
        self.containers = {}
        self.image_labels = {"maintainer": "NVIDIA CORPORATION <cudatools@nvidia.com>"}
        self.requests = []
        self.behave = {}
        """Path to a function that gets the connection and the good answer, and writes what it likes."""
        self.chunked = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    def add(self, name, state="running", labels=None, requests=None, env=None, runtime="runc", parent="", number=None):
        """Add a container and return its id."""
        key = container_id(len(self.containers) + 1 if number is None else number)
        inspection = copy.deepcopy(INSPECTION)
        inspection.update(Id=key, Name=f"/{name}")
        inspection["State"].update(Status=state, Running=state == "running")
        inspection["HostConfig"].update(DeviceRequests=requests, Runtime=runtime, CgroupParent=parent)
        inspection["Config"]["Labels"].update(labels or {})
        if env is not None:
            inspection["Config"]["Env"] = env
        self.containers[key] = inspection
        return key

    def close(self):
        """Go away and take the socket along."""
        Path(self.path).unlink(missing_ok=True)
        # A thread that waits in accept() wakes up only for this.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
            self.requests.append((method, path))
            good = self._good(path)
            if path in self.behave:
                self.behave[path](connection, good)
            else:
                connection.sendall(good)

    def _good(self, path):
        if path == "/containers/json?all=1":
            return self._http(200, [self._entry(one) for one in self.containers.values()])
        kind, key = path.split("/")[1:3]
        if kind == "images":
            return self._http(200, {"Id": key, "Config": {"Labels": self.image_labels}})
        if key not in self.containers:
            return self._http(404, {"message": f"No such container: {key}"})
        return self._http(200, self.containers[key])

    @staticmethod
    def _entry(one):
        return {
            "Id": one["Id"],
            "Names": [one["Name"], "/other/alias"],
            "Image": one["Config"]["Image"],
            "ImageID": one["Image"],
            "Command": "sleep infinity",
            "Created": 1763630043,
            "Ports": [],
            "Labels": one["Config"]["Labels"],
            "State": one["State"]["Status"],
            "Status": "Up 3 hours",
            "HostConfig": {"NetworkMode": "bridge"},
            "NetworkSettings": {"Networks": {}},
            "Mounts": [],
        }

    def _http(self, status, content):
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 {status} X\r\nApi-Version: 1.48\r\nContent-Type: application/json\r\n".encode()
        if not self.chunked:
            return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        pieces = [body[start : start + 700] for start in range(0, len(body), 700)]
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(map(chunk, [*pieces, b""]))


def chunk(piece):
    return b"%x\r\n%s\r\n" % (len(piece), piece)


def says(answer):
    """The daemon answers with these bytes whatever was asked."""
    return lambda connection, good: connection.sendall(answer)


def half(connection, good):
    """The daemon dies in the middle."""
    connection.sendall(good[: len(good) // 2])


def drips(connection, good):
    """A byte now and then: no single wait is ever long."""
    for byte in good:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def hangs(connection, good):
    """No answer at all."""
    time.sleep(30)
