#!/usr/bin/python
# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: native_service
short_description: Bring one systemd service to its described state
version_added: "0.1.0"
description:
  - Brings a service with its release, its files and its unit to the described state in one round trip to the host,
    and does nothing when it is there already.
  - A release is a versioned archive, verified by SHA-256, unpacked to C(/opt/gpufleet/NAME/VERSION/). The link
    C(/opt/gpufleet/NAME/current) is switched in one step. The release before it stays on the host, so that going
    back needs no download; older ones are removed.
  - The unit runs in a strict sandbox unless O(unit) says otherwise.
  - After a start, restart or reload the service has to answer its O(health) check. When it does not, the release,
    the files and the unit from before are put back and run again, and the task fails with the reason and the last
    journal lines.
  - A run that was cut is finished, or undone, by the next one.
author:
  - The gpufleet authors (@gpufleet)
attributes:
  check_mode:
    description: Says what would change, and validates the new files when the release they need is on the host.
    support: full
  diff_mode:
    description: Shows the files that change. The content of secrets is never shown.
    support: full
  platform:
    description: Hosts run by systemd.
    support: full
    platforms: linux
options:
  name:
    description: Name of the service; its unit is C(NAME.service).
    type: str
    required: true
  state:
    description:
      - V(started) means installed, running, and started at boot.
      - V(stopped) means installed, not running, and not started at boot.
      - V(absent) means that everything this module placed is gone. Data stays, see O(purge). O(name) is enough,
        since what was placed is known on the host.
      - V(previous) goes back to the release that ran before the last change of releases, without a download and with
        the files and the unit that are there. When it does not get well, the present one is put back. Where no such
        release is kept, nothing is done; so it is where the last run went back already. O(name) is enough here, too.
    type: str
    choices: [started, stopped, absent, previous]
    default: started
  release:
    description: The program. Leave it out for a service whose program is on the host already.
    type: dict
    suboptions:
      version:
        description:
          - Version, which also names the directory.
          - It is the release's identity, together with O(release.sha256) where that is given. Another O(release.url)
            alone installs nothing.
        type: str
        required: true
      url:
        description:
          - Where the archive is. C({arch}) stands for V(amd64) or V(arm64), as the host is.
          - With O(release.delivery=controller), C(file://) is a file on the controller.
          - A name that ends in C(.tar.gz), C(.tgz), C(.tar.xz), C(.tar) or C(.zip) is unpacked, without its one
            top directory. Anything else is a program in a single file.
        type: str
        required: true
      sha256:
        description: SHA-256 of the archive in hexadecimal, or a dictionary of them by architecture.
        type: raw
      checksum_url:
        description:
          - File with lines of SHA-256 and file name, in which the archive is looked up when O(release.sha256) does
            not say. It is read only when the release has to be installed.
        type: str
      delivery:
        description:
          - V(host) lets the host download.
          - V(controller) downloads once to the controller's cache (C($XDG_CACHE_HOME/gpufleet/releases)), and hands
            the archive to those hosts that lack it.
        type: str
        choices: [host, controller]
        default: host
      archive:
        description: Path on the host of an archive that was handed over. The action plugin sets it.
        type: path
  packages:
    description:
      - The packages that hold the program, or that the program of O(release) needs, by apt or dnf.
      - They are downloaded and checked before anything changes. When the service does not get well with them, the
        versions from before are put back.
      - A repository is asked only while something is to be installed, and does not become one of the host's own
        sources, so nothing of it is offered to the host otherwise.
      - A change that would remove or upgrade any other package of the host is refused.
    type: dict
    suboptions:
      names:
        description: Names of the packages.
        type: list
        elements: str
        required: true
      version:
        description:
          - Version of all of them, without epoch and revision if you like. Packages of another version are up- or
            downgraded.
          - Without it, the newest is installed where there is none, and what is installed stays.
        type: str
      replaces:
        description: Packages that have to go when these come.
        type: list
        elements: str
        default: []
      hold:
        description:
          - Whether they are held, so that nobody's upgrade of the host restarts the service.
          - V(false) leaves security updates to the host's owner, as for any other package of the distribution. With
            O(state=absent), such packages stay where other packages need them, and their configuration where others
            have put files beside it; and a unit that was there before goes on without its drop-in, as it was.
        type: bool
        default: true
      mirror:
        description:
          - URL of a mirror with what is needed of the distribution's own repositories, for Debian and Ubuntu, as
            M(gpufleet.monitoring.fill_mirror) makes it. With C(gpufleet_mirror_packages), the action plugin sets it.
          - It is asked where the host's own sources have not what is needed, with the distribution's key that the host
            has, and likewise only while something is to be installed.
        type: str
      repository:
        description: Where they come from. Without it, the host's own sources.
        type: dict
        suboptions:
          url:
            description: URL of a flat apt repository, or of a repository for dnf.
            type: str
            required: true
          key_url:
            description: URL of the public key that signs it, armoured or not.
            type: str
            required: true
          key_sha256:
            description: SHA-256 of that key in hexadecimal. Without it, the key is as good as its URL.
            type: str
  drop_in:
    description:
      - The unit itself comes with the packages. O(command) and O(unit) go into a drop-in of it, without the sandbox.
    type: bool
    default: false
  files:
    description:
      - The files of the service. Files that an earlier run placed and that are listed no longer are removed. Where a
        file replaced one that somebody else had put there, or a link, that one is back then.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      content:
        description: Content.
        type: str
      secret_content:
        description: Content that must not appear in output, diffs and logs.
        type: str
      generate:
        description:
          - Let the host make up a secret of 43 characters where the file is missing or empty, and keep what is there.
          - It stays with the data when the service becomes V(absent), since data may be worth nothing without it.
        type: bool
        default: false
      mode:
        description: Mode in octal. Without it, V(0644), and V(0600) for a secret.
        type: str
      owner:
        description: Owner.
        type: str
        default: root
      group:
        description: Group.
        type: str
        default: root
      on_change:
        description: What the running service needs when this file changes.
        type: str
        choices: [restart, reload, none]
        default: restart
      validate:
        description:
          - Command that has to accept the new file before it goes live.
          - C({file}) is the new file, within a copy of that one of O(directories) which holds it, with all other new
            files in place. C({release}) is the directory of the release.
        type: str
  data:
    description:
      - Patterns of the files that a new release rewrites as it starts, so that the old one cannot read them any more.
      - The service is stopped and they are copied before another release starts. When it does not get well, they are
        put back with the old one. The copy stays in C(/opt/gpufleet/NAME/data/VERSION) as long as that release does.
    type: list
    elements: path
    default: []
  outputs:
    description:
      - Patterns of files that the service writes while it runs, outside of its own directories below C(/var), and that
        are nobody's without it. They go when it goes, or when they are listed no longer.
    type: list
    elements: path
    default: []
  directories:
    description: Directories that the service owns. They are made, and removed with the service when they are empty.
    type: list
    elements: path
    default: []
  command:
    description:
      - The program and its arguments, word by word; no quoting is needed. Only with O(drop_in) it may be left out.
      - C({release}) in the first word is the directory of the release that runs.
    type: list
    elements: str
    default: []
  unit:
    description:
      - The unit as sections with directives, on top of the sandbox. A list repeats its directive, V(null) drops
        a directive of the sandbox. C(ExecStart) comes from O(command).
      - With C(ExecReload) the service is reloaded, not restarted, when only files change that need no restart.
    type: dict
    default: {}
  timer:
    description:
      - Directives of a timer, such as C(OnCalendar) (systemd.timer(5)), for a program that does its work and ends.
      - The program runs when anything changes, and has to succeed, and then whenever the timer says. It is the
        timer, C(NAME.timer), that is started, stopped, and enabled at boot.
    type: dict
  static_user:
    description:
      - Run as a system user of the service's name, which is added, instead of one that systemd makes up for each run.
      - Needed for whoever talks to D-Bus, whose daemon does not serve users that are made up
        (C(https://github.com/systemd/systemd/issues/22737)).
    type: bool
    default: false
  health:
    description: What shows that the service works.
    type: dict
    suboptions:
      url:
        description:
          - URL that has to answer with status 200. The program on that port has to be this service's own.
        type: str
      client_certificate:
        description:
          - File on the host with a key and a certificate, to show to whoever wants one at O(health.url).
          - The certificate of the service itself is not looked at.
        type: path
      command:
        description: Command that has to exit with 0.
        type: str
      timeout:
        description: Seconds within which it has to be well.
        type: float
        default: 30
  purge:
    description:
      - With O(state=absent), also remove the data below C(/var/lib), C(/var/cache) and C(/var/log). Those of a package
        of the distribution are not touched; the package takes them along if it goes.
    type: bool
    default: false
  restore_data:
    description:
      - With O(state=previous), also put back the copy of O(data) that was made when that release was left. What has
        been written since is copied first, and stays as long as the release that wrote it.
    type: bool
    default: false
  from:
    description:
      - With O(state=previous), the version that is to be left. Where another one runs, nothing is done, so that a host
        which an upgrade did not come to stays as it is.
    type: str
requirements:
  - python >= 3.9 on the host
notes:
  - Needs root on the host.
  - Only one run at a time works on a service; a second one waits.
"""

EXAMPLES = r"""
- name: A service from a release archive
  gpufleet.monitoring.native_service:
    name: node_exporter
    release:
      version: 1.12.1
      url: "{{ releases }}/v1.12.1/node_exporter-1.12.1.linux-{arch}.tar.gz"
      checksum_url: "{{ releases }}/v1.12.1/sha256sums.txt"
    command: ["{release}/node_exporter", "--collector.systemd"]
    unit:
      Unit:
        Description: Prometheus exporter for machine metrics
      Service:
        ProtectHome: read-only
    health:
      url: http://127.0.0.1:9100/
  vars:
    releases: https://github.com/prometheus/node_exporter/releases/download

- name: A configuration that is validated before it goes live, and needs no restart
  gpufleet.monitoring.native_service:
    name: prometheus
    directories:
      - /etc/prometheus
    files:
      - path: /etc/prometheus/prometheus.yml
        content: "{{ lookup('ansible.builtin.template', 'prometheus.yml.j2') }}"
        validate: "{release}/promtool check config {file}"
        on_change: reload
    command: ["{release}/prometheus", "--config.file=/etc/prometheus/prometheus.yml"]
    unit:
      Service:
        ExecReload: /bin/kill -HUP $MAINPID

- name: A job that runs now, and every night
  gpufleet.monitoring.native_service:
    name: backup
    command: [/usr/local/bin/backup]
    timer:
      OnCalendar: daily
      Persistent: true

- name: Go back to the release before, which is still on the host
  gpufleet.monitoring.native_service:
    name: node_exporter
    state: previous
    from: 1.12.1

- name: Take it all away, with its data
  gpufleet.monitoring.native_service:
    name: node_exporter
    state: absent
    purge: true
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  returned: always
  type: list
  elements: str
  sample: ["release 1.11.1 -> 1.12.1", "write /etc/systemd/system/node_exporter.service", "restart"]
healthy:
  description: Whether the service answers. On a host where nothing changed, it was asked once.
  returned: when state is started, except in check mode with changes
  type: bool
service:
  description: Name of the service, and its versions before the task and as it is to be. Empty where there is none.
  returned: always
  type: dict
  sample: {"name": "node_exporter", "from": "1.11.1", "to": "1.12.1"}
stays:
  description: Directories with data, and secrets that the host made up for it, which stay there.
  returned: when state is absent, except in check mode
  type: list
  elements: str
  sample: [/var/lib/prometheus]
release:
  description: The release that runs.
  returned: when a release is described and installed
  type: dict
  sample: {"version": "1.12.1", "path": "/opt/gpufleet/node_exporter/1.12.1"}
rolled_back:
  description: True when the service failed and the state from before is back.
  returned: on failure
  type: bool
journal:
  description: The last lines that the service wrote to the journal.
  returned: on failure
  type: list
  elements: str
"""

import os
import secrets
import shlex
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.native_service import packages
from ..module_utils.native_service import release as releases
from ..module_utils.native_service import unit as units
from ..module_utils.native_service.health import Health, Run
from ..module_utils.native_service.host import ServiceHost, bring
from ..module_utils.native_service.packages import PackageError
from ..module_utils.native_service.plan import (
    File,
    Host,
    Plan,
    Service,
    diff,
    drop_in_path,
    make_plan,
    summary,
    timer_path,
    unit_path,
    versions,
)
from ..module_utils.native_service.records import ROOT, ServiceError, previously, removed
from ..module_utils.native_service.systemd import Systemd, SystemdError

REPOSITORY_OPTIONS = {
    "url": {"type": "str", "required": True},
    "key_url": {"type": "str", "required": True, "no_log": False},
    "key_sha256": {"type": "str", "no_log": False},
}
PACKAGES_OPTIONS = {
    "names": {"type": "list", "elements": "str", "required": True},
    "version": {"type": "str"},
    "replaces": {"type": "list", "elements": "str", "default": []},
    "hold": {"type": "bool", "default": True},
    "mirror": {"type": "str"},
    "repository": {"type": "dict", "options": REPOSITORY_OPTIONS},
}
RELEASE_OPTIONS = {
    "version": {"type": "str", "required": True},
    "url": {"type": "str", "required": True},
    "sha256": {"type": "raw"},
    "checksum_url": {"type": "str"},
    "delivery": {"type": "str", "choices": ["host", "controller"], "default": "host"},
    "archive": {"type": "path"},
}
FILE_OPTIONS = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str"},
    "secret_content": {"type": "str", "no_log": True},
    "generate": {"type": "bool", "default": False},
    "mode": {"type": "str"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "on_change": {"type": "str", "choices": ["restart", "reload", "none"], "default": "restart"},
    "validate": {"type": "str"},
}
HEALTH_OPTIONS = {
    "url": {"type": "str"},
    "client_certificate": {"type": "path"},
    "command": {"type": "str"},
    "timeout": {"type": "float", "default": 30},
}
ARGUMENTS = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["started", "stopped", "absent", "previous"], "default": "started"},
    "release": {"type": "dict", "options": RELEASE_OPTIONS},
    "packages": {"type": "dict", "options": PACKAGES_OPTIONS},
    "drop_in": {"type": "bool", "default": False},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": FILE_OPTIONS,
        "mutually_exclusive": [("content", "secret_content")],
    },
    "data": {"type": "list", "elements": "path", "default": []},
    "outputs": {"type": "list", "elements": "path", "default": []},
    "directories": {"type": "list", "elements": "path", "default": []},
    "command": {"type": "list", "elements": "str", "default": []},
    "unit": {"type": "dict", "default": {}},
    "timer": {"type": "dict"},
    "static_user": {"type": "bool", "default": False},
    "health": {
        "type": "dict",
        "options": HEALTH_OPTIONS,
        "required_one_of": [("url", "command")],
        "mutually_exclusive": [("url", "command")],
    },
    "purge": {"type": "bool", "default": False},
    "restore_data": {"type": "bool", "default": False},
    "from": {"type": "str"},
}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    _check_host(module)
    os.umask(0o022)  # a hardened root umask must not hide the program from the service's own user
    said: dict[str, t.Any] = {"service": {"name": module.params["name"], "from": "", "to": ""}}
    try:
        module.exit_json(**_run(module, said), **said)
    except ServiceError as error:
        module.fail_json(_with_journal(error), rolled_back=error.rolled_back, journal=error.journal, **said)
    except (releases.ReleaseError, PackageError, ValueError) as error:
        module.fail_json(f"{error}. {module.params['name']} is as it was", rolled_back=False, journal=[], **said)
    except (SystemdError, OSError) as error:
        module.fail_json(str(error), rolled_back=False, journal=[], **said)


def _check_host(module: AnsibleModule) -> None:
    if not Systemd.is_running():
        module.fail_json("this host is not run by systemd, which native services need")
    if os.geteuid() != 0:
        module.fail_json("native_service needs root on the host: set become: true")


def _with_journal(error: ServiceError) -> str:
    """The reason, followed by the journal lines, since an operator reads the message and not the result."""
    return "\n".join([str(error), *(f"  journal: {line}" for line in error.journal)])


def _run(module: AnsibleModule, said: dict[str, t.Any]) -> dict[str, t.Any]:
    want, health = _described(module)
    host = ServiceHost(want, health, _runner(module))
    archive = module.params["release"] and module.params["release"]["archive"]
    have = host.observe()
    said["service"].update(versions(want, have))
    if want.going_back and not want.release:
        return {"changed": False, "actions": []}
    plan = make_plan(want, have)
    if module.check_mode:
        if plan.changes and not plan.install and not plan.packages.get:
            host.check_files(plan)
    elif plan.install and module.params["release"]["delivery"] == "controller" and not archive:
        # Which one, and from where, is for the controller to say: it must not fetch what a host tells it to.
        return {"changed": False, "wants_archive": releases.architecture()}
    elif plan.changes:
        plan, have = bring(host, Path(archive) if archive else None)
    else:
        host.settle()
    return _result(module, host, plan, have)


def _runner(module: AnsibleModule) -> Run:
    """Run commands; one that cannot be started has failed, as in a shell, and must not end the module half-way."""

    def run(words: list[str]) -> tuple[int, str, str]:
        try:
            return t.cast("tuple[int, str, str]", module.run_command(words, handle_exceptions=False))
        except OSError as error:
            return 127, "", f"{words[0]}: {error.strerror}"

    return run


def _result(module: AnsibleModule, host: ServiceHost, plan: Plan, have: Host) -> dict[str, t.Any]:
    want = host.want
    result: dict[str, t.Any] = {
        "changed": plan.changes,
        "actions": summary(plan, want, have) if plan.changes else [],
        "diff": diff(plan, want, have),
    }
    if want.state == "started" and not (module.check_mode and plan.changes):
        problem = None if plan.changes else host.probe()
        result["healthy"] = problem is None
        if problem:
            module.warn(f"{host.unit} runs as described, but is not well: {problem}")
    if want.state == "absent" and not module.check_mode:
        # A link leads to another of them, where systemd keeps the data of a user that it made up.
        result["stays"] = [path for path in have.data if Path(path).exists() and not Path(path).is_symlink()]
    if want.release and (host.root / "current").is_symlink():
        path = (host.root / "current").resolve()
        result["release"] = {"version": want.release.version, "path": str(path)}
    return result


def _described(module: AnsibleModule) -> tuple[Service, Health | None]:
    """Return the service as it is to be. Raises ValueError, ReleaseError, PackageError."""
    if module.params["state"] != "previous":
        return _service(module), _health(module.params["health"])
    params = module.params
    return previously(params["name"], _runner(module), params["restore_data"], params["from"])


def _service(module: AnsibleModule) -> Service:
    """Return the service that the module's arguments describe. Raises ValueError, ReleaseError, PackageError."""
    params = module.params
    name, state = params["name"], params["state"]
    path = (drop_in_path if params["drop_in"] else unit_path)(name)
    files = tuple(_file(file) for file in params["files"])
    timed = bool(params["timer"])
    wanted = packages.from_params(params["packages"]) if params["packages"] else None
    if state == "absent":
        kept = tuple(file for file in files if file.generated)
        directories = tuple(params["directories"])
        described = Service(name, state, path, kept, directories, purge=params["purge"], packages=wanted, timer=timed)
        return removed(described)
    if timed and (params["drop_in"] or (params["health"] or {}).get("url")):
        raise ValueError("a timer goes with a unit of our own, and a health command: a job serves no URL")
    if not params["command"] and not params["drop_in"]:
        raise ValueError("command is missing, which only a drop_in may go without")
    service = {**_exec_start(name, params["command"], params["drop_in"]), **(params["unit"].get("Service") or {})}
    version = Systemd(_runner(module)).version()
    sections = {**params["unit"], "Service": service}
    defaults = {} if params["drop_in"] else units.JOB_DEFAULTS if timed else units.DEFAULTS
    written = [File(path, units.render(name, sections, version, defaults).encode())]
    if timed:
        text = units.render(f"{name}.timer", {"Timer": params["timer"]}, version, units.TIMER_DEFAULTS)
        written.append(File(timer_path(name), text.encode()))
    users = [_user_file(name)] if params["static_user"] else []
    return Service(
        name,
        state,
        path,
        files=(*users, *files, *written),
        directories=tuple(params["directories"]),
        release=params["release"] and releases.from_params(params["release"], releases.architecture()),
        can_reload=bool(service.get("ExecReload")),
        user=name if params["static_user"] else None,
        packages=wanted,
        timer=timed,
        data=tuple(params["data"]),
        outputs=tuple(params["outputs"]),
    )


def _user_file(name: str) -> File:
    """A user as sysusers.d(5) has it. DynamicUser takes a user of the unit's name where there is one."""
    return File(f"/etc/sysusers.d/{name}.conf", f'u {name} - "Service {name}" /\n'.encode())


def _exec_start(name: str, command: t.Sequence[str], drop_in: bool) -> dict[str, t.Any]:
    """The program. In a drop-in, an empty line takes away the one that the unit has (systemd.service(5))."""
    if not command:
        return {}
    program = command[0].replace("{release}", str(ROOT / name / "current"))
    line = units.exec_line([program, *command[1:]])
    return {"ExecStart": ["", line] if drop_in else line}


def _file(params: t.Mapping[str, t.Any]) -> File:
    if [params["content"] is None, params["secret_content"] is None, not params["generate"]].count(False) != 1:
        raise ValueError(f"files: {params['path']} needs one of content, secret_content and generate")
    secret = params["content"] is None
    content = secrets.token_urlsafe() if params["generate"] else params["secret_content" if secret else "content"]
    return File(
        path=params["path"],
        content=content.encode(),
        mode=_mode(params["path"], params["mode"] or ("0600" if secret else "0644")),
        owner=params["owner"],
        group=params["group"],
        effect=params["on_change"],
        secret=secret,
        validate=tuple(shlex.split(params["validate"] or "")),
        generated=params["generate"],
    )


def _mode(path: str, mode: str) -> int:
    try:
        return int(mode, 8)
    except ValueError:
        raise ValueError(f"files: the mode of {path} is not octal: {mode!r}") from None


def _health(params: t.Mapping[str, t.Any] | None) -> Health | None:
    if params is None:
        return None
    command = tuple(shlex.split(params["command"] or ""))
    return Health(params["url"], command, params["timeout"], params["client_certificate"])


if __name__ == "__main__":
    main()
