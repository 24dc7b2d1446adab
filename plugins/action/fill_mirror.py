# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action fill_mirror; what it does is in plugin_utils/mirror."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..plugin_utils.mirror.fill import Settings, fill
from ..plugin_utils.mirror.inventory import find_needs
from ..plugin_utils.mirror.needs import Needs, NeedsError
from ..plugin_utils.mirror.store import MirrorError

ASKED = "__mirror_host"  # what playbooks/mirror.yml registers of hosts that it asks

ARGUMENTS = {
    "directory": {"type": "path", "required": True},
    "lock_file": {"type": "path", "required": True},
    "source": {"type": "str", "default": "https:/"},
    "update": {"type": "bool", "default": False},
    "prune": {"type": "bool", "default": False},
}


class ActionModule(ActionBase):
    """fill_mirror, wholly on the controller."""

    BYPASS_HOST_LOOP = True
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Fill the mirror, and fail with all that it lacks."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(ARGUMENTS)
        settings = Settings(
            Path(arguments["directory"]).absolute(),
            Path(arguments["lock_file"]).absolute(),
            arguments["source"],
            arguments["update"],
            arguments["prune"],
            self._task.check_mode,
        )
        try:
            needs = self._needs(task_vars or {})
            report = fill(needs, settings)
        except NeedsError as error:
            raise AnsibleActionFail(f"It cannot be told what a mirror of this inventory needs:\n{error}") from None
        except MirrorError as error:
            raise AnsibleActionFail(str(error)) from None
        return {
            "changed": bool(report.fetched or report.removed or report.lock_before != report.lock_after),
            "fetched": report.fetched,
            "removed": report.removed,
            "unneeded": report.unneeded,
            "packages": sorted(needs.packages),
            "warnings": [
                f"{url} is not below gpufleet_mirror_url, or is a repository for dnf, and so not in the mirror: it is "
                f"needed by {', '.join(sorted({host for hosts in users.by_role().values() for host in hosts}))}"
                for url, users in needs.elsewhere.items()
            ],
            "diff": {
                "before_header": arguments["lock_file"],
                "after_header": arguments["lock_file"],
                "before": report.lock_before,
                "after": report.lock_after,
            },
        }

    def _needs(self, variables: dict[str, t.Any]) -> Needs:
        hostvars = variables["hostvars"]
        asked = {str(host): hostvars.raw_get(host).get(ASKED) or {} for host in variables["groups"]["all"]}
        return find_needs(variables["groups"], hostvars, asked, self._templar, self._loader)
