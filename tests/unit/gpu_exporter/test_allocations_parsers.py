"""Whatever a label, a file, a path or an answer holds: no parser breaks, and none makes up a GPU or a user."""

from __future__ import annotations

import json

import pytest
from gpufleet.gpu_exporter import config
from gpufleet.gpu_exporter.allocations import containers, interfaces, processes, state_file, users
from gpufleet.gpu_exporter.allocations.slots import Slot, Slots, mig_equivalents, split
from gpufleet.gpu_exporter.inventory import Gpu, Inventory, MigInstance
from gpufleet.gpu_exporter.text import label
from hypothesis import given
from hypothesis import strategies as st

ID = "0123456789abcdef" * 4
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda of: st.lists(of, max_size=4) | st.dictionaries(st.text(), of, max_size=4),
    max_leaves=12,
)
GPUS = st.lists(
    st.builds(
        Gpu,
        index=st.integers(0, 15),
        uuid=st.uuids().map("GPU-{}".format),
        pci_bus_id=st.just(""),
        minor=st.none(),
        model=st.just(""),
        mig_enabled=st.booleans(),
        mig=st.lists(
            st.builds(
                MigInstance,
                uuid=st.uuids().map("MIG-{}".format),
                gpu_instance=st.integers(0, 13),
                compute_instance=st.just(0),
                profile=st.sampled_from(["1g.5gb", "3g.20gb"]),
            ),
            max_size=7,
        ).map(tuple),
    ),
    max_size=8,
    unique_by=lambda gpu: gpu.index,
)


@pytest.mark.parametrize(
    ("profile", "size"),
    [
        ("1g.5gb", 1 / 7),
        ("1g.5gb+me", 1 / 7),
        ("1g.12gb+me.all", 1 / 7),
        ("7g.80gb", 1.0),
        ("1c.3g.20gb", 1 / 7),
        ("2c.7g.80gb", 2 / 7),
        ("0g.5gb", None),
        ("8g.5gb", None),
        ("3g", None),
        ("", None),
        ("\u0663g.20gb", None),
    ],
)
def test_the_size_of_a_mig_device_is_its_compute_slices_by_seven(profile, size):
    assert mig_equivalents(profile) == size


@given(st.text() | st.from_regex(r"([0-9]c\.)?[0-9]g\.[0-9]+gb", fullmatch=True))
def test_no_profile_is_larger_than_a_gpu(profile):
    size = mig_equivalents(profile)
    assert size is None or 0 < size <= 1


@given(GPUS, st.text() | st.from_regex(r"[0-9]{1,3}([:.][0-9]{1,3})?|(GPU|MIG)-[0-9a-f/-]*", fullmatch=True))
def test_a_name_finds_only_what_has_that_name(gpus, device):
    slots = Slots(Inventory(gpus=tuple(gpus)), "{gpu}.{mig}")
    known = {slot.uuid for slot in slots.all()}
    found = slots.find(device)
    assert found
    for slot in found:
        whole = [gpu for gpu in gpus if str(gpu.index) == slot.name.partition(".")[0]]
        if slot.uuid in known and slot.uuid:
            assert (
                device == "all"
                or device.lower() in slot.uuid.lower()
                or device[0].isdigit()
                or "/" in device
                or any(gpu.uuid.lower().startswith(device.lower()) for gpu in whole)
            )
        else:
            assert slot.uuid in ("", label(device))
            assert slot.name == "unknown" or device[0].isdigit()


@given(GPUS)
def test_every_gpu_and_mig_device_is_found_by_its_own_names(gpus):
    slots = Slots(Inventory(gpus=tuple(gpus)), "{gpu}.{mig}")
    for gpu in gpus:
        migs = gpu.mig if gpu.mig_enabled else ()
        for number, mig in enumerate(migs):
            one = [Slot(f"{gpu.index}.{number}", mig.uuid, mig.profile, mig=True)]
            assert (
                slots.find(mig.uuid)
                == slots.find(f"{gpu.index}:{number}")
                == slots.find(f"{gpu.index}.{number}")
                == one
            )
        whole = [mig.uuid for mig in migs] or [gpu.uuid]
        assert [slot.uuid for slot in slots.find(gpu.uuid)] == whole
        assert [slot.uuid for slot in slots.find(str(gpu.index))] == whole
    names = [slot.name for slot in slots.all()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("line", "container", "docker"),
    [
        (f"0::/system.slice/docker-{ID}.scope", ID, True),
        (f"0::/system.slice/docker-{ID}.scope/init.scope", ID, True),
        (f"12:memory:/docker/{ID}\n11:cpu:/docker/{ID}", ID, True),
        (f"0::/ds01.slice/ds01-a.slice/ds01-a-bob.slice/docker-{ID}.scope", ID, True),
        (f"1:name=systemd:/ds01-a-bob.slice/{ID}", ID, False),
        (f"0::/docker/{ID}/docker/{'f' * 64}", ID, True),  # the inner one is not this host's
        (f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope", ID, False),
        (f"0::/kubepods/besteffort/pod1/{ID}", ID, False),
        (f"0::/machine.slice/libpod-{ID}.scope/container", ID, False),
        (f"0::/machine.slice/libpod-conmon-{ID}.scope", "", False),
        (f"0::/system.slice/crio-conmon-{ID}.scope", "", False),
        (f"0::/system.slice/nerdctl-{ID}.scope", ID, False),
        ("13:pids:/\n0::/user.slice/user-1001.slice/session-4.scope", "", False),
        ("0::/system.slice/docker.service", "", False),
        (f"0::/docker/{ID[:63]}", "", False),
        (f"0::/docker/{ID.upper()}", "", False),
        ("", "", False),
    ],
)
def test_containers_by_control_group(line, container, docker):
    assert processes.home(line + "\n")[:2] == (container, docker)


@given(st.text() | st.lists(st.sampled_from(["0", ":", "/", ID, "docker-", ".scope", "\n", "x"])).map("".join))
def test_a_container_is_only_what_the_path_says(text):
    found = processes.home(text)
    assert found.container in ("", ID) or found.container in text
    assert found.path in text


@given(st.text() | st.from_regex(r"Uid:\t[0-9]{1,12}\t", fullmatch=True))
def test_a_status_has_a_user_or_is_refused(text):
    try:
        number = processes.user_number(text)
    except ValueError:
        return
    assert str(number) in text or int(text.split()[1]) == number


@given(st.text())
def test_no_path_of_a_control_group_is_too_strange(path):
    assert users.user_of_slice(path) != ""


@given(st.text(), st.dictionaries(st.text(), st.text()), st.text())
def test_everything_has_a_user_and_an_interface(name, labels, parent):
    settings = config.AllocationsSection()
    assert users.Users(settings, "/nowhere").of_container(name, labels, parent)
    assert interfaces.interface(name, labels, settings) in interfaces.INTERFACES


@given(st.lists(st.text() | st.from_regex(r"[a-z]*:x:[0-9]{0,12}:0:::\n", fullmatch=True)))
def test_passwd_gives_names_of_its_own(lines):
    for number, name in users.parse_passwd(lines).items():
        fields = [line.rstrip("\n").split(":") for line in lines]
        named = [words[2] for words in fields if len(words) == 7 and words[0] == name]
        assert any(digits.isdigit() and int(digits) == number for digits in named)


def test_passwd_is_read_again_when_it_has_changed(tmp_path):
    file = tmp_path / "passwd"
    passwd = users.Passwd(str(file))
    assert passwd.name(1001) == "1001"
    file.write_text("alice:x:1001:1001:::\nalso:x:1001:1001:::\n")
    assert passwd.name(1001) == "alice"
    file.write_text("robert:x:1001:1001:::\n")
    assert passwd.name(1001) == "robert"


@given(JSON)
def test_no_entry_of_dockers_list_is_too_strange(entry):
    found = containers.listed(entry)
    assert found is None or found.id == entry["Id"]


HOST_CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "DeviceRequests": JSON
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={"Count": JSON, "DeviceIDs": JSON, "Capabilities": JSON | st.just([["gpu"]]), "Driver": JSON},
            )
        ),
        "CgroupParent": JSON,
        "Runtime": JSON,
    },
)


@given(JSON | st.fixed_dictionaries({"HostConfig": JSON | HOST_CONFIG, "Config": JSON}))
def test_no_inspection_is_too_strange(inspection):
    found = containers.detail(inspection if isinstance(inspection, dict) else {}, "ds01.gpu.uuids", {})
    assert all(device and isinstance(device, str) for device in found.devices)
    assert len(set(found.devices)) == len(found.devices)
    words = json.dumps(inspection)
    for device in found.devices:  # it comes from the answer, or from a count
        assert device == "all" or device.isdigit() or json.dumps(device)[1:-1] in words


@given(st.text())
def test_a_list_of_devices_has_no_empty_ones(words):
    assert all(word == word.strip() != "" for word in split(words))


@given(st.binary() | st.text() | JSON.map(json.dumps))
def test_no_state_file_is_too_strange(text):
    try:
        entries, _ = state_file.parse(text)
    except state_file.StateFileError:
        return
    assert all(entry.container and entry.devices for entry in entries)


ENTRY = st.fixed_dictionaries({}, optional={"user": JSON, "gpu_id": JSON, "stopped_at": JSON, "interface": JSON})
SLOT = st.fixed_dictionaries({}, optional={"containers": st.lists(JSON | ENTRY) | JSON, "mig_uuid": JSON})


@given(
    st.fixed_dictionaries({"allocations": st.dictionaries(st.text(), ENTRY | JSON)})
    | st.fixed_dictionaries({"gpus": st.dictionaries(st.text(), SLOT | JSON)})
)
def test_entries_of_the_state_file_are_used_or_named(content):
    entries, bad = state_file.parse(json.dumps(content))
    assert all(entry.container and all(entry.devices) for entry in entries)
    assert all(isinstance(words, str) for words in bad)
    ((kind, given_entries),) = content.items()
    if kind == "allocations":
        stopped = sum(isinstance(entry, dict) and bool(entry.get("stopped_at")) for entry in given_entries.values())
        assert len(entries) + len(bad) + stopped >= len(given_entries)


@given(st.text(st.characters(codec=None)) | JSON)
def test_a_label_can_be_written(words):
    assert len(label(words).encode()) <= 800
