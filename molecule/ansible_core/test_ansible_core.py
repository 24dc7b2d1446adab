"""Supported versions of ansible-core are those that were seen to make a fleet, and then to leave it alone."""

from __future__ import annotations

import json
import re

from gpufleet_lab.waiting import eventually

# What Ansible makes of our variables, which is another thing than what is measured on a host of another suite.
TYPED = ["/etc/monitoring-manage.json", "/etc/gpufleet-certificate/config.json", "/etc/nginx/gpufleet/users"]


def changes(output: str) -> dict[str, int]:
    """Host -> how many changes the run's recap says."""
    return {host: int(count) for host, count in re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+) ", output, re.MULTILINE)}


def complaints(controller) -> list[dict]:
    """Return what monitoring-status says is not well; alerts are another scenario's."""
    checks = json.loads(controller.sh("monitoring-status --json || true"))["checks"]
    assert {"service", "targets", "rules", "configuration"} <= {check["kind"] for check in checks}
    return [check for check in checks if check["kind"] != "alerts" and check["state"] != "ok"]


def test_the_fleet_comes_up_from_nothing_and_is_then_left_alone(controller, runs):
    assert f"[core {controller.version}]" in controller.ansible("playbook", "--version")
    said = runs[controller.name]
    checked, deployed, again = map(changes, said)
    assert set(checked) == {controller.name, controller.worker}
    assert all(deployed.values()), deployed
    assert not any(again.values()), said[-1]
    assert "WARNING" not in "".join(said)  # of what is deprecated, for example
    assert eventually(lambda: not complaints(controller), 60), complaints(controller)


def test_only_who_asks_for_certificates_gets_them(controller, runs):
    """ansible-core 2.16 evaluates every variable that an expression names, also behind an `if` that does not hold."""
    assert "tls" not in controller.sh("ls fleet/.gpufleet")
    assert all(changes(controller.playbook("-e", "gpufleet_tls=true")).values())
    assert "tls" in controller.sh("ls fleet/.gpufleet")


def test_all_versions_say_the_same_to_programs(lab, controllers, runs):
    """ansible-core 2.16 makes strings of numbers, 2.19 makes null of a text without a line."""
    for path in TYPED:
        said = {name: found.sh(f"cat {path}") for name, found in controllers.items()}
        own = {name: text.replace(name, "HOST").replace(lab.hosts[name].address, "") for name, text in said.items()}
        assert own["oldest"] == own["newest"]
