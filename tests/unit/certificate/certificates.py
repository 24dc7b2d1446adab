"""Names of a front door, somebody else's CA, and clients that trust one or not."""

from __future__ import annotations

import ssl
from pathlib import Path

from gpufleet_lab.authority import Authority

NAMES = ["monitoring.example.org", "10.0.0.5"]
DAY = 86400


class Chain:
    """What an operator gets from somebody else's CA, which has an intermediate one: texts, as files hold them."""

    def __init__(self, directory: Path) -> None:
        self._root = Authority(directory, "root")
        self._intermediate = Authority(directory, "intermediate", self._root)
        self.root, self.intermediate = (ca.certificate.read_text() for ca in (self._root, self._intermediate))

    def leaf(self, name="leaf", names="DNS:monitoring.example.org,IP:10.0.0.5", days=30):
        return self._intermediate.issue(name, f"subjectAltName={names}", days).read_text()

    def key(self, name="leaf"):
        return self._root.key(name).read_text()


def full_disk(path, text, mode):
    raise OSError(28, "No space left on device")


def trusts(ca: Path, chain: Path, key: Path, name: str) -> bool:
    """Whether a client that has ``ca`` takes a server with this certificate for ``name``: by a handshake."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(ca))
    server.load_cert_chain(chain, key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return True
