#!/usr/bin/python3
"""A mail server: aiosmtpd, which wants TLS and a password, and takes mail for one receiver.

Each mail is a file in /var/inbox.

/var/inbox.refused, while it is there, is what it answers to every mail.
"""

import asyncio
import ssl
import time
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult

INBOX, REFUSED = Path("/var/inbox"), Path("/var/inbox.refused")
RECEIVER = "oncall@lab.invalid"


class Handler:
    """Keeps mail."""

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 (aiosmtpd's name)
        """Take mail for whom it knows."""
        if address != RECEIVER:
            return "550 5.1.1 no such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 (aiosmtpd's name)
        """Write the mail down."""
        if REFUSED.exists():
            return REFUSED.read_text().strip()
        (INBOX / f"{time.time():.3f}-{envelope.rcpt_tos[0]}").write_bytes(envelope.content)
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    """Know one user."""
    return AuthResult(success=(data.login, data.password) == (b"alerts", b"correct horse"), handled=False)


def serve():
    """Return what talks to one client."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain("/etc/ssl/mail.crt", "/etc/ssl/mail.key")
    # Alertmanager does not understand how aiosmtpd asks for the name in LOGIN.
    way = {"require_starttls": True, "auth_required": True, "auth_exclude_mechanism": ["LOGIN"]}
    return SMTP(Handler(), tls_context=context, authenticator=authenticate, **way)


async def main():
    """Listen."""
    INBOX.mkdir(exist_ok=True)
    server = await asyncio.get_running_loop().create_server(serve, "0.0.0.0", 587)
    await server.serve_forever()


asyncio.run(main())
