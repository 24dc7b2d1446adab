"""Load, CPU and memory of the host, in the names of dc-exporter. node_exporter is the real thing."""

from __future__ import annotations

import typing as t

from .. import metrics
from ..collector import Readings, State

if t.TYPE_CHECKING:
    from ..context import Context


class SystemCollector:
    """Reads /proc."""

    name = "system"

    def __init__(self, context: Context) -> None:
        self._proc = context.config.paths.proc
        self._cpu_before: tuple[int, int] | None = None

    def collect(self, out: Readings) -> None:
        """Read once; each file on its own."""
        for subject, read in (("load", self._load), ("cpu", self._cpu), ("memory", self._memory)):
            try:
                read(out)
            except (OSError, ValueError, KeyError, IndexError) as error:
                out.failed(subject, error)

    def state(self) -> State:
        """Nothing: the first reading after a restart has no CPU usage."""
        return None

    def restore(self, state: State) -> None:
        """Nothing."""

    def _load(self, out: Readings) -> None:
        values = self._read("loadavg").split()
        for period, value in zip(("1m", "5m", "15m"), values):
            out.add(metrics.LOAD, float(value), period)

    def _cpu(self, out: Readings) -> None:
        now = busy_and_total(self._read("stat"))
        before, self._cpu_before = self._cpu_before, now
        if before and now[1] > before[1]:
            out.add(metrics.CPU_USAGE, 100 * (now[0] - before[0]) / (now[1] - before[1]))

    def _memory(self, out: Readings) -> None:
        lines = (line.split() for line in self._read("meminfo").splitlines())
        kib = {words[0].rstrip(":"): int(words[1]) for words in lines}
        out.add(metrics.MEMORY_USED, (kib["MemTotal"] - kib["MemAvailable"]) * 1024)

    def _read(self, name: str) -> str:
        with open(f"{self._proc}/{name}", encoding="ascii") as file:
            return file.read()


def busy_and_total(stat: str) -> tuple[int, int]:
    """Return the ticks in use and all ticks of /proc/stat, see proc(5). Raises ValueError, IndexError."""
    # user nice system idle iowait irq softirq steal; guest time is counted in user already
    ticks = [int(word) for word in stat.split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)
