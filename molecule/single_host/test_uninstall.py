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
WELCOME = "python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1/\").read())'"
SNAPSHOT = Path(__file__).with_name("snapshot.sh").read_text()
BEFORE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "before.txt")

# What stays, as docs/upgrades.md says.
STAYS = (
    # Locks: whoever waits for one holds it. Gone with the next boot. So are ufw's, and its chains, which are empty.
    r"path f 644 root:root /run/(gpufleet-[\w-]+|ufw)\.lock",
    r"rule ip6?tables -[NA] .*\bufw6?-[a-z-]+",
    # In ufw's own words, once it has been on; there are no rules in them.
    r"content \w+  /etc/ufw/user6?\.rules",
    # Of the tools that add and remove users: the files as they were before the last change.
    r"(content \w+ |path . \d+ root:\w+) */etc/(passwd|group|shadow|gshadow)-",
    # Of ucf, by which packages keep their configuration: its lists as they were before the last changes.
    r"path f 644 root:root /var/lib/ucf/(hashfile|registry)\.\d",
)
DATA = (
    r"path .* /var/lib/(private/)?(prometheus|grafana|alertmanager|gpufleet-certificate)(/.*)?",
    r"(path .*|content .*) /etc/grafana(/secrets(/(admin_password|secret_key))?)?",
)
# What the host does by itself meanwhile.
OWN_LIFE = (
    r"unit systemd-networkd-wait-online.service \w+",
    r"unit ufw.service inactive",  # systemd knows of it once somebody has asked
)


# All that the collection has, and more than this inventory says.
EVERYTHING = {"firewall_enabled": True, "gpufleet_tls": True, "nginx_state": "started"}


@pytest.fixture
def look(sh):
    """What the host is like now."""
    return lambda: set(sh(HOST, f"sh -s <<'END'\n{SNAPSHOT}\nEND").splitlines())


@pytest.fixture
def left(look):
    """What is not as it was before, but for what matches the patterns; `others` have put something there meanwhile."""

    def compare(*patterns: str, others: set[str] = frozenset()) -> str:
        before, after = set(BEFORE.read_text().splitlines()) | others, look()
        lines = [f"+ {line}" for line in after - before] + [f"- {line}" for line in before - after]
        known = re.compile("|".join([*STAYS, *OWN_LIFE, *patterns]))
        return "\n".join(sorted(line for line in lines if not known.fullmatch(line[2:])))

    return compare


def bring(*arguments):
    done = run_playbook("site", *arguments, extra_vars=EVERYTHING)
    assert done.rc == 0, done.messages()


def test_without_hosts_named_nothing_is_removed(sh):
    bring()
    done = run_playbook("remove")
    assert done.rc != 0
    assert "--limit" in done.messages()
    assert run_playbook("remove", "--check", "--limit", HOST).changed > 0
    state = sh(HOST, "systemctl is-active prometheus nginx gpufleet-certificate.timer; ufw status")
    assert state.startswith("active\nactive\nactive\nStatus: active")


def test_all_goes_but_the_data(left, sh):
    done = run_playbook("remove", "--limit", HOST)
    assert done.rc == 0, done.messages()
    (said,) = done.of(HOST, "Data that stays")
    assert left(*DATA) == ""
    assert sh(HOST, "ufw show added; ufw status").endswith("(None)\nStatus: inactive")
    paths = ["/var/lib/prometheus/wal", "/var/lib/grafana/grafana.db", "/var/lib/gpufleet-certificate/ca/ca.key"]
    kept = sh(HOST, f"ls -d {' '.join(paths)} /etc/grafana/secrets/*").split()
    assert len(kept) == 5
    assert all(path in said["msg"] for path in ("/var/lib/private/prometheus", "/etc/grafana/secrets/secret_key"))
    assert run_playbook("remove", "--limit", HOST).changed == 0


def test_the_data_goes_when_it_is_asked_for_and_not_what_is_somebody_elses(left, look, sh):
    before = look()
    sh(HOST, "echo '#!/bin/sh' >/usr/local/bin/monitoring-manage")
    sh(HOST, "DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends nginx >/dev/null 2>&1")
    others = look() - before
    bring("--tags", "prometheus,alertmanager,grafana,nginx,certificate")
    done = run_playbook("remove", "--limit", HOST, extra_vars={"remove_data": True})
    assert done.rc == 0, done.messages()
    assert done.of(HOST, "Data that stays")[0]["skipped"]
    # What the linker knows of libraries: nginx of Ubuntu 22.04 has brought some.
    assert left(r"content \w+  /etc/ld\.so\.cache", others=others) == ""
    assert "Welcome to nginx" in sh(HOST, WELCOME)


def test_a_site_that_was_added_to_our_nginx_is_there_after_it(sh):
    sh(HOST, "DEBIAN_FRONTEND=noninteractive apt-get -qq purge --auto-remove nginx nginx-common >/dev/null 2>&1")
    bring("--tags", "nginx,certificate")
    site = "/etc/nginx/sites-enabled/mine.conf"
    sh(HOST, f"echo 'server {{ listen 8888; }}' >{site}")
    done = run_playbook("remove", "--limit", HOST)
    assert done.rc == 0, done.messages()
    assert "listen 8888" in sh(HOST, f"cat {site}; dpkg-query --show --showformat '${{db:Status-Status}}' nginx-common")
    assert sh(HOST, "ls /etc/nginx/conf.d; ls -d /etc/nginx/gpufleet", check=False) == ""
