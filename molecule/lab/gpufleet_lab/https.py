"""An HTTPS client that says to whom it spoke, and many of them at once that count what they lost."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    """What came back, and the SHA-256 of the certificate that the server showed."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    text: str
    fingerprint: str


@dataclass
class Client:
    """A client of one server, by a name that no DNS needs to know. Each request is a connection of its own."""

    address: str
    name: str
    port: int = 443
    ca: Path | None = None  # whom it trusts; None is everybody
    certificate: Path | None = None  # its own, with the key in the same file

    def get(self, path: str, **headers: str) -> Answer:
        """Ask for a path; of a header's name, _ stands for -."""
        return self.request("GET", path, {name.replace("_", "-"): value for name, value in headers.items()})

    def request(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: str = "") -> Answer:
        """Send one request, redirects are not followed. Raises OSError."""
        with closing(self.open()) as connection:
            return exchange(connection, method, path, {**(headers or {}), "Connection": "close"}, body)

    def open(self) -> http.client.HTTPConnection:
        """Open a connection for several requests. Raises OSError."""
        connection = http.client.HTTPConnection(self.name, timeout=10)
        connection.sock = self.connect()
        connection.auto_open = 0  # it is opened once, by TLS
        return connection

    def raw(self, data: bytes) -> bytes:
        """Send bytes and return all that comes back until the server closes, or is silent for a second."""
        received = b""
        with self.connect() as secure:
            secure.settimeout(1)
            try:
                secure.sendall(data)
                while part := secure.recv(65536):
                    received += part
            except OSError:
                pass
        return received

    def connect(self) -> ssl.SSLSocket:
        """Open a connection. Raises OSError."""
        plain = socket.create_connection((self.address, self.port), timeout=10)
        try:
            return self._context().wrap_socket(plain, server_hostname=self.name)
        except OSError:
            plain.close()
            raise

    def _context(self) -> ssl.SSLContext:
        # Not the default context, which reads all of the machine's CAs for each connection.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca:
            context.load_verify_locations(self.ca)
        else:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.certificate:
            context.load_cert_chain(self.certificate)
        return context


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, headers: Mapping[str, str], body: str = ""
) -> Answer:
    """Send one request over a connection of `Client.open`. Raises OSError, ConnectionError if the server ended it."""
    secure = connection.sock
    assert isinstance(secure, ssl.SSLSocket)
    certificate = secure.getpeercert(binary_form=True) or b""  # the answer may end the connection
    try:
        connection.request(method, path, body.encode() or None, dict(headers))
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except ConnectionError:  # http.client's own RemoteDisconnected is one, too
        raise
    except http.client.HTTPException as error:
        raise OSError(f"{method} {path}: {type(error).__name__} {error}") from error
    found = {name.lower(): value for name, value in answer.getheaders()}
    return Answer(answer.status, found, text, hashlib.sha256(certificate).hexdigest())


@dataclass
class Load:
    """What clients that ask again and again have seen."""

    answered: int = 0
    asked_again: int = 0
    lost: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    certificates: dict[str, int] = field(default_factory=dict)  # fingerprint -> answers, in order of appearance

    def add(self, answer: Answer, seconds: float) -> None:
        """Count an answer."""
        if answer.status != 200:
            self.lost.append(f"{answer.status} {answer.text[:80]}")
            return
        self.answered += 1
        self.seconds.append(seconds)
        self.certificates[answer.fingerprint] = self.certificates.get(answer.fingerprint, 0) + 1


@contextmanager
def load(client: Client, path: str, clients: int = 4, reuse: bool = False, pause: float = 0) -> Iterator[Load]:
    """Have some clients ask for a path again and again for the length of a with block.

    Each request is a connection of its own; with `reuse`, a client keeps its connection until the server ends it. What
    it asked in that very moment, it asks again, as browsers do (RFC 9112, 9.3.1). With `pause`, it waits so many
    seconds after each, which leaves the machine to what else is to happen.
    """
    seen, lock, over = Load(), threading.Lock(), threading.Event()

    def ask_until_lost() -> None:
        with closing(client.open()) as connection:
            for number in itertools.count():
                if over.is_set():
                    return
                begun = time.monotonic()
                try:
                    answer = exchange(connection, "GET", path, {} if reuse else {"Connection": "close"})
                except ConnectionError:
                    if number == 0:  # no connection that was kept
                        raise
                    with lock:
                        seen.asked_again += 1
                    return
                with lock:
                    seen.add(answer, time.monotonic() - begun)
                time.sleep(pause)
                if answer.headers.get("connection") == "close":
                    return

    def work() -> None:
        while not over.is_set():
            try:
                ask_until_lost()
            except OSError as error:
                with lock:
                    seen.lost.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
