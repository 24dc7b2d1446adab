#!/usr/bin/env python3
"""Writes docs/alerts.md from the alert rules and the role's thresholds; a unit test keeps it current.

python3 docs/alerts.py > docs/alerts.md
"""

from __future__ import annotations

import sys
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/rules"))

import names

HEAD = """\
# Alerts

Written by `docs/alerts.py` from the rules (`roles/prometheus/files/alerts`). Each alert's name leads to its runbook.
They use the schema of [metrics.md](metrics.md), so it does not matter who reports a GPU. Those of DS01 have DS01's
names.

- **severity** is `critical` (somebody has to come now), `warning` (in working hours) or `info` (good to know). Every
  alert has it, and `component`: `gpu`, `dcgm` (what cannot be known while DCGM's exporter, or ours in its place, is
  down), `allocation`, `host`, `exporter`, `prometheus`, `alertmanager`, `grafana`, `certificate`.
- Alerts of a host have `instance` and the labels that the inventory gives to it; those of a GPU `gpu` and `UUID` as
  well. Those about the whole fleet have no `instance`.
- One incident is one alert, as far as the rules can tell: a host that is down has no alerts about its exporters, a GPU
  that is lost none about the XID that says so. What is left to Alertmanager are warnings next to a critical alert of
  the same GPU.
- **For** is how long the condition has to hold; after a + stands how long the alert goes on when it no longer does, so
  that a missed scrape or a value at the limit is not news.

## Your own limits

The thresholds below are those of `prometheus_alert_thresholds`. What differs on a host or in a group goes into
`gpufleet_alert_thresholds` there, with only the names that differ:

```yaml
# group_vars/hall2.yml: a hall that is warm by design
gpufleet_alert_thresholds:
  gpu_temperature_high_celsius: 88

# group_vars/dgx.yml
gpufleet_gpus_expected: 8
```

Ansible does not merge dictionaries: a host in two groups that both set `gpufleet_alert_thresholds` has that of one of
them. So the number of GPUs has a variable of its own, `gpufleet_gpus_expected`.

As long as all hosts agree, there is one rule for all, with the number in it. Hosts that differ are taken out of it, and
have a rule of their own, for each set of limits one. Targets that are not in the inventory have
`prometheus_alert_thresholds`, unless all hosts agree on something else. A name that is misspelt, or a value that is not
of the default's kind, is an error that names host and variable, before anything changes. Alerts about the whole fleet
have one limit: all hosts must agree on it, as by `group_vars/all`.

| You want | You set, for the master |
|---|---|
| an alert not at all | `prometheus_alerts_disabled: [DS01GPUMemoryHigh]` |
| it to wait longer | `prometheus_alert_for: {DS01GPUWaste: 2h}` |
| alerts of your own | `prometheus_rule_files: [my_alerts.yml]` |
| runbooks elsewhere, as without the internet | `prometheus_alert_runbook_url: https://wiki.example.com/{alert}` |
| all times shorter, in a test | `prometheus_alert_time_factor: 0.0167`: a minute becomes a second |

## What is not from this collection

Certificates are read from `gpufleet_certificate_not_after_timestamp_seconds{path="..."}`, which whoever puts a
certificate on a host writes for node_exporter's textfile collector, and from blackbox_exporter's
`probe_ssl_earliest_cert_expiry`. Prometheus does not say when the certificates of its targets end: those of the fleet's
own authority are written so; for scrapes of your own by TLS, let blackbox_exporter probe them.

DS01 has further alerts of its code under these names: `DS01GPUXIDError` is here
[GPUXidCritical](runbooks/GPUXidCritical.md), [GPUXidWarning](runbooks/GPUXidWarning.md) and
[GPUXidApplication](runbooks/GPUXidApplication.md), by the code; `DS01PrometheusStorageLow` and `DS01HighDiskUsage` are
in [DS01DiskSpaceLow](runbooks/DS01DiskSpaceLow.md), which looks at all filesystems. `DS01HighSystemLoad` has another
limit, since GPU servers are meant to be busy. There is no cAdvisor, hence no `DS01CAdvisorDown`, and no
`DS01ContainerHighCPU`.
"""


def main() -> None:
    """Print the page."""
    print(page(), end="")


def page() -> str:
    """Return the page as Markdown."""
    sections = [HEAD]
    defaults = names.thresholds()
    for file in sorted(names.own_alerts(), key=lambda path: ORDER.index(path.stem)):
        rows = "".join(_row(rule, defaults) for rule in names.raw_rules(file))
        sections.append(f"\n## {TITLES[file.stem]}\n\n{TABLE}{rows}")
    return "".join(sections)


TITLES = {
    "gpu": "GPUs",
    "allocation": "Who has which GPU",
    "host": "Hosts",
    "exporters": "Exporters",
    "monitoring": "The monitoring itself",
    "certificates": "Certificates",
}
ORDER = list(TITLES)
TABLE = "| Alert | Severity | For | Condition | Thresholds |\n|---|---|---|---|---|\n"


def _row(rule: dict[str, t.Any], defaults: dict[str, t.Any]) -> str:
    alert = rule["alert"]
    hold = rule.get("for", "at once") + (f" + {rule['keep_firing_for']}" if "keep_firing_for" in rule else "")
    expression = " ".join(rule["expr"].split()).replace("threshold:", "").replace("|", "\\|")
    thresholds = ", ".join(f"`{name}`: {defaults[name]}" for name in names.alerts.names_of(rule))
    cells = (f"[{alert}](runbooks/{alert}.md)", rule["labels"]["severity"], hold, f"`{expression}`", thresholds)
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    main()
