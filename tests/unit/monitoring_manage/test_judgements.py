"""What is made of numbers: storage, certificates, times, and what systemd prints."""

from __future__ import annotations

import datetime
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from gpufleet.monitoring_manage import host as this_host
from gpufleet.monitoring_manage import installed, look, systemd, text
from gpufleet.monitoring_manage.ask import Unanswered, Unasked
from gpufleet.monitoring_manage.checks import certificates, services, storage
from gpufleet.monitoring_manage.installed import Places, Settings
from gpufleet.monitoring_manage.systemd import Unit

GIB, DAY = 1 << 30, 86400

# -- storage ------------------------------------------------------------------------------------


def stored(blocks=0.0, days=0.0, wal=0.0, keep_days=0.0, limit=0.0):
    return {
        "prometheus_tsdb_storage_blocks_bytes": blocks,
        "prometheus_tsdb_wal_storage_size_bytes": wal,
        "prometheus_tsdb_lowest_timestamp_seconds": 1e9,
        "prometheus_tsdb_head_min_time_seconds": 1e9 + days * DAY,
        "prometheus_tsdb_retention_limit_seconds": keep_days * DAY,
        "prometheus_tsdb_retention_limit_bytes": limit,
    }


@pytest.mark.parametrize(
    ("metrics", "free", "state"),
    [
        # 1 GiB a day for 30 days is 30 GiB.
        (stored(10 * GIB, 10, keep_days=30), 25 * GIB, "ok"),
        (stored(10 * GIB, 10, keep_days=30), 15 * GIB, "warning"),
        # The limit comes first, and fits.
        (stored(10 * GIB, 10, keep_days=30, limit=20 * GIB), 15 * GIB, "ok"),
        (stored(10 * GIB, 10, keep_days=30, limit=20 * GIB), 5 * GIB, "warning"),
        # How fast it grows is not known before the first block, so it may become as large as the limit.
        (stored(wal=GIB, keep_days=30, limit=20 * GIB), 30 * GIB, "ok"),
        (stored(wal=GIB, keep_days=30, limit=20 * GIB), 10 * GIB, "warning"),
        (stored(wal=GIB, keep_days=30), 30 * GIB, "unknown"),
        # It is about to be full, whatever is to be kept.
        (stored(GIB, 30, keep_days=30), GIB / 2, "failed"),
        ({}, 30 * GIB, "unknown"),
    ],
)
def test_what_is_to_be_kept_is_compared_with_what_there_is(metrics, free, state):
    assert storage.judge(metrics, free).state == state


def test_growth_is_that_of_the_blocks_over_the_time_that_they_hold():
    assert storage.growth_per_second(stored(20 * GIB, 10, wal=5 * GIB)) == pytest.approx(2 * GIB / DAY)
    # Before there is any sample, Prometheus says that the oldest is of the year 292,000,000.
    assert storage.growth_per_second({**stored(GIB), "prometheus_tsdb_lowest_timestamp_seconds": 9.2e15}) is None


def test_a_disk_that_will_be_full_says_when():
    check = storage.judge(stored(10 * GIB, 10, keep_days=30), 5 * GIB)
    assert "30 GiB are to be kept, and there is room for 15 GiB, full in 5 d" in check.detail


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 8:2 / /var rw,relatime shared:2 - ext4 /dev/sda2 rw
31 30 8:3 / /var/lib/private/prometheus\\040two rw - ext4 /dev/sda3 rw
32 22 8:4 / /va rw - ext4 /dev/sda4 rw
"""


@pytest.mark.parametrize(
    ("path", "point"),
    [
        ("/var/lib/private/prometheus", "/var"),
        ("/var/lib/private/prometheus two/wal", "/var/lib/private/prometheus two"),
        ("/var", "/var"),
        ("/opt", "/"),
    ],
)
def test_the_disk_of_a_directory_that_others_may_not_enter_is_found_by_its_mount(path, point):
    assert this_host.mount_point(path, MOUNTS) == point


# -- certificates -------------------------------------------------------------------------------


def made(ends, version=True):
    """A certificate that ends then, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 60)])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, datetime.datetime(2020, 1, 1), ends)
    certificate = builder.sign(key, hashes.SHA256())
    encoding = serialization.Encoding
    private = key.private_bytes(
        encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return certificate.public_bytes(encoding.DER), certificate.public_bytes(encoding.PEM) + private


@pytest.mark.parametrize("year", [2026, 2049, 2050, 2126])
def test_when_a_certificate_ends_is_read_from_it(year):
    ends = datetime.datetime(year, 2, 3, 4, 5, 6)
    certificate = made(ends)[0]
    assert certificates.not_after(certificate) == ends.replace(tzinfo=datetime.timezone.utc).timestamp()


@pytest.mark.parametrize("cut", [0, 1, 2, 50, 150])
def test_what_is_no_certificate_is_unknown(cut):
    certificate = made(datetime.datetime(2030, 1, 1))[0]
    assert certificates.judge_served("x:443", certificate[:cut], Settings(), 0).state == "unknown"


@pytest.mark.parametrize(("days", "state"), [(-1, "failed"), (2.9, "failed"), (13.9, "warning"), (14.1, "ok")])
def test_days_left_count_as_in_the_alerts(days, state):
    (check,) = certificates.judge_known(
        [{"metric": {"instance": "gpu1", "path": "/a"}, "value": [0, f"{1e9 + days * DAY}"]}], Settings(), 1e9
    )
    assert check.state == state
    assert ("ended 24 h ago" if days < 0 else "left") in check.detail


def test_days_are_those_of_the_alerts_also_where_no_role_says_them(tmp_path):
    path = Path(__file__).parents[3] / "roles/prometheus/defaults/main.yml"
    limits = yaml.safe_load(path.read_text())["prometheus_alert_thresholds"]
    places = Places(settings=tmp_path / "settings.json")
    names = ("certificate_warning_days", "certificate_critical_days")
    for said, days in ((None, [limits[name] for name in names]), ("7", [7, 7])):
        places.settings.write_text(json.dumps(dict.fromkeys(names, said)))
        found = installed.settings(places)
        assert [found.certificate_warning_days, found.certificate_critical_days] == days


def test_the_first_certificate_to_end_is_named_and_where_there_is_none_nothing_is_said():
    rows = [
        {"metric": {"instance": name, "path": "/a"}, "value": [0, f"{1e9 + days * DAY}"]}
        for name, days in (("gpu1", 80), ("gpu2", 5), ("gpu3", 90))
    ]
    (check,) = certificates.judge_known(rows, Settings(), 1e9)
    assert (check.state, check.detail) == ("warning", "3 known, the first (gpu2 /a) has 5 d left")
    assert certificates.judge_known([], Settings(), 1e9) == []


def test_what_a_port_serves_is_looked_at(tmp_path):
    pem = tmp_path / "server.pem"
    pem.write_bytes(made(datetime.datetime(2020, 3, 4))[1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        addresses = (f"127.0.0.1:{server.server_port}", "127.0.0.1:1")
        service = installed.Service("x", None)
        checks = look.at_everything([service], Settings(tls_addresses=addresses), 5)
        found = {check.name: check for check in checks if check.kind == "certificate"}
    finally:
        server.shutdown()
        server.server_close()
    assert (found[addresses[0]].state, found[addresses[0]].detail[:5]) == ("failed", "ended")
    assert (found[addresses[1]].state, found[addresses[1]].detail[-18:]) == ("failed", "Connection refused")


# -- systemd ------------------------------------------------------------------------------------

SHOWN = """\
Result=success
NRestarts=2
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
StateChangeTimestampMonotonic=50000000
ActiveEnterTimestampMonotonic=1000000
ActiveEnterTimestamp=Tue 2026-11-24 12:57:31 UTC
CanReload=yes
NeedDaemonReload=no

LoadState=not-found
ActiveState=inactive
SubState=dead
NRestarts=0
StateChangeTimestampMonotonic=51000000
ActiveEnterTimestampMonotonic=2000000
ActiveEnterTimestamp=
"""


def test_units_are_read_in_the_order_in_which_they_were_asked_for():
    first, second = systemd.parse(SHOWN, now=61.0)
    assert first == Unit(restarts=2, since=60, started=1795525051, can_reload=True)
    assert (second.load, second.started, second.runs, second.since) == ("not-found", None, False, 10)


@pytest.mark.parametrize(
    ("unit", "state"),
    [
        (Unit(since=1000), "ok"),
        (Unit(active="reloading"), "ok"),
        (Unit(restarts=3, since=1000), "ok"),
        (Unit(restarts=3, since=20), "warning"),
        (Unit(file="disabled"), "warning"),
        (Unit(active="inactive", sub="dead", file="disabled"), "ok"),
        (Unit(active="inactive", sub="dead"), "failed"),
        (Unit(active="failed", sub="failed", file="disabled"), "failed"),
        (Unit(active="activating", sub="start-pre"), "failed"),
        (Unit(load="masked", active="inactive"), "failed"),
        (Unit(load="not-found", active="inactive", file=""), "failed"),
        (Unanswered("systemd does not answer"), "unknown"),
    ],
)
def test_a_unit_is_judged_by_its_state(unit, state):
    assert services.of_unit(unit)[0] == state


def test_a_certificate_that_cannot_be_shown_leaves_the_health_unknown():
    assert services.of_health(Unasked("host.pem cannot be read"))[0] == "unknown"
    assert services.of_health(Unanswered("refused"))[0] == "failed"


def test_who_is_not_root_cannot_tell_a_failed_command_from_a_refused_one():
    assert services.of_health(services.Ended(1, "denied", privileged=False))[0] == "unknown"
    assert services.of_health(services.Ended(1, "denied", privileged=True))[0] == "failed"


# -- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "seconds"), [("15s", 15), ("1m30s", 90), ("500ms", 0.5), ("1h", 3600), ("2d", 172800)]
)
def test_durations_of_prometheus(words, seconds):
    assert text.seconds(words) == seconds


def test_times_of_go():
    assert text.moment("2026-11-24T13:04:05.016876105Z") == pytest.approx(1795525445.016876)
    assert text.moment("2026-11-24T14:04:05+01:00") == 1795525445
    assert text.moment("0001-01-01T00:00:00Z") is None
    with pytest.raises(ValueError, match="yesterday"):
        text.moment("yesterday")


@pytest.mark.parametrize(("number", "words"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (20 * GIB, "20 GiB")])
def test_sizes(number, words):
    assert text.size(number) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (119, "119 s"), (600, "10 min"), (7200, "2 h"), (3e5, "3 d")]
)
def test_spans(seconds, words):
    assert text.span(seconds) == words


# -- what is installed --------------------------------------------------------------------------


def test_a_first_installation_that_was_cut_is_seen(tmp_path):
    (tmp_path / "grafana").mkdir()
    (tmp_path / "grafana/journal.json").write_text("{}")
    (found,) = installed.services(Places(tmp_path))
    assert (found.name, found.unfinished, found.health) == ("grafana", True, None)


def test_a_manifest_may_say_more_than_this_program_knows_of_files_and_less_of_health(tmp_path):
    (tmp_path / "x").mkdir()
    manifest = {"files": {"/etc/x": "none"}, "health": None, "held": ["x"]}
    (tmp_path / "x/manifest.json").write_text(json.dumps(manifest))
    (found,) = installed.services(Places(tmp_path))
    assert (found.unit, found.problem, found.files) == ("x.service", "", {"/etc/x": "none"})
