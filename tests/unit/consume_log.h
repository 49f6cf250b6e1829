/* consume_log: a log in memory for the loop of ferry_consume_tx, one topic ("orders") with one
 * partition, that jumps back, fails and counts as a test says. */
#ifndef FERRY_TESTS_CONSUME_LOG_H
#define FERRY_TESTS_CONSUME_LOG_H

#include <stdlib.h>

#include "outbox/app/consume_loop.h"

struct consume_log {
    int64_t end;                        /* Offsets 0..end-1. */
    const struct ferry_record *records; /* NULL: each has its offset only. */
    int64_t position;                   /* Next fetch. */
    int64_t batch_rows;
    int64_t committed;
    int commits;
    int64_t now_ms;
    int fetch_errors; /* So many fetches fail with `fetch_error` first. */
    enum ferry_err fetch_error;
    int64_t jump_to; /* The next fetch begins here once; -1: no jump. */
    int batches_open;
    int seeks;
    enum ferry_err commit_error;
};

/* A batch: the loop only passes it back. */
struct ferry_batch {
    struct consume_log *log;
    int64_t first, next;
};

static inline enum ferry_err consume_log_fetch(void *ctx, int timeout_ms,
                                               struct ferry_batch **batch)
{
    struct consume_log *l = ctx;
    if (l->fetch_errors > 0) {
        l->fetch_errors--;
        return l->fetch_error;
    }
    if (l->jump_to >= 0) {
        l->position = l->jump_to;
        l->jump_to = -1;
    }
    if (l->position >= l->end) {
        l->now_ms += timeout_ms;
        return FERRY_ERR_TIMEOUT;
    }
    struct ferry_batch *b = calloc(1, sizeof(*b));
    assert_non_null(b);
    b->log = l;
    b->first = l->position;
    b->next = l->position + l->batch_rows < l->end ? l->position + l->batch_rows : l->end;
    l->position = b->next;
    l->batches_open++;
    *batch = b;
    return FERRY_OK;
}

static inline enum ferry_err consume_log_seek(void *ctx, int32_t partition, int64_t offset)
{
    struct consume_log *l = ctx;
    assert_int_equal(partition, 0);
    l->position = offset;
    l->seeks++;
    return FERRY_OK;
}

static inline enum ferry_err consume_log_commit(void *ctx, int32_t partition, int64_t offset,
                                                int timeout_ms)
{
    struct consume_log *l = ctx;
    (void)partition;
    (void)timeout_ms;
    l->committed = offset;
    l->commits++;
    return l->commit_error;
}

static inline bool consume_log_at_end(void *ctx)
{
    const struct consume_log *l = ctx;
    return l->position >= l->end;
}

static inline int32_t consume_log_partitions(void *ctx)
{
    (void)ctx;
    return 1;
}

static inline struct ferry_id consume_log_topic_id(void *ctx)
{
    (void)ctx;
    return (struct ferry_id){{4, 2}};
}

static inline const char *consume_log_topic(void *ctx)
{
    (void)ctx;
    return "orders";
}

static inline int32_t consume_log_batch_partition(const struct ferry_batch *batch)
{
    (void)batch;
    return 0;
}

static inline int64_t consume_log_batch_first(const struct ferry_batch *batch)
{
    return batch->first;
}

static inline int64_t consume_log_batch_next(const struct ferry_batch *batch)
{
    return batch->next;
}

static inline size_t consume_log_batch_count(const struct ferry_batch *batch)
{
    return (size_t)(batch->next - batch->first);
}

static inline void consume_log_batch_record(struct ferry_batch *batch, size_t i,
                                            struct ferry_record *record)
{
    int64_t offset = batch->first + (int64_t)i;
    *record = batch->log->records != NULL
                  ? batch->log->records[offset]
                  : (struct ferry_record){.topic = "orders", .offset = offset};
}

static inline void consume_log_batch_free(struct ferry_batch **batch)
{
    (*batch)->log->batches_open--;
    free(*batch);
    *batch = NULL;
}

static inline int64_t consume_log_now_ms(void *ctx)
{
    const struct consume_log *l = ctx;
    return l->now_ms;
}

static inline void consume_log_pause(void *ctx, int ms)
{
    struct consume_log *l = ctx;
    l->now_ms += ms;
}

static inline struct consume_log consume_log_of(int64_t end, int64_t batch_rows)
{
    return (struct consume_log){.end = end, .batch_rows = batch_rows, .jump_to = -1};
}

static inline struct consume_source consume_log_source(struct consume_log *log)
{
    return (struct consume_source){
        .ctx = log,
        .fetch = consume_log_fetch,
        .seek = consume_log_seek,
        .commit = consume_log_commit,
        .at_end = consume_log_at_end,
        .partitions = consume_log_partitions,
        .topic_id = consume_log_topic_id,
        .topic = consume_log_topic,
        .batch_partition = consume_log_batch_partition,
        .batch_first = consume_log_batch_first,
        .batch_next = consume_log_batch_next,
        .batch_count = consume_log_batch_count,
        .batch_record = consume_log_batch_record,
        .batch_free = consume_log_batch_free,
        .now_ms = consume_log_now_ms,
        .pause = consume_log_pause,
    };
}

#endif
