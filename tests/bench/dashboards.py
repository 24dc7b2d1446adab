#!/usr/bin/env python3
"""Measure how long the dashboards' queries take a real Prometheus that holds a day, or more, of a large fleet.

The fleet is generated: every record of the rules for every GPU, slot, host, site and user, and what dashboards ask of
the exporters' own series, each 15 s; hours of users each minute. Each host has 8 GPUs, one host in ten cuts one of its
into 7 instances, 70 % of the slots are somebody's. node_exporter is on one host in ten, since dashboards read it of one
host at a time. The range of time is all that there is; steps are those of panels in a window 1920 pixels wide.

"One after another" is every query of a dashboard on its own, those of collapsed rows among them, and "CPU" what of it
Prometheus computed; "six at once" is how many a browser sends to a server at a time. Variables are asked before that.
Everything is read once before, and each figure the median of three times.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import blocks
from common import CHECKOUT, row, table

sys.path[:0] = [str(CHECKOUT / path) for path in ("files", "molecule/lab", "tests/rules", "tests/dashboards")]

import names  # noqa: E402
import queries  # noqa: E402
from gpufleet_lab import mirror  # noqa: E402

GPUS, INSTANCES, USERS, SITES = 8, 7, 200, 5
INTERVAL = 15
ROUNDS, AT_ONCE = 3, 6
VARIANTS = 8

Labels = dict[str, str]
T = t.TypeVar("T")

# Values of the labels that a record has beside those that name a GPU.
VALUES = {
    "limit": ("shutdown", "slowdown", "memory_max", "gpu_max"),
    "reason": (
        *("gpu_idle", "applications_clocks", "sw_power_cap", "hw_slowdown", "sync_boost", "sw_thermal", "hw_thermal"),
        *("hw_power_brake", "display_clocks", "board_limit", "reliability"),
    ),
    "type": ("corrected", "uncorrected"),
    "period": ("volatile", "aggregate"),
    "cause": ("correctable", "uncorrectable"),
    "severity": ("correctable", "nonfatal", "fatal"),
    "state": ("ok", "lost", "passthrough", "driver_mismatch", "no_driver", "unresponsive", "unknown"),
    "xid": ("31", "79"),
    "job": ("node_exporter", "dcgm_exporter", "gpu_exporter"),
    "mode": ("idle", "user", "system", "iowait", "irq", "softirq", "nice", "steal"),
    "collector": ("gpu", "dcgm", "presence", "pcie", "xid", "allocations", "events", "system", "ipmi"),
    "interface": ("orchestration", "atomic", "api", "other", "docker"),
    "process": ("server", "sampler"),
}
# What of exporters' own series the dashboards ask for, and the labels that each has beside its host's.
OF_HOSTS: dict[str, dict[str, t.Sequence[str]]] = {
    "up": {"job": VALUES["job"]},
    "scrape_duration_seconds": {"job": VALUES["job"]},
    "ds01_containers_total": {"status": ("running", "stopped"), "interface": VALUES["interface"]},
    "gpu_exporter_collector_up": {"collector": VALUES["collector"]},
    "gpu_exporter_collector_age_seconds": {"collector": VALUES["collector"]},
    "gpu_exporter_collector_failures_total": {"collector": VALUES["collector"]},
    "gpu_exporter_collector_partial_failures_total": {"collector": VALUES["collector"]},
    "gpu_exporter_cpu_seconds_total": {"process": VALUES["process"]},
    "gpu_exporter_resident_memory_bytes": {"process": VALUES["process"]},
    "node_cpu_seconds_total": {"cpu": [str(number) for number in range(64)], "mode": VALUES["mode"]},
    **{f"node_load{minutes}": {} for minutes in (1, 5, 15)},
    **{f"node_memory_{kind}_bytes": {} for kind in ("MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached")},
    **{f"node_memory_{kind}_bytes": {} for kind in ("SReclaimable", "SwapTotal", "SwapFree")},
    **{
        f"node_filesystem_{kind}_bytes": {"mountpoint": ("/", "/boot", "/data"), "fstype": ("ext4",)}
        for kind in ("avail", "size")
    },
    **{
        f"node_disk_{kind}_total": {"device": ("nvme0n1", "nvme1n1", "nvme2n1")}
        for kind in ("read_bytes", "written_bytes", "io_time_seconds")
    },
    **{
        f"node_network_{way}_{kind}_total": {"device": ("lo", "eth0", "eth1", "ib0")}
        for way in ("receive", "transmit")
        for kind in ("bytes", "errs", "drop")
    },
    "node_netstat_Tcp_RetransSegs": {},
    "node_netstat_Tcp_OutSegs": {},
    "node_time_seconds": {},
    "node_boot_time_seconds": {},
    "node_systemd_unit_state": {
        "name": [f"unit{number}.service" for number in range(60)],
        "state": ("active", "failed"),
    },
}
OF_PROMETHEUS: dict[str, dict[str, t.Sequence[str]]] = {
    "prometheus_tsdb_head_series": {},
    "prometheus_tsdb_head_samples_appended_total": {"type": ("float", "histogram")},
    "prometheus_tsdb_storage_blocks_bytes": {},
    "prometheus_tsdb_wal_storage_size_bytes": {},
    "prometheus_rule_evaluation_failures_total": {"rule_group": ["gpu", "ds01", "fleet"]},
    "prometheus_rule_group_last_duration_seconds": {"rule_group": ["gpu", "ds01", "fleet"]},
    "prometheus_rule_group_interval_seconds": {"rule_group": ["gpu", "ds01", "fleet"]},
    "prometheus_engine_query_duration_seconds": {"slice": ("inner_eval", "queue_time"), "quantile": ("0.5", "0.99")},
    "prometheus_notifications_alertmanagers_discovered": {},
    "prometheus_notifications_sent_total": {"alertmanager": ("a",)},
    "prometheus_notifications_dropped_total": {},
    "process_resident_memory_bytes": {},
    "process_cpu_seconds_total": {},
}
# As many GPUs have an alert, and are not ok.
ALERTING = 40


class Fleet:
    """The series of a fleet."""

    def __init__(self, hosts: int) -> None:
        self.hosts = [
            {"instance": f"gpu{number}", "site": f"s{number % SITES}", "rack": f"r{number // 20}"}
            for number in range(hosts)
        ]
        self._random = random.Random(hosts)
        gpu, ds01, fleet = (names.documented(names.RULES / f"{name}.yml") for name in ("gpu", "ds01", "fleet"))
        self._gpu, self._ds01, self._fleet = gpu, ds01, fleet

    def series(self) -> t.Iterator[Labels]:
        """Yield the labels of each series."""
        for number, host in enumerate(self.hosts):
            yield from self._host(number, host)
        yield from self._sums()
        server = {"job": "prometheus", "instance": "master1"}
        for name, labels in {"up": {}, **OF_PROMETHEUS}.items():
            yield from _products(name, server, labels)

    def _host(self, number: int, host: Labels) -> t.Iterator[Labels]:
        for index in range(GPUS):
            card = {**host, "gpu": str(index), "UUID": f"GPU-{number}-{index}", "model": f"NVIDIA model {number % 4}"}
            profiles = ["1g.10gb"] * INSTANCES if number % 10 == 0 and index == GPUS - 1 else []
            yield from self._card(card, profiles)
            yield from self._slots(card, profiles)
            if (number * GPUS + index) % (len(self.hosts) * GPUS // ALERTING) == 0:
                alert = {"alertname": "GPUHot", "severity": ("critical", "warning")[number % 2], **card}
                yield {"__name__": "gpu:not_ok:bool", **card, "pci_bus_id": f"00000000:{index}1:00.0", "state": "lost"}
                yield {"__name__": "ALERTS", "alertstate": "firing", **alert}
                yield {"__name__": "ALERTS_FOR_STATE", **alert}
        for name, labels in OF_HOSTS.items():
            if name.startswith("node_") and number % 10:
                continue
            yield from _products(name, {"job": name.partition("_")[0] + "_exporter", **host}, labels)
        for record in (*self._ds01, *self._fleet):
            if not record.labels:
                yield {"__name__": record.name, **host}

    def _card(self, card: Labels, profiles: list[str]) -> t.Iterator[Labels]:
        for record in self._gpu:
            if record.name == "gpu:not_ok:bool":
                continue
            more = {label: VALUES[label] for label in record.labels if label in VALUES}
            if "pci_bus_id" in record.labels:
                more["pci_bus_id"] = (f"00000000:{card['gpu']}1:00.0",)
            yield from _products(record.name, card, more)
            if "GPU_I_ID" in record.labels:
                for place, profile in enumerate(profiles):
                    yield {"__name__": record.name, **card, "GPU_I_ID": str(place), "GPU_I_PROFILE": profile}

    def _slots(self, card: Labels, profiles: list[str]) -> t.Iterator[Labels]:
        whole = [({**card, "gpu_slot": card["gpu"], "slot_uuid": card["UUID"]}, "")]
        cut = [
            (
                {
                    **card,
                    **{"GPU_I_ID": str(place), "GPU_I_PROFILE": profile},
                    **{"gpu_slot": f"{card['gpu']}.{place}", "slot_uuid": f"MIG-{card['UUID']}-{place}"},
                },
                profile,
            )
            for place, profile in enumerate(profiles)
        ]
        for slot, profile in cut or whole:
            slot.pop("model")
            user = f"u{self._random.randrange(USERS)}" if self._random.random() < 0.7 else ""
            yield from self._slot(slot, user)
            if user:
                yield from self._held(slot, user, profile)

    def _slot(self, slot: Labels, user: str) -> t.Iterator[Labels]:
        for record in self._ds01:
            if "slot_uuid" in record.labels:
                always = record.name in ("ds01:gpu_slot_info", *_BY_SLOT)
                known = {label: slot[label] for label in slot if label in (*record.labels, *self.hosts[0])}
                if always or user:
                    yield {"__name__": record.name, **known, **({"user": user} if "user" in record.labels else {})}

    def _held(self, slot: Labels, user: str, profile: str) -> t.Iterator[Labels]:
        host = {label: slot[label] for label in self.hosts[0]}
        held = {"job": "gpu_exporter", "gpu_slot": slot["gpu_slot"], "UUID": slot["slot_uuid"], "user": user, **host}
        held["container"] = f"c-{slot['slot_uuid']}"
        kind = {"interface": VALUES["interface"][len(user) % 5], **({"profile": profile} if profile else {})}
        for name in ("ds01_gpu_allocated", "ds01_gpu_equivalents"):
            yield {"__name__": name, **held, **kind}
        for name in ("gpu_process_memory_bytes", "gpu_processes"):
            yield {"__name__": name, **held}
        own = {"job": "gpu_exporter", **host, "container": held["container"], "user": user}
        for name in ("ds01_container_cpu_seconds_total", "ds01_container_memory_bytes"):
            yield {"__name__": name, **own}
        if self._random.random() < 0.02:
            yield {"__name__": "ds01_unmanaged_gpu_container", **own, "interface": "docker"}

    def _sums(self) -> t.Iterator[Labels]:
        for record in (*self._ds01, *self._fleet):
            if record.labels == ["none"]:
                yield {"__name__": record.name}
            elif record.labels == ["user"]:
                yield from ({"__name__": record.name, "user": f"u{number}"} for number in range(USERS))
            elif record.labels[:1] == ["site"]:
                more = {label: VALUES[label] for label in record.labels[1:]}
                sites = {"site": [f"s{number}" for number in range(SITES)]}
                yield from _products(record.name, {}, {**sites, **more})
        for number in range(USERS):
            for host in self._random.sample(self.hosts, min(3, len(self.hosts))):
                yield {"__name__": "ds01_user_containers_count", "job": "gpu_exporter", **host, "user": f"u{number}"}


_BY_SLOT = ("ds01:gpu_utilization_by_slot", "ds01:gpu_memory_percent_by_slot")


def _products(name: str, labels: Labels, more: dict[str, t.Sequence[str]]) -> t.Iterator[Labels]:
    for values in itertools.product(*more.values()):
        yield {"__name__": name, **labels, **dict(zip(more, values))}


class Courses:
    """Courses of values, a few of each kind."""

    def __init__(self, start: int, number: int) -> None:
        chance = random.Random(1)

        def walk(low: float, high: float, step: float, digits: int, scale: float = 1) -> list[float]:
            value, found = chance.uniform(low, high), []
            for _ in range(number):
                value = min(high, max(low, value + chance.uniform(-step, step)))
                found.append(round(value, digits) * scale)
            return found

        def count(most: int) -> list[float]:
            return [float(value) for value in itertools.accumulate(chance.randrange(most) for _ in range(number))]

        kinds: dict[str, t.Callable[[], list[float]]] = {
            "ratio": lambda: walk(0, 1, 0.05, 2),
            "percent": lambda: walk(0, 100, 5, 0),
            "celsius": lambda: walk(30, 88, 1.5, 0),
            "watts": lambda: walk(60, 700, 20, 1),
            "bytes": lambda: walk(1000, 80000, 500, 0, 1 << 20),
            "hertz": lambda: walk(1000, 1980, 30, 0, 1e6),
            "counter": lambda: count(1000),
            "seldom": lambda: [float(at // 500) for at in range(number)],
            "few": lambda: walk(1, 8, 0.1, 0),
            "hours": lambda: walk(0.001, 0.1, 0.001, 4),
            "zero": lambda: [0.0] * number,
            "one": lambda: [1.0] * number,
            "time": lambda: [start / 1000] * number,
        }
        self._kinds = {
            name: [blocks.Course(start, 1000 * INTERVAL, make()) for _ in range(VARIANTS)]
            for name, make in kinds.items()
        }
        # What is added up over weeks has a sample a minute, as the rules have it.
        self._kinds["minutes"] = [
            blocks.Course(start, 60_000, walk(0.001, 0.1, 0.001, 4)[:: 60 // INTERVAL]) for _ in range(VARIANTS)
        ]
        self._places = itertools.count()

    def of(self, labels: Labels) -> blocks.Course:
        """Return a course that fits a series."""
        return self._kinds[kind_of(labels)][next(self._places) % VARIANTS]


def kind_of(labels: Labels) -> str:
    """Say what a series' values are like."""
    name = labels["__name__"]
    if name == "gpu:not_ok:bool":
        return "one"
    if name.endswith(":bool") or name in ("ds01:gpu_slot_idle", "up", "node_systemd_unit_state"):
        return "one" if labels.get("state", "ok") in ("ok", "active") and "reason" not in labels else "zero"
    if name == "ALERTS_FOR_STATE" or name.endswith("timestamp_seconds") or name == "node_boot_time_seconds":
        return "time"
    if "errors:" in name or "_failures_" in name or "not_ok" in name or "replays" in name or "remapped" in name:
        return "seldom" if name.startswith("gpu:") else "zero"
    if name.endswith(("_total", ":total", "seconds_total", "joules_total")) and name != "ds01_containers_total":
        return "counter"
    for ending, kind in (
        *((":ratio", "ratio"), ("celsius", "celsius"), ("watts", "watts"), ("bytes", "bytes"), (":hertz", "hertz")),
        *((":bytes_per_second", "bytes"), ("hours:1m", "minutes"), ("percent", "percent"), ("Segs", "counter")),
        *(("utilization_by_slot", "percent"), ("utilization_avg", "percent"), ("percent_by_slot", "percent")),
        *(("seconds", "hours"), ("info", "one"), ("allocated", "one"), ("equivalents", "one"), ("ALERTS", "one")),
    ):
        if name.endswith(ending):
            return kind
    return "few"


class Server(queries.Prometheus):
    """A running Prometheus, and what it takes."""

    def __init__(self, url: str, pid: int) -> None:
        super().__init__(url)
        self._pid = pid

    def cpu(self) -> float:
        """Return the seconds of CPU time that it has taken."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(data: Path) -> t.Iterator[Server]:
    """Run the lab's Prometheus on what is in a directory, for the length of a with block."""
    version = mirror.versions(mirror.path())["prometheus"]["current"]
    (archive,) = mirror.path().rglob(f"prometheus-{version}.*.tar.gz")
    with tempfile.TemporaryDirectory() as temporary, socket.socket() as free:
        shutil.unpack_archive(archive, temporary)
        (program,) = Path(temporary).glob("*/prometheus")
        Path(temporary, "prometheus.yml").write_text("{}")
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        command = [program, f"--config.file={temporary}/prometheus.yml", f"--storage.tsdb.path={data}"]
        command += [f"--web.listen-address={address}", "--log.level=error", "--storage.tsdb.retention.time=30d"]
        with subprocess.Popen(command) as process:
            try:
                for _ in range(600):
                    with contextlib.suppress(urllib.error.URLError):
                        urllib.request.urlopen(f"http://{address}/-/ready", timeout=5)
                        break
                    time.sleep(0.1)
                yield Server(f"http://{address}", process.pid)
            finally:
                process.kill()


class Figures(t.NamedTuple):
    """What a dashboard takes; seconds."""

    number: int
    variables: float
    single: float
    cpu: float
    together: float
    panels: dict[str, float]


def measure(server: Server, dashboard: dict[str, t.Any], span: queries.Range) -> Figures:
    """Run all queries of a dashboard, one after another and six at once."""
    values, variables = timed(lambda: queries.fill(server, dashboard, {}, span))
    asked = [(query, queries.filled(query, values, span)) for query in queries.queries(dashboard)]
    for query, expression in asked:
        if queries.is_empty(server.run(query, expression, span)):
            print(f"nothing: {query}", file=sys.stderr)
    before, panels = server.cpu(), {}
    for query, expression in asked:
        _, took = timed(lambda query=query, expression=expression: server.run(query, expression, span))
        panels[query.panel] = panels.get(query.panel, 0) + took
    cpu = (server.cpu() - before) / ROUNDS
    # Threads wait for each other, as a browser's requests do not: here as little as can be.
    sys.setswitchinterval(1e-4)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        _, together = timed(lambda: list(pool.map(lambda one: server.run(one[0], one[1], span), asked)))
    return Figures(len(asked), variables, sum(panels.values()), cpu, together, panels)


def timed(work: t.Callable[[], T]) -> tuple[T, float]:
    """Do something some times; return what it gives, and the median of the seconds that it takes."""
    times = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        result = work()
        times.append(time.monotonic() - began)
    return result, statistics.median(times)


def main() -> None:
    """Generate the fleet, and measure each dashboard."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hosts", type=int, nargs="?", default=1000)
    parser.add_argument(
        "--keep", type=Path, metavar="DIRECTORY", help="where the data is left, and taken from if there"
    )
    parser.add_argument("--hours", type=int, default=24)
    arguments = parser.parse_args()
    number = arguments.hours * 3600 // INTERVAL
    with tempfile.TemporaryDirectory(dir="/var/tmp") as temporary:
        data = arguments.keep or Path(temporary)
        if not (data / blocks.ULID).exists():
            end = int(time.time() // 60 * 60 * 1000)
            start = end - (number - 1) * 1000 * INTERVAL
            courses, fleet = Courses(start, number), Fleet(arguments.hosts)
            series = [(tuple(sorted(labels.items())), courses.of(labels)) for labels in fleet.series()]
            blocks.write(data, series, start, end)
        meta = blocks.meta(data)
        size = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
        numbers = meta["stats"]
        print(
            f"{arguments.hosts:,} hosts, {numbers['numSeries']:,} series, {numbers['numSamples'] / 1e6:,.0f} million"
            f" samples, {size / 2**30:.1f} GiB. Seconds:\n"
        )
        with running(data) as server:
            span = queries.Range.last(arguments.hours * 3600, meta["maxTime"] // 1000)
            columns = ("queries", "variables", "one after another", "CPU", "six at once", "slowest panel", "its time")
            table("dashboard", *columns)
            for dashboard in queries.dashboards():
                found = measure(server, dashboard, span)
                ranked = sorted(found.panels.items(), key=lambda one: -one[1])
                slowest, took = ranked[0]
                seconds = (found.variables, found.single, found.cpu, found.together)
                row(dashboard["uid"], found.number, *(f"{value:.2f}" for value in seconds), slowest, f"{took:.2f}")
                for name, took in ranked[1:5]:
                    print(f"  {took:.2f} s {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
