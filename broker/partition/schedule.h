/* schedule: the delayed messages of a partition: those that wait until they are due.
 *
 * They are rows (rows.h), not memory: {i64 due, u64 number}, big-endian, the due time with its sign
 * turned so that bytes are in the order of time. Numbers rise from 1 on and are never used again. A
 * row is a msgpack array [added (ms), timestamp, priority, id, has a key, key, headers, payload].
 * Reads no clock, decides nothing: partition_schedule.c does.
 *
 * Invariants: (1) what is in the table is what delayed batches in the log brought, less what
 * entries of release and cancel named: a message is taken off in the very entry that appends it;
 * (2) a number is named by at most one such entry: the leader remembers which it has proposed, and
 * a new one begins when all that its predecessors proposed is applied; (3) counters are folds of
 * the entries, rows are absolute: rows of a snapshot may be newer than the rest (replica.h). */
#ifndef FERRY_PARTITION_SCHEDULE_H
#define FERRY_PARTITION_SCHEDULE_H

#include "base/list.h"
#include "partition/rows.h"
#include "partition/schedule_entry.h"
#include "wire/batch.h"

#define SCHEDULE_NEVER INT64_MAX

struct schedule {
    /* Applied. */
    struct rows rows;
    uint64_t next_number;
    uint64_t waiting; /* How many are in the table. */
    struct buf row;   /* Scratch. */

    /* Leader only: proposed and not applied. */
    uint64_t proposed_next_number;
    uint32_t proposed_rows;
    size_t proposed_bytes;
    struct map cancelled; /* struct claim, by number: will be gone. */
    struct list claims;   /* ... in order of index. */
    /* One release at a time: all that was there up to this key is in it. 0: none. */
    uint64_t release_index;
    struct schedule_key release_last;
    struct buf release_payload;

    /* Volatile. */
    int64_t look_us; /* When there may be something to release; SCHEDULE_NEVER: not known of. */
    int64_t next_due_ms;
};

void schedule_init(struct schedule *t, uint8_t table);
void schedule_fini(struct schedule *t);
/* Also room for what is proposed and not applied yet. */
bool schedule_is_full(const struct schedule *t);

/* The time at which record `i` is due when the batch is appended at `append_ms`. */
int64_t schedule_due(struct bytes batch, const struct batch_header *h, uint32_t i,
                     int64_t append_ms);
/* The entry's batch is delayed and every record of it was read once. Errors: CORRUPT, NO_MEMORY. */
MUST_CHECK enum ferry_err schedule_apply_batch(struct schedule *t, const struct store_entry *entry,
                                               struct bytes batch);
/* Release or cancel: a control payload. */
MUST_CHECK enum ferry_err schedule_apply_keys(struct schedule *t, uint64_t index,
                                              enum control_kind kind, struct bytes control);
void schedule_forget(struct schedule *t); /* What is only proposed. */
MUST_CHECK enum ferry_err schedule_flush(struct schedule *t, struct store *store, uint64_t group);
/* next_number and waiting are in the partition's base row. */
MUST_CHECK enum ferry_err schedule_load(struct schedule *t, struct store *store, uint64_t group);

/* ---- Leader ---- */

void schedule_note_batch(struct schedule *t, const struct batch_header *h, uint32_t kept);
/* Whether it waits and is not claimed. Needs a read view. */
MUST_CHECK enum ferry_err schedule_find(struct schedule *t, struct store *store, uint64_t group,
                                        const struct schedule_key *key, bool *found);
/* The entry at `index` will take it off. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err schedule_claim(struct schedule *t, const struct schedule_key *key,
                                         uint64_t index);
void schedule_unclaim(struct schedule *t, uint64_t from_index);
bool schedule_is_claimed(const struct schedule *t, const struct schedule_key *key);

/* ---- Rows ---- */

#define SCHEDULE_KEY_BYTES 16u
void schedule_put_key(uint8_t bytes[SCHEDULE_KEY_BYTES], const struct schedule_key *key);
/* The record points into `row`. Errors: CORRUPT. */
MUST_CHECK enum ferry_err schedule_read_key(struct bytes bytes, struct schedule_key *key);
MUST_CHECK enum ferry_err schedule_read_row(struct bytes row, int64_t *added_ms,
                                            struct batch_record *record);
void schedule_check(const struct schedule *t);

#endif
