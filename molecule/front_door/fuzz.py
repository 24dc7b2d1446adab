"""Requests that nobody sends by mistake: the same ones for the same seed."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

PARTS = r"""
.. . %2e%2e %2E. ..%2f %2f %5c %00 ; %252e%252e %c0%ae ? # closed CLOSED inner prometheus stripped dead api - etc passwd
nginx gpufleet users
"""
# Ways to /closed/ that a proxy and a service might read differently.
DETOURS = r"""
/closed/ /closed /x/../closed/ /./closed/ //closed/ /%63losed/ /CLOSED/ /closed;/ /closed%2f /closed%00/ /closed/..;/
/stripped/..%2fclosed/ /stripped/%2e%2e/closed/ /stripped/..;/closed/ /stripped/..\closed/ /stripped/..%5cclosed/
/stripped//closed/ /stripped/../closed/x /api/..%252fclosed/ /closed%20/ /closed/%2e%2e/%2e%2e/closed/ /closed?/../x
"""
METHODS = "GET HEAD POST PUT DELETE OPTIONS TRACE CONNECT PROPFIND get G@T"
HEADERS = """\
X-Original-URL: /closed/
X-Rewrite-URL: /closed/
X-Forwarded-Prefix: /closed
X-Forwarded-For: 192.0.2.1
Transfer-Encoding: x
Content-Length: -1
Content-Length: 99999999999999999999
Host: other.test
Range: bytes=0-,1-,2-
Expect: 100-continue
Connection: Upgrade, HTTP2-Settings
 folded
No colon"""
VERSIONS = ["HTTP/1.1"] * 20 + ["HTTP/1.0", "HTTP/9.9", ""]

# The stand-in says for which service it was asked; files and Prometheus have words of their own.
LEAKS = re.compile(
    rb'"X-Forwarded-Prefix": "/(closed|inner|prometheus)"'
    rb"|root:x:|\$6\$|ssl_certificate|auth_basic_user_file|BEGIN [A-Z ]*PRIVATE"
    rb"|prometheus_build|Prometheus Server is|127\.0\.0\.1:\d"
)


def requests(name: str, seed: int, count: int) -> Iterator[bytes]:
    """Yield requests to a server of this name: the known detours, and so many others."""
    chance = random.Random(seed)
    parts, methods = ["", *PARTS.split()], [*METHODS.split(), "X" * 300]
    headers = [*HEADERS.splitlines(), f"X: {'a' * 9000}", f"Cookie: {'a' * 40000}"]
    headers.append("Content-Length: 5\r\nTransfer-Encoding: chunked")
    for path in DETOURS.split():
        yield f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()
    for _ in range(count):
        words = chance.choices(parts, k=chance.randint(1, 6))
        # Ways up need something to come from: what leaves the server's root is refused, whatever comes after.
        path = "/" + "/".join([*chance.choices(["stripped", "x", "api"], k=chance.randint(0, 3)), *words])
        targets = [path] * 8 + [f"https://{name}{path}", f"//other.test{path}", path[1:], "*"]
        # One thing at a time, mostly, or all that comes back is 400.
        method = chance.choice(["GET", "GET", "POST", chance.choice(methods)])
        version = chance.choice(VERSIONS)
        line = f"{method} {chance.choice(targets)} {version}"
        some = [f"Host: {name}", "Connection: close", *chance.sample(headers, chance.choice([0, 0, 1, 2]))]
        yield "\r\n".join([line, *some, "", ""]).encode()
