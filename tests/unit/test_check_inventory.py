"""check_inventory: a mistake in an inventory is found before anything changes, and is easy to find from the error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.gpufleet.monitoring.plugins.module_utils.inventory import InventoryError, check_inventory

CHECKOUT = Path(__file__).parents[2]

JOBS = [
    {"job": "prometheus", "groups": ["monitoring_master"], "port": 9090, "bind_address": "127.0.0.1"},
    {"job": "node_exporter", "groups": ["gpu_workers", "monitoring_master"], "port": 9100, "exporter": True},
]
ALERT_DEFAULTS = {
    "prometheus_alert_thresholds": {"hot_celsius": 85, "gpus_expected": 0},
    "prometheus_alert_for": {},
    "prometheus_alerts_disabled": [],
    "prometheus_alert_time_factor": 1,
    "prometheus_alert_runbook_url": "https://runbooks.example/{alert}",
}
NODE_EXPORTER_OPTIONS = ["node_exporter_version", "gpufleet_exporters", "gpufleet_labels"]
NODE_EXPORTER_OPTIONS += ["gpufleet_alert_thresholds", "gpufleet_gpus_expected"]
SPECS = {
    "node_exporter": {
        "argument_specs": {
            "main": {"options": {name: {} for name in NODE_EXPORTER_OPTIONS}},
            "remove": {"options": {"node_exporter_keep_data": {}}},
        }
    },
    "prometheus": {
        "argument_specs": {"main": {"options": {name: {} for name in ["prometheus_retention_time", *ALERT_DEFAULTS]}}}
    },
    "empty": None,
}
HOT = {
    "alert": "Hot",
    "expr": "celsius > threshold:hot_celsius and gpus > threshold:gpus_expected",
    "for": "5m",
    "labels": {"severity": "warning"},
    "annotations": {"summary": "hot"},
}
WORKERS = {"gpu1": {"ansible_host": "10.0.0.1"}, "gpu2": {"ansible_host": "10.0.0.2"}}
MASTERS = {"master1": {"ansible_host": "10.0.0.100"}}


def check(workers=WORKERS, masters=MASTERS, jobs=JOBS, **groups):
    members = {"gpu_workers": list(workers), "monitoring_master": list(masters), **groups}
    return check_inventory(members, {**workers, **masters, "laptop": {"gpufleet_x": 1}}, jobs, SPECS, "hosts.yml")


def faults(*args, **kwargs):
    with pytest.raises(InventoryError) as caught:
        check(*args, **kwargs)
    return caught.value.faults


def with_variable(name, value="x"):
    return {host: {**variables, name: value} for host, variables in WORKERS.items()}


def test_a_sound_inventory():
    report = check()
    assert (report.hosts, report.targets, report.warnings) == (3, {"prometheus": 1, "node_exporter": 3}, [])


@pytest.mark.parametrize(("groups", "state"), [({"gpu_workers": []}, "is empty"), ({}, "is missing")])
def test_groups_without_hosts(groups, state):
    with pytest.raises(InventoryError) as caught:
        check_inventory({"monitoring_master": ["master1"], **groups}, MASTERS, JOBS, SPECS, "hosts.yml")
    (fault,) = caught.value.faults
    assert fault.startswith(f"group gpu_workers, the GPU servers, {state} in hosts.yml; inventories/example")


def test_an_inventory_without_a_master_says_no_more_than_that():
    (fault,) = faults(masters={})
    assert fault.startswith("group monitoring_master, the host that runs Prometheus, is empty")


def test_faults_of_targets_are_found_from_each_master():
    """What master1 reaches at its own loopback address, master2 does not."""
    masters = {"master1": {"ansible_host": "127.0.0.1"}, "master2": {"ansible_host": "10.0.0.2"}}
    lines = faults({"gpu1": {"ansible_host": "10.0.0.2"}}, masters)
    assert any(line.startswith("gpu1, master2: 10.0.0.2:9100 is the target of job node_exporter") for line in lines)
    assert any(line.startswith("master1: its address is 127.0.0.1, where master2 would find itself") for line in lines)


def test_several_masters_repeat_no_fault():
    masters = {"master1": {"ansible_host": "10.0.0.100"}, "master2": {"ansible_host": "10.0.0.101"}}
    lines = faults({"gpu1": {"ansible_host": "10.0.0.1", "gpufleet_labels": {"job": 1}}, "gpu2": {}}, masters)
    assert [line.split(":")[0] for line in lines] == ["gpu1", "gpu2"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("gpufleet_exporers", "gpufleet_exporters"),
        ("gpufleet_label", "gpufleet_labels"),
        ("node_exporter_verison", "node_exporter_version"),
        ("node_exporter_keep_date", "node_exporter_keep_data"),
        ("prometheus_retention_tiem", "prometheus_retention_time"),
        # What scrape_targets reads for a job is known, whether a role has it or not.
        ("prometheus_prt", "prometheus_port"),
    ],
)
def test_a_misspelt_variable(name, meant):
    assert faults(with_variable(name)) == [
        f"gpu1, gpu2: {name} is not a variable of this collection; did you mean {meant}?"
    ]


def test_the_collections_own_prefix_is_not_for_others():
    assert faults(with_variable("gpufleet_zebra")) == [
        "gpu1, gpu2: gpufleet_zebra is not a variable of this collection"
    ]


@pytest.mark.parametrize("name", ["prometheus_password", "node_exporter_tls_user"])
def test_a_variable_that_may_be_the_users_own_is_a_warning(name):
    report = check(with_variable(name))
    assert report.warnings == [f"gpu1, gpu2: {name} is not a variable of this collection"]


def test_a_misspelt_role_is_a_warning():
    assert check(with_variable("node_exporer_version")).warnings == [
        "gpu1, gpu2: node_exporer_version is not a variable of this collection; did you mean node_exporter_version?"
    ]


@pytest.mark.parametrize("name", ["ansible_user", "rack", "grafana_password", "node_exporter_keep_data", "nodes"])
def test_other_variables_are_left_alone(name):
    assert check(with_variable(name)).warnings == []


def test_hosts_that_the_collection_has_no_business_with_are_left_alone():
    assert check(laptops=["laptop"]).hosts == 3


def test_values_are_not_read_unless_they_are_needed():
    """A vault password that is not given, or a template that only works elsewhere, is none of our business."""

    class Secret(dict):
        def __getitem__(self, key):
            assert key == "ansible_host", f"{key} was read"
            return super().__getitem__(key)

    workers = {"gpu1": Secret(ansible_host="10.0.0.1", prometheus_password="hunter2", rack="r1")}
    assert check(workers).hosts == 2


# -- in Ansible ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a collections path with the plugins as they are, and roles made for these tests."""
    root = tmp_path_factory.mktemp("collections")
    collection = root / "ansible_collections" / "gpufleet" / "monitoring"
    shutil.copytree(CHECKOUT / "plugins", collection / "plugins")
    for role, spec in SPECS.items():
        meta = collection / "roles" / role / "meta"
        meta.mkdir(parents=True)
        (meta / "argument_specs.yml").write_text(yaml.safe_dump(spec))
    defaults = collection / "roles" / "prometheus" / "defaults" / "main.yml"
    defaults.parent.mkdir()
    defaults.write_text(yaml.safe_dump({"prometheus_scrape_jobs": JOBS, **ALERT_DEFAULTS}))
    alerts = collection / "roles" / "prometheus" / "files" / "alerts" / "gpu.yml"
    alerts.parent.mkdir(parents=True)
    alerts.write_text(yaml.safe_dump({"groups": [{"name": "gpu", "rules": [HOT]}]}))
    return root


class Runner:
    """Runs check_inventory on an inventory, as the first play of site.yml does."""

    def __init__(self, directory, collections):
        self.directory = directory
        # Ansible's defaults otherwise, whatever the settings of whoever runs the tests.
        configuration = directory / "ansible.cfg"
        configuration.write_text(f"[defaults]\ncollections_path = {collections}\n")
        self.environment = {**os.environ, "ANSIBLE_CONFIG": str(configuration), "ANSIBLE_NOCOLOR": "1"}

    def __call__(self, inventory, *options, **arguments):
        (self.directory / "hosts.yml").write_text(inventory)
        tasks = [
            {"gpufleet.monitoring.check_inventory": arguments, "register": "report"},
            {"ansible.builtin.debug": {"msg": "REPORT {{ report | to_json }}"}, "run_once": True},
        ]
        play = {"hosts": "all:localhost", "gather_facts": False, "tasks": tasks}
        (self.directory / "play.yml").write_text(json.dumps([play]))
        command = [Path(sys.executable).parent / "ansible-playbook", "-i", "hosts.yml", *options, "play.yml"]
        return subprocess.run(command, cwd=self.directory, env=self.environment, capture_output=True, text=True)


@pytest.fixture
def run(tmp_path, installed):
    return Runner(tmp_path, installed)


SOUND = """
gpu_workers: {hosts: {gpu1: {ansible_host: 192.0.2.1}, gpu2: {ansible_host: 192.0.2.2}}}
monitoring_master: {hosts: {master1: {ansible_connection: local}}}
"""


@pytest.mark.parametrize("options", [[], ["--check"], ["--limit", "gpu2"]])
def test_it_runs_once_without_a_connection(run, options):
    """The hosts do not exist."""
    result = run(SOUND, *options)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("ok: [") == 2, "not once for all hosts"
    assert "changed=0" in result.stdout
    for part in (
        '\\"changed\\": false',
        '\\"hosts\\": 3',
        '\\"targets\\": {\\"prometheus\\": 1, \\"node_exporter\\": 3}',
    ):
        assert part in result.stdout


def test_the_masters_own_table_counts(run):
    jobs = "[{job: bmc, groups: [gpu_workers], port: '{{ 9000 + 290 }}'}]"
    table = SOUND.replace("ansible_connection: local", f"prometheus_scrape_jobs: {jobs}")
    assert '\\"targets\\": {\\"bmc\\": 2}' in run(table).stdout
    assert (
        '\\"targets\\": {\\"x\\": 1}'
        in run(SOUND, jobs=[{"job": "x", "groups": ["monitoring_master"], "port": 1}]).stdout
    )


def test_all_that_is_wrong_is_in_one_error(run):
    result = run(
        """
gpu_workers:
  vars: {node_exporter_verison: 1.0.0, prometheus_token: hunter2}
  hosts:
    gpu1: {ansible_host: 192.0.2.1, gpufleet_labels: {site-a: fra}}
    gpu2: {ansible_host: 192.0.2.1, gpufleet_exporters: [dcmg]}
    gpu3: {ansible_host: 192.0.2.1, gpufleet_exporters: "{{ chosen }}"}
    gpu4: {ansible_host: 192.0.2.1}
monitoring_master:
"""
    )
    assert result.returncode == 2
    output = result.stdout + result.stderr
    for line in (
        "The inventory has 6 faults:",
        "- group monitoring_master, the host that runs Prometheus, is empty in ",
        "- gpu1: gpufleet_labels has label 'site-a'; a label's name has only",
        "- gpu2: gpufleet_exporters has 'dcmg', which is no exporter (there are: node_exporter)",
        "- gpu3: gpufleet_exporters cannot be evaluated: 'chosen' is undefined",
        "- gpu1, gpu4: 192.0.2.1:9100 is the target of job node_exporter for all of them",
        "- gpu1, gpu2, gpu3 and 1 more: node_exporter_verison is not a variable of this collection;"
        " did you mean node_exporter_version?",
    ):
        assert line in output
    assert "hunter2" not in output
    assert "Traceback" not in output


def test_a_threshold_of_an_alert_that_does_not_fit(run):
    """As the role will have them: by the master's own table, or else by the role's."""
    host = "gpufleet_alert_thresholds: {hot_celsuis: 75}, gpufleet_gpus_expected: many"
    inventory = SOUND.replace("192.0.2.1", f"192.0.2.1, {host}")
    result = run(inventory)
    assert result.returncode == 2
    for line in (
        "- gpu1: gpufleet_gpus_expected must be a whole number",
        "- gpu1: gpufleet_alert_thresholds has 'hot_celsuis', which is no threshold of an alert;"
        " did you mean 'hot_celsius'?",
    ):
        assert line in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("prometheus_alerts_disabled: [Hott]", "prometheus_alerts_disabled has Hott, which is no alert; did you mean"),
        ("prometheus_alerts_disabled: Hot", "prometheus_alerts_disabled must be a list"),
        ("prometheus_alert_for: {Hot: 5}", "prometheus_alert_for: Hot must be a duration such as 5m"),
        ("prometheus_alert_for: [Hot]", "prometheus_alert_for must be a dictionary"),
        ("prometheus_alert_thresholds: {hot_celsius: 1}", "prometheus_alert_thresholds lacks gpus_expected"),
        ("prometheus_alert_runbook_url: https://wiki", "prometheus_alert_runbook_url must have {alert} in it"),
    ],
)
def test_settings_of_alerts_that_do_not_fit(run, setting, complaint):
    """The role would say so, too, when the workers are already changed."""
    result = run(SOUND.replace("ansible_connection: local", f"ansible_connection: local, {setting}"))
    assert result.returncode == 2
    assert complaint in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_settings_of_alerts_that_fit(run):
    settings = "prometheus_alert_for: {Hot: '{{ 3 }}m'}, gpufleet_alert_thresholds: {hot_celsius: '{{ 60 + 5 }}'}"
    assert run(SOUND.replace("ansible_connection: local", f"ansible_connection: local, {settings}")).returncode == 0


def test_warnings_reach_the_user(run):
    result = run(SOUND, "-e", "prometheus_token=hunter2")
    assert result.returncode == 0
    assert "gpu1, gpu2, master1: prometheus_token is not a variable of this collection" in result.stderr.replace(
        "\n", " "
    )
    assert "hunter2" not in result.stdout + result.stderr


def test_an_empty_inventory(run):
    result = run("all:")
    assert result.returncode == 2
    assert "group gpu_workers, the GPU servers, is missing" in result.stdout + result.stderr


def test_a_table_that_cannot_be_evaluated(run):
    result = run(SOUND.replace("ansible_connection: local", "prometheus_scrape_jobs: '{{ nothing }}'"))
    assert (
        "master1: prometheus_scrape_jobs cannot be evaluated: 'nothing' is undefined" in result.stdout + result.stderr
    )


def test_an_unknown_argument(run):
    assert "Unsupported parameters" in run(SOUND, job=[]).stdout


def test_the_roles_of_this_checkout(tmp_path):
    """Their argument specs know the variables of hosts, and their default table is sound."""
    run = Runner(tmp_path, CHECKOUT / ".collections")
    variables = "gpufleet_address: 192.0.2.9, gpufleet_labels: {site: fra}, gpufleet_exporters: [node_exporter]"
    result = run(SOUND.replace("ansible_host: 192.0.2.2", f"{variables}, node_exporter_port: 9101"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "[WARNING]" not in result.stderr
