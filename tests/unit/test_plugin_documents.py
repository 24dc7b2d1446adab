"""What ansible-doc shows of each plugin: all three parts, and readable."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
DOCUMENTED = sorted(
    path for kind in ("modules", "filter", "lookup") for path in (PLUGINS / kind).glob("*.py") if path.stem[0] != "_"
)


@pytest.mark.parametrize("path", DOCUMENTED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_documentation_examples_and_return_are_yaml(path):
    texts = {
        target.id: node.value.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert yaml.safe_load(texts["DOCUMENTATION"])["short_description"]
    assert yaml.safe_load(texts["EXAMPLES"])
    assert yaml.safe_load(texts["RETURN"])
