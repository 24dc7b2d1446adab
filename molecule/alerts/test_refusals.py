"""What is wrong with receivers, routes or the mail server is said before it goes live; the old configuration stays."""

from __future__ import annotations

import pytest

MAIL = [{"name": "oncall", "email_configs": [{"to": "oncall@lab.invalid"}]}]
BEFORE = "cat /etc/alertmanager/alertmanager.yml; systemctl show -P InvocationID alertmanager"


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"alertmanager_routes": [{"matchers": ["owner"], "receiver": "oncall"}]}, "bad matcher"),
        ({"alertmanager_routes": [{"receiver": "nobody-of-ours"}]}, 'undefined receiver "nobody-of-ours"'),
        (
            {"alertmanager_receivers": [{"name": "team", "slack_configs": [{"api_url_file": "slak"}]}]},
            "alertmanager_secrets has no slak",
        ),
        ({"alertmanager_receivers": [{"name": "team", "slack_configs": [{"api_url": "https://x"}]}]}, "is secret"),
        ({"alertmanager_smtp_password": "wrong"}, "it refuses the password of alerts"),
        (
            {"alertmanager_receivers": [{"name": "a", "email_configs": [{"to": "nobody@lab.invalid"}]}]},
            "it refuses the receiver nobody@lab.invalid: 550",
        ),
        ({"alertmanager_smtp_smarthost": "mail.lab.invalid:26", "alertmanager_receivers": MAIL}, "Connection refused"),
        (
            {"alertmanager_smtp_smarthost": "mail.lab.invalid"},
            "(alertmanager_smtp_smarthost) would take no mail: it is to be",
        ),
    ],
)
def test_it_is_refused_and_alertmanager_goes_on_as_it_was(run, sh, variables, says):
    before = sh("master1", BEFORE)
    done = run(**variables)
    assert done.rc != 0
    assert says in done.messages(), done.messages()
    assert sh("master1", BEFORE) == before
