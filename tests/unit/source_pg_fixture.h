/* source_pg_fixture: a relay's core in small for tests of the PostgreSQL source: it reads, routes
 * by key to a few targets, and keeps what each got in a log beside the blob, as the brokers do. */
#ifndef FERRY_TESTS_SOURCE_PG_FIXTURE_H
#define FERRY_TESTS_SOURCE_PG_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/prng.h"
#include "lib/database_fixture.h"
#include "outbox/relay/driver.h"

const struct outbox_driver *ferry_outbox_driver_postgresql(void);

#define TARGETS 5

/* A partition: its log and its blob outlive the relay. */
struct target {
    struct source_blob blob;
    int64_t *log; /* Numbers, in the order of appending. */
    size_t count, capacity;
    struct source_mark *mark; /* Of the relay that is here now. */
    int64_t blocked_from;     /* INT64_MAX: not blocked. */
};

struct relay_twin {
    struct source source;
    struct source_page page;
    struct target targets[TARGETS];
    struct source_blob checkpoint;
    int64_t read_pos;
    size_t page_rows, page_bytes;
    uint64_t reads, rows;
    bool copies;        /* Backlogs by COPY, however small. */
    struct prng *chaos; /* NULL: nothing fails. */
};

static inline struct source_options twin_options(void)
{
    return (struct source_options){.barrier = true,
                                   .stand_by = true,
                                   .tidy = true,
                                   .copy_rows = 50000,
                                   .connect_timeout_ms = 5000,
                                   .statement_timeout_ms = 10000};
}

static inline void twin_begin(struct relay_twin *t)
{
    struct err_text e = {{0}};
    bool same = false;
    int64_t settled = 0;
    enum ferry_err err = t->source.ops->begin(
        t->source.driver, bytes_of(t->checkpoint.data, t->checkpoint.size), &settled, &same, &e);
    if (err != FERRY_OK || !same) {
        fail_msg("begin: %d %s", err, e.text);
    }
    t->read_pos = settled;
}

static inline void twin_open_with(struct relay_twin *t, const char *url,
                                  const struct source_options *options)
{
    struct err_text e = {{0}};
    enum ferry_err err =
        ferry_outbox_driver_postgresql()->source_open(&t->source, url, options, &e);
    if (err != FERRY_OK) {
        fail_msg("source_open: %d %s", err, e.text);
    }
    source_page_init(&t->page);
    t->page_rows = t->page_rows == 0 ? 4096 : t->page_rows;
    t->page_bytes = t->page_bytes == 0 ? 4u << 20 : t->page_bytes;
    for (int i = 0; i < TARGETS; i++) {
        t->targets[i].mark = NULL;
        t->targets[i].blocked_from = INT64_MAX;
    }
    twin_begin(t);
}

static inline void twin_open(struct relay_twin *t, const char *url)
{
    struct source_options options = twin_options();
    options.copy_rows = t->copies ? 1 : options.copy_rows;
    twin_open_with(t, url, &options);
}

static inline void twin_close_mark(struct relay_twin *t, struct target *target)
{
    t->source.ops->mark_close(t->source.driver, target->mark);
    target->mark = NULL;
}

/* The relay is gone; logs and blobs stay. */
static inline void twin_kill(struct relay_twin *t)
{
    for (int i = 0; i < TARGETS; i++) {
        twin_close_mark(t, &t->targets[i]);
    }
    source_page_fini(&t->page);
    source_close(&t->source);
}

static inline void twin_free(struct relay_twin *t)
{
    for (int i = 0; i < TARGETS; i++) {
        free(t->targets[i].log);
    }
}

static inline int64_t twin_low(const struct relay_twin *t)
{
    int64_t low = t->read_pos;
    for (int i = 0; i < TARGETS; i++) {
        if (t->targets[i].blocked_from - 1 < low) {
            low = t->targets[i].blocked_from - 1;
        }
    }
    return low;
}

static inline void twin_rewind(struct relay_twin *t)
{
    int64_t low = twin_low(t);
    t->source.ops->rewind(t->source.driver, low);
    t->read_pos = low;
}

static inline void twin_checkpoint(struct relay_twin *t)
{
    t->source.ops->checkpoint(t->source.driver, twin_low(t), &t->checkpoint);
}

/* Opens the target's mark. True: the source has to go back first. */
static inline bool twin_open_mark(struct relay_twin *t, struct target *target)
{
    struct err_text e = {{0}};
    bool same = false;
    bool again = false;
    enum ferry_err err =
        t->source.ops->mark_open(t->source.driver, bytes_of(target->blob.data, target->blob.size),
                                 &target->mark, &same, &again, &e);
    if (err != FERRY_OK || !same) {
        fail_msg("mark_open: %d %s", err, e.text);
    }
    return again;
}

static inline void twin_log(struct target *target, int64_t number)
{
    if (target->count == target->capacity) {
        target->capacity = target->capacity == 0 ? 64 : target->capacity * 2;
        target->log = realloc(target->log, target->capacity * sizeof(target->log[0]));
        assert_non_null(target->log);
    }
    target->log[target->count++] = number;
}

static inline int twin_route(const struct source_row *row)
{
    return (int)(checksum_of(row->message.key, row->message.key_bytes) % TARGETS);
}

static inline void twin_block(struct relay_twin *t, struct target *target, int64_t from)
{
    twin_close_mark(t, target);
    if (from < target->blocked_from) {
        target->blocked_from = from;
    }
}

/* Sends what one target wants of the page, in batches of random sizes; some are lost. */
static inline void twin_send(struct relay_twin *t, struct target *target,
                             const struct source_row **rows, size_t count)
{
    size_t at = 0;
    while (at < count) {
        size_t n = count - at;
        if (t->chaos != NULL && n > 1) {
            n = 1 + (size_t)prng_below(t->chaos, n);
        }
        struct source_blob blob;
        size_t covered = t->source.ops->mark_encode(t->source.driver, target->mark, rows + at, n,
                                                    at + n == count, &blob);
        assert_int_equal(covered, n);
        assert_int_equal(
            t->source.ops->mark_add(t->source.driver, target->mark, rows + at, n, at + n == count),
            FERRY_OK);
        uint64_t luck = t->chaos == NULL ? 99 : prng_below(t->chaos, 40);
        if (luck != 0) {
            target->blob = blob;
            for (size_t i = at; i < at + n; i++) {
                twin_log(target, rows[i]->number);
            }
            t->source.ops->mark_acked(t->source.driver, target->mark, n);
        }
        if (luck <= 1) { /* Lost, or its answer is: the target is opened anew. */
            twin_block(t, target, rows[at]->position);
            return;
        }
        at += n;
    }
}

static inline void twin_retry(struct relay_twin *t)
{
    for (int i = 0; i < TARGETS; i++) {
        struct target *target = &t->targets[i];
        if (target->blocked_from == INT64_MAX ||
            (t->chaos != NULL && prng_below(t->chaos, 3) != 0)) {
            continue;
        }
        (void)twin_open_mark(t, target);
        twin_rewind(t);
        target->blocked_from = INT64_MAX;
    }
}

/* One page. False: there was nothing. */
static inline bool twin_step(struct relay_twin *t, bool *more)
{
    static const struct source_row *rows[TARGETS][65536];
    size_t counts[TARGETS] = {0};
    struct err_text e = {{0}};
    twin_retry(t);
    enum ferry_err err =
        t->source.ops->read(t->source.driver, t->page_rows, t->page_bytes, &t->page, more, &e);
    if (err == FERRY_ERR_DB_RETRY) {
        *more = true;
        usleep(1000);
        return false;
    }
    if (err != FERRY_OK) {
        fail_msg("read: %d %s", err, e.text);
    }
    t->reads++;
    for (size_t i = 0; i < t->page.count; i++) {
        const struct source_row *row = &t->page.rows[i];
        int which = twin_route(row);
        struct target *target = &t->targets[which];
        assert_true(row->position > t->read_pos);
        if (target->blocked_from != INT64_MAX) {
            t->read_pos = row->position;
            continue;
        }
        if (target->mark == NULL && twin_open_mark(t, target)) {
            twin_rewind(t); /* Nothing of this page was sent. */
            *more = true;
            return true;
        }
        if (t->source.ops->wants(t->source.driver, target->mark, row)) {
            rows[which][counts[which]++] = row;
        }
    }
    for (int i = 0; i < TARGETS; i++) {
        if (counts[i] > 0) {
            twin_send(t, &t->targets[i], rows[i], counts[i]);
        }
    }
    if (t->page.count > 0) {
        t->read_pos = t->page.rows[t->page.count - 1].position;
    }
    t->rows += t->page.count;
    return t->page.count > 0;
}

/* Until nothing is left. */
static inline void twin_drain(struct relay_twin *t)
{
    bool more = true;
    bool blocked = true;
    while (more || blocked) {
        (void)twin_step(t, &more);
        blocked = twin_low(t) < t->read_pos;
    }
}

static inline bool twin_has(const struct relay_twin *t, int64_t number)
{
    for (int i = 0; i < TARGETS; i++) {
        for (size_t at = 0; at < t->targets[i].count; at++) {
            if (t->targets[i].log[at] == number) {
                return true;
            }
        }
    }
    return false;
}

static inline size_t twin_total(const struct relay_twin *t)
{
    size_t total = 0;
    for (int i = 0; i < TARGETS; i++) {
        total += t->targets[i].count;
    }
    return total;
}

static inline int twin_compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* Every committed row is in the logs once, and nothing else. */
static inline void twin_check_all(const struct relay_twin *t, struct database *db)
{
    size_t total = twin_total(t);
    int64_t committed = database_number(&db->a, "SELECT count(*) FROM ledger");
    int64_t *all = malloc((total + 1) * sizeof(*all));
    assert_non_null(all);
    size_t at = 0;
    for (int i = 0; i < TARGETS; i++) {
        if (t->targets[i].count > 0) {
            memcpy(all + at, t->targets[i].log, t->targets[i].count * sizeof(*all));
        }
        at += t->targets[i].count;
    }
    qsort(all, total, sizeof(*all), twin_compare);
    for (size_t i = 1; i < total; i++) {
        if (all[i] == all[i - 1]) {
            fail_msg("row %lld is in the logs twice", (long long)all[i]);
        }
    }
    for (size_t i = 0; i < total; i++) {
        char sql[96];
        if (total < 2000) {
            snprintf(sql, sizeof(sql), "SELECT count(*) FROM ledger WHERE seq = %lld",
                     (long long)all[i]);
            assert_int_equal(database_number(&db->a, sql), 1);
        }
    }
    free(all);
    assert_int_equal(total, committed);
}

/* ---- Writers. */

static inline void put(struct database_link *link, const char *key, const char *payload)
{
    char sql[400];
    snprintf(sql, sizeof(sql),
             "WITH p AS (INSERT INTO ferry.outbox (topic, mkey, payload) VALUES ('t', '%s', '%s') "
             "RETURNING seq, mkey) INSERT INTO ledger (seq, mkey) SELECT seq, mkey FROM p",
             key, payload);
    database_exec(link, sql);
}

static inline void fixture_open(struct database *db)
{
    database_open_migrated(db, DATABASE_POSTGRESQL);
    database_exec(&db->a, "CREATE TABLE ledger (seq bigint, mkey bytea)");
}

/* ---- A database of a test and a twin of the relay on it. */

struct fixture {
    struct database db;
    struct relay_twin twin;
    int ring_looks;
};

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    if (!database_available(DATABASE_POSTGRESQL)) {
        free(f);
        return 0;
    }
    fixture_open(&f->db);
    twin_open(&f->twin, f->db.url);
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    if (f == NULL) {
        return 0;
    }
    twin_kill(&f->twin);
    twin_free(&f->twin);
    database_close(&f->db);
    free(f);
    return 0;
}

static inline struct source_pg *inside(struct fixture *f)
{
    return f->twin.source.driver;
}

static inline struct fixture *fixture_of(void **state)
{
    if (*state == NULL) {
        skip();
    }
    return *state;
}

#endif
