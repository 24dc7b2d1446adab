"""Targets from an inventory: every host once, at an address that the master reaches, or an error that helps."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.gpufleet.monitoring.plugins.filter.scrape_targets import (
    scrape_targets as scrape_targets_filter,
)
from ansible_collections.gpufleet.monitoring.plugins.module_utils.inventory import (
    InventoryError,
    scrape_targets,
    scraped_addresses,
)
from hypothesis import given
from hypothesis import strategies as st

CHECKOUT = Path(__file__).parents[2]

PROMETHEUS = {"job": "prometheus", "groups": ["monitoring_master"], "port": 9090, "bind_address": "127.0.0.1"}
NODE = {"job": "node_exporter", "groups": ["gpu_workers", "monitoring_master"], "port": 9100, "exporter": True}
DCGM = {"job": "dcgm", "groups": ["gpu_workers"], "port": 9400, "exporter": True}
MASTER = {"master1": {"ansible_host": "10.0.0.100"}}


def find(workers, masters=MASTER, jobs=(PROMETHEUS, NODE, DCGM), master=None, **groups):
    hostvars = {**workers, **masters}
    members = {"gpu_workers": list(workers), "monitoring_master": list(masters), **groups}
    return scrape_targets(members, hostvars, list(jobs), master)


def addresses(job):
    return [entry["targets"][0] for entry in job]


def faults(*args, **kwargs):
    with pytest.raises(InventoryError) as caught:
        find(*args, **kwargs)
    return caught.value.faults


# -- which hosts are targets, and how they are named ---------------------------------------------


def test_a_fleet():
    found = find({"gpu1": {"ansible_host": "10.0.0.1", "gpufleet_labels": {"site": "fra1"}}})
    assert found == {
        "prometheus": [{"targets": ["127.0.0.1:9090"], "labels": {"instance": "master1"}}],
        "node_exporter": [
            {"targets": ["10.0.0.1:9100"], "labels": {"instance": "gpu1", "site": "fra1"}},
            {"targets": ["10.0.0.100:9100"], "labels": {"instance": "master1"}},
        ],
        "dcgm": [{"targets": ["10.0.0.1:9400"], "labels": {"instance": "gpu1", "site": "fra1"}}],
    }


def test_a_job_without_hosts_is_empty_but_there():
    """Else its file would stay as it was, with targets that are gone."""
    bmc = {"job": "bmc", "groups": ["bmcs"], "port": 9290}
    assert find({}, jobs=[bmc]) == {"bmc": []}


def test_a_host_in_two_groups_of_a_job_is_one_target():
    server = {"gpu1": {"ansible_host": "10.0.0.1"}}
    assert addresses(find(server, server)["node_exporter"]) == ["10.0.0.1:9100"]


@pytest.mark.parametrize(
    ("exporters", "node", "dcgm"),
    [(None, 1, 1), (["node_exporter"], 1, 0), (["dcgm"], 0, 1), (["dcgm", "node_exporter"], 1, 1), ([], 0, 0)],
)
def test_a_host_chooses_its_exporters(exporters, node, dcgm):
    chosen = {} if exporters is None else {"gpufleet_exporters": exporters}
    found = find({"gpu1": {"ansible_host": "10.0.0.1", **chosen}}, masters={}, jobs=[NODE, DCGM])
    assert (len(found["node_exporter"]), len(found["dcgm"])) == (node, dcgm)


def test_choosing_exporters_leaves_other_services_alone():
    masters = {"master1": {"ansible_host": "10.0.0.100", "gpufleet_exporters": []}}
    assert addresses(find({}, masters)["prometheus"]) == ["127.0.0.1:9090"]


def test_an_exporter_that_the_hosts_groups_do_not_call_for_is_no_target():
    """group_vars/all may have one list for workers and masters."""
    masters = {"master1": {"ansible_host": "10.0.0.100", "gpufleet_exporters": ["node_exporter", "dcgm"]}}
    assert find({}, masters)["dcgm"] == []


@pytest.mark.parametrize("state", ["stopped", "absent"])
def test_a_service_that_does_not_run_is_no_target(state):
    off, on = {"ansible_host": "10.0.0.1"}, {"ansible_host": "10.0.0.2", "node_exporter_state": "started"}
    found = find({"gpu1": {**off, "node_exporter_state": state}, "gpu2": on})
    assert [entry["labels"]["instance"] for entry in found["node_exporter"]] == ["gpu2", "master1"]


def test_json_has_one_line_a_target():
    """A host that comes or goes is then one line of --diff."""
    groups = {"gpu_workers": ["gpu1"], "monitoring_master": ["master1"]}
    hostvars = {"gpu1": {"ansible_host": "10.0.0.1", "gpufleet_labels": {"site": 'a"b\n'}}, **MASTER}
    jobs = [NODE, {**DCGM, "groups": ["none"]}]
    texts = scrape_targets_filter(groups, hostvars, jobs, as_json=True)
    assert {job: json.loads(text) for job, text in texts.items()} == scrape_targets(groups, hostvars, jobs)
    assert texts["node_exporter"].count("\n") == 4


# -- addresses and ports -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "variables", "target"),
    [
        ("gpu1", {"ansible_host": "10.0.0.1"}, "10.0.0.1:9100"),
        ("gpu1", {"ansible_host": "gpu1.ssh", "gpufleet_address": "10.1.0.1"}, "10.1.0.1:9100"),
        ("gpu1", {"ansible_host": "gpu1"}, "gpu1:9100"),
        ("gpu1", {"ansible_host": "fd00::0:1"}, "[fd00::1]:9100"),
        ("gpu1", {"ansible_host": "[fd00::1]"}, "[fd00::1]:9100"),
        ("gpu1.example.com", {}, "gpu1.example.com:9100"),
        ("10.0.0.1", {}, "10.0.0.1:9100"),
        ("fd00::1", {}, "[fd00::1]:9100"),
        ("gpu1", {"ansible_host": "10.0.0.1", "node_exporter_port": 9101}, "10.0.0.1:9101"),
        ("gpu1", {"ansible_host": "10.0.0.1", "node_exporter_port": "9101"}, "10.0.0.1:9101"),
        ("gpu1", {"ansible_host": "10.0.0.1", "node_exporter_bind_address": ""}, "10.0.0.1:9100"),
        ("gpu1", {"ansible_host": "10.0.0.1", "node_exporter_bind_address": "0.0.0.0"}, "10.0.0.1:9100"),
        # It answers there and nowhere else.
        ("gpu1", {"ansible_host": "10.0.0.1", "node_exporter_bind_address": "10.9.0.1"}, "10.9.0.1:9100"),
        # Behind an address translation: the user knows.
        ("gpu1", {"gpufleet_address": "10.0.0.1", "node_exporter_bind_address": "10.9.0.1"}, "10.0.0.1:9100"),
    ],
)
def test_where_a_host_is_reached(name, variables, target):
    assert addresses(find({name: variables}, jobs=[NODE])["node_exporter"])[0] == target


@pytest.mark.parametrize(
    ("variables", "target"),
    [
        ({}, "127.0.0.1:9100"),
        ({"ansible_connection": "local"}, "127.0.0.1:9100"),
        ({"ansible_host": "localhost"}, "127.0.0.1:9100"),
        ({"ansible_host": "10.0.0.100"}, "10.0.0.100:9100"),
        ({"ansible_host": "10.0.0.100", "node_exporter_bind_address": "127.0.0.1"}, "127.0.0.1:9100"),
        ({"ansible_host": "10.0.0.100", "node_exporter_bind_address": "::1"}, "[::1]:9100"),
    ],
)
def test_where_a_master_reaches_itself(variables, target):
    assert addresses(find({}, {"master1": variables}, jobs=[NODE])["node_exporter"]) == [target]


def test_a_variable_of_a_job_with_a_hyphen():
    job = {"job": "node-exporter", "groups": ["gpu_workers"], "port": 9100}
    found = find({"gpu1": {"ansible_host": "10.0.0.1", "node_exporter_port": 9101}}, jobs=[job])
    assert addresses(found["node-exporter"]) == ["10.0.0.1:9101"]


def test_masters_scrape_each_other_where_they_can():
    masters = {"master1": {"ansible_host": "10.0.0.100"}, "master2": {"ansible_host": "10.0.0.101"}}
    assert addresses(find({}, masters, master="master2")["prometheus"]) == ["127.0.0.1:9090"]
    for variables in masters.values():
        variables["prometheus_bind_address"] = "0.0.0.0"
    assert addresses(find({}, masters, master="master2")["prometheus"]) == ["10.0.0.100:9090", "10.0.0.101:9090"]


# -- TLS -----------------------------------------------------------------------------------------

TLS = {"gpufleet_tls": True}


def schemes(found):
    return {
        (job, entry["labels"]["instance"]): entry["labels"].get("__scheme__", "http")
        for job, entries in found.items()
        for entry in entries
    }


def test_each_host_says_whether_its_exporters_speak_tls():
    """A fleet need not change over all at once."""
    workers = {"gpu1": {"ansible_host": "10.0.0.1", **TLS}, "gpu2": {"ansible_host": "10.0.0.2", "gpufleet_tls": "no"}}
    assert schemes(find(workers, {"master1": {"ansible_host": "10.0.0.100", **TLS}})) == {
        ("prometheus", "master1"): "http",
        ("node_exporter", "gpu1"): "https",
        ("node_exporter", "gpu2"): "http",
        ("node_exporter", "master1"): "https",
        ("dcgm", "gpu1"): "https",
        ("dcgm", "gpu2"): "http",
    }


def test_a_job_that_names_its_scheme_keeps_it():
    job = {**NODE, "scheme": "http"}
    assert set(schemes(find({}, {"master1": TLS}, jobs=[job])).values()) == {"http"}


def test_a_master_without_a_certificate_cannot_ask_who_wants_one():
    assert faults({"gpu1": {"ansible_host": "10.0.0.1", **TLS}}) == [
        "gpu1: gpufleet_tls is true here, but not for master1, which then has no certificate to show"
    ]


def test_a_switch_is_on_or_off():
    assert faults({"gpu1": {"ansible_host": "10.0.0.1", "gpufleet_tls": "maybe"}}) == [
        "gpu1: gpufleet_tls must be true or false, not a string"
    ]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("gpu1", ["10.0.0.1"]),
        ("gpu2", ["10.9.0.2", "10.0.0.2"]),  # one exporter is bound to another network
        ("master1", ["127.0.0.1"]),  # by itself; that the other one cannot is said elsewhere
        ("gpu3", []),
    ],
)
def test_a_certificate_has_to_name_each_address_that_is_scraped(host, expected):
    workers = {
        "gpu1": {"ansible_host": "10.0.0.1", **TLS},
        "gpu2": {"ansible_host": "10.0.0.2", "node_exporter_bind_address": "10.9.0.2", **TLS},
        "gpu3": {"ansible_host": "10.0.0.3"},
    }
    masters = {"master1": {"ansible_host": "localhost", **TLS}, "master2": {"ansible_host": "10.0.0.101", **TLS}}
    members = {"gpu_workers": list(workers), "monitoring_master": list(masters)}
    assert scraped_addresses(members, {**workers, **masters}, [PROMETHEUS, NODE, DCGM], host) == expected


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "has no address: set ansible_host or gpufleet_address"),
        ({"ansible_connection": "local"}, "has no address: set ansible_host or gpufleet_address"),
        ({"ansible_host": "10.0.0.256"}, "ansible_host is '10.0.0.256', which is no IP address and no host name"),
        ({"ansible_host": "10.0.0.1:22"}, "ansible_host is '10.0.0.1:22', which is no IP address and no host name"),
        ({"ansible_host": ""}, "ansible_host is '', which is no IP address and no host name"),
        ({"ansible_host": 10.1}, "ansible_host must be an address, not a number"),
        ({"ansible_host": None}, "ansible_host must be an address, not empty"),
        ({"ansible_host": "127.0.0.1"}, "its address is 127.0.0.1, where master1 would find itself"),
        ({"ansible_host": "::1"}, "its address is ::1, where master1 would find itself"),
        (
            {"ansible_host": "10.0.0.1", "node_exporter_bind_address": "127.0.0.1"},
            "node_exporter_bind_address is 127.0.0.1, so master1 cannot scrape it",
        ),
        ({"ansible_host": "10.0.0.1", "node_exporter_port": 0}, "node_exporter_port must be a number from 1 to 65535"),
        (
            {"ansible_host": "10.0.0.1", "node_exporter_port": True},
            "node_exporter_port must be a number from 1 to 65535",
        ),
        (
            {"ansible_host": "10.0.0.1", "gpufleet_exporters": ["node_exporer"]},
            "gpufleet_exporters has 'node_exporer', which is no exporter (there are: node_exporter);"
            " did you mean 'node_exporter'?",
        ),
        (
            {"ansible_host": "10.0.0.1", "gpufleet_exporters": "node_exporter"},
            "gpufleet_exporters must be a list, not a string",
        ),
        ({"ansible_host": "10.0.0.1", "gpufleet_exporters": None}, "gpufleet_exporters must be a list, not empty"),
        ({"ansible_host": "10.0.0.1", "gpufleet_labels": ["a"]}, "gpufleet_labels must be a dictionary, not a list"),
    ],
)
def test_a_fault_names_host_and_variable_and_comes_alone(variables, message):
    (fault,) = faults({"gpu1": variables}, jobs=[NODE])
    assert fault.startswith(f"gpu1: {message}")


@pytest.mark.parametrize("name", ["instance", "job", "__meta", "a-b", "1a", "", "é", "a\n", True])
def test_illegal_label_names(name):
    (fault,) = faults({"gpu1": {"ansible_host": "10.0.0.1", "gpufleet_labels": {name: "x"}}})
    assert fault.startswith("gpu1: gpufleet_labels has ")


@pytest.mark.parametrize("value", [True, None, ["a"], {"a": "b"}])
def test_illegal_label_values(value):
    (fault,) = faults({"gpu1": {"ansible_host": "10.0.0.1", "gpufleet_labels": {"rack": value}}})
    assert fault.startswith("gpu1: label rack of gpufleet_labels must be a string or a number")


def test_label_values_are_never_repeated():
    """A variable may turn out to hold a secret, and errors end up in logs."""
    labels = {"rack": ["hunter2"], "a-b": "hunter2", "job": "hunter2"}
    assert "hunter2" not in "".join(faults({"gpu1": {"ansible_host": "10.0.0.1", "gpufleet_labels": labels}}))


def test_numbers_become_label_values():
    found = find({"gpu1": {"ansible_host": "10.0.0.1", "gpufleet_labels": {"rack": 12, "unit": 1.5}}})
    assert found["dcgm"][0]["labels"] == {"instance": "gpu1", "rack": "12", "unit": "1.5"}


def test_a_duplicate_address_names_all_hosts_and_the_way_out():
    workers = {"gpu1": {"ansible_host": "fd00::1"}, "gpu2": {"ansible_host": "FD00:0::1"}}
    (fault,) = faults(workers, jobs=[NODE])
    assert fault.startswith("gpu1, gpu2: [fd00::1]:9100 is the target of job node_exporter for all of them")
    assert "gpufleet_address" in fault
    assert "node_exporter_port" in fault


def test_hosts_behind_one_address_are_told_apart_by_port():
    workers = {"gpu1": {"ansible_host": "10.0.0.1"}, "gpu2": {"ansible_host": "10.0.0.1", "node_exporter_port": 9101}}
    assert addresses(find(workers, jobs=[NODE])["node_exporter"])[:2] == ["10.0.0.1:9100", "10.0.0.1:9101"]


def test_a_template_that_fails_names_host_and_variable():
    class Lazy(dict):
        def __getitem__(self, key):
            raise KeyError("'site' is undefined")

    (fault,) = faults({"gpu1": Lazy(ansible_host=None)}, jobs=[NODE])
    assert fault.startswith("gpu1: ansible_host cannot be evaluated: ")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("node_exporter", "scrape job number 1 must be a dictionary, not a string"),
        ({**NODE, "job": "a b"}, "scrape job a b: job must be a name of letters, digits, _ and -"),
        ({"groups": ["gpu_workers"], "port": 1}, "scrape job number 1: job is missing"),
        ({"job": "x", "groups": ["gpu_workers"]}, "scrape job x: port is missing"),
        ({**NODE, "port": 65536}, "scrape job node_exporter: port must be a number from 1 to 65535"),
        ({**NODE, "groups": []}, "scrape job node_exporter: groups must not be empty"),
        ({**NODE, "groups": "gpu_workers"}, "scrape job node_exporter: groups must be a list, not a string"),
        (
            {**NODE, "groups": ["gpu_worker"]},
            "scrape job node_exporter: there is no group gpu_worker; did you mean 'gpu_workers'?",
        ),
        ({**NODE, "exporter": "yes"}, "scrape job node_exporter: exporter must be true or false, not a string"),
        ({**NODE, "intervall": "15s"}, "scrape job node_exporter: there is no key intervall; did you mean 'interval'?"),
        ({**NODE, "interval": "15 s"}, "scrape job node_exporter: interval must be a duration such as 15s"),
        ({**NODE, "scheme": "ftp"}, "scrape job node_exporter: scheme must be http or https"),
        ({**NODE, "path": "metrics"}, "scrape job node_exporter: path must be a string that starts with /"),
    ],
)
def test_an_unsound_row_of_the_table(row, message):
    (fault,) = faults({}, jobs=[row])
    assert fault.startswith(message)


def test_a_row_with_all_keys():
    extras = {"path": "/m", "interval": "1m30s", "timeout": "10s", "scheme": "https", "params": {"a": ["b"]}}
    assert find({}, jobs=[{**PROMETHEUS, **extras}])["prometheus"]


def test_a_job_twice():
    assert faults({}, jobs=[NODE, NODE]) == ["scrape job node_exporter is in the table more than once"]


def test_all_faults_come_at_once():
    workers = {"gpu1": {}, "gpu2": {"ansible_host": "10.0.0.2", "node_exporter_port": 0, "gpufleet_labels": {"job": 1}}}
    assert len(faults(workers, jobs=[NODE, {"job": "x"}])) == 5


def test_a_fault_of_a_whole_group_is_one_line():
    workers = {f"gpu{n}": {"ansible_host": f"10.0.0.{n}", "gpufleet_labels": {"job": "x"}} for n in range(1, 51)}
    (fault,) = faults(workers)
    assert fault.startswith("gpu1, gpu2, gpu3 and 47 more: gpufleet_labels has label job")


def test_many_faults_are_cut_short():
    workers = {f"gpu{n}": {"ansible_host": f"10.0.0.{n}:"} for n in range(30)}
    with pytest.raises(InventoryError) as caught:
        find(workers)
    lines = str(caught.value).splitlines()
    assert lines[0] == "The inventory has 30 faults:"
    assert len(lines) == 22
    assert lines[-1] == "... and 10 more"


# -- properties ----------------------------------------------------------------------------------

WORKER = st.fixed_dictionaries(
    {},
    optional={
        "gpufleet_exporters": st.lists(st.sampled_from(["node_exporter", "dcgm"]), unique=True),
        "gpufleet_labels": st.dictionaries(
            st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True).filter(lambda name: name not in ("job", "instance")),
            st.text(max_size=5) | st.integers(),
            max_size=3,
        ),
        "node_exporter_port": st.integers(1, 65535),
    },
)


@given(st.lists(WORKER, max_size=20))
def test_every_host_with_an_exporter_is_its_target_once_in_order(fleet):
    workers = {f"gpu{n}": {"ansible_host": f"10.0.0.{n}", **variables} for n, variables in enumerate(fleet)}
    found = find(workers, masters={}, jobs=[NODE, DCGM])
    for job, entries in found.items():
        names = [entry["labels"]["instance"] for entry in entries]
        assert names == [name for name, v in workers.items() if job in v.get("gpufleet_exporters", [job])]
        assert all(isinstance(value, str) for entry in entries for value in entry["labels"].values())
    assert json.loads(json.dumps(found)) == found


@given(st.lists(WORKER, max_size=10), st.randoms(use_true_random=False))
def test_the_order_of_variables_does_not_matter(fleet, shuffler: random.Random):
    """A file that changes from run to run for no reason would make every run report a change."""
    workers = {f"gpu{n}": {"ansible_host": f"10.0.0.{n}", **variables} for n, variables in enumerate(fleet)}
    shuffled = {name: dict(shuffler.sample(list(v.items()), len(v))) for name, v in workers.items()}
    assert json.dumps(find(shuffled)) == json.dumps(find(workers))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
VARIABLES = ["ansible_host", "gpufleet_address", "gpufleet_labels", "gpufleet_exporters", "node_exporter_port"]


@given(st.dictionaries(st.sampled_from(VARIABLES), JUNK), st.dictionaries(st.sampled_from([*NODE, "params"]), JUNK))
def test_junk_is_an_error_and_not_a_traceback(variables, keys):
    try:
        find({"gpu1": variables}, jobs=[{**NODE, **keys}])
    except InventoryError as error:
        assert error.faults


# -- in Ansible ----------------------------------------------------------------------------------


def play(tmp_path, inventory, *options):
    """Write the targets, as the master in `inventory` would; return the run and what was written."""
    (tmp_path / "hosts.yml").write_text(inventory)
    written = tmp_path / "targets.json"
    task = {
        "ansible.builtin.copy": {
            "dest": str(written),
            "content": "{{ groups | gpufleet.monitoring.scrape_targets(hostvars, jobs) | to_json }}",
        },
        "delegate_to": "localhost",
    }
    variables = {"jobs": [PROMETHEUS, NODE], "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    play = {"hosts": "monitoring_master", "gather_facts": False, "vars": variables, "tasks": [task]}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    run = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "hosts.yml", *options, "play.yml"],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
    )
    return run, json.loads(written.read_text()) if written.exists() else None


FLEET = """
all:
  vars: {subnet: 192.0.2, base: 9000, gpufleet_labels: {site: "{{ room[:3] }}", room: "{{ room }}"}}
gpu_workers:
  vars: {ansible_host: "{{ subnet }}.{{ number }}", node_exporter_port: "{{ base + 101 }}"}
  hosts: {gpu1: {number: 1, room: fra1}, gpu2: {number: 2, room: fra2}}
monitoring_master:
  hosts: {master1: {ansible_connection: local, room: ams1}}
"""


def test_templates_are_evaluated_for_each_host_and_limit_keeps_the_others(tmp_path):
    """The workers do not exist: nothing connects to them."""
    run, found = play(tmp_path, FLEET, "--limit", "master1")
    assert run.returncode == 0, run.stdout + run.stderr
    assert found["node_exporter"] == [
        {"targets": ["192.0.2.1:9101"], "labels": {"instance": "gpu1", "site": "fra", "room": "fra1"}},
        {"targets": ["192.0.2.2:9101"], "labels": {"instance": "gpu2", "site": "fra", "room": "fra2"}},
        {"targets": ["127.0.0.1:9100"], "labels": {"instance": "master1", "site": "ams", "room": "ams1"}},
    ]


def test_undefined_variables_are_faults_like_others(tmp_path):
    inventory = yaml.safe_load(FLEET)
    inventory["all"]["vars"]["gpufleet_labels"]["rack"] = "{{ rack }}"
    del inventory["gpu_workers"]["hosts"]["gpu2"]["number"]
    run, found = play(tmp_path, yaml.safe_dump(inventory))
    assert run.returncode == 2
    assert found is None
    output = run.stdout + run.stderr
    assert "The inventory has 2 faults:" in output
    assert "- gpu2: ansible_host cannot be evaluated: 'number' is undefined" in output
    assert "- gpu1, gpu2, master1: gpufleet_labels cannot be evaluated: 'rack' is undefined" in output
