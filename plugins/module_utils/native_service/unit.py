# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Text of a systemd unit: what the caller says, on top of a strict sandbox."""

from __future__ import annotations

import typing as t

# What every service gets unless its caller says otherwise. A caller overrides a directive by naming it,
# and drops it with null. The meaning of each is in systemd.exec(5) and systemd.resource-control(5).
DEFAULTS: dict[str, dict[str, t.Any]] = {
    "Unit": {
        "Wants": "network-online.target",
        "After": "network-online.target",
        # A monitored host that was ill for an hour must be watched again in the next minute: never give up.
        "StartLimitIntervalSec": 0,
    },
    "Service": {
        "Restart": "always",
        # 1 s at first, since one lost scrape is all a crash may cost; later ones back off to a minute.
        "RestartSec": 1,
        "RestartSteps": 6,
        "RestartMaxDelaySec": 60,
        "DynamicUser": True,
        "AmbientCapabilities": "",
        "CapabilityBoundingSet": "",
        "DevicePolicy": "closed",
        "KeyringMode": "private",
        "LockPersonality": True,
        "MemoryDenyWriteExecute": True,
        "MemoryMax": "256M",
        "NoNewPrivileges": True,
        "PrivateDevices": True,
        "PrivateTmp": True,
        "PrivateUsers": True,
        "ProtectClock": True,
        "ProtectControlGroups": True,
        "ProtectHome": True,
        "ProtectHostname": True,
        "ProtectKernelLogs": True,
        "ProtectKernelModules": True,
        "ProtectKernelTunables": True,
        "ProtectProc": "invisible",
        "ProtectSystem": "strict",
        "RemoveIPC": True,
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
        "RestrictNamespaces": True,
        "RestrictRealtime": True,
        "RestrictSUIDSGID": True,
        "SystemCallArchitectures": "native",
        "SystemCallErrorNumber": "EPERM",
        "SystemCallFilter": ["@system-service", "~@privileged @resources"],
        "UMask": "0077",
    },
    "Install": {"WantedBy": "multi-user.target"},
}

_RESTART = ("Restart", "RestartSec", "RestartSteps", "RestartMaxDelaySec")
# What a job gets that a timer starts: it ends, and is not started again before its time.
JOB_DEFAULTS: dict[str, dict[str, t.Any]] = {
    "Unit": {"Wants": "network-online.target", "After": "network-online.target"},
    "Service": {
        "Type": "oneshot",
        **{name: value for name, value in DEFAULTS["Service"].items() if name not in _RESTART},
    },
}

TIMER_DEFAULTS: dict[str, dict[str, t.Any]] = {"Timer": {}, "Install": {"WantedBy": "timers.target"}}

# Directives that older systemd does not know, and would warn about at every daemon-reload (NEWS of each version).
SINCE = {"RestartSteps": 254, "RestartMaxDelaySec": 254}

HEADER = "# Written by gpufleet.monitoring. To change a directive on one host, use: systemctl edit {name}\n"


def render(
    name: str,
    sections: t.Mapping[str, t.Mapping[str, t.Any]],
    systemd_version: int,
    defaults: t.Mapping[str, t.Mapping[str, t.Any]] = DEFAULTS,
) -> str:
    """Return the unit file of service ``name``, or with no ``defaults`` a drop-in.

    ``sections`` is section -> directive -> value. A value is a string, a number, a boolean, a list
    (the directive is repeated; an empty text in it takes away what is there) or None (the default is dropped).

    Raises ValueError for a value that a unit file cannot hold.
    """
    blocks = []
    for section in list(defaults) + [name for name in sections if name not in defaults]:
        given = sections.get(section) or {}
        # What is particular to the service stands first in the file, and wins.
        directives = {**given, **{**defaults.get(section, {}), **given}}
        lines = [
            f"{directive}={text}"
            for directive, value in directives.items()
            if systemd_version >= SINCE.get(directive, 0)
            for text in _texts(f"{section}.{directive}", value)
        ]
        blocks.append("\n".join([f"[{section}]", *lines]))
    return HEADER.format(name=name) + "\n" + "\n\n".join(blocks) + "\n"


def exec_line(words: t.Sequence[str]) -> str:
    """Return ``words`` as a command line that systemd takes apart into just these (systemd.service(5))."""
    return " ".join(_exec_word(word) for word in words)


def _exec_word(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if escaped == word and not set(word) & set(" \t';") and word else f'"{escaped}"'


def _texts(where: str, value: t.Any) -> list[str]:
    if value is None:
        return []
    values = value if isinstance(value, (list, tuple)) else [value]
    return [_text(where, item) for item in values]


def _text(where: str, value: t.Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"unit: {where} must be text, a number, a boolean or a list of these, not {value!r}")
    text = str(value)
    if "\n" in text:
        raise ValueError(f"unit: {where} contains a line break: {text!r}")
    return text
