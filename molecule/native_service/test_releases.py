"""Releases come, stay, go, and are refused; a failed download leaves what runs alone."""

from __future__ import annotations

import tarfile

import pytest

ARCHIVE = "example.org/demo/v2.0.0/demo-*"
DIRECTORY = "/opt/gpufleet/demo"


def downloads(lab, version):
    return [request for request in lab.faults.requests() if f"/v{version}/demo-" in request["path"]]


def test_two_releases_stay_and_going_back_needs_no_download(demo, lab, brought, ask, sh, releases, v1, v2):
    brought(release=v2)
    assert ask()["version"] == "2.0.0"
    before = len(lab.faults.requests())
    brought(release=v1)
    assert ask()["version"] == "1.0.0"
    assert len(lab.faults.requests()) == before
    brought(release=releases.publish("2.1.0"))
    assert sh("host1", f"cd {DIRECTORY}; ls -d [0-9]*; readlink current") == "1.0.0\n2.1.0\n2.1.0"


def test_archives_of_all_forms_are_unpacked_and_a_release_may_be_one_file(demo, brought, ask, releases, service):
    for form in ("tar.gz", "tar.xz", "zip"):
        version = f"5.0.0-{form}"
        brought(release=releases.publish(version, form=form))
        assert ask()["version"] == version
    release = releases.publish("5.1.0", form="")
    program = "{release}/demo-5.1.0.linux-amd64"
    unchecked = {key: value for key, value in service["files"][0].items() if key != "validate"}
    brought(release=release, command=[program, *service["command"][1:]], files=[unchecked])
    assert ask()["version"] == "5.1.0"


def member(name, **attributes):
    info = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


# Of all others, tests/unit/test_native_service_release.py knows.
HOSTILE = {
    "through a link": [
        member("demo/link", type=tarfile.SYMTYPE, linkname="../../../../etc/cron.d"),
        member("demo/link/evil", size=9),
    ],
    "device": [member("demo/sda", type=tarfile.BLKTYPE)],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_an_archive_that_reaches_out_of_its_directory_is_refused(demo, refused, sh, untouched, releases, members):
    before = untouched()
    message = refused(release=releases.publish("6.6.6", members=members))["msg"]
    assert "the archive is refused: its " in message
    assert "demo is as it was" in message
    assert sh("host1", "find / -xdev -name 'evil*' -not -path '/proc/*'") == ""
    assert untouched() == before


def test_a_download_that_fails_leaves_what_runs_alone(bare, demo, lab, refused, brought, ask, untouched, sh, v2):
    before = untouched()
    for effect, complaint in (
        ({"status": 404}, "HTTP status 404"),
        ({"status": 503}, "HTTP status 503"),
        ({"truncate": 100_000}, "the connection was cut"),
        ({"corrupt": True}, "is wrong: expected sha256"),
    ):
        with lab.faults.injected(ARCHIVE, **effect):
            message = refused(release=v2)["msg"]
        assert complaint in message
        assert "demo-2.0.0.linux-amd64.tar.gz" in message
        assert "demo is as it was" in message
        sh("host1", f"rm -f {DIRECTORY}/.download/*.part*")  # what arrived may stay, to go on from
        assert untouched() == before
    brought(release=v2)
    assert ask()["version"] == "2.0.0"


def test_a_mirror_that_is_down_leaves_what_runs_alone(demo, refused, untouched, releases):
    before = untouched()
    nobody = {key: value.replace(":8080/", ":1/") for key, value in releases.publish("2.2.0").items()}
    assert "refused" in refused(release=nobody)["msg"]
    assert untouched() == before


def test_a_checksum_of_the_operators_own_decides(demo, refused, untouched, v2):
    before = untouched()
    assert "expected sha256 0000" in refused(release={**v2, "sha256": "0" * 64})["msg"]
    assert untouched() == before


def test_a_download_that_is_cut_goes_on_where_it_ended(demo, lab, brought, ask, releases):
    release = releases.publish("7.0.0")
    before = len(downloads(lab, "7.0.0"))
    with lab.faults.injected("example.org/demo/v7.0.0/demo-*", truncate=600_000, times=1):
        brought(release=release)
    assert ask()["version"] == "7.0.0"
    first, second = downloads(lab, "7.0.0")[before:]
    assert first["bytes"] >= 600_000
    assert second["status"] == 206
    assert second["bytes"] < 500_000


@pytest.mark.parametrize("size", ["1500k", "2500k"], ids=["download", "unpack"])
def test_a_full_disk_leaves_what_runs_alone(bare, brought, refused, ask, sh, untouched, v2, size):
    sh("host1", "mkdir -p /opt/gpufleet && mount -t tmpfs -o size=4m none /opt/gpufleet")
    try:
        brought()
        before = untouched()
        sh("host1", f"mount -o remount,size={size} /opt/gpufleet")
        assert "o space left" in refused(release=v2)["msg"]
        assert untouched() == before  # and the half of it that fitted is gone
        assert ask()["version"] == "1.0.0"
        sh("host1", "mount -o remount,size=8m /opt/gpufleet")
        brought(release=v2)
        assert ask()["version"] == "2.0.0"
    finally:
        sh("host1", "systemctl disable --now demo; umount /opt/gpufleet; rmdir /opt/gpufleet")
        sh("host1", "rm -r /etc/systemd/system/demo.service /etc/demo; systemctl daemon-reload")
