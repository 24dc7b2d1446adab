"""What the user sees: lines for people, or lines of JSON."""

from __future__ import annotations

import json
import sys
import time
import typing as t

from .devices import Target
from .protocol import End, Note, Ready, Report, Sample

_GIB = 1 << 30


class Summary(t.NamedTuple):
    """How it went on one GPU."""

    end: End
    seconds: float
    """Under load."""
    measured: float | None
    """Mean of the second half, when the loop had settled."""


class View(t.Protocol):
    """One way to show it. Raises BrokenPipeError when nobody looks any more."""

    def report(self, target: Target, goal: float, report: Report) -> None:
        """Show what a worker said."""

    def ended(self, target: Target, goal: float, summary: Summary) -> None:
        """Show how it went on a GPU."""


class Lines:
    """For people."""

    def report(self, target: Target, goal: float, report: Report) -> None:
        """See View."""
        if isinstance(report, Ready):
            kernel = f"kernels of {1000 * report.kernel_seconds:.2g} ms"
            self._line(target, f"{target.model}, {report.framework}, {kernel}")
        elif isinstance(report, Note):
            self._line(target, report.text)
        elif isinstance(report, Sample):
            self._line(target, "  ".join(_words(target, goal, report)))

    def ended(self, target: Target, goal: float, summary: Summary) -> None:
        """See View."""
        words = [f"ended after {summary.seconds:.0f} s", f"target {_percent(goal)}"]
        if summary.measured is not None:
            words.append(f"measured {_percent(summary.measured)} in the second half")
        if summary.end.text:
            words.append(summary.end.text)
        self._line(target, ", ".join(words))

    @staticmethod
    def _line(target: Target, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {target.title:<8}  {text}", flush=True)


def _words(target: Target, goal: float, sample: Sample) -> t.Iterator[str]:
    yield f"target {_percent(goal)}"
    # Of a MIG device nobody measures the utilisation; what the kernels took by our clock stands in, and says so.
    yield f"measured {_percent(sample.measured)}" if sample.measured is not None else f"busy {_percent(sample.busy)}"
    yield f"duty {_percent(sample.duty)}" + (" (its limit)" if sample.at_limit and goal < 1 else "")
    if sample.used is not None and sample.total is not None:
        taken = "" if sample.taken is None else f", {sample.taken / _GIB:.1f} ours"
        yield f"memory {sample.used / _GIB:.1f} of {sample.total / _GIB:.1f} GiB{taken}"
    if sample.watts is not None:
        yield f"{sample.watts:.0f} W"
    if sample.celsius is not None:
        yield f"{sample.celsius:.0f} °C"


def _percent(part: float) -> str:
    return f"{100 * part:3.0f} %"


class JsonLines:
    """For programs: one object a line; its key "event" says what it is."""

    def report(self, target: Target, goal: float, report: Report) -> None:
        """See View."""
        if isinstance(report, Ready):
            self._line(target, "ready", framework=report.framework, kernel_seconds=round(report.kernel_seconds, 6))
        elif isinstance(report, Note):
            self._line(target, "note", text=report.text)
        elif isinstance(report, Sample):
            self._line(
                target,
                "sample",
                target_percent=_number(goal),
                measured_percent=_number(report.measured),
                duty_percent=_number(report.duty),
                busy_percent=_number(report.busy),
                at_limit=report.at_limit,
                memory_taken_bytes=report.taken,
                memory_used_bytes=report.used,
                memory_total_bytes=report.total,
                power_watts=report.watts,
                temperature_celsius=report.celsius,
            )

    def ended(self, target: Target, goal: float, summary: Summary) -> None:
        """See View."""
        self._line(
            target,
            "end",
            status=summary.end.status,
            text=summary.end.text,
            seconds=round(summary.seconds, 1),
            target_percent=_number(goal),
            measured_percent=_number(summary.measured),
        )

    @staticmethod
    def _line(target: Target, event: str, **content: t.Any) -> None:
        head = {"event": event, "time": round(time.time(), 3), "device": target.name, "uuid": target.uuid}
        print(json.dumps({**head, **content}), flush=True)


def _number(part: float | None) -> float | None:
    return None if part is None else round(100 * part, 1)


def say(text: str) -> None:
    """Say something that is about no single GPU."""
    print(f"gpu-stress: {text}", file=sys.stderr, flush=True)
