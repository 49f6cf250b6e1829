/* Members of subscriptions, and what happened to them. */
#include "server/shard_internal.h"

static void handle_heartbeat(struct shard *s, struct request *r, const struct frame *f)
{
    struct member_heartbeat_request *q = &s->asked->heartbeat;
    struct seat *seat = NULL;
    enum ferry_err err = member_heartbeat_request_decode(f->body, q);
    if (err == FERRY_OK) {
        err = shard_find_leader(s, q->group, &seat);
    }
    if (err == FERRY_OK) {
        struct bytes client = bytes_of_string(shard_client_name(s, r));
        err = partition_member_heartbeat(seat->partition, q, client, s->now_ms, s->now_us,
                                         &r->ticket);
    }
    shard_settle_partition(s, r, seat, err, "");
}

static void finish_heartbeat(struct shard *s, struct seat *seat, struct request *r)
{
    struct member_heartbeat_request *q = &s->asked->heartbeat;
    struct member_heartbeat_reply *reply = &s->replies->heartbeat;
    must(member_heartbeat_request_decode(shard_body_of(r), q) == FERRY_OK);
    enum ferry_err err = partition_member_assignment(seat->partition, q->subscription, q->member,
                                                     &q->instance, reply);
    if (err != FERRY_OK) { /* It is out again, or another instance has its name. */
        shard_reply_seat_error(s, r, seat, err, "");
        return;
    }
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    member_heartbeat_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

static void handle_leave(struct shard *s, struct request *r, const struct frame *f)
{
    struct member_leave_request q;
    struct seat *seat = NULL;
    enum ferry_err err = member_leave_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = shard_find_leader(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = partition_member_leave(seat->partition, &q, s->now_ms, s->now_us, &r->ticket);
    }
    shard_settle_partition(s, r, seat, err, "");
}

static void finish_leave(struct shard *s, struct seat *seat, struct request *r)
{
    (void)seat;
    shard_reply_empty(s, r);
}

static void handle_member_list(struct shard *s, struct request *r, const struct frame *f)
{
    struct member_list_request q;
    struct seat *seat = NULL;
    enum ferry_err err = member_list_request_decode(f->body, &q);
    if (!shard_confirm_read(s, r, q.group, &seat, err)) {
        return;
    }
    struct member_list_reply *reply = &s->replies->member_list;
    err = partition_member_list(seat->partition, &q, s->now_us, reply);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    member_list_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

static void handle_event_list(struct shard *s, struct request *r, const struct frame *f)
{
    struct event_list_request q;
    struct seat *seat = NULL;
    enum ferry_err err = event_list_request_decode(f->body, &q);
    if (!shard_confirm_read(s, r, q.group, &seat, err)) {
        return;
    }
    struct event_list_reply *reply = &s->replies->event_list;
    err = shard_view(s);
    if (err == FERRY_OK) {
        err = partition_event_list(seat->partition, &q, reply);
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    event_list_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

static const struct partition_command commands[] = {
    {COMMAND_MEMBER_HEARTBEAT, handle_heartbeat, finish_heartbeat},
    {COMMAND_MEMBER_LEAVE, handle_leave, finish_leave},
    {COMMAND_MEMBER_LIST, handle_member_list, NULL},
    {COMMAND_EVENT_LIST, handle_event_list, NULL},
};
const struct partition_commands shard_member_commands = {commands,
                                                         sizeof(commands) / sizeof(commands[0])};
