# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The roles that site.yml gives to hosts, and of their tasks what tells of downloads."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..roles import ROLES
from ..trust import trust_as_template

PLAYBOOKS = ROLES.parent / "playbooks"
COLLECTION = "gpufleet.monitoring."
ARGUMENTS = ("state", "release", "packages", "plugins")  # of a module's, all that tells what comes from elsewhere

# The library that a program of ours is made with comes to the controller; the program itself is not built here.
_ZIPAPP = re.compile(r"lookup\('gpufleet\.monitoring\.zipapp', '(\w+)'")


@dataclass(frozen=True)
class Task:
    """One task of a role."""

    module: str
    arguments: Mapping[str, t.Any]
    when: tuple[t.Any, ...]
    register: str


@dataclass(frozen=True)
class Role:
    """What a role consists of, as far as it matters here."""

    name: str
    tasks: tuple[Task, ...]
    defaults: Mapping[str, t.Any]
    variables: Mapping[str, t.Any]


def read_role(name: str, loader: t.Any) -> Role:
    """Return a role of the collection."""
    root = ROLES / name
    variables = {key: _program(value) or value for key, value in _load(root / "vars/main.yml", loader).items()}
    tasks = tuple(_tasks(_load(root / "tasks/main.yml", loader), ()))
    return Role(name, tasks, _load(root / "defaults/main.yml", loader), {"role_path": str(root), **variables})


def _program(value: t.Any) -> dict[str, str] | None:
    found = _ZIPAPP.search(value) if isinstance(value, str) else None
    return {"zipapp": found[1]} if found else None


def _load(path: Path, loader: t.Any) -> t.Any:
    return loader.load(trust_as_template(path.read_text()), file_name=str(path)) if path.exists() else {}


def _tasks(tasks: Sequence[Mapping[str, t.Any]], when: tuple[t.Any, ...]) -> Iterator[Task]:
    for task in tasks:
        conditions = (*when, *_listed(task.get("when", [])))
        if "block" in task:
            yield from _tasks(task["block"], conditions)
            continue
        # A module is the one key with a dot: names are written out in full here.
        module = next(key for key in task if "." in key)
        arguments = {key: value for key, value in (task[module] or {}).items() if key in ARGUMENTS}
        yield Task(module, arguments, conditions, task.get("register", ""))


def _listed(value: t.Any) -> list[t.Any]:
    return value if isinstance(value, list) else [value]


def roles_of_site() -> dict[str, list[str]]:
    """Return the roles that site.yml gives to each group."""
    found: dict[str, list[str]] = {}
    for imported in _yaml(PLAYBOOKS / "site.yml"):
        name = imported.get("ansible.builtin.import_playbook")
        for play in _yaml(PLAYBOOKS / name) if name else [imported]:
            for group in re.split(r"[:,]", play["hosts"]) if play.get("roles") else []:
                roles = [role["role"].removeprefix(COLLECTION) for role in play["roles"]]
                found[group] = list(dict.fromkeys([*found.get(group, []), *roles]))
    return found


def _yaml(path: Path) -> t.Any:
    return yaml.safe_load(path.read_text())
