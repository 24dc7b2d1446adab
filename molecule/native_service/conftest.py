"""A service on a host, described step by step."""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from gpufleet_lab.playbook import run_playbook
from gpufleet_lab.waiting import eventually
from releases import Releases

CONFIGURATION = "/etc/demo/demo.conf"
PORT = 8000
# Who holds the lock of the service is the module at work.
KILL_MODULE = """
for process in /proc/[0-9]*; do
  ls -l $process/fd 2>/dev/null | grep -q /run/gpufleet-demo.lock && kill -KILL ${process#/proc/} && echo killed
done"""
# What is there of the service, in whatever state, goes.
TRACES = "/opt/gpufleet /etc/demo /etc/systemd/system/{,*.wants/}demo.* /var/lib/{,private/}demo /run/gpufleet-demo.*"
SWEEP = f"""
[ -n "$(ls -d {TRACES} 2>/dev/null)" ] || exit 0
systemctl stop demo.timer demo.service 2>/dev/null
rm -rf {TRACES}
systemctl daemon-reload
systemctl reset-failed"""


def configuration(colour: str) -> dict:
    return {
        "path": CONFIGURATION,
        "content": f"colour: {colour}\n",
        "on_change": "reload",
        "validate": "{release}/demo --check {file}",
    }


@pytest.fixture(scope="session")
def releases(lab):
    return Releases(lab)


@pytest.fixture(scope="session")
def v1(releases):
    return releases.publish("1.0.0")


@pytest.fixture(scope="session")
def v2(releases):
    return releases.publish("2.0.0")


@pytest.fixture
def service(v1):
    """The module's arguments for the service as most tests know it."""
    return {
        "name": "demo",
        "release": v1,
        "command": ["{release}/demo", f"--port={PORT}", f"--config={CONFIGURATION}"],
        "directories": ["/etc/demo"],
        "files": [configuration("blue")],
        "unit": {"Service": {"ExecReload": "/bin/kill -HUP $MAINPID"}},
        "health": {"url": f"http://127.0.0.1:{PORT}/", "timeout": 4},
    }


@pytest.fixture
def bring(service):
    """Run the play: the service, with other arguments where they are given, on host1 or other hosts."""

    def run(*arguments, hosts="host1", **changes):
        wanted = {"service": {**service, **changes}}
        return run_playbook("converge.yml", "--limit", hosts, *arguments, extra_vars=wanted)

    return run


@pytest.fixture
def brought(bring, service, untouched, left):
    """As bring, and it has to succeed. Returns the module's result on the host."""

    def run(*arguments, hosts="host1", **changes):
        done = bring(*arguments, hosts=hosts, **changes)
        assert done.rc == 0, done.messages()
        if hosts == "host1" and not arguments and not changes:
            left["host1"] = (service, untouched())
        return done.tasks[-1].result

    return run


@pytest.fixture
def refused(bring):
    """As bring, and it has to fail on host1. Returns the module's result there."""

    def run(*arguments, **changes):
        done = bring(*arguments, **changes)
        assert done.stats["host1"]["failures"] == 1, done.stdout
        return done.of("host1")[-1]

    return run


@pytest.fixture
def ask(lab):
    """What the service says of itself."""

    def get(host="host1") -> dict:
        with urllib.request.urlopen(f"http://{lab.hosts[host].address}:{PORT}/", timeout=5) as answer:
            return json.load(answer)

    return get


@pytest.fixture
def demo(brought, service, untouched, ask, left):
    """The service runs on host1 in its version 1, whatever the test before left there."""
    if left.get("host1") != (service, untouched()):
        brought()
    assert ask()["version"] == "1.0.0"


@pytest.fixture(scope="session")
def left():
    """What was brought to a host last, as it is described, and how: while that is so, `demo` has nothing to do."""
    return {}


@pytest.fixture
def bare(lab, sh):
    """Nothing of the service is on any host. By hand: whether the module can do so is what tests are about."""
    for host in lab.hosts:
        sh(host, SWEEP)


@pytest.fixture
def untouched(sh):
    """A command's worth of evidence that nothing happened to the service: files, releases, and the process."""

    def evidence(host="host1") -> str:
        return sh(
            host,
            "systemctl show -P InvocationID -P ActiveState -P UnitFileState demo; "
            "find /opt/gpufleet /etc/demo /etc/systemd/system -not -type d -printf '%p %l %s %m %T@\\n' | sort",
        )

    return evidence


@pytest.fixture
def background():
    """Call something in the background."""
    with ThreadPoolExecutor() as pool:
        yield pool.submit


@pytest.fixture
def cut(bring, background, sh, releases, service):
    """Bring a release that keeps silent, and kill the module while it waits for an answer."""

    def run(**changes):
        silent = releases.publish("3.0.0", behaviour="keeps silent")
        patient = {**service["health"], "timeout": 60}
        run = background(bring, release=silent, health=patient, **changes)
        running = "systemctl is-active demo && readlink /opt/gpufleet/demo/current"
        assert eventually(lambda: sh("host1", running, check=False) == "active\n3.0.0")
        assert sh("host1", KILL_MODULE, check=False) == "killed"
        assert run.result().rc != 0
        return silent

    return run
