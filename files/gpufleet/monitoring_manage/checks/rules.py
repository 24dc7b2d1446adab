"""Rules and alerts: are rules evaluated, and what do they say is wrong?"""

from __future__ import annotations

import typing as t

from ..check import FAILED, NOTHING, OK, UNKNOWN, WARNING, Check, together
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
    silent = [rule["name"] for rule in rules if rule["name"] in SWITCHES and _evaluated(rule) and not _firing(rule)]
    ages = _ages(groups, now)
    late = [
        f"{group['name']} was evaluated {span(age)} ago"
        for group, age in ages
        if age > MISSED * float(group["interval"]) + GRACE
    ]
    waiting = len(groups) - len(ages)
    verdicts = [
        (FAILED, f"{len(broken)} of {len(rules)} rules fail") if broken else (OK, f"{len(rules)} rules"),
        (FAILED, f"{len(late)} of {len(groups)} groups late") if late else NOTHING,
        (UNKNOWN, f"{waiting} of {len(groups)} groups not evaluated yet") if waiting else NOTHING,
        (FAILED, f"{silent[0]}, which always fires, does not") if silent else NOTHING,
        (OK, f"the oldest evaluated {span(max(age for _, age in ages))} ago") if ages else NOTHING,
    ]
    lines = [*(f"{name}: {error}" for name, error in broken.items()), *late]
    facts = {"rules": len(rules), "broken": broken, "late": late, "not_evaluated": waiting}
    return together("rules", "", verdicts, some(lines), facts)


def _ages(groups: Groups, now: float) -> list[tuple[t.Mapping[str, t.Any], float]]:
    """Return the groups that were evaluated, and how long ago."""
    moments = [(group, moment(group["lastEvaluation"])) for group in groups]
    return [(group, max(0, now - when)) for group, when in moments if when is not None]


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
