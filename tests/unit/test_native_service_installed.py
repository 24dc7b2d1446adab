"""Which services are found on a host, and in which order they can go."""

from __future__ import annotations

from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.installed import in_order, names


def test_services_are_known_by_what_was_written_down(tmp_path):
    records = {
        "node_exporter/manifest.json": '{"files": {}}',
        "cut/journal.json": '{"files": {}}',
        "damaged/manifest.json": "{",
        "firewall/manifest.json": '{"incoming": "allow"}',
        "grafana-plugins/5f0c1d2e/plugin.json": '{"files": {}}',
    }
    for name, text in records.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert names(tmp_path) == ["cut", "damaged", "node_exporter"]
    assert names(tmp_path / "nowhere") == []


def test_a_part_goes_before_the_whole():
    found = ["nvidia-dcgm", "nvidia-dcgm-exporter", "prometheus"]
    part_of = {"nvidia-dcgm-exporter": ["nvidia-dcgm.service", "graphical.target"]}
    order = in_order(found, part_of)
    assert sorted(order) == found
    assert order.index("nvidia-dcgm-exporter") < order.index("nvidia-dcgm")
