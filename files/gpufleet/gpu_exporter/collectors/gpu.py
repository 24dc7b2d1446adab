"""Temperatures that nobody else reads, and the health of each card."""

from __future__ import annotations

import time
import typing as t

import pynvml

from .. import metrics, pci
from ..collector import CollectorError, Readings, State
from ..inventory import Gpu
from ..nvml import Device, GpuLost, NvmlDown, field_value
from ..thermal import Card, Cards, Nvapi, NvapiError, plausible, read_bar0

if t.TYPE_CHECKING:
    from ..context import Context

# nvmlClocksEventReasons bits (nvml.h). The last two came with driver 615.
THROTTLE_REASONS = {
    "gpu_idle": 0x1,
    "applications_clocks": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "hw_power_brake": 0x80,
    "display_clocks": 0x100,
    "board_limit": 0x200,
    "reliability": 0x400,
}

_LIMITS = {
    "shutdown": pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN,
    "slowdown": pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
    "memory_max": pynvml.NVML_TEMPERATURE_THRESHOLD_MEM_MAX,
    "gpu_max": pynvml.NVML_TEMPERATURE_THRESHOLD_GPU_MAX,
}
_ECC_TYPES = {
    "corrected": pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
    "uncorrected": pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
}
_ECC_PERIODS = {"volatile": pynvml.NVML_VOLATILE_ECC, "aggregate": pynvml.NVML_AGGREGATE_ECC}
_RETIREMENTS = {
    "single_bit": pynvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
    "double_bit": pynvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
}

Labels = tuple[str, ...]


Subject = t.Callable[[Device, Labels, Readings], None]


def each_device(context: Context, out: Readings, subjects: t.Sequence[Subject]) -> None:
    """Read the subjects of each GPU; what fails hides nothing else. Raises CollectorError when NVML is down."""
    problem = context.inventory.current.problem
    if problem is not None and problem.kind != "no_library":
        raise CollectorError(problem.message)
    for device in context.nvml.devices:
        if not context.may_ask(device.gpu.pci_bus_id):
            out.failed(f"GPU {device.gpu.index}", "it blocked, and is left alone for a while")
            continue
        labels = context.inventory.labels(device.gpu)
        for subject in subjects:
            try:
                subject(device, labels, out)
            except GpuLost as error:
                context.nvml.lost(device, error)
                out.failed(f"GPU {device.gpu.index}", error)
                break
            except NvmlDown as error:
                raise CollectorError(str(error)) from error
            except (pynvml.NVMLError, OSError, NvapiError) as error:
                out.failed(f"GPU {device.gpu.index}: {subject.__name__.strip('_')}", error)


class GpuCollector:
    """Asks NVML, and below it NVAPI and BAR0, for each GPU."""

    name = "gpu"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._session = context.nvml
        self._cards = Cards()
        self._nvapi: Nvapi | None = None
        self._nvapi_generation = 0
        self._throttled: dict[str, dict[str, float]] = {}
        self._throttled_at: dict[str, float] = {}

    def collect(self, out: Readings) -> None:
        """Read every GPU once."""
        subjects = (
            self._vram, self._hotspot, _limits, _fans, self._throttling, _power, _energy, _ecc, _rows, _pages, _link,
            _replays, self._mig,
        )  # fmt: skip
        each_device(self._context, out, subjects)

    def state(self) -> State:
        """Return the seconds throttled so far."""
        return self._throttled

    def restore(self, state: State) -> None:
        """Count on."""
        self._throttled = state

    # -- temperatures: NVML, then NVAPI, then BAR0 --
    def _vram(self, device: Device, labels: Labels, out: Readings) -> None:
        celsius = plausible(field_value(device, pynvml.NVML_FI_DEV_MEMORY_TEMP))
        self._temperature(metrics.VRAM_TEMP, "vram", celsius, device, labels, out)

    def _hotspot(self, device: Device, labels: Labels, out: Readings) -> None:
        celsius = plausible(device.ask(pynvml.nvmlDeviceGetTemperatureV, pynvml.NVML_TEMPERATURE_GPU_MAX))
        self._temperature(metrics.HOT_SPOT_TEMP, "hotspot", celsius, device, labels, out)

    def _temperature(
        self,
        family: metrics.Family,
        reading: str,
        by_nvml: float | None,
        device: Device,
        labels: Labels,
        out: Readings,
    ) -> None:
        if by_nvml is not None:
            out.add(family, by_nvml, *labels, "nvml")
            return
        config = self._context.config.gpu
        if not config.nvapi and not config.bar0:
            return
        card = self._cards.card(pci.device_id(self._context.config.paths.sysfs, device.gpu.pci_bus_id))
        by_nvapi = self._by_nvapi(device.gpu, card, reading) if config.nvapi else None
        if by_nvapi is not None:
            out.add(family, by_nvapi, *labels, "nvapi")
        elif config.bar0 and reading in card.bar0:
            path = pci.resource0(self._context.config.paths.sysfs, device.gpu.pci_bus_id)
            out.add(family, read_bar0(path, card.bar0[reading]), *labels, "bar0")

    def _by_nvapi(self, gpu: Gpu, card: Card, reading: str) -> float | None:
        if reading not in card.nvapi:
            return None
        if self._nvapi is None or self._nvapi_generation != self._session.generation:
            self._nvapi, self._nvapi_generation = Nvapi(), self._session.generation
        return self._nvapi.temperature(pci.bus_number(gpu.pci_bus_id), card.nvapi[reading])

    # -- throttling --
    def _throttling(self, device: Device, labels: Labels, out: Readings) -> None:
        mask = device.ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons)
        if mask is None:  # older drivers know it by its old name
            mask = device.ask(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        if mask is None:
            return
        seconds = self._count_throttled(device.gpu.uuid, mask)
        out.add(metrics.THROTTLE_REASONS, mask, *labels)
        for reason, bit in THROTTLE_REASONS.items():
            out.add(metrics.THROTTLED, int(bool(mask & bit)), *labels, reason)
            out.add(metrics.THROTTLED_SECONDS, seconds[reason], *labels, reason)

    def _count_throttled(self, uuid: str, mask: int) -> dict[str, float]:
        """Add the time since the reading before to the reasons that hold now; a gap counts as one interval."""
        now = time.monotonic()
        passed = min(now - self._throttled_at.get(uuid, now), 2 * self._context.config.gpu.interval)
        self._throttled_at[uuid] = now
        seconds = self._throttled.setdefault(uuid, {})
        for reason, bit in THROTTLE_REASONS.items():
            seconds[reason] = seconds.get(reason, 0.0) + (passed if mask & bit else 0.0)
        return seconds

    def _mig(self, device: Device, labels: Labels, out: Readings) -> None:
        for mig in device.gpu.mig:
            out.add(metrics.MIG_INFO, 1, *labels, str(mig.gpu_instance), mig.profile, mig.uuid)
        for mig in device.gpu.gpu_instances:
            mig_labels = (*labels, str(mig.gpu_instance), mig.profile)
            out.add(metrics.MIG_MEMORY_TOTAL, mig.memory_bytes, *mig_labels)
            out.add(metrics.MIG_MEMORY_USED, mig.memory_used_bytes, *mig_labels)


def _limits(device: Device, labels: Labels, out: Readings) -> None:
    for limit, threshold in _LIMITS.items():
        celsius = device.know(pynvml.nvmlDeviceGetTemperatureThreshold, threshold)
        out.add(metrics.TEMPERATURE_LIMIT, plausible(celsius), *labels, limit)


def _fans(device: Device, labels: Labels, out: Readings) -> None:
    for fan in range(device.know(pynvml.nvmlDeviceGetNumFans) or 0):
        percent = device.ask(pynvml.nvmlDeviceGetFanSpeed_v2, fan)
        out.add(metrics.FAN_SPEED_RATIO, _scaled(percent, 100), *labels, str(fan))


def _power(device: Device, labels: Labels, out: Readings) -> None:
    out.add(metrics.POWER, _scaled(device.ask(pynvml.nvmlDeviceGetPowerUsage), 1000), *labels)
    out.add(metrics.POWER_LIMIT, _scaled(device.ask(pynvml.nvmlDeviceGetEnforcedPowerLimit), 1000), *labels)
    default = device.know(pynvml.nvmlDeviceGetPowerManagementDefaultLimit)
    out.add(metrics.POWER_DEFAULT_LIMIT, _scaled(default, 1000), *labels)


def _energy(device: Device, labels: Labels, out: Readings) -> None:
    out.add(metrics.ENERGY, _scaled(device.ask(pynvml.nvmlDeviceGetTotalEnergyConsumption), 1000), *labels)


def _ecc(device: Device, labels: Labels, out: Readings) -> None:
    for kind, error_type in _ECC_TYPES.items():
        for period, counter in _ECC_PERIODS.items():
            count = device.ask(pynvml.nvmlDeviceGetTotalEccErrors, error_type, counter)
            out.add(metrics.ECC_ERRORS, count, *labels, kind, period)


def _rows(device: Device, labels: Labels, out: Readings) -> None:
    rows = device.ask(pynvml.nvmlDeviceGetRemappedRows)
    if rows is None:
        return
    correctable, uncorrectable, pending, failure = rows
    out.add(metrics.REMAPPED_ROWS, correctable, *labels, "correctable")
    out.add(metrics.REMAPPED_ROWS, uncorrectable, *labels, "uncorrectable")
    out.add(metrics.REMAP_PENDING, int(bool(pending)), *labels)
    out.add(metrics.REMAP_FAILURE, int(bool(failure)), *labels)


def _pages(device: Device, labels: Labels, out: Readings) -> None:
    for cause, code in _RETIREMENTS.items():
        pages = device.ask(pynvml.nvmlDeviceGetRetiredPages, code)
        out.add(metrics.RETIRED_PAGES, None if pages is None else len(pages), *labels, cause)
    out.add(metrics.RETIRED_PENDING, device.ask(pynvml.nvmlDeviceGetRetiredPagesPendingStatus), *labels)


def _link(device: Device, labels: Labels, out: Readings) -> None:
    out.add(metrics.PCIE_GENERATION, device.ask(pynvml.nvmlDeviceGetCurrPcieLinkGeneration), *labels)
    out.add(metrics.PCIE_GENERATION_MAX, device.know(pynvml.nvmlDeviceGetMaxPcieLinkGeneration), *labels)
    out.add(metrics.PCIE_WIDTH, device.ask(pynvml.nvmlDeviceGetCurrPcieLinkWidth), *labels)
    out.add(metrics.PCIE_WIDTH_MAX, device.know(pynvml.nvmlDeviceGetMaxPcieLinkWidth), *labels)


def _replays(device: Device, labels: Labels, out: Readings) -> None:
    out.add(metrics.PCIE_REPLAYS, device.ask(pynvml.nvmlDeviceGetPcieReplayCounter), *labels)


def _scaled(value: int | None, scale: int) -> float | None:
    return None if value is None else value / scale
