"""Exporters that run against simulated GPUs, each in a directory of its own."""

from __future__ import annotations

import pytest
import tomli
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils import zipapp
from exporter import Exporter
from gpufleet_lab import machines, mirror

# Fast, so that a fault shows in a second; the tests are about what happens, not about how long an operator waits.
CONFIG = """\
[server]
start_deadline = 3
retry_after = 1
[paths]
sysfs = "{directory}/sys"
systemd = "{directory}/systemd"
[gpu]
interval = 0.2
max_age = 3
deadline = 1
nvapi = true
bar0 = true
[dcgm]
enabled = true
port = 0
interval = 0.2
max_age = 3
deadline = 1
[presence]
interval = 0.2
[pcie]
interval = 0.2
[xid]
interval = 0.2
[system]
interval = 0.2
[events]
interval = 0.2
path = "{directory}/events.jsonl"
state_directory = "{directory}"
[allocations]
interval = 0.2
max_age = 3
deadline = 2
docker_timeout = 1
docker_socket = "{directory}/docker.sock"
state_file = "{directory}/gpu-state.json"
"""


@pytest.fixture(scope="session")
def program():
    """The zipapp, built from the wheels of the lab's mirror."""
    return zipapp.build("gpu_exporter", f"file://{mirror.path()}").path


@pytest.fixture
def exporter(program, tmp_path):
    """Start an exporter for a simulated machine: exporter(machine, environment={...}, xid={"kernel_log": True})."""
    running = []

    def start(machine, environment=None, libraries=None, client=None, **tables):
        machine.write(tmp_path)
        found = {"LD_LIBRARY_PATH": str(libraries or machines.libraries()), "SIMULATED_GPU": str(tmp_path / "scenario")}
        config = tomli.loads(CONFIG.format(directory=tmp_path))
        for table, keys in tables.items():
            config[table] = {**config.get(table, {}), **keys}
        running.append(Exporter(program, tmp_path, config, {**found, **(environment or {})}, client))
        return running[-1]

    yield start
    for each in running:
        each.stop()
