"""Where the certificate comes from, how it is renewed, and that nobody who asks meanwhile is turned away."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import pytest
from acme import EAB, SECRET, Acme
from fleet import NAME
from gpufleet_lab.authority import Authority
from gpufleet_lab.https import Client, load
from gpufleet_lab.waiting import eventually

RENEW = "python3 -I /opt/gpufleet/gpufleet-certificate/current/certificate.pyz --renew"
STATUS = "runuser -u nobody -- python3 -I /opt/gpufleet/gpufleet-certificate/current/certificate.pyz --status"
FRONT = [NAME, "named.lab.test"]  # names that an ACME server certifies


@pytest.fixture(scope="module")
def acme(lab):
    def sh(host, command):
        done = lab.ssh(host, command)
        assert done.returncode == 0, f"{host}: {command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    servers = Acme(sh, lab.hosts["outside"].address, lab.hosts["master1"].address)
    servers.start()
    return servers


@pytest.fixture
def letsencrypt(acme, tmp_path):
    """The variables with which the lab's ACME server is asked: letsencrypt("rate-limited")."""

    def variables(server="pebble", **others):
        (tmp_path / "acme.pem").write_text(acme.ca())
        return {
            "certificate_mode": "letsencrypt",
            "certificate_names": FRONT,
            "certificate_acme_directory_url": acme.url(server),
            "certificate_acme_ca_file": str(tmp_path / "acme.pem"),
            **others,
        }

    return variables


@pytest.fixture
def provided(lab, tmp_path):
    """The variables with which an operator's files are served."""
    authority = Authority(tmp_path / "operators")
    names = ",".join(f"DNS:{name}" for name in FRONT) + f",IP:{lab.hosts['master1'].address}"
    return {
        "certificate_mode": "provided",
        "certificate_provided_chain_file": str(authority.issue("server", f"subjectAltName={names}")),
        "certificate_provided_key_file": str(authority.key("server")),
        "certificate_provided_ca_file": str(authority.certificate),
    }


def metric(lab) -> dict[str, float]:
    """Mode -> end of the certificate that is served, as node_exporter tells it."""
    with urllib.request.urlopen(f"http://{lab.hosts['master1'].address}:9100/metrics", timeout=10) as answer:
        text = answer.read().decode()
    rows = re.findall(
        r'^gpufleet_certificate_not_after_timestamp_seconds\{mode="(\w+)",name="([^"]+)".*\} (\S+)$', text, re.M
    )
    return {mode: float(end) for mode, name, end in rows if name != "CA"}


def test_the_metric_is_served_by_node_exporter_and_the_timer_waits(lab, sh):
    ends = metric(lab)
    assert list(ends) == ["selfsigned"]
    assert 89 < (ends["selfsigned"] - time.time()) / 86400 < 91
    sh("master1", "systemctl is-active gpufleet-certificate.timer && systemctl is-enabled gpufleet-certificate.timer")


def test_the_ca_is_handed_to_the_operator(sh, run, trusting):
    done = run(tags="certificate")
    (fetched,) = done.of("master1", "The CA is handed to you")
    handed = Path(fetched["dest"])
    assert handed.read_text().strip() == sh("master1", "cat /var/lib/gpufleet-certificate/ca/ca.pem")
    assert Client(trusting().address, NAME, ca=handed).get("/").status == 200


def test_modes_are_switched_and_certificates_renewed_while_nobody_is_turned_away(
    lab, door, run, sh, letsencrypt, provided, as_it_was
):
    with load(door, "/x", pause=0.04) as seen:
        for step in (lambda: run(**provided, tags="certificate"), lambda: run(**letsencrypt(), tags="certificate")):
            done = step()
            assert done.rc == 0, done.messages()
            sh("master1", STATUS)
        assert step().changed == 0  # and the ACME server is asked for nothing
        assert list(metric(lab)) == ["letsencrypt"]
        before = metric(lab)["letsencrypt"]
        time.sleep(1.1)  # a certificate begins at a full second
        assert sh("master1", RENEW + " 2>&1").startswith("a new certificate")
        assert metric(lab)["letsencrypt"] > before
        assert run(tags="certificate").rc == 0
        time.sleep(0.5)
    assert seen.lost == []
    assert seen.answered > 200
    # Our own, the operator's, two of the ACME server's, our own: in this order, and none in between.
    assert len(seen.certificates) == 5


def test_the_first_start_has_a_placeholder_and_then_a_certificate_without_a_pause(
    lab, door, run, sh, letsencrypt, as_it_was
):
    """As on a new host: there is nothing, and the ACME server can only be asked once nginx runs."""
    sh("master1", "rm -r /var/lib/gpufleet-certificate && systemctl restart nginx")
    with load(door, "/x", pause=0.04) as seen:
        done = run(**letsencrypt())
        assert done.rc == 0, done.messages()
        # What the server has given but is not stored, as on a full disk, is taken from certbot: there are few a week.
        sh("master1", "rm -r /var/lib/gpufleet-certificate/issued && systemctl start gpufleet-certificate")
        time.sleep(0.5)
    assert seen.lost == []
    assert len(seen.certificates) == 2
    # And old keys go: there is one.
    sh("master1", "cd /var/lib/gpufleet-certificate && cmp current/privkey.pem acme/archive/*/privkey*")


# -- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "fault", "words"),
    [
        ("pebble", lambda acme: acme.stop("pebble"), ["refused"]),
        ("pebble", lambda acme: acme.dns(f"del {NAME} A"), [NAME, "could not resolve"]),
        (
            "pebble",
            lambda acme: acme.dns(f"del {NAME} A", f"add {NAME} 1 A {acme.outside}"),
            [NAME, "onnection refused"],
        ),
        ("rate-limited", lambda acme: None, ["too many certificates (5) already issued"]),
    ],
    ids=["down", "no-name", "wrong-address", "rate-limit"],
)
def test_an_acme_server_that_gives_nothing_changes_nothing_and_the_reason_is_clear(
    lab, acme, door, run, sh, letsencrypt, server, fault, words
):
    before, timer = door.get("/x").fingerprint, sh("master1", "cat /etc/gpufleet-certificate/config.json")
    fault(acme)
    try:
        done = run(**letsencrypt(server), tags="certificate")
    finally:
        acme.mend()
    assert done.rc != 0
    said = done.messages()
    assert "gave no certificate" in said
    assert all(word in said for word in words), said
    assert door.get("/x").fingerprint == before
    assert sh("master1", "cat /etc/gpufleet-certificate/config.json") == timer  # it goes on as it was
    assert sh("master1", "systemctl is-active gpufleet-certificate.timer") == "active"
    assert list(metric(lab)) == ["selfsigned"]


def test_files_that_do_not_fit_are_refused_before_anything_changes(door, run, sh, provided, tmp_path):
    other = Authority(tmp_path / "other")
    before = door.get("/x").fingerprint
    done = run("--diff", **{**provided, "certificate_provided_key_file": str(other.key("ca"))}, tags="certificate")
    assert done.rc != 0
    assert "certificate_provided_key_file is not the key" in done.messages()
    assert "the old one stays" in done.messages()
    assert "PRIVATE KEY" not in done.stdout
    assert door.get("/x").fingerprint == before


# -- DNS, and accounts that are given out -------------------------------------------------------


def test_an_account_that_is_not_bound_is_refused_where_it_has_to_be(run, letsencrypt):
    done = run(**letsencrypt("pebble-eab"), tags="certificate")
    assert done.rc != 0
    assert "xternal" in done.messages()


def test_a_dns_challenge_and_an_account_by_external_binding(door, run, sh, letsencrypt, acme, as_it_was):
    """A name with a star can only be shown to be ours by DNS: by certbot's plugin, in a real DNS server."""
    (key_id, key), credentials = (
        next(iter(EAB.items())),
        [
            f"dns_rfc2136_server = {acme.outside}",
            "dns_rfc2136_name = certbot",
            f"dns_rfc2136_secret = {SECRET}",
            "dns_rfc2136_algorithm = HMAC-SHA512",
        ],
    )
    variables = letsencrypt(
        "pebble-eab",
        certificate_names=["*.lab.test"],
        certificate_acme_eab_key_id=key_id,
        certificate_acme_eab_hmac_key=key,
        certificate_acme_dns_plugin="rfc2136",
        certificate_acme_dns_credentials="\n".join(credentials) + "\n",
        certificate_acme_dns_propagation_seconds=1,
    )
    done = run("--diff", **variables, tags="certificate")
    assert done.rc == 0, done.messages()
    assert key not in done.stdout
    assert SECRET not in done.stdout
    assert "DNS:*.lab.test" in sh("master1", f"openssl s_client -connect {door.address}:443 </dev/null 2>/dev/null"
                                  " | openssl x509 -noout -ext subjectAltName")  # fmt: skip
    secret = sh("master1", "stat -c %a:%U /etc/gpufleet-certificate/dns.ini /etc/gpufleet-certificate/certbot.ini")
    assert secret.split() == ["600:root", "600:root"]
    # certbot waits for the zone's servers, and has its time beside that.
    assert sh("master1", "systemctl show -P TimeoutStartUSec gpufleet-certificate") == "5min 1s"


def test_what_was_renewed_while_nginx_was_down_is_served_when_it_is_up(door, sh):
    before = door.get("/x").fingerprint
    sh("master1", f"systemctl stop nginx && {RENEW} && systemctl start nginx")
    assert eventually(lambda: door.get("/x").fingerprint != before, 5)
