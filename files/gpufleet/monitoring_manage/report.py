"""What was found, for people and for programs."""

from __future__ import annotations

import datetime
import json
import os
import typing as t

from .check import FAILED, OK, STATES, UNKNOWN, WARNING, Check, worst, worst_first
from .text import plain

SCHEMA = 1
"""Of the JSON. A new one where something in it goes or means something else; more may come without."""

_COLOURS = {OK: "32", WARNING: "33", UNKNOWN: "35", FAILED: "31;1"}
_RESET = "\033[0m"


def coloured(stream: t.TextIO) -> bool:
    """Whether a stream is a terminal whose reader wants colours (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def for_people(checks: t.Sequence[Check], colours: bool) -> str:
    """Return what it comes to, and then the worst first."""
    return f"{_headline(checks)}\n\n{rows(checks, colours)}"


def rows(checks: t.Sequence[Check], colours: bool) -> str:
    """Return the worst first, in columns."""
    ordered = worst_first(checks)
    subjects = [f"{check.kind} {check.name}".rstrip() for check in ordered]
    states, width = max(map(len, STATES)), max(map(len, subjects), default=0)
    lines = []
    for check, subject in zip(ordered, subjects):
        state = f"{check.state:{states}}"
        if colours:
            state = f"\033[{_COLOURS[check.state]}m{state}{_RESET}"
        lines.append(f"{state}  {plain(subject):{width}}  {plain(check.detail)}")
        lines += [f"{'':{states}}  {'':{width}}    {plain(line)}" for line in check.lines]
    return "".join(f"{line}\n" for line in lines)


def for_programs(checks: t.Sequence[Check], version: str) -> str:
    """Return all there is as JSON; docs/operate.md has the schema."""
    report = {
        "schema": SCHEMA,
        "version": version,
        "host": os.uname().nodename,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "healthy": healthy(checks),
        "state": worst(check.state for check in checks),
        "checks": [
            {"kind": check.kind, "name": check.name, "state": check.state, "detail": plain(check.detail), **check.facts}
            for check in worst_first(checks)
        ],
    }
    return json.dumps(report, indent=1) + "\n"


def healthy(checks: t.Sequence[Check]) -> bool:
    """Whether all is known to be well."""
    return all(check.state == OK for check in checks)


def _headline(checks: t.Sequence[Check]) -> str:
    counts = {state: sum(check.state == state for check in checks) for state in reversed(STATES)}
    words = [f"{counts[state]} {state}" for state in (FAILED, UNKNOWN, WARNING) if counts[state]]
    return f"{os.uname().nodename}: {', '.join(words) or 'all is well'}"
