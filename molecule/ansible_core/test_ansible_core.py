"""Supported versions of ansible-core are those that were seen to make a fleet, and then to leave it alone."""

from __future__ import annotations

import json
import re

from gpufleet_lab.waiting import eventually


def changes(output: str) -> dict[str, int]:
    """Host -> how many changes the run's recap says."""
    return {host: int(count) for host, count in re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+) ", output, re.MULTILINE)}


def test_it_is_that_version(controller):
    assert f"[core {controller.version}]" in controller.ansible("playbook", "--version")


def test_the_fleet_comes_up_from_nothing_and_is_then_left_alone(controller):
    runs = [controller.playbook(*arguments) for arguments in (["--check"], [], [])]
    checked, deployed, again = map(changes, runs)
    assert set(checked) == {controller.name, controller.worker}
    assert all(deployed.values()), deployed
    assert not any(again.values()), runs[-1]
    assert "WARNING" not in "".join(runs)  # of what is deprecated, for example
    status = "monitoring-status --json || true"
    assert eventually(lambda: json.loads(controller.sh(status))["state"] == "ok", 60), controller.sh(status)


def test_only_who_asks_for_certificates_gets_them(controller):
    """ansible-core 2.16 evaluates every variable that an expression names, also behind an `if` that does not hold."""
    assert not controller.sh("ls -d fleet/.gpufleet || true").startswith("fleet")
    again = [changes(controller.playbook("-e", "gpufleet_tls=true")) for _ in range(2)]
    assert all(again[0].values()) and not any(again[1].values()), again
    assert controller.sh("ls fleet/.gpufleet/tls")
