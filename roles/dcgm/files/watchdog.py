"""Tell systemd that dcgm-exporter answers, for as long as it does (sd_notify(3), WatchdogSec= in systemd.service(5)).

watchdog.py URL SECONDS         goes into the background and asks; systemd restarts the exporter after such a silence
watchdog.py URL SECONDS --once  asks once; exit status 0 means that it answers well
--certificate FILE              is shown to an exporter that asks for one
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request

# It asks this very host, by whatever name the certificate has; and a proxy is for the way out.
CONTEXT = ssl._create_unverified_context()  # noqa: S323
OPENER = urllib.request.build_opener(urllib.request.HTTPSHandler(context=CONTEXT), urllib.request.ProxyHandler({}))


def status(url: str, patience: float) -> int | None:
    """Return the HTTP status, or None for no answer."""
    try:
        with OPENER.open(url, timeout=patience) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def main() -> None:
    """Entry point."""
    url, pause = sys.argv[1], max(int(sys.argv[2]), 4) / 4
    if "--certificate" in sys.argv:
        CONTEXT.load_cert_chain(sys.argv[sys.argv.index("--certificate") + 1])
    if "--once" in sys.argv:
        # A server that wants a password answers.
        sys.exit(0 if status(url, pause) in (200, 401) else f"{url} does not answer well")
    if os.fork():
        return
    address = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.connect(address)
        while True:
            if status(url, pause) is not None:  # an error, too, is an answer: a restart would not mend it
                systemd.send(b"WATCHDOG=1")
            time.sleep(pause)


main()
