#!/usr/bin/env python3
"""Measure the whole role prometheus on a real master, as its inventory grows.

The workers exist in the inventory only, and the master has no way out: its scrapes end at once. Each row is an empty
play, which is what Ansible takes to start and to read the inventory; a run that brings the master these targets; and
another one with nothing to change. Columns with a + are what a run took beyond the empty one. Times are seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import typing as t
from pathlib import Path

from common import CHECKOUT, Run, connection, lab, play, row, table
from scrape_targets import MASTER, PLAYBOOKS, write_yaml

SERVICE = {"prometheus_scrape_interval": "1h", "prometheus_scrape_timeout": "1s"}


def measure(found: dict[str, t.Any], workers: int) -> tuple[Run, Run, Run]:
    """Run an empty play, one that brings the targets, and one with nothing to change."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        inventory = write_yaml(directory, workers)
        inventory.write_text(inventory.read_text().replace(MASTER, found["hosts"]["master1"]["address"]))
        (directory / "group_vars").mkdir()
        empty = directory / "empty.yml"
        empty.write_text(PLAYBOOKS["empty"])
        (directory / "group_vars/all.yml").write_text(json.dumps({**connection(found), **SERVICE}))
        role = (CHECKOUT / "playbooks/monitoring_master.yml", inventory, "--tags", "prometheus")
        nothing, change, again = play(empty, inventory), play(*role), play(*role)
    assert (nothing.changed, change.changed, again.changed) == (0, 1, 0)
    return nothing, change, again


def main() -> None:
    """Measure each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workers", type=int, nargs="*", default=[100, 1000, 10000], help="sizes of the inventories")
    arguments = parser.parse_args()
    with lab(["master1:bookworm,no-way-out"]) as found:
        measure(found, 1)  # installs Prometheus
        table("workers", "empty play", "+ new targets", "+ nothing to change")
        for workers in arguments.workers:
            nothing, *others = (run.seconds for run in measure(found, workers))
            row(f"{workers:,}", nothing, *(seconds - nothing for seconds in others))


if __name__ == "__main__":
    main()
