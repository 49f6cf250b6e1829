/* Leases and worker ids: commands of the metadata leader. */
#include "server/shard_internal.h"

/* ---- Answers ---- */

static void reply_lease(struct shard *s, struct request *r, struct bytes name, bool granted)
{
    struct meta_lease_view view = {0};
    bool held = meta_lease_find(s->meta, name, s->now_us, &view);
    struct lease_reply reply = {.granted = granted,
                                .token = granted ? r->meta_ticket.token : view.token,
                                .ttl_ms = view.ttl_ms,
                                .holder = held ? view.holder : bytes_of(NULL, 0),
                                .left_ms = view.left_ms,
                                .waiting = view.waiting};
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    lease_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

static void reply_worker(struct shard *s, struct request *r, uint32_t ttl_ms)
{
    struct worker_id_reply reply = {.worker_id = r->meta_ticket.worker_id, .ttl_ms = ttl_ms};
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    worker_id_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

static void finish_acquire(struct shard *s, struct request *r, enum ferry_err err)
{
    struct lease_acquire_request q;
    must(lease_acquire_request_decode(shard_body_of(r), &q) == FERRY_OK);
    if (err == FERRY_OK || err == FERRY_ERR_LEASE_HELD) {
        reply_lease(s, r, q.name, err == FERRY_OK);
    } else {
        shard_settle_meta(s, r, err, "");
    }
}

static void finish_renew(struct shard *s, struct request *r, enum ferry_err err)
{
    struct lease_renew_request q;
    must(lease_renew_request_decode(shard_body_of(r), &q) == FERRY_OK);
    if (err == FERRY_OK) {
        reply_lease(s, r, q.name, true);
    } else {
        shard_settle_meta(s, r, err, "");
    }
}

static void finish_release(struct shard *s, struct request *r, enum ferry_err err)
{
    if (err == FERRY_OK) {
        shard_reply_empty(s, r);
    } else {
        shard_settle_meta(s, r, err, "");
    }
}

static void finish_worker(struct shard *s, struct request *r, enum ferry_err err)
{
    struct worker_id_request q;
    must(worker_id_request_decode(shard_body_of(r), &q) == FERRY_OK);
    if (err == FERRY_OK) {
        reply_worker(s, r, q.ttl_ms);
    } else {
        shard_settle_meta(s, r, err, "");
    }
}

bool shard_finish_lease(struct shard *s, struct request *r, enum ferry_err err)
{
    switch (r->command) {
    case COMMAND_LEASE_ACQUIRE:
        finish_acquire(s, r, err);
        return true;
    case COMMAND_LEASE_RENEW:
        finish_renew(s, r, err);
        return true;
    case COMMAND_LEASE_RELEASE:
        finish_release(s, r, err);
        return true;
    case COMMAND_WORKER_ID:
        finish_worker(s, r, err);
        return true;
    default:
        return false;
    }
}

/* Waits for its entry or its turn, or is answered now. */
static void settle(struct shard *s, struct request *r, enum ferry_err err)
{
    shard_touch(s, s->meta_seat);
    if (err != FERRY_OK || !r->meta_ticket.waits) {
        must(shard_finish_lease(s, r, err));
    }
}

/* ---- Requests ---- */

static void handle_acquire(struct shard *s, struct request *r, const struct frame *f)
{
    struct lease_acquire_request q;
    enum ferry_err err = lease_acquire_request_decode(f->body, &q);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    err = meta_lease_acquire(s->meta, q.name, q.holder, q.ttl_ms, q.wait_ms, s->now_ms, s->now_us,
                             &r->meta_ticket);
    settle(s, r, err);
}

static void handle_renew(struct shard *s, struct request *r, const struct frame *f)
{
    struct lease_renew_request q;
    enum ferry_err err = lease_renew_request_decode(f->body, &q);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    err = meta_lease_renew(s->meta, q.name, q.holder, q.token, q.ttl_ms, s->now_ms, s->now_us,
                           &r->meta_ticket);
    settle(s, r, err);
}

static void handle_release(struct shard *s, struct request *r, const struct frame *f)
{
    struct lease_release_request q;
    enum ferry_err err = lease_release_request_decode(f->body, &q);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    err = meta_lease_release(s->meta, q.name, q.holder, q.token, s->now_ms, s->now_us,
                             &r->meta_ticket);
    settle(s, r, err);
}

static void handle_list(struct shard *s, struct request *r, const struct frame *f)
{
    struct lease_list_request q;
    struct meta_lease_view view;
    enum ferry_err err = lease_list_request_decode(f->body, &q);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    struct lease_list_reply *reply = s->lease_list;
    struct bytes after = q.after;
    reply->count = 0;
    while (reply->count < LEASE_LIST_MAX && meta_lease_after(s->meta, after, s->now_us, &view)) {
        reply->items[reply->count++] = (struct lease_list_item){.name = view.name,
                                                                .holder = view.holder,
                                                                .token = view.token,
                                                                .ttl_ms = view.ttl_ms,
                                                                .left_ms = view.left_ms,
                                                                .waiting = view.waiting};
        after = view.name;
    }
    reply->more = meta_lease_after(s->meta, after, s->now_us, &view);
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    lease_list_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

static void handle_worker(struct shard *s, struct request *r, const struct frame *f)
{
    struct worker_id_request q;
    enum ferry_err err = worker_id_request_decode(f->body, &q);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    err = meta_worker_id(s->meta, q.holder, q.ttl_ms, s->now_ms, s->now_us, &r->meta_ticket);
    settle(s, r, err);
}

request_handler *shard_find_lease_handler(uint16_t command)
{
    switch (command) {
    case COMMAND_LEASE_ACQUIRE:
        return handle_acquire;
    case COMMAND_LEASE_RENEW:
        return handle_renew;
    case COMMAND_LEASE_RELEASE:
        return handle_release;
    case COMMAND_LEASE_LIST:
        return handle_list;
    case COMMAND_WORKER_ID:
        return handle_worker;
    default:
        return NULL;
    }
}
