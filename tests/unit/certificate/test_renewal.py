"""What happens when the server does not take it, what others are told, and what is said to be wrong."""

from __future__ import annotations

import pytest
from certificates import NAMES
from gpufleet.certificate import cli
from gpufleet.certificate import config as configuration
from gpufleet.certificate.errors import CertificateError
from gpufleet.certificate.metrics import metrics
from gpufleet.certificate.store import Store


class Broken:
    """A server that does not take a certificate."""

    unit = "no-such-unit.service"

    def runs(self):
        return True

    def serves(self):
        return ""

    def reload(self, fingerprint):
        raise CertificateError("nginx could not be reloaded")


def test_what_the_server_does_not_take_is_not_left_for_it_to_fall_over_later(configure, bring, state):
    config = configure()
    before = bring(config)
    with pytest.raises(CertificateError, match="could not be reloaded"):
        bring(config, renew=True, server=Broken())
    assert Store(state).current() == before


def test_a_ca_that_nobody_was_given_goes_with_the_certificate_that_could_not_be_served(configure, bring, state):
    before, ca = bring(configure()), (state / "ca/ca.pem").read_text()
    config = configure(names=[*NAMES, "other.example.org"])
    for _ in range(3):
        with pytest.raises(CertificateError, match="could not be reloaded"):
            bring(config, server=Broken())
    assert (state / "ca/ca.pem").read_text() == ca
    assert bring(configure()) == before  # the job, as it was before the run
    assert bring(config).leaf.covers("other.example.org")


def test_what_could_not_be_served_is_tried_again_before_the_issuer_is_asked_for_another_one(configure, bring, state):
    bring(configure())
    config = configure(selfsigned_days=30)
    for _ in range(3):
        with pytest.raises(CertificateError, match="could not be reloaded"):
            bring(config, server=Broken())
    assert sorted(path.name for path in (state / "issued").iterdir()) == ["1", "2"]
    assert bring(config).directory.name == "2"


def test_the_metric_says_what_is_served_and_a_placeholder_is_called_one(configure, bring, state, authority):
    config = configure()
    (state / "placeholder").mkdir()
    (state / "placeholder/fullchain.pem").write_text(authority.root)
    (state / "current").symlink_to("placeholder")
    assert 'mode="placeholder"' in metrics(config, state, False)
    assert 'gpufleet_certificate_job_success{mode="selfsigned"} 0' in metrics(config, state, False)
    end = bring(config).leaf.not_after
    path = f"{state}/current/fullchain.pem"
    sample = f'{{mode="selfsigned",name="monitoring.example.org",path="{path}"}} {end:.0f}'
    assert f"gpufleet_certificate_not_after_timestamp_seconds{sample}" in metrics(config, state, True)
    assert 'name="CA"' in metrics(config, state, True)


@pytest.mark.parametrize("names", [[], ["two words"], ["a..b"]])
def test_names_that_are_none_are_refused(configure, names):
    with pytest.raises(CertificateError, match="certificate_names"):
        configure(names=names)


def test_a_release_that_hosts_go_back_to_takes_what_a_newer_one_is_told(configure):
    assert configure(added_later=True) == configure()


def test_a_run_says_when_it_ends_also_when_it_fails(configure, state, tmp_path):
    config = configure(textfile=str(tmp_path / "metric.prom"))
    run = ["--config", str(config.directory / "config.json")]
    assert cli.main(run, state) == 0
    assert 'job_success{mode="selfsigned"} 1' in (tmp_path / "metric.prom").read_text()
    configure(mode="provided", textfile=config.textfile)  # whose files are not there
    assert cli.main(run, state) == 1
    assert 'job_success{mode="provided"} 0' in (tmp_path / "metric.prom").read_text()
    assert f'path="{state}/current/fullchain.pem"' in (tmp_path / "metric.prom").read_text()


@pytest.mark.parametrize("content", ["{", "[]", '{"mode": "selfsigned"}'])
def test_a_configuration_that_is_none_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CertificateError, match=r"config\.json is damaged, or of another version"):
        configuration.read(tmp_path / "config.json")
