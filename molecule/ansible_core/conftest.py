"""Both controllers, each furnished on first use."""

from __future__ import annotations

import subprocess

import pytest
from controller import TOOLS, VERSIONS, Controller
from gpufleet_lab.lab import CHECKOUT


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """The collection as a release has it."""
    build = tmp_path_factory.mktemp("build")
    command = [TOOLS / "ansible-galaxy", "collection", "build", CHECKOUT, "--output-path", build]
    subprocess.run(command, check=True, capture_output=True)
    (archive,) = build.glob("gpufleet-monitoring-*.tar.gz")
    return archive


@pytest.fixture(scope="session", params=VERSIONS)
def controller(request, lab, archive):
    """The controller with the oldest, then that with the newest ansible-core."""
    controller = Controller(lab, request.param)
    controller.furnish(archive)
    return controller
