"""The fleet of this scenario, as its tests see it."""

from __future__ import annotations

from pathlib import Path

import yaml

_SCENARIO = yaml.safe_load(Path(__file__).with_name("molecule.yml").read_text())
_INVENTORY = _SCENARIO["provisioner"]["inventory"]

VARIABLES = _INVENTORY["group_vars"]
WORKERS = {host: _INVENTORY["host_vars"][host] for host in ("gpu1", "gpu2")}
MASTERS = {"master1": {}, "master2": {}}
# A message about a group of alerts that is there already waits for so long.
SECONDS = float(VARIABLES["monitoring_master"]["alertmanager_severities"]["critical"]["group_interval"].rstrip("s"))
