/* settler: what becomes of settlements: gathered, sent, answered, told. Declared in receiver.h. */
#include "base/clock.h"
#include "base/mem.h"
#include "client/receiver.h"

#define SETTLE_PAUSE_MS 10 /* Without memory for a request. */

/* A SETTLE that is out. */
struct settle_batch {
    struct list node; /* In the receiver's batches. */
    struct ferry_receiver *receiver;
    int32_t partition;
    struct list items;
    uint32_t count;
    int64_t began_us;
    struct call call;
};

/* ---- Gathering. With the lock. */

void settlement_free(struct settlement *s)
{
    mem_free(s->opaques);
    mem_free(s);
}

static struct settlement *settlement_new(int32_t partition, uint64_t lease,
                                         const struct ferry_id *token, enum settle_kind kind,
                                         int64_t deadline_us)
{
    struct settlement *s = mem_zalloc(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    list_init(&s->node);
    s->partition = partition;
    s->lease = lease;
    s->token = *token;
    s->kind = kind;
    s->deadline_us = deadline_us;
    return s;
}

static void enqueue(struct ferry_receiver *r, struct settlement *s, bool first)
{
    struct receiver_partition *p = &r->partitions[s->partition];
    if (first) {
        list_push_front(&p->queue, &s->node);
    } else {
        list_push_back(&p->queue, &s->node);
    }
    if (list_is_empty(&p->work_node)) {
        list_push_back(&r->settle_work, &p->work_node);
    }
}

static bool same_reason(const struct settlement *s, struct bytes reason)
{
    return bytes_equal(bytes_of(s->reason, s->reason_bytes), reason);
}

/* The broker takes an item whole or not at all, with all the dead letters that it makes. */
static bool has_room(const struct settlement *s, const struct settling *one)
{
    bool may_die = s->kind == SETTLE_NACK || s->kind == SETTLE_REJECT;
    return s->count < RECEIVE_MESSAGES_MAX &&
           (!may_die || s->bytes + one->bytes <= SETTLE_DEAD_BYTES);
}

/* Whether the message right after those of `s` may join them. */
static bool takes(const struct settlement *s, const struct settling *one)
{
    return !s->alone && has_room(s, one) && s->kind == one->kind &&
           s->lease == one->handout->lease && s->ours == one->ours &&
           s->delay_ms == one->delay_ms && one->offset == s->first + s->count &&
           same_reason(s, one->reason);
}

/* Keeps the opaque of the message that is added next. */
static bool keep_opaque(struct settlement *s, void *opaque)
{
    if (opaque == NULL && s->opaques == NULL) {
        return true;
    }
    bool first = s->opaques == NULL;
    if (!mem_grow((void **)&s->opaques, &s->opaque_capacity, s->count + 1, sizeof(void *))) {
        return false;
    }
    if (first) {
        memset(s->opaques, 0, s->count * sizeof(void *));
    }
    s->opaques[s->count] = opaque;
    return true;
}

bool settler_add(struct ferry_receiver *r, const struct settling *one)
{
    struct receiver_partition *p = &r->partitions[one->handout->partition];
    struct settlement *last = list_entry(p->queue.prev, struct settlement, node);
    if (!list_is_empty(&p->queue) && takes(last, one)) {
        if (!keep_opaque(last, one->opaque)) {
            return false;
        }
        last->count++;
        last->bytes += one->bytes;
        r->unanswered++;
        return true;
    }
    struct settlement *s = settlement_new(
        one->handout->partition, one->handout->lease, &one->handout->token, one->kind,
        clock_monotonic_us() + r->client->options.delivery_timeout_ms * 1000);
    if (s == NULL || !keep_opaque(s, one->opaque)) {
        mem_free(s);
        return false;
    }
    must(one->reason.size <= sizeof(s->reason));
    s->first = one->offset;
    s->count = 1;
    s->bytes = one->bytes;
    s->delay_ms = one->delay_ms;
    s->ours = one->ours;
    s->reason_bytes = (uint32_t)one->reason.size;
    if (one->reason.size > 0) {
        memcpy(s->reason, one->reason.data, one->reason.size);
    }
    enqueue(r, s, false);
    r->unanswered++;
    return true;
}

/* ---- Telling. */

static int tell_one(const struct teller *teller, const struct settlement *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        struct ferry_settled settled = {.partition = s->partition,
                                        .offset = s->first + i,
                                        .settle = (enum ferry_settle)s->kind,
                                        .err = s->err,
                                        .opaque = s->opaques != NULL ? s->opaques[i] : NULL};
        teller->callback(&settled, teller->arg);
    }
    return (int)s->count;
}

/* With the lock: all that is to be told. */
static void take_told(struct teller *teller, struct list *told)
{
    struct list *node;
    list_init(told);
    while ((node = list_pop_front(&teller->told)) != NULL) {
        list_push_back(told, node);
    }
}

int teller_run(struct ferry_client *c, struct teller *teller)
{
    struct list told;
    struct list *node;
    int ran = 0;
    pthread_mutex_lock(&c->lock);
    take_told(teller, &told);
    pthread_mutex_unlock(&c->lock);
    while ((node = list_pop_front(&told)) != NULL) {
        struct settlement *s = list_entry(node, struct settlement, node);
        ran += teller->callback != NULL ? tell_one(teller, s) : 0;
        settlement_free(s);
    }
    return ran;
}

static int run_due(struct ferry_client *c, struct due *due)
{
    struct teller *teller = list_entry(due, struct teller, due);
    pthread_mutex_lock(&c->lock);
    teller->queued = false;
    bool abandoned = teller->abandoned;
    pthread_mutex_unlock(&c->lock);
    if (abandoned) {
        mem_free(teller);
        return 0;
    }
    return teller_run(c, teller);
}

struct teller *teller_new(void)
{
    struct teller *teller = mem_zalloc(1, sizeof(*teller));
    if (teller != NULL) {
        list_init(&teller->due.node);
        list_init(&teller->told);
        teller->due.run = run_due;
    }
    return teller;
}

void teller_close(struct ferry_client *c, struct teller *teller)
{
    (void)teller_run(c, teller);
    pthread_mutex_lock(&c->lock);
    bool queued = teller->queued;
    teller->abandoned = true;
    pthread_mutex_unlock(&c->lock);
    if (!queued) {
        mem_free(teller);
    }
}

void teller_tell(struct ferry_receiver *r, struct settlement *s, enum ferry_err err)
{
    struct teller *teller = r->teller;
    s->err = err;
    must(r->unanswered >= s->count);
    r->unanswered -= s->count;
    if (r->unanswered == 0) {
        pthread_cond_broadcast(&r->changed);
    }
    if (err != FERRY_OK && !s->ours) {
        r->failed_count += s->count;
    }
    if (s->ours || teller->callback == NULL) {
        settlement_free(s);
        return;
    }
    list_push_back(&teller->told, &s->node);
    if (!teller->queued) {
        teller->queued = true;
        due_push(r->client, &teller->due);
    }
}

/* ---- Answers. With the lock. */

static void take_extended(struct ferry_receiver *r, struct settlement *s, enum ferry_err err,
                          int64_t began_us)
{
    struct handout *h = receiver_find_lease(r, s->partition, s->lease);
    if (h != NULL && err == FERRY_OK) {
        receiver_extended(r, h, began_us, s->delay_ms);
    } else if (h != NULL && err == FERRY_ERR_LEASE_EXPIRED) {
        receiver_drop_ready(r, h, false); /* Another has them, or will. */
    } else if (h != NULL) {
        h->extend_us = clock_monotonic_us() + h->lease_ms * INT64_C(1000) / 8;
        r->extend_us = h->extend_us < r->extend_us ? h->extend_us : r->extend_us;
    }
    settlement_free(s);
}

/* One for each message of `s`, in its place. False: no memory, and nothing has changed. */
static bool take_apart(struct ferry_receiver *r, struct settlement *s)
{
    struct list parts;
    struct list *node;
    list_init(&parts);
    for (uint32_t i = s->count; i > 0; i--) {
        struct settlement *part =
            settlement_new(s->partition, s->lease, &s->token, s->kind, s->deadline_us);
        if (part == NULL || !keep_opaque(part, s->opaques != NULL ? s->opaques[i - 1] : NULL)) {
            mem_free(part);
            while ((node = list_pop_front(&parts)) != NULL) {
                settlement_free(list_entry(node, struct settlement, node));
            }
            return false;
        }
        part->first = s->first + i - 1;
        part->count = 1;
        part->delay_ms = s->delay_ms;
        part->ours = s->ours;
        part->alone = true;
        part->reason_bytes = s->reason_bytes;
        memcpy(part->reason, s->reason, s->reason_bytes);
        list_push_back(&parts, &part->node);
    }
    while ((node = list_pop_front(&parts)) != NULL) { /* The last first, each before those. */
        enqueue(r, list_entry(node, struct settlement, node), true);
    }
    settlement_free(s);
    return true;
}

static void send_again(struct ferry_receiver *r, struct settlement *s)
{
    struct receiver_partition *p = &r->partitions[s->partition];
    enqueue(r, s, true);
    p->settle_at_us = clock_monotonic_us() + client_backoff_us(r->client, 2);
}

/* Those that may be of some messages of an item only: one was taken away, one is damaged, or as
 * dead letters they are more than one entry holds. It was us who put them together. */
static bool is_of_some(enum ferry_err err)
{
    return err == FERRY_ERR_LEASE_EXPIRED || err == FERRY_ERR_INVALID_ARGUMENT ||
           err == FERRY_ERR_CORRUPT;
}

static void take_result(struct ferry_receiver *r, struct settlement *s, enum ferry_err err,
                        int64_t began_us)
{
    bool in_time = clock_monotonic_us() < s->deadline_us;
    if (s->kind == SETTLE_EXTEND) {
        take_extended(r, s, err, began_us);
    } else if (err == FERRY_ERR_THROTTLED && in_time) {
        send_again(r, s);
    } else if (is_of_some(err) && s->count > 1) {
        if (!take_apart(r, s)) {
            send_again(r, s);
        }
    } else {
        teller_tell(r, s, err);
    }
}

static enum ferry_err read_reply(struct settle_batch *b, struct settle_reply *reply)
{
    if (b->call.err != FERRY_OK) {
        return b->call.err;
    }
    if (settle_reply_decode(b->call.frame.body, reply) != FERRY_OK ||
        (reply->count != 0 && reply->count != b->count)) {
        b->receiver->client->bad_replies++;
        return FERRY_ERR_BAD_FRAME;
    }
    return FERRY_OK;
}

static void on_done(struct ferry_client *c, struct call *call)
{
    struct settle_batch *b = call->arg;
    struct ferry_receiver *r = b->receiver;
    struct settle_reply reply = {.count = 0};
    struct list *node;
    enum ferry_err err = read_reply(b, &reply);
    call_fini(call);
    list_remove(&b->node);
    pthread_mutex_lock(&c->lock);
    r->partitions[b->partition].settles_out--;
    for (uint32_t i = 0; (node = list_pop_front(&b->items)) != NULL; i++) {
        enum ferry_err one = err;
        if (err == FERRY_OK && reply.count > 0) {
            one = (enum ferry_err)reply.results[i].status;
        }
        take_result(r, list_entry(node, struct settlement, node), one, b->began_us);
    }
    bool wake = client_add_work(c, &c->work_receivers, &r->work_node);
    pthread_mutex_unlock(&c->lock);
    client_wake(c, wake);
    mem_free(b);
}

/* ---- Sending. */

static void encode(struct buf *b, const struct call *call, uint64_t group)
{
    const struct settle_batch *batch = call->arg;
    const struct ferry_receiver *r = batch->receiver;
    struct settle_request request = {.group = group,
                                     .subscription = bytes_of_string(r->subscription),
                                     .member = bytes_of_string(r->name)};
    for (struct list *n = batch->items.next; n != &batch->items; n = n->next) {
        const struct settlement *s = list_entry(n, struct settlement, node);
        request.items[request.count++] =
            (struct settle_item){.lease = s->lease,
                                 .token = s->token,
                                 .kind = s->kind,
                                 .first = s->first,
                                 .count = s->count,
                                 .delay_ms = s->delay_ms,
                                 .reason = bytes_of(s->reason, s->reason_bytes)};
    }
    settle_request_encode(b, &request);
}

/* With the lock: moves what one request takes. Returns the latest deadline. */
static int64_t fill(struct settle_batch *b, struct receiver_partition *p)
{
    int64_t deadline_us = 0;
    while (b->count < SETTLE_ITEMS_MAX && !list_is_empty(&p->queue)) {
        struct settlement *s = list_entry(list_pop_front(&p->queue), struct settlement, node);
        deadline_us = s->deadline_us > deadline_us ? s->deadline_us : deadline_us;
        list_push_back(&b->items, &s->node);
        b->count++;
    }
    p->settles_out++;
    return deadline_us;
}

static struct settle_batch *batch_new(struct ferry_receiver *r, int32_t partition)
{
    struct settle_batch *b = mem_zalloc(1, sizeof(*b));
    if (b != NULL) {
        list_init(&b->node);
        list_init(&b->items);
        b->receiver = r;
        b->partition = partition;
    }
    return b;
}

static void start(struct settle_batch *b, int64_t deadline_us, int64_t now_us)
{
    struct ferry_receiver *r = b->receiver;
    b->began_us = now_us;
    call_init(&b->call, COMMAND_SETTLE, ROUTE_PARTITION, encode, NULL, 0);
    call_to_partition(&b->call, r->topic, b->partition);
    b->call.deadline_us = deadline_us;
    b->call.done = on_done;
    b->call.arg = b;
    list_push_back(&r->batches, &b->node);
    call_start(r->client, &b->call); /* Told through on_done, at once maybe. */
}

/* With the lock: the next partition that may send, off the work list; NULL: none. */
static struct receiver_partition *next_sender(struct ferry_receiver *r, int64_t now_us,
                                              int64_t *next_us)
{
    for (struct list *n = r->settle_work.next; n != &r->settle_work; n = n->next) {
        struct receiver_partition *p = list_entry(n, struct receiver_partition, work_node);
        must(!list_is_empty(&p->queue));
        if (p->settles_out >= SETTLES_OUT_MAX) {
            continue;
        }
        if (p->settle_at_us > now_us) {
            *next_us = p->settle_at_us < *next_us ? p->settle_at_us : *next_us;
            continue;
        }
        return p;
    }
    return NULL;
}

/* False when there is nothing to send, or no memory to send it. */
static bool send_next(struct ferry_receiver *r, int64_t now_us, int64_t *next_us)
{
    struct ferry_client *c = r->client;
    pthread_mutex_lock(&c->lock);
    struct receiver_partition *p = next_sender(r, now_us, next_us);
    pthread_mutex_unlock(&c->lock);
    if (p == NULL) {
        return false;
    }
    struct settle_batch *b = batch_new(r, (int32_t)(p - r->partitions));
    if (b == NULL) {
        int64_t again_us = now_us + SETTLE_PAUSE_MS * INT64_C(1000);
        *next_us = again_us < *next_us ? again_us : *next_us;
        return false;
    }
    pthread_mutex_lock(&c->lock);
    int64_t deadline_us = fill(b, p);
    if (list_is_empty(&p->queue)) {
        list_remove(&p->work_node);
    }
    pthread_mutex_unlock(&c->lock);
    start(b, deadline_us, now_us);
    return true;
}

void settler_pump(struct ferry_receiver *r, int64_t now_us, int64_t *next_us)
{
    while (send_next(r, now_us, next_us)) {
        /* Each takes what a request holds, and a partition has SETTLES_OUT_MAX of them. */
    }
}

/* ---- Extending. */

/* With the lock. */
static void extend(struct ferry_receiver *r, struct handout *h, int64_t now_us)
{
    struct settlement *s = settlement_new(h->partition, h->lease, &h->token, SETTLE_EXTEND,
                                          now_us + h->lease_ms * INT64_C(1000));
    if (s == NULL) {
        h->extend_us = now_us + SETTLE_PAUSE_MS * INT64_C(1000);
        return;
    }
    s->delay_ms = h->lease_ms;
    s->ours = true;
    h->extend_us = INT64_MAX; /* Until it is answered. */
    enqueue(r, s, true);
}

static void extend_all(struct ferry_receiver *r, int64_t now_us)
{
    struct list *n = r->handouts.next;
    int64_t next_us = INT64_MAX;
    while (n != &r->handouts) {
        struct handout *h = list_entry(n, struct handout, node);
        n = n->next;
        /* What is due soon goes along. */
        bool due = h->extend_us <= now_us + h->lease_ms * INT64_C(1000) / 16;
        if (due && r->no_extend) {
            h->extend_us = INT64_MAX;
            receiver_drop_ready(r, h, true); /* `h` may be gone. */
            continue;
        }
        if (due) {
            extend(r, h, now_us);
        }
        next_us = h->extend_us < next_us ? h->extend_us : next_us;
    }
    r->extend_us = next_us;
}

void settler_extend(struct ferry_receiver *r, int64_t now_us, int64_t *next_us)
{
    pthread_mutex_lock(&r->client->lock);
    if (r->extend_us <= now_us) {
        extend_all(r, now_us);
    }
    *next_us = r->extend_us < *next_us ? r->extend_us : *next_us;
    pthread_mutex_unlock(&r->client->lock);
}

/* ---- The end. */

/* With the lock. */
static void end_all(struct ferry_receiver *r, struct list *items, enum ferry_err err)
{
    struct list *node;
    while ((node = list_pop_front(items)) != NULL) {
        struct settlement *s = list_entry(node, struct settlement, node);
        if (s->kind == SETTLE_EXTEND) {
            settlement_free(s);
        } else {
            teller_tell(r, s, err);
        }
    }
}

void settler_detach(struct ferry_receiver *r)
{
    struct ferry_client *c = r->client;
    struct list *node;
    while ((node = list_pop_front(&r->batches)) != NULL) {
        struct settle_batch *b = list_entry(node, struct settle_batch, node);
        call_cancel(c, &b->call);
        pthread_mutex_lock(&c->lock);
        end_all(r, &b->items, FERRY_ERR_TIMEOUT);
        pthread_mutex_unlock(&c->lock);
        mem_free(b);
    }
    pthread_mutex_lock(&c->lock);
    for (int32_t i = 0; i < r->partition_count; i++) {
        struct receiver_partition *p = &r->partitions[i];
        end_all(r, &p->queue, FERRY_ERR_CLOSED);
        list_remove(&p->work_node);
    }
    pthread_mutex_unlock(&c->lock);
    must(r->unanswered == 0);
}
