/* relay_tally: what one served lane has done, topic by topic, for who looks (relay_metrics.h).
 *
 * Beside the relay and not in it: counts go on over the relays that come and go, and who looks does
 * not hold up who counts for longer than one topic's figures take to copy. No I/O, no clock.
 *
 * Invariants: (1) there are RELAY_METRIC_TOPICS_MAX topics with a name at most; what comes after
 * them, what has no name that a topic may have, and what comes when no memory or no room is left,
 * counts under RELAY_TALLY_OTHER, so nothing that is counted is ever dropped and sums over topics
 * are whole; (2) a topic that is there stays; (3) no count falls.
 *
 * Any thread; each function locks for its own length. */
#ifndef FERRY_OUTBOX_RELAY_RELAY_TALLY_H
#define FERRY_OUTBOX_RELAY_RELAY_TALLY_H

#include <stdatomic.h>

#include "base/err.h"

#define RELAY_METRIC_TOPICS_MAX 64u /* Of one lane, with a name. */
#define RELAY_TALLY_OTHER       "other"
#define RELAY_TALLY_NAME_MAX    200u

/* A time's distribution: bucket i counts what took at most relay_bucket_ms[i], the last the rest.
 */
#define RELAY_BUCKETS 14
extern const int64_t relay_bucket_ms[RELAY_BUCKETS - 1];

struct relay_times {
    uint64_t counts[RELAY_BUCKETS];
    uint64_t count, sum_us;
};

void relay_times_add(struct relay_times *times, int64_t us); /* Below 0: 0. */

/* Rows of a batch: bucket i counts batches of at most relay_bucket_rows[i], the last the rest. */
#define RELAY_ROW_BUCKETS 8
extern const uint32_t relay_bucket_rows[RELAY_ROW_BUCKETS - 1];

enum relay_tally_kind { RELAY_TALLY_REFUSED, RELAY_TALLY_DEAD, RELAY_TALLY_PARKED };

struct relay_topic_figures {
    char name[RELAY_TALLY_NAME_MAX + 1];
    uint64_t published_rows, published_batches, delayed_rows;
    uint64_t refused_rows, dead_rows, parked_rows;
    uint64_t batch_rows[RELAY_ROW_BUCKETS]; /* Of published batches. */
    struct relay_times append_times, commit_to_append;
};

struct relay_tally;

/* `room` (may be NULL; borrowed): how many more topics with a name all tallies that share it may
 * have; it is counted down. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err relay_tally_new(struct relay_tally **t, atomic_size_t *room);
void relay_tally_free(struct relay_tally **t);

/* Where a topic's figures are counted: for the functions below. `t` NULL: 0, and they count
 * nothing. */
size_t relay_tally_topic(struct relay_tally *t, const char *name);
/* A batch is in the log. `commit_us` below 0: not known. */
void relay_tally_batch(struct relay_tally *t, size_t topic, size_t rows, size_t delayed,
                       int64_t append_us, int64_t commit_us);
void relay_tally_row(struct relay_tally *t, size_t topic, enum relay_tally_kind kind);

/* Topics, the other ones too: below the count each can be copied. NULL: none. */
size_t relay_tally_count(struct relay_tally *t);
void relay_tally_copy(struct relay_tally *t, size_t topic, struct relay_topic_figures *copy);

#endif
