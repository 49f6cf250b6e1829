/* The clocks of the machine whose task runs (base/clock.h), random bytes from the seed, and the
 * log: what production code asks of the system. */
#include <stdarg.h>
#include <sys/random.h>
#include <sys/types.h>

#include "base/clock.h"
#include "base/log.h"
#include "sim/world.h"

int64_t clock_monotonic_us(void)
{
    if (sim == NULL) {
        return 1;
    }
    return sim->current != NULL ? host_local_us(sim->current->host, world_now()) : world_now();
}

int64_t clock_wall_ms(void)
{
    if (sim == NULL) {
        return 1;
    }
    return sim->current != NULL ? host_wall_ms(sim->current->host, world_now())
                                : world_now() / 1000;
}

ssize_t __wrap_getrandom(void *out, size_t bytes, unsigned flags);

ssize_t __wrap_getrandom(void *out, size_t bytes, unsigned flags)
{
    (void)flags;
    for (size_t i = 0; i < bytes; i++) {
        ((uint8_t *)out)[i] = sim != NULL ? (uint8_t)chance_below(256) : (uint8_t)i;
    }
    return (ssize_t)bytes;
}

void log_line(enum log_level level, const char *area, const char *format, ...)
{
    static const char *const names[] = {"info", "warn", "error"};
    if (sim == NULL || !sim->verbose) {
        return;
    }
    char text[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    sim_say("%s %s: %s", names[level], area, text);
}
