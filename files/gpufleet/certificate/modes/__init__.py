"""Where certificates come from: one module for each certificate_mode."""

from __future__ import annotations

from .letsencrypt import LetsEncrypt
from .mode import Mode
from .provided import Provided
from .selfsigned import SelfSigned

MODES: dict[str, type[Mode]] = {"selfsigned": SelfSigned, "letsencrypt": LetsEncrypt, "provided": Provided}
