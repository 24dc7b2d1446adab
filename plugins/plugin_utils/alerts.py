# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Alert rules as they go to Prometheus: with thresholds, times and links to runbooks.

The files of rules are Prometheus' own format. Where a rule compares with a number that an operator may want to change,
it says `threshold:NAME`, which is the name of a metric to whoever only reads or checks the file. Here the number is put
in its place. Hosts whose threshold is another one are taken out of the rule, and get one of their own:

    gpu:core_temperature:celsius > 85                              as long as all hosts agree
    (... > 85) unless on (instance) up{instance=~"gpu7|gpu8"}      for all others, where two do not
    (... > 75) and on (instance) up{instance=~"gpu7|gpu8"}         and for these two

So a rule never depends on a series that might be missing, and costs nothing as long as nobody differs.

What hosts say of themselves is read, and checked, in module_utils/inventory.py.
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import yaml

from ..module_utils.inventory import did_you_mean, is_duration, is_number

Threshold = t.Union[int, float, str]
Thresholds = Mapping[str, Threshold]

_FLEET = "_fleet"  # ends the name of a group whose alerts have no instance
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
# Strings stay as they are; what is behind them in this pattern is found outside of them only.
_STRING = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`"
_THRESHOLD = re.compile(r"\bthreshold:(\w+)")
_THRESHOLD_IN_CODE = re.compile(rf"(?P<string>{_STRING})|\bthreshold:(?P<name>\w+)")
_TIME_IN_CODE = re.compile(rf"(?P<string>{_STRING})|(?P<before>\[\s*|\boffset\s+-?)(?P<time>[0-9][0-9a-z]*)")


class AlertError(Exception):
    """Settings that do not fit the rules; `faults` has one line for each thing wrong."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(["The settings of alerts cannot be used:", *(f"- {fault}" for fault in faults)]))


@dataclass(frozen=True)
class Settings:
    """What operators say about alerts."""

    thresholds: Thresholds
    hosts: Mapping[str, Thresholds] = field(default_factory=dict)  # of each host, those that are its own
    durations: Mapping[str, str] = field(default_factory=dict)  # "for", by alert
    disabled: Sequence[str] = ()
    time_factor: float = 1
    runbook_url: str = "{alert}"


def render(files: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return the files with all settings applied. Raises AlertError with all that is wrong."""
    groups = {name: yaml.safe_load(text)["groups"] for name, text in files.items()}
    check([rule for file in groups.values() for group in file for rule in group["rules"]], settings)
    settings = _as_text(settings)
    return {name: _dump([_group(group, settings) for group in file]) for name, file in groups.items()}


def names_of(rule: Mapping[str, t.Any]) -> list[str]:
    """Return the thresholds that decide whether an alert fires, each once."""
    matches = _THRESHOLD_IN_CODE.finditer(rule["expr"])
    return list(dict.fromkeys(match["name"] for match in matches if match["name"]))


# -- settings ------------------------------------------------------------------------------------


def check(rules: Sequence[Mapping[str, t.Any]], settings: Settings) -> None:
    """Raise AlertError if there is anything wrong with the settings. What they are of is not taken for granted."""
    alerts = list(dict.fromkeys(rule["alert"] for rule in rules))
    used = list(dict.fromkeys(name for rule in rules for name in names_of(rule)))
    faults = [*_of_thresholds(settings.thresholds, used), *_of_durations(settings.durations, alerts)]
    if not isinstance(settings.disabled, (list, tuple)):
        faults.append("prometheus_alerts_disabled must be a list")
    else:
        faults += [
            f"prometheus_alerts_disabled has {name}, which is no alert{did_you_mean(str(name), alerts)}"
            for name in settings.disabled
            if name not in alerts
        ]
    if not is_number(settings.time_factor) or float(settings.time_factor) <= 0:
        faults.append("prometheus_alert_time_factor must be a number above 0")
    if "{alert}" not in str(settings.runbook_url):
        faults.append("prometheus_alert_runbook_url must have {alert} in it, where the name of the alert goes")
    if faults:
        raise AlertError(faults)


def _of_thresholds(thresholds: object, used: Sequence[str]) -> t.Iterator[str]:
    if not isinstance(thresholds, Mapping):
        yield "prometheus_alert_thresholds must be a dictionary"
        return
    for name in used:
        if name not in thresholds:
            yield (
                f"prometheus_alert_thresholds lacks {name}: it has to be complete;"
                " what differs from the defaults goes into gpufleet_alert_thresholds"
            )
    for name, value in thresholds.items():
        if name not in used:
            yield f"prometheus_alert_thresholds has {name}, which no alert uses{did_you_mean(str(name), used)}"
        elif not is_duration(value) and not is_number(value):
            yield f"prometheus_alert_thresholds: {name} must be a number or a duration such as 1h"


def _of_durations(durations: object, alerts: Sequence[str]) -> t.Iterator[str]:
    if not isinstance(durations, Mapping):
        yield "prometheus_alert_for must be a dictionary"
        return
    for name, value in durations.items():
        if name not in alerts:
            yield f"prometheus_alert_for has {name}, which is no alert{did_you_mean(str(name), alerts)}"
        if not is_duration(value):
            yield f"prometheus_alert_for: {name} must be a duration such as 5m"


def _as_text(settings: Settings) -> Settings:
    """Return the settings with thresholds as plain text, however lazy they were: each is read many times."""

    def text(thresholds: Thresholds) -> dict[str, str]:
        return {str(name): str(value) for name, value in thresholds.items()}

    hosts = {host: text(own) for host, own in settings.hosts.items()}
    return replace(settings, thresholds=text(settings.thresholds), hosts=hosts)


# -- rules ---------------------------------------------------------------------------------------


def _group(group: Mapping[str, t.Any], settings: Settings) -> dict[str, t.Any]:
    rules = []
    for rule in group["rules"]:
        if rule["alert"] not in settings.disabled:
            rules += _variants(rule, settings, fleet=group["name"].endswith(_FLEET))
    return {"name": group["name"], "rules": rules}


def _variants(rule: Mapping[str, t.Any], settings: Settings, fleet: bool) -> list[dict[str, t.Any]]:
    """Return the rule, and one more for each set of thresholds that some hosts have of their own."""
    names = names_of(rule)
    default = tuple(str(settings.thresholds[name]) for name in names)
    others: dict[tuple[str, ...], list[str]] = {}
    for host, own in settings.hosts.items():
        if not own.keys().isdisjoint(names):
            values = tuple(str(own.get(name, settings.thresholds[name])) for name in names)
            others.setdefault(values, []).append(host)
    others.pop(default, None)
    if len(others) == 1 and len(next(iter(others.values()))) == len(settings.hosts):  # all hosts agree
        default, others = next(iter(others)), {}
    if others and fleet:
        raise AlertError(
            [
                f"{', '.join(names)} in gpufleet_alert_thresholds: {rule['alert']} is about the whole fleet,"
                " so all hosts must have the same"
            ]
        )
    exceptions = [host for hosts in others.values() for host in hosts]
    conditions = {default: f"unless on (instance) {_hosts(exceptions)}" if exceptions else ""}
    conditions.update((values, f"and on (instance) {_hosts(hosts)}") for values, hosts in others.items())
    return [_rule(rule, dict(zip(names, values)), settings, condition) for values, condition in conditions.items()]


def _hosts(hosts: Iterable[str]) -> str:
    # Backslashes are PromQL's, too.
    pattern = "|".join(re.escape(host).replace("\\", "\\\\") for host in hosts)
    return f'up{{instance=~"{pattern}"}}'


def _rule(rule: Mapping[str, t.Any], own: Mapping[str, str], settings: Settings, condition: str) -> dict[str, t.Any]:
    values = {**{name: str(value) for name, value in settings.thresholds.items()}, **own}
    expression = _TIME_IN_CODE.sub(lambda match: _scaled_in_code(match, settings), rule["expr"])
    expression = _THRESHOLD_IN_CODE.sub(
        lambda match: match["string"] or _number(values[match["name"]], settings), expression
    )
    if condition:
        expression = f"({expression})\n{condition}"
    made = {"alert": rule["alert"], "expr": expression}
    hold = settings.durations.get(rule["alert"], rule.get("for"))
    for key, duration in (("for", hold), ("keep_firing_for", rule.get("keep_firing_for"))):
        if duration:
            made[key] = _scaled(duration, settings)
    made["labels"] = dict(rule["labels"])
    made["annotations"] = {
        name: _THRESHOLD.sub(lambda match: values[match[1]], text) for name, text in rule["annotations"].items()
    }
    made["annotations"]["runbook_url"] = settings.runbook_url.replace("{alert}", rule["alert"])
    return made


def _number(value: str, settings: Settings) -> str:
    """Return a threshold as PromQL has it; a duration in seconds."""
    return f"{_milliseconds(value) * float(settings.time_factor) / 1000:g}" if is_duration(value) else value


def _scaled_in_code(match: re.Match[str], settings: Settings) -> str:
    return match["string"] or match["before"] + _scaled(match["time"], settings)


def _scaled(duration: str, settings: Settings) -> str:
    """Return a duration times the factor, in milliseconds, which every version of Prometheus reads."""
    if float(settings.time_factor) == 1:
        return duration
    return f"{max(1, round(_milliseconds(duration) * float(settings.time_factor)))}ms"


def _milliseconds(duration: str) -> int:
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9]+)(ms|[smhdwy])", duration))


# -- YAML ----------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Keeps expressions on their lines."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
_Dumper.add_multi_representer(str, _text)  # Ansible's own kinds of strings


def _dump(groups: Sequence[Mapping[str, t.Any]]) -> str:
    head = "# Written by gpufleet.monitoring from its alert rules and the inventory; changes made here are lost.\n"
    return head + yaml.dump({"groups": groups}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
