"""Template variables, and the matchers that use them.

Names are fixed, since alerts link to dashboards by them: site, host, gpu and user. A variable that takes one value is
matched with =, since Grafana masks nothing in it; one that takes several with =~.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.common import DataSourceRef

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${datasource}")

# Everything matches where nothing is chosen: also a host without a site, or a GPU that the driver does not name.
_EVERYTHING = ".*"
_LABEL_VALUES, _QUERY_RESULT = 1, 3

SITE = 'site=~"$site"'
HOST = 'instance="$host"'
HOSTS = f'{SITE}, instance=~"$host"'
GPUS = f'{HOST}, gpu=~"$gpu"'
USER = 'user="$user"'
USERS = 'user=~"$user"'
# Of the whole card, where its MIG instances are reported, too.
CARD = 'GPU_I_ID=""'


def pick(*matchers: str) -> str:
    """Return a selector of these matchers."""
    return "{" + ", ".join(matchers) + "}"


def datasource() -> builders.DatasourceVariable:
    """Which Prometheus is asked."""
    own = dashboard.VariableOption(text="prometheus", value="prometheus", selected=True)
    return builders.DatasourceVariable("datasource").label("Data source").type("prometheus").current(own)


def site() -> builders.QueryVariable:
    """Sites, as the inventory's label has them."""
    return _several("site", "Site", "label_values(up, site)")


def host(of: str = "host:gpus:count") -> builders.QueryVariable:
    """One host of the sites."""
    return _query("host", "Host", f"label_values({of}{pick(SITE)}, instance)")


def hosts() -> builders.QueryVariable:
    """Hosts of the sites that have GPUs."""
    return _several("host", "Host", f"label_values(host:gpus:count{pick(SITE)}, instance)")


def gpus() -> builders.QueryVariable:
    """GPUs of the host, by their index in NVML."""
    variable = _several("gpu", "GPU", f"label_values(gpu:state:bool{pick(HOST)}, gpu)")
    return variable.sort(dashboard.VariableSort.NUMERICAL_ASC)


def user() -> builders.QueryVariable:
    """One user who had a slot in the range of time."""
    return _query("user", "User", "label_values(ds01:user_gpu_slots_allocated, user)")


def users() -> builders.QueryVariable:
    """Users who had a slot in the range of time."""
    return _several("user", "User", "label_values(ds01:user_gpu_slots_allocated, user)")


def found_values(name: str, metric: str, label: str) -> builders.QueryVariable:
    """All values of a label, for the queries alone: nobody sees or chooses them."""
    return _found(_query(name, name, f"label_values({metric}, {label})"))


def found_results(name: str, expression: str, label: str) -> builders.QueryVariable:
    """The values of a label in the result of a query, for the queries alone."""
    variable = _query(name, name, f"query_result({expression})", _QUERY_RESULT)
    return _found(variable.regex(f'/[{{,]{label}="([^"]+)"/'))


def _found(variable: builders.QueryVariable) -> builders.QueryVariable:
    """All that was found, as a list: no value for all, or it would match what was not found as well."""
    hidden = variable.hide(dashboard.VariableHide.HIDE_VARIABLE)
    return hidden.multi(True).include_all(True).current(_all())


def _several(name: str, label: str, query: str) -> builders.QueryVariable:
    return _query(name, label, query).multi(True).include_all(True).all_value(_EVERYTHING).current(_all())


def _query(name: str, label: str, query: str, kind: int = _LABEL_VALUES) -> builders.QueryVariable:
    asked: dict[str, object] = {"qryType": kind, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"}
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query(asked)
        .definition(query)
        .sort(dashboard.VariableSort.NATURAL_ASC)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
    )


def _all() -> dashboard.VariableOption:
    return dashboard.VariableOption(text="All", value="$__all", selected=True)
