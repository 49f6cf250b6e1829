/* Keys parked and freed on real databases while applications put and a relay publishes: one key in
 * two topics, each row once, and the order of each topic and key. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "lib/database_fixture.h"
#include "outbox/relay/driver.h"
#include "outbox/relay/relay.h"
#include "outbox/relay/relay_kept.h"

#define TOPICS      2
#define KEYS        2
#define ROWS        240 /* Of each topic and key. */
#define LOG_MAX     4096
#define PENDING_MAX 64
#define BATCH_MAX   64
#define DECISIONS   24
#define PATIENCE_US (60 * 1000000LL)

static const char *const topics[TOPICS] = {"alpha", "beta"};
static const char *const keys[KEYS] = {"k", "l"};

struct entry {
    int key, number;
};

struct sent {
    int topic;
    uint64_t expect;
    struct relay_kept_blob blob;
    struct entry rows[BATCH_MAX];
    size_t count;
    ferry_append_cb *callback;
    void *arg;
};

struct world {
    struct database d;
    enum database_kind kind;
    const struct outbox_driver *driver;
    struct source source;
    struct relay_options options;
    struct relay_broker broker;
    struct relay *relay;
    int64_t due_us; /* What the last step asked for; it is stepped all the time. */
    struct ferry_cursor cursors[TOPICS];
    struct entry log[TOPICS][LOG_MAX];
    size_t logged[TOPICS];
    struct sent pending[PENDING_MAX];
    size_t pending_count;
    struct database_link writer;
    atomic_bool failed; /* In a thread, where nothing can be asserted. */
    atomic_int decided;
};

/* ---- A broker in memory, with one partition a topic. */

static int topic_number(const char *name)
{
    return strcmp(name, topics[0]) == 0 ? 0 : 1;
}

static enum ferry_err b_elect(void *ctx, int64_t ttl_ms, int timeout_ms,
                              struct ferry_source_grant *grant)
{
    (void)ctx;
    (void)ttl_ms;
    (void)timeout_ms;
    grant->epoch = 1;
    return FERRY_OK;
}

static enum ferry_err b_resign(void *ctx, int timeout_ms)
{
    (void)ctx;
    (void)timeout_ms;
    return FERRY_OK;
}

static enum ferry_err b_partitions(void *ctx, const char *topic, int timeout_ms,
                                   int32_t *partitions)
{
    (void)ctx;
    (void)topic;
    (void)timeout_ms;
    *partitions = 1;
    return FERRY_OK;
}

static int32_t b_partition_of_key(const void *key, size_t key_bytes, int32_t partitions)
{
    (void)key;
    (void)key_bytes;
    (void)partitions;
    return 0;
}

static enum ferry_err b_cursor(void *ctx, const char *topic, int32_t partition, int timeout_ms,
                               struct ferry_cursor *cursor)
{
    struct world *w = ctx;
    (void)partition;
    (void)timeout_ms;
    *cursor = w->cursors[topic_number(topic)];
    return FERRY_OK;
}

static enum ferry_err b_append(void *ctx, const char *topic, int32_t partition, uint64_t expect,
                               const void *blob, size_t blob_bytes,
                               const struct ferry_message *messages, size_t count,
                               ferry_append_cb *callback, void *arg)
{
    struct world *w = ctx;
    (void)partition;
    if (w->pending_count == PENDING_MAX) {
        return FERRY_ERR_QUEUE_FULL;
    }
    struct sent *s = &w->pending[w->pending_count++];
    *s = (struct sent){.topic = topic_number(topic),
                       .expect = expect,
                       .count = count,
                       .callback = callback,
                       .arg = arg};
    s->blob.size = blob_bytes;
    memcpy(s->blob.data, blob, blob_bytes);
    for (size_t i = 0; i < count; i++) {
        char text[24];
        (void)snprintf(text, sizeof(text), "%.*s", (int)messages[i].payload_bytes,
                       (const char *)messages[i].payload);
        s->rows[i].number = (int)strtol(text, NULL, 10);
        s->rows[i].key = memcmp(messages[i].key, keys[0], 1) == 0 ? 0 : 1;
    }
    return FERRY_OK;
}

static enum ferry_err b_checkpoint(void *ctx, const void *blob, size_t blob_bytes, int timeout_ms)
{
    (void)ctx;
    (void)blob;
    (void)blob_bytes;
    (void)timeout_ms;
    return FERRY_OK;
}

static void store(struct world *w, const struct sent *s, struct ferry_append_result *result)
{
    struct ferry_cursor *c = &w->cursors[s->topic];
    if (s->expect != c->version) {
        result->err = FERRY_ERR_CURSOR_CONFLICT;
        return;
    }
    assert_true(w->logged[s->topic] + s->count <= LOG_MAX);
    memcpy(&w->log[s->topic][w->logged[s->topic]], s->rows, s->count * sizeof(s->rows[0]));
    w->logged[s->topic] += s->count;
    c->version++;
    c->blob_bytes = s->blob.size;
    memcpy(c->blob, s->blob.data, s->blob.size);
}

static void turn(struct world *w)
{
    struct relay_status status;
    w->due_us = relay_step(w->relay, clock_monotonic_us());
    size_t count = w->pending_count;
    for (size_t i = 0; i < count; i++) {
        struct ferry_append_result result = {.refused_index = SIZE_MAX, .base_offset = -1};
        store(w, &w->pending[i], &result);
        w->pending[i].callback(&result, w->pending[i].arg);
    }
    w->pending_count = 0;
    relay_check(w->relay);
    relay_status(w->relay, &status);
    if (status.state == RELAY_HALTED) {
        fail_msg("halted: %s", status.error.text);
    }
    (void)usleep(300);
}

/* ---- Applications, and people. */

/* One row in a transaction that holds its key's lock; false: the database was busy. */
static bool put(struct world *w, int topic, int key, int number)
{
    char payload[24];
    (void)snprintf(payload, sizeof(payload), "%d", number);
    struct ferry_message m = {.topic = topics[topic],
                              .key = keys[key],
                              .key_bytes = strlen(keys[key]),
                              .payload = payload,
                              .payload_bytes = strlen(payload)};
    bool begun = database_try(&w->writer, w->kind == DATABASE_SQLITE ? "BEGIN IMMEDIATE" : "BEGIN");
    bool done = begun && ferry_outbox_lock_key(w->writer.db, m.key, m.key_bytes) == FERRY_OK &&
                ferry_outbox_put(w->writer.db, &m, NULL) == FERRY_OK &&
                database_try(&w->writer, "COMMIT");
    if (begun && !done) {
        (void)database_try(&w->writer, "ROLLBACK");
    }
    return done;
}

static void *write_rows(void *arg)
{
    struct world *w = arg;
    int64_t until_us = clock_monotonic_us() + PATIENCE_US;
    for (int number = 1; number <= ROWS; number++) {
        for (int i = 0; i < TOPICS * KEYS; i++) {
            while (!put(w, i % TOPICS, i / TOPICS, number)) {
                if (clock_monotonic_us() > until_us) {
                    atomic_store(&w->failed, true);
                    return NULL;
                }
                (void)usleep(1000);
            }
        }
        (void)usleep(2000);
    }
    return NULL;
}

static enum ferry_err unpark(struct world *w, const char *topic, const char *key)
{
    struct err_text e = {{0}};
    int64_t count = 0;
    enum ferry_err err = FERRY_ERR_DB_RETRY;
    int64_t until_us = clock_monotonic_us() + PATIENCE_US;
    while (err == FERRY_ERR_DB_RETRY && clock_monotonic_us() < until_us) {
        err = w->driver->admin->unpark(w->d.url, topic, bytes_of_string(key), &count, &e);
    }
    return err;
}

/* Some decisions are undone before a relay can have looked. */
static void *decide(void *arg)
{
    struct world *w = arg;
    struct err_text e = {{0}};
    for (int i = 0; i < DECISIONS; i++) {
        const char *topic = topics[i / 3 % TOPICS];
        enum ferry_err err = FERRY_ERR_DB_RETRY;
        while (err == FERRY_ERR_DB_RETRY) {
            err = w->driver->admin->park(w->d.url, topic, bytes_of_string(keys[0]), &e);
        }
        (void)usleep(i % 3 == 0 ? 1200000 : i % 3 == 1 ? 100000 : 0);
        if (err != FERRY_OK || unpark(w, topic, keys[0]) != FERRY_OK) {
            atomic_store(&w->failed, true);
        }
        atomic_fetch_add(&w->decided, 1);
    }
    return NULL;
}

/* ---- */

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct err_text e = {{0}};
    assert_non_null(w);
    w->kind = *(const enum database_kind *)*state;
    database_open_migrated(&w->d, w->kind);
    database_connect(&w->d, &w->writer);
    if (outbox_driver_load(w->d.url, &w->driver, &e) != FERRY_OK) {
        fail_msg("%s", e.text);
    }
    option_defaults(relay_options_table(), &w->options);
    w->options.page_rows = 16;
    w->options.batch_rows = 4;
    const struct source_options options = {.barrier = true,
                                           .tidy = true,
                                           .delete_rows = w->options.delete_rows,
                                           .delete_backlog_rows = w->options.delete_backlog_rows,
                                           .copy_rows = 50000,
                                           .connect_timeout_ms = 5000,
                                           .statement_timeout_ms = 30000};
    if (w->driver->source_open(&w->source, w->d.url, &options, &e) != FERRY_OK) {
        fail_msg("%s", e.text);
    }
    w->broker = (struct relay_broker){.ctx = w,
                                      .elect = b_elect,
                                      .resign = b_resign,
                                      .partitions = b_partitions,
                                      .partition_of_key = b_partition_of_key,
                                      .cursor = b_cursor,
                                      .append = b_append,
                                      .checkpoint = b_checkpoint};
    assert_int_equal(relay_new(&w->relay, &w->options, &w->source, &w->broker, NULL, 1), FERRY_OK);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    relay_free(&w->relay);
    source_close(&w->source);
    database_disconnect(&w->writer);
    database_close(&w->d);
    free(w);
    return 0;
}

static size_t logged_of(const struct world *w, int topic, int key)
{
    size_t count = 0;
    for (size_t i = 0; i < w->logged[topic]; i++) {
        count += w->log[topic][i].key == key;
    }
    return count;
}

/* Rows 1 to `rows` of the key, once each and in this order. */
static void expect_all(const struct world *w, int topic, int key, int rows)
{
    int before = 0;
    for (size_t i = 0; i < w->logged[topic]; i++) {
        const struct entry *entry = &w->log[topic][i];
        if (entry->key == key && entry->number != ++before) {
            fail_msg("%s/%s: row %d comes where %d should", topics[topic], keys[key], entry->number,
                     before);
        }
    }
    assert_int_equal(before, rows);
}

static bool run_until(struct world *w, size_t rows)
{
    int64_t until_us = clock_monotonic_us() + PATIENCE_US;
    while (w->logged[0] + w->logged[1] < rows && clock_monotonic_us() < until_us) {
        turn(w);
    }
    return w->logged[0] + w->logged[1] >= rows;
}

/* The other topic's rows of the key flow, and freeing the key does not touch them. */
static void a_key_is_parked_in_one_topic_only(void **state)
{
    struct world *w = *state;
    struct err_text e = {{0}};
    for (int topic = 0; topic < TOPICS; topic++) {
        assert_true(put(w, topic, 0, 1));
    }
    assert_true(run_until(w, 2));
    assert_int_equal(w->driver->admin->park(w->d.url, "alpha", bytes_of_string("k"), &e), FERRY_OK);
    assert_int_equal(unpark(w, "beta", "k"), FERRY_ERR_UNKNOWN_MESSAGE);
    int64_t until_us = clock_monotonic_us() + 1100000;
    while (clock_monotonic_us() < until_us) {
        turn(w);
    }
    for (int number = 2; number <= 5; number++) {
        assert_true(put(w, 0, 0, number));
        assert_true(put(w, 1, 0, number));
        assert_true(put(w, 0, 1, number - 1));
    }
    assert_true(run_until(w, 2 + 8));
    expect_all(w, 0, 0, 1);
    expect_all(w, 1, 0, 5);
    assert_int_equal(unpark(w, "alpha", "k"), FERRY_OK);
    assert_true(run_until(w, 2 + 12));
    until_us = clock_monotonic_us() + 300000;
    while (clock_monotonic_us() < until_us) {
        turn(w); /* Nothing comes twice. */
    }
    expect_all(w, 0, 0, 5);
    expect_all(w, 1, 0, 5);
    expect_all(w, 0, 1, 4);
}

static void keys_are_parked_and_freed_under_load(void **state)
{
    struct world *w = *state;
    pthread_t writer, people;
    const size_t rows = (size_t)ROWS * TOPICS * KEYS;
    assert_int_equal(pthread_create(&writer, NULL, write_rows, w), 0);
    assert_int_equal(pthread_create(&people, NULL, decide, w), 0);
    int64_t until_us = clock_monotonic_us() + PATIENCE_US;
    while (clock_monotonic_us() < until_us &&
           (atomic_load(&w->decided) < DECISIONS || w->logged[0] + w->logged[1] < rows)) {
        turn(w);
    }
    pthread_join(writer, NULL);
    pthread_join(people, NULL);
    assert_false(atomic_load(&w->failed));
    for (int i = 0; i < 500; i++) {
        turn(w); /* Nothing comes twice. */
    }
    for (int topic = 0; topic < TOPICS; topic++) {
        for (int key = 0; key < KEYS; key++) {
            assert_int_equal(logged_of(w, topic, key), ROWS);
            expect_all(w, topic, key, ROWS);
        }
    }
}

int main(void)
{
    static enum database_kind kinds[DATABASE_KINDS];
    struct CMUnitTest tests[2 * DATABASE_KINDS];
    size_t count = 0;
    for (int kind = 0; kind < DATABASE_KINDS; kind++) {
        kinds[kind] = (enum database_kind)kind;
        if (!database_available(kinds[kind])) {
            continue;
        }
        tests[count++] =
            (struct CMUnitTest){"a_key_is_parked_in_one_topic_only",
                                a_key_is_parked_in_one_topic_only, setup, teardown, &kinds[kind]};
        tests[count++] = (struct CMUnitTest){"keys_are_parked_and_freed_under_load",
                                             keys_are_parked_and_freed_under_load, setup, teardown,
                                             &kinds[kind]};
    }
    return _cmocka_run_group_tests("parked", tests, count, NULL, NULL);
}
