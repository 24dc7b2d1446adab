"""Temperatures of the whole fleet: core, VRAM and hotspot, fans, and GPUs that are slowed down."""

from __future__ import annotations

import typing as t

from .shared import links, panels, variables
from .shared.page import Page
from .shared.panels import Panel, Query, lines, number
from .shared.tables import Column, Key, rows
from .shared.variables import HOSTS, SITE, pick

S = pick(SITE)
H = pick(HOSTS)
UNREAD = "Nobody can read it of these cards: see gpu_exporter_nvapi and gpu_exporter_bar0"
NO_GPU = "No exporter of these hosts reports a GPU"
MOST = 20
# The hottest spots of a card: title, last part of records' names, thresholds, and why there may be nothing.
SPOTS = (
    ("core", "core_temperature", panels.CORE, NO_GPU),
    ("VRAM", "vram_temperature", panels.VRAM, UNREAD),
    ("hotspot", "hotspot_temperature", panels.HOTSPOT, UNREAD),
)
# Hosts whose lines are shown: of all of a large fleet, Prometheus would read a day of a thousand series for ten lines.
HOTTEST = " or ".join(f"topk(5, host:gpu_{record}_max:celsius{H})" for _, record, *_ in SPOTS)
SHOWN = pick(SITE, 'instance=~"$hottest_hosts"')


def page() -> Page:
    """Return the dashboard."""
    board = Page(
        "gpu-temperatures",
        "GPU temperatures",
        "Core, VRAM and hotspot temperatures, fans and throttling of the whole fleet: the hottest GPUs, how near they"
        " are to their limits, and how it was.",
        variables.site(),
        variables.hosts(),
        variables.found_results("hottest_hosts", HOTTEST, "instance"),
    )
    board.row("Now", *_now())
    board.row("The hottest GPUs", *_hottest(), _nearest(), _models())
    board.row("The hottest hosts over time", *_hosts())
    board.row("Sites over time", *_sites())
    return board


def _now() -> t.Iterator[Panel]:
    for name, record, thresholds, no_data in SPOTS:
        yield number(
            f"Hottest {name}",
            f"The highest {name} temperature of all GPUs.",
            "celsius",
            f"max(host:gpu_{record}_max:celsius{H})",
            no_data=no_data,
            thresholds=thresholds,
            span=4,
        )
    yield number(
        "Fastest fan",
        "Speed of the fastest fan of a GPU, as a part of its maximum.",
        "percentunit",
        f"max(host:gpu_fan_speed_max:ratio{H})",
        no_data="These cards have no fans of their own",
        thresholds=panels.rising(0.9, 1),
        decimals=0,
        span=4,
    )
    yield number(
        "GPUs throttled",
        "GPUs whose clocks are lowered because of heat or of the power supply.",
        "short",
        f"sum(host:gpus_throttled:count{H})",
        no_data="No exporter of these hosts says why clocks are lowered",
        thresholds=panels.FEW_WANTED,
        span=4,
    )
    yield number(
        "Core, 95th percentile",
        "Of twenty GPUs, nineteen have a core that is cooler than this.",
        "celsius",
        f"quantile(0.95, gpu:core_temperature:celsius{H})",
        no_data=NO_GPU,
        thresholds=panels.CORE,
        span=4,
    )


def _hottest() -> t.Iterator[Panel]:
    for name, record, thresholds, no_data in SPOTS:
        yield rows(
            f"Hottest by {name}",
            f"The {MOST} GPUs with the highest {name} temperature.",
            [
                Key("instance", "Host", (links.to_host(), links.to_gpus())),
                Key("gpu", "GPU", (links.to_gpu(),)),
                Key("model", "Model"),
            ],
            [
                Column(
                    name[0].upper() + name[1:],
                    "celsius",
                    f"topk({MOST}, max by (instance, gpu, model) (gpu:{record}:celsius{H}))",
                    thresholds,
                )
            ],
            worst=[name[0].upper() + name[1:]],
            no_data=no_data,
            span=8,
        )


def _nearest() -> Panel:
    slowdown = pick(HOSTS, 'limit="slowdown"')
    return rows(
        "Nearest to their limit",
        f"The {MOST} GPUs whose core is nearest to the temperature at which the card itself lowers its clocks.",
        [
            Key("instance", "Host", (links.to_host(), links.to_gpus())),
            Key("gpu", "GPU", (links.to_gpu(),)),
            Key("model", "Model"),
        ],
        [
            Column(
                "Left",
                "celsius",
                f"bottomk({MOST}, max by (instance, gpu, model) (gpu:temperature_limit:celsius{slowdown}"
                f" - on (instance, UUID) group_left () gpu:core_temperature:celsius{H}))",
                panels.falling(10, 5),
            )
        ],
        worst=["Left"],
        rising=True,
        no_data="No exporter of these hosts says the limits of its cards",
        span=10,
    )


def _models() -> Panel:
    def of(function: str, record: str) -> str:
        return f"{function} by (model) ({record}{H})"

    return rows(
        "By model",
        "GPUs of one model run alike. One whose hottest card is far above the 95th percentile has a bad card or a bad"
        " place for it.",
        [Key("model", "Model")],
        [
            Column("GPUs", "short", of("count", "gpu:core_temperature:celsius")),
            Column("Core, mean", "celsius", of("avg", "gpu:core_temperature:celsius"), decimals=0),
            Column("95 %", "celsius", f"quantile by (model) (0.95, gpu:core_temperature:celsius{H})", decimals=0),
            Column("Hottest", "celsius", of("max", "gpu:core_temperature:celsius"), panels.CORE),
            Column("VRAM", "celsius", of("max", "gpu:vram_temperature:celsius"), panels.VRAM),
            Column("Hotspot", "celsius", of("max", "gpu:hotspot_temperature:celsius"), panels.HOTSPOT),
            Column("Fan, mean", "percentunit", of("avg", "gpu:fan_speed:ratio"), decimals=0),
        ],
        worst=["Hottest"],
        no_data=NO_GPU,
        span=14,
    )


def _hosts() -> t.Iterator[Panel]:
    for name, record, thresholds, no_data in SPOTS:
        yield lines(
            f"Hottest {name} by host",
            f"The hottest {name} of each of the hosts that are hottest now, by any of the three temperatures.",
            "celsius",
            Query(f"host:gpu_{record}_max:celsius{SHOWN}", "{{instance}}"),
            no_data=no_data,
            thresholds=thresholds,
            least=None,
            span=8,
            links=[
                links.to_host("__field.labels.instance"),
                links.to_gpus("__field.labels.instance"),
            ],
        )


def _sites() -> t.Iterator[Panel]:
    for name, record, thresholds, no_data in SPOTS:
        yield lines(
            f"Hottest {name} by site",
            f"The highest {name} temperature of the site's GPUs.",
            "celsius",
            Query(f"site:gpu_{record}_max:celsius{S}", "{{site}}"),
            no_data=no_data,
            thresholds=thresholds,
            least=None,
            span=6,
        )
    yield lines(
        "GPUs throttled by reason",
        "GPUs whose clocks are lowered because of heat or of the power supply. A GPU may have several reasons.",
        "short",
        Query(f"sum by (reason) (site:gpus_throttled:by_reason{S})", "{{reason}}"),
        no_data="No exporter of this site says why clocks are lowered",
        span=6,
    )
