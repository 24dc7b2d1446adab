"""The controller's part: what it fetches is what the task says, whatever a host asks for."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.gpufleet.monitoring.plugins.action.native_service import _release

URL = "https://example.org/demo-2.0.linux-{arch}.tar.gz"
RELEASE = {"version": "2.0", "url": URL, "sha256": "a" * 64, "delivery": "controller"}


def test_a_host_says_its_architecture_and_no_more():
    assert _release({"release": RELEASE}, "arm64").url == "https://example.org/demo-2.0.linux-arm64.tar.gz"


@pytest.mark.parametrize(
    ("args", "asked"),
    [
        ({"release": {**RELEASE, "delivery": "host"}}, "amd64"),
        ({"release": {key: value for key, value in RELEASE.items() if key != "delivery"}}, "amd64"),
        ({}, "amd64"),
        ({"release": RELEASE}, "../../etc/passwd?"),
        ({"release": RELEASE}, {"url": "file:///root/.ssh/id_rsa", "version": "1", "sha256": None}),
    ],
)
def test_what_the_task_does_not_hand_over_is_not_fetched(args, asked):
    with pytest.raises(AnsibleActionFail, match="the task does not hand over"):
        _release(args, asked)
