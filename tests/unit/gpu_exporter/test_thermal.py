"""No temperature rather than a wrong one: decoders, the table of cards, and what a dead card reads as."""

from __future__ import annotations

import struct

import pytest
from gpufleet.gpu_exporter import thermal
from gpufleet.gpu_exporter.thermal import Register
from hypothesis import given
from hypothesis import strategies as st

ANY_WORD = st.integers(0, 0xFFFFFFFF)
GDDR6 = Register(0xE2A8, "gddr6")
HOTSPOT = Register(0x2046C, "hotspot")
BLACKWELL = Register(0xAD0A90, "blackwell_hotspot", 4, 6)
GDDR7 = Register(0x9024C0, "gddr7", 0x4000, 16)


@pytest.fixture
def bar0(tmp_path):
    """Makes a resource0 file of a card with the given words, zero elsewhere."""

    def make(words, size=16 << 20):
        path = tmp_path / "resource0"
        with path.open("wb") as file:
            file.truncate(size)
            for offset, word in words.items():
                file.seek(offset)
                file.write(struct.pack("<I", word))
        return str(path)

    return make


def test_ampere_and_ada(bar0):
    path = bar0({0xE2A8: 0xABC00000 | 88 * 32 + 16, 0x2046C: 0x00005A00})
    assert thermal.read_bar0(path, GDDR6) == 88.5
    assert thermal.read_bar0(path, HOTSPOT) == 90


def test_blackwell_takes_the_hottest_sensor_that_counts(bar0):
    path = bar0({0xAD0A90: 1 << 30 | 71 << 8, 0xAD0A94: 1 << 30 | 83 << 8 | 128, 0xAD0A98: 110 << 8})
    assert thermal.read_bar0(path, BLACKWELL) == 83.5


def test_gddr7_takes_the_hottest_module_that_is_valid(bar0):
    modules = {0: (0x00380000, 0x0F000000), 1: (0x003C0000, 0x0F000000), 2: (0x00500000, 0x0E000000)}
    words = {}
    for module, (value, validity) in modules.items():
        words[0x9024C0 + module * 0x4000] = value
        words[0x9024C0 + module * 0x4000 + 0x10] = validity
    assert thermal.read_bar0(bar0(words), GDDR7) == 2 * 0x3C - 40


@pytest.mark.parametrize("word", [0xFFFFFFFF, 0xBADF1100, 0xBAD00200, 0])
@pytest.mark.parametrize("register", [GDDR6, HOTSPOT, BLACKWELL, GDDR7])
def test_a_dead_card_has_no_temperature(bar0, word, register):
    offsets = [register.offset + step * register.step for step in range(register.count)]
    path = bar0({offset + behind: word for offset in offsets for behind in (0, 0x10)})
    assert thermal.read_bar0(path, register) is None


def test_127_is_what_a_register_without_a_sensor_says(bar0):
    assert thermal.read_bar0(bar0({0xE2A8: 127 * 32, 0x2046C: 127 << 8}), GDDR6) is None
    assert thermal.read_bar0(bar0({0xE2A8: 127 * 32, 0x2046C: 127 << 8}), HOTSPOT) is None


def test_a_bar_that_is_too_small_is_an_error_of_the_system(bar0):
    with pytest.raises((OSError, ValueError)):
        thermal.read_bar0(bar0({}, size=4096), GDDR6)


@given(ANY_WORD, ANY_WORD)
def test_whatever_the_registers_hold_the_result_is_sane_or_absent(raw, validity):
    for value in (
        thermal.decode_gddr6(raw),
        thermal.decode_hotspot(raw),
        thermal.decode_blackwell_hotspot(raw),
        thermal.decode_gddr7(raw, validity),
    ):
        celsius = thermal.plausible(value)
        assert celsius is None or thermal.LOWEST <= celsius <= thermal.HIGHEST


@given(st.integers(0, 0xFFFFF))
def test_no_word_of_an_error_is_taken_for_a_reading(low):
    assert thermal.is_dead(0xBAD00000 | low)


def test_the_table_knows_cards_by_exact_id_only():
    cards = thermal.Cards()
    assert cards.card(0x2684).bar0["vram"] == GDDR6  # RTX 4090
    assert cards.card(0x2B85).bar0["vram"] == GDDR7  # RTX 5090
    assert "vram" not in cards.card(0x2C05).bar0  # RTX 5070 Ti: the hotspot alone is known
    for excluded in (0x2484, 0x2488, 0x20B0, 0x2330, 0x0000):  # RTX 3070, which gives random values; HBM; nothing
        assert not cards.card(excluded).bar0
    assert "hotspot" not in cards.card(0x2B85).nvapi  # index 9 is the core there


def test_nvapi_that_is_not_there_is_an_error_in_words():
    with pytest.raises(thermal.NvapiError, match=r"libnvidia-api\.so\.1"):
        thermal.Nvapi()
