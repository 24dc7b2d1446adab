"""The serving process's side of sampling: it starts the sampler, replaces it when it blocks, and keeps what it read."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
import typing as t

from . import exposition, metrics, protocol
from .collector import LANES

if t.TYPE_CHECKING:
    from .config import Config

_LONGEST_RETRY = 600.0
_STUCK_LIMIT = 3
"""Samplers that the driver may hold in the kernel before it is left alone until one of them goes."""
_FOREVER = 1e9
_FAILURES_LOGGED = 5
"""Parts that one line of the log names."""
_SHORT_LIFE = 10.0
"""Seconds that a sampler has to live for its end not to count as one of a series."""


@dataclasses.dataclass
class Reading:
    """The last words of one collector."""

    texts: t.Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    """Family to its lines."""
    taken: float = 0.0
    """By the monotonic clock; 0 for never."""
    taken_at: float = 0.0
    """In Unix time."""
    seconds: float = 0.0
    error: str | None = None
    failing: frozenset[str] = frozenset()
    """Parts that failed in the last reading."""
    failures: int = 0
    partial_failures: int = 0
    dropped: int = 0


class Readings:
    """All collectors' last words. One lock, held for moments only, since a scrape must not wait."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._by_collector: dict[str, Reading] = {}
        self._lock = threading.Lock()

    def put(self, report: protocol.Report) -> str | None:
        """Keep a finished reading. Returns a line for the log when what failed is another than before."""
        with self._lock:
            before = self._by_collector.setdefault(report.collector, Reading())
        after = dataclasses.replace(
            before, seconds=report.seconds, error=report.error, failing=frozenset(report.failures)
        )
        after.partial_failures += len(report.failures)
        if report.error is None:
            after.dropped = report.dropped
            after.taken, after.taken_at = time.monotonic(), time.time()
            after.texts = {
                name: before.texts[name] if rows is None else exposition.render({name: rows})
                for name, rows in (report.families or {}).items()
            }
        else:
            after.failures += 1
        with self._lock:
            self._by_collector[report.collector] = after
        return _change(report.collector, before, after)

    def fail(self, collector: str, error: str) -> str | None:
        """Note that a reading was given up."""
        return self.put(protocol.Report(collector, begins=False, error=error))

    def fresh(self, dcgms: bool) -> t.Iterator[bytes]:
        """Yield what may be served now: DCGM's families, or all others."""
        for name, reading in self.all().items():
            if self.is_fresh(name, reading):
                yield from (text for family, text in reading.texts.items() if metrics.is_dcgms(family) == dcgms)

    def is_fresh(self, collector: str, reading: Reading) -> bool:
        """Whether there is a good reading that is not too old."""
        return reading.taken > 0 and time.monotonic() - reading.taken <= self._config.section(collector).allowed_age

    def all(self) -> dict[str, Reading]:
        """Return each collector's last words."""
        with self._lock:
            return dict(self._by_collector)


def _change(collector: str, before: Reading, after: Reading) -> str | None:
    if after.error != before.error:
        return f"collector {collector}: {after.error or 'works again'}"
    fresh = sorted(after.failing - before.failing)[:_FAILURES_LOGGED]
    return f"collector {collector}: {'; '.join(fresh)}" if fresh else None


class _Sampler:
    """One sampling process."""

    def __init__(self, order: protocol.Order) -> None:
        descriptor = protocol.Board.create()
        self.process = subprocess.Popen(
            sampler_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(descriptor,)
        )
        self.board = protocol.Board(descriptor)
        os.close(descriptor)
        order = order._replace(board=descriptor)
        assert self.process.stdin is not None
        self.started = time.monotonic()
        self.running: dict[str, float] = {}
        """Collector to the moment when its reading began."""
        self.without_nvml = "nvml" in order.suspended
        self.finished: dict[str, float] = {}
        """Collector to the moment when its last reading ended."""
        self.ended = threading.Event()
        try:
            self.process.stdin.write(protocol.encode(order))
            self.process.stdin.flush()
        except OSError:
            pass  # it has ended, which the reader will see

    def kill(self) -> bool:
        """End the process; return whether it went. One that the driver holds in the kernel does not."""
        self.process.kill()
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return False
        return True


def sampler_command() -> list[str]:
    """The same program, from the zipapp or from its sources."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = f"import sys; sys.path.insert(0, {root!r}); from gpufleet.gpu_exporter.sampler import main; main()"
    return [sys.executable, "-I", "-c", code]


class Supervisor:
    """Keeps one sampler going."""

    def __init__(self, config_path: str, config: Config) -> None:
        self.readings = Readings(config)
        self.restarts = {"deadline": 0, "exited": 0, "driver_replaced": 0}
        self._config = config
        self._config_path = config_path
        self._states: dict[str, t.Any] = {}
        self._blocked: dict[str, int] = {}
        """Collector, or GPU, to the number of times that it blocked since it last answered."""
        self._quarantine: dict[str, float] = {}
        """GPU (bus id) to the moment until which it is left alone: it blocked whoever asked it."""
        self._answered: set[str] = set()
        """Collectors that have ever finished: their drivers are awake."""
        self._not_before: dict[str, float] = {}
        """Lane to the moment until which it is left alone."""
        self._reason = ""
        self._stuck: list[_Sampler] = []
        self._short_lives = 0
        self._sampler: _Sampler | None = None

    def run(self) -> t.NoReturn:
        """Work for ever."""
        while True:
            self._sampler = self._start()
            reason = self._watch(self._sampler)
            self.restarts[reason] += 1
            if reason != "deadline":
                time.sleep(self._pause(self._sampler))

    @property
    def sampler_pid(self) -> int | None:
        """Return the process that samples now."""
        return self._sampler.process.pid if self._sampler else None

    @property
    def stuck(self) -> int:
        """Return how many killed samplers do not go."""
        return sum(sampler.process.poll() is None for sampler in self._stuck)

    def _start(self) -> _Sampler:
        now = time.monotonic()
        suspended = {lane: moment - now for lane, moment in self._not_before.items() if moment > now}
        if self.stuck >= _STUCK_LIMIT:
            suspended["nvml"] = _FOREVER
        quarantine = {bus_id: moment - now for bus_id, moment in self._quarantine.items() if moment > now}
        order = protocol.Order(self._config_path, self._states, suspended, self._reason, quarantine=quarantine)
        sampler = _Sampler(order)
        threading.Thread(target=self._read, args=(sampler,), daemon=True).start()
        return sampler

    def _read(self, sampler: _Sampler) -> None:
        """Take reports until the sampler's end."""
        assert sampler.process.stdout is not None
        with sampler.process.stdout as reports:
            for line in reports:
                try:
                    self._take(sampler, protocol.decode_report(line))
                except (ValueError, TypeError) as error:
                    log(f"sampler: {error}")
                    break
        sampler.ended.set()

    def _take(self, sampler: _Sampler, report: protocol.Report) -> None:
        if report.begins:
            sampler.running[report.collector] = time.monotonic()
            return
        sampler.finished[report.collector] = time.monotonic()
        sampler.running.pop(report.collector, None)
        if report.collector == "gpu":
            self._trust()
        self._answered.add(report.collector)
        self._blocked.pop(report.collector, None)
        if report.state is not None:
            self._states[report.collector] = report.state
        log(self.readings.put(report))

    def _trust(self) -> None:
        """Who asks every GPU the most has finished: those that were asked again have answered."""
        now = time.monotonic()
        for bus_id in [bus_id for bus_id, moment in self._quarantine.items() if moment <= now]:
            del self._quarantine[bus_id]
            self._blocked.pop(bus_id, None)

    def _watch(self, sampler: _Sampler) -> str:
        """Wait until the sampler ends or has to. Returns the reason."""
        while not sampler.ended.wait(self._shortest_deadline() / 10):
            late = self._late(sampler)
            if late is not None:
                self._give_up(sampler, late)
                return "deadline"
            if sampler.without_nvml and self._stuck and self.stuck < _STUCK_LIMIT:
                self._stuck = [before for before in self._stuck if before.process.poll() is None]
                sampler.kill()  # one that was held has gone: the driver may be asked again
                return "deadline"
        code = sampler.process.wait()
        if code == protocol.EXIT_DRIVER_REPLACED:
            log("sampler: the driver's library was replaced, starting anew")
            return "driver_replaced"
        log(f"sampler: ended with {code}")
        return "exited"

    def _shortest_deadline(self) -> float:
        return min(self._deadline(name, True) for name in LANES)

    def _deadline(self, collector: str, warm: bool) -> float:
        return self._config.section(collector).deadline if warm else self._config.server.start_deadline

    def _late(self, sampler: _Sampler) -> str | None:
        """Return a collector that is overdue: with a reading, or with beginning one though its lane is free."""
        now = time.monotonic()
        running = dict(sampler.running)
        for collector, began in running.items():
            if now - began > self._deadline(collector, collector in self._answered):
                return collector
        busy = {LANES[collector] for collector in running}
        for collector, ended in dict(sampler.finished).items():
            section = self._config.section(collector)
            if LANES[collector] not in busy and now - ended > section.interval + section.deadline:
                return collector
        return None

    def _give_up(self, sampler: _Sampler, collector: str) -> None:
        """Kill a sampler that is blocked, and leave what blocked it alone for a while: one GPU, or a whole lane."""
        waited = self._deadline(collector, collector in self._answered)
        self._reason = f"no answer within {waited:g} s"
        subject = sampler.board.read() if LANES[collector] == "nvml" else ""
        culprit = subject or collector
        self._blocked[culprit] = self._blocked.get(culprit, 0) + 1
        pause = min(self._config.server.retry_after * 2 ** (self._blocked[culprit] - 1), _LONGEST_RETRY)
        if subject:
            self._quarantine[subject] = time.monotonic() + pause
        else:
            self._not_before[LANES[collector]] = time.monotonic() + pause
        where = f"GPU {subject}: " if subject else ""
        log(self.readings.fail(collector, f"{where}{self._reason}; next try in {pause:g} s"))
        if not sampler.kill():
            log(f"sampler: {sampler.process.pid} does not end, the driver holds it in the kernel")
            self._stuck = [*(before for before in self._stuck if before.process.poll() is None), sampler]

    def _pause(self, sampler: _Sampler) -> float:
        """Return how long to wait before the next start: samplers that end at once must not spin."""
        if time.monotonic() - sampler.started > _SHORT_LIFE:
            self._short_lives = 0
            return 0.0
        self._short_lives += 1
        return min(0.5 * 2.0 ** (self._short_lives - 1), 30.0)


def log(line: str | None) -> None:
    """Write a line to the journal."""
    if line:
        print(line.replace("\n", " "), file=sys.stderr, flush=True)


def own_families(supervisor: Supervisor) -> exposition.Rows:
    """Return the metrics about the exporter itself."""
    rows: dict[str, list[list[t.Any]]] = {}

    def add(family: metrics.Family, value: float | None, *labels: str) -> None:
        if value is not None:
            rows.setdefault(family.name, []).append([value, *labels])

    now = time.monotonic()
    readings = supervisor.readings.all()
    for name, reading in readings.items():
        good = supervisor.readings.is_fresh(name, reading) and reading.error is None
        add(metrics.COLLECTOR_UP, int(good), name)
        add(metrics.COLLECTOR_LAST, reading.taken_at or None, name)
        add(metrics.COLLECTOR_AGE, now - reading.taken if reading.taken else None, name)
        add(metrics.COLLECTOR_DURATION, reading.seconds, name)
        add(metrics.COLLECTOR_FAILURES, reading.failures, name)
        add(metrics.PARTIAL_FAILURES, reading.partial_failures, name)
        add(metrics.SERIES_DROPPED, reading.dropped, name)
    for reason, count in supervisor.restarts.items():
        add(metrics.WORKER_RESTARTS, count, reason)
    add(metrics.WORKERS_STUCK, supervisor.stuck)
    _add_processes(add, supervisor.sampler_pid)
    return rows


def _add_processes(add: t.Callable[..., None], sampler: int | None) -> None:
    for name, pid in (("server", os.getpid()), ("sampler", sampler)):
        cpu, rss = _usage(pid)
        if name == "sampler" and cpu is not None:  # the counter goes on over restarts
            ended = os.times()
            cpu += ended.children_user + ended.children_system
        add(metrics.PROCESS_CPU, cpu, name)
        add(metrics.PROCESS_RSS, rss, name)


def _usage(pid: int | None) -> tuple[float | None, float | None]:
    """Return CPU seconds and resident bytes of a process, see proc(5); None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            ticks = file.read().rpartition(")")[2].split()
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None, None
    seconds = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    return seconds, pages * os.sysconf("SC_PAGE_SIZE")
