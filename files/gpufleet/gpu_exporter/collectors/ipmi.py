"""Temperature of the air, from the host's own BMC by ipmitool."""

from __future__ import annotations

import contextlib
import math
import os
import re
import subprocess
import typing as t

from .. import metrics
from ..collector import CollectorError, Readings, State
from ..text import label

if t.TYPE_CHECKING:
    from ..context import Context

_COMMAND = ("ipmitool", "-c", "sdr", "type", "temperature")

# Units of IPMI v2.0, table 43-15, that a temperature has, to degrees Celsius.
_CELSIUS: dict[str, t.Callable[[float], float]] = {
    "degrees C": lambda value: value,
    "degrees F": lambda value: (value - 32) / 1.8,
    "degrees K": lambda value: value - 273.15,
}


class Sensor(t.NamedTuple):
    """One line of ipmitool."""

    name: str
    celsius: float | None
    """None for a sensor that is disabled, absent or not read."""


def parse(output: str) -> list[Sensor]:
    """Return the sensors that ``ipmitool -c sdr`` lists: name, reading, unit, state.

    Source: ipmi_sdr_print_sensor_fc in ipmitool's lib/ipmi_sdr.c. A sensor that cannot be read has no reading and the
    state ns; a discrete one has no unit. What is no such line is no sensor.
    """
    sensors: list[Sensor] = []
    for line in output.splitlines():
        words = [word.strip() for word in line.rsplit(",", 3)]  # a name may have commas, the rest has none
        if len(words) == 4 and words[0]:
            sensors.append(Sensor(_unique(label(words[0]), sensors), _celsius(*words[1:])))
    return sensors


def _unique(name: str, sensors: list[Sensor]) -> str:
    """Boards with two of a kind give both the same name."""
    known = {sensor.name for sensor in sensors}
    number, wanted = 2, name
    while wanted in known:
        number, wanted = number + 1, f"{name} #{number}"
    return wanted


def _celsius(reading: str, unit: str, state: str) -> float | None:
    if unit not in _CELSIUS or state == "ns":
        return None
    try:
        value = _CELSIUS[unit](float(reading))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class IpmiCollector:
    """Asks the BMC, which may take seconds."""

    name = "ipmi"

    def __init__(self, context: Context) -> None:
        settings = context.config.ipmi
        self._timeout = settings.timeout
        self._families = (
            (metrics.INLET_TEMP, re.compile(settings.inlet_pattern)),
            (metrics.EXHAUST_TEMP, re.compile(settings.exhaust_pattern)),
        )

    def collect(self, out: Readings) -> None:
        """Read the sensors once. Raises CollectorError."""
        sensors = parse(_run(self._timeout))
        found = [
            (family, sensor) for family, pattern in self._families for sensor in sensors if pattern.search(sensor.name)
        ]
        if not found:
            names = ", ".join(sensor.name for sensor in sensors[:20]) or "none"
            raise CollectorError(
                f"no temperature sensor of the BMC matches inlet_pattern or exhaust_pattern; it has: {names}"
            )
        for family, sensor in found:
            out.add(family, sensor.celsius, sensor.name)

    def state(self) -> State:
        """Nothing."""
        return None

    def restore(self, state: State) -> None:
        """Nothing."""


def _run(timeout: float) -> str:
    """Return what ipmitool prints. Raises CollectorError."""
    try:
        process = subprocess.Popen(
            _COMMAND,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise CollectorError("ipmitool is not installed: install it, or switch the collector ipmi off") from error
    except OSError as error:
        raise CollectorError(f"ipmitool cannot be run: {error.strerror}") from error
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        _end(process)
        raise CollectorError(f"the BMC has not answered within {timeout:g} s") from error
    text = output.decode(errors="replace")
    # It fails when one sensor of many does; what it printed of the others is good.
    if process.returncode and not parse(text):
        raise CollectorError(_reason(errors.decode(errors="replace"), process.returncode))
    return text


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it. A BMC's driver may hold it in the kernel; then it is left there, since waiting would hold us, too."""
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=1)


def _reason(errors: str, status: int) -> str:
    """Say why ipmitool failed and what helps."""
    words = next((line.strip() for line in errors.splitlines() if line.strip()), f"exit status {status}")
    if "Could not open device" not in errors:
        return f"ipmitool failed: {words}"
    return (
        f"{words}: the host has no BMC, or its driver is not loaded (modprobe ipmi_si ipmi_devintf), "
        "or the service may not open /dev/ipmi0"
    )
