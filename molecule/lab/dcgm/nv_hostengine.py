"""Stand-in for NVIDIA's nv-hostengine, for the lab: GPUs come from the simulated NVML."""

import argparse
import json
import socketserver
import sys
import threading

sys.path.insert(0, "/usr/lib/dcgm-stand-in")
from engine import VERSION
from nvml_fields import Driver

LOCK = threading.Lock()
DRIVER = Driver()


class Handler(socketserver.StreamRequestHandler):
    """One client."""

    def handle(self):
        """Answer until the client goes."""
        for line in self.rfile:
            client = json.loads(line)["version"]
            # Release notes of dcgm-exporter 4.9.0: with 4.7.1 on one side, the other has to have it, too.
            if client != VERSION and "4.7.1" in (client, VERSION):
                answer = {"error": f"API version mismatch: host engine {VERSION}, library {client}"}
            else:
                with LOCK:
                    answer = {"version": VERSION, "gpus": DRIVER.gpus()}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    """Every client has a thread."""

    allow_reuse_address = True
    daemon_threads = True


parser = argparse.ArgumentParser(description="STAND-IN for NVIDIA's nv-hostengine")
parser.add_argument("-n", action="store_true", help="do not become a daemon")
parser.add_argument("-b", "--bind-interface", default="127.0.0.1")
parser.add_argument("-p", "--port", type=int, default=5555)
parser.add_argument("--service-account")
parser.add_argument("--version", action="version", version=f"stand-in for nv-hostengine {VERSION}")
arguments = parser.parse_args()
print(f"STAND-IN for nv-hostengine {VERSION}: listening on {arguments.bind_interface}:{arguments.port}", flush=True)
Server((arguments.bind_interface, arguments.port), Handler).serve_forever()
