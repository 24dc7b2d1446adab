"""What people get, from a running Alertmanager: once, with all that they need, and nothing while it is to be quiet."""

from __future__ import annotations

import pytest
from gpufleet_lab.waiting import eventually

GPU = {"instance": "gpu7", "site": "north", "rack": "r3", "gpu": "2", "UUID": "GPU-42", "model": "NVIDIA H100"}
HOT = {"alertname": "DS01GPUCriticalTemperature", "severity": "critical", "user": "alice", **GPU}
WARM = {"alertname": "DS01GPUHighTemperature", "severity": "warning", **GPU}
NOW = {"group_wait": "1s", "group_interval": "1s", "repeat_interval": "1h"}
ALWAYS = {"name": "always", "time_intervals": [{}]}


@pytest.fixture(scope="module")
def case(render, people):
    def secret(name: str) -> str:
        return f"{people.url}/{name}"

    receivers = [
        {
            "name": "all",
            "email_configs": [{"to": "oncall@example.org"}],
            "webhook_configs": [{"url_file": "hook"}],
            "slack_configs": [{"api_url_file": "slack", "channel": "#gpus"}],
            "msteamsv2_configs": [{"webhook_url_file": "teams"}],
            "telegram_configs": [{"api_url": people.url, "bot_token_file": "bot", "chat_id": 7}],
            "pagerduty_configs": [{"url": secret("pagerduty"), "routing_key_file": "pagerduty"}],
        }
    ]
    variables = {
        "alertmanager_receivers": receivers,
        "alertmanager_secrets": {
            "hook": secret("hook"),
            "slack": secret("slack"),
            "teams": secret("teams"),
            "bot": "bot-token",
            "pagerduty": "routing-key",
        },
        "alertmanager_dead_mans_switch_url": secret("alive"),
        "alertmanager_smtp_smarthost": f"127.0.0.1:{people.mail.port}",
        "alertmanager_smtp_from": "alerts@example.org",
        "alertmanager_smtp_require_tls": False,
        "alertmanager_grafana_url": "https://grafana.example.org/",
        "alertmanager_severities": {"critical": NOW, "warning": NOW, "info": NOW},
        "alertmanager_time_intervals": [ALWAYS],
        "alertmanager_maintenance": [{"matchers": ['rack="r9"'], "time_intervals": ["always"]}],
    }
    return render({"everything": variables})["everything"]


@pytest.fixture
def told(alertmanager, case, people):
    """A running Alertmanager, and nobody was told anything yet."""
    people.calls.clear()
    people.mails.clear()
    people.refused.clear()
    return alertmanager(case)


def texts(people) -> dict[str, str]:
    """What each integration got last, as people read it."""
    mail = people.mails[-1]
    telegram = next(path for _, path, _ in people.calls if path.endswith("/sendMessage"))
    return {
        "subject": mail["Subject"],
        "mail": mail.get_body("plain").get_content(),
        "html": mail.get_body("html").get_content(),
        "slack": str(people.called("/slack")[-1]),
        "teams": str(people.called("/teams")[-1]),
        "telegram": people.called(telegram)[-1]["text"],
        "pagerduty": str(people.called("/pagerduty")[-1]),
    }


def test_each_way_says_host_gpu_user_value_runbook_and_dashboard(told, people):
    told.tell(
        HOT,
        summary="gpu7: GPU 2 is at 93 °C",
        description="It slows down.",
        runbook_url="https://example.org/runbooks/DS01GPUCriticalTemperature",
    )
    assert eventually(lambda: people.mails and len({path for _, path, _ in people.calls}) == 5, seconds=15), (
        people.calls
    )
    found = texts(people)
    assert found["subject"] == "[CRITICAL] north: gpu7: GPU 2 is at 93 °C"
    for way in ("mail", "html", "slack", "teams", "telegram"):
        for part in ("gpu7", "GPU-42", "NVIDIA H100", "alice", "93 °C", "It slows down.", "rack r3"):
            assert part in found[way], (way, part, found[way])
        assert "https://example.org/runbooks/DS01GPUCriticalTemperature" in found[way], (way, found[way])
        dashboard = "https://grafana.example.org/d/nvidia-dcgm?var-host=gpu7&var-gpu=2"
        assert dashboard in found[way].replace("&amp;", "&"), (way, found[way])
    assert "gpu7: GPU 2 is at 93 °C" in found["pagerduty"]
    assert "http://alerts/#/alerts?receiver=all" in found["pagerduty"]
    for _, _, body in people.calls:
        assert "<no value>" not in str(body)
    assert people.called("/hook")[0]["alerts"][0]["labels"] == HOT

    told.tell(HOT, over=True, summary="gpu7: GPU 2 is at 93 °C")
    assert eventually(lambda: len(people.mails) == 2, seconds=15)
    assert texts(people)["subject"] == "[RESOLVED] north: gpu7: GPU 2 is at 93 °C"
    assert "Until: " in texts(people)["mail"]


def test_a_dead_rack_is_one_message(told, people):
    hosts = [
        {"alertname": "NodeDown", "severity": "critical", "site": "north", "instance": f"gpu{n}"} for n in range(20)
    ]
    told.tell(*hosts, summary="does not answer")
    assert eventually(lambda: people.mails, seconds=15)
    more = {"alertname": "NodeDown", "severity": "critical", "site": "south", "instance": "gpu99"}
    told.tell(more, summary="does not answer")
    assert eventually(lambda: len(people.mails) == 2, seconds=15)
    assert [mail["Subject"] for mail in people.mails] == [
        "[CRITICAL] north: NodeDown, 20 firing",
        "[CRITICAL] south: does not answer",
    ]
    assert people.mails[0].get_body("plain").get_content().count("Host: gpu") == 20


@pytest.mark.parametrize(
    ("source", "targets"),
    [
        (
            {"alertname": "NodeDown", "severity": "critical", "instance": "gpu7"},
            [HOT, WARM, {"alertname": "DS01ExporterDown", "severity": "critical", "instance": "gpu7"}],
        ),
        (HOT, [WARM, {"alertname": "GPUThrottled", "severity": "info", **GPU}]),
        (
            {"alertname": "DS01DCGMExporterDown", "severity": "critical", "instance": "gpu7"},
            [{"alertname": "GPUMetricsStale", "severity": "warning", "component": "dcgm", "instance": "gpu7"}],
        ),
    ],
    ids=["a host that is down", "a GPU in a critical state", "DCGM that is down"],
)
def test_what_follows_from_something_worse_is_not_said_and_all_else_is(told, people, source, targets):
    elsewhere = [{**target, "instance": "gpu8", "UUID": f"GPU-8{n}"} for n, target in enumerate(targets)]
    told.tell(source, *targets, *elsewhere)
    names = {source["alertname"], *(target["alertname"] for target in targets)}
    assert eventually(lambda: len(people.called("/hook")) == len(names), seconds=15), people.calls
    said = [alert["labels"] for call in people.called("/hook") for alert in call["alerts"]]
    assert [labels["alertname"] for labels in said if labels["instance"] == "gpu7"] == [source["alertname"]]
    assert len([labels for labels in said if labels["instance"] == "gpu8"]) == len(targets)


def test_in_a_maintenance_window_what_is_meant_is_quiet(told, people):
    told.tell({**HOT, "rack": "r9"})
    told.tell({**HOT, "instance": "gpu8", "site": "south"})
    assert eventually(lambda: people.called("/hook"), seconds=15)
    assert eventually(lambda: told.metric("alertmanager_notifications_suppressed_total") > 0, seconds=15)
    said = [alert["labels"]["rack"] for call in people.called("/hook") for alert in call["alerts"]]
    assert said == ["r3"]


def test_what_could_not_be_delivered_is_tried_again_and_counted(told, people):
    people.refused.add("/hook")
    told.tell(HOT, summary="hot")
    assert eventually(lambda: len(people.called("/hook")) >= 2, seconds=15)
    assert eventually(lambda: len(people.mails) == 1, seconds=15)  # the other ways do not wait for this one
    failed = 'alertmanager_notification_requests_failed_total{integration="webhook"'
    assert eventually(lambda: told.metric(failed) >= 2, seconds=15)
    people.refused.clear()
    before = len(people.called("/hook"))
    assert eventually(lambda: len(people.called("/hook")) > before, seconds=20)


def test_the_dead_mans_switch_is_called_and_nobody_else(told, people):
    told.tell({"alertname": "Watchdog", "severity": "info"})
    assert eventually(lambda: people.called("/alive"), seconds=10)
    assert {path for _, path, _ in people.calls} == {"/alive"}
    assert people.mails == []
