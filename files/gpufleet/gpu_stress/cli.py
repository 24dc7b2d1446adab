"""The command line."""

from __future__ import annotations

import argparse
import re
import signal
import sys
import typing as t

import pynvml

from .. import __version__
from ..gpu_exporter.allocations.slots import split
from . import backends, devices, output, protocol
from .exits import Exit, Refused
from .supervisor import Patience, Supervisor

if t.TYPE_CHECKING:
    from .meter import Memory

_EXPORTER = "http://127.0.0.1:9500/metrics"

_EPILOG = """\
exit status:
  0    done
  1    a GPU's process failed, or hung and was killed; the others ran on
  2    the command line, or what it asks for: no such GPU, not so much memory
  3    neither PyTorch nor CuPy, or none that can use the GPU
  4    somebody else uses a GPU, or came while it ran and got it
  5    NVML does not answer, or a GPU is lost
  130  ended by SIGINT, 143 by SIGTERM or SIGHUP, or its output closed; all was cleaned up
"""

NO_FRAMEWORK = """\
neither PyTorch nor CuPy is there for {python}, and nothing was started.

gpu-stress needs one of them, and never installs anything. To install one into an environment of its own:

    python3 -m venv ~/gpu-stress
    ~/gpu-stress/bin/pip install torch                   # PyTorch, or
    ~/gpu-stress/bin/pip install 'cupy-cuda12x[ctk]'     # CuPy; cupy-cuda13x where nvidia-smi has "CUDA Version: 13"
    ~/gpu-stress/bin/python {program} ...

Where an environment has one already, run gpu-stress with that environment's python."""


def main(arguments: t.Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status."""
    options = parse(arguments)
    # Until something is started: a driver that hangs would keep Python from seeing the signal.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return _list(options) if options.list else _run(options)
    except Refused as error:
        output.say(str(error))
        return error.status


def parse(arguments: t.Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line. Ends the program with status 2 when it is wrong."""
    parser = _parser()
    options = parser.parse_args(arguments)
    options.device = [word for words in options.device for word in split(words)]
    if not options.device and not options.list:
        parser.error("which GPU? --device INDEX, UUID, GPU:DEVICE or all (--list names them)")
    if options.target == 0 and options.memory is None:
        parser.error("--target-util 0 without --memory is nothing to do")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu-stress",
        description="Puts a load on NVIDIA GPUs, to see dashboards and alerts at work.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_load(parser.add_argument)
    _add_rest(parser.add_argument)
    return parser


def _add_load(add: t.Callable[..., t.Any]) -> None:
    add(
        "--device",
        nargs="+",
        action="extend",
        default=[],
        metavar="GPU",
        help="index, UUID, MIG UUID, GPU:DEVICE (MIG, as nvidia-smi -L numbers it), or all; several are possible",
    )
    add(
        "--target-util",
        type=percent,
        default=0.8,
        metavar="PERCENT",
        dest="target",
        help="utilisation to hold, 0 to 100; default 80; 0 is no load, only memory",
    )
    add(
        "--memory",
        type=Amount.parse,
        metavar="AMOUNT",
        help="memory to take and keep: 4GiB, 500MB, 50%% (of the GPU's), 50%%free (of what is free); all that this "
        "program takes counts. Default: what the load needs",
    )
    add("--duration", type=duration, default=60.0, metavar="TIME", help="90, 90s, 5m or 1h; default 60s")
    add(
        "--framework",
        choices=("auto", *backends.FRAMEWORKS),
        default="auto",
        help="what makes the load; auto takes the first that is there and can use the GPU",
    )


def _add_rest(add: t.Callable[..., t.Any]) -> None:
    add("--force", action="store_true", help="also on GPUs that somebody else uses")
    add("--json", action="store_true", help="lines of JSON instead of lines for people")
    add("--interval", type=seconds, default=1.0, metavar="SECONDS", help="from line to line; default 1")
    exporter = f"gpu_exporter, which knows to whom GPUs were given; '' asks none. Default {_EXPORTER}"
    add("--exporter", default=_EXPORTER, metavar="URL", help=exporter)
    start = "until a GPU's process must be ready; default 120"
    add("--start-timeout", type=seconds, default=120.0, metavar="SECONDS", help=start)
    hang = "a GPU's process that is silent for so long is killed; default 10"
    add("--hang-timeout", type=seconds, default=10.0, metavar="SECONDS", help=hang)
    add("--list", action="store_true", help="name the GPUs and who uses them, and end")
    add("--version", action="version", version=f"gpu-stress {__version__}")


# -- values of options ----------------------------------------------------------------------------


_UNITS = {
    "": 1, "b": 1,
    "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip


class Amount(t.NamedTuple):
    """So much memory."""

    number: float
    of: str
    """bytes, or parts of the whole of total or free."""

    @classmethod
    def parse(cls, text: str) -> Amount:
        """Raises argparse.ArgumentTypeError."""
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(%(?:free|total)?|[a-z]{0,3})", text.lower(), re.ASCII)
        if match is not None:
            number, unit = float(match.group(1)), match.group(2)
            if unit.startswith("%") and 0 < number <= 100:
                return cls(number / 100, unit[1:] or "total")
            if unit in _UNITS and number > 0:
                return cls(number * _UNITS[unit], "bytes")
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of memory: 4GiB, 500MB, 50%, 50%free")

    def bytes(self, memory: Memory) -> int:
        """Return how much that is of such a memory."""
        whole = {"bytes": 1, "total": memory.total, "free": memory.free}
        return int(self.number * whole[self.of])


def percent(text: str) -> float:
    """Return 0 to 1. Raises argparse.ArgumentTypeError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%?", text, re.ASCII)
    if match is None or float(match.group(1)) > 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not 0 to 100")
    return float(match.group(1)) / 100


def duration(text: str) -> float:
    """Return seconds. Raises argparse.ArgumentTypeError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([smh]?)", text, re.ASCII)
    found = float(match.group(1)) * {"": 1, "s": 1, "m": 60, "h": 3600}[match.group(2)] if match else 0.0
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: 90, 90s, 5m, 1h")
    return found


def seconds(text: str) -> float:
    """Return seconds from a tenth to an hour. Raises argparse.ArgumentTypeError."""
    match = re.fullmatch(r"[0-9]+(\.[0-9]+)?", text, re.ASCII)
    if match is None or not 0.1 <= float(text) <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not 0.1 to 3600 seconds")
    return float(text)


# -- what it does ---------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    """Look at everything that can be wrong, and start only then. Raises Refused."""
    frameworks = backends.installed(options.framework)
    if not frameworks:
        raise Refused(Exit.NO_FRAMEWORK, _instruction(options.framework))
    targets = devices.choose(options.device, devices.known())
    allocations = _allocations(options)
    orders = []
    for target in targets:
        meter, memory = devices.look(target)
        _refuse_used(target, devices.holders(target, meter), allocations, options)
        orders.append((target, _order(target, memory, frameworks, options)))
    pynvml.nvmlShutdown()
    view: output.View = output.JsonLines() if options.json else output.Lines()
    status = Supervisor(orders, Patience(options.start_timeout, options.hang_timeout), view).run()
    if status == Exit.NO_FRAMEWORK:
        output.say("nothing was started: " + ", ".join(frameworks) + " cannot use the GPU; nvidia-smi has the driver's "
                   "CUDA version, and the framework must be built for it or an older one")  # fmt: skip
    return status


def _instruction(framework: str) -> str:
    text = NO_FRAMEWORK.format(python=sys.executable, program=sys.argv[0])
    other = {"torch": "PyTorch", "cupy": "CuPy"}.get(framework)
    return text if other is None else text.replace("neither PyTorch nor CuPy is there", f"{other} is not there", 1)


def _allocations(options: argparse.Namespace) -> devices.Allocations | None:
    """Ask our exporter, where there is one."""
    if not options.exporter:
        return None
    try:
        return devices.Allocations(options.exporter)
    except (OSError, ValueError) as error:
        why = f"{options.exporter}: {error}"
        output.say(f"gpu_exporter was not asked who has which GPU ({why}); only NVML's processes count")
        return None


def _refuse_used(
    target: devices.Target,
    holders: list[str],
    allocations: devices.Allocations | None,
    options: argparse.Namespace,
) -> None:
    """Raises Refused."""
    found = holders + (allocations.holders(target) if allocations else [])
    if not found:
        return
    text = f"{target.title} ({target.uuid}) is in use: {'; '.join(found)}"
    if not options.force:
        raise Refused(Exit.IN_USE, f"{text}. Nothing was started; --force puts the load on it all the same")
    output.say(f"{text}. --force: the load comes on top, and the utilisation that is held is that of all together")


def _order(
    target: devices.Target, memory: Memory, frameworks: list[str], options: argparse.Namespace
) -> protocol.Order:
    """Raises Refused."""
    size = None if options.memory is None else options.memory.bytes(memory)
    if size is not None and size > memory.free:
        text = f"--memory: {target.title} has {memory.free} bytes free of {memory.total}, and {size} were asked for"
        raise Refused(Exit.USAGE, text)
    return protocol.Order(
        uuid=target.uuid,
        mig=target.mig,
        frameworks=frameworks,
        target=options.target,
        memory=size,
        duration=options.duration,
        interval=options.interval,
        force=options.force,
    )


def _list(options: argparse.Namespace) -> int:
    """Raises Refused."""
    allocations = _allocations(options)
    for target in devices.everything(devices.known()):
        meter, memory = devices.look(target)
        found = devices.holders(target, meter) + (allocations.holders(target) if allocations else [])
        gib = f"{memory.free / (1 << 30):.1f} of {memory.total / (1 << 30):.1f} GiB free"
        print(f"{target.title:<8}  {target.uuid}  {target.model}, {gib}: {'; '.join(found) or 'nobody uses it'}")
    return Exit.DONE
