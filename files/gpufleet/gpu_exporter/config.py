"""The configuration file: TOML, one table for the server and one for each collector.

Each dataclass here is a table, each field a key; docs/gpu_exporter.md is written from them.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing as t

import tomli  # tomllib is there from Python 3.11 on only

COLLECTORS = ("gpu", "dcgm", "presence", "pcie", "xid", "allocations", "events", "system", "ipmi")


class ConfigError(Exception):
    """The configuration is wrong. The message has the line, where there is one, and the fix."""


def key(default: t.Any, meaning: str, minimum: float | None = None) -> t.Any:
    """Describe one key of a table."""
    metadata = {"meaning": meaning, "minimum": minimum}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass
class Server:
    """Where the metrics are served."""

    address: str = key("", "Address to listen on. Empty means all, IPv6 as well.")
    port: int = key(9500, "Port to listen on.", 1)
    start_deadline: float = key(
        60.0, "Seconds for the first reading of each collector: a driver without persistence mode wakes slowly.", 0.1
    )
    retry_after: float = key(
        30.0, "Seconds until a driver that blocked is asked again; doubled each time, up to 10 minutes.", 0.1
    )
    series_limit: int = key(20000, "Most series that one collector may serve; what is beyond is dropped.", 1)


@dataclasses.dataclass
class Tls:
    """TLS on all ports, as Prometheus' exporters have it in their web.config.file: the keys mean the same."""

    cert_file: str = key("", "Certificate, in PEM. Empty means no TLS. All files are read again when they change.")
    key_file: str = key("", "Its private key, in PEM; may be in the same file.")
    client_ca_file: str = key("", "Authorities that clients' certificates are signed by. Empty means any client.")
    client_allowed_sans: list[str] = key([], "Names of which a client's certificate has one. Empty means any name.")


@dataclasses.dataclass
class Paths:
    """Where the host keeps what is read. For tests and for unusual hosts."""

    sysfs: str = key("/sys", "The sysfs tree.")
    proc: str = key("/proc", "The proc tree.")
    passwd: str = key("/etc/passwd", "Names of users, for processes outside of containers.")
    systemd: str = key("/etc/systemd/system", "Where systemd notes which units are enabled.")
    cgroup: str = key("/sys/fs/cgroup", "The tree of control groups, of version 2.")


@dataclasses.dataclass
class Section:
    """What every collector has."""

    enabled: bool = key(True, "Whether the collector runs.")
    interval: float = key(5.0, "Seconds from one reading to the next.", 0.1)
    max_age: float = key(0.0, "Seconds after which a value is no longer served. 0 means 3 intervals, at least 15 s.", 0)
    deadline: float = key(10.0, "Seconds after which a reading is given up and the sampling process replaced.", 0.1)

    @property
    def allowed_age(self) -> float:
        """Seconds for which a reading may be served."""
        return self.max_age or max(15.0, 3 * self.interval)


@dataclasses.dataclass
class GpuSection(Section):
    """Temperatures, fans, throttling, power, memory errors and PCIe link of each GPU."""

    nvapi: bool = key(False, "Ask NVAPI (libnvidia-api.so.1) where NVML gives no VRAM or hotspot temperature.")
    bar0: bool = key(
        False, "Read registers of the GPU (PCIe BAR0, read-only) where neither gives one. Known cards only."
    )


@dataclasses.dataclass
class DcgmSection(Section):
    """dcgm-exporter's families, on its port, for as long as DCGM itself does not serve them."""

    enabled: bool = key(False, "Whether the collector runs.")
    address: str = key("", "Address to listen on. Empty means all, IPv6 as well.")
    port: int = key(9400, "Port to serve these families on: DCGM's. 0 serves them with all others.", 0)
    yields_to: str = key(
        "nvidia-dcgm-exporter.service",
        "Unit whose families these are. While it is enabled, none is read or served here: each GPU would be reported "
        "twice. Empty means never.",
    )
    pcie_throughput: bool = key(False, "Also read PCIe traffic, which takes the driver 40 ms a GPU.")


@dataclasses.dataclass
class PresenceSection(Section):
    """GPUs on the PCI bus against GPUs in NVML."""


@dataclasses.dataclass
class PcieSection(Section):
    """PCIe errors."""

    interval: float = key(15.0, "Seconds from one reading to the next.", 0.1)


@dataclasses.dataclass
class XidSection(Section):
    """XID errors."""

    kernel_log: bool = key(False, "Read the kernel's log as well: some errors take NVML down with the GPU.")
    kernel_log_path: str = key("/dev/kmsg", "The kernel's log.")


@dataclasses.dataclass
class AllocationsSection(Section):
    """Who has which GPU."""

    interval: float = key(10.0, "Seconds from one reading to the next.", 0.1)
    docker: bool = key(True, "Ask Docker which container holds which GPU.")
    docker_socket: str = key("/run/docker.sock", "Docker's socket. Only GET requests are sent.")
    docker_timeout: float = key(5.0, "Seconds for each answer of Docker.", 0.1)
    state_file: str = key("/var/lib/ds01/gpu-state.json", "DS01's state, read when Docker is not there.")
    processes: bool = key(True, "Ask NVML for the processes on each GPU: bare-metal jobs count, too.")
    slot_format: str = key(
        "{gpu}.{mig}",
        "Name of a MIG slot: {gpu} is the GPU's index, {mig} the device's as nvidia-smi -L has it. A whole GPU's slot "
        "is {gpu}.",
    )
    mig_per_gpu: int = key(4, "MIG equivalents that a whole GPU counts for in ds01_user_mig_allocated.", 1)
    user_labels: list[str] = key(
        ["ds01.user", "aime.mlc.USER"], "Container labels that name the user; the first that is there counts."
    )
    user_rules: list[str] = key(
        [r"^.+\._\.(\d+)$ => uid:\1", r"^C\.\d+$ => vastai", r"^runpod[-_].* => runpod"],
        "Users by container name, where no label names one: 'PATTERN => USER' with a regular expression and what its "
        "groups make of it; uid:N is looked up.",
    )
    interface_label: str = key("ds01.interface", "Container label that names the interface.")
    managed_label: str = key("ds01.managed", "Container label that says that DS01 manages the container.")
    uuids_label: str = key("ds01.gpu.uuids", "Container label with the UUIDs of its GPUs, comma-separated.")
    containers_limit: int = key(2000, "Most containers that get series of their own; the rest is counted.", 1)


@dataclasses.dataclass
class EventsSection(Section):
    """DS01's log of events."""

    interval: float = key(15.0, "Seconds from one reading to the next.", 0.1)
    path: str = key("/var/log/ds01/events.jsonl", "The log, one JSON object a line.")
    state_directory: str = key("/var/lib/ds01", "Directory whose filesystem ds01_state_disk_bytes speaks of.")
    types_limit: int = key(200, "Most event types that get series of their own.", 1)


@dataclasses.dataclass
class SystemSection(Section):
    """Load, CPU and memory of the host; node_exporter says more."""


@dataclasses.dataclass
class IpmiSection(Section):
    """Inlet and exhaust temperature from the host's own BMC."""

    enabled: bool = key(False, "Whether the collector runs. It needs /dev/ipmi0 and ipmitool.")
    interval: float = key(60.0, "Seconds from one reading to the next.", 0.1)
    deadline: float = key(30.0, "Seconds after which a reading is given up and the sampling process replaced.", 0.1)
    timeout: float = key(20.0, "Seconds for the BMC to answer.", 0.1)
    inlet_pattern: str = key("(?i)inlet|ambient|intake", "Regular expression of the inlet sensors' names.")
    exhaust_pattern: str = key("(?i)exhaust|outlet", "Regular expression of the exhaust sensors' names.")


@dataclasses.dataclass
class Config:
    """The whole file."""

    server: Server = dataclasses.field(default_factory=Server)
    tls: Tls = dataclasses.field(default_factory=Tls)
    paths: Paths = dataclasses.field(default_factory=Paths)
    gpu: GpuSection = dataclasses.field(default_factory=GpuSection)
    dcgm: DcgmSection = dataclasses.field(default_factory=DcgmSection)
    presence: PresenceSection = dataclasses.field(default_factory=PresenceSection)
    pcie: PcieSection = dataclasses.field(default_factory=PcieSection)
    xid: XidSection = dataclasses.field(default_factory=XidSection)
    allocations: AllocationsSection = dataclasses.field(default_factory=AllocationsSection)
    events: EventsSection = dataclasses.field(default_factory=EventsSection)
    system: SystemSection = dataclasses.field(default_factory=SystemSection)
    ipmi: IpmiSection = dataclasses.field(default_factory=IpmiSection)

    def section(self, collector: str) -> Section:
        """Return the table of a collector."""
        # The inventory keeps the pace of the gpu collector, which needs it most.
        return t.cast("Section", getattr(self, "gpu" if collector == "inventory" else collector))


def load(path: str) -> Config:
    """Read a configuration file. Raises ConfigError."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse(text: str) -> Config:
    """Return the configuration that a text describes. Raises ConfigError."""
    try:
        tables = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ConfigError(str(error)) from error
    config = Config()
    for name, values in tables.items():
        if name not in {field.name for field in dataclasses.fields(config)}:
            raise _unknown("table", name, [field.name for field in dataclasses.fields(config)], _line(text, name, None))
        if not isinstance(values, dict):
            raise ConfigError(f"line {_line(text, '', name)}: {name} is a table: write [{name}]")
        _fill(getattr(config, name), name, values, text)
    _check_patterns(config, text)
    _check_tls(config.tls, f"line {_line(text, 'tls', None)}: tls")
    return config


def _fill(section: t.Any, table: str, values: dict[str, t.Any], text: str) -> None:
    fields = {field.name: field for field in dataclasses.fields(section)}
    for name, value in values.items():
        line = _line(text, table, name)
        if name not in fields:
            raise _unknown(f"key in [{table}]", name, list(fields), line)
        setattr(section, name, _checked(fields[name], getattr(section, name), value, f"line {line}: {table}.{name}"))


def _checked(field: dataclasses.Field[t.Any], default: t.Any, value: t.Any, where: str) -> t.Any:
    """Return the value in its field's type. Raises ConfigError."""
    kind: t.Any = type(default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{where} wants {_KINDS[kind]}, not {value!r}")
    if kind is list and not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{where} wants a list of strings, not {value!r}")
    minimum = field.metadata["minimum"]
    if minimum is not None and not minimum <= value < float("inf"):
        raise ConfigError(f"{where} is at least {minimum:g}, not {value!r}")
    if field.name == "port" and value > 65535:
        raise ConfigError(f"{where} is a port, at most 65535, not {value!r}")
    return value


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", list: "a list of strings"}


def _check_patterns(config: Config, text: str) -> None:
    """Regular expressions are compiled when the service starts, and must not fail then. Raises ConfigError."""
    _check_pattern(config.ipmi.inlet_pattern, f"line {_line(text, 'ipmi', 'inlet_pattern')}: ipmi.inlet_pattern")
    _check_pattern(config.ipmi.exhaust_pattern, f"line {_line(text, 'ipmi', 'exhaust_pattern')}: ipmi.exhaust_pattern")
    where = f"line {_line(text, 'allocations', 'user_rules')}: allocations.user_rules"
    for rule in config.allocations.user_rules:
        pattern, arrow, user = rule.partition(" => ")
        if not arrow or not user:
            raise ConfigError(f"{where}: {rule!r} wants to be 'PATTERN => USER'")
        _check_pattern(pattern, where)
        _check_template(pattern, user, where)
    if not all(word in config.allocations.slot_format for word in ("{gpu}", "{mig}")):
        where = f"line {_line(text, 'allocations', 'slot_format')}: allocations.slot_format"
        raise ConfigError(f"{where}: {config.allocations.slot_format!r} wants both {{gpu}} and {{mig}}: slots differ")


def _check_tls(tls: Tls, where: str) -> None:
    """What is left out must not leave the port open to all. Raises ConfigError."""
    needs = {"key_file": "cert_file", "cert_file": "key_file", "client_ca_file": "cert_file"}
    for name, other in {**needs, "client_allowed_sans": "client_ca_file"}.items():
        if getattr(tls, name) and not getattr(tls, other):
            raise ConfigError(f"{where}.{name} wants {other} as well")


def _check_pattern(pattern: str, where: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{where}: {pattern!r} is no regular expression: {error}") from error


def _check_template(pattern: str, template: str, where: str) -> None:
    """What a rule makes of a match may name only groups that its pattern has."""
    try:
        re.sub(pattern, template, "")  # looks at it before it looks for a match
    except (re.error, IndexError) as error:
        raise ConfigError(f"{where}: {template!r} is no user of {pattern!r}: {error}") from error


def _unknown(what: str, name: str, known: list[str], line: int) -> ConfigError:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known))}"
    return ConfigError(f"line {line}: unknown {what}: {name}; {hint}")


def _line(text: str, table: str, name: str | None) -> int:
    """Return the line of a key, or with None of a table. The TOML parser gives none for what it could parse."""
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*[\"']?([^\"'\].]+)", line)
        if header:
            current = header.group(1).strip()
            if name is None and current == table:
                return number
        elif name is not None and current == table and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[=.]", line):
            return number
    return 1
