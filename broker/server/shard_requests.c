/* Requests: taking them in, dispatch, and what concerns one partition. */
#include "base/mem.h"
#include "server/shard_internal.h"

#define REPLY_MAX_BYTES    FRAME_MAX_BYTES
#define RETRY_FULL_MS      200u /* What a producer is told to wait when the disk is full. */
#define RETRY_THROTTLED_MS 20u

/* ---- Requests and their count by connection ---- */

static bool load_has_peer(const void *item, const void *key)
{
    return ((const struct peer_load *)item)->peer == *(const net_peer *)key;
}

static struct peer_load *load_of(struct shard *s, net_peer peer)
{
    struct peer_load *load = map_find(&s->loads, map_hash_u64(peer), load_has_peer, &peer);
    if (load != NULL) {
        return load;
    }
    load = mem_zalloc(1, sizeof(*load));
    if (load == NULL) {
        return NULL;
    }
    load->peer = peer;
    if (!map_add(&s->loads, map_hash_u64(peer), load)) {
        mem_free(load);
        return NULL;
    }
    return load;
}

static void drop_load(struct shard *s, net_peer peer)
{
    struct peer_load *load = map_find(&s->loads, map_hash_u64(peer), load_has_peer, &peer);
    must(load != NULL && load->inflight > 0);
    if (--load->inflight == 0) {
        map_remove(&s->loads, map_hash_u64(peer), load);
        mem_free(load);
    }
}

static struct request *new_request(struct shard *s)
{
    struct list *node = list_pop_front(&s->pool);
    struct request *r = NULL;
    if (node != NULL) {
        s->pool_count--;
        r = list_entry(node, struct request, node);
    } else {
        r = mem_zalloc(1, sizeof(*r));
        if (r == NULL) {
            return NULL;
        }
        list_init(&r->node);
    }
    net_message_init(&r->message);
    partition_ticket_init(&r->ticket);
    meta_ticket_init(&r->meta_ticket);
    list_push_back(&s->live, &r->node);
    return r;
}

static void free_request(struct shard *s, struct request *r)
{
    drop_load(s, r->peer);
    list_remove(&r->node);
    net_message_close(&r->message);
    partition_ticket_fini(&r->ticket);
    meta_ticket_fini(&r->meta_ticket);
    if (s->pool_count < REQUEST_POOL_MAX) {
        list_push_back(&s->pool, &r->node);
        s->pool_count++;
    } else {
        mem_free(r);
    }
}

void shard_forget_requests(struct shard *s)
{
    while (!list_is_empty(&s->live)) {
        free_request(s, list_entry(s->live.next, struct request, node));
    }
    for (struct list *n; (n = list_pop_front(&s->pool)) != NULL;) {
        mem_free(list_entry(n, struct request, node));
    }
    s->pool_count = 0;
}

/* ---- Replies ---- */

void shard_begin_reply(const struct request *r, struct buf *b, enum ferry_err status)
{
    buf_init(b, REPLY_MAX_BYTES);
    frame_begin_reply(b, r->command, r->id, status);
}

static void send_frame(struct shard *s, net_peer peer, struct buf *b)
{
    enum ferry_err err = net_server_send(s->server, peer, b);
    if (err != FERRY_OK) {
        s->counters.unsendable++; /* The peer is gone, or was cut for not reading: it asks again. */
    }
    buf_fini(b);
}

void shard_send_reply(struct shard *s, struct request *r, struct buf *b)
{
    if (frame_end(b)) {
        send_frame(s, r->peer, b);
    } else {
        s->counters.unsendable++; /* Out of memory: the peer's deadline tells it. */
        buf_fini(b);
    }
    free_request(s, r);
}

static uint32_t retry_after(enum ferry_err err)
{
    switch (err) {
    case FERRY_ERR_STORAGE_FULL:
        return RETRY_FULL_MS;
    case FERRY_ERR_THROTTLED:
        return RETRY_THROTTLED_MS;
    default:
        return 0;
    }
}

static void encode_error(struct buf *b, enum ferry_err err, const char *detail)
{
    struct error_reply reply = {.detail = bytes_of_string(detail),
                                .retry_after_ms = retry_after(err)};
    error_reply_encode(b, &reply);
}

void shard_reply_error(struct shard *s, struct request *r, enum ferry_err err, const char *detail)
{
    struct buf b;
    s->counters.errors++;
    s->counters.throttled += ferry_err_class(err) == FERRY_CLASS_THROTTLED ? 1 : 0;
    shard_begin_reply(r, &b, err);
    encode_error(&b, err, detail);
    shard_send_reply(s, r, &b);
}

void shard_reply_empty(struct shard *s, struct request *r)
{
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    empty_encode(&b);
    shard_send_reply(s, r, &b);
}

/* ---- Finding the partition ---- */

/* Why this shard does not serve the group; FERRY_OK when it does. */
static enum ferry_err find_partition(struct shard *s, uint64_t group, struct seat **seat)
{
    *seat = shard_find_seat(s, group);
    if (*seat == NULL || group == META_GROUP) {
        return shard_unknown_group(s);
    }
    if ((*seat)->err != FERRY_OK) {
        return (*seat)->err;
    }
    return (*seat)->dropping ? FERRY_ERR_UNKNOWN_TOPIC : FERRY_OK;
}

/* ---- Produce ---- */

static void finish_produce(struct shard *s, struct request *r)
{
    struct partition_ticket *t = &r->ticket;
    struct produce_reply reply = {.base_offset = t->base_offset,
                                  .duplicate = t->duplicate,
                                  .duplicate_count = t->duplicate_count};
    struct buf b;
    s->counters.duplicates += t->duplicate_count + (t->duplicate ? 1 : 0);
    shard_begin_reply(r, &b, FERRY_OK);
    produce_reply_encode(&b, &reply);
    if (t->duplicate_count > 0) {
        frame_begin_attachment(&b);
        buf_append_bytes(&b, buf_bytes(&t->duplicates));
    }
    shard_send_reply(s, r, &b);
}

static enum ferry_err check_room(struct shard *s, size_t bytes, struct err_text *e)
{
    if (store_has_room(s->store, s->received_bytes + bytes)) {
        return FERRY_OK;
    }
    return err_set(e, FERRY_ERR_STORAGE_FULL,
                   "%s has no room for %zu bytes more: free space or lower retention",
                   s->config.options->data, bytes);
}

static void handle_produce(struct shard *s, struct request *r, const struct frame *f)
{
    struct produce_request q;
    struct seat *seat = NULL;
    struct err_text e = {{0}};
    enum ferry_err err = produce_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = find_partition(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = check_room(s, f->attachment.size, &e);
    }
    if (err == FERRY_OK) {
        err = shard_view(s);
    }
    if (err == FERRY_OK) {
        err =
            partition_produce(seat->partition, f->attachment, s->now_ms, s->now_us, &r->ticket, &e);
        shard_touch(s, seat);
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, e.text);
        return;
    }
    s->counters.batches_in++;
    s->counters.bytes_in += f->attachment.size;
    if (r->ticket.base.index == 0) {
        finish_produce(s, r);
    }
}

/* ---- append_cas ---- */

static void finish_append_cas(struct shard *s, struct request *r)
{
    struct append_cas_reply reply = {.version = r->ticket.version,
                                     .base_offset = r->ticket.base_offset};
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    append_cas_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

static void refuse_append_cas(struct shard *s, struct request *r, enum ferry_err err,
                              struct append_cas_refusal *refusal, const char *detail)
{
    struct buf b;
    s->counters.errors++;
    refusal->error =
        (struct error_reply){.detail = bytes_of_string(detail), .retry_after_ms = retry_after(err)};
    shard_begin_reply(r, &b, err);
    append_cas_refusal_encode(&b, refusal);
    shard_send_reply(s, r, &b);
}

static void handle_append_cas(struct shard *s, struct request *r, const struct frame *f)
{
    struct append_cas_request q;
    struct append_cas_refusal refusal = {.refused_index = -1};
    struct seat *seat = NULL;
    struct err_text e = {{0}};
    enum ferry_err err = append_cas_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = find_partition(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = check_room(s, f->attachment.size, &e);
    }
    if (err == FERRY_OK) {
        struct append_cas c = {.source = q.source,
                               .lane = q.lane,
                               .epoch = q.epoch,
                               .expect_version = q.expect_version,
                               .cursor = q.cursor,
                               .batch = f->attachment};
        err = partition_append_cas(seat->partition, &c, s->now_ms, s->now_us, &r->ticket, &refusal,
                                   &e);
        shard_touch(s, seat);
    }
    if (err != FERRY_OK) {
        refuse_append_cas(s, r, err, &refusal, e.text);
        return;
    }
    s->counters.batches_in++;
    s->counters.bytes_in += f->attachment.size;
}

static void handle_cursor_get(struct shard *s, struct request *r, const struct frame *f)
{
    struct cursor_get_request q;
    struct seat *seat = NULL;
    enum ferry_err err = cursor_get_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = find_partition(s, q.group, &seat);
    }
    if (err == FERRY_OK && !replica_is_ready(seat->replica)) {
        err = FERRY_ERR_NOT_READY;
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    struct cursor_get_reply reply;
    partition_cursor_get(seat->partition, &q.source, q.lane, &reply);
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    cursor_get_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

/* ---- Subscriptions ---- */

static void finish_subscription(struct shard *s, struct request *r)
{
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    if (r->command == COMMAND_SUBSCRIPTION_CREATE) {
        struct subscription_create_reply reply = {.position = r->ticket.position};
        subscription_create_reply_encode(&b, &reply);
    } else if (r->command == COMMAND_SUBSCRIPTION_COMMIT) {
        struct subscription_commit_reply reply = {.position = r->ticket.position};
        subscription_commit_reply_encode(&b, &reply);
    } else {
        empty_encode(&b);
    }
    shard_send_reply(s, r, &b);
}

static void settle_subscription(struct shard *s, struct request *r, struct seat *seat,
                                enum ferry_err err)
{
    if (seat != NULL && err == FERRY_OK) {
        shard_touch(s, seat);
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
    } else if (r->ticket.base.index == 0) {
        finish_subscription(s, r);
    }
}

static void handle_subscription_create(struct shard *s, struct request *r, const struct frame *f)
{
    struct subscription_create_request q;
    struct seat *seat = NULL;
    enum ferry_err err = subscription_create_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = find_partition(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = partition_subscription_create(seat->partition, q.name, q.mode, q.from, s->now_ms,
                                            s->now_us, &r->ticket);
    }
    settle_subscription(s, r, seat, err);
}

static void handle_subscription_delete(struct shard *s, struct request *r, const struct frame *f)
{
    struct subscription_delete_request q;
    struct seat *seat = NULL;
    enum ferry_err err = subscription_delete_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = find_partition(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = partition_subscription_delete(seat->partition, q.name, s->now_ms, s->now_us,
                                            &r->ticket);
    }
    settle_subscription(s, r, seat, err);
}

static void handle_subscription_commit(struct shard *s, struct request *r, const struct frame *f)
{
    struct subscription_commit_request q;
    struct seat *seat = NULL;
    enum ferry_err err = subscription_commit_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = find_partition(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = partition_subscription_commit(seat->partition, q.name, q.position, s->now_ms,
                                            s->now_us, &r->ticket);
    }
    settle_subscription(s, r, seat, err);
}

static void handle_subscription_get(struct shard *s, struct request *r, const struct frame *f)
{
    struct subscription_get_request q;
    struct subscription_get_reply reply;
    struct seat *seat = NULL;
    enum ferry_err err = subscription_get_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = find_partition(s, q.group, &seat);
    }
    if (err == FERRY_OK) {
        err = shard_view(s);
    }
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
    if (err == FERRY_OK) {
        err = find_partition(s, q.group, &seat);
    }
    if (err == FERRY_OK && !replica_is_ready(seat->replica)) {
        err = FERRY_ERR_NOT_READY; /* Its tables are not as its log says yet. */
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    partition_subscription_list(seat->partition, q.after, s->names);
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    names_reply_encode(&b, s->names);
    shard_send_reply(s, r, &b);
}

/* ---- Asking ---- */

static enum ferry_err find_offset(struct shard *s, const struct offset_find_request *q,
                                  struct offset_find_reply *reply)
{
    struct seat *seat = NULL;
    enum ferry_err err = find_partition(s, q->group, &seat);
    if (err == FERRY_OK && !replica_is_ready(seat->replica)) {
        err = FERRY_ERR_NOT_READY;
    }
    if (err == FERRY_OK) {
        err = shard_view(s);
    }
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
    enum ferry_err err = offset_find_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = find_offset(s, &q, &reply);
    }
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
    if (err == FERRY_OK) {
        err = find_partition(s, q.group, &seat);
    }
    if (err == FERRY_OK && !replica_is_ready(seat->replica)) {
        err = FERRY_ERR_NOT_READY;
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
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

static void handle_hello(struct shard *s, struct request *r, const struct frame *f)
{
    struct hello_request q;
    enum ferry_err err = hello_request_decode(f->body, &q);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    const struct broker_options *o = s->config.options;
    struct hello_reply reply = {.broker_version = bytes_of_string(FERRY_VERSION),
                                .node_id = (uint32_t)o->node_id,
                                .cluster_id = store_cluster_id(s->store),
                                .message_max_bytes = (uint64_t)o->message_max_bytes,
                                .batch_max_bytes =
                                    (uint64_t)o->message_max_bytes + BATCH_ROOM_BYTES,
                                .fetch_max_bytes = (uint64_t)o->fetch_max_bytes,
                                .inflight_max = (uint32_t)o->inflight_max};
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    hello_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

/* ---- Dispatch ---- */

typedef void request_handler(struct shard *s, struct request *r, const struct frame *f);

static void handle_status(struct shard *s, struct request *r, const struct frame *f)
{
    (void)f;
    shard_handle_status(s, r);
}

static request_handler *find_handler(uint16_t command)
{
    switch (command) {
    case COMMAND_HELLO:
        return handle_hello;
    case COMMAND_PRODUCE:
        return handle_produce;
    case COMMAND_APPEND_CAS:
        return handle_append_cas;
    case COMMAND_CURSOR_GET:
        return handle_cursor_get;
    case COMMAND_FETCH:
        return shard_handle_fetch;
    case COMMAND_OFFSET_FIND:
        return handle_offset_find;
    case COMMAND_SUBSCRIPTION_CREATE:
        return handle_subscription_create;
    case COMMAND_SUBSCRIPTION_DELETE:
        return handle_subscription_delete;
    case COMMAND_SUBSCRIPTION_COMMIT:
        return handle_subscription_commit;
    case COMMAND_SUBSCRIPTION_GET:
        return handle_subscription_get;
    case COMMAND_SUBSCRIPTION_LIST:
        return handle_subscription_list;
    case COMMAND_PARTITION_INFO:
        return handle_partition_info;
    case COMMAND_BROKER_STATUS:
        return handle_status;
    default:
        return NULL;
    }
}

static void dispatch(struct shard *s, struct request *r, const struct frame *f)
{
    request_handler *handler = find_handler(f->command);
    if (handler != NULL) {
        handler(s, r, f);
    } else if (!shard_handle_admin(s, r, f)) {
        shard_reply_error(s, r, FERRY_ERR_UNKNOWN_COMMAND, "");
    }
}

/* An answer to something that never became a request. */
static void reply_without_request(struct shard *s, net_peer peer, const struct frame *f,
                                  enum ferry_err err, const char *detail)
{
    struct buf b;
    s->counters.errors++;
    buf_init(&b, REPLY_MAX_BYTES);
    frame_begin_reply(&b, f->command, f->request_id, err);
    encode_error(&b, err, detail);
    if (frame_end(&b)) {
        send_frame(s, peer, &b);
    } else {
        buf_fini(&b);
    }
}

/* What is no frame gets no answer: there is no request id to trust. Its connection is cut. */
static void refuse_frame(struct shard *s, net_peer peer, const struct frame *f, enum ferry_err err,
                         const char *detail)
{
    if (err == FERRY_ERR_BAD_FRAME) {
        s->counters.errors++;
        net_server_cut(s->server, peer, detail);
    } else {
        reply_without_request(s, peer, f, err, detail);
    }
}

void shard_take_message(struct shard *s, net_peer peer, struct net_message *m)
{
    struct frame f = {0};
    struct err_text e = {{0}};
    s->counters.requests++;
    enum ferry_err err = frame_parse(net_message_bytes(m), &f, &e);
    if (err == FERRY_OK && f.kind != FRAME_REQUEST) {
        err = err_set(&e, FERRY_ERR_BAD_FRAME, "a broker takes requests, this is a reply");
    }
    if (err != FERRY_OK) {
        refuse_frame(s, peer, &f, err, e.text);
        return;
    }
    struct peer_load *load = load_of(s, peer);
    if (load == NULL || load->inflight >= (uint32_t)s->config.options->inflight_max) {
        reply_without_request(s, peer, &f, load == NULL ? FERRY_ERR_NO_MEMORY : FERRY_ERR_THROTTLED,
                              "limit.inflight_max requests of this connection have no answer yet");
        return;
    }
    load->inflight++;
    struct request *r = new_request(s);
    if (r == NULL) {
        drop_load(s, peer);
        reply_without_request(s, peer, &f, FERRY_ERR_NO_MEMORY, "");
        return;
    }
    r->peer = peer;
    r->id = f.request_id;
    r->command = f.command;
    r->timeout_ms = f.timeout_ms;
    /* The frame's bytes move with the message: what points into them stays valid. */
    net_message_move(&r->message, m);
    err = frame_parse(net_message_bytes(&r->message), &f, &e);
    must(err == FERRY_OK);
    dispatch(s, r, &f);
}

/* ---- Answers of a partition ---- */

static const char *outcome_unknown =
    "the leader changed while this was on its way: ask again with the same sequence";

void shard_answer_partition(struct shard *s, struct seat *seat)
{
    for (struct partition_ticket *t; (t = partition_next_done(seat->partition)) != NULL;) {
        struct request *r = list_entry(t, struct request, ticket);
        if (t->base.err != FERRY_OK) {
            bool unknown = t->base.err == FERRY_ERR_NOT_LEADER;
            shard_reply_error(s, r, t->base.err, unknown ? outcome_unknown : "");
        } else if (r->command == COMMAND_PRODUCE) {
            finish_produce(s, r);
        } else if (r->command == COMMAND_APPEND_CAS) {
            finish_append_cas(s, r);
        } else {
            finish_subscription(s, r);
        }
    }
}
