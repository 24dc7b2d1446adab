"""DS01's My Usage: what one user has, and what is done with it."""

from __future__ import annotations

import typing as t

from .shared import links, panels, variables
from .shared.page import Page
from .shared.panels import Panel, Query, lines, number
from .shared.tables import Column, Key, rows
from .shared.variables import USER, pick

U = pick(USER)
RANGE = "[$__range]"
# What the user had in the range of time. Queries about slots name them, so that they read these few alone; that a slot
# is shown only while the user has it, is what MINE says.
SLOTS = pick('slot_uuid=~"$my_slots"')
MINE = f"and on (instance, slot_uuid) ds01:gpu_slot_users{U}"
RATE = "[$__rate_interval]"
SLOT = "{{instance}} slot {{gpu_slot}}"
CONTAINER = "{{instance}} {{container}}"
NOTHING = "The user had no GPU in this range of time"
NO_USAGE = (
    "The user has no container, no gpu_exporter asks Docker (gpu_exporter_docker), or the host has control groups of"
    " version 1"
)
NOTHING_NOW = "The user has no GPU now"


def page() -> Page:
    """Return the dashboard."""
    board = Page(
        "ds01-user",
        "DS01 my usage",
        "The GPUs and MIG instances of one user: which they are, how much is done with them, and in which containers.",
        variables.user(),
        variables.found_values("my_slots", f"ds01:gpu_slot_users{U}", "slot_uuid"),
        since="now-24h",
    )
    board.row("What I have", *_now(), _allocations())
    board.row("What I do with it", *_history())
    board.row("Containers", *_containers())
    return board


def _now() -> t.Iterator[Panel]:
    yield number(
        "My GPUs",
        "GPUs and MIG instances that I have.",
        "short",
        f"ds01:user_gpu_slots_allocated{U}",
        no_data=NOTHING_NOW,
    )
    yield number(
        "GPU equivalents",
        "What I have in whole GPUs: a MIG instance counts its compute slices by 7.",
        "short",
        f"ds01:user_gpu_equivalents{U}",
        no_data=f"{NOTHING_NOW}, or the size of one slot is not known",
        decimals=2,
    )
    yield number(
        "My containers",
        "My containers that run, with or without a GPU.",
        "short",
        f"sum(ds01_user_containers_count{U})",
        no_data="The user has no container, or no gpu_exporter asks Docker (gpu_exporter_docker)",
    )
    yield number(
        "Mean utilisation",
        "Mean activity of what I have.",
        "percent",
        f"ds01:user_gpu_utilization_avg{U}",
        no_data=f"{NOTHING_NOW}, or its activity is not known",
        thresholds=panels.falling(20, 5),
        decimals=0,
    )
    yield number(
        "Mean memory in use",
        "Mean memory in use of what I have.",
        "percent",
        f"ds01:user_gpu_memory_percent{U}",
        no_data=NOTHING_NOW,
        decimals=0,
    )
    yield number(
        "Idle",
        "Part of what I have that is not used now (below 5 %). Others may be waiting for it.",
        "percent",
        f"ds01:user_gpu_waste_percent{U}",
        no_data=f"{NOTHING_NOW}, or its activity is not known",
        thresholds=panels.rising(20, 50),
        decimals=0,
    )
    yield number(
        "GPU hours",
        "GPU hours in this range of time.",
        panels.HOURS,
        f"sum(sum_over_time(user:gpu_hours:1m{U}{RANGE}))",
        no_data=NOTHING,
        decimals=1,
    )
    yield number(
        "Idle GPU hours",
        "GPU hours in this range of time in which nothing was done with the GPU.",
        panels.HOURS,
        f"sum(sum_over_time(user:gpu_idle_hours:1m{U}{RANGE}))",
        no_data=f"{NOTHING}, or its activity is not known",
        decimals=1,
    )


def _allocations() -> Panel:
    by = "instance, gpu_slot, container, interface, profile"
    held = f'label_replace(ds01_gpu_allocated{U}, "slot_uuid", "$1", "UUID", "(.+)")'

    def of(record: str) -> str:
        value = f"max by (instance, slot_uuid) ({record}{SLOTS})"
        return f"max by ({by}) ({held} * on (instance, slot_uuid) group_left () {value})"

    return rows(
        "My allocations",
        "Each GPU and MIG instance that I have now, with the container that holds it. Without a container, it is held"
        " by my processes.",
        [
            Key("instance", "Host", (links.to_host(), links.to_gpus())),
            Key("gpu_slot", "Slot"),
            Key("container", "Container"),
            Key("interface", "Interface"),
            Key("profile", "MIG profile"),
        ],
        [
            Column("GPU equivalents", "short", f"max by ({by}) (ds01_gpu_equivalents{U})", decimals=2),
            Column("Utilisation", "percent", of("ds01:gpu_utilization_by_slot"), panels.falling(20, 5), decimals=0),
            Column("Memory", "percent", of("ds01:gpu_memory_percent_by_slot"), decimals=0),
        ],
        worst=["Utilisation"],
        rising=True,
        no_data=NOTHING_NOW,
        height=7,
    )


def _history() -> t.Iterator[Panel]:
    for title, description, record in (
        ("Utilisation", "Activity of each GPU and MIG instance while I had it.", "ds01:gpu_utilization_by_slot"),
        ("Memory in use", "Memory in use of each while I had it.", "ds01:gpu_memory_percent_by_slot"),
    ):
        yield lines(
            title,
            description,
            "percent",
            Query(f"{record}{SLOTS} {MINE}", SLOT),
            no_data=NOTHING,
            most=100,
            links=[links.to_gpu("__field.labels.instance", "__field.labels.gpu")],
        )


def _containers() -> t.Iterator[Panel]:
    where = "{{instance}} slot {{gpu_slot}} {{container}}"
    yield lines(
        "GPU memory of my containers",
        "GPU memory of the processes in each container, or outside of containers.",
        "bytes",
        Query(f"gpu_process_memory_bytes{U}", where),
        no_data="No process of the user is on a GPU, or the driver does not tell its memory",
        span=6,
    )
    yield lines(
        "Processes of my containers",
        "Processes on GPUs in each container, or outside of containers.",
        "short",
        Query(f"gpu_processes{U}", where),
        no_data="No process of the user is on a GPU",
        span=6,
    )
    yield lines(
        "CPU of my containers",
        "CPUs that are in use in each container: 1 is one that is busy all the time.",
        "short",
        Query(f"max by (instance, container) (rate(ds01_container_cpu_seconds_total{U}{RATE}))", CONTAINER),
        no_data=NO_USAGE,
        span=6,
    )
    yield lines(
        "Memory of my containers",
        "Memory of the host in use in each container, without files that are only cached.",
        "bytes",
        Query(f"max by (instance, container) (ds01_container_memory_bytes{U})", CONTAINER),
        no_data=NO_USAGE,
        span=6,
    )
