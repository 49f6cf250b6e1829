#include "outbox/relay/relay_broker.h"

#include "base/mem.h"

struct real {
    struct ferry_client *client;
    struct ferry_source *source;
    struct ferry_id source_id;
};

static enum ferry_err real_elect(void *ctx, int64_t ttl_ms, int timeout_ms,
                                 struct ferry_source_grant *grant)
{
    const struct real *b = ctx;
    return ferry_source_elect(b->source, ttl_ms, timeout_ms, grant);
}

static enum ferry_err real_resign(void *ctx, int timeout_ms)
{
    const struct real *b = ctx;
    return ferry_source_resign(b->source, timeout_ms);
}

static enum ferry_err real_partitions(void *ctx, const char *topic, int timeout_ms,
                                      int32_t *partitions)
{
    const struct real *b = ctx;
    return ferry_topic_partitions(b->client, topic, timeout_ms, partitions);
}

static enum ferry_err real_partitions_now(void *ctx, const char *topic, int timeout_ms,
                                          int32_t *partitions)
{
    const struct real *b = ctx;
    struct ferry_topic_info *info = NULL;
    enum ferry_err err = ferry_topic_info(b->client, topic, timeout_ms, &info);
    if (err == FERRY_OK) {
        *partitions = (int32_t)info->partition_count;
        ferry_topic_info_free(&info);
    } else if (err != FERRY_ERR_UNKNOWN_TOPIC) {
        err = real_partitions(ctx, topic, timeout_ms, partitions);
    }
    return err;
}

static enum ferry_err real_cursor(void *ctx, const char *topic, int32_t partition, int timeout_ms,
                                  struct ferry_cursor *cursor)
{
    const struct real *b = ctx;
    return ferry_source_cursor(b->source, topic, partition, timeout_ms, cursor);
}

static enum ferry_err real_append(void *ctx, const char *topic, int32_t partition,
                                  uint64_t expect_version, const void *cursor_blob,
                                  size_t cursor_bytes, const struct ferry_message *messages,
                                  size_t count, ferry_append_cb *callback, void *arg)
{
    const struct real *b = ctx;
    return ferry_source_append(b->source, topic, partition, expect_version, cursor_blob,
                               cursor_bytes, messages, count, callback, arg);
}

static enum ferry_err real_fence(void *ctx, const char *topic, int32_t partition, uint64_t version,
                                 int timeout_ms)
{
    const struct real *b = ctx;
    return ferry_source_fence(b->source, topic, partition, version, timeout_ms);
}

static enum ferry_err real_checkpoint(void *ctx, const void *blob, size_t blob_bytes,
                                      int timeout_ms)
{
    const struct real *b = ctx;
    return ferry_source_checkpoint(b->source, blob, blob_bytes, timeout_ms);
}

static enum ferry_err real_show(void *ctx, uint32_t lane, int timeout_ms,
                                struct ferry_source_info *info)
{
    const struct real *b = ctx;
    return ferry_source_show(b->client, &b->source_id, lane, timeout_ms, info);
}

enum ferry_err relay_broker_open(struct relay_broker *broker, struct ferry_client *client,
                                 const struct ferry_id *source_id, uint32_t lane,
                                 const char *holder)
{
    struct real *b = mem_zalloc(1, sizeof(*b));
    if (b == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    b->client = client;
    b->source_id = *source_id;
    enum ferry_err err = ferry_source_open(&b->source, client, source_id, lane, holder);
    if (err != FERRY_OK) {
        mem_free(b);
        return err;
    }
    *broker = (struct relay_broker){
        .ctx = b,
        .elect = real_elect,
        .resign = real_resign,
        .partitions = real_partitions,
        .partitions_now = real_partitions_now,
        .partition_of_key = ferry_partition_of_key,
        .cursor = real_cursor,
        .append = real_append,
        .fence = real_fence,
        .checkpoint = real_checkpoint,
        .show = real_show,
    };
    return FERRY_OK;
}

void relay_broker_close(struct relay_broker *broker)
{
    struct real *b = broker->ctx;
    if (b != NULL) {
        ferry_source_close(&b->source);
        mem_free(b);
    }
    *broker = (struct relay_broker){0};
}
