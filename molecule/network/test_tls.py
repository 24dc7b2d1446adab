"""Exporters answer to the masters' certificates alone, and no scrape is lost when certificates change."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from pathlib import Path

import pytest
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils import fleet_ca
from fleet import FLEET, WORKERS, all_up, with_all
from gpufleet_lab.playbook import run_playbook
from gpufleet_lab.waiting import eventually

EXPORTERS = {"node_exporter": 9100, "dcgm_exporter": 9400, "gpu_exporter": 9500}
SERVICES = ("node_exporter", "nvidia-dcgm-exporter", "gpu_exporter")

# What a client learns at some address by TLS: "200", or the error. Arguments: address, port, and a certificate or "".
ASK = """
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile="/root/ca.pem")
if sys.argv[3]:
    context.load_cert_chain(sys.argv[3])
try:
    print(urllib.request.urlopen(f"https://{sys.argv[1]}:{sys.argv[2]}/metrics", timeout=5, context=context).status)
except OSError as error:
    print(error)
"""


@pytest.fixture
def tls():
    """The directory of the fleet's authority, on this machine."""
    return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "tls"


@pytest.fixture
def run(inventory):
    """Run site.yml for the whole fleet: run(gpufleet_tls_renew_days=400)."""

    def play(**variables):
        done = run_playbook("site", inventory=inventory(WORKERS, **with_all(**variables)))
        assert done.rc == 0, done.messages()
        return done

    return play


@pytest.fixture
def ask(lab, sh, tls):
    """From `outside`, ask an exporter of gpu1 with a certificate: ask(9100, pem)."""
    sh("outside", f"echo {shlex.quote((tls / 'ca.crt').read_text())} >/root/ca.pem")

    def asked(port, pem):
        sh("outside", f"echo {shlex.quote(pem)} >/root/client.pem")
        file = "/root/client.pem" if pem else "''"
        return sh("outside", f"python3 -c {shlex.quote(ASK)} {lab.hosts['gpu1'].address} {port} {file}")

    return asked


def started(sh):
    """What changes whenever one of the services is started."""
    services = {"gpu1": SERVICES, "master1": ("node_exporter", "prometheus")}
    return {host: sh(host, f"systemctl show -P InvocationID {' '.join(names)}") for host, names in services.items()}


def lost(prometheus, since):
    """Scrapes that failed, or were not made, after some moment."""
    seconds = int(time.time() - since)
    query = f"count_over_time(up[{seconds}s]) - sum_over_time(up[{seconds}s])"
    failed = {tuple(r["metric"].values()): float(r["value"][1]) for r in prometheus.query(query)}
    made = {float(r["value"][1]) for r in prometheus.query(f"count_over_time(up[{seconds}s])")}
    assert len(failed) == len(FLEET)
    return {target: count for target, count in failed.items() if count}, seconds - min(made)


def test_only_a_masters_certificate_opens_an_exporter(firewall, tls, ask, sh, tmp_path, monkeypatch):
    """By TLS alone, with the ports open to all."""
    assert firewall(firewall_enabled=False).rc == 0
    prometheus, master, worker = (
        (tls / f"hosts/{name}.pem").read_text() for name in ("master1.prometheus.gpufleet", "master1", "gpu1")
    )
    ours = fleet_ca.FleetCa(shutil.copytree(tls, tmp_path / "ours"))
    others = fleet_ca.FleetCa(tmp_path / "others")

    def issue(ca, host):
        (ca.directory / f"hosts/{host}.pem").unlink(missing_ok=True)
        return ca.certificate(host, [], 0, may_create=True)[0].pem

    name = "master1.prometheus.gpufleet"
    strangers = {"none": "", "another worker's": issue(ours, "gpu2"), "another authority's": issue(others, name)}
    strangers["the master's own exporters'"] = master
    monkeypatch.setattr(fleet_ca, "HOST_DAYS", -0.5)
    strangers["an expired one"] = issue(ours, name)
    for port in EXPORTERS.values():
        assert ask(port, prometheus) == "200"
        assert ask(port, worker) == "200"  # the host's own, for the health checks
        answers = {stranger: ask(port, pem) for stranger, pem in strangers.items()}
        assert not any(answer == "200" for answer in answers.values()), (port, answers)
    # Where gpu_exporter serves in DCGM's place, it is the same.
    sh("gpu1", "systemctl disable --quiet --now nvidia-dcgm-exporter")
    try:
        assert eventually(lambda: ask(EXPORTERS["dcgm_exporter"], prometheus) == "200", 10)
        assert ask(EXPORTERS["dcgm_exporter"], "") != "200"
    finally:
        sh("gpu1", "systemctl enable --quiet --now nvidia-dcgm-exporter")


def test_certificates_and_the_authority_change_without_a_lost_scrape(run, tls, sh, prometheus):
    assert eventually(lambda: all_up(prometheus)), prometheus.targets()
    began, before = time.time(), started(sh)
    old = (tls / "ca.crt").read_text()
    run(gpufleet_tls_new_authority=True)
    (tls / "ca.crt").rename(tls / "ca-old.crt")
    for end in ("crt", "key"):
        (tls / f"ca-next.{end}").rename(tls / f"ca.{end}")
    run(gpufleet_tls_renew_days=400)
    (tls / "ca-old.crt").unlink()
    run()
    assert run().changes() == []
    time.sleep(3)
    failed, missing = lost(prometheus, began)
    assert not failed
    assert missing <= 2  # the first and the last second are not whole ones
    assert started(sh) == before
    new = (tls / "ca.crt").read_text()
    assert new != old
    for host, directory in (("gpu1", "node_exporter"), ("gpu1", "gpu_exporter"), ("master1", "prometheus/tls")):
        assert sh(host, f"cat /etc/{directory}/ca.pem") == new.strip()


def test_keys_are_readable_by_their_service_alone(sh):
    found = sh("gpu1", "stat -c '%U:%G %a %n' /etc/node_exporter/host.pem /etc/gpu_exporter/host.pem")
    assert found.splitlines() == [
        "root:node_exporter 640 /etc/node_exporter/host.pem",
        "root:gpu_exporter 640 /etc/gpu_exporter/host.pem",
    ]
    done = run_playbook("gpu_workers", "--tags", "node_exporter", "-vvv")
    assert (done.rc, "PRIVATE KEY" in done.stdout) == (0, False)


def test_the_end_of_a_certificate_is_a_metric(prometheus):
    metric = "gpufleet_certificate_not_after_timestamp_seconds - time()"
    days = {r["metric"]["instance"]: float(r["value"][1]) / 86400 for r in prometheus.query(metric)}
    assert set(days) == {"master1", "gpu1"}
    assert all(360 < left < 366 for left in days.values())


def test_tls_is_switched_off_and_on_again(run, sh, prometheus):
    try:
        run(gpufleet_tls=False)
        assert eventually(lambda: all_up(prometheus)), prometheus.targets()
        found = sh("gpu1", "find /etc -name host.pem -o -name ca.pem -o -name web.yml")
        assert found + sh("master1", "find /etc/prometheus -name '*.pem'") == ""
    finally:
        run()
    assert eventually(lambda: all_up(prometheus)), prometheus.targets()
