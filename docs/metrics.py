#!/usr/bin/env python3
"""Writes docs/metrics.md from the exporter's own table; a unit test keeps it current.

python3 docs/metrics.py > docs/metrics.md
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "files"))

from gpufleet.gpu_exporter import config, metrics

HEAD = """\
# Metrics of the GPU exporter

Written by `docs/metrics.py` from the exporter's own table (`files/gpufleet/gpu_exporter/metrics.py`).

- A value that could not be read is absent. It is never 0, and never another sensor's.
- An empty label is left out.
- **GPU** stands for the labels {gpu}; **MIG** for these and {mig}. `gpu` is NVML's index. Join on `instance` and `UUID`
  or `pci_bus_id`, never on the index.
- Names of DCGM, dc-exporter and DS01 are as those systems have them, in their spelling and units. DCGM's counters whose
  names do not end in `_total` have the type `untyped`, since Prometheus' client library wants that ending.
- Values older than their collector's `max_age` are no longer served;
  `gpu_exporter_collector_age_seconds` says how old they are.
"""


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
    return "".join(sections)


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
