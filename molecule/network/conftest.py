"""The fleet that this scenario's tests change, and find again as it was."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from fleet import WORKERS, with_all
from gpufleet_lab.playbook import run_playbook

SCAN = Path(__file__).with_name("scan.py").read_text()


@pytest.fixture
def firewall(inventory):
    """Run the role firewall on gpu1 with other variables: firewall(firewall_incoming="deny"). It is undone."""

    ran = []

    def play(**variables):
        path = inventory(WORKERS, **with_all(**variables))
        done = run_playbook("gpu_workers", "--tags", "firewall", inventory=path)
        ran.append((variables, done.rc))
        return done

    yield play
    if ran[-1:] != [({}, 0)]:
        done = play()
        assert done.rc == 0, done.messages()


@pytest.fixture
def answering(sh):
    """From `outside`, ask every TCP port of some addresses: address -> ports that answer."""

    def scan(*addresses):
        lines = sh("outside", f"ulimit -n 8000; python3 -c {shlex.quote(SCAN)} {' '.join(addresses)}").splitlines()
        return {address: [int(port) for port in ports] for address, *ports in map(str.split, lines)}

    return scan
