"""TLS for the server. Imported only where it is wanted: it costs memory."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import threading
import typing as t

from .supervisor import log

if t.TYPE_CHECKING:
    from .config import Tls

_PATIENCE = 5.0
"""Seconds for each step of a handshake."""


class TlsServer:
    """The server's side of handshakes, with files that are read again when they have changed."""

    def __init__(self, settings: Tls) -> None:
        """Read the files. Raises OSError."""
        self._settings = settings
        self._lock = threading.Lock()
        self._versions = self._look()
        self._context = self._load()
        self._complaint = ""

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """Return the connection with TLS to come: `shake_hands` is next, in the connection's own thread."""
        connection.settimeout(_PATIENCE)
        return self._current().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    def shake_hands(self, connection: ssl.SSLSocket) -> None:
        """Get to know the client. Raises OSError where it is not let in."""
        connection.do_handshake()
        allowed = self._settings.client_allowed_sans
        certificate: dict[str, t.Any] = connection.getpeercert() or {}
        names = {_name(value) for _kind, value in certificate.get("subjectAltName", ())}
        if allowed and not names & {_name(value) for value in allowed}:
            raise ssl.SSLCertVerificationError("the client's certificate has none of the names that are allowed")

    def _current(self) -> ssl.SSLContext:
        with self._lock:
            versions = self._look()
            if versions != self._versions:
                try:
                    self._context = self._load()
                    self._versions = versions
                    self._complain("")
                except OSError as error:  # half of them are new, or one is cut: the former ones serve on
                    self._complain(f"tls: what is in the files is not used: {error}")
            return self._context

    def _complain(self, complaint: str) -> None:
        if complaint and complaint != self._complaint:
            log(complaint)
        self._complaint = complaint

    def _look(self) -> list[tuple[int, int] | None]:
        settings = self._settings
        return [_version(path) for path in (settings.cert_file, settings.key_file, settings.client_ca_file) if path]

    def _load(self) -> ssl.SSLContext:
        settings = self._settings
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(settings.cert_file, settings.key_file)
        if settings.client_ca_file:
            context.load_verify_locations(settings.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _name(value: str) -> str:
    """Return the name, or the address in the one spelling that we compare: OpenSSL writes FD00:0:0:0:0:0:0:1."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        return value


def _version(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
