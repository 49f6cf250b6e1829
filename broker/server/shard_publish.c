/* Publishing on condition, versions of keys; finding a message, and the trace it left. */
#include "server/shard_internal.h"

/* ---- Publish ---- */

/* With VERSION_CONFLICT more is told than the error. */
static void refuse_publish(struct shard *s, struct request *r, enum ferry_err err,
                           struct publish_refusal *refusal, const char *detail)
{
    struct buf b;
    s->counters.errors++;
    refusal->error = (struct error_reply){.detail = bytes_of_string(detail),
                                          .retry_after_ms = shard_retry_after(err)};
    shard_begin_reply(r, &b, err);
    publish_refusal_encode(&b, refusal);
    shard_send_reply(s, r, &b);
}

static enum ferry_err publish(struct shard *s, struct request *r, struct seat *seat,
                              const struct publish_request *q, struct bytes batch,
                              struct publish_refusal *refusal, struct err_text *e)
{
    enum ferry_err err = shard_check_room(s, seat, batch.size, e);
    if (err == FERRY_OK && r->credit_bytes == 0) {
        err = shard_take_credit(s, r, seat, batch.size, e);
    }
    if (err == FERRY_OK) {
        err = shard_view(s);
    }
    if (err == FERRY_OK) {
        err = partition_publish(seat->partition, q, batch, s->now_ms, s->now_us, &r->ticket,
                                refusal, e);
    }
    return err;
}

static void handle_publish(struct shard *s, struct request *r, const struct frame *f)
{
    struct publish_request *q = &s->asked->publish;
    struct publish_refusal refusal = {.record = -1};
    struct seat *seat = NULL;
    struct err_text e = {{0}};
    struct quota_cost cost = {
        .bytes = f->attachment.size, .messages = shard_count_records(f->attachment), .requests = 1};
    enum ferry_err err = publish_request_decode(f->body, q);
    if (err == FERRY_OK) {
        err = shard_find_leader(s, q->group, &seat);
    }
    if (err == FERRY_OK && shard_is_over_quota(s, r, seat->topic, &cost)) {
        return;
    }
    if (err == FERRY_OK) {
        err = publish(s, r, seat, q, f->attachment, &refusal, &e);
    }
    if (err == FERRY_ERR_VERSION_CONFLICT && !shard_confirm_read(s, r, q->group, &seat, FERRY_OK)) {
        return; /* Whoever was deposed knows old versions: judged again once it is confirmed. */
    }
    if (err == FERRY_ERR_VERSION_CONFLICT) {
        refuse_publish(s, r, err, &refusal, e.text);
        return;
    }
    if (err == FERRY_OK) {
        shard_charge_quota(s, r, seat->topic, &cost);
        s->counters.batches_in++;
        s->counters.bytes_in += f->attachment.size;
    }
    shard_settle_partition(s, r, seat, err, e.text);
}

static void finish_publish(struct shard *s, struct seat *seat, struct request *r)
{
    const struct partition_ticket *t = &r->ticket;
    struct publish_reply reply = {.base_offset = t->base_offset,
                                  .duplicate_count = t->duplicate_count,
                                  .append_time_ms = t->append_time_ms};
    struct buf b;
    (void)seat;
    s->counters.duplicates += t->duplicate_count;
    shard_begin_reply(r, &b, FERRY_OK);
    publish_reply_encode(&b, &reply);
    if (t->duplicate_count > 0) {
        frame_begin_attachment(&b);
        buf_append_bytes(&b, buf_bytes(&t->duplicates));
    }
    shard_send_reply(s, r, &b);
}

static void handle_key_version(struct shard *s, struct request *r, const struct frame *f)
{
    struct key_version_request q;
    struct key_version_reply reply = {0};
    struct seat *seat = NULL;
    enum ferry_err err = key_version_request_decode(f->body, &q);
    if (!shard_confirm_read(s, r, q.group, &seat, err)) {
        return;
    }
    err = shard_view(s);
    if (err == FERRY_OK) {
        err = partition_key_version(seat->partition, q.key, &reply.version);
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    key_version_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

/* ---- Finding ---- */

static void handle_message_find(struct shard *s, struct request *r, const struct frame *f)
{
    struct message_find_request q;
    struct message_find_reply reply = {0};
    struct seat *seat = NULL;
    enum ferry_err err = message_find_request_decode(f->body, &q);
    if (!shard_confirm_read(s, r, q.group, &seat, err)) {
        return;
    }
    err = shard_view(s);
    if (err == FERRY_OK) {
        err = partition_message_find(seat->partition, &q.id, &reply.found, &reply.offset);
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    message_find_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

static void handle_trace(struct shard *s, struct request *r, const struct frame *f)
{
    struct trace_request q;
    struct seat *seat = NULL;
    enum ferry_err err = trace_request_decode(f->body, &q);
    if (!shard_confirm_read(s, r, q.group, &seat, err)) {
        return;
    }
    struct trace_reply *reply = &s->replies->trace;
    err = shard_view(s);
    if (err == FERRY_OK) {
        err = partition_trace(seat->partition, &q, reply);
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    trace_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

static const struct partition_command commands[] = {
    {COMMAND_PUBLISH, handle_publish, finish_publish},
    {COMMAND_KEY_VERSION, handle_key_version, NULL},
    {COMMAND_MESSAGE_FIND, handle_message_find, NULL},
    {COMMAND_TRACE, handle_trace, NULL},
};
const struct partition_commands shard_publish_commands = {commands,
                                                          sizeof(commands) / sizeof(commands[0])};
