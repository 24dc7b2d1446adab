"""What is served of healthy GPUs: every value that the card has, from the best source, and none that it has not."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from gpufleet_lab import mirror
from gpufleet_lab.gpu import Machine

CARD = {"gpu": "0"}


def good(metrics):
    """Whether all that asks NVML has been read."""
    return all(metrics.value("gpu_exporter_collector_up", collector=name) == 1 for name in ("gpu", "dcgm", "presence"))


@pytest.fixture
def scrape(exporter):
    """One scrape of an exporter with such cards: scrape("a100", ...)."""

    def read(*models):
        return exporter(Machine.of(*models)).wait(good)

    return read


def source(metrics, name):
    ((labels, value),) = metrics.series(name, **CARD)
    return labels["source"], value


def test_nvml_is_asked_first(scrape):
    metrics = scrape("h100")
    assert source(metrics, "DCGM_FI_DEV_VRAM_TEMP") == ("nvml", 82)
    assert source(metrics, "DCGM_FI_DEV_HOT_SPOT_TEMP") == ("nvml", 74)


def test_nvapi_is_asked_where_nvml_is_silent(scrape):
    metrics = scrape("rtx4090")
    assert source(metrics, "DCGM_FI_DEV_VRAM_TEMP") == ("nvapi", 82)
    assert source(metrics, "DCGM_FI_DEV_HOT_SPOT_TEMP") == ("nvapi", 74)


def test_registers_are_asked_where_both_are_silent(exporter):
    machine = Machine.of("rtx4090")
    machine.gpus[0].readings["nvapi.sensors"] = "unsupported"
    metrics = exporter(machine).wait(good)
    assert source(metrics, "DCGM_FI_DEV_VRAM_TEMP") == ("bar0", 82)
    assert source(metrics, "DCGM_FI_DEV_HOT_SPOT_TEMP") == ("bar0", 74)


def test_registers_that_answer_nonsense_give_no_value(exporter):
    machine = Machine.of("rtx4090")
    machine.gpus[0].readings["nvapi.sensors"] = "unsupported"
    machine.blind(0)
    metrics = exporter(machine).wait(good)
    assert metrics.series("DCGM_FI_DEV_VRAM_TEMP") == []
    assert metrics.series("DCGM_FI_DEV_HOT_SPOT_TEMP") == []
    assert metrics.value("DCGM_FI_DEV_GPU_TEMP", **CARD) == 61  # and the core does not stand in


def test_undocumented_ways_are_not_taken_unasked(exporter):
    machine = Machine.of("rtx4090")
    metrics = exporter(machine, gpu={"nvapi": False, "bar0": False}).wait(good)
    assert metrics.series("DCGM_FI_DEV_VRAM_TEMP") == []


def test_what_a_card_does_not_have_is_absent(scrape):
    metrics = scrape("h100")
    for name in ("gpu_fan_speed_ratio", "DCGM_FI_DEV_FAN_SPEED"):
        assert metrics.series(name) == []


def test_units_and_labels(exporter):
    machine = Machine.of("a100", driver_version="575.57.08")
    machine.set(0, "power.usage", 250000)
    machine.set(0, "clock.event_reasons", 0x4 | 0x40)
    metrics = exporter(machine).wait(good)
    ((labels, value),) = metrics.series("gpu_power_watts")
    assert value == 250
    assert metrics.value("DCGM_FI_DEV_POWER_USAGE") == 250
    assert labels["UUID"] == machine.gpus[0].uuid
    assert labels["pci_bus_id"] == machine.gpus[0].bus_id
    assert (labels["gpu"], labels["device"], labels["driver_version"]) == ("0", "nvidia0", "575.57.08")
    assert "A100" in labels["modelName"]
    assert metrics.value("gpu_throttled", reason="sw_power_cap") == 1
    assert metrics.value("gpu_throttled", reason="hw_thermal") == 1
    assert metrics.value("gpu_throttled", reason="hw_slowdown") == 0
    energy = metrics.value("gpu_energy_joules_total") * 1000
    assert metrics.value("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION") == pytest.approx(energy, rel=0.2, abs=500)


def test_time_spent_throttled_is_counted(exporter):
    machine = Machine.of("a100")
    running = exporter(machine)
    running.wait(good)
    assert running.metrics().value("gpu_throttled_seconds_total", reason="hw_power_brake") == 0
    machine.set(0, "clock.event_reasons", 0x80)
    running.wait(lambda metrics: metrics.value("gpu_throttled_seconds_total", reason="hw_power_brake") > 1)
    machine.set(0, "clock.event_reasons", 0)
    stopped = running.wait(lambda metrics: metrics.value("gpu_throttled", reason="hw_power_brake") == 0)
    assert 1 < stopped.value("gpu_throttled_seconds_total", reason="hw_power_brake") < 5
    assert stopped.value("gpu_throttled_seconds_total", reason="sw_thermal") == 0


def test_mig_instances_have_memory_and_names_of_their_own(exporter):
    machine = Machine.of("a100")
    machine.partition(0, "3g.20gb", "1g.5gb")
    metrics = exporter(machine).wait(good)
    info = {labels["GPU_I_PROFILE"]: labels for labels, _ in metrics.series("gpu_mig_instance_info")}
    assert set(info) == {"3g.20gb", "1g.5gb"}
    small = machine.gpus[0].mig[1]
    assert info["1g.5gb"]["mig_uuid"] == small.uuid
    assert info["1g.5gb"]["GPU_I_ID"] == str(small.gpu_instance)
    assert metrics.value("DCGM_FI_DEV_FB_USED", GPU_I_PROFILE="1g.5gb") == 24


def test_mig_may_change_while_it_runs(exporter):
    machine = Machine.of("a100")
    running = exporter(machine)
    assert running.wait(good).series("gpu_mig_instance_info") == []
    machine.partition(0, "2g.10gb")
    running.wait(lambda metrics: metrics.value("gpu_mig_instance_info", GPU_I_PROFILE="2g.10gb") == 1)
    machine.partition(0)
    running.wait(lambda metrics: metrics.series("gpu_mig_instance_info") == [])


def test_a_machine_without_gpus_says_so_and_is_well(exporter):
    running = exporter(Machine.of("none"))
    metrics = running.wait(lambda metrics: metrics.value("dc_exporter_gpu_count") is not None)
    assert metrics.value("dc_exporter_gpu_count") == 0
    assert running.health()[0] == 200


def test_prometheus_own_linter_finds_nothing_but_inherited_names(scrape, tmp_path):
    """Names and units of DCGM, dc-exporter and DS01 are promised; of our own names the linter has to approve."""
    text = scrape("rtx4090", "a100").text
    archive = next(Path(mirror.path()).rglob("prometheus-*.tar.gz"))
    subprocess.run(["tar", "-xzf", archive, "-C", tmp_path, "--strip-components=1"], check=True)
    done = subprocess.run([tmp_path / "promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if line.strip()]
    inherited = re.compile(
        r"(DCGM_FI_|GPU_AER_|SYS_|IPMI_|ds01_|dc_exporter_)|label names should be written in 'snake_case'"
    )
    assert [line for line in complaints if not inherited.search(line)] == []
    assert "error while linting" not in done.stderr
