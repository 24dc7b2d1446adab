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
    """Run both roles that serve a GPU's metrics with other variables: run(dcgm_version="4.7.1"). That is undone."""
    roles = ("gpu_workers", "--tags", "gpu_exporter,dcgm")
    changed = set()

    def play(limit="gpu1", **variables):
        path = inventory(WORKERS, **workers_with(**variables))
        done = run_playbook(*roles, "--limit", limit, inventory=path)
        changed.update(host for host, counts in done.stats.items() if counts["changed"])
        return done

    yield play
    if changed:
        done = run_playbook(*roles, "--limit", ",".join(changed), inventory=inventory(WORKERS, **VARIABLES))
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
