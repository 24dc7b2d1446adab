"""Every query of every dashboard returns something, on a fleet in which everything has happened that they speak of."""

from __future__ import annotations

import itertools
import json
import time

import pytest
import queries
from gpufleet_lab.gpu import Process
from gpufleet_lab.waiting import eventually

RULES = "/etc/prometheus/rules/test_dashboards.yml"
# The alerts of panels about alerts: one of a GPU, one of a host, and one that is still pending.
ALERTS = [
    {"alert": "LabGpuLost", "expr": 'gpu:state:bool{state="lost"} == 1', "labels": {"severity": "critical"}},
    {"alert": "LabTargetDown", "expr": "up == 0", "labels": {"severity": "warning"}},
    {"alert": "LabPending", "expr": "up == 0", "for": "1h", "labels": {"severity": "info"}},
]

# Queries that cannot return anything in this lab, and why.
NOTHING = {
    ("monitoring", "Alerts sent", "A"): "there is no Alertmanager to send to",
    ("ds01-user", "Memory of my containers", "A"): "the kernel may have control groups of version 1",
}


@pytest.fixture
def incidents(prometheus, gpus, sh, value):
    """Jobs on GPUs, a lost GPU, errors, a failed unit, an exporter that is down, and alerts of these."""
    assert eventually(lambda: value('gpu_state{instance="gpu3", gpu="1", state="ok"}') == 1)
    pid = int(sh("gpu1", "docker inspect --format '{{.State.Pid}}' thesis._.1001"))
    machine = gpus("gpu1")
    machine.add_process(0, pid, Process(memory=9 << 30))
    machine.xid(0, 31)
    machine.raise_aer(0, "correctable", "BadTLP")
    other = gpus("gpu3")
    with other.together():
        other.lose(1)
    rules = json.dumps({"groups": [{"name": "test_dashboards", "rules": ALERTS}]})
    try:
        sh("gpu2", "systemd-run --quiet --unit failing false")
        sh("gpu3", "systemctl stop node_exporter")
        sh("master1", f"echo '{rules}' >{RULES} && systemctl reload prometheus")
        yield
    finally:
        sh("gpu2", "systemctl reset-failed failing")
        sh("gpu3", "systemctl start node_exporter")
        sh("master1", f"rm -f {RULES} && systemctl reload prometheus")


@pytest.fixture
def no_docker(sh):
    """Docker of gpu1 answers nobody any more: the collector of allocations fails, and what it has is soon too old."""

    def begin():
        sh("gpu1", "chgrp root /run/docker.sock")

    yield begin
    sh("gpu1", "chgrp docker /run/docker.sock")


def test_every_query_of_every_panel_returns_data(prometheus, incidents, no_docker, value):
    assert eventually(lambda: value('count(ALERTS{alertstate="firing", alertname=~"Lab.+"})'))
    fleet = queries.Prometheus(prometheus.base)
    left = dict(unanswered(fleet, lambda where: where not in NOTHING))

    def answered(besides=""):
        found = dict(unanswered(fleet, left.__contains__))
        left.clear()
        left.update(found)
        return not [panel for _, panel, _ in left if panel != besides]

    # Hours are recorded once a minute.
    assert eventually(lambda: answered(besides="Collectors that fail"), seconds=75), left
    no_docker()
    assert eventually(answered, seconds=30), left


def unanswered(fleet, wanted):
    """Yield each wanted query, and variable, that returns nothing for any host or user that can be chosen."""
    end = time.time()
    minutes, days = queries.Range.last(300, end), queries.Range.last(2 * 86400, end)
    for dashboard in queries.dashboards():
        asked = [query for query in queries.queries(dashboard) if wanted((query.dashboard, query.panel, query.ref))]
        names = [one["name"] for one in queries.variables(dashboard) if wanted((dashboard["uid"], one["name"], ""))]
        empty = {}
        for choice in choices_of(fleet, dashboard, minutes) if asked or names else ():
            values = queries.fill(fleet, dashboard, choice, minutes)
            for name in names:
                empty.setdefault((dashboard["uid"], name, ""), []).append("" if values[name] else "no value")
            for query in asked:
                span = days if query.least == 86400 else minutes
                expression = queries.filled(query, values, span)
                series = fleet.run(query, expression, span)
                where = (query.dashboard, query.panel, query.ref)
                empty.setdefault(where, []).append(expression if queries.is_empty(series) else "")
        yield from ((where, found[0]) for where, found in empty.items() if all(found))


def choices_of(fleet, dashboard, span):
    """Yield each choice of the variables that take one value."""
    single = [one for one in queries.variables(dashboard) if not one.get("multi")]
    options = [fleet.values(queries.substitute(one["definition"], {"site": ".*"}, span), "", span) for one in single]
    for values in itertools.product(*options):
        yield dict(zip((one["name"] for one in single), values))
