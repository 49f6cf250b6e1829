/* The partition's struct, for its own files: partition.c (opening, applying, rows),
 * partition_produce.c, partition_subscribe.c, partition_read.c, partition_retain.c. */
#ifndef FERRY_PARTITION_INTERNAL_H
#define FERRY_PARTITION_INTERNAL_H

#include "partition/control.h"
#include "partition/partition.h"
#include "partition/tables.h"

#define READ_HINTS 8u

/* A place in the log that a reader will likely come back to: where it stopped. */
struct read_hint {
    int64_t offset;
    uint64_t index; /* 0: empty. */
};

struct partition {
    struct partition_config config;
    struct replica *replica;

    /* Applied: the fold of the log up to the replica's applied index. */
    int64_t next_offset;
    int64_t start_offset;
    int64_t size_bytes; /* Of entries not trimmed. */
    struct producers producers;
    struct cursors cursors;
    struct subscriptions subscriptions;
    struct ids ids;
    int64_t applied_time_ms; /* Of the last entry applied. */

    /* Leader only: with proposals that are not applied yet. */
    int64_t proposed_next_offset;
    int64_t last_append_time_ms;
    bool housekeeping; /* A trim or expiry is proposed and not applied. */
    struct buf housekeeping_payload;

    /* Volatile. */
    struct ticket_queue tickets;
    uint64_t readable_bytes;
    int64_t retention_due_us;    /* RAFT_NEVER: there is nothing to drop. */
    int64_t retention_looked_us; /* When it was looked at last. */
    bool retention_timed;        /* That look found when the first entry gets too old. */
    struct read_hint hints[READ_HINTS];
    uint32_t next_hint;
};

/* What an entry takes of the log, for retention by size. No-ops do not count: a partition is not
 * told of them nor of configurations, so it could not add what a trim subtracts. */
static inline int64_t entry_size(const struct store_entry *entry)
{
    if (entry->type == STORE_ENTRY_NOOP || entry->type == STORE_ENTRY_CONFIG) {
        return 0;
    }
    return 48 + (int64_t)entry->skip_count * 4 + (int64_t)entry->payload.size;
}

/* The batch in an entry: all of it, or behind the control part. False when it holds none. */
bool partition_entry_batch(const struct store_entry *entry, struct bytes *batch);
int64_t partition_next_time(const struct partition *p, int64_t now_ms);
/* Proposes the entry and lets the ticket wait for it. */
enum ferry_err partition_propose(struct partition *p, struct store_entry *entry, int64_t now_us,
                                 struct partition_ticket *t);
enum ferry_err partition_propose_control(struct partition *p, const struct control *c,
                                         int64_t now_ms, int64_t now_us,
                                         struct partition_ticket *t);
/* Proposes the control entry that is in t->payload. */
enum ferry_err partition_propose_payload(struct partition *p, int64_t now_ms, int64_t now_us,
                                         struct partition_ticket *t);
/* The ticket that waits for the entry that is being applied; NULL: none, as on every replica but
 * the one that proposed it. For answers that depend on the order in the log. */
struct partition_ticket *partition_waiting(const struct partition *p, uint64_t index);
/* It is done, with this error; t may be NULL. */
void partition_refuse(struct partition *p, struct partition_ticket *t, enum ferry_err err);
/* An entry of subscription_entry.h (partition_subscribe.c). */
enum ferry_err partition_apply_subscription(struct partition *p, uint64_t index,
                                            const struct store_entry *entry);
/* An entry of the partition itself: nobody waits, one at a time. */
enum ferry_err partition_propose_housekeeping(struct partition *p, const struct control *c,
                                              int64_t now_ms, int64_t now_us);
/* Something was appended: looks at retention when that may be due. */
void partition_retain_soon(struct partition *p);
/* When the record at `offset` was appended. Needs a read view. */
enum ferry_err partition_time_of(const struct partition *p, int64_t offset, int64_t *time_ms);
enum ferry_err partition_check_leader(const struct partition *p);
/* The entry there cannot be read. CORRUPT, or NOT_LEADER, NOT_READY while peers repair it. */
enum ferry_err partition_damaged(const struct partition *p, uint64_t index);

#endif
