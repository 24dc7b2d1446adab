"""One GPU that fails, at whatever moment, says nothing of the others; one that is back is seen again."""

# ruff: noqa: N802 (the names are NVML's)

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pynvml
import pytest
from gpufleet.gpu_exporter import nvml
from gpufleet.gpu_exporter.inventory import Gpu, MigInstance

BUS = {name: f"0000:0{name.lower()}:00.0" for name in "ABC"}


class Driver:
    """NVML of three GPUs, A, B and C; sets name those that fail."""

    def __init__(self, monkeypatch):
        self.handles = list("ABC")
        self.lost, self.nameless, self.deaf, self.unheard = set(), set(), set(), set()
        self.mig, self.broken_instances = set(), set()
        self.xids = {}
        self.starts = 0
        self.sets = 0
        for name in dir(self):
            if name.startswith("nvml"):
                monkeypatch.setattr(pynvml, name, getattr(self, name))
        for kind in ("Compute", "Graphics", "MPSCompute"):
            monkeypatch.setattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses_v3", lambda handle: [])

    @staticmethod
    def fail(condition, code=pynvml.NVML_ERROR_GPU_IS_LOST):
        if condition:
            raise pynvml.NVMLError(code)

    def nvmlInit(self):
        self.starts += 1

    def nvmlShutdown(self):
        assert self.sets == 0  # they end with it, and must be freed before

    def nvmlSystemGetDriverVersion(self):
        return "580.65.06"

    def nvmlDeviceGetCount(self):
        return len(self.handles)

    def nvmlDeviceGetHandleByIndex(self, index):
        self.fail(self.handles[index] in self.lost)
        return self.handles[index]

    def nvmlDeviceGetUUID(self, handle):
        return f"GPU-{handle}"

    def nvmlDeviceGetPciInfo_v3(self, handle):
        return SimpleNamespace(busId=f"0000{BUS[handle[0]]}")

    def nvmlDeviceGetName(self, handle):
        self.fail(handle in self.nameless)
        return "NVIDIA X MIG 1g.5gb" if len(handle) > 1 else "NVIDIA X"

    def nvmlDeviceGetMinorNumber(self, handle):
        return 0

    def nvmlDeviceGetMigMode(self, handle):
        self.fail(handle in self.lost)
        return [1, 1] if handle in self.mig else [0, 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle):
        return 3

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle, slot):
        self.fail(f"{handle}{slot}" in self.broken_instances, pynvml.NVML_ERROR_UNKNOWN)
        return f"{handle}{slot}"

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(total=10, used=int(handle[1]))

    def nvmlDeviceGetGpuInstanceId(self, handle):
        return int(handle[1])

    def nvmlDeviceGetComputeInstanceId(self, handle):
        return 0

    def nvmlEventSetCreate(self):
        self.sets += 1
        return SimpleNamespace(handle=None)

    def nvmlEventSetFree(self, events):
        self.sets -= 1

    def nvmlDeviceRegisterEvents(self, handle, types, events):
        self.fail(handle in self.deaf, pynvml.NVML_ERROR_UNKNOWN)
        events.handle = handle

    def nvmlEventSetWait_v2(self, events, timeout):
        self.fail(events.handle in self.unheard, pynvml.NVML_ERROR_UNKNOWN)
        codes = self.xids.get(events.handle, [])
        self.fail(not codes, pynvml.NVML_ERROR_TIMEOUT)
        return SimpleNamespace(eventType=pynvml.nvmlEventTypeXidCriticalError, eventData=codes.pop(0))


@pytest.fixture
def driver(monkeypatch):
    monkeypatch.setattr(nvml, "_ANSWER_SECONDS", 0.0)
    monkeypatch.setattr(nvml, "REINIT_SECONDS", 0.0)
    monkeypatch.setattr(nvml, "REINIT_LONGEST", 0.0)
    return Driver(monkeypatch)


def uuids(inventory):
    return [gpu.uuid for gpu in inventory.gpus]


def test_a_gpu_that_is_lost_while_it_is_named_hides_no_other(driver):
    driver.nameless = {"B"}
    session = nvml.Session()
    assert uuids(session.refresh(False, BUS.values())) == ["GPU-A", "GPU-C"]
    driver.nameless = set()
    session.refresh(False, BUS.values())
    assert uuids(session.refresh(False, BUS.values())) == ["GPU-A", "GPU-B", "GPU-C"]


def test_a_gpu_that_was_lost_from_the_beginning_is_seen_when_it_is_back(driver):
    driver.lost = {"B"}
    session = nvml.Session()
    session.know([Gpu(1, "GPU-B", BUS["B"], 1, "X")])
    inventory = session.refresh(False, BUS.values())
    assert (uuids(inventory), list(inventory.lost)) == (["GPU-A", "GPU-C"], [BUS["B"]])
    driver.lost = set()
    session.refresh(False, BUS.values())
    inventory = session.refresh(False, BUS.values())
    assert (uuids(inventory), inventory.lost) == (["GPU-A", "GPU-B", "GPU-C"], {})


def test_a_gpu_that_the_driver_gets_later_is_seen(driver):
    driver.handles = ["A"]
    session = nvml.Session()
    assert uuids(session.refresh(False, [BUS["A"]])) == ["GPU-A"]
    driver.handles = ["A", "B"]  # a virtual machine has given it back
    expected = [BUS["A"], BUS["B"]]
    session.refresh(False, expected)
    assert uuids(session.refresh(False, expected)) == ["GPU-A", "GPU-B"]


def test_nvml_is_initialised_less_and_less_often_for_a_gpu_that_stays_away(driver, monkeypatch):
    monkeypatch.setattr(nvml, "REINIT_SECONDS", 60.0)
    monkeypatch.setattr(nvml, "REINIT_LONGEST", 600.0)
    now = [0.0]
    monkeypatch.setattr(nvml.time, "monotonic", lambda: now[0])
    driver.handles = ["A"]
    session = nvml.Session()
    for now[0] in range(0, 3600, 5):
        session.refresh(False, BUS.values())
    assert 6 <= driver.starts <= 12
    before = driver.starts
    for now[0] in range(3600, 3700, 5):
        session.refresh(False, [BUS["A"]])  # nothing is missing
    assert driver.starts <= before + 1


def test_a_gpu_that_must_not_be_asked_is_not(driver):
    session = nvml.Session(lambda bus_id: bus_id != BUS["B"])
    session.refresh(False)
    driver.lost = {"B"}  # it would be noticed
    assert session.refresh(False).lost == {}


def test_a_gpu_that_may_be_asked_again_is_listed_at_once(driver, monkeypatch):
    monkeypatch.setattr(nvml, "REINIT_SECONDS", 60.0)
    barred = {BUS["B"]}
    session = nvml.Session(lambda bus_id: bus_id not in barred)
    session.know([Gpu(1, "GPU-B", BUS["B"], 1, "X")])
    assert uuids(session.refresh(False, BUS.values())) == ["GPU-A", "GPU-C"]
    barred.clear()
    assert uuids(session.refresh(False, BUS.values())) == ["GPU-A", "GPU-B", "GPU-C"]


def test_what_a_mig_instance_said_before_is_not_said_again(driver):
    driver.mig = {"A"}
    session = nvml.Session()
    assert len(session.refresh(False).gpus[0].mig) == 3
    driver.broken_instances = {"A1"}
    inventory = session.refresh(False)
    assert [mig.gpu_instance for mig in inventory.gpus[0].mig] == [0, 2]
    assert "MIG device 1" in inventory.failures[0]


def test_compute_instances_of_one_gpu_instance_are_one():
    third = MigInstance("MIG-1", 1, 0, "1c.3g.20gb", 20, 5)
    gpu = Gpu(0, "GPU-A", BUS["A"], 0, "X", True, (third, dataclasses.replace(third, uuid="MIG-2")))
    assert [(mig.gpu_instance, mig.profile) for mig in gpu.gpu_instances] == [(1, "3g.20gb")]


def polled(events):
    """What a poll yields, and whether it fails then."""
    found = []
    try:
        found += events.poll()
    except pynvml.NVMLError:
        return found, True
    return found, False


@pytest.mark.parametrize("fault", ["deaf", "unheard"])
def test_a_gpu_whose_events_fail_makes_no_other_deaf(driver, fault):
    session = nvml.Session()
    session.refresh(False)
    events = nvml.XidEvents(session)
    setattr(driver, fault, {"A"})
    driver.xids = {"A": [31], "B": [79], "C": [48]}
    found = []
    with pytest.raises(pynvml.NVMLError):
        for error in events.poll():
            found.append(error)
    assert found == [(BUS["B"], 79), (BUS["C"], 48)]
    setattr(driver, fault, set())
    assert polled(events) == ([(BUS["A"], 31)], False)
    session.close()


def test_a_driver_that_was_upgraded_on_the_disk_is_said_while_the_old_one_answers(driver, monkeypatch):
    monkeypatch.setattr(nvml, "_LIBRARY_SECONDS", 0.0)
    session = nvml.Session()
    monkeypatch.setattr(session, "library_replaced", lambda: False)
    assert not session.refresh(False).library_replaced
    monkeypatch.setattr(session, "library_replaced", lambda: True)
    inventory = session.refresh(False)
    assert (inventory.library_replaced, inventory.problem, len(inventory.gpus)) == (True, None, 3)
