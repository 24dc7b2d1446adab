#!/usr/bin/env python3
"""Measure an upgrade of node_exporter on many workers: what it takes, and for how long which hosts are not watched.

All exporters are asked four times a second from this machine, as Prometheus asks them, only more often. A host is
silent from the first question that was not answered to the next one that was. Hosts, Ansible and who asks share this
machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
import typing as t
from pathlib import Path

from common import CHECKOUT, connection, lab, play, row, table

sys.path.insert(0, str(CHECKOUT / "molecule/lab"))
from gpufleet_lab.lab import Lab

INTERVAL = 0.25
BAD = "99.0.0"
TAGS = ("--tags", "node_exporter")


class Watch:
    """Asks exporters all the time, in a thread of its own, for the length of a with block."""

    def __init__(self, addresses: t.Mapping[str, str]) -> None:
        self._addresses = addresses
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._watch()))
        self.silences: list[tuple[str, float, float]] = []  # host, begin, end

    def __enter__(self) -> Watch:
        self._thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(1)
        self._over.set()
        self._thread.join()

    async def _watch(self) -> None:
        await asyncio.gather(*(self._ask_all_the_time(*host) for host in self._addresses.items()))

    async def _ask_all_the_time(self, host: str, address: str) -> None:
        silent_since = None
        while not self._over.is_set():
            asked = time.monotonic()
            if await _answers(address):
                if silent_since is not None:
                    self.silences.append((host, silent_since, time.monotonic()))
                silent_since = None
            elif silent_since is None:
                silent_since = asked
            await asyncio.sleep(max(0.0, asked + INTERVAL - time.monotonic()))
        if silent_since is not None:
            self.silences.append((host, silent_since, time.monotonic()))

    def seconds(self) -> list[float]:
        """Return how long each host was silent, of those that were."""
        total: dict[str, float] = {}
        for host, begin, end in self.silences:
            total[host] = total.get(host, 0.0) + end - begin
        return sorted(total.values())

    def most_at_once(self) -> int:
        """Return the number of hosts that were silent at the worst moment."""
        return max((sum(begin <= at < end for _, begin, end in self.silences) for _, at, _ in self.silences), default=0)


async def _answers(address: str) -> bool:
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(address, 9100)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            answer = await reader.readline()
            writer.close()
            return b" 200 " in answer
    except (OSError, TimeoutError):
        return False


class Fleet:
    """So many workers, one of which is the master, too."""

    def __init__(self, found: dict[str, t.Any], directory: Path) -> None:
        self._found = found
        self._inventory = directory / "hosts.json"
        self._report = directory / "report.json"
        self.addresses = {name: host["address"] for name, host in found["hosts"].items()}

    def run(self, playbook: str, version: str, fails: bool = False, one: str = "", **variables: t.Any) -> list[object]:
        """Run a playbook; return its figures. With `one`, the first host is to have that version instead."""
        hosts = {name: {"ansible_host": address} for name, address in self.addresses.items()}
        first, *_, last = hosts
        hosts[first] |= self._pinned(one) if one else {}
        children = {"gpu_workers": {"hosts": hosts}, "monitoring_master": {"hosts": {last: {}}}}
        known = {**connection(self._found), **self._pinned(version)}
        self._inventory.write_text(json.dumps({"all": {"children": children, "vars": known}}))
        extra = ("--extra-vars", json.dumps({"fleet_report_file": str(self._report), **variables}))
        tags = TAGS if playbook == "upgrade" else ()
        with Watch(self.addresses) as watch:
            done = play(CHECKOUT / f"playbooks/{playbook}.yml", self._inventory, *tags, *extra, fails=fails)
        rows = json.loads(self._report.read_text())["services"]
        outcomes = [row["outcome"] for row in rows]
        counts = [sum(outcomes.count(name) for name in names) for names in OUTCOMES]
        seconds = watch.seconds()
        median, longest = (statistics.median(seconds), seconds[-1]) if seconds else (0.0, 0.0)
        return [done.seconds, *counts, len(seconds), watch.most_at_once(), median, longest]

    def _pinned(self, version: str) -> dict[str, str]:
        sha256 = Lab.open("bench").faults.broken_release("node_exporter", BAD) if version == BAD else ""
        return {"node_exporter_version": version, "node_exporter_sha256": sha256}


OUTCOMES = (("updated", "went back"), ("rolled back",), ("not begun",))


def main() -> None:
    """Measure each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hosts", type=int, nargs="?", default=20, help="size of the lab")
    arguments = parser.parse_args()
    names = [f"gpu{number}" for number in range(1, arguments.hosts + 1)]
    with lab(f"{name}:bookworm" for name in names) as found, tempfile.TemporaryDirectory() as temporary:
        fleet = Fleet(found, Path(temporary))
        old, new = (found["versions"]["node_exporter"][which] for which in ("previous", "current"))
        fleet.run("upgrade", old, upgrade_batches=["100%"])
        batches = {"upgrade_batches": [1, 5]}
        table(
            "",
            "time, s",
            "changed",
            "rolled back",
            "not begun",
            "hosts silent",
            "at once, at most",
            "median silence, s",
            "longest, s",
        )
        row("a bad release; a canary, then batches of 5", *fleet.run("upgrade", BAD, fails=True, **batches))
        row("the good one, the same way", *fleet.run("upgrade", new, **batches))
        row("back, all at once, without downloads", *fleet.run("rollback", new, rollback_from={"node_exporter": new}))
        row(
            "the good one in batches of 5, with one bad binary in the first",
            *fleet.run("upgrade", new, fails=True, one=BAD, upgrade_batches=[5]),
        )


if __name__ == "__main__":
    main()
