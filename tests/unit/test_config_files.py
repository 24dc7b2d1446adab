"""Names and contents become files, and a file that nobody would read is refused."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.monitoring.plugins.filter.config_files import config_files


def test_names_and_contents_become_files():
    files = config_files({"a": "text", "b": {"c": 1}}, "/etc/demo", suffix=".json", on_change="none")
    assert files == [
        {"path": "/etc/demo/a.json", "content": "text", "on_change": "none"},
        {"path": "/etc/demo/b.json", "content": '{\n "c": 1\n}\n', "on_change": "none"},
    ]


def test_a_secret_stays_one():
    (file,) = config_files({"token": "hunter2"}, "/etc/demo", secret=True)
    assert file["secret_content"] == "hunter2"
    assert "content" not in file


def test_two_files_of_one_name_are_an_error():
    with pytest.raises(AnsibleFilterError, match="several files would become /etc/demo/a"):
        config_files([("a", "1"), ("a", "2")], "/etc/demo")


def test_a_name_that_would_silently_be_ignored_is_an_error():
    with pytest.raises(AnsibleFilterError, match=r"rules/mine\.rules would never be read: rename the file"):
        config_files([("mine.rules", "")], "/etc/prometheus/rules", pattern="[.]ya?ml$")
