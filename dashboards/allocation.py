"""Who had how much of the fleet over weeks, and how much of that was wasted."""

from __future__ import annotations

import typing as t

from .shared import links, panels, variables
from .shared.page import Page
from .shared.panels import Panel, Query, lines, number
from .shared.tables import Column, Key, rows
from .shared.variables import SITE, USERS, pick

S = pick(SITE)
U = pick(USERS)
RANGE = "[$__range]"
NO_SLOTS = "No gpu_exporter of this site says who has which GPU"
NO_USERS = "Nobody had a GPU in this range of time"
MOST = 12


def page() -> Page:
    """Return the dashboard."""
    board = Page(
        "allocation",
        "Allocation and waste",
        "GPU hours by user over weeks, how many of them were wasted, and what was never given to anybody. What"
        " Prometheus no longer keeps is not counted: see prometheus_retention_time.",
        variables.site(),
        variables.users(),
        since="now-28d",
        refresh="30m",
    )
    board.row("In this range of time", *_sums())
    board.row("Sites", *_sites())
    board.row("Users", _users(), *_days())
    board.row("Now", *_now())
    return board


def _sums() -> t.Iterator[Panel]:
    def time(kind: str) -> str:
        """Slots times the time in which it was known that they were so."""
        return f"sum(sum_over_time(site:gpu_slots_{kind}:count{S}{RANGE}))"

    yield number(
        "Slots",
        "Slots that there were, GPUs and the MIG instances of those that are cut: the mean of each site while"
        " Prometheus watched it.",
        "short",
        f"sum(avg_over_time(site:gpu_slots:count{S}{RANGE}))",
        no_data=NO_SLOTS,
        decimals=1,
        span=4,
    )
    yield number(
        "Allocated",
        "Part of the slots that somebody had, of those of which it was known who had them.",
        "percentunit",
        f"{time('allocated')} / ({time('allocated')} + {time('free')})",
        no_data=NO_SLOTS,
        decimals=0,
        span=4,
    )
    yield number(
        "Wasted",
        "Part of the allocated slots that was not used (below 5 %), of those of which it was known.",
        "percentunit",
        f"{time('idle')} / ({time('idle')} + {time('used')})",
        no_data="Nobody had a slot, or no exporter says what slots are used",
        thresholds=panels.IDLE,
        decimals=0,
        span=4,
    )
    yield number(
        "GPU hours",
        "GPU hours of the users, on all sites. A MIG instance counts its compute slices by 7.",
        panels.HOURS,
        f"sum(sum_over_time(user:gpu_hours:1m{U}{RANGE}))",
        no_data=NO_USERS,
        decimals=1,
        span=4,
    )
    yield number(
        "Idle GPU hours",
        "GPU hours in which users did nothing with what they had, on all sites.",
        panels.HOURS,
        f"sum(sum_over_time(user:gpu_idle_hours:1m{U}{RANGE}))",
        no_data=f"{NO_USERS}, or no exporter says what slots are used",
        decimals=1,
        span=4,
    )
    yield number(
        "Users",
        "Users who had a GPU, on all sites.",
        "short",
        f"count(count by (user) (last_over_time(user:gpu_hours:1m{U}{RANGE})))",
        no_data=NO_USERS,
        span=4,
    )


def _sites() -> t.Iterator[Panel]:
    used, idle, free = (f"sum(site:gpu_slots_{kind}:count{S})" for kind in ("used", "idle", "free"))
    known = " - ".join(f"({one} or vector(0))" for one in (used, idle, free))
    yield lines(
        "Slots: used, idle and free",
        "What was done with the slots of these sites. Unknown is of which nobody says who has it, or whether it is"
        " used.",
        "short",
        Query(used, "used"),
        Query(idle, "idle"),
        Query(free, "free"),
        Query(f"sum(site:gpu_slots:count{S}) - {known}", "unknown"),
        no_data=NO_SLOTS,
        stacked=True,
    )
    yield lines(
        "Wasted by site",
        "Part of each site's allocated slots that was not used, of those of which it was known.",
        "percentunit",
        Query(
            f"site:gpu_slots_idle:count{S} / (site:gpu_slots_idle:count{S} + site:gpu_slots_used:count{S})", "{{site}}"
        ),
        no_data="Nobody had a slot, or no exporter says what slots are used",
        thresholds=panels.IDLE,
        most=1,
    )


def _users() -> Panel:
    hours = f"sum by (user) (sum_over_time(user:gpu_hours:1m{U}{RANGE}))"
    idle = f"sum by (user) (sum_over_time(user:gpu_idle_hours:1m{U}{RANGE}))"
    return rows(
        "GPU hours by user",
        "GPU hours in this range of time, on all sites, and those of them in which nothing was done with the GPU. A"
        " slot that several users share counts for each of them.",
        [Key("user", "User", (links.to_user(),))],
        [
            Column("GPU hours", panels.HOURS, hours, decimals=1),
            Column("Idle GPU hours", panels.HOURS, idle, decimals=1),
            Column("Idle", "percentunit", f"{idle} / {hours}", panels.IDLE, decimals=0),
            Column("Slots now", "short", f"sum by (user) (ds01:user_gpu_slots_allocated{U})"),
            Column("Utilisation now", "percent", f"max by (user) (ds01:user_gpu_utilization_avg{U})", decimals=0),
        ],
        worst=["Idle GPU hours"],
        no_data=NO_USERS,
        height=10,
    )


def _days() -> t.Iterator[Panel]:
    for title, record in (("GPU hours a day", "user:gpu_hours:1m"), ("Idle GPU hours a day", "user:gpu_idle_hours:1m")):
        # Grafana has its points at midnight. Each is to be the day that begins there, up to now.
        most = f"topk({MOST}, sum_over_time({record}{U}{RANGE} offset -1d @ end()))"
        yield lines(
            title,
            f"Each day from midnight on, of the {MOST} users with the most of them in this range of time.",
            panels.HOURS,
            Query(f"sum by (user) (sum_over_time({record}{U}[1d] offset -1d)) and on (user) {most}", "{{user}}"),
            no_data=NO_USERS,
            stacked=True,
            daily=True,
            span=12,
            links=[links.to_user("__field.labels.user")],
        )


def _now() -> t.Iterator[Panel]:
    yield rows(
        "Hosts with idle slots",
        "Slots that somebody has and does not use now.",
        [Key("instance", "Host", (links.to_host(), links.to_gpus())), Key("site", "Site", (links.to_site(),))],
        [
            Column("Idle", "short", f"max by (instance, site) (ds01:gpu_waste_count{S}) > 0", panels.FEW_WANTED),
            Column("Allocated", "short", f"max by (instance, site) (ds01:gpu_slots_allocated{S}) > 0"),
            Column("Free", "short", f"max by (instance, site) (ds01:gpu_slots_free{S})"),
        ],
        worst=["Idle"],
        no_data=NO_SLOTS,
        span=12,
    )
    yield rows(
        "Users with idle slots",
        "Users who have slots and do not use all of them now, on all sites.",
        [Key("user", "User", (links.to_user(),))],
        [
            Column(
                "Idle GPU equivalents", "short", f"user:gpu_equivalents_idle:sum{U} > 0", panels.FEW_WANTED, decimals=2
            ),
            Column("Slots", "short", f"ds01:user_gpu_slots_allocated{U}"),
        ],
        worst=["Idle GPU equivalents"],
        no_data="Nobody has a slot that is not used",
        span=12,
    )
