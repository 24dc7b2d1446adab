"""The whole fleet: what is wrong now, worst first; capacity and waste by site, rack and host."""

from __future__ import annotations

import typing as t

from .shared import links, panels, variables
from .shared.alerts import CRITICAL, FIRING, firing_now
from .shared.page import Page
from .shared.panels import Panel, Query, lines, number
from .shared.tables import Column, Key, rows
from .shared.variables import SITE, pick

S = pick(SITE)
BY_HOST = "site, rack, instance"
# Every host that is watched: one without an alert, or without GPUs, is a row as well.
HOSTS = f"max by ({BY_HOST}) (up{S})"
NO_TARGETS = "Prometheus has no target of this site"
NO_GPUS = "No gpu_exporter of this site reports a GPU"
NO_SLOTS = "No gpu_exporter of this site says who has which GPU"


def page() -> Page:
    """Return the dashboard."""
    board = Page(
        "fleet",
        "Fleet",
        "Sites, racks and hosts: what is wrong now, worst first; what is free, and what is wasted.",
        variables.site(),
    )
    board.alerts(SITE, CRITICAL, by="site")
    board.row("What is wrong now", *_wrong())
    board.row("Hosts, worst first", _hosts())
    board.row("Capacity and waste", *_capacity())
    board.row("Over time", *_history())
    return board


def _wrong() -> t.Iterator[Panel]:
    yield number("Hosts watched", "Hosts that are watched.", "short", f"count({HOSTS})", no_data=NO_TARGETS)
    yield number(
        "Silent hosts",
        "Hosts of which no exporter answers: they are down, or the way to them is.",
        "short",
        f"count({HOSTS} == 0) or 0 * count({HOSTS})",
        no_data=NO_TARGETS,
        thresholds=panels.NONE_WANTED,
    )
    yield number(
        "Targets down",
        "Exporters that do not answer, on all hosts.",
        "short",
        f"count(up{S} == 0) or 0 * count(up{S})",
        no_data=NO_TARGETS,
        thresholds=panels.NONE_WANTED,
    )
    yield _alerts("Critical alerts", CRITICAL, panels.NONE_WANTED)
    yield _alerts("Other alerts", 'severity!="critical"', panels.FEW_WANTED)
    yield number(
        "GPUs not ok",
        "GPUs that are lost, unresponsive, without driver and so on. Those of virtual machines are not among them.",
        "short",
        f"sum(site:gpus_not_ok:count{S})",
        no_data=NO_GPUS,
        thresholds=panels.NONE_WANTED,
    )
    yield number(
        "GPUs throttled",
        "GPUs whose clocks are lowered because of heat or of the power supply.",
        "short",
        f"sum(host:gpus_throttled:count{S})",
        no_data="No exporter of this site says why clocks are lowered",
        thresholds=panels.FEW_WANTED,
    )
    yield number(
        "Hottest core",
        "Core temperature of the hottest GPU.",
        "celsius",
        f"max(site:gpu_core_temperature_max:celsius{S})",
        no_data="No exporter of this site reads a temperature",
        thresholds=panels.CORE,
    )
    yield firing_now(SITE, span=14)
    yield rows(
        "GPUs that are not ok",
        "GPUs that jobs cannot have, and why. One that the driver does not name has no index.",
        [
            Key("instance", "Host", (links.to_host(), links.to_gpus())),
            Key("gpu", "GPU", (links.to_gpu(),)),
            Key("pci_bus_id", "PCI"),
            Key("model", "Model"),
            Key("state", "State"),
        ],
        [
            Column(
                "Not ok",
                "short",
                f"max by (instance, gpu, pci_bus_id, model, state) (gpu:not_ok:bool{S})",
                names={"1": ("yes", panels.RED)},
            )
        ],
        worst=["Host"],
        rising=True,
        no_data="Every GPU is ok, or a virtual machine's",
        span=10,
    )


def _alerts(title: str, severity: str, thresholds: panels.Thresholds) -> Panel:
    firing = pick(FIRING, severity, SITE)
    return number(
        title,
        "Alerts that fire now. Those that are silenced are among them.",
        "short",
        f"count(ALERTS{firing}) or 0 * count(up{S})",
        no_data=NO_TARGETS,
        thresholds=thresholds,
    )


def _hosts() -> Panel:
    def alerts(severity: str) -> str:
        firing = f"count by (instance) (ALERTS{pick(FIRING, severity, SITE)})"
        return f"0 * {HOSTS} + on (instance) group_left () {firing} or 0 * {HOSTS}"

    def of(record: str) -> str:
        return f"max by ({BY_HOST}) ({record}{S})"

    return rows(
        "Hosts",
        "Each host with the worst of its GPUs. Sorted by critical alerts, then by targets that are down, GPUs that are"
        " not ok, and other alerts; a click on a header sorts by it.",
        [
            Key("instance", "Host", (links.to_host(), links.to_gpus())),
            Key("site", "Site", (links.to_site(),)),
            Key("rack", "Rack"),
        ],
        [
            Column("Critical", "short", alerts(CRITICAL), panels.NONE_WANTED),
            Column("Down", "short", f"count by ({BY_HOST}) (up{S} == 0) or 0 * {HOSTS}", panels.NONE_WANTED),
            Column("GPUs", "short", of("host:gpus:count")),
            Column("Not ok", "short", of("host:gpus_not_ok:count"), panels.NONE_WANTED),
            Column("Alerts", "short", alerts('severity!="critical"'), panels.FEW_WANTED),
            Column("Throttled", "short", of("host:gpus_throttled:count"), panels.FEW_WANTED),
            Column("Core", "celsius", of("host:gpu_core_temperature_max:celsius"), panels.CORE),
            Column("VRAM", "celsius", of("host:gpu_vram_temperature_max:celsius"), panels.VRAM),
            Column("Utilisation", "percentunit", of("host:gpu_utilization:ratio"), decimals=0),
            Column("Memory", "percentunit", of("host:gpu_memory_used:ratio"), panels.FULL, decimals=0),
            Column("Power", "watt", of("host:gpu_power:watts")),
            Column("Free slots", "short", of("ds01:gpu_slots_free")),
            Column("Idle slots", "short", of("ds01:gpu_waste_count"), panels.FEW_WANTED),
        ],
        worst=["Critical", "Down", "Not ok", "Alerts"],
        no_data=NO_TARGETS,
        height=14,
    )


def _capacity() -> t.Iterator[Panel]:
    yield number("GPUs", "GPUs of all hosts.", "short", f"sum(site:gpus:count{S})", no_data=NO_GPUS)
    yield number(
        "Utilisation",
        "Mean utilisation of the GPUs: the part of the time in which a kernel ran.",
        "percentunit",
        f"sum(site:gpu_utilization:ratio{S} * site:gpus:count{S})"
        f" / sum(site:gpus:count{S} and site:gpu_utilization:ratio{S})",
        no_data="No exporter of this site reports utilisation",
        decimals=0,
    )
    yield number("Power", "Power that all GPUs draw.", "watt", f"sum(site:gpu_power:watts{S})", no_data=NO_GPUS)
    yield number(
        "Slots",
        "What can be given to somebody: GPUs, and the MIG instances of those that are cut.",
        "short",
        f"sum(site:gpu_slots:count{S})",
        no_data=NO_SLOTS,
    )
    yield number(
        "Allocated",
        "Part of the slots that somebody has, of those of which it is known.",
        "percentunit",
        f"sum(site:gpu_slots_allocated:count{S})"
        f" / (sum(site:gpu_slots_allocated:count{S}) + sum(site:gpu_slots_free:count{S}))",
        no_data=NO_SLOTS,
        thresholds=panels.rising(0.8, 0.95),
        decimals=0,
    )
    yield number(
        "Free GPU equivalents",
        "What nobody has. A GPU is 1, a MIG instance its compute slices by 7.",
        "short",
        f"sum(ds01:gpu_equivalents_free{S})",
        no_data=NO_SLOTS,
        thresholds=panels.falling(4, 1),
        decimals=1,
    )
    yield number(
        "Idle slots",
        "Slots that somebody has and does not use: below 5 % now.",
        "short",
        f"sum(site:gpu_slots_idle:count{S})",
        no_data="No exporter of this site says what slots are used",
        thresholds=panels.FEW_WANTED,
    )
    yield number(
        "Wasted",
        "Part of the allocated slots that is not used now, of those of which it is known.",
        "percentunit",
        f"sum(site:gpu_slots_idle:count{S}) / (sum(site:gpu_slots_idle:count{S}) + sum(site:gpu_slots_used:count{S}))",
        no_data="Nobody has a slot, or no exporter says what slots are used",
        thresholds=panels.IDLE,
        decimals=0,
    )
    yield _places("Sites", ("site",), worst=["Not ok", "Core"])
    yield _places("Racks", ("site", "rack"), worst=["Not ok", "Core"])


def _places(title: str, labels: tuple[str, ...], worst: list[str]) -> Panel:
    by = f"by ({', '.join(labels)})"
    keys = {"site": Key("site", "Site", (links.to_site(),)), "rack": Key("rack", "Rack")}
    gpus, busy = f"host:gpus:count{S}", f"host:gpu_utilization:ratio{S}"
    return rows(
        title,
        f"{title} with the sums of their hosts, and the hottest of their GPUs. Hosts whose inventory gives them no such"
        " label are one row.",
        [keys[label] for label in labels],
        [
            Column("GPUs", "short", f"sum {by} ({gpus})"),
            Column("Not ok", "short", f"sum {by} (host:gpus_not_ok:count{S})", panels.NONE_WANTED),
            Column("Core", "celsius", f"max {by} (host:gpu_core_temperature_max:celsius{S})", panels.CORE),
            Column(
                "Utilisation", "percentunit", f"sum {by} ({busy} * {gpus}) / sum {by} ({gpus} and {busy})", decimals=0
            ),
            Column("Power", "watt", f"sum {by} (host:gpu_power:watts{S})"),
            Column("Slots", "short", f"sum {by} (ds01:gpu_slots_total{S})"),
            Column("Free", "short", f"sum {by} (ds01:gpu_slots_free{S})"),
            Column("Idle", "short", f"sum {by} (ds01:gpu_waste_count{S})", panels.FEW_WANTED),
        ],
        worst=worst,
        no_data=NO_GPUS,
        span=12,
    )


def _history() -> t.Iterator[Panel]:
    yield lines(
        "Utilisation by site",
        "Mean utilisation of the site's GPUs.",
        "percentunit",
        Query(f"site:gpu_utilization:ratio{S}", "{{site}}"),
        no_data="No exporter of this site reports utilisation",
        most=1,
        span=8,
    )
    yield lines(
        "Slots over time",
        "All slots, those that somebody has, and those of them that are not used.",
        "short",
        Query(f"sum(site:gpu_slots:count{S})", "all"),
        Query(f"sum(site:gpu_slots_allocated:count{S})", "allocated"),
        Query(f"sum(site:gpu_slots_idle:count{S})", "idle"),
        no_data=NO_SLOTS,
        span=8,
    )
    yield lines(
        "Power by site",
        "Power that the site's GPUs draw.",
        "watt",
        Query(f"site:gpu_power:watts{S}", "{{site}}"),
        no_data=NO_GPUS,
        stacked=True,
        span=8,
    )
    yield lines(
        "Hottest core by site",
        "Core temperature of the site's hottest GPU.",
        "celsius",
        Query(f"site:gpu_core_temperature_max:celsius{S}", "{{site}}"),
        no_data="No exporter of this site reads a temperature",
        thresholds=panels.CORE,
        least=None,
        span=8,
    )
    yield lines(
        "GPUs not ok by site",
        "GPUs that are lost, unresponsive, without driver and so on.",
        "short",
        Query(f"site:gpus_not_ok:count{S}", "{{site}}"),
        no_data=NO_GPUS,
        span=8,
    )
    yield lines(
        "GPUs throttled by reason",
        "GPUs whose clocks are lowered. A GPU may have several reasons.",
        "short",
        Query(f"sum by (reason) (site:gpus_throttled:by_reason{S})", "{{reason}}"),
        no_data="No exporter of this site says why clocks are lowered",
        span=8,
    )
