"""The table of services behind nginx: what is known is filled in, and what would let strangers in is refused."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils.front_door import FrontDoorError, front_door

NAMES = ["monitoring.example.org", "10.0.0.5"]
KNOWN = {
    "grafana": {
        "upstream": "http://127.0.0.1:3000",
        "auth": "own",
        "login_paths": ["/login"],
        "closed_paths": ["/metrics"],
    },
    "prometheus": {"upstream": "http://127.0.0.1:9090", "guarded": True},
}
SHA512 = "$6$oehTesI4tZqOV.3c$" + "a" * 86
USERS = {"ali": SHA512}
IPMI = {"name": "ipmi", "path": "/ipmi/", "upstream": "http://127.0.0.1:5000", "auth": "own"}
PROMETHEUS = {"name": "prometheus", "path": "/prometheus/", "auth": "basic", "allow": ["192.0.2.0/24"]}


def complete(*rows, names=NAMES, users=USERS, client_ca=True):
    return front_door(rows, names, KNOWN, users, client_ca)


def refusal(*rows, **others):
    with pytest.raises(FrontDoorError) as refused:
        complete(*rows, **others)
    return str(refused.value)


def test_a_known_service_needs_a_place_alone():
    (service,) = complete({"name": "grafana", "path": "/grafana/"})
    assert service["upstream"] == "http://127.0.0.1:3000"
    assert service["auth"] == "own"
    assert (service["login_paths"], service["closed_paths"]) == (["/grafana/login"], ["/grafana/metrics"])
    assert service["strip_path"]


def test_a_row_says_more_than_what_is_known():
    (service,) = complete({"name": "grafana", "server_name": "grafana.example.org", "upstream": "http://[::1]:1"})
    assert (service["upstream"], service["path"], service["server"]) == ("http://[::1]:1", "/", "grafana.example.org")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"auth": "own"}, "prometheus asks nobody who they are"),
        ({"auth": None}, "auth is missing"),
        ({"allow": []}, "set allow"),
        ({"allow": None}, "set allow"),
        ({"allow": ["0.0.0.0/0"]}, "lets everybody"),
        ({"allow": ["192.0.2.0/24", "::/0"]}, "lets everybody"),
        ({"allow": ["0.0.0.0/1", "128.0.0.0/1"]}, "lets everybody"),
        ({"allow": ["192.0.2.0/24", "::/2", "8000::/1", "4000::/2"]}, "lets everybody"),
        # By another name, and by another of the host's addresses, it is Prometheus still.
        ({"name": "mine", "upstream": "http://127.0.0.1:9090", "auth": "own"}, "prometheus asks nobody who they are"),
        ({"name": "mine", "upstream": "http://10.0.0.5:9090", "allow": []}, "set allow"),
    ],
)
def test_what_asks_nobody_is_let_out_with_authentication_and_named_networks_only(change, words):
    assert words in refusal({**PROMETHEUS, **change})
    assert complete(PROMETHEUS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": None}, "where do people find it"),
        ({"path": "/ipmi"}, "begin and end with /"),
        ({"path": "/a/../b/"}, "begin and end with /"),
        ({"path": "/a b/"}, "begin and end with /"),
        ({"path": "/.well-known/"}, "which the certificate needs"),
        ({"upstream": None}, "http://ADDRESS:PORT"),
        ({"upstream": "http://127.0.0.1:5000/x"}, "http://ADDRESS:PORT"),
        ({"upstream": "http://ipmi.internal:5000"}, "http://ADDRESS:PORT"),
        ({"upstream": "http://127.0.0.1:99999"}, "http://ADDRESS:PORT"),
        ({"upstream": "http://127.0.0.1:09090"}, "http://ADDRESS:PORT"),  # Prometheus'
        ({"upstream": "http://127.0.0.300:1"}, "no valid address"),
        ({"upstream": "http://127.0.0.1:1; return 200"}, "http://ADDRESS:PORT"),
        ({"auth": None}, "auth is missing"),
        ({"allow": ["10.0.0.1/8"]}, "10.0.0.1/8"),
        ({"allow": ["all"]}, "'all'"),
        ({"server_name": "a.test; }"}, "one DNS name"),
        ({"server_name": "monitoring.example.org"}, "already"),
        ({"server_name": "Monitoring.Example.org"}, "already"),
        ({"login_paths": ["login"]}, "/login"),
        ({"closed_paths": ["/x; return 200"]}, "closed_paths"),
        ({"name": "IPMI!"}, "lower-case"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(change, words):
    row = {**IPMI, **change}
    text = refusal(row)
    assert words in text
    assert row["name"] in text


def test_all_that_is_wrong_is_said_at_once():
    text = refusal({**IPMI, "path": "x"}, {**PROMETHEUS, "auth": "own"}, users={"ali": "sesame"}, names=["a b"])
    assert [word in text for word in ("ipmi", "prometheus", "ali", "'a b'")] == [True] * 4


def test_one_place_and_one_name_are_for_one_service():
    assert "twice" in refusal(IPMI, {**IPMI, "name": "other"})
    assert "twice" in refusal(IPMI, {**IPMI, "path": "/other/"})
    assert complete(IPMI, {**IPMI, "name": "other", "server_name": "other.example.org"})


@pytest.mark.parametrize(
    "digest",
    [
        "sesame",
        "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
        "$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/",
        "$1$abcdefgh$irWbblnpmw.5z7wgBnprh0",
        "",
        SHA512 + "\nmallory:" + SHA512,
    ],
)
def test_a_hash_that_is_none_or_broken_is_refused_and_not_repeated(digest):
    text = refusal(PROMETHEUS, users={"ali": digest})
    assert "nginx_users, ali" in text
    assert "openssl passwd -6" in text
    assert not digest or digest not in text


@pytest.mark.parametrize(
    "digest", [SHA512, "$2y$10$" + "a" * 53, "$5$rounds=50000$salt$" + "a" * 43, "$y$j9T$salt$" + "a" * 43]
)
def test_hashes_that_debians_libc_knows_are_taken(digest):
    assert complete(PROMETHEUS, users={"ali": digest})


@pytest.mark.parametrize(
    "digest", ["$2y$11$" + "a" * 53, "$6$rounds=50001$salt$" + "a" * 86, "$y$jBT$salt$" + "a" * 43]
)
def test_a_hash_that_would_keep_nginx_from_all_else_is_refused(digest):
    assert "takes nginx too long" in refusal(PROMETHEUS, users={"ali": digest})


def test_a_name_is_one_name_or_one_address():
    assert "'10.0.0.0/8'" in refusal(IPMI, names=["10.0.0.0/8"])
    assert complete(IPMI, names=["2001:db8::5", "10.0.0.5", "monitoring"])


def test_authentication_needs_somebody_to_let_in():
    assert "nginx_users" in refusal(PROMETHEUS, users={})
    assert "nginx_client_ca_file" in refusal({**IPMI, "auth": "client_certificate"}, client_ca=False)
    assert "nginx_server_names is empty" in refusal(IPMI, names=[])
