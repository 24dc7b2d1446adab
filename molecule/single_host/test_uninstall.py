"""After playbooks/remove.yml, the host is as it was before this collection came; prepare.yml looked at it then.

The last tests of this scenario: what they remove does not come back.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from gpufleet_lab.playbook import run_playbook

HOST = "gpu-server"
SNAPSHOT = Path(__file__).with_name("snapshot.sh").read_text()
BEFORE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "before.txt")

# What stays, as docs/upgrades.md says.
STAYS = (
    # Whoever waits for one holds it; gone with the next boot. So are ufw's, and its chains, which are empty.
    r"path f 644 root:root /run/(gpufleet-\w+|ufw)\.lock",
    r"rule -[NA] .*\bufw-[a-z-]+",
    # In ufw's own words, once it has been on; there are no rules in them.
    r"content \w+  /etc/ufw/user6?\.rules",
    # Of the tools that add and remove users: the files as they were before the last change.
    r"(content \w+ |path . \d+ root:\w+) */etc/(passwd|group|shadow|gshadow)-",
)
DATA = (
    r"path .* /var/lib/(private/)?(prometheus|grafana|alertmanager)(/.*)?",
    r"(path .*|content .*) /etc/grafana(/secrets(/(admin_password|secret_key))?)?",
)
# What the host does by itself meanwhile.
OWN_LIFE = (
    r"unit systemd-networkd-wait-online.service \w+",
    r"unit ufw.service inactive",  # systemd knows of it once somebody has asked
)


def left(sh, *patterns: str) -> str:
    """What is not as it was before, but for what matches the patterns."""
    before = set(BEFORE.read_text().splitlines())
    after = set(sh(HOST, f"sh -s <<'END'\n{SNAPSHOT}\nEND").splitlines())
    lines = [f"+ {line}" for line in after - before] + [f"- {line}" for line in before - after]
    known = re.compile("|".join([*STAYS, *OWN_LIFE, *patterns]))
    return "\n".join(sorted(line for line in lines if not known.fullmatch(line[2:])))


@pytest.fixture(scope="module", autouse=True)
def firewall():
    """All that the collection has, and more than this inventory says."""
    done = run_playbook("site", "--tags", "firewall", extra_vars={"firewall_enabled": True})
    assert done.rc == 0, done.messages()


def test_without_hosts_named_nothing_is_removed(sh):
    done = run_playbook("remove")
    assert done.rc != 0
    assert "--limit" in done.messages()
    assert run_playbook("remove", "--check", "--limit", HOST).changed > 0
    state = sh(HOST, "systemctl is-active prometheus node_exporter; ufw status")
    assert state.startswith("active\nactive\nStatus: active")


def test_all_goes_but_the_data(sh):
    done = run_playbook("remove", "--limit", HOST)
    assert done.rc == 0, done.messages()
    (said,) = done.of(HOST, "Data that stays")
    assert left(sh, *DATA) == ""
    assert sh(HOST, "ufw show added; ufw status").endswith("(None)\nStatus: inactive")
    kept = sh(HOST, "ls -d /var/lib/prometheus/wal /var/lib/grafana/grafana.db /etc/grafana/secrets/*").split()
    assert len(kept) == 4
    assert all(path in said["msg"] for path in ("/var/lib/private/prometheus", "/etc/grafana/secrets/secret_key"))
    assert run_playbook("remove", "--limit", HOST).changed == 0


def test_the_data_goes_when_it_is_asked_for(sh):
    done = run_playbook("site")
    assert done.rc == 0, done.messages()
    done = run_playbook("remove", "--limit", HOST, extra_vars={"remove_data": True})
    assert done.rc == 0, done.messages()
    assert done.of(HOST, "Data that stays")[0]["skipped"]
    assert left(sh) == ""
