/* fetcher: the io thread's half of a consumer. Declared in consumer.h. */
#include "base/clock.h"
#include "base/mem.h"
#include "client/consumer.h"
#include "client/group.h"

#define FETCH_LEAST_BYTES (64 << 10) /* What a fetch asks for however many endpoints there are. */

struct fetch_ask {
    int32_t partition;
    uint64_t generation;
    int64_t offset;
};

/* One consumer at one endpoint. */
struct fetcher {
    struct list node;
    struct ferry_consumer *consumer;
    struct connection *connection;
    struct request request;
    size_t budget; /* What the fetch that is out may bring. */
    uint32_t count;
    struct fetch_ask asks[FETCH_ITEMS_MAX];
};

static void on_reply(struct request *r, const struct reply *reply);

static void on_timer(struct timer *timer)
{
    consumer_pump(list_entry(timer, struct ferry_consumer, timer));
}

enum ferry_err consumer_attach(struct ferry_consumer *s)
{
    struct ferry_client *c = s->client;
    if (!timer_add(&c->timers, &s->timer, on_timer)) {
        return FERRY_ERR_NO_MEMORY;
    }
    for (int32_t i = 0; i < s->partition_count; i++) {
        s->readers[i].group = s->topic->partitions[i]->group;
    }
    if (s->group != NULL && !group_start(s->group)) {
        timer_drop(&c->timers, &s->timer);
        return FERRY_ERR_NO_MEMORY;
    }
    list_push_back(&c->consumers, &s->node);
    consumer_pump(s);
    return FERRY_OK;
}

void consumer_detach(struct ferry_consumer *s)
{
    struct list *node;
    while ((node = list_pop_front(&s->fetchers)) != NULL) {
        struct fetcher *f = list_entry(node, struct fetcher, node);
        request_fini(&f->request);
        mem_free(f);
    }
    if (s->group != NULL) {
        group_stop(s->group);
    }
    timer_drop(&s->client->timers, &s->timer);
    list_remove(&s->node);
    pthread_mutex_lock(&s->client->lock);
    list_remove(&s->work_node);
    pthread_mutex_unlock(&s->client->lock);
}

static struct fetcher *fetcher_for(struct ferry_consumer *s, struct connection *k)
{
    for (struct list *n = s->fetchers.next; n != &s->fetchers; n = n->next) {
        struct fetcher *f = list_entry(n, struct fetcher, node);
        if (f->connection == k) {
            return f;
        }
    }
    struct fetcher *f = mem_zalloc(1, sizeof(*f));
    if (f == NULL) {
        return NULL;
    }
    f->consumer = s;
    f->connection = k;
    list_init(&f->node);
    request_init(&f->request, on_reply);
    list_push_back(&s->fetchers, &f->node);
    s->fetcher_count++;
    return f;
}

static void forget_asks(struct fetcher *f)
{
    for (uint32_t i = 0; i < f->count; i++) {
        f->consumer->readers[f->asks[i].partition].asked = false;
    }
    f->count = 0;
    f->budget = 0;
}

/* ---- Sending. */

/* With the lock: a fetch that asks for what nobody wants any more since a seek, or where another
 * leads now. */
static bool is_outdated(const struct fetcher *f)
{
    for (uint32_t i = 0; i < f->count; i++) {
        const struct partition *p = f->consumer->topic->partitions[f->asks[i].partition];
        if (f->consumer->readers[f->asks[i].partition].generation != f->asks[i].generation ||
            (p->leader != NULL && p->leader != f->connection)) {
            return true;
        }
    }
    return false;
}

/* A long poll at an old position or at an old leader must not hold the new one back. */
static void cancel_outdated(struct ferry_consumer *s)
{
    for (struct list *n = s->fetchers.next; n != &s->fetchers; n = n->next) {
        struct fetcher *f = list_entry(n, struct fetcher, node);
        if (!request_is_idle(&f->request) && is_outdated(f)) {
            request_cancel(&f->request);
            forget_asks(f);
        }
    }
}

/* With the lock: puts every partition that may be fetched on its endpoint's list. */
static void collect(struct ferry_consumer *s, int64_t now_us, int64_t *next_us)
{
    /* Each time from another partition on: a reply that is full before its last items starves none.
     */
    s->first_asked = s->partition_count > 0 ? (s->first_asked + 1) % s->partition_count : 0;
    for (int32_t n = 0; n < s->partition_count; n++) {
        int32_t i = (s->first_asked + n) % s->partition_count;
        struct reader *r = &s->readers[i];
        struct connection *k = s->topic->partitions[i]->leader;
        if (r->asked || k == NULL || (s->group != NULL && !group_reads(s->group, i))) {
            continue;
        }
        if (r->retry_at_us > now_us) {
            *next_us = r->retry_at_us < *next_us ? r->retry_at_us : *next_us;
            continue;
        }
        struct fetcher *f = fetcher_for(s, k);
        if (f == NULL || !request_is_idle(&f->request) || f->count == FETCH_ITEMS_MAX) {
            continue;
        }
        f->asks[f->count++] = (struct fetch_ask){
            .partition = i, .generation = r->generation, .offset = r->next_offset};
        r->asked = true;
    }
}

static bool lacks_leader(const struct ferry_consumer *s)
{
    for (int32_t i = 0; i < s->partition_count; i++) {
        const struct connection *leader = s->topic->partitions[i]->leader;
        if (leader == NULL || leader->suspect) {
            return true;
        }
    }
    return false;
}

static size_t fetch_bytes(const struct ferry_consumer *s)
{
    const struct client_options *o = &s->client->options;
    size_t count = s->fetcher_count > 0 ? s->fetcher_count : 1;
    size_t share = (size_t)o->fetch_queue_bytes / (2 * count);
    share = share < FETCH_LEAST_BYTES ? FETCH_LEAST_BYTES : share;
    return share < (size_t)o->fetch_max_bytes ? share : (size_t)o->fetch_max_bytes;
}

static size_t asked_bytes(const struct ferry_consumer *s)
{
    size_t sum = 0;
    for (struct list *n = s->fetchers.next; n != &s->fetchers; n = n->next) {
        sum += list_entry(n, struct fetcher, node)->budget;
    }
    return sum;
}

static enum ferry_err send_fetch(struct fetcher *f)
{
    struct ferry_consumer *s = f->consumer;
    const struct client_options *o = &s->client->options;
    struct fetch_request request = {.max_wait_ms = (uint32_t)o->fetch_max_wait_ms,
                                    .min_bytes = (uint32_t)o->fetch_min_bytes,
                                    .max_bytes = (uint32_t)f->budget,
                                    .count = f->count};
    for (uint32_t i = 0; i < f->count; i++) {
        request.items[i] =
            (struct fetch_item){.group = s->topic->partitions[f->asks[i].partition]->group,
                                .offset = f->asks[i].offset,
                                .dead_of = bytes_of_string(s->topic->dead_of)};
    }
    enum ferry_err err = request_begin(&f->request, f->connection, COMMAND_FETCH,
                                       o->request_timeout_ms + o->fetch_max_wait_ms);
    if (err != FERRY_OK) {
        return err;
    }
    f->request.patience_us = o->fetch_max_wait_ms * 1000;
    fetch_request_encode(&f->request.frame, &request);
    return request_submit(&f->request);
}

/* With the lock: whether another fetch may be sent; remembers when it may not. */
static bool has_room(struct ferry_consumer *s, size_t wanted)
{
    size_t held = s->queued_bytes + asked_bytes(s);
    s->starved = held > 0 && held + wanted > (size_t)s->client->options.fetch_queue_bytes;
    return !s->starved;
}

static void send_all(struct ferry_consumer *s, int64_t now_us, int64_t *next_us)
{
    for (struct list *n = s->fetchers.next; n != &s->fetchers; n = n->next) {
        struct fetcher *f = list_entry(n, struct fetcher, node);
        if (f->count == 0 || !request_is_idle(&f->request)) {
            continue;
        }
        size_t wanted = fetch_bytes(s);
        pthread_mutex_lock(&s->client->lock);
        bool room = has_room(s, wanted);
        pthread_mutex_unlock(&s->client->lock);
        if (!room) {
            forget_asks(f);
            continue;
        }
        f->budget = wanted;
        if (send_fetch(f) != FERRY_OK) {
            forget_asks(f);
            int64_t again_us = now_us + client_backoff_us(s->client, 1);
            *next_us = again_us < *next_us ? again_us : *next_us;
        }
    }
}

void consumer_pump(struct ferry_consumer *s)
{
    struct ferry_client *c = s->client;
    int64_t now_us = clock_monotonic_us();
    int64_t next_us = INT64_MAX;
    if (list_is_empty(&s->node)) {
        return; /* Not attached. */
    }
    if (s->group != NULL) {
        group_pump(s->group);
    }
    pthread_mutex_lock(&c->lock);
    bool failed = s->failed != FERRY_OK;
    if (!failed) {
        cancel_outdated(s);
        collect(s, now_us, &next_us);
    }
    pthread_mutex_unlock(&c->lock);
    if (failed) {
        return;
    }
    if (lacks_leader(s)) {
        metadata_want(s->topic);
    }
    metadata_age(s->topic, now_us);
    send_all(s, now_us, &next_us);
    if (next_us != INT64_MAX) {
        timer_set_sooner(&c->timers, &s->timer, next_us);
    }
}

/* ---- Topics that changed, and brokers that fell silent. */

void consumers_suspect(struct ferry_client *c)
{
    for (struct list *n = c->consumers.next; n != &c->consumers; n = n->next) {
        consumer_pump(list_entry(n, struct ferry_consumer, node)); /* Looks for another leader. */
    }
}

static bool is_another_topic(const struct ferry_consumer *s)
{
    for (int32_t i = 0; i < s->partition_count; i++) {
        if (s->topic->partitions[i]->group != s->readers[i].group) {
            return true;
        }
    }
    return false;
}

void consumers_metadata_changed(struct topic *t)
{
    struct ferry_client *c = t->client;
    struct list *n = c->consumers.next;
    while (n != &c->consumers) {
        struct ferry_consumer *s = list_entry(n, struct ferry_consumer, node);
        n = n->next;
        if (s->topic != t) {
            continue;
        }
        enum ferry_err err = t->err;
        if (err == FERRY_OK && is_another_topic(s)) {
            err = FERRY_ERR_UNKNOWN_TOPIC;
        }
        if (err != FERRY_OK) {
            pthread_mutex_lock(&c->lock);
            s->failed = err;
            pthread_cond_broadcast(&s->changed);
            pthread_mutex_unlock(&c->lock);
        }
        consumer_pump(s);
    }
}

/* ---- Answers. */

/* With the lock. */
static void push_ready(struct ferry_consumer *s, struct ferry_batch *b)
{
    struct reader *r = &s->readers[b->partition];
    list_push_back(&s->ready, &b->node);
    s->queued_bytes += b->bytes;
    r->ready++;
    r->next_offset = b->next_offset;
    r->above_since_us = 0;
    pthread_cond_signal(&s->changed);
}

static void pause_reader(struct ferry_consumer *s, struct reader *r)
{
    r->attempts++;
    r->retry_at_us = clock_monotonic_us() + client_backoff_us(s->client, r->attempts);
}

/* While it is not known who leads, or whether the leader can yet. */
static void pause_looking(struct ferry_consumer *s, struct reader *r)
{
    r->attempts++;
    r->retry_at_us = clock_monotonic_us() + route_pause_us(s->client, r->attempts);
}

/* With the lock. An event that finds no memory is told at the next try. */
static void push_event(struct ferry_consumer *s, int32_t partition, enum ferry_err err,
                       int64_t next_offset)
{
    struct ferry_batch *event = batch_view_event(err, partition, next_offset);
    if (event != NULL) {
        push_ready(s, event);
    }
}

/* With the lock. */
static void take_corrupt(struct ferry_consumer *s, int32_t partition)
{
    struct reader *r = &s->readers[partition];
    s->corrupt++;
    r->corrupt_tries++;
    if (r->corrupt_tries >= CONSUMER_CORRUPT_TRIES) {
        r->corrupt_tries = 0;
        push_event(s, partition, FERRY_ERR_CORRUPT, r->next_offset);
    }
    pause_reader(s, r);
}

/* With the lock. Numbers of dead letters that are gone are passed over: the next one, or the end.
 */
static void pass_missing(struct ferry_consumer *s, const struct fetch_ask *ask,
                         const struct fetch_reply_item *item)
{
    struct reader *r = &s->readers[ask->partition];
    bool further = item->start_offset > ask->offset && item->start_offset <= item->end_offset;
    if (s->topic->of_dead && further && r->generation == ask->generation) {
        r->position = r->position == r->next_offset ? item->start_offset : r->position;
        r->next_offset = item->start_offset;
    }
}

/* With the lock. */
static void take_data(struct ferry_consumer *s, const struct fetch_ask *ask,
                      const struct fetch_reply_item *item, struct holder *h, struct bytes data)
{
    struct reader *r = &s->readers[ask->partition];
    r->end_offset = item->end_offset;
    if (data.size == 0) {
        r->attempts = 0;
        pass_missing(s, ask, item);
        return;
    }
    struct ferry_batch *b = NULL;
    int64_t next_offset;
    pthread_mutex_unlock(&s->client->lock); /* Checksums take their time. */
    enum ferry_err err =
        batch_view_new(h, ask->partition, data, ask->offset, s->topic->of_dead, &b, &next_offset);
    pthread_mutex_lock(&s->client->lock);
    if (r->generation != ask->generation) {
        ferry_batch_free(&b);
        return;
    }
    if (b != NULL) {
        r->corrupt_tries = 0;
        r->attempts = 0;
        push_ready(s, b);
        r->reached = true;
    }
    if (err == FERRY_ERR_CORRUPT) {
        take_corrupt(s, ask->partition);
    } else if (err != FERRY_OK || b == NULL) {
        pause_reader(s, r); /* No memory; or nothing but what lies before our offset. */
    }
}

/* With the lock. An offset that was reached by reading is in the log: whoever says that it is past
 * the end, leads and does not know yet how far the log is committed, or does not lead any more. The
 * same is believed of any offset right after a change of leader. For a while. */
static bool is_behind(struct ferry_consumer *s, const struct fetch_ask *ask)
{
    struct reader *r = &s->readers[ask->partition];
    const struct partition *p = s->topic->partitions[ask->partition];
    int64_t now_us = clock_monotonic_us();
    bool moved = p->moved_us != 0 && now_us - p->moved_us < CONSUMER_BEHIND_US;
    if (!r->reached && !moved) {
        return false;
    }
    if (r->above_since_us == 0) {
        r->above_since_us = now_us;
    }
    return now_us - r->above_since_us < CONSUMER_BEHIND_US;
}

/* With the lock. */
static void take_out_of_range(struct ferry_consumer *s, const struct fetch_ask *ask,
                              const struct fetch_reply_item *item)
{
    struct reader *r = &s->readers[ask->partition];
    bool sane = item->start_offset >= 0 && item->end_offset >= item->start_offset;
    bool inside = ask->offset >= item->start_offset && ask->offset <= item->end_offset;
    if (!sane || inside) {
        pause_reader(s, r);
        return;
    }
    bool below = ask->offset < item->start_offset;
    if (!below && is_behind(s, ask)) {
        s->topic->partitions[ask->partition]->leader = NULL;
        pause_looking(s, r);
        return;
    }
    r->reached = false;
    r->end_offset = item->end_offset;
    push_event(s, ask->partition, FERRY_ERR_OFFSET_OUT_OF_RANGE,
               below ? item->start_offset : item->end_offset);
}

/* With the lock. The subscription whose dead letters are read is not there, or is a stream. It may
 * be made yet: who goes on is told again. */
static void take_no_letters(struct ferry_consumer *s, int32_t partition, enum ferry_err err)
{
    struct reader *r = &s->readers[partition];
    if (s->topic->of_dead) {
        push_event(s, partition, err, r->next_offset);
    }
    pause_looking(s, r);
}

/* With the lock. True when metadata must be asked for again. */
static bool take_item(struct ferry_consumer *s, const struct fetch_ask *ask,
                      const struct fetch_reply_item *item, struct holder *h, struct bytes data)
{
    struct reader *r = &s->readers[ask->partition];
    if (r->generation != ask->generation) {
        return false;
    }
    switch (item->status) {
    case 0:
        take_data(s, ask, item, h, data);
        return false;
    case FERRY_ERR_OFFSET_OUT_OF_RANGE:
        take_out_of_range(s, ask, item);
        return false;
    case FERRY_ERR_CORRUPT:
        take_corrupt(s, ask->partition);
        return false;
    case FERRY_ERR_THROTTLED:
        pause_reader(s, r);
        return false;
    case FERRY_ERR_NOT_READY:
        pause_looking(s, r);
        return false;
    case FERRY_ERR_UNKNOWN_SUBSCRIPTION:
    case FERRY_ERR_INVALID_ARGUMENT:
        take_no_letters(s, ask->partition, (enum ferry_err)item->status);
        return false;
    default:
        pause_looking(s, r);
        return true;
    }
}

static bool items_are_sane(const struct fetcher *f, const struct fetch_reply *reply,
                           struct bytes attachment)
{
    size_t sum = 0;
    if (reply->count != f->count) {
        return false;
    }
    for (uint32_t i = 0; i < reply->count; i++) {
        int32_t partition = f->asks[i].partition;
        if (reply->items[i].group != f->consumer->topic->partitions[partition]->group) {
            return false;
        }
        sum += reply->items[i].data_bytes;
    }
    return sum == attachment.size;
}

/* The reply's memory, shared from now on by the views. */
static struct holder *hold(struct fetcher *f, const struct reply *reply, struct frame *frame)
{
    struct err_text e;
    struct holder *h = holder_new(f->consumer->topic->name);
    if (h == NULL) {
        return NULL;
    }
    net_message_move(&h->message, reply->message);
    if (frame_parse(net_message_bytes(&h->message), frame, &e) != FERRY_OK) {
        holder_release(h);
        return NULL;
    }
    return h;
}

/* Keeps what was asked, for request and list are free for the next fetch. */
static bool take_answer(struct fetcher *f, const struct reply *reply)
{
    struct ferry_consumer *s = f->consumer;
    struct fetch_reply items;
    struct frame frame;
    bool look_again = false;
    if (fetch_reply_decode(reply->frame.body, &items) != FERRY_OK ||
        !items_are_sane(f, &items, reply->frame.attachment)) {
        s->client->bad_replies++;
        return false;
    }
    struct holder *h = hold(f, reply, &frame);
    if (h == NULL) {
        return false;
    }
    struct bytes rest = frame.attachment;
    pthread_mutex_lock(&s->client->lock);
    for (uint32_t i = 0; i < f->count; i++) {
        struct bytes data = bytes_of(rest.data, items.items[i].data_bytes);
        rest = bytes_of(rest.data + data.size, rest.size - data.size);
        if (take_item(s, &f->asks[i], &items.items[i], h, data)) {
            s->topic->partitions[f->asks[i].partition]->leader = NULL;
            look_again = true;
        }
    }
    pthread_mutex_unlock(&s->client->lock);
    holder_release(h);
    if (look_again) {
        metadata_want(s->topic);
    }
    return true;
}

static void pause_all(struct fetcher *f, bool look_again, int64_t asked_us)
{
    struct ferry_consumer *s = f->consumer;
    int64_t until_us = clock_monotonic_us() + asked_us;
    for (uint32_t i = 0; i < f->count; i++) {
        struct reader *r = &s->readers[f->asks[i].partition];
        if (!look_again) {
            pause_reader(s, r);
            r->retry_at_us = r->retry_at_us > until_us ? r->retry_at_us : until_us;
        } else {
            pause_looking(s, r);
            s->topic->partitions[f->asks[i].partition]->leader = NULL;
        }
    }
}

static void on_reply(struct request *r, const struct reply *reply)
{
    struct fetcher *f = list_entry(r, struct fetcher, request);
    struct ferry_consumer *s = f->consumer;
    if (reply->err != FERRY_OK) {
        pause_all(f, reply->err != FERRY_ERR_THROTTLED, reply->retry_after_ms * INT64_C(1000));
    } else if (!take_answer(f, reply)) {
        pause_all(f, false, 0);
    }
    forget_asks(f);
    consumer_pump(s);
}
