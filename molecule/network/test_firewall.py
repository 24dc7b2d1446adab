"""Who gets through the firewall, and that it never shuts out the one who sets it up."""

from __future__ import annotations

import pytest
from fleet import all_up
from gpufleet_lab.waiting import eventually

ADDRESSES6 = {"master1": "fd00::10", "gpu1": "fd00::11", "outside": "fd00::12"}
STATUS = "ufw status verbose | grep -v ^Logging"
REDIRECTS = "sysctl -n net.ipv4.conf.all.accept_redirects"  # which ufw switches off
OURS = "ufw status | grep --count gpufleet"


@pytest.fixture
def services(sh):
    """Stand-ins for the master's web server, Grafana and Alertmanager, that listen to all, and IPv6 for the lab.

    A job on the worker, whose port no rule speaks of, shows that the worker is reached at all.
    """
    for host, address in ADDRESSES6.items():
        sh(host, f"ip -6 address replace {address}/64 dev host0 nodad")
    for port in (80, 443, 3000, 9093, 9094):
        serve = f"python3 -m http.server --bind :: --directory /mnt {port}"
        sh("master1", f"systemd-run --quiet --unit=stand-in-{port} {serve}")
    sh("gpu1", "systemd-run --quiet --unit=job python3 -m http.server --bind :: --directory /mnt 7777")
    yield
    sh("master1", "systemctl stop 'stand-in-*'")
    sh("gpu1", "systemctl stop job")


def test_from_outside_only_the_web_server_answers(services, lab, answering, prometheus):
    four = {host: lab.hosts[host].address for host in ("master1", "gpu1")}
    six = {host: ADDRESSES6[host] for host in four}
    expected = {"master1": [80, 443], "gpu1": [7777]}
    found = answering(*four.values(), *six.values())
    assert found == {address[host]: ports for address in (four, six) for host, ports in expected.items()}
    assert eventually(lambda: all_up(prometheus)), prometheus.targets()


def test_what_no_rule_speaks_of_is_closed_if_it_is_to_be(services, firewall, lab, sh, answering):
    """Else it is open, as above."""
    address = lab.hosts["gpu1"].address
    done = firewall(firewall_incoming="deny")
    assert done.rc == 0, done.messages()
    assert sh("gpu1", "systemctl is-active job") == "active"
    assert answering(address)[address] == []
    sh("gpu1", "ufw default allow incoming")


def test_rules_of_others_stay_and_ours_come_and_go(firewall, sh):
    """Also somebody's who was told to open the exporter's port, before there was this role."""
    for rule in ("insert 1 deny from 192.0.2.66", "allow 9100/tcp", "allow 8080/tcp comment 'a shop'"):
        sh("gpu1", f"ufw {rule}")
    others = "ufw status | grep --invert-match gpufleet"
    before, ours = sh("gpu1", others), int(sh("gpu1", OURS))
    assert firewall().changed == 0
    done = firewall(firewall_extra_rules=[{"name": "nfs", "ports": [2049], "from": ["monitoring_master"]}])
    assert done.rc == 0, done.messages()
    assert "2049" in sh("gpu1", STATUS)
    assert sh("gpu1", others) == before
    done = firewall()
    assert done.changed == 1
    assert "2049" not in sh("gpu1", STATUS)
    assert int(sh("gpu1", OURS)) == ours
    done = firewall(firewall_enabled=False)
    assert done.rc == 0, done.messages()
    assert sh("gpu1", STATUS).splitlines()[0] == "Status: active"  # for the others' sake
    assert sh("gpu1", others) == before
    assert "gpufleet" not in sh("gpu1", "ufw status; ls /opt/gpufleet")
    sh("gpu1", "ufw delete deny from 192.0.2.66; ufw delete allow 9100/tcp; ufw delete allow 8080/tcp; ufw disable")


def test_off_is_as_it_was_before(firewall, sh):
    """Docker has the kernel drop what is forwarded, and lives by rules of its own."""
    assert firewall(firewall_enabled=False).changed == 1
    assert sh("gpu1", STATUS) == "Status: inactive"
    sh("gpu1", "iptables -P FORWARD DROP")
    state = "cat /etc/default/ufw; ufw show added; iptables -S FORWARD | head -1; " + REDIRECTS
    sh("gpu1", f"{REDIRECTS}=1")
    before = sh("gpu1", state)
    own = "INPUT -p tcp -m tcp --dport 9999 -j DROP"
    sh("gpu1", f"iptables -A {own}")
    refused = firewall()
    sh("gpu1", f"iptables -D {own}")
    assert refused.rc != 0
    assert f"iptables -A {own}" in refused.messages()
    assert sh("gpu1", state) == before
    assert firewall().changed == 1
    assert "deny (routed)" in sh("gpu1", STATUS)
    assert firewall(firewall_enabled=False).changed == 1
    assert sh("gpu1", state) == before
    sh("gpu1", "iptables -P FORWARD ACCEPT")


def test_rules_that_something_flushed_are_loaded_again(firewall, sh):
    """With its chains or without: where those are left, ufw itself does not see it."""
    state = "(iptables -S; ip6tables -S) | sort"
    before = sh("gpu1", state)
    sh("gpu1", "iptables -F; iptables -P INPUT ACCEPT; ip6tables -P INPUT ACCEPT; ip6tables -F; ip6tables -X")
    assert firewall().of("gpu1", "Firewall is on")[0]["actions"] == ["reload ufw"]
    assert sh("gpu1", state) == before


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"firewall_ssh_networks": ["192.0.2.0/24"]}, "firewall_ssh_networks does not have that address"),
        ({"firewall_ssh_ports": [2222], "firewall_incoming": "deny"}, "firewall_ssh_ports does not have it"),
    ],
)
def test_a_firewall_that_would_cut_ssh_is_refused(firewall, sh, variables, reason):
    state = f"{STATUS}; md5sum /etc/default/ufw /etc/ufw/*.rules"
    before = sh("gpu1", state)
    done = firewall(**variables)
    assert done.rc != 0
    assert reason in done.messages()
    assert sh("gpu1", state) == before


@pytest.fixture
def trap(firewall, sh):
    """Rules that ufw itself does not list, of somebody's, close SSH to all new connections once ufw is on."""
    assert firewall(firewall_enabled=False).rc == 0
    sh("gpu1", f"{REDIRECTS}=1")
    cut = "-A ufw-before-input -p tcp --dport 22 -m conntrack --ctstate NEW -j DROP"
    sh("gpu1", f"cp -p /etc/ufw/before.rules /root/; sed -i '/^COMMIT/i {cut}' /etc/ufw/before.rules")
    yield
    eventually(lambda: sh("gpu1", "mv /root/before.rules /etc/ufw/before.rules", check=False) == "", 30)


def test_what_could_not_be_foreseen_undoes_itself(trap, firewall, sh):
    done = firewall(firewall_confirm_within=13)
    assert done.rc != 0
    assert "no new connection to this host succeeds" in done.messages()
    assert eventually(lambda: sh("gpu1", STATUS, check=False) == "Status: inactive", 20)
    assert "firewall" not in sh("gpu1", "ls /opt/gpufleet; systemctl list-timers --all")
    assert "gpufleet" not in sh("gpu1", "ufw show added")
    assert sh("gpu1", REDIRECTS) == "1"
