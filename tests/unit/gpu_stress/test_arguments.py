"""What the command line means, and what it does not let through."""

from __future__ import annotations

import pytest
from gpufleet.gpu_stress import cli
from gpufleet.gpu_stress.meter import Memory

GIB = 1 << 30
MEMORY = Memory(total=40 * GIB, free=30 * GIB, used=9 * GIB)


def parse(*words):
    return cli.parse(["--device", "0", *words])


def refusal(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.parse(words)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_the_defaults():
    options = parse()
    assert (options.target, options.memory, options.duration, options.framework) == (0.8, None, 60, "auto")
    assert not options.force
    assert not options.json


@pytest.mark.parametrize(
    "words", [["0", "1.2", "GPU-1"], ["0,1.2,GPU-1"], ["0, 1.2", "GPU-1"], ["0", "--device", "1.2,GPU-1"]]
)
def test_several_devices_in_any_way(words):
    assert cli.parse(["--device", *words]).device == ["0", "1.2", "GPU-1"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 * GIB), ("4g", 4 * GIB), ("4GB", 4 * 10**9), ("1.5GiB", 3 * GIB // 2), ("1000000", 10**6),
        ("512MiB", 512 << 20), ("50%", 20 * GIB), ("50%total", 20 * GIB), ("50%free", 15 * GIB), ("100%free", 30 * GIB),
    ],
)  # fmt: skip
def test_amounts_of_memory(text, size):
    assert parse("--memory", text).memory.bytes(MEMORY) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "4 apples", "101%", "0%", "50%used", "nan", "1e9", "GiB", "٤GiB"])
def test_what_is_no_amount_of_memory(capsys, text):
    assert "no amount of memory" in refusal(capsys, "--device", "0", f"--memory={text}")


@pytest.mark.parametrize(("text", "part"), [("0.5", 0.005), ("60", 0.6), ("60%", 0.6), ("100", 1.0)])
def test_percentages(text, part):
    assert parse("--target-util", text).target == part


@pytest.mark.parametrize("text", ["101", "-5", "nan", "inf", "half", ""])
def test_what_is_no_percentage(capsys, text):
    assert "is not 0 to 100" in refusal(capsys, "--device", "0", f"--target-util={text}")


@pytest.mark.parametrize(("text", "length"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200)])
def test_durations(text, length):
    assert parse("--duration", text).duration == length


@pytest.mark.parametrize("text", ["0", "-1", "1d", "inf", "nan", ""])
def test_what_is_no_duration(capsys, text):
    assert "is no duration" in refusal(capsys, "--device", "0", f"--duration={text}")


def test_a_gpu_has_to_be_named(capsys):
    assert "which GPU?" in refusal(capsys)
    assert "which GPU?" in refusal(capsys, "--device", ",")


def test_nothing_to_do_is_an_error(capsys):
    assert "nothing to do" in refusal(capsys, "--device", "0", "--target-util", "0")
    assert parse("--target-util", "0", "--memory", "1GiB").target == 0


def test_an_unknown_framework_is_an_error(capsys):
    assert "invalid choice: 'jax'" in refusal(capsys, "--device", "0", "--framework", "jax")


def test_the_help_has_every_exit_status(capsys):
    with pytest.raises(SystemExit):
        cli.parse(["--help"])
    text = capsys.readouterr().out
    for status in cli.Exit:
        assert f" {status.value} " in text
