#!/usr/bin/env python3
"""Writes docs/metrics.md from the exporter's own table and the recording rules; a unit test keeps it current.

python3 docs/metrics.py > docs/metrics.md
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "files"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/rules"))

import names
from gpufleet.gpu_exporter import config, metrics

HEAD = """\
# Metrics

Written by `docs/metrics.py` from the GPU exporter's own table (`files/gpufleet/gpu_exporter/metrics.py`) and the
recording rules (`roles/prometheus/files/rules`). The exporter comes first, by collector; what alerts and dashboards
use, whoever reports it, is at the end: [one schema](#one-schema-gpu), [slots and users](#slots-and-users-ds01) and
[hosts, sites and users](#hosts-sites-and-users-host-site-user).

- A value that could not be read is absent. It is never 0, and never another sensor's.
- An empty label is left out.
- **GPU** stands for the labels {gpu}; **MIG** for these and {mig}. `gpu` is NVML's index. Join on `instance` and `UUID`
  or `pci_bus_id`, never on the index.
- Names of DCGM, dc-exporter and DS01 are as those systems have them, in their spelling and units. DCGM's counters whose
  names do not end in `_total` have the type `untyped`, since Prometheus' client library wants that ending.
- Values older than their collector's `max_age` are no longer served;
  `gpu_exporter_collector_age_seconds` says how old they are.
"""


SCHEMA = """
## One schema: gpu:*

Prometheus makes these of what it scrapes, so that an alert or a dashboard need not ask who reports a GPU. Each row says
of what it is made; where a GPU has several of these at one time, the one that is named first counts. In this order:
DCGM's exporter since 4.9 (new names, base units), DCGM's exporter before or the GPU exporter in its place (old names,
and units such as MHz and per cent), and what the GPU exporter has beside DCGM.

- **GPU** stands for the labels `instance`, `gpu`, `UUID` and `model`, and those that the inventory gives to the host;
  **MIG** for these and, of a MIG instance, `GPU_I_ID` and `GPU_I_PROFILE`. Nothing else: a host that gets DCGM, or
  another version of it, keeps its series.
- A ratio is from 0 to 1. Counters have `total` in the last part of their names.
- What belongs to the card (temperature, power, clocks, errors ...) is there once for each card, though DCGM repeats it
  for each MIG instance. Of what instances have of their own, a sum over a host takes `{GPU_I_ID=""}`:
  `sum by (instance) (gpu:memory_used:bytes{GPU_I_ID=""})`. The utilisation of a card that is cut is not known as a
  whole, unless DCGM's profiling says it.
- What nobody could read is absent. So are, after a few seconds, the readings of a GPU that is lost; `gpu:state:bool`
  stays.
"""
DS01 = """
## Slots and users: ds01:*

Made of the schema and of the GPU exporter's `ds01_*`. Names that DS01 has are DS01's, and so are units: activity and
memory are in per cent, of MIG instances as well. Rows without `user` keep the labels that the inventory gives to the
host, except those of the whole fleet. `slot_uuid` is the UUID of the slot itself: of the GPU, or of the MIG device.
"""
HOSTS = """
## Hosts: gpufleet:*

Whether anybody answers on a host, for alerts.
"""
FLEET = """
## Hosts, sites and users: host:*, site:*, user:*

Sums and extremes of the two sections above, for the dashboards of a whole fleet. Rows of a host keep the labels that
the inventory gives to it; `site` is one of these, and a fleet that has no such label is one series.
"""
DS01_V1 = """
## DS01's first exporter

Recorded only with `prometheus_legacy_ds01_v1: true`, for dashboards that still have these names.
"""

# By the end of a record's name.
UNITS = {
    ":ratio": "ratio",
    "bytes": "bytes",
    "bytes_per_second": "bytes a second",
    "celsius": "celsius",
    ":watts": "watts",
    ":joules_total": "joules",
    ":hertz": "hertz",
    "seconds_total": "seconds",
    "timestamp_seconds": "seconds",
    ":bool": "0 or 1",
    ":mask": "bit mask",
    "hours:1m": "GPU hours",
}


def main() -> None:
    """Print the page."""
    print(page(), end="")


def page() -> str:
    """Return the page as Markdown."""
    gpu = ", ".join(f"`{label}`" for label in metrics.GPU)
    mig = " and ".join(f"`{label}`" for label in metrics.MIG[len(metrics.GPU) :])
    sections = [HEAD.format(gpu=gpu, mig=mig)]
    for collector in (*config.COLLECTORS, "exporter"):
        sections.append(f"\n## {collector}\n\n{_about(collector)}\n\n{_table(collector)}")
    for head, file, base in (
        (SCHEMA, "gpu.yml", "**GPU**"),
        (DS01, "ds01.yml", "`instance`"),
        (HOSTS, "hosts.yml", "`instance`"),
        (FLEET, "fleet.yml", "`instance`"),
        (DS01_V1, "ds01_v1.yml", "**GPU**"),
    ):
        sections.append(f"{head}\n{_records(names.documented(names.RULES / file), base)}")
    return "".join(sections)


def _records(records: list[names.Record], base: str) -> str:
    rows = [
        f"| `{record.name}` | {_unit(record)} | {_record_labels(record, base)} | {record.meaning} |"
        f" {', '.join(f'`{name}`' for name in record.metrics)} |\n"
        for record in records
    ]
    return "| Name | Unit | Labels | Meaning | Made of |\n|---|---|---|---|---|\n" + "".join(rows)


def _unit(record: names.Record) -> str:
    for ending, unit in UNITS.items():
        if record.name.endswith(ending):
            return unit
    return "percent" if "per cent" in record.meaning.lower() else ""


def _record_labels(record: names.Record, base: str) -> str:
    if record.labels == ["none"]:
        return ""
    if record.labels == ["user"] or record.labels[:1] == ["site"]:
        return ", ".join(f"`{label}`" for label in record.labels)
    if "slot_uuid" in record.labels:
        base = "`instance`"
    mig = list(metrics.MIG[len(metrics.GPU) :])
    if base == "**GPU**" and record.labels[:2] == mig:
        return ", ".join(["**MIG**", *(f"`{label}`" for label in record.labels[2:])])
    return ", ".join([base, *(f"`{label}`" for label in record.labels)])


def _about(collector: str) -> str:
    if collector == "exporter":
        return "The exporter itself. These are always served."
    section = config.Config().section(collector)
    state = "on" if section.enabled else "off"
    return f"{section.__doc__} By default {state}, every {section.interval:g} s."


def _table(collector: str) -> str:
    rows = [_row(family) for family in metrics.FAMILIES.values() if family.collector == collector]
    return "| Name | Type | Labels | Unit | Meaning | Source | Since |\n|---|---|---|---|---|---|---|\n" + "".join(rows)


def _row(family: metrics.Family) -> str:
    cells = (
        f"`{family.name}`",
        family.kind,
        _labels(family.labels),
        family.unit,
        family.help,
        family.source,
        family.since,
    )
    return f"| {' | '.join(cells)} |\n"


def _labels(labels: tuple[str, ...]) -> str:
    for group, name in ((metrics.MIG, "**MIG**"), (metrics.GPU, "**GPU**")):
        if labels[: len(group)] == group:
            return ", ".join([name, *(f"`{label}`" for label in labels[len(group) :])])
    return ", ".join(f"`{label}`" for label in labels)


if __name__ == "__main__":
    main()
