"""How it ends."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """Exit status."""

    DONE = 0
    FAILED = 1
    """A GPU's process failed, or hung and was killed. The others ran on."""
    USAGE = 2
    """The command line, or what it asks for: no such GPU, not so much memory."""
    NO_FRAMEWORK = 3
    """Neither PyTorch nor CuPy, or none that can use the GPU."""
    IN_USE = 4
    """Somebody else uses the GPU, or came while it ran and got it."""
    NO_NVML = 5
    """NVML, so the driver, does not answer."""
    INTERRUPTED = 130
    """SIGINT; all was cleaned up."""
    TERMINATED = 143
    """SIGTERM or SIGHUP; all was cleaned up."""


class Refused(Exception):
    """It does not start, or does not go on. The text says why and what to do."""

    def __init__(self, status: Exit, message: str) -> None:
        super().__init__(message)
        self.status = status
