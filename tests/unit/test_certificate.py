"""The front door's certificate program, with the real openssl: what it makes, what it takes, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpufleet_lab.authority import Authority

PROGRAM = Path(__file__).resolve().parents[2] / "roles/certificate/files/certificate.py"
NAMES = ["monitoring.example.org", "10.0.0.5"]
DAY = 86400


@pytest.fixture(scope="session")
def program():
    spec = importlib.util.spec_from_file_location("certificate", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules["certificate"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def state(tmp_path):
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture
def configure(program, tmp_path, monkeypatch):
    """Write config.json, with files beside it: configure(mode="provided", files={"provided.pem": ...})."""

    def write(files=None, **changes):
        config = {
            "mode": "selfsigned",
            "names": NAMES,
            "selfsigned_days": 90,
            "acme_directory_url": "https://acme.test/dir",
            "acme_lineage": "front-door",
            "acme_dns": False,
            "acme_ca": False,
            "provided_ca": False,
            "textfile": "",
            "server": None,
            **changes,
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        for name, content in (files or {}).items():
            (tmp_path / name).write_text(content)
        monkeypatch.setattr(program, "CONFIG", tmp_path / "config.json")
        return program.read_config()

    return write


@pytest.fixture
def bring(program, state):
    """Bring the certificate to what a configuration says, without a server, and return what would be served."""

    def run(config, renew=False):
        store = program.Store(state)
        program.bring(program.MODES[config["mode"]](config, state), store, None, renew)
        return store.current()

    return run


class Chain:
    """What an operator gets from somebody else's CA, which has an intermediate one: texts, as files hold them."""

    def __init__(self, directory: Path) -> None:
        self._root = Authority(directory, "root")
        self._intermediate = Authority(directory, "intermediate", self._root)
        self.root, self.intermediate = (ca.certificate.read_text() for ca in (self._root, self._intermediate))

    def leaf(self, name="leaf", names="DNS:monitoring.example.org,IP:10.0.0.5", days=30):
        return self._intermediate.issue(name, f"subjectAltName={names}", days).read_text()

    def key(self, name="leaf"):
        return self._root.key(name).read_text()


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Chain(tmp_path_factory.mktemp("authority"))


def full_disk(path, text, mode):
    raise OSError(28, "No space left on device")


def trusts(ca: Path, chain: Path, key: Path, name: str) -> bool:
    """Whether a client that has ``ca`` takes a server with this certificate for ``name``: by a handshake."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(ca))
    server.load_cert_chain(chain, key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return True


# -- selfsigned ---------------------------------------------------------------------------------


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
    configure, bring, program, state, monkeypatch
):
    config = configure()
    first = bring(config)
    now = time.time()
    monkeypatch.setattr(program.time, "time", lambda: now + 59 * DAY)
    assert bring(config).leaf == first.leaf
    monkeypatch.setattr(program.time, "time", lambda: now + 61 * DAY)
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
def test_a_full_disk_in_the_middle_leaves_what_was_and_the_next_run_goes_on(
    configure, bring, program, state, monkeypatch, file
):
    before, ca = bring(configure()), (state / "ca/ca.pem").read_text()
    write = program.write

    def full(path, text, mode):
        (full_disk if path.name == file else write)(path, text, mode)

    config = configure(names=[*NAMES, "other.example.org"])
    with monkeypatch.context() as disk, pytest.raises(OSError, match="No space"):
        disk.setattr(program, "write", full)
        bring(config)
    assert program.Store(state).current() == before
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


def test_a_ca_that_is_renewed_is_trusted_by_who_has_the_old_one(configure, bring, program, state, monkeypatch):
    config = configure()
    bring(config)
    (state / "old.pem").write_text((state / "ca/ca.pem").read_text())
    now = time.time()
    monkeypatch.setattr(program.time, "time", lambda: now + 2500 * DAY)
    found = bring(config)
    assert (state / "ca/ca.pem").read_text() != (state / "old.pem").read_text()
    assert trusts(state / "old.pem", found.directory / "fullchain.pem", found.directory / "privkey.pem", NAMES[0])


# -- provided -----------------------------------------------------------------------------------


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
    configure, bring, program, state, authority, make, words
):
    before = bring(configure())
    chain, key, with_ca = make(authority)
    # The CA's file may have intermediate certificates, too; clients only have the root.
    files = {"provided.pem": chain, "provided.key": key, "provided_ca.pem": authority.root + authority.intermediate}
    config = configure(mode="provided", provided_ca=with_ca, files=files)
    with pytest.raises(program.CertificateError) as refusal:
        program.Provided(config, state).check()
    assert all(word in str(refusal.value) for word in words), refusal.value
    with pytest.raises(program.CertificateError):
        bring(config)
    assert program.Store(state).current() == before


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


def test_whoever_cannot_read_the_key_learns_the_status(configure, bring, program, state, authority, monkeypatch):
    files = {"provided.pem": authority.leaf() + authority.intermediate, "provided.key": authority.key()}
    config = configure(mode="provided", provided_ca=True, files={**files, "provided_ca.pem": authority.root})
    bring(config)
    program.CONFIG.with_name("provided.key").unlink()
    monkeypatch.setattr(program, "STATE", state)
    program.status(config)
    program.CONFIG.with_name("provided.pem").write_text(authority.leaf("leaf2") + authority.intermediate)
    with pytest.raises(program.CertificateError, match="a new certificate is due"):
        program.status(config)


# -- letsencrypt --------------------------------------------------------------------------------


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


def test_a_certificate_that_could_not_be_stored_is_not_asked_for_again(
    configure, bring, program, state, certbot, monkeypatch
):
    """There are five a week for the same names."""
    config = configure(mode="letsencrypt")
    with monkeypatch.context() as disk, pytest.raises(OSError, match="No space"):
        disk.setattr(program, "write", full_disk)
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
def test_names_that_no_acme_server_certifies_are_refused_before_it_is_asked(configure, program, state, names, words):
    with pytest.raises(program.CertificateError) as refusal:
        program.LetsEncrypt(configure(mode="letsencrypt", names=names), state).check()
    assert all(word in str(refusal.value) for word in words)


def test_another_mode_or_server_is_another_certificate(configure, bring, program, state):
    current = bring(configure())
    now = time.time()
    assert not program.SelfSigned(configure(), state).due(current, now)
    asked = program.LetsEncrypt(configure(mode="letsencrypt"), state)
    assert asked.due(current, now)
    issued = current._replace(origin=asked.origin())
    assert not asked.due(issued, now)
    assert program.LetsEncrypt(configure(mode="letsencrypt", acme_directory_url="https://x"), state).due(issued, now)


# -- the server ---------------------------------------------------------------------------------


class Broken:
    """A server that does not take a certificate."""

    unit = "no-such-unit.service"

    def __init__(self, error):
        self.error = error

    def runs(self):
        return True

    def serves(self):
        return ""

    def reload(self, fingerprint):
        raise self.error


def test_what_the_server_does_not_take_is_not_left_for_it_to_fall_over_later(configure, bring, program, state):
    config = configure()
    before = bring(config)
    server = Broken(program.CertificateError("nginx could not be reloaded"))
    with pytest.raises(program.CertificateError, match="could not be reloaded"):
        program.bring(program.SelfSigned(config, state), program.Store(state), server, True)
    assert program.Store(state).current() == before


def test_a_ca_that_nobody_was_given_goes_with_the_certificate_that_could_not_be_served(
    configure, bring, program, state
):
    before, ca = bring(configure()), (state / "ca/ca.pem").read_text()
    config = configure(names=[*NAMES, "other.example.org"])
    for _ in range(3):
        with pytest.raises(program.CertificateError, match="could not be reloaded"):
            server = Broken(program.CertificateError("nginx could not be reloaded"))
            program.bring(program.SelfSigned(config, state), program.Store(state), server, False)
    assert (state / "ca/ca.pem").read_text() == ca
    assert bring(configure()) == before  # the job, as it was before the run
    assert bring(config).leaf.covers("other.example.org")


def test_what_could_not_be_served_is_tried_again_before_the_issuer_is_asked_for_another_one(
    configure, bring, program, state, monkeypatch
):
    bring(configure())
    config = configure(selfsigned_days=30)
    for _ in range(3):
        with pytest.raises(program.CertificateError, match="could not be reloaded"):
            server = Broken(program.CertificateError("nginx could not be reloaded"))
            program.bring(program.SelfSigned(config, state), program.Store(state), server, False)
    assert sorted(path.name for path in (state / "issued").iterdir()) == ["1", "2"]
    assert bring(config).directory.name == "2"


def test_the_metric_says_what_is_served_and_a_placeholder_is_called_one(configure, bring, program, state, authority):
    config = configure()
    (state / "placeholder").mkdir()
    (state / "placeholder/fullchain.pem").write_text(authority.root)
    (state / "current").symlink_to("placeholder")
    assert 'mode="placeholder"' in program.metrics(config, state, False)
    assert 'gpufleet_certificate_job_success{mode="selfsigned"} 0' in program.metrics(config, state, False)
    end = bring(config).leaf.not_after
    path = f"{state}/current/fullchain.pem"
    sample = f'{{mode="selfsigned",name="monitoring.example.org",path="{path}"}} {end:.0f}'
    assert f"gpufleet_certificate_not_after_timestamp_seconds{sample}" in program.metrics(config, state, True)
    assert 'name="CA"' in program.metrics(config, state, True)


@pytest.mark.parametrize("names", [[], ["two words"], ["a..b"]])
def test_names_that_are_none_are_refused(configure, program, names):
    with pytest.raises(program.CertificateError, match="certificate_names"):
        configure(names=names)
