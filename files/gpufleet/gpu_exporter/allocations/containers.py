"""What Docker's JSON says about a container, checked once and kept small."""

from __future__ import annotations

import typing as t

from .slots import split

_ENVIRONMENT = "NVIDIA_VISIBLE_DEVICES="
# Images of CUDA set the variable to "all" by themselves. Only NVIDIA's runtimes look at it: nvidia, nvidia-cdi, ...
_RUNTIME = "nvidia"
_DEVICES_LIMIT = 128
"""Most devices of one container: 16 GPUs with 7 MIG instances each. What asks for more is somebody's nonsense."""
_GPU_CAPABILITIES = {"gpu", "nvidia"}


class Listed(t.NamedTuple):
    """A container in the list of all."""

    id: str
    name: str
    labels: dict[str, str]
    running: bool


class Detail(t.NamedTuple):
    """What only the inspection of a container tells. It does not change as long as the container is there."""

    devices: tuple[str, ...]
    """The GPUs it was given: UUIDs, indices or "all"."""
    cgroup_parent: str
    labels: dict[str, str]
    """Those that were given to the container; its image may be anybody's, and says nothing here."""


def listed(entry: t.Any) -> Listed | None:
    """Return an entry of Docker's list, None when it is none."""
    if not isinstance(entry, dict) or not isinstance(entry.get("Id"), str) or not entry["Id"]:
        return None
    # A paused container keeps what it has. One that restarts has nothing until it runs.
    return Listed(entry["Id"], _name(entry), _labels(entry.get("Labels")), entry.get("State") in ("running", "paused"))


def _name(entry: dict[str, t.Any]) -> str:
    """Other names, of links, have more slashes: /other/alias."""
    names = [name.lstrip("/") for name in _list(entry.get("Names")) if isinstance(name, str)]
    return next((name for name in names if name and "/" not in name), entry["Id"][:12])


def detail(inspection: dict[str, t.Any], uuids_label: str, image_labels: t.Mapping[str, t.Any]) -> Detail:
    """Return what counts of an inspection."""
    host, settings = _dict(inspection.get("HostConfig")), _dict(inspection.get("Config"))
    parent = host.get("CgroupParent")
    labels = {key: value for key, value in _labels(settings.get("Labels")).items() if image_labels.get(key) != value}
    devices = _requested(host) or split(labels.get(uuids_label, "")) or _visible(host, settings)
    return Detail(tuple(dict.fromkeys(devices))[:_DEVICES_LIMIT], parent if isinstance(parent, str) else "", labels)


def _requested(host: dict[str, t.Any]) -> list[str]:
    """Return what --gpus or a device of CDI asked for."""
    devices: list[str] = []
    for request in map(_dict, _list(host.get("DeviceRequests"))):
        if request.get("Driver") == "cdi":
            devices += _cdi(request)
        elif request.get("Driver") == "nvidia" or _wants_gpu(request):
            named = [device for word in _words(request.get("DeviceIDs")) for device in split(word)]
            devices += named or _counted(request.get("Count"))
    return devices


def _wants_gpu(request: dict[str, t.Any]) -> bool:
    """Without a name, Docker takes the driver that has the capabilities; the list is one of alternatives."""
    return not request.get("Driver") and any(
        _GPU_CAPABILITIES.intersection(_words(group)) for group in _list(request.get("Capabilities"))
    )


def _cdi(request: dict[str, t.Any]) -> list[str]:
    """Return "0" for nvidia.com/gpu=0."""
    names = (word.partition("=") for word in _words(request.get("DeviceIDs")))
    return [device for kind, _, device in names if kind.startswith("nvidia.com/") and device]


def _counted(count: t.Any) -> list[str]:
    """Docker gives the first GPUs for a count, and all of them for -1."""
    if not isinstance(count, int) or isinstance(count, bool):
        return []
    return ["all"] if count < 0 else [str(number) for number in range(min(count, 64))]


def _visible(host: dict[str, t.Any], settings: dict[str, t.Any]) -> list[str]:
    """Return the variable of NVIDIA's container runtime. none and void mean that there are no GPUs."""
    if _RUNTIME not in str(host.get("Runtime")):
        return []
    values = [word[len(_ENVIRONMENT) :] for word in _words(settings.get("Env")) if word.startswith(_ENVIRONMENT)]
    # A path says that the runtime finds them elsewhere, which Kubernetes does, and not Docker.
    return [word for word in split(values[-1] if values else "") if word not in ("none", "void") and word[0] != "/"]


def _dict(value: t.Any) -> dict[str, t.Any]:
    return value if isinstance(value, dict) else {}


def _list(value: t.Any) -> list[t.Any]:
    return value if isinstance(value, list) else []


def _words(value: t.Any) -> list[str]:
    return [word for word in _list(value) if isinstance(word, str) and word]


def _labels(value: t.Any) -> dict[str, str]:
    return {key: word for key, word in _dict(value).items() if isinstance(word, str)}
