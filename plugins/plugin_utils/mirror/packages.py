# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which mirror has the distribution's packages, for hosts whose own sources have them not."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean

from .needs import MIRROR, MIRROR_PACKAGES


def mirror_of_packages(action: t.Any, variables: Mapping[str, t.Any]) -> str:
    """Return the mirror's URL, or nothing, for Ansible's ``action`` on a host. Raises AnsibleActionFail."""
    if not variables.get(MIRROR_PACKAGES) or not boolean(action._templar.template(variables[MIRROR_PACKAGES])):
        return ""
    url = str(action._templar.template(variables.get(MIRROR) or ""))
    if not url.startswith(("http://", "https://")):
        raise AnsibleActionFail(
            f"{MIRROR_PACKAGES} is true, and {MIRROR} is {url!r}: hosts' package managers take packages by http or "
            f"https. Say there which web server has the mirror, or leave {MIRROR_PACKAGES} out"
        )
    return url


def with_mirror(action: t.Any, args: Mapping[str, t.Any], variables: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return native_service's arguments with the mirror, where it installs packages of the distribution.

    Raises AnsibleActionFail.
    """
    packages = args.get("packages")
    if args.get("state") == "absent" or not isinstance(packages, Mapping) or packages.get("repository"):
        return dict(args)
    mirror = mirror_of_packages(action, variables)
    return {**args, "packages": {"mirror": mirror, **packages}} if mirror else dict(args)
