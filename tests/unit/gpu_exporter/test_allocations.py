"""Who has which GPU: by UUID, never by position; everything that is held stays visible; nobody hides another."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from docker_daemon import Daemon, container_id, hangs, request, says
from gpufleet.gpu_exporter import config, metrics
from gpufleet.gpu_exporter.collector import CollectorError, Readings
from gpufleet.gpu_exporter.collectors.allocations import AllocationsCollector
from gpufleet.gpu_exporter.context import Context
from gpufleet.gpu_exporter.inventory import Gpu, Inventory, MigInstance, Process, Store

A100 = "GPU-aaaaaaaa-0000-0000-0000-000000000000"
H100 = "GPU-bbbbbbbb-0000-0000-0000-000000000001"
MIG_3G = "MIG-cccccccc-0000-0000-0000-000000000000"
MIG_1G = "MIG-dddddddd-0000-0000-0000-000000000001"
GPUS = (
    Gpu(
        0,
        A100,
        "0000:01:00.0",
        0,
        "NVIDIA A100",
        mig_enabled=True,
        mig=(MigInstance(MIG_3G, 2, 0, "3g.20gb"), MigInstance(MIG_1G, 9, 0, "1g.5gb")),
    ),
    Gpu(1, H100, "0000:02:00.0", 1, "NVIDIA H100"),
)
DOCKER_ID = "f" * 64
BUSY = says(b'HTTP/1.1 500 X\r\nContent-Length: 18\r\n\r\n{"message":"busy"}')


@pytest.fixture
def host(tmp_path):
    """A host with two GPUs, Docker, a proc tree and a passwd."""
    daemon = Daemon(tmp_path / "docker.sock")
    passwd = tmp_path / "passwd"
    passwd.write_text("root:x:0:0:root:/root:/bin/bash\nalice:x:1001:1001::/home/alice:/bin/bash\n")
    settings = config.AllocationsSection(docker_socket=daemon.path, state_file=str(tmp_path / "gpu-state.json"))
    settings.docker_timeout = 0.5
    settings.docker_timeout = 1.0
    store = Store("host")
    host = SimpleNamespace(daemon=daemon, settings=settings, store=store, path=tmp_path, processes=[], collector=None)
    whole = config.Config(allocations=settings)
    whole.paths.passwd, whole.paths.proc = str(passwd), str(tmp_path / "proc")
    whole.paths.cgroup = str(tmp_path / "cgroup")

    def collect():
        store.current = Inventory(gpus=GPUS, processes=tuple(host.processes), complete=True)
        host.collector = host.collector or AllocationsCollector(Context(whole, store))
        out = Readings()
        host.collector.collect(out)
        check(out)
        return out

    def process(pid, uuid, cgroup="0::/user.slice/user-1001.slice/session-4.scope\n", user=1001, memory=1 << 30):
        directory = tmp_path / "proc" / str(pid)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup").write_text(cgroup)
        (directory / "status").write_text(f"Name:\tpython\nPid:\t{pid}\nUid:\t{user}\t{user}\t{user}\t{user}\n")
        host.processes.append(Process(pid, uuid, memory))

    host.collect, host.process = collect, process
    yield host
    daemon.close()


def check(out):
    """Whatever happens: known families, no series twice."""
    for name, rows in out.families.items():
        assert len({tuple(row[1:]) for row in rows}) == len(rows), name
        assert all(len(row) == 1 + len(metrics.FAMILIES[name].labels) for row in rows)


def rows(out, name):
    """Series as {label values: value}."""
    return {tuple(labels): value for value, *labels in out.families.get(name, [])}


def allocated(out):
    """(slot, container, user, interface, profile, UUID) of what is held."""
    found = rows(out, "ds01_gpu_allocated")
    assert set(found.values()) <= {1}
    return sorted(found)


def held(out):
    """(slot, container) of what is held."""
    return [(slot, container) for slot, container, *_ in allocated(out)]


def test_a_container_of_ds01_has_all_its_series(host):
    host.daemon.add(
        "train",
        labels={"ds01.user": "alice", "ds01.managed": "true", "ds01.interface": "api"},
        requests=[request([MIG_3G])],
    )
    out = host.collect()
    assert allocated(out) == [("0.0", "train", "alice", "api", "3g.20gb", MIG_3G)]
    assert rows(out, "ds01_gpu_equivalents") == {("0.0", "train", "alice", "api", "3g.20gb", MIG_3G): 3 / 7}
    assert rows(out, "ds01_user_gpus_allocated") == {("alice",): 1}
    assert rows(out, "ds01_user_gpu_equivalents") == {("alice",): 3 / 7}
    assert rows(out, "ds01_user_mig_allocated") == {("alice",): 1}
    assert rows(out, "ds01_user_containers_count") == {("alice",): 1}
    assert rows(out, "ds01_containers_total")["running", "api"] == 1
    assert rows(out, "ds01_containers_total")["stopped", "api"] == 0
    assert rows(out, "ds01_unmanaged_gpu_count") == {(): 0}
    assert rows(out, "ds01_allocation_source") == {("docker",): 1}
    assert [labels[1] for labels in rows(out, "ds01_exporter_info")] == ["native"]
    assert not out.failures


def cgroup(host, path, current, limit, inactive=0):
    """Make a control group as the kernel has it."""
    directory = host.path / "cgroup" / path
    directory.mkdir(parents=True)
    (directory / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n")
    (directory / "memory.current").write_text(f"{current}\n")
    (directory / "memory.max").write_text(f"{limit}\n")
    (directory / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\nactive_file 2\n")


@pytest.mark.parametrize(
    ("parent", "path"),
    [
        ("", "system.slice/docker-{}.scope"),
        ("", "docker/{}"),
        ("ds01-staff-alice.slice", "ds01.slice/ds01-staff.slice/ds01-staff-alice.slice/docker-{}.scope"),
        ("/jobs", "jobs/{}"),
    ],
)
def test_cpu_and_memory_of_a_container_and_its_limit(host, parent, path):
    """Files that are only cached make no container full."""
    key = host.daemon.add("train", labels={"ds01.user": "alice"}, parent=parent)
    cgroup(host, path.format(key), 900, 1000, inactive=500)
    out = host.collect()
    assert rows(out, "ds01_container_cpu_seconds_total") == {("train", "alice"): 2.5}
    assert rows(out, "ds01_container_memory_bytes") == {("train", "alice"): 400}
    assert rows(out, "ds01_container_memory_limit_bytes") == {("train", "alice"): 1000}
    assert not out.failures


def test_a_container_without_limit_has_none(host):
    cgroup(host, f"docker/{host.daemon.add('train', labels={'ds01.user': 'alice'})}", 900, "max")
    out = host.collect()
    assert rows(out, "ds01_container_memory_bytes") == {("train", "alice"): 900}
    assert not rows(out, "ds01_container_memory_limit_bytes")


def test_memory_that_the_host_does_not_tell_is_absent(host):
    """As with control groups of version 1; and what is named like a way out of the tree is not followed."""
    host.daemon.add("other", labels={"ds01.user": "alice"})
    key = host.daemon.add("train", labels={"ds01.user": "alice"}, parent="../outside")
    (host.path / "cgroup").mkdir()
    cgroup(host, f"../outside/{key}", 1, 1)
    out = host.collect()
    assert not rows(out, "ds01_container_memory_bytes")
    assert not rows(out, "ds01_container_cpu_seconds_total")
    assert not out.failures


def test_cpu_is_told_where_memory_is_not(host):
    """The kernel counts it in every control group of version 2, whichever controllers are on."""
    key = host.daemon.add("train", labels={"ds01.user": "alice"})
    cgroup(host, f"docker/{key}", 1, 1)
    for file in (host.path / f"cgroup/docker/{key}").glob("memory.*"):
        file.unlink()
    out = host.collect()
    assert rows(out, "ds01_container_cpu_seconds_total") == {("train", "alice"): 2.5}
    assert not rows(out, "ds01_container_memory_bytes")


def test_slots_are_named_whether_somebody_has_them_or_not(host):
    out = host.collect()
    assert rows(out, "ds01_gpu_slot_info") == {("0", "0", A100, "true"): 1, ("1", "1", H100, "false"): 1}
    assert rows(out, "ds01_mig_slot_info") == {
        ("0", "2", "0.0", MIG_3G, "3g.20gb"): 1,
        ("0", "9", "0.1", MIG_1G, "1g.5gb"): 1,
    }
    assert allocated(out) == []


@pytest.mark.parametrize(
    ("given", "slots"),
    [
        ({"requests": [request(count=-1)]}, ["0.0", "0.1", "1"]),
        ({"requests": [request(count=2)]}, ["0.0", "0.1", "1"]),
        ({"requests": [request(["1"])]}, ["1"]),
        ({"requests": [request(["0:1"])]}, ["0.1"]),
        ({"requests": [request(["0"])]}, ["0.0", "0.1"]),  # a GPU in MIG mode is its MIG devices
        ({"requests": [request([MIG_1G]), request([H100])]}, ["0.1", "1"]),
        ({"requests": [request([H100.upper().replace("GPU", "gpu")])]}, ["1"]),
        ({"requests": [request(["GPU-bbbbbbbb"])]}, ["1"]),
        ({"requests": [request([f"MIG-{A100}/9/0"])]}, ["0.1"]),
        ({"requests": [request([H100], driver="nvidia", capabilities=["compute"])]}, ["1"]),
        ({"requests": [request(["nvidia.com/gpu=1"], driver="cdi", capabilities=[])]}, ["1"]),
        ({"requests": [request(["vendor.com/net=1"], driver="cdi", capabilities=[])]}, []),
        ({"requests": [request(count=-1, driver="amd")]}, []),
        ({"requests": [request(count=-1, capabilities=["tpu"])]}, []),
        ({"labels": {"ds01.gpu.uuids": f"{MIG_1G}, {H100}"}}, ["0.1", "1"]),
        ({"labels": {"ds01.gpu.uuids": MIG_1G}, "requests": [request([H100])]}, ["1"]),
        ({"env": ["NVIDIA_VISIBLE_DEVICES=all"], "runtime": "nvidia"}, ["0.0", "0.1", "1"]),
        ({"env": [f"NVIDIA_VISIBLE_DEVICES={H100}"], "runtime": "nvidia"}, ["1"]),
        ({"env": ["NVIDIA_VISIBLE_DEVICES=0:0,1"], "runtime": "nvidia"}, ["0.0", "1"]),
        ({"env": ["NVIDIA_VISIBLE_DEVICES=none"], "runtime": "nvidia"}, []),
        ({"env": ["NVIDIA_VISIBLE_DEVICES=void"], "runtime": "nvidia"}, []),
        ({"env": ["NVIDIA_VISIBLE_DEVICES="], "runtime": "nvidia"}, []),
        ({"env": ["NVIDIA_VISIBLE_DEVICES=/var/run/nvidia-container-devices"], "runtime": "nvidia"}, []),
        # CUDA's images bring "all" along. Without NVIDIA's runtime it means nothing.
        ({"env": ["NVIDIA_VISIBLE_DEVICES=all"], "runtime": "runc"}, []),
        ({}, []),
    ],
)
def test_every_way_to_give_gpus(host, given, slots):
    host.daemon.add("c", **given)
    assert held(host.collect()) == [(slot, "c") for slot in slots]


@pytest.mark.parametrize("state", ["created", "restarting", "removing", "exited", "dead"])
def test_only_what_runs_holds(host, state):
    host.daemon.add("c", state=state, requests=[request(count=-1)])
    out = host.collect()
    assert allocated(out) == []
    assert rows(out, "ds01_containers_total")["stopped", "docker"] == 1
    assert not any("json?" not in path for _, path in host.daemon.requests)  # such a container is not inspected


def test_a_paused_container_keeps_its_gpu(host):
    host.daemon.add("c", state="paused", requests=[request([H100])])
    assert held(host.collect()) == [("1", "c")]


def test_a_slot_of_two_containers_is_two_series(host):
    host.daemon.add("a", labels={"ds01.user": "alice"}, requests=[request([H100])])
    host.daemon.add("b", labels={"ds01.user": "bob"}, requests=[request([H100])])
    host.daemon.add("c", labels={"ds01.user": "bob"}, requests=[request([H100])])
    out = host.collect()
    assert [(container, user) for _, container, user, *_ in allocated(out)] == [
        ("a", "alice"),
        ("b", "bob"),
        ("c", "bob"),
    ]
    assert rows(out, "ds01_user_gpus_allocated") == {("alice",): 1, ("bob",): 1}
    assert rows(out, "ds01_user_mig_allocated") == {("alice",): 4, ("bob",): 4}
    assert rows(out, "ds01_user_containers_count") == {("alice",): 1, ("bob",): 2}


def test_what_nvml_does_not_know_stays_visible_and_is_no_other_gpu(host):
    gone, gone_mig = "GPU-eeeeeeee-0000-0000-0000-000000000009", "MIG-eeeeeeee-0000-0000-0000-000000000009"
    host.daemon.add("a", requests=[request([gone, gone_mig, "7", "1:3", "\ud800"])])
    out = host.collect()
    assert [(slot, uuid) for slot, *_, uuid in allocated(out)] == [
        ("1.3", ""),
        ("7", ""),
        ("unknown", "?"),  # no label can hold half a character
        ("unknown", gone),
        ("unknown", gone_mig),
    ]
    sizes = {(slot, uuid): value for (slot, *_, uuid), value in rows(out, "ds01_gpu_equivalents").items()}
    assert sizes == {("7", ""): 1, ("unknown", gone): 1}
    assert "ds01_user_gpu_equivalents" not in out.families  # a sum without its parts would be wrong


@pytest.mark.parametrize(
    ("name", "given", "user", "interface"),
    [
        ("a", {"labels": {"ds01.user": "alice", "ds01.interface": "orchestration"}}, "alice", "orchestration"),
        ("a", {"labels": {"aime.mlc.USER": "bob", "ds01.managed": "true"}}, "bob", "atomic"),
        ("a", {"labels": {"aime.mlc.USER": "bob", "ds01.user": "alice"}}, "alice", "docker"),
        ("a", {"parent": "ds01-students-carol.slice"}, "carol", "docker"),
        ("a", {"parent": r"/ds01.slice/ds01-students.slice/ds01-students-carol\x2ddoe.slice"}, "carol-doe", "docker"),
        ("train._.1001", {}, "alice", "atomic"),
        ("train._.4711", {}, "4711", "atomic"),
        ("C.123456", {}, "vastai", "docker"),
        ("runpod-x1", {}, "runpod", "docker"),
        ("a", {"labels": {"com.docker.compose.project": "p"}}, "unknown", "other"),
        ("a", {"labels": {"devcontainer.local_folder": "/home/x"}}, "unknown", "other"),
        ("a", {"labels": {"ds01.interface": "of my own"}}, "unknown", "other"),
        ("a", {}, "unknown", "docker"),
    ],
)
def test_users_and_interfaces(host, name, given, user, interface):
    host.daemon.add(name, requests=[request([H100])], **given)
    out = host.collect()
    assert [entry[1:4] for entry in allocated(out)] == [(name, user, interface)]
    unmanaged = interface in ("docker", "other")
    assert rows(out, "ds01_unmanaged_gpu_count") == {(): int(unmanaged)}
    assert rows(out, "ds01_unmanaged_gpu_container") == ({(name, user, interface): 1} if unmanaged else {})


def test_names_of_labels_slots_and_rules_are_the_operators(host):
    host.settings.user_labels, host.settings.interface_label = ["owner"], "kind"
    host.settings.slot_format = "gpu{gpu}-mig{mig}"
    host.settings.user_rules = [r"^job-(?P<who>[a-z]+)-\d+$ => \g<who>"]
    host.daemon.add("job-dave-7", requests=[request([MIG_1G])])
    host.daemon.add("x", labels={"owner": "erin", "kind": "api"}, requests=[request([MIG_3G])])
    assert [entry[:4] for entry in allocated(host.collect())] == [
        ("gpu0-mig0", "x", "erin", "api"),
        ("gpu0-mig1", "job-dave-7", "dave", "docker"),
    ]


def test_a_container_is_inspected_once_and_forgotten_with_its_end(host):
    key = host.daemon.add("a", requests=[request([H100])])
    for _ in range(3):
        assert held(host.collect()) == [("1", "a")]
    assert [path for _, path in host.daemon.requests].count(f"/containers/{key}/json") == 1
    del host.daemon.containers[key]
    assert allocated(host.collect()) == []
    assert host.collector._docker._details == {}


def test_one_container_that_cannot_be_read_hides_no_other(host):
    for number, behaviour in enumerate([BUSY, hangs, says(b"junk\r\n\r\n")]):
        key = host.daemon.add(f"bad{number}", labels={"ds01.user": "u"}, requests=[request([H100])])
        host.daemon.behave[f"/containers/{key}/json"] = behaviour
    host.daemon.add("good", requests=[request([H100])])
    for _ in range(2):
        began = time.monotonic()
        out = host.collect()
        assert held(out) == [("1", "good")]
        assert [failure.split(":")[0] for failure in out.failures] == [f"container bad{n}" for n in range(3)]
        assert rows(out, "ds01_user_containers_count")["u",] == 3  # the list tells that much
    assert time.monotonic() - began < 0.9  # the one that hangs is not asked each time


def test_docker_never_takes_the_collectors_whole_deadline(host):
    host.settings.deadline = 2.0
    for number in range(5):
        key = host.daemon.add(f"slow{number}", requests=[request([H100])])
        host.daemon.behave[f"/containers/{key}/json"] = lambda connection, good: (
            time.sleep(0.4),
            connection.sendall(good),
        )
    began = time.monotonic()
    out = host.collect()
    assert time.monotonic() - began < 2.0
    assert "not inspected yet" in out.failures[-1]
    for _ in range(5):
        out = host.collect()
    assert len(held(out)) == 5  # it goes on where it was
    assert not out.failures


def test_a_list_with_strange_entries_is_still_a_list(host):
    host.daemon.add("a", requests=[request([H100])])
    entry = Daemon._entry(host.daemon.containers[container_id(1)])
    odd = [None, 3, {}, {"Id": 7}, {**entry, "Id": container_id(2), "Names": None, "Labels": {"a": 1}, "State": []}]
    host.daemon.behave["/containers/json?all=1"] = lambda connection, good: connection.sendall(
        host.daemon._http(200, [*odd, entry])
    )
    out = host.collect()
    assert held(out) == [("1", "a")]
    assert len(out.failures) == 4
    assert rows(out, "ds01_containers_total")["stopped", "docker"] == 1


def test_a_docker_that_does_not_answer_is_a_failure_and_not_a_free_gpu(host):
    host.daemon.behave["/containers/json?all=1"] = BUSY
    with pytest.raises(CollectorError, match="busy"):
        host.collect()


def test_without_a_socket_the_others_stand_in_quietly(host):
    host.daemon.close()
    out = host.collect()
    assert not out.failures
    assert rows(out, "ds01_allocation_source") == {("processes",): 1}
    assert "ds01_containers_total" not in out.families  # nobody knows


def test_the_limit_bounds_series_and_not_sums(host):
    host.settings.containers_limit = 3
    for number in range(10):
        host.daemon.add(f"c{number}", labels={"ds01.user": f"u{number}"}, requests=[request([H100])])
    out = host.collect()
    assert held(out) == [("1", "c0"), ("1", "c1"), ("1", "c2")]
    assert len(rows(out, "ds01_user_gpus_allocated")) == 10
    assert rows(out, "ds01_containers_total")["running", "docker"] == 10
    assert rows(out, "ds01_unmanaged_gpu_count") == {(): 10}
    assert len(rows(out, "ds01_unmanaged_gpu_container")) == 3
    assert out.dropped == 7 * 3


def test_a_thousand_containers_are_read_and_then_cheap(host):
    host.settings.deadline = 60.0
    for number in range(1000):
        host.daemon.add(f"c{number}", requests=[request([H100])])
    assert len(allocated(host.collect())) == 1000
    began = time.process_time()
    host.collect()
    assert time.process_time() - began < 2  # seconds, of which the daemon of the test takes most


# -- processes ------------------------------------------------------------------------------------


def test_a_bare_metal_job_counts(host):
    host.process(10, H100)
    host.process(11, H100)
    host.process(12, MIG_1G, user=4711)
    out = host.collect()
    assert allocated(out) == [
        ("0.1", "", "4711", "bare_metal", "1g.5gb", MIG_1G),
        ("1", "", "alice", "bare_metal", "", H100),
    ]
    assert rows(out, "gpu_processes") == {("1", H100, "alice", ""): 2, ("0.1", MIG_1G, "4711", ""): 1}
    assert rows(out, "gpu_process_memory_bytes")["1", H100, "alice", ""] == 2 << 30
    assert rows(out, "ds01_unmanaged_gpu_count") == {(): 0}


def test_a_process_of_a_container_is_the_containers(host):
    key = host.daemon.add("a", labels={"ds01.user": "bob"}, requests=[request([MIG_1G])])
    host.process(10, MIG_1G, f"0::/system.slice/docker-{key}.scope\n", user=0)
    host.process(11, H100, f"0::/system.slice/docker-{key}.scope\n", user=0)  # privileged: it was not given
    out = host.collect()
    assert [entry[:4] for entry in allocated(out)] == [("0.1", "a", "bob", "docker"), ("1", "a", "bob", "docker")]
    assert rows(out, "gpu_processes") == {("0.1", MIG_1G, "bob", "a"): 1, ("1", H100, "bob", "a"): 1}


def test_memory_that_the_driver_does_not_tell_is_absent_and_not_too_small(host):
    host.process(10, H100)
    host.process(11, H100, memory=None)
    out = host.collect()
    assert "gpu_process_memory_bytes" not in out.families
    assert rows(out, "gpu_processes") == {("1", H100, "alice", ""): 2}


def test_a_container_of_another_runtime_is_named_by_its_id(host):
    host.process(10, H100, f"0::/machine.slice/libpod-{DOCKER_ID}.scope/container\n")
    assert allocated(host.collect()) == []  # it may be one that Docker has just started
    assert allocated(host.collect()) == [("1", DOCKER_ID[:12], "alice", "other", "", H100)]


def test_a_container_that_a_user_makes_up_is_a_process_of_his_own(host):
    """Below their own systemd, users name control groups as they like: as somebody else's container, for example."""
    victim = host.daemon.add("training", labels={"ds01.user": "bob"})
    path = "/user.slice/user-1001.slice/user@1001.service/app.slice"
    host.process(10, H100, f"0::{path}/docker-{victim}.scope\n")
    host.process(11, H100, f"0::{path}/ds01-x-bob.slice/libpod-{DOCKER_ID}.scope\n")
    for _ in range(2):
        assert allocated(host.collect()) == [("1", "", "alice", "bare_metal", "", H100)]


def test_labels_that_come_with_an_image_say_nothing(host):
    """Whoever rents a GPU brings the image: it must not charge his use to others, nor claim GPUs he does not have."""
    baked = {"ds01.user": "bob", "ds01.managed": "true", "ds01.interface": "api", "ds01.gpu.uuids": H100}
    host.daemon.image_labels = baked
    host.daemon.add("C.123", labels=baked)
    host.daemon.add("C.124", labels={**baked, "ds01.user": "alice"}, requests=[request([MIG_1G])])
    out = host.collect()
    assert allocated(out) == [("0.1", "C.124", "alice", "docker", "1g.5gb", MIG_1G)]
    assert rows(out, "ds01_user_containers_count") == {("vastai",): 1, ("alice",): 1}


def test_a_container_that_asks_for_thousands_of_gpus_hides_no_other(host):
    nonsense = ",".join(f"GPU-{number:08x}" for number in range(25000))
    host.daemon.add("a", labels={"ds01.gpu.uuids": nonsense})
    host.daemon.add("b", labels={"ds01.user": "bob"}, requests=[request([H100])])
    found = allocated(host.collect())
    assert ("1", "b", "bob", "docker", "", H100) in found
    assert len(found) <= 129


def test_a_process_of_a_container_that_has_ended_is_nobodys(host):
    key = host.daemon.add("a", state="exited", requests=[request([H100])])
    host.process(10, H100, f"0::/system.slice/docker-{key}.scope\n")
    for _ in range(2):
        assert allocated(host.collect()) == []


def test_without_docker_a_process_still_says_which_container_and_user(host):
    host.settings.docker = False
    host.process(10, H100, f"12:memory:/docker/{DOCKER_ID}\n1:name=systemd:/docker/{DOCKER_ID}\n", user=1001)
    host.process(11, MIG_1G, f"0::/system.slice/docker-{'e' * 64}.scope\n", user=0)
    host.process(12, MIG_3G, f"0::/ds01.slice/ds01-students-carol.slice/docker-{'d' * 64}.scope\n", user=0)
    assert [entry[:4] for entry in allocated(host.collect())] == [
        ("0.0", "d" * 12, "carol", "docker"),
        ("0.1", "e" * 12, "unknown", "docker"),  # root in a container is nobody
        ("1", "f" * 12, "alice", "docker"),
    ]
    assert host.daemon.requests == []


def test_a_process_that_goes_is_no_failure_and_one_that_is_hidden_is_seen(host):
    host.process(10, H100)
    shutil.rmtree(host.path / "proc/10")
    out = host.collect()
    assert allocated(out) == []
    assert not out.failures
    assert [entry[:4] for entry in allocated(host.collect())] == [("1", "", "unknown", "bare_metal")]
    host.daemon.add("a", requests=[request([H100])])
    assert held(host.collect()) == [("1", "a")]  # most likely it is this one's


def test_processes_can_be_left_out(host):
    host.settings.processes = False
    host.process(10, H100)
    assert allocated(host.collect()) == []


def test_before_nvml_was_asked_nothing_is_said(host, monkeypatch):
    host.collect()
    monkeypatch.setattr(host.store, "wait", lambda: False)
    with pytest.raises(CollectorError, match="NVML"):
        host.collect()


# -- the state file -------------------------------------------------------------------------------

FLAT = {
    "allocations": {
        "train._.1001": {"user": "alice", "gpu_id": "0.1", "allocated_at": "2026-11-20T09:14:03Z", "priority": 50},
        "whole": {"user": "bob", "gpu_id": 1, "allocated_at": "2026-11-20T09:14:03Z", "stopped_at": None},
        "ended": {"user": "bob", "gpu_id": "1", "stopped_at": "2026-11-20T10:00:00Z"},
        "broken": {"user": "bob"},
    },
    "last_updated": "2026-11-20T09:14:03Z",
}
BY_SLOT = {
    "gpus": {
        "0.1": {
            "type": "mig_instance",
            "containers": [{"container": "train._.1001", "user": "alice", "interface": "orchestration"}],
        },
        "1": {
            "type": "physical_gpu",
            "containers": [{"container": "whole", "user": "bob", "interface": "api"}, {"user": "nobody"}],
            "total_memory": 81920,
        },
    },
    "mig_enabled": True,
    "last_updated": "2026-11-20T09:14:03Z",
}


@pytest.mark.parametrize(("content", "interfaces"), [(FLAT, ("atomic", "docker")), (BY_SLOT, ("orchestration", "api"))])
def test_both_forms_of_the_state_file(host, content, interfaces):
    host.daemon.close()
    (host.path / "gpu-state.json").write_text(json.dumps(content))
    out = host.collect()
    assert allocated(out) == [
        ("0.1", "train._.1001", "alice", interfaces[0], "1g.5gb", MIG_1G),
        ("1", "whole", "bob", interfaces[1], "", H100),
    ]
    assert rows(out, "ds01_allocation_source") == {("state_file",): 1}
    assert len(out.failures) == 1  # the entry that is none
    assert "ds01_unmanaged_gpu_count" not in out.families


def test_the_file_and_the_processes_do_not_count_one_container_twice(host):
    host.daemon.close()
    (host.path / "gpu-state.json").write_text(json.dumps(BY_SLOT))
    host.process(10, H100, f"0::/system.slice/docker-{DOCKER_ID}.scope\n")  # it is "whole", which nobody can know
    host.process(11, MIG_3G, f"0::/system.slice/docker-{DOCKER_ID}.scope\n")  # of which the file does not know
    host.process(12, H100)
    assert held(host.collect()) == [("0.0", DOCKER_ID[:12]), ("0.1", "train._.1001"), ("1", ""), ("1", "whole")]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"allocations": []}', "[" * 100000, "\x00\x01"])
def test_a_state_file_that_is_none_is_a_failure_and_not_a_free_gpu(host, text):
    host.daemon.close()
    (host.path / "gpu-state.json").write_text(text)
    with pytest.raises(CollectorError, match=r"gpu-state\.json"):
        host.collect()


def test_the_file_replaces_a_docker_that_stays_silent(host, monkeypatch):
    (host.path / "gpu-state.json").write_text(json.dumps(FLAT))
    host.daemon.add("a", requests=[request([H100])])
    assert held(host.collect()) == [("1", "a")]
    host.daemon.behave["/containers/json?all=1"] = BUSY
    with pytest.raises(CollectorError, match="busy"):  # a short break: what Docker said is still served
        host.collect()
    later = time.monotonic() + host.settings.allowed_age + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    out = host.collect()
    assert rows(out, "ds01_allocation_source") == {("state_file",): 1}
    assert any("busy" in failure for failure in out.failures)
    del host.daemon.behave["/containers/json?all=1"]
    assert held(host.collect()) == [("1", "a")]


def test_reading_costs_no_libraries():
    code = "import sys; import gpufleet.gpu_exporter.collectors.allocations; print(*sys.modules)"
    files = Path(__file__).parents[3] / "files"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=files, capture_output=True, text=True, check=True)
    assert not {"requests", "http.client", "email", "ssl", "asyncio"} & set(loaded.stdout.split())
