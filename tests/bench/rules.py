#!/usr/bin/env python3
"""Measure what rules and alerts cost a real Prometheus, as the fleet grows.

One server on this machine answers for all workers, of 8 GPUs each, with what gpu_exporter's table and the role dcgm's
list of fields say: a third of the workers has DCGM since 4.9, a third DCGM before, a third gpu_exporter in its place.
Values change with every scrape.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from common import CHECKOUT, row, table

sys.path.insert(0, str(CHECKOUT / "files"))
sys.path.insert(0, str(CHECKOUT / "molecule/lab"))
sys.path.insert(0, str(CHECKOUT / "tests/rules"))

import names
from gpufleet.gpu_exporter import metrics
from gpufleet_lab import mirror

GPUS = 8
EVALUATION = 15
FLAVOURS = ("new", "old", "instead")

_UNCORRECTABLE = (
    *("Undefined", "DLP", "SDES", "TLP", "FCP", "CmpltTO", "CmpltAbrt", "UnxCmplt", "RxOF", "MalfTLP", "ECRC"),
    *("UnsupReq", "ACSViol", "UncorrIntErr", "BlockedTLP", "AtomicOpBlocked", "TLPBlockedErr", "PoisonTLPBlocked"),
)
_AER = {
    "correctable": ("RxErr", "BadTLP", "BadDLLP", "Rollover", "Timeout", "NonFatalErr", "CorrIntErr", "HeaderOF"),
    "nonfatal": _UNCORRECTABLE,
    "fatal": _UNCORRECTABLE,
}
# Values of the labels that a family has beside those that name the GPU.
_VALUES = {
    "source": ("nvml",),
    "limit": ("shutdown", "slowdown", "memory_max", "gpu_max"),
    "fan": ("0", "1"),
    "reason": tuple(f"reason{number}" for number in range(11)),
    "type": ("corrected", "uncorrected"),
    "period": ("volatile", "aggregate"),
    "cause": ("one", "two"),
    "state": ("ok", "lost", "passthrough", "driver_mismatch", "no_driver", "unresponsive", "unknown"),
    "xid": tuple(str(number) for number in range(1, 40)),
}
_CUT = {"gpu_mig_instance_info", "gpu_mig_memory_used_bytes", "gpu_mig_memory_bytes"}  # these GPUs are whole
# So that no alert fires: most errors never occur, and GPUs are in use.
_HEALTHY = {
    **dict.fromkeys(("gpu_xid_errors_total", "GPU_AER_TOTAL_ERRORS", "gpu_ecc_errors_total", "gpu_throttled"), "0"),
    **dict.fromkeys(("gpu_row_remap_pending", "gpu_row_remap_failure", "gpu_retired_pages_pending"), "0"),
    **dict.fromkeys(("DCGM_FI_DEV_CLOCKS_THROTTLE_REASON", "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS"), "0"),
    **dict.fromkeys(("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "DCGM_FI_DEV_XID_ERROR", "DCGM_FI_DEV_XID_ERRORS"), "0"),
    **dict.fromkeys(("DCGM_FI_DEV_ROW_REMAP_FAILED", "DCGM_FI_DEV_ROW_REMAP_FAILURE"), "0"),
    **dict.fromkeys(("DCGM_FI_DEV_ROW_REMAP_PENDING", "DCGM_FI_DEV_RETIRED_PENDING"), "0"),
    **dict.fromkeys(("DCGM_FI_DEV_PAGE_RETIRED_PENDING", "gpu_nvml_library_replaced"), "0"),
    **dict.fromkeys(("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL"), "0"),
    **dict.fromkeys(("gpu_nvml_up", "dc_exporter_gpu_available", "ds01_gpu_allocated"), "1"),
    **dict.fromkeys(("DCGM_FI_DEV_GPU_UTIL_RATIO", "DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO"), "0.6#"),
    **dict.fromkeys(("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FAN_SPEED"), "6#"),
    **dict.fromkeys(("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_DEV_FAN_SPEED_RATIO", "gpu_fan_speed_ratio"), "0.6#"),
    "dc_exporter_gpu_count": str(GPUS),
}
_SELDOM = {"gpu_xid_last_timestamp_seconds", "gpu_state_info"}


def gpu_labels(gpu: int) -> dict[str, str]:
    """Return the labels that all exporters agree on; @ becomes the worker's number."""
    bus = f"00000000:{gpu:02X}:00.0"
    labels = {"gpu": str(gpu), "UUID": f"GPU-@-{gpu}", "pci_bus_id": bus, "device": f"nvidia{gpu}"}
    return {**labels, "modelName": "NVIDIA H100 80GB HBM3"}


def line(name: str, labels: dict[str, str]) -> str:
    """Return a sample; # becomes a digit that changes."""
    pairs = ",".join(f'{key}="{value}"' for key, value in labels.items())
    value = str(int(labels["state"] == "ok")) if "state" in labels else _HEALTHY.get(name, "#")
    return f"{name}{{{pairs}}} {value}"


def dcgm_page(flavour: str) -> list[str]:
    """Return what is served on DCGM's port."""
    own = {family.name for family in metrics.FAMILIES.values() if metrics.is_dcgms(family.name)}
    labels = {
        "new": {"hostname": "gpu@.example", "DCGM_FI_SYSTEM_DRIVER_VERSION": "615.10"},
        "old": {"Hostname": "gpu@.example", "DCGM_FI_DRIVER_VERSION": "580.95"},
        "instead": {"hostname": "gpu@.example", "driver_version": "580.95"},
    }[flavour]
    fields = {
        "new": {since for _, since in names.dcgm_fields()},
        "old": {before for before, _ in names.dcgm_fields()},
        "instead": own,
    }[flavour]
    return [line(name, {**gpu_labels(gpu), **labels}) for name in sorted(fields) for gpu in range(GPUS)]


def gpu_exporter_page() -> list[str]:
    """Return what gpu_exporter serves of GPUs, PCIe, XID errors and allocations."""
    lines = []
    for family in metrics.FAMILIES.values():
        if metrics.is_dcgms(family.name) or family.name in _CUT | _SELDOM:
            continue
        if family.labels[: len(metrics.GPU)] == metrics.GPU:
            host = {"hostname": "gpu@.example", "driver_version": "580.95"}
            more = list(_series(family.name, family.labels[len(metrics.GPU) :]))
            lines += [
                line(family.name, {**gpu_labels(gpu), **host, **labels}) for gpu in range(GPUS) for labels in more
            ]
    for gpu in range(GPUS):
        uuid, slot = f"GPU-@-{gpu}", str(gpu)
        lines.append(line("ds01_gpu_slot_info", {"gpu": slot, "slot": slot, "UUID": uuid, "mig_enabled": "false"}))
        held = {"gpu_slot": slot, "container": f"c{gpu}", "user": f"u{gpu}", "interface": "api", "UUID": uuid}
        lines += [line(name, held) for name in ("ds01_gpu_allocated", "ds01_gpu_equivalents")]
        user = {"user": f"u{gpu}"}
        lines += [line(name, user) for name in ("ds01_user_gpus_allocated", "ds01_user_gpu_equivalents")]
    lines += [line(name, {}) for name in ("gpu_nvml_up", "gpu_nvml_library_replaced", "dc_exporter_gpu_count")]
    lines.append(line("ds01_allocation_source", {"source": "docker"}))
    lines.append(line("ds01_containers_total", {"status": "running", "interface": "api"}))
    return lines


def _series(name: str, labels: t.Sequence[str]) -> t.Iterator[dict[str, str]]:
    if name == "GPU_AER_TOTAL_ERRORS":
        yield from ({"severity": severity, "type": kind} for severity, kinds in _AER.items() for kind in kinds)
        return
    for values in itertools.product(*(_VALUES[label] for label in labels)):
        yield dict(zip(labels, values))


class Workers:
    """Answers for all exporters of the fleet: /FLAVOUR/NUMBER is DCGM's page of a worker, /own/NUMBER the other one."""

    def __init__(self) -> None:
        pages = {flavour: dcgm_page(flavour) for flavour in FLAVOURS}
        pages["own"] = gpu_exporter_page()
        self._pages = {kind: ("\n".join(lines) + "\n").encode() for kind, lines in pages.items()}
        self.port = 0
        self._started = threading.Event()
        self._served = 0

    def start(self) -> None:
        """Listen, in a thread of its own."""
        threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True).start()
        self._started.wait()

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=4096)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                _, kind, number = head.split(b" ", 2)[1].decode().split("/")
                self._served += 1
                body = self._pages[kind].replace(b"@", number.encode())
                body = body.replace(b"#", f"{1 + self._served % 7}".encode())
                size = f"Content-Length: {len(body)}\r\n\r\n".encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n" + size + body)
                await writer.drain()
        writer.close()


def configuration(workers: int, port: int, scrape: int, rules: Path) -> dict[str, t.Any]:
    """Return prometheus.yml, for jobs and labels as the role has them; write the rules into a directory."""
    hosts = {f"gpu{number}": {"gpus_expected": GPUS} for number in range(workers)}

    def target(number: int, kind: str) -> dict[str, t.Any]:
        labels = {"instance": f"gpu{number}", "site": f"s{number % 5}", "rack": f"r{number // 20}"}
        return {"targets": [f"127.0.0.1:{port}"], "labels": {**labels, "__metrics_path__": f"/{kind}/{number}"}}

    dcgm = [target(number, FLAVOURS[number % 3]) for number in range(workers)]
    own = [target(number, "own") for number in range(workers)]
    times = {"scrape_interval": f"{scrape}s", "scrape_timeout": "10s"}
    return {
        "global": {**times, "evaluation_interval": f"{EVALUATION}s"},
        "rule_files": [str(path) for path in names.deploy(rules, hosts={**hosts, "master1": {}})],
        "scrape_configs": [
            {"job_name": "dcgm_exporter", "static_configs": dcgm},
            {"job_name": "gpu_exporter", "static_configs": own},
        ],
    }


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self._url = url

    def own(self) -> dict[str, float]:
        """Return its own metrics, by name and labels as it writes them."""
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return {words[0]: float(words[1]) for text in lines if text[0] != "#" and (words := text.rsplit(" ", 1))}

    def slowest(self) -> list[tuple[float, str]]:
        """Return the rules that took longest: milliseconds and names."""
        with urllib.request.urlopen(f"{self._url}/api/v1/rules", timeout=60) as answer:
            groups = json.load(answer)["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return sorted(((1000 * rule["evaluationTime"], rule["name"]) for rule in rules), reverse=True)[:8]

    def number(self, query: str) -> float:
        """Return the one value that a query has, 0 for none."""
        words = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"{self._url}/api/v1/query?{words}", timeout=120) as answer:
            found = json.load(answer)["data"]["result"]
        return float(found[0]["value"][1]) if found else 0


@contextlib.contextmanager
def running(program: Path, settings: dict[str, t.Any], memory: str) -> t.Iterator[Prometheus]:
    """Run Prometheus for the length of a with block."""
    with tempfile.TemporaryDirectory() as temporary, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        Path(temporary, "prometheus.yml").write_text(json.dumps(settings))
        command = [program, f"--config.file={temporary}/prometheus.yml", f"--storage.tsdb.path={temporary}/data"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--query.timeout=2m", "--log.level=error"]
        process = subprocess.Popen(command, env={"GOMEMLIMIT": memory})
        try:
            for _ in range(600):
                with contextlib.suppress(urllib.error.URLError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5)
                    break
                time.sleep(0.1)
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            process.kill()
            process.wait()


class Result(t.NamedTuple):
    """What was measured of one fleet."""

    groups: dict[str, float]
    series: float
    recorded: float
    resident: float
    cpu: float
    missed: float
    scrape: int


def measure(program: Path, fake: Workers, workers: int, rounds: int, memory: str) -> Result:
    """Measure a fleet of one size."""
    scrape = 15 if workers <= 200 else 60
    with tempfile.TemporaryDirectory() as rules:
        settings = configuration(workers, fake.port, scrape, Path(rules))
        return watch(program, settings, workers, rounds, memory, scrape)


def watch(program: Path, settings: dict[str, t.Any], workers: int, rounds: int, memory: str, scrape: int) -> Result:
    """Run Prometheus until all workers are there, then watch some rounds of evaluation."""
    with running(program, settings, memory) as prometheus:
        for _ in range(60):
            time.sleep(5)
            if prometheus.number("count(up == 1)") == 2 * workers:
                break
        else:
            sys.exit("not all targets came up")
        time.sleep(3 * EVALUATION)
        start, before = time.monotonic(), prometheus.own()
        seen: dict[str, list[float]] = {}
        for _ in range(rounds):
            time.sleep(EVALUATION)
            for name, value in prometheus.own().items():
                group = re.fullmatch(r'prometheus_rule_group_last_duration_seconds\{rule_group=".*;(.+)"\}', name)
                if group:
                    seen.setdefault(group[1], []).append(value)
        passed, after = time.monotonic() - start, prometheus.own()
        failed = sum(value for name, value in after.items() if "rule_evaluation_failures_total{" in name)
        assert not failed, "a rule fails"
        recorded = prometheus.number('count({__name__=~"gpu:.+|ds01:.+|ds01_(gpu_(util|temp|mem)|mig_util).+"})')
        missed = sum(value for name, value in after.items() if "rule_group_iterations_missed_total{" in name)
        cpu = (after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]) / passed
        print(workers, *(f"{name} {took:.0f} ms" for took, name in prometheus.slowest()), sep="\n  ", file=sys.stderr)
        return Result(
            {group: statistics.median(values) for group, values in seen.items()},
            after["prometheus_tsdb_head_series"],
            recorded,
            after["process_resident_memory_bytes"] / (1 << 30),
            cpu,
            missed,
            scrape,
        )


def main() -> None:
    """Measure each size of fleet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workers", type=int, nargs="*", default=[100, 300, 1000], help="sizes of the fleet")
    parser.add_argument("--rounds", type=int, default=5, help="evaluations that are watched")
    parser.add_argument("--memory", default="6GiB", help="what Prometheus is to keep its memory below (GOMEMLIMIT)")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    version = mirror.versions(mirror.path())["prometheus"]["current"]
    (archive,) = mirror.path().rglob(f"prometheus-{version}.*.tar.gz")
    fake = Workers()
    fake.start()
    results: dict[int, Result] = {}
    with tempfile.TemporaryDirectory() as temporary:
        shutil.unpack_archive(archive, temporary)
        program = next(Path(temporary).glob("*/prometheus"))
        for workers in arguments.workers:
            results[workers] = measure(program, fake, workers, arguments.rounds, arguments.memory)
    table("", *(f"{workers:,} workers" for workers in results))
    row("scrape interval, s", *(result.scrape for result in results.values()))
    row("series in memory", *(f"{result.series:,.0f}" for result in results.values()))
    row("of them recorded by rules", *(f"{result.recorded:,.0f}" for result in results.values()))
    for group in next(iter(results.values())).groups:
        row(f"group `{group}`, ms", *(f"{1000 * result.groups[group]:,.0f}" for result in results.values()))
    row("all groups, ms", *(f"{1000 * sum(result.groups.values()):,.0f}" for result in results.values()))
    row("evaluations missed", *(f"{result.missed:.0f}" for result in results.values()))
    row("CPU of Prometheus, cores", *(f"{result.cpu:.2f}" for result in results.values()))
    row("resident memory, GiB", *(f"{result.resident:.1f}" for result in results.values()))


if __name__ == "__main__":
    main()
