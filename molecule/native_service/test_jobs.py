"""A program that does its work and ends, and whose timer is what runs."""

from __future__ import annotations

import pytest

DONE = "cat /var/lib/private/demo/done"
TIMER = "systemctl is-active demo.timer; systemctl is-enabled demo.timer; systemctl show -P OnCalendar demo.timer"


def work(words: str) -> list[dict]:
    return [{"path": "/etc/demo/work", "content": f"{words}\n"}]


@pytest.fixture
def service():
    """The module's arguments; what the job did is in a file."""
    return {
        "name": "demo",
        "command": ["/bin/sh", "-ec", ". /etc/demo/work >>/var/lib/demo/done"],
        "directories": ["/etc/demo"],
        "files": work("echo one"),
        "unit": {"Service": {"StateDirectory": "demo"}},
        "timer": {"OnCalendar": "yearly"},
    }


@pytest.fixture
def job(bare, brought):
    """The job has run once, and its timer waits."""
    assert brought()["actions"][-2:] == ["enable", "start"]


def test_a_job_runs_when_it_changes_and_is_left_to_its_timer_when_it_does_not(job, brought, sh):
    assert sh("host1", DONE) == "one"
    assert sh("host1", TIMER).splitlines()[:2] == ["active", "enabled"]
    for arguments in ([], ["--check", "--diff"]):
        assert not brought(*arguments)["changed"]
    assert sh("host1", DONE) == "one"
    assert brought(files=work("echo two"))["actions"] == ["write /etc/demo/work", "restart"]
    assert sh("host1", DONE).splitlines() == ["one", "two"]
    brought(files=work("echo two"), timer={"OnCalendar": "monthly"})
    assert "monthly" in sh("host1", "systemctl cat demo.timer")


def test_a_job_that_fails_is_undone_and_the_one_before_it_goes_on(job, refused, brought, sh):
    before = sh("host1", "cat /etc/demo/work")
    result = refused(files=work("echo no luck today >&2; exit 3"))
    assert result["rolled_back"]
    assert "no luck today" in result["msg"]
    assert sh("host1", "cat /etc/demo/work") == before
    assert sh("host1", DONE).splitlines() == ["one", "one"]  # the one from before was run, to see that it does
    assert sh("host1", TIMER).splitlines()[:2] == ["active", "enabled"]
    assert not brought()["changed"]


def test_a_new_job_that_fails_leaves_nothing_to_start_it_again(bare, refused, sh):
    assert refused(files=work("exit 3"))["rolled_back"]
    assert sh("host1", "ls /etc/systemd/system/demo.* /opt/gpufleet /etc/demo 2>/dev/null", check=False) == ""
    assert sh("host1", "systemctl is-active demo.timer", check=False) == "inactive"


def test_a_job_that_failed_at_its_time_is_told_at_the_next_run(job, brought, sh):
    sh("host1", "mv /etc/demo/work /etc/demo/away; systemctl start demo; mv /etc/demo/away /etc/demo/work", check=False)
    assert brought()["healthy"] is False


def test_stopped_and_absent_end_the_timer(job, brought, sh):
    brought(state="stopped")
    assert sh("host1", TIMER, check=False).splitlines()[:2] == ["inactive", "disabled"]
    brought(state="absent", purge=True)
    assert sh("host1", "systemctl cat demo.timer 2>&1", check=False).startswith("No files found")
