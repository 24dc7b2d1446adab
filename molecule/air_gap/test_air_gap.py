"""A fleet whose hosts reach nothing but each other is installed, watched and upgraded from a mirror on the master."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import LOCK, MIRROR, SERVED
from gpufleet_lab.playbook import run_playbook
from gpufleet_lab.waiting import eventually

HOSTS = ("master1", "gpu1")
JOBS = {
    *((job, "gpu1") for job in ("node_exporter", "gpu_exporter", "dcgm_exporter")),
    *((job, "master1") for job in ("node_exporter", "prometheus", "alertmanager", "grafana")),
}


def mirror(*arguments, **variables):
    return run_playbook("mirror", *arguments, extra_vars=variables)


def fetched(done):
    return done.of("master1", "has all that")[0]["fetched"]


# -- as it is after a first run -----------------------------------------------------------------


@pytest.mark.parametrize("host", HOSTS)
def test_no_host_has_a_way_out(lab, sh, reach, host):
    assert "default" not in sh(host, "ip route")
    assert "unreachable" in reach(host, "http://192.0.2.1/")
    assert "Connection refused" in reach(host, f"{lab.mirror_url}/")


def test_no_host_has_ever_asked_for_a_release_outside(lab):
    addresses = {host.address for host in lab.hosts.values()}
    clients = {request["client"] for request in lab.faults.requests()}
    assert clients == {lab.gateway}
    assert not clients & addresses


def test_all_of_the_fleet_is_watched(prometheus):
    def up():
        return {key for key, target in prometheus.targets().items() if target["health"] == "up"}

    assert eventually(lambda: up() == JOBS, 60), prometheus.targets()


def test_dcgm_came_from_the_master_too(sh):
    packages = sh("gpu1", "dpkg-query --show --showformat '${Package} ${Version}\\n' 'datacenter-gpu-manager-*'")
    assert set(packages.splitlines()) == {
        "datacenter-gpu-manager-4-core 1:4.6.1-1",
        "datacenter-gpu-manager-4-cuda13 1:4.6.1-1",
        "datacenter-gpu-manager-exporter 4.8.4-1",
    }


def test_the_distributions_packages_came_from_the_master_which_is_not_one_of_its_sources(sh, locked, path_of):
    names = ("nginx", "ufw")
    found = sh("master1", f"dpkg-query --show --showformat '${{Package}} ${{Version}}\\n' {' '.join(names)}")
    assert dict(line.split() for line in found.splitlines()) == {
        name: locked()[path_of(f"/{name}_")]["version"] for name in names
    }
    sources = sh("master1", "apt-get update --print-uris")
    assert "/dists/" in sources
    assert ":8480" not in sources


def test_the_lock_says_what_is_there_where_it_came_from_and_for_whom(lab, locked, path_of):
    version = lab.versions["node_exporter"]["current"]
    path = path_of("node_exporter-")
    entry = locked()[path]
    assert path.endswith(f"v{version}/node_exporter-{version}.linux-amd64.tar.gz")
    assert entry["url"] == f"https://{path}"
    assert entry["version"] == version
    assert entry["size"] == (MIRROR / path).stat().st_size
    assert entry["needed_by"] == {"node_exporter": ["gpu1", "master1"]}
    assert set(locked()) == {str(file.relative_to(MIRROR)) for file in MIRROR.rglob("*") if file.is_file()}
    assert json.loads(LOCK.read_text())["elsewhere"] == {}


def test_only_the_fleet_and_the_admins_reach_the_mirror(lab, sh, reach):
    address = lab.hosts["master1"].address
    assert reach("gpu1", f"http://{address}:8480/") == "200"
    allowed = sh("master1", "ufw status | grep 8480")
    assert lab.hosts["gpu1"].address in allowed
    assert "Anywhere" not in "".join(line for line in allowed.splitlines() if "ALLOW" in line)


def test_the_server_is_in_the_sandbox(sh):
    score = sh("master1", "systemd-analyze security --no-pager gpufleet-mirror | tail -1")
    assert float(score.split(":")[1].split()[0]) <= 2.0, score


def test_a_second_run_changes_nothing_and_asks_nobody(lab):
    before = len(lab.faults.requests())
    done = mirror()
    assert done.rc == 0, done.messages()
    assert done.changes() == []
    assert len(lab.faults.requests()) == before


def test_the_controller_builds_programs_from_the_master_too(lab, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = len(lab.faults.requests())
    done = run_playbook("gpu_workers", "--tags", "gpu_exporter")
    assert done.rc == 0, done.messages()
    assert done.changed == 0  # equal bytes
    assert list(tmp_path.glob("gpufleet/zipapps/*.whl"))
    assert len(lab.faults.requests()) == before


# -- an upgrade ---------------------------------------------------------------------------------


def test_an_upgrade_is_mirrored_first(lab, sh, path_of, locked):
    """Here it is a downgrade, to the other version that the lab has."""
    other = {"node_exporter_version": lab.versions["node_exporter"]["previous"]}
    before = LOCK.read_text()
    done = run_playbook("gpu_workers", "--tags", "node_exporter", extra_vars=other)
    assert done.rc != 0
    assert "is not in" in done.messages()
    assert "playbooks/mirror.yml" in done.messages()
    assert done.changed == 0

    done = mirror("--check", **other)
    assert done.rc == 0, done.messages()
    assert [path.rpartition("/")[2].split("-")[0] for path in fetched(done)] == ["node_exporter", "sha256sums.txt"]
    assert LOCK.read_text() == before

    try:
        done = mirror(**other)
        assert done.rc == 0, done.messages()
        done = run_playbook("gpu_workers", "--tags", "node_exporter", extra_vars=other)
        assert done.rc == 0, done.messages()
        assert other["node_exporter_version"] in sh("gpu1", "readlink /opt/gpufleet/node_exporter/current")
    finally:
        done = mirror(mirror_prune=True)
        assert done.rc == 0, done.messages()
    assert LOCK.read_text() == before
    assert sh("master1", f"find {SERVED} -name 'node_exporter-*' | wc -l") == "1"
    done = run_playbook("gpu_workers", "--tags", "node_exporter")
    assert done.rc == 0, done.messages()


# -- what goes wrong ----------------------------------------------------------------------------


@pytest.fixture
def without_node_exporter(sh):
    """gpu1 has never had node_exporter, and gets it again."""
    absent = run_playbook("gpu_workers", "--tags", "node_exporter", extra_vars={"node_exporter_state": "absent"})
    assert absent.rc == 0, absent.messages()
    sh("gpu1", "rm -rf /opt/gpufleet/node_exporter")
    yield
    for done in (mirror(), run_playbook("gpu_workers", "--tags", "node_exporter")):
        assert done.rc == 0, done.messages()


def test_what_was_changed_or_lost_on_the_master_is_refused_by_hosts(sh, path_of, without_node_exporter):
    path = f"{SERVED}/{path_of('node_exporter-')}"
    sums = path.rpartition("/")[0] + "/sha256sums.txt"
    # Whoever can change the archive can change the list beside it as well.
    sh("master1", f"echo more >> {path} && cd {SERVED} && sha256sum {path} | sed 's,/.*/,,' > {sums}")
    done = run_playbook("gpu_workers", "--tags", "node_exporter")
    assert done.rc != 0
    assert "is wrong: expected sha256" in done.messages()
    assert "node_exporter is as it was" in done.messages()
    assert sh("gpu1", "systemctl is-active node_exporter", check=False) == "inactive"

    sh("master1", f"rm {path}")
    done = run_playbook("gpu_workers", "--tags", "node_exporter")
    assert "HTTP status 404" in done.messages()
    assert "node_exporter is as it was" in done.messages()
    assert done.changed == 0

    done = mirror()
    assert done.rc == 0, done.messages()
    assert len(done.of("master1", "is on the master")[0]["copied"]) == 2


@pytest.mark.parametrize(("name", "said"), [("/{suite}/InRelease", "BADSIG"), ("/ufw_", "Hash Sum mismatch")])
def test_a_package_that_the_distribution_has_not_signed_is_refused_by_hosts(lab, sh, path_of, name, said):
    file = f"{SERVED}/{path_of(name.format(suite=lab.hosts['gpu1'].spec.suite))}"
    sh("master1", f"cp --preserve {file} /root/kept && printf x | dd of={file} bs=1 seek=200 conv=notrunc")
    try:
        done = run_playbook("gpu_workers", "--tags", "firewall", extra_vars={"firewall_enabled": True})
        assert done.rc != 0
        assert "ufw cannot be installed" in done.messages()
        assert said in done.messages()
        assert done.changed == 0
        assert sh("gpu1", "command -v ufw", check=False) == ""
    finally:
        sh("master1", f"cp --preserve /root/kept {file}")


def test_a_lock_that_disagrees_stops_it_before_anything_changes(lab, path_of, locked):
    path, before = path_of("prometheus-"), LOCK.read_text()
    right = locked()[path]["sha256"]
    try:
        LOCK.write_text(before.replace(right, "0" * 64))
        done = mirror()
        assert done.rc != 0
        assert f"{path} is not what the lock says" in done.messages()
        assert done.changed == 0
        assert LOCK.read_text() == before.replace(right, "0" * 64)
    finally:
        LOCK.write_text(before)


def test_an_archive_that_was_changed_on_the_controller_is_not_copied(path_of):
    file = MIRROR / path_of("alertmanager-")
    kept = file.with_name("kept")
    shutil.copy2(file, kept)
    try:
        with file.open("ab") as sink:
            sink.write(b"more")
        done = mirror()
        assert done.rc != 0
        assert f"{file} is not what the lock says" in done.messages()
        assert done.changed == 0
    finally:
        kept.replace(file)


def test_what_upstream_does_not_have_is_said_before_anything_changes():
    before = LOCK.read_text()
    done = mirror(prometheus_version="99.0.0", alertmanager_version="98.0.0")
    assert done.rc != 0
    assert all(f"v{version}/sha256sums.txt: HTTP status 404" in done.messages() for version in ("99.0.0", "98.0.0"))
    assert LOCK.read_text() == before
    assert done.changed == 0


# -- without a server ---------------------------------------------------------------------------


def test_the_controller_hands_over_what_is_in_its_directory(sh, path_of, without_node_exporter):
    sh("master1", "systemctl stop gpufleet-mirror")
    done = run_playbook(
        *("gpu_workers", "--tags", "node_exporter"),
        extra_vars={"gpufleet_mirror_url": f"file://{MIRROR}", "gpufleet_release_delivery": "controller"},
    )
    assert done.rc == 0, done.messages()
    assert sh("gpu1", "systemctl is-active node_exporter") == "active"
