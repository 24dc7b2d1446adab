"""Simulated GPUs: what NVML, NVAPI and the PCI bus of a machine say, written into a directory and changed at will.

    machine = Machine.of("a100", "rtx4090")
    machine.write(directory)          # scenario and sys/ below it
    build(directory / "lib")          # libnvidia-ml.so.1 and libnvidia-api.so.1
    machine.heat(1, hotspot=95)       # a service that runs sees it at its next call

A service finds the scenario by SIMULATED_GPU, else at /etc/simulated-gpu/scenario, the libraries by the dynamic
linker, and sysfs where its configuration says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import gpu_sysfs
from .gpu_models import MIB, MODELS, Model, Reading
from .gpu_readings import integral, value_at

SOURCES = Path(__file__).parents[1] / "gpu"
_BUSES = ("01", "25", "41", "61", "81", "a1", "c1", "e1")
_HOTSPOT_DRIVER = 615  # the first one whose NVML has the sensor
_FLAGS = (
    "-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-fPIC", "-fvisibility=hidden",
    "-shared", "-Wl,--build-id=none",
)  # fmt: skip
_LIBRARIES = {"libnvidia-ml.so.1": "nvml.c", "libnvidia-api.so.1": "nvapi.c"}


def build(directory: Path, cache: Path | None = None) -> Path:
    """Compile both libraries into a directory and return it. The cache keeps one copy for each state of the sources."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    digest = hashlib.sha256(b"\0".join([" ".join(_FLAGS).encode(), *(path.read_bytes() for path in sources)]))
    kept = cache and cache / f"simulated-gpu-{digest.hexdigest()[:16]}"
    directory.mkdir(parents=True, exist_ok=True)
    for library, source in _LIBRARIES.items():
        # Renamed into place: a process that runs has the old one mapped.
        new = directory / f".{library}.new"
        if kept and (kept / library).exists():
            shutil.copyfile(kept / library, new)
        else:
            _compile(source, library, new)
            _keep(new, kept, library)
        new.chmod(0o755)
        new.rename(directory / library)
    return directory


def _compile(source: str, library: str, target: Path) -> None:
    command = ["gcc", *_FLAGS, f"-Wl,-soname,{library}", "-o", str(target.absolute()), source, "scenario.c"]
    done = subprocess.run([*command, "-lm", "-ldl", "-pthread"], cwd=SOURCES, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{source}: {done.stderr}")


def _keep(library: Path, kept: Path | None, name: str) -> None:
    if kept is not None:
        gpu_sysfs.replace(kept / name, library.read_bytes(), 0o755)


@dataclass
class MigInstance:
    """One MIG instance of a GPU."""

    profile: str
    gpu_instance: int
    uuid: str
    used: Reading
    compute_instance: int = 0


@dataclass
class Process:
    """One process on a GPU. kind: compute, graphics or mps; memory None: NVML does not know it."""

    kind: str = "compute"
    memory: int | None = 0
    mig: int | None = None
    sm: int = 0
    mem: int = 0
    enc: int = 0
    dec: int = 0

    def line(self) -> str:
        """Return the scenario's words for it."""
        numbers = {name: value for name, value in dataclasses.asdict(self).items() if name != "kind"}
        return " ".join([self.kind, *(f"{name}={value}" for name, value in numbers.items() if value is not None)])


@dataclass
class Gpu:
    """One card in a machine."""

    model: Model
    bus_id: str
    uuid: str
    core: Reading = 61
    hotspot: Reading = 74
    memory: Reading = 82
    """Temperatures of the card, whoever reads them; NVML, NVAPI and the registers each know some."""
    readings: dict[str, Reading] = field(default_factory=dict)
    """Lines of the scenario (without "gpu.N.") that differ from the model's."""
    mig: list[MigInstance] = field(default_factory=list)
    processes: dict[int, Process] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    """Function, or "" for all calls that are about this GPU, to fault."""
    on_bus: bool = True
    driver: str | None = "nvidia"
    dead: bool = False
    """The card does not answer on the PCI bus: all reads give ones."""
    registers: int | None = None
    """All temperature registers read as this: 0xBADF5040 is what a blocked one gives."""
    aer: dict[str, dict[str, int]] = field(default_factory=dict)
    energy: float = 0.0
    energy_at: float = field(default_factory=time.time)

    def reading(self, key: str) -> Reading:
        """Return what the scenario has for a key ("power.usage"); "unsupported" where there is none."""
        return self.readings.get(key, self.model.readings.get(key, "unsupported"))

    def number(self, key: str) -> float:
        """Return what a reading is now."""
        return value_at(self.reading(key), time.time())

    def settle_energy(self) -> None:
        """Add up the energy that was taken so far, before the power changes: the counter never goes back."""
        now = time.time()
        self.energy += integral(self.reading("power.usage"), self.energy_at, now)
        self.energy_at = now

    def lines(self, number: int, driver: str) -> Iterator[tuple[str, Reading]]:
        """Return the GPU's part of the scenario."""
        found = {**self._identity(number), **self.model.readings, **self._temperatures(driver), **self._instances()}
        found["energy"] = f"integral:{self.energy:.3f}:{self.energy_at:.6f}"
        found.update(self.readings)
        found.update({f"process.{pid}": process.line() for pid, process in self.processes.items()})
        found.update({f"function.{name}" if name else "fault": fault for name, fault in self.faults.items()})
        if not self.on_bus or self.driver != "nvidia":
            found["present"] = 0
        return ((f"gpu.{number}.{key}", value) for key, value in found.items())

    def pci(self, number: int) -> gpu_sysfs.PciState:
        """Return what sysfs shows."""
        now = time.time()
        hotspot, memory = value_at(self.hotspot, now), value_at(self.memory, now)
        return gpu_sysfs.PciState(
            model=self.model,
            bus_id=self.bus_id,
            number=number,
            driver=self.driver,
            alive=not self.dead,
            generation=int(self.number("pcie.link.generation")),
            width=int(self.number("pcie.link.width")),
            max_generation=int(self.number("pcie.link.max_generation")),
            max_width=int(self.number("pcie.link.max_width")),
            aer=self.aer,
            registers=gpu_sysfs.registers(self.model, hotspot, memory, self.registers),
        )

    def _identity(self, number: int) -> dict[str, Reading]:
        found: dict[str, Reading] = {
            "name": self.model.name,
            "uuid": self.uuid,
            "minor": number,
            "pci.bus_id": self.bus_id,
            "pci.device_id": f"0x{self.model.device:04X}",
            "pci.subsystem_id": f"0x{self.model.subsystem:08X}",
            "bar1.total": self.model.bar1_mebibytes * MIB,
        }
        if self.model.nvml_memory:  # GeForce cards have no serial number
            found["serial"] = str(1560000000000 + int(self.uuid[-8:], 16))
        return found

    def _temperatures(self, driver: str) -> dict[str, Reading]:
        known: dict[str, Reading] = {"core": self.core, "hotspot": self.hotspot, "memory": self.memory}
        found: dict[str, Reading] = {"temperature.core": self.core}
        if self.model.nvml_hotspot and int(driver.split(".")[0]) >= _HOTSPOT_DRIVER:
            found["temperature.hotspot"] = self.hotspot
        if self.model.nvml_memory:
            found["temperature.memory"] = self.memory
        if self.model.nvapi:
            found["nvapi.sensors"] = 16
            found.update({f"nvapi.sensor.{index}": known[name] for name, index in self.model.nvapi.items()})
        return found

    def _instances(self) -> dict[str, Reading]:
        """With MIG on, NVML knows no utilization of the whole GPU."""
        found: dict[str, Reading] = {}
        if self.number("mig.mode") == 1:
            found = dict.fromkeys((f"utilization.{unit}" for unit in _UNITS), "unsupported")
        for index, instance in enumerate(self.mig):
            found.update({f"mig.{index}.{key}": value for key, value in self._instance(instance)})
        return found

    def _instance(self, instance: MigInstance) -> Iterator[tuple[str, Reading]]:
        profile = self.model.mig[instance.profile]
        yield "uuid", instance.uuid
        yield "name", f"{self.model.name} MIG {instance.profile}"
        yield "gpu_instance", instance.gpu_instance
        yield "compute_instance", instance.compute_instance
        yield "memory.total", profile.mebibytes * MIB
        yield "memory.used", instance.used
        yield "gpu_slices", profile.slices
        yield "compute_slices", profile.slices
        for name in ("multiprocessors", "copy_engines", "decoders", "jpegs", "ofas"):
            yield name, getattr(profile, name)
        yield "encoders", 0


_UNITS = ("gpu", "memory", "encoder", "decoder")
# The first id of each size of instance, as the driver gives them.
_FIRST_INSTANCE = {7: 0, 4: 1, 3: 1, 2: 3, 1: 7}


def _uuid(*parts: object) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join(map(str, parts))))


@dataclass
class Machine:
    """The GPUs of one machine, and their driver. A GPU is named by its place in gpus, which never changes."""

    gpus: list[Gpu] = field(default_factory=list)
    driver_version: str = "615.43.02"
    cuda: int = 13020
    faults: dict[str, str] = field(default_factory=dict)
    """Function, or "" for all calls, to fault."""
    events: list[str] = field(default_factory=list)
    directory: Path | None = None
    _held: int = 0

    @classmethod
    def of(cls, *models: str, host: str = "gpu", driver_version: str = "615.43.02") -> Machine:
        """Return a machine with such cards (names of MODELS; none at all: the driver is not loaded)."""
        machine = cls(driver_version=driver_version)
        for number, model in enumerate(name for name in models if name != "none"):
            bus_id = f"0000:{_BUSES[number]}:00.0"
            machine.gpus.append(Gpu(MODELS[model], bus_id, f"GPU-{_uuid(host, bus_id, model)}"))
        if not machine.gpus:
            machine.faults[""] = "error:DRIVER_NOT_LOADED"
        return machine

    # -- files ------------------------------------------------------------------------------
    def scenario(self) -> str:
        """Return the scenario's text."""
        lines: list[tuple[str, Reading]] = [
            ("driver.version", self.driver_version),
            ("driver.cuda", self.cuda),
            ("nvml.version", f"13.{self.driver_version}"),
        ]
        lines += [(f"function.{name}" if name else "fault", fault) for name, fault in self.faults.items()]
        lines += [(f"event.{number}", event) for number, event in enumerate(self.events, 1)]
        for number, gpu in enumerate(self.gpus):
            lines += gpu.lines(number, self.driver_version)
        return "".join(f"{key} = {value}\n" for key, value in lines)

    def write(self, directory: Path) -> None:
        """Write scenario and sys/ below a directory. Every change from now on goes there, too."""
        self.directory = directory
        devices = directory / "sys/bus/pci/devices"
        devices.mkdir(parents=True, exist_ok=True)
        for number, gpu in enumerate(self.gpus):
            if gpu.on_bus:
                gpu_sysfs.write_device(devices, gpu.pci(number))
            else:
                gpu_sysfs.remove_device(devices, gpu.bus_id)
        loaded = self.faults.get("") != "error:DRIVER_NOT_LOADED"
        gpu_sysfs.write_module(directory / "sys/module/nvidia", self.driver_version if loaded else None)
        gpu_sysfs.replace(directory / "scenario", self.scenario().encode())

    def refresh(self) -> None:
        """Write again: registers hold what moving temperatures were at the last write."""
        if self.directory is not None and not self._held:
            self.write(self.directory)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Changes inside are seen at once, at the end."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self.refresh()

    # -- readings ---------------------------------------------------------------------------
    def set(self, gpu: int, key: str, reading: Reading) -> None:
        """Set a line of the scenario: set(0, "utilization.gpu", "sine:10:90:60")."""
        if key == "power.usage":
            self.gpus[gpu].settle_energy()
        self.gpus[gpu].readings[key] = reading
        self.refresh()

    def reset(self, gpu: int, key: str) -> None:
        """Take a reading back to the model's."""
        if key == "power.usage":
            self.gpus[gpu].settle_energy()
        self.gpus[gpu].readings.pop(key, None)
        self.refresh()

    def heat(
        self, gpu: int, core: Reading | None = None, hotspot: Reading | None = None, memory: Reading | None = None
    ) -> None:
        """Set temperatures of the card, for all who read them."""
        card = self.gpus[gpu]
        card.core = card.core if core is None else core
        card.hotspot = card.hotspot if hotspot is None else hotspot
        card.memory = card.memory if memory is None else memory
        self.refresh()

    def animate(self) -> None:
        """Let load, clocks, power, temperatures and memory of all GPUs move, each in its own phase."""
        with self.together():
            for number, gpu in enumerate(self.gpus):
                limit, phase = gpu.number("power.limit.default"), 37 * number
                self.set(number, "power.usage", f"sine:{limit * 0.3:.0f}:{limit * 0.97:.0f}:300:{phase}")
                self.heat(number, f"sine:45:72:300:{phase - 20}", f"sine:55:86:300:{phase - 20}",
                          f"sine:60:92:420:{phase - 40}")  # fmt: skip
                if gpu.number("mig.mode") != 1:
                    self.set(number, "utilization.gpu", f"sine:20:100:300:{phase}")
                    self.set(number, "utilization.memory", f"sine:5:60:300:{phase}")
                total = gpu.number("memory.total")
                self.set(number, "memory.used", f"ramp:{total * 0.2:.0f}:{total * 0.9:.0f}:900:{phase}")

    # -- faults -----------------------------------------------------------------------------
    def fault(self, what: str, gpu: int | None = None, function: str = "", after: int = 0) -> None:
        """Let calls fail: what is block, stall, slow:MS, lost or error:CODE.

        It is about all calls, or those of a function, or to a GPU, or both, and begins after so many good ones.
        """
        faults = self.faults if gpu is None else self.gpus[gpu].faults
        faults[function] = f"{what} after {after}" if after else what
        self.refresh()

    def heal(self, gpu: int | None = None, function: str = "") -> None:
        """End the fault of the same place."""
        (self.faults if gpu is None else self.gpus[gpu].faults).pop(function, None)
        self.refresh()

    def block(self, gpu: int | None = None, function: str = "", after: int = 0) -> None:
        """Calls never return, not even after unblock, which is about later ones."""
        self.fault("block", gpu, function, after)

    def stall(self, gpu: int | None = None, function: str = "", after: int = 0) -> None:
        """Calls return at unblock."""
        self.fault("stall", gpu, function, after)

    def unblock(self, gpu: int | None = None, function: str = "") -> None:
        """End block or stall of the same place."""
        self.heal(gpu, function)

    def lose(self, gpu: int, after: int = 0) -> None:
        """Let a GPU fall off the bus (XID 79 is yours to add): calls say GPU_IS_LOST, the registers all ones."""
        with self.together():
            self.gpus[gpu].dead = True
            self.fault("lost", gpu, after=after)

    def bring_back(self, gpu: int) -> None:
        """Undo lose."""
        with self.together():
            self.gpus[gpu].dead = False
            self.heal(gpu)

    def remove(self, gpu: int) -> None:
        """Take a GPU off the PCI bus. NVML counts one less from the next init on."""
        self.gpus[gpu].on_bus = False
        self.refresh()

    def insert(self, gpu: int) -> None:
        """Undo remove."""
        self.gpus[gpu].on_bus = True
        self.refresh()

    def bind(self, gpu: int, driver: str | None) -> None:
        """Give a GPU to a driver: nvidia, vfio-pci, or none. NVML has it with nvidia alone."""
        self.gpus[gpu].driver = driver
        self.refresh()

    def blind(self, gpu: int, registers: int | None = 0xBADF5040) -> None:
        """Let all temperature registers read as a value; None: as they should."""
        self.gpus[gpu].registers = registers
        self.refresh()

    def raise_aer(self, gpu: int, severity: str, error: str, by: int = 1) -> None:
        """Count PCIe errors: raise_aer(0, "correctable", "BadTLP")."""
        if error not in gpu_sysfs.AER[severity][0]:
            raise ValueError(f"no {severity} error of this name: {error}")
        counters = self.gpus[gpu].aer.setdefault(severity, {})
        counters[error] = counters.get(error, 0) + by
        self.refresh()

    def xid(self, gpu: int, code: int, mig: int | None = None) -> None:
        """Let NVML tell of an XID error."""
        self.events.append(f"gpu={gpu} xid={code}" + ("" if mig is None else f" mig={mig}"))
        self.refresh()

    # -- the driver -------------------------------------------------------------------------
    def mismatch(self) -> None:
        """Library and kernel module differ until load_driver: all calls of all processes fail."""
        self.fault("error:LIB_RM_VERSION_MISMATCH")

    def upgrade_driver(self, version: str) -> None:
        """Change the driver. Processes that run have the old library and see a mismatch, new ones none."""
        self.driver_version = version
        self.refresh()

    def unload_driver(self) -> None:
        """Unload the driver until load_driver."""
        self.fault("error:DRIVER_NOT_LOADED")

    def load_driver(self) -> None:
        """End mismatch, unload_driver and every other fault of all calls."""
        self.heal()

    # -- processes and instances ------------------------------------------------------------
    def add_process(self, gpu: int, pid: int, process: Process | None = None) -> None:
        """Start a process on a GPU, or change it. Memory of the GPU, or of the instance, is used by it."""
        self.remove_process(gpu, pid)
        self.gpus[gpu].processes[pid] = process or Process(memory=512 * MIB)
        self._use(gpu, self.gpus[gpu].processes[pid], 1)
        self.refresh()

    def remove_process(self, gpu: int, pid: int) -> None:
        """End a process; one that is not there is none."""
        process = self.gpus[gpu].processes.pop(pid, None)
        if process is not None:
            self._use(gpu, process, -1)
            self.refresh()

    def _use(self, gpu: int, process: Process, sign: int) -> None:
        """Constant readings only: what moves is the test's own."""
        card, change = self.gpus[gpu], sign * (process.memory or 0)
        used = card.reading("memory.used")
        if not isinstance(used, str):
            card.readings["memory.used"] = max(0, int(used) + change)
        if process.mig is not None and process.mig < len(card.mig):
            instance = card.mig[process.mig]
            if not isinstance(instance.used, str):
                instance.used = max(0, int(instance.used) + change)

    def shorten_process_list(self, gpu: int, times: int = 1) -> None:
        """So often in each process's life there are more processes than it was told a moment ago."""
        self.set(gpu, "processes.short", times)

    def partition(self, gpu: int, *profiles: str) -> None:
        """Turn MIG on with such instances ("3g.20gb"), or off without any."""
        card = self.gpus[gpu]
        card.mig = []
        next_id = dict(_FIRST_INSTANCE)
        for profile in profiles:
            slices = card.model.mig[profile].slices
            number, next_id[slices] = next_id[slices], next_id[slices] + 1
            name = f"MIG-{_uuid(card.uuid, profile, number)}"
            card.mig.append(MigInstance(profile, number, name, 24 * MIB))
        card.readings["mig.mode"] = card.readings["mig.pending_mode"] = int(bool(profiles))
        self.refresh()
