/* dead: the dead letters of a partition's subscriptions: messages that were given up, whole.
 *
 * They are rows (rows.h), not memory: {u64 subscription, u64 number}, big-endian, numbers from 1
 * on, rising, never used again. A row is a msgpack array [offset, append time, died, handed out,
 * failed, key hash, failures, record], the record a batch of one record as the log had it. Which of
 * them are revived is not in the rows: delivery_is_revived tells.
 * Whoever makes one has the whole of it in the log entry, so no replica must find a message that
 * retention has dropped, and applying an entry twice makes the same row.
 *
 * Read as a topic ("TOPIC.dlq.SUBSCRIPTION") a dead letter is a batch of one record at offset
 * `number`, with headers added: ferry-dlq-reason, -offset, -failed, -member, -time (ms). */
#ifndef FERRY_PARTITION_DEAD_H
#define FERRY_PARTITION_DEAD_H

#include "partition/rows.h"
#include "wire/command.h"

struct dead_letter {
    uint64_t number;
    int64_t offset, append_time_ms, died_ms;
    uint32_t handed_out, failed;
    uint64_t key_hash; /* Of a parked key; else 0. */
    uint32_t failure_count;
    struct failure failures[HISTORY_MAX];
    struct bytes record; /* Empty in entries that leave the one there is. */
};
void dead_key(uint64_t subscription, uint64_t number, uint8_t key[16]);
void dead_encode(struct buf *b, const struct dead_letter *d);
/* Texts and record point into `row`. Errors: CORRUPT. */
MUST_CHECK enum ferry_err dead_decode(struct bytes key, struct bytes row, struct dead_letter *d);
/* Why it died: what was said of its last failure or, where nothing was, what kind that was. */
struct bytes dead_reason(const struct dead_letter *d);
/* Appends it as a fetch entry. Errors: CORRUPT, NO_MEMORY. */
MUST_CHECK enum ferry_err dead_append_entry(const struct dead_letter *d, struct buf *out);

#endif
