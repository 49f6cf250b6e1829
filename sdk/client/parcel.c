#include "client/parcel.h"

#include "base/mem.h"
#include "client/metadata.h"

#define PARCEL_FIRST_OPAQUES 64
/* What a record costs beside its own bytes and the batch's framing. */
#define PARCEL_RECORD_EXTRA_BYTES (BATCH_RECORD_OVERHEAD_BYTES + sizeof(void *))
/* What stands behind the records of a batch for each: an id, a due time, a priority. */
#define PARCEL_RECORD_TAIL_BYTES (sizeof(struct ferry_id) + sizeof(int64_t) + 1)

static int run_reports(struct ferry_client *c, struct due *due);

static const char told; /* Its address is nobody's opaque. */

void *parcel_told(void)
{
    return (void *)(uintptr_t)&told;
}

size_t parcel_record_cost(const struct batch_record *r)
{
    return r->key.size + r->headers.size + r->payload.size + sizeof(struct ferry_id) +
           PARCEL_RECORD_EXTRA_BYTES;
}

/* The largest batch a stream makes: batch_bytes, or one message that is larger. */
static size_t writer_limit(const struct ferry_client *c)
{
    size_t one = (size_t)c->options.message_max_bytes + BATCH_HEADER_BYTES +
                 BATCH_RECORD_OVERHEAD_BYTES + PARCEL_RECORD_TAIL_BYTES;
    size_t many = (size_t)c->options.batch_bytes;
    return one > many ? one : many;
}

static struct parcel *parcel_new(struct ferry_client *c)
{
    struct parcel *p = mem_zalloc(1, sizeof(*p));
    if (p == NULL) {
        return NULL;
    }
    p->client = c;
    p->due.run = run_reports;
    list_init(&p->node);
    list_init(&p->due.node);
    list_init(&p->waiters);
    batch_writer_init(&p->writer, writer_limit(c));
    buf_init(&p->duplicates, (size_t)BATCH_RECORDS_MAX * PRODUCE_DUPLICATE_BYTES);
    buf_init(&p->dues, (size_t)BATCH_RECORDS_MAX * PRODUCE_DUE_BYTES);
    request_init(&p->request, stream_on_reply);
    return p;
}

void parcel_free(struct parcel *p)
{
    must(list_is_empty(&p->waiters));
    request_fini(&p->request);
    batch_writer_fini(&p->writer);
    buf_fini(&p->duplicates);
    buf_fini(&p->dues);
    mem_free(p->opaques);
    mem_free(p->hints);
    mem_free(p);
}

struct parcel *parcel_take(struct ferry_client *c, struct topic *topic, struct partition *partition,
                           int64_t now_us)
{
    struct list *node = list_pop_front(&c->pool);
    struct parcel *p = NULL;
    if (node != NULL) {
        c->pool_count--;
        p = list_entry(node, struct parcel, node);
    } else {
        p = parcel_new(c);
    }
    if (p == NULL) {
        return NULL;
    }
    p->topic = topic;
    p->partition = partition;
    p->opened_us = now_us;
    p->deadline_us = now_us + c->options.delivery_timeout_ms * 1000;
    return p;
}

static void parcel_clear(struct parcel *p)
{
    must(request_is_idle(&p->request));
    must(list_is_empty(&p->waiters));
    batch_writer_clear(&p->writer);
    buf_clear(&p->duplicates);
    buf_clear(&p->dues);
    p->untold = 0;
    p->cost_bytes = 0;
    p->state = PARCEL_FILLING;
    p->bytes = bytes_of(NULL, 0);
    p->doubtful = false;
    p->attempts = 0;
    p->last_err = FERRY_OK;
}

void parcel_give_back(struct parcel *p)
{
    struct ferry_client *c = p->client;
    parcel_clear(p);
    if (c->pool_count >= PARCEL_POOL_MAX) {
        parcel_free(p);
        return;
    }
    list_push_front(&c->pool, &p->node);
    c->pool_count++;
}

void parcel_pool_free(struct ferry_client *c)
{
    struct list *node;
    while ((node = list_pop_front(&c->pool)) != NULL) {
        parcel_free(list_entry(node, struct parcel, node));
    }
    c->pool_count = 0;
}

bool parcel_is_delayed(const struct parcel *p)
{
    return p->writer.dues.size > 0;
}

bool parcel_has_room(const struct parcel *p, const struct batch_record *r)
{
    if (p->writer.count == 0) {
        return true;
    }
    if (parcel_is_delayed(p) != (r->due != 0)) {
        return false; /* A batch is delayed as a whole or not at all. */
    }
    size_t limit = (size_t)p->client->options.batch_bytes;
    limit = limit < p->client->batch_max_bytes ? limit : p->client->batch_max_bytes;
    size_t need = r->key.size + r->headers.size + r->payload.size + BATCH_RECORD_OVERHEAD_BYTES +
                  PARCEL_RECORD_TAIL_BYTES;
    return p->writer.count < BATCH_RECORDS_MAX && batch_writer_bytes(&p->writer) + need <= limit &&
           batch_writer_fits(&p->writer, r);
}

static bool grow_sides(struct parcel *p, bool hinted)
{
    size_t need = (size_t)p->writer.count + 1;
    need = need < PARCEL_FIRST_OPAQUES ? PARCEL_FIRST_OPAQUES : need;
    if (!mem_grow((void **)&p->opaques, &p->opaque_capacity, need, sizeof(void *))) {
        return false;
    }
    return !hinted || mem_grow((void **)&p->hints, &p->hint_capacity, need, sizeof(int32_t));
}

enum ferry_err parcel_add(struct parcel *p, const struct batch_record *r, void *opaque,
                          int32_t hint, struct waiter *w)
{
    bool hinted = p->partition == NULL;
    uint32_t index = p->writer.count;
    if ((index >= p->opaque_capacity || hinted) && !grow_sides(p, hinted)) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = batch_writer_add(&p->writer, r);
    if (err != FERRY_OK) {
        return err;
    }
    p->opaques[index] = w != NULL ? parcel_told() : opaque;
    if (hinted) {
        p->hints[index] = hint;
    }
    if (w != NULL) {
        w->index = index;
        list_push_back(&p->waiters, &w->node);
    }
    p->untold++;
    p->cost_bytes += parcel_record_cost(r);
    return FERRY_OK;
}

/* ---- Outcomes. */

static int64_t duplicate_offset(const struct parcel *p, uint32_t at)
{
    return (int64_t)get_le64(p->duplicates.data + (size_t)at * PRODUCE_DUPLICATE_BYTES + 4);
}

static bool is_duplicate(const struct parcel *p, uint32_t at, uint32_t i)
{
    size_t place = (size_t)at * PRODUCE_DUPLICATE_BYTES;
    return place < p->duplicates.size && get_le32(p->duplicates.data + place) == i;
}

/* Due time and number name a message that waits; a due time of 0: they are known no more. */
static void set_schedule(const struct parcel *p, uint32_t i, int64_t number,
                         struct ferry_schedule_id *schedule)
{
    size_t at = (size_t)i * PRODUCE_DUE_BYTES;
    if (number < 0 || at >= p->dues.size) {
        return;
    }
    *schedule = (struct ferry_schedule_id){.partition = p->partition->index,
                                           .due_ms = (int64_t)get_le64(p->dues.data + at),
                                           .number = (uint64_t)number};
}

void parcel_report(const struct parcel *p, uint32_t i, uint32_t *kept, uint32_t *duplicate,
                   struct ferry_report *report)
{
    *report = (struct ferry_report){.outcome = p->outcome,
                                    .err = p->err,
                                    .topic = p->topic->name,
                                    .partition = p->partition ? p->partition->index : -1,
                                    .offset = -1};
    if (p->outcome != FERRY_STORED) {
        return;
    }
    if (is_duplicate(p, *duplicate, i)) {
        report->duplicate = true;
        report->offset = duplicate_offset(p, *duplicate);
        (*duplicate)++;
        return;
    }
    int64_t place = p->base_offset < 0 ? -1 : p->base_offset + *kept;
    report->duplicate = p->duplicate;
    (*kept)++;
    if (parcel_is_delayed(p)) {
        set_schedule(p, i, place, &report->schedule);
    } else {
        report->offset = place;
    }
}

/* With the lock. */
static void tell_waiters(struct parcel *p)
{
    uint32_t kept = 0;
    uint32_t duplicate = 0;
    uint32_t i = 0;
    struct list *node;
    while ((node = list_pop_front(&p->waiters)) != NULL) {
        struct waiter *w = list_entry(node, struct waiter, node);
        for (; i <= w->index; i++) {
            parcel_report(p, i, &kept, &duplicate, &w->report);
        }
        w->done = true;
        pthread_cond_signal(&w->changed);
        p->untold--;
        due_told(p->client, 1, 0);
    }
}

void parcel_end(struct parcel *p, enum ferry_outcome outcome, enum ferry_err err)
{
    struct ferry_client *c = p->client;
    request_cancel(&p->request);
    p->outcome = outcome;
    p->err = err;
    pthread_mutex_lock(&c->lock);
    tell_waiters(p);
    if (p->partition != NULL) {
        must(p->partition->stream.load_bytes >= p->cost_bytes);
        p->partition->stream.load_bytes -= p->cost_bytes;
    }
    if (p->untold > 0 && c->report != NULL) {
        due_push(c, &p->due);
    } else {
        due_told(c, p->untold, p->cost_bytes);
        parcel_give_back(p);
    }
    pthread_mutex_unlock(&c->lock);
}

/* In ferry_poll, without the lock. */
static int run_reports(struct ferry_client *c, struct due *due)
{
    struct parcel *p = list_entry(due, struct parcel, due);
    uint32_t kept = 0;
    uint32_t duplicate = 0;
    int ran = 0;
    for (uint32_t i = 0; i < p->writer.count; i++) {
        struct ferry_report report;
        parcel_report(p, i, &kept, &duplicate, &report);
        if (p->opaques[i] != parcel_told()) {
            report.opaque = p->opaques[i];
            c->report(&report, c->report_arg);
            ran++;
        }
    }
    pthread_mutex_lock(&c->lock);
    must((uint32_t)ran == p->untold);
    due_told(c, p->untold, p->cost_bytes);
    parcel_give_back(p);
    pthread_mutex_unlock(&c->lock);
    return ran;
}
