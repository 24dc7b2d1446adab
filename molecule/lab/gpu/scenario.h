/*
 * The scenario: a text file that says which GPUs there are, what they read and what is wrong with them.
 * NVML's and NVAPI's stand-ins share it. README.md in the directory above has its keys.
 */
#ifndef SCENARIO_H
#define SCENARIO_H

#include <stdbool.h>
#include <stddef.h>

#define SCENARIO_GPUS 16
#define SCENARIO_MIG 8
#define SCENARIO_TEXT 256

/* NVML's error codes, which the scenario names (error:GPU_IS_LOST, or error:15). */
enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    TIMEOUT = 10,
    GPU_IS_LOST = 15,
    LIB_RM_VERSION_MISMATCH = 18,
    INSUFFICIENT_RESOURCES = 23,
    ARGUMENT_VERSION_MISMATCH = 25,
    UNKNOWN_ERROR = 999,
};

enum kind { NOTHING, NUMBER, SINE, RAMP, GROW, INTEGRAL, TEXT, UNSUPPORTED, ERROR, BLOCK, STALL };

/* What a line says behind its "=". a, b, c and d are the numbers of a moving reading, in the order of the file. */
struct value {
    enum kind kind;
    double a, b, c, d;
    int error;
    unsigned slow_ms;
    unsigned long after; /* a fault begins behind so many calls */
};

struct process {
    char type[16]; /* compute, graphics or mps */
    unsigned long long memory;
    int mig; /* -1: of no instance */
    unsigned sm, mem, enc, dec;
};

struct event {
    unsigned gpu;
    unsigned long long xid;
    int mig;
};

struct entry {
    char *key;
    char *text;
    struct value value;
    struct process process;
    struct event event;
    unsigned long number; /* the last number of the key: a process id, the sequence number of an event */
    unsigned long calls;  /* how often a fault was asked about; kept as long as its line stays as it is */
};

/* Whether a function of this name is one that a fault may name. Each library has its own. */
bool scenario_knows_function(const char *name);

/* Between these two nothing changes. The first re-reads a file that has changed; false: the file is unusable, and
 * stderr says why. Never sleep in between. */
bool scenario_lock(void);
void scenario_unlock(void);

/* With the lock held. The key is a printf format. NULL: there is no such line. */
struct entry *scenario_find(const char *format, ...) __attribute__((format(printf, 1, 2)));
struct entry *scenario_entries(size_t *count);
bool scenario_gpu_present(unsigned gpu);
double scenario_number(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Whether a GPU is lost now; does not count as a call. */
bool scenario_gpu_lost(unsigned gpu);

/* Without the lock: they sleep or never return where the scenario says so. All return NVML's codes. */
int scenario_enter(const char *function, int gpu); /* gpu -1: the call is about no GPU */
int scenario_reading(const char *key, double *reading);
int scenario_text(const char *key, char *text);
void scenario_sleep(unsigned ms);

const char *scenario_error_string(int code);

#endif
