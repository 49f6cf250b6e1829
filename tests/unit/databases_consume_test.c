/* The loops of ferry_consume_tx and ferry_receive_tx on every database: handlers that fail, records
 * that come twice, connections that are lost at the worst moment. */
#include "databases_fixture.h"

#include <pthread.h>

#include "consume_log.h"
#include "outbox/app/db.h"
#include "outbox/app/receive_loop.h"
#include "wire/batch.h"

#define DAY_MS      (24LL * 60 * 60 * 1000)
#define RECORDS_MAX 64

/* A log in memory, and what the handler does with it. */
struct run {
    struct database *d;
    struct consume_log log;
    struct ferry_record records[RECORDS_MAX];
    struct ferry_consume_options options;
    int64_t fail_at; /* -1: never. */
    int fail_times;
    int64_t kill_at;     /* The connection is killed behind the handler of it, once; -1: never. */
    int64_t deadlock_at; /* The handler of it keeps to itself that it met one, once; -1: never. */
    bool goes_on;        /* And does more after it. */
    int64_t swallow_at;  /* A statement of its handler fails and it does not say so; -1: never. */
    int calls, reconnects;
    /* Of a queue: what became of each. */
    enum ferry_settle settled[RECORDS_MAX];
    uint32_t failed[RECORDS_MAX];
};

static struct run *owner;

static void *lock_the_other_way(void *arg)
{
    struct database_link *other = arg;
    database_try(other, "UPDATE pair SET n = 3 WHERE n = 1"); /* The lock that we hold. */
    return NULL;
}

/* The other one has done more, so the server takes us for the victim and rolls all back. */
static void meet_deadlock(struct run *r)
{
    struct database_link other;
    pthread_t thread;
    database_connect(r->d, &other);
    database_exec(&other, "START TRANSACTION");
    database_exec(&other, "INSERT INTO weight SELECT seq FROM seq_1_to_500");
    database_exec(&other, "UPDATE pair SET n = 4 WHERE n = 2");
    database_exec(&r->d->a, "SELECT n FROM pair WHERE n = 1 FOR UPDATE");
    assert_int_equal(pthread_create(&thread, NULL, lock_the_other_way, &other), 0);
    assert_false(database_try(&r->d->a, "SELECT n FROM pair WHERE n = 2 FOR UPDATE"));
    pthread_join(thread, NULL);
    database_exec(&other, "ROLLBACK");
    database_disconnect(&other);
}

static enum ferry_err insert_effect(const struct ferry_record *record, struct ferry_db *db,
                                    void *arg)
{
    struct run *r = arg;
    char sql[96];
    (void)db;
    r->calls++;
    assert_string_equal(record->topic, "orders");
    snprintf(sql, sizeof(sql), "INSERT INTO effect VALUES (%lld)", (long long)record->offset);
    if (!database_try(&r->d->a, sql)) {
        return FERRY_ERR_DB; /* As a handler says it that knows no better. */
    }
    if (record->offset == r->deadlock_at) {
        r->deadlock_at = -1;
        meet_deadlock(r);
        if (r->goes_on) {
            database_exec(&r->d->a, sql);
        }
    }
    if (record->offset == r->swallow_at) {
        assert_false(database_try(&r->d->a, "SELECT n FROM not_there"));
    }
    if (record->offset == r->kill_at) {
        r->kill_at = -1;
        database_kill(r->d, &r->d->a);
    }
    if (record->offset == r->fail_at && r->fail_times > 0) {
        r->fail_times--;
        return FERRY_ERR_DENIED;
    }
    return FERRY_OK;
}

static enum ferry_err connect_again(struct ferry_db **db, void *arg)
{
    struct run *r = arg;
    r->reconnects++;
    database_reconnect(r->d, &r->d->a);
    *db = r->d->a.db;
    return FERRY_OK;
}

static struct run run_of(struct database *d, int64_t end)
{
    struct run r = {.d = d,
                    .log = consume_log_of(end, 8),
                    .fail_at = -1,
                    .kill_at = -1,
                    .deadlock_at = -1,
                    .swallow_at = -1};
    int64_t now = (int64_t)time(NULL) * 1000;
    static const char *const keys[] = {"a", "b"};
    for (int64_t i = 0; i < end; i++) {
        r.records[i] = (struct ferry_record){
            .topic = "orders",
            .offset = i,
            .timestamp_ms = now,
            .append_time_ms = now,
            .key = keys[i % 2],
            .key_bytes = 1,
            .payload = "x",
            .payload_bytes = 1,
            .id = {{7, (uint8_t)i}},
        };
    }
    r.options = (struct ferry_consume_options){
        .group = "ledger", .idle_exit_ms = 3000, .retries_max = 3, .reconnect = connect_again};
    database_exec(&d->a, "CREATE TABLE effect (n INTEGER)");
    return r;
}

static enum ferry_err consume(struct run *r)
{
    const struct consume_source source = consume_log_source(&r->log);
    owner = r;
    r->log.records = r->records;
    return consume_loop(&source, r->d->a.db, insert_effect, r, &r->options);
}

static void expect_effects(struct run *r, int64_t count)
{
    assert_int_equal(database_number(&r->d->a, "SELECT count(*) FROM effect"), count);
    assert_int_equal(database_number(&r->d->a, "SELECT count(DISTINCT n) FROM effect"), count);
}

/* A person puts all dead letters before the handler again. */
static void requeue_all(struct run *r)
{
    database_exec(&r->d->a, r->d->kind == DATABASE_POSTGRESQL
                                ? "UPDATE {inbox_dead} SET requeued = true"
                                : "UPDATE {inbox_dead} SET requeued = 1");
}

static void every_record_has_one_effect(void **state)
{
    struct run r = run_of(database_of(state), 50);
    r.options.batch_max = 3;
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 50);
    assert_int_equal(database_number(&r.d->a, "SELECT count(*) FROM {inbox_chain}"), 6 * 3 + 1);
}

static void a_bad_record_becomes_a_dead_letter_and_the_rest_goes_on(void **state)
{
    struct run r = run_of(database_of(state), 20);
    struct ferry_consume_figures counted = {0};
    r.options.poison = FERRY_POISON_DEAD;
    r.options.figures = &counted;
    r.fail_at = 9;
    r.fail_times = 3;
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 19);
    assert_int_equal(counted.fresh, 19);
    assert_int_equal(counted.dead, 1);
    assert_int_equal(counted.retries, 3);
    assert_int_equal(counted.handler_calls, r.calls);
    assert_int_equal(r.calls, 20 + 1 + 2); /* Offsets 8 and 9 in the batch, 9 twice alone. */
    assert_int_equal(database_number(&r.d->a, "SELECT off FROM {inbox_dead}"), 9);
    assert_non_null(strstr(database_text(&r.d->a, "SELECT reason FROM {inbox_dead}"), "DENIED"));
    requeue_all(&r);
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 20);
    assert_int_equal(database_number(&r.d->a, "SELECT count(*) FROM {inbox_dead}"), 0);
}

static void a_parked_key_keeps_its_order(void **state)
{
    struct run r = run_of(database_of(state), 20);
    r.options.poison = FERRY_POISON_PARK;
    r.fail_at = 9;
    r.fail_times = 4;
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 14); /* All of key "a", and 1, 3, 5, 7 of "b". */
    assert_int_equal(database_number(&r.d->a, "SELECT count(*) FROM {inbox_dead}"), 6);
    requeue_all(&r);
    assert_int_equal(consume(&r), FERRY_OK); /* It fails once more: the others wait. */
    expect_effects(&r, 14);
    requeue_all(&r);
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 20);
    assert_int_equal(database_number(&r.d->a, "SELECT count(*) FROM {inbox_dead}"), 0);
}

static void a_record_that_is_in_the_log_twice_has_one_effect(void **state)
{
    struct run r = run_of(database_of(state), 30);
    r.options.possible_duplicates = true;
    r.records[20].id = r.records[3].id;
    r.records[5].id = r.records[4].id;
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 28);
}

/* The record at 9 is given up; the one at `copied` is in the log again, at `copy`. */
static void have_one_effect(struct database *d, enum ferry_poison poison, int copied, int copy)
{
    struct run r = run_of(d, 30);
    r.options.possible_duplicates = true;
    r.options.poison = poison;
    r.records[copy].id = r.records[copied].id;
    r.fail_at = 9;
    r.fail_times = 3;
    assert_int_equal(consume(&r), FERRY_OK);
    requeue_all(&r);
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 29);
    assert_int_equal(database_number(&r.d->a, "SELECT count(*) FROM {inbox_dead}"), 0);
}

/* One copy is given up, the other comes behind it: the dead letter stands for both. */
static void a_dead_letter_and_its_duplicate_have_one_effect(void **state)
{
    have_one_effect(database_of(state), FERRY_POISON_DEAD, 9, 20);
}

static void a_parked_record_and_its_duplicate_have_one_effect(void **state)
{
    have_one_effect(database_of(state), FERRY_POISON_PARK, 13, 21);
}

static void a_record_of_long_ago_is_not_applied_blindly(void **state)
{
    struct run r = run_of(database_of(state), 5);
    r.options.possible_duplicates = true;
    r.records[2].append_time_ms -= 20 * DAY_MS;
    assert_int_equal(consume(&r), FERRY_ERR_INVALID_ARGUMENT);
    expect_effects(&r, 2);
    r.options.poison = FERRY_POISON_DEAD;
    r.log.position = 0;
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 4);
    assert_int_equal(database_number(&r.d->a, "SELECT off FROM {inbox_dead}"), 2);
}

static void a_lost_connection_is_made_anew(void **state)
{
    struct run r = run_of(database_of(state), 30);
    r.kill_at = 12;
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 30);
    assert_int_equal(r.reconnects, 1);
}

/* Killed after the caller has connected and before the loop asks where to go on. */
static void a_connection_lost_before_the_loop_begins_is_made_anew(void **state)
{
    struct run r = run_of(database_of(state), 30);
    database_kill(r.d, &r.d->a);
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 30);
    assert_int_equal(r.reconnects, 1);
}

static void without_reconnect_a_lost_connection_ends_the_loop(void **state)
{
    struct run r = run_of(database_of(state), 30);
    r.kill_at = 12;
    r.options.reconnect = NULL;
    assert_int_equal(consume(&r), FERRY_ERR_DB);
    database_reconnect(r.d, &r.d->a);
    expect_effects(&r, 8);
}

/* The loops forget old sagas when they are told how old. */
static void expect_trimmed(struct run *r, bool trimmed)
{
    assert_int_equal(database_number(&r->d->a, "SELECT count(*) FROM {saga_barrier} WHERE op > 0"),
                     trimmed ? 0 : 1);
}

static void put_old_barrier(struct run *r)
{
    struct ferry_db *db = r->d->a.db;
    const struct ferry_id id = {{0, 1}}; /* Of 2004. */
    bool fresh = false;
    r->log.now_ms = 1000 * DAY_MS;
    assert_int_equal(db->ops->begin(db->driver, &db->error), FERRY_OK);
    assert_int_equal(db->ops->barrier_add(db->driver, &id, 0, 1, 1, &fresh, &db->error), FERRY_OK);
    assert_int_equal(db->ops->commit(db->driver, &db->error), FERRY_OK);
}

static void old_sagas_are_forgotten_by_the_loop(void **state)
{
    struct run r = run_of(database_of(state), 5);
    put_old_barrier(&r);
    assert_int_equal(consume(&r), FERRY_OK);
    expect_trimmed(&r, false);
    r.options.saga_keep_ms = 30 * DAY_MS;
    assert_int_equal(consume(&r), FERRY_OK);
    expect_trimmed(&r, true);
}

/* A driver whose COMMIT happens and whose answer is lost. */
static const struct db_ops *real_ops;
static struct db_ops forgetful_ops;
static int forget_times;

static enum ferry_err forgetful_commit(void *driver, struct err_text *e)
{
    enum ferry_err err = real_ops->commit(driver, e);
    if (err == FERRY_OK && forget_times > 0) {
        forget_times--;
        database_kill(owner->d, &owner->d->a);
        return err_set(e, FERRY_ERR_DB_RETRY, "no answer");
    }
    return err;
}

static bool forgetful_lost(void *driver)
{
    (void)driver;
    return true;
}

static void a_commit_without_an_answer_is_read_from_the_chain(void **state)
{
    struct run r = run_of(database_of(state), 30);
    real_ops = r.d->a.db->ops;
    forgetful_ops = *real_ops;
    forgetful_ops.commit = forgetful_commit;
    forgetful_ops.lost = forgetful_lost;
    forget_times = 1;
    r.d->a.db->ops = &forgetful_ops;
    assert_int_equal(consume(&r), FERRY_OK);
    assert_int_equal(forget_times, 0);
    assert_int_equal(r.reconnects, 1);
    assert_int_equal(r.calls, 30); /* None was handled twice. */
    expect_effects(&r, 30);
}

static void *consume_aside(void *arg)
{
    struct run *r = arg;
    const struct consume_source source = consume_log_source(&r->log);
    r->log.records = r->records;
    assert_int_equal(consume_loop(&source, r->d->a.db, insert_effect, r, &r->options), FERRY_OK);
    return NULL;
}

/* Another consumer meets the next record of the key while the last dead letter of it is handled. */
struct race {
    struct run *first, *second;
    pthread_t thread;
};

static enum ferry_err handle_in_race(const struct ferry_record *record, struct ferry_db *db,
                                     void *arg)
{
    struct race *race = arg;
    enum ferry_err err = insert_effect(record, db, race->first);
    if (record->offset == 11) {
        assert_int_equal(pthread_create(&race->thread, NULL, consume_aside, race->second), 0);
        usleep(300 * 1000);
    }
    return err;
}

static void a_key_that_is_put_before_the_handler_again_takes_the_next_along(void **state)
{
    struct run r = run_of(database_of(state), 14);
    struct database aside = *r.d;
    struct run other = r;
    struct race race = {.first = &r, .second = &other};
    r.log.end = 12;
    r.options.poison = FERRY_POISON_PARK;
    r.fail_at = 9;
    r.fail_times = 3;
    assert_int_equal(consume(&r), FERRY_OK);
    assert_int_equal(database_number(&r.d->a, "SELECT count(*) FROM {inbox_dead}"), 2);
    requeue_all(&r);
    database_connect(r.d, &aside.a);
    other.d = &aside;
    other.options.poison = FERRY_POISON_PARK;
    const struct consume_source source = consume_log_source(&r.log);
    assert_int_equal(consume_loop(&source, r.d->a.db, handle_in_race, &race, &r.options), FERRY_OK);
    pthread_join(race.thread, NULL);
    database_disconnect(&aside.a);
    assert_int_equal(consume(&r), FERRY_OK); /* No person asks once more. */
    expect_effects(&r, 14);
    assert_int_equal(database_number(&r.d->a, "SELECT count(*) FROM {inbox_dead}"), 0);
}

/* PostgreSQL does nothing any more in that transaction: no fault of the records behind it. */
static void a_handler_that_swallows_an_error_has_failed(void **state)
{
    struct run r = run_of(database_of(state), 20);
    r.options.possible_duplicates = true;
    r.options.poison = FERRY_POISON_DEAD;
    r.swallow_at = 9;
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 19);
    assert_int_equal(database_number(&r.d->a, "SELECT off FROM {inbox_dead}"), 9);
    requeue_all(&r);
    assert_int_equal(consume(&r), FERRY_OK); /* The dead letter is put back. */
    r.swallow_at = -1;
    requeue_all(&r);
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 20);
}

static struct run run_with_deadlock(struct database *d, int64_t end, int64_t at)
{
    struct run r = run_of(d, end);
    database_exec(&d->a, "CREATE TABLE weight (n INTEGER)");
    database_exec(&d->a, "CREATE TABLE pair (n INTEGER PRIMARY KEY)");
    database_exec(&d->a, "INSERT INTO pair VALUES (1), (2)");
    r.deadlock_at = at;
    return r;
}

/* What was claimed and done before the deadlock is gone, what comes after it must not stay. */
static void a_deadlock_that_a_handler_swallows_loses_nothing(void **state)
{
    struct run r = run_with_deadlock(database_of(state), 20, 11);
    r.options.possible_duplicates = true;
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 20);
    assert_true(r.calls > 20);
    assert_int_equal(database_number(&r.d->a, "SELECT @@autocommit"), 1);
}

static void a_handler_that_goes_on_after_a_deadlock_has_one_effect(void **state)
{
    struct run r = run_with_deadlock(database_of(state), 20, 11);
    r.goes_on = true;
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 20);
}

static void a_dead_letter_whose_handler_swallows_a_deadlock_is_kept(void **state)
{
    struct run r = run_with_deadlock(database_of(state), 20, -1);
    r.options.poison = FERRY_POISON_DEAD;
    r.fail_at = 9;
    r.fail_times = 3;
    assert_int_equal(consume(&r), FERRY_OK);
    requeue_all(&r);
    r.deadlock_at = 9;
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 19);
    assert_int_equal(database_number(&r.d->a, "SELECT count(*) FROM {inbox_dead}"), 1);
    requeue_all(&r);
    assert_int_equal(consume(&r), FERRY_OK);
    expect_effects(&r, 20);
}

/* ---- Queues -------------------------------------------------------------------------------- */

static enum ferry_err queue_receive(void *ctx, int timeout_ms, struct ferry_delivery *deliveries,
                                    size_t max, size_t *count)
{
    struct run *r = ctx;
    *count = 0;
    for (int64_t i = 0; i < r->log.end && *count < max; i++) {
        if (r->settled[i] == 0 || r->settled[i] == FERRY_NACK || r->settled[i] == FERRY_RELEASE) {
            r->settled[i] = 0;
            deliveries[(*count)++] =
                (struct ferry_delivery){.record = r->records[i], .failed = r->failed[i]};
        }
    }
    r->log.now_ms += *count == 0 ? timeout_ms : 0;
    return *count == 0 ? FERRY_ERR_TIMEOUT : FERRY_OK;
}

static enum ferry_err queue_settle(void *ctx, struct ferry_delivery *delivery,
                                   enum ferry_settle settle, const char *reason)
{
    struct run *r = ctx;
    int64_t offset = delivery->record.offset;
    assert_int_equal(r->settled[offset], 0);
    assert_true((reason != NULL) == (settle == FERRY_NACK || settle == FERRY_REJECT));
    r->settled[offset] = settle;
    r->failed[offset] += settle == FERRY_NACK ? 1 : 0;
    return FERRY_OK;
}

static int64_t queue_now_ms(void *ctx)
{
    struct run *r = ctx;
    return consume_log_now_ms(&r->log);
}

static void queue_pause(void *ctx, int ms)
{
    struct run *r = ctx;
    consume_log_pause(&r->log, ms);
}

static enum ferry_err queue_flush(void *ctx, int timeout_ms)
{
    (void)ctx;
    (void)timeout_ms;
    return FERRY_OK;
}

static enum ferry_err receive(struct run *r)
{
    const struct receive_source source = {
        .ctx = r,
        .receive = queue_receive,
        .settle = queue_settle,
        .flush = queue_flush,
        .now_ms = queue_now_ms,
        .pause = queue_pause,
    };
    owner = r;
    return receive_loop(&source, r->d->a.db, insert_effect, r, &r->options);
}

static int64_t settled_as(const struct run *r, enum ferry_settle how)
{
    int64_t count = 0;
    for (int64_t i = 0; i < r->log.end; i++) {
        count += r->settled[i] == how ? 1 : 0;
    }
    return count;
}

static void every_message_of_a_queue_has_one_effect(void **state)
{
    struct run r = run_of(database_of(state), 50);
    struct ferry_consume_figures counted = {0};
    r.options.batch_max = 7;
    r.options.figures = &counted;
    r.records[9].id = (struct ferry_id){{0}}; /* Known by its place. */
    r.records[30].id = r.records[2].id;       /* The same once more. */
    assert_int_equal(receive(&r), FERRY_OK);
    expect_effects(&r, 49);
    assert_int_equal(settled_as(&r, FERRY_ACK), 50);
    assert_int_equal(counted.fresh, 49);
    assert_int_equal(counted.duplicates, 1);
    memset(r.settled, 0, sizeof(r.settled)); /* All acks were lost. */
    assert_int_equal(receive(&r), FERRY_OK);
    expect_effects(&r, 49);
    assert_int_equal(counted.fresh, 49);
    assert_int_equal(counted.duplicates, 51);
    assert_int_equal(settled_as(&r, FERRY_ACK), 50);
}

/* A rebase has put it once more: its id may be forgotten, however young its place in the log is. */
static void a_message_of_long_ago_that_was_put_again_is_rejected(void **state)
{
    struct run r = run_of(database_of(state), 5);
    const struct ferry_header flag = {
        .name = FERRY_HEADER_POSSIBLE_DUPLICATE, .value = "1", .value_bytes = 1};
    struct buf headers;
    buf_init(&headers, 1024);
    assert_int_equal(batch_encode_headers(&headers, &flag, 1), FERRY_OK);
    r.options.poison = FERRY_POISON_DEAD;
    r.records[2].headers = headers.data;
    r.records[2].headers_bytes = headers.size;
    r.records[2].timestamp_ms -= 20 * DAY_MS;
    assert_int_equal(receive(&r), FERRY_OK);
    assert_int_equal(r.settled[2], FERRY_REJECT);
    expect_effects(&r, 4);
    buf_fini(&headers);
}

static void a_message_that_keeps_failing_is_rejected(void **state)
{
    struct run r = run_of(database_of(state), 10);
    r.options.poison = FERRY_POISON_DEAD;
    struct ferry_consume_figures counted = {0};
    r.options.figures = &counted;
    r.fail_at = 4;
    r.fail_times = 99;
    assert_int_equal(receive(&r), FERRY_OK);
    expect_effects(&r, 9);
    assert_int_equal(counted.fresh, 9);
    assert_int_equal(counted.dead, 1);
    assert_true(counted.retries >= 1);
    assert_int_equal(r.settled[4], FERRY_REJECT);
    assert_int_equal(settled_as(&r, FERRY_ACK), 9);
    assert_int_equal(r.failed[4], 2);
}

static void a_message_that_keeps_failing_stops_the_loop(void **state)
{
    struct run r = run_of(database_of(state), 10);
    r.fail_at = 4;
    r.fail_times = 99;
    assert_int_equal(receive(&r), FERRY_ERR_DENIED);
    assert_int_equal(r.settled[4], FERRY_RELEASE);
    assert_int_equal(settled_as(&r, 0), 0); /* None is left without an answer. */
}

static void a_handler_that_swallows_an_error_does_not_stop_the_queue(void **state)
{
    struct run r = run_of(database_of(state), 20);
    r.options.poison = FERRY_POISON_DEAD;
    r.swallow_at = 9;
    assert_int_equal(receive(&r), FERRY_OK);
    expect_effects(&r, 19);
    assert_int_equal(r.settled[9], FERRY_REJECT);
}

/* The last of a batch: nothing but COMMIT comes after it. */
static void a_deadlock_that_a_handler_swallows_loses_no_message(void **state)
{
    struct run r = run_with_deadlock(database_of(state), 20, 19);
    r.options.batch_max = 5;
    assert_int_equal(receive(&r), FERRY_OK);
    expect_effects(&r, 20);
    assert_int_equal(settled_as(&r, FERRY_ACK), 20);
}

static void a_queue_survives_a_lost_connection(void **state)
{
    struct run r = run_of(database_of(state), 30);
    r.kill_at = 12;
    assert_int_equal(receive(&r), FERRY_OK);
    expect_effects(&r, 30);
    assert_int_equal(r.reconnects, 1);
}

static void a_queue_cannot_park_keys(void **state)
{
    struct run r = run_of(database_of(state), 1);
    r.options.poison = FERRY_POISON_PARK;
    assert_int_equal(receive(&r), FERRY_ERR_INVALID_ARGUMENT);
}

static void old_sagas_are_forgotten_by_the_loop_of_a_queue(void **state)
{
    struct run r = run_of(database_of(state), 5);
    put_old_barrier(&r);
    r.options.saga_keep_ms = 30 * DAY_MS;
    assert_int_equal(receive(&r), FERRY_OK);
    expect_trimmed(&r, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DATABASE_TESTS(every_record_has_one_effect),
        DATABASE_TESTS(a_bad_record_becomes_a_dead_letter_and_the_rest_goes_on),
        DATABASE_TESTS(a_parked_key_keeps_its_order),
        DATABASE_TESTS(a_record_that_is_in_the_log_twice_has_one_effect),
        DATABASE_TESTS(a_dead_letter_and_its_duplicate_have_one_effect),
        DATABASE_TESTS(a_parked_record_and_its_duplicate_have_one_effect),
        DATABASE_TESTS(a_record_of_long_ago_is_not_applied_blindly),
        SERVER_TESTS(a_lost_connection_is_made_anew),
        SERVER_TESTS(a_connection_lost_before_the_loop_begins_is_made_anew),
        SERVER_TESTS(without_reconnect_a_lost_connection_ends_the_loop),
        DATABASE_TESTS(old_sagas_are_forgotten_by_the_loop),
        DATABASE_TESTS(old_sagas_are_forgotten_by_the_loop_of_a_queue),
        SERVER_TESTS(a_commit_without_an_answer_is_read_from_the_chain),
        SERVER_TESTS(a_key_that_is_put_before_the_handler_again_takes_the_next_along),
        DATABASE_TEST_ON(a_handler_that_swallows_an_error_has_failed, postgresql),
        DATABASE_TEST_ON(a_handler_that_swallows_an_error_does_not_stop_the_queue, postgresql),
        DATABASE_TEST_ON(a_deadlock_that_a_handler_swallows_loses_nothing, mariadb),
        DATABASE_TEST_ON(a_handler_that_goes_on_after_a_deadlock_has_one_effect, mariadb),
        DATABASE_TEST_ON(a_dead_letter_whose_handler_swallows_a_deadlock_is_kept, mariadb),
        DATABASE_TEST_ON(a_deadlock_that_a_handler_swallows_loses_no_message, mariadb),
        DATABASE_TESTS(every_message_of_a_queue_has_one_effect),
        DATABASE_TESTS(a_message_of_long_ago_that_was_put_again_is_rejected),
        DATABASE_TESTS(a_message_that_keeps_failing_is_rejected),
        DATABASE_TESTS(a_message_that_keeps_failing_stops_the_loop),
        SERVER_TESTS(a_queue_survives_a_lost_connection),
        DATABASE_TEST_ON(a_queue_cannot_park_keys, sqlite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
