"""Which alert goes to whom, by amtool: what the role's variables say is what Alertmanager takes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

DEFAULTS = Path(__file__).resolve().parents[2] / "roles/alertmanager/defaults/main.yml"
TEAMS = [
    {"name": "oncall", "webhook_configs": [{"url": "http://127.0.0.1/oncall"}]},
    {"name": "chemistry", "webhook_configs": [{"url": "http://127.0.0.1/chemistry"}]},
    {"name": "archive", "webhook_configs": [{"url": "http://127.0.0.1/archive"}]},
]
NIGHT = {"name": "night", "time_intervals": [{"times": [{"start_time": "22:00", "end_time": "24:00"}]}]}
CASES = {
    "nobody": {},
    "teams": {
        "alertmanager_receivers": TEAMS,
        "alertmanager_severities": {
            "critical": {"repeat_interval": "1h"},
            "warning": {"repeat_interval": "4h"},
            "info": {"receiver": "archive"},
        },
        "alertmanager_routes": [
            {
                "matchers": ['owner="chemistry"'],
                "receiver": "chemistry",
                "continue": True,
                "routes": [{"matchers": ['severity="info"'], "receiver": "archive"}],
            }
        ],
        "alertmanager_time_intervals": [NIGHT],
        "alertmanager_maintenance": [{"matchers": ['rack="r1"'], "time_intervals": ["night"]}],
        "alertmanager_dead_mans_switch_url": "https://hc.example.org/secret-of-ours",
    },
    "unknown_receiver": {"alertmanager_receivers": TEAMS, "alertmanager_routes": [{"receiver": "chemist"}]},
    "unknown_key": {"alertmanager_receivers": [{"name": "oncall", "email_config": [{"to": "a@example.org"}]}]},
    "unknown_time": {
        "alertmanager_receivers": TEAMS,
        "alertmanager_maintenance": [{"matchers": ['rack="r1"'], "time_intervals": ["nigth"]}],
    },
    "broken_matcher": {"alertmanager_receivers": TEAMS, "alertmanager_inhibit_rules": [{"source_matchers": ["a b"]}]},
    "no_mail_server": {"alertmanager_receivers": [{"name": "oncall", "email_configs": [{"to": "a@example.org"}]}]},
}


@pytest.fixture(scope="module")
def rendered(render):
    return render(CASES)


@pytest.fixture(scope="module")
def amtool(release, rendered):
    def run(case: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [release / "amtool", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=rendered[case], timeout=30)

    return run


@pytest.mark.parametrize("case", ["nobody", "teams"])
def test_what_the_role_makes_is_what_alertmanager_takes(amtool, case):
    done = amtool(case, "check-config", "alertmanager.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        ("unknown_receiver", 'undefined receiver "chemist"'),
        ("unknown_key", "field email_config not found"),
        ("unknown_time", 'undefined time interval "nigth"'),
        ("broken_matcher", "bad matcher format: a b"),
        ("no_mail_server", "no global SMTP smarthost set"),
    ],
)
def test_what_is_wrong_is_said_by_amtool_before_it_goes_live(amtool, case, complaint):
    done = amtool(case, "check-config", "alertmanager.yml")
    assert done.returncode != 0
    assert complaint in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("case", "labels", "receivers"),
    [
        ("nobody", "severity=critical", "nobody"),
        ("nobody", "alertname=Watchdog severity=info", "nobody"),
        ("teams", "severity=critical", "oncall"),
        ("teams", "severity=warning", "oncall"),
        ("teams", "severity=info", "archive"),
        ("teams", "alertname=Odd", "oncall"),  # of no severity: the first receiver, not nobody
        ("teams", "alertname=Watchdog severity=info", "dead_mans_switch"),
        ("teams", "owner=chemistry severity=critical", "chemistry,oncall"),
        ("teams", "owner=chemistry severity=info", "archive,archive"),
        # In a maintenance window's routes, it goes the same ways: only the times differ.
        ("teams", "rack=r1 severity=critical", "oncall"),
        ("teams", "rack=r1 alertname=Odd", "oncall"),
        ("teams", "rack=r1 owner=chemistry severity=critical", "chemistry,oncall"),
        ("teams", "rack=r1 alertname=Watchdog severity=info", "dead_mans_switch"),
    ],
)
def test_an_alert_goes_to(amtool, case, labels, receivers):
    command = ["config", "routes", "test", "--config.file=alertmanager.yml", f"--verify.receivers={receivers}"]
    done = amtool(case, *command, *labels.split())
    assert done.returncode == 0, done.stdout + done.stderr


def test_times_are_those_of_the_manual():
    """Critical at once and again each hour, a warning after four hours, information once a day."""
    severities = yaml.safe_load(DEFAULTS.read_text())["alertmanager_severities"]
    assert {name: row["repeat_interval"] for name, row in severities.items()} == {
        "critical": "1h",
        "warning": "4h",
        "info": "24h",
    }


def all_of(routes):
    for route in routes:
        yield route
        yield from all_of(route.get("routes", []))


def test_all_that_a_window_mutes_is_muted_below_it_too(rendered):
    routes = yaml.safe_load((rendered["teams"] / "alertmanager.yml").read_text())["route"]["routes"]
    (window,) = (route for route in routes if route["matchers"] == ['rack="r1"'])
    below = list(all_of([window]))
    assert len(below) == 6  # itself, the team's with its own one below, and three severities
    assert all("night" in route["mute_time_intervals"] for route in below)
    assert not any("mute_time_intervals" in route for route in all_of(routes) if route not in below)


def test_no_secret_is_in_the_configuration(rendered):
    assert "secret-of-ours" not in (rendered["teams"] / "alertmanager.yml").read_text()
    assert (rendered["teams"] / "secrets/dead_mans_switch_url").read_text() == "https://hc.example.org/secret-of-ours"
