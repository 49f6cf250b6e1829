/* The inbox's chain, ids and dead letters, barriers and sagas' rows, on every database. */
#include "databases_fixture.h"

#include <pthread.h>

#include "outbox/app/db.h"

#define DAY_MS (24LL * 60 * 60 * 1000)

static const struct ferry_id topic_id = {{4, 2}};

static void begin(struct database_link *link)
{
    database_exec(link, link->kind == DATABASE_SQLITE ? "BEGIN IMMEDIATE" : "BEGIN");
}

static void well(struct ferry_db *db, enum ferry_err err)
{
    if (err != FERRY_OK) {
        fail_msg("%s: %s", ferry_err_name(err), ferry_db_detail(db));
    }
}

static enum ferry_verdict enter(struct database_link *link, int64_t first, int64_t next,
                                size_t *skip, int64_t *expected)
{
    enum ferry_verdict verdict = FERRY_LATE;
    well(link->db,
         ferry_inbox_enter(link->db, "g", &topic_id, 3, first, next, &verdict, skip, expected));
    return verdict;
}

static void do_batch(struct database_link *link, int64_t next)
{
    begin(link);
    well(link->db, ferry_inbox_leave(link->db, "g", &topic_id, 3, next));
    database_exec(link, "COMMIT");
}

static void a_chain_knows_what_is_fresh_done_and_missing(void **state)
{
    struct database *d = database_of(state);
    size_t skip = 9;
    int64_t expected = 0;
    begin(&d->a);
    assert_int_equal(enter(&d->a, 5, 8, &skip, &expected), FERRY_FRESH);
    database_exec(&d->a, "COMMIT");
    do_batch(&d->a, 8);
    begin(&d->a);
    assert_int_equal(enter(&d->a, 5, 8, &skip, &expected), FERRY_DUPLICATE);
    assert_int_equal(enter(&d->a, 6, 10, &skip, &expected), FERRY_FRESH);
    assert_int_equal(skip, 2);
    assert_int_equal(enter(&d->a, 9, 10, &skip, &expected), FERRY_GAP);
    assert_int_equal(expected, 8);
    database_exec(&d->a, "ROLLBACK");
    int64_t position = 0;
    well(d->a.db, ferry_inbox_position(d->a.db, "g", &topic_id, 3, &position));
    assert_int_equal(position, 8);
    well(d->a.db, ferry_inbox_position(d->a.db, "other", &topic_id, 3, &position));
    assert_int_equal(position, -1);
}

static void a_chain_is_trimmed(void **state)
{
    struct database *d = database_of(state);
    for (int i = 1; i <= 150; i++) {
        do_batch(&d->a, i);
    }
    int64_t kept = database_number(&d->a, "SELECT count(*) FROM {inbox_chain}");
    assert_true(kept >= DB_CHAIN_ROWS_MAX && kept < DB_CHAIN_ROWS_MAX + DB_CHAIN_TRIM_EVERY);
    assert_int_equal(database_number(&d->a, "SELECT max(end_off) FROM {inbox_chain}"), 150);
}

struct racer {
    struct database_link *link;
    enum ferry_err err;
};

static void *race(void *arg)
{
    struct racer *r = arg;
    r->err = ferry_inbox_leave(r->link->db, "g", &topic_id, 3, 20);
    if (r->err == FERRY_OK) {
        r->err = r->link->db->ops->commit(r->link->db->driver, &r->link->db->error);
    } else {
        r->link->db->ops->rollback(r->link->db->driver);
    }
    return NULL;
}

/* Both have read the same end; one of them is told to go back. */
static void of_two_consumers_one_is_rolled_back(void **state)
{
    struct database *d = database_of(state);
    struct database_link other;
    size_t skip = 0;
    int64_t expected = 0;
    database_connect(d, &other);
    do_batch(&d->a, 10);
    struct racer racers[2] = {{.link = &d->a}, {.link = &other}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        begin(racers[i].link);
        assert_int_equal(enter(racers[i].link, 10, 20, &skip, &expected), FERRY_FRESH);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_true((racers[0].err == FERRY_OK) != (racers[1].err == FERRY_OK));
    assert_true(racers[0].err == FERRY_ERR_DB_RETRY || racers[1].err == FERRY_ERR_DB_RETRY);
    assert_int_equal(database_number(&d->a, "SELECT count(*) FROM {inbox_chain}"), 2);
    database_disconnect(&other);
}

/* The other one fetched earlier, so its batch is shorter: it has done a part of this one's. */
static void a_consumer_that_was_overtaken_in_its_batch_is_rolled_back(void **state)
{
    struct database *d = database_of(state);
    struct database_link other;
    size_t skip = 0;
    int64_t expected = 0;
    database_connect(d, &other);
    do_batch(&d->a, 10);
    begin(&d->a);
    assert_int_equal(enter(&d->a, 10, 20, &skip, &expected), FERRY_FRESH);
    assert_int_equal(skip, 0);
    begin(&other);
    assert_int_equal(enter(&other, 10, 15, &skip, &expected), FERRY_FRESH);
    well(other.db, ferry_inbox_leave(other.db, "g", &topic_id, 3, 15));
    database_exec(&other, "COMMIT");
    assert_int_equal(ferry_inbox_leave(d->a.db, "g", &topic_id, 3, 20), FERRY_ERR_DB_RETRY);
    database_exec(&d->a, "ROLLBACK");
    begin(&d->a);
    assert_int_equal(enter(&d->a, 10, 20, &skip, &expected), FERRY_FRESH);
    assert_int_equal(skip, 5);
    well(d->a.db, ferry_inbox_leave(d->a.db, "g", &topic_id, 3, 20));
    database_exec(&d->a, "COMMIT");
    database_disconnect(&other);
}

/* It slept for so long that the interval which it would collide with is trimmed. */
static void sleep_past_the_trim(void **state, const char *isolation)
{
    struct database *d = database_of(state);
    struct database_link other;
    size_t skip = 0;
    int64_t expected = 0;
    database_connect(d, &other);
    do_batch(&d->a, 10);
    database_exec(&d->a, isolation);
    begin(&d->a);
    assert_int_equal(enter(&d->a, 10, 500, &skip, &expected), FERRY_FRESH);
    for (int i = 11; i < 11 + 2 * DB_CHAIN_ROWS_MAX; i++) {
        do_batch(&other, i);
    }
    assert_int_equal(ferry_inbox_leave(d->a.db, "g", &topic_id, 3, 500), FERRY_ERR_DB_RETRY);
    database_exec(&d->a, "ROLLBACK");
    assert_int_equal(database_number(&d->a, "SELECT max(end_off) FROM {inbox_chain}"),
                     10 + 2 * DB_CHAIN_ROWS_MAX);
    database_disconnect(&other);
}

static void a_consumer_that_slept_past_the_trim_is_rolled_back(void **state)
{
    const struct database *d = database_of(state);
    sleep_past_the_trim(state, d->kind == DATABASE_POSTGRESQL
                                   ? "SET default_transaction_isolation = 'read committed'"
                                   : "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
}

static void it_is_rolled_back_though_its_snapshot_does_not_tell(void **state)
{
    const struct database *d = database_of(state);
    sleep_past_the_trim(state, d->kind == DATABASE_POSTGRESQL
                                   ? "SET default_transaction_isolation = 'repeatable read'"
                                   : "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ");
}

static void a_skip_is_recorded_with_its_reason(void **state)
{
    struct database *d = database_of(state);
    do_batch(&d->a, 10);
    begin(&d->a);
    well(d->a.db, ferry_inbox_skip_to(d->a.db, "g", &topic_id, 3, 50, "it's gone"));
    database_exec(&d->a, "COMMIT");
    assert_string_equal(database_text(&d->a, "SELECT reason FROM {inbox_skip} WHERE from_off = 10 "
                                             "AND to_off = 50"),
                        "it's gone");
}

static int64_t now_ms(void)
{
    return (int64_t)time(NULL) * 1000;
}

static enum ferry_verdict claim(struct database_link *link, uint8_t n, int64_t at_ms)
{
    const struct ferry_id id = {{1, n}};
    enum ferry_verdict verdict = FERRY_GAP;
    well(link->db, ferry_inbox_claim(link->db, "g", &id, at_ms, 0, &verdict));
    return verdict;
}

/* The second time may be on another day, when the record is in the log twice. */
static void an_id_is_fresh_once_and_late_after_the_horizon(void **state)
{
    struct database *d = database_of(state);
    begin(&d->a);
    assert_int_equal(claim(&d->a, 1, now_ms() - 3 * DAY_MS), FERRY_FRESH);
    database_exec(&d->a, "COMMIT");
    begin(&d->a);
    assert_int_equal(claim(&d->a, 1, now_ms()), FERRY_DUPLICATE);
    assert_int_equal(claim(&d->a, 2, now_ms()), FERRY_FRESH); /* The transaction is whole. */
    assert_int_equal(claim(&d->a, 3, now_ms() - 9 * DAY_MS), FERRY_LATE);
    database_exec(&d->a, "ROLLBACK");
    begin(&d->a);
    assert_int_equal(claim(&d->a, 2, now_ms()), FERRY_FRESH);
    database_exec(&d->a, "COMMIT");
    assert_int_equal(database_number(&d->a, "SELECT count(*) FROM {inbox_id}"), 2);
}

static void old_ids_are_trimmed_a_thousand_at_a_time(void **state)
{
    struct database *d = database_of(state);
    size_t removed = 0;
    begin(&d->a);
    for (int i = 0; i < 1100; i++) {
        const struct ferry_id id = {{2, (uint8_t)(i >> 8), (uint8_t)i}};
        bool fresh = false;
        well(d->a.db,
             d->a.db->ops->id_claim(d->a.db->driver, "g", &id, (int32_t)(now_ms() / DAY_MS) - 11,
                                    &fresh, &d->a.db->error));
    }
    assert_int_equal(claim(&d->a, 1, now_ms()), FERRY_FRESH);
    well(d->a.db, ferry_inbox_claim_trim(d->a.db, "g", 0, &removed));
    assert_int_equal(removed, 1000);
    well(d->a.db, ferry_inbox_claim_trim(d->a.db, "g", 0, &removed));
    assert_int_equal(removed, 100);
    database_exec(&d->a, "COMMIT");
    assert_int_equal(database_number(&d->a, "SELECT count(*) FROM {inbox_id}"), 1);
}

static void dead_letters_come_back_in_order(void **state)
{
    struct database *d = database_of(state);
    struct ferry_db *db = d->a.db;
    struct db_inbox_dead dead = {.chain = {"g", &topic_id, 3},
                                 .reason = "because",
                                 .has_key = true,
                                 .key = bytes_of_string("k"),
                                 .payload = bytes_of_string("pay"),
                                 .timestamp_ms = 77};
    begin(&d->a);
    for (dead.offset = 5; dead.offset < 8; dead.offset++) {
        well(db, db->ops->inbox_dead_add(db->driver, &dead, &db->error));
        well(db, db->ops->inbox_dead_add(db->driver, &dead, &db->error)); /* No second one. */
    }
    bool parked = false;
    bool requeued = false;
    well(db, db->ops->inbox_key_parked(db->driver, &dead.chain, dead.key, &parked, &requeued,
                                       &db->error));
    assert_true(parked);
    well(db, db->ops->inbox_key_parked(db->driver, &dead.chain, bytes_of_string("j"), &parked,
                                       &requeued, &db->error));
    assert_false(parked);
    bool found = true;
    int64_t number = 0;
    struct db_inbox_dead got;
    well(db,
         db->ops->inbox_requeued(db->driver, "g", &topic_id, &found, &number, &got, &db->error));
    assert_false(found);
    database_exec(&d->a, "COMMIT");
    database_exec(&d->a, d->kind == DATABASE_POSTGRESQL ? "UPDATE {inbox_dead} SET requeued = true"
                                                        : "UPDATE {inbox_dead} SET requeued = 1");
    begin(&d->a);
    well(db,
         db->ops->inbox_requeued(db->driver, "g", &topic_id, &found, &number, &got, &db->error));
    assert_true(found);
    assert_int_equal(got.offset, 5);
    assert_int_equal(got.chain.partition, 3);
    assert_int_equal(got.timestamp_ms, 77);
    assert_string_equal(got.reason, "because");
    assert_true(bytes_equal(got.payload, bytes_of_string("pay")));
    assert_true(bytes_equal(got.key, bytes_of_string("k")));
    assert_int_equal(got.headers.size, 0);
    well(db, db->ops->inbox_dead_remove(db->driver, number, &db->error));
    well(db,
         db->ops->inbox_requeued(db->driver, "g", &topic_id, &found, &number, &got, &db->error));
    assert_int_equal(got.offset, 6);
    /* It fails again: those of its key behind it wait with it. */
    well(db, db->ops->inbox_dead_again(db->driver, number, "again", &db->error));
    well(db,
         db->ops->inbox_requeued(db->driver, "g", &topic_id, &found, &number, &got, &db->error));
    assert_false(found);
    database_exec(&d->a, "COMMIT");
    assert_string_equal(database_text(&d->a, "SELECT reason FROM {inbox_dead} WHERE off = 6"),
                        "again");
}

static void a_barrier_is_passed_once(void **state)
{
    struct database *d = database_of(state);
    struct ferry_db *db = d->a.db;
    const struct ferry_id saga = {{9}};
    bool fresh = false;
    bool found = false;
    int32_t why = 0;
    begin(&d->a);
    well(db, db->ops->barrier_add(db->driver, &saga, 1, 2, 7, &fresh, &db->error));
    assert_true(fresh);
    well(db, db->ops->barrier_add(db->driver, &saga, 1, 2, 8, &fresh, &db->error));
    assert_false(fresh);
    well(db, db->ops->barrier_why(db->driver, &saga, 1, 2, &found, &why, &db->error));
    assert_true(found);
    assert_int_equal(why, 7);
    well(db, db->ops->barrier_why(db->driver, &saga, 1, 3, &found, &why, &db->error));
    assert_false(found);
    database_exec(&d->a, "COMMIT");
}

static void a_sagas_row_is_changed_by_whoever_read_it_last(void **state)
{
    struct database *d = database_of(state);
    struct ferry_db *db = d->a.db;
    struct db_saga saga = {.id = {{9}},
                           .type = "transfer",
                           .state = 1,
                           .version = 1,
                           .deadline_ms = 5,
                           .data = bytes_of_string("data")};
    struct db_saga got;
    bool found = false;
    begin(&d->a);
    well(db, db->ops->saga_insert(db->driver, &saga, &db->error));
    database_exec(&d->a, "COMMIT");
    begin(&d->a);
    well(db, db->ops->saga_get(db->driver, &saga.id, &found, &got, &db->error));
    assert_true(found);
    assert_string_equal(got.type, "transfer");
    assert_string_equal(got.reason, "");
    assert_true(bytes_equal(got.data, saga.data));
    assert_int_equal(got.deadline_ms, 5);
    got.step = 2;
    got.reason = "why";
    well(db, db->ops->saga_update(db->driver, &got, &db->error)); /* With its own data. */
    assert_int_equal(db->ops->saga_update(db->driver, &saga, &db->error), FERRY_ERR_DB_RETRY);
    database_exec(&d->a, "COMMIT");
    well(db, db->ops->saga_get(db->driver, &saga.id, &found, &got, &db->error));
    assert_int_equal(got.step, 2);
    assert_int_equal(got.version, 2);
    assert_string_equal(got.reason, "why");
    assert_true(bytes_equal(got.data, saga.data));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DATABASE_TESTS(a_chain_knows_what_is_fresh_done_and_missing),
        DATABASE_TESTS(a_chain_is_trimmed),
        SERVER_TESTS(of_two_consumers_one_is_rolled_back),
        SERVER_TESTS(a_consumer_that_was_overtaken_in_its_batch_is_rolled_back),
        SERVER_TESTS(a_consumer_that_slept_past_the_trim_is_rolled_back),
        SERVER_TESTS(it_is_rolled_back_though_its_snapshot_does_not_tell),
        DATABASE_TESTS(a_skip_is_recorded_with_its_reason),
        DATABASE_TESTS(an_id_is_fresh_once_and_late_after_the_horizon),
        DATABASE_TESTS(old_ids_are_trimmed_a_thousand_at_a_time),
        DATABASE_TESTS(dead_letters_come_back_in_order),
        DATABASE_TESTS(a_barrier_is_passed_once),
        DATABASE_TESTS(a_sagas_row_is_changed_by_whoever_read_it_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
