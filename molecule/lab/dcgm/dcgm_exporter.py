"""Stand-in for NVIDIA's dcgm-exporter, for the lab: its flags, counters file, output and ways to fail."""

import argparse
import csv
import http.server
import json
import os
import signal
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, "/usr/lib/dcgm-stand-in")
from engine import VERSION, Connection, EngineError
from nvml_fields import Driver, known

# {"version": "4.8.4", "dcgm": "4.6.1", "hostname_label": "hostname", "starts": true}
RELEASE = json.loads(Path("/usr/lib/dcgm-stand-in/exporter.json").read_text())


def log(level, message):
    """Write a line as the real one does."""
    print(f'time={time.strftime("%FT%TZ", time.gmtime())} level={level} msg="{message}"', file=sys.stderr, flush=True)


def fatal(message):
    """End as the real one does."""
    log("ERROR", message)
    os._exit(1)


def counters(path):
    """Return rows of field, type and help."""
    fields = known(VERSION)
    found = []
    lines = [line for line in Path(path).read_text().splitlines() if line.strip() and not line.startswith("#")]
    for row in csv.reader(lines):
        words = [word.strip() for word in row]
        if len(words) != 3:
            fatal(f"malformed CSV record; err: failed to parse line (`{row}`), expected 3 fields")
        if words[0] not in fields:
            fatal(f"could not find DCGM field; field: {words[0]}")
        if words[1] not in ("gauge", "counter", "label", "histogram"):
            fatal(f"could not find Prometheus metric type: {words[1]}")
        found.append(words)
    return found


class Collector:
    """What was read last."""

    def __init__(self, rows, source, interval):
        self.page, self.healthy = "", False
        self._rows, self._source, self._interval = rows, source, interval

    def run(self):
        """Read for ever."""
        while True:
            try:
                self.page = render(self._rows, self._source())
            except EngineError as error:
                fatal(f"Failed to collect metrics: {error}")
            self.healthy = True
            time.sleep(self._interval)


def render(rows, entities):
    """Return the metrics as text."""
    fields = known(VERSION)
    lines = []
    labels_of_all = [(name, fields[name][0]) for name, kind, _ in rows if kind == "label"]
    for name, kind, text in rows:
        if kind == "label":
            continue
        samples = []
        for entity in entities:
            value = entity["values"].get(fields[name][0])
            if value is None:
                continue
            labels = {**entity["labels"], RELEASE["hostname_label"]: socket.gethostname()}
            for label, source in labels_of_all:
                labels[label] = entity["values"].get(source, "")
            text_of_labels = ",".join(f'{key}="{label}"' for key, label in labels.items())
            samples.append(f"{name}{{{text_of_labels}}} {value * fields[name][1]:.10g}")
        if samples:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *samples]
    return "\n".join(lines) + "\n"


class Handler(http.server.BaseHTTPRequestHandler):
    """The pages."""

    protocol_version = "HTTP/1.1"
    collector = None

    def do_GET(self):
        """Answer from what was read last."""
        if self.path == "/metrics":
            self._answer(200, self.collector.page)
        elif self.path == "/health":
            self._answer(*((200, "OK") if self.collector.healthy else (503, "KO")))
        else:
            self._answer(404, "")

    def _answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        """Nothing, as the real one."""


class Server(http.server.ThreadingHTTPServer):
    """The server; like the real one, it reads the files of TLS again for each connection."""

    web_config_file = ""

    def finish_request(self, request, client_address):
        """Shake hands, in the connection's own thread."""
        if not self.web_config_file:
            super().finish_request(request, client_address)
            return
        context, allowed = tls(self.web_config_file)
        with context.wrap_socket(request, server_side=True) as connection:
            names = {value for _, value in (connection.getpeercert() or {}).get("subjectAltName", ())}
            if not allowed or names & allowed:
                super().finish_request(connection, client_address)

    def handle_error(self, request, client_address):
        """Not a word, as the real one."""


def main():
    """Entry point."""
    version = f"stand-in for DCGM Exporter {RELEASE['version']} (DCGM {RELEASE['dcgm']})"
    parser = argparse.ArgumentParser(prog="dcgm-exporter", description="STAND-IN for NVIDIA's dcgm-exporter")
    parser.add_argument("-f", "--collectors", default="/etc/dcgm-exporter/default-counters.csv")
    parser.add_argument("-a", "--address", default=":9400")
    parser.add_argument("-c", "--collect-interval", type=int, default=30000)
    parser.add_argument("-r", "--remote-hostengine-info", default="")
    parser.add_argument("--web-config-file", default="")
    parser.add_argument("-v", "--version", action="version", version=version)
    arguments = parser.parse_args()
    log("INFO", f"Starting {version}")
    if not RELEASE["starts"]:
        fatal("this release is a stand-in for one that does not start")
    rows = counters(arguments.collectors)
    if arguments.remote_hostengine_info:
        log("INFO", f"Attempting to connect to remote hostengine at {arguments.remote_hostengine_info}")
        try:
            connection = Connection(arguments.remote_hostengine_info)
        except EngineError as error:
            fatal(f"Error connecting to nv-hostengine: {error}")
        source = lambda: connection.ask()["gpus"]  # noqa: E731
    else:
        log("INFO", "Initializing embedded DCGM host engine")
        source = Driver().gpus
    Handler.collector = Collector(rows, source, arguments.collect_interval / 1000)
    threading.Thread(target=Handler.collector.run, daemon=True).start()
    serve(arguments)


def serve(arguments):
    """Listen until SIGTERM."""
    host, _, port = arguments.address.rpartition(":")
    try:
        server = Server((host.strip("[]"), int(port)), Handler)
    except OSError as error:
        fatal(f"listen tcp {arguments.address}: bind: {error.strerror.lower()}")
    if arguments.web_config_file:
        tls(arguments.web_config_file)  # ends here where it cannot be read
        server.web_config_file = arguments.web_config_file
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    log("INFO", f"Listening on {arguments.address}")
    server.serve_forever(0.1)
    log("INFO", "Received signal terminated, shutting down")


def tls(path):
    """Return context and names of an exporter-toolkit's file, of YAML's plain lines or JSON; paths are from there."""
    text = Path(path).read_text()
    pairs = dict(line.strip().split(": ", 1) for line in text.splitlines() if ": " in line)
    if text.startswith("{"):
        pairs = json.loads(text)["tls_server_config"]
    place = Path(path).parent
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / pairs["cert_file"], place / pairs["key_file"])
    if pairs.get("client_auth_type") == "RequireAndVerifyClientCert":
        context.load_verify_locations(place / pairs["client_ca_file"])
        context.verify_mode = ssl.CERT_REQUIRED
    return context, set(pairs.get("client_allowed_sans", ()))


main()
