# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which services are on this host, by what was written down when they were placed."""

from __future__ import annotations

import graphlib
import json
import typing as t
from pathlib import Path

from .records import ROOT


def names(root: Path = ROOT) -> list[str]:
    """Return the services' names, those included whose first installation was cut."""
    return sorted({record.parent.name for record in root.glob("*/*.json") if _is_service(record)})


def _is_service(record: Path) -> bool:
    """Whether a record is a manifest or a journal of a service. The firewall has a manifest of its own kind."""
    try:
        return record.name in ("manifest.json", "journal.json") and "files" in json.loads(record.read_text())
    except ValueError:
        return True  # native_service says what is wrong with it


def in_order(found: t.Iterable[str], part_of: t.Mapping[str, t.Iterable[str]]) -> list[str]:
    """Return the services so that each comes before those of whose units it is a part."""
    graph: dict[str, list[str]] = {name: [] for name in found}
    for name in graph:
        for unit in part_of.get(name, ()):
            whole = unit.rpartition(".")[0]
            if whole in graph:
                graph[whole].append(name)
    return list(graphlib.TopologicalSorter(graph).static_order())
