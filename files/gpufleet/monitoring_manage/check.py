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


Verdict = tuple[str, str]
"""State, and why."""
NOTHING: Verdict = (OK, "")
"""Is to be said."""


def together(
    kind: str,
    name: str,
    verdicts: t.Sequence[Verdict],
    lines: t.Sequence[str] = (),
    facts: t.Mapping[str, t.Any] | None = None,
) -> Check:
    """Return what some verdicts on one thing come to."""
    detail = ", ".join(why for _, why in verdicts if why)
    return Check(kind, name, worst(state for state, _ in verdicts), detail, tuple(lines), facts or {})


def worst(states: t.Iterable[str]) -> str:
    """Return the worst of some states; of none, that all is well."""
    return max(states, key=STATES.index, default=OK)


def worst_first(checks: t.Iterable[Check]) -> list[Check]:
    """Return checks as people want to read them. Among equals, the order stays."""
    return sorted(checks, key=lambda check: -STATES.index(check.state))
