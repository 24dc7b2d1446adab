/* Reads the scenario and obeys it, see scenario.h. */
#define _POSIX_C_SOURCE 200809L

#include "scenario.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_PATH "/etc/simulated-gpu/scenario"
#define TURN 6.283185307179586

enum type { T_READING, T_TEXT, T_FAULT, T_PROCESS, T_EVENT };

/* Every key. '#' is a number, '*' the name of a function. */
static const struct pattern {
    const char *key;
    enum type type;
} KEYS[] = {
    {"driver.version", T_TEXT}, /* when it changes, processes that run have the library of the old driver */
    {"driver.cuda", T_READING},
    {"nvml.version", T_TEXT},
    {"fault", T_FAULT},
    {"function.*", T_FAULT},
    {"event.#", T_EVENT},
    {"gpu.#.fault", T_FAULT},
    {"gpu.#.function.*", T_FAULT},
    {"gpu.#.present", T_READING},
    {"gpu.#.name", T_TEXT},
    {"gpu.#.uuid", T_TEXT},
    {"gpu.#.serial", T_TEXT},
    {"gpu.#.vbios", T_TEXT},
    {"gpu.#.brand", T_READING},
    {"gpu.#.minor", T_READING},
    {"gpu.#.pci.bus_id", T_TEXT},
    {"gpu.#.pci.device_id", T_READING},
    {"gpu.#.pci.subsystem_id", T_READING},
    {"gpu.#.compute_capability.major", T_READING},
    {"gpu.#.compute_capability.minor", T_READING},
    {"gpu.#.memory.total", T_READING},
    {"gpu.#.memory.used", T_READING},
    {"gpu.#.memory.reserved", T_READING},
    {"gpu.#.bar1.total", T_READING},
    {"gpu.#.bar1.used", T_READING},
    {"gpu.#.utilization.gpu", T_READING},
    {"gpu.#.utilization.memory", T_READING},
    {"gpu.#.utilization.encoder", T_READING},
    {"gpu.#.utilization.decoder", T_READING},
    {"gpu.#.temperature.core", T_READING},
    {"gpu.#.temperature.hotspot", T_READING},
    {"gpu.#.temperature.memory", T_READING},
    {"gpu.#.temperature.threshold.shutdown", T_READING},
    {"gpu.#.temperature.threshold.slowdown", T_READING},
    {"gpu.#.temperature.threshold.memory_max", T_READING},
    {"gpu.#.temperature.threshold.gpu_max", T_READING},
    {"gpu.#.temperature.tlimit.shutdown", T_READING},
    {"gpu.#.temperature.tlimit.slowdown", T_READING},
    {"gpu.#.temperature.tlimit.memory_max", T_READING},
    {"gpu.#.temperature.tlimit.gpu_max", T_READING},
    {"gpu.#.power.usage", T_READING},
    {"gpu.#.power.limit.enforced", T_READING},
    {"gpu.#.power.limit.management", T_READING},
    {"gpu.#.power.limit.default", T_READING},
    {"gpu.#.power.limit.minimum", T_READING},
    {"gpu.#.power.limit.maximum", T_READING},
    {"gpu.#.energy", T_READING},
    {"gpu.#.clock.graphics", T_READING},
    {"gpu.#.clock.sm", T_READING},
    {"gpu.#.clock.memory", T_READING},
    {"gpu.#.clock.video", T_READING},
    {"gpu.#.clock.max.graphics", T_READING},
    {"gpu.#.clock.max.sm", T_READING},
    {"gpu.#.clock.max.memory", T_READING},
    {"gpu.#.clock.max.video", T_READING},
    {"gpu.#.clock.event_reasons", T_READING},
    {"gpu.#.performance_state", T_READING},
    {"gpu.#.fan.count", T_READING},
    {"gpu.#.fan.#.speed", T_READING},
    {"gpu.#.remapped_rows.correctable", T_READING},
    {"gpu.#.remapped_rows.uncorrectable", T_READING},
    {"gpu.#.remapped_rows.pending", T_READING},
    {"gpu.#.remapped_rows.failure", T_READING},
    {"gpu.#.retired_pages.single_bit", T_READING},
    {"gpu.#.retired_pages.double_bit", T_READING},
    {"gpu.#.retired_pages.pending", T_READING},
    {"gpu.#.ecc.mode", T_READING},
    {"gpu.#.ecc.pending_mode", T_READING},
    {"gpu.#.ecc.volatile.corrected", T_READING},
    {"gpu.#.ecc.volatile.uncorrected", T_READING},
    {"gpu.#.ecc.aggregate.corrected", T_READING},
    {"gpu.#.ecc.aggregate.uncorrected", T_READING},
    {"gpu.#.ecc.volatile.corrected.dram", T_READING},
    {"gpu.#.ecc.volatile.uncorrected.dram", T_READING},
    {"gpu.#.ecc.aggregate.corrected.dram", T_READING},
    {"gpu.#.ecc.aggregate.uncorrected.dram", T_READING},
    {"gpu.#.ecc.volatile.corrected.sram", T_READING},
    {"gpu.#.ecc.volatile.uncorrected.sram", T_READING},
    {"gpu.#.ecc.aggregate.corrected.sram", T_READING},
    {"gpu.#.ecc.aggregate.uncorrected.sram", T_READING},
    {"gpu.#.pcie.replays", T_READING},
    {"gpu.#.pcie.link.generation", T_READING},
    {"gpu.#.pcie.link.width", T_READING},
    {"gpu.#.pcie.link.max_generation", T_READING},
    {"gpu.#.pcie.link.max_width", T_READING},
    {"gpu.#.pcie.throughput.tx", T_READING},
    {"gpu.#.pcie.throughput.rx", T_READING},
    {"gpu.#.pcie.errors.correctable", T_READING},
    {"gpu.#.pcie.errors.naks_received", T_READING},
    {"gpu.#.pcie.errors.receiver", T_READING},
    {"gpu.#.pcie.errors.bad_tlp", T_READING},
    {"gpu.#.pcie.errors.naks_sent", T_READING},
    {"gpu.#.pcie.errors.bad_dllp", T_READING},
    {"gpu.#.pcie.errors.non_fatal", T_READING},
    {"gpu.#.pcie.errors.fatal", T_READING},
    {"gpu.#.pcie.errors.unsupported_request", T_READING},
    {"gpu.#.pcie.errors.lcrc", T_READING},
    {"gpu.#.pcie.errors.lane", T_READING},
    {"gpu.#.events", T_READING},
    {"gpu.#.process.#", T_PROCESS},
    {"gpu.#.processes.short", T_READING},
    {"gpu.#.mig.mode", T_READING},
    {"gpu.#.mig.pending_mode", T_READING},
    {"gpu.#.mig.max", T_READING},
    {"gpu.#.mig.#.uuid", T_TEXT},
    {"gpu.#.mig.#.name", T_TEXT},
    {"gpu.#.mig.#.gpu_instance", T_READING},
    {"gpu.#.mig.#.compute_instance", T_READING},
    {"gpu.#.mig.#.memory.total", T_READING},
    {"gpu.#.mig.#.memory.used", T_READING},
    {"gpu.#.mig.#.memory.reserved", T_READING},
    {"gpu.#.mig.#.multiprocessors", T_READING},
    {"gpu.#.mig.#.gpu_slices", T_READING},
    {"gpu.#.mig.#.compute_slices", T_READING},
    {"gpu.#.mig.#.copy_engines", T_READING},
    {"gpu.#.mig.#.decoders", T_READING},
    {"gpu.#.mig.#.encoders", T_READING},
    {"gpu.#.mig.#.jpegs", T_READING},
    {"gpu.#.mig.#.ofas", T_READING},
    {"gpu.#.nvapi.sensors", T_READING},
    {"gpu.#.nvapi.sensor.#", T_READING},
};

static const struct error {
    int code;
    const char *name;
    const char *text;
} ERRORS[] = {
    {0, "SUCCESS", "Success"},
    {1, "UNINITIALIZED", "Uninitialized"},
    {2, "INVALID_ARGUMENT", "Invalid Argument"},
    {3, "NOT_SUPPORTED", "Not Supported"},
    {4, "NO_PERMISSION", "Insufficient Permissions"},
    {5, "ALREADY_INITIALIZED", "Already Initialized"},
    {6, "NOT_FOUND", "Not Found"},
    {7, "INSUFFICIENT_SIZE", "Insufficient Size"},
    {8, "INSUFFICIENT_POWER", "Insufficient External Power"},
    {9, "DRIVER_NOT_LOADED", "Driver Not Loaded"},
    {10, "TIMEOUT", "Timeout"},
    {11, "IRQ_ISSUE", "Interrupt Request Issue"},
    {12, "LIBRARY_NOT_FOUND", "NVML Shared Library Not Found"},
    {13, "FUNCTION_NOT_FOUND", "Function Not Found"},
    {14, "CORRUPTED_INFOROM", "Corrupted infoROM"},
    {15, "GPU_IS_LOST", "GPU is lost"},
    {16, "RESET_REQUIRED", "GPU requires reset"},
    {17, "OPERATING_SYSTEM", "Operating System call failed"},
    {18, "LIB_RM_VERSION_MISMATCH", "Driver/library version mismatch"},
    {19, "IN_USE", "In use by another client"},
    {20, "MEMORY", "Insufficient Memory"},
    {21, "NO_DATA", "No data"},
    {22, "VGPU_ECC_NOT_SUPPORTED", "The requested vgpu operation is not available on target device, becasue ECC is enabled"},
    {23, "INSUFFICIENT_RESOURCES", "Ran out of critical resources, other than memory"},
    {24, "FREQ_NOT_SUPPORTED", "Frequency not supported"},
    {25, "ARGUMENT_VERSION_MISMATCH", "The provided version is invalid/unsupported"},
    {26, "DEPRECATED", "The requested functionality has been deprecated"},
    {27, "NOT_READY", "The system is not ready for the request"},
    {28, "GPU_NOT_FOUND", "No GPUs were found"},
    {29, "INVALID_STATE", "Resource not in correct state to perform requested operation"},
    {30, "RESET_TYPE_NOT_SUPPORTED", "Reset not supported for given device/parameters"},
    {999, "UNKNOWN", "Unknown Error"},
};

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

const char *scenario_error_string(int code)
{
    for (size_t i = 0; i < LENGTH(ERRORS); i++)
        if (ERRORS[i].code == code)
            return ERRORS[i].text;
    return "Unknown Error";
}

/* -1: there is no such error. */
static int error_code(const char *text)
{
    char *end;
    long number = strtol(text, &end, 10);
    for (size_t i = 1; i < LENGTH(ERRORS); i++)
        if ((*end == '\0' && ERRORS[i].code == number) || strcasecmp(ERRORS[i].name, text) == 0)
            return ERRORS[i].code;
    return -1;
}

/* -- the file ----------------------------------------------------------------------------------------------------- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct entry *entries;
static size_t entry_count;
static struct stat signature;
static bool read_once, usable;
static char library_version[SCENARIO_TEXT]; /* of the driver when this process began */

/* A fault may name a function of the other library as well. */
static bool is_function(const char *name)
{
    static const char *const NVAPI[] = {"NvAPI_Initialize", "NvAPI_EnumPhysicalGPUs", "NvAPI_GPU_GetBusId",
                                        "NvAPI_GPU_ThermChannelGetStatus"};
    for (size_t i = 0; i < LENGTH(NVAPI); i++)
        if (strcmp(NVAPI[i], name) == 0)
            return true;
    return scenario_knows_function(name);
}

static bool matches(const char *pattern, const char *key)
{
    while (*pattern != '\0') {
        if (*pattern == '#') {
            if (!isdigit((unsigned char)*key))
                return false;
            while (isdigit((unsigned char)*key))
                key++;
            pattern++;
        } else if (*pattern == '*') {
            return is_function(key);
        } else if (*pattern++ != *key++) {
            return false;
        }
    }
    return *key == '\0';
}

static const struct pattern *pattern_of(const char *key)
{
    for (size_t i = 0; i < LENGTH(KEYS); i++)
        if (matches(KEYS[i].key, key))
            return &KEYS[i];
    return NULL;
}

/* ":1:2.5:3" to numbers. Returns how many there are, -1 for anything else. */
static int numbers(const char *text, double out[4])
{
    int found = 0;
    while (*text == ':' && found < 4) {
        char *end;
        out[found] = strtod(text + 1, &end);
        if (end == text + 1 || !isfinite(out[found]))
            return -1;
        found++;
        text = end;
    }
    return *text == '\0' ? found : -1;
}

static const struct {
    const char *name;
    enum kind kind;
    int least, most; /* numbers */
} FORMS[] = {
    {"sine", SINE, 3, 4},       /* least:greatest:seconds of a period[:seconds that it is ahead] */
    {"ramp", RAMP, 3, 4},       /* as sine, but climbs and falls back at once */
    {"grow", GROW, 3, 3},       /* start:growth a second:since (Unix time) */
    {"integral", INTEGRAL, 2, 2}, /* start:since; of gpu.N.power.usage */
    {"unsupported", UNSUPPORTED, 0, 0},
    {"block", BLOCK, 0, 0},     /* for ever */
    {"stall", STALL, 0, 0},     /* until the line is another */
};

static bool parse_form(const char *text, struct value *value)
{
    for (size_t i = 0; i < LENGTH(FORMS); i++) {
        size_t length = strlen(FORMS[i].name);
        if (strncmp(text, FORMS[i].name, length) != 0 || (text[length] != '\0' && text[length] != ':'))
            continue;
        double n[4] = {0, 0, 0, 0};
        int found = numbers(text + length, n);
        bool periodic = FORMS[i].kind == SINE || FORMS[i].kind == RAMP;
        if (found < FORMS[i].least || found > FORMS[i].most || (periodic && n[2] <= 0))
            return false;
        value->kind = FORMS[i].kind;
        value->a = n[0], value->b = n[1], value->c = n[2], value->d = n[3];
        return true;
    }
    return false;
}

static bool parse_value(const char *text, struct value *value)
{
    if (strncmp(text, "error:", 6) == 0) {
        value->kind = ERROR;
        value->error = error_code(text + 6);
        return value->error > 0;
    }
    if (strncmp(text, "slow:", 5) == 0) {
        char *end;
        unsigned long ms = strtoul(text + 5, &end, 10);
        value->slow_ms = (unsigned)ms;
        return end != text + 5 && *end == ':' && value->kind == NOTHING && parse_value(end + 1, value);
    }
    char *end;
    value->a = strtod(text, &end);
    if (end != text && *end == '\0' && isfinite(value->a)) {
        value->kind = NUMBER;
        return true;
    }
    return parse_form(text, value);
}

static bool parse_text(const char *text, struct value *value)
{
    if (strcmp(text, "unsupported") == 0 || strcmp(text, "block") == 0 || strncmp(text, "error:", 6) == 0)
        return parse_value(text, value);
    value->kind = TEXT;
    return *text != '\0' && strlen(text) < SCENARIO_TEXT;
}

/* none, lost, block, stall, slow:MS or error:CODE, and " after N". */
static bool parse_fault(const char *text, struct value *value)
{
    char copy[SCENARIO_TEXT];
    if (strlen(text) >= sizeof copy)
        return false;
    strcpy(copy, text);
    char *after = strstr(copy, " after ");
    if (after != NULL) {
        char *end;
        value->after = strtoul(after + 7, &end, 10);
        if (end == after + 7 || *end != '\0')
            return false;
        *after = '\0';
    }
    if (strcmp(copy, "none") == 0)
        return true;
    if (strcmp(copy, "lost") == 0)
        return parse_value("error:GPU_IS_LOST", value);
    if (strncmp(copy, "slow:", 5) == 0) {
        char *end;
        value->slow_ms = (unsigned)strtoul(copy + 5, &end, 10);
        return end != copy + 5 && *end == '\0';
    }
    return parse_value(copy, value) && (value->kind == ERROR || value->kind == BLOCK || value->kind == STALL);
}

/* One NAME=NUMBER of a line of words. */
static bool parse_word(const char *word, const char *name, unsigned long long *number)
{
    size_t length = strlen(name);
    if (strncmp(word, name, length) != 0 || word[length] != '=' || !isdigit((unsigned char)word[length + 1]))
        return false;
    char *end;
    *number = strtoull(word + length + 1, &end, 10);
    return *end == '\0';
}

/* compute|graphics|mps [memory=BYTES] [mig=I] [sm=%] [mem=%] [enc=%] [dec=%]. Memory that is not said is unknown. */
static bool parse_process(const char *text, struct process *process)
{
    char copy[SCENARIO_TEXT], *rest;
    if (strlen(text) >= sizeof copy)
        return false;
    strcpy(copy, text);
    *process = (struct process){.memory = ~0ULL, .mig = -1};
    const char *word = strtok_r(copy, " ", &rest);
    if (word == NULL || (strcmp(word, "compute") != 0 && strcmp(word, "graphics") != 0 && strcmp(word, "mps") != 0))
        return false;
    strcpy(process->type, word);
    while ((word = strtok_r(NULL, " ", &rest)) != NULL) {
        unsigned long long number;
        if (parse_word(word, "memory", &number))
            process->memory = number;
        else if (parse_word(word, "mig", &number) && number < SCENARIO_MIG)
            process->mig = (int)number;
        else if (parse_word(word, "sm", &number))
            process->sm = (unsigned)number;
        else if (parse_word(word, "mem", &number))
            process->mem = (unsigned)number;
        else if (parse_word(word, "enc", &number))
            process->enc = (unsigned)number;
        else if (parse_word(word, "dec", &number))
            process->dec = (unsigned)number;
        else
            return false;
    }
    return true;
}

/* gpu=N xid=CODE [mig=I] */
static bool parse_event(const char *text, struct event *event)
{
    char copy[SCENARIO_TEXT], *rest;
    if (strlen(text) >= sizeof copy)
        return false;
    strcpy(copy, text);
    *event = (struct event){.gpu = SCENARIO_GPUS, .mig = -1};
    for (const char *word = strtok_r(copy, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        unsigned long long number;
        if (parse_word(word, "gpu", &number) && number < SCENARIO_GPUS)
            event->gpu = (unsigned)number;
        else if (parse_word(word, "xid", &number))
            event->xid = number;
        else if (parse_word(word, "mig", &number) && number < SCENARIO_MIG)
            event->mig = (int)number;
        else
            return false;
    }
    return event->gpu < SCENARIO_GPUS && event->xid > 0;
}

static bool parse(enum type type, struct entry *entry)
{
    switch (type) {
    case T_READING:
        return parse_value(entry->text, &entry->value);
    case T_TEXT:
        return parse_text(entry->text, &entry->value);
    case T_FAULT:
        return parse_fault(entry->text, &entry->value);
    case T_PROCESS:
        return parse_process(entry->text, &entry->process);
    case T_EVENT:
        return parse_event(entry->text, &entry->event);
    }
    return false;
}

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    char *end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1]))
        end--;
    *end = '\0';
    return text;
}

struct file {
    const char *path;
    unsigned line;
    struct entry *entries;
    size_t count, room;
};

static bool complain(const struct file *file, const char *what, const char *word)
{
    fprintf(stderr, "simulated GPU: %s:%u: %s: %s\n", file->path, file->line, what, word);
    return false;
}

static bool numbers_in_range(const char *key)
{
    unsigned gpu;
    if (sscanf(key, "gpu.%u.", &gpu) == 1 && gpu >= SCENARIO_GPUS)
        return false;
    return sscanf(key, "gpu.%*u.mig.%u.", &gpu) != 1 || gpu < SCENARIO_MIG;
}

static bool add_line(struct file *file, char *line)
{
    line = trim(line);
    if (*line == '\0' || *line == '#')
        return true;
    char *equals = strchr(line, '=');
    if (equals == NULL)
        return complain(file, "not KEY = VALUE", line);
    *equals = '\0';
    char *key = trim(line), *text = trim(equals + 1);
    const struct pattern *pattern = pattern_of(key);
    if (pattern == NULL || !numbers_in_range(key))
        return complain(file, "unknown key", key);
    if (file->count == file->room) {
        file->room = file->room * 2 + 64;
        file->entries = realloc(file->entries, file->room * sizeof *file->entries);
        if (file->entries == NULL)
            abort();
    }
    struct entry *entry = &file->entries[file->count];
    *entry = (struct entry){.key = strdup(key), .text = strdup(text)};
    if (entry->key == NULL || entry->text == NULL)
        abort();
    file->count++;
    const char *dot = strrchr(key, '.');
    entry->number = dot != NULL && isdigit((unsigned char)dot[1]) ? strtoul(dot + 1, NULL, 10) : 0;
    return parse(pattern->type, entry) || complain(file, "this value cannot be", text);
}

static int by_key(const void *left, const void *right)
{
    return strcmp(((const struct entry *)left)->key, ((const struct entry *)right)->key);
}

static struct entry *find(struct entry *list, size_t count, char *key)
{
    struct entry wanted = {.key = key};
    return count == 0 ? NULL : bsearch(&wanted, list, count, sizeof *list, by_key);
}

/* A key that is there twice, or a GPU that nothing identifies, is a mistake in a test. */
static bool consistent(struct file *file)
{
    for (size_t i = 0; i < file->count; i++) {
        char *key = file->entries[i].key, wanted[64];
        unsigned gpu;
        if (i > 0 && strcmp(key, file->entries[i - 1].key) == 0)
            return complain(file, "this key is there twice", key);
        if (sscanf(key, "gpu.%u.", &gpu) != 1)
            continue;
        snprintf(wanted, sizeof wanted, "gpu.%u.uuid", gpu);
        if (find(file->entries, file->count, wanted) == NULL)
            return complain(file, "a GPU needs", wanted);
        snprintf(wanted, sizeof wanted, "gpu.%u.pci.bus_id", gpu);
        if (find(file->entries, file->count, wanted) == NULL)
            return complain(file, "a GPU needs", wanted);
    }
    return true;
}

static void discard(struct entry *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(list[i].key);
        free(list[i].text);
    }
    free(list);
}

static bool load(const char *path)
{
    struct file file = {.path = path};
    FILE *stream = fopen(path, "re");
    if (stream == NULL)
        return complain(&file, "cannot be read", strerror(errno));
    char *line = NULL;
    size_t room = 0;
    bool good = true;
    while (good && getline(&line, &room, stream) != -1) {
        file.line++;
        good = add_line(&file, line);
    }
    free(line);
    fclose(stream);
    if (good && file.count > 0)
        qsort(file.entries, file.count, sizeof *file.entries, by_key);
    if (!good || !consistent(&file)) {
        discard(file.entries, file.count);
        return false;
    }
    for (size_t i = 0; i < file.count; i++) {
        struct entry *before = find(entries, entry_count, file.entries[i].key);
        if (before != NULL && strcmp(before->text, file.entries[i].text) == 0)
            file.entries[i].calls = before->calls;
    }
    discard(entries, entry_count);
    entries = file.entries;
    entry_count = file.count;
    return true;
}

static bool same_file(const struct stat *left, const struct stat *right)
{
    return left->st_dev == right->st_dev && left->st_ino == right->st_ino && left->st_size == right->st_size &&
           left->st_mtim.tv_sec == right->st_mtim.tv_sec && left->st_mtim.tv_nsec == right->st_mtim.tv_nsec;
}

bool scenario_lock(void)
{
    const char *path = getenv("SIMULATED_GPU");
    struct stat now;
    if (path == NULL || *path == '\0')
        path = DEFAULT_PATH;
    if (stat(path, &now) != 0)
        memset(&now, 0, sizeof now);
    pthread_mutex_lock(&mutex);
    if (!read_once || !same_file(&now, &signature)) {
        read_once = true;
        signature = now;
        usable = load(path);
    }
    return usable;
}

void scenario_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

/* -- with the lock held ------------------------------------------------------------------------------------------- */

static struct entry *find_formatted(const char *format, va_list arguments)
{
    char key[SCENARIO_TEXT];
    vsnprintf(key, sizeof key, format, arguments);
    return find(entries, entry_count, key);
}

struct entry *scenario_find(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    struct entry *entry = find_formatted(format, arguments);
    va_end(arguments);
    return entry;
}

struct entry *scenario_entries(size_t *count)
{
    *count = entry_count;
    return entries;
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Everything depends on the clock alone, so that all processes see the same GPU. */
static double value_at(const struct value *value, double now)
{
    double turns = (now + value->d) / (value->c > 0 ? value->c : 1);
    switch (value->kind) {
    case NUMBER:
        return value->a;
    case SINE:
        return (value->a + value->b) / 2 + (value->b - value->a) / 2 * sin(TURN * (turns - floor(turns)));
    case RAMP:
        return value->a + (value->b - value->a) * (turns - floor(turns));
    case GROW:
        return value->a + value->b * fmax(0, now - value->c);
    default:
        return 0;
    }
}

/* The area below a reading from the beginning of a period at time 0 on. */
static double area(const struct value *value, double time)
{
    double mean = (value->a + value->b) / 2, half = (value->b - value->a) / 2;
    double turns = (time + value->d) / value->c, part = turns - floor(turns);
    if (value->kind == SINE)
        return mean * time + half * value->c / TURN * (1 - cos(TURN * part));
    return mean * value->c * floor(turns) + value->c * (value->a * part + half * part * part);
}

static double integral(const struct value *value, double since, double now)
{
    if (value == NULL || now < since)
        return 0;
    if (value->kind == SINE || value->kind == RAMP)
        return area(value, now) - area(value, since);
    return value_at(value, now) * (now - since);
}

double scenario_number(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    struct entry *entry = find_formatted(format, arguments);
    va_end(arguments);
    return entry == NULL ? 0 : value_at(&entry->value, seconds_now());
}

bool scenario_gpu_present(unsigned gpu)
{
    if (scenario_find("gpu.%u.uuid", gpu) == NULL)
        return false;
    return scenario_find("gpu.%u.present", gpu) == NULL || scenario_number("gpu.%u.present", gpu) != 0;
}

bool scenario_gpu_lost(unsigned gpu)
{
    const struct entry *fault = scenario_find("gpu.%u.fault", gpu);
    bool lost = fault != NULL && fault->value.kind == ERROR && fault->value.error == GPU_IS_LOST;
    return (lost && fault->calls >= fault->value.after) || !scenario_gpu_present(gpu);
}

/* -- without the lock --------------------------------------------------------------------------------------------- */

void scenario_sleep(unsigned ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    while (ms > 0 && nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

static _Noreturn void block(void)
{
    for (;;)
        pause();
}

/* With the lock held. After an upgrade of the driver nothing but a new process helps. */
static bool outdated(void)
{
    const struct entry *version = scenario_find("driver.version");
    if (version == NULL || version->value.kind != TEXT)
        return false;
    if (library_version[0] == '\0')
        strcpy(library_version, version->text);
    return strcmp(library_version, version->text) != 0;
}

/* A fault that is not yet due is none. Asking counts once a call. */
static int fault_now(const char *key, bool count, struct value *fault)
{
    if (!scenario_lock()) {
        scenario_unlock();
        return UNKNOWN_ERROR;
    }
    struct entry *entry = scenario_find("%s", key);
    *fault = (struct value){.kind = NOTHING};
    if (entry != NULL) {
        entry->calls += count;
        if (entry->calls > entry->value.after)
            *fault = entry->value;
    }
    int result = outdated() ? LIB_RM_VERSION_MISMATCH : SUCCESS;
    scenario_unlock();
    return result;
}

static int obey(const char *key)
{
    struct value fault;
    int result = fault_now(key, true, &fault);
    while (result == SUCCESS && fault.kind == STALL) {
        scenario_sleep(20);
        result = fault_now(key, false, &fault);
    }
    if (result != SUCCESS)
        return result;
    scenario_sleep(fault.slow_ms);
    if (fault.kind == BLOCK)
        block();
    return fault.kind == ERROR ? fault.error : SUCCESS;
}

int scenario_enter(const char *function, int gpu)
{
    char key[SCENARIO_TEXT];
    int result = obey("fault");
    if (result == SUCCESS) {
        snprintf(key, sizeof key, "function.%s", function);
        result = obey(key);
    }
    if (result == SUCCESS && gpu >= 0) {
        snprintf(key, sizeof key, "gpu.%d.fault", gpu);
        result = obey(key);
    }
    if (result == SUCCESS && gpu >= 0) {
        snprintf(key, sizeof key, "gpu.%d.function.%s", gpu, function);
        result = obey(key);
    }
    return result;
}

/* The line of a reading as it is now; a missing one is unsupported. */
static int look_up(const char *key, struct value *value, double *number, char *text)
{
    if (!scenario_lock()) {
        scenario_unlock();
        return UNKNOWN_ERROR;
    }
    const struct entry *entry = scenario_find("%s", key);
    *value = entry == NULL ? (struct value){.kind = UNSUPPORTED} : entry->value;
    double now = seconds_now();
    *number = value_at(value, now);
    if (value->kind == INTEGRAL) {
        const struct entry *power = scenario_find("gpu.%u.power.usage", (unsigned)strtoul(key + 4, NULL, 10));
        *number = value->a + integral(power == NULL ? NULL : &power->value, value->b, now);
    }
    if (value->kind == TEXT)
        strcpy(text, entry->text);
    scenario_unlock();
    return SUCCESS;
}

static int read_value(const char *key, double *number, char *text)
{
    struct value value;
    int result = look_up(key, &value, number, text);
    while (result == SUCCESS && value.kind == STALL) {
        scenario_sleep(20);
        result = look_up(key, &value, number, text);
    }
    if (result != SUCCESS)
        return result;
    scenario_sleep(value.slow_ms);
    if (value.kind == BLOCK)
        block();
    if (value.kind == UNSUPPORTED)
        return NOT_SUPPORTED;
    return value.kind == ERROR ? value.error : SUCCESS;
}

int scenario_reading(const char *key, double *reading)
{
    char text[SCENARIO_TEXT];
    return read_value(key, reading, text);
}

int scenario_text(const char *key, char *text)
{
    double number;
    return read_value(key, &number, text);
}
