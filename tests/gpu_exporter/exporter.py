"""The exporter as it runs on a worker: the zipapp, in processes of its own, against simulated GPUs."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))
        self._series = {}
        for family in self.families:
            for sample in family.samples:
                self._series.setdefault(sample.name, []).append((sample.labels, sample.value))

    def values(self, name: str, **labels: str) -> list[float]:
        """Return the values of the series that have these labels."""
        return [value for _, value in self.series(name, **labels)]

    def series(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        """Return the series that have these labels."""
        found = self._series.get(name, [])
        return [(have, value) for have, value in found if labels.items() <= have.items()]

    def value(self, name: str, **labels: str) -> float | None:
        """Return the one value, None where there is no such series."""
        values = self.values(name, **labels)
        assert len(values) <= 1, self.series(name, **labels)
        return values[0] if values else None


class Exporter:
    """A running exporter."""

    def __init__(
        self,
        program: Path,
        directory: Path,
        config: dict,
        environment: dict[str, str],
        client: ssl.SSLContext | None = None,
    ) -> None:
        self.directory = directory
        self._client = client  # of TLS; without one, it is asked by HTTP
        self.port = free_port()
        config.setdefault("server", {}).update(address="127.0.0.1", port=self.port)
        path = directory / "config.toml"
        path.write_text(toml(config))
        self._log = directory / "log"
        self._command = [sys.executable, "-I", str(program), "--config", str(path)]
        self._environment = {**os.environ, **environment}
        self.start()

    def start(self) -> None:
        """Start it, and return once it listens."""
        with self._log.open("a") as log:
            self.process = subprocess.Popen(self._command, env=self._environment, stderr=log)
        self.wait(lambda _: True)

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        """What it wrote to the journal."""
        return self._log.read_text()

    def get(self, path: str, port: int | None = None) -> tuple[int, str]:
        """Return status and body of a page."""
        url = f"{'https' if self._client else 'http'}://127.0.0.1:{port or self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5, context=self._client) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self) -> Metrics:
        """Scrape."""
        return Metrics(self.get("/metrics")[1])

    def health(self) -> tuple[int, dict]:
        """Return status and content of /health."""
        status, body = self.get("/health")
        return status, json.loads(body)

    def wait(self, condition, seconds: float = 15) -> Metrics:
        """Scrape until a condition on the metrics holds, and return that scrape."""
        end = time.monotonic() + seconds
        while True:
            assert self.process.poll() is None, self.log
            try:
                metrics = self.metrics()
                if condition(metrics):
                    return metrics
            except (OSError, urllib.error.URLError):
                metrics = None
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s\n{self.log}\n{metrics and metrics.text}")
            time.sleep(0.1)

    def sampler(self) -> int:
        """Return the sampling process."""
        end = time.monotonic() + 10
        while time.monotonic() < end:  # between two of them there is none
            found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True)
            if found.stdout:
                (pid,) = found.stdout.split()
                return int(pid)
            time.sleep(0.05)
        raise AssertionError(f"nobody samples\n{self.log}")

    def kill_sampler(self) -> None:
        """End the sampling process as the kernel's memory killer would."""
        os.kill(self.sampler(), signal.SIGKILL)


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def toml(config: dict) -> str:
    """Return tables of plain values as TOML, which has JSON's words for these."""
    lines = []
    for table, keys in config.items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"
