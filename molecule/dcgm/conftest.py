"""Workers that this scenario's tests change, and find again as they were."""

from __future__ import annotations

import re
import urllib.error
import urllib.request

import pytest
from fleet import VARIABLES, WORKERS, workers_with
from gpufleet_lab.playbook import run_playbook


@pytest.fixture
def run(inventory):
    """Run the roles on a worker with other variables: run(dcgm_version="4.7.1"). It is undone after the test."""
    touched = set()

    def play(*arguments, limit="gpu1", **variables):
        touched.add(limit)
        path = inventory(WORKERS, **workers_with(**variables))
        return run_playbook("gpu_workers", "--limit", limit, *arguments, inventory=path)

    yield play
    done = run_playbook("gpu_workers", "--limit", ",".join(touched), inventory=inventory(WORKERS, **VARIABLES))
    assert done.rc == 0, done.messages()


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
