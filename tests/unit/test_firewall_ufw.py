"""ufw as data: its files are understood, and the steps lead to what is wanted; what others put there stays."""

from __future__ import annotations

import itertools

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils.firewall.plan import Plan as FirewallPlan
from ansible_collections.gpufleet.monitoring.plugins.module_utils.firewall.plan import State, outcome
from ansible_collections.gpufleet.monitoring.plugins.module_utils.firewall.ufw import (
    Packet,
    Rule,
    arrange,
    decide,
    parse_rules,
    wanted_rules,
)
from hypothesis import given
from hypothesis import strategies as st

# As ufw 0.36.2 of Debian 12 wrote them.
USER_RULES = """\
*filter
### RULES ###

### tuple ### deny tcp 22 0.0.0.0/0 any 0.0.0.0/0 in
-A ufw-user-input -p tcp --dport 22 -j DROP

### tuple ### allow tcp 9100,9400,9500 0.0.0.0/0 any 10.0.0.1 in comment=677075666c6565743a20612062
### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 OpenSSH - in
### tuple ### limit_log tcp 80 0.0.0.0/0 any 0.0.0.0/0 in
### tuple ### allow any any 0.0.0.0/0 any 10.0.0.0/8 in_host0
### tuple ### route:allow any any 0.0.0.0/0 any 10.0.0.0/8 in
### tuple ### allow any 53 0.0.0.0/0 any 0.0.0.0/0 in
### tuple ### reject any 25 0.0.0.0/0 any 0.0.0.0/0 out
"""
ALL = "0.0.0.0/0"


def rule(action, ports, source=ALL, comment="", proto="tcp", **more):
    return Rule(action, proto, ports, source, "::/0" if ":" in source else ALL, comment=comment, **more)


def ours(action, ports, source=ALL):
    return rule(action, ports, source, "gpufleet: test")


def access(port, *networks, name="exporter", proto="tcp"):
    return {"name": name, "port": str(port), "proto": proto, "from": list(networks)}


# -- ufw's files ---------------------------------------------------------------------------------


def test_rules_are_read_from_ufws_file():
    deny, scraped, app, limit, interface, route, both, out = parse_rules(USER_RULES)
    assert deny == rule("deny", "22")
    assert scraped == rule("allow", "9100,9400,9500", "10.0.0.1", "gpufleet: a b")
    assert scraped.is_ours and not deny.is_ours
    assert (app.apps, app.ports) == ("OpenSSH -", "22")
    assert (limit.action, limit.logged) == ("limit", "log")
    assert interface.direction == "in_host0"
    assert route.action == "route:allow"
    assert both.proto == "any"
    assert out.direction == "out"


def test_a_rule_that_is_not_understood_is_named():
    with pytest.raises(ValueError, match="cannot be understood: allow tcp"):
        parse_rules("### tuple ### allow tcp\n")


def test_an_empty_file_has_no_rules():
    assert parse_rules("*filter\n### RULES ###\n### END RULES ###\n") == []


# -- what decides about a packet -----------------------------------------------------------------

HERE = "10.0.0.9"


@pytest.mark.parametrize(
    ("rules", "decisive"),
    [
        ([], None),
        ([rule("allow", "22")], 0),
        ([rule("deny", "22", "10.1.0.0/16"), rule("allow", "22")], 1),
        ([rule("deny", "22", "10.0.0.0/8"), rule("allow", "22")], 0),
        ([rule("deny", "20:30"), rule("allow", "22")], 0),
        ([rule("deny", "21,23"), rule("limit", "22,80")], 1),
        ([rule("deny", "any", proto="any")], 0),
        ([rule("deny", "22", proto="udp")], None),
        # What cannot be known does not count.
        ([rule("allow", "22", direction="in_eth0")], None),
        ([rule("deny", "22", direction="in_eth0"), rule("allow", "22")], 1),
        ([rule("allow", "22", source_ports="1000")], None),
        ([rule("deny", "22", direction="out"), rule("route:deny", "22")], None),
        ([Rule("allow", "tcp", "22", ALL, "10.0.0.8")], None),
        ([Rule("allow", "tcp", "22", ALL, HERE)], 0),
    ],
)
def test_the_rule_that_decides(rules, decisive):
    assert decide(Packet("10.0.0.1", HERE, 22), rules) is (None if decisive is None else rules[decisive])


# -- what is wanted ------------------------------------------------------------------------------


def test_ports_of_the_same_sources_share_a_rule():
    found = wanted_rules([access(9500, "10.0.0.9"), access(9100, "10.0.0.9", name="node"), access(53, proto="udp")], 4)
    assert [(r.action, r.proto, r.ports, r.source, r.comment) for r in found] == [
        ("allow", "tcp", "9100,9500", "10.0.0.9", "gpufleet: node, exporter"),
        ("deny", "tcp", "9100,9500", ALL, "gpufleet: nobody else"),
        ("deny", "udp", "53", ALL, "gpufleet: nobody else"),
    ]


@pytest.mark.parametrize(("network", "family"), [("0.0.0.0/0", 4), ("::/0", 6)])
def test_a_network_of_everything_is_open_to_all_of_its_family_alone(network, family):
    found = {family: [(r.action, r.source) for r in wanted_rules([access(80, network)], family)] for family in (4, 6)}
    everywhere = {4: ALL, 6: "::/0"}
    other = 10 - family
    assert found == {family: [("allow", everywhere[family])], other: [("deny", everywhere[other])]}


def test_each_family_has_its_own_sources_and_both_are_closed():
    accesses = [access(9100, "10.0.0.9", "fd00::9"), access(9500, "10.0.0.9"), access(443, "any", name="web")]
    four, six = wanted_rules(accesses, 4), wanted_rules(accesses, 6)
    assert [(r.action, r.ports, r.source) for r in four] == [
        ("allow", "9100,9500", "10.0.0.9"),
        ("allow", "443", ALL),
        ("deny", "9100,9500", ALL),
    ]
    assert [(r.action, r.ports, r.source) for r in six] == [
        ("allow", "9100", "fd00::9"),
        ("allow", "443", "::/0"),
        ("deny", "9100,9500", "::/0"),
    ]


def test_who_opens_a_port_to_all_wins():
    found = wanted_rules([access(9100, "10.0.0.9"), access(9100, "any", name="other")], 4)
    assert [(r.action, r.ports, r.source) for r in found] == [("allow", "9100", ALL)]


def test_a_rule_has_at_most_fifteen_ports():
    """iptables takes no more; a range counts as two."""
    found = wanted_rules([access(port, "10.0.0.9") for port in [*range(1000, 1015), "2000:2010", 3000]], 4)
    assert [r.ports.count(",") + 1 for r in found if r.action == "allow"] == [15, 2]
    assert ",".join(r.ports for r in found if r.action == "deny").split(",")[-2:] == ["2000:2010", "3000"]


# -- the way there -------------------------------------------------------------------------------

WANT = wanted_rules([access(22, "any", name="ssh"), access(9100, "10.0.0.9"), access(9500, "10.0.0.9")], 4)


def after(have, steps):
    return outcome(State({4: have, 6: []}), FirewallPlan(steps=tuple(steps)))[4]


def test_a_fresh_host_gets_the_rules_and_then_nothing_more():
    found = after([], arrange([], WANT))
    assert [(r.action, r.ports) for r in found] == [("allow", "9100,9500"), ("deny", "9100,9500"), ("allow", "22")]
    assert arrange(found, WANT) == []


def test_others_keep_their_rules_and_their_order_between_ours():
    ban, office = rule("deny", "any", "10.6.6.6", proto="any"), rule("allow", "8080")
    found = after([ban, office], arrange([ban, office], WANT))
    assert [(r.action, r.ports) for r in found] == [
        ("allow", "9100,9500"),
        ("deny", "9100,9500"),
        ("deny", "any"),
        ("allow", "8080"),
        ("allow", "22"),  # whom others shut out, they mean to
    ]


def test_a_port_that_others_opened_to_all_is_closed():
    """`ufw allow 9100/tcp` is what old manuals said."""
    have = [rule("allow", "9100")]
    found = after(have, arrange(have, WANT))
    assert not decide(Packet("10.6.6.6", HERE, 9100), found).opens
    assert decide(Packet("10.0.0.9", HERE, 9100), found).opens
    assert have[0] in found


@pytest.mark.parametrize("action", ["allow", "limit"])
def test_a_rule_of_others_that_says_the_same_is_enough_and_stays_theirs(action):
    have = [rule("deny", "25"), rule(action, "9100,9500", "10.0.0.9"), rule(action, "22")]
    found = after(have, arrange(have, WANT))
    assert [r.is_ours for r in found] == [False, False, True, False]
    assert [r.action for r in found] == ["deny", action, "deny", action]


@pytest.mark.parametrize(
    "theirs", [rule("deny", "9100,9500", "10.0.0.9"), rule("allow", "9100,9500"), rule("reject", "22")]
)
def test_a_rule_of_others_that_says_the_opposite_is_not_replaced(theirs):
    """ufw would change theirs, as it has the same ports and addresses."""
    with pytest.raises(ValueError, match="is not this collection's"):
        arrange([theirs], WANT)


def test_when_the_master_moves_nothing_is_closed_in_between():
    have = after([], arrange([], WANT))
    moved = wanted_rules([access(22, "any", name="ssh"), access(9100, "10.0.0.8"), access(9500, "10.0.0.8")], 4)
    now = have
    for step in arrange(have, moved):
        now = after(now, [step])
        assert decide(Packet("10.0.0.9", HERE, 9100), now).opens == (have[0] in now)
        assert not decide(Packet("10.6.6.6", HERE, 9100), now).opens
    assert decide(Packet("10.0.0.8", HERE, 9100), now).opens
    assert have[0] not in now


def test_an_order_that_somebody_has_turned_around_is_put_right():
    good = after([], arrange([], WANT))
    bad = [good[1], good[0], good[2]]
    assert after(bad, arrange(bad, WANT)) == good


def test_a_place_that_ufw_cannot_name_is_refused():
    """It counts the rules of an application's profile as one, and puts them in by their number."""
    app = rule("allow", "137,138", apps="Samba -")
    allow = ours("allow", "9100,9500", "10.0.0.9")
    have = [app, app._replace(ports="139,445"), app._replace(ports="2"), allow, rule("allow", "8080")]
    with pytest.raises(ValueError, match="application profiles"):
        arrange(have, WANT)
    assert arrange([app, *have[3:]], WANT)


def test_another_comment_changes_the_rule_where_it_is():
    have = after([], arrange([], WANT))
    renamed = wanted_rules(
        [access(22, "any", name="ssh"), access(9100, "10.0.0.9", name="x"), access(9500, "10.0.0.9")], 4
    )
    (step,) = arrange(have, renamed)
    assert (step.verb, step.rule.comment) == ("change", "gpufleet: x, exporter")


PORTS = st.sampled_from(["9100", "9500", "9100,9500", "22", "80"])
SOURCES = st.sampled_from([ALL, "10.0.0.8", "10.0.0.9", "10.0.0.0/8"])
COMMENTS = st.sampled_from(["", "gpufleet: test"])
RULES = st.builds(rule, st.sampled_from(["allow", "deny", "limit", "reject"]), PORTS, SOURCES, COMMENTS)
ACCESSES = st.lists(
    st.builds(
        lambda port, networks: access(port, *networks),
        st.sampled_from([22, 80, 9100, 9500]),
        st.lists(st.sampled_from(["any", ALL, "10.0.0.8", "10.0.0.9"]), max_size=2),
    ),
    max_size=4,
)


@given(st.lists(RULES, max_size=6, unique_by=lambda r: r.slot), ACCESSES)
def test_whatever_is_there_the_steps_lead_to_what_is_wanted(have, accesses):
    want = wanted_rules(accesses, 4)
    try:
        steps = arrange(have, want)
    except ValueError:
        assert any(other.slot == r.slot and other.opens != r.opens for other in have for r in want if not other.is_ours)
        return
    found = after(have, steps)
    assert arrange(found, want) == []
    assert [r for r in found if not r.is_ours] == [r for r in have if not r.is_ours]
    assert len({r.slot for r in found}) == len(found)
    assert {r.slot for r in want} <= {r.slot for r in found}
    assert {r.slot for r in found if r.is_ours} <= {r.slot for r in want}
    # Where nobody else has a say, the outcome is exactly what was asked for.
    mine = [r for r in found if r.is_ours]
    if len(mine) == len(found):
        for port, source in itertools.product((22, 80, 9100, 9500), ("10.0.0.8", "10.0.0.9", "10.6.6.6")):
            networks = [n for a in accesses if a["port"] == str(port) for n in a["from"]]
            decisive = decide(Packet(source, HERE, port), found)
            if not any(a["port"] == str(port) for a in accesses):
                assert decisive is None
            else:
                assert decisive.opens == (source in networks or "any" in networks or ALL in networks)


@given(st.lists(RULES, max_size=6, unique_by=lambda r: r.slot), ACCESSES)
def test_no_step_writes_to_a_slot_of_others(have, accesses):
    try:
        steps = arrange(have, wanted_rules(accesses, 4))
    except ValueError:
        return
    others = {r.slot for r in have if not r.is_ours}
    assert not others & {step.rule.slot for step in steps}
