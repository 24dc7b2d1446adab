"""Tests of NVIDIA's simulated repositories, and of what the stand-ins for DCGM say of the simulated GPUs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys

import pytest
from gpufleet_lab import dcgm, machines
from gpufleet_lab.gpu import Machine

CARD = ("GPU_TEMP", "POWER_USAGE", "TOTAL_ENERGY_CONSUMPTION", "PCIE_LINK_GEN", "ECC_SBE_VOL_TOTAL", "driver")
OWN = ("FB_USED", "FB_FREE", "FB_TOTAL", "GR_ENGINE_ACTIVE")
READ = """
import json, sys
sys.path.insert(0, sys.argv[1])
from nvml_fields import Driver, known
print(json.dumps([Driver().gpus(), {version: known(version) for version in ("4.6.1", "4.7.1")}]))
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("mirror")
    dcgm.publish(root)
    return root / dcgm.REPOSITORY / "debian12/x86_64"


@pytest.fixture
def read(tmp_path):
    """What the stand-ins read of a machine's GPUs, and the names that they have for it."""

    def entities(machine):
        machine.write(tmp_path)
        environment = {
            **os.environ,
            "SIMULATED_GPU": str(tmp_path / "scenario"),
            "LD_LIBRARY_PATH": str(machines.libraries()),
        }
        command = [sys.executable, "-c", READ, str(dcgm.PROGRAMS)]
        done = subprocess.run(command, env=environment, text=True, capture_output=True, check=True)
        return json.loads(done.stdout)

    return entities


@pytest.mark.parametrize(("key", "good"), [(dcgm.KEY, True), (dcgm.OTHER_KEY, False)])
def test_the_repository_is_signed_by_one_key_alone(repository, tmp_path, key, good):
    ring = tmp_path / "ring.gpg"
    gpg = ["gpg", "--homedir", str(tmp_path), "--batch", "--no-autostart"]
    subprocess.run([*gpg, "--output", ring, "--dearmor", repository / key], check=True, capture_output=True)
    for files in (["Release.gpg", "Release"], ["InRelease"]):
        verify = [*gpg, "--no-default-keyring", "--keyring", ring, "--verify", *(repository / name for name in files)]
        assert (subprocess.run(verify, capture_output=True).returncode == 0) == good


@pytest.mark.parametrize(("key", "good"), [(dcgm.RPM_KEY, True), (dcgm.OTHER_KEY, False)])
def test_rpms_are_signed_by_one_key_alone(repository, tmp_path, key, good):
    directory = repository.parents[1] / "rhel9/x86_64"
    rpmkeys = ["rpmkeys", "--dbpath", str(tmp_path), "--define", "_pkgverify_level all"]
    subprocess.run([*rpmkeys, "--import", directory / key], check=True, capture_output=True)
    files = list(directory.glob("*.rpm"))
    assert len(files) == len(list(dcgm.packages())) + 1
    checks = [subprocess.run([*rpmkeys, "--checksig", file], capture_output=True) for file in files]
    assert {done.returncode == 0 for done in checks} == {good}


def test_every_file_is_what_its_index_says(repository):
    release = re.findall(r"^ (\w{64}) (\d+) (\S+)$", (repository / "Release").read_text(), re.MULTILINE)
    packages = re.findall(
        r"^Filename: (\S+)\nSize: (\d+)\nSHA256: (\w{64})$", (repository / "Packages").read_text(), re.MULTILINE
    )
    listed = {name: (int(size), checksum) for checksum, size, name in release}
    listed.update({name: (int(size), checksum) for name, size, checksum in packages})
    assert {"Packages", "Packages.gz"} < set(listed) and len(packages) == len(list(dcgm.packages()))
    for name, (size, checksum) in listed.items():
        content = (repository / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (size, checksum), name


def test_a_card_that_is_cut_is_there_as_its_instances_which_repeat_what_is_the_cards(read):
    machine = Machine.of("a100", "a100")
    machine.partition(1, "3g.20gb", "1g.5gb")
    entities, _ = read(machine)
    whole, first, second = entities
    assert [entity["labels"].get("GPU_I_PROFILE") for entity in entities] == [None, "3g.20gb", "1g.5gb"]
    assert {entity["labels"]["gpu"] for entity in (first, second)} == {"1"}
    assert all(first["values"][name] == second["values"][name] for name in CARD)
    assert first["values"]["FB_TOTAL"] > second["values"]["FB_TOTAL"]
    assert set(CARD + OWN) <= set(first["values"])
    assert "GPU_UTIL" in whole["values"] and "GPU_UTIL" not in first["values"]


def test_an_old_card_retires_pages_and_a_newer_one_replaces_rows(read):
    machine = Machine.of("v100", "a100")
    machine.set(0, "retired_pages.double_bit", 2)
    (old, new), _ = read(machine)
    assert (old["values"]["RETIRED_SBE"], old["values"]["RETIRED_DBE"]) == (0, 2)
    assert "CORRECTABLE_REMAPPED_ROWS" not in old["values"]
    assert "RETIRED_DBE" not in new["values"] and new["values"]["CORRECTABLE_REMAPPED_ROWS"] == 0


def test_units_change_with_the_names(read):
    _, known = read(Machine.of("a100"))
    assert "DCGM_FI_DEV_FB_USED_BYTES" not in known["4.6.1"]
    assert known["4.7.1"]["DCGM_FI_DEV_FB_USED_BYTES"] == ["FB_USED", 1 << 20]
    # The trap: a name that DCGM had before its unit changed.
    assert known["4.6.1"]["DCGM_FI_DEV_GPU_UTIL_RATIO"] == ["GPU_UTIL", 1]
    assert known["4.7.1"]["DCGM_FI_DEV_GPU_UTIL_RATIO"] == ["GPU_UTIL", 0.01]
    assert known["4.7.1"]["DCGM_FI_DEV_GPU_UTIL"] == ["GPU_UTIL", 1]
