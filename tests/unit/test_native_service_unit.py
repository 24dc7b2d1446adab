"""Unit files: strict by default, the caller has the last word, and arguments arrive as they were given."""

from __future__ import annotations

import configparser
import shlex

import pytest
from ansible_collections.gpufleet.monitoring.plugins.module_utils.native_service import unit
from hypothesis import given
from hypothesis import strategies as st


def directives(text: str, section: str = "Service") -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return dict(parser[section])


def test_the_sandbox_is_there_without_being_asked_for():
    service = directives(unit.render("demo", {"Service": {"ExecStart": "/bin/true"}}, 252))
    assert service["ProtectSystem"] == "strict"
    assert service["DynamicUser"] == "yes"
    assert service["CapabilityBoundingSet"] == ""


def test_the_caller_overrides_and_drops():
    text = unit.render("demo", {"Service": {"ProtectHome": "read-only", "MemoryMax": None, "PrivateUsers": False}}, 252)
    service = directives(text)
    assert service["ProtectHome"] == "read-only"
    assert service["PrivateUsers"] == "no"
    assert "MemoryMax" not in service


def test_a_list_repeats_the_directive():
    text = unit.render("demo", {"Service": {"LoadCredential": ["a:/a", "b:/b"]}, "Socket": {"Accept": True}}, 252)
    assert "LoadCredential=a:/a\nLoadCredential=b:/b\n" in text
    assert text.endswith("[Socket]\nAccept=yes\n")


def test_directives_that_older_systemd_does_not_know_are_left_out():
    assert "RestartSteps" not in unit.render("demo", {}, 252)
    assert "RestartSteps" in unit.render("demo", {}, 254)


@pytest.mark.parametrize("value", ["a\nb", {"a": 1}, ["a", ["b"]]])
def test_what_a_unit_file_cannot_hold_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"Service\.ExecStart"):
        unit.render("demo", {"Service": {"ExecStart": value}}, 252)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("--web.listen-address=:9100", "--web.listen-address=:9100"),
        ("^/(dev|proc)($|/)", '"^/(dev|proc)($$|/)"'),  # a $ alone would be taken for a variable
        ("100%", '"100%%"'),  # a % alone would be taken for a specifier
        ("two words", '"two words"'),
        ("", '""'),
        ('say "x"', '"say \\"x\\""'),
        (r".+\.service", r'".+\\.service"'),
    ],
)
def test_words_that_mean_something_to_systemd_are_quoted(word, text):
    assert unit.exec_line(["/bin/x", word]) == f"/bin/x {text}"


@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126)), min_size=1))
def test_every_line_comes_apart_into_its_words(words):
    # Apart from the doubled % and $, systemd's rules for these characters are the shell's.
    line = unit.exec_line(words).replace("%%", "%").replace("$$", "$")
    assert shlex.split(line.replace("$", "\0")) == [word.replace("$", "\0") for word in words]
