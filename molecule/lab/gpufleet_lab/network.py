"""The lab's own network: one bridge, one /24, one nft table."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from pathlib import Path

from .system import LabError, raise_sysctl, run

POOL = ipaddress.IPv4Network("10.213.0.0/16")


def free_subnet(preferred: int, taken: Iterable[str]) -> ipaddress.IPv4Network:
    """Pick a /24 that no route of this machine and no other lab touches.

    The search starts at `preferred`, so that a lab mostly gets the same addresses every time.
    """
    used = [ipaddress.IPv4Network(subnet) for subnet in taken] + _routed()
    subnets = list(POOL.subnets(new_prefix=24))
    start = preferred % len(subnets)
    for subnet in subnets[start:] + subnets[:start]:
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise LabError(f"no free /24 in {POOL}: `lab.py list` shows the labs, `ip route` the machine's routes")


def _routed() -> list[ipaddress.IPv4Network]:
    routes = json.loads(run("ip", "-json", "-4", "route", "show", "table", "all"))
    return [ipaddress.IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]


def exists(link: str) -> bool:
    """Say whether a network interface of this name exists."""
    return Path("/sys/class/net", link).exists()


def set_bridge(bridge: str, gateway: str) -> None:
    """Create the bridge, with the machine's address in the lab's network, or complete it."""
    if not exists(bridge):
        run("ip", "link", "add", bridge, "type", "bridge", "forward_delay", "0")
    # An address of its own: by default a bridge takes that of a port, and changes it as hosts come and go.
    run("ip", "link", "set", bridge, "address", _mac(gateway), "up")
    run("ip", "address", "replace", f"{gateway}/24", "dev", bridge)
    raise_sysctl("net.ipv4.ip_forward", 1)


def _mac(address: str) -> str:
    # 02: locally administered.
    return "02:00:" + ":".join(f"{octet:02x}" for octet in ipaddress.IPv4Address(address).packed)


def set_way_out(table: str, bridge: str, addresses: Iterable[str]) -> None:
    """Let these hosts, and no others, reach what lies beyond the bridge.

    Adding the table before deleting it makes one transaction of it, whether it existed or not. With
    br_netfilter loaded (Docker does that), traffic inside the bridge comes along here as well.
    """
    elements = ", ".join(addresses)
    allowed = f"elements = {{ {elements} }}" if elements else ""
    rules = f"""
        table ip {table}
        delete table ip {table}
        table ip {table} {{
            set way_out {{ type ipv4_addr; {allowed}; }}
            chain forward {{
                type filter hook forward priority filter; policy accept;
                iifname {bridge} oifname != {bridge} ip saddr != @way_out drop
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat; policy accept;
                iifname {bridge} oifname != {bridge} masquerade
            }}
        }}
    """
    run("nft", "-f", "-", stdin=rules)


def plug(link: str, *, connected: bool) -> None:
    """Put a host's cable in or pull it: the host sees its carrier come or go."""
    run("ip", "link", "set", link, "up" if connected else "down")


def unplugged(link: str) -> bool:
    """Say whether `plug` pulled this cable; one that does not exist (yet) was not."""
    flags = Path("/sys/class/net", link, "flags")
    return flags.exists() and not int(flags.read_text(), 16) & 1  # IFF_UP


def delete_link(link: str) -> None:
    """Delete an interface; one that is gone already is as good."""
    if exists(link):
        try:
            run("ip", "link", "delete", link)
        except LabError:
            if exists(link):  # the kernel may take a dead host's interface away meanwhile
                raise


def remove(table: str, bridge: str) -> None:
    """Delete all of the lab's network."""
    for port in Path("/sys/class/net", bridge, "brif").glob("*"):
        delete_link(port.name)
    delete_link(bridge)
    run("nft", "-f", "-", stdin=f"table ip {table}\ndelete table ip {table}\n")
