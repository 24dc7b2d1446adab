"""A real ACME server, pebble, with a real DNS server, bind, on the host outside; and what can go wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

ZONE = """\
$TTL 1
@ SOA outside. root.outside. 1 1 1 1 1
@ NS outside.lab.test.
outside A {outside}
door A {master}
named A {master}
extra A {master}
"""
NAMED = """\
options {{ directory "/var/cache/bind"; recursion no; listen-on {{ any; }}; listen-on-v6 {{ none; }}; }};
key certbot {{ algorithm hmac-sha512; secret "{secret}"; }};
zone "lab.test" {{ type primary; file "/var/lib/bind/lab.test"; allow-update {{ key certbot; }}; }};
"""
SECRET = "bGFiLW9ubHktbGFiLW9ubHktbGFiLW9ubHktbGFiLW9ubHk="  # base64, for TSIG
EAB = {"key-1": "bGFiLW9ubHktbGFiLW9ubHktbGFiLW9ubHktbGFiLW9ubHk"}  # base64url, of an account

# Answers that say "too many" where an order is placed, and pebble's answers for all else.
PORTS = {"pebble": 14000, "pebble-eab": 14100, "rate-limited": 14200}


class Acme:
    """The servers of a lab's host outside."""

    def __init__(self, sh, outside: str, master: str) -> None:
        self._sh = sh
        self.outside, self.master = outside, master

    def url(self, server: str = "pebble") -> str:
        """Return the directory URL of one of PORTS."""
        return f"https://{self.outside}:{PORTS[server]}/dir"

    def ca(self) -> str:
        """Return the certificate that whoever asks these servers has to trust."""
        return self._sh("outside", "cat /root/acme.pem") + "\n"

    def start(self) -> None:
        """Start them; what runs is left alone."""
        proxy = Path(__file__).with_name("rate_limited.py").read_text()
        files = {
            "/etc/bind/named.conf": NAMED.format(secret=SECRET),
            "/var/lib/bind/lab.test": ZONE.format(outside=self.outside, master=self.master),
            "/root/pebble.json": self._pebble(False),
            "/root/pebble-eab.json": self._pebble(True),
            "/root/rate_limited.py": proxy,
        }
        for path, content in files.items():
            self._sh("outside", f"cat >{path} <<'END'\n{content}\nEND")
        certificate = "-keyout /root/acme.key -out /root/acme.pem -subj /CN=acme -days 9"
        names = f"-addext subjectAltName=IP:{self.outside}"
        self._sh("outside", f"openssl req -x509 -newkey rsa:2048 -nodes {certificate} {names} 2>/dev/null")
        self._sh("outside", "chown bind: /var/lib/bind/lab.test; rm -f /var/lib/bind/*.jnl; systemctl restart named")
        for name in PORTS:
            self._run(name)

    def _pebble(self, binding: bool) -> str:
        port = PORTS["pebble-eab" if binding else "pebble"]
        config = {
            "listenAddress": f"0.0.0.0:{port}",
            "managementListenAddress": f"0.0.0.0:{port + 1}",
            "certificate": "/root/acme.pem",
            "privateKey": "/root/acme.key",
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": binding,
            "externalAccountMACKeys": EAB if binding else {},
            "retryAfter": {"authz": 1, "order": 1},
            "certificateValidityPeriod": 7776000,
        }
        return json.dumps({"pebble": config})

    def _run(self, name: str) -> None:
        command = (
            f"/usr/bin/python3 /root/rate_limited.py {PORTS[name]} {PORTS['pebble']}"
            if name == "rate-limited"
            else f"/usr/bin/pebble -config /root/{name}.json -dnsserver 127.0.0.1:53 -strict false"
        )
        # Of good nonces it refuses some by chance, to see that clients try again; certbot does so once only.
        chance = "--setenv=PEBBLE_VA_NOSLEEP=1 --setenv=PEBBLE_AUTHZREUSE=0 --setenv=PEBBLE_WFE_NONCEREJECT=0"
        settings = f"{chance} --collect --quiet"
        self._sh("outside", f"systemctl stop {name} 2>/dev/null; systemd-run --unit={name} {settings} {command}")
        # When it is started, pebble knows none of its accounts any more, which no other ACME server forgets.
        self._sh("master1", "rm -rf /var/lib/gpufleet-certificate/acme/accounts")

    def stop(self, name: str) -> None:
        """End one of them."""
        self._sh("outside", f"systemctl stop {name}")

    def mend(self) -> None:
        """Undo what stop and dns did."""
        if self._sh("outside", "systemctl is-active pebble || true") != "active":
            self._run("pebble")
        self.dns("del door.lab.test A", f"add door.lab.test 1 A {self.master}")

    def dns(self, *lines: str) -> None:
        """Change records: dns("del door.lab.test A")."""
        commands = "\n".join(["server 127.0.0.1", "zone lab.test", *(f"update {line}" for line in lines), "send"])
        self._sh("outside", f"nsupdate -y hmac-sha512:certbot:{SECRET} <<'END'\n{commands}\nEND")
