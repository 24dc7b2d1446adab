"""What the stand-ins for NVIDIA's DCGM read: NVML, by its C interface (nvml.h), and DCGM's names for it.

A witness of its own: nothing here is shared with the collection's exporter.
"""

import ctypes
import re

MIB = 1 << 20
_FIELD_MEMORY_TEMP = 82
_COUNTED = (0, 7)  # SUCCESS, and INSUFFICIENT_SIZE where there are pages and no room for their addresses
_RENAMED = (  # in DCGM 4.7, with the factor from the old unit to the new one where that changed, too
    ("SM_CLOCK", "SM_CLOCK_HERTZ", 1e6),
    ("MEM_CLOCK", "MEMORY_CLOCK_HERTZ", 1e6),
    ("TOTAL_ENERGY_CONSUMPTION", "GPU_ENERGY_JOULES_TOTAL", 1e-3),
    ("GPU_UTIL", "GPU_UTIL_RATIO", 1e-2),
    ("MEM_COPY_UTIL", "MEMORY_UTIL_RATIO", 1e-2),
    ("ENC_UTIL", "ENC_UTIL_RATIO", 1e-2),
    ("DEC_UTIL", "DEC_UTIL_RATIO", 1e-2),
    ("FB_FREE", "FB_FREE_BYTES", MIB),
    ("FB_USED", "FB_USED_BYTES", MIB),
    ("FB_RESERVED", "FB_RESERVED_BYTES", MIB),
    ("FB_TOTAL", "FB_CAPACITY_BYTES", MIB),
    ("FAN_SPEED", "FAN_SPEED_RATIO", 1e-2),
    ("NVLINK_BANDWIDTH_TOTAL", "NVLINK_THROUGHPUT_BYTES_PER_SECOND", 1e6),
)
_ALIASES = (  # of one and the same field; DCGM 4.6 knows both names, with the old unit
    ("GPU_TEMP", "GPU_TEMP_CELSIUS"),
    ("MEMORY_TEMP", "MEMORY_TEMP_CELSIUS"),
    ("POWER_USAGE", "BOARD_POWER_WATTS"),
    ("ENFORCED_POWER_LIMIT", "BOARD_POWER_LIMIT_ENFORCED_WATTS"),
    ("PCIE_REPLAY_COUNTER", "PCIE_REPLAY_TOTAL"),
    ("XID_ERRORS", "XID_ERROR"),
    ("CLOCK_THROTTLE_REASONS", "CLOCKS_EVENT_REASONS"),
    ("UNCORRECTABLE_REMAPPED_ROWS", "ROW_REMAP_UNCORRECTABLE_TOTAL"),
    ("CORRECTABLE_REMAPPED_ROWS", "ROW_REMAP_CORRECTABLE_TOTAL"),
    ("ROW_REMAP_FAILURE", "ROW_REMAP_FAILED"),
    ("RETIRED_SBE", "PAGE_RETIRED_SBE_TOTAL"),
    ("RETIRED_DBE", "PAGE_RETIRED_DBE_TOTAL"),
    ("RETIRED_PENDING", "PAGE_RETIRED_PENDING"),
)
_UNCHANGED = (
    *(f"ECC_{bits}_{period}_TOTAL" for bits in ("SBE", "DBE") for period in ("VOL", "AGG")),
    *("ROW_REMAP_PENDING", "PCIE_LINK_GEN", "PCIE_LINK_WIDTH", "PCIE_MAX_LINK_GEN", "PCIE_MAX_LINK_WIDTH"),
)
_OF_INSTANCES = ("GPU_UTIL", "MEM_COPY_UTIL", "ENC_UTIL", "DEC_UTIL", "FB_TOTAL", "FB_RESERVED", "FB_FREE", "FB_USED")
_PROFILING = (
    ("GR_ENGINE_ACTIVE", "GR_ENGINE_UTIL_RATIO"),
    ("SM_ACTIVE", "SM_UTIL_RATIO"),
    ("SM_OCCUPANCY", "SM_OCCUPANCY_RATIO"),
    ("PIPE_TENSOR_ACTIVE", "TENSOR_UTIL_RATIO"),
    ("DRAM_ACTIVE", "DRAM_UTIL_RATIO"),
    ("PCIE_TX_BYTES", "PCIE_TX_BYTES"),
    ("PCIE_RX_BYTES", "PCIE_RX_BYTES"),
)


def known(version):
    """Return DCGM's field names of a version: name -> (old name, factor)."""
    fields = {f"DCGM_FI_DEV_{name}": (name, 1) for name in _UNCHANGED}
    for old, new in _ALIASES:
        fields.update({f"DCGM_FI_DEV_{old}": (old, 1), f"DCGM_FI_DEV_{new}": (old, 1)})
    for old, new in _PROFILING:
        fields.update({f"DCGM_FI_PROF_{old}": (old, 1), f"DCGM_FI_PROF_{new}": (old, 1)})
    for old, new, factor in _RENAMED:
        fields[f"DCGM_FI_DEV_{old}"] = (old, 1)
        if tuple(map(int, version.split(".")[:2])) >= (4, 7):
            fields[f"DCGM_FI_DEV_{new}"] = (old, factor)
    fields.setdefault("DCGM_FI_DEV_GPU_UTIL_RATIO", ("GPU_UTIL", 1))  # in 4.6: the new name, and still per cent
    fields.update({"DCGM_FI_DRIVER_VERSION": ("driver", 1), "DCGM_FI_SYSTEM_DRIVER_VERSION": ("driver", 1)})
    return fields


class _Pci(ctypes.Structure):
    _fields_ = [
        ("legacy", ctypes.c_char * 16),
        *((name, ctypes.c_uint) for name in ("domain", "bus", "device", "id", "subsystem")),
        ("bus_id", ctypes.c_char * 32),
    ]


class _Memory(ctypes.Structure):
    _fields_ = [
        ("version", ctypes.c_uint),
        *((name, ctypes.c_ulonglong) for name in ("total", "reserved", "free", "used")),
    ]


class _MigMemory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class _FieldValue(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint) for name in ("field", "scope")),
        *((name, ctypes.c_longlong) for name in ("timestamp", "latency")),
        *((name, ctypes.c_uint) for name in ("kind", "result")),
        ("value", ctypes.c_uint),
        ("rest", ctypes.c_uint),
    ]


class Driver:
    """NVML. Without a library or a driver, there are no GPUs."""

    def __init__(self):
        self._library = None

    def gpus(self):
        """Return each GPU, or its MIG instances in its place: labels, and values by old names in old units."""
        try:
            if self._library is None:
                library = ctypes.CDLL("libnvidia-ml.so.1")
                if library.nvmlInitWithFlags(0) != 0:
                    return []
                self._library = library
        except OSError:
            return []
        count = self._uint("nvmlDeviceGetCount_v2") or 0
        return [entity for index in range(count) for entity in self._gpu(index)]

    def _gpu(self, index):
        handle = ctypes.c_void_p()
        if self._library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
            return []
        pci = _Pci()
        if self._library.nvmlDeviceGetPciInfo_v3(handle, ctypes.byref(pci)) != 0:
            return []  # lost
        labels = {
            "gpu": str(index),
            "UUID": self._text("nvmlDeviceGetUUID", handle),
            "pci_bus_id": pci.bus_id.decode(),
            "device": f"nvidia{self._uint('nvmlDeviceGetMinorNumber', handle)}",
            "modelName": self._text("nvmlDeviceGetName", handle),
        }
        values = {name: value for name, value in self._values(handle) if value is not None}
        return self._instances(handle, labels, values) or [{"labels": labels, "values": values}]

    def _values(self, handle):
        yield "driver", self._text("nvmlSystemGetDriverVersion")
        rates = (ctypes.c_uint * 2)()
        if self._library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(rates)) == 0:
            yield "GPU_UTIL", rates[0]
            yield "MEM_COPY_UTIL", rates[1]
            # What a real GPU counts; the simulated one has no such counters.
            for name in ("GR_ENGINE_ACTIVE", "SM_ACTIVE"):
                yield name, rates[0] / 100
            for name in ("SM_OCCUPANCY", "PIPE_TENSOR_ACTIVE"):
                yield name, rates[0] / 200
            yield "DRAM_ACTIVE", rates[1] / 100
        period = ctypes.c_uint()
        yield "ENC_UTIL", self._uint("nvmlDeviceGetEncoderUtilization", handle, after=[ctypes.byref(period)])
        yield "DEC_UTIL", self._uint("nvmlDeviceGetDecoderUtilization", handle, after=[ctypes.byref(period)])
        memory = _Memory(version=ctypes.sizeof(_Memory) | 2 << 24)
        if self._library.nvmlDeviceGetMemoryInfo_v2(handle, ctypes.byref(memory)) == 0:
            for name in ("total", "reserved", "free", "used"):
                yield f"FB_{name.upper()}", getattr(memory, name) // MIB
        yield "GPU_TEMP", self._uint("nvmlDeviceGetTemperature", handle, 0)
        field = _FieldValue(field=_FIELD_MEMORY_TEMP)
        if self._library.nvmlDeviceGetFieldValues(handle, 1, ctypes.byref(field)) == 0 and field.result == 0:
            yield "MEMORY_TEMP", field.value
        fans = self._uint("nvmlDeviceGetNumFans", handle)
        yield "FAN_SPEED", self._uint("nvmlDeviceGetFanSpeed_v2", handle, 0) if fans else None
        yield "POWER_USAGE", _scaled(self._uint("nvmlDeviceGetPowerUsage", handle), 1e-3)
        yield "ENFORCED_POWER_LIMIT", _scaled(self._uint("nvmlDeviceGetEnforcedPowerLimit", handle), 1e-3)
        yield "TOTAL_ENERGY_CONSUMPTION", self._long("nvmlDeviceGetTotalEnergyConsumption", handle)
        yield "SM_CLOCK", self._uint("nvmlDeviceGetClockInfo", handle, 1)
        yield "MEM_CLOCK", self._uint("nvmlDeviceGetClockInfo", handle, 2)
        yield "CLOCK_THROTTLE_REASONS", self._long("nvmlDeviceGetCurrentClocksEventReasons", handle)
        yield "XID_ERRORS", 0
        for bits, kind in (("SBE", 0), ("DBE", 1)):
            for name, counter in (("VOL", 0), ("AGG", 1)):
                yield f"ECC_{bits}_{name}_TOTAL", self._long("nvmlDeviceGetTotalEccErrors", handle, kind, counter)
        rows = [ctypes.c_uint() for _ in range(4)]
        if self._library.nvmlDeviceGetRemappedRows(handle, *map(ctypes.byref, rows)) == 0:
            names = (
                "CORRECTABLE_REMAPPED_ROWS",
                "UNCORRECTABLE_REMAPPED_ROWS",
                "ROW_REMAP_PENDING",
                "ROW_REMAP_FAILURE",
            )
            yield from zip(names, (row.value for row in rows))
        for name, cause in (("RETIRED_SBE", 0), ("RETIRED_DBE", 1)):
            count = ctypes.c_uint()
            if self._library.nvmlDeviceGetRetiredPages(handle, cause, ctypes.byref(count), None) in _COUNTED:
                yield name, count.value
        yield "RETIRED_PENDING", self._uint("nvmlDeviceGetRetiredPagesPendingStatus", handle)
        for name, counter in (("PCIE_TX_BYTES", 0), ("PCIE_RX_BYTES", 1)):
            yield name, _scaled(self._uint("nvmlDeviceGetPcieThroughput", handle, counter), 1000)
        # The simulated GPUs have links, and nothing that talks over them.
        yield "NVLINK_BANDWIDTH_TOTAL", None if "GeForce" in self._text("nvmlDeviceGetName", handle) else 0
        yield "PCIE_REPLAY_COUNTER", self._uint("nvmlDeviceGetPcieReplayCounter", handle)
        yield "PCIE_LINK_GEN", self._uint("nvmlDeviceGetCurrPcieLinkGeneration", handle)
        yield "PCIE_LINK_WIDTH", self._uint("nvmlDeviceGetCurrPcieLinkWidth", handle)
        yield "PCIE_MAX_LINK_GEN", self._uint("nvmlDeviceGetMaxPcieLinkGeneration", handle)
        yield "PCIE_MAX_LINK_WIDTH", self._uint("nvmlDeviceGetMaxPcieLinkWidth", handle)

    def _instances(self, handle, labels, card):
        """Return an entity for each instance. What is the card's is repeated at each, as DCGM's exporter has it."""
        pending = ctypes.c_uint()
        if self._uint("nvmlDeviceGetMigMode", handle, after=[ctypes.byref(pending)]) != 1:
            return []
        shared = {
            name: value for name, value in card.items() if name not in _OF_INSTANCES and name not in dict(_PROFILING)
        }
        numbers = range(self._uint("nvmlDeviceGetMaxMigDeviceCount", handle) or 0)
        found = [self._instance(handle, number) for number in numbers]
        return [{"labels": {**labels, **own}, "values": {**shared, **values}} for own, values in filter(None, found)]

    def _instance(self, handle, number):
        mig, memory = ctypes.c_void_p(), _MigMemory()
        if self._library.nvmlDeviceGetMigDeviceHandleByIndex(handle, number, ctypes.byref(mig)) != 0:
            return None
        if self._library.nvmlDeviceGetMemoryInfo(mig, ctypes.byref(memory)) != 0:
            return None
        profile = re.search(r"MIG (\S+)", self._text("nvmlDeviceGetName", mig))
        labels = {
            "GPU_I_PROFILE": profile.group(1) if profile else "",
            "GPU_I_ID": str(self._uint("nvmlDeviceGetGpuInstanceId", mig)),
        }
        values = {f"FB_{name.upper()}": getattr(memory, name) // MIB for name in ("total", "free", "used")}
        # What a real GPU counts; the simulated one has no counters, so memory stands for work.
        return labels, {**values, "GR_ENGINE_ACTIVE": round(memory.used / memory.total, 4)}

    def _uint(self, function, *arguments, after=()):
        return self._number(ctypes.c_uint, function, arguments, after)

    def _long(self, function, *arguments):
        return self._number(ctypes.c_ulonglong, function, arguments, ())

    def _number(self, kind, function, arguments, after):
        value = kind()
        result = getattr(self._library, function)(*arguments, ctypes.byref(value), *after)
        return value.value if result == 0 else None

    def _text(self, function, *arguments):
        text = ctypes.create_string_buffer(96)
        return text.value.decode() if getattr(self._library, function)(*arguments, text, 96) == 0 else ""


def _scaled(value, factor):
    return None if value is None else value * factor
