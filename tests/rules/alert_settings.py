"""The settings with which alerts are tested."""

from __future__ import annotations

# Some have a number of GPUs that is expected; the hot ones are in a hall without cooling.
SETTINGS = {
    "hosts": {
        "gpu1": {"gpus_expected": 4},
        "gpu2": {"gpus_expected": 4},
        "gpu3": {"gpus_expected": 1},
        "gpu5": {"gpus_expected": 4},
        "hot.1": {"gpu_temperature_high_celsius": 75},
        "hot.2": {"gpu_temperature_high_celsius": 75, "xid_recent": "10m"},
        "master1": {},
    }
}
