"""What Prometheus scrapes: is each target up, is its last sample fresh, and is it what is on the disk?"""

from __future__ import annotations

import typing as t

from ..check import FAILED, NOTHING, OK, UNKNOWN, WARNING, Check, Verdict, together
from ..text import plain, seconds, some, span

MISSED, GRACE = 3, 10
"""A sample is old after so many intervals and so many seconds."""

AGES = "max by (job) (time() - timestamp(up))"
"""Asks for the age of what Prometheus has stored, of the worst target of each job, for up to five minutes back."""

Targets = t.Sequence[t.Mapping[str, t.Any]]
Addresses = t.Mapping[str, t.AbstractSet[str]]


def judge(targets: Targets, ages: t.Mapping[str, float], on_disk: Addresses) -> list[Check]:
    """Return a verdict on each job. ``on_disk`` is what the files of targets name, by job."""
    jobs: dict[str, list[t.Mapping[str, t.Any]]] = {job: [] for job in sorted(on_disk) if on_disk[job]}
    for target in targets:
        jobs.setdefault(target["scrapePool"], []).append(target)
    return [_job(job, found, ages, on_disk.get(job)) for job, found in jobs.items()]


def _job(job: str, targets: Targets, ages: t.Mapping[str, float], on_disk: t.AbstractSet[str] | None) -> Check:
    counts = {health: sum(target["health"] == health for target in targets) for health in ("up", "down", "unknown")}
    down = {_name(target): plain(target["lastError"]) for target in targets if target["health"] == "down"}
    missing = sorted((on_disk or set()) - {_address(target) for target in targets})
    gone = sorted(_name(target) for target in targets if on_disk is not None and _address(target) not in on_disk)
    verdicts = [
        (FAILED if down else OK, f"{counts['up']} of {len(targets)} up"),
        (UNKNOWN, f"{counts['unknown']} not scraped yet") if counts["unknown"] else NOTHING,
        _age(job, targets, ages),
        (FAILED, f"{len(missing)} of the inventory not scraped") if missing else NOTHING,
        (WARNING, f"{len(gone)} not in the inventory any more") if gone else NOTHING,
    ]
    lines = [
        *(f"{name} is down: {reason}" for name, reason in down.items()),
        *(f"{address} is in the file of targets, and is not scraped" for address in missing),
        *(f"{name} is scraped, and not in the file of targets" for name in gone),
    ]
    facts = {
        "up": counts["up"],
        "total": len(targets),
        "down": down,
        "sample_age_seconds": ages.get(job),
        "missing": missing,
        "gone": gone,
    }
    return together("targets", job, verdicts, some(lines), facts)


def _age(job: str, targets: Targets, ages: t.Mapping[str, float]) -> Verdict:
    """Of targets that are down, too, there are samples: that they are."""
    labels = {target["labels"].get("job") for target in targets}
    known = [ages[label] for label in labels if label in ages]
    if not targets:
        return OK, "no samples"
    if not known:
        return FAILED, "no sample within five minutes"
    age, interval = max(known), max(seconds(target.get("scrapeInterval", "1m")) for target in targets)
    return (FAILED if age > MISSED * interval + GRACE else OK), f"last sample {span(age)} ago"


def _name(target: t.Mapping[str, t.Any]) -> str:
    return str(target["labels"].get("instance") or _address(target))


def _address(target: t.Mapping[str, t.Any]) -> str:
    return str(target["discoveredLabels"]["__address__"])
