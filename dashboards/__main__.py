"""Writes the dashboards as the role grafana provisions them: `make dashboards`."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from . import allocation, ds01_overview, ds01_user, fleet, gpu_temperatures, host, monitoring, nvidia_dcgm

if t.TYPE_CHECKING:
    from .shared.page import Page

DIRECTORY = Path(__file__).resolve().parent.parent / "roles/grafana/files/dashboards"
PAGES: tuple[t.Callable[[], Page], ...] = (
    fleet.page,
    host.page,
    nvidia_dcgm.page,
    gpu_temperatures.page,
    allocation.page,
    monitoring.page,
    ds01_overview.page,
    ds01_user.page,
)


def files() -> dict[str, str]:
    """Return the content of each file by its name."""
    built = [page().build() for page in PAGES]
    return {f"{one.uid}.json": json.dumps(one, cls=JSONEncoder, indent=2, sort_keys=True) + "\n" for one in built}


def main() -> None:
    """Write the files; one that no page makes any more goes."""
    wanted = files()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for old in DIRECTORY.glob("*.json"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (DIRECTORY / name).write_text(text)


if __name__ == "__main__":
    main()
