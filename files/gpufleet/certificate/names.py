"""Names and addresses that certificates are for."""

from __future__ import annotations

import ipaddress
import re

_DNS_NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?", re.I)


def is_address(name: str) -> bool:
    """Whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_dns_name(name: str) -> bool:
    """Whether a name is one of the DNS, which may begin with a star."""
    return _DNS_NAME.fullmatch(name) is not None


def general_name(name: str) -> str:
    """Return a name with its kind, as openssl's configuration has it: DNS:example.org, IP:10.0.0.5."""
    return f"{'IP' if is_address(name) else 'DNS'}:{name}"


def plain(name: str) -> str:
    """Return a name for a subject, where it must not look like one that the certificate is for."""
    return name.replace("*", "any").replace(".", " ").replace(":", " ")
