# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Grafana's plugins as releases, for the host and for the controller that hands them over."""

from __future__ import annotations

import re
import typing as t

from .native_service.release import Release, ReleaseError, from_params


def plugin_release(params: t.Mapping[str, t.Any], mirror: str, arch: str) -> Release:
    """Return a plugin's release, a zip that is known by its SHA-256. Raises ReleaseError."""
    name, version = params["id"], str(params["version"])
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ReleaseError(f"a plugin cannot have the id {name!r}")
    download = f"{mirror}/grafana.com/api/plugins/{name}/versions/{version}/download?os=linux&arch={{arch}}"
    return from_params({"version": version, "url": params.get("url") or download, "sha256": params["sha256"]}, arch)
