"""Links between dashboards: from the fleet to a host, its GPUs and their users. They keep the range of time.

Each leads to what is in a column of a table, or to the value of a label of a line: "__field.labels.instance".
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard

TAG = "gpufleet"
_KEPT = "${datasource:queryparam}&${__url_time_range}"


def to_all() -> builders.DashboardLink:
    """A menu of all dashboards of the collection; variables that they share keep their values."""
    return (
        builders.DashboardLink("Dashboards")
        .type(dashboard.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )


def to_host(host: str = "__data.fields.Host") -> builders.DashboardLink:
    """The host in a table's row, or in a field."""
    return _link("Host", f"/d/host?var-host={_encoded(host)}&{_KEPT}")


def to_gpus(host: str = "__data.fields.Host") -> builders.DashboardLink:
    """All GPUs of the host in a table's row, or in a field."""
    return _link("GPUs of this host", f"/d/nvidia-dcgm?var-host={_encoded(host)}&{_KEPT}")


def to_gpu(host: str = "__data.fields.Host", gpu: str = "__data.fields.GPU") -> builders.DashboardLink:
    """The GPU in a table's row, or in a field."""
    return _link("GPU", f"/d/nvidia-dcgm?var-host={_encoded(host)}&var-gpu={_encoded(gpu)}&{_KEPT}")


def to_user(user: str = "__data.fields.User") -> builders.DashboardLink:
    """The user in a table's row, or in a field."""
    return _link("User", f"/d/ds01-user?var-user={_encoded(user)}&{_KEPT}")


def to_site(site: str = "__data.fields.Site") -> builders.DashboardLink:
    """The site in a table's row, or in a field."""
    return _link("Site", f"/d/fleet?var-site={_encoded(site)}&{_KEPT}")


def _encoded(field: str) -> str:
    return f"${{{field}:percentencode}}"


def _link(title: str, url: str) -> builders.DashboardLink:
    return builders.DashboardLink(title).url(url)
