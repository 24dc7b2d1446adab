"""A configuration is either understood as a whole or refused with the line and the fix."""

from __future__ import annotations

import dataclasses

import pytest
from gpufleet.gpu_exporter import config
from hypothesis import given
from hypothesis import strategies as st


def refusal(text):
    with pytest.raises(config.ConfigError) as refused:
        config.parse(text)
    return str(refused.value)


def test_an_empty_file_is_the_defaults():
    assert config.parse("") == config.Config()


def test_values_reach_their_table():
    parsed = config.parse("[server]\nport = 9501\n[gpu]\ninterval = 2\n[allocations]\nuser_labels = ['a', 'b']\n")
    assert parsed.server.port == 9501
    assert parsed.gpu.interval == 2.0
    assert parsed.allocations.user_labels == ["a", "b"]
    assert config.Config().allocations.user_labels != ["a", "b"]  # the defaults are nobody's to change


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[gpu]\ninterval = 5\nintervall = 5\n", ["line 3", "intervall", "did you mean interval?"]),
        ("\n[dgcm]\nenabled = true\n", ["line 2", "dgcm", "did you mean dcgm?"]),
        ("[server]\nport = 70000\n", ["line 2", "server.port", "65535"]),
        ("[zebra]\n", ["line 1", "zebra", "allocations, dcgm"]),
        ("[gpu]\nenabled = 1\n", ["line 2", "gpu.enabled", "true or false", "1"]),
        ("[gpu]\nenabled = 'yes'\n", ["gpu.enabled", "true or false"]),
        ("[gpu]\ninterval = true\n", ["gpu.interval", "a number"]),
        ("[gpu]\ninterval = 0\n", ["line 2", "at least 0.1"]),
        ("[gpu]\ninterval = nan\n", ["gpu.interval"]),
        ("[server]\nport = 9500.5\n", ["server.port", "a whole number"]),
        ("[allocations]\nuser_labels = ['a', 1]\n", ["allocations.user_labels", "strings"]),
        ("[allocations]\nuser_rules = ['^(a => b']\n", ["line 2", "user_rules", "no regular expression"]),
        ("[allocations]\nuser_rules = ['^a$']\n", ["user_rules", "PATTERN => USER"]),
        ("[allocations]\nuser_rules = ['^(a) => \\2']\n", ["line 2", "user_rules", "invalid group reference"]),
        ("[allocations]\nslot_format = '{gpu}'\n", ["line 2", "slot_format", "{mig}"]),
        ("[ipmi]\ninlet_pattern = '('\n", ["line 2", "ipmi.inlet_pattern"]),
        ("gpu = 3\n", ["gpu is a table"]),
        # Nothing that is left out may leave the port open to all.
        ("[tls]\nkey_file = 'a'\n", ["line 1", "tls.key_file wants cert_file"]),
        ("[gpu]\n[tls]\ncert_file = 'a'\n", ["line 2", "tls.cert_file wants key_file"]),
        ("[tls]\nclient_ca_file = 'a'\n", ["tls.client_ca_file wants cert_file"]),
        ("[tls]\ncert_file = 'a'\nkey_file = 'a'\nclient_allowed_sans = ['a']\n", ["wants client_ca_file"]),
        ("[gpu\n", ["line 1"]),
    ],
)
def test_what_is_wrong_is_named(text, says):
    message = refusal(text)
    assert all(word in message for word in says), message


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(config.ConfigError, match="No such file"):
        config.load(str(tmp_path / "absent.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(config.ConfigError, match=r"binary\.toml"):
        config.load(str(tmp_path / "binary.toml"))


def test_every_collector_has_a_table():
    tables = {field.name for field in dataclasses.fields(config.Config)}
    assert set(config.COLLECTORS) == tables - {"server", "tls", "paths"}


@given(st.text())
def test_no_text_gets_past_with_another_error(text):
    try:
        config.parse(text)
    except config.ConfigError as error:
        assert str(error)
