"""What the role says: config.json, and the files beside it."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

from .errors import CertificateError
from .names import is_address, is_dns_name


class Config(t.NamedTuple):
    """config.json, as the role certificate writes it."""

    directory: Path
    """Where config.json lies, and with it what a mode needs: certbot.ini, acme_ca.pem, provided.pem ..."""
    mode: str
    names: list[str]
    selfsigned_days: int
    acme_directory_url: str
    acme_lineage: str
    """What certbot calls the certificate of this server."""
    acme_dns: bool
    acme_ca: bool
    """Whether there is acme_ca.pem, and with provided_ca provided_ca.pem."""
    provided_ca: bool
    textfile: str
    """Where node_exporter reads the metric; "" for none."""
    server: dict[str, t.Any] | None
    """Unit, address and port of who serves the certificate."""


def read(path: Path) -> Config:
    """Return what a file says. Raises CertificateError where it or its names make no sense."""
    try:
        said = json.loads(path.read_text())
        # What a newer program is told besides is nothing to this one, which hosts may go back to.
        config = Config(path.parent, **{name: said[name] for name in Config._fields[1:]})
    except (ValueError, KeyError, TypeError) as error:
        raise CertificateError(f"{path} is damaged, or of another version of this collection: {error!r}") from None
    for name in config.names:
        if not is_address(name) and not is_dns_name(name):
            raise CertificateError(f"certificate_names has {name!r}, which is neither a DNS name nor an address")
    if not config.names:
        raise CertificateError("certificate_names is empty: set gpufleet_server_names")
    return config
