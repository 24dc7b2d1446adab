"""The fleet of this scenario, as its tests see it."""

from __future__ import annotations

WORKERS = {"gpu1": {"rack": "r1"}, "gpu2": {}, "gpu3": {"rack": "r2"}}
EVERYWHERE = ["master1", *WORKERS]
# (job, instance) of every target.
FLEET = {("node_exporter", host) for host in EVERYWHERE} | {("prometheus", "master1")}
# As in molecule.yml.
VARIABLES = {
    "all": {"gpufleet_labels": {"site": "lab", "rack": "{{ rack | default('') }}"}},
    "monitoring_master": {
        "prometheus_bind_address": "0.0.0.0",
        "prometheus_scrape_interval": "1s",
        "prometheus_scrape_timeout": "1s",
    },
}


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
