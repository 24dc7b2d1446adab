# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the hosts of an inventory download: read from the tasks of the roles that site.yml gives them.

There is no list of downloads to keep. A role's tasks are evaluated with a host's variables, as far as they name
releases, packages and plugins, and with a word of our own in place of the mirror's URL: what begins with it
afterwards is what a mirror has to have, and under which path.
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from ansible.errors import AnsibleError, AnsibleUndefinedVariable

from ...module_utils.grafana_plugins import plugin_release
from ...module_utils.native_service import release as releases
from .. import zipapp
from ..roles import ROLES

try:
    from ansible.template import trust_as_template
except ImportError:  # before ansible-core 2.19, all texts are templates

    def trust_as_template(value: str) -> str:
        """Return the text as it is."""
        return value


PLAYBOOKS = ROLES.parent / "playbooks"
MIRROR = "gpufleet_mirror_url"
PREFIX = "mirror:/"  # in place of a mirror's URL
COLLECTION = "gpufleet.monitoring."

# Modules in the roles' tasks that bring nothing from elsewhere to a host. Those that do are in _READERS, below.
HARMLESS = frozenset(
    {f"{COLLECTION}{name}" for name in ("dcgm_info", "nginx_info")}
    | {f"ansible.builtin.{name}" for name in ("assert", "copy", "debug", "fetch", "file", "set_fact", "stat")}
)
INFO = f"{COLLECTION}dcgm_info"

# The versions of CUDA that NVIDIA has packages of DCGM for, where the host was not asked for its driver.
CUDA = (11, 12, 13)
NVIDIA_ARCHITECTURES = {"amd64": "x86_64", "arm64": "sbsa"}
UNKNOWN = "{distribution}"

# The library that a program of ours is made with comes to the controller; the program itself is not built here.
_ZIPAPP = re.compile(r"lookup\('gpufleet\.monitoring\.zipapp', '(\w+)'")


class NeedsError(Exception):
    """What the inventory needs cannot be told. The text has a line for each reason."""


class Users:
    """Which hosts need a thing, by the role that brings it there."""

    def __init__(self) -> None:
        self._hosts: dict[str, dict[str, None]] = {}

    def add(self, role: str, host: str) -> None:
        """Note one more."""
        self._hosts.setdefault(role, {})[host] = None

    def update(self, other: Users) -> None:
        """Note all of another's."""
        for role, hosts in other._hosts.items():
            self._hosts.setdefault(role, {}).update(hosts)

    def by_role(self) -> dict[str, list[str]]:
        """Return them in an order of their own."""
        return {role: sorted(hosts) for role, hosts in sorted(self._hosts.items())}


@dataclass
class File:
    """A file that the mirror has to have."""

    url: str  # without the scheme; the path in the mirror is this without a query
    version: str
    sha256: str | None  # as the inventory or the collection has it
    checksum_url: str | None  # likewise without the scheme
    users: Users = field(default_factory=Users)


@dataclass
class Repository:
    """The part of a vendor's apt repository that is needed."""

    url: str  # without the scheme
    key_url: str
    key_sha256: str | None
    packages: dict[tuple[str, str], Users] = field(default_factory=dict)  # name, and version or ""
    users: Users = field(default_factory=Users)


@dataclass
class Needs:
    """All that the mirror has to have, by path, and what it cannot have."""

    files: dict[str, File] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)
    packages: dict[str, Users] = field(default_factory=dict)  # of the distribution, by name
    elsewhere: dict[str, Users] = field(default_factory=dict)  # other URLs


class Templates(t.Protocol):
    """What is used of Ansible's Templar."""

    def copy_with_new_env(self, *, available_variables: Mapping[str, t.Any]) -> Templates:
        """Return one with other variables."""

    def template(self, variable: t.Any) -> t.Any:
        """Evaluate."""


class Hosts(t.Protocol):
    """What is used of Ansible's hostvars."""

    def raw_get(self, host_name: str) -> Mapping[str, t.Any]:
        """Return variables that are not evaluated."""


# -- the roles' own files -------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One task of a role."""

    module: str
    arguments: Mapping[str, t.Any]
    when: tuple[t.Any, ...]
    register: str


@dataclass(frozen=True)
class Role:
    """What a role consists of, as far as it matters here."""

    name: str
    tasks: tuple[Task, ...]
    defaults: Mapping[str, t.Any]
    variables: Mapping[str, t.Any]


def read_role(name: str, loader: t.Any) -> Role:
    """Return a role of the collection."""
    root = ROLES / name
    variables = {key: _program(value) or value for key, value in _load(root / "vars/main.yml", loader).items()}
    tasks = tuple(_tasks(_load(root / "tasks/main.yml", loader), ()))
    return Role(name, tasks, _load(root / "defaults/main.yml", loader), {"role_path": str(root), **variables})


def _program(value: t.Any) -> dict[str, str] | None:
    found = _ZIPAPP.search(value) if isinstance(value, str) else None
    return {"zipapp": found[1]} if found else None


def _load(path: Path, loader: t.Any) -> t.Any:
    return loader.load(trust_as_template(path.read_text()), file_name=str(path)) if path.exists() else {}


def _tasks(tasks: Sequence[Mapping[str, t.Any]], when: tuple[t.Any, ...]) -> Iterator[Task]:
    for task in tasks:
        conditions = (*when, *_listed(task.get("when", [])))
        if "block" in task:
            yield from _tasks(task["block"], conditions)
            continue
        # A module is the one key with a dot: names are written out in full here.
        module = next(key for key in task if "." in key)
        yield Task(module, task[module] or {}, conditions, task.get("register", ""))


def _listed(value: t.Any) -> list[t.Any]:
    return value if isinstance(value, list) else [value]


def roles_of_site() -> dict[str, list[str]]:
    """Return the roles that site.yml gives to each group."""
    found: dict[str, list[str]] = {}
    for imported in _yaml(PLAYBOOKS / "site.yml"):
        name = imported.get("ansible.builtin.import_playbook")
        for play in _yaml(PLAYBOOKS / name) if name else [imported]:
            for group in re.split(r"[:,]", play["hosts"]) if play.get("roles") else []:
                roles = [role["role"].removeprefix(COLLECTION) for role in play["roles"]]
                found[group] = list(dict.fromkeys([*found.get(group, []), *roles]))
    return found


def _yaml(path: Path) -> t.Any:
    return yaml.safe_load(path.read_text())


# -- what they need -------------------------------------------------------------------------------


def find_needs(
    groups: Mapping[str, Sequence[str]],
    hostvars: Hosts,
    asked: Mapping[str, Mapping[str, t.Any]],
    templates: Templates,
    loader: t.Any,
) -> Needs:
    """Return what the hosts of the inventory need.

    ``asked`` has what the module dcgm_info said of hosts that were asked. Raises NeedsError with all that is in the
    way.
    """
    needs = Needs()
    problems: dict[str, list[str]] = {}
    read: dict[str, Role] = {}
    given: dict[str, dict[str, None]] = {}
    for group, roles in roles_of_site().items():
        for host in groups.get(group, ()):
            given.setdefault(str(host), {}).update(dict.fromkeys(roles))
    for host, roles_of_host in given.items():
        variables = hostvars.raw_get(host)
        for name in roles_of_host:
            role = read[name] = read.get(name) or read_role(name, loader)
            try:
                _Host(host, role, variables, asked.get(host) or {}, templates).collect(needs)
            except (AnsibleError, releases.ReleaseError, NeedsError, KeyError, TypeError) as error:
                problems.setdefault(f"{name}: {error}", []).append(host)
    if problems:
        raise NeedsError("\n".join(f"- {_some(hosts)}: {text}" for text, hosts in problems.items()))
    return needs


def _some(hosts: Sequence[str]) -> str:
    return ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")


class _Host:
    """Evaluates one role for one host."""

    def __init__(
        self,
        host: str,
        role: Role,
        variables: Mapping[str, t.Any],
        asked: Mapping[str, t.Any],
        templates: Templates,
    ) -> None:
        self.host = host
        self.role = role
        known = {**role.defaults, **variables, **role.variables, "inventory_hostname": host, MIRROR: PREFIX}
        self._variables = known
        self._templates = templates.copy_with_new_env(available_variables=known)
        self.architecture = self._architecture(asked)
        self._asked = asked

    def collect(self, needs: Needs) -> None:
        """Add what the role needs on this host."""
        for info in self._infos():
            known = {**self._variables, **{task.register: info for task in self.role.tasks if task.module == INFO}}
            self._templates = self._templates.copy_with_new_env(available_variables=known)
            for task in self.role.tasks:
                reader = _READERS.get(task.module)
                if reader and all(self._holds(condition) for condition in task.when):
                    reader(self, task.arguments, needs)

    def value(self, value: t.Any) -> t.Any:
        """Evaluate."""
        return self._templates.template(value)

    def _holds(self, condition: t.Any) -> bool:
        """Whether a task would run; what only the host could say does not stand against it."""
        try:
            return bool(self.value(trust_as_template(f"{{{{ ({condition}) | bool }}}}")))
        except AnsibleUndefinedVariable:
            return True

    def _infos(self) -> list[Mapping[str, t.Any]]:
        """Return what dcgm_info says of the host, or may say, for all drivers that it may have or get."""
        if self._asked.get("distribution"):
            return [self._asked]
        distribution = self.value(self._variables.get("gpufleet_distribution") or UNKNOWN)
        architecture = NVIDIA_ARCHITECTURES[self.architecture]
        base = {"supported": True, "installed": False, "distribution": distribution, "architecture": architecture}
        return [{**base, "cuda": cuda} for cuda in CUDA]

    def _architecture(self, asked: Mapping[str, t.Any]) -> str:
        said = self.value(self._variables.get("gpufleet_architecture") or "")
        names = {name: ours for ours, name in NVIDIA_ARCHITECTURES.items()}
        try:
            return releases.architecture(str(said or names.get(asked.get("architecture", ""), "amd64")))
        except releases.ReleaseError as error:
            raise NeedsError(f"gpufleet_architecture: {error}; it is amd64 or arm64") from None

    def add_file(self, needs: Needs, release: releases.Release) -> None:
        """Note a file that is verified by itself or by a list of checksums."""
        if not release.url.startswith(f"{PREFIX}/"):
            needs.elsewhere.setdefault(release.url, Users()).add(self.role.name, self.host)
            return
        url, checksums = _location(release.url), release.checksum_url
        known = needs.files.setdefault(
            path_of(url), File(url, release.version, release.sha256, checksums and _location(checksums))
        )
        if (known.url, known.sha256) != (url, release.sha256) and not (known.sha256 and known.sha256 == release.sha256):
            raise NeedsError(
                f"{url} and {known.url} are different files under the same path of a mirror: give one of them a URL of"
                " its own"
            )
        known.users.add(self.role.name, self.host)


def _location(url: str) -> str:
    """Return a URL without its scheme, or our word. Raises NeedsError."""
    if not url.startswith(f"{PREFIX}/"):
        raise NeedsError(f"{url} is not below gpufleet_mirror_url, while what it belongs to is")
    return url.removeprefix(f"{PREFIX}/")


def path_of(url: str) -> str:
    """Return the path in the mirror of a URL without its scheme. Raises NeedsError."""
    path = re.sub(r"[?#].*", "", url).rstrip("/")
    if not path or any(part in ("", ".", "..") for part in path.split("/")):
        raise NeedsError(f"{url!r} is no path that a mirror can have")
    return path


def _of_service(host: _Host, arguments: Mapping[str, t.Any], needs: Needs) -> None:
    if host.value(arguments.get("state", "started")) == "absent":
        return
    release = host.value(arguments.get("release")) if "release" in arguments else None
    packages = host.value(arguments.get("packages")) if "packages" in arguments else None
    if isinstance(release, Mapping) and "zipapp" in release:
        for wheel in zipapp.wheels(release["zipapp"]):
            version = wheel.filename.split("-")[1]
            host.add_file(needs, releases.Release(version, f"{PREFIX}/{wheel.location}", wheel.sha256, None))
    elif isinstance(release, Mapping):
        host.add_file(needs, releases.from_params(release, host.architecture))
    if isinstance(packages, Mapping):
        _of_packages(host, packages, needs)


def _of_packages(host: _Host, packages: Mapping[str, t.Any], needs: Needs) -> None:
    repository = packages.get("repository")
    if not repository:
        for name in packages["names"]:
            needs.packages.setdefault(name, Users()).add(host.role.name, host.host)
        return
    url, key_url = repository["url"], repository["key_url"]
    if UNKNOWN in url:
        raise NeedsError(
            "which packages it gets depends on its distribution. Say it as gpufleet_distribution (ubuntu2404, debian12 "
            "...), or have the hosts asked by mirror_ask_hosts: true; or do without, by dcgm_enabled: false"
        )
    if not url.startswith(f"{PREFIX}/") or re.search(r"/rhel\d+/", url):
        needs.elsewhere.setdefault(url.replace(f"{PREFIX}/", "https://"), Users()).add(host.role.name, host.host)
        return
    location, key = _location(url).rstrip("/"), _location(key_url)
    found = needs.repositories.setdefault(location, Repository(location, key, repository.get("key_sha256") or None))
    found.users.add(host.role.name, host.host)
    for name in packages["names"]:
        wanted = (name, str(packages.get("version") or ""))
        found.packages.setdefault(wanted, Users()).add(host.role.name, host.host)


def _of_plugins(host: _Host, arguments: Mapping[str, t.Any], needs: Needs) -> None:
    for plugin in host.value(arguments["plugins"]):
        host.add_file(needs, plugin_release(plugin, PREFIX, host.architecture))


def _of_firewall(host: _Host, arguments: Mapping[str, t.Any], needs: Needs) -> None:
    if host.value(arguments["state"]) != "absent":
        needs.packages.setdefault("ufw", Users()).add(host.role.name, host.host)


_READERS: dict[str, Callable[[_Host, Mapping[str, t.Any], Needs], None]] = {
    f"{COLLECTION}native_service": _of_service,
    f"{COLLECTION}grafana_plugins": _of_plugins,
    f"{COLLECTION}firewall": _of_firewall,
}
KNOWN = HARMLESS | frozenset(_READERS)
