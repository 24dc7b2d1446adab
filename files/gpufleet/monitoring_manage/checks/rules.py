"""Rules and alerts: are rules evaluated, and what do they say is wrong?"""

from __future__ import annotations

import typing as t

from ..check import FAILED, OK, UNKNOWN, WARNING, Check, worst
from ..text import moment, plain, some, span
from .targets import GRACE, MISSED

SWITCHES = ("Watchdog", "DeadMansSwitch")
"""Names of alerts that always fire, so that somebody notices when they do not."""
SEVERITIES = {"critical": FAILED, "warning": WARNING, "info": OK}
"""What an alert means for the whole. Who needs not act is told all the same."""

Groups = t.Sequence[t.Mapping[str, t.Any]]


def judge_rules(groups: Groups, now: float) -> Check:
    """Return whether all rules are evaluated, in time."""
    rules = [rule for group in groups for rule in group["rules"]]
    broken = {str(rule["name"]): plain(rule.get("lastError", "")) for rule in rules if rule["health"] == "err"}
    late, ages = [], []
    for group in groups:
        evaluated = moment(group["lastEvaluation"])
        if evaluated is not None:
            ages.append(now - evaluated)
            if now - evaluated > MISSED * float(group["interval"]) + GRACE:
                late.append(f"{group['name']} was evaluated {span(now - evaluated)} ago")
    waiting = len(groups) - len(ages)
    silent = [rule["name"] for rule in rules if rule["name"] in SWITCHES and _evaluated(rule) and not _firing(rule)]
    states, words = [OK], [f"{len(broken)} of {len(rules)} rules fail" if broken else f"{len(rules)} rules"]
    if broken:
        states.append(FAILED)
    if late:
        states.append(FAILED)
        words.append(f"{len(late)} of {len(groups)} groups late")
    if waiting:
        states.append(UNKNOWN)
        words.append(f"{waiting} of {len(groups)} groups not evaluated yet")
    if silent:
        states.append(FAILED)
        words.append(f"{silent[0]}, which always fires, does not")
    if ages:
        words.append(f"the oldest evaluated {span(max(ages))} ago")
    lines = [f"{name}: {error}" for name, error in broken.items()] + late
    facts = {"rules": len(rules), "broken": broken, "late": late, "not_evaluated": waiting}
    return Check("rules", "", worst(states), ", ".join(words), some(lines), facts)


def judge_alerts(groups: Groups, now: float) -> list[Check]:
    """Return a verdict on the alerts of each severity that fire, or that none does."""
    alerts = [
        alert
        for group in groups
        for rule in group["rules"]
        if rule["type"] == "alerting" and rule["name"] not in SWITCHES
        for alert in rule.get("alerts", [])
    ]
    firing: dict[str, list[t.Mapping[str, t.Any]]] = {}
    for alert in alerts:
        if alert["state"] == "firing":
            firing.setdefault(alert["labels"].get("severity", "none"), []).append(alert)
    pending = sum(alert["state"] == "pending" for alert in alerts)
    checks = [_severity(severity, found, now) for severity, found in firing.items()]
    return checks or [Check("alerts", "", OK, f"none firing, {pending} pending", facts={"pending": pending})]


def _severity(severity: str, alerts: t.Sequence[t.Mapping[str, t.Any]], now: float) -> Check:
    rows = [
        {
            "alert": alert["labels"]["alertname"],
            "labels": dict(alert["labels"]),
            "summary": plain(alert["annotations"].get("summary", "")),
            "runbook_url": alert["annotations"].get("runbook_url"),
            "since_seconds": round(now - (moment(alert["activeAt"]) or now)),
        }
        for alert in alerts
    ]
    lines = [f"{row['alert']} for {span(row['since_seconds'])}: {row['summary']}".rstrip(": ") for row in rows]
    state = SEVERITIES.get(severity, WARNING)
    return Check("alerts", severity, state, f"{len(rows)} firing", some(lines), {"firing": rows})


def _evaluated(rule: t.Mapping[str, t.Any]) -> bool:
    return moment(rule["lastEvaluation"]) is not None


def _firing(rule: t.Mapping[str, t.Any]) -> bool:
    return any(alert["state"] == "firing" for alert in rule.get("alerts", []))
