"""What is known of a host's nginx before it is configured."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.gpufleet.monitoring.plugins.modules import nginx_info


@pytest.fixture
def host(tmp_path):
    """A host with nginx of a version, and the distribution's site as it was shipped."""
    (tmp_path / "available").write_text("server { listen 80 default_server; }\n")
    (tmp_path / "enabled").symlink_to(tmp_path / "available")
    shipped = hashlib.md5((tmp_path / "available").read_bytes()).hexdigest()

    def look(version="1.22.1", openssl="3.0.17", built="3.0.0", installed=True):
        def run(words):
            if words[0] == "dpkg-query":
                return 0, f" {tmp_path}/available {shipped}\n", ""
            if words[0] == "md5sum":
                return 0, f"{hashlib.md5((tmp_path / 'available').read_bytes()).hexdigest()}  x\n", ""
            if words[0].endswith("openssl"):
                return 0, f"OpenSSL {openssl} 1 Jul 2025 (Library: OpenSSL {openssl} 1 Jul 2025)\n", ""
            words = f"built with OpenSSL {built} 1 Jan 2025 (running with OpenSSL {openssl} 1 Jul 2025)"
            return 0, "", f"nginx version: nginx/{version} (Debian)\n{words}\nTLS SNI support enabled\n"

        program, command = tmp_path / ("available" if installed else "missing"), tmp_path / "openssl"
        command.touch()
        return nginx_info.look(run, program, command, tmp_path / "enabled")

    return look


@pytest.mark.parametrize(
    ("version", "directive"), [("1.18.0", False), ("1.25.0", False), ("1.25.1", True), ("1.30.0", True)]
)
def test_http2_is_written_as_the_version_wants_it(host, version, directive):
    assert host(version)["http2_directive"] is directive


@pytest.mark.parametrize(("openssl", "directive", "post_quantum"), [("3.0.17", False, False), ("3.5.1", True, True)])
def test_before_it_is_installed_the_distribution_is_known_by_its_openssl(host, openssl, directive, post_quantum):
    found = host(openssl=openssl, installed=False)
    assert (found["http2_directive"], found["post_quantum"]) == (directive, post_quantum)


@pytest.mark.parametrize(("openssl", "post_quantum"), [("3.0.17", False), ("3.5.1", True)])
def test_an_nginx_that_is_installed_has_the_openssl_that_it_runs_with(host, openssl, post_quantum):
    assert host(openssl=openssl)["post_quantum"] is post_quantum


def test_the_welcome_page_is_told_from_a_site_of_the_hosts_owner(host, tmp_path):
    assert host()["default_site"]
    assert host(installed=False)["default_site"]
    (tmp_path / "available").write_text("server { listen 80 default_server; root /srv/mine; }\n")
    assert not host()["default_site"]


def test_what_was_put_in_its_place_is_known_again_and_what_is_gone_stays_gone(host, tmp_path):
    (tmp_path / "enabled").unlink()
    assert not host()["default_site"]
    (tmp_path / "enabled").write_text(f"{nginx_info.OURS} in place of the welcome page\n")
    assert host()["default_site"]
