/* groups: which member of a group had which partition, what it committed, and what that must never
 * be (reliability.md INV-P03, INV-P04).
 *
 * An ownership begins when a member is told that it has a partition, and ends with its consumer.
 * Precisely:
 *
 * - P03: commits that were confirmed of two ownerships of a partition do not interleave; and none
 *   is confirmed that was asked for after a member that joined later had been given the partition.
 * - P04: who commits with success began at or behind everything that others had committed before;
 *   and at the end the position is at or behind everything confirmed, and not behind everything
 *   that was asked for. A reset sets it back: then what was committed before counts no more, and
 *   who had the partition before commits no more. */
#ifndef FERRY_SIM_GROUPS_H
#define FERRY_SIM_GROUPS_H

#include "sim/history.h"

struct ownership {
    uint32_t member; /* An instance: a consumer that was opened. */
    int32_t partition;
    int64_t joined_us, given_us;
    int64_t position; /* Where it began. */
    bool over;
};

struct group_commit {
    uint32_t ownership;
    int64_t asked_us, told_us, offset;
};

struct group {
    const char *name;
    struct ownership *all; /* From 1. */
    size_t count, capacity;
    struct group_commit *commits; /* Confirmed ones. */
    size_t commit_count, commit_capacity;
    int64_t attempted[HISTORY_PARTITIONS_MAX];      /* The greatest that was asked for. */
    int64_t reset_us[HISTORY_PARTITIONS_MAX];       /* The last reset was confirmed; 0: never. */
    int64_t reset_asked_us[HISTORY_PARTITIONS_MAX]; /* ... and asked for. */
    bool loose; /* A reset was asked for, and it is not known whether it was done. */
    uint32_t members;
    uint64_t fenced, given;
};

void group_init(struct group *g, const char *name);
void group_fini(struct group *g);
/* An instance joins: the ownerships that it gets carry this number. */
uint32_t group_joins(struct group *g);
uint32_t group_given(struct group *g, uint32_t member, int64_t joined_us, int32_t partition,
                     int64_t position);
void group_taken(struct group *g, uint32_t ownership);
void group_asked(struct group *g, uint32_t ownership, int64_t offset);
void group_told(struct group *g, uint32_t ownership, int64_t asked_us, int64_t offset,
                enum ferry_err err);
/* A reset is asked for; it was done in a partition, by an order of then. */
void group_resetting(struct group *g);
void group_reset(struct group *g, int32_t partition, int64_t asked_us, int64_t to);
/* At the end. */
void group_check_position(const struct group *g, int32_t partition, int64_t position);

#endif
