"""Alerts, and the monitoring itself: whether it sees everything, and what it costs."""

from __future__ import annotations

import typing as t

from .shared import links, panels, variables
from .shared.alerts import CRITICAL, FIRING, firing_now
from .shared.page import Page
from .shared.panels import Panel, Query, bars, lines, number
from .shared.tables import Column, Key, rows
from .shared.variables import SITE, pick

S = pick(SITE)
FIRE = pick(FIRING, SITE)
PENDING, NOT_CRITICAL = 'alertstate="pending"', 'severity!="critical"'
TAIL = 'quantile="0.99"'
SERVER = pick('job="prometheus"')
RATE = "[$__rate_interval]"
NO_TARGETS = "Prometheus has no target of this site"
NO_SERVER = "Prometheus does not scrape itself"
NO_EXPORTER = "No gpu_exporter of this site answers"
MOST = 10


def page() -> Page:
    """Return the dashboard."""
    board = Page(
        "monitoring",
        "Alerts and monitoring",
        "Alerts now and in the past, exporters that do not answer or cannot read something, and Prometheus itself.",
        variables.site(),
    )
    board.row("Now", *_now(), firing_now(SITE, span=14), _targets())
    board.row("Alerts over time", *_alerts())
    board.row("Exporters", *_exporters())
    board.row("Prometheus", *_prometheus())
    return board


def _now() -> t.Iterator[Panel]:
    yield number(
        "Critical alerts",
        "Critical alerts that fire now.",
        "short",
        f"count(ALERTS{pick(FIRING, CRITICAL, SITE)}) or 0 * count(up{S})",
        no_data=NO_TARGETS,
        thresholds=panels.NONE_WANTED,
    )
    yield number(
        "Other alerts",
        "Alerts of less than critical severity that fire now.",
        "short",
        f"count(ALERTS{pick(FIRING, NOT_CRITICAL, SITE)}) or 0 * count(up{S})",
        no_data=NO_TARGETS,
        thresholds=panels.FEW_WANTED,
    )
    yield number(
        "Pending alerts",
        "Alerts whose condition is met, but not for long enough to fire.",
        "short",
        f"count(ALERTS{pick(PENDING, SITE)}) or 0 * count(up{S})",
        no_data=NO_TARGETS,
    )
    yield number("Targets", "Exporters that are asked.", "short", f"count(up{S})", no_data=NO_TARGETS)
    yield number(
        "Targets down",
        "Exporters that do not answer.",
        "short",
        f"count(up{S} == 0) or 0 * count(up{S})",
        no_data=NO_TARGETS,
        thresholds=panels.NONE_WANTED,
    )
    yield number(
        "Collectors failing",
        "Collectors of gpu_exporter whose last reading failed or is too old.",
        "short",
        f"count(gpu_exporter_collector_up{S} == 0) or 0 * count(gpu_exporter_collector_up{S})",
        no_data=NO_EXPORTER,
        thresholds=panels.FEW_WANTED,
    )
    yield number(
        "Rules failing",
        "Rules whose evaluation failed in the last hour. Alerts and dashboards that need them are silent.",
        "short",
        "sum(increase(prometheus_rule_evaluation_failures_total[1h]))",
        no_data=NO_SERVER,
        thresholds=panels.NONE_WANTED,
        decimals=0,
    )
    yield number(
        "Alertmanagers",
        "Alertmanagers that Prometheus sends its alerts to.",
        "short",
        "max(prometheus_notifications_alertmanagers_discovered)",
        no_data=NO_SERVER,
        thresholds=panels.SOME_WANTED,
    )


def _targets() -> Panel:
    return rows(
        "Targets that are down",
        "Exporters that do not answer. The page Targets of Prometheus says why.",
        [
            Key("instance", "Host", (links.to_host(),)),
            Key("job", "Exporter"),
            Key("site", "Site", (links.to_site(),)),
        ],
        [Column("Answers", "short", f"max by (instance, job, site) (up{S}) == 0", names={"0": ("no", panels.RED)})],
        worst=["Host"],
        rising=True,
        no_data="Every exporter answers",
        span=10,
    )


def _alerts() -> t.Iterator[Panel]:
    yield lines(
        "Alerts that fired",
        "Number of alerts that fired at a time, by their names.",
        "short",
        Query(f"count by (alertname) (ALERTS{FIRE})", "{{alertname}}"),
        no_data="No alert fired",
        stacked=True,
    )
    yield rows(
        "Alerts by host",
        "How many different alerts each host had in this range of time.",
        [Key("instance", "Host", (links.to_host(), links.to_gpus())), Key("site", "Site", (links.to_site(),))],
        [
            Column(
                "Alerts",
                "short",
                "count by (instance, site) (count by (instance, site, alertname)"
                f" (last_over_time(ALERTS{FIRE}[$__range])))",
                panels.FEW_WANTED,
            )
        ],
        worst=["Alerts"],
        no_data="No alert fired",
        span=12,
        height=8,
    )


def _exporters() -> t.Iterator[Panel]:
    yield rows(
        "Collectors that fail",
        "Collectors of gpu_exporter whose last reading failed or is too old, and how old what they serve is. The host's"
        " journal says why.",
        [Key("instance", "Host", (links.to_host(),)), Key("collector", "Collector")],
        [
            Column(
                "Age",
                "s",
                f"max by (instance, collector) (gpu_exporter_collector_age_seconds{S}"
                f" and on (instance, collector) gpu_exporter_collector_up{S} == 0)",
            ),
            Column(
                "Reads",
                "short",
                f"max by (instance, collector) (gpu_exporter_collector_up{S}) == 0",
                names={"0": ("no", panels.RED)},
            ),
        ],
        worst=["Age"],
        no_data="Every collector reads what it should",
        span=8,
        height=8,
    )
    yield bars(
        "Readings that failed",
        "Readings of gpu_exporter that failed in the last 15 minutes, as a whole or in part, on all hosts.",
        "short",
        Query(f"sum by (collector) (increase(gpu_exporter_collector_failures_total{S}[15m]))", "{{collector}}"),
        Query(
            f"sum by (collector) (increase(gpu_exporter_collector_partial_failures_total{S}[15m]))",
            "{{collector}}, in part",
        ),
        no_data=NO_EXPORTER,
        thresholds=panels.FEW_WANTED,
        span=8,
    )
    yield bars(
        "Slowest scrapes",
        f"The {MOST} targets that took longest to answer the last time.",
        "s",
        Query(f"topk({MOST}, max by (instance, job) (scrape_duration_seconds{S}))", "{{instance}} {{job}}"),
        no_data=NO_TARGETS,
        thresholds=panels.rising(1, 5),
        span=8,
    )
    yield lines(
        "Targets down by exporter",
        "Number of exporters that did not answer.",
        "short",
        Query(f"sum by (job) (site:targets_down:count{S})", "{{job}}"),
        no_data=NO_TARGETS,
        span=8,
    )
    yield number(
        "gpu_exporter: CPU",
        "CPU time that gpu_exporter takes of a core: of the mean host, and of the worst.",
        "percentunit",
        Query(f"avg(sum by (instance) (rate(gpu_exporter_cpu_seconds_total{S}[5m])))", "mean"),
        Query(f"max(sum by (instance) (rate(gpu_exporter_cpu_seconds_total{S}[5m])))", "worst"),
        no_data=NO_EXPORTER,
        thresholds=panels.rising(0.05, 0.2),
        decimals=1,
        span=8,
    )
    yield number(
        "gpu_exporter: memory",
        "Memory that gpu_exporter takes: of the mean host, and of the worst.",
        "bytes",
        Query(f"avg(sum by (instance) (gpu_exporter_resident_memory_bytes{S}))", "mean"),
        Query(f"max(sum by (instance) (gpu_exporter_resident_memory_bytes{S}))", "worst"),
        no_data=NO_EXPORTER,
        thresholds=panels.rising(100 << 20, 200 << 20),
        span=8,
    )


def _prometheus() -> t.Iterator[Panel]:
    yield lines(
        "Series in memory",
        "Series that Prometheus holds in memory: those of the last two to three hours.",
        "short",
        Query(f"prometheus_tsdb_head_series{SERVER}", "{{instance}}"),
        no_data=NO_SERVER,
        span=6,
    )
    yield lines(
        "Samples",
        "Samples that Prometheus takes in, per second.",
        "short",
        Query(f"sum by (instance) (rate(prometheus_tsdb_head_samples_appended_total{SERVER}{RATE}))", "{{instance}}"),
        no_data=NO_SERVER,
        span=6,
    )
    yield lines(
        "Memory",
        "Memory that Prometheus takes.",
        "bytes",
        Query(f"process_resident_memory_bytes{SERVER}", "{{instance}}"),
        no_data=NO_SERVER,
        span=6,
    )
    yield lines(
        "CPU",
        "Cores that Prometheus keeps busy.",
        "short",
        Query(f"rate(process_cpu_seconds_total{SERVER}{RATE})", "{{instance}}"),
        no_data=NO_SERVER,
        span=6,
    )
    yield lines(
        "Rules",
        "Part of its interval that each group of rules took for its last evaluation. Beyond 100 %, some are missed.",
        "percentunit",
        Query(
            "max by (rule_group) (prometheus_rule_group_last_duration_seconds"
            " / on (instance, rule_group) prometheus_rule_group_interval_seconds)",
            "{{rule_group}}",
        ),
        no_data=NO_SERVER,
        thresholds=panels.rising(0.5, 0.9),
        span=6,
    )
    yield lines(
        "Queries",
        "How long queries took, 99 of 100 of them, by what Prometheus did.",
        "s",
        Query(f"max by (slice) (prometheus_engine_query_duration_seconds{pick(TAIL)})", "{{slice}}"),
        no_data=NO_SERVER,
        span=6,
    )
    yield lines(
        "Storage",
        "What is kept on the disk; prometheus_retention_size limits it.",
        "bytes",
        Query(f"prometheus_tsdb_storage_blocks_bytes{SERVER}", "{{instance}} blocks"),
        Query(f"prometheus_tsdb_wal_storage_size_bytes{SERVER}", "{{instance}} write-ahead log"),
        no_data=NO_SERVER,
        stacked=True,
        span=6,
    )
    yield lines(
        "Alerts sent",
        "Alerts that Prometheus sent to Alertmanagers, and those that were lost on the way, per minute.",
        "short",
        Query(f"60 * sum(rate(prometheus_notifications_sent_total{RATE}))", "sent"),
        Query(f"60 * sum(rate(prometheus_notifications_dropped_total{RATE}))", "lost"),
        no_data="Prometheus has no Alertmanager",
        span=6,
    )
