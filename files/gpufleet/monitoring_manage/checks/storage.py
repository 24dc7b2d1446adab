"""Disk: will what is to be kept fit?"""

from __future__ import annotations

import typing as t

from ..check import FAILED, NOTHING, OK, UNKNOWN, WARNING, Check, Verdict, together
from ..text import size, span

LEAST_FREE = 1 << 30
"""Bytes below which Prometheus is about to lose data."""

_DAY = 86400

Metrics = t.Mapping[str, float]


def judge(metrics: Metrics, free: float) -> Check:
    """Return the verdict on what Prometheus will need, by its own metrics, and the bytes that are free."""
    used, growth = _used(metrics), growth_per_second(metrics)
    keep = metrics.get("prometheus_tsdb_retention_limit_seconds") or None
    limit = metrics.get("prometheus_tsdb_retention_limit_bytes") or None
    wanted = _wanted(used, growth, keep, limit)
    verdicts = [
        _fit(used, growth, wanted, free),
        (OK, f"{size(used)} used"),
        (OK, f"{size(free)} free"),
        (OK, f"grows by {size(growth * _DAY)} a day") if growth else NOTHING,
        (OK, f"at most {size(limit)} are kept") if limit else NOTHING,
        (OK, f"for {span(keep)}") if keep else NOTHING,
    ]
    facts = {
        "used_bytes": used,
        "free_bytes": free,
        "growth_bytes_per_day": growth and round(growth * _DAY),
        "retention_bytes": limit,
        "retention_seconds": keep,
        "wanted_bytes": wanted and round(wanted),
    }
    return together("storage", "", verdicts, facts=facts)


def _fit(used: float, growth: float | None, wanted: float | None, free: float) -> Verdict:
    if free < LEAST_FREE:
        return FAILED, "the disk is full"
    if wanted is None:
        return UNKNOWN, "how much will be needed is not known yet"
    room = used + free
    if wanted <= room:
        return NOTHING
    full = f", full in {span(free / growth)}" if growth else ""
    return WARNING, f"will not fit: {size(wanted)} are to be kept, and there is room for {size(room)}{full}"


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
