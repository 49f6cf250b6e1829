#include "outbox/app/consume_count.h"

#include "base/clock.h"

static uint64_t load(const uint64_t *at)
{
    return __atomic_load_n(at, __ATOMIC_RELAXED);
}

static void store(uint64_t *at, uint64_t value)
{
    __atomic_store_n(at, value, __ATOMIC_RELAXED);
}

static void add(uint64_t *at, uint64_t more)
{
    store(at, load(at) + more); /* One thread writes. */
}

void consume_count_begin(struct consume_count *c)
{
    c->fresh = 0;
    c->duplicates = 0;
    c->dead = 0;
}

void consume_count_committed(struct consume_count *c)
{
    if (c->figures != NULL) {
        add(&c->figures->fresh, c->fresh);
        add(&c->figures->duplicates, c->duplicates);
        add(&c->figures->dead, c->dead);
    }
    consume_count_begin(c);
}

void consume_count_late(struct consume_count *c)
{
    if (c->figures != NULL) {
        add(&c->figures->late, 1);
    }
}

void consume_count_gap(struct consume_count *c)
{
    if (c->figures != NULL) {
        add(&c->figures->gaps, 1);
    }
}

void consume_count_retry(struct consume_count *c)
{
    if (c->figures != NULL) {
        add(&c->figures->retries, 1);
    }
}

void consume_count_dead(struct consume_count *c)
{
    if (c->figures != NULL) {
        add(&c->figures->dead, 1);
    }
}

enum ferry_err consume_count_handler(struct consume_count *c, ferry_handler *handler,
                                     const struct ferry_record *record, struct ferry_db *db,
                                     void *arg)
{
    if (c->figures == NULL) {
        return handler(record, db, arg);
    }
    int64_t began_us = clock_monotonic_us();
    enum ferry_err err = handler(record, db, arg);
    uint64_t took_us = (uint64_t)(clock_monotonic_us() - began_us);
    add(&c->figures->handler_calls, 1);
    add(&c->figures->handler_us, took_us);
    if (took_us > load(&c->figures->handler_us_max)) {
        store(&c->figures->handler_us_max, took_us);
    }
    return err;
}

void ferry_consume_figures(const struct ferry_consume_figures *counted,
                           struct ferry_consume_figures *copy)
{
    copy->fresh = load(&counted->fresh);
    copy->duplicates = load(&counted->duplicates);
    copy->late = load(&counted->late);
    copy->gaps = load(&counted->gaps);
    copy->retries = load(&counted->retries);
    copy->dead = load(&counted->dead);
    copy->handler_calls = load(&counted->handler_calls);
    copy->handler_us = load(&counted->handler_us);
    copy->handler_us_max = load(&counted->handler_us_max);
}
