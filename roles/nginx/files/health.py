"""health.py ADDRESS PORT REVISION: whether nginx serves the configuration of that revision.

A reload that fails, as when somebody else has a port, leaves nginx with its former configuration, and says so in its
log alone.
"""

from __future__ import annotations

import http.client
import re
import ssl
import sys
import time
from pathlib import Path

LOG = Path("/var/log/nginx/error.log")
# A name that no server has, so that the default server answers: our own address may be the name of another one.
NAME = "gpufleet-revision.invalid"
RECENT = 60  # seconds; what nginx complained of before is not the reason


def main() -> int:
    """Entry point."""
    address, port, revision = sys.argv[1:4]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(address, int(port), timeout=5, context=context)
    try:
        connection.request("GET", "/.well-known/gpufleet-revision", headers={"Host": NAME})
        served = connection.getresponse().read(200).decode("ascii", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return fail(f"https://{address}:{port} does not answer: {error}")
    if served != revision:
        return fail(f"https://{address}:{port} does not serve the new configuration")
    return 0


def fail(reason: str) -> int:
    """Say why, with the last of nginx' own complaints: the last line alone may be "still could not bind()"."""
    try:
        lines = LOG.read_text(errors="replace").splitlines()[-50:]
    except OSError:
        lines = []
    since = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(time.time() - RECENT))  # as lines begin
    last = [line for line in lines if line >= since and re.search(r"\[(emerg|alert)\]", line)][-2:]
    print("; nginx says: ".join([reason, *last]), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
