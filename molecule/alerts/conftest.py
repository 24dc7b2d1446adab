"""The people of this scenario, what is done to its hosts, and how long it takes until somebody hears of it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

import pytest
from fleet import MASTERS, SECONDS, VARIABLES, WORKERS
from gpufleet_lab import machines
from gpufleet_lab.playbook import run_playbook
from gpufleet_lab.waiting import eventually

READ_MAILS = """
import email.policy, json, pathlib
for path in sorted(pathlib.Path("/var/inbox").iterdir()):
    mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    text = mail.get_body("plain").get_content()
    print(json.dumps({"time": float(path.name.partition("-")[0]), "subject": mail["Subject"], "text": text}))
"""
_figures: list[tuple[str, float, int, int]] = []


class Post:
    """Mails and calls that arrived, as dictionaries: time, subject and text; time, path and body."""

    def __init__(self, sh) -> None:
        self._sh = sh

    def mails(self, since: float, words: str = "") -> list[dict]:
        lines = self._sh("mail", f"python3 - <<'END'{READ_MAILS}END").splitlines()
        mails = map(json.loads, lines)
        return [mail for mail in mails if mail["time"] > since and words in mail["subject"] + mail["text"]]

    def calls(self, since: float, path: str = "/oncall", words: str = "") -> list[dict]:
        calls = map(json.loads, self._sh("mail", "cat /var/calls.jsonl").splitlines())
        return [call for call in calls if call["time"] > since and call["path"] == path and words in json.dumps(call)]


@dataclass
class Incident:
    """One thing that goes wrong, and all that is said from then on."""

    name: str
    post: Post
    begun: float = field(default_factory=time.time)

    def told(self, alert: str, host: str) -> list[dict]:
        """Wait until people were told of the alert by both ways; return the mails."""
        words = f"/{alert}.md"
        assert eventually(lambda: self.post.mails(self.begun, words), 60), self.everything()
        assert eventually(lambda: self.post.calls(self.begun, words=alert), 10), self.everything()
        mails = self.post.mails(self.begun, words)
        assert f"Host: {host}" in mails[0]["text"]
        seconds = mails[0]["time"] - self.begun
        _figures.append((self.name, seconds, len(self.post.mails(self.begun)), len(self.post.calls(self.begun))))
        return mails

    def over(self, alert: str) -> None:
        """Wait until people were told that it is over: that was the second message, and there was no other."""
        assert eventually(lambda: self._messages("[RESOLVED]"), 60), self.everything()
        assert self._messages() == 2, self.everything()
        (call,) = self.post.calls(self.begun, words='"status": "resolved"')
        assert {one["labels"]["alertname"] for one in call["body"]["alerts"]} == {alert}
        assert len(self.post.calls(self.begun)) == 2

    def _messages(self, words: str = "") -> int:
        return len(self.post.mails(self.begun, words))

    def everything(self) -> list[tuple[str, str]]:
        return [(f"{mail['time'] - self.begun:.0f}", mail["subject"]) for mail in self.post.mails(self.begun)]


@pytest.fixture
def post(sh):
    return Post(sh)


@pytest.fixture
def quiet(prometheus):
    """Wait until nothing fires but what always does."""

    def firing():
        return prometheus.query('ALERTS{alertname!="Watchdog"}')

    assert eventually(lambda: not firing(), 90), firing()
    time.sleep(2 * SECONDS)


@pytest.fixture
def incident(post, quiet):
    """Begin an incident, which the figures call by this name."""
    return lambda name: Incident(name, post)


def _calm(host):
    """Give a host its simulated GPUs, well and busy, and nothing about them moves."""
    machine = machines.MACHINES[host.spec.gpu]()
    with machine.together():
        for gpu in range(len(machine.gpus)):
            machine.heat(gpu, core=60, hotspot=70, memory=70)
            machine.set(gpu, "utilization.gpu", "50")
    machine.write(host.gpus)
    return machine


@pytest.fixture(scope="session", autouse=True)
def gpus(lab):
    """The simulated GPUs of a host, to be changed, and to be calmed again."""
    found = {name: _calm(lab.hosts[name]) for name in WORKERS}
    yield found
    for name in WORKERS:
        machines.MACHINES[lab.hosts[name].spec.gpu]().write(lab.hosts[name].gpus)


@pytest.fixture
def calm(lab, gpus):
    """Undo what was done to the GPUs of a host."""

    def undo(name: str) -> None:
        gpus[name] = _calm(lab.hosts[name])

    return undo


@pytest.fixture
def run(inventory):
    """Run the role alertmanager with other variables: run(alertmanager_receivers=[])."""

    def play(**variables):
        masters = {**VARIABLES, "monitoring_master": {**VARIABLES["monitoring_master"], **variables}}
        path = inventory(WORKERS, MASTERS, **masters)
        return run_playbook("monitoring_master", "--tags", "alertmanager", inventory=path)

    return play


def pytest_terminal_summary(terminalreporter):
    """Say the figures: times of rules are a sixtieth of those of a night, those of routes as in molecule.yml."""
    for name, seconds, mails, calls in _figures:
        terminalreporter.write_line(f"{name}: told after {seconds:.1f} s, by {mails} mail(s) and {calls} call(s)")
