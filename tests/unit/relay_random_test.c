/* The relay's core under random schedules: late commits, two relays that die, sleep and fence each
 * other, brokers that fail, whose answers are lost and whose questions are late, a database that is
 * busy, marks that are full, rows that are refused, keys that are parked and topics that grow. Each
 * row must come once, in the order of its key, and none may be left out. A schedule is its seed:
 * FERRY_TEST_SEED=N runs that one alone.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/random_database.h"
#include "outbox/relay/relay.h"
#include "outbox/relay/relay_kept.h"

#define SCHEDULES      2500
#define FIRST_SEED     20261126u
#define RELAYS         2
#define PARTITIONS_MAX 5
#define PENDING_MAX    48
#define BATCH_MAX      64
#define ROUNDS         150
#define DRAIN_ROUNDS   60000
#define LATE_MAX       64

struct part {
    int64_t *numbers; /* What is in the log: messages, by the numbers they were put under. */
    size_t count;
    struct ferry_cursor cursor; /* Its epoch is the greatest that it has seen. */
};

struct sent {
    int topic;
    int32_t partition;
    uint64_t expect, epoch;
    struct relay_kept_blob blob;
    int64_t numbers[BATCH_MAX];
    size_t count;
    ferry_append_cb *callback;
    void *arg;
};

struct world;

/* One relay's process. */
struct seat {
    struct world *w;
    int who; /* Another after each start. */
    uint64_t epoch;
    struct source source;
    struct relay_broker broker;
    struct relay *relay;
    struct sent pending[PENDING_MAX];
    size_t pending_count;
};

struct world {
    uint64_t seed;
    struct prng prng;
    struct db db;
    enum db_kind kind;
    struct relay_options options;
    int64_t now_us;

    int32_t partitions[DB_TOPICS]; /* 0: there is no such topic. */
    struct part parts[DB_TOPICS][PARTITIONS_MAX];
    struct sent late[LATE_MAX]; /* What nobody waits for any more, and still arrives. */
    size_t late_count;
    uint64_t epoch;
    int holder; /* 0: nobody. */
    int64_t lease_until_us;
    uint8_t checkpoint[FERRY_CURSOR_MAX_BYTES];
    size_t checkpoint_bytes;
    bool down;
    int lose_replies;
    size_t batch_max; /* More is TOO_LARGE at once. */
    bool name_refused;
    bool faults;
    bool people; /* Who park and free keys. */

    bool logged[DB_ROWS_MAX];
    struct seat seats[RELAYS];
    int last_who;
};

#define FAIL(w, ...)                                                                               \
    do {                                                                                           \
        print_error("seed %llu: ", (unsigned long long)(w)->seed);                                 \
        fail_msg(__VA_ARGS__);                                                                     \
    } while (0)

static bool chance(struct world *w, uint64_t of)
{
    return prng_below(&w->prng, of) == 0;
}

/* ---- The broker. */

static int topic_number(const char *name)
{
    for (int t = 0; t < DB_TOPICS; t++) {
        if (strcmp(db_topic_name(t), name) == 0) {
            return t;
        }
    }
    return -1;
}

static enum ferry_err b_elect(void *ctx, int64_t ttl_ms, int timeout_ms,
                              struct ferry_source_grant *grant)
{
    struct seat *s = ctx;
    struct world *w = s->w;
    (void)timeout_ms;
    if (w->down) {
        return FERRY_ERR_UNREACHABLE;
    }
    if (w->holder != 0 && w->holder != s->who && w->now_us < w->lease_until_us) {
        grant->standby = true;
        grant->retry_ms = (w->lease_until_us - w->now_us + 999) / 1000;
        return FERRY_OK;
    }
    w->epoch += w->holder != s->who;
    w->holder = s->who;
    w->lease_until_us = w->now_us + ttl_ms * 1000;
    if (w->faults && chance(w, 30)) {
        return FERRY_ERR_TIMEOUT; /* Elected all the same. */
    }
    s->epoch = w->epoch;
    grant->epoch = w->epoch;
    grant->checkpoint = w->checkpoint;
    grant->checkpoint_bytes = w->checkpoint_bytes;
    return FERRY_OK;
}

static enum ferry_err b_resign(void *ctx, int timeout_ms)
{
    struct seat *s = ctx;
    (void)timeout_ms;
    if (s->w->holder == s->who) {
        s->w->holder = 0;
    }
    return FERRY_OK;
}

static enum ferry_err b_partitions(void *ctx, const char *topic, int timeout_ms,
                                   int32_t *partitions)
{
    struct seat *s = ctx;
    struct world *w = s->w;
    (void)timeout_ms;
    *partitions = w->partitions[topic_number(topic)];
    return w->down ? FERRY_ERR_UNREACHABLE : *partitions == 0 ? FERRY_ERR_UNKNOWN_TOPIC : FERRY_OK;
}

static int32_t b_partition_of_key(const void *key, size_t key_bytes, int32_t partitions)
{
    const uint8_t *bytes = key;
    return key_bytes == 0 ? 0 : bytes[key_bytes - 1] % partitions;
}

static enum ferry_err b_cursor(void *ctx, const char *topic, int32_t partition, int timeout_ms,
                               struct ferry_cursor *cursor)
{
    struct seat *s = ctx;
    struct world *w = s->w;
    (void)timeout_ms;
    if (w->down || (w->faults && chance(w, 20))) {
        return FERRY_ERR_TIMEOUT;
    }
    *cursor = w->parts[topic_number(topic)][partition].cursor;
    return FERRY_OK;
}

static enum ferry_err b_fence(void *ctx, const char *topic, int32_t partition, uint64_t version,
                              int timeout_ms)
{
    struct seat *s = ctx;
    struct world *w = s->w;
    struct ferry_cursor *cursor = &w->parts[topic_number(topic)][partition].cursor;
    (void)timeout_ms;
    if (w->down || (w->faults && chance(w, 20))) {
        return FERRY_ERR_TIMEOUT;
    }
    if (s->epoch < cursor->epoch) {
        return FERRY_ERR_SOURCE_FENCED;
    }
    cursor->epoch = s->epoch;
    cursor->version = version > cursor->version ? version : cursor->version;
    return w->faults && chance(w, 20) ? FERRY_ERR_TIMEOUT : FERRY_OK;
}

static enum ferry_err b_append(void *ctx, const char *topic, int32_t partition, uint64_t expect,
                               const void *blob, size_t blob_bytes,
                               const struct ferry_message *messages, size_t count,
                               ferry_append_cb *callback, void *arg)
{
    struct seat *s = ctx;
    if (count > s->w->batch_max) {
        return FERRY_ERR_TOO_LARGE;
    }
    if (s->pending_count == PENDING_MAX || (s->w->faults && chance(s->w, 40))) {
        return FERRY_ERR_QUEUE_FULL;
    }
    struct sent *a = &s->pending[s->pending_count++];
    *a = (struct sent){.topic = topic_number(topic),
                       .partition = partition,
                       .expect = expect,
                       .epoch = s->epoch,
                       .count = count,
                       .callback = callback,
                       .arg = arg};
    a->blob.size = blob_bytes;
    memcpy(a->blob.data, blob, blob_bytes);
    for (size_t i = 0; i < count; i++) {
        char text[24];
        snprintf(text, sizeof(text), "%.*s", (int)messages[i].payload_bytes,
                 (const char *)messages[i].payload);
        a->numbers[i] = strtoll(text, NULL, 10);
    }
    return FERRY_OK;
}

static enum ferry_err b_checkpoint(void *ctx, const void *blob, size_t blob_bytes, int timeout_ms)
{
    struct seat *s = ctx;
    struct world *w = s->w;
    (void)timeout_ms;
    if (w->down || (w->faults && chance(w, 10))) {
        return FERRY_ERR_TIMEOUT;
    }
    if (s->epoch != w->epoch) {
        return FERRY_ERR_SOURCE_FENCED;
    }
    memcpy(w->checkpoint, blob, blob_bytes);
    w->checkpoint_bytes = blob_bytes;
    return FERRY_OK;
}

static void check_behind(struct world *w, const int64_t *numbers, size_t count, int64_t number)
{
    int key = w->db.rows[number - 1].key;
    for (size_t j = 0; j < count && key >= 0; j++) {
        if (w->db.rows[numbers[j] - 1].key == key && numbers[j] > number) {
            FAIL(w, "row %lld of key %d comes after row %lld", (long long)number, key,
                 (long long)numbers[j]);
        }
    }
}

/* The checker: a row in the log is committed, there once, not set aside, and behind its key's. */
static void check_stored(struct world *w, const struct sent *a)
{
    for (size_t i = 0; i < a->count; i++) {
        int64_t number = a->numbers[i];
        const struct db_row *row = db_row_of(&w->db, number);
        if (w->logged[number - 1]) {
            FAIL(w, "row %lld is in the log twice", (long long)number);
        }
        if (row->commit == 0 || row->aside || row->invalid || db_topic_of(row) != a->topic) {
            FAIL(w, "row %lld has no business in the log", (long long)number);
        }
        w->logged[number - 1] = true;
        check_behind(w, a->numbers, i, number);
        for (int32_t q = 0; q < PARTITIONS_MAX; q++) { /* Also of those that it had before. */
            const struct part *p = &w->parts[a->topic][q];
            check_behind(w, p->numbers, p->count, number);
        }
    }
}

static bool refused(struct world *w, const struct sent *a, struct ferry_append_result *result)
{
    for (size_t i = 0; i < a->count; i++) {
        if (w->db.rows[a->numbers[i] - 1].poison) {
            result->err = FERRY_ERR_BAD_BATCH;
            result->refused_index = w->name_refused ? i : SIZE_MAX;
            return true;
        }
    }
    return false;
}

static void store(struct world *w, const struct sent *a, struct ferry_append_result *result)
{
    *result = (struct ferry_append_result){.refused_index = SIZE_MAX, .base_offset = -1};
    struct part *p = &w->parts[a->topic][a->partition];
    if (a->epoch < p->cursor.epoch) {
        result->err = FERRY_ERR_SOURCE_FENCED;
    } else if (a->expect != p->cursor.version) {
        result->err = FERRY_ERR_CURSOR_CONFLICT;
        result->version = p->cursor.version;
    } else if (!refused(w, a, result)) {
        check_stored(w, a);
        memcpy(p->numbers + p->count, a->numbers, a->count * sizeof(a->numbers[0]));
        p->count += a->count;
        p->cursor.version++;
        p->cursor.epoch = a->epoch;
        p->cursor.blob_bytes = a->blob.size;
        memcpy(p->cursor.blob, a->blob.data, a->blob.size);
        if (w->lose_replies > 0) {
            w->lose_replies--;
            result->err = FERRY_ERR_TIMEOUT;
        }
    }
}

/* It may be lost, or only be late: longer than anybody waits, behind what was sent after it. */
static void not_now(struct world *w, const struct sent *a)
{
    if (w->late_count < LATE_MAX && chance(w, 2)) {
        w->late[w->late_count++] = *a;
    }
}

static void late_arrives(struct world *w)
{
    struct ferry_append_result result;
    size_t at = prng_below(&w->prng, w->late_count);
    struct sent a = w->late[at];
    w->late[at] = w->late[--w->late_count];
    store(w, &a, &result);
}

static void arrive(struct world *w, const struct sent *a, struct ferry_append_result *result)
{
    if (w->down || (w->faults && chance(w, 15))) {
        not_now(w, a);
        *result = (struct ferry_append_result){
            .err = FERRY_ERR_TIMEOUT, .refused_index = SIZE_MAX, .base_offset = -1};
    } else {
        store(w, a, result);
    }
}

static void drop_sent(struct seat *s, size_t at)
{
    memmove(&s->pending[at], &s->pending[at + 1],
            (s->pending_count - at - 1) * sizeof(s->pending[0]));
    s->pending_count--;
}

/* Answers what was sent, all of it or some: batches of one partition in their order. */
static void answer(struct seat *s, bool all)
{
    struct world *w = s->w;
    size_t count = all ? s->pending_count : prng_below(&w->prng, s->pending_count + 1);
    for (size_t n = 0; n < count && s->pending_count > 0; n++) {
        size_t at = all ? 0 : prng_below(&w->prng, s->pending_count);
        for (size_t i = 0; i < at; i++) {
            if (s->pending[i].topic == s->pending[at].topic &&
                s->pending[i].partition == s->pending[at].partition) {
                at = i;
            }
        }
        struct sent a = s->pending[at];
        struct ferry_append_result result;
        drop_sent(s, at);
        arrive(w, &a, &result);
        a.callback(&result, a.arg);
        relay_check(s->relay);
    }
}

/* ---- Relays. */

static void seat_start(struct world *w, struct seat *s)
{
    s->w = w;
    s->who = ++w->last_who;
    s->epoch = 0;
    s->pending_count = 0;
    assert_int_equal(db_source_open(&s->source, &w->db, w->kind), FERRY_OK);
    s->broker = (struct relay_broker){.ctx = s,
                                      .elect = b_elect,
                                      .resign = b_resign,
                                      .partitions = b_partitions,
                                      .partition_of_key = b_partition_of_key,
                                      .cursor = b_cursor,
                                      .append = b_append,
                                      .fence = b_fence,
                                      .checkpoint = b_checkpoint};
    assert_int_equal(
        relay_new(&s->relay, &w->options, &s->source, &s->broker, NULL, prng_next(&w->prng)),
        FERRY_OK);
}

/* As by kill -9: what was on its way arrives, or some of it, or nothing. */
static void seat_kill(struct seat *s)
{
    struct world *w = s->w;
    size_t in_time = prng_below(&w->prng, s->pending_count + 1);
    for (size_t i = 0; i < s->pending_count; i++) {
        struct ferry_append_result result;
        if (i < in_time) {
            arrive(w, &s->pending[i], &result);
        } else {
            not_now(w, &s->pending[i]);
        }
        result = (struct ferry_append_result){.err = FERRY_ERR_CLOSED, .refused_index = SIZE_MAX};
        s->pending[i].callback(&result, s->pending[i].arg); /* So that it can be freed. */
    }
    relay_free(&s->relay);
    source_close(&s->source);
}

static void seat_step(struct seat *s)
{
    struct relay_status before;
    struct relay_status after;
    relay_status(s->relay, &before);
    int64_t due_us = relay_step(s->relay, s->w->now_us);
    relay_check(s->relay);
    relay_status(s->relay, &after);
    if (after.state == RELAY_HALTED) {
        FAIL(s->w, "halted: %s", after.error.text);
    }
    bool same_time = before.state == RELAY_ACTIVE && after.state == RELAY_ACTIVE &&
                     before.stats.elections == after.stats.elections;
    if (same_time && after.settled < before.settled) {
        FAIL(s->w, "the low mark fell from %lld to %lld", (long long)before.settled,
             (long long)after.settled);
    }
    if (due_us == INT64_MAX) {
        FAIL(s->w, "it waits for ever");
    }
}

/* ---- Schedules. */

static void fault(struct world *w)
{
    struct seat *s = &w->seats[prng_below(&w->prng, RELAYS)];
    switch (prng_below(&w->prng, 10)) {
    case 0:
        w->down = !w->down;
        break;
    case 1:
        w->lose_replies = 1 + (int)prng_below(&w->prng, 4);
        break;
    case 2:
    case 3:
        seat_kill(s);
        seat_start(w, s);
        break;
    case 4:
        w->now_us += (int64_t)prng_below(&w->prng, 3000000);
        break;
    case 5:
        w->now_us = w->now_us > w->lease_until_us ? w->now_us : w->lease_until_us;
        w->epoch++; /* Somebody was elected, once the lease was over, and is gone. */
        w->holder = 0;
        break;
    case 6:
        w->db.error_in = chance(w, 2) ? 0 : 1 + (uint32_t)prng_below(&w->prng, 20);
        break;
    case 7:
        relay_wake(s->relay);
        break;
    default:
        break;
    }
}

/* Topics appear one after another; their partitions never change. */
static void create_topic(struct world *w, int topic)
{
    if (w->partitions[topic] == 0) {
        w->partitions[topic] = 1 + (int32_t)prng_below(&w->prng, PARTITIONS_MAX - 2);
    }
}

static void grow_topic(struct world *w, int topic)
{
    if (w->partitions[topic] > 0 && w->partitions[topic] < PARTITIONS_MAX) {
        w->partitions[topic]++;
    }
}

/* A key is parked, or freed; sometimes both before a relay has looked. */
static void decide(struct world *w)
{
    int key = (int)prng_below(&w->prng, DB_KEYS);
    if (!w->db.parked[key]) {
        db_park(&w->db, key);
    } else {
        (void)db_unpark(&w->db, key);
    }
    if (chance(w, 4)) {
        (void)db_unpark(&w->db, key);
    }
    w->now_us += chance(w, 3) ? (int64_t)prng_below(&w->prng, 500000) : 0;
}

static void round_of(struct world *w)
{
    for (uint64_t n = prng_below(&w->prng, 8); n > 0; n--) {
        db_step(&w->db, true);
    }
    /* Mostly one relay runs; the other sleeps, and is a zombie when it wakes. */
    struct seat *s = &w->seats[prng_below(&w->prng, 5) == 0];
    for (uint64_t n = prng_below(&w->prng, 6); n > 0; n--) {
        seat_step(s);
        w->now_us += (int64_t)prng_below(&w->prng, 4000);
        if (chance(w, 2)) {
            answer(s, false);
        }
    }
    if (chance(w, 20)) {
        create_topic(w, (int)prng_below(&w->prng, DB_TOPICS));
    }
    if (chance(w, 20)) {
        grow_topic(w, (int)prng_below(&w->prng, DB_TOPICS));
    }
    if (chance(w, 4)) {
        fault(w);
    }
    if (w->people && chance(w, 6)) {
        decide(w);
    }
    if (w->late_count > 0 && chance(w, 4)) {
        late_arrives(w);
    }
}

static bool row_is_done(const struct world *w, size_t i)
{
    const struct db_row *row = db_row_of(&w->db, w->db.rows[i].message);
    return row->commit == 0 || row->aside || w->logged[row->message - 1];
}

static void heal(struct world *w)
{
    w->faults = false;
    w->down = false;
    w->lose_replies = 0;
    w->db.error_in = 0;
    for (int topic = 0; topic < DB_TOPICS; topic++) {
        create_topic(w, topic);
    }
    db_commit_all(&w->db);
}

static bool all_is_done(const struct world *w)
{
    for (size_t i = 0; i < w->db.count; i++) {
        if (!row_is_done(w, i)) {
            return false;
        }
    }
    return true;
}

static void drain(struct world *w)
{
    for (int n = 0; n < DRAIN_ROUNDS; n++) {
        for (int i = 0; i < RELAYS; i++) {
            seat_step(&w->seats[i]);
            answer(&w->seats[i], true);
        }
        w->now_us += 5000;
        if (w->late_count > 0 && chance(w, 4)) {
            late_arrives(w);
        }
        if (w->late_count == 0 && all_is_done(w)) {
            return;
        }
    }
    for (size_t i = 0; i < w->db.count; i++) {
        if (!row_is_done(w, i)) {
            struct relay_status status[RELAYS];
            relay_status(w->seats[0].relay, &status[0]);
            relay_status(w->seats[1].relay, &status[1]);
            FAIL(w, "row %zu of %zu is left out by the driver %d: %s %s, %s %s", i + 1, w->db.count,
                 w->kind, relay_state_name(status[0].state), status[0].error.text,
                 relay_state_name(status[1].state), status[1].error.text);
        }
    }
}

/* Set aside: refused rows, and with parked keys all that came behind them; nothing else. */
static void check_aside(struct world *w)
{
    bool parked[DB_KEYS] = {false};
    for (size_t i = 0; i < w->db.count; i++) {
        const struct db_row *row = &w->db.rows[i];
        bool bad = row->poison || row->invalid;
        bool behind = row->key >= 0 && parked[row->key];
        if (row->commit != 0 && row->aside && !bad && !behind) {
            FAIL(w, "row %zu is set aside for nothing", i + 1);
        }
        if (row->commit != 0 && !row->aside && behind) {
            FAIL(w, "row %zu of a parked key was published", i + 1);
        }
        if (row->commit != 0 && row->key >= 0 && row->poison && !row->invalid &&
            w->options.poison == RELAY_POISON_PARK_KEY) {
            parked[row->key] = true;
        }
    }
}

/* Frees keys until none is left that has rows; a refused row parks its key once more. */
static void free_all(struct world *w)
{
    for (size_t i = 0; i < w->db.count; i++) {
        const struct db_row *row = &w->db.rows[i];
        if (row->as_parked && row->moved == 0) {
            if (!db_unpark(&w->db, row->key)) {
                return; /* No room: what is parked stays. */
            }
            w->now_us += 1100000;
            drain(w);
        }
    }
}

/* Only what is no message, or is refused, is left; and what there was no room for. */
static void check_freed(struct world *w)
{
    for (size_t i = 0; i < w->db.count; i++) {
        const struct db_row *row = &w->db.rows[i];
        if (row->commit != 0 && row->moved == 0 && row->aside && !row->as_parked && !row->poison &&
            !row->invalid) {
            FAIL(w, "row %zu is set aside for nothing", i + 1);
        }
    }
}

static void world_init(struct world *w, uint64_t seed)
{
    *w = (struct world){.seed = seed, .now_us = 1000000, .faults = true};
    prng_init(&w->prng, seed);
    w->db.prng = &w->prng;
    w->kind = chance(w, 2) ? DB_PENDING : DB_SNAPSHOT;
    w->db.mark_ids = chance(w, 2) ? DB_IDS_MAX - BATCH_MAX : 1 + prng_below(&w->prng, 12);
    w->batch_max = chance(w, 4) ? 1 + prng_below(&w->prng, 4) : BATCH_MAX;
    w->name_refused = chance(w, 2);
    option_defaults(relay_options_table(), &w->options);
    w->options.page_rows = 1 + (int64_t)prng_below(&w->prng, chance(w, 2) ? 8 : 60);
    w->options.batch_rows = 1 + (int64_t)prng_below(&w->prng, chance(w, 2) ? 4 : 30);
    w->options.window = 1 + (int64_t)prng_below(&w->prng, 5);
    w->options.poison = chance(w, 2) ? RELAY_POISON_DEAD : RELAY_POISON_PARK_KEY;
    w->people = chance(w, 2);
    for (int t = 0; t < DB_TOPICS; t++) {
        for (int p = 0; p < PARTITIONS_MAX; p++) {
            w->parts[t][p].numbers = calloc(DB_ROWS_MAX, sizeof(int64_t));
            assert_non_null(w->parts[t][p].numbers);
        }
        if (chance(w, 2)) {
            create_topic(w, t);
        }
    }
    for (int i = 0; i < RELAYS; i++) {
        seat_start(w, &w->seats[i]);
    }
}

static void world_fini(struct world *w)
{
    for (int i = 0; i < RELAYS; i++) {
        seat_kill(&w->seats[i]);
    }
    for (int t = 0; t < DB_TOPICS; t++) {
        for (int p = 0; p < PARTITIONS_MAX; p++) {
            free(w->parts[t][p].numbers);
        }
    }
}

static volatile uint64_t running; /* For tell_seed alone. */

/* An assertion of the relay's ends the process: it is to be known which schedule that was. */
static void tell_seed(int signal_number)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "FERRY_TEST_SEED=%llu\n", (unsigned long long)running);
    (void)signal_number;
    (void)!write(STDERR_FILENO, text, (size_t)n);
}

static size_t run(uint64_t seed)
{
    running = seed;
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    world_init(w, seed);
    for (int n = 0; n < ROUNDS; n++) {
        round_of(w);
    }
    heal(w);
    drain(w);
    if (w->people) {
        free_all(w);
        check_freed(w);
    } else {
        check_aside(w);
    }
    size_t rows = w->db.count;
    world_fini(w);
    free(w);
    return rows;
}

/* Of more schedules than are run each time. */
static const uint64_t failed_once[] = {20281149};

static void every_row_comes_once_in_order_whatever_happens(void **state)
{
    (void)state;
    const char *one = getenv("FERRY_TEST_SEED");
    size_t rows = 0;
    if (one != NULL) {
        (void)run(strtoull(one, NULL, 10));
        return;
    }
    print_message("seeds %u to %u\n", FIRST_SEED, FIRST_SEED + SCHEDULES - 1);
    for (uint64_t i = 0; i < SCHEDULES; i++) {
        rows += run(FIRST_SEED + i);
    }
    for (size_t i = 0; i < sizeof(failed_once) / sizeof(failed_once[0]); i++) {
        rows += run(failed_once[i]);
    }
    print_message("%zu rows\n", rows);
}

int main(void)
{
    const struct sigaction action = {.sa_handler = tell_seed, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGABRT, &action, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_comes_once_in_order_whatever_happens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
