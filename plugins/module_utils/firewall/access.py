# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who may reach which port of a host, as the inventory has it.

Like Prometheus' targets, this is a function of `groups` and `hostvars` alone: no facts and no connection. What is
scraped is open to the masters; what masters serve to people, and all else, is in a table.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..inventory import (
    MASTERS,
    WORKERS,
    Faults,
    Groups,
    HostVars,
    Reader,
    Table,
    did_you_mean,
    is_loopback,
    parse_jobs,
    plain,
    read_hosts,
)
from .ufw import as_network

ANYBODY = "any"
SOURCES = "firewall_source_addresses"

# A port, and the networks that it is open to; it is closed to all others.
Access = t.TypedDict("Access", {"name": str, "port": str, "proto": str, "from": list[str]})

_PORTS = re.compile("([0-9]{1,5})(?::([0-9]{1,5}))?")


@dataclass(frozen=True)
class _Service:
    """One row of the table, or what stands for one: ports of some hosts, and who may reach them."""

    name: str
    ports: tuple[str, ...]
    sources: tuple[str, ...]  # networks, groups, ANYBODY
    proto: str = "tcp"
    groups: tuple[str, ...] | None = None  # None: of every host


def firewall_rules(
    groups: Groups, hostvars: HostVars, host: str, jobs: object, services: object, admins: object = None
) -> list[Access]:
    """Return who may reach which port of `host`, each port of a service once.

    `jobs` is the table of scrape jobs, whose ports are open to the masters and to the networks `admins`. `services` is
    a table of further ports. Raises InventoryError with all that is wrong.
    """
    faults = Faults()
    wanted = [
        *_scraped(groups, hostvars, host, jobs, _networks("firewall_admin_networks", admins or [], faults), faults),
        *(row for row in _parse_table(services, groups, faults) if _is_in(host, row.groups, groups)),
    ]
    sources = _Sources(groups, hostvars, host, faults)
    sources.check_families()
    found: dict[tuple[str, str, str], dict[str, None]] = {}
    for service in wanted:
        networks = sources.networks(service)
        for port in service.ports:
            found.setdefault((service.name, port, service.proto), {}).update(networks)
    faults.report()
    return [
        {"name": name, "port": port, "proto": proto, "from": list(networks)}
        for (name, port, proto), networks in found.items()
    ]


def _scraped(
    groups: Groups, hostvars: HostVars, host: str, jobs: object, admins: Sequence[str], faults: Faults
) -> list[_Service]:
    """Return what Prometheus scrapes here. Who is reached over the loopback device alone needs no rule."""
    table = parse_jobs(jobs, groups, faults)
    # Of all the hosts, this one is read.
    own = {group: [host] for group, members in groups.items() if host in members}
    described = read_hosts(own, hostvars, table, faults).get(host)
    endpoints = described.endpoints if described else {}
    return [
        _Service(job, (str(endpoint.port),), (MASTERS, *admins))
        for job, endpoint in endpoints.items()
        if not is_loopback(endpoint.bind_address)
    ]


def _is_address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False  # a name, or nothing


def _is_in(host: str, names: Sequence[str] | None, groups: Groups) -> bool:
    return names is None or any(host in groups.get(name, ()) for name in names)


# -- sources -------------------------------------------------------------------------------------


class _Sources:
    """Turns what a table says of sources into networks, as `host` sees them."""

    def __init__(self, groups: Groups, hostvars: HostVars, host: str, faults: Faults) -> None:
        self._groups = groups
        self._hostvars = hostvars
        self._host = host
        self._faults = faults
        self._known: dict[str, tuple[str, ...]] = {}

    def networks(self, service: _Service) -> dict[str, None]:
        """Return the networks that a service is open to, each once."""
        found: dict[str, None] = {}
        for source in service.sources:
            if source in self._groups:
                # A host reaches itself over the loopback device, which is always open.
                others = (str(name) for name in self._groups[source] if name != self._host)
                found.update(dict.fromkeys(network for name in others for network in self._of_host(name)))
            else:
                found[source] = None
        return {ANYBODY: None} if ANYBODY in found else found

    def check_families(self) -> None:
        """See that masters are known by addresses of the family by which they reach this host."""
        here = self._hostvars[self._host]
        host = read_hosts({WORKERS: [self._host]}, {self._host: here}, [], Faults())[self._host]
        address = host.address or host.ansible_address
        for name in map(str, self._groups.get(MASTERS, ())):
            known = self._of_host(name) if name != self._host else ()
            if known and _is_address(address) and all((":" in network) != (":" in address) for network in known):
                self._faults.add(
                    f"it reaches {self._host} at {address}, and is known to come from {', '.join(known)} alone, of the"
                    f" other family: set {SOURCES} to addresses of both",
                    name,
                )

    def _of_host(self, name: str) -> tuple[str, ...]:
        if name not in self._known:
            reader = Reader(name, self._hostvars[name], self._faults)
            given = reader.get(SOURCES, _as_networks, ())  # None where it is not sound
            self._known[name] = self._reached_at(name) if given == () else given or ()
        return self._known[name]

    def _reached_at(self, name: str) -> tuple[str, ...]:
        """Return the address at which a host is reached, since most come from where they are."""
        host = read_hosts({WORKERS: [name]}, self._hostvars, [], self._faults)[name]
        address = host.address or host.ansible_address
        try:
            if not ipaddress.ip_address(address).is_loopback:
                return (address,)
        except ValueError:
            pass  # a name, or nothing
        self._faults.add(
            f"{f'its address is {address}' if address else 'it has no address'}, and a firewall knows a host by the"
            f" IP addresses that its connections come from: set {SOURCES} to a list of them",
            name,
        )
        return ()


# -- the table -----------------------------------------------------------------------------------


def _parse_table(services: object, groups: Groups, faults: Faults) -> list[_Service]:
    """Return the sound rows of the table; what is wrong with the others goes to `faults`."""

    def check(subject: str, values: dict[str, t.Any], own: Faults) -> None:
        values["from"] = tuple(_parse_source(source, groups, subject, own) for source in values.get("from", ()))

    return [_service(values) for values in _SERVICES.read(services, faults, check)]


def _service(values: t.Mapping[str, t.Any]) -> _Service:
    return _Service(values["name"], values["ports"], values["from"], values.get("proto", "tcp"), values.get("groups"))


def _parse_source(source: str, groups: Groups, subject: str, faults: Faults) -> str:
    if source == ANYBODY or source in groups:
        return source
    try:
        return as_network(source)
    except ValueError as error:
        hint = did_you_mean(source, [*groups, ANYBODY])
        faults.add(f"{subject}: from has '{source}', which {error}, no group and not {ANYBODY}{hint}")
        return source


def _as_name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch("[a-zA-Z0-9][a-zA-Z0-9 _.-]*", value):
        raise ValueError("must be a name of letters, digits, blanks, _, . and -")
    return str(value)


def _as_words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError("must be a list of strings")
    return tuple(str(word) for word in value)


def _as_ports(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of ports")
    return tuple(_as_port(port) for port in value)


def _as_port(value: object) -> str:
    match = _PORTS.fullmatch(str(value)) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
    numbers = [int(number) for number in match.groups() if number] if match else []
    if not numbers or not 0 < numbers[0] <= numbers[-1] < 65536 or (len(numbers) == 2 and numbers[0] == numbers[1]):
        raise ValueError("must have numbers from 1 to 65535, or ranges such as '6000:6010'")
    return ":".join(str(number) for number in numbers)


def _as_proto(value: object) -> str:
    if value not in ("tcp", "udp"):
        raise ValueError("must be tcp or udp")
    return str(value)


def _as_networks(value: object) -> tuple[str, ...]:
    try:
        return tuple(as_network(network) for network in _as_words(value))
    except ValueError:
        raise ValueError("must be a list of IP addresses and networks") from None


def _networks(what: str, value: object, faults: Faults) -> tuple[str, ...]:
    try:
        return _as_networks(plain(value))
    except ValueError as error:
        faults.add(f"{what} {error}")
        return ()


_KEYS: dict[str, Callable[[object], t.Any]] = {
    "name": _as_name,
    "groups": _as_words,
    "ports": _as_ports,
    "proto": _as_proto,
    "from": _as_words,
}
_SERVICES = Table("the firewall's table of services", "firewall service", _KEYS, ("name", "ports", "from"))
