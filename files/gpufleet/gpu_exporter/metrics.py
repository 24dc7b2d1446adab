"""Every metric that the exporter can serve. docs/metrics.md is written from this table."""

from __future__ import annotations

import typing as t

# Labels that name one GPU, the same in every family that speaks of one. Empty labels are left out when served.
GPU = ("gpu", "UUID", "pci_bus_id", "device", "modelName", "hostname", "driver_version")
# A MIG instance has its GPU's labels and these two.
MIG = (*GPU, "GPU_I_ID", "GPU_I_PROFILE")


class Family(t.NamedTuple):
    """One metric family: what a reader has to know of it."""

    name: str
    collector: str
    kind: str
    labels: tuple[str, ...]
    unit: str
    help: str
    source: str
    since: str = "0.1.0"


FAMILIES: dict[str, Family] = {}

# fmt: off
# A table, which one line per argument would hide.


def _family(
    name: str, collector: str, kind: str, labels: tuple[str, ...], unit: str, text: str, source: str
) -> Family:
    assert name not in FAMILIES, name
    FAMILIES[name] = Family(name, collector, kind, labels, unit, text, source)
    return FAMILIES[name]


# -- gpu: what no other exporter reads, and the health of the card ------------------------------
VRAM_TEMP = _family(
    "DCGM_FI_DEV_VRAM_TEMP", "gpu", "gauge", (*GPU, "source"), "celsius",
    "Temperature of the memory. source says who read it: nvml, nvapi or bar0.",
    "NVML field 82 (NVML_FI_DEV_MEMORY_TEMP); NVAPI thermals; a register of PCIe BAR0",
)
HOT_SPOT_TEMP = _family(
    "DCGM_FI_DEV_HOT_SPOT_TEMP", "gpu", "gauge", (*GPU, "source"), "celsius",
    "Temperature of the hottest spot of the die. source says who read it: nvml, nvapi or bar0.",
    "NVML sensor NVML_TEMPERATURE_GPU_MAX (from driver 615); NVAPI thermals; a register of PCIe BAR0",
)
TEMPERATURE_LIMIT = _family(
    "gpu_temperature_limit_celsius", "gpu", "gauge", (*GPU, "limit"), "celsius",
    "Temperature at which the card acts: shutdown, slowdown, memory_max, gpu_max.",
    "nvmlDeviceGetTemperatureThreshold",
)
FAN_SPEED_RATIO = _family(
    "gpu_fan_speed_ratio", "gpu", "gauge", (*GPU, "fan"), "ratio",
    "Speed that the fan is told to run at, as a part of its maximum. Cards without fans have none.",
    "nvmlDeviceGetFanSpeed_v2",
)
THROTTLE_REASONS = _family(
    "DCGM_FI_DEV_CLOCKS_THROTTLE_REASON", "gpu", "gauge", GPU, "bit mask",
    "Why the clocks are lowered, as NVML's bit mask; gpu_throttled has one series a reason.",
    "nvmlDeviceGetCurrentClocksEventReasons",
)
THROTTLED = _family(
    "gpu_throttled", "gpu", "gauge", (*GPU, "reason"), "",
    "1 while the clocks are lowered for this reason, else 0.",
    "nvmlDeviceGetCurrentClocksEventReasons",
)
THROTTLED_SECONDS = _family(
    "gpu_throttled_seconds_total", "gpu", "counter", (*GPU, "reason"), "seconds",
    "Time that the clocks were lowered for this reason, as seen at each sample.",
    "nvmlDeviceGetCurrentClocksEventReasons",
)
POWER = _family(
    "gpu_power_watts", "gpu", "gauge", GPU, "watts", "Power that the board draws.", "nvmlDeviceGetPowerUsage"
)
POWER_LIMIT = _family(
    "gpu_power_limit_watts", "gpu", "gauge", GPU, "watts",
    "Power that the board may draw now, the lowest of all limits.", "nvmlDeviceGetEnforcedPowerLimit",
)
POWER_DEFAULT_LIMIT = _family(
    "gpu_power_default_limit_watts", "gpu", "gauge", GPU, "watts",
    "Power limit that the board comes with.", "nvmlDeviceGetPowerManagementDefaultLimit",
)
ENERGY = _family(
    "gpu_energy_joules_total", "gpu", "counter", GPU, "joules",
    "Energy that the board took since the driver was loaded.", "nvmlDeviceGetTotalEnergyConsumption",
)
ECC_ERRORS = _family(
    "gpu_ecc_errors_total", "gpu", "counter", (*GPU, "type", "period"), "",
    "ECC errors: type corrected or uncorrected; period volatile (since the driver was loaded) or aggregate (for life).",
    "nvmlDeviceGetTotalEccErrors",
)
REMAPPED_ROWS = _family(
    "gpu_remapped_rows", "gpu", "gauge", (*GPU, "cause"), "",
    "Rows of memory that were replaced by spare ones, for life: cause correctable or uncorrectable.",
    "nvmlDeviceGetRemappedRows",
)
REMAP_PENDING = _family(
    "gpu_row_remap_pending", "gpu", "gauge", GPU, "", "1 when a row is replaced at the GPU's next reset.",
    "nvmlDeviceGetRemappedRows",
)
REMAP_FAILURE = _family(
    "gpu_row_remap_failure", "gpu", "gauge", GPU, "", "1 when a row could not be replaced: the card has to go.",
    "nvmlDeviceGetRemappedRows",
)
RETIRED_PAGES = _family(
    "gpu_retired_pages", "gpu", "gauge", (*GPU, "cause"), "",
    "Pages of memory out of use, for life (cards before Ampere): cause single_bit or double_bit.",
    "nvmlDeviceGetRetiredPages",
)
RETIRED_PENDING = _family(
    "gpu_retired_pages_pending", "gpu", "gauge", GPU, "", "1 when a page goes out of use at the next reboot.",
    "nvmlDeviceGetRetiredPagesPendingStatus",
)
PCIE_GENERATION = _family(
    "gpu_pcie_link_generation", "gpu", "gauge", GPU, "",
    "PCIe generation of the link now. An idle card lowers it to save power.", "nvmlDeviceGetCurrPcieLinkGeneration",
)
PCIE_GENERATION_MAX = _family(
    "gpu_pcie_link_generation_max", "gpu", "gauge", GPU, "",
    "Highest PCIe generation that card and slot can do together.", "nvmlDeviceGetMaxPcieLinkGeneration",
)
PCIE_WIDTH = _family(
    "gpu_pcie_link_width", "gpu", "gauge", GPU, "", "PCIe lanes of the link now.", "nvmlDeviceGetCurrPcieLinkWidth"
)
PCIE_WIDTH_MAX = _family(
    "gpu_pcie_link_width_max", "gpu", "gauge", GPU, "", "PCIe lanes that card and slot can do together.",
    "nvmlDeviceGetMaxPcieLinkWidth",
)
MIG_INFO = _family(
    "gpu_mig_instance_info", "gpu", "gauge", (*MIG, "mig_uuid"), "", "1 for each MIG instance.",
    "nvmlDeviceGetMigDeviceHandleByIndex",
)
MIG_MEMORY_USED = _family(
    "gpu_mig_memory_used_bytes", "gpu", "gauge", MIG, "bytes", "Memory in use in the MIG instance.",
    "nvmlDeviceGetMemoryInfo",
)
MIG_MEMORY_TOTAL = _family(
    "gpu_mig_memory_bytes", "gpu", "gauge", MIG, "bytes", "Memory of the MIG instance.", "nvmlDeviceGetMemoryInfo"
)

# -- dcgm: dcgm-exporter's families (names and units before 4.9), for workers without DCGM ------
GPU_UTIL = _family(
    "DCGM_FI_DEV_GPU_UTIL", "dcgm", "gauge", GPU, "percent", "Part of the time in which a kernel ran.",
    "nvmlDeviceGetUtilizationRates",
)
MEM_COPY_UTIL = _family(
    "DCGM_FI_DEV_MEM_COPY_UTIL", "dcgm", "gauge", GPU, "percent", "Part of the time in which memory was accessed.",
    "nvmlDeviceGetUtilizationRates",
)
ENC_UTIL = _family(
    "DCGM_FI_DEV_ENC_UTIL", "dcgm", "gauge", GPU, "percent", "Load of the video encoder.",
    "nvmlDeviceGetEncoderUtilization",
)
DEC_UTIL = _family(
    "DCGM_FI_DEV_DEC_UTIL", "dcgm", "gauge", GPU, "percent", "Load of the video decoder.",
    "nvmlDeviceGetDecoderUtilization",
)
FB_USED = _family(
    "DCGM_FI_DEV_FB_USED", "dcgm", "gauge", MIG, "MiB", "Framebuffer memory in use.", "nvmlDeviceGetMemoryInfo_v2"
)
FB_FREE = _family(
    "DCGM_FI_DEV_FB_FREE", "dcgm", "gauge", MIG, "MiB", "Framebuffer memory free.", "nvmlDeviceGetMemoryInfo_v2"
)
FB_RESERVED = _family(
    "DCGM_FI_DEV_FB_RESERVED", "dcgm", "gauge", MIG, "MiB", "Framebuffer memory that the driver keeps for itself.",
    "nvmlDeviceGetMemoryInfo_v2",
)
FB_TOTAL = _family(
    "DCGM_FI_DEV_FB_TOTAL", "dcgm", "gauge", MIG, "MiB", "Framebuffer memory in all.", "nvmlDeviceGetMemoryInfo_v2"
)
GPU_TEMP = _family(
    "DCGM_FI_DEV_GPU_TEMP", "dcgm", "gauge", GPU, "celsius", "Core temperature.", "nvmlDeviceGetTemperature"
)
MEMORY_TEMP = _family(
    "DCGM_FI_DEV_MEMORY_TEMP", "dcgm", "gauge", GPU, "celsius",
    "Temperature of the memory where NVML gives it; DCGM_FI_DEV_VRAM_TEMP asks further.",
    "NVML field 82 (NVML_FI_DEV_MEMORY_TEMP)",
)
POWER_USAGE = _family(
    "DCGM_FI_DEV_POWER_USAGE", "dcgm", "gauge", GPU, "watts", "Power that the board draws.", "nvmlDeviceGetPowerUsage"
)
TOTAL_ENERGY = _family(
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "dcgm", "counter", GPU, "millijoules",
    "Energy since the driver was loaded.", "nvmlDeviceGetTotalEnergyConsumption",
)
SM_CLOCK = _family(
    "DCGM_FI_DEV_SM_CLOCK", "dcgm", "gauge", GPU, "MHz", "Clock of the multiprocessors.", "nvmlDeviceGetClockInfo"
)
MEM_CLOCK = _family(
    "DCGM_FI_DEV_MEM_CLOCK", "dcgm", "gauge", GPU, "MHz", "Clock of the memory.", "nvmlDeviceGetClockInfo"
)
FAN_SPEED = _family(
    "DCGM_FI_DEV_FAN_SPEED", "dcgm", "gauge", GPU, "percent", "Speed of the fastest fan.", "nvmlDeviceGetFanSpeed_v2"
)
CLOCK_THROTTLE_REASONS = _family(
    "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "dcgm", "gauge", GPU, "bit mask", "Why the clocks are lowered.",
    "nvmlDeviceGetCurrentClocksEventReasons",
)
ECC_SBE_VOLATILE = _family(
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "dcgm", "counter", GPU, "",
    "Single-bit ECC errors since the driver was loaded.", "nvmlDeviceGetTotalEccErrors",
)
ECC_DBE_VOLATILE = _family(
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "dcgm", "counter", GPU, "",
    "Double-bit ECC errors since the driver was loaded.", "nvmlDeviceGetTotalEccErrors",
)
ECC_SBE_AGGREGATE = _family(
    "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", "dcgm", "counter", GPU, "", "Single-bit ECC errors for life.",
    "nvmlDeviceGetTotalEccErrors",
)
ECC_DBE_AGGREGATE = _family(
    "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "dcgm", "counter", GPU, "", "Double-bit ECC errors for life.",
    "nvmlDeviceGetTotalEccErrors",
)
UNCORRECTABLE_ROWS = _family(
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "dcgm", "counter", GPU, "",
    "Rows replaced after uncorrectable errors.", "nvmlDeviceGetRemappedRows",
)
CORRECTABLE_ROWS = _family(
    "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "dcgm", "counter", GPU, "",
    "Rows replaced after correctable errors.", "nvmlDeviceGetRemappedRows",
)
ROW_REMAP_FAILURE = _family(
    "DCGM_FI_DEV_ROW_REMAP_FAILURE", "dcgm", "gauge", GPU, "", "1 when a row could not be replaced.",
    "nvmlDeviceGetRemappedRows",
)
PCIE_REPLAY = _family(
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "dcgm", "counter", GPU, "", "PCIe packets sent again.",
    "nvmlDeviceGetPcieReplayCounter",
)
PCIE_TX = _family(
    "DCGM_FI_DEV_PCIE_TX_THROUGHPUT", "dcgm", "gauge", GPU, "KB/s",
    "PCIe traffic that the GPU sends. Only on request: each reading takes the driver 20 ms.",
    "nvmlDeviceGetPcieThroughput",
)
PCIE_RX = _family(
    "DCGM_FI_DEV_PCIE_RX_THROUGHPUT", "dcgm", "gauge", GPU, "KB/s",
    "PCIe traffic that the GPU receives. Only on request: each reading takes the driver 20 ms.",
    "nvmlDeviceGetPcieThroughput",
)
XID_ERRORS = _family(
    "DCGM_FI_DEV_XID_ERRORS", "xid", "gauge", GPU, "",
    "Code of the last XID error, 0 where there was none. Served with the dcgm collector's families.",
    "as gpu_xid_errors_total",
)

# -- presence: the PCI bus against NVML ---------------------------------------------------------
GPU_COUNT = _family(
    "dc_exporter_gpu_count", "presence", "gauge", (), "",
    "GPUs of this host: those on the PCI bus, and those that fell off it while the exporter ran.", "sysfs, NVML",
)
GPU_AVAILABLE = _family(
    "dc_exporter_gpu_available", "presence", "gauge", GPU, "",
    "1 when jobs of this host can use the GPU, 0 when it is lost, without driver or passed through to a machine.",
    "sysfs, NVML",
)
GPU_STATE = _family(
    "gpu_state", "presence", "gauge", (*GPU, "state"), "",
    "1 for the state that the GPU is in, 0 for the others: ok, lost, passthrough, driver_mismatch, no_driver, "
    "unresponsive, unknown.", "sysfs, NVML",
)
GPU_STATE_INFO = _family(
    "gpu_state_info", "presence", "gauge", (*GPU, "state", "reason"), "",
    "1, with the reason of the state in words.", "sysfs, NVML",
)
LIBRARY_REPLACED = _family(
    "gpu_nvml_library_replaced", "presence", "gauge", (), "",
    "1 when NVML's library on the disk is another than the one in use: the driver was upgraded, and new jobs fail "
    "until its module is loaded anew. Absent while NVML does not answer.", "/proc/self/maps, stat",
)
NVML_UP = _family(
    "gpu_nvml_up", "presence", "gauge", ("reason",), "",
    "1 when NVML answers, else 0 and the reason: no_library, driver_not_loaded, driver_mismatch, no_permission, "
    "unresponsive, error.", "nvmlInitWithFlags",
)

# -- pcie: errors on the bus --------------------------------------------------------------------
AER_ERRORS = _family(
    "GPU_AER_TOTAL_ERRORS", "pcie", "counter", (*GPU, "severity", "type"), "",
    "PCIe errors that the GPU reported since boot: severity correctable, nonfatal or fatal; type as the kernel "
    "names it.", "sysfs aer_dev_correctable, aer_dev_nonfatal, aer_dev_fatal",
)
AER_STATE = _family(
    "GPU_AER_ERROR_STATE", "pcie", "gauge", GPU, "",
    "Worst PCIe error since boot: 0 none, 1 correctable, 2 nonfatal, 3 fatal.",
    "sysfs aer_dev_correctable, aer_dev_nonfatal, aer_dev_fatal",
)
PCIE_REPLAYS = _family(
    "gpu_pcie_replays_total", "gpu", "counter", GPU, "", "PCIe packets sent again.", "nvmlDeviceGetPcieReplayCounter"
)

# -- xid ----------------------------------------------------------------------------------------
XID_EVENTS = _family(
    "gpu_xid_errors_total", "xid", "counter", (*GPU, "xid"), "",
    "XID errors by code, since the exporter started. Codes with a known meaning are there from the start with 0, so "
    "that the first one counts.", "NVML events (nvmlEventTypeXidCriticalError); the kernel's log (NVRM: Xid)",
)
XID_LAST = _family(
    "gpu_xid_last_timestamp_seconds", "xid", "gauge", (*GPU, "xid"), "seconds", "When the code was last seen.",
    "NVML events; the kernel's log",
)

# -- allocations: who has which GPU -------------------------------------------------------------
_ALLOCATION = ("gpu_slot", "container", "user", "interface", "profile")
GPU_ALLOCATED = _family(
    "ds01_gpu_allocated", "allocations", "gauge", (*_ALLOCATION, "UUID"), "",
    "1 for each GPU or MIG slot that a container, or a user's processes outside of containers, holds. gpu_slot is the "
    "GPU's index, or GPU.MIG-DEVICE as nvidia-smi -L numbers it; \"unknown\" for a UUID that NVML does not know.",
    "Docker, gpu-state.json, NVML processes",
)
GPU_EQUIVALENTS = _family(
    "ds01_gpu_equivalents", "allocations", "gauge", (*_ALLOCATION, "UUID"), "",
    "Size of the slot: a GPU is 1, a MIG instance its compute slices by 7; absent where that is not known.",
    "Docker, gpu-state.json, NVML processes",
)
USER_GPUS = _family(
    "ds01_user_gpus_allocated", "allocations", "gauge", ("user",), "",
    "Slots that the user holds; one that several containers of the user share counts once.",
    "ds01_gpu_allocated",
)
USER_EQUIVALENTS = _family(
    "ds01_user_gpu_equivalents", "allocations", "gauge", ("user",), "",
    "GPU equivalents that the user holds; absent where the size of one slot is not known.",
    "ds01_gpu_equivalents",
)
USER_MIG = _family(
    "ds01_user_mig_allocated", "allocations", "gauge", ("user",), "",
    "MIG equivalents that the user holds: a MIG instance is 1, a GPU as many as the setting mig_per_gpu says.",
    "ds01_gpu_allocated",
)
USER_CONTAINERS = _family(
    "ds01_user_containers_count", "allocations", "gauge", ("user",), "",
    "Running containers of the user, with or without GPU.", "Docker",
)
CONTAINER_CPU = _family(
    "ds01_container_cpu_seconds_total", "allocations", "counter", ("container", "user"), "seconds",
    "CPU time that the running container has used since it was started. Absent on hosts with control groups of "
    "version 1.", "Docker, cpu.stat of its control group",
)
CONTAINER_MEMORY = _family(
    "ds01_container_memory_bytes", "allocations", "gauge", ("container", "user"), "bytes",
    "Memory of the host that the running container uses, without files that are only cached. Absent on hosts with "
    "control groups of version 1.", "Docker, memory.current and memory.stat of its control group",
)
CONTAINER_MEMORY_LIMIT = _family(
    "ds01_container_memory_limit_bytes", "allocations", "gauge", ("container", "user"), "bytes",
    "Memory of the host that the running container may use. Absent without a limit.",
    "Docker, memory.max of its control group",
)
CONTAINERS = _family(
    "ds01_containers_total", "allocations", "gauge", ("status", "interface"), "",
    "Containers by status (running, which includes paused, or stopped) and interface (orchestration, atomic, api, "
    "other, docker).", "Docker",
)
MIG_SLOT = _family(
    "ds01_mig_slot_info", "allocations", "gauge", ("gpu", "gpu_i_id", "slot", "mig_uuid", "profile"), "",
    "1 for each MIG slot: which instance it is.", "NVML",
)
GPU_SLOT = _family(
    "ds01_gpu_slot_info", "allocations", "gauge", ("gpu", "slot", "UUID", "mig_enabled"), "",
    "1 for each GPU: which slot it is.", "NVML",
)
UNMANAGED = _family(
    "ds01_unmanaged_gpu_container", "allocations", "gauge", ("container", "user", "interface"), "",
    "1 for each running container that holds GPUs and came by none of DS01's interfaces.", "Docker",
)
UNMANAGED_COUNT = _family(
    "ds01_unmanaged_gpu_count", "allocations", "gauge", (), "",
    "Running containers that hold GPUs and came by none of DS01's interfaces.", "Docker",
)
ALLOCATION_SOURCE = _family(
    "ds01_allocation_source", "allocations", "gauge", ("source",), "",
    "1 for the source that says who was given what: docker, state_file, or processes where there is neither.", "",
)
PROCESS_MEMORY = _family(
    "gpu_process_memory_bytes", "allocations", "gauge", ("gpu_slot", "UUID", "user", "container"), "bytes",
    "GPU memory of the processes of this user and container; container is empty for bare-metal jobs. Absent where"
    " the driver does not tell it of one of them.",
    "nvmlDeviceGetComputeRunningProcesses_v3, /proc/PID/cgroup",
)
PROCESS_COUNT = _family(
    "gpu_processes", "allocations", "gauge", ("gpu_slot", "UUID", "user", "container"), "",
    "Processes on the GPU of this user and container; container is empty for bare-metal jobs.",
    "nvmlDeviceGetComputeRunningProcesses_v3, /proc/PID/cgroup",
)
DS01_INFO = _family(
    "ds01_exporter_info", "allocations", "gauge", ("version", "type"), "", "1, with the exporter's version.", ""
)

# -- events: DS01's log -------------------------------------------------------------------------
EVENTS_24H = _family(
    "ds01_events_24h_total", "events", "gauge", ("event_type",), "", "Events of the last 24 hours, exactly.",
    "events.jsonl",
)
EVENTS_BAD_LINES = _family(
    "ds01_events_bad_lines_total", "events", "counter", (), "", "Lines of the log that are no events.", "events.jsonl"
)
STATE_DISK = _family(
    "ds01_state_disk_bytes", "events", "gauge", ("type",), "bytes",
    "The filesystem of DS01's state: type used, free or total.", "statvfs",
)

# -- system and ipmi ----------------------------------------------------------------------------
LOAD = _family("SYS_LOAD_AVG", "system", "gauge", ("period",), "", "Load over 1m, 5m and 15m.", "/proc/loadavg")
CPU_USAGE = _family(
    "SYS_CPU_USAGE", "system", "gauge", (), "percent", "CPU time in use since the sample before.", "/proc/stat"
)
MEMORY_USED = _family(
    "SYS_MEM_USED", "system", "gauge", (), "bytes", "Memory in use: total less available.", "/proc/meminfo"
)
INLET_TEMP = _family(
    "IPMI_INLET_TEMP", "ipmi", "gauge", ("sensor",), "celsius", "Temperature of the air that comes in.",
    "the BMC's sensors, by ipmitool",
)
EXHAUST_TEMP = _family(
    "IPMI_EXHAUST_TEMP", "ipmi", "gauge", ("sensor",), "celsius", "Temperature of the air that goes out.",
    "the BMC's sensors, by ipmitool",
)

# -- the exporter itself ------------------------------------------------------------------------
BUILD_INFO = _family(
    "dc_exporter_build_info", "exporter", "gauge", ("version", "build_date"), "", "1, with version and date.", ""
)
VERSION_INFO = _family(
    "gpu_exporter_build_info", "exporter", "gauge", ("version",), "", "1, with the version, as exporters have it.", ""
)
COLLECTOR_UP = _family(
    "gpu_exporter_collector_up", "exporter", "gauge", ("collector",), "",
    "1 when the last reading of the collector was good and is not too old.", "",
)
COLLECTOR_LAST = _family(
    "gpu_exporter_collector_last_success_timestamp_seconds", "exporter", "gauge", ("collector",), "seconds",
    "When the collector last gave a good reading.", "",
)
COLLECTOR_AGE = _family(
    "gpu_exporter_collector_age_seconds", "exporter", "gauge", ("collector",), "seconds",
    "Age of what is served of the collector, by a clock that does not jump.", "",
)
COLLECTOR_DURATION = _family(
    "gpu_exporter_collector_duration_seconds", "exporter", "gauge", ("collector",), "seconds",
    "Time that the last reading took.", "",
)
COLLECTOR_FAILURES = _family(
    "gpu_exporter_collector_failures_total", "exporter", "counter", ("collector",), "",
    "Readings that failed as a whole.", "",
)
PARTIAL_FAILURES = _family(
    "gpu_exporter_collector_partial_failures_total", "exporter", "counter", ("collector",), "",
    "Parts of readings, one GPU or container for example, that failed while the rest was served.", "",
)
SERIES_DROPPED = _family(
    "gpu_exporter_series_dropped", "exporter", "gauge", ("collector",), "",
    "Series that are not served because the collector would go beyond its bound.", "",
)
WORKER_RESTARTS = _family(
    "gpu_exporter_worker_restarts_total", "exporter", "counter", ("reason",), "",
    "Times that the sampling process was replaced: deadline, exited, driver_replaced.", "",
)
WORKERS_STUCK = _family(
    "gpu_exporter_workers_stuck", "exporter", "gauge", (), "",
    "Sampling processes that were killed and do not go, because the driver holds them in the kernel.", "",
)
DCGM_SERVED = _family(
    "gpu_exporter_dcgm_served", "exporter", "gauge", (), "",
    "1 while this exporter serves DCGM's families, 0 while they are left to DCGM or the port is somebody else's.", "",
)
PROCESS_CPU = _family(
    "gpu_exporter_cpu_seconds_total", "exporter", "counter", ("process",), "seconds",
    "CPU time of the exporter's processes, server and sampler.", "/proc/self/stat",
)
PROCESS_RSS = _family(
    "gpu_exporter_resident_memory_bytes", "exporter", "gauge", ("process",), "bytes",
    "Resident memory of the exporter's processes, server and sampler.", "/proc/PID/statm",
)


def is_dcgms(name: str) -> bool:
    """Whether dcgm-exporter has a family of this name, too: beside it, a GPU would be reported twice."""
    return FAMILIES[name].collector == "dcgm" or name == XID_ERRORS.name
