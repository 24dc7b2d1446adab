"""DS01's overview: GPUs, MIG instances, who has which of them, and containers."""

from __future__ import annotations

import typing as t

from .shared import links, panels, variables
from .shared.page import Page
from .shared.panels import Panel, Query, lines, number, pie
from .shared.tables import Column, Key, rows
from .shared.variables import CARD, HOSTS, pick

H = pick(HOSTS)
MIG = pick(HOSTS, 'GPU_I_ID!=""')
MIG_HELD = pick(HOSTS, 'slot_uuid=~"MIG-.+"')
RUNNING = 'status="running"'
# Lines for every GPU of a thousand hosts say nothing: there are those of the hottest, which of one server are all.
MOST = 20
HOTTEST = f"topk({MOST}, gpu:core_temperature:celsius{H})"
SHOWN = 'UUID=~"$hottest_gpus"'
EACH = "{{instance}} GPU {{gpu}}"
NO_GPU = "No gpu_exporter of these hosts reports a GPU"
NO_SLOTS = "No gpu_exporter of these hosts says who has which GPU"


def page() -> Page:
    """Return the dashboard."""
    board = Page(
        "ds01-overview",
        "DS01 overview",
        "GPUs and MIG instances of the chosen hosts: how busy and how hot they are, which are free, and who has the"
        " others in which container.",
        variables.site(),
        variables.hosts(),
        variables.found_results("hottest_gpus", HOTTEST, "UUID"),
    )
    board.alerts(HOSTS)
    board.row("Now", *_now())
    board.row(f"GPUs over time: the {MOST} that are hottest now", *_gpus())
    board.row("Allocations", _allocations(), *_containers(), _users())
    return board


def _now() -> t.Iterator[Panel]:
    gpus, busy = f"host:gpus:count{H}", f"host:gpu_utilization:ratio{H}"
    yield number("GPUs", "GPUs of these hosts.", "short", f"sum({gpus})", no_data=NO_GPU)
    yield number(
        "Mean utilisation",
        "Mean utilisation of these hosts' GPUs.",
        "percentunit",
        f"sum({busy} * {gpus}) / sum({gpus} and {busy})",
        no_data="No exporter of these hosts reports utilisation",
        decimals=0,
    )
    yield number(
        "Hottest core",
        "Core temperature of the hottest GPU.",
        "celsius",
        f"max(host:gpu_core_temperature_max:celsius{H})",
        no_data="No exporter of these hosts reads a temperature",
        thresholds=panels.CORE,
    )
    yield number(
        "GPUs and MIG instances",
        "What can be given to somebody, what somebody has, and what is free: GPUs, and the MIG instances of those that"
        " are cut.",
        "short",
        Query(f"sum(ds01:gpu_slots_total{H})", "total"),
        Query(f"sum(ds01:gpu_slots_allocated{H})", "allocated"),
        Query(f"sum(ds01:gpu_slots_free{H})", "free"),
        no_data=NO_SLOTS,
        span=5,
    )
    held = f"ds01:gpu_slot_allocated{MIG_HELD}"
    known = f"ds01:gpu_slot_info{MIG} and on (instance) ds01:gpu_slots_allocated{H}"
    none = f"0 * sum(ds01:gpu_slots_allocated{H})"
    yield number(
        "MIG instances",
        "MIG instances that there are, that somebody has, and that are free.",
        "short",
        Query(f"count(ds01:gpu_slot_info{MIG}) or {none}", "total"),
        Query(f"count({held}) or {none}", "allocated"),
        Query(f"count(({known}) unless on (instance, slot_uuid) {held}) or {none}", "free"),
        no_data=NO_SLOTS,
        span=5,
    )
    yield number(
        "Containers",
        "Containers that run, with or without a GPU.",
        "short",
        f"sum(ds01_containers_total{pick(HOSTS, RUNNING)})",
        no_data="No gpu_exporter of these hosts asks Docker: see gpu_exporter_docker",
    )
    yield number(
        "Active users",
        "Users who have a GPU or a MIG instance.",
        "short",
        f"count(count by (user) (ds01:gpu_slot_users{H})) or 0 * sum(ds01:gpu_slots_allocated{H})",
        no_data=NO_SLOTS,
        span=2,
    )


def _gpus() -> t.Iterator[Panel]:
    link = [links.to_gpu("__field.labels.instance", "__field.labels.gpu")]
    yield lines(
        "Utilisation",
        "Part of the time in which a kernel ran. Of MIG instances, the part in which their engines were busy.",
        "percentunit",
        Query(f"gpu:utilization:ratio{pick(HOSTS, SHOWN)}", EACH + " {{GPU_I_PROFILE}}"),
        no_data=NO_GPU,
        most=1,
        span=8,
        links=link,
    )
    yield lines(
        "Memory in use",
        "Framebuffer memory in use. Of a GPU that is cut, the sum of its instances.",
        "bytes",
        Query(f"gpu:memory_used:bytes{pick(HOSTS, SHOWN, CARD)}", EACH),
        no_data=NO_GPU,
        span=8,
        links=link,
    )
    yield lines(
        "Temperature",
        "Temperature of the core.",
        "celsius",
        Query(f"gpu:core_temperature:celsius{pick(HOSTS, SHOWN)}", EACH),
        no_data=NO_GPU,
        thresholds=panels.CORE,
        least=None,
        span=8,
        links=link,
    )


def _allocations() -> Panel:
    by = "instance, gpu_slot, user, container, interface, profile"
    held = f'label_replace(ds01_gpu_allocated{H}, "slot_uuid", "$1", "UUID", "(.+)")'

    def of(record: str) -> str:
        return (
            f"max by ({by}) ({held} * on (instance, slot_uuid) group_left ()"
            f" max by (instance, slot_uuid) ({record}{H}))"
        )

    return rows(
        "Who has which GPU",
        "Each GPU and MIG instance that somebody has, with the container that holds it. Without a container, it is held"
        " by processes of the user.",
        [
            Key("instance", "Host", (links.to_host(), links.to_gpus())),
            Key("gpu_slot", "Slot"),
            Key("user", "User", (links.to_user(),)),
            Key("container", "Container"),
            Key("interface", "Interface"),
            Key("profile", "MIG profile"),
        ],
        [
            Column("Held", "short", f"max by ({by}) (ds01_gpu_allocated{H})", names={"1": ("yes", panels.GREEN)}),
            Column("Utilisation", "percent", of("ds01:gpu_utilization_by_slot"), panels.falling(20, 5), decimals=0),
            Column("Memory", "percent", of("ds01:gpu_memory_percent_by_slot"), decimals=0),
        ],
        worst=["Utilisation"],
        rising=True,
        no_data="Nobody has a GPU, or no gpu_exporter of these hosts says who has which",
        height=10,
    )


def _containers() -> t.Iterator[Panel]:
    yield pie(
        "Containers by interface",
        "Containers that run, by the way by which they were started: DS01's interfaces, others, or plain Docker.",
        "short",
        Query(f"sum by (interface) (ds01_containers_total{pick(HOSTS, RUNNING)})", "{{interface}}"),
        no_data="No gpu_exporter of these hosts asks Docker: see gpu_exporter_docker",
    )
    yield rows(
        "Containers outside of DS01",
        "Running containers that hold GPUs and came by none of DS01's interfaces.",
        [
            Key("instance", "Host", (links.to_host(),)),
            Key("container", "Container"),
            Key("user", "User", (links.to_user(),)),
        ],
        [
            Column(
                "Runs",
                "short",
                f"max by (instance, container, user) (ds01_unmanaged_gpu_container{H})",
                names={"1": ("yes", panels.AMBER)},
            )
        ],
        worst=["Host"],
        rising=True,
        no_data="Every container that holds a GPU came by one of DS01's interfaces",
        span=6,
        height=8,
    )


def _users() -> Panel:
    return rows(
        "Users",
        "Users who have something now, on all hosts of the fleet.",
        [Key("user", "User", (links.to_user(),))],
        [
            Column("Slots", "short", "max by (user) (ds01:user_gpu_slots_allocated)"),
            Column("GPU equivalents", "short", "max by (user) (ds01:user_gpu_equivalents)", decimals=2),
            Column("Utilisation", "percent", "max by (user) (ds01:user_gpu_utilization_avg)", decimals=0),
            Column("Idle", "percent", "max by (user) (ds01:user_gpu_waste_percent)", panels.rising(20, 50), decimals=0),
            Column("Containers", "short", "sum by (user) (ds01_user_containers_count)"),
        ],
        worst=["Idle"],
        no_data="Nobody has a GPU",
        span=12,
        height=8,
    )
