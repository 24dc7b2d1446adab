"""A fleet's versions change: some workers after the other, not at all after a bad canary, and back again.

The workers are hosts of this scenario, with node_exporter, to which upgrades are cheap.
"""

from __future__ import annotations

import json

import pytest
from gpufleet_lab.playbook import run_playbook

BROKEN = "99.0.0"
PROCESS = "systemctl show -P InvocationID node_exporter"


@pytest.fixture
def fleet(inventory):
    """Inventories of two workers, one of which is the master, too; nothing is left on them."""

    def write(version, **workers):
        workers = {"host1": {}, "host2": {}, **workers}
        return inventory(workers, {"host2": {}}, all={"node_exporter_version": version})

    yield write
    done = run_playbook("remove", "--limit", "host1,host2", inventory=write("0"))
    assert done.rc == 0, done.messages()


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
    sha256 = lab.faults.broken_release("node_exporter", BROKEN)
    return {"node_exporter_version": BROKEN, "node_exporter_sha256": sha256}


def rows(outcomes):
    """Rows of a report for node_exporter."""
    return {(host, "node_exporter"): outcome for host, outcome in outcomes.items()}


def test_a_fleet_is_upgraded_but_not_after_a_bad_canary_and_goes_back_without_a_download(fleet, lab, play, broken, sh):
    old, new = (lab.versions["node_exporter"][which] for which in ("previous", "current"))
    tag = ("--tags", "node_exporter")
    done, report = play("upgrade", fleet(old), *tag)
    assert report == rows(dict.fromkeys(("host1", "host2"), ("", old, "installed"))), done.messages()

    # The canary is put back by itself, and nobody else sees the bad release.
    others = sh("host2", PROCESS)
    done, report = play("upgrade", fleet(old), *tag, **broken)
    assert done.rc != 0
    assert report == {**rows({"host1": (old, BROKEN, "rolled back")}), ("host2", ""): ("", "", "not begun")}
    table = [line.split() for line in done.stderr.splitlines()]
    assert ["host2", "-", "-", "-", "not", "begun"] in table
    assert ["host1", "node_exporter", old, BROKEN, "rolled", "back:"] in [line[:6] for line in table]
    assert sh("host2", PROCESS) == others
    gone = "ls -d /opt/gpufleet/node_exporter/99*"
    assert sh("host1", f"systemctl is-active node_exporter; {gone}", check=False) == "active"

    # A host that cannot be reached is told of, and is nobody else's affair.
    done, report = play("upgrade", fleet(new, host2={"ansible_port": 1}), *tag, upgrade_batches=[1, 2])
    assert report == {**rows({"host1": (old, new, "updated")}), ("host2", ""): ("", "", "unreachable")}

    # Back, while the mirror answers nobody.
    requests = len(lab.faults.requests())
    with lab.faults.injected("*", status=503):
        refused = run_playbook("rollback", inventory=fleet(new))
        assert refused.rc != 0
        assert "rollback_from" in refused.messages()
        leaving = {"rollback_from": {"node_exporter": new}}
        _, report = play("rollback", fleet(new), "--check", **leaving)
        assert report["host1", "node_exporter"] == (new, old, "went back (check mode)")
        done, report = play("rollback", fleet(new), **leaving)
        assert done.rc == 0, done.messages()
    assert len(lab.faults.requests()) == requests
    assert report == rows({"host1": (new, old, "went back"), "host2": (old, old, "unchanged")})
    assert f"  node_exporter_version: {old}  # host1" in done.stderr.splitlines()
    assert sh("host1", "readlink /opt/gpufleet/node_exporter/current") == old
    assert sh("host1", "systemctl is-active node_exporter") == "active"
