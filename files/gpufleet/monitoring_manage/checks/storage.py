"""Disk: will what is to be kept fit?"""

from __future__ import annotations

import typing as t

from ..check import FAILED, OK, UNKNOWN, WARNING, Check
from ..text import size, span

LEAST_FREE = 1 << 30
"""Bytes below which Prometheus is about to lose data."""

Metrics = t.Mapping[str, float]


class Disk(t.NamedTuple):
    """The filesystem that Prometheus writes to, in bytes."""

    free: float
    total: float


def judge(metrics: Metrics, disk: Disk) -> Check:
    """Return the verdict on what Prometheus will need, by its own metrics, and what there is."""
    used = _used(metrics)
    growth = growth_per_second(metrics)
    keep = metrics.get("prometheus_tsdb_retention_limit_seconds") or None
    limit = metrics.get("prometheus_tsdb_retention_limit_bytes") or None
    wanted = _wanted(used, growth, keep, limit)
    room = used + disk.free
    words = [f"{size(used)} used", f"{size(disk.free)} free"]
    if growth is not None:
        words.append(f"grows by {size(growth * 86400)} a day")
    if limit is not None:
        words.append(f"at most {size(limit)} are kept")
    if keep is not None:
        words.append(f"for {span(keep)}")
    facts = {
        "used_bytes": used,
        "free_bytes": disk.free,
        "growth_bytes_per_day": growth and round(growth * 86400),
        "retention_bytes": limit,
        "retention_seconds": keep,
        "wanted_bytes": wanted and round(wanted),
    }
    state = OK
    if disk.free < LEAST_FREE:
        state, words = FAILED, [f"only {size(disk.free)} free", *words]
    elif wanted is None:
        state, words = UNKNOWN, ["how much will be needed is not known yet", *words]
    elif wanted > room:
        full = f", full in {span(disk.free / growth)}" if growth else ""
        state, words = (
            WARNING,
            [f"will not fit: {size(wanted)} are to be kept, and there is room for {size(room)}{full}", *words],
        )
    return Check("storage", "", state, ", ".join(words), facts=facts)


def _used(metrics: Metrics) -> float:
    return sum(
        metrics.get(f"prometheus_tsdb_{name}_bytes", 0)
        for name in ("storage_blocks", "wal_storage_size", "head_chunks_storage_size")
    )


def growth_per_second(metrics: Metrics) -> float | None:
    """Return the bytes that a second of measurements takes, by the blocks on the disk; None before there are any.

    Blocks reach from the oldest sample to where the head begins, which is what is in memory still.
    """
    blocks = metrics.get("prometheus_tsdb_storage_blocks_bytes", 0)
    length = metrics.get("prometheus_tsdb_head_min_time_seconds", 0) - metrics.get(
        "prometheus_tsdb_lowest_timestamp_seconds", 0
    )
    return blocks / length if blocks and length > 0 else None


def _wanted(used: float, growth: float | None, keep: float | None, limit: float | None) -> float | None:
    """Return what there will be once retention takes as much away as is added: at most the limit, if there is one."""
    if growth is None or keep is None:
        return limit
    at_last = max(used, growth * keep)
    return min(at_last, limit) if limit else at_last
