/* rows: a state table that is too large for memory: what the store has, and over it what has been
 * applied since the last flush.
 *
 * One instance is one table of one group. Changes are absolute (a key has this value, or is gone),
 * so applying an entry twice, as happens after a snapshot whose rows were newer than the rest, ends
 * in the same rows. Does no I/O of its own beyond the store's calls.
 *
 * Invariants: (1) a key's present value is the pending one if there is one (none: a tombstone),
 * else the store's; (2) after rows_flush nothing is pending; (3) pending bytes are counted: whoever
 * proposes looks at rows_is_full first and answers THROTTLED, so apply never meets a limit.
 *
 * Threads: the shard's. Reading needs a read view of the store that was opened after the last
 * commit; values live until the view ends or the table changes. */
#ifndef FERRY_PARTITION_ROWS_H
#define FERRY_PARTITION_ROWS_H

#include "base/map.h"
#include "store/store.h"

#define ROWS_PENDING_MAX       16384u
#define ROWS_PENDING_MAX_BYTES (8u << 20)

struct rows {
    uint8_t table;
    struct map pending; /* struct row, by key */
    size_t pending_bytes;
    bool disk_has_rows;  /* May have: look-ups must ask the store. */
    struct row **sorted; /* Of pending, by key; made when a scan needs it. */
    size_t sorted_count;
    bool is_sorted;
};

void rows_init(struct rows *t, uint8_t table);
void rows_fini(struct rows *t);
bool rows_is_full(const struct rows *t); /* A flush is needed before more is proposed. */
uint32_t rows_pending(const struct rows *t);
/* Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err rows_put(struct rows *t, struct bytes key, struct bytes value);
MUST_CHECK enum ferry_err rows_delete(struct rows *t, struct bytes key);
MUST_CHECK enum ferry_err rows_get(struct rows *t, struct store *store, uint64_t group,
                                   struct bytes key, bool *found, struct bytes *value);
/* Both merged, keys >= from ascending, until the callback returns an error (returned) or sets
 * *stop. The table must not change meanwhile. */
MUST_CHECK enum ferry_err rows_each(struct rows *t, struct store *store, uint64_t group,
                                    struct bytes from, store_row_cb *callback, void *arg);
/* Within the open write transaction. */
MUST_CHECK enum ferry_err rows_flush(struct rows *t, struct store *store, uint64_t group);
/* At load, in a view: forgets what is pending, looks whether the store has rows. */
MUST_CHECK enum ferry_err rows_load(struct rows *t, struct store *store, uint64_t group);

#endif
