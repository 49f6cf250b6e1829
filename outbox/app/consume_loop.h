/* consume_loop: the loop of ferry_consume_tx, on a table of what it needs of a consumer.
 *
 * The table is the seam that lets a test deliver what it likes (gaps, repeats, errors) in the order
 * it likes. The loop owns a batch from fetch to free and never waits but in `fetch` and `pause`. */
#ifndef FERRY_OUTBOX_CONSUME_LOOP_H
#define FERRY_OUTBOX_CONSUME_LOOP_H

#include "ferry_outbox.h"

struct consume_source {
    void *ctx;
    enum ferry_err (*fetch)(void *ctx, int timeout_ms, struct ferry_batch **batch);
    enum ferry_err (*seek)(void *ctx, int32_t partition, int64_t offset);
    enum ferry_err (*commit)(void *ctx, int32_t partition, int64_t offset, int timeout_ms);
    bool (*at_end)(void *ctx);
    int32_t (*partitions)(void *ctx);
    struct ferry_id (*topic_id)(void *ctx);
    const char *(*topic)(void *ctx);
    int32_t (*batch_partition)(const struct ferry_batch *batch);
    int64_t (*batch_first)(const struct ferry_batch *batch);
    int64_t (*batch_next)(const struct ferry_batch *batch);
    size_t (*batch_count)(const struct ferry_batch *batch);
    void (*batch_record)(struct ferry_batch *batch, size_t i, struct ferry_record *record);
    void (*batch_free)(struct ferry_batch **batch);
    int64_t (*now_ms)(void *ctx);     /* A clock that never steps back. */
    void (*pause)(void *ctx, int ms); /* Between attempts. */
};

/* As ferry_consume_tx. */
enum ferry_err consume_loop(const struct consume_source *source, struct ferry_db *db,
                            ferry_handler *handler, void *arg,
                            const struct ferry_consume_options *options);

#endif
