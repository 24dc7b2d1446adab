/*
 * A wall clock that tests can turn: preloaded, it adds the seconds in the file CLOCK_OFFSET to the time of day, and
 * leaves every other clock alone, as when somebody sets the clock of a host.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    const char *path = getenv("CLOCK_OFFSET");
    FILE *file;
    long seconds = 0;

    if (result != 0 || clock != CLOCK_REALTIME || path == NULL || (file = fopen(path, "r")) == NULL)
        return result;
    if (fscanf(file, "%ld", &seconds) == 1)
        now->tv_sec += seconds;
    fclose(file);
    return 0;
}
