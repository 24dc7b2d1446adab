"""Alerts, as Prometheus' own series ALERTS and ALERTS_FOR_STATE have them."""

from __future__ import annotations

from . import links
from .panels import AMBER, BLUE, RED, Panel
from .tables import Column, Key, rows
from .variables import pick

# Watchdog always fires: it says that alerts get through.
FIRING = 'alertstate="firing", alertname!="Watchdog"'
CRITICAL = 'severity="critical"'
WARNING = 'severity="warning"'
OTHER = 'severity!~"critical|warning"'
_RANKS = {"3": ("critical", RED), "2": ("warning", AMBER), "1": ("info", BLUE)}


def firing_now(*matchers: str, span: int = 14, height: int = 9) -> Panel:
    """Return a table of the alerts that fire, critical ones first, and the oldest of these first."""
    by = "alertname, site, instance, gpu"
    rank = (
        f"max by ({by}) (3 * ALERTS{pick(FIRING, CRITICAL, *matchers)} or 2 * ALERTS{pick(FIRING, WARNING, *matchers)}"
        f" or ALERTS{pick(FIRING, OTHER, *matchers)})"
    )
    since = (
        f"min by ({by}) (1000 * ALERTS_FOR_STATE{pick(*matchers)}"
        f" and ignoring (alertstate) ALERTS{pick(FIRING, *matchers)})"
    )
    return rows(
        "Alerts that fire",
        "Each alert that fires now, and since when its condition is met. Alerts that are silenced are among them.",
        [
            Key("alertname", "Alert"),
            Key("site", "Site"),
            Key("instance", "Host", (links.to_host(), links.to_gpus())),
            Key("gpu", "GPU", (links.to_gpu(),)),
        ],
        [Column("Severity", "short", rank, names=_RANKS), Column("Since", "dateTimeFromNow", since)],
        worst=["Severity"],
        no_data="No alert fires",
        span=span,
        height=height,
    )
