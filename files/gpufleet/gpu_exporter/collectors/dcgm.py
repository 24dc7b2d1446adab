"""dcgm-exporter's families, for workers without DCGM: names, labels and units as of its releases before 4.9."""

from __future__ import annotations

import typing as t

import pynvml

from .. import metrics, systemd
from ..collector import Readings, State
from ..nvml import Device, field_value
from ..thermal import plausible
from .gpu import Labels, each_device

if t.TYPE_CHECKING:
    from ..context import Context

_MIB = 1024 * 1024


class DcgmCollector:
    """Asks NVML for what DCGM would say."""

    name = "dcgm"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._subjects = [
            _utilization,
            _memory,
            _temperatures,
            _power,
            _clocks,
            _fan,
            _throttling,
            _ecc,
            _rows,
            _replays,
        ]
        if context.config.dcgm.pcie_throughput:
            self._subjects.append(_throughput)

    def collect(self, out: Readings) -> None:
        """Read every GPU once, unless DCGM does: the driver need not answer twice."""
        config = self._context.config
        if not systemd.is_enabled(config.dcgm.yields_to, config.paths.systemd):
            each_device(self._context, out, self._subjects)

    def state(self) -> State:
        """Nothing is counted here."""
        return None

    def restore(self, state: State) -> None:
        """Nothing."""


def _utilization(device: Device, labels: Labels, out: Readings) -> None:
    rates = device.ask(pynvml.nvmlDeviceGetUtilizationRates)
    if rates is not None:
        out.add(metrics.GPU_UTIL, rates.gpu, *labels)
        out.add(metrics.MEM_COPY_UTIL, rates.memory, *labels)
    encoder = device.ask(pynvml.nvmlDeviceGetEncoderUtilization)
    decoder = device.ask(pynvml.nvmlDeviceGetDecoderUtilization)
    out.add(metrics.ENC_UTIL, encoder and encoder[0], *labels)
    out.add(metrics.DEC_UTIL, decoder and decoder[0], *labels)


def _memory(device: Device, labels: Labels, out: Readings) -> None:
    memory = device.ask(pynvml.nvmlDeviceGetMemoryInfo, pynvml.nvmlMemory_v2)
    if memory is not None:
        out.add(metrics.FB_RESERVED, memory.reserved // _MIB, *labels, "", "")
    else:  # before driver 510; its used memory includes what is reserved
        memory = device.ask(pynvml.nvmlDeviceGetMemoryInfo)
    if memory is not None:
        _framebuffer(out, memory.used, memory.free, memory.total, *labels, "", "")
    for mig in device.gpu.gpu_instances:
        if mig.memory_bytes is not None and mig.memory_used_bytes is not None:
            free = mig.memory_bytes - mig.memory_used_bytes
            mig_labels = (*labels, str(mig.gpu_instance), mig.profile)
            _framebuffer(out, mig.memory_used_bytes, free, mig.memory_bytes, *mig_labels)


def _framebuffer(out: Readings, used: int, free: int, total: int, *labels: str) -> None:
    out.add(metrics.FB_USED, used // _MIB, *labels)
    out.add(metrics.FB_FREE, free // _MIB, *labels)
    out.add(metrics.FB_TOTAL, total // _MIB, *labels)


def _temperatures(device: Device, labels: Labels, out: Readings) -> None:
    core = device.ask(pynvml.nvmlDeviceGetTemperatureV, pynvml.NVML_TEMPERATURE_GPU)
    if core is None:  # before driver 570
        core = device.ask(pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU)
    out.add(metrics.GPU_TEMP, plausible(core), *labels)
    out.add(metrics.MEMORY_TEMP, plausible(field_value(device, pynvml.NVML_FI_DEV_MEMORY_TEMP)), *labels)


def _power(device: Device, labels: Labels, out: Readings) -> None:
    milliwatts = device.ask(pynvml.nvmlDeviceGetPowerUsage)
    out.add(metrics.POWER_USAGE, None if milliwatts is None else milliwatts / 1000, *labels)
    out.add(metrics.TOTAL_ENERGY, device.ask(pynvml.nvmlDeviceGetTotalEnergyConsumption), *labels)


def _clocks(device: Device, labels: Labels, out: Readings) -> None:
    out.add(metrics.SM_CLOCK, device.ask(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM), *labels)
    out.add(metrics.MEM_CLOCK, device.ask(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_MEM), *labels)


def _fan(device: Device, labels: Labels, out: Readings) -> None:
    fans = range(device.know(pynvml.nvmlDeviceGetNumFans) or 0)
    speeds = [device.ask(pynvml.nvmlDeviceGetFanSpeed_v2, fan) for fan in fans]
    out.add(metrics.FAN_SPEED, max((speed for speed in speeds if speed is not None), default=None), *labels)


def _throttling(device: Device, labels: Labels, out: Readings) -> None:
    mask = device.ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons)
    if mask is None:
        mask = device.ask(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    out.add(metrics.CLOCK_THROTTLE_REASONS, mask, *labels)


def _ecc(device: Device, labels: Labels, out: Readings) -> None:
    corrected, uncorrected = pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    for family, kind, period in (
        (metrics.ECC_SBE_VOLATILE, corrected, pynvml.NVML_VOLATILE_ECC),
        (metrics.ECC_DBE_VOLATILE, uncorrected, pynvml.NVML_VOLATILE_ECC),
        (metrics.ECC_SBE_AGGREGATE, corrected, pynvml.NVML_AGGREGATE_ECC),
        (metrics.ECC_DBE_AGGREGATE, uncorrected, pynvml.NVML_AGGREGATE_ECC),
    ):
        out.add(family, device.ask(pynvml.nvmlDeviceGetTotalEccErrors, kind, period), *labels)


def _rows(device: Device, labels: Labels, out: Readings) -> None:
    rows = device.ask(pynvml.nvmlDeviceGetRemappedRows)
    if rows is not None:
        correctable, uncorrectable, _, failure = rows
        out.add(metrics.CORRECTABLE_ROWS, correctable, *labels)
        out.add(metrics.UNCORRECTABLE_ROWS, uncorrectable, *labels)
        out.add(metrics.ROW_REMAP_FAILURE, int(bool(failure)), *labels)


def _replays(device: Device, labels: Labels, out: Readings) -> None:
    out.add(metrics.PCIE_REPLAY, device.ask(pynvml.nvmlDeviceGetPcieReplayCounter), *labels)


def _throughput(device: Device, labels: Labels, out: Readings) -> None:
    out.add(metrics.PCIE_TX, device.ask(pynvml.nvmlDeviceGetPcieThroughput, pynvml.NVML_PCIE_UTIL_TX_BYTES), *labels)
    out.add(metrics.PCIE_RX, device.ask(pynvml.nvmlDeviceGetPcieThroughput, pynvml.NVML_PCIE_UTIL_RX_BYTES), *labels)
