/* Requests: taking them in, dispatch, replies. */
#include "base/mem.h"
#include "server/shard_internal.h"

#define REPLY_MAX_BYTES    FRAME_MAX_BYTES
#define RETRY_FULL_MS      200u /* What a producer is told to wait when the disk is full. */
#define RETRY_THROTTLED_MS 20u

/* ---- Connections ---- */

static bool load_has_peer(const void *item, const void *key)
{
    return ((const struct peer_load *)item)->peer == *(const net_peer *)key;
}

static struct peer_load *find_load(const struct shard *s, net_peer peer)
{
    return map_find(&s->loads, map_hash_u64(peer), load_has_peer, &peer);
}

static void free_load(struct shard *s, struct peer_load *load)
{
    list_remove(&load->idle);
    map_remove(&s->loads, map_hash_u64(load->peer), load);
    mem_free(load->name);
    mem_free(load);
}

/* Those that are connected fit twice: the one idle for longest is most likely gone. */
static void make_room(struct shard *s)
{
    size_t loads_max = 2 * (size_t)s->config.options->connections_max;
    while (s->loads.count >= loads_max && !list_is_empty(&s->idle_loads)) {
        free_load(s, list_entry(s->idle_loads.next, struct peer_load, idle));
    }
}

static struct peer_load *load_of(struct shard *s, net_peer peer)
{
    struct peer_load *load = find_load(s, peer);
    if (load != NULL) {
        list_remove(&load->idle);
        return load;
    }
    make_room(s);
    load = mem_zalloc(1, sizeof(*load));
    if (load == NULL) {
        return NULL;
    }
    list_init(&load->idle);
    load->peer = peer;
    if (!map_add(&s->loads, map_hash_u64(peer), load)) {
        mem_free(load);
        return NULL;
    }
    return load;
}

static void drop_load(struct shard *s, net_peer peer)
{
    struct peer_load *load = find_load(s, peer);
    must(load != NULL && load->inflight > 0);
    if (--load->inflight > 0) {
        return;
    }
    if (load->name == NULL) {
        free_load(s, load);
    } else {
        list_push_back(&s->idle_loads, &load->idle);
    }
}

/* Kept as a C string: what it is compared with is one, too. */
static enum ferry_err name_client(struct shard *s, net_peer peer, struct bytes name)
{
    struct peer_load *load = find_load(s, peer);
    must(load != NULL);
    char *kept = name.size > 0 ? mem_zalloc(1, name.size + 1) : NULL;
    if (name.size > 0 && kept == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (name.size > 0) {
        memcpy(kept, name.data, name.size);
    }
    mem_free(load->name);
    load->name = kept;
    return FERRY_OK;
}

const char *shard_client_name(const struct shard *s, const struct request *r)
{
    const struct peer_load *load = find_load(s, r->peer);
    return load != NULL && load->name != NULL ? load->name : "";
}

/* ---- Requests ---- */

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
    r->confirmed = false;
    r->credit_bytes = 0;
    r->receive = NULL;
    r->task = (struct node_task){0};
    r->read_number = 0;
    list_init(&r->parked);
    net_message_init(&r->message);
    partition_ticket_init(&r->ticket);
    meta_ticket_init(&r->meta_ticket);
    list_push_back(&s->live, &r->node);
    return r;
}

void shard_free_request(struct shard *s, struct request *r)
{
    bool is_clients = r->task.kind == 0; /* Its command may be any number, 0 too. */
    if (is_clients) {
        drop_load(s, r->peer);
    }
    if (!list_is_empty(&r->parked)) {
        list_remove(&r->parked);
    }
    shard_give_credit_back(s, r);
    shard_free_receive(s, r);
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

struct request *shard_new_task(struct shard *s, enum node_kind kind)
{
    struct request *r = new_request(s);
    if (r != NULL) {
        r->command = 0;
        r->task.kind = kind;
    }
    return r;
}

void shard_forget_requests(struct shard *s)
{
    while (!list_is_empty(&s->live)) {
        shard_free_request(s, list_entry(s->live.next, struct request, node));
    }
    for (struct list *n; (n = list_pop_front(&s->pool)) != NULL;) {
        mem_free(list_entry(n, struct request, node));
    }
    s->pool_count = 0;
    while (!list_is_empty(&s->idle_loads)) {
        free_load(s, list_entry(s->idle_loads.next, struct peer_load, idle));
    }
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
    shard_free_request(s, r);
}

uint32_t shard_retry_after(enum ferry_err err)
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

static void encode_error(struct buf *b, const char *detail, uint32_t retry_after_ms)
{
    struct error_reply reply = {.detail = bytes_of_string(detail),
                                .retry_after_ms = retry_after_ms};
    error_reply_encode(b, &reply);
}

void shard_reply_later(struct shard *s, struct request *r, enum ferry_err err, const char *detail,
                       uint32_t retry_after_ms)
{
    struct buf b;
    s->counters.errors++;
    s->counters.throttled += ferry_err_class(err) == FERRY_CLASS_THROTTLED ? 1 : 0;
    shard_begin_reply(r, &b, err);
    encode_error(&b, detail, retry_after_ms);
    shard_send_reply(s, r, &b);
}

void shard_reply_error(struct shard *s, struct request *r, enum ferry_err err, const char *detail)
{
    shard_reply_later(s, r, err, detail, shard_retry_after(err));
}

void shard_reply_empty(struct shard *s, struct request *r)
{
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    empty_encode(&b);
    shard_send_reply(s, r, &b);
}

/* ---- Finding the partition ---- */

enum ferry_err shard_find_partition(struct shard *s, uint64_t group, struct seat **seat)
{
    *seat = shard_find_seat(s, group);
    if (*seat == NULL || group == META_GROUP) {
        *seat = NULL;
        return shard_unknown_group(s);
    }
    if ((*seat)->err != FERRY_OK) {
        /* In a cluster others have it: what is wrong here is no answer to who asks for the leader.
         */
        return shard_is_clustered(s) ? FERRY_ERR_NOT_LEADER : (*seat)->err;
    }
    return (*seat)->dropping ? shard_dropping_error(s) : FERRY_OK;
}

enum ferry_err shard_find_leader(struct shard *s, uint64_t group, struct seat **seat)
{
    enum ferry_err err = shard_find_partition(s, group, seat);
    return err == FERRY_OK ? shard_check_leads(s, *seat) : err;
}

struct bytes shard_body_of(struct request *r)
{
    struct frame f;
    struct err_text e;
    must(frame_parse(net_message_bytes(&r->message), &f, &e) == FERRY_OK);
    return f.body;
}

void shard_reply_seat_error(struct shard *s, struct request *r, const struct seat *seat,
                            enum ferry_err err, const char *detail)
{
    char hint[ENDPOINT_MAX_BYTES + 1];
    if (err == FERRY_ERR_NOT_LEADER) {
        detail = seat != NULL ? shard_leader_hint(s, seat, hint) : "";
    }
    shard_reply_error(s, r, err, detail);
}

static void handle_hello(struct shard *s, struct request *r, const struct frame *f)
{
    struct hello_request q;
    enum ferry_err err = hello_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = name_client(s, r->peer, q.client_name);
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    const struct broker_options *o = s->config.options;
    struct hello_reply reply = {.broker_version = bytes_of_string(FERRY_VERSION),
                                .node_id = (uint32_t)o->node_id,
                                .cluster_id = s->cluster_id,
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
    case COMMAND_FETCH:
        return shard_handle_fetch;
    case COMMAND_BROKER_STATUS:
        return handle_status;
    case COMMAND_GROUP_LIST:
        return shard_handle_group_list;
    case COMMAND_PARTITION_TRANSFER:
        return shard_handle_transfer;
    default:
        break;
    }
    const struct partition_command *row = shard_find_partition_command(command);
    return row != NULL ? row->handle : shard_find_ask_handler(command);
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

void shard_dispatch_again(struct shard *s, struct request *r)
{
    struct frame f;
    struct err_text e;
    must(frame_parse(net_message_bytes(&r->message), &f, &e) == FERRY_OK);
    dispatch(s, r, &f);
}

/* An answer to something that never became a request. */
static void reply_without_request(struct shard *s, net_peer peer, const struct frame *f,
                                  enum ferry_err err, const char *detail)
{
    struct buf b;
    s->counters.errors++;
    buf_init(&b, REPLY_MAX_BYTES);
    frame_begin_reply(&b, f->command, f->request_id, err);
    encode_error(&b, detail, shard_retry_after(err));
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
