/* Questions to a partition. Answered by the leader, and only after a quorum has confirmed that it
 * still is one: the answer is never older than the question. */
#include "server/shard_internal.h"

/* ---- Reads that wait to be confirmed ---- */

bool shard_confirm_read(struct shard *s, struct request *r, uint64_t group, struct seat **seat,
                        enum ferry_err err)
{
    if (err == FERRY_OK) {
        err = shard_find_partition(s, group, seat);
    }
    if (err == FERRY_OK) {
        err = shard_check_leads(s, *seat);
    }
    if (err == FERRY_OK && r->confirmed) {
        return true;
    }
    if (err == FERRY_OK) {
        err = replica_read((*seat)->replica, s->now_us, &r->read_number);
    }
    if (err != FERRY_OK) {
        shard_reply_seat_error(s, r, *seat, err, "");
        return false;
    }
    if (replica_read_done((*seat)->replica, r->read_number) == REPLICA_READ_DONE) {
        return true;
    }
    list_push_back(&(*seat)->reads, &r->parked);
    shard_touch(s, *seat);
    return false;
}

void shard_answer_reads(struct shard *s, struct seat *seat)
{
    while (!list_is_empty(&seat->reads)) {
        struct request *r = list_entry(seat->reads.next, struct request, parked);
        enum ferry_err err = replica_failure(seat->replica);
        enum replica_read_state state =
            err == FERRY_OK ? replica_read_done(seat->replica, r->read_number) : REPLICA_READ_LOST;
        if (state == REPLICA_READ_WAITING && !seat->dropping) {
            return;
        }
        list_remove(&r->parked);
        if (state == REPLICA_READ_DONE) {
            r->confirmed = true;
            shard_dispatch_again(s, r);
        } else {
            shard_reply_seat_error(s, r, seat, err != FERRY_OK ? err : FERRY_ERR_NOT_LEADER, "");
        }
    }
}

/* ---- Questions ---- */

static void handle_cursor_get(struct shard *s, struct request *r, const struct frame *f)
{
    struct cursor_get_request q;
    struct seat *seat = NULL;
    enum ferry_err err = cursor_get_request_decode(f->body, &q);
    if (!shard_confirm_read(s, r, q.group, &seat, err)) {
        return;
    }
    struct cursor_get_reply reply;
    partition_cursor_get(seat->partition, &q.source, q.lane, &reply);
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    cursor_get_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

static void handle_subscription_get(struct shard *s, struct request *r, const struct frame *f)
{
    struct subscription_get_request q;
    struct subscription_get_reply reply;
    struct seat *seat = NULL;
    enum ferry_err err = subscription_get_request_decode(f->body, &q);
    if (!shard_confirm_read(s, r, q.group, &seat, err)) {
        return;
    }
    err = shard_view(s);
    if (err == FERRY_OK) {
        err = partition_subscription_get(seat->partition, q.name, s->now_ms, &reply);
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    subscription_get_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

static void handle_subscription_list(struct shard *s, struct request *r, const struct frame *f)
{
    struct subscription_list_request q;
    struct seat *seat = NULL;
    enum ferry_err err = subscription_list_request_decode(f->body, &q);
    if (!shard_confirm_read(s, r, q.group, &seat, err)) {
        return;
    }
    partition_subscription_list(seat->partition, q.after, s->names);
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    names_reply_encode(&b, s->names);
    shard_send_reply(s, r, &b);
}

static enum ferry_err find_offset(struct shard *s, const struct seat *seat,
                                  const struct offset_find_request *q,
                                  struct offset_find_reply *reply)
{
    enum ferry_err err = shard_view(s);
    if (err != FERRY_OK) {
        return err;
    }
    reply->start_offset = partition_start_offset(seat->partition);
    reply->end_offset = partition_end_offset(seat->partition);
    switch (q->kind) {
    case OFFSET_START:
        reply->offset = reply->start_offset;
        return FERRY_OK;
    case OFFSET_END:
        reply->offset = reply->end_offset;
        return FERRY_OK;
    case OFFSET_TIME:
        return partition_find_time(seat->partition, q->time_ms, &reply->offset);
    default:
        return FERRY_ERR_INVALID_ARGUMENT;
    }
}

static void handle_offset_find(struct shard *s, struct request *r, const struct frame *f)
{
    struct offset_find_request q;
    struct offset_find_reply reply;
    struct seat *seat = NULL;
    enum ferry_err err = offset_find_request_decode(f->body, &q);
    if (!shard_confirm_read(s, r, q.group, &seat, err)) {
        return;
    }
    err = find_offset(s, seat, &q, &reply);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    offset_find_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

static void handle_partition_info(struct shard *s, struct request *r, const struct frame *f)
{
    struct partition_info_request q;
    struct seat *seat = NULL;
    enum ferry_err err = partition_info_request_decode(f->body, &q);
    if (!shard_confirm_read(s, r, q.group, &seat, err)) {
        return;
    }
    struct partition_info_reply reply = {.leader_node = (uint32_t)s->config.options->node_id,
                                         .term = replica_term(seat->replica),
                                         .commit_index = replica_commit(seat->replica),
                                         .start_offset = partition_start_offset(seat->partition),
                                         .end_offset = partition_end_offset(seat->partition),
                                         .size_bytes = partition_size_bytes(seat->partition)};
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    partition_info_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

request_handler *shard_find_ask_handler(uint16_t command)
{
    switch (command) {
    case COMMAND_CURSOR_GET:
        return handle_cursor_get;
    case COMMAND_OFFSET_FIND:
        return handle_offset_find;
    case COMMAND_SUBSCRIPTION_GET:
        return handle_subscription_get;
    case COMMAND_SUBSCRIPTION_LIST:
        return handle_subscription_list;
    case COMMAND_PARTITION_INFO:
        return handle_partition_info;
    default:
        return NULL;
    }
}
