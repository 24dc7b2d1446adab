"""What monitoring-manage does to services."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import typing as t

from . import look, systemd
from .ask import Unanswered
from .check import FAILED, OK, UNKNOWN, Check
from .installed import Service

ASKED_WITHIN = 5
RELOADED_WITHIN = 10
"""Seconds until a service has to have read its configuration anew."""


class Refused(Exception):
    """An order that is not carried out; the text says why."""


def chosen(services: t.Sequence[Service], names: t.Sequence[str]) -> list[Service]:
    """Return the services that are meant, all of them where none is named. Raises Refused."""
    known = {service.name: service for service in services}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Refused(f"there is no service {', '.join(unknown)} here, only {', '.join(known) or 'none at all'}")
    return [known[name] for name in names] or list(services)


def carry_out(verb: str, services: t.Sequence[Service], named: bool) -> list[Check]:
    """Start, stop, restart or reload services, wait until they are well, and return what is to be said of them.

    What the inventory wants to be stopped is left alone unless it is ``named``. Raises Refused.
    """
    if os.geteuid() != 0:
        raise Refused(f"only root can {verb} services: ask again with sudo")
    try:
        units = systemd.show([service.unit for service in services], ASKED_WITHIN)
    except Unanswered as error:
        raise Refused(str(error)) from error
    wanted = [service for service in services if named or verb == "stop" or not units[service.unit].off]
    if verb == "reload":
        stiff = [service.name for service in wanted if not units[service.unit].can_reload]
        if stiff and named:
            raise Refused(f"{', '.join(stiff)} cannot be reloaded: monitoring-manage restart {' '.join(stiff)}")
        wanted = [service for service in wanted if service.name not in stiff]
    left = [service.name for service in services if service not in wanted]
    if left:
        _say(f"left as they are: {', '.join(left)}")
    if not wanted:
        return []
    before = look.at_services(wanted, ASKED_WITHIN) if verb == "reload" else []
    ordered = subprocess.run(["systemctl", verb, "--", *(service.unit for service in wanted)], check=False)
    checks = _stopped(wanted) if verb == "stop" else _reloaded(wanted, before) if verb == "reload" else _well(wanted)
    if ordered.returncode != 0:
        checks.append(Check("systemctl", verb, FAILED, f"exited with {ordered.returncode}"))
    return checks


def follow(services: t.Sequence[Service], lines: int, onward: bool) -> t.NoReturn:
    """Become journalctl."""
    units = [word for service in services for word in ("--unit", f"{service.name}.service")]
    more = ["--follow"] if onward else []
    sys.stdout.flush()
    os.execvp("journalctl", ["journalctl", f"--lines={lines}", *more, *units])  # noqa: S606 (no shell)


def _well(services: t.Sequence[Service]) -> list[Check]:
    """Wait until services are well, as long as their roles do."""
    patience = max((service.health.timeout for service in services if service.health), default=ASKED_WITHIN)
    return _wait(services, patience, lambda checks: not any(check.state in (FAILED, UNKNOWN) for check in checks))


def _reloaded(services: t.Sequence[Service], before: t.Sequence[Check]) -> list[Check]:
    """Wait until services have read their configuration, or one refuses it that did not before."""

    def refused(checks: t.Sequence[Check]) -> set[str]:
        return {check.name for check in checks if check.kind == "configuration" and check.state == FAILED}

    def is_done(checks: t.Sequence[Check]) -> bool:
        return all(check.state == OK for check in checks) or bool(refused(checks) - refused(before))

    return _wait(services, RELOADED_WITHIN, is_done)


def _wait(
    services: t.Sequence[Service], patience: float, is_done: t.Callable[[t.Sequence[Check]], bool]
) -> list[Check]:
    deadline, told = time.monotonic() + patience, False
    while True:
        checks = look.at_services(services, ASKED_WITHIN)
        if is_done(checks) or time.monotonic() > deadline:
            return checks
        if not told:
            _say(f"waiting for {', '.join(service.name for service in services)}, for up to {patience:g} s")
            told = True
        time.sleep(0.5)


def _stopped(services: t.Sequence[Service]) -> list[Check]:
    try:
        units = systemd.show([service.unit for service in services], ASKED_WITHIN)
    except Unanswered as error:
        return [Check("service", "", UNKNOWN, str(error))]
    _say("Until the next boot, or the next run of the playbook: NAME_state: stopped in the inventory lasts.")
    return [
        Check("service", service.name, FAILED if units[service.unit].runs else OK, units[service.unit].active)
        for service in services
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr)
