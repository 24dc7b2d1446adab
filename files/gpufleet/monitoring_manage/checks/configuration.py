"""Configuration: does what runs have what is on the disk, and is that all there?

Whether the disk has what the inventory says, the master knows only of a change that was brought and refused: the
inventory is on the controller.
"""

from __future__ import annotations

import typing as t

from ..ask import Unanswered
from ..check import FAILED, OK, UNKNOWN, WARNING, Check, Verdict, together
from ..installed import Service
from ..systemd import Unit
from ..text import span

LOADED, WHEN = "_config_last_reload_successful", "_config_last_reload_success_timestamp_seconds"
"""How the metrics end by which Prometheus' own programs say whether, and when, they read their configuration."""

Changed = t.Mapping[str, t.Optional[float]]
"""When files were changed, in seconds since the epoch; None of those that are gone."""


def judge(
    service: Service, unit: Unit | Unanswered, changed: Changed | Unanswered, metrics: t.Any, now: float
) -> Check | None:
    """Return what is wrong with a service's configuration; None where nothing is.

    ``metrics`` are the service's own, Unanswered, or None where it is not known to have any.
    """
    verdicts = []
    if service.unfinished:
        verdicts.append((WARNING, "a change is under way, or was cut: the next run of the playbook finishes it"))
    if service.refusal:
        when, reason = service.refusal
        verdicts.append(
            (WARNING, f"older than the inventory's, whose change was refused {span(now - when)} ago: {reason}")
        )
    if isinstance(changed, Unanswered):
        verdicts.append((UNKNOWN, str(changed)))
    # Why these do not answer is said of the service itself.
    if isinstance(unit, Unanswered):
        verdicts.append((UNKNOWN, "since when it runs is not known"))
    if isinstance(metrics, Unanswered):
        verdicts.append((UNKNOWN, "when it read its configuration is not known"))
    if isinstance(unit, Unit) and unit.needs_daemon_reload:
        verdicts.append((WARNING, "its unit was changed since systemd read it: systemctl daemon-reload"))
    if not isinstance(changed, Unanswered):
        verdicts += [(WARNING, f"{path} is gone") for path, when in changed.items() if when is None]
        if isinstance(unit, Unit) and unit.runs:
            verdicts += _older(service, unit, changed, metrics)
    if not verdicts:
        return None
    return together("configuration", service.name, verdicts)


def judge_all(services: t.Sequence[Service], found: t.Sequence[Check], now: float) -> list[Check]:
    """Return what is wrong; where nothing is, that, and when the last change was made."""
    last = max((service.changed for service in services), default=0)
    if found or not last:
        return list(found)
    detail = f"what runs is what is on the disk, last changed {span(now - last)} ago"
    return [Check("configuration", "", OK, detail, facts={"changed_seconds_ago": round(now - last)})]


def _older(service: Service, unit: Unit, changed: Changed, metrics: t.Any) -> list[Verdict]:
    """Files that are newer than what the service has read."""
    verdicts = []
    started = unit.started
    loaded = started
    if isinstance(metrics, dict):
        if _ending(metrics, LOADED) == 0:
            verdicts.append((FAILED, "it refuses the configuration on the disk, and goes on with an older one"))
        loaded = _ending(metrics, WHEN) or started
    elif metrics is None:
        loaded = None  # nobody says when it was reloaded
    for path, when in changed.items():
        read = {"restart": started, "reload": loaded}.get(service.files[path])
        if read and when and int(when) > read:  # systemd counts whole seconds
            verdicts.append((WARNING, f"it runs with an older {path} than that on the disk"))
    return verdicts


def _ending(metrics: t.Mapping[str, float], end: str) -> float | None:
    return next((value for name, value in metrics.items() if name.endswith(end)), None)
