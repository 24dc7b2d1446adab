# Copyright: the gpufleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The few questions and orders that we have for Docker, by its own command."""

from __future__ import annotations

import json
import os
import shutil
import typing as t
from pathlib import Path

from ..native_service.health import Run
from . import known as k
from .plan import Container, MigrationError

Json = t.Mapping[str, t.Any]

# DS01 puts a wrapper before it that is for its users.
_PROGRAM = "/usr/bin/docker"
_SOCKET = Path("/run/docker.sock")
# Seconds for what has data: Prometheus writes out what it holds in memory.
_STOP = 300


class Docker:
    """Docker of this host. ``run`` takes words and returns exit status, stdout and stderr."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._program = _PROGRAM if Path(_PROGRAM).exists() else shutil.which("docker")

    def containers(self) -> list[Json]:
        """Return what Docker says of every container, running or not. Raises MigrationError."""
        if not self._program:
            if _SOCKET.exists():
                raise MigrationError("Docker is here, and no docker command to ask it by: install that (docker-cli)")
            return []
        try:
            ids = self._order("ps", "--all", "--quiet", "--no-trunc").split()
        except MigrationError as error:
            raise MigrationError(f"start Docker first (systemctl start docker): {error}") from error
        # One that goes meanwhile makes it fail, and is left out.
        return t.cast("list[Json]", json.loads(self._run([str(self._program), "inspect", *ids])[1])) if ids else []

    def restart(self, container: str, policy: str, retries: int = 0) -> None:
        """Set the restart policy of a container."""
        self._order("update", f"--restart={policy}{f':{retries}' if retries else ''}", container)

    def stop(self, container: str, patiently: bool) -> None:
        """Stop a container; it has as long as its owner said to end by itself, or ``patiently`` far longer."""
        self._order("stop", *(("--time", str(_STOP)) if patiently else ()), container)

    def start(self, container: str) -> None:
        """Start a container."""
        self._order("start", container)

    def _order(self, *words: str) -> str:
        code, out, err = self._run([str(self._program), *words])
        if code != 0:
            raise MigrationError(f"docker {' '.join(words)} failed: {(err or out).strip()}")
        return out


def read(said: t.Sequence[Json], wanted: t.Collection[int] = (), held: t.Collection[str] = ()) -> list[Container]:
    """Return containers as the plan wants them.

    ``wanted`` are the ports of ours, ``held`` the names and ids of containers that have one or were in the way before.
    """
    facts = [
        (
            _name(one),
            str(one["Config"]["Image"]),
            one["Config"].get("Labels") or {},
            _name(one) in held or one["Id"] in held or bool(_publishes(one) & {*wanted}),
        )
        for one in said
    ]
    projects = {
        labels[k.PROJECT_LABEL]
        for name, image, labels, in_the_way in facts
        if k.PROJECT_LABEL in labels and k.container(name, image, labels, (), in_the_way)
    }
    containers = []
    for one, (name, image, labels, in_the_way) in zip(said, facts):
        known = k.container(name, image, labels, projects, in_the_way)
        namesake = known is None and k.container(name, image, labels, (), in_the_way=True) is not None
        containers.append(_container(one, known)._replace(namesake=namesake))
    return containers


def _publishes(one: Json) -> set[int]:
    """Return the TCP ports of the host that a container has when it runs."""
    return _of_host(one["HostConfig"].get("PortBindings"))


def _of_host(bindings: Json | None) -> set[int]:
    """Return the TCP ports of the host in Docker's PortMap, container port -> places; of some, only Docker knows."""
    return {
        int(entry["HostPort"])
        for port, places in (bindings or {}).items()
        if port.endswith("/tcp")
        for entry in places or ()
        if entry.get("HostPort")
    }


def _name(one: Json) -> str:
    return str(one["Name"]).lstrip("/")


def _container(one: Json, known: k.KnownContainer | None) -> Container:
    policy = one["HostConfig"].get("RestartPolicy") or {}
    return Container(
        name=_name(one),
        id=str(one["Id"]),
        known=known,
        running=bool(one["State"]["Running"] or one["State"].get("Restarting")),
        restart=policy.get("Name") or "no",
        retries=int(policy.get("MaximumRetryCount") or 0),
        passing=bool(one["HostConfig"].get("AutoRemove")),
        ports=tuple(sorted(_of_host((one.get("NetworkSettings") or {}).get("Ports")))),
    )


def data_path(one: Json, argument: str, usual: str) -> str:
    """Return the directory of the host that holds a container's data; "" where they are in the container itself.

    Raises MigrationError where the way there leads over a link of the container's.
    """
    words = [str(word) for word in [*(one.get("Args") or []), *(one["Config"].get("Cmd") or [])]]
    inside = next((word.partition("=")[2] for word in words if word.startswith(f"{argument}=")), usual).rstrip("/")
    for mount in one.get("Mounts") or []:
        destination = str(mount["Destination"]).rstrip("/")
        if inside == destination or inside.startswith(f"{destination}/"):
            # What is above the mount is the host's own; a link below it is the container's, and leads anywhere.
            source = Path(os.path.realpath(mount["Source"]))
            path = source / inside[len(destination) :].lstrip("/")
            if os.path.realpath(path) == str(path):
                return str(path)
            raise MigrationError(
                f"data: {path}, of the container {_name(one)}, is a link or below one, which is not followed. Name the"
                f" directory itself (migration_old_data), or leave them where they are (migration_data: false)"
            )
    return ""
