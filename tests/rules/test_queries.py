"""Every query of the dashboards is one that Prometheus can read, about metrics that somebody serves."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import names
import pytest
import queries
from gpufleet_lab import mirror
from test_names import running

ELSEWHERE = {
    "node_systemd_unit_state",  # where systemd runs
    "prometheus_tsdb_head_samples_appended_total",  # once there is a sample
    "prometheus_notifications_sent_total",  # with an Alertmanager
}
SPAN = queries.Range.last(24 * 3600)


@pytest.fixture(scope="module")
def url(prometheus, tmp_path_factory):
    with running(prometheus["current"], tmp_path_factory.mktemp("prometheus")) as found:
        yield found


def asked():
    """Each query with its expression, for a step of its panel; a variable stands for any value."""
    for dashboard in queries.dashboards():
        values = {one["name"]: "x" for one in dashboard["templating"]["list"]}
        for query in queries.queries(dashboard):
            yield query, queries.filled(query, values, SPAN)
        for one in queries.variables(dashboard):
            text = queries.substitute(one["definition"], values, SPAN)
            expression = re.fullmatch(r"query_result\((.+)\)|label_values\((.+), *\w+\)", text)
            yield f"{dashboard['uid']}: variable {one['name']}", expression[1] or expression[2]


def exposed(address: str) -> set[str]:
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {re.match(r"\w+", line)[0] for line in lines if not line.startswith("#")}


@pytest.fixture(scope="module")
def node_exporter(tmp_path_factory):
    """The metrics that node_exporter serves of this machine."""
    directory = tmp_path_factory.mktemp("node_exporter")
    version = mirror.versions(mirror.path())["node_exporter"]["current"]
    (archive,) = mirror.path().rglob(f"node_exporter-{version}.*.tar.gz")
    shutil.unpack_archive(archive, directory)
    (program,) = directory.glob("*/node_exporter")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with subprocess.Popen([program, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(100):
                time.sleep(0.1)
                try:
                    return exposed(f"http://{address}")
                except urllib.error.URLError:
                    assert process.poll() is None
            pytest.fail("node_exporter does not answer")
        finally:
            process.kill()


def test_prometheus_can_read_every_query(url):
    prometheus = queries.Prometheus(url)
    for query, expression in asked():
        try:
            prometheus.get("parse_query", query=expression)
        except queries.QueryError as error:
            pytest.fail(f"{query}: {error}")


def test_every_metric_of_a_query_is_one_that_somebody_serves(url, node_exporter):
    known = names.records(names.own_rules()) | names.tables() | exposed(url) | node_exporter | ELSEWHERE
    rules = [names.Rule("dashboards", "", str(query), expression, {}) for query, expression in asked()]
    assert names.missing(rules, known) == []
