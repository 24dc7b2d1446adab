"""A change that nobody confirms is undone, whenever it was cut off, and later work of others is not."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils.firewall import pending
from ansible_collections.gpufleet.monitoring.plugins.module_utils.firewall.plan import FirewallError, State

OLD = State({4: [], 6: []}, enabled=True)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host's files; what is run but for the script that undoes is written down."""
    root = tmp_path / "firewall"
    for name, path in {"ROOT": root, "MANIFEST": root / "manifest.json", "PENDING": root / "pending"}.items():
        monkeypatch.setattr(pending, name, path)
    files = [tmp_path / name for name in ("ufw", "ufw.conf", "user.rules", "user6.rules")]
    monkeypatch.setattr(pending, "FILES", tuple(files))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ufw").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "bin/ufw").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    for file in files:
        file.write_text("old")
    return tmp_path


@pytest.fixture
def way_back():
    ran = []

    def order(*words, may_fail=False):
        ran.append(" ".join(words))
        if words[0] == "sh" and subprocess.run(words, check=False).returncode != 0:
            raise FirewallError("failed")

    found = pending.Pending(order)
    found.ran = ran
    return found


def change(host, way_back, before=None, carried_out=True):
    token = way_back.begin(OLD, before, 60)
    (host / "user.rules").write_text("new")
    if carried_out:
        way_back.carried_out()
    return token


@pytest.mark.parametrize("carried_out", [True, False])
def test_what_nobody_confirmed_is_undone_by_the_next_run(host, way_back, carried_out):
    change(host, way_back, {}, carried_out)
    way_back.settle()
    assert (host / "user.rules").read_text() == "old"
    assert not pending.PENDING.exists()


def test_later_work_of_others_stays(host, way_back):
    """After a loss of power the timer is gone, and whoever found the host may have put it right."""
    change(host, way_back, {"enabled": False})
    (host / "user.rules").write_text("theirs")
    way_back.settle()
    assert (host / "user.rules").read_text() == "theirs"
    assert pending.MANIFEST.exists() and not pending.PENDING.exists()


def test_a_run_that_was_cut_off_while_it_wrote_the_way_back_is_no_trouble(host, way_back):
    (pending.ROOT / "pending.new").mkdir(parents=True)
    way_back.settle()
    change(host, way_back)
    way_back.undo()
    assert (host / "user.rules").read_text() == "old"


def test_where_going_back_fails_the_way_back_stays(host, way_back):
    change(host, way_back)
    (host / "bin/ufw").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(FirewallError):
        way_back.undo()
    assert pending.PENDING.exists()


def test_a_confirmed_change_stays_and_nothing_waits_to_undo_it(host, way_back):
    way_back.confirm(change(host, way_back, {"enabled": False}))
    assert (host / "user.rules").read_text() == "new"
    assert pending.MANIFEST.exists() and not pending.PENDING.exists()
    assert [line.rpartition(".")[2] for line in way_back.ran[-2:]] == ["timer", "service"]


def test_nothing_is_left_of_a_change_to_nothing(host, way_back):
    way_back.confirm(change(host, way_back))
    assert not pending.ROOT.exists()


def test_a_change_is_confirmed_by_whom_it_is(host, way_back):
    change(host, way_back)
    with pytest.raises(FirewallError, match="another run"):
        way_back.confirm("1234")
    assert pending.PENDING.exists()
    way_back.undo()
    with pytest.raises(FirewallError, match="too long"):
        way_back.confirm("1234")


def test_where_ufw_was_off_the_kernel_is_put_back_too(host, way_back):
    """Were strict rp_filter to stay, SSH by another link would stay cut."""
    setting = host / "rp_filter"
    setting.write_text("1")
    way_back.begin(OLD._replace(enabled=False, sysctl={str(setting): "2"}), None, 60)
    way_back.undo()
    assert setting.read_text() == "2\n"
