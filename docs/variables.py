#!/usr/bin/env python3
"""Writes docs/variables.md from the roles' argument specs and defaults; a unit test keeps it current.

python3 docs/variables.py > docs/variables.md
"""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent

HEAD = """\
# Variables

Written by `docs/variables.py` from the roles' `meta/argument_specs.yml` and `defaults/main.yml`; the defaults say more
about why. A name that is nearly one of these is an error before anything changes; any other one that begins like them
is a warning, since it may be your own.

Set them where they hold: in `group_vars/all.yml`, `group_vars/<group>.yml`, or at the host in `hosts.yml`.
"""


def main() -> None:
    """Print the page."""
    print(page(), end="")


def page() -> str:
    """Return the page as Markdown."""
    roles = {path.name: _load(path / "meta/argument_specs.yml") for path in _roles()}
    options = {role: spec["argument_specs"]["main"]["options"] for role, spec in roles.items()}
    shared = {name: option for group in options.values() for name, option in group.items() if _is_shared(name)}
    sections = [HEAD, "\n## What several roles share\n\n", _table(shared, {})]
    for role, spec in roles.items():
        defaults = _load(ROOT / "roles" / role / "defaults/main.yml")
        own = {name: option for name, option in options[role].items() if not _is_shared(name)}
        about = _markdown(spec["argument_specs"]["main"]["description"][0])
        sections += [f"\n## {role}\n\n{about}\n\n", _table(own, defaults)]
    return "".join(sections)


def _roles() -> list[Path]:
    return sorted(path.parents[1] for path in (ROOT / "roles").glob("*/tasks/main.yml"))


def _load(path: Path) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", yaml.safe_load(path.read_text()))


def _is_shared(name: str) -> bool:
    return name.startswith("gpufleet_")


def _table(options: dict[str, t.Any], defaults: dict[str, t.Any]) -> str:
    rows = [_row(name, option, defaults) for name, option in options.items()]
    return "| Variable | Type | Default | Meaning |\n|---|---|---|---|\n" + "".join(rows)


def _row(name: str, option: dict[str, t.Any], defaults: dict[str, t.Any]) -> str:
    kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
    kind = ", ".join(f"`{choice}`" for choice in option["choices"]) if "choices" in option else kind
    default = _default(defaults[name]) if name in defaults else ""
    return f"| `{name}` | {kind} | {default} | {_markdown(option['description'])} |\n"


def _markdown(text: str) -> str:
    """Ansible's marks of code, values and options as Markdown's."""
    return re.sub(r"[CVO]\(([^)]*)\)", r"`\1`", text)


def _default(value: t.Any) -> str:
    """The value, where it can be read at a glance."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).replace("\n...", "").strip()
    if isinstance(value, str) and "{{" in value:
        return "see defaults"
    return f"`{text}`" if len(text) <= 40 and "|" not in text else "see defaults"


if __name__ == "__main__":
    main()
