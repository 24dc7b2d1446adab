"""The fleet of this scenario, as its tests see it."""

from __future__ import annotations

from pathlib import Path

import yaml

_SCENARIO = yaml.safe_load(Path(__file__).with_name("molecule.yml").read_text())
_INVENTORY = _SCENARIO["provisioner"]["inventory"]

# The workers with their own variables, and the groups' variables.
WORKERS = {
    platform["name"]: _INVENTORY["host_vars"].get(platform["name"], {})
    for platform in _SCENARIO["platforms"]
    if "gpu_workers" in platform["groups"]
}
VARIABLES = _INVENTORY["group_vars"]
EVERYWHERE = ["master1", *WORKERS]
# (job, instance) of every target.
FLEET = (
    {("node_exporter", host) for host in EVERYWHERE}
    | {(job, host) for job in ("gpu_exporter", "dcgm_exporter") for host in WORKERS}
    | {(job, "master1") for job in ("prometheus", "alertmanager", "grafana")}
)


def master_with(**variables):
    """VARIABLES, with more of them for the master."""
    return {**VARIABLES, "monitoring_master": {**VARIABLES["monitoring_master"], **variables}}


def all_up(prometheus):
    """Whether Prometheus watches exactly the fleet, and everything in it answers."""
    targets = prometheus.targets()
    return set(targets) == FLEET and all(target["health"] == "up" for target in targets.values())


def same_run(service):
    """Command that prints what changes whenever the service is started."""
    return f"systemctl show -P InvocationID {service}"
