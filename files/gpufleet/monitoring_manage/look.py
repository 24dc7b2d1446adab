"""Looks at everything at once, and judges what was answered."""

from __future__ import annotations

import functools
import os
import subprocess
import time
import typing as t
import urllib.parse

from . import ask, host, systemd
from .ask import Answers, Question, Unanswered
from .check import FAILED, UNKNOWN, Check
from .checks import certificates, configuration, rules, storage, targets
from .checks import services as services_
from .installed import Health, Service, Settings

PROMETHEUS = "prometheus"
"""Of all services, the one that is asked about others."""

Questions = dict[t.Any, Question]


def at_everything(services: t.Sequence[Service], settings: Settings, within: float) -> list[Check]:
    """Return what there is to say of this master, and of what it watches."""
    if not services:
        return [Check("service", "", FAILED, "nothing is installed: run the playbook on the controller")]
    prometheus = next((service for service in services if service.name == PROMETHEUS), None)
    answers = ask.together(
        {
            **_of_services(services, within),
            **(_of_prometheus(prometheus, within) if prometheus else {}),
            **_of_certificates(settings, within),
        },
        within,
    )
    now = time.time()
    return [
        *_services(services, answers),
        *(_prometheus(answers, settings, now) if prometheus else [_no_prometheus()]),
        *_certificates(answers, settings, now),
        *configuration.judge_all(services, _configuration(services, answers, now), now),
    ]


def at_services(services: t.Sequence[Service], within: float) -> list[Check]:
    """Return what there is to say of some services of this host alone."""
    answers = ask.together(_of_services(services, within), within)
    return [*_services(services, answers), *_configuration(services, answers, time.time())]


# -- what is asked ------------------------------------------------------------------------------


def _of_services(services: t.Sequence[Service], within: float) -> Questions:
    units = [f"{name}" for service in services for name in dict.fromkeys([service.unit, f"{service.name}.service"])]
    questions: Questions = {"units": functools.partial(systemd.show, units, within)}
    for service in services:
        questions["changed", service.name] = functools.partial(host.changed, service)
        if service.health:
            questions["health", service.name] = functools.partial(_health, service.health, within)
            if service.health.url and "reload" in service.files.values():
                questions["metrics", service.name] = functools.partial(_metrics, service.health, within)
    return questions


def _health(health: Health, within: float) -> ask.Page | services_.Ended:
    if health.url:
        return ask.page(health.url, within, health.client_certificate)
    try:
        done = subprocess.run(health.command, capture_output=True, text=True, timeout=within, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unanswered(f"its health command did not end within {within:g} s") from error
    except OSError as error:
        raise Unanswered(f"its health command cannot be run: {error.strerror}") from error
    said = (done.stderr or done.stdout).strip().splitlines()
    return services_.Ended(done.returncode, said[-1] if said else "", privileged=os.geteuid() == 0)


def _metrics(health: Health, within: float) -> host.Metrics:
    return host.metrics(ask.text(f"{health.base}/metrics", within))


def _of_prometheus(prometheus: Service, within: float) -> Questions:
    if not prometheus.health or not prometheus.health.url:
        reason = prometheus.problem or "where Prometheus listens is not known"
        return {
            key: functools.partial(_unasked, reason) for key in ("targets", "rules", "ages", "ends", "free", "on_disk")
        }
    base = f"{prometheus.health.base}/api/v1"

    def query(expression: str) -> t.Any:
        return ask.api(f"{base}/query?{urllib.parse.urlencode({'query': expression})}", within)["result"]

    return {
        "targets": lambda: ask.api(f"{base}/targets?state=active", within)["activeTargets"],
        "rules": lambda: ask.api(f"{base}/rules", within)["groups"],
        "ages": lambda: query(targets.AGES),
        "ends": lambda: query(certificates.ENDS),
        "free": lambda: host.free(ask.api(f"{base}/status/flags", within)["storage.tsdb.path"]),
        "on_disk": functools.partial(host.targets, prometheus),
        ("metrics", PROMETHEUS): functools.partial(_metrics, prometheus.health, within),
    }


def _unasked(reason: str) -> t.NoReturn:
    raise ask.Unasked(reason)


def _of_certificates(settings: Settings, within: float) -> Questions:
    return {("served", address): functools.partial(_served, address, within) for address in settings.tls_addresses}


def _served(address: str, within: float) -> bytes:
    parts = urllib.parse.urlsplit(f"//{address}")
    return ask.served_certificate(parts.hostname or "", parts.port or 443, within)


# -- what that means ----------------------------------------------------------------------------


def _services(services: t.Sequence[Service], answers: Answers) -> list[Check]:
    checks = []
    for service in services:
        job = _unit(answers, f"{service.name}.service") if service.timer else None
        health = answers.get(("health", service.name)) if service.health else None
        checks.append(services_.judge(service, _unit(answers, service.unit), job, health))
    return checks


def _configuration(services: t.Sequence[Service], answers: Answers, now: float) -> list[Check]:
    found = (
        configuration.judge(
            service,
            _unit(answers, f"{service.name}.service"),
            answers.get(("changed", service.name)),
            answers.get(("metrics", service.name)) if ("metrics", service.name) in answers else None,
            now,
        )
        for service in services
    )
    return [check for check in found if check]


def _unit(answers: Answers, name: str) -> systemd.Unit | Unanswered:
    units = answers.get("units")
    return units if isinstance(units, Unanswered) else units.get(name, Unanswered("systemd does not tell"))


def _no_prometheus() -> Check:
    return Check("targets", "", UNKNOWN, "there is no Prometheus on this host to be asked for targets and alerts")


def _prometheus(answers: Answers, settings: Settings, now: float) -> list[Check]:
    def ages() -> dict[str, float]:
        return {row["metric"].get("job", ""): float(row["value"][1]) for row in answers["ages"]}

    return [
        *_known("targets", lambda: targets.judge(answers["targets"], ages(), answers["on_disk"])),
        *_known("rules", lambda: [rules.judge_rules(answers["rules"], now)]),
        *_known("alerts", lambda: rules.judge_alerts(answers["rules"], now)),
        *_known("storage", lambda: [storage.judge(answers["metrics", PROMETHEUS], answers["free"])]),
        *_known("certificates", lambda: certificates.judge_known(answers["ends"], settings, now)),
    ]


def _certificates(answers: Answers, settings: Settings, now: float) -> list[Check]:
    return [
        certificates.judge_served(address, answers.get(("served", address)), settings, now)
        for address in settings.tls_addresses
    ]


def _known(kind: str, judge: t.Callable[[], list[Check]]) -> list[Check]:
    """Return the verdicts, or that there can be none."""
    try:
        return judge()
    except Unanswered as error:
        return [Check(kind, "", UNKNOWN, str(error))]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        return [Check(kind, "", UNKNOWN, f"Prometheus answered something that is not understood: {error!r}")]
