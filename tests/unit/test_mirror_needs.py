"""What a mirror has to have follows from the roles' own tasks, host by host."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils.mirror import inventory, tasks
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils.mirror.needs import NeedsError

ROLES = Path(__file__).resolve().parents[2] / "roles"
SHA = "ab" * 32
GITHUB = "github.com/prometheus"
NVIDIA = "developer.download.nvidia.com/compute/cuda/repos"


@pytest.fixture
def needs(tmp_path):
    """Return what an inventory needs: needs({"gpu1": {...}}, all={...}, asked={"gpu1": {...}})."""

    def find(workers, masters=None, asked=None, **variables):
        groups = {"gpu_workers": workers, "monitoring_master": {"master1": {}} if masters is None else masters}
        children = {group: {"hosts": hosts} for group, hosts in groups.items()}
        path = tmp_path / "hosts.yml"
        path.write_text(json.dumps({"all": {"vars": variables, "children": children}}))
        loader = DataLoader()
        known = InventoryManager(loader, [str(path)])
        manager = VariableManager(loader, known)
        hostvars = HostVars(known, manager, loader)
        return inventory.find_needs(known.get_groups_dict(), hostvars, asked or {}, Templar(loader), loader)

    return find


def test_each_host_needs_what_its_groups_roles_install(needs):
    found = needs({"gpu1": {"dcgm_enabled": False}}, node_exporter_version="1.2.3")
    archive = found.files[f"{GITHUB}/node_exporter/releases/download/v1.2.3/node_exporter-1.2.3.linux-amd64.tar.gz"]
    assert archive.version == "1.2.3"
    assert archive.checksum_url == f"{GITHUB}/node_exporter/releases/download/v1.2.3/sha256sums.txt"
    assert archive.users.by_role() == {"node_exporter": ["gpu1", "master1"]}
    users = {path.split("/")[-1].split("-")[0]: file.users.by_role() for path, file in found.files.items()}
    assert users["prometheus"] == {"prometheus": ["master1"]}
    assert users["grafana"] == {"grafana": ["master1"]}
    assert users["nvidia_ml_py"] == {"gpu_exporter": ["gpu1"]}
    assert {name: users.by_role() for name, users in found.packages.items()} == {
        "nginx": {"nginx": ["master1"]},
        "openssl": {"certificate": ["master1"], "nginx": ["master1"]},
    }
    assert not found.repositories
    assert not found.elsewhere


def test_a_mirror_that_the_fleet_uses_already_changes_nothing(needs):
    worker = {"gpu1": {"gpufleet_distribution": "debian12"}}
    plain, mirrored = needs(worker), needs(worker, gpufleet_mirror_url="http://10.0.0.1:8480")
    assert plain.files.keys() == mirrored.files.keys()
    assert plain.repositories.keys() == mirrored.repositories.keys()
    assert not mirrored.elsewhere


def test_what_a_host_does_not_have_is_not_needed(needs):
    off = {"gpufleet_exporters": []}
    absent = {"state": "absent"}
    states = {f"{role}_{key}": value for role in ("grafana", "nginx", "certificate") for key, value in absent.items()}
    found = needs({"gpu1": off}, {"master1": {**off, **states}})
    assert {path.split("/")[1] for path in found.files} == {"prometheus"}
    assert {path.split("/")[2] for path in found.files} == {"prometheus", "alertmanager"}
    assert not found.packages
    assert not found.repositories


def test_architectures_are_a_hosts_own(needs):
    arm = {"gpufleet_architecture": "arm64", "gpufleet_distribution": "ubuntu2404"}
    found = needs({"gpu1": {"gpufleet_distribution": "ubuntu2404"}, "gpu2": arm})
    archives = {path: file.users.by_role() for path, file in found.files.items() if "/node_exporter-" in path}
    by_architecture = {path.rpartition("-")[2]: users for path, users in archives.items()}
    assert by_architecture == {
        "amd64.tar.gz": {"node_exporter": ["gpu1", "master1"]},
        "arm64.tar.gz": {"node_exporter": ["gpu2"]},
    }
    assert set(found.repositories) == {f"{NVIDIA}/ubuntu2404/x86_64", f"{NVIDIA}/ubuntu2404/sbsa"}


def test_dcgm_without_a_known_driver_comes_for_each(needs):
    found = needs({"gpu1": {"gpufleet_distribution": "debian12", "dcgm_version": "4.7.1"}})
    repository = found.repositories[f"{NVIDIA}/debian12/x86_64"]
    assert repository.key_url == f"{NVIDIA}/debian12/x86_64/3bf863cc.pub"
    assert set(repository.packages) == {
        ("datacenter-gpu-manager-4-core", "4.7.1"),
        *((f"datacenter-gpu-manager-4-cuda{version}", "4.7.1") for version in (11, 12, 13)),
        ("datacenter-gpu-manager-exporter", ""),
    }


def test_a_host_that_was_asked_gets_what_it_said(needs):
    said = {"distribution": "ubuntu2204", "architecture": "sbsa", "cuda": 12, "supported": True, "installed": False}
    none = {**said, "supported": False, "cuda": 0}
    found = needs({"gpu1": {}, "gpu2": {}}, asked={"gpu1": said, "gpu2": none})
    (repository,) = found.repositories.values()
    assert repository.url == f"{NVIDIA}/ubuntu2204/sbsa"
    assert repository.users.by_role() == {"dcgm": ["gpu1"]}
    assert {name for name, _ in repository.packages if "cuda" in name} == {"datacenter-gpu-manager-4-cuda12"}
    assert any(path.endswith("linux-arm64.tar.gz") for path in found.files)


def test_dcgm_for_an_unknown_distribution_is_an_error_that_names_hosts_and_ways_out(needs):
    with pytest.raises(NeedsError) as error:
        needs({f"gpu{number}": {} for number in range(5)})
    text = str(error.value)
    assert text.startswith("- gpu0, gpu1, gpu2 and 2 more: dcgm: ")
    assert all(word in text for word in ("gpufleet_distribution", "mirror_ask_hosts", "dcgm_enabled"))


def test_all_that_is_in_the_way_is_said_at_once(needs):
    with pytest.raises(NeedsError) as error:
        needs({"gpu1": {"gpufleet_architecture": "m68k"}, "gpu2": {"node_exporter_version": "{{ nothing }}"}})
    text = str(error.value)
    assert "gpu1: node_exporter: gpufleet_architecture" in text
    assert re.search(r"gpu2: node_exporter: .*'nothing' is undefined", text)


def test_urls_of_the_inventorys_own_and_dnf_repositories_are_elsewhere(needs):
    own = {"node_exporter_url": "http://own.example/x-{arch}.tar.gz", "node_exporter_sha256": SHA}
    found = needs({"gpu1": {**own, "gpufleet_distribution": "rhel9"}})
    assert {url: users.by_role() for url, users in found.elsewhere.items()} == {
        "http://own.example/x-amd64.tar.gz": {"node_exporter": ["gpu1"]},
        f"https://{NVIDIA}/rhel9/x86_64/": {"dcgm": ["gpu1"]},
    }


def test_plugins_of_grafana_and_their_sums(needs):
    plugin = {"id": "some-panel", "version": "1.0.0", "sha256": SHA}
    found = needs({}, grafana_plugins=[plugin])
    file = found.files["grafana.com/api/plugins/some-panel/versions/1.0.0/download"]
    assert (file.sha256, file.url.partition("?")[2]) == (SHA, "os=linux&arch=amd64")


def test_two_files_cannot_have_the_same_path(needs):
    plugin = {"id": "some-panel", "version": "1.0.0", "sha256": {"amd64": SHA, "arm64": "cd" * 32}}
    masters = {"m1": {}, "m2": {"gpufleet_architecture": "arm64"}}
    with pytest.raises(NeedsError, match="different files under the same path"):
        needs({}, masters, grafana_plugins=[plugin], alertmanager_bind_address="10.0.0.1")


def test_the_firewall_is_a_package_of_the_distribution(needs):
    assert needs({}, firewall_enabled=True).packages["ufw"].by_role() == {"firewall": ["master1"]}


# -- packages of the distribution, where the mirror is to have them -----------------------------------


def by_name(packages):
    return {name: users.by_role() for name, users in packages.items()}


def test_packages_are_of_a_hosts_own_distribution_and_architecture(needs):
    """Said, or asked; one that is not apt's stays elsewhere."""
    masters = {
        "master1": {"gpufleet_distribution": "debian12", "firewall_enabled": True},
        "master2": {},
        "master3": {"gpufleet_distribution": "rhel9"},
    }
    said = {"distribution": "ubuntu2404", "architecture": "sbsa", "supported": False, "installed": False}
    found = needs({}, masters, asked={"master2": said}, gpufleet_mirror_packages=True, certificate_state="absent")
    assert {system: by_name(packages) for system, packages in found.distributions.items()} == {
        ("debian12", "amd64"): {
            "nginx": {"nginx": ["master1"]},
            "openssl": {"nginx": ["master1"]},
            "ufw": {"firewall": ["master1"]},
        },
        ("ubuntu2404", "arm64"): {"nginx": {"nginx": ["master2"]}, "openssl": {"nginx": ["master2"]}},
    }
    assert by_name(found.packages) == {"nginx": {"nginx": ["master3"]}, "openssl": {"nginx": ["master3"]}}


def test_without_being_said_packages_are_elsewhere(needs):
    found = needs({}, {"master1": {"gpufleet_distribution": "debian12"}}, gpufleet_mirror_packages=False)
    assert not found.distributions
    assert set(found.packages) == {"nginx", "openssl"}


def test_a_distribution_that_is_none_is_an_error_that_names_the_host(needs):
    master = {"gpufleet_distribution": "ubuntu24.04"}
    with pytest.raises(NeedsError, match=r"master1: nginx: gpufleet_distribution is 'ubuntu24\.04'.*ubuntu2404"):
        needs({}, {"master1": master}, gpufleet_mirror_packages=True)


def test_packages_for_an_unknown_distribution_are_an_error_that_names_ways_out(needs):
    with pytest.raises(NeedsError, match=r"master1: nginx: .*gpufleet_distribution.*mirror_ask_hosts"):
        needs({}, gpufleet_mirror_packages=True)


# -- hosts that are alike are evaluated once ----------------------------------------------------------


def test_a_variable_of_a_hosts_own_counts_wherever_it_is_used(needs):
    """Directly, through another variable, through the host's name, and through ones that are not named."""
    indirect = {"node_exporter_version": "{{ own.version }}", "own": {"version": "2.0.0"}}
    by_name = {"node_exporter_version": "{{ {'gpu4': '4.0.0', 'gpu5': '5.0.0'}[inventory_hostname] }}"}
    unnamed = {"node_exporter_version": "{{ lookup('vars', 'hid' ~ 'den') }}"}
    found = needs(
        {
            **{
                "gpu1": {"node_exporter_version": "1.0.0"},
                "gpu2": indirect,
                "gpu3": {**indirect, "own": {"version": "3"}},
            },
            **{"gpu4": by_name, "gpu5": by_name},
            **{"gpu6": {**unnamed, "hidden": "6.0.0"}, "gpu7": {**unnamed, "hidden": "7.0.0"}},
            **{"gpu8": {"node_exporter_version": "1.0.0", "rack": "r1"}},
        },
        node_exporter_version="0.0.0",
        dcgm_enabled=False,
    )
    versions = {
        file.version: file.users.by_role()["node_exporter"]
        for path, file in found.files.items()
        if "/node_exporter-" in path
    }
    assert versions == {
        **{"0.0.0": ["master1"], "1.0.0": ["gpu1", "gpu8"], "2.0.0": ["gpu2"], "3": ["gpu3"]},
        **{"4.0.0": ["gpu4"], "5.0.0": ["gpu5"], "6.0.0": ["gpu6"], "7.0.0": ["gpu7"]},
    }


@pytest.mark.parametrize("role", ["node_exporter", "gpu_exporter", "dcgm"])
def test_hosts_that_differ_in_address_and_labels_are_alike(role):
    """Else a fleet of hundreds would take minutes."""
    read = tasks.read_role(role, DataLoader())
    known = {**read.defaults, **read.variables}
    one, other = ({**known, "ansible_host": name, "inventory_hostname": name} for name in ("a", "b"))
    assert inventory._depends_on(read, one) == inventory._depends_on(read, other) is not None


# -- nothing is downloaded that the mirror does not know --------------------------------------------


def roles():
    return sorted({name for names in tasks.roles_of_site().values() for name in names})


def test_the_roles_are_those_of_the_playbooks():
    assert {"node_exporter", "dcgm"} <= set(roles())
    assert "prometheus" in tasks.roles_of_site()["monitoring_master"]


@pytest.mark.parametrize("role", roles())
def test_every_module_in_a_role_is_known_to_download_or_not_to(role):
    used = {task.module for task in tasks.read_role(role, DataLoader()).tasks}
    assert used <= inventory.KNOWN, (
        "say in plugins/plugin_utils/mirror/inventory.py what it brings from elsewhere (_READERS), or that it brings "
        "nothing (HARMLESS): a fleet without a way out has to have it"
    )


def test_a_download_in_a_block_is_seen(monkeypatch, tmp_path):
    task = {"name": "Fetch", "ansible.builtin.get_url": {"url": "https://x"}, "when": "a"}
    (tmp_path / "new/tasks").mkdir(parents=True)
    (tmp_path / "new/tasks/main.yml").write_text(yaml.safe_dump([{"name": "B", "when": ["b"], "block": [task]}]))
    monkeypatch.setattr(tasks, "ROLES", tmp_path)
    (found,) = tasks.read_role("new", DataLoader()).tasks
    assert found.module not in inventory.KNOWN
    assert found.when == ("b", "a")


def test_every_role_that_speaks_of_a_mirror_has_something_in_it(needs):
    found = needs({"gpu1": {"gpufleet_distribution": "debian12"}})
    users = [file.users for file in found.files.values()] + [other.users for other in found.repositories.values()]
    served = {role for user in users for role in user.by_role()}
    speaking = {path.parents[1].name for path in ROLES.glob("*/*/*.yml") if "gpufleet_mirror_url |" in path.read_text()}
    assert speaking == served


def test_every_program_with_libraries_is_recognised():
    """A lookup that is written otherwise would be run, and bring its wheels to this machine, not to the mirror."""
    for path in ROLES.glob("*/*/*.yml"):
        text = path.read_text()
        assert len(tasks._ZIPAPP.findall(text)) == text.count("gpufleet.monitoring.zipapp"), path
