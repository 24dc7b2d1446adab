"""What node_exporter tells of the certificate."""

from __future__ import annotations

import contextlib
from pathlib import Path

from .config import Config
from .errors import CertificateError
from .store import Issued
from .x509 import chain_of

_METRICS = """\
# HELP gpufleet_certificate_not_after_timestamp_seconds When a certificate ends; of a chain, the part that ends first.
# TYPE gpufleet_certificate_not_after_timestamp_seconds gauge
{ends}# HELP gpufleet_certificate_job_success Whether the last look at it, and a renewal where that was due, succeeded.
# TYPE gpufleet_certificate_job_success gauge
gpufleet_certificate_job_success{{mode="{mode}"}} {success}
"""


def metrics(config: Config, state: Path, success: bool) -> str:
    """Return the text for node_exporter's textfile collector. A placeholder is shown as what it is."""
    rows = []
    for path in (state / "current" / "fullchain.pem", state / "ca" / "ca.pem"):
        with contextlib.suppress(OSError, CertificateError):
            chain = chain_of(path.read_text())
            if not chain or (path.name == "ca.pem" and config.mode != "selfsigned"):
                continue
            found = Issued.read(path.parent)
            mode = found.origin["mode"] if found else "selfsigned" if path.name == "ca.pem" else "placeholder"
            name = "CA" if path.name == "ca.pem" else config.names[0]
            rows.append((str(path), name, mode, min(certificate.not_after for certificate in chain)))
    ends = [
        f'gpufleet_certificate_not_after_timestamp_seconds{{mode="{mode}",name="{name}",path="{path}"}} {end:.0f}\n'
        for path, name, mode, end in rows
    ]
    return _METRICS.format(ends="".join(ends), mode=config.mode, success=int(success))
