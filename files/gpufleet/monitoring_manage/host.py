"""What this host's own files and disks say."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from .ask import Unanswered, Unasked
from .installed import Service

_TARGETS = re.compile(r"/targets/(?P<job>[^/]+)\.json$")


def changed(service: Service) -> dict[str, float | None]:
    """Return when the files that a running service has read were changed; None for those that are gone."""
    return {path: _changed(path) for path, effect in service.files.items() if effect != "none"}


def _changed(path: str) -> float | None:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unasked(f"{path} cannot be looked at: {error.strerror}") from error


def targets(prometheus: Service) -> dict[str, set[str]]:
    """Return the addresses in the files of targets that were placed, by job. Raises Unanswered."""
    files = [(match["job"], path) for path in prometheus.files for match in [_TARGETS.search(path)] if match]
    return {job: _addresses(path) for job, path in files}


def _addresses(path: str) -> set[str]:
    try:
        groups = json.loads(Path(path).read_text())
        return {address for group in groups for address in group["targets"]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Unanswered(f"{path} cannot be read: {error}") from error


def free(path: str) -> int:
    """Return the free bytes where a directory is, into which only its user may look. Raises Unasked."""
    real = os.path.realpath(path)
    try:
        status = _statvfs(real)
    except OSError as error:
        raise Unasked(f"the disk of {real} cannot be looked at: {error.strerror}") from error
    return status.f_bavail * status.f_frsize  # for others than root


def _statvfs(path: str) -> os.statvfs_result:
    try:
        return os.statvfs(path)
    except PermissionError:
        return os.statvfs(mount_point(path, Path("/proc/self/mountinfo").read_text()))


def mount_point(path: str, mountinfo: str) -> str:
    """Return where the filesystem is mounted that holds ``path`` (proc_pid_mountinfo(5): the fifth field)."""
    points = [_unescaped(line.split()[4]) for line in mountinfo.splitlines()]
    return max((point for point in points if _within(path, point)), key=len, default="/")


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


Metrics = dict[str, float]


def metrics(text: str) -> Metrics:
    """Return the metrics without labels of a page in Prometheus' text format."""
    rows = (line.split() for line in text.splitlines() if line and line[0] != "#" and "{" not in line)
    return {row[0]: float(row[1]) for row in rows if len(row) >= 2}
