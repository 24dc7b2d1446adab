"""The server that serves the certificate."""

from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
import time

from .errors import CertificateError

SERVED_WITHIN = 20  # seconds after a reload, in which old workers may still answer


class Server:
    """nginx, as a unit and as clients see it."""

    def __init__(self, unit: str, address: str, port: int) -> None:
        self.unit, self.address, self.port = unit, address, port

    def runs(self) -> bool:
        """Whether there is anybody to tell."""
        return subprocess.run(["systemctl", "is-active", "--quiet", self.unit], check=False).returncode == 0

    def serves(self) -> str:
        """Return the fingerprint of the certificate that a client sees, "" where none answers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            plain = socket.create_connection((self.address, self.port), timeout=5)
            with plain, context.wrap_socket(plain) as connection:
                return hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()
        except OSError:
            return ""

    def reload(self, fingerprint: str) -> None:
        """Have the server read its certificate anew, and see that it serves it. Raises CertificateError."""
        done = subprocess.run(["systemctl", "reload", self.unit], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CertificateError(f"{self.unit} could not be reloaded: {done.stderr.strip()}")
        deadline = time.monotonic() + SERVED_WITHIN
        while self.serves() != fingerprint:
            if time.monotonic() > deadline:
                raise CertificateError(
                    f"{self.unit} was reloaded, but {self.address}:{self.port} does not serve the certificate: "
                    f"look with nginx -t and in /var/log/nginx/error.log"
                )
            time.sleep(0.1)
