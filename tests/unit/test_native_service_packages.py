"""Packages from a vendor's repository: what apt and dnf are told, and above all what is refused."""

from __future__ import annotations

import functools

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils.firewall import host as firewall
from ansible_collections.gpufleet.monitoring.plugins.module_utils.firewall.plan import FirewallError
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service import apt, dnf, packages
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.apt import Apt
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.dnf import Dnf
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service.packages import (
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
def fetch_with(monkeypatch, tmp_path):
    """Fetch WANT on a host: fetch_with(Apt, host) returns the versions."""

    def key(url, target):
        target.write_bytes(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n")

    monkeypatch.setattr(packages.releases, "download", key)
    monkeypatch.setattr(apt.time, "sleep", lambda seconds: None)

    def run(manager, host, before=None, want=WANT):
        changes = Changes(get=want.names, drop=tuple(name for name in want.replaces if name in (before or {})))
        return manager(host).fetch(want, changes, before or {}, tmp_path / "scratch")

    return run


@pytest.fixture
def fetch(fetch_with):
    """The same by apt."""
    return functools.partial(fetch_with, Apt)


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


# -- dnf ----------------------------------------------------------------------------------------

VERSIONS = (0, "1:2.0-1\n1:2.1-1\n", "")
TABLE = """\
================================================================================
 Package                Arch    Version     Repository            Size
================================================================================
Installing:
 demo-core              x86_64  1:2.0-1     gpufleet-vendor      6.1 k
{lines}
Transaction Summary
================================================================================
Install  1 Package
"""


class Red(Host):
    """A host with dnf, on which all goes well and these lines are in the table of the transaction."""

    def __init__(self, lines="", **answers):
        super().__init__(**{"repoquery": VERSIONS, "--assumeno": (1, TABLE.format(lines=lines), ""), **answers})


@pytest.fixture
def locks(monkeypatch, tmp_path):
    """The list of dnf's versionlock."""
    monkeypatch.setattr(dnf, "LOCKS", tmp_path / "versionlock.list")
    return dnf.LOCKS


def test_dnf_takes_the_version_that_is_meant_and_installs_nothing_yet(fetch_with, tmp_path):
    host = Red()
    assert fetch_with(Dnf, host) == {"demo-core": "1:2.0-1"}
    assert all("--assumeno" in command or "--downloadonly" in command for command in host.ran("install"))
    assert host.ran("install", "demo-core-1:2.0-1")
    source = (tmp_path / "scratch" / "sources" / "vendor.repo").read_text()
    assert "baseurl=http://vendor.test/repo/\n" in source
    assert "includepkgs=demo-core,demo\n" in source  # and no driver


def test_dnf_takes_the_newest_where_none_is_meant(fetch_with):
    assert fetch_with(Dnf, Red(), want=WANT._replace(version="")) == {"demo-core": "1:2.1-1"}
    many = Red(repoquery=(0, "1:2.1-1\n1:2.10-1\n1:2.9-1\n", ""))
    assert fetch_with(Dnf, many, want=WANT._replace(version="")) == {"demo-core": "1:2.10-1"}
    with pytest.raises(PackageError, match=r"has no demo-core 3\.0: it has 1:2\.1-1, 1:2\.0-1"):
        fetch_with(Dnf, Red(), want=WANT._replace(version="3.0"))


@pytest.mark.parametrize(
    ("lines", "stranger"),
    [
        ("     replacing  nvidia-driver.x86_64 3:580.65-1.el9\n", "nvidia-driver"),
        ("Upgrading:\n glibc                 x86_64  2.34-100.el9  baseos  2.0 M\n", "glibc"),
        ("Removing dependent packages:\n a-very-long-name-that-wraps\n         x86_64  1-1  @x  6\n", "a-very"),
        ("Removing unused dependencies:\n libold                x86_64  1-1  @x  6\n", "libold"),
    ],
)  # fmt: skip
def test_dnf_that_would_touch_another_package_is_refused(fetch_with, lines, stranger):
    host = Red(lines)
    with pytest.raises(PackageError, match=f"would remove or change {stranger}"):
        fetch_with(Dnf, host)
    assert not host.ran("--downloadonly")


def test_dnf_may_bring_a_library_and_remove_what_is_replaced(fetch_with):
    lines = (
        "Installing dependencies:\n libnew               x86_64  1-1  baseos  6 k\n"
        "Removing dependent packages:\n demo                 x86_64  1:1.0-1  @x  6\n"
    )
    host = Red(lines)
    assert fetch_with(Dnf, host, before={"demo": Installed("1:1.0-1", False)})
    assert host.ran("reinstall", "demo")  # to go back to


def test_dnf_that_finds_no_way_says_why(fetch_with):
    error = "Unable to detect release version\nError: \n Problem: nothing provides libnew needed by demo-core\n"
    with pytest.raises(PackageError, match=r"no way: Error:; Problem: nothing provides libnew"):
        fetch_with(Dnf, Red(**{"--assumeno": (1, "", error)}))


def test_a_package_without_the_right_signature_is_refused(fetch_with):
    said = "/x/archives/demo-core-2.0-1.x86_64.rpm: digests SIGNATURES NOT OK\n"
    with pytest.raises(PackageError, match=r"without a signature by .*key\.pub: demo-core-2\.0-1\..*NOT OK"):
        fetch_with(Dnf, Red(**{"--checksig": (1, said, "")}))


@pytest.mark.parametrize(("code", "kept"), [(0, True), (1, False)])
def test_a_package_to_go_back_to_has_to_be_signed_as_well(fetch_with, tmp_path, code, kept):
    class Downloads(Red):
        def __call__(self, words):
            if "reinstall" in words:
                (tmp_path / "scratch/former/demo").mkdir(parents=True)
                (tmp_path / "scratch/former/demo/demo-1.0-1.x86_64.rpm").touch()
            return super().__call__(words)

    host = Downloads(**{"--checksig": [(0, "", ""), (code, "", "")]})
    fetch_with(Dnf, host, before={"demo": Installed("1:1.0-1", False)})
    assert (tmp_path / "scratch/former/demo").exists() == kept


def test_a_key_that_is_none_is_refused(fetch_with):
    with pytest.raises(
        PackageError, match=r"key\.pub is no key that rpm takes: error: key 1 not an armored public key"
    ):
        fetch_with(Dnf, Red(**{"--import": (1, "", "error: key 1 not an armored public key.\n")}))


def test_the_plugin_that_holds_packages_comes_with_the_first_of_them(fetch_with):
    host = Red(versionlock=(1, "", "No such command: versionlock"))
    fetch_with(Dnf, host)
    assert host.ran("install", "--downloadonly", "python3-dnf-plugin-versionlock")
    host = Red()
    fetch_with(Dnf, host)
    assert not host.ran("python3-dnf-plugin-versionlock")


def test_rpms_that_are_there_and_held(locks):
    said = "a\t1:1.0-1\nb\t0:2.0-1\npackage c is not installed\n"
    locks.write_text("# Added lock on Mon\na-1:1.0-1.*\nb-0:1.9-1.*\n")
    assert Dnf(Host(rpm=(1, said, ""))).installed(["a", "b", "c"]) == {
        "a": Installed("1:1.0-1", True),
        "b": Installed("0:2.0-1", False),  # the lock is of a version that is gone
    }


def test_without_the_rpms_from_before_nobody_goes_back(locks, tmp_path):
    host = Host(rpm=(0, "demo\t0:2.0-1\n", ""))
    with pytest.raises(PackageError, match=r"demo 0:1\.0-1 cannot be put back"):
        Dnf(host).go_back({"demo": "0:1.0-1"}, tmp_path)
    assert not host.ran("dnf")


# -- what is asked for --------------------------------------------------------------------------


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


MIRRORED = OWN._replace(mirror="http://mirror.test")
NOWHERE = (0, "demo-core:\n  Installed: (none)\n  Candidate: (none)\n", "")
CUT = (100, "", "E: Failed to fetch http://own.test/demo-core.deb  Connection timed out")


@pytest.fixture
def distribution(monkeypatch):
    def is_(name):
        monkeypatch.setattr(apt.distributions, "distribution", lambda: name)

    is_("debian12")
    return is_


def from_mirror(host, *words):
    """What apt was told while it saw the mirror alone."""
    return [command for command in host.ran(*words) if any(word.startswith("Dir::State::lists=") for word in command)]


def test_where_the_hosts_own_sources_work_a_mirror_is_not_asked(fetch, distribution):
    host = Host(policy=POLICY)
    assert fetch(host, want=MIRRORED) == {"demo-core": "1:2.1-1~bpo"}
    assert not from_mirror(host)


@pytest.mark.parametrize(
    "ill", [{"policy": [NOWHERE, POLICY]}, {"policy": POLICY, "--download-only": [CUT, (0, "", "")]}]
)
def test_where_the_hosts_own_sources_have_it_not_the_mirror_alone_is_seen(fetch, distribution, tmp_path, ill):
    host = Host(**{"--print-architecture": (0, "arm64\n", "")}, **ill)
    assert fetch(host, want=MIRRORED) == {"demo-core": "1:2.1-1~bpo"}
    scratch = tmp_path / "scratch"
    lines = (scratch / "vendor.list").read_text().splitlines()
    assert [line.partition("] ")[2] for line in lines] == [
        "http://mirror.test/deb.debian.org/debian bookworm main",
        "http://mirror.test/deb.debian.org/debian bookworm-updates main",
        "http://mirror.test/deb.debian.org/debian-security bookworm-security main",
    ]
    assert all("arch=arm64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg " in line for line in lines)
    assert not list((scratch / "sources").iterdir())
    for words in (["update"], ["policy"], ["install", "--simulate"], ["install", "--download-only"]):
        assert from_mirror(host, *words)
    host.told.clear()
    Apt(host).install({"demo-core": "1:2.1-1~bpo"}, [], scratch)
    assert from_mirror(host, "install", "--no-download")


def test_a_package_from_a_mirror_touches_no_other_one_either(fetch, distribution):
    host = Host(**{"--simulate": (0, "Inst libc6 [2.36] (2.37 x [amd64])\n", "")}, policy=[NOWHERE, POLICY])
    with pytest.raises(PackageError, match="libc6, too, which is not ours"):
        fetch(host, want=MIRRORED)
    assert not host.ran("--download-only")


def test_when_the_mirror_has_it_not_either_both_are_said(fetch, distribution):
    refused = (100, "", "E: The repository 'http://mirror.test/x bookworm Release' is not signed.")
    host = Host(update=[(0, "", ""), refused], policy=NOWHERE)
    with pytest.raises(PackageError, match=r"knows no package demo-core.* by the mirror http://mirror\.test: .*signed"):
        fetch(host, want=MIRRORED)


def test_another_distribution_has_no_mirror(fetch, distribution):
    distribution("debian99")
    with pytest.raises(PackageError, match=r"knows no package demo-core.*releases that this host's is not among"):
        fetch(Host(policy=NOWHERE), want=MIRRORED)


@pytest.mark.parametrize("mirror", ["file:///srv/mirror", "mirror.test", "http://a b"])
def test_a_mirror_that_hosts_cannot_reach_is_refused(mirror):
    with pytest.raises(PackageError, match=r"packages\.mirror is no http"):
        from_params({"names": ["a1"], "version": None, "replaces": [], "mirror": mirror})


def test_ufw_comes_by_a_mirror_as_well(monkeypatch, distribution, tmp_path):
    monkeypatch.setattr(firewall, "ROOT", tmp_path / "firewall")
    monkeypatch.setattr(firewall.shutil, "which", lambda name: name)
    host = Host(policy=[NOWHERE, (0, "ufw:\n  Candidate: 0.36-1\n", "")])
    firewall.Firewall(host)._install("http://mirror.test")
    assert from_mirror(host, "install", "--no-download", "ufw=0.36-1")
    assert not (tmp_path / "firewall/.packages").exists()
    with pytest.raises(FirewallError, match="ufw cannot be installed: apt knows no package ufw"):
        firewall.Firewall(Host(policy=NOWHERE))._install("http://mirror.test")


def test_a_repository_and_a_hold_are_asked_for():
    assert from_params({"names": ["a1"], "version": None, "replaces": [], "hold": False}).repository is None
    assert not from_params({"names": ["a1"], "version": None, "replaces": [], "hold": False}).hold


def test_a_tool_of_the_distribution_that_others_need_by_now_stays(fetch):
    needed = "Purg certbot [2.1]\nPurg openssl [3.0]\n"
    host = Host(purge_openssl=(0, needed, ""), purge=(0, "Purg nginx [1.22]\n", ""))
    Apt(host).remove(["nginx", "openssl"], OWN)
    done = [command for command in host.ran("purge") if "--simulate" not in command]
    assert [("nginx" in command, "openssl" in command) for command in done] == [(True, False)]


def test_what_came_along_and_nobody_needs_goes_too_but_not_what_nobody_needed_before(fetch):
    host = Host(
        **{"--auto-remove": (0, "Purg demo-core [2]\nPurg demo-common [2]\nPurg orphan [1]\n", "")},
        autoremove=(0, "Remv orphan [1]\n", ""),
        purge=(0, "Purg demo-core [2]\n", ""),
    )
    Apt(host).remove(["demo-core"])
    (done,) = [command for command in host.ran("purge") if "--simulate" not in command]
    assert [word for word in done if word in ("demo-core", "demo-common", "orphan")] == ["demo-core", "demo-common"]


@pytest.fixture
def etc(monkeypatch, tmp_path):
    """A directory of configuration that two packages own, in the place of /etc/demo: their files, and ours."""
    demo = tmp_path / "demo"
    (demo / "sites").mkdir(parents=True)
    (demo / "demo.conf").touch()
    (demo / "ours.conf").touch()
    (demo / "sites" / "default").symlink_to("../demo.conf")  # made by a maintainer's script, as Debian's nginx does
    monkeypatch.setattr(apt, "CONFIGURATION", tmp_path)
    return demo


@pytest.mark.parametrize(
    ("others", "owners", "want", "verb"),
    [
        ([], "demo, demo-core:amd64", OWN, "purge"),
        (["sites/mine"], "demo, demo-core:amd64", OWN, "remove"),
        (["sites/mine"], "demo, demo-core:amd64, stranger", OWN, "purge"),  # as /etc/default, which nobody deletes
        (["sites/mine"], "demo, demo-core:amd64", WANT, "purge"),  # a vendor's, who deletes what is his
    ],
)
def test_the_distributions_packages_leave_their_configuration_where_others_have_added_to_it(
    etc, others, owners, want, verb
):
    for name in others:
        (etc / name).touch()
    host = Host(
        **{"--listfiles": (0, f"/usr/bin/demo\n{etc.parent}\n{etc}\n{etc}/sites\n{etc}/demo.conf\n", "")},
        **{"--search": (0, f"{owners}: {etc}\n", "")},
        purge=(0, "Purg demo-core [2]\nPurg demo [2]\n", ""),
    )
    Apt(host).remove(["demo", "demo-core"], want, {f"{etc}/ours.conf"})
    (done,) = [command for command in host.told if "--yes" in command and "--simulate" not in command]
    assert verb in done
