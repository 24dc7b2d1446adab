"""The release mirror's web server: files, byte ranges as downloads resume by, and faults on demand.

Debian's own packages are not copied: whoever asks is sent to the Debian mirror that this machine uses. Who asks for
Ubuntu's is sent to Ubuntu's archive.
"""

from __future__ import annotations

import posixpath
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from urllib.parse import quote, unquote, urlsplit

from . import debian, ubuntu
from .faults import Faults, Rule

CHUNK = 1 << 16


class MirrorServer(ThreadingHTTPServer):
    """Serves the test's extra files before the mirror's own."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], root: Path, state: Path) -> None:
        self.faults = Faults(state)
        self._roots = (self.faults.extra, root)
        self._used: Counter[str] = Counter()
        self._lock = Lock()
        super().__init__(address, MirrorHandler)

    def find(self, path: str) -> Path | None:
        """Return the file of that path, if there is one."""
        candidates = (root / path for root in self._roots)
        return next((file for file in candidates if file.is_file()), None)

    @cached_property
    def _elsewhere(self) -> dict[str, str]:
        """Where distributions' files are. Asked for once it matters: apt takes its time, and few labs want any."""
        return {**debian.mirrors(), **ubuntu.mirrors()}

    def elsewhere(self, path: str) -> str | None:
        """Return the URL of a file that is left where this machine gets its own packages."""
        for place, url in self._elsewhere.items():
            if path.startswith(f"{place}/"):
                return f"{url}{quote(path.removeprefix(place))}"
        return None

    def rule(self, path: str) -> Rule:
        """Return the fault for this request, and count it; without one, a rule of no effect."""
        with self._lock:
            for rule in self.faults.rules():
                if fnmatchcase(path, rule.path) and (rule.times is None or self._used[rule.id] < rule.times):
                    self._used[rule.id] += 1
                    return rule
        return Rule(path)


class MirrorHandler(BaseHTTPRequestHandler):
    """Answers one client."""

    server: MirrorServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send a file, or the part of it that is asked for."""
        path = posixpath.normpath(unquote(urlsplit(self.path).path)).lstrip("/")
        rule = self.server.rule(path)
        time.sleep(rule.delay)
        status, sent = self._answer(path, rule)
        self.server.faults.log(
            {
                "time": time.time(),
                "client": self.client_address[0],
                "method": self.command,
                "path": path,
                "range": self.headers.get("Range"),
                "status": int(status),
                "bytes": sent,
            }
        )

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, path: str, rule: Rule) -> tuple[int, int]:
        file = self.server.find(path)
        if rule.status or not file:
            return self._without_file(path, rule)
        stat = file.stat()
        etag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
        part = self._range(stat.st_size, etag)
        if part.start >= part.stop > 0 or part.start > stat.st_size:
            unsatisfied = {"Content-Range": f"bytes */{stat.st_size}"}
            return self._say(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, unsatisfied)
        status = HTTPStatus.PARTIAL_CONTENT if len(part) < stat.st_size else HTTPStatus.OK
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", self.date_time_string(stat.st_mtime))
        if status == HTTPStatus.PARTIAL_CONTENT:
            self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{stat.st_size}")
        self.end_headers()
        return status, 0 if self.command == "HEAD" else self._send(file, part, rule)

    def _without_file(self, path: str, rule: Rule) -> tuple[int, int]:
        url = self.server.elsewhere(path)
        if url and not rule.status:
            return self._say(HTTPStatus.FOUND, {"Location": url})
        return self._say(rule.status or HTTPStatus.NOT_FOUND)

    def _say(self, status: int, headers: Mapping[str, str] | None = None) -> tuple[int, int]:
        """Answer without content."""
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        return status, 0

    def _range(self, size: int, etag: str) -> range:
        """Return the bytes that are asked for: all of them unless one range is, of this very file."""
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked or self.headers.get("If-Range", etag) != etag or asked.groups() == ("", ""):
            return range(size)
        first, last = asked.groups()
        if not first:
            return range(max(0, size - int(last)), size)
        return range(int(first), min(size, int(last) + 1) if last else size)

    def _send(self, file: Path, part: range, rule: Rule) -> int:
        sent = 0
        limit = len(part) if rule.truncate is None else min(len(part), rule.truncate)
        try:
            for data in _read(file, part[:limit], corrupt=rule.corrupt):
                time.sleep(len(data) / rule.rate if rule.rate else 0)
                self.wfile.write(data)
                sent += len(data)
        except ConnectionError:
            self.close_connection = True  # the client has had enough
        if limit < len(part):
            self.close_connection = True
        return sent

    def log_message(self, *_: object) -> None:
        """Keep quiet: the requests have a log of their own."""


def _read(file: Path, part: range, *, corrupt: bool) -> Iterator[bytes]:
    wrong = file.stat().st_size // 2
    with file.open("rb") as source:
        source.seek(part.start)
        position = part.start
        while position < part.stop:
            data = source.read(min(CHUNK, part.stop - position))
            if corrupt and position <= wrong < position + len(data):
                at = wrong - position
                data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            yield data
            position += len(data)


def serve(address: str, port: int, root: Path, state: Path) -> None:
    """Serve until killed."""
    MirrorServer((address, port), root, state).serve_forever()
