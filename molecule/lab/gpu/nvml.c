/*
 * A stand-in for NVIDIA's NVML (libnvidia-ml.so.1), for tests on machines without a GPU. It is not NVIDIA's software
 * and has nothing of it: it serves what a scenario file says (scenario.h) by NVML's public interface, as nvidia-ml-py
 * calls it. Structures are laid out as in nvidia-ml-py 13.615.71.
 */
#define _POSIX_C_SOURCE 200809L

#include "scenario.h"

#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define API __attribute__((visibility("default")))
#define NONE 0xFFFFFFFFu
#define XID_EVENT 8ULL
#define MEMORY_V2 0x02000028u
#define TEMPERATURE_V1 0x0100000Cu
#define EVENT_SETS 16
#define MAX_PAGES 64

typedef int nvmlReturn_t;
typedef unsigned long long u64;

/* What a handle points to: a GPU, or an instance of one. Handles stay valid for the life of the process. */
typedef struct device {
    unsigned gpu;
    int mig; /* -1: the GPU itself */
} *nvmlDevice_t;

typedef struct {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

typedef struct {
    u64 total, free, used;
} nvmlMemory_t;

typedef struct {
    unsigned version;
    u64 total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
    unsigned gpu, memory;
} nvmlUtilization_t;

typedef struct {
    unsigned version, sensorType;
    int temperature;
} nvmlTemperature_t;

typedef struct {
    uint32_t fieldId, scopeId;
    int64_t timestamp, latencyUsec;
    unsigned valueType;
    nvmlReturn_t nvmlReturn;
    union {
        double dVal;
        unsigned uiVal;
        u64 ullVal;
        int siVal;
    } value;
} nvmlFieldValue_t;

typedef struct {
    unsigned pid;
    u64 usedGpuMemory;
    unsigned gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

typedef struct {
    unsigned pid;
    u64 timeStamp;
    unsigned smUtil, memUtil, encUtil, decUtil;
} nvmlProcessUtilizationSample_t;

typedef struct {
    unsigned multiprocessorCount, sharedCopyEngineCount, sharedDecoderCount, sharedEncoderCount, sharedJpegCount,
        sharedOfaCount, gpuInstanceSliceCount, computeInstanceSliceCount;
    u64 memorySizeMB;
} nvmlDeviceAttributes_t;

typedef struct {
    nvmlDevice_t device;
    u64 eventType, eventData;
    unsigned gpuInstanceId, computeInstanceId;
} nvmlEventData_t;

typedef struct event_set {
    bool used;
    bool registered[SCENARIO_GPUS];
    unsigned long seen[SCENARIO_GPUS]; /* sequence number of the newest event that is no news for this set */
} *nvmlEventSet_t;

/* All below is guarded by the scenario's lock. */
static unsigned initialised;
static struct device gpus[SCENARIO_GPUS], migs[SCENARIO_GPUS][SCENARIO_MIG];
static unsigned order[SCENARIO_GPUS], gpu_count; /* index to GPU, as found by the first nvmlInit */
static struct event_set sets[EVENT_SETS];

/* dlopen without loading finds this very library. Its dependencies' functions do not begin with nvml. */
bool scenario_knows_function(const char *name)
{
    void *self = dlopen("libnvidia-ml.so.1", RTLD_LAZY | RTLD_NOLOAD);
    bool known = self != NULL && strncmp(name, "nvml", 4) == 0 && dlsym(self, name) != NULL;
    if (self != NULL)
        dlclose(self);
    return known;
}

/* -- what all calls share ----------------------------------------------------------------------------------------- */

/* With the lock held. */
static bool enumerated(unsigned gpu)
{
    for (unsigned i = 0; i < gpu_count; i++)
        if (order[i] == gpu)
            return true;
    return false;
}

static bool is_gpu_handle(const struct device *device)
{
    return device >= gpus && device < gpus + SCENARIO_GPUS;
}

static bool is_mig_handle(const struct device *device)
{
    return device >= migs[0] && device < migs[0] + SCENARIO_GPUS * SCENARIO_MIG;
}

/* With the lock held. */
static nvmlReturn_t check_device(const struct device *device)
{
    if ((!is_gpu_handle(device) && !is_mig_handle(device)) || !enumerated(device->gpu))
        return INVALID_ARGUMENT;
    if (!scenario_gpu_present(device->gpu))
        return GPU_IS_LOST;
    if (device->mig >= 0 && scenario_find("gpu.%u.mig.%d.uuid", device->gpu, device->mig) == NULL)
        return INVALID_ARGUMENT;
    return SUCCESS;
}

/* The beginning of each call but nvmlInit: faults, then what NVML itself checks. No device: not about a GPU. */
static nvmlReturn_t enter(const char *function, const struct device *device, bool about_device)
{
    bool valid = is_gpu_handle(device) || is_mig_handle(device);
    nvmlReturn_t result = scenario_enter(function, about_device && valid ? (int)device->gpu : -1);
    if (result != SUCCESS)
        return result;
    if (!scenario_lock())
        result = UNKNOWN_ERROR;
    else if (initialised == 0)
        result = UNINITIALIZED;
    else if (about_device)
        result = check_device(device);
    scenario_unlock();
    return result;
}

static void key_of(const struct device *device, const char *name, char key[SCENARIO_TEXT])
{
    if (device->mig < 0)
        snprintf(key, SCENARIO_TEXT, "gpu.%u.%s", device->gpu, name);
    else
        snprintf(key, SCENARIO_TEXT, "gpu.%u.mig.%d.%s", device->gpu, device->mig, name);
}

static nvmlReturn_t reading(const struct device *device, const char *name, double *number)
{
    char key[SCENARIO_TEXT];
    key_of(device, name, key);
    return scenario_reading(key, number);
}

static nvmlReturn_t read_unsigned(const struct device *device, const char *name, unsigned *out)
{
    double number;
    nvmlReturn_t result = reading(device, name, &number);
    if (result == SUCCESS)
        *out = (unsigned)llround(number);
    return result;
}

static nvmlReturn_t read_u64(const struct device *device, const char *name, u64 *out)
{
    double number;
    nvmlReturn_t result = reading(device, name, &number);
    if (result == SUCCESS)
        *out = (u64)llround(number);
    return result;
}

/* Two thirds of NVML: one number of one GPU. */
static nvmlReturn_t get_unsigned(const char *function, const struct device *device, const char *name, unsigned *out)
{
    nvmlReturn_t result = enter(function, device, true);
    if (result == SUCCESS && out == NULL)
        result = INVALID_ARGUMENT;
    return result == SUCCESS ? read_unsigned(device, name, out) : result;
}

static nvmlReturn_t get_u64(const char *function, const struct device *device, const char *name, u64 *out)
{
    nvmlReturn_t result = enter(function, device, true);
    if (result == SUCCESS && out == NULL)
        result = INVALID_ARGUMENT;
    return result == SUCCESS ? read_u64(device, name, out) : result;
}

static nvmlReturn_t two_unsigned(const char *function, const struct device *device, const char *first,
                                 const char *second, unsigned *one, unsigned *two)
{
    nvmlReturn_t result = get_unsigned(function, device, first, one);
    return result == SUCCESS ? read_unsigned(device, second, two) : result;
}

static nvmlReturn_t copy_text(const char *key, char *out, unsigned length)
{
    char text[SCENARIO_TEXT];
    nvmlReturn_t result = scenario_text(key, text);
    if (result != SUCCESS)
        return result;
    if (strlen(text) >= length)
        return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return SUCCESS;
}

static nvmlReturn_t get_text(const char *function, const struct device *device, const char *name, char *out,
                             unsigned length)
{
    char key[SCENARIO_TEXT];
    nvmlReturn_t result = enter(function, device, true);
    if (result != SUCCESS)
        return result;
    key_of(device, name, key);
    return copy_text(key, out, length);
}

#define UNSIGNED_OF_GPU(function, name)                                                                               \
    API nvmlReturn_t function(nvmlDevice_t device, unsigned *out)                                                     \
    {                                                                                                                 \
        return get_unsigned(#function, device, name, out);                                                            \
    }

#define U64_OF_GPU(function, name)                                                                                    \
    API nvmlReturn_t function(nvmlDevice_t device, u64 *out)                                                          \
    {                                                                                                                 \
        return get_u64(#function, device, name, out);                                                                 \
    }

#define TEXT_OF_GPU(function, name)                                                                                   \
    API nvmlReturn_t function(nvmlDevice_t device, char *out, unsigned length)                                        \
    {                                                                                                                 \
        return get_text(#function, device, name, out, length);                                                        \
    }

#define TWO_OF_GPU(function, first, second)                                                                           \
    API nvmlReturn_t function(nvmlDevice_t device, unsigned *one, unsigned *two)                                      \
    {                                                                                                                 \
        return two_unsigned(#function, device, first, second, one, two);                                              \
    }

/* -- the library and the system ----------------------------------------------------------------------------------- */

/* With the lock held. GPUs come and go with this only. */
static void enumerate(void)
{
    gpu_count = 0;
    for (unsigned gpu = 0; gpu < SCENARIO_GPUS; gpu++) {
        gpus[gpu] = (struct device){.gpu = gpu, .mig = -1};
        for (int mig = 0; mig < SCENARIO_MIG; mig++)
            migs[gpu][mig] = (struct device){.gpu = gpu, .mig = mig};
        if (scenario_gpu_present(gpu))
            order[gpu_count++] = gpu;
    }
}

static nvmlReturn_t init(const char *function)
{
    nvmlReturn_t result = scenario_enter(function, -1);
    if (result != SUCCESS)
        return result;
    if (!scenario_lock())
        result = UNKNOWN_ERROR;
    else if (initialised++ == 0)
        enumerate();
    scenario_unlock();
    return result;
}

API nvmlReturn_t nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    return init("nvmlInitWithFlags");
}

API nvmlReturn_t nvmlInit_v2(void)
{
    return init("nvmlInit_v2");
}

/* Ends what it has to end even when it returns an error. */
API nvmlReturn_t nvmlShutdown(void)
{
    nvmlReturn_t result = enter("nvmlShutdown", NULL, false);
    scenario_lock();
    if (initialised > 0 && --initialised == 0)
        memset(sets, 0, sizeof sets);
    scenario_unlock();
    return result;
}

API const char *nvmlErrorString(nvmlReturn_t code)
{
    return scenario_error_string(code);
}

static nvmlReturn_t system_text(const char *function, const char *key, char *out, unsigned length)
{
    nvmlReturn_t result = enter(function, NULL, false);
    return result == SUCCESS ? copy_text(key, out, length) : result;
}

API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    return system_text("nvmlSystemGetDriverVersion", "driver.version", version, length);
}

API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned length)
{
    return system_text("nvmlSystemGetNVMLVersion", "nvml.version", version, length);
}

static nvmlReturn_t cuda_version(const char *function, int *version)
{
    double number;
    nvmlReturn_t result = enter(function, NULL, false);
    if (result == SUCCESS)
        result = scenario_reading("driver.cuda", &number);
    if (result == SUCCESS)
        *version = (int)number;
    return result;
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    return cuda_version("nvmlSystemGetCudaDriverVersion", version);
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    return cuda_version("nvmlSystemGetCudaDriverVersion_v2", version);
}

/* -- handles and identity ----------------------------------------------------------------------------------------- */

API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count)
{
    nvmlReturn_t result = enter("nvmlDeviceGetCount_v2", NULL, false);
    if (result == SUCCESS)
        *count = gpu_count;
    return result;
}

/* A handle is given out only for a GPU that answers. */
static nvmlReturn_t hand_out(const char *function, nvmlDevice_t found, nvmlDevice_t *device)
{
    nvmlReturn_t result = scenario_enter(function, (int)found->gpu);
    if (result != SUCCESS)
        return result;
    result = scenario_lock() ? check_device(found) : UNKNOWN_ERROR;
    scenario_unlock();
    if (result == SUCCESS)
        *device = found;
    return result;
}

/* Until the GPU is known; hand_out has the rest. */
static nvmlReturn_t enter_search(const char *function)
{
    scenario_lock();
    bool ready = initialised > 0;
    scenario_unlock();
    if (ready)
        return SUCCESS;
    nvmlReturn_t result = scenario_enter(function, -1);
    return result == SUCCESS ? UNINITIALIZED : result;
}

API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device)
{
    nvmlReturn_t result = enter_search("nvmlDeviceGetHandleByIndex_v2");
    if (result != SUCCESS)
        return result;
    if (index >= gpu_count)
        return INVALID_ARGUMENT;
    return hand_out("nvmlDeviceGetHandleByIndex_v2", &gpus[order[index]], device);
}

/* With the lock held. */
static bool text_is(const struct entry *entry, const char *text)
{
    return entry != NULL && strcasecmp(entry->text, text) == 0;
}

static nvmlDevice_t find_uuid(const char *uuid)
{
    nvmlDevice_t found = NULL;
    scenario_lock();
    for (unsigned i = 0; i < gpu_count; i++) {
        if (text_is(scenario_find("gpu.%u.uuid", order[i]), uuid))
            found = &gpus[order[i]];
        for (int mig = 0; mig < SCENARIO_MIG; mig++)
            if (text_is(scenario_find("gpu.%u.mig.%d.uuid", order[i], mig), uuid))
                found = &migs[order[i]][mig];
    }
    scenario_unlock();
    return found;
}

API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    nvmlReturn_t result = enter_search("nvmlDeviceGetHandleByUUID");
    if (result != SUCCESS)
        return result;
    nvmlDevice_t found = find_uuid(uuid);
    return found == NULL ? NOT_FOUND : hand_out("nvmlDeviceGetHandleByUUID", found, device);
}

struct address {
    unsigned domain, bus, device;
};

static bool parse_address(const char *text, struct address *address)
{
    unsigned function;
    if (sscanf(text, "%x:%x:%x.%x", &address->domain, &address->bus, &address->device, &function) == 4)
        return true;
    address->domain = 0;
    return sscanf(text, "%x:%x.%x", &address->bus, &address->device, &function) == 3;
}

static nvmlDevice_t find_address(const struct address *wanted)
{
    nvmlDevice_t found = NULL;
    scenario_lock();
    for (unsigned i = 0; i < gpu_count; i++) {
        const struct entry *entry = scenario_find("gpu.%u.pci.bus_id", order[i]);
        struct address address;
        if (entry != NULL && parse_address(entry->text, &address) && memcmp(&address, wanted, sizeof address) == 0)
            found = &gpus[order[i]];
    }
    scenario_unlock();
    return found;
}

API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
    struct address wanted;
    nvmlReturn_t result = enter_search("nvmlDeviceGetHandleByPciBusId_v2");
    if (result != SUCCESS)
        return result;
    if (!parse_address(bus_id, &wanted))
        return INVALID_ARGUMENT;
    nvmlDevice_t found = find_address(&wanted);
    return found == NULL ? NOT_FOUND : hand_out("nvmlDeviceGetHandleByPciBusId_v2", found, device);
}

API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *index)
{
    nvmlReturn_t result = enter("nvmlDeviceGetIndex", device, true);
    if (result != SUCCESS)
        return result;
    if (device->mig >= 0) {
        *index = (unsigned)device->mig;
        return SUCCESS;
    }
    for (unsigned i = 0; i < gpu_count; i++)
        if (order[i] == device->gpu)
            *index = i;
    return SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    char text[SCENARIO_TEXT];
    struct address address;
    nvmlReturn_t result = get_text("nvmlDeviceGetPciInfo_v3", device, "pci.bus_id", text, sizeof text);
    if (result != SUCCESS)
        return result;
    if (!parse_address(text, &address))
        return UNKNOWN_ERROR;
    memset(pci, 0, sizeof *pci);
    pci->domain = address.domain, pci->bus = address.bus, pci->device = address.device;
    snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", address.domain, address.bus & 0xFF,
             address.device & 0xFF);
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", address.domain & 0xFFFF,
             address.bus & 0xFF, address.device & 0xFF);
    unsigned device_id = 0;
    result = read_unsigned(device, "pci.device_id", &device_id);
    pci->pciDeviceId = device_id << 16 | 0x10DE;
    (void)read_unsigned(device, "pci.subsystem_id", &pci->pciSubSystemId);
    return result;
}

TEXT_OF_GPU(nvmlDeviceGetName, "name")
TEXT_OF_GPU(nvmlDeviceGetUUID, "uuid")
TEXT_OF_GPU(nvmlDeviceGetSerial, "serial")
TEXT_OF_GPU(nvmlDeviceGetVbiosVersion, "vbios")
UNSIGNED_OF_GPU(nvmlDeviceGetMinorNumber, "minor")
UNSIGNED_OF_GPU(nvmlDeviceGetBrand, "brand")
TWO_OF_GPU(nvmlDeviceGetCudaComputeCapability, "compute_capability.major", "compute_capability.minor")

/* -- readings ----------------------------------------------------------------------------------------------------- */

/* MIG instances have no reserved memory of their own: what is not there is 0. */
static nvmlReturn_t read_memory(const struct device *device, nvmlMemory_v2_t *memory)
{
    memory->reserved = 0;
    (void)read_u64(device, "memory.reserved", &memory->reserved);
    nvmlReturn_t result = read_u64(device, "memory.total", &memory->total);
    if (result == SUCCESS)
        result = read_u64(device, "memory.used", &memory->used);
    if (result == SUCCESS)
        memory->free = memory->total - memory->used - memory->reserved;
    return result;
}

/* The first version counts reserved memory as used. */
API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    nvmlMemory_v2_t all;
    nvmlReturn_t result = enter("nvmlDeviceGetMemoryInfo", device, true);
    if (result == SUCCESS)
        result = read_memory(device, &all);
    if (result == SUCCESS)
        *memory = (nvmlMemory_t){all.total, all.free, all.used + all.reserved};
    return result;
}

API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    nvmlReturn_t result = enter("nvmlDeviceGetMemoryInfo_v2", device, true);
    if (result == SUCCESS && memory->version != MEMORY_V2)
        result = ARGUMENT_VERSION_MISMATCH;
    return result == SUCCESS ? read_memory(device, memory) : result;
}

API nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    nvmlReturn_t result = get_u64("nvmlDeviceGetBAR1MemoryInfo", device, "bar1.total", &memory->total);
    if (result == SUCCESS)
        result = read_u64(device, "bar1.used", &memory->used);
    if (result == SUCCESS)
        memory->free = memory->total - memory->used;
    return result;
}

API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates)
{
    return two_unsigned("nvmlDeviceGetUtilizationRates", device, "utilization.gpu", "utilization.memory", &rates->gpu,
                        &rates->memory);
}

static nvmlReturn_t codec(const char *function, const struct device *device, const char *name, unsigned *utilization,
                          unsigned *period_us)
{
    *period_us = 167000;
    return get_unsigned(function, device, name, utilization);
}

API nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t device, unsigned *utilization, unsigned *period_us)
{
    return codec("nvmlDeviceGetEncoderUtilization", device, "utilization.encoder", utilization, period_us);
}

API nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t device, unsigned *utilization, unsigned *period_us)
{
    return codec("nvmlDeviceGetDecoderUtilization", device, "utilization.decoder", utilization, period_us);
}

/* Which of a group of names an argument means; NULL for none. */
#define CHOICE(names, choice) ((choice) < sizeof(names) / sizeof *(names) ? (names)[choice] : NULL)

static nvmlReturn_t get_choice(const char *function, const struct device *device, const char *name, unsigned *out)
{
    nvmlReturn_t result = enter(function, device, true);
    if (result == SUCCESS && name == NULL)
        result = INVALID_ARGUMENT;
    return result == SUCCESS ? read_unsigned(device, name, out) : result;
}

/* This one never learnt of the second sensor. */
API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *celsius)
{
    return get_choice("nvmlDeviceGetTemperature", device, sensor == 0 ? "temperature.core" : NULL, celsius);
}

API nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
    static const char *const SENSORS[] = {"temperature.core", "temperature.hotspot"};
    unsigned celsius = 0;
    const char *name = CHOICE(SENSORS, temperature->sensorType);
    nvmlReturn_t result = get_choice("nvmlDeviceGetTemperatureV", device, name, &celsius);
    if (temperature->version != TEMPERATURE_V1)
        return ARGUMENT_VERSION_MISMATCH;
    if (result == SUCCESS)
        temperature->temperature = (int)celsius;
    return result;
}

API nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, unsigned threshold, unsigned *celsius)
{
    static const char *const NAMES[] = {
        "temperature.threshold.shutdown",
        "temperature.threshold.slowdown",
        "temperature.threshold.memory_max",
        "temperature.threshold.gpu_max",
        "unsupported", /* acoustic and GPS: no line has such a name */
        "unsupported",
        "unsupported",
        "unsupported",
    };
    return get_choice("nvmlDeviceGetTemperatureThreshold", device, CHOICE(NAMES, threshold), celsius);
}

UNSIGNED_OF_GPU(nvmlDeviceGetPowerUsage, "power.usage")
UNSIGNED_OF_GPU(nvmlDeviceGetEnforcedPowerLimit, "power.limit.enforced")
UNSIGNED_OF_GPU(nvmlDeviceGetPowerManagementLimit, "power.limit.management")
UNSIGNED_OF_GPU(nvmlDeviceGetPowerManagementDefaultLimit, "power.limit.default")
TWO_OF_GPU(nvmlDeviceGetPowerManagementLimitConstraints, "power.limit.minimum", "power.limit.maximum")
U64_OF_GPU(nvmlDeviceGetTotalEnergyConsumption, "energy")

API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz)
{
    static const char *const NAMES[] = {"clock.graphics", "clock.sm", "clock.memory", "clock.video"};
    return get_choice("nvmlDeviceGetClockInfo", device, CHOICE(NAMES, type), mhz);
}

API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz)
{
    static const char *const NAMES[] = {"clock.max.graphics", "clock.max.sm", "clock.max.memory", "clock.max.video"};
    return get_choice("nvmlDeviceGetMaxClockInfo", device, CHOICE(NAMES, type), mhz);
}

UNSIGNED_OF_GPU(nvmlDeviceGetPerformanceState, "performance_state")
U64_OF_GPU(nvmlDeviceGetCurrentClocksEventReasons, "clock.event_reasons")
U64_OF_GPU(nvmlDeviceGetCurrentClocksThrottleReasons, "clock.event_reasons")
UNSIGNED_OF_GPU(nvmlDeviceGetNumFans, "fan.count")
UNSIGNED_OF_GPU(nvmlDeviceGetFanSpeed, "fan.0.speed")

API nvmlReturn_t nvmlDeviceGetFanSpeed_v2(nvmlDevice_t device, unsigned fan, unsigned *percent)
{
    char name[32];
    unsigned fans;
    nvmlReturn_t result = get_unsigned("nvmlDeviceGetFanSpeed_v2", device, "fan.count", &fans);
    if (result != SUCCESS)
        return result;
    if (fan >= fans)
        return fans == 0 ? NOT_SUPPORTED : INVALID_ARGUMENT;
    snprintf(name, sizeof name, "fan.%u.speed", fan);
    return read_unsigned(device, name, percent);
}

/* -- memory errors ------------------------------------------------------------------------------------------------ */

API nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned *correctable, unsigned *uncorrectable,
                                           unsigned *pending, unsigned *failure)
{
    nvmlReturn_t result = two_unsigned("nvmlDeviceGetRemappedRows", device, "remapped_rows.correctable",
                                       "remapped_rows.uncorrectable", correctable, uncorrectable);
    if (result == SUCCESS)
        result = read_unsigned(device, "remapped_rows.pending", pending);
    return result == SUCCESS ? read_unsigned(device, "remapped_rows.failure", failure) : result;
}

/* The scenario has their number; addresses and times are made up. */
static nvmlReturn_t retired_pages(const char *function, const struct device *device, unsigned cause, unsigned *count,
                                  u64 *addresses, u64 *times)
{
    static const char *const NAMES[] = {"retired_pages.single_bit", "retired_pages.double_bit"};
    unsigned room = *count, pages = 0;
    nvmlReturn_t result = get_choice(function, device, CHOICE(NAMES, cause), &pages);
    if (result != SUCCESS)
        return result;
    pages = pages > MAX_PAGES ? MAX_PAGES : pages;
    *count = pages;
    if (pages > room || (pages > 0 && addresses == NULL))
        return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < pages; i++) {
        addresses[i] = ((u64)cause << 20 | i) << 12;
        if (times != NULL)
            times[i] = 1700000000ULL + i;
    }
    return SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t device, unsigned cause, unsigned *count, u64 *addresses)
{
    return retired_pages("nvmlDeviceGetRetiredPages", device, cause, count, addresses, NULL);
}

/* A query of the number has no fifth argument: times may be anything then. */
API nvmlReturn_t nvmlDeviceGetRetiredPages_v2(nvmlDevice_t device, unsigned cause, unsigned *count, u64 *addresses,
                                              u64 *times)
{
    return retired_pages("nvmlDeviceGetRetiredPages_v2", device, cause, count, addresses,
                         addresses == NULL ? NULL : times);
}

UNSIGNED_OF_GPU(nvmlDeviceGetRetiredPagesPendingStatus, "retired_pages.pending")
TWO_OF_GPU(nvmlDeviceGetEccMode, "ecc.mode", "ecc.pending_mode")

static nvmlReturn_t ecc_errors(const char *function, const struct device *device, unsigned type, unsigned counter,
                               const char *location, u64 *count)
{
    char name[64];
    nvmlReturn_t result = enter(function, device, true);
    if (result == SUCCESS && (type > 1 || counter > 1))
        result = INVALID_ARGUMENT;
    if (result != SUCCESS)
        return result;
    snprintf(name, sizeof name, "ecc.%s.%s%s", counter == 0 ? "volatile" : "aggregate",
             type == 0 ? "corrected" : "uncorrected", location);
    return read_u64(device, name, count);
}

API nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned type, unsigned counter, u64 *count)
{
    return ecc_errors("nvmlDeviceGetTotalEccErrors", device, type, counter, "", count);
}

API nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, unsigned type, unsigned counter,
                                                 unsigned location, u64 *count)
{
    const char *name = location == 2 ? ".dram" : location == 7 ? ".sram" : ".unsupported";
    return ecc_errors("nvmlDeviceGetMemoryErrorCounter", device, type, counter, name, count);
}

/* -- PCIe --------------------------------------------------------------------------------------------------------- */

UNSIGNED_OF_GPU(nvmlDeviceGetPcieReplayCounter, "pcie.replays")
UNSIGNED_OF_GPU(nvmlDeviceGetCurrPcieLinkGeneration, "pcie.link.generation")
UNSIGNED_OF_GPU(nvmlDeviceGetCurrPcieLinkWidth, "pcie.link.width")
UNSIGNED_OF_GPU(nvmlDeviceGetMaxPcieLinkGeneration, "pcie.link.max_generation")
UNSIGNED_OF_GPU(nvmlDeviceGetMaxPcieLinkWidth, "pcie.link.max_width")

API nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, unsigned counter, unsigned *kilobytes)
{
    static const char *const NAMES[] = {"pcie.throughput.tx", "pcie.throughput.rx"};
    return get_choice("nvmlDeviceGetPcieThroughput", device, CHOICE(NAMES, counter), kilobytes);
}

/* -- fields ------------------------------------------------------------------------------------------------------- */

enum { UNSIGNED_INT = 1, UNSIGNED_LONG_LONG = 3, SIGNED_INT = 5 }; /* nvmlValueType_t */

static const struct field {
    unsigned id, type;
    const char *name;
} FIELDS[] = {
    {1, UNSIGNED_INT, "ecc.mode"},
    {2, UNSIGNED_INT, "ecc.pending_mode"},
    {3, UNSIGNED_LONG_LONG, "ecc.volatile.corrected"},
    {4, UNSIGNED_LONG_LONG, "ecc.volatile.uncorrected"},
    {5, UNSIGNED_LONG_LONG, "ecc.aggregate.corrected"},
    {6, UNSIGNED_LONG_LONG, "ecc.aggregate.uncorrected"},
    {82, UNSIGNED_INT, "temperature.memory"},
    {83, UNSIGNED_LONG_LONG, "energy"},
    {94, UNSIGNED_INT, "pcie.replays"},
    {142, UNSIGNED_INT, "remapped_rows.correctable"},
    {143, UNSIGNED_INT, "remapped_rows.uncorrectable"},
    {144, UNSIGNED_INT, "remapped_rows.pending"},
    {145, UNSIGNED_INT, "remapped_rows.failure"},
    {173, UNSIGNED_INT, "pcie.errors.correctable"},
    {174, UNSIGNED_INT, "pcie.errors.naks_received"},
    {175, UNSIGNED_INT, "pcie.errors.receiver"},
    {176, UNSIGNED_INT, "pcie.errors.bad_tlp"},
    {177, UNSIGNED_INT, "pcie.errors.naks_sent"},
    {178, UNSIGNED_INT, "pcie.errors.bad_dllp"},
    {179, UNSIGNED_INT, "pcie.errors.non_fatal"},
    {180, UNSIGNED_INT, "pcie.errors.fatal"},
    {181, UNSIGNED_INT, "pcie.errors.unsupported_request"},
    {182, UNSIGNED_INT, "pcie.errors.lcrc"},
    {183, UNSIGNED_INT, "pcie.errors.lane"},
    {185, UNSIGNED_INT, "power.usage"},
    {186, UNSIGNED_INT, "power.usage"},
    {187, UNSIGNED_INT, "power.limit.minimum"},
    {188, UNSIGNED_INT, "power.limit.maximum"},
    {189, UNSIGNED_INT, "power.limit.default"},
    {190, UNSIGNED_INT, "power.limit.enforced"},
    {193, SIGNED_INT, "temperature.tlimit.shutdown"},
    {194, SIGNED_INT, "temperature.tlimit.slowdown"},
    {195, SIGNED_INT, "temperature.tlimit.memory_max"},
    {196, SIGNED_INT, "temperature.tlimit.gpu_max"},
};

static u64 microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (u64)now.tv_sec * 1000000 + (u64)now.tv_nsec / 1000;
}

static nvmlReturn_t read_field(const struct device *device, nvmlFieldValue_t *out)
{
    const struct field *field = NULL;
    for (size_t i = 0; i < sizeof FIELDS / sizeof *FIELDS; i++)
        if (FIELDS[i].id == out->fieldId)
            field = &FIELDS[i];
    if (field == NULL)
        return NOT_SUPPORTED;
    double number;
    nvmlReturn_t result = reading(device, field->name, &number);
    if (result != SUCCESS)
        return result;
    out->valueType = field->type;
    if (field->type == UNSIGNED_INT)
        out->value.uiVal = (unsigned)llround(number);
    else if (field->type == SIGNED_INT)
        out->value.siVal = (int)llround(number);
    else
        out->value.ullVal = (u64)llround(number);
    return SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values)
{
    nvmlReturn_t result = enter("nvmlDeviceGetFieldValues", device, true);
    if (result == SUCCESS && (count <= 0 || values == NULL))
        result = INVALID_ARGUMENT;
    for (int i = 0; result == SUCCESS && i < count; i++) {
        u64 begun = microseconds();
        memset(&values[i].value, 0, sizeof values[i].value);
        values[i].nvmlReturn = read_field(device, &values[i]);
        values[i].timestamp = (int64_t)microseconds();
        values[i].latencyUsec = values[i].timestamp - (int64_t)begun;
    }
    return result;
}

/* -- processes ---------------------------------------------------------------------------------------------------- */

/* With the lock held. */
static unsigned instance_id(unsigned gpu, int mig, const char *name)
{
    return mig < 0 ? NONE : (unsigned)scenario_number("gpu.%u.mig.%d.%s", gpu, mig, name);
}

/* With the lock held. Whether a line of the scenario is a process that this handle shows; type NULL: of any kind. */
static bool is_process_of(const struct device *device, const char *type, const struct entry *entry)
{
    char prefix[32];
    snprintf(prefix, sizeof prefix, "gpu.%u.process.", device->gpu);
    if (strncmp(entry->key, prefix, strlen(prefix)) != 0)
        return false;
    if (type != NULL && strcmp(entry->process.type, type) != 0)
        return false;
    return device->mig < 0 || device->mig == entry->process.mig;
}

/* With the lock held. "gpu.N.processes.short = TIMES": so often the list has grown since its length was asked for. */
static bool falls_short(const struct device *device, bool has_room)
{
    struct entry *fault = scenario_find("gpu.%u.processes.short", device->gpu);
    if (fault == NULL || !has_room || fault->calls >= fault->value.a)
        return false;
    fault->calls++;
    return true;
}

/* With the lock held. */
static nvmlReturn_t list_processes(const struct device *device, const char *type, unsigned *count,
                                   nvmlProcessInfo_t *infos)
{
    size_t lines;
    const struct entry *entries = scenario_entries(&lines);
    unsigned found = 0, room = infos == NULL ? 0 : *count;
    for (size_t i = 0; i < lines; i++) {
        if (!is_process_of(device, type, &entries[i]))
            continue;
        const struct process *process = &entries[i].process;
        if (found < room)
            infos[found] = (nvmlProcessInfo_t){(unsigned)entries[i].number, process->memory,
                                               instance_id(device->gpu, process->mig, "gpu_instance"),
                                               instance_id(device->gpu, process->mig, "compute_instance")};
        found++;
    }
    bool too_short = falls_short(device, infos != NULL);
    *count = too_short ? room + 1 : found;
    return found > room || too_short ? INSUFFICIENT_SIZE : SUCCESS;
}

static nvmlReturn_t running_processes(const char *function, const struct device *device, const char *type,
                                      unsigned *count, nvmlProcessInfo_t *infos)
{
    nvmlReturn_t result = enter(function, device, true);
    if (result != SUCCESS)
        return result;
    result = scenario_lock() ? list_processes(device, type, count, infos) : UNKNOWN_ERROR;
    scenario_unlock();
    return result;
}

#define PROCESSES_OF_GPU(function, type)                                                                              \
    API nvmlReturn_t function(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *infos)                         \
    {                                                                                                                 \
        return running_processes(#function, device, type, count, infos);                                              \
    }

PROCESSES_OF_GPU(nvmlDeviceGetComputeRunningProcesses_v3, "compute")
PROCESSES_OF_GPU(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics")
PROCESSES_OF_GPU(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps")

/* With the lock held. All processes have one sample, taken now. */
static nvmlReturn_t list_samples(const struct device *device, nvmlProcessUtilizationSample_t *samples,
                                 unsigned *count, u64 newer_than)
{
    size_t lines;
    const struct entry *entries = scenario_entries(&lines);
    unsigned found = 0, room = samples == NULL ? 0 : *count;
    u64 now = microseconds();
    for (size_t i = 0; i < lines && now > newer_than; i++) {
        if (!is_process_of(device, NULL, &entries[i]))
            continue;
        const struct process *process = &entries[i].process;
        if (found < room)
            samples[found] = (nvmlProcessUtilizationSample_t){(unsigned)entries[i].number, now, process->sm,
                                                              process->mem, process->enc, process->dec};
        found++;
    }
    *count = found;
    if (samples == NULL) { /* the answer to a query of the number is never 0 */
        *count = found > 0 ? found : 1;
        return INSUFFICIENT_SIZE;
    }
    return found == 0 ? NOT_FOUND : found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *samples,
                                                 unsigned *count, u64 newer_than)
{
    nvmlReturn_t result = enter("nvmlDeviceGetProcessUtilization", device, true);
    if (result != SUCCESS)
        return result;
    if (!scenario_lock())
        result = UNKNOWN_ERROR;
    else if (device->mig >= 0 || scenario_number("gpu.%u.mig.mode", device->gpu) != 0)
        result = NOT_SUPPORTED; /* as NVML has it wherever MIG is on */
    else
        result = list_samples(device, samples, count, newer_than);
    scenario_unlock();
    return result;
}

/* -- MIG ---------------------------------------------------------------------------------------------------------- */

TWO_OF_GPU(nvmlDeviceGetMigMode, "mig.mode", "mig.pending_mode")

/* 0, not an error, on a card that knows no MIG. */
API nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned *count)
{
    nvmlReturn_t result = get_unsigned("nvmlDeviceGetMaxMigDeviceCount", device, "mig.max", count);
    if (result != NOT_SUPPORTED)
        return result;
    *count = 0;
    return SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index, nvmlDevice_t *instance)
{
    unsigned mode;
    nvmlReturn_t result = get_unsigned("nvmlDeviceGetMigDeviceHandleByIndex", device, "mig.mode", &mode);
    if (result != SUCCESS)
        return result;
    if (index >= SCENARIO_MIG || device->mig >= 0)
        return INVALID_ARGUMENT;
    if (!scenario_lock())
        result = UNKNOWN_ERROR;
    else if (mode == 0 || scenario_find("gpu.%u.mig.%u.uuid", device->gpu, index) == NULL)
        result = NOT_FOUND;
    else
        *instance = &migs[device->gpu][index];
    scenario_unlock();
    return result;
}

API nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned *is_instance)
{
    nvmlReturn_t result = enter("nvmlDeviceIsMigDeviceHandle", device, true);
    if (result == SUCCESS)
        *is_instance = device->mig >= 0;
    return result;
}

API nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t instance, nvmlDevice_t *device)
{
    nvmlReturn_t result = enter("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", instance, true);
    if (result == SUCCESS && instance->mig < 0)
        result = INVALID_ARGUMENT;
    if (result == SUCCESS)
        *device = &gpus[instance->gpu];
    return result;
}

/* Only instances have ids and attributes: a GPU has no such line. */
UNSIGNED_OF_GPU(nvmlDeviceGetGpuInstanceId, "gpu_instance")
UNSIGNED_OF_GPU(nvmlDeviceGetComputeInstanceId, "compute_instance")

API nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *out)
{
    u64 bytes = 0;
    nvmlReturn_t result = two_unsigned("nvmlDeviceGetAttributes_v2", device, "multiprocessors", "gpu_slices",
                                       &out->multiprocessorCount, &out->gpuInstanceSliceCount);
    if (result != SUCCESS)
        return result;
    (void)read_unsigned(device, "compute_slices", &out->computeInstanceSliceCount);
    (void)read_unsigned(device, "copy_engines", &out->sharedCopyEngineCount);
    (void)read_unsigned(device, "decoders", &out->sharedDecoderCount);
    (void)read_unsigned(device, "encoders", &out->sharedEncoderCount);
    (void)read_unsigned(device, "jpegs", &out->sharedJpegCount);
    (void)read_unsigned(device, "ofas", &out->sharedOfaCount);
    (void)read_u64(device, "memory.total", &bytes);
    out->memorySizeMB = bytes >> 20;
    return SUCCESS;
}

/* -- events ------------------------------------------------------------------------------------------------------- */

static bool is_event_line(const struct entry *entry)
{
    return strncmp(entry->key, "event.", 6) == 0;
}

/* With the lock held. */
static bool is_set(const struct event_set *set)
{
    return set >= sets && set < sets + EVENT_SETS && set->used;
}

API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    nvmlReturn_t result = enter("nvmlEventSetCreate", NULL, false);
    if (result != SUCCESS)
        return result;
    result = INSUFFICIENT_RESOURCES;
    scenario_lock();
    for (unsigned i = 0; i < EVENT_SETS && result != SUCCESS; i++) {
        if (sets[i].used)
            continue;
        sets[i] = (struct event_set){.used = true};
        *set = &sets[i];
        result = SUCCESS;
    }
    scenario_unlock();
    return result;
}

API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    nvmlReturn_t result = enter("nvmlEventSetFree", NULL, false);
    if (result != SUCCESS)
        return result;
    scenario_lock();
    if (is_set(set))
        set->used = false;
    else
        result = INVALID_ARGUMENT;
    scenario_unlock();
    return result;
}

U64_OF_GPU(nvmlDeviceGetSupportedEventTypes, "events")

/* NVML records from here on: what was before is no news. */
static void register_gpu(struct event_set *set, unsigned gpu)
{
    size_t lines;
    const struct entry *entries = scenario_entries(&lines);
    if (set->registered[gpu])
        return;
    set->registered[gpu] = true;
    for (size_t i = 0; i < lines; i++)
        if (is_event_line(&entries[i]) && entries[i].number > set->seen[gpu])
            set->seen[gpu] = entries[i].number;
}

API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, u64 types, nvmlEventSet_t set)
{
    u64 supported;
    nvmlReturn_t result = get_u64("nvmlDeviceRegisterEvents", device, "events", &supported);
    if (result != SUCCESS)
        return result;
    if ((types & ~supported) != 0)
        return NOT_SUPPORTED;
    scenario_lock();
    if (!is_set(set))
        result = INVALID_ARGUMENT;
    else if ((types & XID_EVENT) != 0)
        register_gpu(set, device->gpu);
    scenario_unlock();
    return result;
}

/* With the lock held. The oldest event that the set has not given yet. */
static const struct entry *next_event(const struct event_set *set)
{
    size_t lines;
    const struct entry *entries = scenario_entries(&lines), *next = NULL;
    for (size_t i = 0; i < lines; i++) {
        const struct entry *entry = &entries[i];
        if (!is_event_line(entry) || !set->registered[entry->event.gpu] ||
            entry->number <= set->seen[entry->event.gpu])
            continue;
        if (next == NULL || entry->number < next->number)
            next = entry;
    }
    return next;
}

/* With the lock held. */
static void deliver(struct event_set *set, const struct entry *entry, nvmlEventData_t *data)
{
    const struct event *event = &entry->event;
    set->seen[event->gpu] = entry->number;
    *data = (nvmlEventData_t){&gpus[event->gpu], XID_EVENT, event->xid,
                              instance_id(event->gpu, event->mig, "gpu_instance"),
                              instance_id(event->gpu, event->mig, "compute_instance")};
}

/* With the lock held. TIMEOUT: nothing yet. */
static nvmlReturn_t poll_events(struct event_set *set, nvmlEventData_t *data)
{
    if (!is_set(set))
        return INVALID_ARGUMENT;
    const struct entry *entry = next_event(set);
    if (entry != NULL) {
        deliver(set, entry, data);
        return SUCCESS;
    }
    for (unsigned gpu = 0; gpu < SCENARIO_GPUS; gpu++)
        if (set->registered[gpu] && scenario_gpu_lost(gpu))
            return GPU_IS_LOST;
    return TIMEOUT;
}

API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned timeout_ms)
{
    u64 end = microseconds() + (u64)timeout_ms * 1000;
    nvmlReturn_t result = enter("nvmlEventSetWait_v2", NULL, false);
    while (result == SUCCESS) {
        result = scenario_lock() ? poll_events(set, data) : UNKNOWN_ERROR;
        scenario_unlock();
        u64 now = microseconds();
        if (result != TIMEOUT || now >= end)
            return result;
        u64 left = (end - now + 999) / 1000;
        scenario_sleep(left < 50 ? (unsigned)left : 50);
        result = SUCCESS;
    }
    return result;
}
