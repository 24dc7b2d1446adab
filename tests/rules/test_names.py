"""Every metric that a rule reads is one that somebody serves."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import names
import pytest
import yaml


@contextlib.contextmanager
def running(prometheus, tmp_path):
    """Run a Prometheus with the collection's rules and without targets; yield its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "prometheus.yml").write_text(json.dumps({"rule_files": [str(names.RULES / "*.yml")]}))
    command = [prometheus / "prometheus", f"--config.file={tmp_path}/prometheus.yml"]
    command += [f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"]
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            for _ in range(100):
                time.sleep(0.1)
                with contextlib.suppress(urllib.error.URLError):
                    urllib.request.urlopen(f"{url}/-/ready", timeout=5)
                    break
            else:
                pytest.fail((tmp_path / "log").read_text())
            yield url
        finally:
            process.kill()


def selected(node) -> set[str]:
    """Return the metrics in a tree of Prometheus' parser."""
    if isinstance(node, list):
        return set().union(*map(selected, node))
    if not isinstance(node, dict):
        return set()
    own = {node["name"]} if node.get("type") in ("vectorSelector", "matrixSelector") else set()
    return own.union(*map(selected, node.values()))


def test_names_are_what_prometheus_own_parser_finds(prometheus, tmp_path):
    with running(prometheus["current"], tmp_path) as url:
        for rule in names.rules_of([*names.own_rules(), *names.own_alerts()]):
            query = urllib.parse.urlencode({"query": rule.expression})
            with urllib.request.urlopen(f"{url}/api/v1/parse_query?{query}", timeout=10) as answer:
                tree = json.load(answer)["data"]
            assert set(names.metrics_of(rule.expression)) == selected(tree), rule
            assert selected(tree) or rule.name == "Watchdog"
        assert isinstance(names.seen_by(url), set)


def runbook_queries() -> list[tuple[str, str]]:
    """Return the queries that runbooks tell to ask, with the name of the page."""
    found = []
    for page in sorted((names.ROOT / "docs/runbooks").glob("*.md")):
        for part in page.read_text().split("In Prometheus:\n\n")[1:]:
            lines = itertools.takewhile(lambda line: line.startswith("    "), part.splitlines())
            found += [(page.stem, line.strip()) for line in lines]
    return found


def test_queries_in_runbooks_are_sound(prometheus, tmp_path):
    """They are asked when something is wrong, which is no time to find out that they are, too."""
    known = names.records(names.own_rules()) | names.tables() | names.ELSEWHERE
    assert len(runbook_queries()) > 50
    with running(prometheus["current"], tmp_path) as url:
        for page, text in runbook_queries():
            query = urllib.parse.urlencode({"query": text})
            with urllib.request.urlopen(f"{url}/api/v1/parse_query?{query}", timeout=10) as answer:
                used = selected(json.load(answer)["data"])
            ours = {name for name in used if name.startswith(("gpu", "ds01", "DCGM", "GPU", "IPMI", "SYS"))}
            assert ours <= known, page


def test_tables_and_records_have_every_metric_of_every_rule():
    known = names.records(names.own_rules()) | names.tables()
    assert names.missing(names.rules_of([*names.own_rules(), *names.own_alerts()]), known) == []


def test_every_threshold_is_used_and_every_metric_of_others_is_read():
    read = set().union(*(names.metrics_of(rule.expression) for rule in names.rules_of(names.own_alerts())))
    others = names.ELSEWHERE.union(*names.OTHERS.values(), {f"threshold:{name}" for name in names.thresholds()})
    assert others <= read


def test_what_dcgm_is_asked_for_has_a_place_in_the_schema_under_either_name():
    used = set().union(*(names.metrics_of(rule.expression) for rule in names.rules_of(names.own_rules())))
    assert {name for pair in names.dcgm_fields() for name in pair} <= used


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("a / on (instance, gpu) group_left (model) b", {"a", "b"}),
        ("sum by (x) (rate(a_total{b=~'c|d', e!=\"f}\"}[5m:1m] offset 1h)) > bool 1e6", {"a_total"}),
        ("max without (a, b) (label_replace(c, 'd', '$1', 'e', '(.+)')) or -1 * d:e:f", {"c", "d:e:f"}),
        ("a unless up @ end()", {"a", "up"}),
        ("sum(a) by (b) # c", {"a"}),
        ('{__name__="a", b="c"} + {"d.e", f="g"}', {"a", "d.e"}),
        ("absent(a{}) and on () vector(1) == inf", {"a"}),
    ],
)  # fmt: skip
def test_names_in_an_expression(expression, found):
    assert set(names.metrics_of(expression)) == found


@pytest.mark.parametrize("expression", ['{__name__=~"a.+"}', "a ; b", "a{b='c'", "5foo"])
def test_what_is_not_understood_is_never_passed_over(expression):
    with pytest.raises(names.UnclearError):
        names.metrics_of(expression)


def test_a_missing_metric_is_named_with_its_rule(tmp_path):
    file = tmp_path / "mine.yml"
    rules = [{"alert": "Hot", "expr": "gpu:temp:celsius > 90"}, {"record": "a:b", "expr": '{__name__=~"x"}'}]
    file.write_text(yaml.safe_dump({"groups": [{"name": "mine", "rules": rules}]}))
    first, second = names.missing(names.rules_of([file]), {"gpu:core_temperature:celsius"})
    assert first == "mine.yml, group mine, Hot: nobody has gpu:temp:celsius"
    assert second.startswith("mine.yml, group mine, a:b: cannot be checked: __name__=~ in")
