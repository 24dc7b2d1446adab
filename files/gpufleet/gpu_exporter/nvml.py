"""NVML through NVIDIA's own binding: one session, which only the NVML lane uses, so that calls are serialised.

pynvml never unloads the library. After an upgrade of the driver only a new process loads the new one, see
``Session.library_replaced``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import typing as t

import pynvml

from .inventory import Gpu, Inventory, MigInstance, Problem, Process
from .pci import sysfs_bus_id

T = t.TypeVar("T")

_ANSWER_SECONDS = 0.5
"""How long an answer counts as that of this moment, for collectors that ask the same one after the other."""

REINIT_SECONDS = 60.0
"""NVML lists GPUs when it is initialised. While one is missing it is initialised again after so long ..."""
REINIT_LONGEST = 600.0
"""... and, when that has brought none of them back, after twice as long each time, up to this."""

_LIBRARY_SECONDS = 30.0
"""From one look at the library on the disk to the next."""

# What a card, a driver or a user's rights may lack. Such a value is absent, which is no failure.
_ABSENT = {
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NO_PERMISSION,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    pynvml.NVML_ERROR_NO_DATA,
    pynvml.NVML_ERROR_NOT_FOUND,
}
# The whole of NVML is gone, not one GPU.
_PROBLEMS = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no_library",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "driver_not_loaded",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "driver_mismatch",
    pynvml.NVML_ERROR_UNINITIALIZED: "error",
}
_LOST = {pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED}

# These drivers fill the process list in another layout than their header says (wookayin/gpustat issue 161).
_WRONG_PROCESSES = ((535, 43), (535, 86))


def tells_processes(driver_version: str) -> bool:
    """Whether the process lists of a driver can be believed."""
    return not _WRONG_PROCESSES[0] <= _version(driver_version) < _WRONG_PROCESSES[1]


class NvmlDown(Exception):
    """NVML as a whole does not answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class GpuLost(Exception):
    """This GPU does not answer, and will not until it is reset."""


@dataclasses.dataclass
class Device:
    """One GPU, or MIG device, that can be asked."""

    gpu: Gpu
    handle: t.Any
    _answers: dict[t.Any, tuple[float, t.Any]] = dataclasses.field(default_factory=dict)
    _facts: dict[t.Any, t.Any] = dataclasses.field(default_factory=dict)

    def ask(self, function: t.Callable[..., T], *args: t.Any) -> T | None:
        """Call an NVML function on this device; None where card or driver do not know the value.

        Collectors that run one after the other share an answer: it spares the driver, and their families agree.
        Raises GpuLost, NvmlDown, pynvml.NVMLError.
        """
        question, now = (function, *args), time.monotonic()
        asked, answer = self._answers.get(question, (-_ANSWER_SECONDS, None))
        if now - asked >= _ANSWER_SECONDS:
            answer = ask(function, self.handle, *args)
            self._answers[question] = (now, answer)
        return t.cast("T | None", answer)

    def know(self, function: t.Callable[..., T], *args: t.Any) -> T | None:
        """Ask once for a fact of the card that does not change while NVML is initialised."""
        question = (function, *args)
        if question not in self._facts:
            self._facts[question] = self.ask(function, *args)
        return t.cast("T | None", self._facts[question])


def ask(function: t.Callable[..., T], *args: t.Any) -> T | None:
    """Call an NVML function. None where it is not supported. Raises GpuLost, NvmlDown, pynvml.NVMLError."""
    try:
        return function(*args)
    except pynvml.NVMLError as error:
        if error.value in _ABSENT:
            return None
        if error.value in _LOST:
            raise GpuLost(str(error)) from error
        if error.value in _PROBLEMS:
            raise NvmlDown(_problem(error)) from error
        raise


class Session:
    """NVML from its initialisation on."""

    def __init__(self, may_ask: t.Callable[[str], bool] = lambda bus_id: True) -> None:
        """``may_ask`` is asked before each GPU, by bus id: one that blocks must not take all others along."""
        self.may_ask = may_ask
        self.devices: list[Device] = []
        self.generation = 0
        """Grows with each initialisation: handles and event sets of an older one are void."""
        self.driver_version = ""
        self.before_close: list[t.Callable[[], None]] = []
        """What has to be freed while NVML still is initialised."""
        self._open = False
        self._opened_at = 0.0
        self._lost: dict[str, str] = {}
        self._known: dict[int, Gpu] = {}
        self._skipped: set[str] = set()
        """GPUs that were not listed because they must not be asked."""
        self._missing: frozenset[str] = frozenset()
        self._patience = REINIT_SECONDS
        self._replaced, self._looked = False, 0.0

    def know(self, gpus: t.Iterable[Gpu]) -> None:
        """Learn which GPU had which index: a lost one does not say it."""
        self._known.update({gpu.index: gpu for gpu in gpus})

    def refresh(self, with_processes: bool, expected: t.Collection[str] = ()) -> Inventory:
        """Look again which GPUs there are. ``expected`` are those that the driver has, by bus id. Raises NvmlDown."""
        if self._open and self._wants_reinit(expected):
            self.close()
        if not self._open:
            self._init()
        try:
            return self._inventory(with_processes)
        except NvmlDown:
            self.close()
            raise

    def lost(self, device: Device, error: GpuLost) -> None:
        """Note that a GPU does not answer."""
        self._lost[device.gpu.pci_bus_id] = str(error)

    def close(self) -> None:
        """Shut NVML down, so that the next refresh initialises it."""
        self._open, self.devices = False, []
        for free in self.before_close:
            free()
        with contextlib.suppress(pynvml.NVMLError):  # it was down
            pynvml.nvmlShutdown()

    def _wants_reinit(self, expected: t.Collection[str]) -> bool:
        if any(self.may_ask(bus_id) for bus_id in self._skipped):
            return True
        listed = {device.gpu.pci_bus_id for device in self.devices}
        missing = frozenset([*self._lost, *(bus_id for bus_id in expected if bus_id not in listed)])
        if missing != self._missing:
            self._missing, self._patience = missing, REINIT_SECONDS
        if not missing or time.monotonic() - self._opened_at <= self._patience:
            return False
        self._patience = min(2 * self._patience, REINIT_LONGEST)
        return True

    def _init(self) -> None:
        try:
            pynvml.nvmlInit()
            self._open, self._opened_at = True, time.monotonic()
            self.generation += 1
            self._lost = {}
            self.driver_version = pynvml.nvmlSystemGetDriverVersion()
            self.devices = self._list_devices()
        except pynvml.NVMLError as error:
            self.close()
            raise NvmlDown(_problem(error)) from error
        except Exception:
            self.close()
            raise

    def _list_devices(self) -> list[Device]:
        devices = []
        self._skipped = set()
        for index in range(pynvml.nvmlDeviceGetCount()):
            if index in self._known and not self.may_ask(self._known[index].pci_bus_id):
                self._skipped.add(self._known[index].pci_bus_id)
                continue
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                devices.append(Device(_identify(index, handle), handle))
            except (pynvml.NVMLError, GpuLost) as error:
                if isinstance(error, pynvml.NVMLError) and error.value in _PROBLEMS:
                    raise NvmlDown(_problem(error)) from error
                # A lost GPU does not even say which one it is; the index tells when it has been seen before.
                if index in self._known:
                    self._lost[self._known[index].pci_bus_id] = str(error)
        self.know(device.gpu for device in devices)
        return devices

    def _inventory(self, with_processes: bool) -> Inventory:
        processes: list[Process] = []
        failures: list[str] = []
        trust = with_processes and tells_processes(self.driver_version)
        for device in self.devices:
            if not self.may_ask(device.gpu.pci_bus_id):
                continue
            try:
                migs = _mig_devices(device, failures)
                device.gpu = dataclasses.replace(
                    device.gpu, mig_enabled=migs is not None, mig=tuple(instance for instance, _ in migs or ())
                )
                holders = [(mig.uuid, handle) for mig, handle in migs] if migs else [(device.gpu.uuid, device.handle)]
                for uuid, handle in holders if trust else ():
                    processes += list_processes(uuid, handle)
                self._lost.pop(device.gpu.pci_bus_id, None)
            except GpuLost as error:
                self._lost[device.gpu.pci_bus_id] = str(error)
            except pynvml.NVMLError as error:
                # What its instances were is not what they are.
                device.gpu = dataclasses.replace(device.gpu, mig=())
                failures.append(f"GPU {device.gpu.index}: {error}")
        return Inventory(
            gpus=tuple(device.gpu for device in self.devices),
            lost=dict(self._lost),
            processes=tuple(processes),
            driver_version=self.driver_version,
            complete=True,
            library_replaced=self._library_replaced_lately(),
            failures=tuple(failures),
        )

    def _library_replaced_lately(self) -> bool:
        if time.monotonic() - self._looked > _LIBRARY_SECONDS:
            self._replaced, self._looked = self.library_replaced(), time.monotonic()
        return self._replaced

    @staticmethod
    def library_replaced() -> bool:
        """Whether the library on disk is another one than this process has loaded: the driver was upgraded."""
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                words = line.split(maxsplit=5)
                if len(words) == 6 and "libnvidia-ml.so" in words[5]:
                    return not _same_file(words[5].strip(), words[4])
        return False


def _same_file(path: str, inode: str) -> bool:
    try:
        return str(os.stat(path).st_ino) == inode
    except OSError:
        return False  # "(deleted)", as the kernel marks it


def _problem(error: pynvml.NVMLError) -> Problem:
    kind = _PROBLEMS.get(error.value, "error")
    if error.value == pynvml.NVML_ERROR_NO_PERMISSION:
        kind = "no_permission"
    return Problem(kind, str(error))


def _identify(index: int, handle: t.Any) -> Gpu:
    """Ask a GPU who it is. Raises pynvml.NVMLError."""
    uuid = pynvml.nvmlDeviceGetUUID(handle)
    bus_id = pynvml.nvmlDeviceGetPciInfo_v3(handle).busId
    model = ask(pynvml.nvmlDeviceGetName, handle) or ""
    minor = ask(pynvml.nvmlDeviceGetMinorNumber, handle)
    return Gpu(index, uuid, sysfs_bus_id(_text(bus_id)), minor, model)


def _mig_devices(device: Device, failures: list[str]) -> list[tuple[MigInstance, t.Any]] | None:
    """Return the MIG devices with their handles, None when MIG is off; one that fails is left out.

    Raises GpuLost, NvmlDown, pynvml.NVMLError.
    """
    mode = device.ask(pynvml.nvmlDeviceGetMigMode)
    if not mode or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return None
    found = []
    for slot in range(device.ask(pynvml.nvmlDeviceGetMaxMigDeviceCount) or 0):
        try:
            handle = device.ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, slot)
            if handle is not None:
                found.append((_identify_mig(handle), handle))
        except pynvml.NVMLError as error:
            failures.append(f"GPU {device.gpu.index}: MIG device {slot}: {error}")
    return found


def _identify_mig(handle: t.Any) -> MigInstance:
    memory = ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    return MigInstance(
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        gpu_instance=pynvml.nvmlDeviceGetGpuInstanceId(handle),
        compute_instance=pynvml.nvmlDeviceGetComputeInstanceId(handle),
        profile=_profile(handle),
        memory_bytes=memory and memory.total,
        memory_used_bytes=memory and memory.used,
    )


def _profile(handle: t.Any) -> str:
    """The device's name ends in it: "NVIDIA A100-SXM4-40GB MIG 1g.5gb"."""
    name = ask(pynvml.nvmlDeviceGetName, handle) or ""
    if " MIG " in name:
        return name.rsplit(" MIG ", 1)[1]
    attributes = ask(pynvml.nvmlDeviceGetAttributes_v2, handle)
    if attributes is None:
        return ""
    return f"{attributes.gpuInstanceSliceCount}g.{round(attributes.memorySizeMB / 1024)}gb"


def list_processes(uuid: str, handle: t.Any) -> list[Process]:
    """Return each process once. Raises GpuLost, NvmlDown."""
    found: dict[int, Process] = {}
    for function in (
        pynvml.nvmlDeviceGetComputeRunningProcesses_v3,
        pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3,
        pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v3,
    ):
        for entry in ask(function, handle) or ():
            found.setdefault(entry.pid, Process(entry.pid, uuid, entry.usedGpuMemory))
    return list(found.values())


def _version(driver: str) -> tuple[int, ...]:
    return tuple(int(part) for part in driver.split(".")[:2] if part.isdigit())


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def field_value(device: Device, field: int) -> int | None:
    """Return an integer field (nvmlDeviceGetFieldValues), None where it is not supported.

    Raises GpuLost, NvmlDown, pynvml.NVMLError.
    """
    values = device.ask(pynvml.nvmlDeviceGetFieldValues, (field,))
    if values is None:
        return None
    if values[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return ask(_raise, values[0].nvmlReturn)
    member = _MEMBERS.get(values[0].valueType)
    return None if member is None else int(getattr(values[0].value, member))


# nvmlValueType_t to the member of nvmlValue_t; floating-point fields are not asked for.
_MEMBERS = {
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
}


def _raise(code: int) -> t.NoReturn:
    raise pynvml.NVMLError(code)


class XidEvents:
    """NVML's events of critical errors. They are polled, so that no thread waits in the driver."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sets: dict[str, t.Any] = {}
        """An event set for each GPU, by bus id: what fails for one must not make the others deaf."""
        session.before_close.append(self._free)

    def poll(self) -> t.Iterator[tuple[str, int]]:
        """Yield bus id and code of each error since the last time. Raises pynvml.NVMLError behind what it has found."""
        failure: pynvml.NVMLError | None = None
        for device in self._session.devices:
            bus_id = device.gpu.pci_bus_id
            if not self._session.may_ask(bus_id):
                continue
            try:
                if bus_id not in self._sets:
                    self._register(device)
                for code in _drain(self._sets[bus_id]):
                    yield bus_id, code
            except GpuLost as error:
                self._session.lost(device, error)
            except pynvml.NVMLError as error:
                failure = error
        if failure is not None:
            raise failure

    def _register(self, device: Device) -> None:
        """Raises GpuLost, NvmlDown, pynvml.NVMLError; it is tried again with the next poll."""
        events = pynvml.nvmlEventSetCreate()
        try:
            ask(pynvml.nvmlDeviceRegisterEvents, device.handle, pynvml.nvmlEventTypeXidCriticalError, events)
        except Exception:
            pynvml.nvmlEventSetFree(events)
            raise
        self._sets[device.gpu.pci_bus_id] = events

    def _free(self) -> None:
        """Event sets end with the initialisation that they were made in."""
        for events in self._sets.values():
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlEventSetFree(events)
        self._sets = {}


def _drain(events: t.Any) -> t.Iterator[int]:
    """Yield the codes that wait in an event set."""
    while True:
        try:
            event = pynvml.nvmlEventSetWait_v2(events, 0)
        except pynvml.NVMLError as error:
            if error.value == pynvml.NVML_ERROR_TIMEOUT or error.value in _LOST:
                return
            raise
        if event.eventType == pynvml.nvmlEventTypeXidCriticalError:
            yield int(event.eventData)
