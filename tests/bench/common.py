"""What the benchmarks share: a lab of their own, and ansible-playbook against its hosts with a clock."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LAB = CHECKOUT / "molecule/lab/lab.py"
SSH = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"


class Run(t.NamedTuple):
    """One run of a playbook: seconds from start to end, and what it did on the hosts."""

    seconds: float
    stats: dict[str, dict[str, int]]

    @property
    def tasks(self) -> int:
        """The tasks of the host with the most, facts and skipped ones included."""
        return max(counts["ok"] + counts["skipped"] for counts in self.stats.values())

    @property
    def changed(self) -> int:
        """The changes on all hosts."""
        return sum(counts["changed"] for counts in self.stats.values())


@contextlib.contextmanager
def lab(hosts: t.Iterable[str]) -> t.Iterator[dict[str, t.Any]]:
    """Have a lab of new hosts (NAME:SUITE...), as `lab.py show` describes it, for the length of a with block."""
    command = [sys.executable, str(LAB)]
    subprocess.run([*command, "down", "bench"], check=True)
    try:
        up = [*command, "up", "bench", *(f"--host={host}" for host in hosts)]
        found = json.loads(subprocess.run(up, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
        for name in found["hosts"]:  # SSH answers before a host has booted to the end
            wait = [*command, "ssh", "bench", name, "systemctl is-system-running --wait"]
            subprocess.run(wait, check=True, stdout=subprocess.DEVNULL)
        yield found
    finally:
        subprocess.run([*command, "down", "bench"], check=True, stderr=subprocess.DEVNULL)


def connection(found: dict[str, t.Any]) -> dict[str, str]:
    """Return the variables with which Ansible reaches the lab's hosts, and they the lab's mirror."""
    return {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": found["key"],
        "ansible_ssh_common_args": SSH,
        "ansible_python_interpreter": "/usr/bin/python3",
        "gpufleet_mirror_url": found["mirror_url"],
        **{f"{name}_version": versions["current"] for name, versions in found["versions"].items()},
    }


def play(playbook: Path, inventory: Path, *arguments: str, fails: bool = False, **environment: str) -> Run:
    """Run ansible-playbook as an operator's first run of the day: over SSH connections that are opened anew.

    One that does not fail as expected, or fails unexpectedly, ends the benchmark.
    """
    command = ["ansible-playbook", "--inventory", str(inventory), *arguments, str(playbook)]
    with tempfile.TemporaryDirectory() as sockets:
        settings = {
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets,
            **environment,
        }
        start = time.monotonic()
        done = subprocess.run(
            command, env={**os.environ, **settings}, cwd=CHECKOUT, capture_output=True, text=True, timeout=600
        )
        seconds = time.monotonic() - start
    if bool(done.returncode) != fails:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return Run(seconds, json.loads(done.stdout)["stats"])


def table(*head: str) -> None:
    """Print the head of a Markdown table; the first column is text, the others are numbers."""
    row(*head)
    print("|---|" + "---:|" * (len(head) - 1))


def row(*cells: object) -> None:
    """Print a row of a Markdown table."""
    print("|", " | ".join(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells), "|", flush=True)
