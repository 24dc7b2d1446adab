"""Panels with the look that all dashboards have.

Each has a unit, a description, and words for when there is no data. Colours say something only where there are
thresholds: green is fine, amber wants a look, red a hand.
"""

from __future__ import annotations

import string
import typing as t

from grafana_foundation_sdk.builders import bargauge, common, piechart, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.piechart import PieChartLegendValues, PieChartType
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from .variables import PROMETHEUS

Panel: t.TypeAlias = Builder[dashboard.Panel]
Link: t.TypeAlias = Builder[dashboard.DashboardLink]
Thresholds: t.TypeAlias = tuple[dashboard.Threshold, ...]

GREEN, AMBER, RED, BLUE = "green", "orange", "red", "blue"


class Query(t.NamedTuple):
    """An expression, and what its series are called."""

    expr: str
    legend: str = "__auto"


def rising(amber: float, red: float) -> Thresholds:
    """The more, the worse."""
    return _steps((None, GREEN), (amber, AMBER), (red, RED))


def falling(amber: float, red: float) -> Thresholds:
    """The less, the worse."""
    return _steps((None, RED), (red, AMBER), (amber, GREEN))


def _steps(*steps: tuple[float | None, str]) -> Thresholds:
    return tuple(dashboard.Threshold(value=value, color=color) for value, color in steps)


PLAIN = _steps((None, BLUE))
# Grafana's own unit of hours would make weeks and years of many.
HOURS = "suffix:h"
# Nobody wants any of these.
NONE_WANTED = _steps((None, GREEN), (1, RED))
SOME_WANTED = _steps((None, RED), (1, GREEN))
FEW_WANTED = _steps((None, GREEN), (1, AMBER))
# As the alerts have them; cards differ, and say their own limits.
CORE = rising(80, 90)
VRAM = rising(95, 105)
HOTSPOT = rising(95, 105)
# Values of a record that is 1 when all is well.
OK = {"1": ("ok", GREEN), "0": ("not ok", RED)}
FULL = rising(0.85, 0.95)
IDLE = rising(0.2, 0.5)


def number(
    title: str,
    description: str,
    unit: str,
    *queries: Query | str,
    no_data: str,
    thresholds: Thresholds = PLAIN,
    decimals: int | None = None,
    span: int = 3,
    links: t.Sequence[Link] = (),
) -> Panel:
    """Return one number, or one for each query, as it is at the end of the range of time."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(list(targets(queries, instant=True)))
        .unit(unit)
        .no_value(no_data)
        .thresholds(absolute(thresholds))
        .color_scheme(by_thresholds())
        .color_mode(kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .text_mode(kinds.BigValueTextMode.VALUE_AND_NAME if len(queries) > 1 else kinds.BigValueTextMode.VALUE)
        .reduce_options(last())
        .data_links(list(links))
        .span(span)
        .height(4)
    )
    return panel.decimals(decimals) if decimals is not None else panel


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    no_data: str,
    thresholds: Thresholds = (),
    least: float | None = 0,
    most: float | None = None,
    stacked: bool = False,
    daily: bool = False,
    span: int = 12,
    height: int = 8,
    links: t.Sequence[Link] = (),
) -> Panel:
    """Return lines over time, or bars of a day each, with a legend that says the last and the highest value."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(list(targets(queries)))
        .unit(unit)
        .no_value(no_data)
        .color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .line_width(1)
        .fill_opacity(40 if stacked or daily else 0)
        .show_points(kinds.VisibilityMode.NEVER)
        .legend(_legend())
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
        .data_links(list(links))
        .span(span)
        .height(height)
    )
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    if thresholds:
        style = common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
        panel.thresholds(absolute(thresholds)).thresholds_style(style)
    if stacked:
        panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
    if daily:
        panel.draw_style(kinds.GraphDrawStyle.BARS).interval("1d")
    return panel


def bars(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    no_data: str,
    thresholds: Thresholds = PLAIN,
    most: float | None = None,
    span: int = 8,
    height: int = 8,
    links: t.Sequence[Link] = (),
) -> Panel:
    """Return a bar for each series, as it is at the end of the range of time."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(list(targets(queries, instant=True)))
        .unit(unit)
        .no_value(no_data)
        .min(0)
        .thresholds(absolute(thresholds))
        .color_scheme(by_thresholds())
        .display_mode(kinds.BarGaugeDisplayMode.BASIC)
        .orientation(kinds.VizOrientation.HORIZONTAL)
        .reduce_options(last())
        .data_links(list(links))
        .span(span)
        .height(height)
    )
    return panel.max(most) if most is not None else panel


def pie(
    title: str, description: str, unit: str, query: Query, *, no_data: str, span: int = 6, height: int = 8
) -> Panel:
    """Return the parts of a whole."""
    legend = (
        piechart.PieChartLegendOptions()
        .show_legend(True)
        .display_mode(kinds.LegendDisplayMode.TABLE)
        .placement(kinds.LegendPlacement.RIGHT)
        .values([PieChartLegendValues.VALUE, PieChartLegendValues.PERCENT])
    )
    return (
        piechart.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(list(targets([query], instant=True)))
        .unit(unit)
        .no_value(no_data)
        .pie_type(PieChartType.DONUT)
        .reduce_options(last())
        .legend(legend)
        .span(span)
        .height(height)
    )


def targets(
    queries: t.Iterable[Query | str], *, instant: bool = False, table: bool = False
) -> t.Iterator[prometheus.Dataquery]:
    """Yield the queries as Grafana has them, called A, B, and so on."""
    for letter, query in zip(string.ascii_uppercase, queries):
        expr, legend = query if isinstance(query, Query) else Query(query)
        built = prometheus.Dataquery().ref_id(letter).expr(expr).legend_format(legend).datasource(PROMETHEUS)
        built = built.instant() if instant else built.range()
        yield built.format(PromQueryFormat.TABLE if table else PromQueryFormat.TIME_SERIES)


def absolute(thresholds: Thresholds) -> builders.ThresholdsConfig:
    """Return thresholds as a panel takes them."""
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(list(thresholds))


def by_thresholds() -> builders.FieldColor:
    """Colour by thresholds."""
    return builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS)


def last() -> common.ReduceDataOptions:
    """The last value of a series."""
    return common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False)


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(kinds.LegendDisplayMode.TABLE)
        .placement(kinds.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "max"])
        .sort_by("Last *")
        .sort_desc(True)
    )
