"""Services: does the unit run, and does it answer?"""

from __future__ import annotations

import typing as t

from ..ask import Page, Unanswered, Unasked
from ..check import FAILED, OK, UNKNOWN, WARNING, Check, Verdict, together
from ..installed import Service
from ..systemd import Unit
from ..text import span

RECENT = 300
"""Seconds for which it is told that systemd had to start a service again."""


class Ended(t.NamedTuple):
    """A health command that has ended."""

    status: int
    said: str
    privileged: bool
    """Whether it was root who ran it."""


def judge(service: Service, unit: Unit | Unanswered, job: Unit | Unanswered | None, health: t.Any) -> Check:
    """Return the verdict on a service.

    ``job`` is what its timer starts. ``health`` is a Page, Ended or Unanswered, or None where nobody knows how to ask.
    """
    verdicts = [(OK, service.version or ""), of_unit(unit)]
    if isinstance(job, Unit) and job.result != "success":
        verdicts.append((FAILED, f"its last run failed ({job.result})"))
    if health is not None and not (isinstance(unit, Unit) and unit.off):
        verdicts.append(of_health(health))
    if service.problem:
        verdicts.append((UNKNOWN, service.problem))
    facts: dict[str, t.Any] = {"unit": service.unit, "version": service.version}
    if isinstance(unit, Unit):
        facts.update(active=unit.active, sub=unit.sub, restarts=unit.restarts, since_seconds=round(unit.since))
    if isinstance(health, Page):
        facts.update(http_status=health.status, http_seconds=round(health.seconds, 3))
    return together("service", service.name, verdicts, facts=facts)


def of_unit(unit: Unit | Unanswered) -> Verdict:
    """Return the verdict on a unit."""
    if isinstance(unit, Unanswered):
        return UNKNOWN, str(unit)
    since = span(unit.since)
    if unit.load == "masked":
        return FAILED, "masked: systemctl unmask"
    if unit.load != "loaded":
        return FAILED, f"systemd has no such unit ({unit.load})"
    if unit.off:
        return OK, "stopped, and not started at boot"
    if unit.sub == "auto-restart":
        return FAILED, f"exits again and again ({unit.result}), started {unit.restarts} times"
    if not unit.runs:
        return FAILED, f"{unit.active} ({unit.sub}) for {since}{_unless_success(unit)}"
    if unit.restarts and unit.since < RECENT:
        return WARNING, f"{unit.active} for {since}, after systemd had to start it again {unit.restarts} times"
    if unit.file == "disabled":
        return WARNING, f"{unit.active} for {since}, and not started at boot"
    return OK, f"{unit.active} for {since}"


def of_health(health: t.Any) -> Verdict:
    """Return the verdict on an answer."""
    if isinstance(health, Unasked):
        return UNKNOWN, str(health)
    if isinstance(health, Unanswered):
        return FAILED, str(health)
    if isinstance(health, Page):
        return OK if health.status == 200 else FAILED, f"http {health.status} in {health.seconds * 1000:.0f} ms"
    assert isinstance(health, Ended)
    if health.status == 0:
        return OK, "healthy"
    said = f"its health command exited with {health.status}: {health.said}"
    return (FAILED, said) if health.privileged else (UNKNOWN, f"{said} (it may have to be root who asks)")


def _unless_success(unit: Unit) -> str:
    return "" if unit.result == "success" else f", {unit.result}"
