"""Where the role certificate puts the CA for an operator who says nothing of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("inventory", "directory"), [("fleet/hosts.yml", "fleet"), ("gpu1,", ".")], ids=["beside-the-inventory", "no-file"]
)
def test_the_ca_is_put_where_its_operator_finds_it(tmp_path, inventory, directory):
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet/hosts.yml").write_text("all: {hosts: {gpu1: {}}}")
    copy = {"content": "{{ certificate_ca_file }}", "dest": str(tmp_path / "said")}
    variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    files = [str(CHECKOUT / "roles/certificate/defaults/main.yml")]
    play = {"hosts": "all", "gather_facts": False, "vars": variables, "vars_files": files}
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/play.yml").write_text(json.dumps([{**play, "tasks": [{"ansible.builtin.copy": copy}]}]))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", inventory, "elsewhere/play.yml"],
        cwd=tmp_path,
        env={**os.environ, "PWD": str(tmp_path), "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path((tmp_path / "said").read_text()) == tmp_path / directory / ".gpufleet/gpu1-ca.pem"
