#!/usr/bin/env python3
"""Measure what large inventories cost: check_inventory, and scrape_targets with its rendered files.

Prints a Markdown table of seconds, with CPU seconds in parentheses, and of memory: that of the largest process.

Every row is made of four real ansible-playbook runs over a generated inventory: an empty one, which is what Ansible
itself takes to start and to read that inventory; one that looks at one variable of every host, for which Ansible merges
all the host's variables; the first play of site.yml, check_inventory; and one that computes the targets of the master
and writes them. Columns with a + are what a run took beyond the empty one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

JOBS = """\
      - {job: prometheus, groups: [monitoring_master], port: 9090, bind_address: 127.0.0.1}
      - {job: node_exporter, groups: [gpu_workers, monitoring_master], port: 9100, exporter: true}
      - {job: dcgm, groups: [gpu_workers], port: 9400, exporter: true}
"""

PLAYBOOKS = {
    "empty": """\
- hosts: monitoring_master
  gather_facts: false
  tasks:
    - ansible.builtin.assert: {that: true}
""",
    "look": """\
- hosts: monitoring_master
  gather_facts: false
  tasks:
    - ansible.builtin.assert:
        that: groups.all | map("extract", hostvars, "ansible_host") | length == groups.all | length
        quiet: true
""",
    # As in site.yml.
    "check": f"""\
- hosts: all:localhost
  gather_facts: false
  vars:
    jobs:
{JOBS}
  tasks:
    - gpufleet.monitoring.check_inventory: {{jobs: "{{{{ jobs }}}}"}}
""",
    # As in the role prometheus, but into one file, which no service has to run for.
    "targets": f"""\
- hosts: monitoring_master
  gather_facts: false
  connection: local
  vars:
    ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"
    jobs:
{JOBS}
    files: "{{{{ groups | gpufleet.monitoring.scrape_targets(hostvars, jobs, as_json=true) }}}}"
  tasks:
    - ansible.builtin.template: {{src: targets.j2, dest: "{{{{ playbook_dir }}}}/targets", mode: "0644"}}
""",
}
MASTER = "10.255.0.1"
TEMPLATE = "{% for text in files.values() %}{{ text }}{% endfor %}"


class Cost(t.NamedTuple):
    """What one run took: seconds from start to end, CPU seconds, and MiB of the largest of its processes."""

    seconds: float
    cpu: float
    memory: float

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.seconds - other.seconds, self.cpu - other.cpu, self.memory - other.memory)

    @property
    def time(self) -> str:
        """Wall time and CPU time, as a cell of the table."""
        return f"{self.seconds:.1f} ({self.cpu:.1f})"


def write_ini(directory: Path, hosts: int) -> Path:
    """Write an inventory of one line a host, as scripts generate them."""
    lines = ["[gpu_workers]"]
    lines += [f'{name} ansible_host={address} gpufleet_labels="{labels}"' for name, address, labels in fleet(hosts)]
    path = directory / "hosts.ini"
    path.write_text("\n".join([*lines, "[monitoring_master]", f"master1 ansible_host={MASTER}", ""]))
    return path


def write_yaml(directory: Path, hosts: int) -> Path:
    """Write an inventory as people write them."""
    lines = ["gpu_workers:", "  hosts:"]
    for name, address, labels in fleet(hosts):
        lines += [f"    {name}:", f"      ansible_host: {address}", f"      gpufleet_labels: {json.dumps(labels)}"]
    path = directory / "hosts.yml"
    master = f"monitoring_master: {{hosts: {{master1: {{ansible_host: {MASTER}}}}}}}"
    path.write_text("\n".join([*lines, master, ""]))
    return path


def fleet(hosts: int) -> t.Iterator[tuple[str, str, dict[str, str]]]:
    """Yield the name, address and labels of each worker."""
    for number in range(hosts):
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        yield f"gpu{number:05}", address, {"site": f"site{number % 5}", "rack": f"r{number // 32}"}


def write_group_vars(directory: Path) -> None:
    """Write what all hosts of a site share; Ansible merges it into each host's variables."""
    (directory / "group_vars").mkdir()
    (directory / "group_vars" / "all.yml").write_text("gpufleet_mirror_url: http://mirror.example.com\n")
    (directory / "group_vars" / "gpu_workers.yml").write_text("gpufleet_exporters: [node_exporter, dcgm]\n")


def run(playbook: Path, inventory: Path) -> Cost:
    """Run ansible-playbook; exit with its output where it fails."""
    command = [shutil.which("ansible-playbook") or "ansible-playbook", "-i", str(inventory), str(playbook)]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=CHECKOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        if status:
            output.seek(0)
            sys.exit(output.read().decode()[-4000:])
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def measure(hosts: int, write: t.Callable[[Path, int], Path]) -> list[str]:
    """Return one row of the table."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        inventory = write(directory, hosts)
        write_group_vars(directory)
        (directory / "targets.j2").write_text(TEMPLATE)
        costs = {}
        for intent, playbook in PLAYBOOKS.items():
            path = directory / f"{intent}.yml"
            path.write_text(playbook)
            costs[intent] = run(path, inventory)
        written = (directory / "targets").read_text().count('"instance"')
        assert written == 2 * (hosts + 1), f"{written} targets of {hosts} workers and a master"
    empty, look, check, targets = (costs[intent] for intent in ("empty", "look", "check", "targets"))
    times = [cost.time for cost in (empty, look - empty, check - empty, targets - empty, targets)]
    return [f"{hosts:,}", inventory.suffix[1:], *times, f"{empty.memory:.0f}", f"{targets.memory:.0f}"]


def main() -> None:
    """Measure each size in each form of inventory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hosts", type=int, nargs="*", default=[100, 1000, 10000], help="sizes of the inventories")
    arguments = parser.parse_args()
    print(
        "| hosts | inventory | empty | + one look | + check | + targets, files | whole run | empty, MiB | whole, MiB |"
    )
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    for hosts in arguments.hosts:
        for write in (write_ini, write_yaml):
            print("|", " | ".join(measure(hosts, write)), "|", flush=True)


if __name__ == "__main__":
    main()
