# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: alertmanager_routes
short_description: Build Alertmanager's routes from severities and maintenance windows
version_added: "0.1.0"
description:
  - Returns the routes given, then one for each severity. Before them comes, for each maintenance window, a copy of them
    all that is mute at the times of that window.
  - A route that is mute in Alertmanager does not make those below it mute, so that each one of a copy is told.
author:
  - The gpufleet authors (@gpufleet)
positional: _input, severities, maintenance
options:
  _input:
    description: Routes as Alertmanager takes them.
    type: list
    elements: dict
    required: true
  severities:
    description: Severity, and what the route of its alerts has, such as C(receiver) and C(repeat_interval).
    type: dict
    required: true
  maintenance:
    description: Windows, with the C(matchers) of alerts and the names of C(time_intervals) in which they are not sent.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Critical alerts, once an hour, and none of rack r1 at night
  ansible.builtin.debug:
    msg: "{{ [] | gpufleet.monitoring.alertmanager_routes(
             {'critical': {'repeat_interval': '1h'}},
             [{'matchers': ['rack=\"r1\"'], 'time_intervals': ['night']}]) }}"
"""

RETURN = r"""
_value:
  description: The routes.
  type: list
  elements: dict
"""

import typing as t

Route = t.Mapping[str, t.Any]


def alertmanager_routes(
    routes: t.Sequence[Route], severities: t.Mapping[str, Route], maintenance: t.Iterable[Route] = ()
) -> list[dict[str, t.Any]]:
    """Return the routes below Alertmanager's root."""
    everything = [
        *map(dict, routes),
        *({"matchers": [f'severity="{severity}"'], **own} for severity, own in severities.items()),
    ]
    windows = [
        _muted({"matchers": window["matchers"], "routes": everything}, window["time_intervals"])
        for window in maintenance
    ]
    return [*windows, *everything]


def _muted(route: Route, intervals: t.Sequence[str]) -> dict[str, t.Any]:
    return {
        **route,
        "mute_time_intervals": [*route.get("mute_time_intervals", []), *intervals],
        "routes": [_muted(child, intervals) for child in route.get("routes", [])],
    }


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return name -> function."""
        return {"alertmanager_routes": alertmanager_routes}
