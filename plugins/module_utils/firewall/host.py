# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""This host's ufw: see how it is, carry a plan out, and undo it unless somebody comes in afterwards.

/opt/gpufleet/firewall/manifest.json  what ufw was like before us
/opt/gpufleet/firewall/pending/       exists only until a change is confirmed: the state to go back to
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import typing as t
from pathlib import Path

from ..files import remove_empty
from ..lock import exclusive
from ..native_service import packages
from ..native_service.apt import Apt
from .kernel import TOOLS, Kernel, Run, has_ipv6, sysctl_before
from .pending import LOCK, MANIFEST, ROOT, RULES, SETTINGS, SWITCH, Pending
from .plan import FirewallError, Plan, State, Want, make_plan, others
from .ufw import CLOSED, OPEN, OURS, Packet, Rule, Step, count_rules, parse_rules, take

LOCK_PATIENCE = 120
POLICIES = {name: name for name in (OPEN, CLOSED, "REJECT")} | {"ACCEPT_NO_TRACK": OPEN}


class Firewall:
    """This host's ufw. ``run`` takes words and returns exit status, stdout and stderr."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._kernel = Kernel(run)
        self._pending = Pending(self._order)

    # -- see ----------------------------------------------------------------------------------

    def observe(self, want: Want) -> State:
        """Return ufw as it is, as far as ``want`` makes it matter."""
        if not shutil.which("ufw"):
            have = State({4: [], 6: []}, installed=False, before=_manifest())
            return self._with_kernel(have, {}) if want.present else have
        if not want.present and not _has_ours():
            return State({4: [], 6: []})
        settings = {**_settings(SETTINGS), **_settings(SWITCH)}
        texts = {family: path.read_text() for family, path in RULES.items()}
        have = State(
            {family: parse_rules(text) for family, text in texts.items()},
            enabled=settings.get("ENABLED", "").lower() == "yes",
            incoming=_policy(settings, "INPUT"),
            outgoing=_policy(settings, "OUTPUT"),
            routed=_policy(settings, "FORWARD"),
            ipv6=settings.get("IPV6", "").lower() == "yes",
            builtins=settings.get("MANAGE_BUILTINS", "").lower() == "yes",
            before=_manifest(),
        )
        if not want.present:
            return have
        have = have._replace(at_boot=self._run(["systemctl", "is-enabled", "ufw"])[1].strip())
        if not have.enabled:
            return self._with_kernel(have, settings)
        families = (4, 6) if have.ipv6 else (4,)
        return have._replace(
            flushed=tuple(family for family in families if not self._kernel.has_loaded(family, texts[family]))
        )

    def _with_kernel(self, have: State, settings: t.Mapping[str, str]) -> State:
        """Where ufw is off, what there is without it counts."""
        return have._replace(
            forward=self._kernel.forward(),
            handmade=self._kernel.handmade(),
            has_ipv6=has_ipv6(),
            sysctl=sysctl_before(Path(settings.get("IPT_SYSCTL") or os.devnull)),
        )

    # -- do -----------------------------------------------------------------------------------

    def locked(self) -> t.ContextManager[None]:
        """Keep two runs, or a run and the undoing of another one, apart."""
        busy = FirewallError("another run has been working on the firewall for too long")
        return exclusive(LOCK, LOCK_PATIENCE, busy)

    def bring(self, want: Want, connection: Packet | None, within: int, mirror: str = "") -> tuple[Plan, State, str]:
        """Bring ufw to its state. Return what was done, ufw as it was, and the change's id. Raises FirewallError.

        After a change, ufw goes back in ``within`` seconds unless `confirm` is called.
        """
        with self.locked():
            self._pending.settle()
            before = have = self.observe(want)
            first = plan = make_plan(want, have, connection)
            if plan.enable and self._run(["systemctl", "is-active", "--quiet", "firewalld"])[0] == 0:
                raise FirewallError("firewalld runs on this host, and ufw does not go with it: disable it first")
            if plan.install:
                self._install(mirror)
                have = self.observe(want)
                plan = make_plan(want, have, connection)
            if plan.changes:
                return first, before, self._change(want, have, plan, within)
            if not want.present and ROOT.exists():
                shutil.rmtree(ROOT)
            return first, before, ""

    def confirm(self, token: str) -> None:
        """Make the change of that id stay. Raises FirewallError where it is gone already."""
        with self.locked():
            self._pending.confirm(token)

    def _install(self, mirror: str) -> None:
        """Nothing is removed for it: it would be another firewall."""
        words = ["apt-get", "install", "--yes", "--no-remove", "--no-install-recommends"]
        words += ["-o", "DPkg::Lock::Timeout=120", "ufw"]
        if not shutil.which(words[0]):
            raise FirewallError("there is no ufw on this host, and no apt to install it: install it yourself")
        if mirror:
            self._install_with(mirror)
            return
        if self._run(words)[0] != 0:
            self._order("apt-get", "update")
            self._order(*words)

    def _install_with(self, mirror: str) -> None:
        """Install it from the host's own sources or a mirror, as native_service does, which removes nothing either."""
        apt, scratch = Apt(self._run), ROOT / ".packages"
        try:
            wanted = packages.from_params({"names": ["ufw"], "version": "", "replaces": [], "mirror": mirror})
            apt.install(apt.fetch(wanted, packages.Changes(get=wanted.names), {}, scratch), [], scratch)
        except packages.PackageError as error:
            raise FirewallError(f"ufw cannot be installed: {error}") from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            remove_empty([ROOT, ROOT.parent])

    def _change(self, want: Want, have: State, plan: Plan, within: int) -> str:
        try:
            token = self._pending.begin(have, _before(have, plan) if want.present else None, within)
            self._carry_out(have, plan)
            self._pending.carried_out()
        except (FirewallError, OSError) as error:
            self._pending.undo()
            raise FirewallError(f"{error}. The firewall is as it was") from None
        return token

    def _carry_out(self, have: State, plan: Plan) -> None:
        """Rules come first: when ufw is switched on, they are there."""
        rules = {family: list(found) for family, found in have.rules.items()}
        for step in plan.steps:
            self._order("ufw", *_words(step, rules))
        if plan.enable is False:
            self._order("ufw", "disable")
        for name, word in plan.policies:
            self._order("ufw", "default", word, name)
        for family in TOOLS if plan.enable else have.flushed:
            self._kernel.clear(family)
        if plan.reload:
            self._order("ufw", "reload")
        if plan.enable is True:
            self._order("ufw", "--force", "enable")
        if plan.enable is False:
            self._put_back(have.before)

    def _put_back(self, before: t.Mapping[str, t.Any]) -> None:
        """What ufw changes when it is switched on, and leaves so."""
        for tool, policy in before.get("forward", {}).items():
            self._order(tool, "-w", "-P", "FORWARD", policy)
        for path, value in before.get("sysctl", {}).items():
            Path(path).write_text(value)

    def _order(self, *words: str, may_fail: bool = False) -> None:
        code, out, err = self._run(list(words))
        if code != 0 and not may_fail:
            raise FirewallError(f"{' '.join(words)} failed: {(err or out).strip()}")


def _words(step: Step, rules: t.Mapping[int, list[Rule]]) -> list[str]:
    """Return a step in ufw's command line, and take it in ``rules``.

    ufw counts the rules for IPv6 after those for IPv4.
    """
    rule, place = step.rule, []
    if step.verb == "insert" and step.position:
        place = ["insert", str(step.position + (count_rules(rules[4]) if rule.family == 6 else 0))]
    take(step, rules[rule.family])
    if step.verb == "delete":
        return ["delete", *rule.words]
    return [*place, *rule.words, "comment", rule.comment]


def _before(have: State, plan: Plan) -> dict[str, t.Any]:
    """What is to be put back when all of ours goes: the first run knows, and later ones add what they change."""
    known: dict[str, t.Any] = {
        name: {"incoming": have.incoming, "routed": have.routed}[name] for name, _ in plan.policies
    }
    if plan.enable:
        known.update(enabled=False, others=others(have), forward=dict(have.forward), sysctl=dict(have.sysctl))
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
