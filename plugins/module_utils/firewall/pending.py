# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The way back from a change that nobody has confirmed yet."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import typing as t
from pathlib import Path

from .plan import FirewallError, State

Order = t.Callable[..., None]  # runs words, and raises FirewallError where they fail

ROOT = Path("/opt/gpufleet/firewall")
MANIFEST = ROOT / "manifest.json"
PENDING = ROOT / "pending"
LOCK = Path("/run/gpufleet-firewall.lock")
TIMER = "gpufleet-firewall-undo"

SETTINGS, SWITCH = Path("/etc/default/ufw"), Path("/etc/ufw/ufw.conf")
RULES = {4: Path("/etc/ufw/user.rules"), 6: Path("/etc/ufw/user6.rules")}
FILES = (SETTINGS, SWITCH, *RULES.values())

UNDO = """\
# Puts ufw back as it was before a change after which nobody came in again.
cd {pending} || exit 0
set -e
{copies}
sync {files}
{switch}
cd /
rm -r {pending}
rmdir --ignore-fail-on-non-empty {root}
"""


class Pending:
    """What is in the directory PENDING, which is there from before a change until it is confirmed or undone."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def settle(self) -> None:
        """Undo what an earlier run left, unless somebody has worked on it since."""
        if PENDING.exists():
            written = _read("written.json")
            if written in (None, _hashes()):
                self.undo()
            else:
                self._keep()

    def begin(self, have: State, before: t.Mapping[str, t.Any] | None, within: int) -> str:
        """Write down the state to go back to, see that it is gone back to, and return the change's id.

        ``before`` is the manifest that holds once the change is confirmed; None where nothing of ours stays.
        """
        token = os.urandom(8).hex()
        new = PENDING.with_name("pending.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True, mode=0o700)
        for path in FILES:
            shutil.copy2(path, new / path.name)
        texts = {"id.json": json.dumps(token), "undo.sh": _undo_script(have)}
        if before is not None:
            texts["manifest.json"] = json.dumps(before)
        for name, text in texts.items():
            (new / name).write_text(text)
        for path in (*new.iterdir(), new):
            _sync(path)
        self._stop_timer()
        new.rename(PENDING)
        _sync(ROOT)
        self._order(
            *("systemd-run", "--quiet", "--collect", f"--unit={TIMER}", f"--on-active={within}"),
            *("--timer-property=AccuracySec=100ms", "flock", str(LOCK), "sh", str(PENDING / "undo.sh")),
        )
        return token

    def carried_out(self) -> None:
        """Write down what the change has made of ufw's files, so that later work on them is seen."""
        new = PENDING / "written.new"
        new.write_text(json.dumps(_hashes()))
        _sync(new)
        new.rename(PENDING / "written.json")

    def undo(self) -> None:
        """Put ufw back, if there is anything to go back to."""
        if PENDING.exists():
            self._order("sh", str(PENDING / "undo.sh"))
            self._stop_timer()

    def confirm(self, token: str) -> None:
        """Make the change of that id stay. Raises FirewallError where it is gone already."""
        if not PENDING.exists():
            raise FirewallError("it took too long to come in again, and the firewall is as it was")
        if _read("id.json") != token:
            raise FirewallError("another run has changed the firewall in the meantime, so this one's change is undone")
        self._keep()

    def _keep(self) -> None:
        if (PENDING / "manifest.json").exists():
            (PENDING / "manifest.json").replace(MANIFEST)
            shutil.rmtree(PENDING)
        else:
            shutil.rmtree(ROOT)
        self._stop_timer()

    def _stop_timer(self) -> None:
        """Also what waits for the lock already. There may be neither."""
        for unit in ("timer", "service"):
            self._order("systemctl", "--quiet", "stop", f"{TIMER}.{unit}", may_fail=True)


def _undo_script(have: State) -> str:
    switch = ["ufw reload"]
    if not have.enabled:
        policies = [f"{tool} -w -P FORWARD {policy}" for tool, policy in have.forward.items()]
        settings = [f"echo {shlex.quote(value)} >{shlex.quote(path)}" for path, value in have.sysctl.items()]
        switch = ["ufw disable", *policies, *settings]
    return UNDO.format(
        pending=PENDING,
        root=ROOT,
        copies="\n".join(f"cp {path.name} {path}" for path in FILES),
        files=" ".join(map(str, FILES)),
        switch="\n".join(switch),
    )


def _read(name: str) -> t.Any:
    path = PENDING / name
    return json.loads(path.read_text()) if path.exists() else None


def _hashes() -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in FILES if path.exists()}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
