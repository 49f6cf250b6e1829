/* relay_fixture: a broker in memory that answers when the test says so and fails as the test says,
 * and a relay between it and a SQLite outbox. Time is a number that the test moves. */
#ifndef FERRY_TESTS_RELAY_FIXTURE_H
#define FERRY_TESTS_RELAY_FIXTURE_H

#include "outbox_fixture.h"

#include "outbox/relay/relay.h"
#include "outbox/relay/relay_kept.h"
#include "outbox/sqlite/open_sqlite.h"
#include "outbox/sqlite/relay_lock.h"

#define FAKE_TOPICS      4
#define FAKE_PARTITIONS  4
#define FAKE_RECORDS_MAX 20000
#define FAKE_PENDING_MAX 64
#define FAKE_STEPS_MAX   4000

struct fake_record {
    char payload[24];
    char key[8];
    struct ferry_id id;
    size_t headers;
    int64_t due_ms;
};

struct fake_partition {
    struct fake_record *records;
    size_t count;
    struct ferry_cursor cursor;
};

struct fake_topic {
    char name[32];
    int32_t partitions; /* 0: does not exist. */
    struct fake_partition partition[FAKE_PARTITIONS];
};

struct fake_append {
    struct fake_topic *topic;
    int32_t partition;
    uint64_t expect;
    uint64_t epoch;
    uint8_t blob[64];
    size_t blob_bytes;
    struct fake_record *records;
    size_t count;
    ferry_append_cb *callback;
    void *arg;
};

/* The brokers, as all relays see them. */
struct fake {
    struct fake_topic topics[FAKE_TOPICS];
    uint64_t epoch; /* Of the last election. */
    int holder;     /* Who holds the lease; 0: nobody. */
    int64_t lease_until_us;
    int64_t now_us;
    uint8_t checkpoint[RELAY_KEPT_MAX_BYTES];
    size_t checkpoint_bytes;

    bool down;             /* Every question fails, every append times out without being stored. */
    int lose_replies;      /* So many appends are stored, and answered with TIMEOUT. */
    const char *refused;   /* A payload that is refused; NULL: none. */
    bool name_refused;     /* The refusal says which one. */
    size_t batch_rows_max; /* Larger batches are refused at once with TOO_LARGE; 0: no limit. */
    uint64_t appends;
};

/* One relay's connection. */
struct fake_link {
    struct fake *fake;
    int who;
    uint64_t epoch;
    struct fake_append pending[FAKE_PENDING_MAX];
    size_t pending_count;
};

struct rig {
    struct fixture *f;
    struct fake fake;
    struct relay_options options;
    struct source source;
    struct fake_link link;
    struct relay_broker broker;
    struct relay *relay;
    int64_t due_us; /* What the last step asked for. */
};

static inline struct fake_topic *fake_topic(struct fake *fake, const char *name)
{
    for (size_t i = 0; i < FAKE_TOPICS; i++) {
        if (fake->topics[i].partitions > 0 && strcmp(fake->topics[i].name, name) == 0) {
            return &fake->topics[i];
        }
    }
    return NULL;
}

static inline struct fake_topic *fake_create(struct fake *fake, const char *name, int partitions)
{
    for (size_t i = 0; i < FAKE_TOPICS; i++) {
        if (fake->topics[i].partitions == 0) {
            struct fake_topic *t = &fake->topics[i];
            snprintf(t->name, sizeof(t->name), "%s", name);
            t->partitions = partitions;
            for (int p = 0; p < partitions; p++) {
                t->partition[p].records = calloc(FAKE_RECORDS_MAX, sizeof(struct fake_record));
            }
            return t;
        }
    }
    fail_msg("no room for topic %s", name);
    return NULL;
}

static inline enum ferry_err fake_elect(void *ctx, int64_t ttl_ms, int timeout_ms,
                                        struct ferry_source_grant *grant)
{
    struct fake_link *link = ctx;
    struct fake *fake = link->fake;
    (void)timeout_ms;
    if (fake->down) {
        return FERRY_ERR_UNREACHABLE;
    }
    bool free = fake->holder == 0 || fake->now_us >= fake->lease_until_us;
    if (!free && fake->holder != link->who) {
        grant->standby = true;
        grant->retry_ms = (fake->lease_until_us - fake->now_us + 999) / 1000;
        return FERRY_OK;
    }
    if (fake->holder != link->who) {
        fake->epoch++;
    }
    fake->holder = link->who;
    fake->lease_until_us = fake->now_us + ttl_ms * 1000;
    link->epoch = fake->epoch;
    grant->epoch = fake->epoch;
    grant->checkpoint = fake->checkpoint;
    grant->checkpoint_bytes = fake->checkpoint_bytes;
    return FERRY_OK;
}

static inline enum ferry_err fake_resign(void *ctx, int timeout_ms)
{
    struct fake_link *link = ctx;
    (void)timeout_ms;
    if (link->fake->holder == link->who) {
        link->fake->holder = 0;
    }
    return FERRY_OK;
}

static inline enum ferry_err fake_partitions(void *ctx, const char *topic, int timeout_ms,
                                             int32_t *partitions)
{
    struct fake_link *link = ctx;
    (void)timeout_ms;
    const struct fake_topic *t = fake_topic(link->fake, topic);
    if (link->fake->down) {
        return FERRY_ERR_UNREACHABLE;
    }
    if (t == NULL) {
        return FERRY_ERR_UNKNOWN_TOPIC;
    }
    *partitions = t->partitions;
    return FERRY_OK;
}

static inline int32_t fake_partition_of_key(const void *key, size_t key_bytes, int32_t partitions)
{
    const uint8_t *bytes = key;
    return key_bytes == 0 ? 0 : bytes[key_bytes - 1] % partitions;
}

static inline enum ferry_err fake_cursor(void *ctx, const char *topic, int32_t partition,
                                         int timeout_ms, struct ferry_cursor *cursor)
{
    struct fake_link *link = ctx;
    (void)timeout_ms;
    struct fake_topic *t = fake_topic(link->fake, topic);
    if (link->fake->down) {
        return FERRY_ERR_TIMEOUT;
    }
    if (t == NULL) {
        return FERRY_ERR_UNKNOWN_TOPIC;
    }
    *cursor = t->partition[partition].cursor;
    return FERRY_OK;
}

static inline enum ferry_err fake_append_queue(void *ctx, const char *topic, int32_t partition,
                                               uint64_t expect, const void *blob, size_t blob_bytes,
                                               const struct ferry_message *messages, size_t count,
                                               ferry_append_cb *callback, void *arg)
{
    struct fake_link *link = ctx;
    if (link->fake->batch_rows_max > 0 && count > link->fake->batch_rows_max) {
        return FERRY_ERR_TOO_LARGE;
    }
    if (link->pending_count == FAKE_PENDING_MAX) {
        return FERRY_ERR_QUEUE_FULL;
    }
    struct fake_append *a = &link->pending[link->pending_count++];
    *a = (struct fake_append){.topic = fake_topic(link->fake, topic),
                              .partition = partition,
                              .expect = expect,
                              .epoch = link->epoch,
                              .blob_bytes = blob_bytes,
                              .count = count,
                              .callback = callback,
                              .arg = arg};
    memcpy(a->blob, blob, blob_bytes);
    a->records = calloc(count, sizeof(*a->records));
    for (size_t i = 0; i < count; i++) {
        snprintf(a->records[i].payload, sizeof(a->records[i].payload), "%.*s",
                 (int)messages[i].payload_bytes, (const char *)messages[i].payload);
        snprintf(a->records[i].key, sizeof(a->records[i].key), "%.*s", (int)messages[i].key_bytes,
                 messages[i].key == NULL ? "" : (const char *)messages[i].key);
        a->records[i].id = messages[i].id;
        a->records[i].headers = messages[i].header_count;
        a->records[i].due_ms = messages[i].due_ms;
        assert_int_equal(messages[i].due_ms != 0, messages[0].due_ms != 0); /* As the broker. */
    }
    return FERRY_OK;
}

static inline enum ferry_err fake_checkpoint(void *ctx, const void *blob, size_t blob_bytes,
                                             int timeout_ms)
{
    struct fake_link *link = ctx;
    (void)timeout_ms;
    if (link->fake->down) {
        return FERRY_ERR_TIMEOUT;
    }
    if (link->epoch != link->fake->epoch) {
        return FERRY_ERR_SOURCE_FENCED;
    }
    memcpy(link->fake->checkpoint, blob, blob_bytes);
    link->fake->checkpoint_bytes = blob_bytes;
    return FERRY_OK;
}

static inline enum ferry_err fake_fence(void *ctx, const char *topic, int32_t partition,
                                        uint64_t version, int timeout_ms)
{
    struct fake_link *link = ctx;
    struct fake_topic *t = fake_topic(link->fake, topic);
    (void)timeout_ms;
    if (link->fake->down || t == NULL) {
        return link->fake->down ? FERRY_ERR_TIMEOUT : FERRY_ERR_UNKNOWN_TOPIC;
    }
    struct ferry_cursor *cursor = &t->partition[partition].cursor;
    if (link->epoch < link->fake->epoch) {
        return FERRY_ERR_SOURCE_FENCED;
    }
    cursor->epoch = link->epoch;
    cursor->version = version > cursor->version ? version : cursor->version;
    return FERRY_OK;
}

/* What a broker does with an append: all checks and both effects, or nothing. */
static inline void fake_store(struct fake *fake, struct fake_append *a,
                              struct ferry_append_result *result)
{
    *result = (struct ferry_append_result){.refused_index = SIZE_MAX, .base_offset = -1};
    fake->appends++;
    if (fake->down) {
        result->err = FERRY_ERR_TIMEOUT;
        return;
    }
    if (a->topic == NULL || a->topic->partitions == 0) {
        result->err = FERRY_ERR_UNKNOWN_TOPIC;
        return;
    }
    struct fake_partition *p = &a->topic->partition[a->partition];
    if (a->epoch < fake->epoch) {
        result->err = FERRY_ERR_SOURCE_FENCED;
        return;
    }
    if (a->expect != p->cursor.version) {
        result->err = FERRY_ERR_CURSOR_CONFLICT;
        result->cursor = &p->cursor;
        result->version = p->cursor.version;
        return;
    }
    for (size_t i = 0; fake->refused != NULL && i < a->count; i++) {
        if (strcmp(a->records[i].payload, fake->refused) == 0) {
            result->err = FERRY_ERR_BAD_BATCH;
            result->refused_index = fake->name_refused ? i : SIZE_MAX;
            result->detail = "the record is bad";
            return;
        }
    }
    assert_true(p->count + a->count <= FAKE_RECORDS_MAX);
    result->base_offset = (int64_t)p->count;
    memcpy(&p->records[p->count], a->records, a->count * sizeof(*a->records));
    p->count += a->count;
    p->cursor.version++;
    p->cursor.epoch = a->epoch;
    p->cursor.blob_bytes = a->blob_bytes;
    memcpy(p->cursor.blob, a->blob, a->blob_bytes);
    result->version = p->cursor.version;
    if (fake->lose_replies > 0) {
        fake->lose_replies--;
        result->err = FERRY_ERR_TIMEOUT;
    }
}

/* Stores and answers what one relay has sent: its ferry_poll. */
static inline void fake_answer(struct fake_link *link)
{
    size_t count = link->pending_count;
    for (size_t i = 0; i < count; i++) {
        struct fake_append a = link->pending[i];
        struct ferry_append_result result;
        fake_store(link->fake, &a, &result);
        a.callback(&result, a.arg);
        free(a.records);
    }
    memmove(link->pending, link->pending + count,
            (link->pending_count - count) * sizeof(link->pending[0]));
    link->pending_count -= count;
}

/* The relay dies: its callbacks never run. `stored`: what it had sent arrives all the same. */
static inline void fake_forget(struct fake_link *link, bool stored)
{
    for (size_t i = 0; i < link->pending_count; i++) {
        struct ferry_append_result result;
        if (stored) {
            fake_store(link->fake, &link->pending[i], &result);
        }
        result = (struct ferry_append_result){.err = FERRY_ERR_CLOSED, .refused_index = SIZE_MAX};
        link->pending[i].callback(&result, link->pending[i].arg); /* So that it can be freed. */
        free(link->pending[i].records);
    }
    link->pending_count = 0;
}

static inline enum ferry_err rig_open_source(const struct rig *g, struct source *source,
                                             bool stand_by, struct err_text *e)
{
    char url[160];
    const struct source_options options = {
        .barrier = true,
        .stand_by = stand_by,
        .tidy = true,
        .delete_rows = g->options.delete_rows,
        .delete_backlog_rows = g->options.delete_backlog_rows,
    };
    snprintf(url, sizeof(url), "sqlite:%s", g->f->path);
    return source_sqlite_open(source, url, &options, e);
}

static inline void rig_start_relay(struct rig *g, int who)
{
    struct err_text e = {{0}};
    if (rig_open_source(g, &g->source, false, &e) != FERRY_OK) {
        fail_msg("%s", e.text);
    }
    g->link = (struct fake_link){.fake = &g->fake, .who = who};
    g->broker = (struct relay_broker){
        .ctx = &g->link,
        .elect = fake_elect,
        .resign = fake_resign,
        .partitions = fake_partitions,
        .partition_of_key = fake_partition_of_key,
        .cursor = fake_cursor,
        .append = fake_append_queue,
        .fence = fake_fence,
        .checkpoint = fake_checkpoint,
    };
    assert_int_equal(relay_new(&g->relay, &g->options, &g->source, &g->broker, NULL, (uint64_t)who),
                     FERRY_OK);
}

/* As by kill -9. */
static inline void rig_kill_relay(struct rig *g, bool stored)
{
    fake_forget(&g->link, stored);
    relay_free(&g->relay);
    source_close(&g->source);
}

static inline void rig_step(struct rig *g)
{
    g->due_us = relay_step(g->relay, g->fake.now_us);
    relay_check(g->relay);
    g->fake.now_us += 1000;
}

static inline struct relay_status rig_status(struct rig *g)
{
    struct relay_status status;
    relay_status(g->relay, &status);
    return status;
}

/* Steps and answers until everything is settled. */
static inline void rig_drain(struct rig *g)
{
    for (int i = 0; i < FAKE_STEPS_MAX; i++) {
        rig_step(g);
        fake_answer(&g->link);
        relay_check(g->relay);
        struct relay_status status = rig_status(g);
        if (status.caught_up && status.backlog_rows == 0) {
            return;
        }
    }
    struct relay_status status = rig_status(g);
    fail_msg("not drained: %s, backlog %lld, %s", relay_state_name(status.state),
             (long long)status.backlog_rows, status.error.text);
}

static inline void rig_run(struct rig *g, int64_t ms)
{
    int64_t until_us = g->fake.now_us + ms * 1000;
    while (g->fake.now_us < until_us) {
        rig_step(g);
        fake_answer(&g->link);
        relay_check(g->relay);
    }
}

/* Rows first..last to a topic, payload "row N", key "kX" over `keys` keys (0: none). */
static inline void rig_put(struct rig *g, const char *topic, int first, int last, int keys)
{
    fixture_exec(g->f, "BEGIN");
    for (int i = first; i <= last; i++) {
        char payload[32];
        char key[16];
        snprintf(payload, sizeof(payload), "row %d", i);
        snprintf(key, sizeof(key), "k%d", keys == 0 ? 0 : i % keys);
        struct ferry_message m = {
            .topic = topic, .payload = payload, .payload_bytes = strlen(payload)};
        if (keys > 0) {
            m.key = key;
            m.key_bytes = strlen(key);
        }
        assert_int_equal(ferry_outbox_put(g->f->db, &m, NULL), FERRY_OK);
    }
    fixture_exec(g->f, "COMMIT");
}

/* The topic has rows first..last, each once; in each key in order. `without` is not there. */
static inline void rig_expect(struct rig *g, const char *topic, int first, int last, int without)
{
    const struct fake_topic *t = fake_topic(&g->fake, topic);
    int seen[FAKE_RECORDS_MAX] = {0};
    assert_non_null(t);
    for (int p = 0; p < t->partitions; p++) {
        int newest[256] = {0};
        for (size_t i = 0; i < t->partition[p].count; i++) {
            const struct fake_record *record = &t->partition[p].records[i];
            int row = -1;
            assert_int_equal(sscanf(record->payload, "row %d", &row), 1);
            assert_in_range(row, first, last);
            seen[row]++;
            if (record->key[0] != '\0') {
                unsigned char key = (unsigned char)record->key[strlen(record->key) - 1];
                assert_true(row > newest[key]); /* The order of a key. */
                newest[key] = row;
            }
        }
    }
    for (int row = first; row <= last; row++) {
        if (seen[row] != (row == without ? 0 : 1)) {
            fail_msg("row %d is in the log %d times", row, seen[row]);
        }
    }
}

static inline int rig_setup(void **state)
{
    struct rig *g = calloc(1, sizeof(*g));
    assert_non_null(g);
    void *f = NULL;
    fixture_setup(&f);
    g->f = f;
    option_defaults(relay_options_table(), &g->options);
    g->options.page_rows = 100;
    g->options.batch_rows = 16;
    g->fake.now_us = 1000000;
    rig_start_relay(g, 1);
    *state = g;
    return 0;
}

static inline int rig_teardown(void **state)
{
    struct rig *g = *state;
    if (g->relay != NULL) {
        rig_kill_relay(g, false);
    }
    for (size_t i = 0; i < FAKE_TOPICS; i++) {
        for (int p = 0; p < FAKE_PARTITIONS; p++) {
            free(g->fake.topics[i].partition[p].records);
        }
    }
    void *f = g->f;
    fixture_teardown(&f);
    free(g);
    return 0;
}

#define RIG_TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

#endif
