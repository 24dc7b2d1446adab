# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_certificate
short_description: A host's certificate from the fleet's own authority, as files of a service
version_added: "0.1.0"
description:
  - Prometheus and exporters know each other by certificates of an authority that is kept on the controller. This
    returns what a service on a host needs of them, as O(gpufleet.monitoring.native_service#module:files).
  - A certificate is made when there is none that will do. It will do while an authority that the fleet trusts has
    signed it, its addresses are those at which the masters scrape the host, and it has more than O(renew_days) left. It
    is good for a year.
  - The authority is made by the first run for all hosts. It is good for ten years. A run with C(--limit), C(--tags) or
    C(--start-at-task) makes none, since the hosts that it leaves out would not know it.
  - In check mode nothing is written.
author:
  - The gpufleet authors (@gpufleet)
options:
  _terms:
    description: The host.
    type: list
    elements: str
    required: true
  into:
    description: The directory of the files on the host.
    type: path
    required: true
  group:
    description: The group that may read the key, besides root.
    type: str
    default: root
  client:
    description:
      - Whether it is for the Prometheus of a master, whom exporters let in. Its name is then the host's, and
        C(.prometheus.gpufleet), and no addresses go with it.
    type: bool
    default: false
  web_config:
    description: Whether to add the configuration of an exporter that has Prometheus' exporter toolkit.
    type: bool
    default: false
  metric:
    description: Path of a file for node_exporter's textfile collector, which says when the certificate ends.
    type: path
  directory:
    description:
      - Where the authority is, on the controller.
      - By default, C(.gpufleet/tls) beside the inventory that has the first master.
    type: path
    vars:
      - name: gpufleet_tls_directory
  renew_days:
    description: Days before its end at which a certificate is renewed.
    type: int
    default: 90
    vars:
      - name: gpufleet_tls_renew_days
  new_authority:
    description: Whether to make the authority that is to follow the present one, and have it trusted.
    type: bool
    default: false
    vars:
      - name: gpufleet_tls_new_authority
requirements:
  - cryptography on the controller, which ansible-core itself needs
"""

EXAMPLES = r"""
- name: An exporter that speaks TLS, and to the masters alone
  gpufleet.monitoring.native_service:
    name: node_exporter
    static_user: true
    files: "{{ query('gpufleet.monitoring.fleet_certificate', inventory_hostname, into='/etc/node_exporter',
                     group='node_exporter', web_config=true) }}"
    command: ["{release}/node_exporter", "--web.config.file=/etc/node_exporter/web.yml"]
"""

RETURN = r"""
_raw:
  description:
    - The files C(host.pem), with key and certificate in one, so that both are replaced in one step; C(ca.pem), with all
      authorities to trust; C(web.yml) with O(web_config); and O(metric).
    - Programs are to read them again by themselves.
  type: list
  elements: dict
"""

import datetime
import json
import typing as t
from pathlib import Path

from ansible import context
from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display

from ..module_utils.inventory import MASTERS, scraped_addresses
from ..plugin_utils.fleet_ca import PROMETHEUS, CaError, Certificate, FleetCa
from ..plugin_utils.roles import JOBS, VariableError, of_master

VARIABLES = ("gpufleet_tls_directory", "gpufleet_tls_renew_days", "gpufleet_tls_new_authority")

YEAR = datetime.timedelta(days=365)

HOST = "host.pem"
AUTHORITIES = "ca.pem"
WEB_CONFIG = "web.yml"

# The metric, text and all, that every certificate of the collection has.
METRIC = """\
# HELP {name} When a certificate ends; of a chain, the part that ends first.
# TYPE {name} gauge
{name}{{path="{path}"}} {value}
"""


class LookupModule(LookupBase):
    """The lookup's face to Ansible."""

    def run(self, terms: list[str], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[dict[str, str]]:
        """Make what is not there, or will not do."""
        known = variables or {}
        # What variables hold comes here as it is written; options want to know what it means.
        own = {name: self._templar.template(known[name]) for name in VARIABLES if name in known}
        self.set_options(var_options=own, direct=kwargs)
        groups, hostvars = known["groups"], known["hostvars"]
        ca = FleetCa(self._directory(groups, hostvars), dry=bool(known.get("ansible_check_mode")))
        try:
            name, addresses = self._identity(terms[0], groups, hostvars)
            whole = _is_whole()
            if self.get_option("new_authority") and whole:
                ca.prepare_successor()
            found, created = ca.certificate(name, addresses, self.get_option("renew_days"), may_create=whole)
        except (CaError, VariableError) as error:
            raise AnsibleLookupError(str(error)) from error
        if created and not ca.dry:
            Display().warning(
                f"The fleet has a new certificate authority: keep a copy of {ca.directory} in a safe place"
            )
        if found.authority_expires - datetime.datetime.now(datetime.timezone.utc) < YEAR:
            Display().warning(
                f"The fleet's certificate authority ends on {found.authority_expires:%Y-%m-%d}, and with it all"
                " certificates: make a new one in time, as docs/network.md says"
            )
        return self._files(found, [*(f"{master}{PROMETHEUS}" for master in groups.get(MASTERS, ())), terms[0]])

    def _identity(self, host: str, groups: t.Any, hostvars: t.Any) -> tuple[str, t.Sequence[str]]:
        """Return the name of the certificate, and its addresses. Raises CaError, VariableError."""
        if self.get_option("client"):
            return f"{host}{PROMETHEUS}", ()
        jobs = of_master(groups, hostvars, JOBS, self._loader)
        addresses = scraped_addresses(groups, hostvars, jobs, host)
        reserved = [name for name in (host, *addresses) if name.lower().endswith(PROMETHEUS)]
        if reserved:
            raise CaError(f"{host}: names that end in {PROMETHEUS} are those of masters, and {reserved[0]} is one")
        return host, addresses

    def _files(self, found: Certificate, clients: list[str]) -> list[dict[str, str]]:
        """The host is among its own clients, to be asked whether it is well."""
        into = self.get_option("into")
        files = [
            {"path": f"{into}/{HOST}", "secret_content": found.pem, "mode": "0640", "group": self.get_option("group")},
            {"path": f"{into}/{AUTHORITIES}", "content": found.authorities},
        ]
        if self.get_option("web_config"):
            web_config = {
                "cert_file": HOST,
                "key_file": HOST,
                "client_ca_file": AUTHORITIES,
                "client_auth_type": "RequireAndVerifyClientCert",
                "client_allowed_sans": clients,
                "min_version": "TLS13",
            }
            text = json.dumps({"tls_server_config": web_config}, indent=1)  # which YAML has in it
            files.append({"path": f"{into}/{WEB_CONFIG}", "content": f"{text}\n"})
        if self.get_option("metric"):
            name = "gpufleet_certificate_not_after_timestamp_seconds"
            text = METRIC.format(name=name, path=f"{into}/{HOST}", value=int(found.expires.timestamp()))
            files.append({"path": self.get_option("metric"), "content": text})
        return [{**file, "on_change": "none"} for file in files]

    def _directory(self, groups: t.Any, hostvars: t.Any) -> Path:
        given = self.get_option("directory")
        if given:
            return Path(given)
        # Hosts of a fleet may come from several inventories, and have one authority.
        for master in groups.get(MASTERS, ())[:1]:
            beside = Path(hostvars[master].get("inventory_dir") or "")
            if beside.is_absolute():  # of -i HOST, ansible-core 2.19 says "None"
                return beside / ".gpufleet" / "tls"
        raise AnsibleLookupError("the inventory is not in a directory: set gpufleet_tls_directory")


def _is_whole() -> bool:
    """Whether this run is for all hosts, and does all that there is to do."""
    tags = list(context.CLIARGS.get("tags") or ["all"])
    return tags == ["all"] and not context.CLIARGS.get("subset") and not context.CLIARGS.get("start_at_task")
