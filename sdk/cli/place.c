#include "cli/place.h"

#include <stdio.h>
#include <string.h>

#include "cli/format.h"
#include "ferry.h"

bool place_parse(const char *text, int64_t now_ms, struct place *place)
{
    struct place p = {.offset = FERRY_FROM_START};
    bool good = true;
    if (strcmp(text, "end") == 0) {
        p.offset = FERRY_FROM_END;
    } else if (text[0] == '-') {
        good = false; /* Of the numbers below 0 two are not offsets but start and end. */
    } else if (strcmp(text, "start") != 0 && !format_parse_number(text, &p.offset)) {
        p.is_time = true;
        p.offset = FERRY_FROM_START;
        good = format_parse_time_ms(text, now_ms, &p.time_ms);
    }
    if (good) {
        *place = p;
    }
    return good;
}

bool place_parse_record(const char *text, char topic[PLACE_TOPIC_BYTES], int32_t *partition,
                        int64_t *offset)
{
    const char *first = strchr(text, '/');
    const char *second = first != NULL ? strchr(first + 1, '/') : NULL;
    char number[FORMAT_TEXT_BYTES];
    int64_t p;
    if (second == NULL || first == text || first - text >= PLACE_TOPIC_BYTES ||
        second - first > (ptrdiff_t)sizeof(number)) {
        return false;
    }
    (void)snprintf(number, sizeof(number), "%.*s", (int)(second - first - 1), first + 1);
    if (!format_parse_number(number, &p) || p > INT32_MAX ||
        !format_parse_number(second + 1, offset)) {
        return false;
    }
    *partition = (int32_t)p;
    (void)snprintf(topic, PLACE_TOPIC_BYTES, "%.*s", (int)(first - text), text);
    return true;
}

bool place_parse_range_ms(const char *text, int64_t max_ms, int64_t *from_ms, int64_t *to_ms)
{
    const char *dots = strstr(text, "..");
    char first[FORMAT_TEXT_BYTES];
    size_t length = dots != NULL ? (size_t)(dots - text) : strlen(text);
    int64_t from, to;
    if (length >= sizeof(first)) {
        return false;
    }
    (void)snprintf(first, sizeof(first), "%.*s", (int)length, text);
    if (!format_parse_duration_ms(first, &from) ||
        !format_parse_duration_ms(dots != NULL ? dots + 2 : text, &to) || from < 1 || from > to ||
        to > max_ms) {
        return false;
    }
    *from_ms = from;
    *to_ms = to;
    return true;
}
