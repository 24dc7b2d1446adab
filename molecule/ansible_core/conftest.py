"""Both controllers, each with its fleet, which they have deployed at the same time."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

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


@pytest.fixture(scope="session")
def controllers(lab, archive):
    """Name -> controller, furnished."""
    found = {name: Controller(lab, name) for name in VERSIONS}
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda controller: controller.furnish(archive), found.values()))
    return found


@pytest.fixture(scope="session")
def runs(controllers):
    """Name -> what the playbook said on new hosts: in check mode, for the first time, and again."""

    def deploy(controller):
        return [controller.playbook(*arguments) for arguments in (["--check", "--diff"], [], [])]

    with ThreadPoolExecutor() as pool:
        return dict(zip(controllers, pool.map(deploy, controllers.values())))


@pytest.fixture(params=VERSIONS)
def controller(request, controllers):
    """The controller with the oldest, then that with the newest ansible-core."""
    return controllers[request.param]
