/* receive_loop: the loop of ferry_receive_tx, on a table of what it needs of a receiver.
 *
 * As consume_loop.h: the table is the seam for tests. Every delivery that was received is settled
 * before the loop returns. */
#ifndef FERRY_OUTBOX_RECEIVE_LOOP_H
#define FERRY_OUTBOX_RECEIVE_LOOP_H

#include "ferry_outbox.h"

#define RECEIVE_BATCH_DEFAULT 64
#define RECEIVE_BATCH_MAX     1000 /* Deliveries of one transaction. */

struct receive_source {
    void *ctx;
    enum ferry_err (*receive)(void *ctx, int timeout_ms, struct ferry_delivery *deliveries,
                              size_t max, size_t *count);
    enum ferry_err (*settle)(void *ctx, struct ferry_delivery *delivery, enum ferry_settle settle,
                             const char *reason);
    enum ferry_err (*flush)(void *ctx, int timeout_ms);
    int64_t (*now_ms)(void *ctx);     /* A clock that never steps back. */
    void (*pause)(void *ctx, int ms); /* Between attempts. */
};

/* As ferry_receive_tx. */
enum ferry_err receive_loop(const struct receive_source *source, struct ferry_db *db,
                            ferry_handler *handler, void *arg,
                            const struct ferry_consume_options *options);

#endif
