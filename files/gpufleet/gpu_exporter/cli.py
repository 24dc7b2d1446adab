"""The command line."""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import threading
import typing as t

from .. import __version__
from . import config, exposition, metrics, protocol, server
from .supervisor import Readings, Supervisor, log, sampler_command

if t.TYPE_CHECKING:
    from .tls import TlsServer

BUILD_DATE = "2026-11-23"
"""Of this version. The build itself must not know the time: equal sources give equal bytes."""

DEFAULT_CONFIG = "/etc/gpu_exporter/config.toml"


def main() -> int:
    """Entry point. Returns the exit status."""
    arguments = _arguments()
    try:
        path = arguments.config or (DEFAULT_CONFIG if os.path.exists(DEFAULT_CONFIG) else "")
        settings = config.load(path) if path else config.Config()
    except config.ConfigError as error:
        print(f"gpu-exporter: {error}", file=sys.stderr)
        return 2
    if arguments.check_config:
        print(f"{path or 'the defaults'}: fine")
        return 0
    if arguments.once:
        return _once(path, settings)
    return _serve(path, settings)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu-exporter", description="Prometheus exporter for GPUs and who has them.")
    parser.add_argument("--config", metavar="FILE", help=f"configuration file; {DEFAULT_CONFIG} when it is there")
    parser.add_argument("--check-config", action="store_true", help="say whether the configuration is fine, and end")
    parser.add_argument("--once", action="store_true", help="read everything once, print it, and end")
    parser.add_argument("--version", action="version", version=f"gpu-exporter {__version__} ({BUILD_DATE})")
    return parser.parse_args()


def _build_info() -> bytes:
    return exposition.render(
        {metrics.BUILD_INFO.name: [[1, __version__, BUILD_DATE]], metrics.VERSION_INFO.name: [[1, __version__]]}
    )


def _serve(path: str, settings: config.Config) -> int:
    supervisor = Supervisor(path, settings)
    try:
        tls = _tls(settings.tls)
    except OSError as error:
        print(f"gpu-exporter: tls: {settings.tls.cert_file}: {error}", file=sys.stderr)
        return 1
    dcgm = server.DcgmPort(settings, server.Pages(supervisor), tls)
    pages = server.MainPages(supervisor, _build_info(), dcgm)
    try:
        server.HttpServer(settings.server.address, settings.server.port, pages, tls)
    except OSError as error:
        where = f"{settings.server.address or '*'}:{settings.server.port}"
        print(f"gpu-exporter: cannot listen on {where}: {error.strerror}", file=sys.stderr)
        return 1
    gc.collect()
    gc.freeze()  # what is loaded now stays, and is not looked at again for garbage
    threading.Thread(target=dcgm.run, daemon=True).start()
    log(f"gpu-exporter {__version__} listens on {settings.server.address or '*'}:{settings.server.port}")
    supervisor.run()


def _tls(settings: config.Tls) -> TlsServer | None:
    """Return the server's side of TLS, if it is wanted. Raises OSError."""
    if not settings.cert_file:
        return None
    from .tls import TlsServer

    return TlsServer(settings)


def _once(path: str, settings: config.Config) -> int:
    """Print one reading of every collector. Returns 1 when one of them failed."""
    readings = Readings(settings)
    order = protocol.encode(protocol.Order(path, {}, {}, once=True))
    process = subprocess.Popen(sampler_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        lines = process.communicate(order, settings.server.start_deadline)[0].splitlines()
    except subprocess.TimeoutExpired as error:
        process.kill()
        lines = (error.stdout or b"").splitlines()
    running: set[str] = set()
    for line in lines:
        report = protocol.decode_report(line)
        if report.begins:
            running.add(report.collector)
            continue
        running.discard(report.collector)
        readings.put(report)
        for failure in report.failures:
            log(f"{report.collector}: {failure}")
    for collector in running:
        readings.fail(collector, f"no answer within {settings.server.start_deadline:g} s")
    sys.stdout.buffer.write(b"".join([_build_info(), *readings.fresh(False), *readings.fresh(True)]))
    failed = {name: reading.error for name, reading in readings.all().items() if reading.error}
    for name, message in failed.items():
        log(f"{name}: {message}")
    return 1 if failed else 0
