"""The front door that this scenario's tests open, change, and find again as it was."""

from __future__ import annotations

import base64

import pytest
from fleet import NAME, PASSWORDS, VARIABLES, master_with
from gpufleet_lab.https import Client
from gpufleet_lab.playbook import run_playbook

CA = "/var/lib/gpufleet-certificate/ca/ca.pem"


@pytest.fixture
def door(lab):
    """A client of the front door that trusts everybody."""
    return Client(lab.hosts["master1"].address, NAME)


@pytest.fixture
def trusting(lab, sh, tmp_path):
    """A client that trusts our own CA alone, by whichever name: trusting("10.0.0.1")."""
    (tmp_path / "ca.pem").write_text(sh("master1", f"cat {CA}") + "\n")
    return lambda name=NAME: Client(lab.hosts["master1"].address, name, ca=tmp_path / "ca.pem")


@pytest.fixture
def run(inventory):
    """Run the two roles with other variables of the master: run(certificate_mode="provided", ...)."""

    def play(*arguments, tags="nginx,certificate", **variables):
        path = inventory({}, **master_with(**variables))
        return run_playbook("monitoring_master", "--tags", tags, *arguments, inventory=path)

    return play


@pytest.fixture
def as_it_was(inventory):
    """Whatever a test does to the master is undone after it."""
    yield
    done = run_playbook("monitoring_master", "--tags", "nginx,certificate", inventory=inventory({}, **VARIABLES))
    assert done.rc == 0, done.messages()


@pytest.fixture
def basic():
    """The header with a user's password, or another one: basic("ali"), basic("ali", "wrong")."""

    def header(user, password=None):
        words = f"{user}:{PASSWORDS[user] if password is None else password}"
        return f"Basic {base64.b64encode(words.encode()).decode()}"

    return header
