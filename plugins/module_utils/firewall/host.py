# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""This host's ufw: see how it is, carry a plan out, and undo it unless somebody comes in afterwards.

/opt/gpufleet/firewall/manifest.json  what ufw was like before us
/opt/gpufleet/firewall/pending/       exists only until a change is confirmed: the state to go back to
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import time
import typing as t
from pathlib import Path

from .plan import FirewallError, Plan, State, Want, make_plan
from .ufw import CLOSED, OPEN, OURS, Packet, Step, parse_rules

Run = t.Callable[["list[str]"], tuple[int, str, str]]

ROOT = Path("/opt/gpufleet/firewall")
MANIFEST = ROOT / "manifest.json"
PENDING = ROOT / "pending"
LOCK = Path("/run/gpufleet-firewall.lock")
LOCK_PATIENCE = 120
TIMER = "gpufleet-firewall-undo"

SETTINGS, SWITCH = Path("/etc/default/ufw"), Path("/etc/ufw/ufw.conf")
RULES = {4: Path("/etc/ufw/user.rules"), 6: Path("/etc/ufw/user6.rules")}
FILES = (SETTINGS, SWITCH, *RULES.values())

POLICIES = {name: name for name in (OPEN, CLOSED, "REJECT")} | {"ACCEPT_NO_TRACK": OPEN}

UNDO = """\
# Puts ufw back as it was before a change after which nobody came in again.
cd {pending} || exit 0
{off}
{copies}
{on}
cd /
rm -r {pending}
rmdir --ignore-fail-on-non-empty {root}
"""


class Firewall:
    """This host's ufw. ``run`` takes words and returns exit status, stdout and stderr."""

    def __init__(self, run: Run) -> None:
        self._run = run

    # -- see ----------------------------------------------------------------------------------

    def observe(self, want: Want) -> State:
        """Return ufw as it is, as far as ``want`` makes it matter."""
        if not shutil.which("ufw"):
            return State({4: [], 6: []}, installed=False, before=_manifest())
        if not want.present and not _has_ours():
            return State({4: [], 6: []})
        settings = {**_settings(SETTINGS), **_settings(SWITCH)}
        enabled = settings.get("ENABLED", "").lower() == "yes"
        return State(
            {family: parse_rules(path.read_text()) for family, path in RULES.items()},
            enabled=enabled,
            loaded=enabled and self._run(["iptables", "-w", "-S", "ufw-user-input"])[0] == 0,
            incoming=_policy(settings, "INPUT"),
            routed=_policy(settings, "FORWARD"),
            ipv6=settings.get("IPV6", "").lower() == "yes",
            forward=self._forward() if want.present and not enabled else {},
            before=_manifest(),
        )

    def _forward(self) -> dict[str, str]:
        """What becomes of forwarded packets; nothing is said where there is no such tool."""
        found = {}
        for tool in filter(shutil.which, ("iptables", "ip6tables")):
            code, out, _ = self._run([tool, "-w", "-S", "FORWARD"])
            if code == 0 and out.startswith("-P FORWARD "):
                found[tool] = out.split()[2]
        return found

    # -- do -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> t.Iterator[None]:
        """Keep two runs, or a run and the undoing of another one, apart."""
        with LOCK.open("w") as lock:
            deadline = time.monotonic() + LOCK_PATIENCE
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise FirewallError("another run has been working on the firewall for too long") from error
                    time.sleep(0.2)
            yield

    def bring(self, want: Want, connection: Packet | None, within: int) -> tuple[Plan, State]:
        """Bring ufw to its state. Return what was done, and ufw as it was. Raises FirewallError.

        After a change, ufw goes back in ``within`` seconds unless `confirm` is called.
        """
        with self.locked():
            if PENDING.exists():  # of a run that nobody came back from
                self._undo()
            before = have = self.observe(want)
            first = plan = make_plan(want, have, connection)
            if plan.enable and self._run(["systemctl", "is-active", "--quiet", "firewalld"])[0] == 0:
                raise FirewallError("firewalld runs on this host, and ufw does not go with it: disable it first")
            if plan.install:
                self._install()
                have = self.observe(want)
                plan = make_plan(want, have, connection)
            if plan.changes:
                self._begin(want, have, plan, within)
                try:
                    self._carry_out(have, plan)
                except FirewallError as error:
                    self._undo()
                    raise FirewallError(f"{error}. The firewall is as it was") from None
            elif not want.present and ROOT.exists():
                shutil.rmtree(ROOT)
            return first, before

    def confirm(self) -> None:
        """Make the last change stay. Raises FirewallError where it is gone already."""
        with self.locked():
            if not PENDING.exists():
                raise FirewallError("it took too long to come in again, and the firewall is as it was")
            manifest = PENDING / "manifest.json"
            if manifest.exists():
                manifest.replace(MANIFEST)
                shutil.rmtree(PENDING)
            else:
                shutil.rmtree(ROOT)
            self._stop_timer()

    def _install(self) -> None:
        words = ["apt-get", "install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", "ufw"]
        if not shutil.which(words[0]):
            raise FirewallError("there is no ufw on this host, and no apt to install it: install it yourself")
        if self._run(words)[0] != 0:
            self._order("apt-get", "update")
            self._order(*words)

    def _carry_out(self, have: State, plan: Plan) -> None:
        """Rules come first: when ufw is switched on, they are there."""
        count = {family: len(rules) for family, rules in have.rules.items()}
        for step in plan.steps:
            self._order("ufw", *_words(step, count))
        if plan.enable is False:
            self._order("ufw", "disable")
        for name, word in plan.policies:
            self._order("ufw", "default", word, name)
        if plan.enable is True:
            self._order("ufw", "--force", "enable")
        if plan.enable is False:
            for tool, policy in have.before.get("forward", {}).items():
                self._order(tool, "-w", "-P", "FORWARD", policy)

    def _order(self, *words: str) -> None:
        code, out, err = self._run(list(words))
        if code != 0:
            raise FirewallError(f"{' '.join(words)} failed: {(err or out).strip()}")

    # -- go back ------------------------------------------------------------------------------

    def _begin(self, want: Want, have: State, plan: Plan, within: int) -> None:
        """Write down the state to go back to, and see that it is gone back to."""
        PENDING.mkdir(parents=True, mode=0o700)
        for path in FILES:
            shutil.copy2(path, PENDING / path.name)
        if want.present:
            (PENDING / "manifest.json").write_text(json.dumps(_before(have, plan)))
        policies = [f"{tool} -w -P FORWARD {policy}" for tool, policy in have.forward.items()]
        script = UNDO.format(
            pending=PENDING,
            root=ROOT,
            off="" if have.enabled else "ufw disable",
            copies="\n".join(f"cp {path.name} {path}" for path in FILES),
            on="\n".join(["ufw reload"] if have.enabled else policies),
        )
        (PENDING / "undo.sh").write_text(script)
        self._stop_timer()
        self._order(
            *("systemd-run", "--quiet", "--collect", f"--unit={TIMER}", f"--on-active={within}"),
            *("--timer-property=AccuracySec=100ms", "flock", str(LOCK), "sh", str(PENDING / "undo.sh")),
        )

    def _undo(self) -> None:
        self._order("sh", str(PENDING / "undo.sh"))
        self._stop_timer()

    def _stop_timer(self) -> None:
        self._run(["systemctl", "--quiet", "stop", f"{TIMER}.timer"])  # there may be none


def _words(step: Step, count: dict[int, int]) -> list[str]:
    """Return a step in ufw's command line. ufw counts the rules for IPv6 after those for IPv4."""
    rule = step.rule
    if step.verb == "delete":
        count[rule.family] -= 1
        return ["delete", *rule.words]
    place = []
    if step.verb == "insert":
        place = ["insert", str(step.position + (count[4] if rule.family == 6 else 0))] if step.position else []
        count[rule.family] += 1
    return [*place, *rule.words, "comment", rule.comment]


def _before(have: State, plan: Plan) -> dict[str, t.Any]:
    """What is to be put back when all of ours goes: the first run knows, and later ones add what they change."""
    known: dict[str, t.Any] = {
        name: {"incoming": have.incoming, "routed": have.routed}[name] for name, _ in plan.policies
    }
    if plan.enable and not have.enabled:
        others = sum(not rule.is_ours for rules in have.rules.values() for rule in rules)
        known.update(enabled=False, others=others, forward=dict(have.forward))
    return {**known, **have.before}


def _has_ours() -> bool:
    """Whether there is anything to take away. A host that never had a firewall of ours may have any kind of ufw."""
    mark = f" comment={OURS.encode().hex()}"
    return MANIFEST.exists() or any(mark in path.read_text() for path in RULES.values() if path.exists())


def _policy(settings: t.Mapping[str, str], chain: str) -> str:
    name = f"DEFAULT_{chain}_POLICY"
    policy = settings.get(name, "").upper()
    if policy not in POLICIES:
        raise FirewallError(f"{SETTINGS} has {name}='{policy}', which is none of {', '.join(sorted(set(POLICIES)))}")
    return POLICIES[policy]


def _manifest() -> dict[str, t.Any]:
    try:
        return t.cast("dict[str, t.Any]", json.loads(MANIFEST.read_text()))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise FirewallError(f"{MANIFEST} is damaged: {error}") from error


def _settings(path: Path) -> dict[str, str]:
    """Return the settings of a file that a shell could read."""
    words = (shlex.split(line, comments=True) for line in path.read_text().splitlines())
    return {name: value for line in words for word in line for name, _, value in [word.partition("=")]}


# -- how Ansible came here ------------------------------------------------------------------------


def find_connection(pid: int | None = None, proc: Path = Path("/proc")) -> tuple[str, Packet | None]:
    """Return SSH_CONNECTION of the session that a process is in, as text and understood.

    sudo takes it out of the environment, but not out of those of the processes before.
    """
    pid = os.getpid() if pid is None else pid
    while pid > 1:
        try:
            environment = (proc / str(pid) / "environ").read_bytes()
            parent = int((proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        for entry in environment.split(b"\0"):
            name, _, value = entry.decode("utf-8", "replace").partition("=")
            fields = value.split()
            if name == "SSH_CONNECTION" and len(fields) == 4:
                # An address of a link has its interface behind it.
                source, destination = (fields[index].partition("%")[0] for index in (0, 2))
                return value, Packet(source, destination, int(fields[3]))
        pid = parent
    return "", None
