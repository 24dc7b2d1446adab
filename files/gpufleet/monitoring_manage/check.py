"""What was found out about one thing."""

from __future__ import annotations

import typing as t

OK, WARNING, UNKNOWN, FAILED = "ok", "warning", "unknown", "failed"
STATES = (OK, WARNING, UNKNOWN, FAILED)
"""The best first. Not to know is worse than a warning: it may be anything."""


class Check(t.NamedTuple):
    """A verdict, with ``detail`` in a line, further ``lines`` for people, and ``facts`` for programs."""

    kind: str
    name: str
    state: str
    detail: str
    lines: tuple[str, ...] = ()
    facts: t.Mapping[str, t.Any] = {}


def worst(states: t.Iterable[str]) -> str:
    """Return the worst of some states; of none, that all is well."""
    return max(states, key=STATES.index, default=OK)


def worst_first(checks: t.Iterable[Check]) -> list[Check]:
    """Return checks as people want to read them. Among equals, the order stays."""
    return sorted(checks, key=lambda check: -STATES.index(check.state))
