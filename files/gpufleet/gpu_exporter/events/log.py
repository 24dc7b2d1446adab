"""The log as it grows: new lines only, through rotation, truncation and copytruncate.

At the start the last 24 hours are read, also those in files that were rotated away (events.jsonl.1,
events.jsonl-20261123). In a large file the place where they begin is found by bisection.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
import typing as t

from .line import LONGEST, parse

PIECE = 256 << 10
"""Bytes that are read at once; more than the longest line."""
STEP_BYTES = 16 << 20
STEP_SECONDS = 2.0
"""What one reading may take; the next one goes on."""
WHOLE = 16 << 20
"""Files up to this size are read from their beginning."""
_BLOCK = 64 << 10
_FINE = 1 << 20
_MARK = 256
_LINGER = 60.0
"""Seconds for which a file that was rotated away is watched: who writes may have it open still."""
_FILES_LIMIT = 32
_COMPRESSED = (".gz", ".xz", ".zst", ".bz2")

Key = tuple[int, int]
"""Device and inode."""


class File:
    """One file that is open, and how far it was read."""

    def __init__(self, path: str, boundary: int) -> None:
        """Open at the first line that may be after the boundary, a Unix time. Raises OSError."""
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(self.descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(f"{path} is no regular file")
            self.key: Key = (status.st_dev, status.st_ino)
            self.position = find(self.descriptor, status.st_size, boundary)
        except BaseException:
            self.close()
            raise
        # In the middle of a line, that line is not read.
        self.skipping = self.position > 0
        self.mark = b""
        """The last bytes that were read."""
        self.retired: float | None = None
        """When it was seen to be rotated away, by the monotonic clock."""

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)

    def size(self) -> int:
        """Return the bytes that are there now."""
        return os.fstat(self.descriptor).st_size

    def begins(self) -> int | None:
        """Return the time of the first event."""
        events = filter(None, map(parse, os.pread(self.descriptor, _BLOCK, 0).split(b"\n")))
        return next((event.second for event in events), None)

    def continues(self, descriptor: int) -> bool:
        """Whether a descriptor's file has what was read of this one."""
        start = self.position - len(self.mark)
        return os.pread(descriptor, len(self.mark), start) == self.mark

    def go_to(self, position: int, mark: bytes = b"", skipping: bool = False) -> None:
        """Go on from somewhere else."""
        self.position, self.mark, self.skipping = position, mark, skipping

    def read(self, largest: int) -> tuple[list[bytes], int]:
        """Return the complete lines of the next piece and the number of bytes; 0 when there is nothing new.

        A line that has become too long counts as one, cut, as soon as that is seen; the rest of it is passed over.
        """
        data = os.pread(self.descriptor, largest, self.position)
        end = data.rfind(b"\n") + 1
        if not end:
            return self._read_no_end(data, largest)
        lines = data[: end - 1].split(b"\n")
        if self.skipping:
            del lines[0]
        self.go_to(self.position + end, data[max(0, end - _MARK) : end])
        return lines, end

    def _read_no_end(self, data: bytes, largest: int) -> tuple[list[bytes], int]:
        if not data or (len(data) <= LONGEST and len(data) < largest and not self.skipping):
            return [], 0  # the line is not written yet
        lines = [] if self.skipping else [data]
        self.go_to(self.position + len(data), data[-_MARK:], skipping=True)
        return lines, len(data)

    def rest(self) -> bytes:
        """Return what is left of the last line of a file that nobody will end any more."""
        return b"" if self.skipping else os.pread(self.descriptor, LONGEST + 1, self.position)


def find(descriptor: int, size: int, boundary: int) -> int:
    """Return a place before which no event is after a time. The log is in order, within an hour."""
    low, high = 0, size if size > WHOLE else 0
    while high - low > _FINE:
        middle = (low + high) // 2
        if _older(descriptor, middle, boundary):
            low = middle
        else:
            high = middle
    return low


def _older(descriptor: int, place: int, boundary: int) -> bool:
    """Whether all events behind a place are older. A place without any does not tell: then it is read, too."""
    events = [parse(line) for line in os.pread(descriptor, _BLOCK, place).split(b"\n")[1:-1]]
    seconds = [event.second for event in events if event is not None]
    return bool(seconds) and max(seconds) < boundary


class Log:
    """The log's path and all files behind it that matter."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._files: list[File] = []
        self._started = False
        self.behind = False
        """Whether there is more than one step could read."""
        self.compressed: list[tuple[str, float]] = []
        """Files of the last 24 hours that cannot be read, with the time of their last change."""
        self.counted: dict[Key, int] = {}
        """How far each file was read by any process: what is bad in it has been counted up to there."""

    @property
    def seen(self) -> bool:
        """Whether there is, or was, a log."""
        return bool(self._files)

    def restart(self) -> None:
        """Forget everything; the next step reads the last 24 hours again."""
        for file in self._files:
            file.close()
        self._files, self._started, self.compressed = [], False, []

    def follow(self, boundary: int, newest: int) -> bool:
        """See what became of the path. Returns whether a file has come that begins long before the newest event.

        Such a file is a new edition of what was read. Raises OSError.
        """
        if not self._started:
            self._open_rotated(boundary)
            self._started = True
        current = self._files[-1] if self._files and self._files[-1].retired is None else None
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            self._retire(current)
            return False
        if current is None or current.key != (status.st_dev, status.st_ino):
            opened = self._open(self._path, boundary)
            self._retire(current)
            self._files.append(opened)
            return current is not None and _begins_before(opened, newest)
        if current.size() < current.position or not current.continues(current.descriptor):
            self._truncated(current, boundary)
            return _begins_before(current, newest)
        return False

    def read(self) -> t.Iterator[tuple[list[bytes], bool]]:
        """Yield the lines that are new, up to a step, and whether what is bad in them counts. Raises OSError."""
        left, ends = STEP_BYTES, time.monotonic() + STEP_SECONDS
        self.behind = True
        for file in list(self._files):
            while True:
                if left <= 0 or time.monotonic() > ends:
                    return
                fresh = self._fresh(file)
                lines, size = file.read(fresh if fresh > 0 else PIECE)
                if not size:
                    break
                left -= size
                self._note(file.key, file.position)
                yield lines, fresh <= 0
            if file.retired is not None and time.monotonic() - file.retired > _LINGER:
                yield self._end(file)
        self.behind = False

    def _fresh(self, file: File) -> int:
        """Return the bytes, at most a piece, until what nobody has counted yet."""
        return min(PIECE, self.counted.get(file.key, 0) - file.position)

    def _note(self, key: Key, position: int) -> None:
        """Note how far a file was read; the latest files are enough."""
        position = max(self.counted.pop(key, 0), position)
        for old in list(self.counted)[: 1 - _FILES_LIMIT]:
            del self.counted[old]
        self.counted[key] = position

    def _open(self, path: str, boundary: int) -> File:
        file = File(path, boundary)
        if self.counted.get(file.key, 0) > file.size():
            del self.counted[file.key]  # another file that has got the number of an old one
        return file

    def _open_rotated(self, boundary: int) -> None:
        """Open what was rotated away and has events after the boundary, the oldest first."""
        for _, path in sorted(self._rotated(boundary))[-_FILES_LIMIT:]:
            with contextlib.suppress(FileNotFoundError):
                file = self._open(path, boundary)
                file.retired = time.monotonic()
                self._files.append(file)

    def _rotated(self, boundary: int) -> t.Iterator[tuple[float, str]]:
        directory, name = os.path.split(self._path)
        pattern = re.compile(re.escape(name) + r"[.-][0-9]{1,12}(\.[a-z0-9]+)?")
        with contextlib.suppress(FileNotFoundError), os.scandir(directory or ".") as entries:
            for entry in entries:
                match = pattern.fullmatch(entry.name)
                changed = entry.stat().st_mtime if match and entry.is_file() else 0.0
                if match and changed >= boundary and match.group(1) is None:
                    yield changed, entry.path
                elif match and changed >= boundary and match.group(1) in _COMPRESSED:
                    self.compressed.append((entry.name, changed))

    def _retire(self, file: File | None) -> None:
        if file is not None:
            file.retired = time.monotonic()
        for old in self._files[:-_FILES_LIMIT]:
            self._forget(old)

    def _truncated(self, file: File, boundary: int) -> None:
        """Go on at the beginning. copytruncate has left a copy, which has what was written since the last time."""
        for _, path in sorted(self._rotated(boundary), reverse=True):
            with contextlib.suppress(FileNotFoundError):
                copy = File(path, boundary)
                unknown = all(copy.key != other.key for other in self._files)
                if unknown and copy.size() >= file.position and file.mark and file.continues(copy.descriptor):
                    copy.go_to(file.position, file.mark, file.skipping)
                    copy.retired = time.monotonic()
                    self._note(copy.key, file.position)
                    self._files.insert(-1, copy)
                    break
                copy.close()
        self.compressed = []
        self.counted.pop(file.key, None)
        file.go_to(0)

    def _end(self, file: File) -> tuple[list[bytes], bool]:
        rest, fresh = file.rest(), self._fresh(file)
        self._note(file.key, file.position + len(rest))
        self._forget(file)
        return ([rest] if rest else []), fresh <= 0

    def _forget(self, file: File) -> None:
        file.close()
        self._files.remove(file)


def _begins_before(file: File, newest: int) -> bool:
    begins = file.begins()
    return begins is not None and begins < newest - 60
