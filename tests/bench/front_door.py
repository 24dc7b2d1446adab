#!/usr/bin/env python3
"""Measure the front door on a real master: what nginx adds to an answer, and what is lost when it is reloaded.

Behind it is node_exporter's front page, which answers at once. Latency is measured on the master itself, by one client
over a connection that it keeps, and over new ones with a TLS handshake each. Lost requests are counted by clients on
this machine, while nginx is reloaded, and the certificate renewed, again and again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

from common import CHECKOUT, LAB, connection, lab, play, row, table

sys.path.insert(0, str(CHECKOUT / "molecule/lab"))
from gpufleet_lab.https import Client, Load, load

NAME = "door.lab.test"
BEHIND = "http://127.0.0.1:9100"
SERVICES = [{"name": "bench", "path": "/", "upstream": BEHIND, "auth": "own"}]
RENEW = "python3 -I /opt/gpufleet/gpufleet-certificate/current/certificate.pyz --renew 2>/dev/null"

# Runs on the master: medians in milliseconds.
LATENCY = """
import http.client, json, ssl, statistics, time
context = ssl._create_unverified_context()
def through(): return http.client.HTTPSConnection("127.0.0.1", context=context)
def past(): return http.client.HTTPConnection("127.0.0.1", 9100)
def ask(connection, headers):
    begun = time.perf_counter()
    connection.request("GET", "/", headers={"Host": "door.lab.test", **headers})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    return 1000 * (time.perf_counter() - begun)
def kept(open):
    connection = open()
    return statistics.median([ask(connection, {}) for _ in range(COUNT)])
def fresh(open):
    return statistics.median([ask(open(), {"Connection": "close"}) for _ in range(COUNT // 4)])
COUNT = 200
kept(past), kept(through)
COUNT = 4000
print(json.dumps([[kept(past), kept(through)], [fresh(past), fresh(through)]]))
"""


def ssh(command: str, stdin: str = "") -> str:
    """Run a command on the master."""
    words = [sys.executable, str(LAB), "ssh", "bench", "master1", command]
    return subprocess.run(words, check=True, input=stdin, stdout=subprocess.PIPE, text=True).stdout


def install(found: dict[str, t.Any]) -> None:
    """Bring node_exporter, nginx and a certificate to the master, by the playbook."""
    with tempfile.TemporaryDirectory() as temporary:
        variables = {**connection(found), "gpufleet_server_names": [NAME], "nginx_services": SERVICES}
        hosts = {"master1": {"ansible_host": found["hosts"]["master1"]["address"]}}
        inventory = Path(temporary) / "hosts.yml"
        inventory.write_text(json.dumps({"monitoring_master": {"hosts": hosts, "vars": variables}}))
        play(CHECKOUT / "playbooks/monitoring_master.yml", inventory, "--tags", "node_exporter,nginx,certificate")


def disturbed(client: Client, command: str, times: int, reuse: bool) -> Load:
    """Return what clients have seen while a command was run so many times."""
    with load(client, "/", reuse=reuse) as seen:
        time.sleep(1)
        ssh(f"for i in $(seq {times}); do {command}; sleep 0.5; done")
        time.sleep(1)
    return seen


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("times", type=int, nargs="?", default=20, help="reloads, and renewals")
    arguments = parser.parse_args()
    with lab(["master1:trixie"]) as found:
        install(found)
        table("connection", "without nginx, ms", "through nginx, ms", "added, ms")
        for name, (past, through) in zip(("kept", "new, with TLS"), json.loads(ssh("python3 -", LATENCY))):
            row(name, f"{past:.2f}", f"{through:.2f}", f"{through - past:.2f}")
        print()
        table("during", "connections", "requests", "asked again", "lost")
        client = Client(found["hosts"]["master1"]["address"], NAME)
        for name, command in (("reloads", "systemctl reload nginx"), ("renewals", RENEW)):
            for kind, reuse in (("new", False), ("kept", True)):
                seen = disturbed(client, command, arguments.times, reuse)
                row(f"{arguments.times} {name}", kind, f"{seen.answered:,}", seen.asked_again, len(seen.lost))


if __name__ == "__main__":
    main()
