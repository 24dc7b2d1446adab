"""A run is cut in the middle, or meets another one; the next run finds its way."""

from __future__ import annotations

import json

import pytest
from conftest import configuration
from gpufleet_lab.waiting import eventually

IMPATIENT = {"ansible_ssh_args": "-o ControlMaster=no -o ServerAliveInterval=1 -o ServerAliveCountMax=3"}


@pytest.mark.parametrize("wanted", ["1.0.0", "2.0.0", "3.0.0"])
def test_a_run_that_died_while_it_waited_for_the_new_release_is_repaired(demo, bring, cut, ask, releases, wanted):
    """The host is half-way, with a release that keeps silent: back, on to a good one, or the same bad one again."""
    silent = cut()
    if wanted == "3.0.0":
        done = bring(release=silent)
        assert done.of("host1")[-1]["rolled_back"]
        assert ask()["version"] == "1.0.0"  # that before the run that died, not the sick one
    else:
        done = bring(release=releases.publish(wanted))
        assert done.rc == 0, done.messages()
        assert ask()["version"] == wanted
        assert not bring(release=releases.publish(wanted)).changed


@pytest.mark.parametrize("before", ["bare", "demo"])
def test_what_a_run_that_died_has_placed_is_not_forgotten(request, brought, cut, sh, before):
    request.getfixturevalue(before)
    extra = {"path": "/etc/demo/extra.d/extra.conf", "content": "x"}
    cut(files=[configuration("blue"), extra])
    if before == "demo":
        brought()
        assert sh("host1", "find /etc/demo -type f") == "/etc/demo/demo.conf"
    brought(state="absent")
    assert sh("host1", "ls -d /etc/demo /opt/gpufleet /etc/systemd/system/demo.service", check=False) == ""


def test_a_host_that_loses_its_connection_in_a_download_is_repaired(demo, lab, bring, background, ask, sh, releases):
    release = releases.publish("8.0.0")
    with lab.faults.injected("example.org/demo/v8.0.0/demo-*", rate=200_000):
        run = background(bring, "-e", json.dumps(IMPATIENT), release=release)
        assert eventually(lambda: sh("host1", "ls /opt/gpufleet/demo/.download/*.part", check=False))
        lab.hosts["host1"].plug(connected=False)
        try:
            assert run.result().stats["host1"]["unreachable"] == 1
        finally:
            lab.hosts["host1"].plug(connected=True)
        assert ask()["version"] == "1.0.0"
    done = bring(release=release)
    assert done.rc == 0, done.messages()
    assert ask()["version"] == "8.0.0"


def test_a_damaged_record_is_named_and_nothing_is_touched(demo, refused, untouched, sh):
    sh("host1", "cd /opt/gpufleet/demo && mv manifest.json kept && touch manifest.json")
    try:
        before = untouched()
        assert "/opt/gpufleet/demo/manifest.json is damaged" in refused()["msg"]
        assert untouched() == before
    finally:
        sh("host1", "cd /opt/gpufleet/demo && mv kept manifest.json")


def test_two_runs_at_once_work_one_after_the_other(demo, bring, background, ask, sh, releases, v2):
    runs = [background(bring, release=release) for release in (v2, releases.publish("9.0.0"))]
    for run in runs:
        assert run.result().rc == 0, run.result().messages()
    assert ask()["version"] in ("2.0.0", "9.0.0")
    assert sh("host1", "readlink /opt/gpufleet/demo/current") == ask()["version"]
