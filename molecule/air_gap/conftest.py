"""The mirror of this scenario, as its tests see it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
MIRROR = EPHEMERAL / "mirror"
LOCK = EPHEMERAL / "mirror.lock.json"
SERVED = "/srv/gpufleet-mirror"


@pytest.fixture
def locked():
    """What the lock has, by path: locked()."""
    return lambda: json.loads(LOCK.read_text())["files"]


@pytest.fixture
def path_of(locked):
    """The one path in the lock that has this name in it."""

    def find(name: str) -> str:
        (found,) = [path for path in locked() if name in path]
        return found

    return find


@pytest.fixture
def reach(sh, lab):
    """Ask for an address from a host: the HTTP status, or why there is none."""
    ask = (
        "python3 -c 'import sys, urllib.request as u\n"
        "try: print(u.urlopen(sys.argv[1], timeout=5).status)\n"
        "except OSError as error: print(error)' {}"
    )
    return lambda host, url: sh(host, ask.format(url))
