"""Certificates: how many days are left?"""

from __future__ import annotations

import datetime
import typing as t

from ..ask import Unanswered
from ..check import FAILED, OK, UNKNOWN, WARNING, Check, worst
from ..installed import Settings
from ..text import span

ENDS = "max without (job) (gpufleet_certificate_not_after_timestamp_seconds)"
"""Asks for when the certificates of all hosts end; who puts one there writes it for node_exporter."""

_DAY = 86400
_VERSION, _GENERALIZED_TIME = 0xA0, 0x18


def judge_known(results: t.Sequence[t.Mapping[str, t.Any]], settings: Settings, now: float) -> list[Check]:
    """Return one verdict on the certificates that Prometheus knows of; none where it knows of none."""
    rows = [
        {
            "instance": result["metric"].get("instance", ""),
            "path": result["metric"].get("path", ""),
            "seconds_left": round(float(result["value"][1]) - now),
        }
        for result in results
    ]
    if not rows:
        return []
    rows.sort(key=lambda row: row["seconds_left"])
    state = worst(state_of(row["seconds_left"], settings) for row in rows)
    first = rows[0]
    detail = f"{len(rows)} known, the first ({first['instance']} {first['path']}) {left(first['seconds_left'])}"
    return [Check("certificates", "", state, detail, facts={"certificates": rows})]


def judge_served(address: str, certificate: bytes | Unanswered, settings: Settings, now: float) -> Check:
    """Return the verdict on the certificate that is served at an address."""
    if isinstance(certificate, Unanswered):
        return Check("certificate", address, FAILED, str(certificate))
    try:
        rest = not_after(certificate) - now
    except (ValueError, IndexError):
        return Check("certificate", address, UNKNOWN, "what is served is no certificate that can be read")
    return Check("certificate", address, state_of(rest, settings), left(rest), facts={"seconds_left": round(rest)})


def state_of(seconds_left: float, settings: Settings) -> str:
    """Return what so much time means."""
    if seconds_left < settings.certificate_critical_days * _DAY:
        return FAILED
    return WARNING if seconds_left < settings.certificate_warning_days * _DAY else OK


def left(rest: float) -> str:
    """Return the time that is left in words."""
    return f"has {span(rest)} left" if rest > 0 else f"ended {span(-rest)} ago"


def not_after(certificate: bytes) -> float:
    """Return when a certificate in DER ends, in seconds since the epoch (RFC 5280, 4.1). Raises ValueError.

    Python itself tells this only of certificates that it trusts.
    """
    to_be_signed = _children(_children(certificate)[0][1])[0][1]
    parts = _children(to_be_signed)
    if parts[0][0] == _VERSION:  # which may be left out
        parts = parts[1:]
    validity = parts[3][1]  # after serial number, algorithm and issuer
    tag, text = _children(validity)[1]
    # A year of two digits is between 1950 and 2049.
    century = "" if tag == _GENERALIZED_TIME else "20" if text[:2] < b"50" else "19"
    ends = datetime.datetime.strptime(century + text.decode("ascii"), "%Y%m%d%H%M%SZ")
    return ends.replace(tzinfo=datetime.timezone.utc).timestamp()


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """Return tag and content of the elements that ``data`` is a row of (X.690)."""
    found = []
    while data:
        tag, length, start = data[0], data[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[2:start], "big")
        if len(data) < start + length:
            raise ValueError("it was cut")
        found.append((tag, data[start : start + length]))
        data = data[start + length :]
    return found
