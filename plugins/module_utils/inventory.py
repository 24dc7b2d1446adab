# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an inventory says is to be scraped, and what is wrong with what it says.

Everything here is a function of Ansible's `groups` and `hostvars` and of a table of scrape jobs: no facts and no
connection, so a host that is down, or outside of `--limit`, keeps its targets. What is wrong is collected and
raised at once, as one InventoryError, so that an operator edits the inventory once.

Nothing here imports Ansible. `hostvars` is any mapping of host names to mappings of variables; reading a variable
may raise whatever it likes, as Ansible's does when a template fails.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import typing as t
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

WORKERS = "gpu_workers"
MASTERS = "monitoring_master"
THRESHOLDS = "gpufleet_alert_thresholds"
TLS = "gpufleet_tls"

Groups = Mapping[str, Sequence[str]]
HostVars = Mapping[str, Mapping[str, t.Any]]

_LINES = 20  # of an error; a typo in group_vars must not scroll its own cause away
_NAMED_HOSTS = 3  # in one line of an error

_JOB_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]*")
_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_RESERVED_LABELS = ("instance", "job")
_DURATION = re.compile(r"([0-9]+(ms|[smhdwy]))+")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
# With a letter in it, so that 10.0.0.256 is no name.
_HOST_NAME = re.compile(r"(?=.*[a-zA-Z])[a-zA-Z0-9_]([a-zA-Z0-9_.-]*[a-zA-Z0-9_.])?")
_WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 (it is compared with, not bound to)


class InventoryError(Exception):
    """An inventory that cannot be used. `faults` has one line for each thing wrong; the text is fit for a user."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        head = "The inventory has 1 fault:" if len(faults) == 1 else f"The inventory has {len(faults)} faults:"
        more = [f"... and {len(faults) - _LINES} more"] if len(faults) > _LINES else []
        super().__init__("\n".join([head, *(f"- {fault}" for fault in faults[:_LINES]), *more]))


class Faults:
    """Messages and the hosts that they are about; what is the same on many hosts becomes one line."""

    def __init__(self) -> None:
        self._hosts: dict[str, dict[str, None]] = {}

    def add(self, message: str, *hosts: str) -> None:
        """Note `message`, of `hosts` or, without any, of the inventory as a whole."""
        self._hosts.setdefault(message, {}).update(dict.fromkeys(hosts))

    def lines(self) -> list[str]:
        """Return one line for each message, in the order in which they came."""
        return [f"{_enumerate(list(hosts))}: {text}" if hosts else text for text, hosts in self._hosts.items()]

    def report(self) -> None:
        """Raise InventoryError if there was anything."""
        if self._hosts:
            raise InventoryError(self.lines())


@dataclass(frozen=True)
class Job:
    """One row of the table: a service that Prometheus scrapes on each host of some groups."""

    name: str
    groups: tuple[str, ...]
    port: int
    exporter: bool  # chosen by a host's gpufleet_exporters
    bind_address: str  # where the service listens by default; empty means everywhere
    scheme: str = ""  # where the table says so; empty leaves it to the host

    @property
    def port_variable(self) -> str:
        """The host variable, of the service's own role, that moves the port."""
        return self.name.replace("-", "_") + "_port"

    @property
    def state_variable(self) -> str:
        """The host variable, of the service's own role, that says whether it runs there."""
        return self.name.replace("-", "_") + "_state"

    @property
    def bind_variable(self) -> str:
        """The host variable, of the service's own role, that says where it listens."""
        return self.name.replace("-", "_") + "_bind_address"


@dataclass(frozen=True)
class Endpoint:
    """Where one job's service listens on one host."""

    port: int
    bind_address: str


@dataclass(frozen=True)
class Host:
    """What a host's variables say about scraping it. An empty address was not given."""

    name: str
    is_master: bool
    address: str  # gpufleet_address: where Prometheus reaches it, whatever else is said
    ansible_address: str  # where Ansible does
    tls: bool  # whether its exporters speak TLS, and to holders of certificates alone
    labels: dict[str, str]
    endpoints: dict[str, Endpoint] = field(repr=False)  # by job
    thresholds: dict[str, t.Any] = field(repr=False)  # of alerts, those that are the host's own
    variables: tuple[str, ...] = field(repr=False)  # the names of all of its variables


class Target(t.TypedDict):
    """One entry of Prometheus' file_sd format."""

    targets: list[str]
    labels: dict[str, str]


@dataclass(frozen=True)
class Report:
    """What a sound inventory describes: hosts, targets by job, and what may still be a mistake."""

    hosts: int
    targets: dict[str, int]
    warnings: list[str]
    thresholds: dict[str, dict[str, t.Any]]  # of each host, those of alerts that are its own


def scrape_targets(
    groups: Groups, hostvars: HostVars, jobs: object, master: str | None = None
) -> dict[str, list[Target]]:
    """Return each job's targets, as the Prometheus on `master` reaches them.

    `jobs` is the table, a list of dictionaries. `master` is by default the first host of monitoring_master. Every
    job is in the result, with an empty list where no host has it; targets are in the order of the job's groups and
    of the hosts in them. Raises InventoryError with all that is wrong.
    """
    faults = Faults()
    table = parse_jobs(jobs, groups, faults)
    hosts = read_hosts(groups, hostvars, table, faults)
    targets = find_targets(groups, hosts, table, master or _first(groups.get(MASTERS, ())), faults)
    faults.report()
    return targets


def alert_thresholds(groups: Groups, hostvars: HostVars, jobs: object, defaults: object) -> dict[str, dict[str, t.Any]]:
    """Return of each host those thresholds of alerts that it has of its own.

    `defaults` are the thresholds of all others. Raises InventoryError with all that is wrong.
    """
    faults = Faults()
    hosts = read_hosts(groups, hostvars, parse_jobs(jobs, groups, faults), faults)
    check_thresholds(hosts.values(), defaults, faults)
    faults.report()
    return {name: host.thresholds for name, host in hosts.items()}


def check_inventory(
    groups: Groups,
    hostvars: HostVars,
    jobs: object,
    specs: Mapping[str, t.Any],
    source: str = "",
    thresholds: object = None,
) -> Report:
    """Check all of an inventory that the collection's roles and scrape_targets depend on.

    `specs` maps the collection's roles to the contents of their meta/argument_specs.yml; `source` is what the user
    calls the inventory; `thresholds` are the thresholds of alerts, as far as hosts say nothing else. Raises
    InventoryError with all that is wrong.
    """
    faults = Faults()
    _check_groups(groups, source, faults)
    table = parse_jobs(jobs, groups, faults)
    hosts = read_hosts(groups, hostvars, table, faults)
    masters: Sequence[str | None] = groups.get(MASTERS) or [None]
    targets = [find_targets(groups, hosts, table, master, faults) for master in masters]
    warnings = _check_names(hosts.values(), table, specs, faults)
    if thresholds is not None:
        check_thresholds(hosts.values(), thresholds, faults)
    faults.report()
    return Report(
        len(hosts),
        {job: len(found) for job, found in targets[0].items()},
        warnings,
        {name: host.thresholds for name, host in hosts.items()},
    )


# -- the table of jobs ---------------------------------------------------------------------------


# Of a whole row: how messages call it, its values, and its faults, to which to add what keys alone do not say.
RowCheck = Callable[[str, "dict[str, t.Any]", Faults], None]


@dataclass(frozen=True)
class Table:
    """A variable that has a list of rows, and how the value of each of their keys is read."""

    title: str  # as messages have it: "the table of scrape jobs"
    row: str  # "scrape job"
    keys: Mapping[str, Callable[[object], t.Any]]  # they raise ValueError with the end of a sentence
    required: tuple[str, ...]  # the first one is the row's name

    def read(self, value: object, faults: Faults, check: RowCheck) -> list[dict[str, t.Any]]:
        """Return the sound rows, each as its values by key; what is wrong with the others goes to `faults`."""
        try:
            rows = plain(value)
        except Exception as error:  # a template that fails
            faults.add(f"{self.title} cannot be evaluated: {error}")
            return []
        if not isinstance(rows, list):
            faults.add(f"{self.title} must be a list, not {kind_of(rows)}")
            return []
        found = (self._read_row(number, row, faults, check) for number, row in enumerate(rows, 1))
        return [values for values in found if values is not None]

    def _read_row(self, number: int, row: object, faults: Faults, check: RowCheck) -> dict[str, t.Any] | None:
        if not isinstance(row, dict):
            faults.add(f"{self.row} number {number} must be a dictionary, not {kind_of(row)}")
            return None
        name = row.get(self.required[0])
        subject = f"{self.row} {name}" if isinstance(name, str) else f"{self.row} number {number}"
        own = Faults()
        for key in row:
            if key not in self.keys:
                own.add(f"{subject}: there is no key {key}{did_you_mean(str(key), self.keys)}")
        values = {}
        for key, convert in self.keys.items():
            try:
                if key in row:
                    values[key] = convert(row[key])
                elif key in self.required:
                    raise ValueError("is missing")
            except ValueError as error:
                own.add(f"{subject}: {key} {error}")
        check(subject, values, own)
        for line in own.lines():
            faults.add(line)
        return None if own.lines() else values


def parse_jobs(jobs: object, groups: Groups, faults: Faults) -> list[Job]:
    """Return the sound rows of the table; what is wrong with the others goes to `faults`."""

    def check(subject: str, values: dict[str, t.Any], own: Faults) -> None:
        # A group without hosts is fine, and so is one that this inventory has no use for; a misspelt one is not.
        for group in values.get("groups", ()):
            if group not in groups and (hint := did_you_mean(group, groups)):
                own.add(f"{subject}: there is no group {group}{hint}")

    table = [_job(values) for values in _JOBS.read(jobs, faults, check)]
    names = [job.name for job in table]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        faults.add(f"scrape job {name} is in the table more than once")
    return table


def _job(values: Mapping[str, t.Any]) -> Job:
    return Job(
        values["job"],
        values["groups"],
        values["port"],
        values.get("exporter", False),
        values.get("bind_address", ""),
        values.get("scheme", ""),
    )


# -- the hosts -----------------------------------------------------------------------------------


def read_hosts(groups: Groups, hostvars: HostVars, table: Sequence[Job], faults: Faults) -> dict[str, Host]:
    """Return the hosts that the groups of the table, and our own, have; what is wrong with them goes to `faults`."""
    jobs: dict[str, list[Job]] = {name: [] for name in members_of(groups, (WORKERS, MASTERS))}
    for job in table:
        for name in members_of(groups, job.groups):
            jobs.setdefault(name, []).append(job)
    exporters = [job.name for job in table if job.exporter]
    masters = frozenset(groups.get(MASTERS, ()))
    # Ansible merges all of a host's variables each time that hostvars is asked for it: it is asked once.
    return {
        name: _read_host(Reader(name, hostvars[name], faults), name in masters, own, exporters)
        for name, own in jobs.items()
    }


def _read_host(reader: Reader, is_master: bool, jobs: Sequence[Job], exporters: Sequence[str]) -> Host:
    chosen = reader.exporters(exporters)
    address = reader.get("gpufleet_address", _as_address, "")
    ansible_address = "" if address else reader.get("ansible_host", _as_address, _address_in(reader.name))
    endpoints = {}
    for job in jobs:
        port = reader.get(job.port_variable, _as_port, job.port)
        bind_address = reader.get(job.bind_variable, _as_bind_address, job.bind_address)
        if reader.get(job.state_variable, plain, "started") != "started":
            continue
        # What is unsound has been noted; to go on with it would only add faults that follow from it.
        if (not job.exporter or job.name in chosen) and None not in (address, ansible_address, port, bind_address):
            endpoints[job.name] = Endpoint(port, bind_address)
    tls = bool(reader.get(TLS, _as_switch, False))
    return Host(
        reader.name,
        is_master,
        address,
        ansible_address,
        tls,
        reader.labels(),
        endpoints,
        reader.thresholds(),
        tuple(reader.variables),
    )


class Reader:
    """Reads one host's variables, and notes what is wrong with them."""

    def __init__(self, name: str, variables: Mapping[str, t.Any], faults: Faults) -> None:
        self.name = name
        self.variables = variables
        self.faults = faults

    def get(self, variable: str, convert: Callable[[object], t.Any], default: t.Any) -> t.Any:
        """Return the converted value of `variable`, `default` where it is not set, None where it is not sound."""
        if variable not in self.variables:
            return default
        try:
            value = plain(self.variables[variable])
        except Exception as error:  # a template that fails, with an exception of Ansible's or Jinja's
            self.faults.add(f"{variable} cannot be evaluated: {error}", self.name)
            return None
        return self._convert(variable, convert, value)

    def labels(self) -> dict[str, str]:
        """Return what gpufleet_labels says, without the labels that are not sound or, as in Prometheus, empty."""
        labels: dict[str, t.Any] = self.get("gpufleet_labels", _as_dictionary, {}) or {}
        return {
            name: text
            for name, value in labels.items()
            if self._convert("gpufleet_labels", _as_label_name, name)
            and (text := self._convert(f"label {name} of gpufleet_labels", _as_label_value, value))
        }

    def thresholds(self) -> dict[str, t.Any]:
        """Return what gpufleet_alert_thresholds says, and the number of GPUs that the host should have."""
        found = dict(self.get(THRESHOLDS, _as_dictionary, {}) or {})
        expected = self.get("gpufleet_gpus_expected", _as_count, None)
        return found if expected is None else {**found, "gpus_expected": expected}

    def exporters(self, known: Sequence[str]) -> Sequence[str]:
        """Return what gpufleet_exporters says; by default, all that are `known`."""
        chosen: Sequence[str] = self.get("gpufleet_exporters", _as_names, known) or ()
        for name in chosen:
            if name not in known:
                hint = did_you_mean(name, known)
                self.faults.add(
                    f"gpufleet_exporters has '{name}', which is no exporter (there are: {', '.join(known)}){hint}",
                    self.name,
                )
        return chosen

    def _convert(self, subject: str, convert: Callable[[object], t.Any], value: object) -> t.Any:
        try:
            return convert(value)
        except ValueError as error:
            self.faults.add(f"{subject} {error}", self.name)
            return None


# -- the targets ---------------------------------------------------------------------------------


def find_targets(
    groups: Groups, hosts: Mapping[str, Host], table: Sequence[Job], master: str | None, faults: Faults
) -> dict[str, list[Target]]:
    """Return each job's targets as `master` reaches them; what is out of its reach goes to `faults`."""
    return {job.name: _find_job_targets(groups, hosts, job, master, faults) for job in table}


def _find_job_targets(
    groups: Groups, hosts: Mapping[str, Host], job: Job, master: str | None, faults: Faults
) -> list[Target]:
    found: dict[str, list[Host]] = {}
    for name in members_of(groups, job.groups):
        host = hosts[name]
        if job.name not in host.endpoints:
            continue
        try:
            address = _address(host, job, master)
        except ValueError as error:
            faults.add(str(error), name)
            continue
        if address:
            port = host.endpoints[job.name].port
            target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            found.setdefault(target, []).append(host)
            scraper = hosts.get(master or "")
            if speaks_tls(job, host) and scraper and not scraper.tls:
                faults.add(f"{TLS} is true here, but not for {master}, which then has no certificate to show", name)
    for target, owners in found.items():
        if len(owners) > 1:
            faults.add(
                f"{target} is the target of job {job.name} for all of them; give each host an ansible_host or"
                f" gpufleet_address of its own, or a {job.port_variable}",
                *(host.name for host in owners),
            )
    return [
        {"targets": [target], "labels": {"instance": host.name, **_scheme(job, host), **host.labels}}
        for target, owners in found.items()
        for host in owners
    ]


def speaks_tls(job: Job, host: Host) -> bool:
    """Say whether a job is scraped by TLS on a host: exporters are, unless the table says otherwise."""
    return job.exporter and host.tls and not job.scheme


def _scheme(job: Job, host: Host) -> dict[str, str]:
    """Return the label by which Prometheus knows, host by host: a fleet need not change over all at once."""
    return {"__scheme__": "https"} if speaks_tls(job, host) else {}


def scraped_addresses(groups: Groups, hostvars: HostVars, jobs: object, host: str) -> list[str]:
    """Return the addresses at which the masters scrape `host` by TLS, each once. Of all workers, it alone is read."""
    unheard = Faults()  # whoever makes the targets says what is wrong
    table = parse_jobs(jobs, groups, unheard)
    own = {group: [host] for group, members in groups.items() if host in members}
    found: dict[str, None] = {}
    for described in read_hosts(own, hostvars, table, unheard).values():
        for job in table:
            if job.name in described.endpoints and speaks_tls(job, described):
                for master in groups.get(MASTERS, ()):
                    try:
                        found[_address(described, job, master)] = None
                    except ValueError as error:
                        unheard.add(str(error), host)
    return [address for address in found if address]


def _address(host: Host, job: Job, master: str | None) -> str:
    """Return the address at which `master` reaches `job` on `host`; empty if that is left to another master.

    Raises ValueError where it cannot.
    """
    endpoint = host.endpoints[job.name]
    scraper = master or "the master"
    address = host.address or ("" if endpoint.bind_address in _WILDCARDS else endpoint.bind_address)
    address = address or host.ansible_address
    if is_loopback(endpoint.bind_address):
        if host.name != master and host.is_master:
            return ""  # its own Prometheus scrapes it
        if host.name != master:
            raise ValueError(f"{job.bind_variable} is {endpoint.bind_address}, so {scraper} cannot scrape it")
        address = endpoint.bind_address
    elif host.name == master and (not address or is_loopback(address)):
        address = "127.0.0.1"
    elif not address:
        raise ValueError(
            "has no address: set ansible_host or gpufleet_address"
            " (its short name may be an alias that only SSH on the controller knows)"
        )
    elif is_loopback(address):
        raise ValueError(
            f"its address is {address}, where {scraper} would find itself:"
            f" set gpufleet_address to one at which {scraper} reaches it"
        )
    return address


# -- groups and names ----------------------------------------------------------------------------


def _check_groups(groups: Groups, source: str, faults: Faults) -> None:
    for group, role in ((WORKERS, "the GPU servers"), (MASTERS, "the host that runs Prometheus")):
        if not groups.get(group):
            state = "is empty" if group in groups else "is missing"
            where = f" in {source}" if source else ""
            faults.add(
                f"group {group}, {role}, {state}{where};"
                " inventories/example/hosts.yml of this collection is a template to copy"
            )


def _check_names(hosts: Iterable[Host], table: Sequence[Job], specs: Mapping[str, t.Any], faults: Faults) -> list[str]:
    """Look for misspelt variables; return warnings about those that may well be the user's own."""
    known = {name for spec in specs.values() for name in _options(spec)}
    known.update(name for job in table for name in (job.port_variable, job.bind_variable, job.state_variable))
    prefixes = ["gpufleet_", *(f"{role}_" for role in specs)]
    unknown: dict[str, list[str]] = {}
    for host in hosts:
        for name in host.variables:
            if name not in known:
                unknown.setdefault(name, []).append(host.name)
    warnings = Faults()
    for name, owners in unknown.items():
        prefix = max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default="")
        hint = _suggest_variable(name, prefix, known)
        message = f"{name} is not a variable of this collection{hint}"
        if prefix == "gpufleet_" or (prefix and hint):
            faults.add(message, *owners)
        elif prefix or hint:
            warnings.add(message, *owners)
    return warnings.lines()


def _options(spec: t.Any) -> Iterable[str]:
    for entry_point in ((spec or {}).get("argument_specs") or {}).values():
        yield from entry_point.get("options") or {}


def _suggest_variable(name: str, prefix: str, known: Iterable[str]) -> str:
    """Compare what follows the prefix, of which all variables of a role are alike; or else whole names, strictly."""
    rests = [other[len(prefix) :] for other in known if other.startswith(prefix)]
    close = difflib.get_close_matches(name[len(prefix) :], rests, n=1, cutoff=0.75 if prefix else 0.9)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def check_thresholds(hosts: Iterable[Host], defaults: object, faults: Faults) -> None:
    """Compare the thresholds that hosts have of their own with those of all others: their names and types."""
    if not isinstance(defaults, dict):
        faults.add(f"prometheus_alert_thresholds must be a dictionary, not {kind_of(defaults)}")
        return
    for host in hosts:
        for name, value in host.thresholds.items():
            if name not in defaults:
                hint = did_you_mean(str(name), defaults)
                faults.add(f"{THRESHOLDS} has '{name}', which is no threshold of an alert{hint}", host.name)
            elif is_duration(defaults[name]) and not is_duration(value):
                faults.add(f"{name} of {THRESHOLDS} must be a duration such as {defaults[name]}", host.name)
            elif not is_duration(defaults[name]) and not is_number(value):
                faults.add(f"{name} of {THRESHOLDS} must be a number such as {defaults[name]}", host.name)


# -- values --------------------------------------------------------------------------------------
# A converter returns the value in its one form, or raises ValueError with the end of a sentence about it. Values
# are not repeated in there, names and addresses excepted: any variable may turn out to hold a secret.


def plain(value: t.Any) -> t.Any:
    """Return `value` with all that is lazy in it evaluated, which raises what is wrong with it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if not isinstance(value, (str, int, float, type(None))):
        str(value)  # Jinja's undefined values raise when they are used, not when they are made
    return value


def _as_job_name(value: object) -> str:
    if not isinstance(value, str) or not _JOB_NAME.fullmatch(value):
        raise ValueError("must be a name of letters, digits, _ and -, and start with a letter or _")
    return str(value)


def _as_names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list, not {kind_of(value)}")
    if not all(isinstance(name, str) for name in value):
        raise ValueError("must be a list of strings")
    return tuple(str(name) for name in value)


def _as_group_names(value: object) -> tuple[str, ...]:
    names = _as_names(value)
    if not names:
        raise ValueError("must not be empty")
    return names


def _as_port(value: object) -> int:
    # Extra variables from the command line are strings.
    if isinstance(value, (int, str)) and not isinstance(value, bool) and re.fullmatch("[0-9]{1,5}", str(value)):
        port = int(value)
        if 0 < port < 65536:
            return port
    raise ValueError("must be a number from 1 to 65535")


def _as_count(value: object) -> int:
    if is_number(value) and re.fullmatch("[0-9]+", str(value)):
        return int(str(value))
    raise ValueError("must be a whole number")


def _as_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {kind_of(value)}")
    return value


def _as_switch(value: object) -> bool:
    # Extra variables from the command line, and what templates make before ansible-core 2.19, are strings.
    words = {"true": True, "yes": True, "false": False, "no": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    return _as_boolean(value)


def _as_dictionary(value: object) -> dict[str, t.Any]:
    if not isinstance(value, dict):
        raise ValueError(f"must be a dictionary, not {kind_of(value)}")
    return value


def _as_string_like(pattern: str, meaning: str) -> Callable[[object], str]:
    def convert(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"must be {meaning}")
        return str(value)

    return convert


def _as_address(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be an address, not {kind_of(value)}")
    address = _unbracketed(value)
    try:
        return str(ipaddress.ip_address(address))  # one spelling for each, so that duplicates are found
    except ValueError:
        if _HOST_NAME.fullmatch(address):
            return str(address)
        raise ValueError(f"is '{value}', which is no IP address and no host name") from None


def _as_bind_address(value: object) -> str:
    return "" if value == "" else _as_address(value)


def _as_label_name(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"has {kind_of(value)} as a label's name; quote it if it is meant as text")
    if value in _RESERVED_LABELS:
        raise ValueError(f"has label {value}, which Prometheus and this collection set themselves")
    if not _LABEL_NAME.fullmatch(value):
        raise ValueError(
            f"has label '{value}'; a label's name has only letters, digits and _,"
            " and starts with a letter or a single _"
        )
    return str(value)


def _as_label_value(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"must be a string or a number, not {kind_of(value)}; quote it if it is meant as text")
    return str(value)


_JOB_KEYS: dict[str, Callable[[object], t.Any]] = {
    "job": _as_job_name,
    "groups": _as_group_names,
    "port": _as_port,
    "exporter": _as_boolean,
    "bind_address": _as_bind_address,
    # What follows is for prometheus.yml.
    "path": _as_string_like("/.*", "a string that starts with /"),
    "interval": _as_string_like(_DURATION.pattern, "a duration such as 15s"),
    "timeout": _as_string_like(_DURATION.pattern, "a duration such as 10s"),
    "scheme": _as_string_like("https?", "http or https"),
    "params": _as_dictionary,
}
_JOBS = Table("the table of scrape jobs", "scrape job", _JOB_KEYS, ("job", "groups", "port"))


def is_number(value: object) -> bool:
    """Whether a value is a number. Templates of older Ansible, and the command line, make strings of numbers."""
    if isinstance(value, str):
        return bool(_NUMBER.fullmatch(value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_duration(value: object) -> bool:
    """Whether a value is a duration as Prometheus writes it, such as 1h30m."""
    return isinstance(value, str) and bool(_DURATION.fullmatch(value))


def kind_of(value: object) -> str:
    """Return what YAML's users call the type of `value`."""
    kinds = (
        (bool, "a boolean"),
        (str, "a string"),
        ((int, float), "a number"),
        (dict, "a dictionary"),
        (list, "a list"),
    )
    if value is None:
        return "empty"
    return next((name for kind, name in kinds if isinstance(value, kind)), f"a {type(value).__name__}")


# -- small things --------------------------------------------------------------------------------


def members_of(groups: Groups, names: Iterable[str]) -> dict[str, None]:
    """Return the hosts of some groups, each once, in the order of the groups and of the hosts in them."""
    return dict.fromkeys(str(host) for name in names for host in groups.get(name, ()))


def _first(names: Sequence[str]) -> str | None:
    return str(names[0]) if names else None


def _address_in(name: str) -> str:
    """Return a host's name if it serves as an address: a short one need not be known to any but Ansible."""
    try:
        return _as_address(name) if "." in name or ":" in name else ""
    except ValueError:
        return ""


def _unbracketed(address: str) -> str:
    return address[1:-1] if address.startswith("[") and address.endswith("]") else address


def is_loopback(address: str) -> bool:
    """Say whether an address, or a name, is a host's way to itself."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address.split(".")[0] == "localhost"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that resembles this one, empty if none does."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"; did you mean '{close[0]}'?" if close else ""


def _enumerate(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_HOSTS
    return ", ".join(names[:_NAMED_HOSTS]) + (f" and {more} more" if more > 0 else "")
