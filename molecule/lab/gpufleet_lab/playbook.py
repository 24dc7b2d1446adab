"""Playbooks under test: run one as a user would, and look at what it did, host by host.

Against the inventory of the Molecule scenario that runs, with the variables of its lab.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .lab import CHECKOUT
from .system import LabError


@dataclass(frozen=True)
class Task:
    """What one task did on one host."""

    name: str
    host: str
    result: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What a run of a playbook did."""

    rc: int
    stdout: str
    stderr: str
    # host -> {"ok": 3, "changed": 1, "unreachable": 0, "failures": 0, "skipped": 0, ...}
    stats: dict[str, dict[str, int]]
    tasks: list[Task]

    @property
    def changed(self) -> int:
        """How many changes there were, on all hosts."""
        return sum(counts["changed"] for counts in self.stats.values())

    def of(self, host: str, task: str = "") -> list[dict[str, Any]]:
        """Return the host's results, of the tasks whose name contains `task`."""
        return [done.result for done in self.tasks if done.host == host and task in done.name]

    def changes(self) -> list[str]:
        """Return what was changed, one line a task and host."""
        changed = [done for done in self.tasks if done.result.get("changed")]
        return [f"{done.host}: {done.name}: {done.result.get('actions', '')}" for done in changed]

    def messages(self) -> str:
        """Return what failed, for the message of an assertion."""
        failed = [t for t in self.tasks if t.result.get("failed") or t.result.get("unreachable")]
        lines = [f"{t.host}: {t.name}: {t.result.get('msg', t.result)}" for t in failed]
        return "\n".join(lines) or self.stderr or self.stdout


def run_playbook(
    playbook: str | Path,
    *arguments: str,
    extra_vars: Mapping[str, Any] | None = None,
    inventory: str | Path | None = None,
    timeout: float = 600,
) -> Result:
    """Run a playbook: of the scenario (by its path there), of the collection ("site"), or any path."""
    command = [
        *(_ansible_playbook(), "--inventory", inventory or _inventory()),
        *(("--extra-vars", json.dumps(extra_vars)) if extra_vars else ()),
        *(*arguments, _find(playbook)),
    ]
    environment = {**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_FORCE_COLOR": "0"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout, env=environment, cwd=CHECKOUT
    )
    return _result(done)


def _ansible_playbook() -> Path | str:
    # Of the virtual environment that the test runs in, even where that is not activated.
    beside = Path(sys.executable).with_name("ansible-playbook")
    return beside if beside.exists() else "ansible-playbook"


def _inventory() -> Path:
    try:
        # The directory: Molecule's own file in it does not know the lab's variables.
        return Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
    except KeyError:
        raise LabError("no scenario runs here: use `molecule verify`, or pass inventory=") from None


def _find(playbook: str | Path) -> Path:
    scenario = Path(os.environ.get("MOLECULE_SCENARIO_DIRECTORY", CHECKOUT))
    candidates = (scenario / playbook, CHECKOUT / "playbooks" / f"{playbook}.yml")
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if not found:
        raise LabError(f"no playbook {playbook} in {scenario}, nor {candidates[1]}")
    return found


def _result(done: subprocess.CompletedProcess[str]) -> Result:
    try:
        report = json.loads(done.stdout)
    except ValueError:  # a syntax error, for example, comes before any report
        report = {"plays": [], "stats": {}}
    tasks = [
        Task(task["task"]["name"], host, result)
        for play in report["plays"]
        for task in play["tasks"]
        for host, result in task["hosts"].items()
    ]
    return Result(done.returncode, done.stdout, done.stderr, report["stats"], tasks)
