"""CAs of a test, and what they sign, made by the real openssl."""

from __future__ import annotations

from pathlib import Path

from .system import run

AUTHORITY = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign"


class Authority:
    """A CA: a root, or with `signer` an intermediate one. What it signs lies beside it as NAME.crt and NAME.key."""

    def __init__(self, directory: Path, name: str = "ca", signer: Authority | None = None) -> None:
        directory.mkdir(exist_ok=True)
        self.directory, self.name = directory, name
        self.certificate = self._make(name, AUTHORITY, 9, signer.name if signer else None)

    def issue(self, name: str, extension: str = "", days: int = 9) -> Path:
        """Sign a certificate with an extension, as openssl's x509v3_config(5) has it, and return its file."""
        return self._make(name, extension, days, self.name)

    def key(self, name: str) -> Path:
        """Return the file with the key of a certificate."""
        return self.directory / f"{name}.key"

    def with_key(self, name: str) -> Path:
        """Return a file with a certificate and its key, as clients want it."""
        whole = self.directory / f"{name}.pem"
        whole.write_text((self.directory / f"{name}.crt").read_text() + self.key(name).read_text())
        return whole

    def revoke(self, name: str) -> Path:
        """Return the list of revoked certificates, with this one on it."""
        own, index = self.directory / "revocation.cnf", self.directory / "index"
        index.touch()
        own.write_text(f"[ca]\ndefault_ca=own\n[own]\ndatabase={index}\ndefault_md=sha256\ndefault_crl_days=9\n")
        words = ("ca", "-config", own, "-cert", self.certificate, "-keyfile", self.key(self.name))
        run("openssl", *words, "-revoke", self.directory / f"{name}.crt")
        run("openssl", *words, "-gencrl", "-out", self.directory / "revoked.pem")
        return self.directory / "revoked.pem"

    def _make(self, name: str, extension: str, days: int, signer: str | None) -> Path:
        file, extensions = self.directory / name, self.directory / "extensions"
        extensions.write_text(extension + "\n")
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{file}.key")
        run("openssl", "req", "-new", *key, "-subj", f"/CN={name} of a test", "-out", f"{file}.csr")
        ours = self.directory / (signer or name)
        by = (
            ("-CA", f"{ours}.crt", "-CAkey", f"{ours}.key", "-CAcreateserial")
            if signer
            else ("-signkey", f"{file}.key")
        )
        words = ("-req", "-in", f"{file}.csr", "-days", str(days), "-extfile", extensions, "-out", f"{file}.crt")
        run("openssl", "x509", *words, *by)
        return Path(f"{file}.crt")
