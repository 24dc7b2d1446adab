"""Certificates, as openssl describes them."""

from __future__ import annotations

import hashlib
import re
import ssl
import typing as t

from .names import is_address
from .openssl import openssl

# A certificate is renewed when a third of its life is left: 30 of 90 days, as Let's Encrypt asks.
RENEW_AT = 1 / 3

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


class Certificate(t.NamedTuple):
    """One X.509 certificate. Times are seconds since the epoch."""

    pem: str
    subject: str
    issuer: str
    not_before: float
    not_after: float

    @classmethod
    def parse(cls, pem: str) -> Certificate:
        """Raises CertificateError."""
        text = openssl("x509", "-noout", "-subject", "-issuer", "-startdate", "-enddate", stdin=pem)
        fields = dict(line.partition("=")[::2] for line in text.splitlines())
        times = (float(ssl.cert_time_to_seconds(fields[name])) for name in ("notBefore", "notAfter"))
        return cls(pem, fields["subject"].strip(), fields["issuer"].strip(), *times)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole certificate."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.pem)).hexdigest()

    def covers(self, name: str) -> bool:
        """Whether the certificate is for ``name``, a DNS name or an address.

        openssl looks into the subject where no alternative name is a DNS name; browsers never do.
        """
        option, kind = ("-checkip", "IP Address:") if is_address(name) else ("-checkhost", "DNS:")
        asked = f"any{name[1:]}" if name.startswith("*") else name
        said = openssl("x509", "-noout", "-ext", "subjectAltName", option, asked, stdin=self.pem)
        return "does match" in said and kind in said

    def due(self, now: float) -> bool:
        """Whether it is time for a new one."""
        return now >= self.not_after - (self.not_after - self.not_before) * RENEW_AT


def chain_of(pem: str) -> list[Certificate]:
    """Return the certificates of a file, the server's own first. Raises CertificateError."""
    return [Certificate.parse(found) for found in _PEM.findall(pem)]
