# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: grafana_datasources
short_description: Check Grafana's data sources, and make its provisioning file of them
version_added: "0.1.0"
description:
  - What Grafana would ignore, or would not start with, is an error that names the data source.
author:
  - The gpufleet authors (@gpufleet)
positional: _input, others, secrets
options:
  _input:
    description: The collection's own data sources.
    type: list
    elements: dict
    required: true
  others:
    description: The user's, as Grafana's provisioning files have them.
    type: list
    elements: dict
    default: []
  secrets:
    description: Names of the service's credentials, which C($__file{/run/credentials/grafana.service/NAME}) may name.
    type: list
    elements: str
    default: []
  changes:
    description:
      - Keys to add to the collection's own, or to change in them, by uid. Those of C(jsonData) and C(secureJsonData)
        are added to what is there.
    type: dict
    default: {}
  contents:
    description: Credentials that are known, by name. Grafana would change one that has a C($) in it.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: One more data source
  ansible.builtin.copy:
    content: "{{ [] | gpufleet.monitoring.grafana_datasources([loki]) | to_json }}"
    dest: /etc/grafana/provisioning/datasources/loki.yaml
    mode: "0644"
  vars:
    loki: { name: Loki, uid: loki, type: loki, url: "http://10.0.0.1:3100" }
"""

RETURN = r"""
_value:
  description: The provisioning file's content.
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ..plugin_utils.grafana import Datasources


def grafana_datasources(
    own: t.Sequence[t.Mapping[str, t.Any]],
    others: t.Sequence[t.Mapping[str, t.Any]] = (),
    secrets: t.Sequence[str] = (),
    changes: t.Mapping[str, t.Mapping[str, t.Any]] | None = None,
    contents: t.Mapping[str, t.Any] | None = None,
) -> dict[str, t.Any]:
    """Return the content of a provisioning file. Raises AnsibleFilterError with all that is wrong."""
    datasources = Datasources(own, changes or {}, others)
    faults = datasources.faults(secrets, contents or {})
    if faults:
        raise AnsibleFilterError("\n- ".join(["data sources (grafana_datasources) cannot be used:", *faults]))
    rows = [{"orgId": 1, "access": "proxy", "editable": False, **row} for row in datasources.rows()]
    return {"apiVersion": 1, "prune": True, "datasources": rows}


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return name -> function."""
        return {"grafana_datasources": grafana_datasources}
