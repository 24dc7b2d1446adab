"""Tests of the simulated GPUs: nvidia-ml-py itself reads them, in processes of its own, while they change."""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from gpufleet_lab import gpu as simulation
from gpufleet_lab import gpu_readings, gpu_sysfs
from gpufleet_lab.gpu import Machine, Process
from gpufleet_lab.gpu_models import MIB, MODELS

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="the libraries are compiled here")

# Evaluates a line, prints what came out. NVML's errors come out as their code.
CLIENT = """
import json, sys
import pynvml as n

def h(index=0):
    return n.nvmlDeviceGetHandleByIndex(index)

def m(index, gpu=0):
    return n.nvmlDeviceGetMigDeviceHandleByIndex(h(gpu), index)

def plain(value):
    if isinstance(value, (bytes, bytearray)):
        return value.decode()
    if hasattr(value, "_fields_"):
        return {name: plain(getattr(value, name)) for name, *_ in value._fields_ if name not in ("device", "value")}
    if hasattr(value, "value"):
        return value.value
    if isinstance(value, (list, tuple)) or hasattr(value, "_length_"):
        return [plain(item) for item in value]
    return vars(value) if hasattr(value, "pid") else value

names = dict(globals())
names["keep"] = names.update
for line in sys.stdin:
    try:
        value = plain(eval(line, names))
    except n.NVMLError as error:
        value = {"error": error.value}
    print(json.dumps(value), flush=True)
"""


class Client:
    """A process that uses NVML."""

    def __init__(self, directory: Path, libraries: Path) -> None:
        environment = {"LD_LIBRARY_PATH": str(libraries), "SIMULATED_GPU": str(directory / "scenario")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def send(self, expression: str) -> None:
        self.process.stdin.write(f"{expression}\n")
        self.process.stdin.flush()

    def answers(self, seconds: float) -> bool:
        return bool(select.select([self.process.stdout], [], [], seconds)[0])

    def receive(self):
        assert self.answers(5), "no answer"
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    def __call__(self, expression: str):
        self.send(expression)
        return self.receive()

    def end(self) -> str:
        """Return what it said on stderr."""
        self.process.kill()
        return self.process.communicate()[1]


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    return simulation.build(tmp_path_factory.mktemp("lib"))


@pytest.fixture
def start(tmp_path, libraries):
    """Write a machine and start a client that has initialised NVML."""
    clients = []

    def run(machine: Machine, init: bool = True) -> Client:
        machine.write(tmp_path)
        client = Client(tmp_path, libraries)
        clients.append(client)
        assert not init or client("n.nvmlInit()") is None
        return client

    yield run
    for client in clients:
        client.end()


def error(code: str) -> dict:
    import pynvml

    return {"error": getattr(pynvml, f"NVML_ERROR_{code}")}


UNSUPPORTED = {"error": 3}


# -- reading ------------------------------------------------------------------------------------
# Every function of one GPU that has to give something on every card.
EVERYWHERE = [
    "Index", "Name", "UUID", "PciInfo_v3", "MinorNumber", "VbiosVersion", "Brand", "CudaComputeCapability",
    "MemoryInfo", "BAR1MemoryInfo", "UtilizationRates", "EncoderUtilization", "DecoderUtilization",
    "PowerUsage", "EnforcedPowerLimit", "PowerManagementLimit", "PowerManagementDefaultLimit",
    "PowerManagementLimitConstraints", "TotalEnergyConsumption", "PerformanceState",
    "CurrentClocksEventReasons", "CurrentClocksThrottleReasons", "NumFans", "PcieReplayCounter",
    "CurrPcieLinkGeneration", "CurrPcieLinkWidth", "MaxPcieLinkGeneration", "MaxPcieLinkWidth",
    "ComputeRunningProcesses", "GraphicsRunningProcesses", "MPSComputeRunningProcesses", "MaxMigDeviceCount",
    "SupportedEventTypes",
]  # fmt: skip
EVERYWHERE_WITH = [
    "Temperature(h(), 0)", "TemperatureV(h(), 0)", "ClockInfo(h(), 1)", "MaxClockInfo(h(), 2)",
    "PcieThroughput(h(), 0)", "MemoryInfo(h(), n.nvmlMemory_v2)", "FieldValues(h(), [82, 83])",
]  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_every_card_is_read(start, model):
    client = start(Machine.of(model))
    assert client("n.nvmlDeviceGetCount()") == 1
    for call in [f"{name}(h())" for name in EVERYWHERE] + EVERYWHERE_WITH:
        answer = client(f"n.nvmlDeviceGet{call}")
        assert not isinstance(answer, dict) or "error" not in answer, (call, answer)
    assert client("n.nvmlDeviceGetName(h())") == MODELS[model].name
    pci = client("n.nvmlDeviceGetPciInfo(h())")
    assert (pci["busId"], pci["busIdLegacy"]) == ("00000000:01:00.0", "0000:01:00.0")
    assert pci["pciDeviceId"] == MODELS[model].device << 16 | 0x10DE
    for handle in ("ByUUID(n.nvmlDeviceGetUUID(h()).encode())", "ByPciBusId(b'0000:01:00.0')"):
        assert client(f"n.nvmlDeviceGetIndex(n.nvmlDeviceGetHandle{handle})") == 0


@pytest.mark.parametrize(
    ("model", "driver", "hotspot", "memory", "fans", "serial"),
    [
        ("a100", "615.43.02", 74, 82, 0, True),
        ("h100", "615.43.02", 74, 82, 0, True),
        ("h100", "570.86.15", UNSUPPORTED, 82, 0, True),
        ("rtx3090", "615.43.02", UNSUPPORTED, UNSUPPORTED, 2, False),
        ("rtx4090", "615.43.02", UNSUPPORTED, UNSUPPORTED, 2, False),
        ("rtx5090", "615.43.02", UNSUPPORTED, UNSUPPORTED, 2, False),
    ],
)
def test_cards_differ_in_what_they_have(start, model, driver, hotspot, memory, fans, serial):
    client = start(Machine.of(model, driver_version=driver))
    assert client("n.nvmlSystemGetDriverVersion()") == driver
    assert client("n.nvmlDeviceGetTemperatureV(h(), 1)") == hotspot
    assert client("n.nvmlDeviceGetTemperature(h(), 1)") == error("INVALID_ARGUMENT")
    field = "(lambda f: f.value.uiVal if not f.nvmlReturn else {'error': f.nvmlReturn})"
    assert client(f"{field}(n.nvmlDeviceGetFieldValues(h(), [82])[0])") == memory
    assert client("n.nvmlDeviceGetNumFans(h())") == fans
    assert client("n.nvmlDeviceGetFanSpeed_v2(h(), 1)") == (55 if fans else UNSUPPORTED)
    assert isinstance(client("n.nvmlDeviceGetSerial(h())"), str) == serial
    centre = serial
    for call in ("RemappedRows(h())", "TotalEccErrors(h(), 1, 0)", "MemoryErrorCounter(h(), 0, 1, 2)", "MigMode(h())"):
        assert (client(f"n.nvmlDeviceGet{call}") == UNSUPPORTED) != centre, call
    assert client("n.nvmlDeviceGetRetiredPages(h(), 0)") == UNSUPPORTED


def test_the_system_is_read(start):
    client = start(Machine.of("a100", driver_version="615.43.02"))
    assert client("n.nvmlSystemGetNVMLVersion()") == "13.615.43.02"
    assert client("n.nvmlSystemGetCudaDriverVersion()") == client("n.nvmlSystemGetCudaDriverVersion_v2()") == 13020
    assert client("n._nvmlGetFunctionPointer('nvmlInit_v2')()") == 0


def test_fields_of_all_types(start):
    machine = Machine.of("h100")
    client = start(machine)
    machine.set(0, "pcie.errors.lane", 7)
    values = client(
        "[(f.nvmlReturn, f.valueType, f.value.siVal) for f in n.nvmlDeviceGetFieldValues(h(), [193, 195, 183, 229, 1])]"
    )
    assert values == [[0, 5, -8], [0, 5, 0], [0, 1, 7], [3, 0, 0], [0, 1, 1]]
    assert client("n.nvmlDeviceGetTemperatureThreshold(h(), 0)") == UNSUPPORTED
    assert client("n.nvmlDeviceGetTemperatureThreshold(h(), 99)") == error("INVALID_ARGUMENT")


def test_memory_adds_up(start):
    client = start(Machine.of("a100"))
    first = client("n.nvmlDeviceGetMemoryInfo(h())")
    second = client("n.nvmlDeviceGetMemoryInfo(h(), n.nvmlMemory_v2)")
    assert first["total"] == 40960 * MIB == first["used"] + first["free"]
    assert first["used"] == second["used"] + second["reserved"]
    assert client("n.nvmlDeviceGetMemoryInfo(h(), 1)") == error("ARGUMENT_VERSION_MISMATCH")


def test_retired_pages(start):
    machine = Machine.of("a100")
    client = start(machine)
    with machine.together():
        machine.set(0, "retired_pages.double_bit", 3)
        machine.set(0, "retired_pages.pending", 1)
    assert len(client("n.nvmlDeviceGetRetiredPages(h(), 1)")) == 3
    assert len(client("n.nvmlDeviceGetRetiredPages_v2(h(), 1)")) == 3
    assert client("n.nvmlDeviceGetRetiredPagesPendingStatus(h())") == 1


def test_readings_change_while_a_process_runs(start):
    machine = Machine.of("rtx4090")
    client = start(machine)
    for celsius in (50, 91):
        machine.heat(0, core=celsius)
        assert client("n.nvmlDeviceGetTemperature(h(), 0)") == celsius
    machine.set(0, "fan.0.speed", "error:TIMEOUT")
    assert client("n.nvmlDeviceGetFanSpeed_v2(h(), 0)") == error("TIMEOUT")
    machine.set(0, "power.usage", "unsupported")
    assert client("n.nvmlDeviceGetPowerUsage(h())") == UNSUPPORTED
    machine.set(0, "power.usage", "slow:300:200000")
    begun = time.monotonic()
    assert client("n.nvmlDeviceGetPowerUsage(h())") == 200000
    assert time.monotonic() - begun >= 0.3


def test_readings_move_as_the_arithmetic_says(start):
    machine = Machine.of("a100")
    client = start(machine)
    machine.set(0, "power.usage", "sine:100000:300000:2")
    machine.set(0, "clock.sm", "ramp:0:1000000:3600")
    seen = []
    for _ in range(5):
        before = time.time()
        power = client("n.nvmlDeviceGetPowerUsage(h())")
        low, high = (gpu_readings.value_at("sine:100000:300000:2", now) for now in (before, time.time()))
        tolerance = 1 + abs(high - low) + 20000  # a crest may lie in between
        assert min(low, high) - tolerance <= power <= max(low, high) + tolerance
        seen.append(power)
        time.sleep(0.13)
    assert len(set(seen)) == 5
    expected = gpu_readings.value_at("ramp:0:1000000:3600", time.time())
    assert client("n.nvmlDeviceGetClockInfo(h(), 1)") == pytest.approx(expected, abs=1000)


def test_energy_is_the_integral_of_power_and_never_goes_back(start):
    machine = Machine.of("a100")
    client = start(machine)
    joules, begun = [client("n.nvmlDeviceGetTotalEnergyConsumption(h())")], time.time()
    machine.set(0, "power.usage", 1000000)  # 1 kW: 1 mJ a microsecond
    time.sleep(0.3)
    joules.append(client("n.nvmlDeviceGetTotalEnergyConsumption(h())"))
    assert joules[1] - joules[0] == pytest.approx((time.time() - begun) * 1e6, rel=0.2)
    machine.set(0, "power.usage", "sine:0:10:7")
    joules.append(client("n.nvmlDeviceGetTotalEnergyConsumption(h())"))
    assert joules[2] >= joules[1]


def test_integral_is_the_area():
    for reading in ("sine:2:8:3:1", "ramp:1:5:7", 4):
        steps = [gpu_readings.value_at(reading, 100 + step / 1000) / 1000 for step in range(10000)]
        assert gpu_readings.integral(reading, 100, 110) == pytest.approx(sum(steps), rel=1e-3)


def test_animated_gpus_stay_within_their_limits(start):
    machine = Machine.of("a100", "rtx5090")
    client = start(machine)
    machine.partition(0, "7g.40gb")
    machine.animate()
    for index in (0, 1):
        power, limit = (client(f"n.nvmlDeviceGet{name}(h({index}))") for name in ("PowerUsage", "EnforcedPowerLimit"))
        assert 0 < power < limit
    assert client("n.nvmlDeviceGetUtilizationRates(h(0))") == UNSUPPORTED


# -- events -------------------------------------------------------------------------------------
def test_an_event_is_delivered_once(start):
    machine = Machine.of("a100", "h100")
    machine.xid(1, 31)  # before the set: no news
    client = start(machine)
    client("keep(s=n.nvmlEventSetCreate())")
    for index in (0, 1):
        client(f"n.nvmlDeviceRegisterEvents(h({index}), n.nvmlEventTypeXidCriticalError, s)")
    assert client("n.nvmlEventSetWait_v2(s, 0)") == error("TIMEOUT")
    machine.xid(1, 79)
    machine.xid(0, 48)
    first, second = (client("n.nvmlEventSetWait_v2(s, 0)") for _ in range(2))
    assert (first["eventType"], first["eventData"], second["eventData"]) == (8, 79, 48)
    assert first["gpuInstanceId"] == 0xFFFFFFFF
    assert client("n.nvmlEventSetWait_v2(s, 0)") == error("TIMEOUT")
    machine.xid(0, 48)
    assert client("n.nvmlDeviceGetIndex(n.nvmlEventSetWait_v2(s, 100).device)") == 0
    assert client("n.nvmlEventSetFree(s)") is None
    assert client("n.nvmlEventSetWait_v2(s, 0)") == error("INVALID_ARGUMENT")


def test_each_set_has_its_own_view_of_the_events(start):
    machine = Machine.of("rtx4090")
    client = start(machine)
    for name in ("one", "two"):
        client(f"keep({name}=n.nvmlEventSetCreate())")
        client(f"n.nvmlDeviceRegisterEvents(h(), 8, {name})")
    machine.xid(0, 13)
    assert [client(f"n.nvmlEventSetWait_v2({name}, 0)")["eventData"] for name in ("one", "two")] == [13, 13]
    assert client("n.nvmlDeviceRegisterEvents(h(), 1, one)") == UNSUPPORTED, "GeForce without ECC events"


def test_waiting_ends_with_an_event_or_in_time(start):
    machine = Machine.of("a100")
    client = start(machine)
    client("keep(s=n.nvmlEventSetCreate())")
    client("n.nvmlDeviceRegisterEvents(h(), 8, s)")
    begun = time.monotonic()
    assert client("n.nvmlEventSetWait_v2(s, 200)") == error("TIMEOUT")
    assert 0.2 <= time.monotonic() - begun < 0.6
    client.send("n.nvmlEventSetWait_v2(s, 4000)")
    threading.Timer(0.2, machine.xid, (0, 94)).start()
    assert client.receive()["eventData"] == 94
    assert time.monotonic() - begun < 2
    machine.lose(0)
    assert client("n.nvmlEventSetWait_v2(s, 0)") == error("GPU_IS_LOST")


# -- faults -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("gpu", "function"), [(None, ""), (0, ""), (None, "nvmlDeviceGetPowerUsage"), (0, "nvmlDeviceGetPowerUsage")]
)
def test_a_blocked_call_never_returns_and_the_process_can_be_killed(start, gpu, function):
    machine = Machine.of("a100", "a100")
    client = start(machine)
    machine.block(gpu, function)
    if gpu is not None:
        assert client("n.nvmlDeviceGetPowerUsage(h(1))") > 0
    if function:
        assert client("n.nvmlDeviceGetTemperature(h(0), 0)") == 61
    client.send("n.nvmlDeviceGetPowerUsage(h(0))")
    assert not client.answers(0.2)
    machine.unblock(gpu, function)
    assert not client.answers(0.2)
    client.process.send_signal(signal.SIGTERM)
    assert client.process.wait(timeout=2) == -signal.SIGTERM
    assert start(machine)("n.nvmlDeviceGetPowerUsage(h(0))") > 0


def test_a_stalled_call_returns_when_the_fault_ends(start):
    machine = Machine.of("a100")
    client = start(machine)
    machine.stall(0)
    client.send("n.nvmlDeviceGetTemperature(h(0), 0)")
    assert not client.answers(0.2)
    machine.unblock(0)
    assert client.receive() == 61


def test_a_fault_begins_after_so_many_calls(start):
    machine = Machine.of("a100")
    client = start(machine)
    machine.fault("error:TIMEOUT", function="nvmlDeviceGetPowerUsage", after=2)
    calls = [client("n.nvmlDeviceGetPowerUsage(h())") for _ in range(3)]
    machine.heat(0, core=40)  # another change does not begin the count anew
    calls.append(client("n.nvmlDeviceGetPowerUsage(h())"))
    assert calls == [311000, 311000, error("TIMEOUT"), error("TIMEOUT")]


def test_a_gpu_is_lost_and_comes_back(start):
    machine = Machine.of("a100", "h100")
    client = start(machine)
    client("keep(kept=h(1))")
    machine.lose(1)
    assert client("n.nvmlDeviceGetCount()") == 2
    assert client("n.nvmlDeviceGetTemperature(kept, 0)") == error("GPU_IS_LOST")
    assert client("h(1)") == error("GPU_IS_LOST")
    assert client("n.nvmlDeviceGetTemperature(h(0), 0)") == 61
    machine.bring_back(1)
    assert client("n.nvmlDeviceGetTemperature(kept, 0)") == 61


@pytest.mark.parametrize("away", [lambda m: m.remove(0), lambda m: m.bind(0, "vfio-pci"), lambda m: m.bind(0, None)])
def test_a_gpu_that_is_taken_away_is_gone_with_the_next_init(start, away):
    machine = Machine.of("a100", "h100")
    client = start(machine)
    away(machine)
    assert client("n.nvmlDeviceGetCount()") == 2
    assert client("h(0)") == error("GPU_IS_LOST")
    assert client("n.nvmlShutdown()") is None
    assert client("n.nvmlInit()") is None
    assert client("n.nvmlDeviceGetCount()") == 1
    assert client("n.nvmlDeviceGetName(h(0))") == "NVIDIA H100 80GB HBM3"


def test_driver_and_library_differ(start):
    machine = Machine.of("a100")
    client = start(machine)
    machine.mismatch()
    assert client("n.nvmlDeviceGetCount()") == error("LIB_RM_VERSION_MISMATCH")
    assert client("h(0)") == error("LIB_RM_VERSION_MISMATCH")
    assert start(machine, init=False)("n.nvmlInit()") == error("LIB_RM_VERSION_MISMATCH")
    machine.load_driver()
    assert client("n.nvmlDeviceGetCount()") == 1


def test_after_an_upgrade_only_a_new_process_has_the_new_library(start):
    machine = Machine.of("a100")
    client = start(machine)
    machine.upgrade_driver("620.10.01")
    assert client("n.nvmlDeviceGetCount()") == error("LIB_RM_VERSION_MISMATCH")
    client("n.nvmlShutdown()")
    assert client("n.nvmlInit()") == error("LIB_RM_VERSION_MISMATCH")
    assert start(machine)("n.nvmlSystemGetDriverVersion()") == "620.10.01"


def test_without_gpus_the_driver_is_not_loaded(start):
    client = start(Machine.of("none"), init=False)
    assert client("n.nvmlInit()") == error("DRIVER_NOT_LOADED")
    assert client("n.nvmlDeviceGetCount()") == error("DRIVER_NOT_LOADED")


def test_before_init_and_after_shutdown_nothing_answers(start):
    client = start(Machine.of("a100"), init=False)
    assert client("h(0)") == error("UNINITIALIZED")
    for call in ("Init", "Init", "Shutdown"):
        client(f"n.nvml{call}()")
    assert client("n.nvmlDeviceGetCount()") == 1, "inits are counted"
    client("n.nvmlShutdown()")
    assert client("n.nvmlDeviceGetCount()") == error("UNINITIALIZED")
    assert client("n.nvmlErrorString(15)") == "GPU is lost"


def test_no_permission(start):
    machine = Machine.of("a100")
    client = start(machine)
    machine.fault("error:NO_PERMISSION", 0)
    assert client("h(0)") == error("NO_PERMISSION")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("gpu.0.temprature.core = 40", "unknown key: gpu.0.temprature.core"),
        ("gpu.0.temperature.core = warm", "this value cannot be: warm"),
        ("gpu.0.temperature.core = sine:1:2:0", "this value cannot be: sine:1:2:0"),
        ("gpu.0.fault = error:GPU_IS_LOSST", "this value cannot be: error:GPU_IS_LOSST"),
        ("function.nvmlDeviceGetPowerUse = block", "unknown key: function.nvmlDeviceGetPowerUse"),
        ("event.9 = gpu=0", "this value cannot be: gpu=0"),
        ("gpu.0.process.1 = compute ram=1", "this value cannot be: compute ram=1"),
        ("gpu.99.name = x", "unknown key: gpu.99.name"),
        ("gpu.5.name = x", "a GPU needs: gpu.5.uuid"),
        ("gpu.0.name = x", "this key is there twice: gpu.0.name"),
        ("gpu.0.name", "not KEY = VALUE"),
    ],
)
def test_a_typo_is_loud(start, tmp_path, line, says):
    machine = Machine.of("a100")
    machine.write(tmp_path)
    client = start(machine, init=False)
    with (tmp_path / "scenario").open("a") as file:
        file.write(f"{line}\n")
    assert client("n.nvmlInit()") == error("UNKNOWN")
    assert says in client.end()


def test_a_typo_in_a_running_scenario_is_loud_too(start):
    machine = Machine.of("a100")
    client = start(machine)
    machine.set(0, "power.use", 1)
    assert client("n.nvmlDeviceGetPowerUsage(h())") == error("UNKNOWN")
    machine.reset(0, "power.use")
    assert client("n.nvmlDeviceGetPowerUsage(h())") == 311000
    assert client.end().count("unknown key") == 1


# -- processes and MIG --------------------------------------------------------------------------
def test_processes(start):
    machine = Machine.of("rtx4090")
    client = start(machine)
    before = client("n.nvmlDeviceGetMemoryInfo(h())")["used"]
    assert client("n.nvmlDeviceGetComputeRunningProcesses(h())") == []
    assert client("n.nvmlDeviceGetProcessUtilization(h(), 0)") == error("NOT_FOUND")
    with machine.together():
        machine.add_process(0, 4711, Process(memory=3 << 30, sm=80, mem=20))
        machine.add_process(0, 815, Process("graphics", memory=None))
    compute = client("n.nvmlDeviceGetComputeRunningProcesses(h())")
    none = 0xFFFFFFFF
    assert compute == [{"pid": 4711, "usedGpuMemory": 3 << 30, "gpuInstanceId": none, "computeInstanceId": none}]
    assert client("n.nvmlDeviceGetGraphicsRunningProcesses(h())")[0]["usedGpuMemory"] is None
    assert client("n.nvmlDeviceGetMPSComputeRunningProcesses(h())") == []
    samples = {sample["pid"]: sample for sample in client("n.nvmlDeviceGetProcessUtilization(h(), 0)")}
    assert (samples[4711]["smUtil"], samples[4711]["memUtil"], samples[815]["smUtil"]) == (80, 20, 0)
    assert client("n.nvmlDeviceGetMemoryInfo(h())")["used"] == before + (3 << 30)
    machine.remove_process(0, 4711)
    assert client("n.nvmlDeviceGetComputeRunningProcesses(h())") == []
    assert client("n.nvmlDeviceGetMemoryInfo(h())")["used"] == before


def test_a_process_list_that_grew_meanwhile(start):
    machine = Machine.of("a100")
    machine.add_process(0, 1)
    client = start(machine)
    machine.shorten_process_list(0)
    assert client("n.nvmlDeviceGetComputeRunningProcesses(h())") == error("INSUFFICIENT_SIZE")
    assert [process["pid"] for process in client("n.nvmlDeviceGetComputeRunningProcesses(h())")] == [1]


def test_mig_instances_and_their_processes(start):
    machine = Machine.of("a100", "rtx4090")
    machine.partition(0, "3g.20gb", "2g.10gb", "2g.10gb")
    machine.add_process(0, 100, Process(memory=2 << 30, mig=1))
    client = start(machine)
    assert client("n.nvmlDeviceGetMigMode(h())") == [1, 1]
    assert client("n.nvmlDeviceGetMaxMigDeviceCount(h())") == 7
    assert client("n.nvmlDeviceGetMaxMigDeviceCount(h(1))") == 0
    assert client("m(0, 1)") == UNSUPPORTED
    assert client("m(3)") == error("NOT_FOUND")
    assert [client(f"n.nvmlDeviceGetGpuInstanceId(m({index}))") for index in range(3)] == [1, 3, 4]
    assert client("n.nvmlDeviceGetComputeInstanceId(m(0))") == 0
    assert client("n.nvmlDeviceGetName(m(0))") == "NVIDIA A100-SXM4-40GB MIG 3g.20gb"
    uuids = [client(f"n.nvmlDeviceGetUUID(m({index}))") for index in range(3)]
    assert len(set(uuids)) == 3
    assert all(uuid.startswith("MIG-") for uuid in uuids)
    assert client(f"n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByUUID(b'{uuids[1]}'))") == uuids[1]
    attributes = client("n.nvmlDeviceGetAttributes_v2(m(0))")
    assert (attributes["memorySizeMB"], attributes["gpuInstanceSliceCount"]) == (19968, 3)
    assert attributes["multiprocessorCount"] == 42
    memory = [client(f"n.nvmlDeviceGetMemoryInfo(m({index}))") for index in (0, 1)]
    assert memory[1]["used"] - memory[0]["used"] == 2 << 30
    assert [len(client(f"n.nvmlDeviceGetComputeRunningProcesses({handle})")) for handle in ("m(0)", "m(1)", "h()")] == [
        0, 1, 1,
    ]  # fmt: skip
    process = client("n.nvmlDeviceGetComputeRunningProcesses(m(1))")[0]
    assert (process["pid"], process["gpuInstanceId"], process["computeInstanceId"]) == (100, 3, 0)
    assert client("n.nvmlDeviceIsMigDeviceHandle(m(0))") == 1
    assert client("n.nvmlDeviceGetIndex(n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(m(0)))") == 0
    for call in ("UtilizationRates(h())", "PowerUsage(m(0))", "ProcessUtilization(h(), 0)", "GpuInstanceId(h())"):
        assert client(f"n.nvmlDeviceGet{call}") == UNSUPPORTED, call
    machine.partition(0)
    assert client("n.nvmlDeviceGetUtilizationRates(h())")["gpu"] == 87
    assert client("m(0)") == error("NOT_FOUND")


# -- NVAPI --------------------------------------------------------------------------------------
class Thermals(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("mask", ctypes.c_int32), ("values", ctypes.c_int32 * 40))


class Nvapi:
    """What LACT does."""

    INITIALIZE, ENUM_GPUS, BUS_ID, THERMALS = 0x0150E828, 0xE5AC921F, 0x1BE0B8E5, 0x65FE3AAD

    def __init__(self, libraries: Path) -> None:
        self.query = ctypes.CDLL(str(libraries / "libnvidia-api.so.1")).nvapi_QueryInterface
        self.query.restype, self.query.argtypes = ctypes.c_void_p, [ctypes.c_uint32]

    def call(self, function: int, *arguments) -> int:
        return ctypes.CFUNCTYPE(ctypes.c_int32)(self.query(function))(*arguments)

    def gpus(self) -> dict[int, ctypes.c_void_p]:
        handles, count, bus = (ctypes.c_void_p * 64)(), ctypes.c_uint32(), ctypes.c_uint32()
        if self.call(self.ENUM_GPUS, handles, ctypes.byref(count)) != 0:
            return {}
        found = {}
        for handle in map(ctypes.c_void_p, handles[: count.value]):
            assert self.call(self.BUS_ID, handle, ctypes.byref(bus)) == 0
            found[bus.value] = handle
        return found

    def read(self, gpu: ctypes.c_void_p, mask: int) -> list[float] | None:
        thermals = Thermals(0x000200A8, mask)
        status = self.call(self.THERMALS, gpu, ctypes.byref(thermals))
        return None if status != 0 else [value / 256 for value in thermals.values]


@pytest.fixture
def nvapi(libraries, tmp_path, monkeypatch):
    monkeypatch.setenv("SIMULATED_GPU", str(tmp_path / "scenario"))
    return Nvapi(libraries)


def test_nvapi_gives_the_temperatures_of_geforce_cards(nvapi, tmp_path):
    machine = Machine.of("rtx3090", "rtx5090", "a100")
    machine.heat(0, core=60, hotspot=83.5, memory=94)
    machine.heat(1, core=55, hotspot=70, memory=78)
    machine.write(tmp_path)
    assert nvapi.query(0x12345678) is None
    assert nvapi.call(nvapi.INITIALIZE) == 0
    gpus = nvapi.gpus()
    assert sorted(gpus) == [0x01, 0x25, 0x41]
    assert nvapi.read(gpus[0x01], 1 << 16) is None, "a sensor beyond the last one"
    assert nvapi.read(gpus[0x01], 0x1FFFF) is None, "and the whole mask with it"
    values = nvapi.read(gpus[0x01], 0xFFFF)
    assert (values[9], values[15]) == (83.5, 94)
    values = nvapi.read(gpus[0x25], 0xFFFF)
    assert (values[9], values[10], values[15]) == (55, 78, 0), "Blackwell has the core at 9, GDDR7 at 10"
    assert nvapi.read(gpus[0x41], 1) is None
    machine.set(0, "nvapi.sensors", "unsupported")
    assert nvapi.read(gpus[0x01], 1) is None
    machine.lose(1)
    assert nvapi.read(gpus[0x25], 1) is None
    machine.unload_driver()
    assert nvapi.call(nvapi.INITIALIZE) == -6
    assert nvapi.gpus() == {}


# -- the PCI bus --------------------------------------------------------------------------------
def device(directory: Path, bus: str = "01") -> Path:
    return directory / f"sys/bus/pci/devices/0000:{bus}:00.0"


def words(directory: Path, offsets: list[int]) -> list[int]:
    data = (device(directory) / "resource0").read_bytes()
    return [struct.unpack_from("<I", data, offset)[0] for offset in offsets]


def test_sysfs_is_as_the_kernel_has_it(tmp_path):
    machine = Machine.of("rtx4090", "a100")
    machine.write(tmp_path)
    card = device(tmp_path)
    expected = {
        "vendor": "0x10de",
        "device": "0x2684",
        "class": "0x030000",
        "current_link_speed": "16.0 GT/s PCIe",
        "max_link_width": "16",
        "numa_node": "0",
    }
    assert {name: (card / name).read_text().strip() for name in expected} == expected
    assert (card / "driver").resolve().name == "nvidia"
    sound = card.with_name("0000:01:00.1")
    assert (sound / "class").read_text() == "0x040300\n"
    start, end, _flags = (int(part, 16) for part in (card / "resource").read_text().splitlines()[0].split())
    assert end - start + 1 == (card / "resource0").stat().st_size == 16 << 20
    assert (card / "resource0").stat().st_blocks * 512 < 1 << 20, "sparse"
    machine.raise_aer(0, "correctable", "BadTLP", 3)
    machine.raise_aer(0, "fatal", "DLP")
    assert "BadTLP 3\n" in (card / "aer_dev_correctable").read_text()
    assert (card / "aer_dev_correctable").read_text().endswith("TOTAL_ERR_COR 3\n")
    assert (card / "aer_dev_fatal").read_text().endswith("TOTAL_ERR_FATAL 1\n")
    assert (card / "aer_dev_nonfatal").read_text().endswith("TOTAL_ERR_NONFATAL 0\n")
    with pytest.raises(ValueError, match="BadTPL"):
        machine.raise_aer(0, "correctable", "BadTPL")
    machine.bind(0, "vfio-pci")
    assert (card / "driver").resolve().name == (sound / "driver").resolve().name == "vfio-pci"
    machine.bind(0, None)
    assert not (card / "driver").exists()
    machine.remove(0)
    assert sorted(path.name for path in card.parent.iterdir()) == ["0000:25:00.0"]
    machine.insert(0)
    assert card.exists()


@pytest.mark.parametrize("model", ["rtx3090", "rtx4090"])
def test_registers_of_ampere_and_ada(tmp_path, model):
    machine = Machine.of(model)
    machine.write(tmp_path)
    for hotspot, memory in ((83, 94.5), (105, 110)):
        machine.heat(0, hotspot=hotspot, memory=memory)
        vram, spot = words(tmp_path, [0xE2A8, 0x2046C])
        assert ((vram & 0xFFF) / 32, spot >> 8 & 0xFF) == (memory, hotspot)


def test_registers_of_blackwell(tmp_path):
    machine = Machine.of("rtx5090")
    machine.heat(0, hotspot=81.5, memory=88)
    machine.write(tmp_path)
    spots = [word for word in words(tmp_path, [0xAD0A90 + 4 * i for i in range(6)]) if word >> 30 & 1]
    assert len(spots) == 5
    assert max((word & 0xFFFF) / 256 for word in spots) == 81.5
    modules = zip(
        words(tmp_path, [0x9024C0 + 0x4000 * i for i in range(16)]),
        words(tmp_path, [0x9024D0 + 0x4000 * i for i in range(16)]),
        strict=True,
    )
    good = [2 * (word >> 16 & 0xFF) - 40 for word, valid in modules if word >> 16 != 0xBADF and valid >> 24 & 0xF == 15]
    assert (len(good), max(good)) == (8, 88)


def test_registers_of_a_dead_card_and_of_blocked_ones(tmp_path):
    machine = Machine.of("rtx4090")
    machine.write(tmp_path)
    with (device(tmp_path) / "resource0").open("rb") as kept:  # as a process that has it mapped

        def all_words() -> set[int]:
            kept.seek(0)
            return set(struct.unpack(f"<{(16 << 20) // 4}I", kept.read()))

        machine.lose(0)
        assert all_words() == {0xFFFFFFFF}
        assert (device(tmp_path) / "current_link_width").read_text() == "63\n"
        machine.bring_back(0)
        assert words(tmp_path, [0xE2A8])[0] & 0xFFF == 82 * 32
        assert len(all_words()) == 4, "nothing but zeros, the chip and two temperatures"
        machine.blind(0)
        assert words(tmp_path, [0xE2A8, 0x2046C]) == [0xBADF5040] * 2
        machine.blind(0, None)
        assert words(tmp_path, [0xE2A8])[0] & 0xFFF == 82 * 32


def test_cards_with_hbm_have_no_such_registers():
    assert gpu_sysfs.registers(MODELS["a100"], 70, 80) == {0: 0x170000A1}


# -- the libraries ------------------------------------------------------------------------------
def test_libraries_are_built_the_same_and_kept(tmp_path, libraries):
    for _ in range(2):
        simulation.build(tmp_path / "lib", cache=tmp_path / "cache")
    kept = [path for path in (tmp_path / "cache").rglob("*.so.1") if path.is_file()]
    assert sorted(path.name for path in kept) == ["libnvidia-api.so.1", "libnvidia-ml.so.1"]
    for path in kept:
        assert path.read_bytes() == (libraries / path.name).read_bytes()


def test_many_threads_and_a_changing_scenario(start):
    machine = Machine.of("a100", "h100")
    client = start(machine)
    client("keep(threading=__import__('threading'), bad=[])")
    client("keep(run=lambda: [n.nvmlDeviceGetMemoryInfo(h(i % 2)).total > 0 or bad.append(i) for i in range(2000)])")
    client("keep(threads=[threading.Thread(target=run) for _ in range(8)])")
    client.send("[t.start() for t in threads] and [t.join() for t in threads]")
    with contextlib.suppress(AssertionError):
        while not client.answers(0):
            machine.heat(0, core=40 + time.monotonic() % 30)
    assert client.receive() == [None] * 8
    assert client("bad") == []
