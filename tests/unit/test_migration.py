"""What makes way for this collection, and what never does."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils.migration import (
    data,
    docker,
    host,
    known,
    plan,
    record,
)
from ansible_collections.gpufleet.monitoring.plugins.module_utils.migration.plan import (
    Container,
    Found,
    Holder,
    MigrationError,
    Source,
    Target,
    Unit,
    make_plan,
)

WORKER = {"node_exporter": [9100], "gpu_exporter": [9500], "dcgm": [9400]}
MASTER = {
    **{"node_exporter": [9100], "prometheus": [9090], "alertmanager": [9093], "grafana": [3000], "nginx": [80, 443]},
    "monitoring_manage": [],
}
UNITS = {unit.name: unit for unit in known.UNITS}
GIB = 1 << 30


def unit(name, active=True, enabled=True, **more):
    return Unit(UNITS[f"{name}.service"], active, enabled, **more)


def inspected(name, image, labels=None, running=True, restart="always", ports=(), mounts=(), arguments=()):
    """What Docker says of a container, as far as we read it."""
    return {
        "Id": f"{name:0<64}",
        "Name": f"/{name}",
        "Config": {"Image": image, "Labels": labels, "Cmd": list(arguments)},
        "Args": list(arguments),
        "State": {"Running": running},
        "HostConfig": {
            "RestartPolicy": {"Name": restart, "MaximumRetryCount": 0},
            "PortBindings": {f"{port}/tcp": [{"HostIp": "", "HostPort": str(port)}] for port in ports},
        },
        "NetworkSettings": {
            "Ports": {f"{port}/tcp": [{"HostIp": "", "HostPort": str(port)}] for port in ports if running}
        },
        "Mounts": [{"Source": source, "Destination": at} for source, at in mounts],
    }


def read(said):
    """As on a host that gets all of ours."""
    return docker.read(said, plan.ports({**WORKER, **MASTER}))


def stopped(found, services):
    made = make_plan(found, services, ())
    return [entry.known.name for entry in made.units], [container.name for container in made.containers]


# -- which containers are known -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("prometheus", "prom/prometheus:latest"),
        ("prometheus", "registry.example.org:5000/prom/prometheus@sha256:0f"),
        ("grafana", "docker.io/grafana/grafana"),
        ("ds01-dcgm-exporter", "nvcr.io/nvidia/k8s/dcgm-exporter:3.3.0-3.2.0-ubuntu22.04"),
        ("cryptolabs-proxy", "ghcr.io/cryptolabsza/cryptolabs-proxy:dev"),
    ],
)
def test_a_container_is_known_by_name_and_image_of_any_registry(name, image):
    assert known.container(name, image, {}, (), in_the_way=True).name == name


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("C.4711", "prom/prometheus"),
        ("runpod-abc123", "prom/node-exporter"),
        ("thesis._.1001", "grafana/grafana"),
        ("prometheus", "client/prometheus"),
        ("grafana", "ubuntu:22.04"),
        ("my-prometheus", "prom/prometheus"),
    ],
)
def test_a_clients_container_is_nobodys_we_know(name, image):
    assert known.container(name, image, {}, (), in_the_way=True) is None


def test_what_ds01_built_itself_is_known_by_its_label():
    assert known.container("ds01-exporter", "9f3c2a", {"ds01.monitoring": "true"}, ()).role == "gpu_exporter"
    assert known.container("ds01-exporter", "9f3c2a", {}, ()) is None


def test_a_common_proxy_counts_only_beside_a_known_container_of_its_compose_project():
    project = {"com.docker.compose.project": "dc"}
    grafana, traefik = (
        inspected("grafana", "grafana/grafana", project, ports=[3000]),
        inspected("traefik", "traefik:v2.10", project),
    )
    alone = inspected("traefik", "traefik:v2.10", {"com.docker.compose.project": "shop"})
    assert [one.known is not None for one in read([grafana, traefik])] == [True, True]
    assert [one.known is not None for one in read([grafana, alone])] == [True, False]


def known_names(said, **more):
    return [one.name for one in docker.read(said, **more) if one.known]


def test_a_name_that_anybody_could_give_needs_a_port_of_ours_or_the_compose_project_of_an_old_system():
    elsewhere = inspected("prometheus", "prom/prometheus", ports=[19090])
    assert known_names([elsewhere], wanted=[9090]) == []
    assert known_names([elsewhere], wanted=[19090]) == ["prometheus"]
    # Stopped, it has no port now, and would have it again.
    assert known_names([inspected("grafana", "grafana/grafana", running=False, ports=[3000])], wanted=[3000])
    # In the host's network it publishes none: who holds the port has said so, or our record.
    host_network = inspected("node-exporter", "prom/node-exporter")
    assert known_names([host_network], wanted=[9100]) == []
    assert known_names([host_network], held=[host_network["Id"]]) == ["node-exporter"]
    project = {"com.docker.compose.project": "suite"}
    behind = inspected("prometheus", "prom/prometheus", project)
    assert known_names([behind, inspected("dc-overview", "cryptolabsza/dc-overview", project)]) == [
        "prometheus",
        "dc-overview",
    ]
    assert known_names([behind, inspected("dc-overview", "cryptolabsza/dc-overview")]) == ["dc-overview"]


def test_a_namesake_stays_and_the_table_says_why():
    found = Found(
        containers=tuple(read([inspected("grafana", "grafana/grafana", ports=[13000]), inspected("web", "nginx")]))
    )
    made = make_plan(found, MASTER, ())
    assert made.containers == ()
    (row,) = made.rows
    assert row.name == "grafana"
    assert row.what.startswith("stays: it has no port of ours")


# -- what makes way -------------------------------------------------------------------------------


def test_only_what_the_host_gets_a_successor_for_makes_way():
    found = Found(
        units=(unit("node_exporter"), unit("dc-exporter"), unit("dc-watchdog-agent")),
        containers=tuple(read([inspected("prometheus", "prom/prometheus", ports=[9090]), inspected("web", "nginx")])),
    )
    assert stopped(found, WORKER) == (["node_exporter.service", "dc-exporter.service"], [])
    assert stopped(found, MASTER) == (["node_exporter.service"], ["prometheus"])
    fates = {row.name: row.what for row in make_plan(found, WORKER, ()).rows}
    assert fates["prometheus"] == "stays: this host does not get prometheus"
    assert fates["dc-watchdog-agent.service"] == "stays: nothing here takes its place"
    assert "web" not in fates


def test_what_is_stopped_already_is_left_alone():
    found = Found(
        units=(unit("dc-exporter", active=False, enabled=False),),
        containers=tuple(read([inspected("grafana", "grafana/grafana", running=False, restart="no", ports=[3000])])),
    )
    made = make_plan(found, {**WORKER, **MASTER}, ())
    assert not made.changes
    assert {row.what for row in made.rows} == {"out of the way"}


def test_a_container_that_would_start_again_at_boot_counts_as_running():
    found = Found(containers=tuple(read([inspected("grafana", "grafana/grafana", running=False, ports=[3000])])))
    assert stopped(found, MASTER) == ([], ["grafana"])


def test_a_container_that_docker_removes_when_it_stops_is_named_before_anything_changes():
    passing = {**inspected("grafana", "grafana/grafana", ports=[3000], restart="no")}
    passing["HostConfig"] = {**passing["HostConfig"], "AutoRemove": True}
    (line,) = make_plan(Found(containers=tuple(read([passing]))), MASTER, ()).faults
    assert "the container grafana was started with --rm" in line
    assert "without --rm" in line
    # It stays on a worker, and that of somebody else is none of our business.
    assert make_plan(Found(containers=tuple(read([passing]))), WORKER, ()).faults == ()
    assert make_plan(Found(containers=tuple(read([{**passing, "Name": "/web"}]))), MASTER, ()).faults == ()


def test_a_unit_whose_stop_removes_containers_is_only_disabled():
    assert stopped(Found(units=(unit("dc-overview"),)), MASTER) == (["dc-overview.service"], [])
    assert not make_plan(Found(units=(unit("dc-overview", enabled=False),)), MASTER, ()).changes


def test_a_unit_with_the_name_of_ours_is_set_aside_with_its_drop_ins():
    etc = "/etc/systemd/system/node_exporter.service"
    mine = unit("node_exporter", path=etc, drop_ins=(f"{etc}.d", "/run/systemd/system/node_exporter.service.d"))
    assert make_plan(Found(units=(mine,)), WORKER, ()).aside == (etc, f"{etc}.d")
    packaged = unit("node_exporter", path="/lib/systemd/system/node_exporter.service")
    assert make_plan(Found(units=(packaged,)), WORKER, ()).aside == ()
    linked = unit(
        "node_exporter", path="/opt/ds01-infra/node_exporter.service", link="/opt/ds01-infra/node_exporter.service"
    )
    assert make_plan(Found(units=(linked,)), WORKER, ()).aside == (etc,)
    other = unit("dc-exporter", path="/etc/systemd/system/dc-exporter.service")
    assert make_plan(Found(units=(other,)), WORKER, ()).aside == ()


# -- ports ----------------------------------------------------------------------------------------


def faults(found, services):
    return make_plan(found, services, ()).faults


def test_a_stranger_on_a_port_is_named_with_the_variable_that_moves_ours():
    found = Found(holders=(Holder(9100, 7, "/usr/bin/prometheus-node-exporter", "prometheus-node-exporter.service"),))
    (line,) = faults(found, WORKER)
    assert "port 9100 is held by prometheus-node-exporter.service, process 7" in line
    assert "node_exporter_port" in line


def test_a_clients_container_on_a_port_is_a_stranger():
    containers = tuple(read([inspected("C.1", "prom/prometheus", ports=[9090])]))
    (line,) = faults(Found(containers=containers, holders=(Holder(9090, 0, "", "docker.service", "C.1"),)), MASTER)
    assert "the container C.1" in line


def test_those_that_make_way_are_no_strangers_nor_are_our_own():
    found = Found(
        units=(unit("node_exporter"),),
        containers=tuple(read([inspected("grafana", "grafana/grafana", ports=[3000])])),
        holders=(
            Holder(9100, 1, "node_exporter", "node_exporter.service"),
            Holder(3000, 0, "docker-proxy", "docker.service", "grafana"),
            Holder(9093, 2, "alertmanager", "alertmanager.service"),
            Holder(443, 3, "nginx", "nginx.service"),
            Holder(80, 3, "nginx", "nginx.service"),
        ),
        ours=frozenset({"alertmanager"}),
    )
    assert faults(found, MASTER) == ()
    # The same, where it was not installed by this collection.
    assert len(faults(found._replace(ours=frozenset()), MASTER)) == 1


# -- data -----------------------------------------------------------------------------------------


def with_data(size=GIB, free=10 * GIB, empty=True, role="prometheus", reader=False):
    target = Target(f"/var/lib/{role}", empty, free, reader)
    return Found(sources=(Source(role, "/old", size, "x"),), targets={role: target})


def test_data_are_copied_once():
    (copy,) = make_plan(with_data(), MASTER, ()).copies
    assert not copy.merge
    assert make_plan(with_data(), MASTER, ("prometheus",)).copies == ()


def test_of_two_places_with_old_data_the_operator_says_which():
    both = with_data()._replace(sources=(Source("prometheus", "/a", 1, "ds01"), Source("prometheus", "/b", 1, "left")))
    made = make_plan(both, MASTER, ())
    (line,) = made.faults
    assert "old data for prometheus are in 2 places: /a (ds01), /b (left)" in line
    assert "migration_old_data: {prometheus: /a}" in line
    # Not once they are here, and not for one directory that two containers have mounted.
    assert make_plan(both, MASTER, ("prometheus",)).faults == ()
    shared = both._replace(sources=(Source("prometheus", "/a", 1, "ds01"), Source("prometheus", "/a", 1, "left")))
    assert make_plan(shared, MASTER, ()).faults == ()
    assert len(make_plan(shared, MASTER, ()).copies) == 1


def test_data_of_ours_that_are_there_are_added_to_where_that_is_possible():
    assert make_plan(with_data(empty=False, reader=True), MASTER, ()).copies[0].merge
    later = make_plan(with_data(empty=False), MASTER, ())
    assert later.copies == ()
    assert "run this once more after site.yml" in later.warnings[0]
    made = make_plan(with_data(empty=False, role="alertmanager"), MASTER, ())
    assert made.copies == ()
    assert "/var/lib/alertmanager has data already" in made.warnings[0]


@pytest.mark.parametrize(("free", "fits"), [(GIB, False), (GIB + (65 << 20), True)])
def test_without_room_nothing_begins(free, fits):
    made = make_plan(with_data(free=free), MASTER, ())
    assert (made.faults == ()) is fits
    assert fits or ("1.0 GiB" in made.faults[0] and "migration_data: false" in made.faults[0])


def test_data_are_found_where_a_container_has_mounted_them():
    one = inspected(
        "prometheus", "prom/prometheus", mounts=[("/srv/tsdb", "/prometheus"), ("/etc/p", "/etc/prometheus")]
    )
    assert docker.data_path(one, "--storage.tsdb.path", "/prometheus") == "/srv/tsdb"
    deeper = inspected("p", "p", mounts=[("/srv", "/data")], arguments=["--storage.tsdb.path=/data/tsdb"])
    assert docker.data_path(deeper, "--storage.tsdb.path", "/prometheus") == "/srv/tsdb"
    assert docker.data_path(inspected("p", "p"), "--storage.tsdb.path", "/prometheus") == ""


def test_a_link_of_a_container_does_not_lead_to_other_data_of_the_host(tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "tsdb").symlink_to(tmp_path / "secret")
    one = inspected(
        "p", "p", mounts=[(str(tmp_path / "volume"), "/data")], arguments=["--storage.tsdb.path=/data/tsdb"]
    )
    with pytest.raises(MigrationError, match=r"is a link.*migration_old_data"):
        docker.data_path(one, "--storage.tsdb.path", "/prometheus")
    # Docker's own directory may well be one.
    (tmp_path / "docker").symlink_to(tmp_path / "volume")
    moved = inspected("p", "p", mounts=[(str(tmp_path / "docker"), "/prometheus")])
    assert docker.data_path(moved, "--storage.tsdb.path", "/prometheus") == str(tmp_path / "volume")


def bring(old, new, **more):
    data.bring(
        plan.Copy(Source("prometheus", str(old), 1, "x"), Target(str(new), True, GIB), **{"merge": False, **more})
    )


def test_a_copy_has_no_links_and_what_is_no_file_does_not_stop_it(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "wal").mkdir(parents=True)
    (old / "wal" / "00000001").touch()
    (tmp_path / "shadow").write_text("root:secret")
    (old / "shadow").symlink_to(tmp_path / "shadow")
    (old / "wal" / "dangling").symlink_to(tmp_path / "nothing")
    (old / "up").symlink_to(tmp_path)
    os.mkfifo(old / "pipe")
    bring(old, new)
    assert sorted(str(entry.relative_to(new)) for entry in new.rglob("*")) == ["wal", "wal/00000001"]


def test_old_data_that_became_a_link_meanwhile_are_not_copied(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "old").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MigrationError, match="has become a link"):
        bring(tmp_path / "old", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_data_that_came_meanwhile_are_never_replaced(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "wal").mkdir(parents=True)
    (new / "wal").mkdir(parents=True)
    (new / "mine").touch()
    with pytest.raises(MigrationError, match="keeps them"):
        bring(old, new)
    assert sorted(entry.name for entry in new.iterdir()) == ["mine", "wal"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["new", "old"]


def test_a_copy_leaves_locks_and_half_blocks_behind_and_the_old_data_as_they_are(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for name in (
        "wal/00000001",
        "01JDB7Q7Z6V0C9S4K5N1X8M2ET/index",
        "01JDB7Q7Z6V0C9S4K5N1X8M2EV.tmp-for-creation/index",
    ):
        (old / name).parent.mkdir(parents=True)
        (old / name).write_text(name)
    (old / "lock").touch()
    (old / "queries.active").touch()
    before = sorted(old.rglob("*"))
    data.bring(plan.Copy(Source("prometheus", str(old), 1, "x"), Target(str(new), True, GIB), merge=False))
    assert sorted(entry.name for entry in new.iterdir()) == ["01JDB7Q7Z6V0C9S4K5N1X8M2ET", "wal"]
    assert sorted(old.rglob("*")) == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".migrating")] == []


def test_a_directory_with_anything_that_could_be_missed_is_not_empty(tmp_path):
    assert data.is_empty(tmp_path / "missing")
    (tmp_path / "lock").touch()
    assert data.is_empty(tmp_path)
    (tmp_path / "notes").touch()
    assert not data.is_empty(tmp_path)


def test_without_our_prometheus_nothing_can_be_added_and_ours_stays_as_it_is(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "wal").mkdir(parents=True)
    (new / "wal").mkdir(parents=True)
    with pytest.raises(MigrationError, match=r"site\.yml first"):
        data.bring(plan.Copy(Source("prometheus", str(old), 1, "x"), Target(str(new), False, GIB), merge=True))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["new", "old"]
    assert [entry.name for entry in new.iterdir()] == ["wal"]


# -- the record -----------------------------------------------------------------------------------


def test_what_was_first_found_is_what_is_put_back(tmp_path):
    root = tmp_path / "record"
    running = Container("grafana", "0", None, True, "always")
    first = record.Record(root)
    first.note(plan.Plan(units=(unit("dc-exporter"),), containers=(running,), aside=("/etc/x.d",)))
    # A run that was cut, and the next one, which finds half of it done.
    second = record.Record(root)
    second.note(plan.Plan(units=(unit("dc-exporter", active=False),), containers=(running._replace(running=False),)))
    found = record.Record(root)
    assert found.units == {"dc-exporter.service": {"active": True, "enabled": True, "link": ""}}
    assert found.containers == {"grafana": {"running": True, "restart": "always", "retries": 0}}
    assert found.aside == {"/etc/x.d": f"{root}/aside/etc_x.d"}
    assert (root / "record.json").stat().st_mode & 0o777 == 0o600
    found.remove()
    assert not root.exists()


@pytest.mark.parametrize("text", ["{", json.dumps({"units": {}}), "[]"])
def test_a_damaged_record_stops_everything(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(MigrationError, match="damaged"):
        record.Record(tmp_path)


# -- back -----------------------------------------------------------------------------------------


class Orders:
    """A host that does as it is told, apart from orders with one of the words in ``fails``."""

    def __init__(self, *containers):
        self.said, self.fails = [], set()
        self.containers = [inspected(name, "x", running=False, restart="no") for name in containers]

    def __call__(self, words):
        self.said.append(" ".join(words[1:]))
        if self.fails & set(words):
            return 1, "", f"{words[-1]} is broken"
        answers = {"ps": "\n".join(one["Id"] for one in self.containers), "inspect": json.dumps(self.containers)}
        return 0, answers.get(words[1], ""), ""


@pytest.fixture
def migrated(tmp_path, monkeypatch):
    """Systems, their record and what a host is told: two containers, a unit and two files are out of the way."""
    (tmp_path / "docker").touch()
    monkeypatch.setattr(docker, "_PROGRAM", str(tmp_path / "docker"))
    monkeypatch.setattr(host.installed, "names", functools.partial(host.installed.names, tmp_path / "ours"))
    monkeypatch.setattr(known, "unit_path", lambda name: str(tmp_path / name))
    orders, noted = Orders("db", "web"), record.Record(tmp_path / "record")
    noted.note(
        plan.Plan(
            units=(unit("ds01-exporter", link="/opt/ds01-infra/ds01-exporter.service"),),
            containers=(Container("db", "0", None, True, "always"), Container("web", "1", None, True, "always")),
            aside=(str(tmp_path / "status"), str(tmp_path / "manage")),
        )
    )
    (tmp_path / "record" / "aside").mkdir()
    for place in noted.aside.values():
        Path(place).write_text("old")
    return host.OldSystems(orders, noted), noted, orders


def test_a_container_that_does_not_start_keeps_nothing_else_from_coming_back(migrated, tmp_path):
    systems, noted, orders = migrated
    orders.fails = {"web"}
    with pytest.raises(MigrationError, match=r"(?s)run it again.*web is broken"):
        systems.undo()
    assert "start db" in orders.said
    assert "start ds01-exporter.service" in orders.said
    assert (tmp_path / "status").read_text() == "old"
    assert noted.file.exists()
    orders.fails = set()
    assert systems.undo() == []
    assert "start web" in orders.said
    assert (tmp_path / "status").read_text() == "old"
    assert not noted.file.exists()


def test_a_unit_is_stopped_while_systemd_still_knows_it(migrated):
    systems, _, orders = migrated
    systems.make_way(plan.Plan(units=(unit("ds01-exporter"), unit("dc-overview"))), {})
    words = [line for line in orders.said if "disable" in line or line.startswith("stop")]
    assert words == [
        "stop ds01-exporter.service",
        "--quiet disable ds01-exporter.service",
        "--quiet disable dc-overview.service",
    ]


def test_a_unit_that_was_a_link_is_one_again(migrated, tmp_path):
    systems, _, orders = migrated
    systems.undo()
    assert str((tmp_path / "ds01-exporter.service").readlink()) == "/opt/ds01-infra/ds01-exporter.service"
    assert "--quiet enable ds01-exporter.service" in orders.said


def test_a_record_of_before_links_were_written_down_is_read(migrated):
    _, noted, _ = migrated
    noted.units["ds01-exporter.service"].pop("link")
    assert noted.links() == {}


def test_undoing_looks_for_what_is_in_its_way_before_our_services_go(migrated, tmp_path, monkeypatch):
    systems, _, orders = migrated
    holding = {9090: ("prometheus", "prometheus.service"), 9093: ("nc", "stranger.service")}
    monkeypatch.setattr(
        host.health, "holders", lambda port: [host.health.Listener(7, *holding[port])] if port in holding else []
    )
    (tmp_path / "ours" / "prometheus").mkdir(parents=True)
    (tmp_path / "ours" / "prometheus" / "manifest.json").touch()
    (line,) = systems.undo_faults(MASTER, ours_go=True)
    assert "port 9093 is held by stranger.service" in line
    assert len(systems.undo_faults(MASTER)) == 2
    orders.fails = {"ps"}
    (line,) = systems.undo_faults(MASTER, ours_go=True)
    assert line.startswith("start Docker first (systemctl start docker): docker ps")


@pytest.mark.parametrize(
    ("path", "goes"),
    [
        ("/etc/systemd/system/node_exporter.service", True),
        ("/etc/systemd/system/node_exporter.service.d", True),
        ("/usr/local/bin/monitoring-status", True),
        ("/etc/nginx/sites-enabled/dc-monitoring", False),
        ("/etc/systemd/system/dc-exporter.service", False),
    ],
)
def test_what_goes_with_our_services_is_not_in_the_way(path, goes):
    assert plan.is_ours(path, {"node_exporter", "nginx"}) is goes


# -- the report -----------------------------------------------------------------------------------


def test_the_table_is_aligned_and_says_when_there_is_nothing():
    lines = plan.table(make_plan(Found(units=(unit("dc-exporter"), unit("ds01-exporter"))), WORKER, ()).rows)
    assert len({line.index("stopped:") for line in lines[1:]}) == 1
    assert plan.table(()) == ["nothing of DS01 or dc-overview is here, and the ports are free"]


def test_sizes_are_for_people():
    assert [plan.size(count) for count in (0, 1536, 3 << 40)] == ["0 B", "1.5 KiB", "3.0 TiB"]
