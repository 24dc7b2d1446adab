"""The fleet of this scenario, as its tests see it."""

from __future__ import annotations

from pathlib import Path

import yaml

_SCENARIO = yaml.safe_load(Path(__file__).with_name("molecule.yml").read_text())

VARIABLES = _SCENARIO["provisioner"]["inventory"]["group_vars"]
WORKERS = {"gpu1": {}}
# (job, instance) of every target.
FLEET = {("node_exporter", "master1"), ("prometheus", "master1")} | {
    (job, "gpu1") for job in ("node_exporter", "gpu_exporter", "dcgm_exporter")
}


def with_all(**variables):
    """VARIABLES, with more of them for all hosts."""
    return {**VARIABLES, "all": {**VARIABLES["all"], **variables}}


def all_up(prometheus):
    """Whether Prometheus watches exactly the fleet, and everything in it answers."""
    targets = prometheus.targets()
    return set(targets) == FLEET and all(target["health"] == "up" for target in targets.values())
