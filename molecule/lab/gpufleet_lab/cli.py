"""The command line."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from . import demo, lab, mirror, server
from .faults import Rule
from .host import HostSpec, resolve
from .lab import Lab
from .system import LabError, check_machine


def main() -> int:
    """Run a command; what went wrong is one message."""
    arguments = _parser().parse_args()
    try:
        return arguments.run(arguments) or 0
    except LabError as error:
        print(f"lab.py: {error}", file=sys.stderr)
        return 1


def _up(arguments: argparse.Namespace) -> None:
    hosts = resolve(HostSpec.parse(text) for text in arguments.host)
    _print(lab.up(arguments.name, hosts))


def _down(arguments: argparse.Namespace) -> None:
    check_machine()
    for found in Lab.all():
        ours = found.state["checkout"] == str(lab.CHECKOUT)
        if found.id in arguments.name or (ours and (arguments.all or found.name in arguments.name)):
            lab.down(found)


def _list(_: argparse.Namespace) -> None:
    for found in Lab.all():
        hosts = found.hosts.values()
        alive = sum(host.alive for host in hosts)
        print(found.id, found.name, found.state["subnet"], f"{alive}/{len(hosts)}", found.state["checkout"])


def _show(arguments: argparse.Namespace) -> None:
    _print(Lab.open(arguments.name))


def _print(found: Lab) -> None:
    print(json.dumps(found.describe(), indent=1))


def _demo(arguments: argparse.Namespace) -> None:
    demo.show(Lab.open(arguments.name), arguments.master, arguments.patience)


def _ssh(arguments: argparse.Namespace) -> int:
    command = Lab.open(arguments.name).ssh_command(arguments.host, *arguments.command)
    return subprocess.run(command, check=False).returncode


def _kill(arguments: argparse.Namespace) -> None:
    Lab.open(arguments.name).host(arguments.host).kill()


def _plug(arguments: argparse.Namespace) -> None:
    Lab.open(arguments.name).host(arguments.host).plug(connected=arguments.connected)


def _fault(arguments: argparse.Namespace) -> None:
    Lab.open(arguments.name).faults.add(arguments.path, **dict(arguments.effect))


def _effect(word: str) -> tuple[str, object]:
    name, _, value = word.partition("=")
    try:
        effect = (name, json.loads(value))
        Rule("", **dict([effect]))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{word!r}: such as status=404 or corrupt=true") from None
    return effect


def _heal(arguments: argparse.Namespace) -> None:
    Lab.open(arguments.name).faults.clear()


def _fill(_: argparse.Namespace) -> None:
    lab.fill_cache()


def _mirror(_: argparse.Namespace) -> None:
    check_machine()
    print(mirror.build())


def _serve(arguments: argparse.Namespace) -> None:
    server.serve(arguments.address, arguments.port, arguments.root, arguments.state)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab.py", description="Real Debian machines for tests, in seconds.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("up", help="make a lab, add hosts to it, or start what is dead in it")
    command.add_argument("name")
    command.add_argument("--host", action="append", default=[], metavar="NAME:SUITE[,OPTION]...")
    command.set_defaults(run=_up)

    command = commands.add_parser("down", help="remove labs, leaving nothing")
    command.add_argument("name", nargs="*", help="of this checkout's labs, or an id as `list` shows it")
    command.add_argument("--all", action="store_true", help="all labs made from this checkout")
    command.set_defaults(run=_down)

    command = commands.add_parser("list", help="all labs on this machine: id, name, subnet, hosts alive, checkout")
    command.set_defaults(run=_list)

    command = commands.add_parser("show", help="a lab as JSON")
    command.add_argument("name")
    command.set_defaults(run=_show)

    command = commands.add_parser("demo", help="once all targets of a lab's Prometheus are up, what runs where")
    command.add_argument("name")
    command.add_argument("--master", default="master1", metavar="HOST")
    command.add_argument("--patience", type=float, default=90, metavar="SECONDS")
    command.set_defaults(run=_demo)

    command = commands.add_parser("ssh", help="log in to a host, or run a command there")
    command.add_argument("name")
    command.add_argument("host")
    command.add_argument("command", nargs=argparse.REMAINDER)
    command.set_defaults(run=_ssh)

    command = commands.add_parser("kill", help="cut a host's power; `up` brings it back")
    command.add_argument("name")
    command.add_argument("host")
    command.set_defaults(run=_kill)

    for verb, connected in (("unplug", False), ("plug", True)):
        command = commands.add_parser(verb, help=f"{verb} a host's network cable")
        command.add_argument("name")
        command.add_argument("host")
        command.set_defaults(run=_plug, connected=connected)

    command = commands.add_parser("fault", help="make the mirror fail for paths that match a glob")
    command.add_argument("name")
    command.add_argument("path", help="such as '*/node_exporter-*.tar.gz'")
    command.add_argument(
        "effect", nargs="+", type=_effect, metavar="EFFECT=VALUE", help="status truncate corrupt delay rate times"
    )
    command.set_defaults(run=_fault)

    command = commands.add_parser("heal", help="end all of the mirror's faults")
    command.add_argument("name")
    command.set_defaults(run=_heal)

    command = commands.add_parser("fill", help="fill the cache with all that the scenarios' labs are made of")
    command.set_defaults(run=_fill)

    command = commands.add_parser("mirror", help="bring the release mirror up to what Debian has today")
    command.set_defaults(run=_mirror)

    command = commands.add_parser("serve", help="the mirror's web server; `up` starts it")
    command.add_argument("address")
    command.add_argument("port", type=int)
    command.add_argument("root", type=Path)
    command.add_argument("state", type=Path)
    command.set_defaults(run=_serve)
    return parser
