"""Air temperatures come from the sensors that were meant, or not at all, and a BMC that hangs holds nobody up."""

from __future__ import annotations

import math
import time

import pytest
from gpufleet.gpu_exporter import config
from gpufleet.gpu_exporter.collector import CollectorError, Readings
from gpufleet.gpu_exporter.collectors.ipmi import IpmiCollector, Sensor, parse
from gpufleet.gpu_exporter.context import Context
from gpufleet.gpu_exporter.inventory import Store
from hypothesis import given
from hypothesis import strategies as st

DELL = """Inlet Temp,21,degrees C,ok
Exhaust Temp,35,degrees C,ok
Temp,48,degrees C,ok
Temp,51.500,degrees C,ok
GPU9 Temp,,,ns
"""
SUPERMICRO = "CPU1 Temp,44,degrees C,ok\nSystem Inlet,disabled,degrees C,ns\nAmbient,77,degrees F,ok\n"


@pytest.fixture
def ipmitool(tmp_path, monkeypatch):
    """Returns a function that puts a script in the place of ipmitool."""

    def install(script):
        (tmp_path / "ipmitool").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "ipmitool").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return install


def collect(**settings):
    section = config.IpmiSection(**settings)
    out = Readings()
    IpmiCollector(Context(config.Config(ipmi=section), Store("host"))).collect(out)
    return out.families


def test_inlet_and_exhaust_are_found_by_name(ipmitool):
    ipmitool(f"""[ "$*" = "-c sdr type temperature" ] || exit 9\ncat <<'X'\n{DELL}X""")
    assert collect() == {"IPMI_INLET_TEMP": [[21.0, "Inlet Temp"]], "IPMI_EXHAUST_TEMP": [[35.0, "Exhaust Temp"]]}


def test_the_patterns_are_the_operators(ipmitool):
    ipmitool(f"cat <<'X'\n{DELL}X")
    assert collect(inlet_pattern="^Temp", exhaust_pattern="^$") == {
        "IPMI_INLET_TEMP": [[48.0, "Temp"], [51.5, "Temp #2"]]  # the same name twice would be the same series twice
    }


def test_a_disabled_sensor_has_no_value_and_fahrenheit_is_converted(ipmitool):
    ipmitool(f"cat <<'X'\n{SUPERMICRO}X")
    assert collect() == {"IPMI_INLET_TEMP": [[25.0, "Ambient"]]}


def test_one_failed_sensor_does_not_hide_the_others(ipmitool):
    ipmitool(f"cat <<'X'\n{DELL}X\nexit 1")
    assert collect()["IPMI_INLET_TEMP"] == [[21.0, "Inlet Temp"]]


def test_a_board_without_such_sensors_is_told_what_it_has(ipmitool):
    ipmitool("echo 'CPU Temp,40,degrees C,ok'")
    with pytest.raises(CollectorError, match="CPU Temp"):
        collect()


def test_without_device_the_error_has_the_fix(ipmitool):
    ipmitool("echo 'Could not open device at /dev/ipmi0 or /dev/ipmi/0: No such file or directory' >&2; exit 1")
    with pytest.raises(CollectorError, match="modprobe ipmi_si ipmi_devintf"):
        collect()


def test_without_ipmitool_the_error_has_the_fix(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CollectorError, match="install it"):
        collect()


def test_a_bmc_that_hangs_is_given_up(ipmitool):
    ipmitool("exec sleep 60")
    began = time.monotonic()
    with pytest.raises(CollectorError, match=r"within 0\.2 s"):
        collect(timeout=0.2)
    assert time.monotonic() - began < 5


@given(st.text() | st.lists(st.tuples(st.text(), st.text(), st.text(), st.text()).map(",".join)).map("\n".join))
def test_no_output_is_too_strange(text):
    sensors = parse(text)
    assert len({sensor.name for sensor in sensors}) == len(sensors)
    assert all(sensor.celsius is None or math.isfinite(sensor.celsius) for sensor in sensors)


NAMES = st.text("abc ,T", min_size=1).map(str.strip).filter(bool)


@given(NAMES, st.floats(-50, 200))
def test_a_reading_is_served_as_it_was_printed(name, value):
    assert parse(f"{name},{value:.3f},degrees C,ok") == [Sensor(name, float(f"{value:.3f}"))]
    assert parse(f"{name},{value:.3f},RPM,ok") == [Sensor(name, None)]
