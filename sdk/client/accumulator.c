/* accumulator: the half of the producer that runs in ferry_send, under the lock: finds the
 * partition of a message and adds it to the open parcel there. Declared in producer.h. */
#include "base/clock.h"
#include "client/metadata.h"
#include "ring/ring.h"

/* Keyless messages change partition after a batch's worth of bytes or this much time, so that many
 * make large batches and few are spread. */
#define STICKY_SLICE_US 10000

/* ---- Which partition. */

/* The less loaded of two that are drawn. */
static int32_t less_loaded(struct topic *t)
{
    struct prng *prng = &t->client->ids.prng;
    int32_t a = (int32_t)prng_below(prng, (uint64_t)t->partition_count);
    int32_t b = (int32_t)prng_below(prng, (uint64_t)t->partition_count);
    size_t a_bytes = t->partitions[a]->stream.load_bytes;
    return a_bytes <= t->partitions[b]->stream.load_bytes ? a : b;
}

static int32_t next_partition(struct topic *t)
{
    bool by_load = t->client->options.partitioner == CONF_LEAST_LOADED;
    return by_load ? less_loaded(t) : (t->sticky + 1) % t->partition_count;
}

static int32_t partition_without_key(struct topic *t, size_t cost, int64_t now_us)
{
    bool full = t->sticky_bytes >= (size_t)t->client->options.batch_bytes;
    bool each = t->client->options.partitioner == CONF_ROUND_ROBIN;
    if (each || full || now_us - t->sticky_since_us >= STICKY_SLICE_US) {
        t->sticky = next_partition(t);
        t->sticky_bytes = 0;
        t->sticky_since_us = now_us;
    }
    t->sticky_bytes += cost;
    return t->sticky;
}

/* FERRY_PARTITION_ANY when the message must be staged. */
static int32_t choose_partition(struct topic *t, const struct accepted *m, int64_t now_us)
{
    if (!t->known || m->partition >= t->partition_count) {
        return FERRY_PARTITION_ANY;
    }
    if (m->partition >= 0) {
        return m->partition;
    }
    if (m->record->has_key) {
        return ferry_partition_of_key(m->record->key.data, m->record->key.size, t->partition_count);
    }
    return partition_without_key(t, parcel_record_cost(m->record), now_us);
}

int32_t ferry_partition_of_key(const void *key, size_t key_bytes, int32_t partitions)
{
    if (partitions <= 0) {
        return 0;
    }
    return (int32_t)ring_partition_of_key(key, key_bytes, (uint32_t)partitions);
}

/* ---- Adding. */

static enum ferry_err stage(struct topic *t, const struct accepted *m, int64_t now_us, bool *wake)
{
    struct ferry_client *c = t->client;
    struct parcel *p = NULL;
    bool fresh = list_is_empty(&t->staged);
    if (!fresh) {
        p = list_entry(t->staged.prev, struct parcel, node);
    }
    if (p == NULL || !parcel_has_room(p, m->record)) {
        p = parcel_take(c, t, NULL, now_us);
        if (p == NULL) {
            return FERRY_ERR_NO_MEMORY;
        }
        list_push_back(&t->staged, &p->node);
    }
    enum ferry_err err = parcel_add(p, m->record, m->opaque, m->partition, m->waiter);
    if (p->writer.count == 0) {
        list_remove(&p->node);
        parcel_give_back(p);
    }
    if (err == FERRY_OK && fresh) {
        *wake = client_add_work(c, &c->work_topics, &t->work_node) || *wake;
    }
    return err;
}

static void close_open(struct stream *s, struct parcel **open)
{
    list_push_back(&s->closed, &(*open)->node);
    *open = NULL;
}

static enum ferry_err add_to_stream(struct partition *partition, const struct accepted *m,
                                    int64_t now_us, bool *wake)
{
    struct ferry_client *c = partition->topic->client;
    struct stream *s = &partition->stream;
    struct parcel **open = m->record->due != 0 ? &s->open_delayed : &s->open;
    if (*open != NULL && !parcel_has_room(*open, m->record)) {
        close_open(s, open);
        *wake = client_add_work(c, &c->work_streams, &s->work_node) || *wake;
    }
    if (*open == NULL) {
        now_us = now_us != 0 ? now_us : clock_monotonic_us();
        *open = parcel_take(c, partition->topic, partition, now_us);
        if (*open == NULL) {
            return FERRY_ERR_NO_MEMORY;
        }
        if (m->deadline_us != 0) {
            (*open)->deadline_us = m->deadline_us;
        }
    }
    enum ferry_err err = parcel_add(*open, m->record, m->opaque, -1, m->waiter);
    if ((*open)->writer.count == 0) {
        parcel_give_back(*open);
        *open = NULL;
        return err;
    }
    s->load_bytes += err == FERRY_OK ? parcel_record_cost(m->record) : 0;
    if (s->hungry) {
        s->hungry = false;
        *wake = client_add_work(c, &c->work_streams, &s->work_node) || *wake;
    }
    return err;
}

enum ferry_err accumulator_add(struct topic *t, const struct accepted *m, bool *wake)
{
    /* The clock is read only where it is needed: without a key, or where a parcel is opened. */
    int64_t now_us =
        t->known && (m->partition >= 0 || m->record->has_key) ? 0 : clock_monotonic_us();
    int32_t index = choose_partition(t, m, now_us);
    if (index == FERRY_PARTITION_ANY) {
        return stage(t, m, now_us != 0 ? now_us : clock_monotonic_us(), wake);
    }
    return add_to_stream(t->partitions[index], m, now_us, wake);
}

/* ---- Staged messages. */

/* Moves record i of the staged parcel to its partition. What cannot be moved stays. */
static enum ferry_err move_record(struct parcel *from, uint32_t i, const struct batch_record *r)
{
    struct topic *t = from->topic;
    bool wake = false;
    struct waiter *w = NULL;
    if (!list_is_empty(&from->waiters)) {
        w = list_entry(from->waiters.next, struct waiter, node);
        w = w->index == i ? w : NULL;
    }
    if (from->hints[i] >= t->partition_count) {
        return FERRY_ERR_UNKNOWN_PARTITION;
    }
    if (w != NULL) {
        list_remove(&w->node);
    }
    struct accepted m = {.record = r,
                         .partition = from->hints[i],
                         .opaque = from->opaques[i],
                         .waiter = w,
                         .deadline_us = from->deadline_us};
    enum ferry_err err = accumulator_add(t, &m, &wake);
    if (err != FERRY_OK) {
        if (w != NULL) {
            list_push_front(&from->waiters, &w->node);
        }
        return err;
    }
    from->untold--;
    from->cost_bytes -= parcel_record_cost(r);
    from->opaques[i] = parcel_told();
    return FERRY_OK;
}

/* A waiter that stays must not hide those behind it: they are kept aside meanwhile. */
static void set_aside(struct parcel *from, uint32_t i, struct list *stayed)
{
    if (list_is_empty(&from->waiters)) {
        return;
    }
    struct waiter *w = list_entry(from->waiters.next, struct waiter, node);
    if (w->index == i) {
        list_remove(&w->node);
        list_push_back(stayed, &w->node);
    }
}

/* With the lock. Returns the error of what stayed. */
static enum ferry_err move_records(struct parcel *from)
{
    struct bytes batch;
    struct batch_reader reader;
    struct batch_record record;
    struct list stayed;
    enum ferry_err malformed;
    enum ferry_err kept = FERRY_OK;
    list_init(&stayed);
    enum ferry_err err = batch_writer_finish(&from->writer, 0, 0, 0, &batch);
    if (err != FERRY_OK) {
        return err;
    }
    batch_reader_init(&reader, batch);
    for (uint32_t i = 0; batch_reader_next(&reader, &record, &malformed); i++) {
        err = move_record(from, i, &record);
        if (err != FERRY_OK) {
            kept = err;
            set_aside(from, i, &stayed);
        }
    }
    must(malformed == FERRY_OK);
    struct list *node;
    while ((node = list_pop_front(&stayed)) != NULL) {
        list_push_back(&from->waiters, node);
    }
    return kept;
}

void accumulator_unstage(struct topic *t)
{
    struct ferry_client *c = t->client;
    struct list left;
    struct list *node;
    list_init(&left);
    pthread_mutex_lock(&c->lock);
    t->known = true; /* Here, so that no later message gets ahead of the staged ones. */
    while ((node = list_pop_front(&t->staged)) != NULL) {
        struct parcel *from = list_entry(node, struct parcel, node);
        enum ferry_err err = move_records(from);
        if (from->untold == 0) {
            must(from->cost_bytes == 0);
            parcel_give_back(from);
        } else {
            from->last_err = err;
            list_push_back(&left, &from->node);
        }
    }
    pthread_mutex_unlock(&c->lock);
    while ((node = list_pop_front(&left)) != NULL) {
        struct parcel *p = list_entry(node, struct parcel, node);
        parcel_end(p, FERRY_NOT_STORED, p->last_err);
    }
}

void accumulator_fail_staged(struct topic *t, enum ferry_err err)
{
    struct ferry_client *c = t->client;
    for (;;) { /* Bounded: each turn ends one parcel, and this thread adds none. */
        pthread_mutex_lock(&c->lock);
        struct list *node = list_pop_front(&t->staged);
        pthread_mutex_unlock(&c->lock);
        if (node == NULL) {
            return;
        }
        parcel_end(list_entry(node, struct parcel, node), FERRY_NOT_STORED, err);
    }
}

int64_t accumulator_expire_staged(struct topic *t, int64_t now_us)
{
    struct ferry_client *c = t->client;
    enum ferry_err err = t->err != FERRY_OK ? t->err : FERRY_ERR_UNREACHABLE;
    for (;;) { /* Bounded as above. */
        pthread_mutex_lock(&c->lock);
        struct parcel *p = NULL;
        int64_t deadline_us = INT64_MAX;
        if (!list_is_empty(&t->staged)) {
            p = list_entry(t->staged.next, struct parcel, node);
            deadline_us = p->deadline_us;
        }
        if (p != NULL && deadline_us <= now_us) {
            list_remove(&p->node);
        }
        pthread_mutex_unlock(&c->lock);
        if (deadline_us > now_us) {
            return deadline_us;
        }
        parcel_end(p, FERRY_NOT_STORED, err);
    }
}
