/* Quotas set and listed: commands of shard 0. What they limit is in shard_limits.c. */
#include "server/shard_internal.h"

static void handle_set(struct shard *s, struct request *r, const struct frame *f)
{
    struct quota_set_request q;
    struct err_text e = {{0}};
    enum ferry_err err = quota_set_request_decode(f->body, &q);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    err = meta_quota_set(s->meta, &q.quota, s->now_ms, s->now_us, &r->meta_ticket, &e);
    shard_settle_meta(s, r, err, e.text);
}

static void handle_list(struct shard *s, struct request *r, const struct frame *f)
{
    struct quota_list_request q;
    enum ferry_err err = quota_list_request_decode(f->body, &q);
    if (err == FERRY_OK && !s->catalog_sent) {
        err = FERRY_ERR_NOT_READY;
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    /* No client and no topic is a quota, too: the first page begins with it. */
    bool first = q.after_client.size == 0 && q.after_topic.size == 0;
    size_t at = first ? 0 : meta_quota_after(s->meta, q.after_client, q.after_topic);
    struct quota_list_reply *reply = &s->replies->quota_list;
    const struct meta_quota *row;
    reply->count = 0;
    for (; reply->count < QUOTA_LIST_MAX && (row = meta_quota_at(s->meta, at)) != NULL; at++) {
        reply->items[reply->count++] =
            (struct quota){.client = bytes_of_string(row->client),
                           .topic = bytes_of_string(row->topic),
                           .bytes_per_second = row->bytes_per_second,
                           .messages_per_second = row->messages_per_second,
                           .requests_per_second = row->requests_per_second};
    }
    reply->more = row != NULL && meta_quota_at(s->meta, at) != NULL;
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    quota_list_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

request_handler *shard_find_quota_handler(uint16_t command)
{
    switch (command) {
    case COMMAND_QUOTA_SET:
        return handle_set;
    case COMMAND_QUOTA_LIST:
        return handle_list;
    default:
        return NULL;
    }
}
