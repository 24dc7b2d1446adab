"""Tables: what a row is about in the first columns, then a column for each query, worst row first."""

from __future__ import annotations

import string
import typing as t

from grafana_foundation_sdk.builders import common, table
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard

from .panels import Link, Panel, Query, Thresholds, absolute, by_thresholds, targets
from .variables import PROMETHEUS


class Key(t.NamedTuple):
    """A label that says what a row is about."""

    label: str
    header: str
    links: tuple[Link, ...] = ()


class Column(t.NamedTuple):
    """A value of each row. All columns of a table have the same labels, those of its keys."""

    header: str
    unit: str
    expr: str
    thresholds: Thresholds = ()
    names: dict[str, tuple[str, str]] | None = None
    """Words and colours for values."""
    decimals: int | None = None


def rows(
    title: str,
    description: str,
    keys: t.Sequence[Key],
    columns: t.Sequence[Column],
    *,
    worst: t.Sequence[str],
    no_data: str,
    rising: bool = False,
    span: int = 24,
    height: int = 9,
) -> Panel:
    """Return a table that is sorted by the headers in worst, the highest first unless it is rising."""
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(list(targets([Query(column.expr, "") for column in columns], instant=True, table=True)))
        .transformations(_transformations(keys, columns))
        .unit(columns[0].unit)
        .no_value(no_data)
        .filterable(True)
        .cell_height(kinds.TableCellHeight.SM)
        .sort_by([common.TableSortByFieldState().display_name(name).desc(not rising) for name in worst])
        .span(span)
        .height(height)
    )
    for key in keys:
        panel.override_by_name(key.header, _key(key))
    for column in columns:
        panel.override_by_name(column.header, _column(column))
    return panel


def _transformations(keys: t.Sequence[Key], columns: t.Sequence[Column]) -> list[dashboard.DataTransformerConfig]:
    """One row for each set of labels; the columns in their order, named by their headers."""
    # With a single query, Grafana calls the value just so.
    values = ["Value"] if len(columns) == 1 else [f"Value #{letter}" for letter in string.ascii_uppercase]
    fields = [(key.label, key.header) for key in keys]
    fields += [(value, column.header) for value, column in zip(values, columns)]
    organize = {
        "excludeByName": {"Time": True},
        "indexByName": {name: place for place, (name, _) in enumerate(fields)},
        "renameByName": dict(fields),
    }
    return [
        dashboard.DataTransformerConfig(id_val="merge", options={}),
        dashboard.DataTransformerConfig(id_val="organize", options=organize),
    ]


def _key(key: Key) -> list[dashboard.DynamicConfigValue]:
    found = [_property("unit", "string"), _property("noValue", "")]
    if key.links:
        built = [link.build() for link in key.links]
        found.append(_property("links", [{"title": link.title, "url": link.url} for link in built]))
    return found


def _column(column: Column) -> list[dashboard.DynamicConfigValue]:
    # A cell that is empty has no room for the words that an empty panel has.
    found = [_property("unit", column.unit), _property("noValue", "-")]
    if column.decimals is not None:
        found.append(_property("decimals", column.decimals))
    if column.names:
        options = {
            value: dashboard.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(column.names.items())
        }
        found.append(_property("mappings", [dashboard.ValueMap(options)]))
    if column.thresholds:
        found += [
            _property("thresholds", absolute(column.thresholds).build()),
            _property("color", by_thresholds().build()),
        ]
    if column.thresholds or column.names:
        found.append(_property("custom.cellOptions", kinds.TableColorTextCellOptions()))
    return found


def _property(name: str, value: object) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue(id_val=name, value=value)
