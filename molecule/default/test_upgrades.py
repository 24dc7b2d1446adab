"""The fleet's versions change: some workers after the other, not at all after a bad canary, and back again."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest
from fleet import VARIABLES, WORKERS, same_run
from gpufleet_lab.playbook import run_playbook

BROKEN = "99.0.0"
PROGRAM = b"#!/bin/sh\necho 'the flux capacitor is missing'; exit 1\n"
AMTOOL = "/opt/gpufleet/alertmanager/current/amtool --alertmanager.url=http://127.0.0.1:9093 silence"


@pytest.fixture
def play(tmp_path):
    """Run a playbook; return the run, and what its report says: (host, service) -> (from, to, outcome)."""

    def run(playbook, inventory, *arguments, **variables):
        path = tmp_path / "report.json"
        extra = {"fleet_report_file": str(path), **variables}
        done = run_playbook(playbook, *arguments, inventory=inventory, extra_vars=extra)
        rows = json.loads(path.read_text())["services"]
        return done, {(row["host"], row["service"]): (row["from"], row["to"], row["outcome"]) for row in rows}

    return run


@pytest.fixture
def broken(lab):
    """Variables for a node_exporter that does not start."""
    name = f"node_exporter-{BROKEN}.linux-amd64.tar.gz"
    archive = lab.faults.extra / f"github.com/prometheus/node_exporter/releases/download/v{BROKEN}/{name}"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("node_exporter-broken/node_exporter")
        member.size, member.mode = len(PROGRAM), 0o755
        tar.addfile(member, io.BytesIO(PROGRAM))
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    return {"node_exporter_version": BROKEN, "node_exporter_sha256": sha256}


def test_a_canary_that_does_not_get_well_is_the_only_one_that_saw_the_new_version(inventory, lab, play, broken, sh):
    version = lab.versions["node_exporter"]["current"]
    others = {host: sh(host, same_run("node_exporter")) for host in ("gpu2", "gpu3", "master1")}
    path = inventory(WORKERS, **VARIABLES)
    done, report = play("upgrade", path, "--tags", "node_exporter", **broken)
    assert done.rc != 0
    assert report == {
        ("gpu1", "node_exporter"): (version, BROKEN, "rolled back"),
        **{(host, ""): ("", "", "not begun") for host in others},
    }
    table = [line.split() for line in done.stderr.splitlines()]
    assert ["gpu3", "-", "-", "-", "not", "begun"] in table
    assert ["gpu1", "node_exporter", version, BROKEN, "rolled", "back:"] in [line[:6] for line in table]
    assert {host: sh(host, same_run("node_exporter")) for host in others} == others
    assert (
        sh("gpu1", "systemctl is-active node_exporter; ls -d /opt/gpufleet/node_exporter/99*", check=False) == "active"
    )


def test_an_upgrade_and_the_way_back_without_a_download(fleet, inventory, lab, play, sh):
    """From the newer release to the older one here, which is all the same to the playbooks, and then the hosts are as
    they were."""
    now, other = ({name: lab.versions[name][which] for name in lab.versions} for which in ("current", "previous"))
    sh("master1", f"{AMTOOL} add --author me --comment kept --duration 1h alertname=Kept")
    services = ["node_exporter", "alertmanager"]
    wanted = {**VARIABLES.get("all", {}), **{f"{name}_version": other[name] for name in services}}
    closed = inventory({**WORKERS, "gpu2": {**WORKERS["gpu2"], "ansible_port": 1}}, **{**VARIABLES, "all": wanted})
    done, report = play("upgrade", closed, "--tags", ",".join(services), upgrade_batches=[1, 2])
    updated = {
        (host, name): (now[name], other[name], "updated")
        for host, name in [
            *((host, "node_exporter") for host in ("gpu1", "gpu3", "master1")),
            ("master1", "alertmanager"),
        ]
    }
    assert report == {**updated, ("gpu2", ""): ("", "", "unreachable")}, done.messages()
    assert "Kept" in sh("master1", f"{AMTOOL} query")

    path, requests = inventory(WORKERS, **{**VARIABLES, "all": wanted}), len(lab.faults.requests())
    done, report = play("rollback", path, "--check", rollback_services=services)
    assert report["gpu1", "node_exporter"] == (other["node_exporter"], now["node_exporter"], "went back (check mode)")
    done, report = play("rollback", path, rollback_services=services)
    assert done.rc == 0, done.messages()
    went_back = {row: (after, before, "went back") for row, (before, after, _) in updated.items()}
    unchanged = (
        now["node_exporter"],
        now["node_exporter"],
        "unchanged",
    )  # where nothing was changed, nothing goes back
    assert report == {**went_back, ("gpu2", "node_exporter"): unchanged}
    assert f"  node_exporter_version: {now['node_exporter']}  # gpu1, gpu3, master1" in done.stderr.splitlines()
    assert len(lab.faults.requests()) == requests
    assert "Kept" in sh("master1", f"{AMTOOL} query")
    assert run_playbook("rollback", inventory=path, extra_vars={"rollback_services": services}).changed == 0
