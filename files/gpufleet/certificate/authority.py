"""A small CA of our own: its key, its certificate, and the names that it may sign for."""

from __future__ import annotations

import json
import re
import secrets
import tempfile
import typing as t
from pathlib import Path

from . import files
from .errors import CertificateError
from .journal import say
from .names import general_name, plain
from .openssl import openssl
from .x509 import Certificate

DAYS = 3650  # of the CA; browsers have to be given another one then

_REQUEST = """\
[req]
prompt = no
distinguished_name = name
{extensions}
[name]
O = gpufleet.monitoring
CN = {name}
"""
_CA = """\
x509_extensions = ca
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
nameConstraints = critical, {constraints}
"""
_LEAF = """\
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


class Authority:
    """The CA below the program's state, as a front door of these names needs it.

    Whoever trusts it trusts it for the front door's names alone, so new names need a new one.
    """

    def __init__(self, state: Path, names: t.Sequence[str]) -> None:
        self.state = state
        self.names = names
        self.link = state / "ca"

    def certificate(self) -> Certificate | None:
        """Return its certificate, None where there is none."""
        try:
            return Certificate.parse((self.link / "ca.pem").read_text())
        except (OSError, CertificateError):
            return None

    def need(self, now: float) -> str:
        """Say what it needs: "" nothing, "renew" a later end, "make" to be another one."""
        ca = self.certificate()
        if ca is None or not self._permitted().issuperset(_constraints(self.names)):
            return "make"
        return "renew" if ca.due(now) else ""

    def prepare(self, now: float) -> None:
        """Make or renew it, where that is needed. Raises CertificateError.

        One that is renewed keeps its key and its name: for who has the old certificate, all goes on until that ends.
        Key and certificate come together, by one rename of a link, which can be turned back.
        """
        need = self.need(now)
        if not need:
            return
        (self.state / "authorities").mkdir(mode=0o755, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=self.state / "authorities"))
        fresh.chmod(0o755)
        if need == "make":
            self._make(fresh)
        else:
            self._copy(fresh)
        _certify(fresh)
        files.point(self.link, fresh)
        say(f"the CA is {'new' if need == 'make' else 'renewed'}: browsers have to be given {self.link}/ca.pem")

    def issue(self, days: int) -> tuple[str, str]:
        """Return a certificate for all the names, and its key. Raises CertificateError."""
        with tempfile.TemporaryDirectory(dir=self.state) as scratch:
            work = Path(scratch)
            subject = f"front door of {plain(self.names[0])}"
            (work / "request").write_text(_REQUEST.format(name=subject, extensions=""))
            (work / "extensions").write_text(_LEAF.format(names=",".join(map(general_name, self.names))))
            key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(work / "key"))
            openssl("req", "-new", *key, "-config", str(work / "request"), "-out", str(work / "csr"))
            signer = ("-CA", str(self.link / "ca.pem"), "-CAkey", str(self.link / "ca.key"), "-set_serial", _serial())
            leaf = openssl("x509", "-req", "-in", str(work / "csr"), *signer, "-days", str(days), "-sha256",
                           "-extfile", str(work / "extensions"))  # fmt: skip
            return leaf, (work / "key").read_text()

    def _permitted(self) -> set[str]:
        try:
            return set(json.loads((self.link / "names.json").read_text()))
        except (OSError, ValueError):
            return set()

    def _make(self, fresh: Path) -> None:
        key = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        files.write(fresh / "ca.key", key, 0o600)
        files.write(fresh / "name", f"gpufleet CA of {plain(self.names[0])} {secrets.token_hex(3)}", 0o644)
        files.write(fresh / "names.json", json.dumps(sorted(set(_constraints(self.names)))), 0o644)

    def _copy(self, fresh: Path) -> None:
        for name, mode in (("ca.key", 0o600), ("name", 0o644), ("names.json", 0o644)):
            files.write(fresh / name, (self.link / name).read_text(), mode)


def _certify(directory: Path) -> None:
    """Write ca.pem for the key, the name and the names for which it may sign that are there."""
    permitted = json.loads((directory / "names.json").read_text())
    extensions = _CA.format(constraints=_name_constraints(permitted))
    request = _REQUEST.format(name=(directory / "name").read_text(), extensions=extensions)
    pem = openssl("req", "-new", "-x509", "-key", str(directory / "ca.key"), "-config", "/dev/stdin", "-sha256",
                  "-days", str(DAYS), "-set_serial", _serial(), stdin=request)  # fmt: skip
    files.write(directory / "ca.pem", pem, 0o644)


def _constraints(names: t.Iterable[str]) -> list[str]:
    """What a CA has to be permitted, to sign for these names."""
    return [general_name(re.sub("^[*][.]", "", name)) for name in names]


def _name_constraints(permitted: t.Iterable[str]) -> str:
    """A kind of name that is not mentioned at all would be permitted altogether (RFC 5280, 4.2.1.10)."""
    entries = []
    for kind, _, name in (entry.partition(":") for entry in sorted(permitted)):
        mask = "" if kind == "DNS" else "/255.255.255.255" if "." in name else "/" + ":".join(["ffff"] * 8)
        entries.append(f"permitted;{kind}:{name}{mask}")
    if not any(";DNS:" in entry for entry in entries):
        entries.append("permitted;DNS:none.invalid")
    if not any(";IP:" in entry and "." in entry for entry in entries):
        entries.append("excluded;IP:0.0.0.0/0.0.0.0")
    if not any(";IP:" in entry and entry.count(":") > 2 for entry in entries):
        entries.append("excluded;IP:" + "/".join([":".join(["0"] * 8)] * 2))
    return ", ".join(entries)


def _serial() -> str:
    return f"0x{secrets.token_hex(15)}"
