"""The count of 24 hours is exact whatever happens to the log, and where it cannot be, there is none."""

from __future__ import annotations

import datetime
import json
import os
import resource
import shutil
import time
from types import SimpleNamespace

import pytest
from gpufleet.gpu_exporter import config
from gpufleet.gpu_exporter.collector import CollectorError, Readings
from gpufleet.gpu_exporter.collectors.events import EventsCollector
from gpufleet.gpu_exporter.context import Context
from gpufleet.gpu_exporter.events import line, log, window
from gpufleet.gpu_exporter.inventory import Store
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = 1_795_000_000
DAY = 86400


def stamp(second):
    return datetime.datetime.fromtimestamp(second, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def event(second=NOW - 60, kind="gpu.allocate", **more):
    words = {"timestamp": stamp(second), "event_type": kind, "schema_version": "1", "user": "alice", **more}
    return json.dumps(words).encode() + b"\n"


class Clock:
    """A clock that only the test moves."""

    def __init__(self, monkeypatch):
        self.wall, self.steady = float(NOW), 1000.0
        monkeypatch.setattr(time, "time", lambda: self.wall)
        monkeypatch.setattr(time, "monotonic", lambda: self.steady)

    def advance(self, seconds):
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


class Reader:
    """The collector and its log."""

    def __init__(self, directory, **section):
        self.path = directory / "events.jsonl"
        self._section = config.EventsSection(path=str(self.path), state_directory=str(directory / "absent"), **section)
        self.collector = None
        self.start()

    def start(self, state=None):
        """A new sampling process, with what the one before has left."""
        if self.collector is not None:
            self.collector._log.restart()  # the old process's files are closed with it
        self.collector = EventsCollector(Context(config.Config(events=self._section), Store("host")))
        if state is not None:
            self.collector.restore(json.loads(json.dumps(state)))

    def append(self, *lines):
        with self.path.open("ab") as file:
            file.write(b"".join(lines))

    def collect(self):
        out = Readings()
        self.collector.collect(out)
        return SimpleNamespace(
            counts={kind: value for value, kind in out.families.get("ds01_events_24h_total", [])},
            bad=out.families.get("ds01_events_bad_lines_total", [[None]])[0][0],
            failures=out.failures,
            dropped=out.dropped,
            families=out.families,
        )


@pytest.fixture
def reader(tmp_path, clock):
    os.utime(tmp_path, (NOW, NOW))
    return Reader(tmp_path)


def touch(path, second=NOW):
    os.utime(path, (second, second))


def test_each_type_has_its_count(reader):
    reader.append(event(), event(), event(kind="container.start"))
    found = reader.collect()
    assert found.counts == {"gpu.allocate": 2, "container.start": 1}
    assert found.bad == 0
    assert not found.failures


def test_only_new_lines_are_read(reader):
    for number in range(1, 5):
        reader.append(event())
        assert reader.collect().counts == {"gpu.allocate": number}


def test_the_window_slides_to_the_second(reader, clock):
    reader.append(event(NOW - DAY), event(NOW - DAY + 1), event(NOW - DAY + 2), event(NOW))
    assert reader.collect().counts == {"gpu.allocate": 3}
    clock.advance(1)
    assert reader.collect().counts == {"gpu.allocate": 2}
    clock.advance(1)
    assert reader.collect().counts == {"gpu.allocate": 1}
    clock.advance(DAY)
    assert reader.collect().counts == {"gpu.allocate": 0}  # none, which is not the same as nobody knows


def test_no_log_is_no_failure_and_no_series(reader):
    found = reader.collect()
    assert found.families == {}
    assert not found.failures
    reader.append(event())
    assert reader.collect().counts == {"gpu.allocate": 1}


def test_an_unreadable_log_is_a_failure_and_no_count(reader):
    reader.path.mkdir()
    found = reader.collect()
    assert "ds01_events_24h_total" not in found.families
    assert "no regular file" in found.failures[0]


def test_a_pipe_in_the_logs_place_holds_nobody_up(reader):
    os.mkfifo(reader.path)
    assert "no regular file" in reader.collect().failures[0]


def test_a_half_written_line_is_read_when_it_is_whole(reader):
    whole = event()
    reader.append(whole[:30])
    assert reader.collect().counts == {}
    reader.append(whole[30:], event()[:10])
    found = reader.collect()
    assert found.counts == {"gpu.allocate": 1}
    assert found.bad == 0


@pytest.mark.parametrize(
    "words",
    [
        b"garbage\n",
        os.urandom(500).replace(b"\n", b"x") + b"\n",
        b"\x00" * 100 + b"\n",
        b"[]\n",
        b"{}\n",
        b"null\n",
        b"[" * 3000 + b"\n",
        b'{"timestamp": "2026-11-18T08:53:20Z"}\n',
        b'{"event_type": "x", "timestamp": "yesterday"}\n',
        b'{"event_type": "x", "timestamp": 1795000000}\n',
        b'{"event_type": "", "timestamp": "2026-11-18T08:53:20Z"}\n',
        b'{"event_type": ["x"], "timestamp": "2026-11-18T08:53:20Z"}\n',
        event(kind="x" * 101),
        event(details="x" * 4000),
        event(NOW + 2 * DAY),
        event()[:-20] + b"\n",
    ],
)
def test_a_bad_line_is_counted_and_hides_no_other(reader, words):
    reader.append(event(), words, event())
    found = reader.collect()
    assert found.bad == 1
    assert found.counts == {"gpu.allocate": 2}
    assert reader.collect().bad == 1


def test_empty_lines_are_nothing(reader):
    reader.append(b"\n", b"  \r\n", event())
    assert reader.collect().bad == 0


@pytest.mark.parametrize("size", [3999, 4000, 4001, 5000, 300_000, 1_000_000])
def test_a_line_that_never_ends_is_one_bad_line_and_no_memory(reader, size):
    reader.append(b"x" * size)
    first = reader.collect()
    assert first.bad == (0 if size <= line.LONGEST else 1)
    reader.append(b"y\n", event())
    found = reader.collect()
    assert found.bad == 1
    assert found.counts == {"gpu.allocate": 1}


def test_bad_lines_are_counted_once_over_all_processes(reader):
    reader.append(b"bad\n", event(), b"bad\n")
    assert reader.collect().bad == 2
    state = reader.collector.state()
    reader.append(b"bad\n")
    reader.start(state)
    found = reader.collect()
    assert found.bad == 3
    assert found.counts == {"gpu.allocate": 1}


def test_rotation_loses_nothing(reader, clock):
    reader.append(event())
    reader.collect()
    reader.append(event(), event()[:-1])
    reader.path.rename(f"{reader.path}.1")
    reader.append(event())
    with reader.path.with_name("events.jsonl.1").open("ab") as late:  # who had it open writes on
        assert reader.collect().counts == {"gpu.allocate": 3}
        late.write(b"\n" + event())
    assert reader.collect().counts == {"gpu.allocate": 5}


def test_a_last_line_without_its_end_counts_when_its_file_is_done(reader, clock):
    reader.append(event(), event()[:-1])
    reader.collect()
    reader.path.rename(f"{reader.path}.1")
    reader.append(event())
    reader.collect()
    clock.advance(61)
    assert reader.collect().counts == {"gpu.allocate": 3}
    assert len(reader.collector._log._files) == 1  # and it is closed
    assert reader.collect().counts == {"gpu.allocate": 3}


def test_what_was_rotated_before_the_start_is_in_the_window(reader):
    for name, seconds in ((".2", NOW - 3 * DAY), (".1", NOW - 5 * 3600), ("-20261117", NOW - 10 * 3600)):
        path = reader.path.with_name(f"events.jsonl{name}")
        path.write_bytes(event(seconds) + event(seconds - 1))
        touch(path, seconds)
    reader.path.with_name("events.jsonl.bak").write_bytes(event())
    reader.append(event())
    assert reader.collect().counts == {"gpu.allocate": 5}


def test_a_compressed_part_of_the_window_is_said_to_be_missing(reader, clock):
    path = reader.path.with_name("events.jsonl.1.gz")
    path.write_bytes(b"\x1f\x8b")
    touch(path, NOW - 3600)
    reader.append(event())
    assert "compressed" in reader.collect().failures[0]
    clock.advance(DAY)
    assert not reader.collect().failures


def test_a_log_that_goes_away_leaves_its_events(reader, clock):
    reader.append(event())
    reader.collect()
    reader.path.unlink()
    assert reader.collect().counts == {"gpu.allocate": 1}
    clock.advance(61)
    reader.collect()
    assert reader.collector._log._files == []  # a deleted file that is open takes space
    assert reader.collect().counts == {"gpu.allocate": 1}


def test_truncation_begins_anew_and_forgets_nothing(reader):
    reader.append(event(), event())
    reader.collect()
    reader.path.write_bytes(event())
    assert reader.collect().counts == {"gpu.allocate": 3}


def test_copytruncate_loses_nothing(reader):
    reader.append(event(), b"bad\n")
    reader.collect()
    reader.append(event(), b"bad\n", event())
    shutil.copy(reader.path, f"{reader.path}.1")
    touch(f"{reader.path}.1")
    # It has grown beyond the old place already, so that its size does not tell.
    reader.path.write_bytes(event(kind="a.longer.event.type.than.before") * 9)
    found = reader.collect()
    assert found.counts == {"gpu.allocate": 3, "a.longer.event.type.than.before": 9}
    assert found.bad == 2
    state = reader.collector.state()
    reader.start(state)
    again = reader.collect()
    assert (again.counts, again.bad) == (found.counts, 2)


def test_an_edited_log_is_not_counted_twice(reader):
    reader.append(*[event(NOW - 3600 + number) for number in range(100)])
    reader.collect()
    kept = reader.path.read_bytes().split(b"\n")[::2]
    new = reader.path.with_name("new")
    new.write_bytes(b"\n".join(kept) + b"\n")
    new.rename(reader.path)
    assert reader.collect().counts == {"gpu.allocate": 50}


def test_events_of_the_future_count_when_their_time_has_come(reader, clock):
    reader.append(event(NOW + 100), event(NOW))
    assert reader.collect().counts == {"gpu.allocate": 1}
    clock.advance(100)
    assert reader.collect().counts == {"gpu.allocate": 2}


@pytest.mark.parametrize("jump", [30 * DAY, 3600, 600, 30])
def test_a_clock_that_jumps_and_comes_back_changes_nothing(reader, clock, jump):
    reader.append(*[event(NOW - hour * 3600) for hour in range(24)])
    assert reader.collect().counts == {"gpu.allocate": 24}
    clock.wall += jump
    reader.collect()
    clock.wall -= jump
    assert reader.collect().counts == {"gpu.allocate": 24}
    clock.wall -= jump  # and the other way round
    reader.collect()
    clock.wall += jump
    assert reader.collect().counts == {"gpu.allocate": 24}


def test_types_have_a_limit_and_what_is_beyond_is_counted(tmp_path, clock):
    reader = Reader(tmp_path, types_limit=3)
    reader.append(*[event(kind=f"t{number}") for number in range(10)], event(kind="t0"))
    found = reader.collect()
    assert found.counts == {"t0": 2, "t1": 1, "t2": 1}
    assert found.dropped == 7
    clock.advance(DAY - 30)  # there is place again, but of t5 an event was not counted
    reader.append(event(int(clock.wall), "t5"), event(int(clock.wall), "t1"))
    assert reader.collect().counts == {"t0": 0, "t1": 1, "t2": 0}
    clock.advance(2 * DAY)
    reader.append(event(int(clock.wall), "t5"))
    found = reader.collect()
    assert found.counts["t5"] == 1
    assert found.dropped == 0


def test_more_than_fits_is_a_failure_and_not_a_wrong_number(reader, monkeypatch):
    monkeypatch.setattr(window, "LARGEST", 10)
    reader.append(*[event(NOW - number) for number in range(20)])
    with pytest.raises(CollectorError, match="too many seconds"):
        reader.collect()


def test_while_it_is_behind_there_is_no_count(reader, monkeypatch):
    monkeypatch.setattr(log, "PIECE", 4096)
    monkeypatch.setattr(log, "STEP_BYTES", 8192)
    reader.append(*[event() for _ in range(300)])
    rounds = 0
    while not (found := reader.collect()).counts:
        assert "not read to their end" in found.failures[0]
        rounds += 1
    assert rounds > 2
    assert found.counts == {"gpu.allocate": 300}


def test_a_large_log_is_not_read_from_its_beginning(reader, monkeypatch):
    monkeypatch.setattr(log, "WHOLE", 1 << 16)
    monkeypatch.setattr(log, "_FINE", 1 << 14)
    monkeypatch.setattr(log, "_BLOCK", 1 << 12)
    reader.append(*[event(NOW - 100 * DAY + number * 600) for number in range(100 * 144 + 1)])
    read = []

    def pread(*args, whole=os.pread):
        read.append(whole(*args))
        return read[-1]

    monkeypatch.setattr(os, "pread", pread)
    assert reader.collect().counts == {"gpu.allocate": 144}
    assert sum(map(len, read)) < reader.path.stat().st_size / 4


def test_a_gigabyte_takes_little_memory_and_time(reader):
    """Old events, a hole as a crash of the filesystem leaves it, and the last hour."""
    block = b"".join(event(NOW - 2 * DAY + number // 50) for number in range(0, 4_000_000, 50))
    with reader.path.open("wb") as file:
        for _ in range(3):
            file.write(block)
        file.truncate(1 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + b"".join(event(NOW - 3600 + number) for number in range(3600)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = reader.collect()
    for _ in range(100):
        if found.counts:
            break
        found = reader.collect()
    assert found.counts["gpu.allocate"] == 3600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10  # KiB


def test_the_filesystem_of_the_state(tmp_path, clock):
    reader = Reader(tmp_path)
    assert "ds01_state_disk_bytes" not in reader.collect().families
    (tmp_path / "absent").mkdir()
    rows = {kind: value for value, kind in reader.collect().families["ds01_state_disk_bytes"]}
    status = os.statvfs(tmp_path)
    assert rows["total"] == status.f_blocks * status.f_frsize
    assert 0 <= rows["used"] + rows["free"] <= rows["total"]


# -- lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timestamp", "second"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-18T10:26:40Z", 1794997600),
        ("2026-11-18t10:26:40z", 1794997600),
        ("2026-11-18T10:26:40.999999Z", 1794997600),
        ("2026-11-18T12:26:40+02:00", 1794997600),
        ("2026-11-18T05:56:40-0430", 1794997600),
        ("2026-11-18 10:26:40+00:00", 1794997600),
        ("2026-11-18T10:26:40", 1794997600),
        ("2026-02-30T00:00:00Z", None),
        ("2026-11-18T24:00:00Z", None),
        ("2026-11-18T10:60:00Z", None),
        ("2026-11-18T10:00:00+24:00", None),
        ("0000-01-01T00:00:00Z", None),
        ("2026-11-18", None),
        ("\u0662\u0660\u0662\u0666-11-18T10:26:40Z", None),
        ("2026-11-18T10:26:40Z ", None),
        ("", None),
    ],
)
def test_timestamps(timestamp, second):
    assert line.unix_time(timestamp) == second


@given(st.datetimes(timezones=st.timezones().map(lambda _: datetime.timezone.utc)), st.integers(-1439, 1439))
def test_a_timestamp_is_the_same_second_in_every_offset(when, minutes):
    second = int((when - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(seconds=1))
    assert line.unix_time(when.isoformat()) == second
    try:
        shifted = when.astimezone(datetime.timezone(datetime.timedelta(minutes=minutes)))
    except OverflowError:
        return
    assert line.unix_time(shifted.isoformat()) == second


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_no_line_is_too_strange(words):
    assert line.parse(words) is None


@given(
    st.fixed_dictionaries(
        {"timestamp": st.text() | st.just("2026-11-18T10:26:40Z"), "event_type": st.text() | st.none()}
    )
)
def test_an_event_has_the_type_that_the_line_says(content):
    found = line.parse(json.dumps(content).encode())
    if found is not None:
        assert found.kind.encode() == content["event_type"].encode("utf-8", "replace")
        assert found.second == line.unix_time(content["timestamp"])


# -- the whole against a model --------------------------------------------------------------------

EVENTS = st.tuples(st.integers(-DAY - 5000, 5000), st.sampled_from(["a", "b", "c"]))


@given(st.lists(EVENTS, max_size=60), st.lists(st.integers(0, DAY), max_size=5))
def test_the_window_is_a_count_over_a_list(events, steps):
    now, found = NOW, window.Window(10)
    for offset, kind in events:
        assert found.add(line.Event(now + offset, kind), now)
    for step in [0, *steps]:
        now += step
        found.forget(now)
        counts = {kind: count for kind, count in found.counts(now).items() if count}
        kept = [kind for offset, kind in events if now - DAY < NOW + offset <= now and offset > -window.KEPT]
        assert counts == {kind: kept.count(kind) for kind in set(kept)}


OPERATIONS = st.lists(
    st.sampled_from(["append", "bad", "half", "rotate", "copytruncate", "collect", "wait", "restart", "clock"]),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(OPERATIONS, st.sampled_from([201, 500, 100_000]))
def test_nothing_that_happens_to_a_log_changes_the_counts(tmp_path_factory, operations, piece):
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
        patch.setattr(log, "PIECE", piece)
        patch.setattr(log, "LONGEST", 200)
        reader = Reader(tmp_path_factory.mktemp("log"))
        written, bad, rotated, half = [], 0, 0, b""
        for operation in [*operations, "append", "collect"]:
            second = int(clock.wall)
            if operation in ("append", "half"):
                reader.append(half)
                half = b""
                whole = event(second, "a" if operation == "append" else "b")
                written.append((second, "a" if operation == "append" else "b"))
                cut = len(whole) if operation == "append" else 20
                reader.append(whole[:cut])
                half = whole[cut:]
            elif operation == "bad" and not half:
                reader.append(b"no event\n")
                bad += 1
            elif operation in ("rotate", "copytruncate") and reader.path.exists() and not half:
                if operation == "copytruncate":
                    reader.collect()  # what is written and truncated in between is lost to everybody
                for number in range(rotated, 0, -1):
                    reader.path.with_name(f"events.jsonl.{number}").rename(f"{reader.path}.{number + 1}")
                rotated += 1
                if operation == "copytruncate":
                    shutil.copy2(reader.path, f"{reader.path}.1")
                    reader.path.write_bytes(b"")
                else:
                    reader.path.rename(f"{reader.path}.1")
                    reader.path.write_bytes(b"")
                touch(f"{reader.path}.1", clock.wall)
                reader.collect()
            elif operation == "wait":
                clock.advance(45)
            elif operation == "restart":
                reader.collect()
                reader.start(reader.collector.state())
            elif operation == "clock":
                clock.wall += 7200
            elif operation == "collect":
                reader.append(half)
                half = b""
                found = reader.collect()
                expected = [kind for second, kind in written if second > int(clock.wall) - DAY]
                assert {kind: count for kind, count in found.counts.items() if count} == {
                    kind: expected.count(kind) for kind in set(expected)
                }
                assert found.bad == bad
        reader.collector._log.restart()
