/* check: compares what clients were told with what is there. Knows nothing of the broker's code:
 * only what was sent, what the reports said, what a fresh reader finds in the log, and what the
 * killed readers noted.
 *
 * Kinds of finding: lost (told stored, or committed, and not there), doubled (there more than
 * once), unexpected (there, and never sent, told not stored, or rolled back), changed (other
 * bytes), moved (not at the offset that was told), disordered (two of one key the wrong way round),
 * missed and skipped (by a reader). */
#ifndef FERRY_TESTS_CRASH_CHECK_H
#define FERRY_TESTS_CRASH_CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "ferry.h"

#define CHECK_PARTITIONS_MAX 8

/* The fate of one message, as its sender knows it. */
struct fate {
    enum { FATE_NONE, FATE_STORED, FATE_NOT_STORED, FATE_UNKNOWN } kind;
    int32_t partition; /* -1: not told (an outbox does not say). */
    int64_t offset;
};

/* One topic's traffic: messages 0 to count-1, each with its fate. */
struct traffic {
    const char *topic;
    uint64_t seed;
    struct fate *fates;
    int64_t count;
};

/* Reads the log of `t->topic` from its start to its end and the readers' notes in `file`, and
 * prints what is wrong. Returns the number of findings; -1 when the log could not be read. */
int64_t check_traffic(struct ferry_client *client, const struct traffic *t, const char *file);

#endif
