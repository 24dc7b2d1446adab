#!/usr/bin/env python3
"""The queries of dashboards, with their variables filled in as Grafana does, against any Prometheus.

queries.py --prometheus URL                          every query of the collection's dashboards: time, series, errors
queries.py --prometheus URL --set host=gpu1 FILE     of one dashboard, for this host
queries.py                                           just print them
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

DIRECTORY = Path(__file__).resolve().parents[2] / "roles/grafana/files/dashboards"

ALL = "$__all"
# What the role grafana tells Grafana of Prometheus: no step is smaller, and a rate spans four of these.
SCRAPE = 15
# A panel as wide as the window has 24 columns; of 1920 pixels the window's edges and a panel's axis take some.
COLUMN = 76
# Steps that Grafana takes, in seconds, and up to which length a point's share of the range is rounded to each.
_STEPS = (
    *((12.5, 10), (17.5, 15), (25, 20), (45, 30), (90, 60), (210, 120), (450, 300), (750, 600), (1050, 900)),
    *((1500, 1200), (2700, 1800), (5400, 3600), (9000, 7200), (16200, 10800), (32400, 21600), (86400, 43200)),
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LABEL_VALUES = re.compile(r"label_values\((?:(?P<metric>.+),)?\s*(?P<label>\w+)\)")
_QUERY_RESULT = re.compile(r"query_result\((?P<query>.+)\)")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|([a-zA-Z_]\w*))")  # not $1 of label_replace


class QueryError(Exception):
    """What Prometheus said of a query."""


class Query(t.NamedTuple):
    """A query of a panel, or of a dashboard's annotations."""

    dashboard: str
    panel: str
    ref: str
    expr: str
    instant: bool
    columns: int = 24
    least: float = SCRAPE
    """The smallest step that the panel wants, in seconds."""

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.panel}, {self.ref}"


@dataclasses.dataclass
class Range:
    """A range of time."""

    start: float
    end: float

    @classmethod
    def last(cls, seconds: float, end: float | None = None) -> Range:
        """The last seconds until now, or until what is given."""
        end = time.time() if end is None else end
        return cls(end - seconds, end)

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.start

    def step(self, columns: int, least: float = SCRAPE) -> float:
        """Return the step that Grafana takes in a panel of so many columns."""
        share = self.seconds / (columns * COLUMN)
        rounded = next((step for most, step in _STEPS if share < most), 86400)
        return max(rounded, least)


class Prometheus:
    """A Prometheus, asked as Grafana asks it."""

    def __init__(self, url: str, timeout: float = 120) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout

    def get(self, path: str, **words: object) -> t.Any:
        """Return the data of an answer."""
        asked = urllib.parse.urlencode(words, doseq=True)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{asked}", timeout=self._timeout) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise QueryError(error.read().decode(errors="replace")) from error

    def run(self, query: Query, expression: str, span: Range) -> list[dict[str, t.Any]]:
        """Return the series of a query whose variables are filled in. Raises QueryError."""
        step = span.step(query.columns, query.least)
        start, end = (at // step * step for at in (span.start, span.end))
        try:
            if query.instant:
                return self.get("query", query=expression, time=span.end)["result"]
            return self.get("query_range", query=expression, start=start, end=end, step=step)["result"]
        except QueryError as error:
            raise QueryError(f"{query}: {error}") from error

    def values(self, query: str, regex: str, span: Range) -> list[str]:
        """Return the options of a variable: label_values(...) or query_result(...)."""
        if match := _LABEL_VALUES.fullmatch(query):
            words: dict[str, object] = {"start": span.start, "end": span.end}
            if match["metric"]:
                words["match[]"] = match["metric"]
            found = self.get(f"label/{match['label']}/values", **words)
        elif match := _QUERY_RESULT.fullmatch(query):
            result = self.get("query", query=match["query"], time=span.end)["result"]
            found = [_line(one["metric"]) for one in result]
        else:
            raise QueryError(f"not understood: {query}")
        if regex:
            pattern = re.compile(regex.strip("/"))
            found = [match[1] for one in found if (match := pattern.search(one))]
        return list(dict.fromkeys(found))


def _line(metric: dict[str, str]) -> str:
    pairs = ",".join(f'{name}="{value}"' for name, value in sorted(metric.items()) if name != "__name__")
    return f"{metric.get('__name__', '')}{{{pairs}}}"


def dashboards(files: t.Iterable[Path] = ()) -> list[dict[str, t.Any]]:
    """Return dashboards as Grafana reads them; by default the collection's."""
    return [json.loads(file.read_text()) for file in files or sorted(DIRECTORY.glob("*.json"))]


def panels(dashboard: dict[str, t.Any]) -> t.Iterator[dict[str, t.Any]]:
    """Yield the panels, without the rows that they are in."""
    for panel in dashboard["panels"]:
        yield from panel.get("panels") or [] if panel["type"] == "row" else [panel]


def queries(dashboard: dict[str, t.Any]) -> t.Iterator[Query]:
    """Yield the queries of all panels, and of the annotations."""
    uid = dashboard["uid"]
    for note in dashboard.get("annotations", {}).get("list", []):
        if "expr" in note:
            yield Query(uid, f"annotations {note['name']}", "A", note["expr"], instant=False)
    for panel in panels(dashboard):
        least = max(SCRAPE, _seconds(panel["interval"])) if panel.get("interval") else SCRAPE
        for target in panel.get("targets", []):
            instant = bool(target.get("instant"))
            yield Query(uid, panel["title"], target["refId"], target["expr"], instant, panel["gridPos"]["w"], least)


def variables(dashboard: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    """Return the variables that Prometheus is asked for."""
    return [one for one in dashboard["templating"]["list"] if one["type"] == "query"]


def fill(
    prometheus: Prometheus, dashboard: dict[str, t.Any], chosen: t.Mapping[str, str], span: Range
) -> dict[str, str]:
    """Return what stands for each variable: what is chosen, else what Grafana shows first."""
    values: dict[str, str] = {}
    for one in variables(dashboard):
        name = one["name"]
        options = prometheus.values(substitute(one["query"]["query"], values, span), one.get("regex", ""), span)
        if name in chosen:
            values[name] = chosen[name]
        elif one.get("current", {}).get("value") == ALL:
            values[name] = one.get("allValue") or _any_of(options)
        else:
            values[name] = min(options, default="", key=_natural)
    return values


def substitute(expression: str, values: t.Mapping[str, str], span: Range, step: float = SCRAPE) -> str:
    """Return the expression with its variables filled in. Raises KeyError for one that there is not."""
    own = {
        "__interval": f"{step:.0f}s",
        "__rate_interval": f"{max(step + SCRAPE, 4 * SCRAPE):.0f}s",
        "__range": f"{span.seconds:.0f}s",
        "__range_s": f"{span.seconds:.0f}",
    }
    return _VARIABLE.sub(lambda match: {**values, **own}[match[1] or match[2]], expression)


def filled(query: Query, values: t.Mapping[str, str], span: Range) -> str:
    """Return the query's expression with its variables filled in, for the step that its panel has."""
    return substitute(query.expr, values, span, span.step(query.columns, query.least))


def is_empty(series: list[dict[str, t.Any]]) -> bool:
    """Whether nothing can be seen of these series: there are none, or no value of them is a number."""
    samples = (sample for one in series for sample in one.get("values") or [one["value"]])
    return all(value == "NaN" for _, value in samples)


def _any_of(options: list[str]) -> str:
    # In a string of PromQL, a backslash is written twice.
    escaped = [re.sub(r"([\\.^$|?*+()\[\]{}])", r"\\\\\1", option) for option in options]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(word) if word.isdigit() else -1, word) for word in re.split(r"(\d+)", text)]


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if not match:
        raise ValueError(f"{text!r} is no duration")
    return int(match[1]) * _UNITS[match[2]]


def main() -> None:
    """Run the queries; end with 1 where Prometheus refuses one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", help="dashboards; by default the collection's own")
    parser.add_argument("--prometheus", metavar="URL")
    parser.add_argument("--range", metavar="DURATION", default="6h", help="until now; 6h unless told")
    parser.add_argument("--set", metavar="VARIABLE=VALUE", action="append", default=[], help="can be repeated")
    arguments = parser.parse_args()
    chosen = dict(word.split("=", 1) for word in arguments.set)
    span, failed = Range.last(_seconds(arguments.range)), False
    for dashboard in dashboards(arguments.files):
        if not arguments.prometheus:
            print(*(f"{query}\n  {query.expr}" for query in queries(dashboard)), sep="\n")
            continue
        prometheus = Prometheus(arguments.prometheus)
        values = fill(prometheus, dashboard, chosen, span)
        print(dashboard["uid"], *(f"{name}={value}" for name, value in values.items()))
        for query in queries(dashboard):
            began = time.monotonic()
            try:
                said = f"{len(prometheus.run(query, filled(query, values, span), span))} series"
            except QueryError as error:
                said, failed = f"FAILED: {error}", True
            print(f"  {1000 * (time.monotonic() - began):5.0f} ms  {query.panel}, {query.ref}: {said}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
