"""Who may reach which port, by the inventory: masters reach what they scrape, and nobody is forgotten or invented."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.gpufleet.monitoring.plugins.module_utils.firewall.access import firewall_rules
from ansible_collections.gpufleet.monitoring.plugins.module_utils.inventory import InventoryError

ROLES = Path(__file__).parents[2] / "roles"
JOBS = yaml.safe_load((ROLES / "prometheus/defaults/main.yml").read_text())["prometheus_scrape_jobs"]

MASTERS = {"master1": {"ansible_host": "10.0.0.100"}}
WORKERS = {"gpu1": {"ansible_host": "10.0.0.1"}, "gpu2": {"ansible_host": "10.0.0.2"}}
WEB = {"name": "web", "groups": ["monitoring_master"], "ports": [80, 443], "from": ["any"]}


def rules(host, workers=WORKERS, masters=MASTERS, services=(), admins=None, **groups):
    members = {"gpu_workers": list(workers), "monitoring_master": list(masters), **groups}
    return firewall_rules(members, {**workers, **masters}, host, JOBS, list(services), admins)


def sources(found):
    """(name, port) -> networks."""
    return {(rule["name"], rule["port"]): rule["from"] for rule in found}


def faults(*args, **kwargs):
    with pytest.raises(InventoryError) as caught:
        rules(*args, **kwargs)
    return caught.value.faults


# -- what is scraped -----------------------------------------------------------------------------


def test_a_workers_exporters_are_open_to_the_master_alone():
    assert sources(rules("gpu1")) == {
        ("node_exporter", "9100"): ["10.0.0.100"],
        ("dcgm_exporter", "9400"): ["10.0.0.100"],
        ("gpu_exporter", "9500"): ["10.0.0.100"],
    }


def test_a_master_needs_no_rule_for_itself_but_for_the_other_ones():
    assert sources(rules("master1"))[("node_exporter", "9100")] == []
    masters = {**MASTERS, "master2": {"ansible_host": "10.0.0.101"}}
    assert sources(rules("master1", masters=masters))[("node_exporter", "9100")] == ["10.0.0.101"]
    assert sources(rules("gpu1", masters=masters))[("node_exporter", "9100")] == ["10.0.0.100", "10.0.0.101"]


def test_what_listens_on_the_loopback_device_needs_no_rule():
    one = {"server": {"node_exporter_bind_address": "127.0.0.1", "gpu_exporter_bind_address": "::1"}}
    assert sources(rules("server", one, one)) == {("dcgm_exporter", "9400"): []}


def test_ports_are_the_hosts_own():
    workers = {
        "gpu1": {"ansible_host": "10.0.0.1", "node_exporter_port": 19100, "gpufleet_exporters": ["node_exporter"]}
    }
    assert sources(rules("gpu1", workers)) == {("node_exporter", "19100"): ["10.0.0.100"]}


def test_administrators_reach_what_is_scraped():
    assert sources(rules("gpu1", admins=["198.51.100.7/24"]))[("gpu_exporter", "9500")] == [
        "10.0.0.100",
        "198.51.100.0/24",
    ]


# -- where a master's connections come from ------------------------------------------------------


@pytest.mark.parametrize(
    ("master", "expected"),
    [
        ({"ansible_host": "master.ssh", "gpufleet_address": "10.0.0.9"}, ["10.0.0.9"]),
        ({"ansible_host": "fd00::0:9"}, ["fd00::9"]),
        ({"ansible_host": "master.ssh", "firewall_source_addresses": ["10.0.0.9", "fd00::9"]}, ["10.0.0.9", "fd00::9"]),
        ({"ansible_host": "10.0.0.100", "firewall_source_addresses": ["192.0.2.0/28"]}, ["192.0.2.0/28"]),
    ],
)
def test_a_masters_source_address(master, expected):
    workers = {"gpu1": {"ansible_host": "gpu1.ssh"}}
    assert sources(rules("gpu1", workers, {"master1": master}))[("node_exporter", "9100")] == expected


@pytest.mark.parametrize(
    ("master", "what"),
    [
        ({"ansible_host": "master.example.org"}, "its address is master.example.org"),
        ({"ansible_host": "127.0.0.1"}, "its address is 127.0.0.1"),
        ({}, "it has no address"),
        ({"ansible_host": "10.0.0.9", "firewall_source_addresses": ["master"]}, "must be a list of IP addresses"),
        ({"ansible_host": "10.0.0.9", "firewall_source_addresses": "10.0.0.9"}, "must be a list of IP addresses"),
    ],
)
def test_a_master_whose_connections_cannot_be_known_is_an_error_with_its_name(master, what):
    (fault,) = faults("gpu1", masters={"master1": master})
    assert fault.startswith("master1: ")
    assert what in fault
    assert "firewall_source_addresses" in fault


def test_a_master_that_comes_by_the_other_family_is_an_error():
    workers = {"gpu1": {"ansible_host": "fd00::1"}}
    (fault,) = faults("gpu1", workers)
    assert fault.startswith("master1: it reaches gpu1 at fd00::1, and is known to come from 10.0.0.100 alone")
    both = {"master1": {"ansible_host": "10.0.0.100", "firewall_source_addresses": ["10.0.0.100", "fd00::100"]}}
    assert sources(rules("gpu1", workers, both))[("node_exporter", "9100")] == ["10.0.0.100", "fd00::100"]


def test_a_server_that_watches_itself_needs_no_address():
    one = {"server": {}}
    assert sources(rules("server", one, one))[("node_exporter", "9100")] == []


# -- further services ----------------------------------------------------------------------------


def test_services_of_groups_are_only_theirs():
    assert sources(rules("master1", services=[WEB]))[("web", "443")] == ["any"]
    assert ("web", "443") not in sources(rules("gpu1", services=[WEB]))


def test_a_service_without_groups_is_the_hosts_own():
    nfs = {"name": "nfs", "ports": [2049, "6000:6010"], "from": ["gpu_workers", "10.9.0.0/16"], "proto": "udp"}
    found = rules("gpu1", services=[nfs])
    assert sources(found)[("nfs", "2049")] == ["10.0.0.2", "10.9.0.0/16"]
    assert sources(found)[("nfs", "6000:6010")] == ["10.0.0.2", "10.9.0.0/16"]
    assert {rule["proto"] for rule in found if rule["name"] == "nfs"} == {"udp"}


def test_any_swallows_what_else_there_is():
    row = {"name": "web", "ports": [80], "from": ["10.0.0.0/8", "any"]}
    assert sources(rules("gpu1", services=[row]))[("web", "80")] == ["any"]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({**WEB, "form": []}, "web: there is no key form; did you mean 'from'?"),
        ({"name": "web", "ports": [80]}, "web: from is missing"),
        ({**WEB, "ports": []}, "web: ports must be a list of ports"),
        ({**WEB, "ports": [0]}, "web: ports must have numbers from 1 to 65535, or ranges such as '6000:6010'"),
        (
            {**WEB, "ports": ["6010:6000"]},
            "web: ports must have numbers from 1 to 65535, or ranges such as '6000:6010'",
        ),
        ({**WEB, "proto": "sctp"}, "web: proto must be tcp or udp"),
        ({**WEB, "from": "any"}, "web: from must be a list of strings"),
        ({**WEB, "from": ["gpu_worker"]}, "web: from has 'gpu_worker', which is no network, no group and not any; "),
        ({**WEB, "from": ["10.0.0.0/33"]}, "web: from has '10.0.0.0/33', which is no network, no group and not any"),
        ({**WEB, "name": "it's"}, "name must be a name of letters, digits, blanks, _, . and -"),
        ("web", "firewall service number 1 must be a dictionary, not a string"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(row, fault):
    (found,) = faults("master1", services=[row])
    assert fault in found


def test_admin_networks_must_be_networks():
    assert faults("gpu1", admins=["office"]) == ["firewall_admin_networks must be a list of IP addresses and networks"]


def test_only_the_host_and_the_sources_are_read():
    """A fleet of thousands asks this once for each host."""

    read = []

    class Recorder(dict):
        def __getitem__(self, name):
            read.append(name)
            return super().__getitem__(name)

    hostvars = Recorder({**WORKERS, **MASTERS})
    firewall_rules({"gpu_workers": ["gpu1", "gpu2"], "monitoring_master": ["master1"]}, hostvars, "gpu1", JOBS, [])
    assert set(read) == {"gpu1", "master1"}
