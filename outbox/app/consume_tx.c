/* ferry_consume_tx: the loop on a real consumer. */
#include <poll.h>

#include "base/clock.h"
#include "outbox/app/consume_loop.h"

static enum ferry_err source_fetch(void *ctx, int timeout_ms, struct ferry_batch **batch)
{
    return ferry_consumer_fetch(ctx, timeout_ms, batch);
}

static enum ferry_err source_seek(void *ctx, int32_t partition, int64_t offset)
{
    return ferry_consumer_seek(ctx, partition, offset);
}

static enum ferry_err source_commit(void *ctx, int32_t partition, int64_t offset, int timeout_ms)
{
    return ferry_consumer_commit(ctx, partition, offset, timeout_ms);
}

static bool source_at_end(void *ctx)
{
    return ferry_consumer_at_end(ctx);
}

static int32_t source_partitions(void *ctx)
{
    return ferry_consumer_partitions(ctx);
}

static struct ferry_id source_topic_id(void *ctx)
{
    return ferry_consumer_topic_id(ctx);
}

static const char *source_topic(void *ctx)
{
    return ferry_consumer_topic(ctx);
}

static int64_t source_now_ms(void *ctx)
{
    (void)ctx;
    return clock_monotonic_us() / 1000;
}

static void source_pause(void *ctx, int ms)
{
    (void)ctx;
    poll(NULL, 0, ms);
}

enum ferry_err ferry_consume_tx(struct ferry_consumer *consumer, struct ferry_db *db,
                                ferry_handler *handler, void *arg,
                                const struct ferry_consume_options *options)
{
    const struct consume_source source = {
        .ctx = consumer,
        .fetch = source_fetch,
        .seek = source_seek,
        .commit = source_commit,
        .at_end = source_at_end,
        .partitions = source_partitions,
        .topic_id = source_topic_id,
        .topic = source_topic,
        .batch_partition = ferry_batch_partition,
        .batch_first = ferry_batch_first_offset,
        .batch_next = ferry_batch_next_offset,
        .batch_count = ferry_batch_count,
        .batch_record = ferry_batch_record,
        .batch_free = ferry_batch_free,
        .now_ms = source_now_ms,
        .pause = source_pause,
    };
    return consume_loop(&source, db, handler, arg, options);
}
