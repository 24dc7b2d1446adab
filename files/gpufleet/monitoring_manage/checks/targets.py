"""What Prometheus scrapes: is each target up, is its last sample fresh, and is it what is on the disk?"""

from __future__ import annotations

import typing as t

from ..check import FAILED, OK, UNKNOWN, WARNING, Check, worst
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
    up = [target for target in targets if target["health"] == "up"]
    down = [target for target in targets if target["health"] == "down"]
    new = len(targets) - len(up) - len(down)
    reasons = {_name(target): plain(target["lastError"]) for target in down}
    states, words = [FAILED if down else OK], [f"{len(up)} of {len(targets)} up"]
    if new:
        states.append(UNKNOWN)
        words.append(f"{new} not scraped yet")
    state, said = _age(job, targets, ages)
    states.append(state)
    words.append(said)
    lines = [f"{name} is down: {reason}" for name, reason in reasons.items()]
    missing = sorted((on_disk or set()) - {_address(target) for target in targets})
    if missing:
        states.append(FAILED)
        words.append(f"{len(missing)} of the inventory not scraped")
        lines += [f"{address} is in the file of targets, and is not scraped" for address in missing]
    gone = sorted(_name(target) for target in targets if on_disk is not None and _address(target) not in on_disk)
    if gone:
        states.append(WARNING)
        words.append(f"{len(gone)} not in the inventory any more")
        lines += [f"{name} is scraped, and not in the file of targets" for name in gone]
    facts = {
        "up": len(up),
        "total": len(targets),
        "down": reasons,
        "sample_age_seconds": ages.get(job),
        "missing": missing,
        "gone": gone,
    }
    return Check("targets", job, worst(states), ", ".join(words), some(lines), facts)


def _age(job: str, targets: Targets, ages: t.Mapping[str, float]) -> tuple[str, str]:
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
