"""Which GPUs a word of the command line means, by the names that dashboards, nvidia-smi and Docker have for them."""

from __future__ import annotations

import pytest
from gpufleet.gpu_exporter.inventory import Gpu, Inventory, MigInstance
from gpufleet.gpu_stress import backends, devices
from gpufleet.gpu_stress.exits import Exit, Refused

MIGS = tuple(MigInstance(f"MIG-{number}", 7 + number, 0, "1g.5gb") for number in range(2))
MACHINE = Inventory(
    gpus=(
        Gpu(0, "GPU-aaaaaaaa-0", "0000:01:00.0", 0, "A100"),
        Gpu(1, "GPU-bbbbbbbb-1", "0000:25:00.0", 1, "A100", True, MIGS),
        Gpu(2, "GPU-cccccccc-2", "0000:41:00.0", 2, "A100", True),
    )
)


def names(*words):
    return [target.name for target in devices.choose(words, MACHINE)]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("0", ["0"]), ("GPU-aaaaaaaa-0", ["0"]), ("gpu-AAAAAAAA-0", ["0"]), ("GPU-aaaaaaaa", ["0"]),
        ("MIG-1", ["1.1"]), ("1:1", ["1.1"]), ("1.1", ["1.1"]),
        ("1", ["1.0", "1.1"]), ("GPU-bbbbbbbb-1", ["1.0", "1.1"]), ("all", ["0", "1.0", "1.1"]),
    ],
)  # fmt: skip
def test_every_way_to_name_one(word, meant):
    assert names(word) == meant


def test_one_that_is_named_twice_gets_one_load():
    assert names("0", "all", "GPU-aaaaaaaa-0") == ["0", "1.0", "1.1"]


@pytest.mark.parametrize("word", ["7", "1:5", "0:0", "GPU-dddddddd", "MIG-9", "-1", "x"])
def test_one_that_is_not_there_is_named_with_those_that_are(word):
    with pytest.raises(Refused, match=r"there is no such .* There are: 0 \(GPU-aaaaaaaa-0\), 1.0 \(MIG-0\)") as refused:
        devices.choose([word], MACHINE)
    assert refused.value.status == Exit.USAGE


def test_mig_mode_without_mig_devices_has_nothing_to_put_a_load_on():
    with pytest.raises(Refused, match="GPU 2 is in MIG mode and has no MIG device"):
        devices.choose(["2"], MACHINE)


def test_a_lost_gpu_is_said_to_be_lost():
    lost = Inventory(gpus=MACHINE.gpus, lost={"0000:01:00.0": "GPU is lost"})
    with pytest.raises(Refused, match="GPU 0 does not answer: GPU is lost") as refused:
        devices.choose(["0"], lost)
    assert refused.value.status == Exit.NO_NVML


def test_no_gpu_at_all():
    with pytest.raises(Refused, match="there is no GPU"):
        devices.choose(["all"], Inventory())


def test_a_directory_with_a_frameworks_name_is_no_framework(tmp_path, monkeypatch):
    (tmp_path / "cupy").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert "cupy" not in backends.installed("auto")
