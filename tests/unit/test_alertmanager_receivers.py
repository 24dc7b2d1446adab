"""Receivers: secrets stay in files, and people read our texts unless somebody wrote others."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.monitoring.plugins.filter.alertmanager_receivers import alertmanager_receivers

DIRECTORY = "/run/credentials/alertmanager.service"


def one(kind, config, *secrets):
    """The only integration of the only receiver."""
    (receiver,) = alertmanager_receivers([{"name": "team", kind: [config]}], secrets, DIRECTORY)
    assert receiver["name"] == "team"
    (found,) = receiver[kind]
    return found


def test_the_name_of_a_secret_becomes_its_path_and_a_path_stays():
    assert one("slack_configs", {"api_url_file": "slack"}, "slack")["api_url_file"] == f"{DIRECTORY}/slack"
    assert one("webhook_configs", {"url_file": "/etc/hook"})["url_file"] == "/etc/hook"
    nested = {"http_config": {"authorization": {"credentials_file": "hook"}}}
    found = one("webhook_configs", nested, "hook")
    assert found["http_config"]["authorization"]["credentials_file"] == f"{DIRECTORY}/hook"


def test_a_secret_that_is_not_there_is_named_with_its_receiver_and_the_nearest_one():
    with pytest.raises(AnsibleFilterError, match=r"team: pagerduty_configs: routing_key_file: .* no pagerdut; did you"):
        one("pagerduty_configs", {"routing_key_file": "pagerdut"}, "pagerduty")
    with pytest.raises(AnsibleFilterError, match="it has none"):
        one("slack_configs", {"api_url_file": "slack"})


@pytest.mark.parametrize(
    ("kind", "config", "key"),
    [
        ("slack_configs", {"api_url": "https://hooks.slack.com/services/T0/B0/x"}, "api_url"),
        ("pagerduty_configs", {"routing_key": "r"}, "routing_key"),
        ("telegram_configs", {"bot_token": "t", "chat_id": 1}, "bot_token"),
        ("msteamsv2_configs", {"webhook_url": "https://x.webhook.office.com/"}, "webhook_url"),
        ("email_configs", {"to": "a@example.org", "auth_password": "p"}, "auth_password"),
        ("webhook_configs", {"http_config": {"basic_auth": {"username": "u", "password": "p"}}}, "password"),
    ],
)
def test_a_secret_in_a_receiver_is_an_error_that_does_not_repeat_it(kind, config, key):
    with pytest.raises(AnsibleFilterError, match=rf"team: {kind}: {key} is secret: .* write {key}_file") as caught:
        one(kind, config)
    assert "hooks.slack.com" not in str(caught.value)


def test_an_address_that_is_no_secret_may_be_written():
    assert one("telegram_configs", {"api_url": "https://telegram.example.org", "chat_id": 1})["api_url"]


def test_texts_are_ours_unless_somebody_wrote_others():
    assert one("email_configs", {"to": "a@example.org"})["text"] == '{{ template "gpufleet.text" . }}'
    assert one("slack_configs", {"text": "Look!", "send_resolved": False}) == {
        "send_resolved": False,
        "title": '{{ template "gpufleet.subject" . }}',
        "title_link": '{{ template "gpufleet.link" . }}',
        "text": "Look!",
    }


def test_what_is_no_integration_is_left_to_amtool():
    assert alertmanager_receivers([{"name": "team", "email": "a@example.org"}], (), DIRECTORY) == [
        {"name": "team", "email": "a@example.org"}
    ]
