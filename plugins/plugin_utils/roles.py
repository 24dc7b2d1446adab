# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What plugins on the controller read of the collection's roles."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.errors import AnsibleError

from ..module_utils import inventory

# In a checkout as in an installed collection.
ROLES = Path(__file__).parents[2] / "roles"
JOBS = "prometheus_scrape_jobs"


class VariableError(Exception):
    """A variable of the master cannot be had. The text is fit for a user."""


def of_master(groups: inventory.Groups, hostvars: inventory.HostVars, name: str, loader: t.Any) -> t.Any:
    """Return a variable as the role prometheus will have it: the first master's, or the role's default."""
    for master in groups.get(inventory.MASTERS, ())[:1]:
        try:
            if name in hostvars[master]:
                return hostvars[master][name]
        except AnsibleError as error:
            raise VariableError(f"{master}: {name} cannot be evaluated: {error}") from None
    return loader.load_from_file(str(ROLES / "prometheus" / "defaults" / "main.yml"))[name]
