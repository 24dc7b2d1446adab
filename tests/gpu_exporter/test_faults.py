"""What goes wrong on a GPU worker at 3 a.m., done to a running exporter: it says so, and the rest goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from gpufleet_lab import gpu
from gpufleet_lab.gpu import Machine


def up(metrics, collector):
    return metrics.value("gpu_exporter_collector_up", collector=collector)


def good(metrics):
    return all(up(metrics, name) == 1 for name in ("gpu", "dcgm", "presence", "xid", "system"))


def state(metrics, **labels):
    """The state that a GPU is in, and its reason."""
    ((found, _),) = metrics.series("gpu_state_info", **labels)
    return found["state"], found.get("reason", "")


def in_state(name, **labels):
    return lambda metrics: (
        bool(metrics.series("gpu_state", state=name, **labels))
        and (metrics.value("gpu_state", state=name, **labels) == 1)
    )


# -- a driver that blocks -----------------------------------------------------------------------
def test_nvml_that_blocks_for_ever_is_left_and_found_again(exporter):
    machine = Machine.of("a100", "a100")
    running = exporter(machine)
    running.wait(good)
    machine.block()
    began = time.monotonic()
    while time.monotonic() - began < 5:  # over the deadline, the new process and its next try
        scraped = time.monotonic()
        metrics = running.metrics()
        assert time.monotonic() - scraped < 0.5  # no scrape waits for a driver
        assert up(metrics, "system") == 1  # and no other collector
        time.sleep(0.05)
    blocked = running.wait(in_state("unresponsive", gpu="0"))
    assert blocked.value("gpu_exporter_worker_restarts_total", reason="deadline") >= 1
    assert up(blocked, "gpu") == 0
    assert blocked.series("gpu_power_watts") == []  # what is old is not served
    assert blocked.value("dc_exporter_gpu_count") == 2
    assert running.health()[0] == 200
    machine.unblock()
    healed = running.wait(lambda metrics: good(metrics) and in_state("ok", gpu="0")(metrics))
    assert healed.value("gpu_power_watts", gpu="0")


def test_a_gpu_that_blocks_takes_no_other_along(exporter):
    machine = Machine.of("a100", "a100", "a100")
    running = exporter(machine)
    running.wait(good)
    machine.block(1, "nvmlDeviceGetPowerUsage")
    metrics = running.wait(in_state("unresponsive", gpu="1"))
    assert metrics.values("gpu_state", state="unresponsive") == [0, 1, 0]

    def others(metrics):
        return [labels["gpu"] for labels, _ in metrics.series("gpu_power_watts")] == ["0", "2"]

    metrics = running.wait(others)
    assert metrics.series("DCGM_FI_DEV_GPU_TEMP", gpu="1") == []
    assert up(metrics, "system") == 1
    machine.unblock(1, "nvmlDeviceGetPowerUsage")
    running.wait(lambda metrics: len(metrics.values("gpu_power_watts")) == 3, 30)
    running.wait(in_state("ok", gpu="1"))


def test_a_slow_driver_is_no_fault(exporter):
    machine = Machine.of("a100")
    machine.fault("slow:100", 0, "nvmlDeviceGetPowerUsage")
    metrics = exporter(machine).wait(good)
    assert metrics.value("gpu_exporter_worker_restarts_total", reason="deadline") == 0


# -- a GPU that goes ----------------------------------------------------------------------------
def test_a_lost_gpu_is_a_metric_and_hides_no_other(exporter):
    machine = Machine.of("a100", "a100")
    running = exporter(machine)
    running.wait(good)
    machine.lose(1)
    lost = running.wait(in_state("lost", gpu="1"))
    assert "lost" in state(lost, gpu="1")[1]
    assert lost.value("dc_exporter_gpu_available", gpu="1") == 0
    assert lost.value("dc_exporter_gpu_available", gpu="0") == 1
    assert lost.value("dc_exporter_gpu_count") == 2
    assert lost.value("gpu_power_watts", gpu="0") > 0
    assert running.wait(lambda metrics: metrics.series("gpu_power_watts", gpu="1") == [])
    machine.bring_back(1)
    back = running.wait(in_state("ok", gpu="1"))
    assert running.wait(lambda metrics: metrics.series("gpu_power_watts", gpu="1"))
    assert back.value("gpu_exporter_worker_restarts_total", reason="exited") == 0


def test_a_gpu_that_falls_off_the_bus_keeps_its_name(exporter):
    machine = Machine.of("a100", "a100")
    running = exporter(machine)
    running.wait(good)
    with machine.together():
        machine.lose(1)
        machine.remove(1)
    metrics = running.wait(in_state("lost", gpu="1"))
    assert state(metrics, gpu="1") == ("lost", "it is no longer on the PCI bus")
    assert metrics.value("dc_exporter_gpu_count") == 2
    ((labels, _),) = metrics.series("dc_exporter_gpu_available", gpu="1")
    assert labels["UUID"] == machine.gpus[1].uuid


def test_a_gpu_given_to_a_virtual_machine_is_no_failure_and_has_no_values(exporter):
    machine = Machine.of("rtx4090", "rtx3090")
    machine.bind(1, "vfio-pci")
    metrics = exporter(machine).wait(good)
    bus_id = machine.gpus[1].bus_id
    assert state(metrics, pci_bus_id=bus_id) == ("passthrough", "bound to vfio-pci for a virtual machine")
    assert metrics.value("dc_exporter_gpu_available", pci_bus_id=bus_id) == 0
    assert metrics.series("DCGM_FI_DEV_VRAM_TEMP", pci_bus_id=bus_id) == []
    assert metrics.value("DCGM_FI_DEV_VRAM_TEMP", gpu="0") > 0


# -- the driver ---------------------------------------------------------------------------------
def test_a_driver_that_was_upgraded_under_it(exporter, tmp_path):
    libraries = gpu.build(tmp_path / "lib")
    machine = Machine.of("a100", driver_version="575.57.08")
    running = exporter(machine, libraries=libraries)
    running.wait(good)
    machine.mismatch()
    metrics = running.wait(in_state("driver_mismatch", gpu="0"))
    assert metrics.value("gpu_nvml_up", reason="driver_mismatch") == 0
    # A package puts a new file under the old name; then the module is loaded anew.
    shutil.copy(libraries / "libnvidia-ml.so.1", tmp_path / "new")
    (tmp_path / "new").rename(libraries / "libnvidia-ml.so.1")
    machine.load_driver()
    machine.upgrade_driver("615.43.02")
    new = running.wait(lambda metrics: metrics.series("gpu_power_watts", driver_version="615.43.02"))
    assert new.value("gpu_power_watts", driver_version="575.57.08") is None
    assert in_state("ok", gpu="0")(running.wait(good))


def test_a_library_that_is_installed_later(exporter, tmp_path):
    libraries = tmp_path / "lib"
    libraries.mkdir()
    machine = Machine.of("a100")
    running = exporter(machine, libraries=libraries)
    bus_id = machine.gpus[0].bus_id
    metrics = running.wait(in_state("no_driver", pci_bus_id=bus_id))
    assert metrics.value("gpu_nvml_up", reason="no_library") == 0
    assert running.health()[0] == 200
    gpu.build(libraries)
    running.wait(in_state("ok", pci_bus_id=bus_id))


def test_a_driver_that_is_unloaded_and_loaded(exporter):
    machine = Machine.of("a100")
    running = exporter(machine)
    running.wait(good)
    machine.unload_driver()
    running.wait(in_state("no_driver", gpu="0"))
    machine.load_driver()
    running.wait(lambda metrics: good(metrics) and in_state("ok", gpu="0")(metrics))


def test_a_driver_that_may_not_be_asked(exporter):
    machine = Machine.of("a100")
    machine.fault("error:NO_PERMISSION")
    running = exporter(machine)
    metrics = running.wait(lambda metrics: metrics.value("gpu_nvml_up", reason="no_permission") == 0)
    assert up(metrics, "system") == 1


# -- XID ----------------------------------------------------------------------------------------
def test_the_first_xid_counts(exporter):
    machine = Machine.of("a100", "a100")
    running = exporter(machine)
    before = running.wait(good)
    assert before.value("gpu_xid_errors_total", gpu="1", xid="79") == 0
    assert before.value("DCGM_FI_DEV_XID_ERRORS", gpu="1") == 0
    began = time.time()
    machine.xid(1, 79)
    after = running.wait(lambda metrics: metrics.value("gpu_xid_errors_total", gpu="1", xid="79") == 1)
    assert after.value("gpu_xid_errors_total", gpu="0", xid="79") == 0
    assert after.value("DCGM_FI_DEV_XID_ERRORS", gpu="1") == 79
    assert began - 1 <= after.value("gpu_xid_last_timestamp_seconds", gpu="1", xid="79") <= time.time()
    machine.xid(1, 1234)  # one that nobody has heard of
    running.wait(lambda metrics: metrics.value("gpu_xid_errors_total", gpu="1", xid="1234") == 1)


def test_the_xid_with_which_a_gpu_goes_is_not_lost_with_it(exporter):
    machine = Machine.of("a100", "a100")
    running = exporter(machine)
    running.wait(good)
    with machine.together():
        machine.lose(0)
        machine.xid(0, 79)
        machine.xid(1, 31)
    metrics = running.wait(lambda metrics: metrics.value("gpu_xid_errors_total", gpu="1", xid="31") == 1)
    assert metrics.value("gpu_xid_errors_total", gpu="0", xid="79") == 1


def test_the_kernels_log_tells_what_nvml_cannot(exporter, tmp_path):
    log = tmp_path / "kmsg"
    log.write_text("")
    machine = Machine.of("a100")
    running = exporter(machine, xid={"kernel_log": True, "kernel_log_path": str(log)})
    running.wait(good)
    machine.block()
    running.wait(in_state("unresponsive", gpu="0"))
    bus_id = machine.gpus[0].bus_id.rpartition(".")[0]
    with log.open("a") as file:
        file.write(f"3,7,1000,-;NVRM: Xid (PCI:{bus_id}): 79, GPU has fallen off the bus.\n")
    # The series is the one that was 0 before: only so does an increase show.
    version = {"driver_version": machine.driver_version, "UUID": machine.gpus[0].uuid}
    running.wait(lambda metrics: metrics.value("gpu_xid_errors_total", xid="79", **version) == 1)
    machine.unblock()
    machine.xid(0, 79)  # NVML tells of the same one, late
    time.sleep(2)
    assert running.metrics().value("gpu_xid_errors_total", xid="79") == 1


def test_counters_go_on_when_the_sampler_is_replaced(exporter):
    machine = Machine.of("a100")
    running = exporter(machine)
    running.wait(good)
    machine.xid(0, 48)
    machine.set(0, "clock.event_reasons", 0x80)
    running.wait(lambda metrics: metrics.value("gpu_xid_errors_total", xid="48") == 1)
    before = running.wait(lambda metrics: metrics.value("gpu_throttled_seconds_total", reason="hw_power_brake") > 0.5)
    running.kill_sampler()
    after = running.wait(lambda metrics: metrics.value("gpu_exporter_worker_restarts_total", reason="exited") == 1)
    after = running.wait(
        lambda metrics: (
            good(metrics)
            and metrics.value("gpu_throttled_seconds_total", reason="hw_power_brake")
            > before.value("gpu_throttled_seconds_total", reason="hw_power_brake")
        )
    )
    assert after.value("gpu_xid_errors_total", xid="48") == 1


# -- its own processes --------------------------------------------------------------------------
def test_a_sampler_that_is_killed_is_replaced_and_values_stay_meanwhile(exporter):
    running = exporter(Machine.of("a100"))
    running.wait(good)
    before = running.sampler()
    running.kill_sampler()
    for _ in range(5):
        assert running.metrics().value("gpu_power_watts") > 0
    running.wait(
        lambda metrics: metrics.value("gpu_exporter_worker_restarts_total", reason="exited") == 1 and good(metrics)
    )
    assert running.sampler() != before


def test_no_sampler_outlives_its_server(exporter):
    running = exporter(Machine.of("a100"))
    running.wait(good)
    sampler = running.sampler()
    running.stop()
    end = time.monotonic() + 5
    while time.monotonic() < end and Path(f"/proc/{sampler}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{sampler}").exists()


def test_a_sampler_that_is_stopped_is_replaced(exporter):
    """As good as held by the kernel: it does not run, and says nothing, be it in a reading or between two."""
    running = exporter(Machine.of("a100"))
    running.wait(good)
    sampler = running.sampler()
    os.kill(sampler, signal.SIGSTOP)
    running.wait(lambda metrics: metrics.value("gpu_exporter_worker_restarts_total", reason="deadline") == 1)
    assert not Path(f"/proc/{sampler}").exists()
    running.wait(good)


def test_a_wrong_configuration_is_refused_before_anything_listens(program, tmp_path):
    (tmp_path / "config.toml").write_text("[gpu]\nintervall = 3\n")
    command = ["/usr/bin/python3", "-I", program, "--config", tmp_path / "config.toml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert done.returncode == 2
    assert "line 2: unknown key in [gpu]: intervall; did you mean interval?" in done.stderr


def test_a_port_that_is_taken_is_named(program, exporter, tmp_path):
    running = exporter(Machine.of("none"))
    (tmp_path / "other.toml").write_text(f'[server]\naddress = "127.0.0.1"\nport = {running.port}\n')
    command = ["/usr/bin/python3", "-I", program, "--config", tmp_path / "other.toml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{running.port}" in done.stderr


# -- files --------------------------------------------------------------------------------------
def test_sysfs_files_that_are_missing_or_strange_hide_nothing_else(exporter, tmp_path):
    machine = Machine.of("a100", "a100")
    machine.raise_aer(1, "correctable", "RxErr", 3)
    running = exporter(machine)
    metrics = running.wait(lambda metrics: metrics.value("GPU_AER_ERROR_STATE", gpu="1") == 1)
    assert metrics.value("GPU_AER_TOTAL_ERRORS", gpu="1", severity="correctable", type="RxErr") == 3
    assert metrics.value("GPU_AER_ERROR_STATE", gpu="0") == 0
    device = tmp_path / "sys/bus/pci/devices" / machine.gpus[0].bus_id
    (device / "aer_dev_correctable").unlink()
    (device / "aer_dev_fatal").write_text("garbage\n")
    metrics = running.wait(lambda metrics: not metrics.series("GPU_AER_TOTAL_ERRORS", gpu="0", severity="correctable"))
    assert metrics.value("GPU_AER_TOTAL_ERRORS", gpu="1", severity="correctable", type="RxErr") == 3
    assert running.wait(
        lambda metrics: metrics.value("gpu_exporter_collector_partial_failures_total", collector="pcie") > 0
    )
    assert up(running.metrics(), "pcie") == 1


def test_a_register_file_that_may_not_be_read_is_counted_and_hides_nothing(exporter, tmp_path):
    machine = Machine.of("rtx4090")
    machine.gpus[0].readings["nvapi.sensors"] = "unsupported"
    running = exporter(machine)
    running.wait(lambda metrics: metrics.series("DCGM_FI_DEV_VRAM_TEMP", source="bar0"))
    shutil.rmtree(tmp_path / "sys/bus/pci/devices" / machine.gpus[0].bus_id / "resource0", ignore_errors=True)
    (tmp_path / "sys/bus/pci/devices" / machine.gpus[0].bus_id / "resource0").unlink(missing_ok=True)
    gone = running.wait(lambda metrics: metrics.series("DCGM_FI_DEV_VRAM_TEMP") == [])
    assert gone.value("DCGM_FI_DEV_GPU_TEMP") == 61
    assert gone.value("gpu_exporter_collector_partial_failures_total", collector="gpu") > 0


# -- time ---------------------------------------------------------------------------------------
@pytest.fixture
def clock(tmp_path):
    """A wall clock that can be turned: (environment, turn(seconds))."""
    library, offset = tmp_path / "clock.so", tmp_path / "offset"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}, lambda seconds: offset.write_text(f"{seconds}\n")


@pytest.mark.parametrize("seconds", [86400, -86400])
def test_a_clock_that_jumps_neither_hides_values_nor_keeps_old_ones(exporter, clock, seconds):
    environment, turn = clock
    machine = Machine.of("a100")
    running = exporter(machine, environment=environment)
    running.wait(good)
    turn(seconds)
    for _ in range(10):
        metrics = running.metrics()
        assert metrics.value("gpu_power_watts") > 0
        assert 0 <= metrics.value("gpu_exporter_collector_age_seconds", collector="gpu") < 3
        time.sleep(0.1)
    stamp = running.metrics().value("gpu_exporter_collector_last_success_timestamp_seconds", collector="gpu")
    assert stamp == pytest.approx(time.time() + seconds, abs=60)
    machine.block()
    running.wait(lambda metrics: metrics.series("gpu_power_watts") == [])


# -- many who ask -------------------------------------------------------------------------------
def test_clients_that_never_read_do_not_keep_others_from_reading(exporter):
    running = exporter(Machine.of("a100"))
    running.wait(good)
    idle = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(60)]
    try:
        assert good(running.metrics())
    finally:
        for connection in idle:
            connection.close()


def test_connections_that_say_nothing_do_not_keep_prometheus_out(exporter):
    """Any container of a host reaches its ports; what it opens and feeds drop by drop must not be all there is."""
    running = exporter(Machine.of("a100"))
    running.wait(good)
    with contextlib.ExitStack() as held:
        for _ in range(300):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=5))
            with contextlib.suppress(OSError):
                connection.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        for _ in range(5):
            assert running.metrics().values("gpu_power_watts")
