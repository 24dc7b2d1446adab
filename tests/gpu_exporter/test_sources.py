"""Docker and DS01's log under a running exporter: whatever they do, GPUs are served, and what is old is not."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from gpufleet_lab.gpu import Machine

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit/gpu_exporter"))

from docker_daemon import Daemon, half, hangs, request, says

LISTING = "/containers/json?all=1"


@pytest.fixture
def machine():
    return Machine.of("a100", "a100")


@pytest.fixture
def daemon(tmp_path, machine):
    """A Docker daemon with one container, which holds the first GPU."""
    found = Daemon(tmp_path / "docker.sock")
    found.add("thesis", labels={"ds01.user": "alice"}, requests=[request([machine.gpus[0].uuid], driver="nvidia")])
    yield found
    found.close()


def held(metrics):
    return {labels["user"] for labels, _ in metrics.series("ds01_gpu_allocated")}


def of_alice(metrics):
    return held(metrics) == {"alice"}


def test_docker_that_goes_and_comes(exporter, machine, daemon, tmp_path):
    running = exporter(machine)
    running.wait(of_alice)
    daemon.close()
    gone = running.wait(lambda metrics: held(metrics) == set())
    assert gone.value("gpu_power_watts", gpu="0") > 0
    again = Daemon(tmp_path / "docker.sock")
    given = [request([machine.gpus[0].uuid], driver="nvidia")]
    again.add("thesis", labels={"ds01.user": "bob"}, requests=given, number=2)
    running.wait(lambda metrics: held(metrics) == {"bob"})
    again.close()


@pytest.mark.parametrize(
    "behaviour",
    [hangs, half, says(b"garbage\r\n\r\n"), says(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"),
     says(b"HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\n[{")],
    ids=["hangs", "dies half-way", "garbage", "status 500", "broken JSON"],
)  # fmt: skip
def test_docker_that_misbehaves_is_said_and_its_old_words_go(exporter, machine, daemon, behaviour):
    running = exporter(machine)
    running.wait(of_alice)
    daemon.behave[LISTING] = behaviour
    bad = running.wait(lambda metrics: metrics.value("gpu_exporter_collector_up", collector="allocations") == 0)
    assert bad.value("gpu_exporter_collector_up", collector="gpu") == 1
    old = running.wait(lambda metrics: held(metrics) == set())
    assert old.value("gpu_power_watts", gpu="0") > 0
    assert old.value("gpu_exporter_worker_restarts_total", reason="deadline") == 0  # the timeout is ours
    del daemon.behave[LISTING]
    running.wait(of_alice)


def test_a_thousand_containers(exporter, machine, daemon):
    for number in range(1000):
        gpu = machine.gpus[number % 2]
        daemon.add(f"job-{number}", labels={"ds01.user": f"user{number % 50}"}, requests=[request([gpu.uuid])])
    running = exporter(machine, allocations={"containers_limit": 100, "deadline": 20, "max_age": 30})
    metrics = running.wait(lambda metrics: held(metrics), 30)
    assert len(metrics.series("ds01_gpu_allocated")) <= 100
    assert metrics.value("gpu_exporter_series_dropped", collector="allocations") > 0
    # What is summed up counts all of them.
    assert sum(metrics.values("ds01_user_containers_count")) == 1001
    assert sum(metrics.values("ds01_containers_total", status="running")) == 1001


def test_dockers_place_is_taken_by_ds01s_file(exporter, machine, tmp_path):
    state = {"allocations": {"thesis": {"user": "alice", "gpu_id": "0", "allocated_at": "2026-01-01T00:00:00"}}}
    (tmp_path / "gpu-state.json").write_text(json.dumps(state))
    metrics = exporter(machine).wait(of_alice)
    assert metrics.value("ds01_allocation_source", source="state_file") == 1


# -- events -------------------------------------------------------------------------------------
def event(kind, hours_ago=0.0):
    when = datetime.now(timezone.utc) - timedelta(hours=hours_ago)
    return json.dumps({"timestamp": when.isoformat().replace("+00:00", "Z"), "event_type": kind, "schema_version": "1"})


def counted(kind, count):
    return lambda metrics: metrics.value("ds01_events_24h_total", event_type=kind) == count


def test_events_are_counted_over_rotation_and_truncation_and_garbage(exporter, tmp_path):
    log = tmp_path / "events.jsonl"
    log.write_text("".join(f"{event('gpu.allocate', hours)}\n" for hours in (30, 23, 1)))
    running = exporter(Machine.of("none"))
    running.wait(counted("gpu.allocate", 2))

    with log.open("a") as file:
        file.write(f"not json\n{event('gpu.allocate')}\n" + event("gpu.release")[:20])
    metrics = running.wait(counted("gpu.allocate", 3))
    assert metrics.value("ds01_events_bad_lines_total") == 1
    assert metrics.series("ds01_events_24h_total", event_type="gpu.release") == []  # a line that is being written

    log.rename(tmp_path / "events.jsonl.1")
    log.write_text(f"{event('gpu.release')}\n")
    running.wait(counted("gpu.release", 1))
    assert running.metrics().value("ds01_events_24h_total", event_type="gpu.allocate") == 3

    log.write_text("")
    log.write_text(f"{event('container.start')}\n")
    metrics = running.wait(counted("container.start", 1))
    assert metrics.value("gpu_exporter_collector_up", collector="events") == 1


def test_a_log_of_a_gigabyte_is_read_with_little_memory(exporter, tmp_path):
    old, new = event("gpu.allocate", 48), event("gpu.release", 1)
    block = (old + "\n").encode() * 10000
    with (tmp_path / "events.jsonl").open("wb") as file:
        while file.tell() < 1 << 30:
            file.write(block)
        file.write((new + "\n").encode() * 5000)
    running = exporter(Machine.of("none"))
    began = time.monotonic()
    metrics = running.wait(counted("gpu.release", 5000), 60)
    assert time.monotonic() - began < 30
    assert metrics.value("gpu_exporter_resident_memory_bytes", process="sampler") < 60 << 20
    assert metrics.series("ds01_events_24h_total", event_type="gpu.allocate") == []
