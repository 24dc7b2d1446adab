"""DCGM on a host with dnf: what is the package manager's part of it. gpu3 has Debian's dnf, rpm and no apt;
its driver serves CUDA 12."""

from __future__ import annotations

from gpufleet_lab.waiting import eventually

EXPORTER = "nvidia-dcgm-exporter"
NAMES = ("datacenter-gpu-manager-4-core", "datacenter-gpu-manager-4-cuda12", "datacenter-gpu-manager-exporter")


def packages(sh):
    """Return name -> version."""
    lines = sh("gpu3", "rpm -qa --queryformat '%{NAME} %{VERSION}\\n' 'datacenter-gpu-manager*'").splitlines()
    return dict(line.split(" ") for line in lines)


def locks(sh):
    return set(sh("gpu3", "dnf --quiet versionlock list").splitlines())


def test_the_old_dcgm_made_way_and_the_versions_are_held(sh, port):
    assert packages(sh) == dict(zip(NAMES, ("4.6.1", "4.6.1", "4.8.4"), strict=True))
    versions = ("1:4.6.1-1.*", "1:4.6.1-1.*", "0:4.8.4-1.*")
    assert locks(sh) == {f"{name}-{version}" for name, version in zip(NAMES, versions, strict=True)}
    assert "DCGM_FI_DEV_GPU_UTIL" in port("gpu3").names()


def test_neither_the_repository_nor_its_key_stay_on_the_host(sh):
    assert "gpufleet" not in sh("gpu3", "dnf --quiet repolist --all", check=False)
    assert sh("gpu3", "rpm -qa 'gpg-pubkey*'") == ""
    assert sh("gpu3", "ls -d /opt/gpufleet/nvidia-dcgm/.packages", check=False) == ""


def test_packages_that_are_not_signed_by_the_key_change_nothing(lab, run, sh, port):
    key = f"{lab.mirror_url}/developer.download.nvidia.com/compute/cuda/repos/rhel9/x86_64/wrong.pub"
    before = packages(sh), locks(sh), sh("gpu3", f"systemctl show -P MainPID nvidia-dcgm {EXPORTER}")
    done = run(limit="gpu3", dcgm_version="4.7.1", dcgm_repository_key_url=key)
    assert done.rc != 0
    assert "without a signature by" in done.messages() and "wrong.pub" in done.messages(), done.messages()
    assert (packages(sh), locks(sh), sh("gpu3", f"systemctl show -P MainPID nvidia-dcgm {EXPORTER}")) == before
    assert port("gpu3").names()


def test_a_release_that_does_not_start_is_taken_back(run, sh, port):
    before = locks(sh)
    done = run(limit="gpu3", dcgm_exporter_version="4.8.9")
    assert done.rc != 0
    assert "the previous state is back and runs" in done.messages(), done.messages()
    assert packages(sh)["datacenter-gpu-manager-exporter"] == "4.8.4"
    assert locks(sh) == before
    assert eventually(lambda: "DCGM_FI_DEV_GPU_UTIL" in port("gpu3").names())


def test_an_upgrade_moves_the_locks_and_a_removal_takes_them_along(run, sh, port):
    done = run(limit="gpu3", dcgm_version="4.7.1", dcgm_exporter_version="4.9.0")
    assert done.rc == 0, done.messages()
    assert packages(sh) == dict(zip(NAMES, ("4.7.1", "4.7.1", "4.9.0"), strict=True))
    assert {name.rpartition("-1.")[0] for name in locks(sh)} == {
        "datacenter-gpu-manager-4-core-1:4.7.1",
        "datacenter-gpu-manager-4-cuda12-1:4.7.1",
        "datacenter-gpu-manager-exporter-0:4.9.0",
    }
    assert eventually(lambda: "DCGM_FI_DEV_GPU_UTIL_RATIO" in port("gpu3").names())
    done = run(limit="gpu3", dcgm_enabled=False)
    assert done.rc == 0, done.messages()
    assert (packages(sh), locks(sh)) == ({}, set())
