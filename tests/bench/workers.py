#!/usr/bin/env python3
"""Measure what a run costs on workers: from nothing to a running node_exporter, and again with nothing to change.

Each row is a lab of new hosts. The hosts and Ansible share this machine. With --peer, a directory of collections in
which prometheus.prometheus is, its role node_exporter is measured in the same way: same hosts, settings and mirror.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import typing as t
from pathlib import Path

from common import CHECKOUT, Run, connection, lab, play, row, table

PEER = """\
- hosts: gpu_workers
  gather_facts: true # the role needs them
  become: true
  roles: [prometheus.prometheus.node_exporter]
"""


def measure(hosts: int, peer: Path | None = None) -> None:
    """Print one row: the first run on so many hosts, and the median of further ones."""
    names = [f"gpu{number}" for number in range(1, hosts + 1)]
    with lab(f"{name}:bookworm" for name in names) as found, tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        inventory = directory / "hosts.json"
        addresses = {name: {"ansible_host": host["address"]} for name, host in found["hosts"].items()}
        inventory.write_text(json.dumps({"gpu_workers": {"hosts": addresses, "vars": connection(found)}}))
        run = runner(found, directory, inventory, peer)
        first, *again = (run() for _ in range(2 if peer else 4))
    assert peer or not any(one.changed for one in again), again
    seconds = statistics.median(one.seconds for one in again)
    name = "prometheus.prometheus" if peer else "gpufleet.monitoring"
    row(name, hosts, again[0].tasks, first.seconds, seconds, f"{seconds / hosts:.2f}")


def runner(found: dict[str, t.Any], directory: Path, inventory: Path, peer: Path | None) -> t.Callable[[], Run]:
    """Return what runs the playbook once."""
    if not peer:
        return lambda: play(CHECKOUT / "playbooks/gpu_workers.yml", inventory)
    playbook = directory / "peer.yml"
    playbook.write_text(PEER)
    version = found["versions"]["node_exporter"]["current"]
    releases = f"{found['mirror_url']}/github.com/prometheus/node_exporter/releases/download/v{version}"
    variables = {
        "node_exporter_binary_url": f"{releases}/node_exporter-{version}.linux-amd64.tar.gz",
        "node_exporter_checksums_url": f"{releases}/sha256sums.txt",
        "node_exporter_local_cache_path": str(directory / "cache"),
    }
    collections = {"ANSIBLE_COLLECTIONS_PATH": str(peer)}
    return lambda: play(playbook, inventory, "--extra-vars", json.dumps(variables), **collections)


def main() -> None:
    """Measure each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hosts", type=int, nargs="*", default=[3, 20, 40], help="sizes of the labs")
    parser.add_argument("--peer", type=Path, metavar="DIRECTORY")
    arguments = parser.parse_args()
    table("collection", "hosts", "tasks a host", "first run, s", "re-run, s", "re-run, s a host")
    for hosts in arguments.hosts:
        measure(hosts)
        if arguments.peer and hosts <= 20:
            measure(hosts, arguments.peer)


if __name__ == "__main__":
    main()
