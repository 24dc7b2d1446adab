"""What a service writes: a new release may rewrite it, and it may be worth nothing without a secret."""

from __future__ import annotations

import pytest

BOOK = "/var/lib/demo/book"
KEY = "/etc/demo/key"
GENERATED = {"path": KEY, "generate": True}
# Every release signs the book as it starts, and the one that fails does so, too.
SIGN = f'/bin/sh -c "readlink /opt/gpufleet/demo/current >> {BOOK}"'


@pytest.fixture
def writing(bare, brought, service):
    """The service with data, in its version 1; further arguments bring it elsewhere."""
    unit = {"Service": {**service["unit"]["Service"], "StateDirectory": "demo", "ExecStartPre": SIGN}}
    described = {"unit": unit, "data": [f"{BOOK}*"]}
    assert "directory /etc/demo" in brought(**described)["actions"]
    return described


@pytest.fixture
def book(sh):
    """The releases that signed, without repetitions."""
    return lambda: list(dict.fromkeys(sh("host1", f"cat {BOOK}").splitlines()))


def test_data_is_copied_before_another_release_starts_and_kept_as_long_as_the_old_one(
    writing, brought, releases, book, sh, v2
):
    result = brought(**writing, release=v2)
    assert f"copy {BOOK}, for the way back" in result["actions"]
    assert book() == ["1.0.0", "2.0.0"]
    copies = "/opt/gpufleet/demo/data/1.0.0"
    assert set(sh("host1", f"cat {copies}{BOOK}").splitlines()) == {"1.0.0"}
    assert sh("host1", f"stat -c %a {copies}") == "700"
    assert not brought(**writing, release=v2)["changed"]
    brought(**writing, release=releases.publish("4.0.0"))
    brought(**writing, release=releases.publish("5.0.0"))
    assert sh("host1", "ls /opt/gpufleet/demo/data") == "4.0.0"  # as the releases that stay


def test_data_goes_back_with_the_release_and_keeps_its_owner(writing, refused, releases, book, sh):
    """The service's own user has put links in the way, to have root write elsewhere, and read for them."""
    owner = sh("host1", f"stat -c '%U %a' {BOOK}")
    sh("host1", "cd /var/lib/demo && ln -s /etc/written .book.new && ln -s /etc/shadow book.too")
    result = refused(**writing, release=releases.publish("3.0.0", behaviour="exits"))
    assert result["rolled_back"]
    assert book() == ["1.0.0"]
    assert sh("host1", f"stat -c '%U %a' {BOOK}") == owner
    assert (
        sh("host1", "find /var/lib/private/demo -type f; ls /etc/written", check=False) == f"/var/lib/private{BOOK[8:]}"
    )
    assert sh("host1", "find /opt/gpufleet/demo/data -name book.too") == ""


def test_back_to_the_release_before_once_with_the_data_if_they_are_asked_for(
    writing, brought, refused, ask, book, lab, sh, v2
):
    brought(**writing, release=v2)
    requests = len(lab.faults.requests())
    assert not brought(state="previous", **{"from": "3.0.0"})["changed"]  # as where an upgrade did not come to
    result = brought(state="previous", **{"from": "2.0.0"})
    assert result["service"] == {"name": "demo", "from": "2.0.0", "to": "1.0.0"}
    assert (ask()["version"], book()) == ("1.0.0", ["1.0.0", "2.0.0"])
    assert ask()["arguments"][0] == "--port=8000"  # its unit is as it was
    assert not brought(state="previous")["changed"]  # else it would go forth
    assert not brought(**writing)["changed"]  # what the inventory says then

    brought(**writing, release=v2)
    brought(state="previous", restore_data=True)
    assert ask()["version"] == "1.0.0"
    count = "grep --count 2.0.0"  # it has signed twice, the second time after the copy was made
    assert sh("host1", f"{count} {BOOK}; {count} /opt/gpufleet/demo/data/2.0.0{BOOK}") == "1\n2"
    assert len(lab.faults.requests()) == requests

    brought(**writing, release=v2)
    sh("host1", """sed -i 's/"works"/"exits"/' /opt/gpufleet/demo/1.0.0/demo""")
    before = book()
    assert refused(state="previous", restore_data=True)["rolled_back"]
    assert (ask()["version"], book()) == ("2.0.0", before)


@pytest.mark.parametrize(("then", "signed"), [("1.0.0", ["1.0.0"]), ("2.0.0", ["1.0.0", "3.0.0", "2.0.0"])])
def test_after_a_run_that_died_only_the_way_back_takes_the_copy(writing, cut, brought, releases, book, then, signed):
    """Whoever goes on goes on with the data as they are: it is not known who reads them."""
    cut(**writing)
    brought(**writing, release=releases.publish(then))
    assert book() == signed


def test_a_secret_is_made_up_once_and_stays_until_the_data_go(bare, brought, sh, service):
    files = [*service["files"], GENERATED]
    result = brought("--diff", files=files)
    first = sh("host1", f"cat {KEY}")
    assert len(first) == 43 and first not in str(result)
    assert sh("host1", f"stat -c '%U %a' {KEY}") == "root 600"
    assert not brought(files=files)["changed"]
    brought(files=files, state="absent")
    assert sh("host1", "ls -d /etc/demo/* /opt/gpufleet", check=False) == KEY
    brought(files=files)
    assert sh("host1", f"cat {KEY}") == first
    brought(files=files, state="absent", purge=True)
    assert sh("host1", f"ls -d {KEY} /etc/demo", check=False) == ""
