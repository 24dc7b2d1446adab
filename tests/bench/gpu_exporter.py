#!/usr/bin/env python3
"""Measure the GPU exporter against simulated GPUs: 8 of them, 64 containers, all collectors. Prints Markdown.

Beside it runs nvitop-exporter, from PyPI, against the same simulated library, with the same interval.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import CHECKOUT, row, table

sys.path[:0] = [str(CHECKOUT / path) for path in (".collections", "molecule/lab", "tests/unit/gpu_exporter")]

from ansible_collections.gpufleet.monitoring.plugins.plugin_utils import zipapp  # noqa: E402
from docker_daemon import Daemon, request  # noqa: E402
from gpufleet_lab import machines, mirror  # noqa: E402
from gpufleet_lab.gpu import Machine  # noqa: E402

NVITOP = "nvitop-exporter==1.7.2"
INTERVAL = 5
SCRAPES, PARALLEL = 1000, 50
CONTAINERS = 64

CONFIG = """\
[server]
address = "127.0.0.1"
port = {port}
[paths]
sysfs = "{directory}/sys"
[gpu]
nvapi = true
bar0 = true
[dcgm]
enabled = true
[pcie]
interval = 5
[allocations]
interval = 5
docker_socket = "{socket}"
[events]
interval = 5
path = "{directory}/events.jsonl"
state_directory = "{directory}"
"""


class Figures(t.NamedTuple):
    """What an exporter cost."""

    start: float
    """Seconds from start to the first good sample."""
    p50: float
    p99: float
    """Milliseconds a scrape, one after the other."""
    parallel_p99: float
    """Milliseconds a scrape, PARALLEL at once."""
    errors: int
    rss: float
    """MiB, all processes."""
    cpu: float
    """Milliseconds a sample, all processes."""
    series: int


class Program:
    """A running exporter and its processes."""

    def __init__(self, command: list[str], port: int, environment: dict[str, str], sign: bytes) -> None:
        self.port = port
        self.began = time.monotonic()
        self.process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
        while sign not in self._try():
            if self.process.poll() is not None or time.monotonic() - self.began > 60:
                sys.exit(f"{command} does not answer with {sign!r}")
            time.sleep(0.01)
        self.start = time.monotonic() - self.began

    def _try(self) -> bytes:
        try:
            return self.scrape()[1]
        except OSError:
            return b""

    def scrape(self) -> tuple[float, bytes]:
        """Return milliseconds and body of one scrape, over a connection of its own."""
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise OSError(f"HTTP status {answer.status}")
        finally:
            connection.close()
        return 1000 * (time.perf_counter() - began), body

    def pids(self) -> list[int]:
        """Return the program's processes."""
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout
        return [self.process.pid, *map(int, children.split())]

    def rss(self) -> float:
        """Return MiB of all processes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids())
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def cpu(self) -> float:
        """Return milliseconds of all processes so far."""
        ticks = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return 1000 * ticks / os.sysconf("SC_CLK_TCK")

    def measure(self, seconds: int) -> Figures:
        """Let it run, scraped once an interval; then scrape it hard."""
        before, began = self.cpu(), time.monotonic()
        while time.monotonic() - began < seconds:
            time.sleep(INTERVAL)
            self.scrape()
        cpu = (self.cpu() - before) / (seconds / INTERVAL)
        rss = self.rss()
        one_by_one = sorted(self.scrape()[0] for _ in range(SCRAPES))
        together, errors = self._storm()
        body = self.scrape()[1]
        series = sum(not line.startswith(b"#") for line in body.splitlines())
        return Figures(
            self.start,
            statistics.median(one_by_one),
            one_by_one[int(0.99 * len(one_by_one))],
            together[int(0.99 * len(together))],
            errors,
            rss,
            cpu,
            series,
        )

    def _storm(self) -> tuple[list[float], int]:
        barrier, errors = threading.Barrier(PARALLEL), 0

        def one(_: int) -> float | None:
            barrier.wait()
            try:
                return self.scrape()[0]
            except OSError:
                return None

        with ThreadPoolExecutor(PARALLEL) as pool:
            results = list(pool.map(one, range(4 * PARALLEL)))
        errors = results.count(None)
        return sorted(result for result in results if result is not None) or [0.0], errors

    def end(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def ours(directory: Path, environment: dict[str, str], seconds: int, config: str) -> tuple[Figures, Path]:
    """Measure the zipapp."""
    built = zipapp.build("gpu_exporter", f"file://{mirror.path()}")
    (directory / "config.toml").write_text(config)
    command = ["/usr/bin/python3", "-I", str(built.path), "--config", str(directory / "config.toml")]
    program = Program(command, 19500, environment, b'gpu_exporter_collector_up{collector="gpu"} 1.0')
    try:
        return program.measure(seconds), built.path
    finally:
        program.end()


def nvitop(directory: Path, environment: dict[str, str], seconds: int) -> Figures:
    """Measure nvitop-exporter, in a virtual environment of its own."""
    venv = directory / "venv"
    subprocess.run(["/usr/bin/python3", "-m", "venv", str(venv)], check=True)
    subprocess.run([venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check", NVITOP], check=True)
    command = [str(venv / "bin/nvitop-exporter"), "--port", "19501", "--interval", str(INTERVAL)]
    program = Program(command, 19501, environment, b"gpu_utilization")
    try:
        return program.measure(seconds)
    finally:
        program.end()


def main() -> None:
    """Measure both, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long each exporter runs before it is scraped hard")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        machine = machines.MACHINES["bench"]()
        for number in range(len(machine.gpus)):
            machine.add_process(number, os.getpid())
        machine.write(directory)
        environment = {"LD_LIBRARY_PATH": str(machines.libraries()), "SIMULATED_GPU": str(directory / "scenario")}
        config = CONFIG.format(port=19500, directory=directory, socket=containers(directory, machine).path)
        everything, program = ours(directory, environment, seconds, config)
        gpus_only = "".join(f"[{name}]\nenabled = false\n" for name in ("pcie", "allocations", "events", "system"))
        plain = config.split("[pcie]")[0] + gpus_only
        bare, _ = ours(directory, environment, seconds, plain)
        other = nvitop(directory, environment, seconds)
    columns = {"all collectors": everything, "GPUs only": bare, "nvitop-exporter": other}
    table("", *columns)
    for name, unit in (
        ("start", "start to the first good sample, s"),
        ("series", "series"),
        ("p50", "scrape, median, ms"),
        ("p99", "scrape, p99, ms"),
        ("parallel_p99", f"{PARALLEL} scrapes at once, p99, ms"),
        ("errors", f"errors in {4 * PARALLEL} of these"),
        ("rss", "RSS of all processes, MiB"),
        ("cpu", "CPU a sample, ms"),
    ):
        row(unit, *(getattr(figures, name) for figures in columns.values()))
    row(f"CPU at {INTERVAL} s, % of a core", *(figures.cpu / INTERVAL / 10 for figures in columns.values()))
    print(f"\nThe zipapp has {program.stat().st_size / 2**20:.2f} MiB.")


def containers(directory: Path, machine: Machine) -> Daemon:
    """Return a Docker daemon whose containers hold the machine's GPUs in turn."""
    daemon = Daemon(directory / "docker.sock")
    for number in range(CONTAINERS):
        gpu = machine.gpus[number % len(machine.gpus)]
        labels = {"ds01.user": f"user{number % 20}", "ds01.interface": "api"}
        daemon.add(f"job-{number}", labels=labels, requests=[request([gpu.uuid], driver="nvidia")])
    return daemon


if __name__ == "__main__":
    main()
