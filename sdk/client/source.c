#include "client/source.h"

#include "base/clock.h"
#include "base/mem.h"
#include "client/call.h"

/* ---- Open and close. */

enum ferry_err ferry_source_open(struct ferry_source **source, struct ferry_client *client,
                                 const struct ferry_id *source_id, uint32_t lane,
                                 const char *holder)
{
    size_t holder_bytes = strlen(holder);
    if (holder_bytes > NAME_MAX_BYTES || id_is_zero(source_id)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    struct ferry_source *s = mem_zalloc(1, sizeof(*s));
    if (s == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    s->client = client;
    s->id = *source_id;
    s->lane = lane;
    memcpy(s->holder, holder, holder_bytes);
    buf_init(&s->checkpoint, CHECKPOINT_MAX_BYTES);
    *source = s;
    return FERRY_OK;
}

static void close_chains(struct ferry_client *c, void *arg)
{
    chains_close(c, arg);
}

void ferry_source_close(struct ferry_source **source)
{
    struct ferry_source *s = *source;
    if (s == NULL) {
        return;
    }
    *source = NULL;
    client_run_task(s->client, close_chains, s);
    buf_fini(&s->checkpoint);
    mem_free(s);
}

/* ---- Election, checkpoint. */

static void encode_elect(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    source_elect_request_encode(b, call->request);
}

static void encode_resign(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    source_resign_request_encode(b, call->request);
}

static void encode_checkpoint(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    source_checkpoint_request_encode(b, call->request);
}

static void encode_show(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    source_show_request_encode(b, call->request);
}

static enum ferry_err take_grant(struct ferry_source *s, const struct call *call,
                                 struct ferry_source_grant *grant)
{
    struct source_elect_reply reply;
    if (source_elect_reply_decode(call->frame.body, &reply) != FERRY_OK) {
        return FERRY_ERR_BAD_FRAME;
    }
    buf_clear(&s->checkpoint);
    buf_append_bytes(&s->checkpoint, reply.checkpoint);
    if (!buf_ok(&s->checkpoint)) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (reply.granted) {
        s->epoch = reply.epoch;
    }
    *grant = (struct ferry_source_grant){.epoch = reply.epoch,
                                         .standby = !reply.granted,
                                         .retry_ms = reply.retry_ms,
                                         .checkpoint = s->checkpoint.data,
                                         .checkpoint_bytes = s->checkpoint.size};
    return FERRY_OK;
}

enum ferry_err ferry_source_elect(struct ferry_source *source, int64_t ttl_ms, int timeout_ms,
                                  struct ferry_source_grant *grant)
{
    struct call call;
    if (ttl_ms <= 0 || ttl_ms > UINT32_MAX) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    struct source_elect_request request = {.source = source->id,
                                           .lane = source->lane,
                                           .holder = bytes_of_string(source->holder),
                                           .ttl_ms = (uint32_t)ttl_ms,
                                           .epoch = source->epoch};
    call_init(&call, COMMAND_SOURCE_ELECT, ROUTE_CONTROLLER, encode_elect, &request, timeout_ms);
    enum ferry_err err = call_run_one(source->client, &call);
    if (err == FERRY_OK) {
        err = take_grant(source, &call, grant);
    }
    call_fini(&call);
    return err;
}

static enum ferry_err take_shown(const struct call *call, struct ferry_source_info *info)
{
    struct source_elect_reply reply;
    if (source_elect_reply_decode(call->frame.body, &reply) != FERRY_OK) {
        return FERRY_ERR_BAD_FRAME;
    }
    *info = (struct ferry_source_info){.known = reply.epoch != 0,
                                       .epoch = reply.epoch,
                                       .left_ms = reply.retry_ms,
                                       .checkpoint_bytes = reply.checkpoint.size};
    must(reply.holder.size < sizeof(info->holder));
    must(reply.checkpoint.size <= sizeof(info->checkpoint));
    if (reply.holder.size > 0) {
        memcpy(info->holder, reply.holder.data, reply.holder.size);
    }
    if (reply.checkpoint.size > 0) {
        memcpy(info->checkpoint, reply.checkpoint.data, reply.checkpoint.size);
    }
    return FERRY_OK;
}

enum ferry_err ferry_source_show(struct ferry_client *client, const struct ferry_id *source_id,
                                 uint32_t lane, int timeout_ms, struct ferry_source_info *info)
{
    struct call call;
    struct source_show_request request = {.source = *source_id, .lane = lane};
    call_init(&call, COMMAND_SOURCE_SHOW, ROUTE_CONTROLLER, encode_show, &request, timeout_ms);
    enum ferry_err err = call_run_one(client, &call);
    if (err == FERRY_OK) {
        err = take_shown(&call, info);
    }
    call_fini(&call);
    return err;
}

enum ferry_err ferry_source_resign(struct ferry_source *source, int timeout_ms)
{
    struct call call;
    struct source_resign_request request = {
        .source = source->id, .lane = source->lane, .epoch = source->epoch};
    call_init(&call, COMMAND_SOURCE_RESIGN, ROUTE_CONTROLLER, encode_resign, &request, timeout_ms);
    enum ferry_err err = call_run_one(source->client, &call);
    call_fini(&call);
    if (err == FERRY_OK) {
        source->epoch = 0;
    }
    return err;
}

enum ferry_err ferry_source_checkpoint(struct ferry_source *source, const void *blob,
                                       size_t blob_bytes, int timeout_ms)
{
    struct call call;
    if (blob_bytes > CHECKPOINT_MAX_BYTES) {
        return FERRY_ERR_TOO_LARGE;
    }
    struct source_checkpoint_request request = {.source = source->id,
                                                .lane = source->lane,
                                                .epoch = source->epoch,
                                                .checkpoint = bytes_of(blob, blob_bytes)};
    call_init(&call, COMMAND_SOURCE_CHECKPOINT, ROUTE_CONTROLLER, encode_checkpoint, &request,
              timeout_ms);
    enum ferry_err err = call_run_one(source->client, &call);
    call_fini(&call);
    return err;
}

/* ---- Cursor. */

static void encode_cursor_get(struct buf *b, const struct call *call, uint64_t group)
{
    const struct ferry_source *s = call->request;
    struct cursor_get_request request = {.group = group, .source = s->id, .lane = s->lane};
    cursor_get_request_encode(b, &request);
}

static enum ferry_err take_cursor(const struct call *call, struct ferry_cursor *cursor)
{
    struct cursor_get_reply reply;
    if (cursor_get_reply_decode(call->frame.body, &reply) != FERRY_OK ||
        reply.cursor.size > FERRY_CURSOR_MAX_BYTES) {
        return FERRY_ERR_BAD_FRAME;
    }
    cursor->version = reply.version;
    cursor->epoch = reply.epoch;
    cursor->blob_bytes = reply.cursor.size;
    if (reply.cursor.size > 0) {
        memcpy(cursor->blob, reply.cursor.data, reply.cursor.size);
    }
    return FERRY_OK;
}

static enum ferry_err find_topic(struct ferry_client *c, const char *name, struct topic **topic)
{
    pthread_mutex_lock(&c->lock);
    enum ferry_err err = topic_get(c, name, topic);
    pthread_mutex_unlock(&c->lock);
    return err;
}

enum ferry_err ferry_source_cursor(struct ferry_source *source, const char *topic,
                                   int32_t partition, int timeout_ms, struct ferry_cursor *cursor)
{
    struct call call;
    struct topic *t;
    enum ferry_err err = find_topic(source->client, topic, &t);
    if (err != FERRY_OK) {
        return err;
    }
    call_init(&call, COMMAND_CURSOR_GET, ROUTE_PARTITION, encode_cursor_get, source, timeout_ms);
    call_to_partition(&call, t, partition);
    err = call_run_one(source->client, &call);
    if (err == FERRY_OK) {
        err = take_cursor(&call, cursor);
    }
    call_fini(&call);
    return err;
}

/* ---- Fence. */

static void encode_fence(struct buf *b, const struct call *call, uint64_t group)
{
    struct source_fence_request request = *(const struct source_fence_request *)call->request;
    request.group = group;
    source_fence_request_encode(b, &request);
}

enum ferry_err ferry_source_fence(struct ferry_source *source, const char *topic, int32_t partition,
                                  uint64_t version, int timeout_ms)
{
    struct call call;
    struct topic *t;
    struct source_fence_request request = {
        .source = source->id, .lane = source->lane, .epoch = source->epoch, .version = version};
    if (source->epoch == 0 || partition < 0) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    enum ferry_err err = find_topic(source->client, topic, &t);
    if (err != FERRY_OK) {
        return err;
    }
    call_init(&call, COMMAND_SOURCE_FENCE, ROUTE_PARTITION, encode_fence, &request, timeout_ms);
    call_to_partition(&call, t, partition);
    err = call_run_one(source->client, &call);
    call_fini(&call);
    return err;
}

/* ---- Append. */

static int run_append(struct ferry_client *c, struct due *due)
{
    struct append *a = list_entry(due, struct append, due);
    a->callback(&a->result, a->arg);
    pthread_mutex_lock(&c->lock);
    due_told(c, a->message_count, a->cost_bytes);
    pthread_mutex_unlock(&c->lock);
    append_free(a);
    return 1;
}

static enum ferry_err add_message(struct append *a, const struct ferry_message *m,
                                  struct buf *headers, int64_t now_ms)
{
    struct batch_record r = {.timestamp_ms = m->timestamp_ms != 0 ? m->timestamp_ms : now_ms,
                             .has_key = m->key != NULL,
                             .key = bytes_of(m->key, m->key_bytes),
                             .payload = bytes_of(m->payload, m->payload_bytes),
                             .id = m->id,
                             .due = m->due_ms != 0 ? m->due_ms : -m->delay_ms};
    buf_clear(headers);
    if (m->header_count > 0) {
        enum ferry_err err = batch_encode_headers(headers, m->headers, m->header_count);
        if (err != FERRY_OK) {
            return err;
        }
        r.headers = buf_bytes(headers);
    }
    return batch_writer_add(&a->writer, &r);
}

static enum ferry_err fill(struct append *a, const struct ferry_message *messages, size_t count)
{
    struct buf headers;
    enum ferry_err err = FERRY_OK;
    int64_t now_ms = clock_wall_ms();
    buf_init(&headers, (size_t)a->client->options.message_max_bytes);
    for (size_t i = 0; i < count && err == FERRY_OK; i++) {
        err = add_message(a, &messages[i], &headers, now_ms);
    }
    buf_fini(&headers);
    /* Producer id 0: the cursor, not a sequence, keeps it from being stored twice. */
    return err != FERRY_OK ? err : batch_writer_finish(&a->writer, 0, 0, 0, &a->bytes);
}

static struct append *append_new(struct ferry_source *s, struct topic *t, int32_t partition)
{
    struct append *a = mem_zalloc(1, sizeof(*a));
    if (a == NULL) {
        return NULL;
    }
    struct ferry_client *c = s->client;
    list_init(&a->node);
    list_init(&a->due.node);
    a->due.run = run_append;
    a->client = c;
    a->source = s;
    a->source_id = s->id;
    a->lane = s->lane;
    a->epoch = s->epoch;
    a->topic = t;
    a->partition = partition;
    a->deadline_us = clock_monotonic_us() + c->options.delivery_timeout_ms * 1000;
    a->result.refused_index = SIZE_MAX;
    a->result.base_offset = -1;
    request_init(&a->request, append_on_reply);
    pthread_mutex_lock(&c->lock);
    batch_writer_init(&a->writer, c->batch_max_bytes);
    pthread_mutex_unlock(&c->lock);
    return a;
}

/* Hands it to the io thread, within queue.bytes. */
static enum ferry_err hand_over(struct ferry_client *c, struct append *a)
{
    bool wake = false;
    enum ferry_err err = FERRY_OK;
    pthread_mutex_lock(&c->lock);
    if (c->closing) {
        err = FERRY_ERR_CLOSED;
    } else if (c->queued_bytes > 0 &&
               c->queued_bytes + a->cost_bytes > (size_t)c->options.queue_bytes) {
        err = FERRY_ERR_QUEUE_FULL;
    } else {
        c->queued_bytes += a->cost_bytes;
        c->queued_messages += a->message_count;
        wake = client_add_work(c, &c->work_appends, &a->node);
    }
    pthread_mutex_unlock(&c->lock);
    client_wake(c, wake);
    return err;
}

enum ferry_err ferry_source_append(struct ferry_source *source, const char *topic,
                                   int32_t partition, uint64_t expect_version,
                                   const void *cursor_blob, size_t cursor_bytes,
                                   const struct ferry_message *messages, size_t count,
                                   ferry_append_cb *callback, void *arg)
{
    struct topic *t;
    if (partition < 0 || cursor_bytes > FERRY_CURSOR_MAX_BYTES || count == 0 || callback == NULL) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    if (count > BATCH_RECORDS_MAX) {
        return FERRY_ERR_TOO_LARGE;
    }
    enum ferry_err err = find_topic(source->client, topic, &t);
    if (err != FERRY_OK) {
        return err;
    }
    struct append *a = append_new(source, t, partition);
    if (a == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    a->expect_version = expect_version;
    a->callback = callback;
    a->arg = arg;
    a->message_count = count;
    a->cursor_bytes = cursor_bytes;
    if (cursor_bytes > 0) {
        memcpy(a->cursor, cursor_blob, cursor_bytes);
    }
    err = fill(a, messages, count);
    if (err == FERRY_OK) {
        a->cost_bytes = sizeof(*a) + a->bytes.size;
        err = hand_over(source->client, a);
    }
    if (err != FERRY_OK) {
        append_free(a);
    }
    return err;
}
