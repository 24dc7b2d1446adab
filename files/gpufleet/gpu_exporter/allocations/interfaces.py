"""The way by which a container came to be, in DS01's words."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from ..config import AllocationsSection

MANAGED = ("orchestration", "atomic", "api")
"""DS01's own ways."""
INTERFACES = (*MANAGED, "other", "docker")
"""All that a container can have."""
BARE_METAL = "bare_metal"
"""A process outside of any container."""

# Labels that VS Code, Docker Compose and Jupyter put on their containers begin so.
_TOOLS = (
    "devcontainer.",
    "vsch.",
    "com.microsoft.vscode",
    "com.docker.compose.",
    "org.jupyter",
    "jupyter",
    "repo2docker",
)


def interface(name: str, labels: t.Mapping[str, str], settings: AllocationsSection) -> str:
    """Return the interface of a container."""
    named = labels.get(settings.interface_label, "")
    if named:
        # Anybody can label a container: what DS01 does not know is another way, not one more series.
        return named if named in INTERFACES else "other"
    if labels.get(settings.managed_label, "").lower() == "true" or "._." in name:
        return "atomic"
    return "other" if any(key.startswith(_TOOLS) for key in labels) else "docker"
