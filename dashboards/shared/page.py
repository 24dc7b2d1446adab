"""A dashboard: rows of panels, with what all dashboards have in common."""

from __future__ import annotations

import typing as t

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.dashboard import Dashboard, DashboardCursorSync, RowPanel

from . import alerts, links, variables
from .panels import Panel

if t.TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder

Variable: t.TypeAlias = "Builder[dashboard.VariableModel]"


class Page:
    """A dashboard that is being written."""

    def __init__(
        self, uid: str, title: str, description: str, *asked: Variable, since: str = "now-6h", refresh: str = "1m"
    ) -> None:
        self._builder = (
            builders.Dashboard(title)
            .uid(uid)
            .description(description)
            .tags([links.TAG])
            .timezone("browser")
            .time(since, "now")
            .refresh(refresh)
            .tooltip(DashboardCursorSync.CROSSHAIR)
            .variables([variables.datasource(), *asked])
            .link(links.to_all())
        )

    def alerts(self, *matchers: str, by: str = "instance") -> Page:
        """Show as annotations which alerts fired, by host or by site."""
        firing = variables.pick(alerts.FIRING, *matchers)
        self._builder.annotation(
            builders.AnnotationQuery()
            .name("Alerts")
            .datasource(variables.PROMETHEUS)
            .enable(True)
            .icon_color("red")
            .expr(f"max by (alertname, severity, {by}) (ALERTS{firing})")
            .step("60s")
            .title_format("{{alertname}}")
            .tag_keys(f"severity,{by}")
        )
        return self

    def row(self, title: str, *panels: Panel, collapsed: bool = False) -> Page:
        """Add a row. The queries of a collapsed one run when it is opened."""
        head = builders.Row(title)
        if collapsed:
            head.collapsed(True)
            for panel in panels:
                head.with_panel(panel)
        self._builder.with_row(head)
        if not collapsed:
            for panel in panels:
                self._builder.with_panel(panel)
        return self

    def build(self) -> Dashboard:
        """Return the dashboard; its panels are numbered in their order."""
        built = self._builder.build()
        # The library would hide these in a menu, unless told otherwise.
        notes = built.annotations.list_val if built.annotations else None
        for shown in (*(built.links or ()), *(notes or ())):
            shown.placement = None
        number = 0
        for panel in built.panels or []:
            inner = panel.panels if isinstance(panel, RowPanel) else []
            for one in (panel, *inner):
                number += 1
                one.id_val = number
        return built
