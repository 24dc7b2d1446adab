"""DS01's gpu-state.json, in both of its forms."""

from __future__ import annotations

import json
import os
import typing as t

from .slots import split

_LARGEST = 32 << 20


class StateFileError(Exception):
    """The file is there and cannot be used. The message is for the operator."""


class Entry(t.NamedTuple):
    """One container and what it holds."""

    container: str
    user: str
    """Empty when the file does not say."""
    interface: str
    """Empty when the file does not say."""
    devices: tuple[str, ...]


def read(path: str) -> tuple[list[Entry], list[str]] | None:
    """Return what the file says and what of it could not be used; None when there is no file.

    Raises StateFileError.
    """
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > _LARGEST:
                raise StateFileError(f"{path} is larger than {_LARGEST >> 20} MiB")
            text = file.read(_LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StateFileError(f"{path}: {error.strerror}") from error
    try:
        return parse(text)
    except StateFileError as error:
        raise StateFileError(f"{path}: {error}") from error


def parse(text: bytes | str) -> tuple[list[Entry], list[str]]:
    """Return the entries of a file, and in words what of it is none. Raises StateFileError."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StateFileError("it is no JSON") from error
    for key, entries in (("allocations", _allocations), ("gpus", _gpus)):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            bad: list[str] = []
            return list(entries(content[key], bad)), bad
    raise StateFileError("it has neither allocations nor gpus")


def _allocations(entries: dict[str, t.Any], bad: list[str]) -> t.Iterator[Entry]:
    """``{container: {user, gpu_id, stopped_at}}``. A container that was stopped holds nothing any more."""
    for container, entry in entries.items():
        devices = _devices(entry.get("gpu_id")) if isinstance(entry, dict) else ()
        if not devices or not container:
            bad.append(f"allocations: {container[:60]!r} names no GPU")
        elif not entry.get("stopped_at"):
            yield Entry(container, _word(entry.get("user")), _word(entry.get("interface")), devices)


def _gpus(slots: dict[str, t.Any], bad: list[str]) -> t.Iterator[Entry]:
    """``{slot: {containers: [{container, user, interface}]}}``."""
    for slot, entry in slots.items():
        containers = entry.get("containers") if isinstance(entry, dict) else None
        if not isinstance(containers, list) or not slot:
            bad.append(f"gpus: {slot[:60]!r} has no list of containers")
            continue
        device = _word(entry.get("mig_uuid")) or _word(entry.get("uuid")) or slot
        for holder in containers:
            if not isinstance(holder, dict) or not _word(holder.get("container")):
                bad.append(f"gpus: {slot[:60]!r} has a container without a name")
            elif not holder.get("stopped_at"):
                name, user, interface = (_word(holder.get(key)) for key in ("container", "user", "interface"))
                yield Entry(name, user, interface, (device,))


def _devices(value: t.Any) -> tuple[str, ...]:
    """A GPU is written as a number, as text, or as a list of these."""
    if isinstance(value, list):
        return tuple(device for item in value if not isinstance(item, list) for device in _devices(item))
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10000:
        return (str(value),)
    return tuple(split(value)) if isinstance(value, str) else ()


def _word(value: t.Any) -> str:
    return value if isinstance(value, str) else ""
