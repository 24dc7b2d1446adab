"""A GPU that is gone is a metric with a reason, never a gap; and only what is known is said."""

from __future__ import annotations

import pytest
from gpufleet.gpu_exporter.collectors.presence import STATES, judge
from gpufleet.gpu_exporter.inventory import Gpu, Inventory, Problem, Store
from gpufleet.gpu_exporter.pci import PciGpu
from hypothesis import given
from hypothesis import strategies as st

GPU = Gpu(0, "GPU-1", "0000:65:00.0", 0, "NVIDIA A100")
ON_BUS = PciGpu("0000:65:00.0", 0x20B0, "nvidia")


def verdict(on_bus, inventory, known=None):
    """State and reason of the one GPU."""
    (presence,) = judge(on_bus, inventory, known or [])
    assert presence.bus_id == "0000:65:00.0"
    return presence.state, presence.reason


def test_a_gpu_on_the_bus_and_in_nvml_is_ok():
    assert verdict([ON_BUS], Inventory(gpus=(GPU,), complete=True)) == ("ok", "")


def test_a_gpu_that_nvml_cannot_reach_is_lost():
    inventory = Inventory(gpus=(GPU,), lost={GPU.pci_bus_id: "GPU is lost"}, complete=True)
    assert verdict([ON_BUS], inventory) == ("lost", "NVML: GPU is lost")


def test_a_gpu_that_nvml_does_not_list_is_lost():
    assert verdict([ON_BUS], Inventory(complete=True)) == (
        "lost",
        "on the PCI bus with driver nvidia, not in NVML",
    )


def test_a_gpu_that_fell_off_the_bus_is_lost_and_keeps_its_labels():
    assert verdict([], Inventory(complete=True), [GPU.pci_bus_id]) == ("lost", "it is no longer on the PCI bus")
    store = Store("host")
    store.current = Inventory(gpus=(GPU,), driver_version="575.57.08", complete=True)
    before = store.labels_of(GPU.pci_bus_id)
    store.current = Inventory(problem=Problem("unresponsive", "no answer"), complete=True)
    assert store.labels_of(GPU.pci_bus_id) == before
    assert store.labels_of("0000:99:00.0") == ("", "", "0000:99:00.0", "", "", "host", "")


def test_a_gpu_of_a_virtual_machine_is_passed_through_whatever_nvml_says():
    passed = ON_BUS._replace(driver="vfio-pci")
    for inventory in (Inventory(complete=True), Inventory(problem=Problem("no_library", "x"), complete=True)):
        assert verdict([passed], inventory)[0] == "passthrough"


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("no_library", "no_driver"),
        ("driver_not_loaded", "no_driver"),
        ("driver_mismatch", "driver_mismatch"),
        ("unresponsive", "unresponsive"),
    ],
)
def test_what_nvml_as_a_whole_lacks_is_said_of_each_gpu(kind, state):
    inventory = Inventory(gpus=(GPU,), problem=Problem(kind, "in words"), complete=True)
    assert verdict([ON_BUS], inventory) == (state, "in words")


def test_a_gpu_without_driver_is_not_lost():
    assert verdict([ON_BUS._replace(driver=None)], Inventory(complete=True))[0] == "no_driver"


BUS_IDS = st.sampled_from(["0000:01:00.0", "0000:02:00.0", "0000:03:00.0"])
DRIVERS = st.sampled_from(["nvidia", "vfio-pci", "nouveau", None])
PROBLEMS = st.none() | st.builds(Problem, st.sampled_from(["no_library", "error", "unresponsive"]), st.just("why"))


@given(st.dictionaries(BUS_IDS, DRIVERS), st.sets(BUS_IDS), st.sets(BUS_IDS), PROBLEMS)
def test_every_gpu_has_exactly_one_state_and_ok_only_when_nvml_says_so(on_bus, in_nvml, known, problem):
    gpus = {bus_id: Gpu(0, bus_id, bus_id, None, "") for bus_id in in_nvml | known}
    inventory = Inventory(gpus=tuple(gpus[bus_id] for bus_id in in_nvml), problem=problem, complete=True)
    found = judge(
        [PciGpu(bus_id, 1, driver) for bus_id, driver in on_bus.items()],
        inventory,
        known | in_nvml,
    )
    assert sorted(presence.bus_id for presence in found) == sorted({*on_bus, *in_nvml, *known})
    for presence in found:
        assert presence.state in STATES
        if presence.state == "ok":
            assert presence.bus_id in in_nvml
            assert presence.bus_id in on_bus
            assert problem is None
        else:
            assert presence.reason


@pytest.mark.parametrize("kind", ["no_permission", "error"])
def test_who_may_not_ask_does_not_know(kind):
    inventory = Inventory(problem=Problem(kind, "no"), complete=True)
    assert verdict([ON_BUS], inventory) == ("unknown", "no")


def test_a_gpu_that_blocks_is_unresponsive_and_no_other():
    other = PciGpu("0000:66:00.0", 0x20B0, "nvidia")
    found = judge([ON_BUS, other], Inventory(gpus=(GPU,), complete=True), [], {other.bus_id})
    assert [presence.state for presence in found] == ["ok", "unresponsive"]
