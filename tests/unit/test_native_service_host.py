"""What is checked before it is live is checked in a copy, and what was on the host before us is known for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service import filesystem, records
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.host import ServiceHost
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.packages import Installed as Package
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.plan import (
    File,
    FileState,
    Found,
    Plan,
    Service,
    make_plan,
)
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.records import ServiceError


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


RUNS, IDLE = {"active": True, "enabled": True}, {"active": True, "enabled": False}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Where the service's records are, which are no more than what a test writes there."""
    monkeypatch.setattr(records, "ROOT", tmp_path / "opt")
    (tmp_path / "opt/demo").mkdir(parents=True)
    return tmp_path / "opt/demo"


@pytest.mark.parametrize(
    ("state", "record", "found"),
    [
        ("enabled", None, RUNS),
        ("disabled", None, IDLE),
        ("", None, None),
        ("enabled", {"manifest": None}, None),
        ("disabled", {"manifest": RUNS}, RUNS),
        ("enabled", {"journal": IDLE}, IDLE),  # of a first run that was cut
        ("enabled", {"journal": RUNS, "manifest": None}, None),
    ],
)
def test_how_the_unit_was_before_us_is_known_after_we_came(root, state, record, found):
    for name, before in (record or {}).items():
        (root / f"{name}.json").write_text(json.dumps({"before": before, "files": {}}))
    want = Service("demo", "started", "/etc/systemd/system/demo.service.d/gpufleet.conf")
    host = ServiceHost(want, None, lambda words: (0, f"ActiveState=active\nUnitFileState={state}\n", ""))
    assert host.observe().found == (Found(**found) if found else None)


DROP_IN, TIMER = "/etc/systemd/system/demo.service.d/gpufleet.conf", "/etc/systemd/system/demo.timer"
GONE = Service("demo", "absent", "/etc/systemd/system/demo.service")


@pytest.mark.parametrize(
    ("record", "known", "shared"),
    [
        ({"files": {DROP_IN: "restart"}, "packages": [], "hold": False}, ("demo.service", ()), True),
        ({"files": {DROP_IN: "restart"}, "packages": ["core"], "hold": True}, ("demo.service", ("core",)), False),
        ({"files": {TIMER: "restart"}, "packages": ["tool"], "hold": False}, ("demo.timer", ("tool",)), False),
        ({"files": {}, "packages": [], "hold": None}, ("demo.service", None), False),
    ],
)
@pytest.mark.parametrize("name", ["manifest", "journal"])
def test_what_is_to_be_removed_is_known_by_the_records(root, name, record, known, shared):
    (root / f"{name}.json").write_text(json.dumps(record))
    service = records.removed(GONE)
    assert (service.watched, service.packages and service.packages.names) == known
    assert service.shared is shared


def test_where_nothing_was_written_down_it_is_as_described(root):
    assert records.removed(GONE) == GONE


@pytest.fixture
def upgraded(root, monkeypatch):
    """Write down that 2.0 runs and came after 1.0: upgraded(packages=["tool"])."""
    kept = {version: records.releases.Installed(version, "", True) for version in ("1.0", "2.0")}
    monkeypatch.setattr(records.releases, "installed", lambda root: kept)
    (root / "current").symlink_to("2.0")
    record = {"files": {}, "secrets": [], "generated": [], "user": None, "data": [], "outputs": [], "health": None}

    def write(**more):
        (root / "manifest.json").write_text(json.dumps({**record, "back_to": "1.0", **more}))

    return write


def enabled(words):
    return 0, "UnitFileState=enabled\n", ""


@pytest.mark.parametrize(
    ("leaving", "goes_back"), [(None, True), ("2.0", True), ("3.0", False), ("1.0", False), ("", False)]
)
def test_one_goes_back_only_from_the_release_that_is_to_be_left(upgraded, leaving, goes_back):
    upgraded()
    service, _ = records.previously("demo", enabled, False, leaving)
    assert service.going_back
    assert (service.release and service.release.version) == ("1.0" if goes_back else None)


def test_the_packages_that_a_release_needs_stay_when_it_goes_back(upgraded, monkeypatch):
    upgraded(packages=["tool"], hold=False)
    monkeypatch.setattr(ServiceHost, "_packages", lambda self, known: {"tool": Package("1.0", False)})
    service, _ = records.previously("demo", enabled, False, None)
    plan = make_plan(service, ServiceHost(service, None, enabled).observe())
    assert plan.switch
    assert not any(plan.packages)


def test_what_ours_replaced_is_back_without_us_a_link_as_a_link(root, etc):
    paths = [etc / "enabled/default", etc / "available/default", etc / "available/new"]
    files = tuple(File(str(path), b"ours") for path in paths)
    host = ServiceHost(Service("demo", "started", "/nowhere", files), None, lambda words: (0, "", ""))
    host._keep_found(Plan(write=files))
    for path in paths:
        path.unlink(missing_ok=True)
        path.write_text("ours")
    host._restore_files({str(paths[0]): filesystem.frozen(FileState(b"shipped", 0o644, "0", "0")), str(paths[2]): None})
    assert (paths[0].is_symlink(), paths[1].read_text(), paths[2].exists()) == (True, "ours", False)

    (root / "manifest.json").write_text(json.dumps({"files": dict.fromkeys(map(str, paths), "none")}))
    host._keep_found(Plan(write=files))  # what is ours by now was nobody's before
    for path in paths:
        host._take_away(str(path))
    assert (etc / "enabled/default").readlink() == etc / "available/default"
    assert (etc / "available/default").read_text() == "shipped"
    assert not (etc / "available/new").exists()


def test_outputs_that_are_not_wanted_any_more_are_found_by_their_patterns(root, tmp_path):
    for name in ("demo.log", "demo.log.1", "other.log"):
        (tmp_path / name).write_text("")
    (root / "manifest.json").write_text(json.dumps({"outputs": [f"{tmp_path}/demo.log*"], "files": {}}))

    def outputs(want):
        return ServiceHost(want, None, lambda words: (0, "", "")).observe().outputs

    assert outputs(GONE) == (f"{tmp_path}/demo.log", f"{tmp_path}/demo.log.1")
    assert outputs(GONE._replace(state="started", outputs=(f"{tmp_path}/demo.log*",))) == ()


def test_a_directory_of_two_services_goes_with_the_last_one(root, tmp_path):
    directory, other = tmp_path / "textfile_collector", root.parent / "other"
    directory.mkdir()
    other.mkdir()
    for service in (root, other):
        (service / "manifest.json").write_text(json.dumps({"directories": [str(directory)], "files": {}}))
    for name, there in (("demo", True), ("other", False)):
        host = ServiceHost(GONE._replace(name=name), None, lambda words: (0, "", ""))
        host.remove(Plan(forget=True), host.observe())
        assert directory.exists() is there
