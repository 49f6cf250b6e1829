/* recurring: the recurring messages of a partition: names with a spec, a zone, a message and when
 * it comes next.
 *
 * Few and in memory, like subscriptions. Reads no clock and no zone: what comes when is decided by
 * the leader (partition_recurring.c) and is in the entry: [CONTROL_RECURRING_FIRE, name, next]
 * beside the message itself. Rows: name -> [spec, zone, next (ms), fired, record]. */
#ifndef FERRY_PARTITION_RECURRING_H
#define FERRY_PARTITION_RECURRING_H

#include "partition/schedule_entry.h"
#include "store/store.h"
#include "wire/command.h"

struct recurring_message {
    uint32_t name_bytes, spec_bytes, zone_bytes;
    char name[NAME_MAX_BYTES], spec[RECURRING_SPEC_MAX_BYTES], zone[NAME_MAX_BYTES];
    int64_t next_ms;
    uint64_t fired;
    struct buf record; /* A batch of one. */
    bool dirty;
    /* Leader only: the last entry proposed that names it; nothing fires until it is applied. */
    uint64_t busy_index;
    struct buf payload; /* Of its last firing, on its way. */
};

struct recurring {
    struct recurring_message **items; /* Sorted by name. */
    size_t count, capacity;
    struct buf removed; /* Names whose rows are to be deleted: u8 length, bytes. */
    uint32_t proposed;  /* Leader only: sets on their way. */
    int64_t look_us;    /* When one may be due; INT64_MAX: nothing is known. */
};

void recurring_init(struct recurring *t);
void recurring_fini(struct recurring *t);
struct recurring_message *recurring_find(const struct recurring *t, struct bytes name);
/* Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err recurring_apply(struct recurring *t, uint64_t index,
                                          const struct recurring_entry *e);
void recurring_forget(struct recurring *t);
MUST_CHECK enum ferry_err recurring_flush(struct recurring *t, struct store *store, uint64_t group);
MUST_CHECK enum ferry_err recurring_load(struct recurring *t, struct store *store, uint64_t group);
/* The id of the message that `name` brings at that time: the same whoever works it out. */
struct ferry_id recurring_id(const struct ferry_id *topic, struct bytes name, int64_t time_ms);

#endif
