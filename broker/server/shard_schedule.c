/* Messages that wait for their time, and those that come again and again. */
#include "server/shard_internal.h"

static void handle_list(struct shard *s, struct request *r, const struct frame *f)
{
    struct schedule_list_request q;
    struct seat *seat = NULL;
    enum ferry_err err = schedule_list_request_decode(f->body, &q);
    if (!shard_confirm_read(s, r, q.group, &seat, err)) {
        return;
    }
    struct schedule_list_reply *reply = &s->replies->schedule_list;
    err = shard_view(s);
    if (err == FERRY_OK) {
        err = partition_schedule_list(seat->partition, &q, reply);
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    schedule_list_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

static void handle_cancel(struct shard *s, struct request *r, const struct frame *f)
{
    struct schedule_cancel_request q;
    struct seat *seat = NULL;
    enum ferry_err err = schedule_cancel_request_decode(f->body, &q);
    if (err == FERRY_OK && q.count == 0) {
        err = FERRY_ERR_INVALID_ARGUMENT;
    }
    if (err == FERRY_OK) {
        err = shard_find_leader(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = shard_view(s);
    }
    if (err == FERRY_OK) {
        err = partition_schedule_cancel(seat->partition, &q, s->now_ms, s->now_us, &r->ticket);
    }
    shard_settle_partition(s, r, seat, err, "");
}

static void finish_cancel(struct shard *s, struct seat *seat, struct request *r)
{
    struct schedule_cancel_reply reply = {.done = r->ticket.count};
    struct buf b;
    (void)seat;
    shard_begin_reply(r, &b, FERRY_OK);
    schedule_cancel_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

static void handle_recurring_set(struct shard *s, struct request *r, const struct frame *f)
{
    struct recurring_set_request q;
    struct seat *seat = NULL;
    struct err_text e = {{0}};
    enum ferry_err err = recurring_set_request_decode(f->body, &q);
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
        err = partition_recurring_set(seat->partition, &q, f->attachment, s->now_ms, s->now_us,
                                      &r->ticket, &e);
    }
    shard_settle_partition(s, r, seat, err, e.text);
}

static void finish_recurring_set(struct shard *s, struct seat *seat, struct request *r)
{
    (void)seat;
    shard_reply_empty(s, r);
}

static void handle_recurring_list(struct shard *s, struct request *r, const struct frame *f)
{
    struct recurring_list_request q;
    struct seat *seat = NULL;
    enum ferry_err err = recurring_list_request_decode(f->body, &q);
    if (!shard_confirm_read(s, r, q.group, &seat, err)) {
        return;
    }
    struct recurring_list_reply *reply = &s->replies->recurring_list;
    err = partition_recurring_list(seat->partition, reply);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    recurring_list_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

static const struct partition_command commands[] = {
    {COMMAND_SCHEDULE_LIST, handle_list, NULL},
    {COMMAND_SCHEDULE_CANCEL, handle_cancel, finish_cancel},
    {COMMAND_RECURRING_SET, handle_recurring_set, finish_recurring_set},
    {COMMAND_RECURRING_LIST, handle_recurring_list, NULL},
};
const struct partition_commands shard_schedule_commands = {commands,
                                                           sizeof(commands) / sizeof(commands[0])};
