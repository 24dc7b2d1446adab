"""The fleet's authority: certificates that hold what they have to, and are not made anew for no reason."""

from __future__ import annotations

import datetime
import multiprocessing
import subprocess

import pytest
from ansible_collections.gpufleet.monitoring.plugins.plugin_utils import fleet_ca
from cryptography import x509

HOST = ("gpu1", ["10.0.0.1", "gpu1.example.org", "fd00::1"])


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "tls"


@pytest.fixture
def ca(directory):
    return fleet_ca.FleetCa(directory)


def give(ca, host=HOST, renew_days=90, may_create=True):
    return ca.certificate(*host, renew_days, may_create)[0]


def read(pem):
    return x509.load_pem_x509_certificate(pem[pem.index("-----BEGIN CERTIFICATE") :].encode())


def ends_in(certificate):
    return (certificate.expires - datetime.datetime.now(datetime.timezone.utc)).days


def test_a_certificate_has_the_hosts_name_and_the_addresses_that_are_scraped(ca):
    names = read(give(ca).pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gpu1", "gpu1.example.org"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "fd00::1"]


def test_openssl_takes_it_for_a_server_and_a_client(ca, directory, tmp_path):
    found = give(ca)
    (tmp_path / "host.pem").write_text(found.pem)
    (tmp_path / "ca.pem").write_text(found.authorities)

    for purpose in ("sslserver", "sslclient"):
        words = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem", "host.pem"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout == "host.pem: OK\n", done.stderr


def test_what_will_do_is_not_made_anew(ca, directory):
    first = give(ca)
    assert 360 < ends_in(first) <= 365
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.name != ".lock"}
    assert give(ca) == first
    assert give(fleet_ca.FleetCa(directory)) == first
    assert before == {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.name != ".lock"}


@pytest.mark.parametrize("change", ["address", "days", "cut", "stranger", "other host's"])
def test_what_will_not_do_is(ca, directory, tmp_path, monkeypatch, change):
    first = give(ca)
    path = directory / "hosts" / "gpu1.pem"
    host, days = HOST, 90
    if change == "address":
        host = ("gpu1", ["10.0.0.2"])
    if change == "days":
        monkeypatch.setattr(fleet_ca, "_RUN", datetime.timedelta(0))
        days = 366
    if change == "cut":
        path.write_text(first.pem[:-100])
    if change == "stranger":
        path.write_text(give(fleet_ca.FleetCa(tmp_path / "other")).pem)
    if change == "other host's":
        path.write_text(give(ca, ("gpu2", HOST[1])).pem)
    renewed = give(ca, host, days)
    assert renewed.pem != first.pem
    assert renewed.authorities == first.authorities
    assert path.read_text() == renewed.pem


def test_keys_are_for_their_owner_alone_and_not_for_git(ca, directory):
    give(ca)
    assert directory.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.rglob("*") if path.is_file()}
    assert modes["ca.key"] == modes["gpu1.pem"] == 0o600
    subprocess.run(["git", "init", "--quiet", directory], check=True)
    done = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"], cwd=directory, capture_output=True, text=True
    )
    assert done.stdout.split() == [".gitignore", "ca.crt"]  # a checkout with it makes no other authority


def test_check_mode_leaves_nothing(directory):
    dry = fleet_ca.FleetCa(directory, dry=True)
    assert "BEGIN CERTIFICATE" in give(dry).pem
    assert not directory.exists()


def test_check_mode_shows_what_is_there_as_unchanged(ca, directory):
    assert give(ca) == give(fleet_ca.FleetCa(directory, dry=True))


def test_a_run_that_leaves_hosts_out_makes_no_authority(ca, directory):
    with pytest.raises(fleet_ca.CaError, match="only a run for all hosts makes one"):
        give(ca, may_create=False)
    assert not (directory / "ca.crt").exists()
    give(ca)
    give(ca, ("gpu2", []), may_create=False)


def test_who_asks_first_is_told_that_the_authority_is_new(ca):
    assert [ca.certificate(*HOST, 90, True)[1] for _ in range(2)] == [True, False]


def _give(directory, number):
    return give(fleet_ca.FleetCa(directory), (f"gpu{number}", [])).authorities


def test_all_forks_of_a_run_get_the_same_authority(directory):
    with multiprocessing.get_context("fork").Pool(8) as pool:
        assert len(set(pool.starmap(_give, [(directory, number) for number in range(16)]))) == 1


# -- when the authority changes ------------------------------------------------------------------


def test_a_lost_key_makes_no_new_certificates_but_keeps_the_old_ones(ca, directory):
    first = give(ca)
    (directory / "ca.key").unlink()
    assert give(ca) == first
    with pytest.raises(fleet_ca.CaError, match=r"rename ca\.crt to ca-old\.crt"):
        give(ca, ("gpu2", []))


def test_the_remedy_trusts_both_authorities_and_renews_nothing_at_once(ca, directory):
    first = give(ca)
    (directory / "ca.key").unlink()
    (directory / "ca.crt").rename(directory / "ca-old.crt")
    second = give(ca)
    assert second.pem == first.pem
    assert second.authorities.count("BEGIN CERTIFICATE") == 2
    assert first.authorities in second.authorities
    third = give(ca, renew_days=366)
    assert read(third.pem).issuer != read(first.pem).issuer
    (directory / "ca-old.crt").unlink()
    assert give(ca).pem == third.pem
    assert give(ca).authorities.count("BEGIN CERTIFICATE") == 1


def test_without_the_old_authority_its_certificates_are_made_anew(ca, directory):
    first = give(ca)
    (directory / "ca.crt").unlink()
    (directory / "ca.key").unlink()
    assert give(ca).pem != first.pem


def test_half_an_authority_is_not_overwritten(ca, directory):
    give(ca)
    (directory / "ca.crt").unlink()
    key = (directory / "ca.key").read_bytes()
    with pytest.raises(fleet_ca.CaError, match=r"has ca\.key, and no ca\.crt"):
        give(ca)
    assert (directory / "ca.key").read_bytes() == key


def test_the_authority_to_come_is_trusted_before_it_signs(ca, directory):
    first = give(ca)
    ca.prepare_successor()
    ca.prepare_successor()  # once is enough
    second = give(ca)
    assert second.pem == first.pem
    assert second.authorities.count("BEGIN CERTIFICATE") == 2
    new = give(ca, ("gpu2", []))
    assert read(new.pem).issuer == read(first.pem).issuer
    for name, successor in (("ca.crt", "ca-next.crt"), ("ca.key", "ca-next.key")):
        (directory / name).rename(directory / name.replace("ca", "ca-old"))
        (directory / successor).rename(directory / name)
    assert give(ca).pem == first.pem
    third = give(ca, renew_days=400)
    assert read(third.pem).issuer != read(first.pem).issuer
    assert third.authorities.count("BEGIN CERTIFICATE") == 2


def test_services_of_a_host_that_ask_in_one_run_get_one_certificate(ca):
    give(ca)
    assert give(ca, renew_days=400) == give(ca, renew_days=400)


def test_a_certificate_that_ends_with_its_authority_is_not_made_anew_at_each_run(ca, monkeypatch):
    monkeypatch.setattr(fleet_ca, "CA_DAYS", 30)
    first = give(ca)
    monkeypatch.setattr(fleet_ca, "_RUN", datetime.timedelta(0))
    assert give(ca) == first


def test_an_authority_that_has_ended_is_said(ca, monkeypatch):
    monkeypatch.setattr(fleet_ca, "CA_DAYS", 0)
    with pytest.raises(fleet_ca.CaError, match="has expired"):
        give(ca)


def test_a_certificate_does_not_outlive_its_authority(ca, monkeypatch):
    monkeypatch.setattr(fleet_ca, "CA_DAYS", 30)
    assert ends_in(give(ca)) <= 30


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ca.crt", "cut", "ca.crt is no certificate"),
        ("ca.key", "cut", "ca.key is no private key"),
        ("ca-old.crt", "cut", "ca-old.crt is no certificate"),
    ],
)
def test_damage_is_said_by_its_file(ca, directory, name, content, message):
    give(ca)
    (directory / name).write_text(content)
    with pytest.raises(fleet_ca.CaError, match=message):
        give(ca)


def test_a_key_of_another_authority_signs_nothing(ca, directory, tmp_path):
    give(ca)
    give(fleet_ca.FleetCa(tmp_path / "other"))
    (directory / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(fleet_ca.CaError, match=r"ca\.key is not the elliptic-curve key of ca\.crt"):
        give(ca)


@pytest.mark.parametrize("name", ["gpu/1", "..", "gpu1.example.org", "a" * 80])
def test_odd_names_have_files_of_their_own(ca, directory, name):
    assert give(ca, (name, [])) == give(ca, (name, []))
    assert len(list((directory / "hosts").glob("*.pem"))) == 1


def test_a_name_that_no_certificate_takes_is_an_error(ca):
    with pytest.raises(fleet_ca.CaError, match="ASCII"):
        give(ca, ("grün", []))
