"""Errors on the bus and errors of the GPU: counted once, from the first one on."""

from __future__ import annotations

import pytest
from gpufleet.gpu_exporter import pci
from gpufleet.gpu_exporter.collector import Readings
from gpufleet.gpu_exporter.collectors.xid import KernelLog, Tally, XidCollector, parse_kernel_message
from gpufleet.gpu_exporter.config import Config
from gpufleet.gpu_exporter.context import Context
from gpufleet.gpu_exporter.inventory import Inventory, Store
from hypothesis import given
from hypothesis import strategies as st

AER = "RxErr 3\nBadTLP 0\nBadDLLP 1\nRollover 0\nTimeout 0\nNonFatalErr 0\nCorrIntErr 0\nHeaderOF 0\nTOTAL_ERR_COR 4\n"


def test_the_kernels_total_is_not_counted_twice():
    counters = pci.parse_aer(AER)
    assert counters["RxErr"] == 3
    assert sum(counters.values()) == 4
    assert "TOTAL_ERR_COR" not in counters


@given(st.text())
def test_another_file_is_a_value_error_and_no_value(text):
    try:
        counters = pci.parse_aer(text)
    except ValueError:
        return
    assert all(isinstance(count, int) for count in counters.values())


@pytest.mark.parametrize(
    ("nvml", "sysfs"),
    [("00000000:65:00.0", "0000:65:00.0"), ("0001:AB:00.0", "0001:ab:00.0"), ("00000002:0A:00.0", "0002:0a:00.0")],
)
def test_bus_ids_are_written_as_sysfs_does(nvml, sysfs):
    assert pci.sysfs_bus_id(nvml) == sysfs


def test_only_gpus_of_nvidia_are_found(tmp_path):
    for name, vendor, kind in [
        ("0000:01:00.0", "0x10de", "0x030000"),
        ("0000:02:00.0", "0x10de", "0x030200"),
        ("0000:01:00.1", "0x10de", "0x040300"),  # the card's sound
        ("0000:03:00.0", "0x1002", "0x030000"),
        ("0000:02:00.4", "0x10de", "0x030200"),  # a part of the card, for a virtual machine
        ("0000:04:00.0", "junk", "0x030000"),
    ]:
        directory = tmp_path / "bus/pci/devices" / name
        directory.mkdir(parents=True)
        (directory / "vendor").write_text(vendor + "\n")
        (directory / "class").write_text(kind + "\n")
        (directory / "device").write_text("0x20b0\n")
        if name == "0000:02:00.4":
            (directory / "physfn").symlink_to("../0000:02:00.0")
    assert [gpu.bus_id for gpu in pci.gpus(str(tmp_path))] == ["0000:01:00.0", "0000:02:00.0"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("NVRM: Xid (PCI:0000:65:00): 79, pid=1, name=x, GPU has fallen off the bus.", ("0000:65:00.0", 79)),
        ("NVRM: Xid (PCI:0000:0A:00): 31, Ch 00000010, MMU Fault", ("0000:0a:00.0", 31)),
        ("NVRM: Xid (PCI:00000001:65:00.0): 119, Timeout waiting for RPC", ("0001:65:00.0", 119)),
        ("NVRM: loading NVIDIA UNIX x86_64 Kernel Module", None),
        ("NVRM: Xid (PCI:0000:65:00): pid=1", None),
        # A program of this name that crashes is no error of a GPU, and a number without end is no code.
        ("NVRM: Xid (PCI:[18500]: segfault at 0 ip 0 sp 0 error 4 in NVRM: Xid (PCI:0000:65:00): 79, x[1000]", None),
        ("NVRM: Xid (PCI:0000:65:00): 123456, x", None),
    ],
)
def test_the_kernels_words_for_an_error(line, error):
    assert parse_kernel_message(line) == error


@given(st.text())
def test_no_line_is_too_strange(line):
    parse_kernel_message(line)


def test_an_error_that_both_sources_tell_of_is_one():
    tally = Tally()
    tally.saw("nvml", "a", 79)
    tally.saw("log", "a", 79)
    tally.saw("log", "a", 79)
    assert tally.count("a", 79) == 2
    assert tally.count("b", 79) == 0


def test_counts_survive_a_new_process():
    tally, after = Tally(), Tally()
    tally.saw("nvml", "a", 79)
    after.restore(tally.state())
    after.saw("nvml", "a", 79)
    assert after.count("a", 79) == 2
    assert after.newest == {"a": 79}


@given(st.lists(st.tuples(st.sampled_from(["nvml", "log"]), st.sampled_from("ab"), st.sampled_from([31, 79]))))
def test_counts_never_go_back_and_never_exceed_what_was_told(told):
    tally, before = Tally(), 0
    for number, (source, bus_id, code) in enumerate(told, 1):
        tally.saw(source, bus_id, code)
        total = sum(tally.count(gpu, xid) for gpu in "ab" for xid in (31, 79))
        assert before <= total <= number
        before = total


def record(number, message, facility=0):
    return f"{facility << 3 | 4},{number},{number * 1000},-;{message}\n"


def test_the_kernels_log_is_read_from_now_on_and_goes_on_in_a_new_process(tmp_path):
    path = tmp_path / "kmsg"
    path.write_text(record(1, "before"))
    log = KernelLog(str(path))
    assert list(log.messages()) == []
    with path.open("a") as file:
        file.write(record(2, "first"))
    assert list(log.messages()) == ["first"]

    with path.open("a") as file:
        file.write(record(3, "second") + " SUBSYSTEM=pci\n")
    after = KernelLog(str(path))
    after.sequence = log.sequence
    assert list(after.messages()) == ["second"]


def test_a_quiet_log_is_not_counted_from_its_beginning_by_a_new_process(tmp_path):
    path = tmp_path / "kmsg"
    path.write_text(record(1, "last week's"))
    log = KernelLog(str(path))
    assert list(log.messages()) == []
    after = KernelLog(str(path))
    after.sequence = log.sequence
    assert list(after.messages()) == []


def test_what_programs_write_into_the_kernels_log_is_not_the_kernels(tmp_path):
    path = tmp_path / "kmsg"
    path.write_text("")
    log = KernelLog(str(path))
    assert list(log.messages()) == []
    with path.open("a") as file:
        file.write(record(2, "forged", facility=1) + record(3, "true"))
    assert list(log.messages()) == ["true"]


def test_made_up_codes_do_not_pile_up():
    tally = Tally()
    for code in range(5000):
        tally.saw("log", "a", code)
    assert len(tally.codes("a")) == 100
    assert tally.count("a", 99) == 1


def test_a_log_that_may_not_be_read_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        list(KernelLog(str(tmp_path / "absent")).messages())


def test_an_error_of_a_gpu_that_nvml_never_named_is_served_and_one_of_a_gpu_that_is_not_there_is_not(tmp_path):
    """It may have died before NVML came up, which is what the kernel's log is read for."""
    device = tmp_path / "sys/bus/pci/devices/0000:65:00.0"
    device.mkdir(parents=True)
    for name, text in (("vendor", "0x10de"), ("class", "0x030200"), ("device", "0x20b0")):
        (device / name).write_text(f"{text}\n")
    log = tmp_path / "kmsg"
    log.write_text("")
    settings = Config()
    settings.paths.sysfs = str(tmp_path / "sys")
    settings.xid.kernel_log, settings.xid.kernel_log_path = True, str(log)
    context = Context(settings, Store("host"))
    context.inventory.current = Inventory(complete=True)
    collector = XidCollector(context)
    collector.collect(Readings())
    with log.open("a") as file:
        file.write(record(1, "NVRM: Xid (PCI:0000:65:00): 79, x") + record(2, "NVRM: Xid (PCI:0000:66:00): 79, x"))
    out = Readings()
    collector.collect(out)
    counted = {(row[3], row[-1]): row[0] for row in out.families["gpu_xid_errors_total"]}
    assert counted["0000:65:00.0", "79"] == 1
    assert {bus_id for bus_id, _ in counted} == {"0000:65:00.0"}
