# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Old data come to ours. They stay where they are, too: this copies."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import time
import typing as t
import urllib.request
from pathlib import Path

from ..native_service import health
from .plan import Copy, MigrationError

# Prometheus' own: locks, and what a block was called while it was written.
_PASSING = re.compile(r"lock|queries\.active|.*\.tmp(-for-(creation|deletion))?")
_BLOCK = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")  # a ULID
PROMETHEUS = Path("/opt/gpufleet/prometheus/current/prometheus")
_READY = 600  # seconds to read the log of a large fleet


def size(path: Path) -> int:
    """Return the bytes below a directory. What goes meanwhile is left out."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                total += (Path(directory) / name).lstat().st_size
            except OSError:
                continue
    return total


def is_empty(path: Path) -> bool:
    """Whether a directory is not there, or has nothing in it that anybody could miss."""
    return not path.is_dir() or all(_PASSING.fullmatch(entry.name) for entry in path.iterdir())


def free(path: Path) -> int:
    """Return the bytes that are free where a path is, or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def bring(copy: Copy) -> None:
    """Copy data whose service is stopped. Raises MigrationError, OSError.

    Into an empty directory comes all of it, what the old service held in memory (its log) included. Where there are
    data, only blocks can be added: Prometheus makes them of a copy, and finds the new ones within minutes.
    """
    source, target = Path(copy.source.path), Path(os.path.realpath(copy.target.path))
    staging = target.with_name(f"{target.name}.migrating")
    if staging.exists():
        shutil.rmtree(staging)  # of a run that was cut
    try:
        _copy(source, staging)
        if copy.merge:
            _merge(staging, target)
        else:
            _place(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _copy(source: Path, staging: Path) -> None:
    """Copy directories and plain files alone: a link that a container has made leads root to anything on the host."""

    def left(directory: str, names: list[str]) -> set[str]:
        return {name for name in names if _PASSING.fullmatch(name) or not _is_plain(Path(directory) / name)}

    if os.path.realpath(source) != str(source):
        raise MigrationError(f"{source} has become a link, or something above it: nothing was copied")
    shutil.copytree(source, staging, symlinks=True, ignore=left)
    staging.chmod(0o700)


def _is_plain(path: Path) -> bool:
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _place(staging: Path, target: Path) -> None:
    """One step, so that there are never half of them. systemd gives them to the service when it first starts."""
    if not is_empty(target):
        raise MigrationError(f"{target} has data by now, and keeps them: nothing was copied")
    if target.exists():
        _own(staging, target)
        shutil.rmtree(target)
    staging.rename(target)


def _own(path: Path, like: Path) -> None:
    """Give all below ``path`` to the owner of ``like``."""
    owner = like.stat()
    for entry in (path, *path.rglob("*")):
        os.chown(entry, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _merge(staging: Path, target: Path) -> None:
    there = {entry.name for entry in target.iterdir()}
    for block in _blocks(staging):
        if block.name not in there:
            _own(block, target)
            block.rename(target / block.name)


def _blocks(staging: Path) -> list[Path]:
    """Return blocks of all that a data directory holds, its log included, by Prometheus' own snapshot."""
    if not PROMETHEUS.exists():
        raise MigrationError(f"there are data already, but no {PROMETHEUS} to add to them: run site.yml first")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = staging / "nothing.yml"
    config.touch()
    words = [
        str(PROMETHEUS),
        f"--config.file={config}",
        f"--storage.tsdb.path={staging}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-admin-api",
    ]
    with (staging / "log").open("w") as log, subprocess.Popen(words, stdout=log, stderr=log) as prometheus:
        try:
            _wait(f"http://127.0.0.1:{port}/-/ready", prometheus, staging / "log")
            name = _post(f"http://127.0.0.1:{port}/api/v1/admin/tsdb/snapshot")["data"]["name"]
        finally:
            prometheus.terminate()
    return [entry for entry in (staging / "snapshots" / name).iterdir() if _BLOCK.fullmatch(entry.name)]


def _open(request: str | urllib.request.Request, timeout: float) -> bytes:
    with health.opener().open(request, timeout=timeout) as answer:
        return t.cast(bytes, answer.read())


def _post(url: str) -> t.Any:
    try:
        return json.loads(_open(urllib.request.Request(url, method="POST"), _READY))
    except (OSError, ValueError) as error:
        raise MigrationError(f"Prometheus made no snapshot of the old data: {error}") from error


def _wait(url: str, prometheus: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + _READY
    while prometheus.poll() is None and time.monotonic() < ends:
        try:
            _open(url, 5)
            return
        except OSError:
            time.sleep(0.2)
    last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise MigrationError(f"Prometheus cannot read the old data:\n{last}")
