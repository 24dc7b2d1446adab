# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to happen for a host's firewall to be as described. Nothing here touches a host."""

from __future__ import annotations

import typing as t

from .ufw import (
    ANY,
    CLOSED,
    OPEN,
    Packet,
    Rule,
    Step,
    arrange,
    as_network,
    decide,
    has_address,
    have_in_common,
    take,
    wanted_rules,
)

SSH = "ssh"
_WORDS = {OPEN: "allow", CLOSED: "deny", "REJECT": "reject"}


class FirewallError(Exception):
    """The firewall cannot be as described. The text is fit for a user."""


class Want(t.NamedTuple):
    """The firewall as it is to be. With ``present`` False, nothing of ours is to be there."""

    present: bool
    accesses: t.Sequence[t.Mapping[str, t.Any]] = ()
    ssh_ports: t.Sequence[int] = ()  # none: the one by which Ansible came
    ssh_from: t.Sequence[str] = (ANY,)
    closed: bool = False  # what no rule speaks of; else it stays as it is


def read_want(params: t.Mapping[str, t.Any]) -> Want:
    """Return what the module's parameters ask for. Raises FirewallError where a network is none."""
    accesses = [
        {**access, "from": _networks(f"the rule '{access['name']}'", access["from"])} for access in params["rules"]
    ]
    ssh_from = _networks("ssh_from (firewall_ssh_networks)", params["ssh_from"])
    return Want(params["state"] == "present", accesses, params["ssh_ports"], ssh_from, params["incoming"] == "deny")


def _networks(what: str, values: t.Sequence[str]) -> list[str]:
    try:
        return [value if value == ANY else as_network(value) for value in values]
    except ValueError as error:
        raise FirewallError(f"{what} has {list(values)}: one of them {error} and not {ANY}") from None


class State(t.NamedTuple):
    """A host's ufw. ``before`` is what an earlier run found and changed: enabled, incoming, routed."""

    rules: t.Mapping[int, t.Sequence[Rule]]  # by family
    installed: bool = True
    enabled: bool = False
    at_boot: str = "enabled"  # systemd's word for whether it is started at boot
    flushed: tuple[int, ...] = ()  # families whose rules somebody has taken out of the kernel
    incoming: str = CLOSED
    outgoing: str = OPEN
    routed: str = CLOSED
    ipv6: bool = True
    builtins: bool = False  # whether ufw empties what is not its own
    # What there is without it. Only where it is off.
    has_ipv6: bool = True
    handmade: tuple[str, ...] = ()  # rules and policies that somebody has set up by iptables
    sysctl: t.Mapping[str, str] = {}  # settings of the kernel that ufw would change
    forward: t.Mapping[str, str] = {}  # what the kernel does with forwarded packets now, by iptables and ip6tables
    before: t.Mapping[str, t.Any] = {}


class Plan(t.NamedTuple):
    """The difference between Want and State. Empty when there is none."""

    install: bool = False
    steps: tuple[Step, ...] = ()
    policies: tuple[tuple[str, str], ...] = ()  # ("incoming", "deny"), ("routed", "allow")
    reload: bool = False
    enable: bool | None = None
    warnings: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """True when the host is not as described."""
        return self._replace(warnings=()) != Plan()


def make_plan(want: Want, have: State, connection: Packet | None) -> Plan:
    """Return what turns ``have`` into ``want``. Raises FirewallError where ``connection`` would not be let in then."""
    plan = _presence(want, have, connection) if want.present else _absence(have)
    stays_on = plan.enable is True or (have.enabled and plan.enable is None)
    if connection and plan.changes and stays_on:
        _check_connection(want, have, plan, connection)
    return plan


def _presence(want: Want, have: State, connection: Packet | None) -> Plan:
    ports = want.ssh_ports or ([connection.port] if connection else [])
    if not ports:
        raise FirewallError(
            "Ansible did not come by SSH, so it is not known by which port you get into this host: set"
            " firewall_ssh_ports"
        )
    _check_usable(have)
    ssh = [{"name": SSH, "port": str(port), "proto": "tcp", "from": want.ssh_from} for port in ports]
    families = (4, 6) if have.ipv6 else (4,)
    wanted = {family: wanted_rules([*ssh, *want.accesses], family) for family in families}
    steps: list[Step] = []
    for family, rules in wanted.items():
        try:
            steps += arrange(have.rules[family], rules)
        except ValueError as error:
            raise FirewallError(f"{error}. Delete that rule, or make the two agree") from None
    plan = Plan(
        install=not have.installed,
        steps=tuple(steps),
        policies=_policies(want, have),
        reload=bool(have.flushed),
        enable=None if have.enabled else True,
    )
    then = outcome(have, plan)
    open_ones = [line for family in families for line in _too_open(then[family], wanted[family])]
    return plan._replace(warnings=(*_revived(have), *open_ones))


def _policies(want: Want, have: State) -> tuple[tuple[str, str], ...]:
    """What no rule speaks of stays as it is. Where ufw was off, that is open, whatever ufw had in mind."""
    incoming, routed = have.incoming, have.routed
    if not have.enabled:
        incoming, routed = OPEN, have.forward.get("iptables", OPEN)
    if want.closed and incoming == OPEN:
        incoming = have.incoming if have.incoming != OPEN else CLOSED
    return _changed(have, incoming, routed)


def _changed(have: State, incoming: str, routed: str) -> tuple[tuple[str, str], ...]:
    policies = [("incoming", have.incoming, incoming), ("routed", have.routed, routed)]
    return tuple((name, _WORDS[after]) for name, before, after in policies if before != after)


def _absence(have: State) -> Plan:
    """Take away what is ours. ufw is switched off where it was off, unless somebody else has put rules into it."""
    if not have.installed:
        return Plan()
    steps = tuple(Step("delete", rule) for family in (4, 6) for rule in have.rules[family] if rule.is_ours)
    before = have.before
    if not before.get("enabled", True) and set(others(have)) - set(before.get("others", ())):
        return Plan(steps=steps, warnings=("ufw stays on, as it is: it has rules that are not this collection's",))
    policies = _changed(have, before.get("incoming", have.incoming), before.get("routed", have.routed))
    return Plan(steps=steps, policies=policies, enable=False if not before.get("enabled", True) else None)


# -- what must not be, and what ought not ---------------------------------------------------------


def outcome(have: State, plan: Plan) -> dict[int, list[Rule]]:
    """Return ufw's rules after ``plan``."""
    rules = {family: list(found) for family, found in have.rules.items()}
    for step in plan.steps:
        take(step, rules[step.rule.family])
    return rules


def others(have: State) -> list[str]:
    """Return the rules that are not ours."""
    return [" ".join((rule.action, *rule.slot)) for rules in have.rules.values() for rule in rules if not rule.is_ours]


def _check_usable(have: State) -> None:
    """Refuse a ufw that would not do what is expected of it. Raises FirewallError with the remedy."""
    if have.at_boot in ("disabled", "masked"):
        raise FirewallError(
            f"ufw.service is {have.at_boot}, so that the firewall would be gone after a reboot:"
            " systemctl unmask ufw && systemctl enable ufw"
        )
    for fault, text in _faults_of_switching_on(have) if not have.enabled else ():
        if fault:
            raise FirewallError(text)


def _faults_of_switching_on(have: State) -> t.Iterator[tuple[bool, str]]:
    yield (
        bool(have.handmade),
        f"this host has a firewall of its own, which ufw would undo or be undone by: {'; '.join(have.handmade)}. Take"
        " it away (iptables -P INPUT ACCEPT, iptables -D ...), and say what it did in firewall_extra_rules and"
        " firewall_incoming, or leave firewall_enabled off here",
    )
    yield (
        have.has_ipv6 and not have.ipv6,
        "ufw closes all of IPv6 on this host, which has it in use: set IPV6=yes in /etc/default/ufw",
    )
    yield (
        have.outgoing != OPEN,
        "ufw would close this host's own connections to others, by DEFAULT_OUTPUT_POLICY in /etc/default/ufw: ufw"
        " default allow outgoing",
    )
    yield (
        have.builtins,
        "ufw would empty tables that others rely on, such as Docker: set MANAGE_BUILTINS=no in /etc/default/ufw",
    )
    yield (
        have.forward.get("iptables", OPEN) == OPEN and have.forward.get("ip6tables", OPEN) != OPEN,
        "forwarded packets are let through for IPv4 and dropped for IPv6, and ufw has one policy for both: give FORWARD"
        " the same one in iptables and ip6tables",
    )


def _check_connection(want: Want, have: State, plan: Plan, connection: Packet) -> None:
    """Refuse what would cut the way by which Ansible came."""
    way = f"Ansible came from {connection.source} by port {connection.port}"
    if connection.family == 6 and not have.ipv6:
        raise FirewallError(f"{way}, and ufw closes all of IPv6 on this host: set IPV6=yes in /etc/default/ufw")
    rule = decide(connection, outcome(have, plan)[connection.family])
    policy = dict(plan.policies).get("incoming", _WORDS[have.incoming])
    if rule.opens if rule else policy == _WORDS[OPEN]:
        return
    if want.present:
        raise FirewallError(f"{way}, which would be closed{_why_closed(want, rule, connection)}")
    # It may come in by what is not in ufw's list of rules, and then needs none of ours.
    decisive = decide(connection, have.rules[connection.family])
    if decisive.is_ours if decisive else have.incoming == OPEN:
        raise FirewallError(f"{way}, which only this collection's rule lets in: ufw allow {connection.port}/tcp")


def _why_closed(want: Want, rule: Rule | None, connection: Packet) -> str:
    if want.ssh_ports and connection.port not in want.ssh_ports:
        return ": firewall_ssh_ports does not have it"
    if rule and not rule.is_ours:
        return f" by ufw's own rule '{rule}'"
    if any(network == ANY or has_address(network, connection.source) for network in want.ssh_from):
        return f" by '{rule}', which stands for a range in firewall_extra_rules: leave that port out of it"
    return ": firewall_ssh_networks does not have that address"


def _revived(have: State) -> t.Iterator[str]:
    if have.enabled:
        return
    if found := others(have):
        yield f"ufw was off: {len(found)} rules in it that are not this collection's take effect with it"
    if have.forward.get("iptables", OPEN) != OPEN and have.forward.get("ip6tables") == OPEN:
        yield "forwarded packets of IPv6 are dropped from now on, as those of IPv4 are: ufw has one policy for both"


def _too_open(rules: t.Sequence[Rule], wanted: t.Sequence[Rule]) -> t.Iterator[str]:
    """Say which rules of others stand in front of ours and open what these close."""
    slots = {rule.slot for rule in wanted}
    closing = [(index, rule) for index, rule in enumerate(rules) if rule.is_ours and not rule.opens]
    for index, closed in closing:
        for rule in rules[:index]:
            foreign = rule.opens and not rule.is_ours and rule.slot not in slots and rule.direction.startswith("in")
            if foreign and rule.proto in (closed.proto, ANY) and have_in_common(rule.ports, closed.ports):
                yield f"'{rule}' in ufw is not this collection's, and opens what the inventory does not"


# -- in words -------------------------------------------------------------------------------------


def summary(plan: Plan) -> list[str]:
    """Return the plan, one line a change."""
    lines = ["install ufw"] if plan.install else []
    lines += [f"{verb} {rule}" for verb, rule, _ in plan.steps]
    lines += [f"{name} packets: {word}" for name, word in plan.policies]
    lines += ["reload ufw"] if plan.reload else []
    return lines + ([] if plan.enable is None else ["enable ufw" if plan.enable else "disable ufw"])


def text(have: State, rules: t.Mapping[int, t.Sequence[Rule]], plan: Plan | None = None) -> str:
    """Return the firewall for Ansible's diff, as it is or, with ``plan``, will be."""
    enable = plan.enable if plan and plan.enable is not None else have.enabled
    policies = {"incoming": _WORDS[have.incoming], "routed": _WORDS[have.routed], **dict(plan.policies if plan else ())}
    head = [f"ufw {'on' if enable else 'off'}", *(f"{name} packets: {word}" for name, word in policies.items())]
    named = [f"{rule}{f'  # {rule.comment}' if rule.comment else ''}" for family in (4, 6) for rule in rules[family]]
    return "\n".join([*head, *named]) + "\n"
