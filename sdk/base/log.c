#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define LOG_LINE_MAX 2048

static size_t clip(int written, size_t room)
{
    must(written >= 0);
    return (size_t)written < room ? (size_t)written : room - 1;
}

/* Texts hold names from outside: one must not look like a second line, nor steer a terminal. */
static void blank_control_bytes(char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f) {
            text[i] = '?';
        }
    }
}

void log_line(enum log_level level, const char *area, const char *format, ...)
{
    static const char *const names[] = {"info", "warn", "error"};
    int64_t now_ms = clock_wall_ms();
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm utc;
    must(gmtime_r(&seconds, &utc) != NULL);

    char line[LOG_LINE_MAX];
    size_t used = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &utc);
    used += clip(snprintf(line + used, sizeof(line) - used,
                          ".%03dZ %s %.64s: ", (int)(now_ms % 1000), names[level], area),
                 sizeof(line) - used);
    va_list args;
    va_start(args, format);
    used += clip(vsnprintf(line + used, sizeof(line) - used - 1, format, args),
                 sizeof(line) - used - 1);
    va_end(args);
    blank_control_bytes(line, used);
    line[used++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, used); /* Nowhere left to report a failure. */
    (void)ignored;
}
