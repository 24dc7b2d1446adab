# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The table of services behind nginx: what is made of it, and what is refused.

Nothing here imports Ansible.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_PATH = re.compile(r"/([A-Za-z0-9._~-]+/)*")
_UPSTREAM = re.compile(r"http://(?P<address>\[[0-9a-fA-F:.]+\]|[0-9.]+):(?P<port>[1-9][0-9]{0,4})")
_DNS_NAME = re.compile(r"([a-z0-9_]([a-z0-9_-]*[a-z0-9])?\.)*[a-z0-9_]([a-z0-9_-]*[a-z0-9])?", re.IGNORECASE)
# What crypt(3) of Debian's libc makes of a password, without what is broken within a day: DES, MD5.
_HASH = re.compile(r"\$(2[abxy]\$(?P<bcrypt>[0-9]{2})\$[./A-Za-z0-9]{53}"
                   r"|[56]\$(rounds=(?P<rounds>[0-9]+)\$)?[^$:]{1,16}\$[./A-Za-z0-9]{43,86}"
                   r"|y\$(?P<yescrypt>[^$:]+)\$[^$:]+\$[./A-Za-z0-9]+)")  # fmt: skip
# nginx computes it for each request, and a worker does nothing else meanwhile: what costs more is refused.
_MOST_ROUNDS, _MOST_BCRYPT, _YESCRYPT = 50_000, 10, ("j7T", "j8T", "j9T", "jAT")

Row = t.Mapping[str, t.Any]


class Service(t.TypedDict):
    """One row of the table, complete."""

    name: str
    path: str
    upstream: str
    auth: str  # own, basic or client_certificate
    allow: list[str]  # networks; empty is everybody
    strip_path: bool
    login_paths: list[str]  # whole paths
    closed_paths: list[str]
    server: str  # "" for the main one, else a server name of its own


class FrontDoorError(Exception):
    """A table that cannot be used. The text has one line for each thing wrong."""

    def __init__(self, faults: t.Sequence[str]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(["The front door's variables make no sense:", *(f"- {line}" for line in faults)]))


def front_door(
    rows: t.Sequence[Row],
    names: t.Sequence[str],
    known: t.Mapping[str, Row],
    users: t.Mapping[str, t.Any],
    client_ca: bool,
) -> list[Service]:
    """Return the services of ``rows``, those that are ``known`` by their names with what is known of them.

    A known service that is ``guarded`` asks nobody who they are. It gets behind the door only where the door asks, and
    lets in some networks alone. Raises FrontDoorError with all that is wrong.
    """
    faults = [*_name_faults(names), *_user_faults(users)]
    services = []
    for row in rows:
        own, service = _complete(row, known)
        guarded = _guarded(service, known)
        own += _access_faults(service, guarded, users, client_ca)
        if service["server"] in [name.lower() for name in names]:
            own.append(f"server_name {service['server']} is one of nginx_server_names already: leave it out")
        faults += [f"nginx_services, {row['name']}: {fault}" for fault in own]
        services.append(service)
    faults += _duplicates(services)
    if faults:
        raise FrontDoorError(faults)
    return services


def _complete(row: Row, known: t.Mapping[str, Row]) -> tuple[list[str], Service]:
    """Return what is wrong with the row itself, and the row with its defaults."""
    whole = {**known.get(row["name"], {}), **{key: value for key, value in row.items() if value is not None}}
    server = str(whole.get("server_name", "")).lower()
    path = str(whole.get("path", "/" if server else ""))
    upstream = str(whole.get("upstream", ""))
    faults = []
    if not _NAME.fullmatch(row["name"]):
        faults.append("name must begin with a letter and have lower-case letters, digits, _ and - only")
    if not path:
        faults.append("path or server_name is missing: where do people find it?")
    elif not _PATH.fullmatch(path) or "." in path.split("/") or ".." in path.split("/"):
        faults.append(f"path must begin and end with /, such as /ipmi/, not {path!r}")
    elif path.startswith("/.well-known/"):
        faults.append("path must not be below /.well-known/, which the certificate needs")
    if server and not _DNS_NAME.fullmatch(server):
        faults.append(f"server_name must be one DNS name, not {server!r}")
    faults += _upstream_faults(upstream)
    below: dict[str, list[str]] = {}
    for key in ("login_paths", "closed_paths"):
        below[key] = [path.rstrip("/") + str(part) for part in whole.get(key, [])]
        wrong = [part for part in whole.get(key, []) if not re.fullmatch(r"/[A-Za-z0-9._~/-]+", str(part))]
        faults += [f"{key} has {part!r}, which is no path such as /login" for part in wrong]
    return faults, Service(
        name=str(row["name"]),
        path=path,
        upstream=upstream,
        auth=str(whole.get("auth", "")),
        allow=[str(network) for network in whole.get("allow", [])],
        strip_path=bool(whole.get("strip_path", True)),
        login_paths=below["login_paths"],
        closed_paths=below["closed_paths"],
        server=server,
    )


def _upstream_faults(upstream: str) -> list[str]:
    """A name would be asked for when nginx starts, which then fails where DNS does."""
    match = _UPSTREAM.fullmatch(upstream)
    if match is None or not 0 < int(match["port"]) < 65536:
        return [f"upstream must be http://ADDRESS:PORT, such as http://127.0.0.1:5000, not {upstream!r}"]
    try:
        ipaddress.ip_address(match["address"].strip("[]"))
    except ValueError:
        return [f"upstream has no valid address: {upstream!r}"]
    return []


def _guarded(service: Service, known: t.Mapping[str, Row]) -> str:
    """Return the guarded service that this is, by its name or under another one; "" for none."""
    for name, row in known.items():
        # By whatever address of the host: the same port is the same service.
        same = _port(row["upstream"]) == _port(service["upstream"])
        if row.get("guarded") and (service["name"] == name or same):
            return name
    return ""


def _port(upstream: str) -> int:
    """Return the port, 0 where there is none to be read."""
    digits = upstream.rpartition(":")[2]
    return int(digits) if digits.isdecimal() else 0


def _access_faults(service: Service, guarded: str, users: t.Mapping[str, t.Any], client_ca: bool) -> list[str]:
    faults = []
    auth, allow = service["auth"], service["allow"]
    if auth not in ("own", "basic", "client_certificate"):
        faults.append("auth is missing: own where the service asks for a password itself, basic, or client_certificate")
    if guarded and auth == "own":
        faults.append(
            f"{guarded} asks nobody who they are: it is exposed only with auth: basic, or auth: client_certificate"
        )
    if auth == "basic" and not users:
        faults.append("auth: basic needs users: set nginx_users to {name: hash}")
    if auth == "client_certificate" and not client_ca:
        faults.append("auth: client_certificate needs the CA of the clients: set nginx_client_ca_file")
    networks = [_network(entry) for entry in allow]
    for entry, network in zip(allow, networks):
        if network is None:
            faults.append(f"allow has {entry!r}, which is no address or network such as 192.0.2.0/24")
    if guarded and not allow:
        faults.append(f"{guarded} is exposed only to networks that are named: set allow, such as [192.0.2.0/24]")
    elif guarded and _everybody([network for network in networks if network]):
        faults.append(f"allow lets everybody to {guarded}: name the networks that need it")
    return faults


def _everybody(networks: t.Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Whether networks are all of IPv4 or IPv6, in one piece or in several."""
    four = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
    six = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
    return any(
        network.prefixlen == 0
        for whole in (ipaddress.collapse_addresses(four), ipaddress.collapse_addresses(six))
        for network in whole
    )


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry)
    except ValueError:
        return None


def _name_faults(names: t.Sequence[str]) -> list[str]:
    if not names:
        return ["nginx_server_names is empty: set gpufleet_server_names to the names that people use"]
    return [
        f"nginx_server_names has {name!r}, which is neither a DNS name nor an address"
        for name in names
        if not _DNS_NAME.fullmatch(name) and not _is_address(name)
    ]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _user_faults(users: t.Mapping[str, t.Any]) -> list[str]:
    """What is wrong with a user is said without the hash, which may be a password by mistake."""
    faults = []
    for user, digest in users.items():
        if not re.fullmatch(r"[^:\s#]+", str(user)):
            faults.append(f"nginx_users has the name {user!r}: no space, : or # can be in it")
        match = _HASH.fullmatch(str(digest))
        if not match:
            faults.append(f"nginx_users, {user}: this is no hash that is good enough. Make one by: openssl passwd -6")
        elif _costly(match):
            faults.append(f"nginx_users, {user}: this hash takes nginx too long. Make one by: openssl passwd -6")
    return faults


def _costly(digest: re.Match[str]) -> bool:
    return (
        int(digest["rounds"] or 0) > _MOST_ROUNDS
        or int(digest["bcrypt"] or 0) > _MOST_BCRYPT
        or digest["yescrypt"] not in (None, *_YESCRYPT)
    )


def _duplicates(services: t.Sequence[Service]) -> list[str]:
    faults = []
    for what, keys in (
        ("the name", [service["name"] for service in services]),
        ("the place", [f"{service['server']}{service['path']}" for service in services]),
    ):
        faults += [f"nginx_services has {what} {key} twice" for key in dict.fromkeys(keys) if keys.count(key) > 1]
    return faults
