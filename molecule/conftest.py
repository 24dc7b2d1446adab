"""What the scenarios' tests share: the lab that they run in, and ways to ask its hosts."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml
from gpufleet_lab.lab import Lab

SSH_ARGUMENTS = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=5"


@pytest.fixture(scope="session")
def lab():
    return Lab.open()


@pytest.fixture
def sh(lab):
    """Run a shell command on a host; it has to succeed."""

    def run(host: str, command: str, check: bool = True) -> str:
        done = lab.ssh(host, command)
        assert not check or done.returncode == 0, f"{host}: {command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    return run


@pytest.fixture
def inventory(lab, tmp_path):
    """Write an inventory of the lab's hosts: inventory({"gpu1": {"rack": "r1"}}, monitoring_master={...}).

    Hosts are named with their own variables; keyword arguments are variables of groups, or of all.
    """

    def write(workers: dict, masters: dict | None = None, **group_vars: dict) -> Path:
        known = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(lab.key),
            "ansible_ssh_common_args": SSH_ARGUMENTS,
            "ansible_python_interpreter": "/usr/bin/python3",
            "gpufleet_mirror_url": lab.mirror_url,
            **{f"{name}_version": found["current"] for name, found in lab.versions.items()},
            **group_vars.get("all", {}),
        }
        masters = {"master1": {}} if masters is None else masters
        groups = {"gpu_workers": workers, "monitoring_master": masters}
        children = {
            group: {
                "hosts": {name: {"ansible_host": lab.hosts[name].address, **own} for name, own in hosts.items()},
                "vars": group_vars.get(group, {}),
            }
            for group, hosts in groups.items()
        }
        path = tmp_path / "hosts.yml"
        path.write_text(yaml.safe_dump({"all": {"vars": known, "children": children}}))
        return path

    return write


class Prometheus:
    """The Prometheus of a lab's master."""

    def __init__(self, address: str) -> None:
        self.base = f"http://{address}:9090"

    def get(self, path: str, **query: str):
        url = f"{self.base}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def targets(self) -> dict[tuple[str, str], dict]:
        """(job, instance) -> target."""
        return {(t["labels"]["job"], t["labels"]["instance"]): t for t in self.get("targets")["activeTargets"]}

    def query(self, expression: str) -> list[dict]:
        return self.get("query", query=expression)["result"]


@pytest.fixture
def prometheus(lab):
    return Prometheus(lab.hosts["master1"].address)
