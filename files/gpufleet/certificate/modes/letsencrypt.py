"""From Let's Encrypt or another ACME server, by certbot."""

from __future__ import annotations

import os
import re
import subprocess
import typing as t
from pathlib import Path

from ..errors import CertificateError
from ..names import is_address
from ..store import Material
from .mode import Mode


class LetsEncrypt(Mode):
    """Asks certbot; certbot.ini, beside config.json, has all of its options."""

    def origin(self) -> dict[str, t.Any]:
        """Another server's certificate is another one: those of a test server are trusted by nobody."""
        return {**super().origin(), "server": self.config.acme_directory_url}

    def check(self) -> None:
        """Such servers certify names of the public DNS."""
        for name in self.names:
            if is_address(name) or "." not in name:
                raise CertificateError(
                    f"certificate_names has {name!r}, and certificate_mode: letsencrypt needs full DNS names: "
                    "set gpufleet_server_names to those that people use, such as [monitoring.example.org]"
                )
            if name.startswith("*.") and not self.config.acme_dns:
                raise CertificateError(
                    f"certificate_names has {name!r}, which takes a DNS challenge: set certificate_acme_dns_plugin"
                )

    def obtain(self) -> Material:
        """Ask certbot for a new one. Raises CertificateError with the server's words."""
        acme = self.state / "acme"
        live = acme / "live" / self.config.acme_lineage
        (self.state / "webroot").mkdir(mode=0o755, exist_ok=True)
        words = ["certbot", "certonly", "--config", str(self.config.directory / "certbot.ini"),
                 "--keep-until-expiring" if self._lost(live / "fullchain.pem") else "--force-renewal"]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=self._environment())
        if done.returncode != 0:
            said = _reason(done.stdout + "\n" + done.stderr)
            raise CertificateError(f"{self.config.acme_directory_url} gave no certificate: {said}")
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
        trusted = {"REQUESTS_CA_BUNDLE": str(self.config.directory / "acme_ca.pem")} if self.config.acme_ca else {}
        return {**os.environ, "LC_ALL": "C.UTF-8", **trusted}


def _reason(text: str) -> str:
    """What of certbot's words says why: the server's details, else its last lines."""
    ignored = ("Saving debug", "Ask for help", "See the logfile", "Some challenges have failed", "Requesting a cert")
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(ignored) and not set(line) <= {"-", " "}]
    details = [line for line in lines if re.match(r"(Detail|Hint|Type|Domain|Identifier):", line)]
    return " ".join(dict.fromkeys(details or lines[-4:])) or "certbot said nothing"
