"""The fleet of this scenario, as its tests see it."""

from __future__ import annotations

from pathlib import Path

import yaml

_SCENARIO = yaml.safe_load(Path(__file__).with_name("molecule.yml").read_text())

VARIABLES = _SCENARIO["provisioner"]["inventory"]["group_vars"]
WORKERS = {"gpu1": {}, "gpu2": {}, "gpu3": {}}


def workers_with(**variables):
    """VARIABLES, with more of them for the workers."""
    return {**VARIABLES, "gpu_workers": {**VARIABLES["gpu_workers"], **variables}}
