# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fleet's own certificate authority, in a directory on the controller.

ca.crt, ca.key            the authority that signs
ca-next.crt, ca-next.key  the one to come, which all hosts get to know before it signs anything
ca-*.crt                  that one and former ones: what they have signed is trusted as well
hosts/*.pem               key and certificate of each host, so that a run with nothing to renew changes nothing
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import ipaddress
import os
import secrets
import typing as t
import urllib.parse
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
HOST_DAYS = 365
_SKEW = datetime.timedelta(days=1)  # of a host's clock
_RUN = datetime.timedelta(hours=1)  # in which a host's services ask for its certificate, each for itself

# By which exporters know a master that scrapes them. No other host gets such a name, whatever its address is called,
# and a master's own exporters do not have the key that goes with it.
PROMETHEUS = ".prometheus.gpufleet"

# The certificates of authorities say nothing that is secret, and a checkout that has them makes no other authority.
_GITIGNORE = b"*\n!.gitignore\n!ca*.crt\n"

Name = t.Union[x509.DNSName, x509.IPAddress]


class CaError(Exception):
    """There is no certificate to be had. The text is fit for a user."""


class Certificate(t.NamedTuple):
    """What a host needs: its key and certificate in one text, all authorities to trust in the other."""

    pem: str
    authorities: str
    expires: datetime.datetime
    authority_expires: datetime.datetime


class FleetCa:
    """The certificate authority in a directory. With ``dry``, nothing is written, and nothing signed is of use."""

    def __init__(self, directory: Path, dry: bool = False) -> None:
        self.directory = directory
        self.dry = dry

    def certificate(
        self, host: str, addresses: t.Sequence[str], renew_days: int, may_create: bool
    ) -> tuple[Certificate, bool]:
        """Return a host's certificate, a new one where there is none that will do, and whether the authority is new.

        ``host`` is a name in the inventory, or that and PROMETHEUS. Raises CaError.
        """
        with self._locked():
            created = not (self.directory / "ca.crt").exists()
            signer, key = self._found(may_create) if created else self._load()
            trusted = [signer, *self._others()]
            names = _names(host, addresses)
            path = self.directory / "hosts" / f"{urllib.parse.quote(host, safe='')}.pem"
            pem, certificate = _read_host(path)
            soon = _now() + datetime.timedelta(days=renew_days)
            if not certificate or not _will_do(certificate, names, trusted, soon):
                pem, certificate = _issue(host, names, signer, key)
                self._write(path, pem)
            authorities = "".join(_pem(authority) for authority in trusted)
            return Certificate(pem.decode(), authorities, _end(certificate), _end(signer)), created

    def prepare_successor(self) -> None:
        """Make the authority that is to follow, if there is none yet: hosts trust it, and it signs nothing so far."""
        with self._locked():
            if not (self.directory / "ca-next.crt").exists():
                self._create("ca-next")

    @contextlib.contextmanager
    def _locked(self) -> t.Iterator[None]:
        """Keep the forks of a run apart, and runs."""
        try:
            if self.dry:
                yield
                return
            self.directory.mkdir(parents=True, mode=0o700, exist_ok=True)
            self.directory.chmod(0o700)
            with (self.directory / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise CaError(f"{error.filename or self.directory}: {error.strerror}") from error

    # -- the authority ----------------------------------------------------------------------------

    def _found(self, allowed: bool) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        if not allowed:
            raise CaError(
                f"there is no certificate authority in {self.directory}, and only a run for all hosts makes one, since"
                " hosts that it leaves out would not know it. Copy the directory from the controller that has it, or"
                " run without --limit and --tags"
            )
        return self._create("ca")

    def _create(self, name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        if (self.directory / f"{name}.key").exists():
            raise CaError(
                f"{self.directory} has {name}.key, and no {name}.crt: bring that back from where you keep copies, since"
                " hosts know it. Who wants another authority removes the key first"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        now = _now()
        # A name of its own, so that a certificate says which of several authorities has signed it.
        subject = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, f"gpufleet CA {now:%Y-%m-%d} {secrets.token_hex(4)}")]
        )
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # signs keys and CRLs
        builder = (
            _builder(subject, subject, key.public_key(), now + datetime.timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
        )
        certificate = builder.sign(key, hashes.SHA256())
        self._write(self.directory / ".gitignore", _GITIGNORE, 0o644)
        self._write(self.directory / f"{name}.key", _key_pem(key))
        self._write(self.directory / f"{name}.crt", _pem(certificate).encode(), 0o644)
        return certificate, key

    def _load(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey | None]:
        certificate = _load_certificate(self.directory / "ca.crt")
        path = self.directory / "ca.key"
        if not path.exists():
            return certificate, None
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except (ValueError, TypeError) as error:
            raise CaError(f"{path} is no private key without a passphrase: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise CaError(f"{path} is not the elliptic-curve key of ca.crt beside it")
        return certificate, key

    def _others(self) -> list[x509.Certificate]:
        return [_load_certificate(path) for path in sorted(self.directory.glob("ca-*.crt"))]

    def _write(self, path: Path, content: bytes, mode: int = 0o600) -> None:
        if self.dry:
            return
        path.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            os.fsync(file.fileno())
        fresh.replace(path)


# -- certificates ---------------------------------------------------------------------------------


def _names(host: str, addresses: t.Iterable[str]) -> list[Name]:
    """The inventory's name says who it is; the addresses are what Prometheus compares with those that it asks."""
    names = {host: _dns_name(host)}
    for address in addresses:
        try:
            names[address] = x509.IPAddress(ipaddress.ip_address(address))
        except ValueError:
            names[address] = _dns_name(address)
    return list(names.values())


def _dns_name(name: str) -> Name:
    try:
        return x509.DNSName(name)
    except ValueError:
        raise CaError(f"{name}: a certificate's names have ASCII letters only: rename the host") from None


def _issue(
    host: str, names: t.Sequence[Name], signer: x509.Certificate, signer_key: ec.EllipticCurvePrivateKey | None
) -> tuple[bytes, x509.Certificate]:
    if signer_key is None:
        raise CaError(
            f"{host} needs a certificate, and the authority's key, ca.key, is gone. Bring it back from where you keep"
            " copies; or rename ca.crt to ca-old.crt and run for all hosts: a new authority is made, and what the old"
            " one has signed stays good"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(_now() + datetime.timedelta(days=HOST_DAYS), _end(signer))
    if _end(signer) <= _now():
        raise CaError("the authority in ca.crt has expired: rename it to ca-old.crt and run for all hosts")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    builder = (
        _builder(subject, signer.subject, key.public_key(), end)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        # A host's exporters let in the masters and, to ask how they are, the host itself.
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer_key.public_key()), critical=False)
    )
    certificate = builder.sign(signer_key, hashes.SHA256())
    return _key_pem(key) + _pem(certificate).encode(), certificate


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, end: datetime.datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(_now() - _SKEW).not_valid_after(end)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _read_host(path: Path) -> tuple[bytes, x509.Certificate | None]:
    """Return key and certificate as they are on the disk; None where they are no pair."""
    try:
        pem = path.read_bytes()
        certificate = x509.load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERTIFICATE") :])
        key = serialization.load_pem_private_key(pem, None)
    except (OSError, ValueError, TypeError):
        return b"", None
    return (pem, certificate) if key.public_key() == certificate.public_key() else (b"", None)


def _will_do(
    certificate: x509.Certificate,
    names: t.Sequence[Name],
    trusted: t.Sequence[x509.Certificate],
    soon: datetime.datetime,
) -> bool:
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    if set(alternative) != set(names) or not any(_has_signed(authority, certificate) for authority in trusted):
        return False
    if _end(certificate) > soon:
        return True
    # Another one would end as soon, with its authority; or it is of this very run, whatever it is that has to be new.
    signer = trusted[0]
    last = _end(certificate) >= _end(signer) > _now()
    young = _begin(certificate) + _SKEW > _now() - _RUN
    return _has_signed(signer, certificate) and (last or young)


def _has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    key = authority.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CaError(f"{path} is no certificate: {error}") from error


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _end(certificate: x509.Certificate) -> datetime.datetime:
    # Releases before 42 have no such attribute.
    end: datetime.datetime | None = getattr(certificate, "not_valid_after_utc", None)
    return end or certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc)


def _begin(certificate: x509.Certificate) -> datetime.datetime:
    begin: datetime.datetime | None = getattr(certificate, "not_valid_before_utc", None)
    return begin or certificate.not_valid_before.replace(tzinfo=datetime.timezone.utc)
