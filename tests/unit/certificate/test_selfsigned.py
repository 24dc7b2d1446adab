"""Our own CA, with the real openssl: who trusts what it signs, for how long, and what is left of it."""

from __future__ import annotations

import subprocess
import time

import pytest
from certificates import DAY, NAMES, full_disk, trusts
from gpufleet.certificate import files
from gpufleet.certificate.store import Store
from gpufleet_lab.authority import Authority


def test_who_has_the_ca_trusts_the_server_under_each_of_its_names_and_no_other(configure, bring, state):
    found = bring(configure())
    parts = (state / "ca/ca.pem", found.directory / "fullchain.pem", found.directory / "privkey.pem")
    assert [trusts(*parts, name) for name in [*NAMES, "other.example.org", "10.0.0.6"]] == [True, True, False, False]


@pytest.mark.parametrize("names", [NAMES, ["master1"], ["10.0.0.5"], ["fd00::5", "*.example.org"]])
def test_the_ca_is_worth_nothing_for_names_that_are_not_ours(configure, bring, state, names):
    """Its key lies on a host that faces the internet."""
    bring(configure(names=names))
    stolen = Authority(state / "stolen")
    for kind, own in (("pem", "crt"), ("key", "key")):
        (state / f"stolen/ca.{own}").write_bytes((state / f"ca/ca.{kind}").read_bytes())
    for number, name in enumerate(["DNS:www.bank.test", "IP:192.0.2.1", "IP:2001:db8::1"]):
        forged = stolen.issue(f"forged{number}", f"subjectAltName={name}")
        assert not trusts(state / "ca/ca.pem", forged, stolen.key(f"forged{number}"), name.partition(":")[2])


def test_keys_are_roots_alone(configure, bring, state):
    found = bring(configure())
    for key in (found.directory / "privkey.pem", state / "ca/ca.key"):
        assert key.stat().st_mode & 0o777 == 0o600


def test_nothing_is_renewed_before_its_time_and_all_is_with_a_third_of_its_life_left(
    configure, bring, state, monkeypatch
):
    config = configure()
    first = bring(config)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 59 * DAY)
    assert bring(config).leaf == first.leaf
    monkeypatch.setattr(time, "time", lambda: now + 61 * DAY)
    second = bring(config)
    assert second.leaf != first.leaf
    assert (state / "current").resolve() == second.directory
    assert [trusts(state / "ca/ca.pem", found.directory / "fullchain.pem", found.directory / "privkey.pem", NAMES[0])
            for found in (first, second)] == [True, True]  # fmt: skip


def test_old_certificates_go_but_for_the_last_one(configure, bring, state):
    config = configure()
    for _ in range(5):
        found = bring(config, renew=True)
    assert sorted(path.name for path in (state / "issued").iterdir()) == ["4", "5"]
    assert found.directory.name == "5"


def test_a_name_less_keeps_the_ca_and_a_name_more_needs_another_one(configure, bring, state):
    bring(configure())
    ca = (state / "ca/ca.pem").read_text()
    assert not bring(configure(names=NAMES[:1])).leaf.covers(NAMES[1])
    assert (state / "ca/ca.pem").read_text() == ca
    assert bring(configure(names=[*NAMES, "other.example.org"])).leaf.covers("other.example.org")
    assert (state / "ca/ca.pem").read_text() != ca


@pytest.mark.parametrize("file", ["ca.pem", "privkey.pem"])
def test_a_full_disk_in_the_middle_leaves_what_was_and_the_next_run_goes_on(configure, bring, state, monkeypatch, file):
    before, ca = bring(configure()), (state / "ca/ca.pem").read_text()
    write = files.write

    def full(path, text, mode):
        (full_disk if path.name == file else write)(path, text, mode)

    config = configure(names=[*NAMES, "other.example.org"])
    with monkeypatch.context() as disk, pytest.raises(OSError, match="No space"):
        disk.setattr(files, "write", full)
        bring(config)
    assert Store(state).current() == before
    assert (state / "ca/ca.pem").read_text() == ca
    assert [len(list((state / name).iterdir())) for name in ("authorities", "issued")] == [1, 1]
    found = bring(config)
    assert trusts(
        state / "ca/ca.pem", found.directory / "fullchain.pem", found.directory / "privkey.pem", "other.example.org"
    )


def test_the_key_of_a_ca_that_was_replaced_is_gone(configure, bring, state):
    bring(configure())
    bring(configure(names=[*NAMES, "other.example.org"]))
    assert list(state.rglob("ca.key")) == [(state / "ca").resolve() / "ca.key"]


def test_the_ca_signs_servers_alone(configure, bring, state):
    """Names bind it in certificates for servers; whoever asks for clients' certificates may not look at names."""
    bring(configure())
    stolen = Authority(state / "stolen")
    for kind, own in (("pem", "crt"), ("key", "key")):
        (state / f"stolen/ca.{own}").write_bytes((state / f"ca/ca.{kind}").read_bytes())
    forged = stolen.issue("forged", "extendedKeyUsage=clientAuth")
    words = ["openssl", "verify", "-purpose", "sslclient", "-CAfile", str(state / "ca/ca.pem"), str(forged)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "unsuitable certificate purpose" in done.stderr


def test_a_ca_that_is_renewed_is_trusted_by_who_has_the_old_one(configure, bring, state, monkeypatch):
    config = configure()
    bring(config)
    (state / "old.pem").write_text((state / "ca/ca.pem").read_text())
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2500 * DAY)
    found = bring(config)
    assert (state / "ca/ca.pem").read_text() != (state / "old.pem").read_text()
    assert trusts(state / "old.pem", found.directory / "fullchain.pem", found.directory / "privkey.pem", NAMES[0])
