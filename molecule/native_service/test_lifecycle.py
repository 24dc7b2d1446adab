"""From a bare host to a service and back, and every change between."""

from __future__ import annotations

import json

import pytest
from conftest import CONFIGURATION, PORT, configuration
from gpufleet_lab.waiting import eventually

# All that a service may leave behind. What the machine itself writes meanwhile is left out.
EVERYTHING = "find /etc /opt /usr /var/lib -xdev -not -path '/var/lib/systemd/*' | sort; getent passwd"
STARTS = "journalctl --sync; journalctl --unit demo --output cat | grep -c ^Started"
REFUSAL = "/run/gpufleet-demo.refused"
SECRET = "correct-horse-battery-staple"


def test_check_mode_on_a_bare_host_says_what_would_happen_and_nothing_happens(bare, brought, sh):
    before = sh("host1", EVERYTHING)
    result = brought("--check", "--diff")
    assert {"release none -> 1.0.0", f"write {CONFIGURATION}", "enable", "start"} <= set(result["actions"])
    assert sh("host1", EVERYTHING) == before


@pytest.mark.parametrize("host", ["host1", "host2"])
def test_installed_repeated_and_removed_without_a_trace(bare, brought, ask, sh, host):
    before = sh(host, EVERYTHING)
    assert brought(hosts=host)["changed"]
    assert ask(host)["version"] == "1.0.0"
    assert sh(host, "systemctl is-enabled demo") == "enabled"
    assert sh(host, "systemd-analyze verify demo.service 2>&1") == ""  # systemd has nothing to say against the unit
    for arguments in ([], ["--check", "--diff"]):
        result = brought(*arguments, hosts=host)
        assert not result["changed"]
        assert result["healthy"]
    assert brought(hosts=host, state="absent")["changed"]
    assert not brought(hosts=host, state="absent")["changed"]
    assert sh(host, EVERYTHING) == before


def test_words_of_the_command_arrive_as_they_were_given(demo, brought, ask, service):
    words = ["two words", "", "50%", "%n", "$HOME", "${HOME}", 'say "hi"', "it's", r"C:\new", ";", "a=b", "ä"]
    brought(command=[*service["command"], *words])
    assert ask()["arguments"][2:] == words


def test_a_change_that_can_be_reloaded_is_reloaded(demo, brought, ask):
    before = ask()
    assert brought("--diff", files=[configuration("green")])["actions"] == [f"write {CONFIGURATION}", "reload"]
    assert eventually(lambda: ask()["configuration"] == "colour: green\n")
    assert ask() == {**before, "configuration": "colour: green\n", "reloads": 1}


def test_several_changes_cost_one_restart(demo, brought, ask, sh, service, v2):
    starts = int(sh("host1", STARTS))
    extra = {"path": "/etc/demo/extra.conf", "content": "x", "on_change": "restart"}
    brought(release=v2, files=[configuration("green"), extra], command=[*service["command"], "--new"])
    assert int(sh("host1", STARTS)) == starts + 1
    answer = ask()
    assert (answer["version"], answer["configuration"], answer["reloads"]) == ("2.0.0", "colour: green\n", 0)


def test_a_file_that_nothing_has_to_notice_is_just_written(demo, brought, ask, sh):
    before = ask()
    note = {"path": "/etc/demo/note", "content": "for people\n", "on_change": "none"}
    brought(files=[configuration("blue"), note])
    assert sh("host1", "cat /etc/demo/note") == "for people"
    assert ask() == before


def test_a_configuration_that_its_validator_refuses_is_not_placed(demo, refused, brought, untouched, sh):
    before = untouched()
    for arguments in (["--check"], []):
        assert sh("host1", f"ls {REFUSAL}", check=False) == ""
        result = refused(*arguments, files=[configuration("wrong")])
        assert f"the new {CONFIGURATION} is refused, the old one stays" in result["msg"]
        assert "there is no such colour" in result["msg"]
    missing = {**configuration("green"), "validate": "/nowhere/check {file}"}
    assert f"the new {CONFIGURATION} is refused, the old one stays: /nowhere/check" in refused(files=[missing])["msg"]
    # What the host did not take is noted there, for as long as that is so.
    assert "/nowhere/check" in json.loads(sh("host1", f"cat {REFUSAL}"))["reason"]
    assert sh("host1", f"stat -c '%U %a' {REFUSAL}") == "root 600"
    assert not brought()["changed"]
    assert sh("host1", f"ls {REFUSAL}", check=False) == ""
    assert untouched() == before


def test_a_secret_is_on_the_host_for_root_alone_and_nowhere_else(demo, bring, sh):
    def with_secret(text):
        return [configuration("blue"), {"path": "/etc/demo/token", "secret_content": text}]

    for arguments in (["--check", "--diff"], ["--diff"], ["--diff"]):
        done = bring(*arguments, "-vvv", files=with_secret(SECRET))
        assert done.rc == 0
        # The task's arguments of this scenario come from a variable, which Ansible does not print.
        assert SECRET not in done.stdout + done.stderr
    assert sh("host1", "stat -c '%a %U' /etc/demo/token; cat /etc/demo/token") == f"600 root\n{SECRET}"
    done = bring("--diff", "-vvv", files=with_secret("another"))
    assert "(old secret content)" in done.stdout
    assert SECRET not in done.stdout
    assert sh("host1", f"journalctl --sync; journalctl | grep -c {SECRET}", check=False) == "0"
    assert sh("host1", f"grep -rl {SECRET} /opt /etc /root /run /tmp /var", check=False) == ""


def test_a_secret_stays_one_when_all_goes_wrong_and_when_it_goes(demo, bring, releases):
    token = {"path": "/etc/demo/token", "secret_content": SECRET}
    loud = {**token, "validate": "sh -c 'cat {file}; exit 1'"}
    sick = releases.publish("3.0.0", behaviour="exits")
    with_token = [configuration("blue"), token]
    for fails, changes in [
        (True, {"files": [configuration("blue"), loud]}),
        (True, {"files": with_token, "release": sick}),
        (False, {"files": with_token}),
        (False, {}),
    ]:
        done = bring("-vvv", "--diff", **changes)
        assert (done.rc != 0) == fails
        assert SECRET not in done.stdout + done.stderr


def test_the_diff_shows_what_changes_in_a_file(demo, brought):
    entries = {entry["after_header"]: entry for entry in brought("--diff", files=[configuration("green")])["diff"]}
    head = "# root:root 0644\n"
    assert entries[CONFIGURATION]["before"] == head + "colour: blue\n"
    assert entries[CONFIGURATION]["after"] == head + "colour: green\n"


def test_a_file_may_belong_to_the_user_that_comes_with_the_service(bare, brought, sh):
    mine = {"path": "/etc/demo/mine", "content": "x", "owner": "demo", "group": "demo", "mode": "0600"}
    brought(static_user=True, files=[configuration("blue"), mine])
    assert sh("host1", "stat -c %U:%G /etc/demo/mine; ps -o user= -C demo") == "demo:demo\ndemo"
    brought(state="absent")
    assert sh("host1", "getent passwd demo; ls -d /etc/demo", check=False) == ""


def test_a_file_that_is_described_no_longer_is_removed(demo, brought, sh):
    extra = {"path": "/etc/demo/extra.d/extra.conf", "content": "x"}
    brought(files=[configuration("blue"), extra])
    assert f"remove {extra['path']}" in brought()["actions"]
    assert sh("host1", "ls /etc/demo") == "demo.conf\nextra.d"


def test_what_others_put_beside_the_files_stays(bare, brought, sh):
    brought()
    sh("host1", "touch /etc/demo/mine; mkdir -p /etc/systemd/system/demo.service.d")
    sh("host1", "printf '[Service]\\nNice=5\\n' > /etc/systemd/system/demo.service.d/mine.conf")
    brought(state="absent", purge=True)
    assert sh("host1", "ls /etc/demo /etc/systemd/system/demo.service.d") == (
        "/etc/demo:\nmine\n\n/etc/systemd/system/demo.service.d:\nmine.conf"
    )
    sh("host1", "rm -r /etc/demo /etc/systemd/system/demo.service.d")


@pytest.mark.parametrize(
    "drift",
    [
        "systemctl stop demo",
        "systemctl disable demo",
        f"rm {CONFIGURATION}",
        f"echo 'colour: red' > {CONFIGURATION}; systemctl reload demo",
        f"chmod 600 {CONFIGURATION}",
        "echo Nice=5 >> /etc/systemd/system/demo.service; systemctl daemon-reload",
        "ln -sfn 0.9.0 /opt/gpufleet/demo/current",
        "rm /opt/gpufleet/demo/current/demo",
        "truncate --size 0 /opt/gpufleet/demo/current/demo",
    ],
)
def test_what_somebody_changed_by_hand_is_repaired(demo, brought, ask, sh, drift):
    sh("host1", drift)
    result = brought("--diff")
    assert result["changed"]
    assert eventually(lambda: ask()["configuration"] == "colour: blue\n")
    assert sh("host1", "systemctl is-enabled demo") == "enabled"
    assert not brought()["changed"]


def test_stopped_means_not_now_and_not_at_boot(demo, brought, sh):
    assert brought(state="stopped")["changed"]
    assert sh("host1", "systemctl is-active demo; systemctl is-enabled demo", check=False) == "inactive\ndisabled"
    assert not brought(state="stopped")["changed"]
    assert brought()["healthy"]


def test_data_outlives_the_service_unless_it_is_purged(demo, brought, sh, service):
    brought(unit={"Service": {**service["unit"]["Service"], "StateDirectory": "demo"}})
    sh("host1", "touch /var/lib/demo/precious")
    brought(state="absent")
    assert sh("host1", "ls /var/lib/private/demo") == "precious"
    brought(state="absent", purge=True)
    assert sh("host1", "find /var/lib -name demo") == ""


def test_a_service_that_is_killed_comes_back(demo, ask, sh):
    pid = ask()["pid"]
    sh("host1", f"kill -KILL {pid}")
    assert eventually(lambda: ask()["pid"] != pid, 5)


def test_a_unit_that_somebody_wrote_by_hand_is_taken_over_and_back_without_us(bare, brought, ask, sh):
    unit = f"[Service]\\nExecStart=/usr/bin/python3 -m http.server {PORT}\\n[Install]\\nWantedBy=multi-user.target\\n"
    sh("host1", f"printf '{unit}' > /etc/systemd/system/demo.service && systemctl enable --now demo")
    brought()
    assert ask()["version"] == "1.0.0"
    brought(state="absent")
    assert "http.server" in sh("host1", "cat /etc/systemd/system/demo.service")
    assert sh("host1", "systemctl is-enabled demo; systemctl is-active demo", check=False) == "disabled\ninactive"
    sh("host1", "rm /etc/systemd/system/demo.service; systemctl daemon-reload")


def test_a_unit_that_somebody_wrote_outlives_an_install_that_came_to_nothing(bare, lab, refused, brought, sh, v2):
    sh("host1", "systemd-run --quiet --unit demo sleep 600")
    try:
        with lab.faults.injected("example.org/demo/v2.0.0/*", status=404):
            refused(release=v2)
        brought(state="absent")
        assert sh("host1", "systemctl is-active demo; ls -d /opt/gpufleet", check=False) == "active"
    finally:
        sh("host1", "systemctl stop demo")


def test_a_masked_unit_is_somebodys_decision(bare, refused, sh):
    sh("host1", "systemctl mask demo")
    try:
        assert "systemctl unmask demo" in refused()["msg"]
    finally:
        sh("host1", "systemctl unmask demo")
