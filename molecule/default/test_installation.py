"""What users copy works."""

from __future__ import annotations

import json
import shutil

import yaml
from fleet import FLEET, VARIABLES
from gpufleet_lab.lab import CHECKOUT
from gpufleet_lab.waiting import eventually

# Of documentation (RFC 5737), so that nobody's host is touched by accident.
DOCUMENTED = {"gpu1": "192.0.2.11", "gpu2": "192.0.2.12", "gpu3": "192.0.2.13", "master1": "192.0.2.10"}


def test_the_example_inventory_works_on_these_hosts(fleet, play, lab, tmp_path, prometheus):
    """Its hosts, groups and labels, with this lab's addresses in place of the documented ones."""
    shutil.copytree(CHECKOUT / "inventories/example", tmp_path / "example")
    hosts = tmp_path / "example/hosts.yml"
    text = hosts.read_text()
    for name, documented in DOCUMENTED.items():
        assert documented in text
        text = text.replace(documented, lab.hosts[name].address)
    hosts.write_text(text.replace("gpu3.example.org", lab.hosts["gpu3"].address))
    connection = yaml.safe_load(fleet.read_text())["all"]["vars"]
    del connection["gpufleet_labels"]
    extra = json.dumps({**connection, **VARIABLES["monitoring_master"]})
    done = play("site", "--limit", "!gpu4", "-e", extra, path=tmp_path / "example")
    assert done.rc == 0, done.messages()
    labels = {"job": "node_exporter", "instance": "gpu3", "site": "fra1", "rack": "r2", "owner": "chemistry"}
    assert eventually(lambda: prometheus.targets()["node_exporter", "gpu3"]["labels"] == labels)
    assert set(prometheus.targets()) == FLEET
