"""Hosts without a way out: the controller downloads once, and hands over what a host lacks."""

from __future__ import annotations

import pytest

HOSTS = "host1,host2,closed"


@pytest.fixture
def delivered(monkeypatch, tmp_path, lab, releases):
    """A release that nobody downloaded so far, and a controller that has nothing in its cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return {**releases.publish("10.0.0"), "delivery": "controller"}


def archives(lab):
    return [request for request in lab.faults.requests() if "/demo-10.0.0" in request["path"]]


def test_one_download_serves_all_hosts_and_a_second_run_sends_nothing(
    bare, lab, bring, brought, ask, delivered, tmp_path
):
    before = len(archives(lab))
    try:
        done = bring(hosts=HOSTS, release=delivered)
        assert done.rc == 0, done.messages()
        assert {ask(host)["version"] for host in HOSTS.split(",")} == {"10.0.0"}
        (request,) = archives(lab)[before:]
        assert request["client"] not in {host.address for host in lab.hosts.values()}
        assert list((tmp_path / "gpufleet/releases").rglob("demo-10.0.0.linux-amd64.tar.gz"))
        again = bring("-vvv", hosts="closed", release=delivered)
        said = again.stdout + again.stderr
        assert said.count("SSH: EXEC") == 1
        assert " PUT " not in said
        assert len(archives(lab)) == before + 1
    finally:
        brought(hosts=HOSTS, state="absent")


def test_the_cache_of_the_controller_is_not_believed_blindly(bare, lab, bring, brought, ask, delivered, tmp_path):
    try:
        brought(hosts="closed", release=delivered)
        brought(hosts="closed", state="absent")
        (archive,) = (tmp_path / "gpufleet/releases").rglob("demo-10.0.0.linux-amd64.tar.gz")
        archive.write_bytes(b"cut")
        brought(hosts="closed", release=delivered)
        assert ask("closed")["version"] == "10.0.0"
    finally:
        brought(hosts="closed", state="absent")


def test_a_controller_that_cannot_download_says_so_for_every_host(bare, lab, bring, delivered, sh):
    with lab.faults.injected("example.org/demo/v10.0.0/*", status=404):
        done = bring(hosts="host1,closed", release=delivered)
    for host in ("host1", "closed"):
        assert done.stats[host]["failures"] == 1
        assert "HTTP status 404" in done.of(host)[-1]["msg"]
        assert sh(host, "ls -d /opt/gpufleet", check=False) == ""


def test_a_host_without_a_way_out_says_what_to_do(bare, lab, bring, releases):
    """Delivery is left at "host", though this one reaches nothing but its own network."""
    away = {
        "version": "10.0.0",
        "url": "http://192.0.2.1/demo-10.0.0.linux-{arch}.tar.gz",
        "checksum_url": "http://192.0.2.1/sha256sums.txt",
    }
    done = bring(hosts="closed", release=away)
    assert "set gpufleet_release_delivery: controller" in done.of("closed")[-1]["msg"]
