"""The command line."""

from __future__ import annotations

import argparse
import fcntl
import time
import typing as t
from pathlib import Path

from . import __doc__ as about
from . import config as configuration
from . import files
from .config import Config
from .errors import CertificateError
from .journal import day, say
from .metrics import metrics
from .modes import MODES
from .renewal import bring
from .server import Server
from .store import Store

CONFIG = Path("/etc/gpufleet-certificate/config.json")
STATE = Path("/var/lib/gpufleet-certificate")


def main(words: t.Sequence[str] | None = None, state: Path = STATE) -> int:
    """Entry point. Returns the exit status."""
    arguments = _arguments(words)
    try:
        config = configuration.read(arguments.config)
        if arguments.check:
            MODES[config.mode](config, state).check()
        elif arguments.status:
            _look(config, state)
        else:
            _run(config, state, arguments.renew)
    except (CertificateError, OSError) as error:
        say(str(error))
        return 1
    return 0


def _arguments(words: t.Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpufleet-certificate", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=CONFIG, metavar="FILE", help=f"{CONFIG} by default")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--renew", action="store_true", help="get a new one now, whether it is time or not")
    instead.add_argument("--check", action="store_true", help="only say whether the files of the role make sense")
    instead.add_argument("--status", action="store_true", help="whether there is one as described, and in time")
    return parser.parse_args(words)


def _run(config: Config, state: Path, renew: bool) -> None:
    """Bring the certificate to what it should be, and write down when it ends, whatever came of it."""
    serving = config.server
    server = Server(serving["unit"], serving["address"], int(serving["port"])) if serving else None
    success = False
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            bring(MODES[config.mode](config, state), Store(state), server, renew)
            success = True
        finally:
            if config.textfile:
                files.write(Path(config.textfile), metrics(config, state, success), 0o644)


def _look(config: Config, state: Path) -> None:
    """Raise CertificateError where what is served is not as described."""
    mode, current = MODES[config.mode](config, state), Store(state).current()
    if current is None:
        raise CertificateError("there is no certificate yet, but nginx' placeholder")
    if current.leaf.not_after < time.time():
        raise CertificateError(f"the certificate ended on {day(current.leaf.not_after)}")
    if mode.due(current, time.time()):
        raise CertificateError(f"a new certificate is due; this one ends on {day(current.leaf.not_after)}")
