"""A host of the lab as somebody's controller: an ansible-core of its own, and the collection as it is released."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import yaml
from gpufleet_lab import store
from gpufleet_lab.lab import CHECKOUT, Lab

TOOLS = Path(sys.executable).parent
# `pip index versions ansible-core --python-version 3.14` says what is newest.
VERSIONS = {
    "oldest": yaml.safe_load((CHECKOUT / "meta/runtime.yml").read_text())["requires_ansible"].removeprefix(">="),
    "newest": "2.21.5",
}
PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
SSH_ARGUMENTS = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
# The lab's image has no pip; a wheel is a zip file of what is to be on Python's path.
UNPACK = "cd /root && for wheel in wheels/*.whl; do python3 -m zipfile -e $wheel python; done"


class Controller:
    """The host `oldest` or `newest`, with its worker."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name, self.worker = lab, name, f"{name}-worker"
        self.version = VERSIONS[name]

    def furnish(self, archive: Path) -> None:
        """Install ansible-core and the collection, as far as they are not there, and write the inventory."""
        self._bring("wheels", *self._wheels().glob("*.whl"))
        self._bring("fleet", archive, self.lab.key, self._inventory(archive.parent / self.name))
        self._bring(".", CHECKOUT / "ansible.cfg")
        self.sh(f"[ -e python ] || {{ {UNPACK}; }}")
        self.ansible("galaxy", "collection", "install", "--offline", "--force", f"fleet/{archive.name}")

    def playbook(self, *words: str | Path) -> str:
        """Run the collection's playbook as an operator does, by its name."""
        return self.ansible("playbook", "--inventory", "fleet/hosts.yml", *words, "gpufleet.monitoring.site")

    def ansible(self, program: str, *words: str | Path) -> str:
        """Run one of Ansible's programs in /root; it has to succeed."""
        return self.sh(shlex.join(["env", "PYTHONPATH=python", "python3", "-m", "ansible", program, *map(str, words)]))

    def sh(self, command: str) -> str:
        """Run a shell command; it has to succeed. Returns all that it said."""
        done = self.lab.ssh(self.name, f"{{ {command}; }} 2>&1", timeout=300)
        assert done.returncode == 0, f"{self.name}: {command}: {done.stdout}"
        return done.stdout

    def _bring(self, directory: str, *files: Path) -> None:
        receive = self.lab.ssh_command(self.name, f"mkdir -p {directory} && tar -x -C {directory}")
        send = ["tar", "-c", *(word for file in files for word in ("-C", str(file.parent), file.name))]
        with subprocess.Popen(send, stdout=subprocess.PIPE) as sender:
            subprocess.run(receive, stdin=sender.stdout, check=True)

    def _wheels(self) -> Path:
        """Return a directory with ansible-core and what it needs, from PyPI on first use."""
        python = PYTHONS[self.lab.hosts[self.name].spec.suite]

        def download(directory: Path) -> None:
            options = ["--quiet", "--disable-pip-version-check", "--only-binary=:all:", f"--python-version={python}"]
            command = [sys.executable, "-m", "pip", "download", *options, f"ansible-core=={self.version}"]
            subprocess.run([*command, "--dest", directory], check=True)

        return store.build_once(store.cache() / "releases" / f"ansible-core-{self.version}-python{python}", download)

    def _inventory(self, directory: Path) -> Path:
        everyone = {
            "ansible_ssh_private_key_file": "fleet/key",
            "ansible_ssh_common_args": SSH_ARGUMENTS,
            "ansible_user": "root",
            "gpufleet_mirror_url": self.lab.mirror_url,
            **{f"{name}_version": found["current"] for name, found in self.lab.versions.items()},
        }
        master = {"ansible_connection": "local", "ansible_host": self.lab.hosts[self.name].address}
        worker = {
            "ansible_host": self.lab.hosts[self.worker].address,
            "dcgm_version": "4.7.1",
            "dcgm_exporter_version": "4.9.0",
            "dcgm_sysfs": "/etc/simulated-gpu/sys",
            "gpu_exporter_config": {"paths": {"sysfs": "/etc/simulated-gpu/sys"}},
        }
        groups = {
            "gpu_workers": {"hosts": {self.worker: worker}},
            "monitoring_master": {"hosts": {self.name: master}},
        }
        directory.mkdir()
        path = directory / "hosts.yml"
        path.write_text(yaml.safe_dump({"all": {"vars": everyone, "children": groups}}))
        return path
