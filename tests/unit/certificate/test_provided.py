"""An operator's files: what is taken, and what is refused with which words."""

from __future__ import annotations

import subprocess

import pytest
from certificates import NAMES
from gpufleet.certificate import cli
from gpufleet.certificate.errors import CertificateError
from gpufleet.certificate.modes import Provided
from gpufleet.certificate.store import Store


def test_good_files_are_served_and_others_replace_them(configure, bring, authority):
    files = {"provided_ca.pem": authority.root}
    for name in ("leaf", "leaf2"):
        chain = authority.leaf(name) + authority.intermediate
        config = configure(
            mode="provided",
            provided_ca=True,
            files={**files, "provided.pem": chain, "provided.key": authority.key(name)},
        )
        assert (bring(config).directory / "fullchain.pem").read_text() == chain


def test_a_root_that_is_in_the_file_is_the_operators_word_for_it(configure, bring, authority):
    files = {
        "provided.pem": authority.leaf() + authority.intermediate + authority.root,
        "provided.key": authority.key(),
    }
    config = configure(mode="provided", files=files)
    assert bring(config).leaf.covers(NAMES[0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda a: (a.leaf(), a.key("root"), True), ["certificate_provided_key_file", "is not the key"]),
        (lambda a: (a.leaf(days=-1) + a.intermediate, a.key(), True), ["ended on"]),
        (lambda a: (a.leaf(), a.key(), True), ["does not verify", "all intermediate ones", "intermediate of a test"]),
        (lambda a: (a.leaf() + a.intermediate, a.key(), False), ["certificate_provided_ca_file"]),
        (lambda a: (a.leaf() + a.root + a.intermediate, a.key(), True), ["out of order"]),
        (lambda a: (a.leaf(names="DNS:monitoring.example.org") + a.intermediate, a.key(), True), ["not for 10.0.0.5"]),
        (lambda a: (*in_subject(), False), ["not for monitoring.example.org"]),
        (lambda a: ("nothing", a.key(), True), ["no certificate in PEM form"]),
        (lambda a: (a.leaf() + a.intermediate, "nothing", True), ["certificate_provided_key_file"]),
        (lambda a: (a.leaf() + a.intermediate, encrypted(a), True), ["pass phrase"]),
    ],
    ids=[
        "foreign-key",
        "ended",
        "no-intermediate",
        "unknown-ca",
        "order",
        "names",
        "subject",
        "no-pem",
        "no-key",
        "phrase",
    ],
)
def test_files_that_cannot_be_served_are_refused_with_the_reason_and_the_old_certificate_stays(
    configure, bring, state, authority, make, words
):
    before = bring(configure())
    chain, key, with_ca = make(authority)
    # The CA's file may have intermediate certificates, too; clients only have the root.
    files = {"provided.pem": chain, "provided.key": key, "provided_ca.pem": authority.root + authority.intermediate}
    config = configure(mode="provided", provided_ca=with_ca, files=files)
    with pytest.raises(CertificateError) as refusal:
        Provided(config, state).check()
    assert all(word in str(refusal.value) for word in words), refusal.value
    with pytest.raises(CertificateError):
        bring(config)
    assert Store(state).current() == before


def in_subject():
    """A certificate with a name of ours in its subject alone, where browsers do not look; and its key."""
    words = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "-"]
    name = ["-subj", f"/CN={NAMES[0]}", "-addext", f"subjectAltName=IP:{NAMES[1]}"]
    made = subprocess.run([*words, *name], capture_output=True, text=True, check=True).stdout
    key, begin, certificate = made.partition("-----BEGIN CERTIFICATE-----")
    return begin + certificate, key


def encrypted(authority):
    words = ["openssl", "pkey", "-aes256", "-passout", "pass:secret"]
    return subprocess.run(words, input=authority.key(), capture_output=True, text=True, check=True).stdout


def test_whoever_cannot_read_the_key_learns_the_status(configure, bring, state, authority, capsys):
    files = {"provided.pem": authority.leaf() + authority.intermediate, "provided.key": authority.key()}
    config = configure(mode="provided", provided_ca=True, files={**files, "provided_ca.pem": authority.root})
    bring(config)
    ask = ["--config", str(config.directory / "config.json"), "--status"]
    (config.directory / "provided.key").unlink()
    assert cli.main(ask, state) == 0
    (config.directory / "provided.pem").write_text(authority.leaf("leaf2") + authority.intermediate)
    assert cli.main(ask, state) == 1
    assert "a new certificate is due" in capsys.readouterr().err
