#!/usr/bin/env python3
"""Measure what the collection costs, and print Markdown for docs/benchmarks.md. Each part is a script of its own."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

PARTS = {
    "workers": "node_exporter on 3, 20 and 40 hosts",
    "upgrade": "An upgrade of 20 workers, with a bad release among them",
    "master": "Prometheus with 100, 1,000 and 10,000 targets",
    "rules": "Recording rules, with 100, 300 and 1,000 workers of 8 GPUs",
    "dashboards": "The dashboards, with a day of 1,000 hosts of 8 GPUs",
    "front_door": "The front door: nginx' latency, and requests lost while it is reloaded",
    "gpu_exporter": "The GPU exporter, with 8 GPUs and 64 containers",
    "scrape_targets": "Large inventories: the check and the targets alone",
}


def machine() -> str:
    """Describe what the figures depend on."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    models = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    facts = [
        time.strftime("%Y-%m-%d"),
        f"{os.cpu_count()} cores ({models[0] if models else platform.machine()})",
        f"{pages * size >> 30} GiB",
        f"Linux {platform.release()}",
        f"Python {platform.python_version()}",
        f"load before the start {os.getloadavg()[0]:.2f}",
    ]
    return ", ".join(facts)


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; can be repeated")
    parser.add_argument("--peer", metavar="DIRECTORY", help="collections with prometheus.prometheus, to compare with")
    arguments = parser.parse_args()
    print(machine())
    for part in arguments.only or PARTS:
        print(f"\n## {PARTS[part]}\n", flush=True)
        options = ["--peer", arguments.peer] if part == "workers" and arguments.peer else []
        script = Path(__file__).with_name(f"{part}.py")
        subprocess.run([sys.executable, str(script), *options], check=True, timeout=1200)


if __name__ == "__main__":
    main()
