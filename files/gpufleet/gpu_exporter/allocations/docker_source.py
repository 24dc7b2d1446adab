"""Docker's containers, each inspected once."""

from __future__ import annotations

import time
import typing as t

from ..docker import Docker, DockerError, NoSuchContainer
from .containers import Detail, Listed, detail, listed

if t.TYPE_CHECKING:
    from ..collector import Readings
    from ..config import AllocationsSection

_SHARE = 0.6
"""Part of the collector's deadline that Docker may take: the sampling process must not be replaced because of it."""
_PAUSE = 60.0
"""Seconds until a container that could not be inspected is asked about again: one that hangs takes docker_timeout."""
_IMAGES_LIMIT = 1000
"""Most images whose labels are kept."""


class Container(t.NamedTuple):
    """A container as Docker knows it."""

    listed: Listed
    detail: Detail | None
    """None for one that does not run, or could not be inspected."""


class DockerSource:
    """Asks Docker, and keeps what does not change."""

    def __init__(self, settings: AllocationsSection) -> None:
        self._docker = Docker(settings.docker_socket)
        self._settings = settings
        self._details: dict[str, Detail] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._images: dict[str, dict[str, t.Any]] = {}
        """Image to the labels that it gives to its containers."""
        # One container that hangs leaves time for the others.
        self._longest = min(settings.docker_timeout, _SHARE * settings.deadline / 2)

    def read(self, out: Readings) -> list[Container]:
        """Return all containers. What cannot be inspected is a failed part. Raises DockerError."""
        ends = time.monotonic() + _SHARE * self._settings.deadline
        found = []
        for entry in self._docker.containers(min(self._settings.docker_timeout, _SHARE * self._settings.deadline)):
            container = listed(entry)
            if container is None:
                out.failed("docker", "an entry of the list is no container")
            else:
                found.append(container)
        self._inspect([container for container in found if container.running], ends, out)
        return [Container(one, self._details.get(one.id) if one.running else None) for one in found]

    def _inspect(self, running: list[Listed], ends: float, out: Readings) -> None:
        """Look at the containers that are new. Those that failed before come last: they may take all the time."""
        ids = {container.id for container in running}
        self._details = {key: value for key, value in self._details.items() if key in ids}
        self._failed = {key: value for key, value in self._failed.items() if key in ids}
        new = [container for container in running if container.id not in self._details]
        late = 0
        for container in sorted(new, key=lambda container: container.id in self._failed):
            late += not self._inspect_one(container, ends - time.monotonic())
            if container.id in self._failed:
                out.failed(f"container {container.name}", self._failed[container.id][1])
        if late:
            out.failed("docker", f"{late} of {len(running)} containers are not inspected yet: there was no time left")

    def _inspect_one(self, container: Listed, left: float) -> bool:
        """Look at one container; return whether the time that was left was enough for that."""
        again, _ = self._failed.get(container.id, (0.0, ""))
        if again > time.monotonic():
            return True
        if left <= 0:
            return False
        try:
            inspection = self._docker.inspect(container.id, min(self._longest, left))
            image_labels = self._image_labels(inspection, min(self._longest, left))
        except NoSuchContainer:
            return True  # it went in between
        except DockerError as error:
            if left >= self._longest:
                self._failed[container.id] = (time.monotonic() + _PAUSE, str(error))
            return left >= self._longest
        self._failed.pop(container.id, None)
        self._details[container.id] = detail(inspection, self._settings.uuids_label, image_labels)
        return True

    def _image_labels(self, inspection: dict[str, t.Any], timeout: float) -> dict[str, t.Any]:
        """Return the labels that come with the container's image. Raises DockerError."""
        image = inspection.get("Image")
        if not isinstance(image, str):
            return {}
        if image not in self._images:
            if len(self._images) >= _IMAGES_LIMIT:
                self._images.clear()
            self._images[image] = self._docker.image_labels(image, timeout)
        return self._images[image]
