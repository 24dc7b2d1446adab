"""What the documents say is what the roles do."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parents[1].name for path in (ROOT / "roles").glob("*/tasks/main.yml"))


def load(role: str, name: str) -> dict:
    return yaml.safe_load((ROOT / "roles" / role / name).read_text())


def options(role: str) -> dict:
    return load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "docs").glob("*.py")))
def test_a_generated_page_is_current(name):
    page = runpy.run_path(str(ROOT / f"docs/{name}.py"))["page"]()
    assert (ROOT / f"docs/{name}.md").read_text() == page, "run: make docs"


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_specified_and_every_option_has_a_default(role):
    own = {name for name in options(role) if not name.startswith("gpufleet_")}
    assert own == set(load(role, "defaults/main.yml"))


def test_a_shared_variable_means_the_same_in_every_role():
    specs = [(name, str(spec)) for role in ROLES for name, spec in options(role).items()]
    shared = {entry for entry in specs if entry[0].startswith("gpufleet_")}
    assert len({name for name, _ in shared}) == len(shared)
