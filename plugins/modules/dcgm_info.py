#!/usr/bin/python
# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: dcgm_info
short_description: Say whether and how NVIDIA's DCGM can run on a host
version_added: "0.1.0"
description:
  - Looks at the GPUs on the PCI bus, the driver that is loaded and the distribution. Changes nothing, and asks no
    GPU anything.
author:
  - The gpufleet authors (@gpufleet)
attributes:
  check_mode:
    description: Changes nothing anyway.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  platform:
    description: Linux.
    support: full
    platforms: linux
options:
  required:
    description: Fail, with the reason, where DCGM cannot run.
    type: bool
    default: false
  sysfs:
    description: The sysfs tree.
    type: path
    default: /sys
"""

EXAMPLES = r"""
- name: What can run here?
  gpufleet.monitoring.dcgm_info:
  register: host

- name: Say it
  ansible.builtin.debug:
    msg: "{{ host.reason or 'DCGM for CUDA ' ~ host.cuda }}"
"""

RETURN = r"""
supported:
  description: Whether DCGM can run here.
  returned: always
  type: bool
reason:
  description: Why not, in words.
  returned: always
  type: str
  sample: no NVIDIA driver is loaded
installed:
  description: Whether an earlier run of the role C(dcgm) put DCGM there.
  returned: always
  type: bool
gpus:
  description: NVIDIA GPUs on the PCI bus.
  returned: always
  type: int
driver:
  description: Version of the driver that is loaded, empty without one.
  returned: always
  type: str
  sample: 580.65.06
cuda:
  description: The newest major version of CUDA that the driver serves, 0 without a driver.
  returned: always
  type: int
  sample: 13
distribution:
  description: The distribution's name in NVIDIA's repositories, empty where there is none.
  returned: always
  type: str
  sample: ubuntu2404
architecture:
  description: The architecture's name there, empty where there is none.
  returned: always
  type: str
  sample: x86_64
"""

import platform
import re
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.distributions import distribution

# The first driver of each major version of CUDA: CUDA Toolkit release notes, "CUDA Toolkit and Corresponding Driver
# Versions". DCGM 4 has a package for each, and wants driver 450 or newer.
CUDA_SINCE = {580: 13, 525: 12, 450: 11}

# uname(2) -> https://developer.download.nvidia.com/compute/cuda/repos/<distribution>/
ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "sbsa"}

# Written by native_service.
MANIFEST = Path("/opt/gpufleet/nvidia-dcgm/manifest.json")

NVIDIA = "0x10de"
DISPLAY_CLASSES = ("0x0300", "0x0302")  # VGA and 3D controllers


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        {"required": {"type": "bool", "default": False}, "sysfs": {"type": "path", "default": "/sys"}},
        supports_check_mode=True,
    )
    found = look(Path(module.params["sysfs"]), Path("/etc/os-release"), platform.machine())
    if module.params["required"] and not found["supported"]:
        module.fail_json(
            f"dcgm_enabled is true, but DCGM cannot run here: {found['reason']}. Mend that, or set dcgm_enabled: auto",
            **found,
        )
    module.exit_json(changed=False, **found)


def look(sysfs: Path, os_release: Path, machine: str) -> dict[str, t.Any]:
    """Return what is described in RETURN."""
    drivers = gpu_drivers(sysfs)
    version = _read(sysfs / "module" / "nvidia" / "version")
    found = {
        "gpus": len(drivers),
        "driver": version,
        "cuda": cuda(version),
        "distribution": distribution(os_release),
        "architecture": ARCHITECTURES.get(machine, ""),
    }
    reason = _obstacle(found, drivers)
    installed = MANIFEST.exists()
    return {**found, "supported": not reason, "reason": reason, "installed": installed}


def _obstacle(found: t.Mapping[str, t.Any], drivers: t.Sequence[str]) -> str:
    if not drivers:
        return "there is no NVIDIA GPU on the PCI bus"
    if "vfio-pci" in drivers:
        # https://github.com/NVIDIA/dcgm-exporter/issues/706
        return "GPUs are passed through to machines here, and DCGM keeps the driver from letting go of them"
    if not found["driver"]:
        return "no NVIDIA driver is loaded"
    if not found["cuda"]:
        return f"the driver {found['driver']} is older than 450"
    if not found["distribution"] or not found["architecture"]:
        return "NVIDIA has no packages for this distribution and architecture"
    return ""


def gpu_drivers(sysfs: Path) -> list[str]:
    """Return the driver of each NVIDIA GPU, "" for none."""
    devices = sorted((sysfs / "bus" / "pci" / "devices").glob("*"))
    gpus = [
        device
        for device in devices
        if _read(device / "vendor") == NVIDIA and _read(device / "class").startswith(DISPLAY_CLASSES)
    ]
    return [(gpu / "driver").resolve().name if (gpu / "driver").is_symlink() else "" for gpu in gpus]


def cuda(driver: str) -> int:
    """Return the newest major version of CUDA that a driver serves, or 0."""
    branch = int(driver.partition(".")[0]) if re.match(r"\d+\.", driver) else 0
    return next((version for since, version in CUDA_SINCE.items() if branch >= since), 0)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
