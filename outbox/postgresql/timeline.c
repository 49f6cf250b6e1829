#include "outbox/postgresql/timeline.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/must.h"

/* A number that fits 32 bits; *at moves behind it. */
static bool number(const char **at, int base, uint32_t *value)
{
    char *end = NULL;
    if (!isxdigit((unsigned char)**at)) {
        return false;
    }
    unsigned long v = strtoul(*at, &end, base);
    if (end == *at || v > UINT32_MAX) {
        return false;
    }
    *value = (uint32_t)v;
    *at = end;
    return true;
}

static void skip_blanks(const char **at)
{
    *at += strspn(*at, " \t");
}

/* "1<tab>0/3000148<tab>words" */
static bool entry(const char *line, uint32_t *timeline, uint64_t *place)
{
    uint32_t high = 0;
    uint32_t low = 0;
    if (!number(&line, 10, timeline)) {
        return false;
    }
    skip_blanks(&line);
    if (!number(&line, 16, &high) || *line != '/') {
        return false;
    }
    line++;
    if (!number(&line, 16, &low) || strchr(" \t\r\n", *line) == NULL) {
        return false;
    }
    *place = (uint64_t)high << 32 | low;
    return true;
}

bool timeline_left_at(const char *history, uint32_t timeline, uint64_t *place)
{
    bool found = false;
    must(history != NULL && place != NULL);
    *place = UINT64_MAX;
    for (const char *line = history; *line != '\0';) {
        const char *next = line + strcspn(line, "\n");
        uint32_t of = 0;
        uint64_t end = 0;
        skip_blanks(&line);
        if (line < next && *line != '#' && *line != '\r') {
            if (!entry(line, &of, &end)) {
                return false;
            }
            found = found || of == timeline;
            if (found && end < *place) {
                *place = end;
            }
        }
        line = *next == '\0' ? next : next + 1;
    }
    return found;
}
