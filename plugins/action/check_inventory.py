# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action check_inventory; what it does is in module_utils/inventory.py."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils import inventory
from ..plugin_utils import alerts
from ..plugin_utils.roles import JOBS, ROLES, VariableError, of_master

# What the role applies to the rules of alerts, by the name of plugin_utils/alerts.py.
ALERTS = {
    "thresholds": "prometheus_alert_thresholds",
    "durations": "prometheus_alert_for",
    "disabled": "prometheus_alerts_disabled",
    "time_factor": "prometheus_alert_time_factor",
    "runbook_url": "prometheus_alert_runbook_url",
}


class ActionModule(ActionBase):
    """check_inventory, wholly on the controller."""

    BYPASS_HOST_LOOP = True
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Check the inventory, and fail with all that is wrong with it."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec({"jobs": {"type": "list", "elements": "dict"}})
        variables = task_vars or {}
        groups, hostvars = variables["groups"], variables["hostvars"]
        jobs = arguments["jobs"]
        try:
            settings = {setting: of_master(groups, hostvars, name, self._loader) for setting, name in ALERTS.items()}
            report = inventory.check_inventory(
                groups,
                hostvars,
                of_master(groups, hostvars, JOBS, self._loader) if jobs is None else jobs,
                {path.parents[1].name: self._read(path) for path in sorted(ROLES.glob("*/meta/argument_specs.yml"))},
                ", ".join(variables.get("ansible_inventory_sources") or ()),
                settings["thresholds"],
            )
            files = {path.name: path.read_text() for path in sorted(ROLES.glob("prometheus/files/alerts/*.yml"))}
            alerts.render(files, alerts.Settings(hosts=report.thresholds, **settings))
        except (inventory.InventoryError, alerts.AlertError, VariableError) as error:
            raise AnsibleActionFail(str(error)) from None
        return {"changed": False, "hosts": report.hosts, "targets": report.targets, "warnings": report.warnings}

    def _read(self, path: Path) -> t.Any:
        return self._loader.load_from_file(str(path))
