"""The front door of this scenario, as its tests see it."""

from __future__ import annotations

from pathlib import Path

import yaml

# Molecule wants each $ twice.
_SCENARIO = yaml.safe_load(Path(__file__).with_name("molecule.yml").read_text().replace("$$", "$"))

VARIABLES = _SCENARIO["provisioner"]["inventory"]["group_vars"]
NAME = "door.lab.test"
PASSWORDS = {"ali": "open sesame", "cassim": "open barley"}


def master_with(**variables):
    """VARIABLES, with more of them for the master."""
    return {**VARIABLES, "monitoring_master": {**VARIABLES["monitoring_master"], **variables}}


def services_with(*rows):
    """The table of services, with more rows."""
    return [*VARIABLES["monitoring_master"]["nginx_services"], *rows]
