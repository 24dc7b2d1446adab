"""The old systems make way, their data come along, clients notice nothing, and all of it goes back."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

import pytest
from gpufleet_lab.playbook import run_playbook
from gpufleet_lab.waiting import eventually

CONVERGE = Path(__file__).with_name("converge.yml")
CLIENTS = ["C.4711", "C.4712"]
OLD_CONTAINERS = {
    "ds01": ["ds01-prometheus", "ds01-alertmanager", "ds01-grafana", "ds01-node-exporter", "ds01-dcgm-exporter"],
    "dc1": ["prometheus", "grafana"],
}
RESTARTS = {
    **dict.fromkeys(OLD_CONTAINERS["ds01"], "unless-stopped:0"),
    **{"prometheus": "always:0", "grafana": "on-failure:5"},
}
OLD_UNITS = {
    "ds01": ["ds01-exporter"],
    "dc1": ["node_exporter", "dcgm-exporter", "dc-exporter", "gddr6-metrics-exporter"],
}
HOSTS = sorted(OLD_UNITS)
OURS = ["node_exporter", "gpu_exporter", "prometheus", "alertmanager"]


@pytest.fixture
def prepared(sh):
    """What the old systems were told before the migration."""
    return json.loads(sh("ds01", "cat /etc/old-systems"))


@pytest.fixture
def query(sh):
    """Ask the Prometheus of ds01, whichever that is now."""

    def ask(expression: str, at: float | None = None) -> list[dict]:
        words = {"query": expression, **({"time": at} if at else {})}
        code = (
            "import json,sys,urllib.request as u,urllib.parse as p;"
            "print(u.urlopen('http://127.0.0.1:9090/api/v1/query?'+p.urlencode(json.load(sys.stdin))).read().decode())"
        )
        said = sh("ds01", f'echo {shlex.quote(json.dumps(words))} | python3 -c "{code}"')
        return json.loads(said)["data"]["result"]

    return ask


@pytest.fixture
def containers(sh):
    """Name -> [running, restart policy, when it started] of all containers of a host."""

    def look(host: str) -> dict[str, list[str]]:
        policy = "{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}"
        form = "{{.Name}} {{.State.Running}} " + policy + " {{.State.StartedAt}}"
        lines = sh(host, f"docker inspect --format '{form}' $(docker ps --all --quiet)").splitlines()
        return {name.lstrip("/"): rest for name, *rest in (line.split() for line in lines)}

    return look


def unit(sh, host: str, name: str) -> tuple[str, str]:
    active, file = sh(host, f"systemctl show {name} --property=ActiveState,UnitFileState").splitlines()
    return active.partition("=")[2], file.partition("=")[2]


def snapshot(sh, containers, host: str) -> dict:
    """Everything of a host that a migration could have changed."""
    paths = "/etc/systemd/system /etc/nginx/sites-enabled /usr/local/bin /var/lib/gpufleet-migration"
    return {
        "containers": containers(host),
        "units": {name: unit(sh, host, name) for name in [*OLD_UNITS[host], "docker"]},
        "files": sh(host, f"find {paths} -printf '%p %l\\n' 2>/dev/null | sort", check=False),
    }


# -- after converge -------------------------------------------------------------------------------


@pytest.mark.parametrize("host", HOSTS)
def test_what_is_old_is_stopped_and_stays_so_at_the_next_boot(host, sh, containers):
    found = containers(host)
    for name in OLD_CONTAINERS[host]:
        assert found[name][:2] == ["false", "no:0"], name
    for name in set(OLD_UNITS[host]) - {"node_exporter"}:
        # Disabling a unit whose file is a link takes the link away.
        assert unit(sh, host, name) == ("inactive", "" if name == "ds01-exporter" else "disabled"), name


def test_the_old_unit_gives_its_name_to_ours_with_nothing_left_of_it(sh):
    assert "Written by gpufleet.monitoring" in sh("dc1", "systemctl cat node_exporter")
    assert "OLD=yes" not in sh("dc1", "systemctl cat node_exporter")
    assert "node_exporter_build_info" in sh(
        "dc1",
        "python3 -c \"import urllib.request as u;print(u.urlopen('http://127.0.0.1:9100/metrics').read().decode())\"",
    )


@pytest.mark.parametrize("host", HOSTS)
def test_clients_go_on_and_so_does_what_has_no_successor(host, containers, sh):
    found = containers(host)
    stay = CLIENTS + (["ipmi-monitor"] if host == "dc1" else [])
    for name in stay:
        assert found[name][:2] == ["true", "unless-stopped:0"], name
    if host == "dc1":
        assert unit(sh, "dc1", "dc-watchdog-agent") == ("active", "enabled")
        # Stopping it would have removed containers.
        assert unit(sh, "dc1", "dc-overview") == ("active", "disabled")


def test_the_site_in_nginx_is_set_aside_and_nginx_goes_on(sh):
    assert sh("dc1", "ls /etc/nginx/sites-enabled") == ""
    assert sh("dc1", "systemctl is-active nginx && nginx -t 2>&1 | tail -1").startswith("active")


def test_samples_of_the_old_prometheus_are_in_ours_at_their_times(prepared, query):
    # What was in a block, an hour apart, and what it still held in memory.
    values = {float(point[1]) for series in query("old_marker[48h]") for point in series["values"]}
    assert values == {0, 1, 2, 3, 4, 5}
    assert query('sum_over_time(up{job="old"}[3s])', at=prepared["at"])
    assert eventually(lambda: query('up{job="node_exporter"}'), 20)


def test_our_prometheus_owns_what_it_was_given(sh):
    owners = set(sh("ds01", "find /var/lib/prometheus/ -printf '%U\\n' | sort -u").split())
    assert owners == {sh("ds01", "stat --format %u /var/lib/private/prometheus")}
    assert owners != {"0"}


def test_silences_of_the_old_alertmanager_hold_in_ours(prepared, sh):
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9093/api/v2/silences').read().decode())"
    assert [one["id"] for one in json.loads(sh("ds01", f'python3 -c "{code}"'))] == [prepared["silence"]]


def test_the_record_is_for_root_alone(sh):
    assert sh("dc1", "stat --format '%a %U' /var/lib/gpufleet-migration /var/lib/gpufleet-migration/record.json") == (
        "700 root\n600 root"
    )


def test_a_full_disk_is_said_before_anything_changes(sh, containers):
    """Given as data: a file with a hole, larger than the disk."""
    sh("dc1", "mkdir --parents /var/tmp/large && truncate --size 8T /var/tmp/large/block")
    before = snapshot(sh, containers, "dc1")
    done = run_playbook(
        "migrate", "--limit", "dc1", extra_vars={"migration_old_data": {"prometheus": "/var/tmp/large"}}
    )
    sh("dc1", "rm --recursive /var/tmp/large")
    assert done.rc != 0
    assert "make room" in done.of("dc1", "The old systems have made way")[0]["msg"]
    assert snapshot(sh, containers, "dc1") == before


# -- there and back -------------------------------------------------------------------------------


def test_a_stopped_docker_ends_undo_before_anything_of_ours_goes(sh):
    """It could not bring the containers back, and the host would have neither."""
    look = "ls /opt/gpufleet/*; systemctl show --property=Id,ActiveState,InvocationID " + " ".join(OURS)
    before = sh("dc1", look)
    sh("dc1", "systemctl stop docker.socket docker.service")
    try:
        done = run_playbook("migrate_undo", "--limit", "dc1")
    finally:
        sh("dc1", "systemctl start docker.socket docker.service")
    assert done.rc != 0
    (said,) = done.of("dc1", "Whether there is anything to undo")
    assert said["msg"].startswith("Nothing was changed on this host:\n- start Docker first (systemctl start docker)")
    assert sh("dc1", look) == before


@pytest.fixture(scope="module")
def undone(lab):
    """ds01 and dc1 as they were before; whatever happens, they are migrated again.

    ds01 has our firewall and our commands as well, and a unit that does not start the first time.
    """
    more = run_playbook(
        *("site", "--limit", "ds01", "--tags", "firewall,monitoring_manage"), extra_vars={"firewall_enabled": True}
    )
    assert more.rc == 0, more.messages()
    assert lab.ssh("ds01", "ufw status").stdout.startswith("Status: active")
    clients = {
        host: lab.ssh(host, "docker inspect --format '{{.State.StartedAt}}' C.4711 C.4712").stdout for host in HOSTS
    }
    planned = run_playbook("migrate_undo", "--check")
    drop_in = "/run/systemd/system/ds01-exporter.service.d"
    lab.ssh("ds01", f"mkdir -p {drop_in}; printf '[Service]\\nExecStartPre=/bin/false\\n' >{drop_in}/broken.conf")
    first = run_playbook("migrate_undo")
    lab.ssh("ds01", f"rm -r {drop_in}; systemctl daemon-reload; systemctl reset-failed ds01-exporter")
    second = run_playbook("migrate_undo")
    yield {"check": planned, "first": first, "second": second, "clients": clients}
    done = run_playbook(CONVERGE)
    assert done.rc == 0, done.messages()


def test_what_does_not_start_is_named_and_undoing_goes_on_once_it_is_mended(undone):
    (said,) = undone["first"].of("ds01", "The old systems are back")
    assert said["msg"].startswith("All else is back. Mend this, and run it again:")
    assert "ds01-exporter" in said["msg"]
    assert undone["second"].rc == 0, undone["second"].messages()


@pytest.mark.parametrize("host", HOSTS)
def test_undo_brings_all_of_it_back(host, undone, sh, containers):
    found = containers(host)
    assert {name: found[name][:2] for name in OLD_CONTAINERS[host]} == {
        name: ["true", RESTARTS[name]] for name in OLD_CONTAINERS[host]
    }
    for name in OLD_UNITS[host]:
        enabled = "disabled" if name == "gddr6-metrics-exporter" else "enabled"
        assert unit(sh, host, name) == ("active", enabled), name
    assert sh(host, "ls /opt/gpufleet /var/lib/gpufleet-migration 2>/dev/null", check=False) == ""
    assert sh(host, "docker inspect --format '{{.State.StartedAt}}' C.4711 C.4712") == undone["clients"][host].strip()


def test_undo_brings_back_the_units_own_files_and_the_site(undone, sh):
    assert "OLD=yes" in sh("dc1", "systemctl cat node_exporter")
    assert sh("dc1", "ls /etc/nginx/sites-enabled") == "dc-monitoring"
    assert unit(sh, "dc1", "dc-overview") == ("active", "enabled")
    assert sh("ds01", "readlink /usr/local/bin/monitoring-status").startswith("/opt/ds01-infra/")
    assert sh("ds01", "readlink /etc/systemd/system/ds01-exporter.service").startswith("/opt/ds01-infra/")


def test_undo_takes_our_firewall_and_commands_off(undone, sh):
    assert sh("ds01", "ufw show added; ufw status").endswith("(None)\nStatus: inactive")
    assert sh("ds01", "grep -ls gpufleet /usr/local/bin/* /etc/monitoring-manage.json", check=False) == ""


def test_the_old_prometheus_has_its_data_still(undone, query, prepared):
    assert eventually(lambda: query("old_marker[48h]"), 30)
    assert query('sum_over_time(up{job="old"}[3s])', at=prepared["at"])


def test_undoing_twice_changes_nothing(undone):
    assert undone["check"].rc == 0, undone["check"].messages()
    assert undone["first"].stats["dc1"]["failures"] == 0, undone["first"].messages()
    assert undone["second"].stats["dc1"]["changed"] == 0, undone["second"].changes()


def test_strangers_on_our_ports_are_named_before_anything_changes(undone, sh, containers):
    sh("dc1", "systemd-run --unit stranger python3 -m http.server 9093 --directory /var/empty")
    sh("dc1", "docker run --detach --name web --publish 443:443 client /bin/busybox sleep 1000")
    try:
        before = snapshot(sh, containers, "dc1")
        done = run_playbook("migrate", "--limit", "dc1")
        assert done.rc != 0
        said = done.of("dc1", "The old systems have made way")[0]["msg"]
        assert "port 9093 is held by stranger.service" in said
        assert "alertmanager_port" in said
        assert "port 443 is held by the container web" in said
        assert snapshot(sh, containers, "dc1") == before
    finally:
        sh("dc1", "systemctl stop stranger; docker rm --force web")


def test_what_the_old_prometheus_saw_meanwhile_is_added_to_our_data(undone, query, sh):
    """The next migration finds data of ours: it adds blocks, of what was in memory as well."""
    assert eventually(lambda: query('up{job="old"}'), 30)
    meanwhile = time.time()
    time.sleep(2)  # one more sample, after that moment
    for playbook in (CONVERGE, "migrate"):  # once more, since our Prometheus has to be there for it
        done = run_playbook(playbook, "--limit", "ds01")
        assert done.rc == 0, done.messages()
    # A range, since an instant would also be answered by what was five minutes before.
    assert eventually(lambda: query('sum_over_time(up{job="old"}[3s])', at=meanwhile), 120)
    assert len(query("old_marker[48h]")[0]["values"]) == 6
    owners = set(sh("ds01", "find /var/lib/prometheus/ -printf '%U\\n' | sort -u").split())
    assert len(owners) == 1, owners
