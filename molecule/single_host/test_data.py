"""What people and time have put into the services is there after an upgrade, and after the way back."""

from __future__ import annotations

import json
import shutil

import pytest
from gpufleet_lab import grafana, mirror
from gpufleet_lab.playbook import run_playbook
from gpufleet_lab.waiting import eventually

HOST = "gpu-server"
PROJECTS = ("prometheus", "alertmanager")
NEWER = {"prometheus": "3.99.0", "alertmanager": "0.99.0", "grafana": f"13.9.8{grafana.SUFFIX}"}

AMTOOL = "/opt/gpufleet/alertmanager/current/amtool --alertmanager.url=http://127.0.0.1:9093 silence"
# Asks one of the services on the host itself: URL, and a JSON body as Grafana's admin.
ASK = """python3 - "$@" <<'END'
import base64, json, sys, urllib.request as u
url, *body = sys.argv[1:]
request = u.Request(url, body[0].encode() if body else None, {"Content-Type": "application/json"})
if ":3000" in url:
    password = open("/etc/grafana/secrets/admin_password").read()
    request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
print(u.urlopen(request, timeout=5).read().decode())
END
"""


@pytest.fixture
def ask(sh):
    def run(url, *body):
        words = " ".join(f"'{word}'" for word in (url, *body))
        return json.loads(sh(HOST, f"set -- {words}\n{ASK}"))

    return run


@pytest.fixture
def newer(lab):
    """Newer releases of all that has data. Those of Prometheus' projects are the same programs under another number:
    what is tried is whether the data stay, not what a program makes of them. Grafana's stand-in migrates its database.
    """
    for name in PROJECTS:
        now = lab.versions[name]["current"]
        directory = f"github.com/prometheus/{name}/releases/download"
        source = mirror.path() / directory / f"v{now}/{name}-{now}.linux-amd64.tar.gz"
        target = lab.faults.extra / directory / f"v{NEWER[name]}/{name}-{NEWER[name]}.linux-amd64.tar.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        sums = source.with_name("sha256sums.txt").read_text()
        target.with_name("sha256sums.txt").write_text(sums.replace(source.name, target.name))
    grafana.release_stand_in(lab.faults.extra, NEWER["grafana"], migrations=5)
    return {f"{name}_version": version for name, version in NEWER.items()}


def test_series_silences_and_dashboards_are_there_after_an_upgrade_and_after_the_way_back(
    ask, lab, newer, sh, tmp_path
):
    now = {name: lab.versions[name]["current"] for name in NEWER}
    report = tmp_path / "report.json"
    prometheus, dashboards = "http://127.0.0.1:9090/api/v1/query?query=", "http://127.0.0.1:3000/api/dashboards"
    sh(HOST, f"{AMTOOL} add --author me --comment kept --duration 1h alertname=Kept")
    ask(f"{dashboards}/db", json.dumps({"dashboard": {"uid": "kept", "title": "Kept"}}))
    _, oldest = eventually(lambda: ask(f"{prometheus}min(timestamp(up))")["data"]["result"])[0]["value"]

    def changed(playbook, *arguments, **variables):
        done = run_playbook(playbook, *arguments, extra_vars={**variables, "fleet_report_file": str(report)})
        assert done.rc == 0, done.messages()
        services = json.loads(report.read_text())["services"]
        return {row["service"]: (row["from"], row["to"]) for row in services if row["outcome"] != "unchanged"}

    def all_is_there():
        assert "Kept" in sh(HOST, f"{AMTOOL} query")
        assert ask(f"{prometheus}count(up@{oldest})")["data"]["result"], "the samples from before are gone"
        assert ask(f"{dashboards}/uid/kept")["dashboard"]["title"] == "Kept"

    upgraded = changed("upgrade", "--tags", ",".join(NEWER), **newer)
    assert upgraded == {name: (now[name], NEWER[name]) for name in NEWER}
    all_is_there()

    with lab.faults.injected("*", status=503):
        # Grafana's older release does not read its database any more, but a copy of that is there.
        back = changed("rollback", rollback_from=NEWER, rollback_data=True)
    assert back == {name: (NEWER[name], now[name]) for name in NEWER}
    all_is_there()
