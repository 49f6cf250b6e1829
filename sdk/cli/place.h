/* place: where in a topic to begin, as said on the command line: start, end, an offset, a time or
 * an age. No I/O, no allocation; "now" is an argument. */
#ifndef FERRY_CLI_PLACE_H
#define FERRY_CLI_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/must.h"

struct place {
    bool is_time;
    int64_t offset; /* FERRY_FROM_START, FERRY_FROM_END or an offset; of a time FERRY_FROM_START. */
    int64_t time_ms; /* Of a time. */
};

#define PLACE_FORMS                                                                                \
    "takes start, end, an offset, a time such as 2026-01-31T09:00:00Z, or an age such as 10m"

/* False when the text is none of these. */
MUST_CHECK bool place_parse(const char *text, int64_t now_ms, struct place *place);

/* "TOPIC/PARTITION/OFFSET". `topic` has room for 256 bytes. */
#define PLACE_TOPIC_BYTES 256
MUST_CHECK bool place_parse_record(const char *text, char topic[PLACE_TOPIC_BYTES],
                                   int32_t *partition, int64_t *offset);

/* "1s..10m": two durations, the first not above the second; or one, which is both. */
MUST_CHECK bool place_parse_range_ms(const char *text, int64_t max_ms, int64_t *from_ms,
                                     int64_t *to_ms);

#endif
