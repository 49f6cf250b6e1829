#include "client/receiver.h"

#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"

_Static_assert(sizeof(uintptr_t) >= 8, "a delivery names its slot and the slot's generation");
_Static_assert((int)FERRY_ACK == (int)SETTLE_ACK && (int)FERRY_NACK == (int)SETTLE_NACK &&
                   (int)FERRY_RELEASE == (int)SETTLE_RELEASE &&
                   (int)FERRY_REJECT == (int)SETTLE_REJECT,
               "the public numbers are those of the wire");

#define LEAVE_TIMEOUT_MS 2000 /* At close, beside the time that is left. */

/* ---- Made and freed. */

static bool make_parts(struct ferry_receiver *r)
{
    r->partitions = mem_zalloc((size_t)r->partition_count, sizeof(*r->partitions));
    r->slots = mem_zalloc(r->inflight_max, sizeof(*r->slots));
    r->teller = teller_new();
    if (r->partitions == NULL || r->slots == NULL || r->teller == NULL) {
        return false;
    }
    for (int32_t i = 0; i < r->partition_count; i++) {
        list_init(&r->partitions[i].queue);
        list_init(&r->partitions[i].work_node);
    }
    for (uint32_t i = 0; i < r->inflight_max; i++) {
        r->slots[i].index = i + 1;
    }
    return true;
}

static void init_lists(struct ferry_receiver *r)
{
    struct list *lists[] = {&r->ready, &r->handouts, &r->settle_work, &r->work_node,
                            &r->node,  &r->askers,   &r->batches};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        list_init(lists[i]);
    }
}

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value > 0 ? value : otherwise;
}

static void take_spec(struct ferry_receiver *r, const struct ferry_receiver_spec *spec)
{
    const struct ferry_receiver_spec none = {0};
    spec = spec != NULL ? spec : &none;
    r->inflight_max = or_default(spec->inflight_max, RECEIVER_INFLIGHT_DEFAULT);
    r->batch_max = or_default(spec->batch_max, RECEIVER_BATCH_DEFAULT);
    r->lease_ms = spec->lease_ms;
    r->no_extend = spec->no_extend;
    if (spec->member != NULL) {
        (void)snprintf(r->name, sizeof(r->name), "%s", spec->member);
    } else {
        member_make_name(r->client, r->name, sizeof(r->name));
    }
}

struct ferry_receiver *receiver_new(struct ferry_client *c, struct topic *t,
                                    const char *subscription,
                                    const struct ferry_receiver_spec *spec)
{
    struct ferry_receiver *r = mem_zalloc(1, sizeof(*r));
    if (r == NULL) {
        return NULL;
    }
    r->client = c;
    r->topic = t;
    r->extend_us = INT64_MAX;
    (void)snprintf(r->subscription, sizeof(r->subscription), "%s", subscription);
    init_lists(r);
    take_spec(r, spec);
    pthread_mutex_lock(&c->lock);
    r->partition_count = t->partition_count;
    pthread_mutex_unlock(&c->lock);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &attr);
    pthread_condattr_destroy(&attr);
    member_init(&r->member, c, t);
    r->member.subscription = r->subscription;
    r->member.name = r->name;
    r->member.partitions = (uint32_t)r->partition_count;
    if (!make_parts(r)) {
        receiver_free(r);
        return NULL;
    }
    return r;
}

void receiver_free(struct ferry_receiver *r)
{
    struct list *node;
    while ((node = list_pop_front(&r->handouts)) != NULL) {
        struct handout *h = list_entry(node, struct handout, node);
        holder_release(h->holder);
        mem_free(h);
    }
    if (r->teller != NULL) {
        teller_close(r->client, r->teller);
    }
    pthread_cond_destroy(&r->changed);
    mem_free(r->partitions);
    mem_free(r->slots);
    mem_free(r);
}

/* ---- What is here. With the lock. */

uint32_t receiver_credit(const struct ferry_receiver *r)
{
    uint32_t used = r->ready_count + r->held + r->asked;
    must(used <= r->inflight_max);
    return r->inflight_max - used;
}

struct handout *receiver_find_lease(struct ferry_receiver *r, int32_t partition, uint64_t lease)
{
    for (struct list *n = r->handouts.next; n != &r->handouts; n = n->next) {
        struct handout *h = list_entry(n, struct handout, node);
        if (h->lease == lease && h->partition == partition) {
            return h;
        }
    }
    return NULL;
}

void receiver_extended(struct ferry_receiver *r, struct handout *h, int64_t began_us,
                       int64_t lease_ms)
{
    int64_t ends_us = began_us + lease_ms * 1000;
    h->ends_us = ends_us > h->ends_us ? ends_us : h->ends_us;
    if (!r->no_extend) {
        h->extend_us = began_us + lease_ms * 1000 / 2;
        r->extend_us = h->extend_us < r->extend_us ? h->extend_us : r->extend_us;
    }
}

void receiver_drop_message(struct ferry_receiver *r, struct slot *slot)
{
    struct handout *h = slot->handout;
    must(h != NULL && h->live > 0);
    slot->handout = NULL;
    slot->taken = false;
    slot->generation++;
    slot->index = r->first_free;
    r->first_free = (uint32_t)(slot - r->slots);
    h->live--;
    if (h->live == 0) {
        list_remove(&h->node);
        list_remove(&h->ready_node);
        holder_release(h->holder);
        mem_free(h);
    }
}

static void taken_from_ready(struct ferry_receiver *r, struct handout *h)
{
    r->ready_count--;
    h->next++;
    if (h->next == h->count) {
        must(r->ready_bytes >= h->bytes);
        r->ready_bytes -= h->bytes;
        list_remove(&h->ready_node);
    }
}

static bool release(struct ferry_receiver *r, const struct handout *h, const struct message *m)
{
    return settler_add(
        r, &(struct settling){
               .handout = h, .offset = m->record.offset, .kind = SETTLE_RELEASE, .ours = true});
}

void receiver_drop_ready(struct ferry_receiver *r, struct handout *h, bool to_broker)
{
    uint32_t left = h->count - h->next;
    for (; left > 0; left--) {
        struct message *m = &h->messages[h->next];
        if (to_broker) {
            (void)!release(r, h, m); /* Without memory its lease runs out. */
        }
        taken_from_ready(r, h);
        receiver_drop_message(r, &r->slots[m->slot]); /* With the last, `h` is gone. */
    }
}

/* ---- Receiving. */

static void hand_over(struct ferry_receiver *r, struct handout *h, int64_t now_us,
                      struct ferry_delivery *delivery)
{
    struct message *m = &h->messages[h->next];
    struct slot *slot = &r->slots[m->slot];
    must(slot->handout == h && !slot->taken);
    slot->taken = true;
    *delivery = (struct ferry_delivery){
        .record = m->record,
        .handed_out = m->handed_out,
        .failed = m->failed,
        .lease_ms_left = (h->ends_us - now_us) / 1000,
        .internal = (void *)(uintptr_t)(((uint64_t)slot->generation << 32) | (m->slot + 1))};
    r->held++;
    taken_from_ready(r, h);
}

/* With the lock: what is ready, less what has waited here until its lease was over. */
static size_t take_ready(struct ferry_receiver *r, struct ferry_delivery *deliveries, size_t max)
{
    int64_t now_us = clock_monotonic_us();
    size_t count = 0;
    while (count < max && !list_is_empty(&r->ready)) {
        struct handout *h = list_entry(r->ready.next, struct handout, ready_node);
        if (h->ends_us <= now_us) {
            receiver_drop_ready(r, h, false);
        } else {
            hand_over(r, h, now_us, &deliveries[count++]);
        }
    }
    return count;
}

/* With the lock: the io thread has something to do, if it has nothing better. */
static bool wake_io(struct ferry_receiver *r)
{
    return client_add_work(r->client, &r->client->work_receivers, &r->work_node);
}

/* With the lock. */
static bool wait_for_change(struct ferry_receiver *r, int64_t deadline_us)
{
    if (clock_monotonic_us() >= deadline_us) {
        return false;
    }
    must(!r->client->stepped); /* Nobody would end the wait. */
    struct timespec until = {.tv_sec = deadline_us / 1000000,
                             .tv_nsec = (deadline_us % 1000000) * 1000};
    (void)pthread_cond_timedwait(&r->changed, &r->client->lock, &until);
    return true;
}

static int64_t deadline_in(int timeout_ms)
{
    if (timeout_ms == 0) {
        return 0;
    }
    return timeout_ms < 0 ? INT64_MAX / 2 : clock_monotonic_us() + (int64_t)timeout_ms * 1000;
}

/* With the lock: why nothing comes; FERRY_OK: something may. */
static enum ferry_err take_event(struct ferry_receiver *r)
{
    enum ferry_err err = r->failed != FERRY_OK ? r->failed : r->told_once;
    r->told_once = FERRY_OK;
    return err;
}

enum ferry_err ferry_receive(struct ferry_receiver *receiver, int timeout_ms,
                             struct ferry_delivery *deliveries, size_t max, size_t *count)
{
    struct ferry_receiver *r = receiver;
    struct ferry_client *c = r->client;
    int64_t deadline_us = deadline_in(timeout_ms);
    if (max == 0) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    pthread_mutex_lock(&c->lock);
    enum ferry_err err = FERRY_OK;
    size_t taken = take_ready(r, deliveries, max);
    while (taken == 0 && (err = take_event(r)) == FERRY_OK && wait_for_change(r, deadline_us)) {
        taken = take_ready(r, deliveries, max);
    }
    bool wake = list_is_empty(&r->ready) && wake_io(r);
    pthread_mutex_unlock(&c->lock);
    client_wake(c, wake);
    if (taken == 0) {
        return err != FERRY_OK ? err : FERRY_ERR_TIMEOUT;
    }
    *count = taken;
    return FERRY_OK;
}

/* ---- Settling. */

/* With the lock: where the delivery is; NULL: it was settled before. */
static struct slot *find_slot(struct ferry_receiver *r, const struct ferry_delivery *delivery)
{
    uint64_t word = (uint64_t)(uintptr_t)delivery->internal;
    uint32_t place = (uint32_t)word;
    if (place == 0 || place > r->inflight_max) {
        return NULL;
    }
    struct slot *slot = &r->slots[place - 1];
    bool same = slot->taken && slot->generation == (uint32_t)(word >> 32);
    return same ? slot : NULL;
}

static size_t record_bytes(const struct ferry_record *record)
{
    return record->key_bytes + record->payload_bytes + record->headers_bytes;
}

static bool delay_is_valid(enum ferry_settle settle, int64_t delay_ms)
{
    return settle != FERRY_NACK || (delay_ms >= -1 && delay_ms <= DELAY_MAX_MS);
}

/* With the lock: whether the io thread can use what has just been settled. */
static bool is_of_use(const struct ferry_receiver *r, int32_t partition)
{
    bool sends = r->partitions[partition].settles_out < SETTLES_OUT_MAX;
    bool asks = r->credit_wanted > 0 && receiver_credit(r) >= r->credit_wanted;
    return sends || asks;
}

enum ferry_err ferry_settle(struct ferry_receiver *receiver, struct ferry_delivery *delivery,
                            enum ferry_settle settle, int64_t delay_ms, const char *reason,
                            void *opaque)
{
    struct ferry_receiver *r = receiver;
    struct ferry_client *c = r->client;
    struct bytes why = bytes_of_string(reason != NULL ? reason : "");
    bool has_reason = settle == FERRY_NACK || settle == FERRY_REJECT;
    if (settle < FERRY_ACK || settle > FERRY_REJECT || !delay_is_valid(settle, delay_ms) ||
        why.size > REASON_MAX_BYTES) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    pthread_mutex_lock(&c->lock);
    struct slot *slot = find_slot(r, delivery);
    if (slot == NULL) {
        pthread_mutex_unlock(&c->lock);
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    struct handout *h = slot->handout;
    int32_t partition = h->partition;
    struct settling one = {.handout = h,
                           .offset = h->messages[slot->index].record.offset,
                           .kind = (enum settle_kind)settle,
                           .delay_ms = settle == FERRY_NACK ? delay_ms : 0,
                           .bytes = record_bytes(&h->messages[slot->index].record),
                           .reason = has_reason ? why : bytes_of(NULL, 0),
                           .opaque = opaque};
    bool wake = false;
    bool added = settler_add(r, &one);
    if (added) {
        r->held--;
        receiver_drop_message(r, slot);
        delivery->internal = NULL;
        wake = is_of_use(r, partition) && wake_io(r);
    }
    pthread_mutex_unlock(&c->lock);
    client_wake(c, wake);
    return added ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

enum ferry_err ferry_ack(struct ferry_receiver *receiver, struct ferry_delivery *delivery)
{
    return ferry_settle(receiver, delivery, FERRY_ACK, 0, NULL, NULL);
}

enum ferry_err ferry_nack(struct ferry_receiver *receiver, struct ferry_delivery *delivery,
                          int64_t delay_ms, const char *reason)
{
    return ferry_settle(receiver, delivery, FERRY_NACK, delay_ms, reason, NULL);
}

void ferry_receiver_on_settled(struct ferry_receiver *receiver, ferry_settled_cb *callback,
                               void *arg)
{
    pthread_mutex_lock(&receiver->client->lock);
    receiver->teller->callback = callback;
    receiver->teller->arg = arg;
    pthread_mutex_unlock(&receiver->client->lock);
}

enum ferry_err ferry_receiver_flush(struct ferry_receiver *receiver, int timeout_ms,
                                    uint64_t *failed)
{
    struct ferry_receiver *r = receiver;
    struct ferry_client *c = r->client;
    int64_t deadline_us = deadline_in(timeout_ms);
    pthread_mutex_lock(&c->lock);
    while (r->unanswered > 0 && wait_for_change(r, deadline_us)) {
        /* Until all is answered, or the time is up. */
    }
    bool done = r->unanswered == 0;
    if (done && failed != NULL) {
        *failed = r->failed_count;
    }
    if (done) {
        r->failed_count = 0;
    }
    pthread_mutex_unlock(&c->lock);
    (void)teller_run(c, r->teller);
    return done ? FERRY_OK : FERRY_ERR_TIMEOUT;
}

/* ---- Extending by hand. */

static void encode_extension(struct buf *b, const struct call *call, uint64_t group)
{
    const struct receiver_extension *extension = call->request;
    extension->request->group = group;
    settle_request_encode(b, extension->request);
}

enum ferry_err receiver_extend_begin(struct ferry_receiver *r,
                                     const struct ferry_delivery *delivery, uint32_t lease_ms,
                                     int timeout_ms, struct receiver_extension *extension)
{
    struct ferry_client *c = r->client;
    if (lease_ms < LEASE_MIN_MS || lease_ms > LEASE_MAX_MS) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    struct settle_request *request = mem_zalloc(1, sizeof(*request));
    if (request == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    pthread_mutex_lock(&c->lock);
    struct slot *slot = find_slot(r, delivery);
    int32_t partition = slot != NULL ? slot->handout->partition : -1;
    if (slot != NULL) {
        request->items[0] = (struct settle_item){.lease = slot->handout->lease,
                                                 .token = slot->handout->token,
                                                 .kind = SETTLE_EXTEND,
                                                 .delay_ms = lease_ms};
    }
    pthread_mutex_unlock(&c->lock);
    if (slot == NULL) {
        mem_free(request);
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    request->subscription = bytes_of_string(r->subscription);
    request->member = bytes_of_string(r->name);
    request->count = 1;
    extension->request = request;
    extension->receiver = r;
    extension->began_us = clock_monotonic_us();
    call_init(&extension->call, COMMAND_SETTLE, ROUTE_PARTITION, encode_extension, extension,
              timeout_ms);
    call_to_partition(&extension->call, r->topic, partition);
    call_begin(c, &extension->call, 1);
    return FERRY_OK;
}

enum ferry_err receiver_extend_end(struct receiver_extension *extension)
{
    struct ferry_receiver *r = extension->receiver;
    struct settle_reply reply = {.count = 0};
    enum ferry_err err = extension->call.err;
    if (err == FERRY_OK &&
        (settle_reply_decode(extension->call.frame.body, &reply) != FERRY_OK || reply.count > 1)) {
        err = FERRY_ERR_BAD_FRAME;
    }
    if (err == FERRY_OK && reply.count == 1) {
        err = (enum ferry_err)reply.results[0].status;
    }
    if (err == FERRY_OK) {
        const struct settle_item *item = &extension->request->items[0];
        pthread_mutex_lock(&r->client->lock);
        struct handout *h = receiver_find_lease(r, extension->call.partition, item->lease);
        if (h != NULL) {
            receiver_extended(r, h, extension->began_us, item->delay_ms);
        }
        bool wake = wake_io(r); /* The time of its next extension is another. */
        pthread_mutex_unlock(&r->client->lock);
        client_wake(r->client, wake);
    }
    call_fini(&extension->call);
    mem_free(extension->request);
    return err;
}

enum ferry_err ferry_extend(struct ferry_receiver *receiver, const struct ferry_delivery *delivery,
                            uint32_t lease_ms, int timeout_ms)
{
    struct receiver_extension extension;
    enum ferry_err err =
        receiver_extend_begin(receiver, delivery, lease_ms, timeout_ms, &extension);
    if (err != FERRY_OK) {
        return err;
    }
    call_wait(receiver->client, &extension.call, 1);
    return receiver_extend_end(&extension);
}

/* ---- Closing. */

/* With the lock. */
static void release_taken(struct ferry_receiver *r)
{
    for (uint32_t i = 0; i < r->inflight_max; i++) {
        struct slot *slot = &r->slots[i];
        if (slot->taken) {
            (void)!release(r, slot->handout, &slot->handout->messages[slot->index]);
            r->held--;
            receiver_drop_message(r, slot);
        }
    }
}

void receiver_stop(struct ferry_receiver *r)
{
    struct ferry_client *c = r->client;
    pthread_mutex_lock(&c->lock);
    r->stopping = true;
    while (!list_is_empty(&r->ready)) {
        receiver_drop_ready(r, list_entry(r->ready.next, struct handout, ready_node), true);
    }
    release_taken(r);
    bool wake = wake_io(r);
    pthread_mutex_unlock(&c->lock);
    client_wake(c, wake);
}

/* With the lock. */
static bool is_idle(const struct ferry_receiver *r)
{
    return r->unanswered == 0 && r->receives_out == 0;
}

bool receiver_is_idle(struct ferry_receiver *r)
{
    pthread_mutex_lock(&r->client->lock);
    bool idle = is_idle(r);
    pthread_mutex_unlock(&r->client->lock);
    return idle;
}

static void detach(struct ferry_client *c, void *arg)
{
    (void)c;
    receiver_detach(arg);
}

static void cancel_leaving(struct ferry_client *c, void *arg)
{
    call_cancel(c, arg);
}

/* Says good-bye, so that lists do not name it until its session is over. */
static void leave(struct ferry_receiver *r, int64_t deadline_us)
{
    struct member_leaving leaving;
    int64_t left_us = deadline_us - clock_monotonic_us();
    if (r->client->stepped || left_us <= 0) {
        return;
    }
    int64_t left_ms = left_us / 1000 + 1;
    member_leave_begin(&r->member, "closed",
                       left_ms < LEAVE_TIMEOUT_MS ? (int)left_ms : LEAVE_TIMEOUT_MS, &leaving);
    call_wait(r->client, &leaving.call, 1);
    client_run_task(r->client, cancel_leaving, &leaving.call);
}

void ferry_receiver_close(struct ferry_receiver **receiver, int timeout_ms)
{
    struct ferry_receiver *r = *receiver;
    if (r == NULL) {
        return;
    }
    *receiver = NULL;
    struct ferry_client *c = r->client;
    int64_t deadline_us = deadline_in(timeout_ms);
    receiver_stop(r);
    pthread_mutex_lock(&c->lock);
    while (!is_idle(r) && wait_for_change(r, deadline_us)) {
        /* Until all is answered, or the time is up. */
    }
    pthread_mutex_unlock(&c->lock);
    client_run_task(c, detach, r);
    leave(r, deadline_us);
    receiver_free(r);
}

/* ---- Tests. */

void receiver_check(struct ferry_receiver *r)
{
    uint32_t free_slots = 0, taken = 0, ready = 0;
    size_t bytes = 0;
    pthread_mutex_lock(&r->client->lock);
    for (uint32_t i = r->first_free; i < r->inflight_max; i = r->slots[i].index) {
        must(r->slots[i].handout == NULL && !r->slots[i].taken);
        free_slots++;
        must(free_slots <= r->inflight_max);
    }
    for (uint32_t i = 0; i < r->inflight_max; i++) {
        taken += r->slots[i].taken ? 1 : 0;
    }
    for (struct list *n = r->ready.next; n != &r->ready; n = n->next) {
        const struct handout *h = list_entry(n, struct handout, ready_node);
        must(h->next < h->count && h->live >= h->count - h->next);
        ready += h->count - h->next;
        bytes += h->bytes;
    }
    must(taken == r->held && ready == r->ready_count && bytes == r->ready_bytes);
    must(free_slots + taken + ready == r->inflight_max);
    pthread_mutex_unlock(&r->client->lock);
}
