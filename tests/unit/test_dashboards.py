"""The dashboards as people get them: complete, consistent, and what the code in dashboards/ gives.

What dashboard-linter asks for is asked here: titles, units, descriptions, one variable for the data source, ranges of
rates, counters only as rates. Its rules about variables `job` and `instance` are not: what panels read are records,
which have no job, and the variable of instances is called host.
"""

from __future__ import annotations

import re
from pathlib import Path

import names
import pytest
import queries
from grafana_foundation_sdk.models import units

import dashboards.__main__ as source
from dashboards.shared import panels

ROOT = Path(__file__).resolve().parents[2]
ALL = {one["uid"]: one for one in queries.dashboards()}
UNITS = {value for name, value in vars(units).items() if not name.startswith("_") and isinstance(value, str)}
# Grafana makes days, weeks and years of many hours, which nobody bills.
UNITS = UNITS - {units.Hours} | {panels.HOURS}
# Of these counters, a table shows what was counted for life; as a rate they would say nothing.
FOR_LIFE = {"nvidia-dcgm: Each GPU, N"}

# What dashboards find out for their own queries.
HIDDEN = {"hottest_gpus", "hottest_hosts", "my_slots"}

each_dashboard = pytest.mark.parametrize("dashboard", ALL.values(), ids=list(ALL))


def names_of(dashboard) -> set[str]:
    return {one["name"] for one in dashboard["templating"]["list"]}


def filled(query) -> str:
    """The query's expression, with something for each variable."""
    return queries.substitute(query.expr, dict.fromkeys(names_of(ALL[query.dashboard]), "x"), queries.Range(0, 60))


def links_of(part) -> list[str]:
    """Every address to which a part of a dashboard leads."""
    if isinstance(part, list):
        return [url for one in part for url in links_of(one)]
    if not isinstance(part, dict):
        return []
    own = [part["url"]] if isinstance(part.get("url"), str) else []
    return own + links_of(list(part.values()))


def test_the_files_are_what_the_code_gives():
    found = {file.name: file.read_text() for file in source.DIRECTORY.glob("*.json")}
    wanted = source.files()
    assert found.keys() == wanted.keys(), "run: make dashboards"
    assert [name for name in wanted if found[name] != wanted[name]] == [], "run: make dashboards"


def test_alerts_lead_to_dashboards_that_are_there():
    """By templates of Alertmanager: /d/nvidia-dcgm?var-host=HOST&var-gpu=GPU, /d/host?var-host=HOST, /d/fleet."""
    assert {"host", "gpu"} <= names_of(ALL["nvidia-dcgm"])
    assert "host" in names_of(ALL["host"])
    assert "fleet" in ALL


@each_dashboard
def test_a_dashboard_says_what_it_is_and_is_found_from_the_others(dashboard):
    assert dashboard["title"] and dashboard["description"].endswith(".")
    assert (source.DIRECTORY / f"{dashboard['uid']}.json").is_file()
    assert "id" not in dashboard and dashboard["schemaVersion"] <= 42
    (menu,) = dashboard["links"]
    assert dashboard["tags"] == menu["tags"] == ["gpufleet"]
    assert menu["keepTime"] and menu["includeVars"]
    assert f"`{dashboard['uid']}`" in (ROOT / "docs/dashboards.md").read_text(), "docs/dashboards.md has them all"


@each_dashboard
def test_titles_and_numbers_of_panels_are_their_own(dashboard):
    rows = [row for row in dashboard["panels"] if row["type"] == "row"]
    panels = list(queries.panels(dashboard))
    numbers = [panel["id"] for panel in [*rows, *panels]]
    assert len(numbers) == len(set(numbers)) and all(numbers)
    titles = [panel["title"] for panel in panels]
    assert sorted(titles) == sorted(set(titles))


@each_dashboard
def test_panels_fill_their_rows_and_lie_on_no_other(dashboard):
    taken = set()
    for panel in queries.panels(dashboard):
        at = panel["gridPos"]
        places = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not places & taken, panel["title"]
        taken |= places
    for line in {panel["gridPos"]["y"] for panel in queries.panels(dashboard)}:
        assert sorted(x for x, y in taken if y == line) == list(range(24))


@each_dashboard
def test_variables_are_the_ones_that_links_set_and_each_is_used(dashboard):
    first, *others = dashboard["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    assert first["current"]["value"] == "prometheus"
    assert others == queries.variables(dashboard)
    assert names_of(dashboard) <= {"datasource", "site", "host", "gpu", "user"} | HIDDEN
    asked = " ".join([query.expr for query in queries.queries(dashboard)] + [one["definition"] for one in others])
    for one in others:
        assert one["datasource"]["uid"] == "${datasource}" and one["refresh"] == 2, one["name"]
        assert one["definition"] == one["query"]["query"]
        assert re.search(rf"\${one['name']}\b", asked), one["name"]


@each_dashboard
def test_links_lead_to_dashboards_that_have_the_variables_they_set(dashboard):
    for url in links_of(dashboard["panels"]):
        target, words = re.fullmatch(r"/d/([\w-]+)\?(.+)", url).groups()
        assert set(re.findall(r"var-(\w+)=", words)) <= names_of(ALL[target]), url
        assert set(re.findall(r"\$\{(\w+)(?::\w+)?\}", words)) <= {*names_of(dashboard), "__url_time_range"}, url
        assert "${__url_time_range}" in words and "${datasource:queryparam}" in words, url


@each_dashboard
def test_each_panel_says_what_it_shows_and_why_there_is_nothing(dashboard):
    for panel in queries.panels(dashboard):
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        assert defaults["unit"] in UNITS, panel["title"]
        assert defaults["noValue"], panel["title"]
        assert panel["targets"], panel["title"]
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"]["uid"] == "${datasource}", panel["title"]


@each_dashboard
def test_thresholds_rise(dashboard):
    for panel in queries.panels(dashboard):
        first, *steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps") or [{"value": None}]
        values = [step["value"] for step in steps]
        assert first["value"] is None and values == sorted(values), panel["title"]


@each_dashboard
def test_a_table_is_sorted_formatted_and_linked_by_columns_that_it_has(dashboard):
    for panel in queries.panels(dashboard):
        if panel["type"] == "table":
            (organize,) = [one["options"] for one in panel["transformations"] if one["id"] == "organize"]
            headers = organize["renameByName"].values()
            assert len(set(headers)) == len(headers), panel["title"]
            assert {one["displayName"] for one in panel["options"]["sortBy"]} <= set(headers), panel["title"]
            assert {one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]} == set(headers)
            assert set(re.findall(r"__data\.fields\.(\w+)", str(panel))) <= set(headers), panel["title"]
            for one in panel["fieldConfig"]["overrides"]:
                properties = {each["id"]: each["value"] for each in one["properties"]}
                assert properties["unit"] in UNITS and "noValue" in properties, one["matcher"]


@each_dashboard
def test_queries_use_variables_that_there_are_and_ask_for_all_gpus_at_once(dashboard):
    for query in queries.queries(dashboard):
        assert "$" not in re.sub(r"\$\d", "", filled(query)), query
        assert not re.search(r'gpu="\d', query.expr), query


@each_dashboard
def test_counters_are_shown_as_rates(dashboard):
    """A counter has total in its name, unless a table says that it is a gauge: DS01 has such names."""
    gauges = {family.name for family in names.metrics.FAMILIES.values() if family.kind == "gauge"}
    gauges |= {name for name in names.records(names.own_rules()) if name.startswith("ds01:")}
    for query in queries.queries(dashboard):
        counters = {name for name in names.metrics_of(filled(query)) if re.search("[_:]total$|_Tcp_.*Segs$", name)}
        for name in counters - gauges:
            rate = re.search(rf"\b(rate|increase|count)\({name}[{{\[]", query.expr)
            assert bool(rate) == (str(query) not in FOR_LIFE), query


@each_dashboard
def test_lines_are_rates_over_the_range_that_fits_their_points(dashboard):
    """A fixed range loses what happens between two points, or smooths it. Bars of a day each are sums of a day."""
    for query in queries.queries(dashboard):
        ranges = set(re.findall(r"\[([^\]]+)\]", query.expr))
        if not query.instant:
            assert ranges <= {"$__rate_interval"} or (query.least == 86400 and ranges == {"1d", "$__range"}), query


# -- what stands for a variable, as Grafana has it ------------------------------------------------


class Answers:
    """A Prometheus that knows the options of variables."""

    def __init__(self, **options):
        self._options = options

    def values(self, query, regex, span):
        return self._options[query]


def variable(name, query, **more):
    return {"name": name, "type": "query", "query": {"query": query}, **more}


def fill(*asked, chosen=(), **options):
    dashboard = {"templating": {"list": list(asked)}}
    return queries.fill(Answers(**options), dashboard, dict(chosen), queries.Range(0, 3600))


def test_a_variable_is_what_is_chosen_or_all_or_the_first():
    everything = {"current": {"value": "$__all"}}
    assert fill(variable("host", "h"), h=["gpu10", "gpu2"]) == {"host": "gpu2"}
    assert fill(variable("host", "h"), h=[]) == {"host": ""}
    assert fill(variable("host", "h"), h=["gpu1"], chosen={"host": "gpu7"}) == {"host": "gpu7"}
    assert fill(variable("site", "s", allValue=".*", **everything), s=["a"]) == {"site": ".*"}
    assert fill(variable("slots", "s", **everything), s=["a.b", "c"]) == {"slots": r"(a\\.b|c)"}
    assert fill(variable("slots", "s", **everything), s=["a.b"]) == {"slots": r"a\\.b"}
    assert fill(variable("slots", "s", **everything), s=[]) == {"slots": "()"}


def test_what_stands_in_an_expression():
    day = queries.Range(0, 86400)
    assert queries.substitute('a{b="$host", c=~"${gpu:regex}"}', {"host": "x", "gpu": "1"}, day) == 'a{b="x", c=~"1"}'
    assert queries.substitute("rate(a[$__rate_interval])", {}, day, 120) == "rate(a[135s])"
    assert queries.substitute("rate(a[$__rate_interval])", {}, day, 15) == "rate(a[60s])"
    assert queries.substitute("a[$__range] / $__range_s", {}, day) == "a[86400s] / 86400"
    assert queries.substitute('label_replace(a, "b", "$1", "c", "(.+)")', {}, day).count("$1") == 1
    with pytest.raises(KeyError):
        queries.substitute('a{b="$hots"}', {"host": "x"}, day)


@pytest.mark.parametrize(
    ("seconds", "columns", "step"),
    [(86400, 24, 60), (86400, 12, 120), (86400, 8, 120), (3600, 24, 15), (28 * 86400, 12, 1800)],
)
def test_the_step_of_a_panel_is_the_one_that_grafana_takes(seconds, columns, step):
    assert queries.Range(0, seconds).step(columns) == step


def test_nothing_to_see_is_no_series_or_no_number():
    assert queries.is_empty([])
    assert queries.is_empty([{"value": [0, "NaN"]}, {"values": [[0, "NaN"], [1, "NaN"]]}])
    assert not queries.is_empty([{"values": [[0, "NaN"], [1, "0"]]}])
