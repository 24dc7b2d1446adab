"""Who comes through nginx, to what, and what everybody else learns: nothing."""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import ssl
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

import fuzz
import pytest
from fleet import NAME, services_with
from gpufleet_lab.authority import Authority
from gpufleet_lab.https import Client
from gpufleet_lab.waiting import eventually

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, 1.3
SETTLED = "nginx -t && systemctl is-active nginx && cat /run/nginx.pid"


def plain(lab, host_header: str, path: str = "/a?b=c", method: str = "GET"):
    """Ask by plain HTTP."""
    connection = http.client.HTTPConnection(lab.hosts["master1"].address, 80, timeout=5)
    connection.request(method, path, headers={"Host": host_header})
    return connection.getresponse()


# -- names --------------------------------------------------------------------------------------


def test_plain_http_is_sent_to_https_under_each_name_and_nothing_else_is_there(lab):
    for name in (NAME, "named.lab.test", lab.hosts["master1"].address):
        for method in ("GET", "POST"):
            answer = plain(lab, name, method=method)
            assert (answer.status, answer.getheader("Location")) == (301, f"https://{name}/a?b=c")
    assert plain(lab, "other.test").status == 421
    assert plain(lab, NAME, "/.well-known/acme-challenge/none").status == 404
    assert plain(lab, NAME, "/.well-known/acme-challenge/../../../etc/passwd").status in (301, 400)


def test_who_has_the_ca_trusts_the_door_under_each_of_its_names(lab, trusting):
    for name in (NAME, "named.lab.test", lab.hosts["master1"].address):
        assert trusting(name).get("/x").status == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        trusting("other.test").get("/")


def test_plain_http_on_the_https_port_is_sent_to_https_under_the_doors_names_only(lab):
    def ask(name):
        connection = http.client.HTTPConnection(lab.hosts["master1"].address, 443, timeout=5)
        connection.request("GET", "/a?b=c", headers={"Host": name})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Location")

    assert ask(NAME) == (301, f"https://{NAME}/a?b=c")
    assert ask("other.test") == (400, None)


def test_who_asks_for_another_name_learns_nothing(lab, door):
    stranger = Client(door.address, "other.test")
    assert stranger.get("/").status == 421
    assert stranger.get("/.well-known/gpufleet-revision").status == 421
    assert door.get("/", Host="other.test").status == 421
    assert door.get("/.well-known/gpufleet-unavailable").status == 404
    assert [door.get(path).status for path in ("/metrics", "//metrics?x", "/x/..//metrics")] == [404, 404, 404]
    assert [door.get(f"/stripped/secret{rest}").status for rest in ("", "/", "/x", "s")] == [404, 404, 404, 200]
    assert "nginx/" not in stranger.get("/").text + stranger.get("/").headers["server"]


# -- what a service is told, and a client -------------------------------------------------------


def test_a_service_is_told_who_asks_and_does_not_believe_what_a_client_says_of_itself(lab, door):
    lies = dict.fromkeys(
        ["X-Forwarded-For", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-User", "X-WEBAUTH-USER"], "lie"
    )
    seen = json.loads(door.request("GET", "/stripped/a%20b?q=1", {**lies, "Forwarded": "for=lie"}).text)
    assert seen["path"] == "/a%20b?q=1"
    headers = seen["headers"]
    assert headers["Host"] == headers["X-Forwarded-Host"] == NAME
    assert headers["X-Forwarded-For"] == headers["X-Real-IP"] == lab.gateway
    assert (headers["X-Forwarded-Proto"], headers["X-Forwarded-Prefix"]) == ("https", "/stripped")
    assert "lie" not in json.dumps(seen)


def test_a_password_of_the_door_is_not_passed_on_and_a_services_own_token_is(door, basic):
    seen = json.loads(door.get("/inner/x", Authorization=basic("ali")).text)["headers"]
    assert (seen.get("Authorization"), seen["X-Forwarded-User"]) == (None, "ali")
    seen = json.loads(door.get("/x", Authorization="Bearer token").text)["headers"]
    assert (seen["Authorization"], seen.get("X-Forwarded-User")) == ("Bearer token", None)


def test_browsers_are_told_to_be_careful(door):
    for answer in (door.get("/"), door.get("/inner/"), door.get("/dead/"), Client(door.address, "other.test").get("/")):
        found = {name: answer.headers.get(name) for name in ("x-content-type-options", "x-frame-options")}
        assert found == {"x-content-type-options": "nosniff", "x-frame-options": "SAMEORIGIN"}
        assert answer.headers["strict-transport-security"] == "max-age=63072000"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["server"] == "nginx"


def test_a_service_that_is_down_has_a_page_that_says_so_and_no_more(door):
    answer = door.get("/dead/x?y")
    assert (answer.status, answer.headers["retry-after"]) == (502, "10")
    assert "does not answer" in answer.text
    assert not re.search(r"127\.0\.0\.1|3998|nginx", answer.text)


# -- WebSocket ----------------------------------------------------------------------------------


def shake_hands(connection) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": NAME, **UPGRADE}.items())
    connection.sendall(f"GET /api/live/ws HTTP/1.1\r\n{head}\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert ACCEPT.encode() in answer


def echoes(connection, word: bytes) -> bool:
    connection.sendall(bytes([0x81, 0x80 | len(word), 0, 0, 0, 0]) + word)
    return connection.recv(4096) == bytes([0x81, len(word)]) + word


def test_a_websocket_lives_on_when_nginx_is_reloaded(door, sh):
    with door.connect() as connection:
        shake_hands(connection)
        assert echoes(connection, b"before")
        sh("master1", "systemctl reload nginx")
        assert echoes(connection, b"after")


def test_nothing_but_a_websocket_leaves_http_behind(door):
    """A service that takes h2c would answer for all its paths then, past nginx."""
    seen = json.loads(door.request("GET", "/x", {"Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}).text)[
        "headers"
    ]
    assert "Upgrade" not in seen
    assert seen["Connection"] == "close"


def test_a_real_browser_opens_the_front_page_and_its_live_connection(lab, sh, trusting):
    """Headless Chromium, which was given our CA, and nothing that tells it to look away."""
    ca = sh("master1", "cat /var/lib/gpufleet-certificate/ca/ca.pem")
    address = lab.hosts["master1"].address
    sh("outside", f"grep -q {NAME} /etc/hosts || echo {address} {NAME} >>/etc/hosts")
    browse = f"timeout 40 chromium-headless-shell --no-sandbox --disable-gpu --dump-dom --timeout=5000 https://{NAME}/"
    stranger = sh("outside", f"rm -rf ~/.pki; {browse} 2>/dev/null", check=False)
    assert "stand-in" not in stranger
    store = "mkdir -p ~/.pki/nssdb && certutil -d sql:$HOME/.pki/nssdb -N --empty-password"
    sh(
        "outside",
        f"cat >ca.pem <<'END'\n{ca}\nEND\n{store} && certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n lab -i ca.pem",
    )
    page = sh("outside", f"{browse} 2>/dev/null")
    assert "<title>stand-in</title>" in page
    assert "live: hello" in page


# -- who gets in --------------------------------------------------------------------------------


def test_prometheus_is_for_who_has_a_password(door, basic):
    ready = "/prometheus/-/ready"
    assert [door.get(ready, Authorization=basic(user)).status for user in ("ali", "cassim")] == [200, 200]
    wrong = [basic("ali", "open"), basic("ali", ""), "Basic x", "Bearer x", ""]
    assert {door.get(ready, Authorization=header).status for header in wrong} == {401}
    assert door.get("/prometheus", Authorization=basic("ali")).headers["location"] == "/prometheus/"


def test_where_only_some_networks_get_in_others_do_not(door):
    assert door.get("/closed/").status == 403


BRUTE_FORCE = """
import collections, http.client, json, ssl
context = ssl._create_unverified_context()
def attempt(method, path, headers):
    connection = http.client.HTTPSConnection("{address}", context=context)
    connection.request(method, path, headers={{"Host": "{name}", **headers}})
    return connection.getresponse().status
print(json.dumps(collections.Counter(attempt({attempt}) for _ in range({times}))))
print(attempt("GET", "/login", {{}}))
"""


@pytest.mark.parametrize(
    ("attempt", "times", "allowed"),
    [
        ('"POST", "/login", {}', 40, 10),
        ('"POST", "/x/..//login?a", {}', 40, 0),  # the same page: nothing is left of what was allowed
        ('"GET", "/inner/", {"Authorization": "Basic YWxpOndyb25n"}', 60, 15),
        ('"GET", "/api/org", {"Authorization": "basic YWxpOndyb25n"}', 40, 0),
    ],
    ids=["log-in", "log-in-by-detour", "basic", "basic-at-the-service"],
)
def test_who_tries_passwords_is_slowed_down_and_may_still_look(lab, sh, attempt, times, allowed):
    program = BRUTE_FORCE.format(address=lab.hosts["master1"].address, name=NAME, attempt=attempt, times=times)
    tried, looked = sh("outside", f"python3 - <<'END'\n{program}\nEND").splitlines()
    got_through = times - json.loads(tried).get("429", 0)
    assert allowed <= got_through <= allowed + 12
    assert looked == "200"


TLS = ("TLSv1_2", "TLSv1_3")


class Session:
    """A client that takes its TLS session up again, where the server lets it."""

    def __init__(self, door, certificate=None, version=ssl.TLSVersion.TLSv1_3):
        self._door, self._session = door, None
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._context.minimum_version = self._context.maximum_version = version
        if certificate:
            self._context.load_cert_chain(certificate)

    def ask(self, path):
        """Return the status, and whether the session is an earlier one."""
        plain = socket.create_connection((self._door.address, 443), timeout=10)
        with self._context.wrap_socket(plain, server_hostname=NAME, session=self._session) as secure:
            secure.sendall(f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
            answer = http.client.HTTPResponse(secure)
            answer.begin()
            self._session = secure.session
            return answer.status, secure.session_reused


def test_clients_certificates_are_let_in_if_they_are_ours_and_in_time(door, run, as_it_was, tmp_path):
    ours, foreign = Authority(tmp_path / "ours"), Authority(tmp_path / "foreign")
    client = "extendedKeyUsage=clientAuth"
    for name, days in (("good", 9), ("expired", -1), ("revoked", 9)):
        ours.issue(name, client, days)
    foreign.issue("stranger", client)

    def revoke(certificate):
        vault = {"name": "vault", "path": "/vault/", "upstream": "http://127.0.0.1:3999", "auth": "client_certificate"}
        done = run(
            nginx_services=services_with(vault),
            nginx_client_ca_file=str(ours.certificate),
            nginx_client_crl_file=str(ours.revoke(certificate)),
            tags="nginx",
        )
        assert done.rc == 0, done.messages()

    assert Session(door).ask("/x") == Session(door).ask("/x") == (200, False)
    known = Session(door)
    assert [known.ask("/x"), known.ask("/x")] == [(200, False), (200, True)]
    revoke("revoked")

    def ask(certificate, path="/vault/"):
        return Client(door.address, NAME, certificate=certificate).get(path).status

    self_made = Authority(tmp_path / "self").with_key("ca")
    assert (ask(ours.with_key("good")), ask(None), ask(None, "/x")) == (200, 403, 200)
    refused = [ours.with_key("expired"), ours.with_key("revoked"), foreign.with_key("stranger"), self_made]
    assert [ask(certificate) for certificate in refused] == [400] * 4

    sessions = [Session(door, ours.with_key("good"), version) for version in ssl.TLSVersion if version.name in TLS]
    assert [session.ask("/vault/") for session in sessions] == [(200, False)] * len(TLS)
    revoke("good")
    assert [session.ask("/vault/") for session in sessions] == [(400, False)] * len(TLS)


# -- what is refused ----------------------------------------------------------------------------


def test_what_asks_nobody_is_not_let_out_and_all_that_is_wrong_is_said_at_once(run, sh):
    before = sh("master1", "cd /etc/nginx && find . -type f | xargs sha256sum; " + SETTLED)
    done = run(
        nginx_services=services_with(
            {"name": "alertmanager", "path": "/am/", "auth": "own", "allow": ["10.0.0.0/8"]},
            {"name": "mine", "path": "/mine/", "upstream": "http://127.0.0.1:9090", "auth": "basic"},
        ),
        tags="nginx",
    )
    assert (done.rc != 0, done.changed) == (True, 0)
    assert "alertmanager asks nobody who they are" in done.messages()
    assert "prometheus is exposed only to networks that are named: set allow" in done.messages()
    assert sh("master1", "cd /etc/nginx && find . -type f | xargs sha256sum; " + SETTLED) == before


def test_the_distributions_site_is_as_it_was_shipped_and_back_by_one_link(run, sh, as_it_was):
    """Its place is taken by a file of ours, in which nothing is written through the link that Debian has there."""
    shipped = "dpkg --verify nginx-common | grep sites-available; sha256sum /etc/nginx/sites-available/default"
    before = sh("master1", shipped)
    assert before.count("\n") == 0
    sh("master1", "ln -sf /etc/nginx/sites-available/default /etc/nginx/sites-enabled/default")
    for arguments in (["--check"], []):
        done = run(*arguments, tags="nginx")
        assert done.rc == 0, done.messages()
        assert sh("master1", shipped) == before
    assert "Written by gpufleet" in sh("master1", "cat /etc/nginx/sites-enabled/default")


def test_one_address_alone_is_listened_on_though_it_is_a_name_of_the_door(lab, door, run, sh, as_it_was):
    address = lab.hosts["master1"].address
    done = run(nginx_bind_address=address)
    assert done.rc == 0, done.messages()
    assert door.get("/x").status == 200
    listening = sh("master1", "ss -Hltn 'sport = :80 or sport = :443' | awk '{print $4}' | sort")
    assert listening.split() == [f"{address}:443", f"{address}:80"]


@pytest.fixture
def site(sh):
    """The file of a site of somebody else's."""
    yield "/etc/nginx/sites-enabled/mine"
    sh("master1", "rm -f /etc/nginx/sites-enabled/mine; systemctl reload nginx")


def test_other_peoples_sites_are_served_on_and_one_that_is_broken_stops_the_run_not_nginx(
    lab, door, run, sh, as_it_was, site
):
    sh("master1", f"echo 'server {{ listen 8081; return 200 mine; }}' >{site} && systemctl reload nginx")
    assert run(nginx_client_max_body_size="17m", tags="nginx").rc == 0
    connection = http.client.HTTPConnection(lab.hosts["master1"].address, 8081, timeout=5)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"mine"
    sh("master1", f"echo 'serverr {{}}' >{site}")
    done = run(nginx_client_max_body_size="18m", tags="nginx")
    assert done.rc != 0
    assert "serverr" in done.messages()
    assert "the old one stays" in done.messages()
    # Whoever reloads it, nginx is not told to read that.
    assert "failed" in sh("master1", "systemctl reload nginx 2>&1", check=False)
    assert door.get("/").status == 200


def test_a_port_that_somebody_has_is_said_and_nginx_goes_on_as_it_was(door, run, sh):
    before = sh("master1", SETTLED)
    done = run(nginx_https_port=9100, tags="nginx")
    assert done.rc != 0
    assert re.search(r"bind\(\) to \S+:9100 failed .*Address already in use", done.messages())
    assert "Rolled back" in done.messages()
    assert door.get("/").status == 200
    assert sh("master1", SETTLED).splitlines()[0] == before.splitlines()[0]


# -- fuzz ---------------------------------------------------------------------------------------


def test_no_path_method_or_header_opens_what_is_closed(door, sh):
    """Each request is answered, or its connection closed; nothing internal comes back."""
    before = sh("master1", "cat /run/nginx.pid")
    requests = list(fuzz.requests(NAME, 20261124, 400))
    with ThreadPoolExecutor(16) as pool:
        answers = dict(zip(requests, pool.map(door.raw, requests)))
    assert [request for request, answer in answers.items() if fuzz.LEAKS.search(answer)] == []
    assert sum(answer.startswith(b"HTTP/1.1 ") for answer in answers.values()) > 300
    assert sh("master1", "cat /run/nginx.pid") == before
    assert sh("master1", "grep -c 'exited on signal' /var/log/nginx/error.log", check=False) in ("", "0")


def test_a_request_does_not_smuggle_another_one_in(door, sh):
    inner = f"GET /smuggled HTTP/1.1\r\nHost: {NAME}\r\n\r\n"
    lengths = f"Content-Length: {len(inner)}\r\nTransfer-Encoding: chunked"
    both = f"POST /x HTTP/1.1\r\nHost: {NAME}\r\n{lengths}\r\n\r\n0\r\n\r\n"
    answer = door.raw((both + inner).encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert door.get("/not-smuggled").status == 200
    seen = "journalctl -u upstream | grep -o 'GET /[a-z-]*smuggled' | sort -u"
    assert eventually(lambda: sh("master1", seen) == "GET /not-smuggled", 5)


# -- logs ---------------------------------------------------------------------------------------


def test_no_secret_is_in_a_log(door, sh, basic):
    marker = "s3cr3t-mark"
    query = ["/x?token=", "/dead/?auth_token=", "/closed/?"]
    keys = ["/public-dashboards/", "/api/snapshots/", "/invite/", "/api/public/dashboards/"]
    secret = {"Authorization": f"Bearer {marker}", "Referer": f"https://x/?{marker}", "Cookie": f"session={marker}"}
    for path in query + keys:
        door.request("GET", f"{path}{marker}", secret)
        door.request("GET", f"{path}{marker}/panels?{marker}", secret)
    door.get("/inner/", Authorization=basic("ali", marker))
    token = base64.b64encode(f"{marker}:".encode()).decode()
    assert door.get("/api/x", Authorization=f"Basic {token}").status in (200, 429)
    door.request("POST", f"/login?{marker}", body=marker)
    door.raw(f"GET /?{marker} HTTP/1.1\r\nHost: {NAME}\r\nBad header {marker}\r\n\r\n".encode())
    plain_log = "/var/log/nginx/gpufleet_access.log"
    assert eventually(lambda: "/public-dashboards/-" in sh("master1", f"cat {plain_log}"), 5)
    assert "/dead/" in sh("master1", f"cat {plain_log}")
    assert sh("master1", f"stat -c %a {plain_log}") == "640"
    assert sh("master1", f"grep -r {marker} /var/log/nginx; journalctl -u nginx | grep {marker}", check=False) == ""


# -- IPv6 ---------------------------------------------------------------------------------------


def test_an_ipv6_network_tries_passwords_as_one_client(sh):
    """From many addresses of one network, then from another network: all of them on the master itself."""
    own, other = [f"2001:db8::{number:x}" for number in range(1, 31)], "2001:db8:0:1::1"
    add = "; ".join(f"ip -6 address {{0}} {address}/128 dev lo" for address in [*own, other])
    sh("master1", add.format("add"))
    try:
        program = BRUTE_FORCE_IPV6.format(own=own, other=other, name=NAME)
        first, second = json.loads(sh("master1", f"python3 - <<'END'\n{program}\nEND"))
    finally:
        sh("master1", add.format("del"))
    assert first.count(429) >= 8
    assert second == 401


BRUTE_FORCE_IPV6 = """
import http.client, json, socket, ssl
context = ssl._create_unverified_context()
def attempt(source):
    connection = http.client.HTTPSConnection("::1", 443, context=context, source_address=(source, 0))
    connection.request("POST", "/login", headers={{"Host": "{name}"}})
    return connection.getresponse().status
print(json.dumps([[attempt(source) for source in {own}], attempt("{other}")]))
"""


# -- TLS ----------------------------------------------------------------------------------------


def test_a_scanner_finds_mozillas_intermediate_settings_and_nothing_else(lab, sh):
    """sslscan of Debian, from outside. With an EC key, the guideline's RSA suites have no use."""
    found = ElementTree.fromstring(
        sh("outside", f"sslscan --xml=- --no-colour --sni-name={NAME} {lab.hosts['master1'].address}")
    )
    protocols = {
        f"{one.get('type')}{one.get('version')}" for one in found.iter("protocol") if one.get("enabled") == "1"
    }
    assert protocols == {"tls1.2", "tls1.3"}
    suites = {one.get("cipher") for one in found.iter("cipher") if one.get("sslversion") == "TLSv1.2"}
    assert suites == {f"ECDHE-ECDSA-{name}" for name in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")}
    assert [one.get("vulnerable") for one in found.iter("heartbleed")].count("1") == 0
    assert [one.get("supported") for one in found.iter("compression")] == ["0"]
    assert [one.get("supported") for one in found.iter("renegotiation")] == ["0"]
    groups = {one.get("name") for one in found.iter("group")}
    assert groups <= {"X25519MLKEM768", "x25519", "secp256r1 (NIST P-256)", "secp384r1 (NIST P-384)"}


def test_the_newest_key_exchange_that_openssl_has_is_there(sh, lab):
    newest = "X25519MLKEM768" if "X25519MLKEM768" in sh("master1", "openssl list -kem-algorithms") else "X25519"
    ask = f"openssl s_client -brief -groups {newest} -connect {lab.hosts['master1'].address}:443 </dev/null 2>&1"
    assert newest in sh("outside", ask)


# -- removal ------------------------------------------------------------------------------------


def test_without_the_door_nothing_listens_and_its_files_are_gone(run, sh):
    assert run(nginx_state="absent").rc == 0
    assert sh("master1", "ss -Hltn 'sport = :80 or sport = :443'") == ""
    left = "/etc/nginx/gpufleet /etc/nginx/conf.d/gpufleet.conf /etc/gpufleet-certificate"
    assert sh("master1", f"ls {left} /etc/systemd/system/nginx.service.d 2>/dev/null", check=False) == ""
    assert sh("master1", "ls /var/lib/node_exporter/textfile_collector") == ""  # nobody is told of it any more
    assert sh("master1", "ls /var/lib/gpufleet-certificate/ca/ca.key")  # data stays
    done = run()
    assert done.rc == 0, done.messages()
