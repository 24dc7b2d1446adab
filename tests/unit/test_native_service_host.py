"""What is checked before it is live is checked in a copy, and what was on the host before us is known for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service import host as hosts
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.host import ServiceError, ServiceHost
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.plan import File, Plan, Service


@pytest.fixture
def etc(tmp_path):
    """A service's directory with links as Debian's nginx has them: absolute ones."""
    available, enabled = tmp_path / "etc" / "available", tmp_path / "etc" / "enabled"
    available.mkdir(parents=True)
    enabled.mkdir()
    (available / "default").write_text("shipped")
    (enabled / "default").symlink_to(available / "default")
    (enabled / "linked").symlink_to(available)
    return tmp_path / "etc"


@pytest.fixture
def check(etc):
    """Validate a file of the service: check("enabled/default"); returns what the validation was shown in its place."""

    def checked(path, remove=()):
        shown = []

        def run(words):
            shown.append(Path(words[1]).read_text())
            return 0, "", ""

        file = File(str(etc / path), b"ours", validate=("check", "{file}"))
        want = Service("demo", "started", "/etc/systemd/system/demo.service", (file,), (str(etc),))
        plan = Plan(write=(file,), remove=tuple(str(etc / one) for one in remove))
        ServiceHost(want, None, run).check_files(plan)
        return shown

    return checked


def test_a_file_in_the_place_of_a_link_is_checked_and_what_the_link_leads_to_stays(etc, check):
    assert check("enabled/default") == ["ours"]
    assert (etc / "available" / "default").read_text() == "shipped"
    assert (etc / "enabled" / "default").is_symlink()


def test_below_a_link_that_leads_out_of_the_copy_nothing_is_written_or_removed(etc, check):
    with pytest.raises(ServiceError, match="enabled/linked/new cannot be checked"):
        check("enabled/linked/new")
    with pytest.raises(ServiceError, match="enabled/linked/default cannot be checked"):
        check("enabled/default", remove=["enabled/linked/default"])
    assert [path.name for path in (etc / "available").iterdir()] == ["default"]
    assert (etc / "available" / "default").read_text() == "shipped"


@pytest.mark.parametrize(
    ("state", "manifest", "found"),
    [
        ("enabled", None, True),
        ("disabled", None, True),
        ("", None, False),
        ("enabled", False, False),
        ("enabled", True, True),
    ],
)
def test_whether_the_unit_was_there_before_us_is_known_after_we_came(tmp_path, monkeypatch, state, manifest, found):
    monkeypatch.setattr(hosts, "ROOT", tmp_path)
    if manifest is not None:
        (tmp_path / "demo").mkdir()
        (tmp_path / "demo" / "manifest.json").write_text(json.dumps({"found": manifest}))
    want = Service("demo", "started", "/etc/systemd/system/demo.service.d/gpufleet.conf")
    host = ServiceHost(want, None, lambda words: (0, f"ActiveState=active\nUnitFileState={state}\n", ""))
    assert host.observe().found is found
