"""The lookup, as a role uses it: whose authority it takes, when it makes one, and what it hands to a service."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils import fleet_ca

CHECKOUT = Path(__file__).parents[2]
INVENTORY = """
all:
  vars: {gpufleet_tls: true, ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
gpu_workers:
  hosts: {gpu1: {ansible_host: 192.0.2.1}}
monitoring_master:
  hosts: {master1: {ansible_host: 192.0.2.10}}
"""
QUERY = """\
{{ query('gpufleet.monitoring.fleet_certificate', inventory_hostname, into='/etc/x', group='x', web_config=true) }}\
"""


@pytest.fixture
def play(tmp_path):
    """Run a play in which each host writes what it is given: play(*options) -> run, host -> files by name.

    tmp_path/hosts.yml is the inventory, if the options name no other.
    """
    (tmp_path / "hosts.yml").write_text(INVENTORY)
    written = tmp_path / "written"
    written.mkdir()
    copy = {"content": QUERY, "dest": f"{written}/{{{{ inventory_hostname }}}}", "mode": "0600"}
    task = {"name": "Write", "ansible.builtin.copy": copy, "check_mode": False, "tags": "some"}
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))

    def run(*options):
        inventory = [] if "-i" in options else ["-i", "hosts.yml"]
        done = subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", *inventory, *options, "play.yml"],
            cwd=tmp_path,
            env={**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
        )
        found = {path.name: json.loads(path.read_text()) for path in written.iterdir()}
        return done, {host: {Path(file["path"]).name: file for file in files} for host, files in found.items()}

    return run


def test_a_run_for_all_hosts_makes_an_authority_beside_the_inventory(play, tmp_path):
    done, found = play()
    assert done.returncode == 0, done.stdout + done.stderr
    authority = tmp_path / ".gpufleet/tls"
    assert f"keep a copy of {authority}" in " ".join(done.stderr.split())
    prometheus = "master1.prometheus.gpufleet"
    for host, clients in (("gpu1", [prometheus, "gpu1"]), ("master1", [prometheus, "master1"])):
        key, ca, web = found[host]["host.pem"], found[host]["ca.pem"], found[host]["web.yml"]
        assert key["secret_content"] == (authority / f"hosts/{host}.pem").read_text()
        assert (key["mode"], key["group"]) == ("0640", "x")
        assert ca["content"] == (authority / "ca.crt").read_text()
        settings = json.loads(web["content"])["tls_server_config"]
        assert settings["client_auth_type"] == "RequireAndVerifyClientCert"
        assert settings["client_allowed_sans"] == clients
        assert {file["on_change"] for file in (key, ca, web)} == {"none"}  # who reads them, reads them again
    again, same = play("--limit", "gpu1")
    assert again.returncode == 0, again.stdout + again.stderr
    assert same == found


def test_where_the_inventory_is_no_file_it_has_to_be_said_where_the_authority_is(play, tmp_path):
    """The authority's key must not come to lie where somebody happens to be, and be another one elsewhere."""
    plays = json.loads((tmp_path / "play.yml").read_text())
    group = {"ansible.builtin.add_host": {"name": "{{ inventory_hostname }}", "groups": ["monitoring_master"]}}
    plays.insert(0, {"hosts": "all", "gather_facts": False, "tasks": [group]})
    (tmp_path / "play.yml").write_text(json.dumps(plays))
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    done, _ = play("-i", "master1,", "--extra-vars", json.dumps(local))
    assert done.returncode != 0
    assert "set gpufleet_tls_directory" in done.stdout + done.stderr
    assert not list(tmp_path.rglob(".gpufleet"))
    done, found = play(
        "-i", "master1,", "--extra-vars", json.dumps({**local, "gpufleet_tls_directory": f"{tmp_path}/ca"})
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "host.pem" in found["master1"]


def test_the_variables_may_be_templates(play, tmp_path, monkeypatch):
    more = {"room": "fra1", "gpufleet_tls_directory": "{{ inventory_dir }}/{{ room }}", "days": 400}
    monkeypatch.setattr(fleet_ca, "_SKEW", datetime.timedelta(days=10))  # of ten days ago, and not of this run
    fleet_ca.FleetCa(tmp_path / "fra1").certificate("gpu1", ["192.0.2.1"], 90, may_create=True)
    before = (tmp_path / "fra1/hosts/gpu1.pem").read_text()
    done, first = play("--extra-vars", json.dumps(more))
    assert done.returncode == 0, done.stdout + done.stderr
    assert first["gpu1"]["host.pem"]["secret_content"] == before
    done, second = play("--extra-vars", json.dumps({**more, "gpufleet_tls_renew_days": "{{ days }}"}))
    assert done.returncode == 0, done.stdout + done.stderr
    assert second["gpu1"]["host.pem"] != first["gpu1"]["host.pem"]


def test_a_name_of_prometheus_is_no_other_hosts(play, tmp_path):
    inventory = (tmp_path / "hosts.yml").read_text()
    (tmp_path / "hosts.yml").write_text(inventory.replace("192.0.2.1}", "master1.prometheus.gpufleet}"))
    done, found = play()
    assert done.returncode != 0
    assert "names that end in .prometheus.gpufleet are those of masters" in " ".join(
        (done.stdout + done.stderr).split()
    )
    assert "gpu1" not in found


def test_an_authority_that_ends_soon_is_said(play, tmp_path):
    assert play()[0].returncode == 0
    directory = tmp_path / ".gpufleet/tls"
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", directory / "ca.key")
    words = ["openssl", "req", "-x509", *key, "-out", directory / "ca.crt", "-days", "30", "-subj", "/CN=old"]
    subprocess.run(words, check=True, capture_output=True)
    done, _ = play()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "certificate authority ends on" in " ".join(done.stderr.split())


def test_the_authority_to_follow_is_made_on_demand(play, tmp_path):
    play()
    done, found = play("--extra-vars", "gpufleet_tls_new_authority=true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / ".gpufleet/tls/ca-next.crt").exists()
    assert found["gpu1"]["ca.pem"]["content"].count("BEGIN CERTIFICATE") == 2


@pytest.mark.parametrize("options", [("--limit", "gpu1"), ("--tags", "some"), ("--start-at-task", "Write")])
def test_a_run_for_a_part_makes_none(play, tmp_path, options):
    done, found = play(*options)
    assert done.returncode != 0
    assert "only a run for all hosts makes one" in " ".join((done.stdout + done.stderr).split())
    assert not found
    assert not (tmp_path / ".gpufleet/tls/ca.crt").exists()


def test_check_mode_leaves_nothing_on_the_controller(play, tmp_path):
    done, found = play("--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(found) == {"gpu1", "master1"}
    assert not (tmp_path / ".gpufleet").exists()
