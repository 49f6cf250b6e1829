/* consume_count: counts what a consuming loop does, for ferry_consume_figures. Without figures all
 * do nothing but the handler. The loop's thread writes, any reads: each field is written whole.
 *
 * What happens in a transaction counts when it is committed: between begin and committed it is kept
 * aside. */
#ifndef FERRY_OUTBOX_CONSUME_COUNT_H
#define FERRY_OUTBOX_CONSUME_COUNT_H

#include "ferry_outbox.h"

struct consume_count {
    struct ferry_consume_figures *figures; /* The caller's, or NULL. */
    uint64_t fresh, duplicates, dead;      /* Of the transaction in hand. */
};

void consume_count_begin(struct consume_count *c);
void consume_count_committed(struct consume_count *c);
void consume_count_late(struct consume_count *c);
void consume_count_gap(struct consume_count *c);
void consume_count_retry(struct consume_count *c);
void consume_count_dead(struct consume_count *c); /* Outside of a transaction. */
/* Runs the handler and counts how long that took. */
enum ferry_err consume_count_handler(struct consume_count *c, ferry_handler *handler,
                                     const struct ferry_record *record, struct ferry_db *db,
                                     void *arg);

#endif
