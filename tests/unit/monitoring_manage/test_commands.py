"""monitoring-manage: what it refuses, and what it says of things that are done elsewhere."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
from gpufleet.monitoring_manage import report
from gpufleet.monitoring_manage.check import Check


@pytest.mark.parametrize("command", ["update", "build"])
def test_what_is_done_on_the_controller_says_how_and_does_not_pass_for_done(host, capsys, command):
    host.config.write_text(json.dumps({"update_command": "make our-fleet"}))
    assert host.run(command) == 3
    assert "make our-fleet" in capsys.readouterr().out


def test_update_tells_the_versions_that_are_here(host, capsys):
    host.run("update")
    assert [line.split() for line in capsys.readouterr().out.splitlines()[-2:]] == [
        ["grafana", "from", "packages"],
        ["prometheus", "3.5.3"],
    ]


@pytest.mark.parametrize("command", ["start", "stop", "restart", "reload", "logs"])
def test_an_unknown_service_is_refused_with_those_that_there_are(host, capsys, command):
    assert host.run(command, "grafna") == 2
    assert "no service grafna here, only grafana, prometheus" in capsys.readouterr().err


def test_an_unknown_command_is_refused(host, capsys):
    with pytest.raises(SystemExit) as refused:
        host.run("deploy")
    assert refused.value.code == 2
    assert "deploy" in capsys.readouterr().err


def test_settings_that_are_damaged_are_named(host, capsys):
    host.config.write_text("{")
    assert host.run() == 1
    assert str(host.config) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_gets_colours_unless_it_wants_none(monkeypatch, environment, coloured):
    for name, value in {"TERM": "xterm", "NO_COLOR": "", **environment}.items():
        monkeypatch.setenv(name, value)
    _, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        assert report.coloured(terminal) is coloured
    assert "\x1b[31;1mfailed" in report.for_people([Check("service", "x", "failed", "down")], colours=True)


def test_what_others_say_cannot_move_the_cursor():
    check = Check("targets", "x\x1b[2J", "failed", "a\rb", ("c\x9bd\ne",))
    text = report.for_people([check], colours=False)
    assert not any(char in text for char in "\x1b\r\x9b")


def test_a_reader_who_has_enough_gets_no_traceback(host):
    program = "import sys; from gpufleet.monitoring_manage import cli; sys.exit(cli.main(['update']))"
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "{program}" | true; exit ${{PIPESTATUS[0]}}', sys.executable],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert "Traceback" not in done.stderr
