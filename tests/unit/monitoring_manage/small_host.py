"""A host with services that answer over HTTP, in this process; of systemd, there is a stand-in for systemctl."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gpufleet.monitoring_manage import cli
from gpufleet.monitoring_manage.installed import Places

# Prints what the file beside it says of each unit that is asked for, as systemd does for this zone and language.
SYSTEMCTL = """\
#!/bin/sh
[ "$TZ $LC_ALL" = "UTC C" ] || exit 1
for unit; do
    case $unit in
    *.service|*.timer) cat "$(dirname "$0")/$unit" 2>/dev/null || printf 'LoadState=not-found\\nActiveState=inactive\\n'
                       echo ;;
    esac
done
"""
RUNS = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "Result": "success",
    "UnitFileState": "enabled",
    "NRestarts": "0",
    "ActiveEnterTimestamp": "Fri 2100-01-01 00:00:00 UTC",  # after every file was written
}


class Web:
    """A server: path -> (status, content). None hangs, and a generator is sent piece by piece."""

    def __init__(self, pages):
        self.pages = pages
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                page = web.pages.get(self.path) or web.pages.get(urllib.parse.urlsplit(self.path).path, (404, ""))
                if page == "hangs":
                    time.sleep(30)
                    return
                status, content = page
                self.send_response(status)
                self.end_headers()
                for piece in [content] if isinstance(content, str) else content:
                    self.wfile.write(piece.encode())
                    self.wfile.flush()

            def log_message(self, *arguments):
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


def api(data):
    return 200, json.dumps({"status": "success", "data": data})


def target(job, instance, address, error=""):
    return {
        "discoveredLabels": {"__address__": address},
        "labels": {"job": job, "instance": instance},
        "scrapePool": job,
        "lastError": error,
        "health": "down" if error else "up",
        "scrapeInterval": "15s",
    }


def alert(name, severity, state="firing", summary="it is so", since="2026-11-24T12:00:00.5Z"):
    labels = {"alertname": name, "severity": severity}
    return {"labels": labels, "annotations": {"summary": summary}, "state": state, "activeAt": since}


def rule(name, *alerts, health="ok", error="", evaluated="2026-11-24T12:00:00.123456789Z"):
    kind = "alerting" if name[0].isupper() else "recording"
    told = {"name": name, "type": kind, "health": health, "lastError": error, "lastEvaluation": evaluated}
    return {**told, "alerts": list(alerts)}


def group(*rules, evaluated="2026-11-24T12:00:00.123456789Z", interval=15):
    return {"name": "ours", "interval": interval, "lastEvaluation": evaluated, "rules": list(rules)}


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Host:
    """A master of which all is well, until a test changes that."""

    def __init__(self, directory, web):
        self.root, self.config, self.runtime = directory / "opt", directory / "config.json", directory / "run"
        self.runtime.mkdir()
        self.units = directory / "bin"
        self.units.mkdir()
        (self.units / "systemctl").write_text(SYSTEMCTL)
        (self.units / "systemctl").chmod(0o755)
        self.targets = directory / "targets" / "node_exporter.json"
        self.targets.parent.mkdir()
        self.targets.write_text('[{"targets": ["10.0.0.1:9100"], "labels": {"instance": "gpu1"}}]')
        self.configuration = directory / "prometheus.yml"
        self.configuration.write_text("")
        self.pages = {
            "/-/ready": (200, "ready"),
            "/api/v1/targets": api({"activeTargets": [target("node_exporter", "gpu1", "10.0.0.1:9100")]}),
            "/api/v1/rules": api({"groups": [group(rule("Watchdog", alert("Watchdog", "info")), evaluated=now())]}),
            "/api/v1/status/flags": api({"storage.tsdb.path": str(directory)}),
            "/metrics": (
                200,
                "# HELP ...\nprometheus_config_last_reload_successful 1\n"
                f"prometheus_config_last_reload_success_timestamp_seconds {time.time() + 60}\n"
                "prometheus_tsdb_storage_blocks_bytes 1e6\nprometheus_tsdb_lowest_timestamp_seconds 1e9\n"
                "prometheus_tsdb_head_min_time_seconds 1.0001e9\nprometheus_tsdb_retention_limit_seconds 86400\n"
                'up{job="x"} 1\n',
            ),
        }
        self.answer("max by (job) (time() - timestamp(up))", [{"metric": {"job": "node_exporter"}, "value": [0, "3"]}])
        self.answer("max without (job) (gpufleet_certificate_not_after_timestamp_seconds)", [])
        self.prometheus = web(self.pages)
        self.install(
            "prometheus",
            "/-/ready",
            self.prometheus,
            version="3.5.3",
            files={str(self.configuration): "reload", str(self.targets): "none"},
        )
        self.grafana = web({"/api/health": (200, "{}")})
        self.install("grafana", "/api/health", self.grafana)

    def answer(self, expression, result):
        self.pages[f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}"] = api({"result": result})

    def install(self, name, path="/", server=None, version=None, files=None, health=None):
        directory = self.root / name
        directory.mkdir(parents=True)
        if version:
            (directory / "current").symlink_to(version)
        known = {"url": f"{server.url}{path}", "command": [], "timeout": 30} if server else health
        (directory / "manifest.json").write_text(json.dumps({"files": files or {}, "health": known}))
        self.unit(f"{name}.service")

    def unit(self, name, **changes):
        lines = [f"{key}={value}" for key, value in {**RUNS, **changes}.items()]
        (self.units / name).write_text("\n".join(lines) + "\n")

    def run(self, *words):
        return cli.main(words, Places(self.root, self.config, self.runtime))
