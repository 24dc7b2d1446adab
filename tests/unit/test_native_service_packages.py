"""Packages from a vendor's repository: what apt is told, and above all what is refused."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service import packages
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.packages import (
    Apt,
    Changes,
    Installed,
    PackageError,
    Packages,
    Repository,
    from_params,
)

WANT = Packages(("demo-core",), "2.0", ("demo",), Repository("http://vendor.test/repo/", "http://vendor.test/key.pub"))


class Host:
    """Answers commands by their first words that are no option; what it was told is in ``told``."""

    def __init__(self, **answers):
        self.answers = answers
        self.told = []

    def __call__(self, words):
        self.told.append(words)
        for name, answer in self.answers.items():
            if all(word in words for word in name.split("_")):
                return answer.pop(0) if isinstance(answer, list) else answer
        return 0, "", ""

    def ran(self, *words):
        return [command for command in self.told if all(word in command for word in words)]


@pytest.fixture
def fetch(monkeypatch, tmp_path):
    """Fetch WANT on a host: fetch(host) returns the versions."""

    def key(url, target):
        target.write_bytes(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n")

    monkeypatch.setattr(packages.releases, "download", key)
    monkeypatch.setattr(packages.time, "sleep", lambda seconds: None)

    def run(host, before=None, want=WANT):
        changes = Changes(get=want.names, drop=tuple(name for name in want.replaces if name in (before or {})))
        return Apt(host).fetch(want, changes, before or {}, tmp_path / "scratch")

    return run


MADISON = (0, " demo-core | 1:2.1-1 | http://vendor.test/repo Packages\n demo-core | 1:2.0-1 | http://...\n", "")


def test_the_version_that_is_meant_is_taken_and_nothing_is_installed_yet(fetch, tmp_path):
    host = Host(madison=MADISON)
    assert fetch(host) == {"demo-core": "1:2.0-1"}
    assert all("--simulate" in command or "--download-only" in command for command in host.ran("install"))
    source = (tmp_path / "scratch" / "vendor.list").read_text()
    assert source == f"deb [signed-by={tmp_path}/scratch/key.asc] http://vendor.test/repo/ /\n"


def test_the_newest_is_taken_where_none_is_meant(fetch):
    assert fetch(Host(madison=MADISON), want=WANT._replace(version="")) == {"demo-core": "1:2.1-1"}


def test_a_version_that_is_not_there_is_said_with_those_that_are(fetch):
    with pytest.raises(PackageError, match=r"has no demo-core 3\.0: it has 1:2\.1-1, 1:2\.0-1"):
        fetch(Host(madison=MADISON), want=WANT._replace(version="3.0"))


@pytest.mark.parametrize(
    ("line", "stranger"),
    [
        ("Remv nvidia-driver-580 [580.65]", "nvidia-driver-580"),
        ("Inst libc6 [2.36-9] (2.37-1 vendor [amd64])", "libc6"),
    ],
)
def test_what_would_touch_another_package_is_refused(fetch, line, stranger):
    host = Host(madison=MADISON, **{"--simulate": (0, f"{line}\nInst demo-core (1:2.0-1 vendor)\n", "")})
    with pytest.raises(PackageError, match=stranger):
        fetch(host)
    assert not host.ran("--download-only")


def test_a_library_that_is_missing_may_come_and_what_is_replaced_may_go(fetch):
    said = "Inst libnew (1.0 debian)\nRemv demo [1:1.0-1]\nInst demo-core (1:2.0-1 vendor)\n"
    host = Host(madison=MADISON, **{"--simulate": (0, said, "")})
    assert fetch(host, before={"demo": Installed("1:1.0-1", False)})
    assert host.ran("download", "demo=1:1.0-1")  # to go back to


def test_another_run_of_apt_is_waited_for(fetch):
    busy = (100, "", "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt-get)")
    host = Host(madison=MADISON, update=[busy, busy, (0, "", "")])
    assert fetch(host)
    assert len(host.ran("update")) == 3


def test_a_repository_that_is_not_signed_is_said_in_apts_words(fetch):
    error = (
        "W: GPG error: http://vendor.test/repo InRelease\nE: The repository 'http://vendor.test/repo' is not signed.\n"
    )
    with pytest.raises(PackageError, match=r"cannot be used .*key\.pub.*is not signed"):
        fetch(Host(update=(100, "", error)))


def test_packages_that_are_not_whole_are_not_there():
    rows = "a\tinstalled\thold\t1.0\nb\thalf-configured\tinstall\t1.0\nc\tinstalled\tinstall\t2.0\n"
    assert Apt(Host(**{"dpkg-query": (1, rows, "")})).installed(["a", "b", "c", "d"]) == {
        "a": Installed("1.0", True),
        "c": Installed("2.0", False),
    }


def test_without_the_packages_from_before_nobody_goes_back(tmp_path):
    host = Host(**{"dpkg-query": (0, "demo\tinstalled\tinstall\t2.0\n", "")})
    with pytest.raises(PackageError, match=r"demo 1\.0 cannot be put back"):
        Apt(host).go_back({"demo": "1.0"}, tmp_path)
    assert not host.ran("install")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": "file:///tmp/repo"}, "url is no http"),
        ({"url": "http://x/ [trusted=yes]"}, "url is no http"),
        ({"key_url": "key.pub"}, "key_url is no http"),
        ({"key_sha256": "12"}, "no SHA-256|not a SHA-256"),
    ],
)
def test_a_repository_that_makes_no_sense_is_refused(change, words):
    repository = {"url": "http://x/", "key_url": "http://x/key", **change}
    with pytest.raises(PackageError, match=words):
        from_params({"names": ["demo"], "version": None, "replaces": [], "repository": repository})


@pytest.mark.parametrize("name", ["--yes", "a b", "demo-", "demo=1", "../x", ""])
def test_a_name_that_apt_would_take_for_something_else_is_refused(name):
    repository = {"url": "http://x/", "key_url": "http://x/key"}
    with pytest.raises(PackageError, match="no name of a package"):
        from_params({"names": [name], "version": None, "replaces": [], "repository": repository})


# -- the distribution's own ---------------------------------------------------------------------

OWN = Packages(("demo-core",), "", (), None, hold=False)
POLICY = (0, "demo-core:\n  Installed: (none)\n  Candidate: 1:2.1-1~bpo\n", "")


def test_without_a_repository_the_hosts_own_sources_say_what_is_installed(fetch, tmp_path):
    host = Host(policy=POLICY, madison=MADISON)
    assert fetch(host, want=OWN) == {"demo-core": "1:2.1-1~bpo"}  # with its owner's preferences, unlike madison
    assert host.ran("update")
    assert not any("Dir::Etc" in word for command in host.told for word in command)
    Apt(host).install({"demo-core": "1:2.1-1~bpo"}, [], tmp_path / "scratch")
    assert not any("Dir::Etc" in word for command in host.told for word in command)


def test_a_source_of_the_host_that_is_ill_does_not_matter_while_another_has_the_package(fetch):
    host = Host(
        update=(100, "", "E: The repository 'http://gone.test stable Release' does not have a Release file."),
        policy=POLICY,
    )
    assert fetch(host, want=OWN) == {"demo-core": "1:2.1-1~bpo"}


@pytest.mark.parametrize("said", ["", "demo-core:\n  Installed: (none)\n  Candidate: (none)\n"])
def test_a_package_that_no_source_has_is_named(fetch, said):
    with pytest.raises(PackageError, match="knows no package demo-core"):
        fetch(Host(policy=(0, said, "")), want=OWN)


def test_a_repository_and_a_hold_are_asked_for():
    assert from_params({"names": ["a1"], "version": None, "replaces": [], "hold": False}).repository is None
    assert not from_params({"names": ["a1"], "version": None, "replaces": [], "hold": False}).hold


def test_a_tool_of_the_distribution_that_others_need_by_now_stays(fetch):
    needed = "Purg certbot [2.1]\nPurg openssl [3.0]\n"
    host = Host(purge_openssl=(0, needed, ""), purge=(0, "Purg nginx [1.22]\n", ""))
    Apt(host).remove(["nginx", "openssl"], OWN)
    done = [command for command in host.ran("purge") if "--simulate" not in command]
    assert [("nginx" in command, "openssl" in command) for command in done] == [(True, False)]
