"""Routes: a maintenance window mutes all that is below it, and changes nothing else."""

from __future__ import annotations

from ansible_collections.gpufleet.monitoring.plugins.filter.alertmanager_routes import alertmanager_routes

OWN = [{"matchers": ['owner="a"'], "receiver": "a", "routes": [{"receiver": "b", "mute_time_intervals": ["noon"]}]}]
SEVERITIES = {"critical": {"repeat_interval": "1h"}}
PLAIN = [*OWN, {"matchers": ['severity="critical"'], "repeat_interval": "1h"}]


def all_of(routes):
    for route in routes:
        yield route
        yield from all_of(route.get("routes", []))


def test_ones_own_routes_come_first_then_one_for_each_severity():
    assert alertmanager_routes(OWN, SEVERITIES) == PLAIN


def test_a_window_mutes_a_copy_of_all_routes_and_the_routes_themselves_stay_as_they_are():
    windows = [{"matchers": ['rack="r1"'], "time_intervals": ["night", "lunch"]}]
    window, *rest = alertmanager_routes(OWN, SEVERITIES, windows)
    assert rest == PLAIN
    assert window["matchers"] == ['rack="r1"']
    assert [len(route.get("routes", [])) for route in all_of([window])] == [2, 1, 0, 0]
    for route in all_of([window]):
        assert {"night", "lunch"} <= set(route["mute_time_intervals"])
    (nested,) = window["routes"][0]["routes"]
    assert nested["mute_time_intervals"] == ["noon", "night", "lunch"]
