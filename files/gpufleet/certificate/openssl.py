"""The distribution's openssl."""

from __future__ import annotations

import subprocess

from .errors import CertificateError


def openssl(*words: str, stdin: str | None = None) -> str:
    """Run openssl for its output. Raises CertificateError with what it says."""
    done = subprocess.run(["openssl", *words], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0 and "-checkhost" not in words and "-checkip" not in words:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        said = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no reason")
        raise CertificateError(f"openssl {words[0]}: {said}")
    return done.stdout
