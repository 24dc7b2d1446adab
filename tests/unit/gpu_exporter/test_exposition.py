"""What is served is what Prometheus reads, whatever a container calls itself."""

from __future__ import annotations

import re

from gpufleet.gpu_exporter import exposition, metrics
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families


def parsed(rows):
    return list(text_string_to_metric_families(exposition.render(rows).decode()))


def test_a_counter_keeps_its_name_and_type():
    (family,) = parsed({"gpu_energy_joules_total": [[12.5, "0", "GPU-1", "", "", "", "", ""]]})
    assert family.type == "counter"
    (sample,) = family.samples
    assert (sample.name, sample.value) == ("gpu_energy_joules_total", 12.5)


def test_dcgms_counters_keep_their_name_without_total():
    (family,) = parsed({"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": [[12, "0", "GPU-1", "", "", "", "", ""]]})
    assert family.samples[0].name == "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"


def test_empty_labels_are_left_out():
    (family,) = parsed({"DCGM_FI_DEV_FB_USED": [[1, "0", "GPU-1", "", "", "", "", "", "", ""]]})
    assert family.samples[0].labels == {"gpu": "0", "UUID": "GPU-1"}


@given(st.text(min_size=1).filter(lambda text: text.isprintable() or "\n" in text))
def test_any_name_of_a_user_comes_through(user):
    (family,) = parsed({"ds01_user_gpus_allocated": [[1, user]]})
    assert family.samples[0].labels == {"user": user}


def test_every_family_says_what_it_is():
    for family in metrics.FAMILIES.values():
        assert family.kind in ("gauge", "counter")
        assert family.help.endswith((".", "0"))
        assert len(set(family.labels)) == len(family.labels)


def test_our_own_labels_are_in_snake_case():
    inherited = {"UUID", "modelName", "GPU_I_ID", "GPU_I_PROFILE"}  # DCGM's
    labels = {label for family in metrics.FAMILIES.values() for label in family.labels} - inherited
    assert [label for label in labels if not re.fullmatch("[a-z][a-z0-9_]*", label)] == []
