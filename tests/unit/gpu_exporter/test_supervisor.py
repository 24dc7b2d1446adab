"""How long a driver that blocks is left alone, and what goes on meanwhile. Time is the test's own."""

from __future__ import annotations

import threading

import pytest
from gpufleet.gpu_exporter import config, protocol, supervisor

GPU = "0000:01:00.0"


class Sampler:
    """A sampling process that says what the test says."""

    held = False
    """Whether the driver keeps it from ending."""

    def __init__(self, order):
        self.order, self.process = order, self
        self.started = supervisor.time.monotonic()
        self.running, self.finished = {}, {}
        self.board = protocol.Board(protocol.Board.create())
        self.without_nvml = "nvml" in order.suspended
        self.ended = threading.Event()
        self.pid = 1

    def poll(self):
        return None if self.held else 0

    def kill(self):
        return not self.held


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(supervisor, "_Sampler", Sampler)
    monkeypatch.setattr(supervisor.Supervisor, "_read", lambda self, sampler: None)
    return now


def block(work, clock, subject=""):
    """Start a sampler whose inventory answers and whose gpu collector blocks, and give it up. Returns its order."""
    sampler = work._start()
    clock[0] += min(600.0, sampler.order.suspended.get("nvml", 0.0))
    work._take(sampler, protocol.Report("inventory", True))
    work._take(sampler, protocol.Report("inventory", False, families={}))
    work._take(sampler, protocol.Report("gpu", True))
    sampler.board.write(subject)
    while work._late(sampler) is None:
        clock[0] += 1
    work._give_up(sampler, work._late(sampler))
    return sampler.order


def test_a_driver_that_blocks_is_asked_less_and_less_often_though_a_part_of_it_answers(clock):
    work = supervisor.Supervisor("", config.Config())
    suspended = [round(block(work, clock).suspended.get("nvml", 0.0)) for _ in range(7)]
    assert suspended == [0, 30, 60, 120, 240, 480, 600]


def test_a_gpu_that_blocks_is_left_alone_and_the_lane_goes_on(clock):
    work = supervisor.Supervisor("", config.Config())
    block(work, clock, GPU)
    order = work._start().order
    assert "nvml" not in order.suspended
    assert order.quarantine == {GPU: 30.0}
    clock[0] += 31
    assert work._start().order.quarantine == {}
    block(work, clock, GPU)
    assert work._start().order.quarantine == {GPU: 60.0}


def test_a_gpu_that_answers_again_is_trusted_again(clock):
    work = supervisor.Supervisor("", config.Config())
    block(work, clock, GPU)
    clock[0] += 31
    sampler = work._start()
    work._take(sampler, protocol.Report("gpu", True))
    work._take(sampler, protocol.Report("gpu", False, families={}))
    block(work, clock, GPU)
    assert work._start().order.quarantine == {GPU: 30.0}


def test_samplers_that_the_driver_holds_do_not_pile_up(clock, monkeypatch):
    monkeypatch.setattr(Sampler, "held", True)
    work = supervisor.Supervisor("", config.Config())
    for _ in range(3):
        block(work, clock)
    assert work.stuck == 3
    clock[0] += 100000
    assert work._start().order.suspended["nvml"] > 1e8
    monkeypatch.setattr(Sampler, "held", False)  # one of them goes
    waiting = Sampler(protocol.Order("", {}, {"nvml": 1e9}))
    assert work._watch(waiting) == "deadline"
    assert "nvml" not in work._start().order.suspended


def test_a_part_that_fails_is_logged_once():
    readings = supervisor.Readings(config.Config())
    said = [readings.put(protocol.Report("gpu", False, families={}, failures=failures)) for failures in (
        (), ("GPU 1: fans: Unknown Error",), ("GPU 1: fans: Unknown Error",), (), ("GPU 1: fans: Unknown Error",)
    )]  # fmt: skip
    assert said == [None, "collector gpu: GPU 1: fans: Unknown Error", None, None, said[1]]
