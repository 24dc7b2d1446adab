"""The command line."""

from __future__ import annotations

import argparse
import sys
import typing as t

from .. import __version__
from . import installed, look, orders, report
from .ask import Unasked
from .check import FAILED, UNKNOWN, Check
from .installed import Places

WELL, NOT_WELL, WRONG_USE, NOT_HERE = 0, 1, 2, 3
"""Exit status: all is well; something is not, or is not known; what was asked makes no sense; it is done elsewhere."""

ORDERS = {
    "start": "start all services, or those that are named, and wait until they are well",
    "stop": "stop them until the next boot",
    "restart": "restart them, and wait until they are well",
    "reload": "have them read their configuration again",
}
ELSEWHERE = {
    "update": """\
The master fetches nothing by itself: the inventory says which versions run, and the controller brings them.
Set NAME_version in the inventory where you want another one than the collection's, then run there:

    {command}

A version that does not get well is rolled back. Installed here:
""",
    "build": """\
There is nothing to build: services are installed from their releases, and the collection's own programs are built by
the controller whenever they have changed. To bring them here, run there:

    {command}
""",
}


def main(words: t.Sequence[str] | None = None, places: Places = Places()) -> int:  # noqa: B008 (it is immutable)
    """Entry point. Returns the exit status."""
    arguments = _arguments(list(sys.argv[1:] if words is None else words))
    try:
        return _run(arguments, places)
    except orders.Refused as refused:
        print(f"monitoring-manage: {refused}", file=sys.stderr)
        return WRONG_USE
    except Unasked as error:
        print(f"monitoring-manage: {error}", file=sys.stderr)
        return NOT_WELL
    except BrokenPipeError:  # whoever reads has enough
        sys.stderr.close()
        return NOT_WELL
    except KeyboardInterrupt:
        return 130


def _run(arguments: argparse.Namespace, places: Places) -> int:
    verb = arguments.command
    if verb == "status":
        return _status(arguments, places)
    services = installed.services(places)
    if verb in ELSEWHERE:
        return _elsewhere(verb, services, installed.settings(places))
    chosen = orders.chosen(services, arguments.services)
    if not chosen:
        raise orders.Refused(f"nothing is installed in {places.root}: run the playbook on the controller")
    if verb == "logs":
        orders.follow(chosen, arguments.lines, arguments.follow)
    checks = orders.carry_out(verb, chosen, bool(arguments.services))
    print(report.rows(checks, report.coloured(sys.stdout)), end="")
    return NOT_WELL if any(check.state in (FAILED, UNKNOWN) for check in checks) else WELL


def _status(arguments: argparse.Namespace, places: Places) -> int:
    try:
        checks = look.at_everything(installed.services(places), installed.settings(places), arguments.timeout)
    except Unasked as error:
        checks = [Check("service", "", UNKNOWN, str(error))]
    if arguments.json:
        print(report.for_programs(checks, __version__), end="")
    elif not arguments.quiet:
        print(report.for_people(checks, report.coloured(sys.stdout)), end="")
    sys.stdout.flush()
    return WELL if report.healthy(checks) else NOT_WELL


def _elsewhere(verb: str, services: t.Sequence[installed.Service], settings: installed.Settings) -> int:
    print(ELSEWHERE[verb].format(command=settings.update_command))
    if verb == "update":
        for service in services:
            print(f"    {service.name:24}{service.version or 'from packages'}")
    return NOT_HERE


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="monitoring-manage", description="The monitoring services of this host.")
    parser.add_argument("--version", action="version", version=f"monitoring-manage {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    status = commands.add_parser("status", help="say how everything is (this is what is done without a command)")
    form = status.add_mutually_exclusive_group()
    form.add_argument("--quiet", "-q", action="store_true", help="print nothing: exit with 0 only when all is well")
    form.add_argument("--json", action="store_true", help="print everything as JSON")
    status.add_argument("--timeout", type=float, default=5, metavar="SECONDS", help="for all answers; 5 by default")
    for verb, help_text in ORDERS.items():
        commands.add_parser(verb, help=help_text).add_argument("services", nargs="*", metavar="SERVICE")
    logs = commands.add_parser("logs", help="show what they wrote to the journal")
    logs.add_argument("services", nargs="*", metavar="SERVICE")
    logs.add_argument("--follow", "-f", action="store_true", help="go on with what they write from now on")
    logs.add_argument("--lines", "-n", type=int, default=50, metavar="N", help="the last so many; 50 by default")
    commands.add_parser("update", help="say how to bring other versions here")
    commands.add_parser("build", help="say why there is nothing to build")
    return parser.parse_args(_with_command(words))


def _with_command(words: list[str]) -> list[str]:
    """Without a command, the status is asked for."""
    own = {"-h", "--help", "--version"}
    return ["status", *words] if not words or (words[0].startswith("-") and words[0] not in own) else words
