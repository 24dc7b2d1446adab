"""Where health checks, the proxy and data sources look for a service on their own host."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.monitoring.plugins.filter.own_address import own_address


@pytest.mark.parametrize(
    ("bound", "reached"),
    [
        ("", "127.0.0.1:80"),
        ("0.0.0.0", "127.0.0.1:80"),
        ("::", "127.0.0.1:80"),
        ("192.0.2.1", "192.0.2.1:80"),
        ("2001:db8::1", "[2001:db8::1]:80"),
        ("master1", "master1:80"),
    ],
)
def test_who_listens_everywhere_is_reached_by_loopback_and_others_where_they_listen(bound, reached):
    assert own_address(bound, 80) == reached


def test_who_listens_on_every_address_of_ipv6_alone_is_not_reached_by_ipv4():
    assert own_address("::", 443, ipv6_only=True) == "[::1]:443"
    assert own_address("", 443, ipv6_only=True) == "127.0.0.1:443"


def test_without_a_port_there_are_no_brackets():
    assert own_address("2001:db8::1") == "2001:db8::1"
    assert own_address("::", ipv6_only=True) == "::1"


@pytest.mark.parametrize("address", ["[::]", "*", "fe80::1%eth0", "10.0.0.1:80"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(AnsibleFilterError, match="is no address to bind"):
        own_address(address, 80)


def test_an_empty_value_of_yaml_is_every_address():
    assert own_address(None, 80) == "127.0.0.1:80"
