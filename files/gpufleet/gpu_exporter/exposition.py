"""Readings in Prometheus' text format, by prometheus_client."""

from __future__ import annotations

import typing as t

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric

from .metrics import FAMILIES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Rows = t.Mapping[str, t.Sequence[t.Sequence[t.Any]]]
"""Family to rows of value and label values."""


class _Metrics:
    """What generate_latest takes for a registry."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> list[Metric]:
        return self._found


def render(rows: Rows) -> bytes:
    """Return families in the text format. Empty labels are left out, as Prometheus takes both for the same."""
    return generate_latest(_Metrics([_metric(name, values) for name, values in rows.items()]))


def _metric(name: str, rows: t.Sequence[t.Sequence[t.Any]]) -> Metric:
    family = FAMILIES[name]
    metric = _typed(family.name, family.kind, f"{family.help}{f' ({family.unit})' if family.unit else ''}")
    for value, *labels in rows:
        metric.add_sample(name, {key: label for key, label in zip(family.labels, labels) if label}, value)
    return metric


def _typed(name: str, kind: str, text: str) -> Metric:
    """The library wants counters to end in _total. DCGM's do not, so that their type has to stay open."""
    if kind == "counter" and not name.endswith("_total"):
        return Metric(name, text, "unknown")
    return Metric(name[: -len("_total")] if kind == "counter" else name, text, kind)
