"""certbot: how often it is asked, what it leaves, and what it is not asked for. The lab has the real one."""

from __future__ import annotations

import time

import pytest
from certificates import full_disk
from gpufleet.certificate import files
from gpufleet.certificate.errors import CertificateError
from gpufleet.certificate.modes import LetsEncrypt, SelfSigned


@pytest.fixture
def certbot(tmp_path, state, authority, monkeypatch):
    """A stand-in for certbot, which gets as many certificates as it is asked for; the lab has the real one.

    certbot() returns how often it asked the ACME server.
    """
    acme = state / "acme"
    for number in (1, 2, 3):
        (tmp_path / f"cert{number}.pem").write_text(authority.leaf(f"acme{number}") + authority.intermediate)
        (tmp_path / f"key{number}.pem").write_text(authority.key(f"acme{number}"))
    script = f"""#!/bin/sh -e
    mkdir -p {acme}/live/front-door {acme}/archive/front-door {acme}/keys; cd {acme}/archive/front-door
    case "$*" in *--keep-until-expiring*) exit 0;; esac
    echo >>{tmp_path}/asked; n=$(wc -l <{tmp_path}/asked)
    cp {tmp_path}/cert$n.pem fullchain$n.pem; cp {tmp_path}/key$n.pem privkey$n.pem; cp privkey$n.pem ../../keys/$n.pem
    for kind in fullchain privkey; do ln -sfn ../../archive/front-door/$kind$n.pem ../../live/front-door/$kind.pem; done
    """
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/certbot").write_text(script)
    (tmp_path / "bin/certbot").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    return lambda: len((tmp_path / "asked").read_text().splitlines())


def test_a_certificate_that_could_not_be_stored_is_not_asked_for_again(configure, bring, state, certbot, monkeypatch):
    """There are five a week for the same names."""
    config = configure(mode="letsencrypt")
    with monkeypatch.context() as disk, pytest.raises(OSError, match="No space"):
        disk.setattr(files, "write", full_disk)
        bring(config)
    assert not list((state / "issued").iterdir())
    first = bring(config)
    assert certbot() == 1
    assert bring(config, renew=True).leaf != first.leaf
    assert certbot() == 2


def test_certbots_old_keys_go(configure, bring, state, certbot):
    for _ in range(3):
        bring(configure(mode="letsencrypt"), renew=True)
    assert [path.name for path in (state / "acme").rglob("privkey*.pem") if not path.is_symlink()] == ["privkey3.pem"]
    assert not list((state / "acme/keys").iterdir())


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["master1"], ["'master1'", "full DNS names", "gpufleet_server_names"]),
        (["10.0.0.5"], ["'10.0.0.5'"]),
        (["*.example.org"], ["certificate_acme_dns_plugin"]),
    ],
)
def test_names_that_no_acme_server_certifies_are_refused_before_it_is_asked(configure, state, names, words):
    with pytest.raises(CertificateError) as refusal:
        LetsEncrypt(configure(mode="letsencrypt", names=names), state).check()
    assert all(word in str(refusal.value) for word in words)


def test_another_mode_or_server_is_another_certificate(configure, bring, state):
    current = bring(configure())
    now = time.time()
    assert not SelfSigned(configure(), state).due(current, now)
    asked = LetsEncrypt(configure(mode="letsencrypt"), state)
    assert asked.due(current, now)
    issued = current._replace(origin=asked.origin())
    assert not asked.due(issued, now)
    assert LetsEncrypt(configure(mode="letsencrypt", acme_directory_url="https://x"), state).due(issued, now)
