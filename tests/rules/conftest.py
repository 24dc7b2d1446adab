"""Prometheus' own programs, of the versions that the lab's mirror has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gpufleet_lab import mirror


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory) -> dict[str, Path]:
    """Where promtool and prometheus are, by release: current and previous."""
    found = {}
    for release, version in mirror.versions(mirror.path())["prometheus"].items():
        directory = tmp_path_factory.mktemp(release)
        (archive,) = mirror.path().rglob(f"prometheus-{version}.*.tar.gz")
        shutil.unpack_archive(archive, directory)
        (found[release],) = directory.iterdir()
    return found
