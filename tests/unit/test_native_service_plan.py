"""The decisions of native_service: what is done to a host, and above all what is not."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.packages import Installed as Package
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.packages import (
    Packages,
    Repository,
    matches,
)
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.plan import (
    File,
    FileState,
    Found,
    Host,
    Plan,
    Service,
    diff,
    make_plan,
    summary,
    versions,
)
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.release import Installed, Release
from hypothesis import given
from hypothesis import strategies as st

UNIT = "/etc/systemd/system/demo.service"
UNIT_FILE = File(UNIT, b"[Service]\n")
CONFIG = File("/etc/demo/demo.yml", b"a: 1\n", effect="reload")
RELEASE = Release("2.0", "https://example.org/demo-2.0.tar.gz", None, "https://example.org/sha256sums.txt")
WANT = Service("demo", "started", UNIT, (CONFIG, UNIT_FILE), ("/etc/demo",), RELEASE, can_reload=True)


def state_of(file: File) -> FileState:
    return FileState(file.content, file.mode, file.owner, file.group)


CONVERGED = Host(
    files={file.path: state_of(file) for file in WANT.files},
    directories=frozenset(["/", "/etc", "/etc/demo", "/etc/systemd", "/etc/systemd/system"]),
    placed={file.path: file.effect for file in WANT.files},
    managed=True,
    releases={"1.0": Installed("1.0", "a" * 64, True), "2.0": Installed("2.0", "b" * 64, True)},
    current="2.0",
    previous="1.0",
    active=True,
    enabled=True,
)


def changed_on_disk(path: str) -> Host:
    return CONVERGED._replace(files={**CONVERGED.files, path: FileState(b"other\n", 0o644, "root", "root")})


def test_a_converged_host_is_left_alone():
    plan = make_plan(WANT, CONVERGED)
    assert not plan.changes
    assert diff(plan, WANT, CONVERGED) == []


def test_a_bare_host_gets_everything():
    plan = make_plan(WANT, Host(files={}, directories=CONVERGED.directories - {"/etc/demo"}))
    assert (plan.install, plan.switch, plan.enable, plan.action) == (True, True, True, "start")
    assert [file.path for file in plan.write] == [CONFIG.path, UNIT]
    assert plan.make == ("/etc/demo",)
    assert plan.daemon_reload


def test_a_config_change_reloads_and_a_unit_change_restarts():
    assert make_plan(WANT, changed_on_disk(CONFIG.path)).action == "reload"
    assert make_plan(WANT, changed_on_disk(UNIT)).action == "restart"


def test_without_exec_reload_a_config_change_restarts():
    assert make_plan(WANT._replace(can_reload=False), changed_on_disk(CONFIG.path)).action == "restart"


def test_a_file_that_the_service_watches_itself_disturbs_nobody():
    watched = CONFIG._replace(path="/etc/demo/targets.json", effect="none")
    want = WANT._replace(files=(*WANT.files, watched))
    plan = make_plan(want, CONVERGED)
    assert plan.write == (watched,)
    assert plan.action is None


def test_a_file_no_longer_described_is_removed_with_the_effect_it_had():
    have = CONVERGED._replace(
        placed={**CONVERGED.placed, "/etc/demo/old.yml": "reload"},
        files={**CONVERGED.files, "/etc/demo/old.yml": FileState(b"", 0o644, "root", "root")},
    )
    plan = make_plan(WANT, have)
    assert plan.remove == ("/etc/demo/old.yml",)
    assert plan.action == "reload"


def test_mode_and_owner_count_as_differences():
    for field, value in (("mode", 0o600), ("owner", "nobody"), ("group", "nogroup")):
        state = state_of(CONFIG)._replace(**{field: value})
        have = CONVERGED._replace(files={**CONVERGED.files, CONFIG.path: state})
        assert make_plan(WANT, have).write == (CONFIG,)


def test_going_back_to_the_kept_release_needs_no_download():
    plan = make_plan(WANT._replace(release=RELEASE._replace(version="1.0")), CONVERGED)
    assert not plan.install
    assert plan.switch
    assert (plan.current, plan.action, plan.prune) == ("1.0", "restart", ())


def test_a_release_comes_with_the_packages_that_it_needs():
    want = WANT._replace(packages=Packages(("tool",), "", (), None, hold=False))
    plan = make_plan(want, CONVERGED._replace(releases={}, current=None))
    assert (plan.install, plan.packages.get, plan.action) == (True, ("tool",), "restart")
    present = CONVERGED._replace(packages={"tool": Package("1.0", False)})
    assert not make_plan(want, present).changes


def test_two_releases_stay_and_a_third_goes():
    want = WANT._replace(release=RELEASE._replace(version="3.0"))
    assert make_plan(want, CONVERGED).prune == ()  # nothing goes before the new one is there
    have = CONVERGED._replace(releases={**CONVERGED.releases, "3.0": Installed("3.0", "c" * 64, True)})
    assert make_plan(want, have).prune == ("1.0",)


def test_what_ran_before_a_cut_run_is_kept_to_go_back_to():
    """3.0 was being installed over 2.0 when the run was cut, behind the switch: 2.0 is what last ran, not 1.0."""
    releases = {**CONVERGED.releases, "3.0": Installed("3.0", "c" * 64, True)}
    have = CONVERGED._replace(releases=releases, current="3.0", unfinished=True, ran="2.0")
    assert make_plan(WANT._replace(release=RELEASE._replace(version="3.0")), have).prune == ("1.0",)
    assert have.previous_to("3.0") == "2.0"


def test_a_damaged_release_is_installed_anew():
    have = CONVERGED._replace(releases={"2.0": Installed("2.0", "b" * 64, False)})
    assert make_plan(WANT, have).install


def test_another_build_of_the_same_version_is_another_release():
    want = WANT._replace(release=RELEASE._replace(sha256="d" * 64))
    assert make_plan(want, CONVERGED).install


def test_a_run_that_was_cut_is_finished_with_a_restart():
    plan = make_plan(WANT, CONVERGED._replace(unfinished=True))
    assert plan.changes
    assert plan.action == "restart"
    assert "finish an earlier run that was cut" in summary(plan, WANT, CONVERGED._replace(unfinished=True))


def test_a_dead_service_is_started_and_a_disabled_one_enabled():
    plan = make_plan(WANT, CONVERGED._replace(active=False, enabled=False))
    assert (plan.action, plan.enable) == ("start", True)


def test_a_service_that_is_starting_is_restarted_with_what_has_changed():
    starting = CONVERGED._replace(active=False, trying=True)
    assert make_plan(WANT, starting).action == "start"
    changed = changed_on_disk(UNIT)._replace(active=False, trying=True)
    assert make_plan(WANT, changed).action == "restart"


def test_stopped_stops_and_disables_and_stays_so():
    want = WANT._replace(state="stopped")
    plan = make_plan(want, CONVERGED)
    assert (plan.action, plan.enable) == ("stop", False)
    assert not make_plan(want, CONVERGED._replace(active=False, enabled=False)).changes


def test_absent_removes_what_was_placed_and_keeps_data():
    plan = make_plan(Service("demo", "absent", UNIT), CONVERGED._replace(data=("/var/lib/demo",)))
    assert (plan.action, plan.enable, plan.forget) == ("stop", False, True)
    assert set(plan.remove) == {CONFIG.path, UNIT}
    assert plan.purge == ()


def test_absent_with_purge_removes_data_too():
    have = CONVERGED._replace(data=("/var/lib/demo",))
    assert make_plan(Service("demo", "absent", UNIT, purge=True), have).purge == ("/var/lib/demo",)


def test_absent_leaves_somebody_elses_unit_of_the_same_name_alone():
    foreign = Host(files={UNIT: state_of(UNIT_FILE)}, active=True, enabled=True)
    assert not make_plan(Service("demo", "absent", UNIT), foreign).changes
    # Nor does an install that failed in its download make it ours.
    assert make_plan(Service("demo", "absent", UNIT), foreign._replace(leftovers=True)) == Plan(forget=True)


def test_secrets_do_not_show_in_the_diff():
    secret = File("/etc/demo/key", b"hunter2", mode=0o600, secret=True)
    want = WANT._replace(files=(secret, UNIT_FILE))
    old = FileState(b"old-hunter2", 0o600, "root", "root")
    have = CONVERGED._replace(files={secret.path: old, UNIT: state_of(UNIT_FILE)}, placed={secret.path: "restart"})
    assert "hunter2" not in str(diff(make_plan(want, have), want, have))
    gone = WANT._replace(files=(UNIT_FILE,))
    assert "hunter2" not in str(diff(make_plan(gone, have), gone, have))


def test_a_secret_that_goes_does_not_show_in_the_diff_whatever_its_mode():
    have = CONVERGED._replace(
        files={**CONVERGED.files, "/etc/demo/token": FileState(b"hunter2\n", 0o644, "root", "root")},
        placed={**CONVERGED.placed, "/etc/demo/token": "restart"},
        secrets=frozenset(["/etc/demo/token"]),
    )
    assert "hunter2" not in str(diff(make_plan(WANT, have), WANT, have))


def test_the_diff_shows_the_release_and_the_text():
    have = changed_on_disk(CONFIG.path)._replace(current="1.0")
    entries = diff(make_plan(WANT, have), WANT, have)
    assert [(entry["before"], entry["after"]) for entry in entries if "release" in entry["after_header"]] == [
        ("1.0", "2.0")
    ]
    assert any("other" in entry["before"] and "a: 1" in entry["after"] for entry in entries)


@pytest.mark.parametrize("state", ["started", "stopped"])
@given(active=st.booleans(), enabled=st.booleans(), current=st.sampled_from([None, "1.0", "2.0"]), unit=st.booleans())
def test_whatever_the_host_is_like_a_carried_out_plan_leaves_nothing_to_do(state, active, enabled, current, unit):
    want = WANT._replace(state=state)
    have = CONVERGED._replace(active=active, enabled=enabled, current=current)
    if not unit:
        have = have._replace(files={CONFIG.path: state_of(CONFIG)}, placed={})
    plan = make_plan(want, have)
    after = CONVERGED._replace(active=state == "started", enabled=state == "started")
    assert plan.changes == (have._replace(previous="1.0", placed=CONVERGED.placed) != after)
    assert make_plan(want, after) == Plan(current="2.0")


# -- packages -----------------------------------------------------------------------------------

VENDOR = Repository("https://example.org/repos/debian12/", "https://example.org/key.asc")
PACKAGED = WANT._replace(release=None, packages=Packages(("demo-core", "demo-cuda13"), "2.0", ("demo",), VENDOR))
WITH_PACKAGES = CONVERGED._replace(
    releases={},
    current=None,
    previous=None,
    packages={"demo-core": Package("1:2.0-1", True), "demo-cuda13": Package("1:2.0-1", True)},
    own_packages=frozenset(["demo-core", "demo-cuda13"]),
    held=frozenset(["demo-core", "demo-cuda13"]),
)


def having(**packages: Package | None) -> Host:
    """The converged host with other packages; demo_core stands for demo-core, None for not there."""
    changed = {name.replace("_", "-"): package for name, package in packages.items()}
    all_of_them = {**WITH_PACKAGES.packages, **changed}
    return WITH_PACKAGES._replace(packages={name: package for name, package in all_of_them.items() if package})


def test_packages_of_the_right_version_are_left_alone():
    assert not make_plan(PACKAGED, WITH_PACKAGES).changes


@pytest.mark.parametrize("there", [None, Package("1:1.9-1", True), Package("1:2.0.1-1", True)])
def test_a_package_that_is_missing_or_of_another_version_is_got_and_the_service_restarted(there):
    plan = make_plan(PACKAGED, having(demo_core=there))
    assert (plan.packages.get, plan.packages.drop, plan.action) == (("demo-core",), (), "restart")


def test_any_version_will_do_where_none_is_asked_for():
    want = PACKAGED._replace(packages=PACKAGED.packages._replace(version=""))
    assert not make_plan(want, having(demo_core=Package("1:1.9-1", True))).changes


def test_a_package_that_somebody_let_go_is_held_again_without_a_restart():
    plan = make_plan(PACKAGED, having(demo_core=Package("1:2.0-1", False)))
    assert (plan.packages.hold, plan.packages.get, plan.action) == (("demo-core",), (), None)
    assert plan.changes


def test_the_package_that_another_one_replaces_goes():
    plan = make_plan(PACKAGED, having(demo=Package("1:1.0-1", False), demo_core=None, demo_cuda13=None))
    assert plan.packages.drop == ("demo",)
    assert plan.packages.get == ("demo-core", "demo-cuda13")


def test_a_package_that_is_not_described_any_more_goes_if_it_came_from_here():
    theirs = PACKAGED._replace(packages=PACKAGED.packages._replace(names=("demo-core",)))
    assert make_plan(theirs, WITH_PACKAGES).packages.drop == ("demo-cuda13",)
    not_ours = WITH_PACKAGES._replace(own_packages=frozenset(["demo-core"]))
    assert not make_plan(theirs, not_ours).changes


def test_absent_removes_the_packages_that_came_from_here_and_no_others():
    host = WITH_PACKAGES._replace(own_packages=frozenset(["demo-core"]))
    plan = make_plan(Service("demo", "absent", UNIT), host)
    assert plan.packages.drop == ("demo-core",)


def test_packages_show_in_summary_and_diff():
    host = having(demo=Package("1:1.0-1", False), demo_core=Package("1:1.9-1", True))
    plan = make_plan(PACKAGED, host)
    assert "package demo-core 1:1.9-1 -> 2.0" in summary(plan, PACKAGED, host)
    assert "package demo 1:1.0-1 -> none" in summary(plan, PACKAGED, host)
    assert {"before": "1:1.9-1\n", "after": "2.0\n"}.items() <= diff(plan, PACKAGED, host)[0].items()


@pytest.mark.parametrize(
    ("version", "wanted", "same"),
    [
        ("1:4.7.1-1", "4.7.1", True),
        ("1:4.7.1-1", "4.7.1-1", True),
        ("1:4.7.1-1", "1:4.7.1-1", True),
        ("4.9.0-1", "4.9.0", True),
        ("1:4.7.10-1", "4.7.1", False),
        ("1:4.7.1-2", "4.7.1-1", False),
        ("2:4.7.1-1", "1:4.7.1-1", False),
        ("1:4.7.1-1", "", True),
    ],
)
def test_a_version_is_meant_without_epoch_and_revision(version, wanted, same):
    assert matches(version, wanted) is same


SECRET = File("/etc/demo/key", b"made up just now", 0o600, secret=True, generated=True)
WITH_SECRET = WANT._replace(files=(*WANT.files, SECRET))


def holding(content: bytes, mode: int = 0o600) -> Host:
    """The converged host, with a secret that it made up once."""
    files = {**CONVERGED.files, SECRET.path: FileState(content, mode, "root", "root")}
    return CONVERGED._replace(files=files, placed={**CONVERGED.placed, SECRET.path: "restart"})


def test_a_secret_that_the_host_made_up_stays_as_it_is():
    assert not make_plan(WITH_SECRET, holding(b"made up once")).changes
    assert [file.content for file in make_plan(WITH_SECRET, CONVERGED).write] == [SECRET.content]
    assert [file.content for file in make_plan(WITH_SECRET, holding(b"")).write] == [SECRET.content]


def test_only_the_mode_of_a_secret_that_the_host_made_up_is_put_right():
    (file,) = make_plan(WITH_SECRET, holding(b"made up once", 0o644)).write
    assert (file.content, file.mode) == (b"made up once", 0o600)


def test_a_secret_that_the_host_made_up_goes_only_with_the_data():
    host = holding(b"made up once")._replace(data=("/var/lib/demo", SECRET.path))
    gone = Service("demo", "absent", UNIT, files=(SECRET,))
    assert SECRET.path not in make_plan(gone, host).remove
    assert {CONFIG.path, UNIT} <= set(make_plan(gone, host).remove)
    purged = make_plan(gone._replace(purge=True), host)
    assert SECRET.path in purged.remove
    assert SECRET.path in make_plan(gone._replace(purge=True), host._replace(managed=False)).purge


def test_data_is_copied_when_another_release_starts_and_only_then():
    want = WANT._replace(data=("/var/lib/demo/*.db",))
    host = CONVERGED._replace(rewritable=("/var/lib/demo/one.db",))
    assert not make_plan(want, host).changes
    assert make_plan(want, host._replace(files={})).save == ()
    older = host._replace(current="1.0")
    plan = make_plan(want, older)
    assert plan.save == ("/var/lib/demo/one.db",)
    assert "copy /var/lib/demo/one.db, for the way back" in summary(plan, want, older)


# -- the distribution's own packages ------------------------------------------------------------

DROP_IN = "/etc/systemd/system/demo.service.d/gpufleet.conf"
SHARED = Service("demo", "absent", DROP_IN, packages=Packages(("demo-core", "tool"), "", (), None, hold=False))


def test_a_distributions_packages_are_not_held():
    plan = make_plan(SHARED._replace(state="started"), having(demo_core=None))
    assert (plan.packages.get, plan.packages.hold) == (("demo-core", "tool"), ())


def test_what_was_there_before_goes_on_without_us_and_what_came_with_us_goes():
    # demo-core may be no more than a name for what the service is in, and have come later.
    for packages in (["tool"], ["demo-core"]):
        theirs = WITH_PACKAGES._replace(own_packages=frozenset(packages), found=Found(active=True, enabled=True))
        assert (make_plan(SHARED, theirs).action, make_plan(SHARED, theirs).enable) == ("restart", None)
    ours = WITH_PACKAGES._replace(own_packages=frozenset(["demo-core"]))
    assert (make_plan(SHARED, ours).action, make_plan(SHARED, ours).enable) == ("stop", False)
    idle = WITH_PACKAGES._replace(found=Found(active=False, enabled=False))
    assert (make_plan(SHARED, idle).action, make_plan(SHARED, idle).enable) == ("stop", False)


def test_what_a_package_may_have_started_already_is_restarted_with_its_configuration():
    assert (
        make_plan(SHARED._replace(state="started"), having(demo_core=None)._replace(active=False)).action == "restart"
    )


# -- jobs ---------------------------------------------------------------------------------------

TIMER_FILE = File("/etc/systemd/system/demo.timer", b"[Timer]\n")
JOB = WANT._replace(files=(*WANT.files, TIMER_FILE), timer=True, can_reload=False)


def test_a_job_is_watched_by_its_timer_and_a_new_timer_is_read_by_systemd():
    assert (JOB.watched, WANT.watched) == ("demo.timer", "demo.service")
    plan = make_plan(JOB, CONVERGED)
    assert plan.write == (TIMER_FILE,)
    assert (plan.daemon_reload, plan.action) == (True, "restart")


def test_what_a_service_wrote_elsewhere_goes_when_it_is_not_wanted_any_more_and_restarts_nothing():
    have = CONVERGED._replace(outputs=("/metrics/demo.prom",))
    for want in (WANT, Service("demo", "absent", UNIT)):
        plan = make_plan(want, have)
        assert plan.sweep == ("/metrics/demo.prom",)
        assert "remove /metrics/demo.prom" in summary(plan, want, have)
    assert make_plan(WANT, have).action is None


def test_what_the_host_made_up_stays_with_the_data():
    have = CONVERGED._replace(generated=frozenset([CONFIG.path]), data=("/var/lib/demo", CONFIG.path))
    gone = Service("demo", "absent", UNIT)
    assert make_plan(gone, have).remove == (UNIT,)
    purged = make_plan(gone._replace(purge=True), have)
    assert (set(purged.remove), purged.purge) == ({UNIT, CONFIG.path}, have.data)


def test_versions_are_those_of_the_release_or_of_the_first_package():
    assert versions(WANT._replace(release=RELEASE._replace(version="3.0")), CONVERGED) == {"from": "2.0", "to": "3.0"}
    assert versions(WANT, Host(files={})) == {"from": "", "to": "2.0"}
    assert versions(Service("demo", "absent", UNIT), CONVERGED) == {"from": "2.0", "to": ""}
    assert versions(Service("demo", "started", UNIT, going_back=True), CONVERGED) == {"from": "2.0", "to": "2.0"}
    repository = Repository("https://example.org/", "https://example.org/key")
    wanted = WANT._replace(release=None, packages=Packages(("core", "more"), "4.7", (), repository))
    have = Host(files={}, packages={"core": Package("1:4.6-1", True), "more": Package("1:4.6-1", True)})
    assert versions(wanted, have) == {"from": "1:4.6-1", "to": "4.7"}
    newest = wanted._replace(packages=wanted.packages._replace(version=""))
    assert versions(newest, have) == {"from": "1:4.6-1", "to": "1:4.6-1"}
    assert versions(newest, Host(files={})) == {"from": "", "to": "newest"}
    assert versions(newest._replace(release=RELEASE), have) == {"from": "", "to": "2.0"}
