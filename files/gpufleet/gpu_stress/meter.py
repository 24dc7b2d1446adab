"""What NVML says of one GPU, or MIG device."""

from __future__ import annotations

import typing as t

import pynvml

from ..gpu_exporter import nvml


class Memory(t.NamedTuple):
    """Bytes. What the driver keeps for itself is in none but the total."""

    total: int
    free: int
    used: int


class Meter:
    """Asks each time: the exporter's half a second of remembering would be a delay in the control loop."""

    def __init__(self, uuid: str) -> None:
        """Raises nvml.NvmlDown, nvml.GpuLost, pynvml.NVMLError."""
        self._uuid = uuid
        nvml.ask(pynvml.nvmlInit)
        self._tells_processes = nvml.tells_processes(pynvml.nvmlSystemGetDriverVersion())
        self._handle = nvml.ask(pynvml.nvmlDeviceGetHandleByUUID, uuid)
        if self._handle is None:
            raise nvml.GpuLost(f"NVML knows no {uuid}")

    def utilisation(self) -> float | None:
        """Return the part of NVML's last sample period in which a kernel ran; None where it does not measure that."""
        rates = nvml.ask(pynvml.nvmlDeviceGetUtilizationRates, self._handle)
        return None if rates is None else min(100, rates.gpu) / 100

    def memory(self) -> Memory | None:
        """Return the memory as it is now."""
        found = nvml.ask(pynvml.nvmlDeviceGetMemoryInfo, self._handle, pynvml.nvmlMemory_v2)
        found = found or nvml.ask(pynvml.nvmlDeviceGetMemoryInfo, self._handle)  # drivers before 510
        return None if found is None else Memory(found.total, found.free, found.used)

    def pids(self) -> set[int] | None:
        """Return who uses it; None where the driver does not tell."""
        if not self._tells_processes:
            return None
        if nvml.ask(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, self._handle) is None:
            return None  # without rights, "nobody" would be a guess
        return {process.pid for process in nvml.list_processes(self._uuid, self._handle)}

    def watts(self) -> float | None:
        """Return the power; a MIG device has none of its own."""
        milliwatts = nvml.ask(pynvml.nvmlDeviceGetPowerUsage, self._handle)
        return None if milliwatts is None else milliwatts / 1000

    def celsius(self) -> float | None:
        """Return the core's temperature."""
        return nvml.ask(pynvml.nvmlDeviceGetTemperature, self._handle, pynvml.NVML_TEMPERATURE_GPU)
