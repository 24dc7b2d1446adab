# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The few questions and orders that we have for systemd."""

from __future__ import annotations

import typing as t
from pathlib import Path


class SystemdError(Exception):
    """systemd refused an order. The text holds its own words."""


class UnitState(t.NamedTuple):
    """Properties of org.freedesktop.systemd1: ActiveState, SubState, UnitFileState, Result, NRestarts."""

    active: str
    sub: str
    file: str
    result: str
    restarts: int


class Systemd:
    """systemctl and journalctl, through ``run(words) -> (exit status, stdout, stderr)``."""

    def __init__(self, run: t.Callable[[list[str]], tuple[int, str, str]]) -> None:
        self._run = run

    @staticmethod
    def is_running() -> bool:
        """True when systemd is this host's init (sd_booted(3))."""
        return Path("/run/systemd/system").is_dir()

    def version(self) -> int:
        """Return systemd's version number, such as 252."""
        return int(self._order("systemctl", "--version").split()[1].split(".")[0])

    def show(self, unit: str) -> UnitState:
        """Return the state of ``unit``; an unknown unit is inactive."""
        names = ("ActiveState", "SubState", "UnitFileState", "Result", "NRestarts")
        text = self._order("systemctl", "show", unit, "--property=" + ",".join(names))
        values = dict(line.partition("=")[::2] for line in text.splitlines())
        active, sub, file, result, restarts = (values.get(name, "") for name in names)
        return UnitState(active, sub, file, result, int(restarts or 0))

    def part_of(self, unit: str) -> list[str]:
        """Return the units with which ``unit`` is stopped (PartOf=)."""
        return self._order("systemctl", "show", unit, "--property=PartOf", "--value").split()

    def daemon_reload(self) -> None:
        """Read unit files anew."""
        self._order("systemctl", "daemon-reload")

    def enable(self, unit: str, wanted: bool) -> None:
        """Start ``unit`` at boot, or no longer."""
        self._order("systemctl", "--quiet", "enable" if wanted else "disable", unit)

    def order(self, verb: str, unit: str) -> None:
        """start, stop, restart or reload ``unit``."""
        self._order("systemctl", verb, unit)

    def reset_failed(self, unit: str) -> None:
        """Forget that ``unit`` failed; it may be gone altogether."""
        self._run(["systemctl", "reset-failed", unit])

    def add_user(self, name: str) -> None:
        """Add the system user that /etc/sysusers.d/NAME.conf describes."""
        self._order("systemd-sysusers", f"/etc/sysusers.d/{name}.conf")

    def remove_user(self, name: str) -> None:
        """Remove a system user that add_user added, and its group."""
        self._order("userdel", name)

    def journal(self, unit: str, since: float, lines: int = 15) -> list[str]:
        """Return the last journal lines of ``unit`` after ``since`` (seconds since the epoch)."""
        self._run(["journalctl", "--sync"])
        words = ["journalctl", "--unit", unit, f"--since=@{int(since)}", f"--lines={lines}", "--no-pager"]
        return self._run([*words, "--output=cat", "--quiet"])[1].splitlines()

    def _order(self, *words: str) -> str:
        code, out, err = self._run(list(words))
        if code != 0:
            raise SystemdError(f"{' '.join(words)} failed: {(err or out).strip()}")
        return out
