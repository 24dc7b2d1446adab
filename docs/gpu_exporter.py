#!/usr/bin/env python3
"""Writes docs/gpu_exporter.md from the exporter's configuration classes; a unit test keeps it current.

python3 docs/gpu_exporter.py > docs/gpu_exporter.md
"""

from __future__ import annotations

import dataclasses
import json
import sys
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "files"))

from gpufleet.gpu_exporter import config

HEAD = """\
# The GPU exporter

Written by `docs/gpu_exporter.py`. What it serves is in [metrics.md](metrics.md), the role's variables are in
[variables.md](variables.md#gpu_exporter).

One process serves (`/metrics`, `/health`, port 9500), another one samples and may be killed at any time. A scrape is
answered from memory and never waits for a driver. If a collector does not answer within its `deadline`, the sampling
process is replaced, and the GPU that did not answer, or the whole driver, left alone for `server.retry_after`, doubled
each time up to ten minutes; the other GPUs are read, and counters go on where they were. The collectors run in lanes
(NVML; PCI bus; Docker; host; BMC): what blocks in one holds up no other.

```
gpu-exporter --config FILE         serve
gpu-exporter --check-config        say whether the configuration is fine, with the line of what is not
gpu-exporter --once                read everything once, print it; exit status 1 when a collector failed
gpu-exporter --version
```

On a worker the program is `python3 -I /opt/gpufleet/gpu_exporter/current/gpu-exporter.pyz`. It needs Python 3.9 or
newer and nothing else.

## States of a GPU

`gpu_state` compares the PCI bus (sysfs) with NVML, without asking the driver, so that it answers when NVML hangs.

| State | Meaning |
|---|---|
| `ok` | on the bus and in NVML |
| `lost` | NVML lists it and cannot reach it, or it is on the bus and not in NVML, or it is no longer on the bus |
| `passthrough` | bound to vfio-pci or the like for a virtual machine; no value is served for it |
| `driver_mismatch` | the loaded kernel module and the library are of different versions: reboot, or reload the module |
| `no_driver` | no library, no module, or nothing bound to the GPU |
| `unresponsive` | NVML, or this one GPU, did not answer within the deadline |
| `unknown` | NVML may not be asked (rights), or failed in another way; `dc_exporter_gpu_available` is absent |

## Temperatures of VRAM and hotspot

Read in this order; the label `source` says who answered: `nvml`, then `nvapi` (where `gpu.nvapi` is on), then `bar0`
(where `gpu.bar0` is on). NVAPI's thermal query and the registers are undocumented by NVIDIA. BAR0 is read only, through
sysfs' `resource0`, for the exact PCI ids of `thermal_sources.toml`, and every value has to be plausible. Kernels in
lockdown (Secure Boot), or with `CONFIG_IO_STRICT_DEVMEM`, do not allow it while the driver is bound; then the value is
absent and the failure counted.

## Who is believed

Clients of a host may be strangers, so what they can write says as little as possible:

- Labels of a container count when they were given to it (`docker run --label`), not when they come with its image.
- A process is in a container when its control group says so, and not when that group is below the user's own systemd
  (`user@UID.service`), where users name groups as they like: there it is the user's.
- XIDs in the kernel's log count when the kernel itself says them, at a line's beginning.
- Names of containers, users and devices are cut and escaped; series are bounded for each collector and container.

## It holds the GPUs open

NVML keeps the device nodes of all GPUs open. Before a GPU is reset (`nvidia-smi --gpu-reset`), its MIG mode changed,
the module unloaded, or a GPU handed to vfio-pci for a virtual machine, stop `gpu_exporter` (and DCGM), and start it
after.

## Configuration

TOML, by default `/etc/gpu_exporter/config.toml`. The role writes it; `gpu_exporter_config` holds any further key, by
table. What is unknown is an error with its line.
"""


def main() -> None:
    """Print the page."""
    print(page(), end="")


def page() -> str:
    """Return the page as Markdown."""
    return HEAD + "".join(_section(field.name) for field in dataclasses.fields(config.Config))


def _section(table: str) -> str:
    section = getattr(config.Config(), table)
    rows = [_row(field, getattr(section, field.name)) for field in dataclasses.fields(section)]
    head = f"\n### [{table}]\n\n{section.__doc__}\n\n| Key | Default | Meaning |\n|---|---|---|\n"
    return head + "".join(rows)


def _row(field: dataclasses.Field[t.Any], default: t.Any) -> str:
    value = json.dumps(default).replace("|", "\\|")
    return f"| `{field.name}` | `{value}` | {field.metadata['meaning']} |\n"


if __name__ == "__main__":
    main()
