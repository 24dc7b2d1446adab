"""The lab's own tests: real hosts, real downloads. Root only; under a minute with a warm cache."""

import hashlib
import http.client
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gpufleet_lab import Lab, LabError, cgroup, network, store, system
from gpufleet_lab import lab as labs
from gpufleet_lab.host import HostSpec
from gpufleet_lab.playbook import run_playbook

NAME = "lab-selftest"
OTHER = "lab-selftest-other"
HOSTS = ("--host", "old:bookworm", "--host", "new:trixie,no-way-out,disk=/srv/disk")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root")


def cli(*arguments, check=True):
    program = Path(__file__).with_name("lab.py")
    return subprocess.run([sys.executable, program, *arguments], capture_output=True, text=True, check=check)


@pytest.fixture(scope="module")
def lab():
    cli("down", NAME, OTHER)
    cli("up", NAME, *HOSTS)
    yield Lab.open(NAME)
    cli("down", NAME, OTHER)


@pytest.fixture(scope="module")
def other(lab):
    cli("up", OTHER, "--host", "old:trixie")
    return Lab.open(OTHER)


@pytest.fixture(autouse=True)
def no_faults(request):
    yield
    if "lab" in request.fixturenames:
        request.getfixturevalue("lab").faults.clear()


def ask(lab, host, command):
    done = lab.ssh(host, command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def release(lab, name, version="current"):
    found = lab.versions[name][version]
    return f"github.com/prometheus/{name}/releases/download/v{found}/", f"{name}-{found}.linux-amd64.tar.gz"


def get(lab, path, **headers):
    asked = urllib.request.Request(f"{lab.mirror_url}/{path}", headers=headers)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return answer.status, answer.read()


# Hosts


@pytest.mark.parametrize(("host", "suite"), [("old", "bookworm"), ("new", "trixie")])
def test_a_host_is_a_running_debian_of_its_suite(lab, host, suite):
    assert f"VERSION_CODENAME={suite}" in ask(lab, host, "cat /etc/os-release")
    assert ask(lab, host, "hostname") == host
    assert ask(lab, host, "systemctl is-system-running --wait") == "running"


def test_services_are_confined_as_on_any_host(lab):
    properties = "-p DynamicUser=yes -p ProtectSystem=strict -p SystemCallFilter=@system-service -p MemoryMax=64M"
    for host in lab.hosts:
        probe = "id -u; touch /etc/probe 2>/dev/null || echo no"
        user, written = ask(lab, host, f"systemd-run --quiet --wait --pipe {properties} sh -c '{probe}'").split()
        assert 61184 <= int(user) <= 65519  # systemd's range for dynamic users
        assert written == "no"


def test_hosts_reach_each_other_and_the_mirror(lab):
    for host in lab.hosts.values():
        assert ask(lab, "old", f"timeout 5 head -c 4 </dev/tcp/{host.address}/22") == "SSH-"
    url = f"{lab.mirror_url}/versions.json"
    program = f"import urllib.request as u; print(u.urlopen('{url}').read().decode())"
    assert json.loads(ask(lab, "new", f'python3 -c "{program}"')) == lab.versions


def test_hosts_do_not_share_identities(lab):
    files = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub"
    first, second = (ask(lab, host, files).split() for host in lab.hosts)
    assert first[0] != second[0]
    assert first[2] != second[2]


def test_a_second_up_changes_nothing(lab):
    before = [ask(lab, host, "cat /proc/sys/kernel/random/boot_id") for host in lab.hosts]
    again = cli("up", NAME, *HOSTS)
    assert again.stderr == ""
    assert again.stdout == cli("show", NAME).stdout
    assert before == [ask(lab, host, "cat /proc/sys/kernel/random/boot_id") for host in lab.hosts]


def test_a_reboot_comes_back_with_the_same_disk_and_address(lab):
    for host in lab.hosts:
        before = ask(lab, host, "echo kept >/root/kept; cat /proc/sys/kernel/random/boot_id")
        lab.ssh(host, "reboot")
        deadline = time.monotonic() + 20
        while (now := lab.ssh(host, "cat /proc/sys/kernel/random/boot_id").stdout.strip()) in ("", before):
            assert time.monotonic() < deadline, f"{host} does not come back"
            time.sleep(0.2)
        assert now != before
        assert ask(lab, host, "cat /root/kept") == "kept"


def test_up_powers_on_what_is_dead_and_adds_hosts(lab, other):
    untouched = ask(lab, "new", "cat /proc/sys/kernel/random/boot_id")
    ask(lab, "old", "echo kept >/root/kept")
    lab.hosts["old"].kill()
    ask(other, "old", "poweroff")
    while other.hosts["old"].alive:
        time.sleep(0.1)
    # Two at once: the second finds nothing left to do.
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: cli("up", NAME), range(2)))
    cli("up", OTHER, "--host", "more:bookworm")
    assert ask(lab, "old", "cat /root/kept") == "kept"
    assert ask(lab, "new", "cat /proc/sys/kernel/random/boot_id") == untouched
    assert ask(Lab.open(OTHER), "old", "hostname") == "old"
    assert ask(Lab.open(OTHER), "more", "hostname") == "more"


def test_a_pulled_cable_is_a_lost_connection(lab):
    host = lab.hosts["old"]
    host.plug(connected=False)
    try:
        assert ask(lab, "new", f"timeout 2 bash -c '</dev/tcp/{host.address}/22' 2>/dev/null || echo lost") == "lost"
        assert "cable" in cli("up", NAME).stderr
    finally:
        host.plug(connected=True)
    assert ask(lab, "old", "hostname") == "old"


def test_a_disk_is_not_on_the_overlay(lab):
    assert ask(lab, "new", "stat -f -c %T /").startswith("overlay")
    assert not ask(lab, "new", "stat -f -c %T /srv/disk").startswith("overlay")


def test_labs_stand_side_by_side(lab, other):
    assert lab.state["subnet"] != other.state["subnet"]
    assert "bookworm" in ask(lab, "old", "cat /etc/os-release")
    assert "trixie" in ask(other, "old", "cat /etc/os-release")


def test_only_a_host_with_a_way_out_leaves_the_bridge(lab, other):
    # The other lab's host is beyond the bridge, without any need of an internet.
    beyond = f"timeout 3 bash -c '</dev/tcp/{other.hosts['old'].address}/22'"
    assert ask(lab, "old", beyond) == ""
    assert ask(lab, "new", "cat /etc/resolv.conf; ip route show default") == ""
    # Not even if the host is made to try.
    ask(lab, "new", f"ip route add default via {lab.gateway}")
    try:
        assert lab.ssh("new", beyond).returncode == 124
    finally:
        ask(lab, "new", "ip route delete default")


# The mirror


@pytest.mark.parametrize("version", ["current", "previous"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prometheus", {"prometheus", "promtool", "prometheus.yml", "LICENSE", "NOTICE"}),
        ("node_exporter", {"node_exporter", "LICENSE", "NOTICE"}),
        ("alertmanager", {"alertmanager", "amtool", "alertmanager.yml", "LICENSE", "NOTICE"}),
    ],
)
def test_an_archive_is_named_laid_out_and_summed_as_upstreams(lab, name, content, version):
    directory, archive = release(lab, name, version)
    data = get(lab, directory + archive)[1]
    lines = get(lab, f"{directory}sha256sums.txt")[1].decode().splitlines()
    sums = {name: checksum for checksum, name in (line.split("  ") for line in lines)}
    assert sums[archive] == hashlib.sha256(data).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        top = archive.removesuffix(".tar.gz")
        found, wanted = set(tar.getnames()), {top, *(f"{top}/{file}" for file in content)}
        # Debian's Alertmanager reads from files what upstream's has inside.
        assert found >= wanted if name == "alertmanager" else found == wanted
        assert tar.getmember(f"{top}/{name}").mode == 0o755


def test_a_download_can_be_resumed(lab):
    path = "".join(release(lab, "node_exporter"))
    whole = get(lab, path)[1]
    assert get(lab, path, Range=f"bytes={len(whole) - 5}-") == (206, whole[-5:])
    assert get(lab, path, Range="bytes=-5") == (206, whole[-5:])
    assert get(lab, path, Range="bytes=2-4") == (206, whole[2:5])
    assert get(lab, path, Range="bytes=2-4", **{"If-Range": '"another"'}) == (200, whole)
    with pytest.raises(urllib.error.HTTPError, match="416"):
        get(lab, path, Range=f"bytes={len(whole)}-")


def test_faults_come_and_go(lab):
    path = "".join(release(lab, "node_exporter"))
    whole = get(lab, path)[1]
    lab.faults.add("*/node_exporter-*", status=503, times=1)
    with pytest.raises(urllib.error.HTTPError, match="503"):
        get(lab, path)
    assert get(lab, path)[1] == whole
    with lab.faults.injected(path, truncate=1000), pytest.raises(http.client.IncompleteRead) as cut:
        get(lab, path)
    assert cut.value.partial == whole[:1000]
    with lab.faults.injected(path, corrupt=True):
        wrong = get(lab, path)[1]
    assert len(wrong) == len(whole)
    assert sum(a != b for a, b in zip(wrong, whole, strict=True)) == 1
    with lab.faults.injected(path, delay=0.3, rate=1_000_000):
        started = time.monotonic()
        get(lab, path, Range="bytes=0-199999")
        assert 0.5 <= time.monotonic() - started < 2
    cli("fault", NAME, "versions.json", "status=404")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(lab, "versions.json")
    cli("heal", NAME)
    assert get(lab, path)[1] == whole


def test_a_test_can_add_files_and_count_requests(lab):
    extra = lab.faults.extra / "github.com" / "some" / "thing"
    extra.parent.mkdir(parents=True)
    extra.write_text("mine")
    before = len(lab.faults.requests())
    assert get(lab, "github.com/some/thing") == (200, b"mine")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(lab, "../../lab.json")
    time.sleep(0.1)  # the log is written after the answer
    first, second = lab.faults.requests()[before:]
    assert (first["path"], first["status"], first["bytes"]) == ("github.com/some/thing", 200, 4)
    assert second["status"] == 404


# Playbooks


def test_a_playbooks_results_can_be_looked_at(lab, tmp_path):
    options = " ".join(lab.ssh_command("old")[1:-1])
    hosts = {name: {"ansible_host": host.address} for name, host in lab.hosts.items()}
    variables = {"ansible_ssh_common_args": options, "ansible_user": "root", "ansible_python_interpreter": "python3"}
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": variables}}))
    play = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"name": "Leave a mark", "ansible.builtin.copy": {"dest": "/root/mark", "content": "{{ mark }}"}}],
    }
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps([play]))
    first = run_playbook(playbook, "--diff", extra_vars={"mark": "here"}, inventory=inventory)
    assert first.rc == 0, first.messages()
    assert first.stats["old"]["changed"] == first.stats["new"]["changed"] == 1
    assert first.of("new", "Leave a mark")[0]["dest"] == "/root/mark"
    assert run_playbook(playbook, extra_vars={"mark": "here"}, inventory=inventory).changed == 0
    failed = run_playbook(playbook, inventory=inventory)
    assert failed.rc == 2
    assert "mark" in failed.messages()


# The cache


def test_two_builders_build_once(tmp_path):
    builds = []

    def build(directory):
        builds.append(directory)
        time.sleep(0.1)
        (directory / "done").touch()

    def fail(directory):
        (directory / "half").touch()
        raise LabError("no network")

    target = tmp_path / "images" / "thing"
    with pytest.raises(LabError, match="no network"):
        store.build_once(target, fail)
    assert not target.exists()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: store.build_once(target, build), range(3)))
    assert len(builds) == 1
    assert [file.name for file in target.iterdir()] == ["done"]


# Errors


@pytest.mark.parametrize("text", ["gpu1", "gpu1:sid", "gpu1:trixie,fast", "../x:trixie", "a:trixie,disk=relative"])
def test_a_wrong_host_is_explained(text):
    with pytest.raises(LabError, match=re.escape(text)):
        HostSpec.parse(text)


def test_what_the_machine_lacks_is_said(monkeypatch):
    monkeypatch.setattr(system.shutil, "which", lambda program: None if program == "nft" else program)
    with pytest.raises(LabError, match="apt install nftables"):
        system.check_machine()
    monkeypatch.setattr(system.os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="root"):
        system.check_machine()


def test_a_subnet_in_use_is_not_taken(monkeypatch):
    monkeypatch.setattr(network, "run", lambda *_: '[{"dst": "default"}, {"dst": "10.213.7.128/25"}]')
    assert str(network.free_subnet(7, ["10.213.8.0/24"])) == "10.213.9.0/24"
    monkeypatch.setattr(network, "run", lambda *_: '[{"dst": "10.0.0.0/8"}]')
    with pytest.raises(LabError, match="no free /24"):
        network.free_subnet(7, [])


def test_names_that_do_not_exist_are_explained(lab):
    with pytest.raises(LabError, match="no lab 'nowhere'"):
        Lab.open("nowhere")
    with pytest.raises(LabError, match="but old, new"):
        lab.ssh("nobody", "true")


def test_a_changed_host_is_refused(lab):
    refused = cli("up", NAME, "--host", "old:trixie", check=False)
    assert refused.returncode == 1
    assert "take the lab down" in refused.stderr


# The end: the last test of the module


def traces(ids):
    """Return all on this machine that belongs to labs of these ids."""
    everything = [
        *Path("/proc/mounts").read_text().splitlines(),
        *network.run("ip", "-oneline", "address").splitlines(),
        *network.run("nft", "list", "tables").splitlines(),
        *map(str, cgroup.root().glob("*")),
        *map(str, labs.STATE.glob("*")),
        *network.run("ps", "-eo", "pid,args").splitlines(),
    ]
    return [line for line in everything if any(identity in line for identity in ids)]


def test_down_leaves_nothing(lab, other):
    first, second = lab.id, other.id
    assert len(traces([second])) > 5
    cli("down", OTHER)
    assert traces([second]) == []
    assert ask(lab, "old", "hostname") == "old"
    cli("down", NAME)
    assert traces([first, second]) == []
    again = cli("down", NAME)
    assert (again.stdout, again.stderr) == ("", "")
