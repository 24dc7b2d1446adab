"""A new certificate, where one is due: obtained, stored and served, or all as it was."""

from __future__ import annotations

import subprocess
import time

from .errors import CertificateError
from .journal import day, say
from .modes.mode import Mode
from .server import Server
from .store import Issued, Store


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
