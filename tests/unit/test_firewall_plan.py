"""What is done to a host's firewall: never what would lock Ansible out, and nothing that nobody asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils.firewall.host import _before, _words, find_connection
from ansible_collections.gpufleet.monitoring.plugins.module_utils.firewall.kernel import (
    Kernel,
    is_handmade,
    sysctl_before,
)
from ansible_collections.gpufleet.monitoring.plugins.module_utils.firewall.plan import (
    FirewallError,
    Plan,
    State,
    Want,
    make_plan,
    outcome,
    read_want,
    summary,
    text,
)
from ansible_collections.gpufleet.monitoring.plugins.module_utils.firewall.ufw import Packet, Rule, Step

ALL = "0.0.0.0/0"
HERE = "10.0.0.9"
CAME = Packet("10.0.0.1", HERE, 22)
EXPORTER = {"name": "exporter", "port": "9100", "proto": "tcp", "from": ["10.0.0.9"]}
NOTHING = {4: [], 6: []}


def rule(action, ports, source=ALL, comment=""):
    return Rule(action, "tcp", ports, source, "::/0" if ":" in source else ALL, comment=comment)


def want(**more):
    return Want(True, [EXPORTER], **more)


def after(have, plan):
    """The state that a plan leads to."""
    words = {"allow": "ACCEPT", "deny": "DROP"}
    policies = {name: words[word] for name, word in plan.policies}
    enabled = have.enabled if plan.enable is None else plan.enable
    return have._replace(
        rules=outcome(have, plan), enabled=enabled, installed=True, before=_before(have, plan), **policies
    )


def refusal(have, what=None, connection=CAME):
    with pytest.raises(FirewallError) as caught:
        make_plan(what or want(), have, connection)
    return str(caught.value)


# -- switching on --------------------------------------------------------------------------------


@pytest.mark.parametrize("forward", ["ACCEPT", "DROP"])
def test_where_ufw_was_off_all_that_nobody_named_stays_as_it_was(forward):
    have = State(NOTHING, forward={"iptables": forward})
    plan = make_plan(want(), have, CAME)
    then = after(have, plan)
    assert plan.enable is True
    assert (then.incoming, then.routed) == ("ACCEPT", forward)
    assert not make_plan(want(), then, CAME).changes


def test_where_ufw_was_on_its_policy_stays():
    have = State(NOTHING, enabled=True, incoming="DROP", routed="ACCEPT")
    plan = make_plan(want(), have, CAME)
    assert (plan.enable, plan.policies) == (None, ())


@pytest.mark.parametrize(("incoming", "policies"), [("ACCEPT", (("incoming", "deny"),)), ("DROP", ()), ("REJECT", ())])
def test_closed_is_closed(incoming, policies):
    have = State(NOTHING, enabled=True, incoming=incoming)
    assert make_plan(want(closed=True), have, CAME).policies == policies
    off = State(NOTHING, incoming=incoming, forward={"iptables": "DROP"})
    assert make_plan(want(closed=True), off, CAME).policies == policies


def test_rules_that_somebody_has_flushed_from_the_kernel_are_loaded_again():
    have = after(State(NOTHING), make_plan(want(), State(NOTHING), CAME))
    plan = make_plan(want(), have._replace(flushed=(6,)), CAME)
    assert summary(plan) == ["reload ufw"]


def test_rules_of_others_that_come_to_life_are_named():
    plan = make_plan(want(), State({4: [rule("deny", "25")], 6: []}), CAME)
    assert plan.warnings == ("ufw was off: 1 rules in it that are not this collection's take effect with it",)


def test_a_rule_of_others_in_front_that_opens_an_exporter_is_named():
    have = after(State(NOTHING), make_plan(want(), State(NOTHING), CAME))
    rules = {4: [rule("allow", "9000:9200"), *have.rules[4]], 6: have.rules[6]}
    plan = make_plan(want(), have._replace(rules=rules), CAME)
    assert not plan.changes
    assert plan.warnings == (
        "'allow 9000:9200/tcp from anywhere' in ufw is not this collection's, and opens what the inventory does not",
    )


def test_without_ipv6_in_ufw_there_are_no_rules_for_it():
    plan = make_plan(want(), State(NOTHING, ipv6=False, has_ipv6=False), CAME)
    assert {step.rule.family for step in plan.steps} == {4}


# -- what ufw would break ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        ({"handmade": ("iptables -P INPUT DROP",)}, "iptables -P INPUT DROP. Take it away"),
        ({"ipv6": False}, "set IPV6=yes"),
        ({"outgoing": "DROP"}, "ufw default allow outgoing"),
        ({"builtins": True}, "set MANAGE_BUILTINS=no"),
        ({"forward": {"iptables": "ACCEPT", "ip6tables": "DROP"}}, "give FORWARD the same one"),
        ({"at_boot": "masked"}, "systemctl unmask ufw"),
    ],
)
def test_where_ufw_was_off_what_it_would_break_is_refused(found, remedy):
    have = State(NOTHING, **found)
    assert remedy in refusal(have)
    assert not make_plan(Want(False), have, CAME).changes


def test_where_ufw_is_on_already_it_is_as_its_owner_wants_it():
    have = State(NOTHING, enabled=True, incoming="ACCEPT", ipv6=False, outgoing="DROP", builtins=True)
    assert make_plan(want(), have, CAME).changes


def test_forwarding_that_is_closed_for_both_families_is_said():
    """As on a host with Docker, which closes it for IPv4."""
    plan = make_plan(want(), State(NOTHING, forward={"iptables": "DROP", "ip6tables": "ACCEPT"}), CAME)
    assert plan.warnings[0].startswith("forwarded packets of IPv6 are dropped from now on")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-P INPUT DROP", True),
        ("-P OUTPUT ACCEPT", False),
        ("-A INPUT -p tcp -m tcp --dport 9100 -j ACCEPT", True),
        ("-A INPUT -j REJECT --reject-with icmp-port-unreachable", True),
        ("-A INPUT -i lo -j ACCEPT", False),
        ("-A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd", False),
        ("-A INPUT -j ufw-before-input", False),
        ('-A INPUT -m comment --comment "it is -j DROP" -j KUBE-FIREWALL', False),
        ("-A OUTPUT -d 10.0.0.0/8 -j DROP", False),
    ],
)
def test_what_is_a_firewall_of_somebodys_own(line, expected):
    assert is_handmade(line) == expected


CHAINS = {
    "INPUT": "-P INPUT DROP\n-A INPUT -j ufw-before-input",
    "ufw-before-input": "-N ufw-before-input\n-A ufw-before-input -j ufw-user-input",
    "ufw-user-input": "-N ufw-user-input\n-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT",
}
LOADED = "*filter\n-A ufw-user-input -p tcp --dport 22 -j ACCEPT\n-A ufw-user-limit -j REJECT\n"


@pytest.mark.parametrize(
    ("flushed", "expected"), [(None, True), ("INPUT", False), ("ufw-before-input", False), ("ufw-user-input", False)]
)
def test_rules_are_loaded_only_if_packets_come_by_them(flushed, expected):
    def run(words):
        lines = CHAINS[words[-1]].splitlines()
        return 0, "\n".join(lines[:1] if words[-1] == flushed else lines), ""

    assert Kernel(run).has_loaded(4, LOADED) == expected


def test_without_ipv6_in_the_kernel_nothing_of_it_is_missed():
    assert Kernel(lambda words: (3, "", "no such table")).has_loaded(6, LOADED)


def test_settings_that_ufw_would_change_are_known_before(tmp_path):
    """Strict rp_filter cuts SSH by the other link of a host with two."""
    values = {"all/rp_filter": "2", "default/rp_filter": "0", "all/log_martians": "0", "eth0.100/rp_filter": "2"}
    for name, value in values.items():
        (tmp_path / "net/ipv4/conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "net/ipv4/conf" / name).write_text(f"{value}\n")
    file = tmp_path / "sysctl.conf"
    file.write_text(
        "# x=1\n;net/ipv4/conf/all/x=1\nnet/ipv4/conf/all/rp_filter=1\n-net.ipv4.conf.default.rp_filter = 1\n"
        "net/ipv4/conf/all/log_martians=0\nnet.ipv4.conf.eth0/100.rp_filter=1\nnet/ipv4/none=1\n"
    )
    found = sysctl_before(file, tmp_path)
    expected = {"all/rp_filter": "2", "default/rp_filter": "0", "eth0.100/rp_filter": "2"}
    assert found == {str(tmp_path / "net/ipv4/conf" / name): value for name, value in expected.items()}
    assert sysctl_before(tmp_path / "none", tmp_path) == {}


# -- what is asked for ---------------------------------------------------------------------------

PARAMETERS = {"state": "present", "rules": [], "ssh_ports": [], "ssh_from": ["any"], "incoming": "keep"}


def test_networks_are_in_ufws_spelling():
    """Else the second run finds other rules than it would write."""
    access = {**EXPORTER, "from": ["10.0.0.9/32", "FD00::0:1/64", "any"]}
    found = read_want({**PARAMETERS, "rules": [access], "ssh_from": ["10.0.0.7/24"]})
    assert found.ssh_from == ["10.0.0.0/24"]
    assert found.accesses[0]["from"] == ["10.0.0.9", "fd00::/64", "any"]


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({"ssh_from": ["gpu_workers"]}, "ssh_from (firewall_ssh_networks) has ['gpu_workers']"),
        ({"rules": [{**EXPORTER, "from": ["10.0.0.9/33"]}]}, "the rule 'exporter' has ['10.0.0.9/33']"),
    ],
)
def test_what_is_no_network_is_said(parameters, what):
    with pytest.raises(FirewallError) as caught:
        read_want({**PARAMETERS, **parameters})
    assert str(caught.value) == f"{what}: one of them is no network and not any"


# -- the way by which Ansible came ---------------------------------------------------------------


def test_the_port_by_which_ansible_came_is_open_before_ufw_is_on():
    plan = make_plan(want(closed=True), State(NOTHING), CAME._replace(port=2222))
    assert "insert allow 2222/tcp from anywhere" in summary(plan)
    assert summary(plan)[-1] == "enable ufw"


def test_a_wrong_port_is_refused_where_it_would_cut_ssh():
    said = refusal(State(NOTHING), want(closed=True, ssh_ports=[2222]))
    assert said == "Ansible came from 10.0.0.1 by port 22, which would be closed: firewall_ssh_ports does not have it"
    assert make_plan(want(ssh_ports=[2222]), State(NOTHING), CAME).enable  # nothing closes 22 there


def test_networks_without_the_controller_are_refused():
    said = refusal(State(NOTHING), want(ssh_from=["10.9.0.0/16"]))
    assert said.endswith("which would be closed: firewall_ssh_networks does not have that address")


def test_a_rule_for_the_ssh_port_that_leaves_the_controller_out_does_no_harm():
    """Rules add up: SSH is open to whom firewall_ssh_networks says."""
    extra = {"name": "tunnel", "port": "22", "proto": "tcp", "from": ["10.9.9.9"]}
    assert make_plan(Want(True, [extra], closed=True), State(NOTHING), CAME).enable


def test_a_rule_of_others_that_would_come_to_life_and_cut_ssh_is_refused():
    said = refusal(State({4: [rule("deny", "20:30")], 6: []}))
    assert said.endswith("which would be closed by ufw's own rule 'deny 20:30/tcp from anywhere'")


def test_a_range_of_ours_that_closes_the_ssh_port_is_named():
    extra = {"name": "jobs", "port": "20:30", "proto": "tcp", "from": ["10.9.9.9"]}
    assert refusal(State(NOTHING), Want(True, [extra])).endswith(
        "which would be closed by 'deny 20:30/tcp from anywhere', which stands for a range in firewall_extra_rules:"
        " leave that port out of it"
    )


def test_a_rule_for_one_interface_is_tried():
    """Whether packets come by it is not known beforehand."""
    other = rule("deny", "22")._replace(direction="in_eth1")
    assert make_plan(want(), State({4: [other], 6: []}), CAME).enable


def test_ipv6_that_ufw_would_close_is_refused():
    assert "IPV6=yes" in refusal(State(NOTHING, ipv6=False, enabled=True), connection=Packet("fd00::1", "fd00::2", 22))
    assert make_plan(want(), State(NOTHING), Packet("fd00::1", "fd00::2", 22)).enable


def test_without_ssh_the_port_has_to_be_said():
    assert "firewall_ssh_ports" in refusal(State(NOTHING), connection=None)
    assert make_plan(want(ssh_ports=[22]), State(NOTHING), None).enable


def test_a_rule_of_others_in_the_same_place_is_said_with_the_remedy():
    said = refusal(State({4: [rule("deny", "9100", "10.0.0.9")], 6: []}))
    assert "'deny 9100/tcp from 10.0.0.9', which is not this collection's, is in the way" in said
    assert "Delete that rule" in said


# -- taking it away ------------------------------------------------------------------------------


def test_absent_leaves_ufw_as_it_was_found():
    have = State(NOTHING, forward={"iptables": "ACCEPT"})
    on = after(have, make_plan(want(), have, CAME))
    plan = make_plan(Want(False), on, CAME)
    assert plan.enable is False
    then = after(on, plan)
    assert (then.rules, then.incoming, then.routed) == (have.rules, have.incoming, have.routed)


def test_absent_keeps_what_was_on_before():
    have = State({4: [rule("allow", "22")], 6: []}, enabled=True, incoming="ACCEPT")
    on = after(have, make_plan(want(closed=True), have, CAME))
    plan = make_plan(Want(False), on, CAME)
    assert (plan.enable, plan.policies) == (None, (("incoming", "allow"),))
    assert after(on, plan).rules == have.rules


def test_absent_leaves_ufw_on_for_whom_has_come_to_rely_on_it():
    on = after(State(NOTHING), make_plan(want(), State(NOTHING), CAME))
    on.rules[4].append(rule("deny", "25"))
    plan = make_plan(Want(False), on, CAME)
    assert (plan.enable, plan.policies) == (None, ())
    assert after(on, plan).rules[4] == [rule("deny", "25")]
    assert len(plan.warnings) == 1


def test_absent_knows_rules_of_others_by_what_they_are():
    have = State({4: [rule("deny", "25")], 6: []})
    on = after(have, make_plan(want(), have, CAME))
    rules = {4: [rule("deny", "26") if r.ports == "25" else r for r in on.rules[4]], 6: on.rules[6]}
    assert make_plan(Want(False), on, CAME).enable is False
    assert make_plan(Want(False), on._replace(rules=rules), CAME).enable is None


def test_absent_does_not_cut_ssh_either():
    """Somebody has closed what no rule speaks of, and relies on our rule for SSH."""
    have = State(NOTHING, enabled=True, incoming="DROP")
    on = after(have, make_plan(want(), have, CAME))
    assert "ufw allow 22/tcp" in refusal(on, Want(False))


def test_absent_is_not_held_up_by_a_way_in_that_it_does_not_touch():
    """By a rule for one interface, or by before.rules."""
    theirs = rule("allow", "22")._replace(direction="in_tailscale0")
    have = State({4: [theirs, rule("deny", "9100", comment="gpufleet: x")], 6: []}, enabled=True, incoming="DROP")
    assert summary(make_plan(Want(False), have, CAME)) == ["delete deny 9100/tcp from anywhere"]
    assert not make_plan(Want(False), have._replace(rules={4: [theirs], 6: []}), CAME).changes


@pytest.mark.parametrize(
    "have", [State(NOTHING, installed=False), State(NOTHING), State({4: [rule("deny", "25")], 6: []})]
)
def test_absent_does_nothing_to_a_host_that_never_had_it(have):
    assert not make_plan(Want(False), have, CAME).changes


# -- what is kept of the state before ------------------------------------------------------------


def test_what_was_there_first_is_what_is_gone_back_to():
    have = State(NOTHING, incoming="DROP", forward={"iptables": "DROP", "ip6tables": "ACCEPT"}, sysctl={"/x": "2"})
    on = after(have, make_plan(want(), have, CAME))
    expected = {"incoming": "DROP", "enabled": False, "others": [], "forward": have.forward, "sysctl": have.sysctl}
    assert on.before == expected
    assert after(on, make_plan(want(closed=True), on, CAME)).before == expected


# -- ufw's command line --------------------------------------------------------------------------


def test_ufw_counts_rules_for_ipv6_behind_those_for_ipv4():
    app = rule("allow", "137,138")._replace(apps="Samba -")
    count = {4: [app, app._replace(ports="139,445"), rule("allow", "2")], 6: [rule("allow", "2", "fd00::2")]}
    four, six = rule("allow", "1", comment="gpufleet: x"), rule("allow", "1", "fd00::1", "gpufleet: x")
    rest = ["to", "any", "port", "1", "comment", "gpufleet: x"]
    assert _words(Step("insert", four, 1), count) == ["insert", "1", "allow", "proto", "tcp", "from", ALL, *rest]
    assert _words(Step("insert", six, 1), count)[:2] == ["insert", "4"]
    assert _words(Step("insert", six, 0), count)[:3] == ["allow", "proto", "tcp"]
    assert _words(Step("delete", four), count)[:2] == ["delete", "allow"]
    assert [r.ports for r in count[4]] == ["137,138", "139,445", "2"]
    assert [r.source for r in count[6]] == ["fd00::1", "fd00::2", "fd00::1"]


def test_a_diff_shows_rules_policies_and_whether_it_is_on():
    have = State(NOTHING)
    plan = make_plan(want(), have, CAME)
    assert text(have, have.rules) == "ufw off\nincoming packets: deny\nrouted packets: deny\n"
    shown = text(have, outcome(have, plan), plan).splitlines()
    assert shown[:4] == [
        "ufw on",
        "incoming packets: allow",
        "routed packets: allow",
        "allow 9100/tcp from 10.0.0.9  # gpufleet: exporter",
    ]
    assert not Plan().changes


# -- how Ansible came ----------------------------------------------------------------------------

WALK = """
import subprocess, sys
# What sudo does: the variable is gone from the environment of what it runs.
subprocess.run(["env", "-i", sys.executable, "-c", "import time, sys; print('up', flush=True); time.sleep(30)"])
"""


@pytest.fixture
def below():
    """below(SSH_CONNECTION): the id of a process two below one that has it in its environment."""
    started = []

    def start(value):
        environment = {name: text for name, text in os.environ.items() if not name.startswith("SSH_")}
        if value is not None:
            environment["SSH_CONNECTION"] = value
        process = subprocess.Popen(
            [sys.executable, "-c", WALK], env=environment, stdout=subprocess.PIPE, start_new_session=True
        )
        started.append(process)
        assert process.stdout.readline() == b"up\n"
        (child,) = os.popen(f"cat /proc/{process.pid}/task/*/children").read().split()
        return int(child)

    yield start
    for process in started:
        os.killpg(process.pid, 9)
        process.wait()


@pytest.mark.parametrize(
    ("value", "packet"),
    [
        ("10.0.0.1 50000 10.0.0.9 2222", Packet("10.0.0.1", "10.0.0.9", 2222)),
        ("fe80::1%eth0 50000 fe80::2%eth0 22", Packet("fe80::1", "fe80::2", 22)),
    ],
)
def test_the_connection_is_found_behind_sudo(below, value, packet):
    assert find_connection(below(value)) == (value, packet)


def test_a_session_that_is_no_ssh_session_has_none(tmp_path):
    for pid, parent in ((7, 5), (5, 1)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "environ").write_bytes(b"PATH=/bin\0TERM=linux\0")
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a (b) c) S {parent} 0 0")
    assert find_connection(7, tmp_path) == ("", None)
