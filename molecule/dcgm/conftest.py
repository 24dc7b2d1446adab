"""The fleet that this scenario's tests change, and find again as it was."""

from __future__ import annotations

import re
import urllib.error
import urllib.request

import pytest
from fleet import VARIABLES, WORKERS, workers_with
from gpufleet_lab.playbook import run_playbook


@pytest.fixture
def fleet(inventory):
    """The inventory of the fleet; whatever a test did to the hosts is undone after it."""
    yield inventory(WORKERS, **VARIABLES)
    done = run_playbook("site", inventory=inventory(WORKERS, **VARIABLES))
    assert done.rc == 0, done.messages()


@pytest.fixture
def run(fleet, inventory):
    """Run the role on gpu1 with other variables: run(dcgm_version="4.7.1")."""

    def play(*arguments, limit="gpu1", **variables):
        path = inventory(WORKERS, **workers_with(**variables))
        return run_playbook("gpu_workers", "--limit", limit, *arguments, inventory=path)

    return play


class Port:
    """What is served on DCGM's port of a host."""

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}:9400/metrics"

    def text(self) -> str:
        try:
            with urllib.request.urlopen(self._url, timeout=3) as answer:
                return answer.read().decode()
        except (OSError, urllib.error.URLError):
            return ""

    def names(self) -> set[str]:
        return set(re.findall(r"^(DCGM_\w+)\{", self.text(), re.MULTILINE))


@pytest.fixture
def port(lab):
    """What is served on DCGM's port: port("gpu1").names()."""
    return lambda host: Port(lab.hosts[host].address)
