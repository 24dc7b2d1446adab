#!/usr/bin/env python3
"""Names the metrics that rules use, and those of them that nobody has.

A metric that is misspelt, or that an exporter no longer serves, is no error for Prometheus: the rule is just silent.

names.py                                        whether tables and records have every metric of rules and alerts
names.py --prometheus URL [--prometheus URL]    whether these Prometheus, taken together, have seen it
names.py RULES.yml ... --names FILE             of other rules; FILE has further names, one a line
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import typing as t
import urllib.request
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "files"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".collections"))

from ansible_collections.gpufleet.monitoring.plugins.plugin_utils import alerts
from gpufleet.gpu_exporter import metrics

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "roles/prometheus/files/rules"
ALERTS = ROOT / "roles/prometheus/files/alerts"

_TOKEN = re.compile(
    r"""\s+ | \#[^\n]*
    | (?P<string>"(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | `[^`]*`)
    | (?P<number>0[xX][0-9a-fA-F]+ | (?:\d+(?:ms|[smhdwy]))+ | (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])
    | (?P<word>[a-zA-Z_:][a-zA-Z0-9_:]*)
    | (?P<sign>=~|!~|==|!=|>=|<=|[-+*/%^=<>(){}\[\],@:])""",
    re.VERBOSE,
)
_LABEL_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "bool", "offset", "atan2", "inf", "nan"} | _LABEL_LISTS
_AGGREGATIONS = {
    *("sum", "min", "max", "avg", "count", "group", "stddev", "stdvar", "topk", "bottomk", "quantile"),
    *("count_values", "limitk", "limit_ratio"),
}
# What Prometheus makes itself.
_SYNTHETIC = {
    *("up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling"),
    *("scrape_series_added", "ALERTS", "ALERTS_FOR_STATE"),
}


# What alerts read and the collection's tables do not have. The lab has them all, and says whether they are right.
OTHERS = {
    "node_exporter": {
        *("node_cpu_seconds_total", "node_filesystem_avail_bytes", "node_filesystem_size_bytes", "node_load15"),
        *("node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes", "node_systemd_unit_state"),
        *("node_time_seconds", "node_vmstat_oom_kill"),
        # From a file that the role certificate writes.
        *("gpufleet_certificate_job_success", "gpufleet_certificate_not_after_timestamp_seconds"),
    },
    "alertmanager": {"alertmanager_config_last_reload_successful", "alertmanager_notifications_failed_total"},
    "prometheus": {
        "prometheus_notifications_errors_total",
        *("prometheus_config_last_reload_successful", "prometheus_notifications_alertmanagers_discovered"),
        *("prometheus_rule_evaluation_failures_total", "prometheus_rule_group_iterations_missed_total"),
        "prometheus_sd_file_read_errors_total",
        *("prometheus_tsdb_compactions_failed_total", "prometheus_tsdb_retention_limit_bytes"),
        *("prometheus_tsdb_storage_blocks_bytes", "prometheus_tsdb_wal_corruptions_total"),
        *("prometheus_tsdb_wal_storage_size_bytes", "prometheus_tsdb_wal_writes_failed_total"),
    },
}
# What the lab lacks: there is no blackbox_exporter; its kernel tells its hosts neither how good its clock is nor, with
# control groups of version 1, the memory of containers.
ELSEWHERE = {
    "probe_ssl_earliest_cert_expiry",
    *("node_timex_maxerror_seconds", "node_timex_sync_status"),
    *("ds01_container_memory_bytes", "ds01_container_memory_limit_bytes"),
}


class Rule(t.NamedTuple):
    """One rule: where it is, what it is called, and its expression."""

    file: str
    group: str
    name: str
    expression: str
    labels: dict[str, str]

    def __str__(self) -> str:
        return f"{self.file}, group {self.group}, {self.name}"


class UnclearError(Exception):
    """An expression that is not understood, so that its metrics cannot be said for certain."""


def metrics_of(expression: str) -> list[str]:
    """Return the metrics that a PromQL expression reads, each once and in its order. Raises UnclearError."""
    tokens = list(_tokens(expression))
    found: dict[str, None] = {}
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if kind == "sign" and text == "{":
            at = _selector(tokens, at, found, expression)
        elif kind == "sign" and text == "[":
            at = _index(tokens, "]", at)
        elif kind == "word" and text.lower() in _LABEL_LISTS and following == "(":
            at = _index(tokens, ")", at)
        elif kind == "word" and not _is_syntax(text, following):
            found[text] = None
        at += 1
    return list(found)


def _tokens(expression: str) -> t.Iterator[tuple[str, str]]:
    at = 0
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if match is None:
            raise UnclearError(f"{expression[at : at + 20]!r} in {expression!r}")
        if match.lastgroup:
            yield match.lastgroup, match.group()
        at = match.end()


def _is_syntax(word: str, following: str) -> bool:
    """Whether a word is an operator, an aggregation or a function, and no metric."""
    return word.lower() in _WORDS or word.lower() in _AGGREGATIONS or following == "("


def _index(tokens: list[tuple[str, str]], sign: str, at: int) -> int:
    for index in range(at, len(tokens)):
        if tokens[index] == ("sign", sign):
            return index
    raise UnclearError(f"a {sign} is missing")


def _selector(tokens: list[tuple[str, str]], at: int, found: dict[str, None], expression: str) -> int:
    """Look for a metric's name among the matchers in braces; return where they end."""
    end = _index(tokens, "}", at)
    words = [text for _, text in tokens[at + 1 : end]]
    for place, word in enumerate(words):
        operator = words[place + 1] if place + 1 < len(words) else ","
        if word == "__name__":
            if operator != "=":
                raise UnclearError(f"__name__{operator} in {expression!r}: what it reads depends on the data")
            found[words[place + 2][1:-1]] = None
        elif word[0] in "\"'" and operator == "," and (place == 0 or words[place - 1] == ","):
            found[word[1:-1]] = None  # {"a name in quotes"}
    return end


def rules_of(files: t.Iterable[Path]) -> list[Rule]:
    """Return the rules of files, as Prometheus reads them."""
    found = []
    for file in files:
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                name = rule.get("record") or rule["alert"]
                found.append(Rule(file.name, group["name"], name, str(rule["expr"]), rule.get("labels", {})))
    return found


def raw_rules(file: Path) -> list[dict[str, t.Any]]:
    """Return the rules of a file with all that they have, and the name of their group."""
    groups = yaml.safe_load(file.read_text())["groups"]
    return [{**rule, "group": group["name"]} for group in groups for rule in group["rules"]]


class Record(t.NamedTuple):
    """One record as the comments above its rules have it."""

    name: str
    group: str
    meaning: str
    labels: list[str]
    metrics: list[str]


def documented(file: Path) -> list[Record]:
    """Return a file's records. Rules of one name are one record, with the comment above the first of them."""
    said: dict[str, tuple[str, list[str]]] = {}
    comment: list[str] = []
    for line in map(str.strip, file.read_text().splitlines()):
        if line.startswith("# ") and not line.startswith("# --"):
            comment.append(line[2:])
        elif line.startswith("- record:"):
            labels = [words for words in comment if words.startswith("Labels: ")]
            text = " ".join(words for words in comment if words not in labels)
            listed = labels[0].removeprefix("Labels: ").rstrip(".").split(", ") if labels else []
            said.setdefault(line.split()[-1], (text, listed))
            comment = []
        else:
            comment = []
    found: dict[str, Record] = {}
    for rule in rules_of([file]):
        record = found.setdefault(rule.name, Record(rule.name, rule.group, *said[rule.name], []))
        record.metrics.extend(name for name in metrics_of(rule.expression) if name not in record.metrics)
    return list(found.values())


def own_rules() -> list[Path]:
    """Return the collection's own files of recording rules."""
    return sorted(RULES.glob("*.yml"))


def own_alerts() -> list[Path]:
    """Return the collection's own files of alerting rules, in which thresholds are still names."""
    return sorted(ALERTS.glob("*.yml"))


def thresholds() -> dict[str, t.Any]:
    """Return the thresholds of alerts by default."""
    defaults = yaml.safe_load((ROOT / "roles/prometheus/defaults/main.yml").read_text())
    found: dict[str, t.Any] = defaults["prometheus_alert_thresholds"]
    return found


def deploy(directory: Path, **settings: t.Any) -> list[Path]:
    """Write all rules into a directory as the role does, by default with its defaults; return the files."""
    files = {file.name: file.read_text() for file in own_alerts()}
    settings = {"thresholds": thresholds(), "runbook_url": "https://runbooks.example/{alert}", **settings}
    made = {f"gpufleet_alerts_{name}": text for name, text in alerts.render(files, alerts.Settings(**settings)).items()}
    made.update({f"gpufleet_{file.name}": file.read_text() for file in own_rules()})
    for name, text in made.items():
        (directory / name).write_text(text)
    return [directory / name for name in made]


def records(files: t.Iterable[Path]) -> set[str]:
    """Return what the rules of these files record."""
    return {rule.name for rule in rules_of(files)}


def dcgm_fields() -> set[tuple[str, str]]:
    """Return the metrics that the role dcgm has DCGM serve, as pairs of the name before 4.9 and since."""
    variables = yaml.safe_load((ROOT / "roles/dcgm/vars/main.yml").read_text())
    fields = (("DEV", "__dcgm_exporter_device_fields"), ("PROF", "__dcgm_exporter_profiling_fields"))
    return {
        (f"DCGM_FI_{kind}_{before}", f"DCGM_FI_{kind}_{since}")
        for kind, variable in fields
        for before, since, *_ in variables[variable]
    }


def tables() -> set[str]:
    """Return what tables say is served: gpu_exporter's, DCGM's under old and new names, and what others serve."""
    return set(metrics.FAMILIES) | {name for pair in dcgm_fields() for name in pair}.union(*OTHERS.values())


def seen_by(url: str) -> set[str]:
    """Return the metrics that a Prometheus has."""
    with urllib.request.urlopen(f"{url.rstrip('/')}/api/v1/label/__name__/values", timeout=30) as answer:
        return set(json.load(answer)["data"])


def missing(rules: t.Iterable[Rule], known: t.Collection[str]) -> list[str]:
    """Return a line for each metric of each rule that nobody has, or that cannot be said for certain."""
    lines = []
    known = {*known, *_SYNTHETIC, *ELSEWHERE, *(f"threshold:{name}" for name in thresholds())}
    for rule in rules:
        try:
            used = set(metrics_of(rule.expression))
        except UnclearError as error:
            lines.append(f"{rule}: cannot be checked: {error}")
            continue
        lines += [f"{rule}: nobody has {name}" for name in sorted(used - known)]
    return lines


def main() -> None:
    """Check rules; end with 1 where a metric is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", type=Path, nargs="*", help="files of rules; by default the collection's own")
    parser.add_argument("--prometheus", metavar="URL", action="append", default=[], help="can be repeated")
    parser.add_argument("--names", metavar="FILE", type=Path, action="append", default=[], help="can be repeated")
    parser.add_argument("--list", action="store_true", help="print each rule's metrics, and check nothing")
    arguments = parser.parse_args()
    files = arguments.rules or [*own_rules(), *own_alerts()]
    if arguments.list:
        for rule in rules_of(files):
            print(rule, *metrics_of(rule.expression), sep="\n  ")
        return
    # What a Prometheus has seen says more than a table, so that the tables count only where none is asked.
    known = records({*files, *own_rules()})
    known |= set().union(*map(seen_by, arguments.prometheus)) if arguments.prometheus else tables()
    for file in arguments.names:
        known |= {line.strip() for line in file.read_text().splitlines() if line.strip() and line[0] != "#"}
    lines = missing(rules_of(files), known)
    print(*lines, sep="\n", end="\n" if lines else "")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
