"""From the operator, as files."""

from __future__ import annotations

import hashlib
import re
import ssl
import tempfile
import time
import typing as t
from pathlib import Path

from .. import files
from ..errors import CertificateError
from ..journal import day
from ..openssl import openssl
from ..store import Issued, Material
from ..x509 import Certificate, chain_of
from .mode import Mode


class Provided(Mode):
    """Takes what lies beside config.json."""

    def _read(self) -> Material:
        return Material(*((self.config.directory / f"provided.{kind}").read_text() for kind in ("pem", "key")))

    def origin(self) -> dict[str, t.Any]:
        """Another file is another certificate. It goes with one key only, which who asks for the status cannot read."""
        chain = (self.config.directory / "provided.pem").read_bytes()
        return {**super().origin(), "chain": hashlib.sha256(chain).hexdigest()}

    def due(self, current: Issued | None, now: float) -> bool:
        """When the operator gave others. Nobody else can renew it."""
        return current is None or current.origin != self.origin()

    def check(self) -> None:
        """The files have to be what a server can serve, and for its names."""
        found = self._read()
        chain = chain_of(found.chain)
        if not chain:
            raise CertificateError("certificate_provided_chain_file has no certificate in PEM form")
        leaf = chain[0]
        for certificate in chain:
            _check_times(certificate)
        _check_key(found)
        _check_chain(chain, self.config.directory / "provided_ca.pem" if self.config.provided_ca else None)
        missing = [name for name in self.names if not leaf.covers(name)]
        if missing:
            raise CertificateError(
                f"certificate_provided_chain_file is for {leaf.subject}, and not for {', '.join(missing)}: "
                "give one that covers all of certificate_names, or take these names out of it"
            )

    def obtain(self) -> Material:
        """Take the files."""
        self.check()
        return self._read()


def _check_times(certificate: Certificate) -> None:
    now = time.time()
    if certificate.not_after < now:
        raise CertificateError(
            f"certificate_provided_chain_file: {certificate.subject} ended on {day(certificate.not_after)}"
        )
    if certificate.not_before > now:
        raise CertificateError(
            f"certificate_provided_chain_file: {certificate.subject} begins on {day(certificate.not_before)} only"
        )


def _check_key(found: Material) -> None:
    """Python loads both as nginx would. A pass phrase is an error, not a question."""
    with tempfile.TemporaryDirectory() as scratch:
        chain, key = (Path(scratch) / name for name in ("chain", "key"))
        files.write(chain, found.chain, 0o600)
        files.write(key, found.key, 0o600)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, password=_no_pass_phrase)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                reason = "is not the key of the first certificate in certificate_provided_chain_file"
            else:
                reason = f"and certificate_provided_chain_file cannot be used together: {error.reason or error}"
            raise CertificateError(f"certificate_provided_key_file {reason}") from None


def _no_pass_phrase() -> t.NoReturn:
    raise CertificateError("certificate_provided_key_file has a pass phrase: give the key without one")


def _check_chain(chain: list[Certificate], trusted: Path | None) -> None:
    """Each certificate is signed by the next one, and the last one's issuer is known to the host or given."""
    for lower, upper in zip(chain, chain[1:]):
        if lower.issuer != upper.subject:
            raise CertificateError(
                f"certificate_provided_chain_file is out of order: after {lower.subject} comes {upper.subject}, "
                f"and not {lower.issuer}, who signed it"
            )
    last = chain[-1]
    # A root that is in the chain file is the operator's word for it. An intermediate one in the CA's file does not
    # count: nginx would not send it.
    known = chain_of(trusted.read_text()) if trusted else chain
    roots = [certificate.pem for certificate in known if certificate.subject == certificate.issuer]
    with tempfile.TemporaryDirectory() as scratch:
        leaf, rest, anchors = (Path(scratch) / name for name in ("leaf", "rest", "roots"))
        leaf.write_text(chain[0].pem)
        rest.write_text("".join(certificate.pem for certificate in chain[1:]))
        anchors.write_text("".join(roots))
        words = ["verify", "-purpose", "sslserver", *(["-CAfile", str(anchors)] if roots else [])]
        try:
            openssl(*words, *(["-untrusted", str(rest)] if len(chain) > 1 else []), str(leaf))
        except CertificateError as error:
            reason = re.sub(r"\S*/(leaf|rest|roots): ?", "", str(error))
            raise CertificateError(
                f"certificate_provided_chain_file does not verify ({reason}): it has to hold the server's certificate "
                f"and all intermediate ones. It ends with {last.subject}, signed by {last.issuer}. The root of "
                "a CA that this host does not know goes into certificate_provided_ca_file"
            ) from None
