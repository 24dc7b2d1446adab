#!/usr/bin/python
# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall
short_description: Say who may reach which port of a host, by ufw, without locking oneself out
version_added: "0.1.0"
description:
  - Brings ufw to the described state in one round trip to the host, and does nothing when it is there already.
  - Each port of O(rules) is open to its networks and closed to all others. What is for certain networks stands in
    front of all other rules of ufw, and what is open to all behind them. Other people's rules are left alone; a rule of
    theirs for just the same ports and networks is enough, and one that says the opposite is an error.
  - What is not in O(rules) is as it was, see O(incoming). The policy for forwarded packets is what it was, too.
  - The way by which Ansible came is never cut. Rules that would do so are refused before anything changes. What the
    rules do not tell is tried. After a change, the controller has to come in by a new connection within
    O(confirm_within), or else the host itself puts ufw back as it was. Where the controller does not come by SSH, the
    change stays, with a warning.
  - ufw is installed by apt where it is missing, see O(mirror).
author:
  - The gpufleet authors (@gpufleet)
attributes:
  check_mode:
    support: full
    description: Says what would change. Where ufw is not installed yet, other firewalls than it are not seen.
  diff_mode:
    support: full
    description: Shows ufw's rules before and after.
  action:
    support: full
    description: The controller's side comes in again after a change.
  async:
    support: none
    description: It comes in twice.
  bypass_host_loop:
    support: none
    description: Every host has rules of its own.
  platform:
    description: Hosts run by systemd, with ufw.
    support: full
    platforms: linux
options:
  state:
    description:
      - V(present) means that ufw is on, with these rules.
      - V(absent) means that nothing of what this module placed is there. Where ufw was off before, it is switched off,
        unless somebody else has put rules into it since. The package stays.
    type: str
    choices: [present, absent]
    default: present
  rules:
    description: Who may reach which port, see P(gpufleet.monitoring.firewall_rules#filter).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What is on the port. It becomes the comment of the rule, behind C(gpufleet:).
        type: str
        required: true
      port:
        description: A port, or a range such as V(6000:6010).
        type: str
        required: true
      proto:
        description: Protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
      from:
        description: Addresses and networks that may reach it. V(any) among them opens it to all; none closes it to all.
        type: list
        elements: str
        required: true
  incoming:
    description:
      - What becomes of packets to ports that no rule speaks of.
      - V(keep) leaves that as it is, which means open where ufw was off, and ufw's own policy where it was on.
      - V(deny) closes them.
    type: str
    choices: [keep, deny]
    default: keep
  ssh_ports:
    description:
      - Ports of SSH. By default, the one by which Ansible came.
      - Needed where Ansible comes in another way.
    type: list
    elements: int
    default: []
  ssh_from:
    description: Addresses and networks that may reach O(ssh_ports).
    type: list
    elements: str
    default: [any]
  confirm_within:
    description: Seconds within which a new connection has to succeed after a change.
    type: int
    default: 60
  mirror:
    description:
      - URL of a mirror with a copy of the distribution's own repositories, which ufw is taken from where the host's own
        sources have it not. With C(gpufleet_mirror_packages), the action plugin sets it.
    type: str
    default: ""
  confirm:
    description: Makes a change stay. The action plugin sets it.
    type: dict
    suboptions:
      id:
        description: Which change.
        type: str
        required: true
      session:
        description: The connection from before the change. Empty where it is not known, or no other one is to be had.
        type: str
        required: true
requirements:
  - python >= 3.9 on the host
notes:
  - Needs root on the host.
  - Docker publishes ports of containers around ufw, as C(iptables -t nat -L) shows.
  - When ufw is switched on, it also sets what is in C(/etc/ufw/sysctl.conf), such as no ICMP redirects, and in some
    versions strict C(rp_filter). What was there before is put back with O(state=absent), or when a change is undone.
  - Where ufw was off, and would break what is there instead, that is an error with the remedy. Examples are rules or
    policies that somebody has set up by iptables, and C(IPV6=no) on a host that uses IPv6.
seealso:
  - plugin: gpufleet.monitoring.firewall_rules
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Exporters answer the master alone
  gpufleet.monitoring.firewall:
    rules:
      - {name: node_exporter, port: 9100, from: [192.0.2.10]}
      - {name: gpu_exporter, port: 9500, from: [192.0.2.10, 198.51.100.0/24]}

- name: As the inventory has it, and all else is closed
  gpufleet.monitoring.firewall:
    rules: "{{ groups | gpufleet.monitoring.firewall_rules(hostvars, inventory_hostname, jobs, services) }}"
    incoming: deny

- name: Take all that away
  gpufleet.monitoring.firewall:
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  returned: always
  type: list
  elements: str
  sample: ["insert allow 9100,9500/tcp from 192.0.2.10", "insert deny 9100,9500/tcp from anywhere", "enable ufw"]
"""

import functools
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.firewall.host import Firewall, find_connection
from ..module_utils.firewall.plan import FirewallError, make_plan, outcome, read_want, summary, text

RULE = {
    "name": {"type": "str", "required": True},
    "port": {"type": "str", "required": True},
    "proto": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
    "from": {"type": "list", "elements": "str", "required": True},
}
ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "rules": {"type": "list", "elements": "dict", "default": [], "options": RULE},
    "incoming": {"type": "str", "choices": ["keep", "deny"], "default": "keep"},
    "ssh_ports": {"type": "list", "elements": "int", "default": []},
    "ssh_from": {"type": "list", "elements": "str", "default": ["any"]},
    "confirm_within": {"type": "int", "default": 60},
    "mirror": {"type": "str", "default": ""},
    "confirm": {
        "type": "dict",
        "options": {"id": {"type": "str", "required": True}, "session": {"type": "str", "required": True}},
    },
}


def main() -> None:
    """Entry point."""
    os.umask(0o022)  # the directory that it makes is other services' too, which are not root's
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    # ufw is found also where sbin is not on the path, and it speaks English.
    os.environ["PATH"] = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
    module.run_command_environ_update = {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        if module.params["confirm"] is not None:
            module.exit_json(**_confirm(module))
        module.exit_json(**_run(module))
    except (FirewallError, OSError, ValueError) as error:
        module.fail_json(str(error), actions=[])


def _run(module: AnsibleModule) -> dict[str, t.Any]:
    want = read_want(module.params)
    firewall, token = _firewall(module), ""
    session, connection = find_connection()
    if module.check_mode:
        have = firewall.observe(want)
        plan = make_plan(want, have, connection)
    else:
        plan, have, token = firewall.bring(want, connection, module.params["confirm_within"], module.params["mirror"])
    for warning in plan.warnings:
        module.warn(warning)
    result: dict[str, t.Any] = {"changed": plan.changes, "actions": summary(plan)}
    if plan.changes:
        header = {"before_header": "ufw", "after_header": "ufw"}
        result["diff"] = {**header, "before": text(have, have.rules), "after": text(have, outcome(have, plan), plan)}
    if token:
        result["unconfirmed"] = {"id": token, "session": session}
    return result


def _firewall(module: AnsibleModule) -> Firewall:
    # What is missing is an error like others, so that a change is undone.
    return Firewall(functools.partial(module.run_command, handle_exceptions=False))


def _confirm(module: AnsibleModule) -> dict[str, t.Any]:
    """Whoever is here came in under the new rules, if it is not by the connection from before."""
    session, _ = find_connection()
    confirm = module.params["confirm"]
    if session and session == confirm["session"]:
        raise FirewallError(
            "the connection from before the change is still in use, so nothing shows that a new one would succeed;"
            " ufw will be put back as it was"
        )
    _firewall(module).confirm(confirm["id"])
    return {"changed": False, "actions": []}


if __name__ == "__main__":
    main()
