# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ufw as data: its rules, what they make of a packet, and what turns its state into the one wanted.

ufw keeps its rules in two lists, one for IPv4 and one for IPv6, and the first that matches decides. A rule of the same
ports and addresses as one that is there takes that one's place, whoever made it: such places are called slots here, and
one that somebody else's rule has is never written to. Nothing here touches a host.
"""

from __future__ import annotations

import ipaddress
import typing as t

# What ours are known by, in their comment.
OURS = "gpufleet: "
EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
ANY = "any"
OPEN, CLOSED = "ACCEPT", "DROP"

_TUPLE = "### tuple ### "
_MOST_PORTS = 15  # in one rule of iptables; a range counts as two


class Rule(t.NamedTuple):
    """A rule for one family of addresses, as the comment above it in user.rules or user6.rules has it."""

    action: str  # allow, limit, deny or reject; route:... for what is forwarded
    proto: str
    ports: str
    source: str
    destination: str
    direction: str = "in"  # or out; with an interface, in_eth0
    comment: str = ""
    logged: str = ""
    source_ports: str = "any"
    apps: str = ""

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.source else 4

    @property
    def slot(self) -> tuple[str, ...]:
        """What no two rules of ufw have in common."""
        forwarded = "route" if self.action.startswith("route:") else ""
        return (
            *(self.proto, self.ports, self.source, self.destination),
            *(self.direction, self.source_ports, self.apps, forwarded),
        )

    @property
    def is_ours(self) -> bool:
        """Whether this collection made it."""
        return self.comment.startswith(OURS)

    @property
    def opens(self) -> bool:
        """Whether it lets packets in; else, it keeps them out."""
        return self.action in ("allow", "limit")

    @property
    def is_for_all(self) -> bool:
        """Whether it is about packets from everywhere."""
        return self.source in EVERYWHERE.values()

    @property
    def words(self) -> list[str]:
        """The rule in ufw's command line. Only for ours, which are of the plain kind."""
        return [self.action, "proto", self.proto, "from", self.source, "to", "any", "port", self.ports]

    def __str__(self) -> str:
        source = "anywhere" if self.is_for_all else self.source
        return f"{self.action} {self.ports}/{self.proto} from {source}"


class Packet(t.NamedTuple):
    """The first packet of a TCP connection to this host."""

    source: str
    destination: str
    port: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.source else 4


def as_network(value: object) -> str:
    """Return a network in the one spelling that ufw gives it. Raises ValueError with the end of a sentence."""
    try:
        network = ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise ValueError("is no network") from None
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def parse_rules(text: str) -> list[Rule]:
    """Return the rules of a file user.rules or user6.rules."""
    lines = (line[len(_TUPLE) :] for line in text.splitlines() if line.startswith(_TUPLE))
    return [_parse_rule(line) for line in lines]


def _parse_rule(line: str) -> Rule:
    """ACTION[_log] PROTO PORT DESTINATION PORT SOURCE [APP APP] DIRECTION [comment=HEX]."""
    words, _, comment = line.partition(" comment=")
    try:
        action, proto, ports, destination, source_ports, source, *apps, direction = words.split()
        text = bytes.fromhex(comment).decode("utf-8", "replace")
    except ValueError:
        raise ValueError(f"ufw has a rule that cannot be understood: {line}") from None
    action, _, logged = action.partition("_")
    return Rule(action, proto, ports, source, destination, direction, text, logged, source_ports, " ".join(apps))


# -- what the rules make of a packet --------------------------------------------------------------


def decide(packet: Packet, rules: t.Iterable[Rule]) -> Rule | None:
    """Return the rule that decides about a packet, None where it is the policy.

    A rule for one interface, or for some source ports, does not count: whether it does is not known beforehand.
    """
    return next((rule for rule in rules if _concerns(rule, packet)), None)


def _concerns(rule: Rule, packet: Packet) -> bool:
    return (
        rule.direction == "in"
        and rule.source_ports == ANY
        and not rule.action.startswith("route:")
        and rule.proto in ("tcp", ANY)
        and have_in_common(rule.ports, str(packet.port))
        and has_address(rule.source, packet.source)
        and has_address(rule.destination, packet.destination)
    )


def have_in_common(ports: str, others: str) -> bool:
    """Whether two lists of ports, as rules have them, have a port in common."""
    if ANY in (ports, others):
        return True
    return any(low <= high2 and low2 <= high for low, high in _ranges(ports) for low2, high2 in _ranges(others))


def _ranges(ports: str) -> list[tuple[int, int]]:
    bounds = (part.partition(":") for part in ports.split(","))
    return [(int(low), int(high or low)) for low, _, high in bounds]


def has_address(network: str, address: str) -> bool:
    """Whether an address is in a network; never in one of the other family."""
    return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)


# -- the rules that are wanted --------------------------------------------------------------------


def wanted_rules(accesses: t.Iterable[t.Mapping[str, t.Any]], family: int) -> list[Rule]:
    """Return the rules that say who may reach which port: who may, and then that nobody else does.

    Ports that the same networks may reach share a rule, so that ufw's list stays short.
    """
    names: dict[tuple[str, str], dict[str, None]] = {}  # of (port, protocol)
    sources: dict[tuple[str, str], dict[str, None]] = {}
    for access in accesses:
        key = (str(access["port"]), access["proto"])
        names.setdefault(key, {})[access["name"]] = None
        sources.setdefault(key, {}).update(dict.fromkeys(access["from"]))
    opened: dict[tuple[str, str, str], list[str]] = {}  # of source, protocol, and name of what is open to all
    closed: dict[str, list[str]] = {}  # of protocol
    for (port, proto), found in sources.items():
        if ANY in found or EVERYWHERE[family] in found:
            opened.setdefault((EVERYWHERE[family], proto, next(iter(names[port, proto]))), []).append(port)
            continue
        for source in found:
            opened.setdefault((source, proto, ""), []).append(port)
        closed.setdefault(proto, []).append(port)
    rules = []
    for (source, proto, _), ports in opened.items():
        if (":" in source) == (family == 6):
            for some in _shares(ports):
                of = dict.fromkeys(name for port in some for name in names[port, proto])
                rules.append(_ours("allow", proto, some, source, ", ".join(of)))
    for proto, ports in closed.items():
        rules += [_ours("deny", proto, some, EVERYWHERE[family], "nobody else") for some in _shares(ports)]
    return rules


def _ours(action: str, proto: str, ports: t.Sequence[str], source: str, comment: str) -> Rule:
    destination = EVERYWHERE[6 if ":" in source else 4]
    return Rule(action, proto, ",".join(ports), source, destination, comment=OURS + comment)


def _shares(ports: t.Iterable[str]) -> list[list[str]]:
    """Return ports in order, as many together as one rule may have."""
    shares: list[list[str]] = []
    room = 0
    for port in sorted(ports, key=lambda port: int(port.partition(":")[0])):
        size = 2 if ":" in port else 1
        if size > room:
            shares.append([])
            room = _MOST_PORTS
        shares[-1].append(port)
        room -= size
    return shares


# -- what turns one list into the other -----------------------------------------------------------


class Step(t.NamedTuple):
    """One call of ufw. `position` counts from 1 within the family; 0 is the end, or the place that the rule has."""

    verb: str  # insert, change, delete
    rule: Rule
    position: int = 0


def take(step: Step, rules: list[Rule]) -> None:
    """Do a step in the rules of its family."""
    if step.verb == "insert":
        rules.insert(step.position - 1 if step.position else len(rules), step.rule)
        return
    index = next(index for index, other in enumerate(rules) if other.slot == step.rule.slot)
    rules[index : index + 1] = [step.rule] if step.verb == "change" else []


def count_rules(rules: t.Iterable[Rule]) -> int:
    """Return how many rules ufw counts: those of one application's profile are one."""
    return len({(*rule.slot[2:5], *rule.slot[6:]) if rule.apps else rule.slot for rule in rules})


def arrange(have: t.Sequence[Rule], want: t.Sequence[Rule]) -> list[Step]:
    """Return the steps from `have` to all of `want` and those in `have` that are not ours, in their order.

    What is for certain networks comes first, so that it holds whatever else is there, and what closes the ports to the
    rest comes right behind it. What is open to all comes last: whom others shut out, they mean to. In between, no port
    of `want` is closed to whom it was and will be open.

    Raises ValueError where somebody else's rule has a slot and says the opposite, or ufw has no way to say the place.
    """
    steps: list[Step] = []
    now = list(have)

    def place(rule: Rule, index: int) -> None:
        step = Step("insert", rule, index + 1 if index < len(now) else 0)
        if step.position > max(1, count_rules(now)):
            raise ValueError(f"'{rule}' has to go behind rules of application profiles, where ufw cannot insert it")
        take(step, now)
        steps.append(step)

    def remove(rule: Rule) -> None:
        steps.append(Step("delete", rule))
        take(steps[-1], now)

    def settle(rule: Rule, least: int, index: int) -> None:
        """See that the rule is there, or one of others that does the same, at `least` there; else put it at `index`."""
        there = next((other for other in now if other.slot == rule.slot), None)
        if there and not there.is_ours:
            if there.opens != rule.opens:
                raise ValueError(f"'{there}', which is not this collection's, is in the way of '{rule}'")
            return
        if there and (there.action != rule.action or now.index(there) < least):
            index -= now.index(there) < index
            remove(there)
            there = None
        if not there:
            place(rule, index)
        elif there != rule:  # another comment
            now[now.index(there)] = rule
            steps.append(Step("change", rule))

    for rule in want:
        if rule.opens and rule.is_for_all:
            settle(rule, 0, len(now))
    some = [rule for rule in want if rule.opens and not rule.is_for_all]
    for rule in reversed(some):
        settle(rule, 0, 0)
    slots = {rule.slot for rule in some}
    behind = max((index + 1 for index, rule in enumerate(now) if rule.slot in slots), default=0)
    for rule in reversed([rule for rule in want if not rule.opens]):
        settle(rule, behind, behind)
    slots = {rule.slot for rule in want}
    for rule in [rule for rule in now if rule.is_ours and rule.slot not in slots]:
        remove(rule)
    return steps
