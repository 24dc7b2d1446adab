"""The new state is not well: the old one is back, and the operator reads why."""

from __future__ import annotations

import pytest
from conftest import PORT, configuration
from gpufleet_lab.waiting import eventually

LAST_WORDS = "demo 3.0.0: cannot go on, the flux capacitor is missing"
UNIT = "/etc/systemd/system/demo.service"


@pytest.mark.parametrize("behaviour", ["exits", "keeps silent"])
def test_a_release_that_does_not_get_well_is_rolled_back_with_all_that_came_with_it(
    bare, demo, refused, brought, ask, sh, service, releases, behaviour
):
    new = {"files": [configuration("green")], "command": [*service["command"], "--new"], "state": "started"}
    result = refused(release=releases.publish("3.0.0", behaviour=behaviour), **new)
    assert result["rolled_back"]
    assert "Rolled back: the previous state is back and runs" in result["msg"]
    if behaviour == "exits":
        assert LAST_WORDS in result["journal"]
        assert LAST_WORDS in result["msg"]
    answer = ask()
    assert (answer["version"], answer["configuration"]) == ("1.0.0", "colour: blue\n")
    assert "--new" not in answer["arguments"]
    assert sh("host1", "systemctl is-active demo; systemctl is-enabled demo") == "active\nenabled"
    assert not brought()["changed"]  # the host is as the old description says, to the last byte


def test_the_other_hosts_go_on(demo, bring, brought, ask, sh, releases):
    """A release that fails on one host alone, as where a library or a port is missing."""
    brought(hosts="host2")
    v4 = releases.publish("4.0.0")
    # Someone on host1 forbids the program to start.
    condition = "[Unit]\\nAssertPathExists=!/opt/gpufleet/demo/4.0.0\\n"
    sh("host1", f"mkdir {UNIT}.d; printf '{condition}' > {UNIT}.d/no.conf; systemctl daemon-reload")
    try:
        done = bring(hosts="host1,host2", release=v4)
        assert done.stats["host1"]["failures"] == 1
        assert done.stats["host2"] == {**done.stats["host2"], "failures": 0, "changed": 1}
        assert ask("host2")["version"] == "4.0.0"
    finally:
        sh("host1", f"rm -r {UNIT}.d; systemctl daemon-reload")
        brought(hosts="host2", state="absent")


def test_a_first_install_that_fails_leaves_nothing_running_and_can_be_repeated(
    bare, refused, brought, ask, sh, releases
):
    result = refused(release=releases.publish("3.0.0", behaviour="keeps silent"))
    assert "it did not run before, and is stopped again" in result["msg"]
    assert sh("host1", "systemctl is-active demo", check=False) == "inactive"
    assert sh("host1", f"ls {UNIT} /etc/demo/demo.conf", check=False) == ""
    brought()
    assert ask()["version"] == "1.0.0"
    brought(state="absent")
    assert sh("host1", "ls -d /etc/demo /opt/gpufleet", check=False) == ""


def test_a_unit_written_by_hand_is_back_when_ours_fails(bare, refused, sh, releases):
    words = f"[Service]\\nExecStart=/usr/bin/python3 -m http.server {PORT}\\n[Install]\\nWantedBy=multi-user.target\\n"
    sh("host1", f"printf '{words}' > {UNIT} && systemctl enable --now demo")
    before = sh("host1", f"cat {UNIT}")
    try:
        assert refused(release=releases.publish("3.0.0", behaviour="exits"))["rolled_back"]
        assert sh("host1", f"cat {UNIT}") == before
        assert sh("host1", "systemctl is-active demo; systemctl is-enabled demo") == "active\nenabled"
        assert "http.server" in sh("host1", "tr '\\0' ' ' < /proc/$(systemctl show -P MainPID demo)/cmdline")
    finally:
        sh("host1", f"systemctl disable --now demo; rm -rf {UNIT} /opt/gpufleet; systemctl daemon-reload")


def test_a_stranger_on_the_port_does_not_pass_for_the_service(bare, refused, sh):
    sh("host1", f"systemd-run --quiet --unit stranger /usr/bin/python3 -m http.server {PORT}")
    try:
        message = refused()["msg"]
        assert f"port {PORT} belongs to another service: stranger.service" in message
    finally:
        sh("host1", "systemctl stop stranger")


def test_the_state_before_is_asked_where_it_answers_though_the_new_one_moved(demo, refused, ask, sh, service):
    sh("host1", f"systemd-run --quiet --unit stranger /usr/bin/python3 -m http.server {PORT + 1}")
    program, _, *rest = service["command"]
    moved = {"url": f"http://127.0.0.1:{PORT + 1}/", "timeout": 4}
    try:
        result = refused(command=[program, f"--port={PORT + 1}", *rest], health=moved)
        assert result["rolled_back"]
        assert "stranger.service" in result["msg"]
        assert ask()["version"] == "1.0.0"
    finally:
        sh("host1", "systemctl stop stranger")


@pytest.mark.parametrize(
    ("command", "reason"), [("/nowhere/check", "No such file or directory"), ("sleep 60", "did not end within 1 s")]
)
def test_a_health_command_that_does_not_work_is_a_service_that_is_not_well(demo, refused, ask, v2, command, reason):
    result = refused(release=v2, health={"command": command, "timeout": 1})
    assert result["rolled_back"]
    assert reason in result["msg"]
    assert ask()["version"] == "1.0.0"


def test_a_reload_that_the_service_does_not_survive_is_rolled_back(demo, refused, ask):
    """The validator, which is root, reads it; the service, which is not, cannot."""
    result = refused(files=[{**configuration("green"), "mode": "0600"}])
    assert result["rolled_back"]
    assert ask()["configuration"] == "colour: blue\n"


def test_crashes_of_long_ago_do_not_count_against_a_reload(demo, brought, ask, sh):
    sh("host1", "for n in 1 2; do systemctl kill --signal KILL demo; sleep 1.5; done")
    assert int(sh("host1", "systemctl show -P NRestarts demo")) >= 2
    assert eventually(lambda: ask()["version"] == "1.0.0")
    assert brought(files=[configuration("green")])["healthy"]


def test_an_unwell_service_that_is_as_described_is_a_warning(demo, bring, sh):
    """Nothing changed, so there is nothing to go back to; but the operator hears of it."""
    sh("host1", "kill -STOP $(systemctl show -P MainPID demo)")
    try:
        done = bring()
        assert done.rc == 0
        assert done.of("host1")[-1]["healthy"] is False
        assert any("is not well" in warning for warning in done.of("host1")[-1]["warnings"])
    finally:
        sh("host1", "kill -CONT $(systemctl show -P MainPID demo)")
