"""gpu-stress as it runs on a worker: the zipapp, in processes of its own, against simulated GPUs.

In place of PyTorch and CuPy are the stand-ins of standin/: they take the time that kernels would, and what they do to a
GPU shows in what the simulated NVML says of it. What others do to it the tests write into the same scenario.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils import zipapp
from gpufleet_lab import machines, mirror
from gpufleet_lab.gpu import Machine

STANDIN = Path(__file__).parent / "standin"
sys.path.append(str(STANDIN / "common"))

import simulated_driver  # noqa: E402


@pytest.fixture(scope="session")
def program():
    """The zipapp, built from the wheels of the lab's mirror."""
    return zipapp.build("gpu_stress", f"file://{mirror.path()}").path


class Run:
    """One gpu-stress that runs, or ran."""

    def __init__(self, words, environment):
        self.process = subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
        )
        self._lines = []

    def wait(self, seconds=20):
        """Return exit status and what it said to people."""
        out, self.errors = self.process.communicate(timeout=seconds)
        self._lines += out.splitlines()
        return self.process.returncode, self.errors

    @property
    def lines(self):
        return self._lines

    def events(self, kind, device=None):
        found = [json.loads(line) for line in self._lines]
        return [each for each in found if each["event"] == kind and device in (None, each["device"])]

    def until(self, kind, device=None):
        """Read on until there is such an event, and return it."""
        while not self.events(kind, device):
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            self._lines.append(line.strip())
        return self.events(kind, device)[-1]

    def workers(self):
        """Return the processes of the GPUs, by device UUID."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout.split()
        workers = {}
        for pid in map(int, found):
            with contextlib.suppress(OSError):  # it ended
                words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
                workers[dict(word.partition("=")[::2] for word in words)["CUDA_VISIBLE_DEVICES"]] = pid
        return workers


class Host:
    """A machine with idle GPUs, and whatever frameworks."""

    def __init__(self, program, directory, models):
        self.machine = Machine.of(*models)
        for number in range(len(self.machine.gpus)):
            self.machine.set(number, "utilization.gpu", 0)
            self.machine.set(number, "memory.used", 0)
        self._program, self._directory = program, directory
        self._scenario = directory / "scenario"
        self.running = []

    def uuid(self, number):
        return self.machine.gpus[number].uuid

    def write(self):
        self.machine.write(self._directory)

    def start(self, *words, json=True, frameworks=("torch",), cuda=""):
        python_path = [STANDIN / "common", *(STANDIN / f"{name}_only" for name in frameworks)]
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(machines.libraries()),
            "PYTHONPATH": os.pathsep.join(map(str, python_path)),
            "SIMULATED_GPU": str(self._scenario),
            "SIMULATED_CUDA": cuda,
        }
        command = [sys.executable, str(self._program), "--exporter", "", *(["--json"] if json else []), *words]
        self.running.append(Run(command, environment))
        return self.running[-1]

    def run(self, *words, **options):
        started = self.start(*words, **options)
        started.wait()
        return started

    def readings(self):
        with simulated_driver.scenario(self._scenario) as lines:
            return dict(lines)

    def change(self, key, value):
        with simulated_driver.scenario(self._scenario) as lines:
            lines[key] = value

    def is_idle(self, seconds=3):
        """Whether no load, memory or process is left on any GPU, now or soon: a driver notices a death a bit later."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.readings()
            processes = [key for key in found if ".process." in key]
            readings = [f"gpu.{number}.{name}" for number in range(len(self.machine.gpus))
                        for name in ("memory.used", "utilization.gpu")]  # fmt: skip
            if not processes and all(found[reading] in ("0", "unsupported") for reading in readings):
                return True
            time.sleep(0.05)
        return False

    def fault(self, number, what):
        (self._directory / f"fault.{self.uuid(number)}").write_text(what)

    def others_use(self, number, part):
        (self._directory / f"others.{number}").write_text(str(part))


@pytest.fixture(scope="session")
def host(program, tmp_path_factory):
    """Make a machine with such cards: host("a100", "h100", gpu1=["1g.5gb"])."""
    made = []

    def make(*models, **partitions):
        made.append(Host(program, tmp_path_factory.mktemp("host"), models))
        for name, profiles in partitions.items():
            made[-1].machine.partition(int(name.removeprefix("gpu")), *profiles)
        made[-1].write()
        return made[-1]

    yield make
    for each in (run for machine in made for run in machine.running):
        for pid in [*each.workers().values(), each.process.pid] if each.process.poll() is None else []:
            os.kill(pid, signal.SIGKILL)
        each.process.wait()
