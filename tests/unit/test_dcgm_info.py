"""Whether DCGM can run on a host: it must not be tried where it cannot, nor where it would disturb."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.monitoring.plugins.modules import dcgm_info

UBUNTU = 'NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n'


@pytest.fixture
def host(tmp_path):
    """host(drivers, version): a sysfs tree with such GPUs, and the rest of a server."""

    def build(*drivers, version="580.65.06", os_release=UBUNTU, machine="x86_64"):
        devices = tmp_path / "bus/pci/devices"
        for number, driver in enumerate(drivers):
            add(devices / f"0000:{number:02x}:00.0", "0x10de", "0x030200", driver)
            add(devices / f"0000:{number:02x}:00.1", "0x10de", "0x040300", "snd_hda_intel")
        add(devices / "0000:f0:00.0", "0x1a03", "0x030000", "ast")  # a BMC's
        if version:
            (tmp_path / "module/nvidia").mkdir(parents=True)
            (tmp_path / "module/nvidia/version").write_text(f"{version}\n")
        (tmp_path / "os-release").write_text(os_release)
        return dcgm_info.look(tmp_path, tmp_path / "os-release", machine)

    def add(device, vendor, kind, driver):
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
        if driver:
            (device / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")

    return build


def test_a_gpu_server(host):
    found = host("nvidia", "nvidia")
    assert found == {
        "supported": True,
        "reason": "",
        "installed": False,
        "gpus": 2,
        "driver": "580.65.06",
        "cuda": 13,
        "distribution": "ubuntu2404",
        "architecture": "x86_64",
    }


@pytest.mark.parametrize(
    ("drivers", "facts", "reason"),
    [
        ([], {}, "no NVIDIA GPU"),
        (["", ""], {"version": ""}, "no NVIDIA driver"),
        (["nvidia"], {"version": "440.100"}, "older than 450"),
        (["nvidia", "vfio-pci"], {}, "passed through"),
        (["nvidia"], {"os_release": "ID=arch\n"}, "no packages"),
        (["nvidia"], {"os_release": "ID=debian\n"}, "no packages"),
        (["nvidia"], {"os_release": ""}, "no packages"),
        (["nvidia"], {"machine": "ppc64le"}, "no packages"),
        (["nvidia"], {"os_release": 'ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="7"\n'}, "no packages"),
    ],
)
def test_where_it_cannot_run_the_reason_is_said(host, drivers, facts, reason):
    found = host(*drivers, **facts)
    assert not found["supported"]
    assert reason in found["reason"]


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [("580.65.06", 13), ("615.43.02", 13), ("579.99", 12), ("525.60", 12), ("470.223", 11), ("450.0", 11), ("", 0)],
)
def test_the_newest_cuda_that_a_driver_serves(driver, cuda):
    assert dcgm_info.cuda(driver) == cuda


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('ID=ubuntu\nVERSION_ID="22.04"\n', "ubuntu2204"),
        ('ID=debian\nVERSION_ID="12"\n', "debian12"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n', "rhel9"),
        ('ID="rhel"\nVERSION_ID="8.10"\n', "rhel8"),
        ('ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="10"\n', "rhel10"),
        ("ID=fedora\nVERSION_ID=42\n", ""),
    ],
)
def test_names_of_distributions_in_nvidias_repositories(tmp_path, text, name):
    (tmp_path / "os-release").write_text(text)
    assert dcgm_info.distribution(tmp_path / "os-release") == name
