# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: alertmanager_receivers
short_description: Complete Alertmanager's receivers with our texts and the paths of their secrets
version_added: "0.1.0"
description:
  - Puts the collection's templates into integrations that set no text of their own, and has each of them told when an
    alert is over.
  - Turns the name of a secret in a key that ends in C(_file) into the path of that secret. A value with a C(/) in it
    stays as it is.
  - It is an error when a secret is named that is not there, and when a secret is written into a receiver. What else
    may be wrong is for C(amtool check-config) to say.
author:
  - The gpufleet authors (@gpufleet)
positional: _input, secrets, directory
options:
  _input:
    description: Receivers as Alertmanager takes them.
    type: list
    elements: dict
    required: true
  secrets:
    description: Names of the secrets that are there.
    type: list
    elements: str
    required: true
  directory:
    description: Where the service finds them.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: A receiver with its secret
  ansible.builtin.debug:
    msg: "{{ [{'name': 'team', 'slack_configs': [{'api_url_file': 'slack', 'channel': '#gpus'}]}]
             | gpufleet.monitoring.alertmanager_receivers(['slack'], '/run/credentials/alertmanager.service') }}"
"""

RETURN = r"""
_value:
  description: The receivers, complete.
  type: list
  elements: dict
"""

import difflib
import typing as t

from ansible.errors import AnsibleFilterError

VARIABLE = "alertmanager_receivers"

# Keys of Alertmanager's integrations that hold secrets. Nearly all have a twin that ends in _file.
SECRETS = (
    *("alert_source_token", "api_key", "api_secret", "app_token", "auth_password", "auth_secret", "bearer_token"),
    *("bot_token", "client_secret", "credentials", "key", "password", "routing_key", "secret_key", "secrets"),
    *("service_key", "token", "token_id", "user_key", "webhook_url"),
)
SECRETS_OF = {"slack_configs": ("api_url",)}  # of others, a URL that is no secret

_SUBJECT = '{{ template "gpufleet.subject" . }}'
_TEXT = '{{ template "gpufleet.text" . }}'
# Where each integration has its texts: https://prometheus.io/docs/alerting/latest/configuration/
TEXTS: dict[str, dict[str, t.Any]] = {
    "email_configs": {
        "headers": {"Subject": _SUBJECT},
        "text": _TEXT,
        "html": '{{ template "gpufleet.html" . }}',
    },
    "slack_configs": {"title": _SUBJECT, "text": _TEXT, "title_link": '{{ template "gpufleet.link" . }}'},
    "msteamsv2_configs": {"title": _SUBJECT, "text": _TEXT},
    "telegram_configs": {"message": f"{_SUBJECT}\n{_TEXT}", "parse_mode": ""},
    "pagerduty_configs": {
        "description": _SUBJECT,
        "client_url": '{{ template "gpufleet.link" . }}',
        "details": {"text": _TEXT},
    },
}


def alertmanager_receivers(
    receivers: t.Sequence[t.Mapping[str, t.Any]], secrets: t.Iterable[str], directory: str
) -> list[dict[str, t.Any]]:
    """Return the receivers with texts and with paths of secrets; raise AnsibleFilterError."""
    names = sorted(secrets)
    return [
        {key: _integrations(receiver, key, value, names, directory) for key, value in receiver.items()}
        for receiver in receivers
    ]


def _integrations(
    receiver: t.Mapping[str, t.Any], kind: str, value: t.Any, secrets: t.Sequence[str], directory: str
) -> t.Any:
    if not kind.endswith("_configs") or not isinstance(value, list):
        return value
    subject = f"{VARIABLE}: {receiver.get('name', 'a receiver without name')}: {kind}"
    defaults = {"send_resolved": True, **TEXTS.get(kind, {})}
    for key in SECRETS_OF.get(kind, ()):
        if any(key in config for config in value):
            raise _exposed(subject, key)
    return [{**defaults, **_resolve(config, subject, secrets, directory)} for config in value]


def _exposed(subject: str, key: str) -> AnsibleFilterError:
    return AnsibleFilterError(
        f"{subject}: {key} is secret: put it into alertmanager_secrets under some name, and write {key}_file: that name"
    )


def _resolve(value: t.Any, subject: str, secrets: t.Sequence[str], directory: str) -> t.Any:
    """Return a part of a receiver with paths in place of the names of secrets."""
    if isinstance(value, list):
        return [_resolve(item, subject, secrets, directory) for item in value]
    if not isinstance(value, dict):
        return value
    for key in value:
        if key in SECRETS:
            raise _exposed(subject, key)
    return {
        key: _path(item, f"{subject}: {key}", secrets, directory)
        if key.endswith("_file") and isinstance(item, str)
        else _resolve(item, subject, secrets, directory)
        for key, item in value.items()
    }


def _path(value: str, subject: str, secrets: t.Sequence[str], directory: str) -> str:
    if "/" in value:
        return value
    if value in secrets:
        return f"{directory}/{value}"
    near = difflib.get_close_matches(value, secrets, 1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(secrets) or 'none'}"
    raise AnsibleFilterError(f"{subject}: alertmanager_secrets has no {value}; {hint}")


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Return name -> function."""
        return {"alertmanager_receivers": alertmanager_receivers}
