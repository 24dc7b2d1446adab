"""Ask a mail server whether it would take mail of a sender to receivers. Nothing is sent.

Alertmanager finds that out when the first alert is due. Exits with 1 and one line that says who refused what.
"""

import argparse
import smtplib
import ssl
import sys
from pathlib import Path

SECONDS = 15
LOOPBACK = ("127.0.0.1", "::1")


def connect(smarthost: str, require_tls: bool) -> smtplib.SMTP:
    """Return a connection as Alertmanager makes it: TLS on port 465, else STARTTLS if it is required, and only then."""
    host, _, port = smarthost.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit():
        raise ValueError("it is to be host:port")
    context = ssl.create_default_context()
    if port == "465":
        return smtplib.SMTP_SSL(host, int(port), timeout=SECONDS, context=context)
    connection = smtplib.SMTP(host, int(port), timeout=SECONDS)
    connection.ehlo()
    if require_tls:
        if not connection.has_extn("starttls"):
            raise smtplib.SMTPException("it offers no STARTTLS: alertmanager_smtp_require_tls: false, if that is right")
        connection.starttls(context=context)
        connection.ehlo()
    return connection


def ask(arguments: argparse.Namespace) -> None:
    """Go as far as the receivers' addresses."""
    with connect(arguments.smarthost, arguments.require_tls) as connection:
        if arguments.username:
            if not isinstance(connection.sock, ssl.SSLSocket) and connection.sock.getpeername()[0] not in LOOPBACK:
                raise smtplib.SMTPException(
                    "a password is not sent without TLS: set alertmanager_smtp_require_tls: true"
                )
            connection.login(arguments.username, arguments.password_file.read_text().strip())
        connection.ehlo_or_helo_if_needed()
        accept(connection.mail(arguments.sender), f"the sender {arguments.sender}")
        for receiver in arguments.receivers:
            accept(connection.rcpt(receiver), f"the receiver {receiver}")
        connection.rset()


def accept(answer: "tuple[int, bytes]", subject: str) -> None:
    """Raise SMTPException if the server has said no. "Not now", 4xx (RFC 5321, 4.2.1), is what Alertmanager bears."""
    code, text = answer
    if code // 100 == 5:
        raise smtplib.SMTPException(f"it refuses {subject}: {code} {text.decode(errors='replace')}")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("smarthost", help="HOST:PORT")
    parser.add_argument("receivers", nargs="*")
    parser.add_argument("--from", dest="sender", required=True)
    parser.add_argument("--username")
    parser.add_argument("--password-file", type=Path)
    parser.add_argument("--require-tls", action="store_true")
    arguments = parser.parse_args()
    try:
        ask(arguments)
    except smtplib.SMTPAuthenticationError as error:
        text = f"it refuses the password of {arguments.username}: {error.smtp_code} {error.smtp_error!r}"
    except (OSError, smtplib.SMTPException, ValueError) as error:
        text = str(error)
    else:
        return
    sys.exit(f"the mail server {arguments.smarthost} (alertmanager_smtp_smarthost) would take no mail: {text}")


if __name__ == "__main__":
    main()
