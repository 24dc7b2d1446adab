# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs the module and, after a change, comes in again by a new connection, which makes the change stay."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ..plugin_utils.mirror.packages import mirror_of_packages

MODULE = "gpufleet.monitoring.firewall"
UNSEEN = (
    "Ansible does not come to this host by SSH, or cannot tell, so nothing has shown that a new SSH connection succeeds"
    " under the new rules of the firewall: try one"
)


class ActionModule(ActionBase):
    """firewall on the controller's side."""

    _requires_connection = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the module; when there was a change, show that the host can still be reached."""
        super().run(tmp, task_vars)
        return self._bring(task_vars)

    def _bring(self, task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        arguments = {name: value for name, value in self._task.args.items() if name != "confirm"}
        mirror = "" if arguments.get("state") == "absent" else mirror_of_packages(self, task_vars or {})
        result = self._call({**({"mirror": mirror} if mirror else {}), **arguments}, task_vars)
        change = result.pop("unconfirmed", None)
        if change is None or result.get("failed"):
            return result
        if not (change["session"] and self._comes_by_ssh()):
            result.setdefault("warnings", []).append(UNSEEN)
            change["session"] = ""
        try:
            self._connection.reset()
            confirmed = self._call({"confirm": change}, task_vars)
        except AnsibleConnectionFailure as error:
            raise AnsibleActionFail(
                "With the new rules, no new connection to this host succeeds, so it puts the firewall back as it was"
                f" within {arguments.get('confirm_within', 60)} s: {error}"
            ) from error
        return confirmed if confirmed.get("failed") else result

    def _comes_by_ssh(self) -> bool:
        return any(name in self._connection.transport for name in ("ssh", "paramiko"))

    def _call(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        return t.cast(
            "dict[str, t.Any]",
            self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars),
        )
