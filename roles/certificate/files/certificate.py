"""The front door's certificate: gets it, renews it, hands it to nginx, and says when it ends.

    certificate.py             bring the certificate to what config.json beside this file says; a timer does it hourly
    certificate.py --renew     get a new one now, whether it is time or not
    certificate.py --check     only say whether config.json, and the files that an operator gave, make sense
    certificate.py --status    whether there is a certificate as described, and in time

/var/lib/gpufleet-certificate/current         link to the certificate that is served: fullchain.pem, privkey.pem
/var/lib/gpufleet-certificate/issued/NUMBER/  each one, complete, with what it was asked for in origin.json
/var/lib/gpufleet-certificate/ca              link to our own small CA, of mode selfsigned: ca.pem, ca.key
/var/lib/gpufleet-certificate/authorities/    what that link points to
/var/lib/gpufleet-certificate/acme/           certbot's directory, of mode letsencrypt

Whatever goes wrong, the certificate that is served stays. Private keys are root's alone. Python's standard library and
the openssl and certbot of the distribution, nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

STATE = Path("/var/lib/gpufleet-certificate")
CONFIG = Path(__file__).resolve().parent / "config.json"
# What nginx starts with where there is none; the role nginx makes it.
PLACEHOLDER = "gpufleet placeholder"

# A certificate is renewed when a third of its life is left: 30 of 90 days, as Let's Encrypt asks.
RENEW_AT = 1 / 3
SERVED_WITHIN = 20  # seconds after a reload, in which old workers may still answer
KEPT = 2  # certificates: the one that is served and the one before it

_DNS_NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?", re.I)
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


class CertificateError(Exception):
    """What went wrong, for a person to read."""


class Certificate(t.NamedTuple):
    """One X.509 certificate, as openssl describes it. Times are seconds since the epoch."""

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


class Issued(t.NamedTuple):
    """A certificate with its key in a directory, and what it was asked for."""

    directory: Path
    chain: list[Certificate]
    origin: dict[str, t.Any]

    @classmethod
    def read(cls, directory: Path) -> Issued | None:
        """Return what is in ``directory``, None where that is nothing that could be served."""
        try:
            chain = chain_of((directory / "fullchain.pem").read_text())
            origin = json.loads((directory / "origin.json").read_text())
            (directory / "privkey.pem").stat()
        except (OSError, ValueError, KeyError, CertificateError):
            return None
        return cls(directory, chain, origin) if chain else None

    @property
    def leaf(self) -> Certificate:
        """The server's own certificate."""
        return self.chain[0]


class Material(t.NamedTuple):
    """A new certificate, before it lies anywhere."""

    chain: str
    key: str


# -- modes --------------------------------------------------------------------------------------


class Mode:
    """Where certificates come from."""

    def __init__(self, config: dict[str, t.Any], state: Path) -> None:
        self.config = config
        self.names: list[str] = config["names"]
        self.state = state

    def origin(self) -> dict[str, t.Any]:
        """What a certificate is asked for: a new one is wanted when this is another."""
        return {"mode": self.config["mode"], "names": sorted(self.names)}

    def check(self) -> None:
        """Raise CertificateError where the configuration makes no sense."""

    def obtain(self) -> Material:
        """Return a new certificate. Raises CertificateError."""
        raise NotImplementedError

    def due(self, current: Issued | None, now: float) -> bool:
        """Whether a new certificate is wanted in place of ``current``."""
        return current is None or current.origin != self.origin() or current.leaf.due(now)


class SelfSigned(Mode):
    """A small CA of our own, whose certificate an operator hands to browsers once."""

    CA_DAYS = 3650

    def origin(self) -> dict[str, t.Any]:
        """A lifetime that is another is another certificate, and so is one of another CA."""
        ca = self._ca_certificate()
        return {**super().origin(), "days": self.config["selfsigned_days"], "ca": ca.fingerprint if ca else ""}

    def due(self, current: Issued | None, now: float) -> bool:
        """Also when the CA is to be renewed."""
        return self._new_ca(now) != "" or super().due(current, now)

    def obtain(self) -> Material:
        """Sign a new key with the CA, which is made or renewed first where that is needed."""
        self._prepare_ca(time.time())
        names = [f"{'IP' if is_address(name) else 'DNS'}:{name}" for name in self.names]
        with tempfile.TemporaryDirectory(dir=self.state) as scratch:
            work = Path(scratch)
            (work / "request").write_text(_REQUEST.format(name=f"front door of {_plain(self.names[0])}", extensions=""))
            (work / "extensions").write_text(_LEAF.format(names=",".join(names)))
            key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(work / "key"))
            openssl("req", "-new", *key, "-config", str(work / "request"), "-out", str(work / "csr"))
            signer = ("-CA", str(self._ca / "ca.pem"), "-CAkey", str(self._ca / "ca.key"), "-set_serial", _serial())
            days = str(self.config["selfsigned_days"])
            leaf = openssl("x509", "-req", "-in", str(work / "csr"), *signer, "-days", days, "-sha256",
                           "-extfile", str(work / "extensions"))  # fmt: skip
            return Material(leaf, (work / "key").read_text())

    @property
    def _ca(self) -> Path:
        return self.state / "ca"

    def _ca_certificate(self) -> Certificate | None:
        try:
            return Certificate.parse((self._ca / "ca.pem").read_text())
        except (OSError, CertificateError):
            return None

    def _new_ca(self, now: float) -> str:
        """Say what the CA needs: "" nothing, "renew" a later end, "make" to be another one."""
        ca = self._ca_certificate()
        if ca is None or not self._permitted().issuperset(_constraints(self.names)):
            return "make"
        return "renew" if ca.due(now) else ""

    def _permitted(self) -> set[str]:
        try:
            return set(json.loads((self._ca / "names.json").read_text()))
        except (OSError, ValueError):
            return set()

    def _prepare_ca(self, now: float) -> None:
        """Whoever trusts the CA trusts it for the front door's names alone, so new names need a new one.

        A CA that is renewed keeps its key and its name: for who has the old certificate, all goes on until that ends.
        Key and certificate come together, by one rename of a link; bring() turns it back where the rest fails.
        """
        need = self._new_ca(now)
        if not need:
            return
        (self.state / "authorities").mkdir(mode=0o755, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=self.state / "authorities"))
        fresh.chmod(0o755)
        if need == "make":
            key = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
            write(fresh / "ca.key", key, 0o600)
            write(fresh / "name", f"gpufleet CA of {_plain(self.names[0])} {secrets.token_hex(3)}", 0o644)
            write(fresh / "names.json", json.dumps(sorted(set(_constraints(self.names)))), 0o644)
        else:
            for name, mode in (("ca.key", 0o600), ("name", 0o644), ("names.json", 0o644)):
                write(fresh / name, (self._ca / name).read_text(), mode)
        extensions = _CA.format(constraints=_name_constraints(json.loads((fresh / "names.json").read_text())))
        request = _REQUEST.format(name=(fresh / "name").read_text(), extensions=extensions)
        pem = openssl("req", "-new", "-x509", "-key", str(fresh / "ca.key"), "-config", "/dev/stdin", "-sha256",
                      "-days", str(self.CA_DAYS), "-set_serial", _serial(), stdin=request)  # fmt: skip
        write(fresh / "ca.pem", pem, 0o644)
        point(self._ca, fresh)
        say(f"the CA is {'new' if need == 'make' else 'renewed'}: browsers have to be given {self._ca}/ca.pem")


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


def _constraints(names: t.Iterable[str]) -> list[str]:
    """What a CA has to be permitted, to sign for these names."""
    return [f"IP:{name}" if is_address(name) else f"DNS:{re.sub('^[*][.]', '', name)}" for name in names]


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


def _plain(name: str) -> str:
    """A name for a subject, where it must not look like one that the certificate is for."""
    return name.replace("*", "any").replace(".", " ").replace(":", " ")


def _serial() -> str:
    return f"0x{secrets.token_hex(15)}"


class LetsEncrypt(Mode):
    """Let's Encrypt or another ACME server, by certbot. certbot.ini, beside config.json, has all of its options."""

    def origin(self) -> dict[str, t.Any]:
        """Another server's certificate is another one: those of a test server are trusted by nobody."""
        return {**super().origin(), "server": self.config["acme_directory_url"]}

    def check(self) -> None:
        """Such servers certify names of the public DNS."""
        for name in self.names:
            if is_address(name) or "." not in name:
                raise CertificateError(
                    f"certificate_names has {name!r}, and certificate_mode: letsencrypt needs full DNS names: "
                    "set gpufleet_server_names to those that people use, such as [monitoring.example.org]"
                )
            if name.startswith("*.") and not self.config["acme_dns"]:
                raise CertificateError(
                    f"certificate_names has {name!r}, which takes a DNS challenge: set certificate_acme_dns_plugin"
                )

    def obtain(self) -> Material:
        """Ask certbot for a new one. Raises CertificateError with the server's words."""
        acme = self.state / "acme"
        live = acme / "live" / self.config["acme_lineage"]
        (self.state / "webroot").mkdir(mode=0o755, exist_ok=True)
        words = ["certbot", "certonly", "--config", str(CONFIG.with_name("certbot.ini")),
                 "--keep-until-expiring" if self._lost(live / "fullchain.pem") else "--force-renewal"]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=self._environment())
        if done.returncode != 0:
            said = _reason(done.stdout + "\n" + done.stderr)
            raise CertificateError(f"{self.config['acme_directory_url']} gave no certificate: {said}")
        used = {path.resolve() for path in acme.glob("live/*/*.pem")}
        for path in (*acme.glob("archive/*/*.pem"), *acme.glob("keys/*.pem")):  # certbot keeps old keys for ever
            if path.resolve() not in used:
                path.unlink()
        return Material((live / "fullchain.pem").read_text(), (live / "privkey.pem").read_text())

    def _lost(self, live: Path) -> bool:
        """Whether certbot got one that we could not store: then it is newer than all that we have."""
        stored = [path.stat().st_mtime for path in self.state.glob("issued/*/origin.json")]
        return live.exists() and live.stat().st_mtime > max(stored, default=0)

    def _environment(self) -> dict[str, str]:
        trusted = {"REQUESTS_CA_BUNDLE": str(CONFIG.with_name("acme_ca.pem"))} if self.config["acme_ca"] else {}
        return {**os.environ, "LC_ALL": "C.UTF-8", **trusted}


def _reason(text: str) -> str:
    """What of certbot's words says why: the server's details, else its last lines."""
    ignored = ("Saving debug", "Ask for help", "See the logfile", "Some challenges have failed", "Requesting a cert")
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(ignored) and not set(line) <= {"-", " "}]
    details = [line for line in lines if re.match(r"(Detail|Hint|Type|Domain|Identifier):", line)]
    return " ".join(dict.fromkeys(details or lines[-4:])) or "certbot said nothing"


class Provided(Mode):
    """Files of the operator, which lie beside config.json."""

    def _read(self) -> Material:
        return Material(*(CONFIG.with_name(f"provided.{kind}").read_text() for kind in ("pem", "key")))

    def origin(self) -> dict[str, t.Any]:
        """Another file is another certificate. It goes with one key only, which who asks for the status cannot read."""
        chain = CONFIG.with_name("provided.pem").read_bytes()
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
        _check_chain(chain, CONFIG.with_name("provided_ca.pem") if self.config["provided_ca"] else None)
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
        write(chain, found.chain, 0o600)
        write(key, found.key, 0o600)
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


MODES: dict[str, type[Mode]] = {"selfsigned": SelfSigned, "letsencrypt": LetsEncrypt, "provided": Provided}


# -- the certificate that is served -------------------------------------------------------------


class Store:
    """What was issued, and the link to what is served."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._link = state / "current"
        self._ca = state / "ca"
        self._issued = state / "issued"

    def current(self) -> Issued | None:
        """Return what is served, None where that is a placeholder or nothing."""
        return Issued.read(self._link.resolve()) if self._link.is_symlink() else None

    def add(self, material: Material, origin: dict[str, t.Any]) -> Issued:
        """Put a new certificate beside the others."""
        self._issued.mkdir(mode=0o755, exist_ok=True)  # everybody may ask for the status; keys are root's
        target = self._issued / str(1 + max(self._numbers(), default=0))
        target.mkdir(mode=0o755)
        try:
            write(target / "privkey.pem", material.key, 0o600)
            write(target / "fullchain.pem", material.chain, 0o644)
            write(target / "origin.json", json.dumps(origin), 0o644)
            found = Issued.read(target)
            if found is None:
                raise CertificateError("what came back is no certificate")
        except (CertificateError, OSError):
            shutil.rmtree(target)
            raise
        return found

    def activate(self, directory: Path) -> None:
        """Let ``directory`` be what is served."""
        point(self._link, directory)

    def links(self) -> dict[Path, Path | None]:
        """Return where the links point, for restore()."""
        return {link: link.resolve() if link.is_symlink() else None for link in (self._link, self._ca)}

    def restore(self, links: dict[Path, Path | None]) -> None:
        """Let them point there again."""
        for link, target in links.items():
            if self.links()[link] != target:
                point(link, target)

    def unserved(self) -> Issued | None:
        """Return what was issued last, where it could not be served."""
        newest = self._issued / str(max(self._numbers(), default=0))
        return Issued.read(newest) if newest != self.links()[self._link] else None

    def prune(self) -> None:
        """Remove all but the last ones, and CAs that are no longer ours."""
        old = [self._issued / str(number) for number in sorted(self._numbers())[:-KEPT]]
        for path in (*old, *self.state.glob("authorities/*")):
            if path.resolve() not in self.links().values():
                shutil.rmtree(path)

    def _numbers(self) -> list[int]:
        return [int(path.name) for path in self._issued.glob("[0-9]*")] if self._issued.is_dir() else []


class Server:
    """The server that serves it."""

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


def bring(mode: Mode, store: Store, server: Server | None, renew: bool) -> None:
    """Bring what is served to what ``mode`` says. Raises CertificateError; what was served is served on then."""
    current = store.current()
    if renew or mode.due(current, time.time()):
        # An issuer that has given a certificate an hour ago is not asked for another one: there are not many in a week.
        left = None if renew else store.unserved()
        usable = left is not None and not mode.due(left, time.time())
        before = store.links()
        try:
            fresh = left if left and usable else store.add(mode.obtain(), mode.origin())
            store.activate(fresh.directory)
            _tell(server, fresh)
        except (CertificateError, OSError):
            served = store.links()
            store.restore(before)
            if server and served != before:
                subprocess.run(["systemctl", "reload", server.unit], check=False)
            raise
        finally:
            store.prune()
        say(f"a new certificate for {', '.join(mode.names)} is served, until {day(fresh.leaf.not_after)}")
    elif current:
        _tell(server, current)


def _tell(server: Server | None, wanted: Issued) -> None:
    """Nothing is reloaded that serves the certificate already."""
    if server and server.runs() and server.serves() != wanted.leaf.fingerprint:
        server.reload(wanted.leaf.fingerprint)


# -- what others see ----------------------------------------------------------------------------

_METRICS = """\
# HELP gpufleet_certificate_not_after_timestamp_seconds When a certificate ends; of a chain, the part that ends first.
# TYPE gpufleet_certificate_not_after_timestamp_seconds gauge
{ends}# HELP gpufleet_certificate_job_success Whether the last look at it, and a renewal where that was due, succeeded.
# TYPE gpufleet_certificate_job_success gauge
gpufleet_certificate_job_success{{mode="{mode}"}} {success}
"""


def metrics(config: dict[str, t.Any], state: Path, success: bool) -> str:
    """Return the text for node_exporter's textfile collector. A placeholder is shown as what it is."""
    rows = []
    for path in (state / "current" / "fullchain.pem", state / "ca" / "ca.pem"):
        with contextlib.suppress(OSError, CertificateError):
            chain = chain_of(path.read_text())
            if not chain or (path.name == "ca.pem" and config["mode"] != "selfsigned"):
                continue
            found = Issued.read(path.parent)
            mode = found.origin["mode"] if found else "selfsigned" if path.name == "ca.pem" else "placeholder"
            name = "CA" if path.name == "ca.pem" else config["names"][0]
            rows.append((str(path), name, mode, min(certificate.not_after for certificate in chain)))
    ends = [
        f'gpufleet_certificate_not_after_timestamp_seconds{{mode="{mode}",name="{name}",path="{path}"}} {end:.0f}\n'
        for path, name, mode, end in rows
    ]
    return _METRICS.format(ends="".join(ends), mode=config["mode"], success=int(success))


# -- tools --------------------------------------------------------------------------------------


def openssl(*words: str, stdin: str | None = None) -> str:
    """Run openssl for its output. Raises CertificateError with what it says."""
    done = subprocess.run(["openssl", *words], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0 and "-checkhost" not in words and "-checkip" not in words:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        said = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no reason")
        raise CertificateError(f"openssl {words[0]}: {said}")
    return done.stdout


def is_address(name: str) -> bool:
    """Whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def write(path: Path, text: str, mode: int) -> None:
    """Replace a file in one step; it never has a wider mode than ``mode``."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def point(link: Path, target: Path | None) -> None:
    """Let ``link`` point to ``target``, in one step; None takes it away."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    if target is None:
        link.unlink(missing_ok=True)
        return
    fresh.symlink_to(os.path.relpath(target, link.parent))
    fresh.replace(link)


def day(seconds: float) -> str:
    """Return a time for people to read."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def say(text: str) -> None:
    """Tell the journal."""
    print(text, file=sys.stderr, flush=True)


def read_config() -> dict[str, t.Any]:
    """Return config.json. Raises CertificateError where its names make no sense."""
    config: dict[str, t.Any] = json.loads(CONFIG.read_text())
    for name in config["names"]:
        if not is_address(name) and not _DNS_NAME.fullmatch(name):
            raise CertificateError(f"certificate_names has {name!r}, which is neither a DNS name nor an address")
    if not config["names"]:
        raise CertificateError("certificate_names is empty: set gpufleet_server_names")
    return config


def run(config: dict[str, t.Any], renew: bool) -> None:
    """Bring the certificate to what it should be, and write down when it ends, whatever came of it."""
    serving = config["server"]
    server = Server(serving["unit"], serving["address"], int(serving["port"])) if serving else None
    success = False
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            bring(MODES[config["mode"]](config, STATE), Store(STATE), server, renew)
            success = True
        finally:
            if config["textfile"]:
                write(Path(config["textfile"]), metrics(config, STATE, success), 0o644)


def status(config: dict[str, t.Any]) -> None:
    """Raise CertificateError where what is served is not as described."""
    mode, current = MODES[config["mode"]](config, STATE), Store(STATE).current()
    if current is None:
        raise CertificateError("there is no certificate yet, but nginx' placeholder")
    if current.leaf.not_after < time.time():
        raise CertificateError(f"the certificate ended on {day(current.leaf.not_after)}")
    if mode.due(current, time.time()):
        raise CertificateError(f"a new certificate is due; this one ends on {day(current.leaf.not_after)}")


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--renew", "--check", "--status"):
        parser.add_argument(option, action="store_true")
    arguments = parser.parse_args()
    try:
        config = read_config()
        if arguments.check:
            MODES[config["mode"]](config, STATE).check()
        elif arguments.status:
            status(config)
        else:
            run(config, arguments.renew)
    except (CertificateError, OSError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
