"""The fleet that this scenario's tests change, and find again as it was."""

from __future__ import annotations

import pytest
from fleet import VARIABLES, WORKERS
from gpufleet_lab import machines
from gpufleet_lab.playbook import run_playbook

DEPLOY = ("site", "gpu_workers", "monitoring_master")


@pytest.fixture
def fleet(inventory):
    """The inventory of the fleet."""
    return inventory(WORKERS, **VARIABLES)


@pytest.fixture
def play(inventory):
    """Run a playbook for the fleet, or for what the inventory shall be: play("site", "--limit", "gpu1", workers={...}).

    What that changed is undone after the test, unless that did so: by the same roles, on the hosts that were changed.
    """
    changed: dict[tuple[str, str], set[str]] = {}

    def run(playbook, *arguments, workers=WORKERS, masters=None, variables=VARIABLES, path=None):
        done = run_playbook(playbook, *arguments, inventory=path or inventory(workers, masters, **variables))
        tags = arguments[arguments.index("--tags") + 1] if "--tags" in arguments else "all"
        plain = (workers, masters, variables, path) == (WORKERS, None, VARIABLES, None) and "-e" not in arguments
        if playbook in DEPLOY and plain and done.rc == 0 and "--check" not in arguments:
            for (_, others), hosts in changed.items():
                if tags in ("all", others):
                    hosts.difference_update(done.stats)
        elif "--check" not in arguments:
            hosts = {host for host, counts in done.stats.items() if counts["changed"]}
            changed.setdefault((playbook, tags), set()).update(hosts)
        return done

    yield run
    for (playbook, tags), hosts in changed.items():
        if hosts:
            path = inventory(WORKERS, **VARIABLES)
            done = run_playbook(playbook, "--tags", tags, "--limit", ",".join(sorted(hosts)), inventory=path)
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
