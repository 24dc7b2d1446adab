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
from dataclasses import dataclass

from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.module_utils.parsing.convert_bool import boolean

from ...module_utils import distributions
from ...module_utils.grafana_plugins import plugin_release
from ...module_utils.native_service import release as releases
from .. import zipapp
from ..trust import trust_as_template
from .needs import MIRROR, MIRROR_PACKAGES, File, Needs, NeedsError, Repository, Users, path_of
from .tasks import COLLECTION, Role, read_role, roles_of_site

PREFIX = "mirror:/"  # in place of a mirror's URL

# Modules in the roles' tasks that bring nothing from elsewhere to a host. Those that do are in _READERS, below. Of
# commands there is one, of monitoring_manage, which looks for a word in files.
HARMLESS = frozenset(
    {f"{COLLECTION}{name}" for name in ("dcgm_info", "nginx_info")}
    | {
        f"ansible.builtin.{name}"
        for name in ("assert", "command", "copy", "debug", "fetch", "file", "set_fact", "stat")
    }
)
INFO = f"{COLLECTION}dcgm_info"

# The versions of CUDA that NVIDIA has packages of DCGM for, where the host was not asked for its driver.
CUDA = (11, 12, 13)
NVIDIA_ARCHITECTURES = {"amd64": "x86_64", "arm64": "sbsa"}
UNKNOWN = "{distribution}"
ANY_CUDA = "{cuda}"


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
    evaluated: dict[str, list[_Evaluation]] = {}
    for host, roles_of_host in given.items():
        variables = hostvars.raw_get(host)
        for name in roles_of_host:
            role = read[name] = read.get(name) or read_role(name, loader)
            try:
                for item in _evaluate(host, role, variables, asked.get(host) or {}, templates, evaluated):
                    item.note(needs, name, host)
            except (AnsibleError, releases.ReleaseError, NeedsError, KeyError, TypeError) as error:
                problems.setdefault(f"{name}: {error}", []).append(host)
    if problems:
        raise NeedsError("\n".join(f"- {_some(hosts)}: {text}" for text, hosts in problems.items()))
    return needs


def _some(hosts: Sequence[str]) -> str:
    return ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")


def _depends_on(role: Role, variables: Mapping[str, t.Any]) -> dict[str, t.Any] | None:
    """Return all variables that can matter for what a role needs, or None where that cannot be told.

    These are the names in the tasks' texts, in the texts that these names stand for, and so on.
    """
    found: dict[str, t.Any] = {}
    texts: list[t.Any] = [f"gpufleet_architecture gpufleet_distribution {MIRROR_PACKAGES}"]
    texts += [(task.arguments, task.when) for task in role.tasks if task.module in _READERS]
    while texts:
        text = texts.pop()
        if isinstance(text, Mapping):
            texts += text.values()
        elif isinstance(text, (list, tuple)):
            texts += text
        elif isinstance(text, str):
            names = set(re.findall(r"[A-Za-z_]\w*", text))
            if names & _ANYTHING:
                return None
            new = {name: variables.get(name) for name in names - found.keys()}
            found.update(new)
            texts += new.values()
    return found


# Words by which a template reaches variables that it does not name.
_ANYTHING = frozenset({"vars", "varnames", "hostvars", "template"})


class _Item(t.Protocol):
    """One thing that a host needs."""

    def note(self, needs: Needs, role: str, host: str) -> None:
        """Add it."""


class _Evaluation(t.NamedTuple):
    """What a role needs, and what that depended on: hosts of a fleet are alike, and Jinja takes its time."""

    variables: Mapping[str, t.Any]
    asked: Mapping[str, t.Any]
    items: list[_Item]


def _evaluate(
    host: str,
    role: Role,
    variables: Mapping[str, t.Any],
    asked: Mapping[str, t.Any],
    templates: Templates,
    evaluated: dict[str, list[_Evaluation]],
) -> list[_Item]:
    """Return what a role needs on a host, as it was found for another one if that is alike."""
    known = {**role.defaults, **variables, **role.variables, "inventory_hostname": host, MIRROR: PREFIX}
    matters = _depends_on(role, known)
    for other in evaluated.setdefault(role.name, []):
        if matters == other.variables and asked == other.asked:
            return other.items
    items = list(_Host(role, known, asked, templates).items())
    if matters is not None:
        evaluated[role.name].append(_Evaluation(matters, asked, items))
    return items


class _Host:
    """Evaluates one role for one host."""

    def __init__(
        self, role: Role, variables: dict[str, t.Any], asked: Mapping[str, t.Any], templates: Templates
    ) -> None:
        self._tasks = role.tasks
        self._variables = variables
        self._asked = asked
        self._templates = templates.copy_with_new_env(available_variables=variables)
        self.architecture = self._architecture()
        info = self._info()
        for task in role.tasks:
            if task.module == INFO:
                variables[task.register] = info

    def items(self) -> Iterator[_Item]:
        """Yield what the role needs."""
        for task in self._tasks:
            reader = _READERS.get(task.module)
            if reader and all(self._holds(condition) for condition in task.when):
                yield from reader(self, task.arguments)

    def value(self, value: t.Any) -> t.Any:
        """Evaluate."""
        return self._templates.template(value)

    def package(self, name: str) -> _Package:
        """Return a package of the host's distribution. Raises NeedsError."""
        if not boolean(self.value(self._variables.get(MIRROR_PACKAGES) or False)):
            return _Package(name, None)
        distribution = self._info()["distribution"]
        if distribution == UNKNOWN:
            raise NeedsError(
                f"with {MIRROR_PACKAGES}, which files {name} is depends on its distribution. Say it as "
                "gpufleet_distribution (ubuntu2404, debian12 ...), or have the hosts asked by mirror_ask_hosts: true"
            )
        if not re.fullmatch(r"((debian|ubuntu|rhel)\d+)?", distribution):  # one that was asked may be none of these
            raise NeedsError(
                f"gpufleet_distribution is {distribution!r}, and names are as NVIDIA's repositories have them: "
                "debian12, ubuntu2404, rhel9"
            )
        known = distributions.find(distribution, self.architecture)
        return _Package(name, (distribution, self.architecture) if known else None)

    def _holds(self, condition: t.Any) -> bool:
        """Whether a task would run; what only the host could say does not stand against it."""
        try:
            return bool(self.value(trust_as_template(f"{{{{ ({condition}) | bool }}}}")))
        except AnsibleUndefinedVariable:
            return True

    def _info(self) -> Mapping[str, t.Any]:
        """Return what dcgm_info says of the host, or, where it was not asked, may say."""
        if self._asked.get("distribution"):
            return self._asked
        distribution = self.value(self._variables.get("gpufleet_distribution") or UNKNOWN)
        architecture = NVIDIA_ARCHITECTURES[self.architecture]
        found = {"supported": True, "installed": False, "distribution": distribution, "architecture": architecture}
        return {**found, "cuda": ANY_CUDA}

    def _architecture(self) -> str:
        said = self.value(self._variables.get("gpufleet_architecture") or "")
        names = {name: ours for ours, name in NVIDIA_ARCHITECTURES.items()}
        try:
            return releases.architecture(str(said or names.get(self._asked.get("architecture", ""), "amd64")))
        except releases.ReleaseError as error:
            raise NeedsError(f"gpufleet_architecture: {error}; it is amd64 or arm64") from None


def _location(url: str) -> str:
    """Return a URL without its scheme, or our word. Raises NeedsError."""
    if not url.startswith(f"{PREFIX}/"):
        raise NeedsError(f"{url} is not below gpufleet_mirror_url, while what it belongs to is")
    return url.removeprefix(f"{PREFIX}/")


# -- what there is to need ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Download:
    """A file that is verified by itself or by a list of checksums."""

    release: releases.Release

    def note(self, needs: Needs, role: str, host: str) -> None:
        """Add it."""
        release = self.release
        if not release.url.startswith(f"{PREFIX}/"):
            needs.elsewhere.setdefault(release.url, Users()).add(role, host)
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
        known.users.add(role, host)


@dataclass(frozen=True)
class _Package:
    """A package of the distribution."""

    name: str
    system: tuple[str, str] | None  # distribution and architecture, where a mirror is to have it

    def note(self, needs: Needs, role: str, host: str) -> None:
        """Add it."""
        packages = needs.distributions.setdefault(self.system, {}) if self.system else needs.packages
        packages.setdefault(self.name, Users()).add(role, host)


@dataclass(frozen=True)
class _VendorPackages:
    """Packages of a vendor's repository."""

    packages: Mapping[str, t.Any]  # as native_service takes them

    def note(self, needs: Needs, role: str, host: str) -> None:
        """Add them."""
        repository = self.packages["repository"]
        url, key_url = repository["url"], repository["key_url"]
        if UNKNOWN in url:
            raise NeedsError(
                "which packages it gets depends on its distribution. Say it as gpufleet_distribution (ubuntu2404, "
                "debian12 ...), or have the hosts asked by mirror_ask_hosts: true; or do without: dcgm_enabled: false"
            )
        if not url.startswith(f"{PREFIX}/") or re.search(r"/rhel\d+/", url):
            needs.elsewhere.setdefault(url.replace(f"{PREFIX}/", "https://"), Users()).add(role, host)
            return
        location, key = _location(url).rstrip("/"), _location(key_url)
        found = needs.repositories.setdefault(location, Repository(location, key, repository.get("key_sha256") or None))
        found.users.add(role, host)
        for name in self._names():
            wanted = (name, str(self.packages.get("version") or ""))
            found.packages.setdefault(wanted, Users()).add(role, host)

    def _names(self) -> Iterator[str]:
        for name in self.packages["names"]:
            yield from [name.replace(ANY_CUDA, str(cuda)) for cuda in CUDA] if ANY_CUDA in name else [name]


def _of_service(host: _Host, arguments: Mapping[str, t.Any]) -> Iterator[_Item]:
    if host.value(arguments.get("state", "started")) == "absent":
        return
    release = host.value(arguments.get("release")) if "release" in arguments else None
    packages = host.value(arguments.get("packages")) if "packages" in arguments else None
    if isinstance(release, Mapping) and "zipapp" in release:
        for wheel in zipapp.wheels(release["zipapp"]):
            version = wheel.filename.split("-")[1]
            yield _Download(releases.Release(version, f"{PREFIX}/{wheel.location}", wheel.sha256, None))
    elif isinstance(release, Mapping):
        yield _Download(releases.from_params(release, host.architecture))
    if isinstance(packages, Mapping) and packages.get("repository"):
        yield _VendorPackages(packages)
    elif isinstance(packages, Mapping):
        yield from map(host.package, packages["names"])


def _of_plugins(host: _Host, arguments: Mapping[str, t.Any]) -> Iterator[_Item]:
    for plugin in host.value(arguments["plugins"]):
        yield _Download(plugin_release(plugin, PREFIX, host.architecture))


def _of_firewall(host: _Host, arguments: Mapping[str, t.Any]) -> Iterator[_Item]:
    if host.value(arguments["state"]) != "absent":
        yield host.package("ufw")


_READERS: dict[str, Callable[[_Host, Mapping[str, t.Any]], Iterator[_Item]]] = {
    f"{COLLECTION}native_service": _of_service,
    f"{COLLECTION}grafana_plugins": _of_plugins,
    f"{COLLECTION}firewall": _of_firewall,
}
KNOWN = HARMLESS | frozenset(_READERS)
