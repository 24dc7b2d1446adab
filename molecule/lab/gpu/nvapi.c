/*
 * A stand-in for the part of NVIDIA's NVAPI (libnvidia-api.so.1) that reads temperatures, for tests on machines
 * without a GPU. It is not NVIDIA's software. The functions that NVIDIA does not document answer as LACT and others
 * found that they do. Values come from the scenario file (scenario.h): gpu.N.nvapi.sensor.INDEX.
 */
#define _POSIX_C_SOURCE 200809L

#include "scenario.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))
#define MAX_GPUS 64
#define VALUES 40
#define THERMALS_VERSION 0x000200A8u

enum { OK = 0, FAILED = -1, NOT_INITIALIZED = -4, BAD_ARGUMENT = -5, NO_DEVICE = -6, BAD_VERSION = -9,
       NO_SUPPORT = -104 };

struct thermals {
    uint32_t version;
    int32_t mask;
    int32_t values[VALUES]; /* degrees * 256 */
};

struct handle {
    unsigned gpu;
};

static bool initialised; /* guarded by the scenario's lock, as the handles */
static struct handle handles[SCENARIO_GPUS];

/* NVML's functions have no meaning here, and which there are only NVML's stand-in knows. */
bool scenario_knows_function(const char *name)
{
    return strncmp(name, "nvml", 4) == 0;
}

static int initialize(void)
{
    if (scenario_enter("NvAPI_Initialize", -1) != SUCCESS)
        return NO_DEVICE;
    bool usable = scenario_lock();
    initialised = usable;
    scenario_unlock();
    return usable ? OK : FAILED;
}

static int unload(void)
{
    scenario_lock();
    initialised = false;
    scenario_unlock();
    return OK;
}

static int enumerate(void **out, uint32_t *count)
{
    if (scenario_enter("NvAPI_EnumPhysicalGPUs", -1) != SUCCESS)
        return FAILED;
    int result = !scenario_lock() ? FAILED : initialised ? OK : NOT_INITIALIZED;
    *count = 0;
    for (unsigned gpu = 0; result == OK && gpu < SCENARIO_GPUS; gpu++) {
        handles[gpu].gpu = gpu;
        if (scenario_gpu_present(gpu))
            out[(*count)++] = &handles[gpu];
    }
    scenario_unlock();
    return result == OK && *count == 0 ? NO_DEVICE : result;
}

static int enter(const char *function, const struct handle *handle)
{
    if (handle < handles || handle >= handles + SCENARIO_GPUS)
        return BAD_ARGUMENT;
    if (scenario_enter(function, (int)handle->gpu) != SUCCESS)
        return FAILED;
    int result = !scenario_lock() ? FAILED : !initialised ? NOT_INITIALIZED : OK;
    if (result == OK && !scenario_gpu_present(handle->gpu))
        result = FAILED;
    scenario_unlock();
    return result;
}

static int get_bus_id(const struct handle *handle, uint32_t *bus)
{
    char key[SCENARIO_TEXT], text[SCENARIO_TEXT];
    int result = enter("NvAPI_GPU_GetBusId", handle);
    if (result != OK)
        return result;
    snprintf(key, sizeof key, "gpu.%u.pci.bus_id", handle->gpu);
    if (scenario_text(key, text) != SUCCESS || sscanf(text, "%*x:%x:", bus) != 1)
        return FAILED;
    return OK;
}

/* -1: no such line, or it is unsupported or an error. */
static double number_of(unsigned gpu, const char *name)
{
    char key[SCENARIO_TEXT];
    double number;
    snprintf(key, sizeof key, "gpu.%u.nvapi.%s", gpu, name);
    return scenario_reading(key, &number) == SUCCESS ? number : -1;
}

/* A mask with a bit beyond the sensors that the card has is refused as a whole. */
static int get_thermals(const struct handle *handle, struct thermals *thermals)
{
    int result = enter("NvAPI_GPU_ThermChannelGetStatus", handle);
    if (result != OK)
        return result;
    if (thermals->version != THERMALS_VERSION)
        return BAD_VERSION;
    double sensors = number_of(handle->gpu, "sensors");
    if (sensors <= 0)
        return NO_SUPPORT;
    uint32_t mask = (uint32_t)thermals->mask;
    if (mask == 0 || (sensors < 32 && mask >> (unsigned)sensors != 0))
        return BAD_ARGUMENT;
    for (unsigned i = 0; i < 32; i++) {
        char name[32];
        snprintf(name, sizeof name, "sensor.%u", i);
        double celsius = mask >> i & 1 ? number_of(handle->gpu, name) : -1;
        thermals->values[i] = celsius < 0 ? 0 : (int32_t)lround(celsius * 256);
    }
    return OK;
}

API void *nvapi_QueryInterface(uint32_t id)
{
    union {
        int (*initialize)(void);
        int (*enumerate)(void **, uint32_t *);
        int (*get_bus_id)(const struct handle *, uint32_t *);
        int (*get_thermals)(const struct handle *, struct thermals *);
        void *pointer;
    } function = {.pointer = NULL};
    switch (id) {
    case 0x0150E828:
        function.initialize = initialize;
        break;
    case 0xD22BDD7E:
        function.initialize = unload;
        break;
    case 0xE5AC921F:
        function.enumerate = enumerate;
        break;
    case 0x1BE0B8E5:
        function.get_bus_id = get_bus_id;
        break;
    case 0x65FE3AAD:
        function.get_thermals = get_thermals;
        break;
    }
    return function.pointer;
}
