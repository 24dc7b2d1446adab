"""DCGM comes, is upgraded, breaks and goes; the metrics of the GPUs stay."""

from __future__ import annotations

import itertools
import re
import ssl
import time
import urllib.request

import pytest
from gpufleet_lab.playbook import run_playbook
from gpufleet_lab.waiting import eventually

EXPORTER = "nvidia-dcgm-exporter"
PACKAGES = (
    "dpkg-query --show --showformat '${Package} ${Version} ${db:Status-Want}\\n' 'datacenter-gpu-manager*' 2>/dev/null"
)


def packages(sh, host="gpu1"):
    """Return name -> (version, what dpkg shall do with it)."""
    lines = [line.split(" ") for line in sh(host, PACKAGES, check=False).splitlines()]
    return {name: (version, want) for name, version, want in lines if version}


def pid(sh, unit):
    return sh("gpu1", f"systemctl show -P MainPID {unit}")


# -- as it is after a first run -----------------------------------------------------------------


def test_the_old_dcgm_made_way_and_the_versions_are_held(sh):
    found = packages(sh)
    assert found == {
        "datacenter-gpu-manager-4-core": ("1:4.6.1-1", "hold"),
        "datacenter-gpu-manager-4-cuda13": ("1:4.6.1-1", "hold"),
        "datacenter-gpu-manager-exporter": ("4.8.4-1", "hold"),
    }


def test_both_run_and_the_exporter_is_attached_to_the_host_engine(sh, port):
    for unit in ("nvidia-dcgm", EXPORTER):
        assert sh("gpu1", f"systemctl is-active {unit} && systemctl is-enabled {unit}") == "active\nenabled"
    assert "-r localhost:5555" in sh("gpu1", f"tr '\\0' ' ' < /proc/{pid(sh, EXPORTER)}/cmdline")
    assert {"DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FAN_SPEED", "DCGM_FI_DEV_FB_TOTAL"} - port("gpu1").names() <= {
        "DCGM_FI_DEV_FAN_SPEED"  # an H100 has no fan
    }
    assert not any(name.startswith("DCGM_FI_PROF_") for name in port("gpu1").names())  # which nobody asked for
    assert "Listening on" in sh("gpu1", f"journalctl -u {EXPORTER} --no-pager")


def test_the_hosts_own_sources_are_not_touched(sh):
    """A GPU driver must not come with somebody's next upgrade, and two keys for one repository break apt altogether."""
    assert sh("gpu1", "grep -rl developer.download /etc/apt") == "/etc/apt/sources.list.d/cuda.list"  # its owner's
    sh("gpu1", "apt-get check --quiet")
    assert sh("gpu1", "ls -d /opt/gpufleet/nvidia-dcgm/.packages", check=False) == ""


def test_a_gpu_is_reported_once_and_by_dcgm(prometheus):
    assert eventually(
        lambda: prometheus.query('count by (UUID) ({__name__=~"DCGM_FI_DEV_GPU_TEMP.*",instance="gpu1"})')
    )
    counts = prometheus.query('count by (UUID) ({__name__=~"DCGM_FI_DEV_GPU_TEMP.*",instance="gpu1"})')
    assert [result["value"][1] for result in counts] == ["1", "1"]
    (served,) = prometheus.query('gpu_exporter_dcgm_served{instance="gpu1"}')
    assert served["value"][1] == "0"


def test_names_of_the_first_exporter_are_there_on_request(prometheus):
    same = 'ds01_gpu_temperature_celsius{instance="gpu1"} == on (instance, UUID) gpu:core_temperature:celsius'
    assert eventually(lambda: prometheus.query(same))


def test_a_host_without_driver_gets_no_dcgm_and_its_port_answers(sh, prometheus):
    assert packages(sh, "gpu2") == {}
    assert sh("gpu2", "ls /opt/gpufleet") == "gpu_exporter\nnode_exporter"
    assert prometheus.targets()["dcgm_exporter", "gpu2"]["health"] == "up"


# -- what goes wrong ----------------------------------------------------------------------------


def test_a_host_engine_that_is_killed_comes_back_and_the_exporter_with_it(sh, port):
    sh("gpu1", "systemctl kill -s KILL nvidia-dcgm")
    assert eventually(lambda: not port("gpu1").names())
    assert eventually(lambda: "DCGM_FI_DEV_GPU_UTIL" in port("gpu1").names(), seconds=30)


def test_an_exporter_that_hangs_is_seen_and_restarted(sh, port, prometheus):
    before = pid(sh, EXPORTER)
    sh("gpu1", f"kill -STOP {before}")
    assert eventually(lambda: prometheus.query('up{job="dcgm_exporter", instance="gpu1"} == 0'), seconds=10)
    assert eventually(lambda: pid(sh, EXPORTER) not in (before, "0") and port("gpu1").names(), seconds=60)
    assert "Watchdog timeout" in sh("gpu1", f"journalctl -u {EXPORTER} --no-pager -n 50")
    assert "KILL" not in sh("gpu1", f"journalctl -u {EXPORTER} --no-pager -n 50")
    assert eventually(lambda: prometheus.query('up{job="dcgm_exporter", instance="gpu1"} == 1'))


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"dcgm_repository_url": "{mirror}/no", "dcgm_repository_key_url": "{mirror}/wrong.pub"},
            ["/no/", "does not have a Release file"],
        ),
        ({"dcgm_repository_url": "http://127.0.0.1:9/"}, ["the key", "127.0.0.1:9", "Connection refused"]),
        ({"dcgm_repository_key_url": "{mirror}/wrong.pub"}, ["cannot be used", "wrong.pub", "signature"]),
        ({"dcgm_repository_key_sha256": "0" * 64}, ["not the expected key", "0" * 64]),
        ({"dcgm_version": "4.99.0"}, ["4.99.0", "4.7.1", "4.6.1"]),
    ],
)
def test_packages_that_cannot_be_had_change_nothing(lab, run, sh, port, variables, words):
    # The repository that its owner has a source for, with the right key.
    (repository,) = re.findall(r"(http\S+)/ /", sh("gpu1", "cat /etc/apt/sources.list.d/cuda.list"))
    variables = {name: value.replace("{mirror}", repository) for name, value in variables.items()}
    before = packages(sh), pid(sh, EXPORTER), pid(sh, "nvidia-dcgm")
    done = run(**{"dcgm_version": "4.7.1", **variables})
    assert done.rc != 0
    assert all(word in done.messages() for word in words), done.messages()
    assert (packages(sh), pid(sh, EXPORTER), pid(sh, "nvidia-dcgm")) == before
    assert port("gpu1").names()


def test_a_release_that_does_not_start_is_taken_back(run, sh, port):
    done = run(dcgm_exporter_version="4.8.9")
    assert done.rc != 0
    assert "the previous state is back and runs" in done.messages()
    assert packages(sh)["datacenter-gpu-manager-exporter"] == ("4.8.4-1", "hold")
    assert eventually(lambda: "DCGM_FI_DEV_GPU_UTIL" in port("gpu1").names())


def test_a_field_that_dcgm_does_not_know_is_refused(run, sh, port):
    before = pid(sh, EXPORTER)
    row = {"field": "DCGM_FI_DEV_NONSENSE", "type": "gauge", "help": "nothing"}
    done = run(dcgm_exporter_fields=[row])
    assert done.rc != 0
    assert "DCGM_FI_DEV_NONSENSE" in done.messages()
    assert "the old one stays" in done.messages()
    assert pid(sh, EXPORTER) == before


def test_a_host_that_cannot_have_the_packages_is_watched_in_dcgms_place(run, sh, port):
    done = run(gpufleet_exporters=[])
    assert done.rc == 0, done.messages()
    assert (packages(sh), port("gpu1").names()) == ({}, set())
    done = run(dcgm_repository_url="http://127.0.0.1:9/")
    assert done.rc != 0
    assert "Connection refused" in done.messages()
    assert sh("gpu1", "ls /opt/gpufleet") == "gpu_exporter\nnode_exporter"
    assert eventually(lambda: "DCGM_FI_DEV_GPU_UTIL" in port("gpu1").names())


def test_dcgm_that_cannot_run_is_said_where_it_is_demanded(run):
    done = run(limit="gpu2", dcgm_enabled=True)
    assert done.rc != 0
    assert "no NVIDIA GPU" in done.messages()
    assert "dcgm_enabled" in done.messages()


def test_a_driver_that_is_gone_for_a_while_does_not_take_dcgm_with_it(run, sh):
    before = packages(sh)
    done = run(dcgm_sysfs="/nowhere")
    assert done.rc == 0, done.messages()
    assert packages(sh) == before
    assert sh("gpu1", f"systemctl is-active nvidia-dcgm {EXPORTER}") == "active\nactive"


# -- changes ------------------------------------------------------------------------------------


CERTIFICATE = """\
mkdir -p /etc/web && cd /etc/web
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=gpu1 -keyout key.pem -out cert.pem 2>/dev/null
printf 'tls_server_config:\n  cert_file: /etc/web/cert.pem\n  key_file: /etc/web/key.pem\n' >web.yml
"""


def test_it_listens_where_it_shall_and_with_a_certificate_if_it_has_one(lab, run, sh):
    sh("gpu1", CERTIFICATE)
    address = lab.hosts["gpu1"].address
    try:
        done = run(dcgm_exporter_bind_address=address, dcgm_exporter_web_config_file="/etc/web/web.yml")
        assert done.rc == 0, done.messages()
        listening = sh("gpu1", "ss --tcp --listening --numeric --no-header 'sport = 9400'")
        assert listening.split()[3] == f"{address}:9400"
        trusted = ssl._create_unverified_context()
        with urllib.request.urlopen(f"https://{address}:9400/metrics", context=trusted, timeout=5) as answer:
            assert b"DCGM_FI_DEV_GPU_UTIL" in answer.read()
        restarts = sh("gpu1", f"systemctl show -P NRestarts {EXPORTER}")
        time.sleep(10)  # longer than the watchdog's patience: it asks by https, too
        assert sh("gpu1", f"systemctl show -P NRestarts {EXPORTER}") == restarts
    finally:
        sh("gpu1", "rm -r /etc/web")


SCHEMA = '{__name__=~"gpu:(utilization:ratio|memory_.*|core_temperature.*|power:.*|sm_clock.*|ecc.*)",instance="gpu1"}'


def series(prometheus):
    """The series of the schema, as sets of labels."""
    return {tuple(sorted(result["metric"].items())) for result in prometheus.query(SCHEMA)}


def steady(prometheus):
    """Return the schema's series once DCGM's are among them and none has come or gone for a while."""

    def still():
        first = series(prometheus)
        time.sleep(3)
        whole = any(dict(labels)["__name__"] == "gpu:utilization:ratio" for labels in first)
        return first if whole and first == series(prometheus) else None

    found = eventually(still, 60)
    assert found, series(prometheus)
    return found


def same_series(prometheus, before):
    """Wait until the schema has these series again, and return what is missing and what is new."""
    eventually(lambda: series(prometheus) == before, 60)
    now = series(prometheus)
    return before - now, now - before


def longest_gap(prometheus, expression, begun):
    """Seconds for which an expression had no value since then."""
    query = {"query": expression, "start": str(begun), "end": str(time.time()), "step": "1"}
    (result,) = prometheus.get("query_range", **query)["result"]
    moments = [moment for moment, _ in result["values"]]
    return max(after - before for before, after in itertools.pairwise(moments))


def test_an_upgrade_over_the_renaming_keeps_the_series(run, sh, port, prometheus):
    before, begun = steady(prometheus), time.time()
    done = run(dcgm_version="4.7.1", dcgm_exporter_version="4.9.0")
    assert done.rc == 0, done.messages()
    assert same_series(prometheus, before) == (set(), set())
    # Both services start anew, one after the other. What gpu_exporter reads as well goes on meanwhile.
    assert longest_gap(prometheus, 'gpu:utilization:ratio{instance="gpu1",gpu="0"}', begun) < 15
    assert longest_gap(prometheus, 'gpu:power:watts{instance="gpu1",gpu="0"}', begun) <= 2
    assert packages(sh)["datacenter-gpu-manager-4-core"] == ("1:4.7.1-1", "hold")
    assert eventually(lambda: "DCGM_FI_DEV_GPU_UTIL_RATIO" in port("gpu1").names())
    assert "DCGM_FI_DEV_GPU_UTIL" not in port("gpu1").names()


def test_where_dcgm_goes_gpu_exporter_takes_its_port(run, sh, port, prometheus):
    before, begun = steady(prometheus), time.time()
    done = run(dcgm_enabled=False)
    assert done.rc == 0, done.messages()
    assert same_series(prometheus, before) == (set(), set())
    assert longest_gap(prometheus, 'gpu:utilization:ratio{instance="gpu1",gpu="0"}', begun) < 15
    assert packages(sh) == {}
    assert sh("gpu1", "ls -d /etc/nvidia-dcgm-exporter /opt/gpufleet/nvidia*", check=False) == ""
    assert eventually(lambda: "DCGM_FI_DEV_GPU_UTIL" in port("gpu1").names())
    assert "driver_version=" in port("gpu1").text()
    assert eventually(lambda: prometheus.query('gpu_exporter_dcgm_served{instance="gpu1"}')[0]["value"][1] == "1")
    assert prometheus.targets()["dcgm_exporter", "gpu1"]["health"] == "up"


def test_a_worker_that_is_removed_has_nothing_of_it_left(sh):
    """The last test that gpu1 is in: it is not brought back."""
    done = run_playbook("remove", "--limit", "gpu1")
    assert done.rc == 0, done.messages()
    assert packages(sh) == {}
    left = "apt-mark showhold; ls -d /opt/gpufleet /etc/nvidia-dcgm* /etc/systemd/system/nvidia-* /etc/*_exporter"
    assert sh("gpu1", f"{left}; systemctl list-unit-files --no-legend 'nvidia-*' '*_exporter*'", check=False) == ""
