"""A fleet to look at: wait until all that should be watched is up, then say what runs and where to look.

What should be watched is what the last run of the playbook wrote on the master. What is, Prometheus itself says.
"""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from . import grafana
from .lab import Lab
from .system import LabError, wait_until

PORT = 9090
# One line a job: {"job": "node_exporter", "groups": [...]}, the groups as Prometheus' file_sd takes them.
READ_TARGETS = """\
cd /etc/prometheus/targets && for file in *.json; do
  printf '{"job": "%s", "groups": %s}\\n' "${file%.json}" "$(tr -d '\\n' <"$file")"
done
"""


@dataclass(frozen=True)
class Target:
    """One service of one host, as Prometheus sees it."""

    host: str
    service: str
    address: str
    health: str
    error: str
    seconds: float

    @property
    def key(self) -> tuple[str, str]:
        """What a target is known by."""
        return self.host, self.service


def show(lab: Lab, master: str, patience: float) -> None:
    """Print the fleet once it is complete; where that takes too long, say what is not up and why."""
    expected = _expected(lab, master)
    prometheus = Prometheus(lab.host(master).address)
    if not wait_until(lambda: not list(_complaints(expected, prometheus)), patience):
        complaints = _complaints(expected, prometheus)
        raise LabError("\n  ".join([f"after {patience:.0f} seconds, not everything is up:", *complaints]))
    versions = prometheus.versions()
    targets = sorted(prometheus.targets(), key=lambda target: target.key)
    _print_table(
        ("HOST", "SERVICE", "VERSION", "TARGET", "SCRAPED IN", "ADDRESS"),
        ((t.host, t.service, versions.get(t.key, "?"), t.health, _milliseconds(t.seconds), t.address) for t in targets),
    )
    gpus = list(prometheus.gpus())
    if gpus:
        print("\nThe GPUs of these hosts are simulated: stand-ins for NVIDIA's libraries say what such cards would.")
        _print_table(("HOST", "GPU", "MODEL", "STATE", "VRAM", "HOTSPOT", "POWER", "HELD BY"), gpus)
    print(f"\nPrometheus: {prometheus.url}/targets")
    print(f"  from elsewhere: ssh -L {PORT}:{lab.host(master).address}:{PORT} <this machine>, then localhost:{PORT}")
    for line in _grafana(lab, master, versions.get((master, "grafana"))):
        print(line)
    print(f"A host:     python3 molecule/lab/lab.py ssh {lab.name} {targets[0].host}")
    print("The end:    make clean")


class Prometheus:
    """The Prometheus of a lab's master."""

    def __init__(self, address: str) -> None:
        self.url = f"http://{address}:{PORT}"

    def targets(self) -> list[Target]:
        """Return what it scrapes."""
        return [
            Target(
                target["labels"].get("instance", ""),
                target["labels"]["job"],
                urllib.parse.urlsplit(target["scrapeUrl"]).netloc,
                target["health"],
                target["lastError"] or "not scraped yet",
                target["lastScrapeDuration"],
            )
            for target in self._get("targets", state="active")["activeTargets"]
        ]

    def versions(self) -> dict[tuple[str, str], str]:
        """Return the version that each target says it is."""
        series = self._series('{__name__=~".+_build_info"}')
        labels = (one["metric"] for one in series)
        # A program tells its libraries' builds, too: its own bears the job's name.
        own = (one for one in labels if one["__name__"] == f"{one['job']}_build_info")
        return {(one["instance"], one["job"]): one.get("version", "?") for one in own}

    def gpus(self) -> Iterator[tuple[str, ...]]:
        """Return what is known of each GPU: host, index, model, state, temperatures, power and users."""
        units = {"DCGM_FI_DEV_VRAM_TEMP": "°C", "DCGM_FI_DEV_HOT_SPOT_TEMP": "°C", "gpu_power_watts": "W"}
        readings = {name: self._by_gpu(name) for name in units}
        users: dict[tuple[str, str], set[str]] = {}
        for one in self._series("ds01_gpu_allocated"):
            gpu = one["metric"]["gpu_slot"].partition(".")[0]
            users.setdefault((one["metric"]["instance"], gpu), set()).add(one["metric"]["user"])
        cards = [one["metric"] for one in self._series("gpu_state_info")]
        for labels in sorted(cards, key=lambda card: (card["instance"], card["pci_bus_id"])):
            key = (labels["instance"], labels.get("gpu", ""))
            cells = [f"{by[key]:.0f} {units[name]}" if key in by else "-" for name, by in readings.items()]
            held = ", ".join(sorted(users.get(key, ()))) or "-"
            yield (*key, labels.get("modelName", "?"), labels["state"], *cells, held)

    def _by_gpu(self, name: str) -> dict[tuple[str, str], float]:
        series = self._series(name)
        return {(one["metric"]["instance"], one["metric"].get("gpu", "")): float(one["value"][1]) for one in series}

    def _series(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return found

    def _get(self, what: str, **query: str) -> Any:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]


def _grafana(lab: Lab, master: str, version: str | None) -> Iterator[str]:
    """Yield where Grafana is, and whether it is Grafana."""
    if version is None:
        return
    if grafana.is_stand_in(version):
        yield "Grafana:    a STAND-IN, with nothing to look at, since Debian has none. With its archive for Linux in a"
        yield f"  file, `make clean` and then `{grafana.REAL}=/path/of/it make demo` runs the real one."
        return
    yield f"Grafana:    https://{lab.host(master).address}/ (the real one, {version})"
    yield "  its certificate is of a CA that browsers do not know; user admin, password:"
    yield f"  python3 molecule/lab/lab.py ssh {lab.name} {master} cat /etc/grafana/secrets/admin_password"


def _expected(lab: Lab, master: str) -> list[tuple[str, str]]:
    done = lab.ssh(master, READ_TARGETS)
    if done.returncode != 0:
        raise LabError(f"{master} has no targets yet: {done.stderr.strip()}")
    jobs = [json.loads(line) for line in done.stdout.splitlines()]
    return [(group["labels"]["instance"], job["job"]) for job in jobs for group in job["groups"]]


def _complaints(expected: Iterable[tuple[str, str]], prometheus: Prometheus) -> Iterator[str]:
    try:
        found = {target.key: target for target in prometheus.targets()}
    except OSError as error:
        yield f"{prometheus.url} does not answer: {error}"
        return
    for key in expected:
        if key not in found:
            yield f"{' '.join(key)}: Prometheus does not know this target"
        elif found[key].health != "up":
            yield f"{' '.join(key)}: {found[key].health}: {found[key].error}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _print_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    for line in _aligned([head, *rows]):
        print(line)


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip()
