/* Settling what was handed out, and dead letters. */
#include "server/shard_internal.h"

/* ---- Settle ---- */

static void handle_settle(struct shard *s, struct request *r, const struct frame *f)
{
    struct settle_request *q = &s->asked->settle;
    struct seat *seat = NULL;
    enum ferry_err err = settle_request_decode(f->body, q);
    if (err == FERRY_OK && q->count == 0) {
        err = FERRY_ERR_INVALID_ARGUMENT;
    }
    if (err == FERRY_OK) {
        err = shard_find_leader(s, q->group, &seat);
    }
    if (err == FERRY_OK) {
        err = shard_view(s);
    }
    if (err == FERRY_OK) {
        err = partition_settle(seat->partition, q, s->now_ms, s->now_us, &r->ticket);
    }
    if (err == FERRY_OK) {
        s->counters.settlements += q->count;
    }
    shard_settle_partition(s, r, seat, err, "");
}

static void finish_settle(struct shard *s, struct seat *seat, struct request *r)
{
    struct settle_reply *reply = &s->replies->settle;
    struct bytes statuses = buf_bytes(&r->ticket.statuses);
    bool all_done = true;
    (void)seat;
    reply->count = (uint32_t)(statuses.size / 2);
    must(reply->count <= SETTLE_ITEMS_MAX);
    for (uint32_t i = 0; i < reply->count; i++) {
        reply->results[i].status = get_le16(statuses.data + (size_t)i * 2);
        bool done = reply->results[i].status == FERRY_OK;
        all_done = all_done && done;
        s->counters.settlements_refused += done ? 0 : 1;
    }
    reply->count = all_done ? 0 : reply->count;
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    settle_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

/* ---- Dead letters ---- */

static void handle_dead_list(struct shard *s, struct request *r, const struct frame *f)
{
    struct dead_list_request q;
    struct seat *seat = NULL;
    enum ferry_err err = dead_list_request_decode(f->body, &q);
    if (err == FERRY_OK && q.count_max == 0) {
        err = FERRY_ERR_INVALID_ARGUMENT;
    }
    if (!shard_confirm_read(s, r, q.group, &seat, err)) {
        return;
    }
    struct dead_list_reply *reply = &s->replies->dead_list;
    q.count_max = q.count_max < DEAD_LIST_MAX ? q.count_max : DEAD_LIST_MAX;
    err = shard_view(s);
    if (err == FERRY_OK) {
        err = partition_dead_list(seat->partition, &q, reply);
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    dead_list_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

static void handle_dead_change(struct shard *s, struct request *r, const struct frame *f)
{
    struct dead_change_request q;
    struct seat *seat = NULL;
    struct err_text e = {{0}};
    enum ferry_err err = dead_change_request_decode(f->body, &q);
    if (err == FERRY_OK && q.count == 0) {
        err = FERRY_ERR_INVALID_ARGUMENT;
    }
    if (err == FERRY_OK) {
        err = shard_find_leader(s, q.group, &seat);
    }
    if (err == FERRY_OK && f->attachment.size > 0) {
        err = shard_check_room(s, seat, f->attachment.size, &e);
    }
    if (err == FERRY_OK) {
        err = shard_view(s);
    }
    if (err == FERRY_OK) {
        struct bytes who = bytes_of_string(shard_client_name(s, r));
        err = partition_dead_change(seat->partition, &q, f->attachment, who, s->now_ms, s->now_us,
                                    &r->ticket, &e);
    }
    shard_settle_partition(s, r, seat, err, e.text);
}

static void finish_dead_change(struct shard *s, struct seat *seat, struct request *r)
{
    struct dead_change_reply reply = {.done = r->ticket.count};
    struct buf b;
    (void)seat;
    shard_begin_reply(r, &b, FERRY_OK);
    dead_change_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

static const struct partition_command commands[] = {
    {COMMAND_RECEIVE, shard_handle_receive, shard_finish_receive},
    {COMMAND_SETTLE, handle_settle, finish_settle},
    {COMMAND_DEAD_LIST, handle_dead_list, NULL},
    {COMMAND_DEAD_CHANGE, handle_dead_change, finish_dead_change},
};
const struct partition_commands shard_deliver_commands = {commands,
                                                          sizeof(commands) / sizeof(commands[0])};
