"""The fleet that this scenario's tests change, and find again as it was."""

from __future__ import annotations

import pytest
from fleet import VARIABLES, WORKERS
from gpufleet_lab import machines
from gpufleet_lab.playbook import run_playbook


@pytest.fixture
def fleet(inventory):
    """The inventory of the fleet; whatever a test did to the hosts is undone after it."""
    yield inventory(WORKERS, **VARIABLES)
    done = run_playbook("site", inventory=inventory(WORKERS, **VARIABLES))
    assert done.rc == 0, done.messages()


@pytest.fixture
def gpus(lab):
    """The simulated GPUs of a host, to be changed; in the end they are as they were."""
    used = []

    def machine(host):
        spec = lab.hosts[host].spec
        found = machines.MACHINES[spec.gpu]()
        found.write(lab.hosts[host].gpus)
        used.append(host)
        return found

    yield machine
    for host in used:
        machines.MACHINES[lab.hosts[host].spec.gpu]().write(lab.hosts[host].gpus)


@pytest.fixture
def value(prometheus):
    """The one value of an expression, None where there is none."""

    def ask(expression):
        results = prometheus.query(expression)
        assert len(results) <= 1, results
        return float(results[0]["value"][1]) if results else None

    return ask
