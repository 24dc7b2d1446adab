"""Docker's API over its Unix socket, of which three questions are asked: which containers there are, what one is, and
which labels come with its image.

GET only, one connection an answer, no library: http.client brings the email package along, which is megabytes.
Source: Docker Engine API, ContainerList and ContainerInspect; RFC 9112 for the messages.
"""

from __future__ import annotations

import errno
import json
import re
import socket
import time
import typing as t

_LARGEST_ANSWER = 32 << 20
_LARGEST_HEAD = 64 << 10
_HEX = re.compile(rb"[0-9a-fA-F]{1,8}")
_DECIMAL = re.compile(rb"[0-9]{1,12}")
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: .*)?")
_ID = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z_.-]*")
_IMAGE = re.compile(r"(sha256:)?[0-9a-f]{64}")

Json = dict[str, t.Any]


class DockerError(Exception):
    """Docker did not answer, or not as it should. The message is for the operator."""


class NoDocker(DockerError):
    """There is no socket: Docker is not installed, or not running."""


class NoSuchContainer(DockerError):
    """The container is gone."""


class Docker:
    """The API behind one socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def containers(self, timeout: float) -> list[t.Any]:
        """Return what Docker says of every container, running or not, within so many seconds. Raises DockerError."""
        found = self._get("/containers/json?all=1", timeout)
        if not isinstance(found, list):
            raise DockerError("Docker's list of containers is no list")
        return found

    def inspect(self, container: str, timeout: float) -> Json:
        """Return everything about one container, within so many seconds. Raises NoSuchContainer, DockerError."""
        if not _ID.fullmatch(container):
            raise DockerError(f"{container!r} is no id of a container")
        found = self._get(f"/containers/{container}/json", timeout)
        if not isinstance(found, dict):
            raise DockerError("Docker's answer is no object")
        return found

    def image_labels(self, image: str, timeout: float) -> dict[str, t.Any]:
        """Return the labels that an image gives to its containers; none when it is gone. Raises DockerError."""
        if not _IMAGE.fullmatch(image):
            raise DockerError(f"{image!r} is no id of an image")
        try:
            found = self._get(f"/images/{image}/json", timeout)
        except NoSuchContainer:
            return {}
        settings = found.get("Config") if isinstance(found, dict) else None
        labels = settings.get("Labels") if isinstance(settings, dict) else None
        return labels if isinstance(labels, dict) else {}

    def _get(self, path: str, timeout: float) -> t.Any:
        """Return the JSON at a path. Raises DockerError."""
        ends = time.monotonic() + timeout
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.settimeout(timeout)
                connection.connect(self._path)
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode())
                status, body = read_answer(_Received(connection, ends))
            except socket.timeout as error:
                raise DockerError(f"{self._path}: no answer within {timeout:.3g} s") from error
            except OSError as error:
                raise self._failure(error) from error
        return _content(status, body)

    def _failure(self, error: OSError) -> DockerError:
        if error.errno == errno.ENOENT:
            return NoDocker(f"{self._path}: there is no such socket")
        if error.errno in (errno.EACCES, errno.EPERM):
            return DockerError(f"{self._path}: permission denied; the service's user has to be in the group docker")
        if error.errno == errno.ECONNREFUSED:
            return DockerError(f"{self._path}: nobody answers; Docker is not running")
        return DockerError(f"{self._path}: {error.strerror or error}")


class _Received:
    """Pieces of an answer. The deadline is the whole answer's: a byte a second does not push it back."""

    def __init__(self, connection: socket.socket, ends: float) -> None:
        self._connection = connection
        self._ends = ends

    def __call__(self) -> bytes:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise socket.timeout
        self._connection.settimeout(left)
        return self._connection.recv(65536)


class _Reader:
    """Lines and blocks out of pieces."""

    def __init__(self, receive: t.Callable[[], bytes]) -> None:
        self._receive = receive
        self._buffer = bytearray()

    def line(self) -> bytes:
        """Return a line without its end. Raises DockerError."""
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                return line[:-1] if line.endswith(b"\r") else line
            searched = len(self._buffer)
            if searched > _LARGEST_HEAD:
                raise DockerError("Docker's answer is no HTTP: a line has no end")
            if not self._fill():
                raise DockerError("Docker closed the connection in the middle of an answer")

    def block(self, size: int) -> bytes:
        """Return so many bytes. Raises DockerError."""
        while len(self._buffer) < size:
            if not self._fill():
                raise DockerError("Docker closed the connection in the middle of an answer")
        block = bytes(self._buffer[:size])
        del self._buffer[:size]
        return block

    def rest(self) -> bytes:
        """Return everything up to the end. Raises DockerError."""
        while self._fill():
            if len(self._buffer) > _LARGEST_ANSWER:
                raise _too_large()
        return bytes(self._buffer)

    def _fill(self) -> bool:
        piece = self._receive()
        self._buffer += piece
        return bool(piece)


def read_answer(receive: t.Callable[[], bytes]) -> tuple[int, bytes]:
    """Return status and body of an HTTP/1.1 answer that comes in pieces, the last of which is empty.

    Raises DockerError, and what ``receive`` raises.
    """
    reader = _Reader(receive)
    status, headers = _head(reader)
    while 100 <= status < 200:
        status, headers = _head(reader)
    coding, length = headers.get(b"transfer-encoding"), headers.get(b"content-length")
    if coding is not None and coding.lower() == b"chunked":
        return status, _chunks(reader)
    if coding is not None:
        raise DockerError("Docker's answer is in an unknown transfer coding")
    if length is None:
        return status, reader.rest()
    if not _DECIMAL.fullmatch(length):
        raise DockerError("Docker's answer is no HTTP: its length is no number")
    if int(length) > _LARGEST_ANSWER:
        raise _too_large()
    return status, reader.block(int(length))


def _head(reader: _Reader) -> tuple[int, dict[bytes, bytes]]:
    match = _STATUS.fullmatch(reader.line())
    if match is None:
        raise DockerError("Docker's answer is no HTTP")
    headers: dict[bytes, bytes] = {}
    size = 0
    while True:
        line = reader.line()
        if not line:
            return int(match.group(1)), headers
        size += len(line)
        name, colon, value = line.partition(b":")
        if not colon or size > _LARGEST_HEAD:
            raise DockerError("Docker's answer is no HTTP")
        headers[name.strip().lower()] = value.strip()


def _chunks(reader: _Reader) -> bytes:
    body = bytearray()
    while True:
        size = reader.line().partition(b";")[0].strip()
        if not _HEX.fullmatch(size):
            raise DockerError("Docker's answer is no HTTP: a chunk without its size")
        if len(body) + int(size, 16) > _LARGEST_ANSWER:
            raise _too_large()
        if int(size, 16) == 0:
            return bytes(body)  # trailers, which nobody reads, may follow
        body += reader.block(int(size, 16))
        if reader.line():
            raise DockerError("Docker's answer is no HTTP: a chunk is longer than its size")


def _too_large() -> DockerError:
    return DockerError(f"Docker's answer is larger than {_LARGEST_ANSWER >> 20} MiB")


def _content(status: int, body: bytes) -> t.Any:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        if status != 200:
            raise DockerError(f"Docker answers with HTTP status {status}") from error
        raise DockerError("Docker's answer is no JSON") from error
    if status == 200:
        return content
    words = str(content.get("message", ""))[:200] if isinstance(content, dict) else ""
    kind = NoSuchContainer if status == 404 else DockerError
    raise kind(f"Docker answers with HTTP status {status}{f': {words}' if words else ''}")
