"""The controller's part: a change stays only when a new connection has come in, and what could not be shown is said."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible_collections.gpufleet.monitoring.plugins.action.firewall import ActionModule

SESSION = "10.0.0.1 50000 10.0.0.9 22"
CHANGED = {"changed": True, "unconfirmed": {"id": "1234", "session": SESSION}}


def run(transport, *answers, result=CHANGED):
    """Run the action. Return its result, and what its calls of the module ask to confirm."""
    asked = []
    replies = iter([dict(result), *answers])

    def execute(module_name, module_args, task_vars):
        asked.append(module_args.get("confirm"))
        reply = next(replies)
        if isinstance(reply, Exception):
            raise reply
        return reply

    connection = SimpleNamespace(transport=transport, reset=lambda: None)
    action = ActionModule.__new__(ActionModule)
    action._task = SimpleNamespace(args={"state": "present"})
    action._connection = connection
    action._execute_module = execute
    return action._bring(None), asked


@pytest.mark.parametrize("transport", ["ssh", "paramiko", "ansible.netcommon.libssh"])
def test_after_a_change_it_comes_in_again(transport):
    result, asked = run(transport, {})
    assert asked == [None, {"id": "1234", "session": SESSION}]
    assert result == {"changed": True}


def test_without_a_change_it_comes_once():
    assert run("ssh", result={"changed": False}) == ({"changed": False}, [None])


def test_a_change_that_keeps_it_out_is_an_error():
    with pytest.raises(AnsibleActionFail, match="no new connection to this host succeeds"):
        run("ssh", AnsibleConnectionFailure("timed out"))


def test_what_the_host_does_not_confirm_has_failed():
    assert run("ssh", {"failed": True, "msg": "too late"})[0] == {"failed": True, "msg": "too late"}


@pytest.mark.parametrize(
    ("transport", "session"),
    [("local", SESSION), ("local", ""), ("community.docker.docker", ""), ("ssh", "")],
)
def test_where_ssh_cannot_be_tried_the_change_stays_with_a_warning(transport, session):
    """The session that local finds is the operator's own, and no reset makes a new one."""
    result, asked = run(transport, {}, result={"changed": True, "unconfirmed": {"id": "1234", "session": session}})
    assert asked == [None, {"id": "1234", "session": ""}]
    assert "try one" in result["warnings"][0]
