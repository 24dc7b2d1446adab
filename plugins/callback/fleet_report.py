# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_report
type: aggregate
short_description: Say at the end of a run which versions changed on which hosts
version_added: "0.1.0"
description:
  - Shows a line for each service that a run changed, and for each that it could not change, with the version before and
    the one that was wanted; and the hosts that were not reached, or that a run which stopped did not come to.
  - It speaks only in plays that have the variable C(fleet_report), as the playbooks C(upgrade) and C(rollback) do. A
    play that only looks has C(fleet_report_begins=false), so that no host counts as begun.
    With C(fleet_report_file), an extra variable, the report is also written to that file on the controller, as JSON
    and with the services that stayed as they were.
  - A callback, and not a last play, since there is none after a run that was stopped.
author:
  - The gpufleet authors (@gpufleet)
requirements:
  - It is enabled, by C(callbacks_enabled = gpufleet.monitoring.fleet_report) in ansible.cfg.
"""

import typing as t

from ansible.plugins.callback import CallbackBase

from ..plugin_utils.fleet_report import Report

GROUPS = ("gpu_workers", "monitoring_master")


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """The report's face to Ansible."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "gpufleet.monitoring.fleet_report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self._report: Report | None = None
        self._file = ""

    def v2_playbook_on_play_start(self, play: t.Any) -> None:
        """A play begins, or its next batch."""
        variables = play.get_variable_manager().get_vars(play=play)
        if not variables.get("fleet_report"):
            return
        self._file = variables.get("fleet_report_file") or ""
        self._report = self._report or Report(str(variables["fleet_report"]), bool(play.check_mode))
        fleet = {host for group in GROUPS for host in variables["groups"].get(group, ())}
        self._report.expect([host for host in variables["ansible_play_hosts_all"] if host in fleet])
        if variables.get("fleet_report_begins", True):
            self._report.begin(variables["ansible_play_batch"])

    def v2_runner_on_ok(self, result: t.Any) -> None:
        """A task succeeded."""
        self._note(result)

    def v2_runner_item_on_ok(self, result: t.Any) -> None:
        """A task succeeded with one item of its loop."""
        self._note(result)

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        """A task failed."""
        if not ignore_errors:
            self._note(result, failed=True)

    def v2_runner_item_on_failed(self, result: t.Any) -> None:
        """A task failed with one item of its loop."""
        self._note(result, failed=True)

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        """A host could not be reached."""
        if self._report:
            self._report.add_failure(result._host.get_name(), "", "unreachable", str(result._result.get("msg", "")))

    def _note(self, result: t.Any, failed: bool = False) -> None:
        if not self._report or "results" in result._result:  # of a loop, whose items have been noted
            return
        host, said = result._host.get_name(), result._result
        if "service" in said:
            self._report.add(host, said, failed)
        elif failed:
            role = result._task._role.get_name().rpartition(".")[2] if result._task._role else ""
            self._report.add_failure(host, role, "failed", str(said.get("msg", "")))

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        """The run is over."""
        if not self._report:
            return
        # Not where the other one's lines go, which a program may read.
        self._display.display(self._report.text(), stderr=True)
        if self._file:
            self._report.write(self._file)
