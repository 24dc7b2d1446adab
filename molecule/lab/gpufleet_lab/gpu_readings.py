"""What a reading of a scenario is at a time: the same arithmetic as gpu/scenario.c."""

from __future__ import annotations

import math

from .gpu_models import Reading


def value_at(reading: Reading, now: float) -> float:
    """Return what a number, sine, ramp or grow is at a Unix time; 0 for what is no number."""
    form, numbers = _parse(reading)
    if form == "number":
        return numbers[0]
    if form == "grow":
        start, rate, since = numbers
        return start + rate * max(0.0, now - since)
    if form not in {"sine", "ramp"}:
        return 0.0
    least, most, period, ahead = numbers
    part = (now + ahead) / period % 1
    if form == "sine":
        return (least + most) / 2 + (most - least) / 2 * math.sin(math.tau * part)
    return least + (most - least) * part


def integral(reading: Reading, since: float, now: float) -> float:
    """Return the area below a reading between two times."""
    form, numbers = _parse(reading)
    if form not in {"sine", "ramp"}:
        return value_at(reading, now) * max(0.0, now - since)
    return _area(form, numbers, now) - _area(form, numbers, since)


def _area(form: str, numbers: list[float], time: float) -> float:
    least, most, period, ahead = numbers
    mean, half = (least + most) / 2, (most - least) / 2
    turns = (time + ahead) / period
    part = turns % 1
    if form == "sine":
        return mean * time + half * period / math.tau * (1 - math.cos(math.tau * part))
    return mean * period * math.floor(turns) + period * (least * part + half * part * part)


def _parse(reading: Reading) -> tuple[str, list[float]]:
    text = str(reading)
    while text.startswith("slow:"):
        text = text.split(":", 2)[2]
    form, _, rest = text.partition(":")
    try:
        if not rest:
            return "number", [float(int(form, 16)) if form.startswith("0x") else float(form)]
        numbers = [float(number) for number in rest.split(":")]
    except ValueError:
        return "other", []
    if form in {"sine", "ramp"} and len(numbers) == 3:
        numbers.append(0.0)
    return form, numbers
