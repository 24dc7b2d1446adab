# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the kernel does with packets now: iptables' chains, and the settings that ufw changes beside them."""

from __future__ import annotations

import shlex
import typing as t
from pathlib import Path

from .ufw import OPEN

Run = t.Callable[["list[str]"], tuple[int, str, str]]

TOOLS = {4: "iptables", 6: "ip6tables"}
PREFIXES = {4: "ufw", 6: "ufw6"}
SYSCTL = Path("/proc/sys")
ADDRESSES6 = Path("/proc/net/if_inet6")


class Kernel:
    """This host's packet filter, by iptables."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def chain(self, family: int, name: str) -> list[str]:
        """Return a chain in iptables' command line; it is empty where there is no such chain, or no such family."""
        try:
            code, out, _ = self._run([TOOLS[family], "-w", "-S", name])
        except FileNotFoundError:
            return []
        return out.splitlines() if code == 0 else []

    def forward(self) -> dict[str, str]:
        """Return what becomes of forwarded packets, by tool."""
        found = {TOOLS[family]: self.chain(family, "FORWARD") for family in TOOLS}
        return {tool: lines[0].split()[2] for tool, lines in found.items() if lines}

    def handmade(self) -> tuple[str, ...]:
        """Return what somebody has set up beside ufw, and ufw would undo or be undone by."""
        return tuple(
            f"{TOOLS[family]} {line}"
            for family in TOOLS
            for chain in ("INPUT", "OUTPUT")
            for line in self.chain(family, chain)
            if is_handmade(line)
        )

    def has_loaded(self, family: int, rules: str) -> bool:
        """Whether packets come by ufw's rules, whose file has the text `rules`."""
        prefix, builtin = PREFIXES[family], self.chain(family, "INPUT")
        if family == 6 and not builtin:
            return True  # no IPv6
        own = f"-A {prefix}-user-input "
        count = sum(line.startswith(own) for line in self.chain(family, f"{prefix}-user-input"))
        hooks = {f"-A INPUT -j {prefix}-before-input", f"-A {prefix}-before-input -j {prefix}-user-input"}
        found = {*builtin, *self.chain(family, f"{prefix}-before-input")}
        return hooks <= found and count >= sum(line.startswith(own) for line in rules.splitlines())

    def clear(self, family: int) -> None:
        """Take ufw's chains out. It hooks them in only where there are none."""
        tool, mark = TOOLS[family], f"{PREFIXES[family]}-"
        _, out, _ = self._run([tool, "-w", "-S"])
        lines = [line.split() for line in out.splitlines() if mark in line]
        for words in lines:
            if words[0] == "-A" and not words[1].startswith(mark) and words[-1].startswith(mark):
                self._run([tool, "-w", "-D", *words[1:]])
        chains = [words[1] for words in lines if words[0] == "-N" and words[1].startswith(mark)]
        for flag in ("-F", "-X"):
            for chain in chains:
                self._run([tool, "-w", flag, chain])


def is_handmade(line: str) -> bool:
    """Whether a line of INPUT or OUTPUT decides about packets.

    A jump is a tool's, such as fail2ban's or Docker's, and goes with ufw. The loopback device, ufw itself leaves open.
    """
    words = shlex.split(line)
    if words[0] == "-P":
        return words[2] != OPEN
    if words[1] != "INPUT" or "-j" not in words or ("-i" in words and words[words.index("-i") + 1] == "lo"):
        return False
    return words[words.index("-j") + 1] in (OPEN, "DROP", "REJECT")


def has_ipv6() -> bool:
    """Whether this host has an address of IPv6 but for the loopback device's."""
    return ADDRESSES6.exists() and any(line.split()[-1] != "lo" for line in ADDRESSES6.read_text().splitlines())


def sysctl_before(file: Path, root: Path = SYSCTL) -> dict[str, str]:
    """Return the settings that a sysctl file would change, path -> value."""
    found = {}
    for line in file.read_text().splitlines() if file.is_file() else ():
        name, equals, value = (part.strip() for part in line.partition("="))
        name = name.lstrip("-")
        if not equals or not name or name[0] in "#;":
            continue
        dot, slash = name.find("."), name.find("/")
        if slash < 0 or 0 < dot < slash:
            name = name.translate(str.maketrans("./", "/."))
        for path in root.glob(name):
            now = path.read_text().strip()
            if now.split() != value.split():
                found[str(path)] = now
    return found
