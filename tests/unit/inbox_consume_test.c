/* The loop of ferry_consume_tx on a log in memory that delivers repeats, gaps and errors. */
#include "outbox_fixture.h"

#include "consume_log.h"

/* What the handler does, and what it is to fail at. */
struct work {
    struct fixture *f;
    int64_t fail_at; /* -1: never. */
    int fail_times;
    enum ferry_err fail_with;
    bool rolls_back;
    int calls;
    int stop_after_calls; /* 0: never. */
    struct ferry_consume_figures figures;
};

static enum ferry_err insert_effect(const struct ferry_record *record, struct ferry_db *db,
                                    void *arg)
{
    struct work *w = arg;
    char sql[96];
    (void)db;
    w->calls++;
    snprintf(sql, sizeof(sql), "INSERT INTO effect VALUES (%lld)", (long long)record->offset);
    fixture_exec(w->f, sql);
    if (w->rolls_back) {
        fixture_exec(w->f, "ROLLBACK");
    }
    if (record->offset == w->fail_at && w->fail_times > 0) {
        w->fail_times--;
        return w->fail_with;
    }
    return FERRY_OK;
}

static bool stop_after(void *arg)
{
    const struct work *w = arg;
    return w->stop_after_calls > 0 && w->calls >= w->stop_after_calls;
}

static enum ferry_err consume(struct fixture *f, struct consume_log *l, struct work *w)
{
    const struct consume_source source = consume_log_source(l);
    struct ferry_consume_options options = {.group = "ledger",
                                            .stop = stop_after,
                                            .idle_exit_ms = 1000,
                                            .retries_max = 3,
                                            .figures = &w->figures};
    w->f = f;
    enum ferry_err err = consume_loop(&source, f->db, insert_effect, w, &options);
    assert_int_equal(l->batches_open, 0);
    assert_int_not_equal(sqlite3_get_autocommit(f->connection), 0);
    return err;
}

static struct consume_log log_of(int64_t end)
{
    return consume_log_of(end, 7);
}

static void expect_effects(struct fixture *f, int64_t count)
{
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM effect"), count);
    assert_int_equal(fixture_number(f, "SELECT count(DISTINCT n) FROM effect"), count);
}

static int consume_setup(void **state)
{
    fixture_setup(state);
    fixture_exec(*state, "CREATE TABLE effect (n INTEGER)");
    return 0;
}

static void every_record_has_one_effect_and_the_position_is_committed(void **state)
{
    struct fixture *f = *state;
    struct consume_log l = log_of(50);
    struct work w = {.fail_at = -1};
    assert_int_equal(consume(f, &l, &w), FERRY_OK);
    expect_effects(f, 50);
    assert_int_equal(l.committed, 50);
    assert_in_range(l.commits, 1,
                    3); /* At the beginning, and when it is idle: not with each batch. */
}

/* The broker forgot the position: the database knows it. */
static void a_second_run_begins_where_the_database_says(void **state)
{
    struct fixture *f = *state;
    struct consume_log l = log_of(30);
    struct work w = {.fail_at = -1};
    assert_int_equal(consume(f, &l, &w), FERRY_OK);
    l.position = 0;
    l.end = 40;
    assert_int_equal(consume(f, &l, &w), FERRY_OK);
    expect_effects(f, 40);
    assert_int_equal(w.calls, 40);
}

static void a_repeated_delivery_has_no_second_effect(void **state)
{
    struct fixture *f = *state;
    struct consume_log l = log_of(30);
    struct work w = {.fail_at = -1};
    assert_int_equal(consume(f, &l, &w), FERRY_OK);
    l.jump_to = 5; /* Whole batches again, then one that is half done. */
    l.end = 33;
    assert_int_equal(consume(f, &l, &w), FERRY_OK);
    expect_effects(f, 33);
}

static void a_gap_is_sought_back(void **state)
{
    struct fixture *f = *state;
    struct consume_log l = log_of(20);
    struct work w = {.fail_at = -1};
    assert_int_equal(consume(f, &l, &w), FERRY_OK);
    l.jump_to = 25;
    l.end = 40;
    assert_int_equal(consume(f, &l, &w), FERRY_OK);
    expect_effects(f, 40);
}

static void a_failing_handler_rolls_back_and_is_tried_again(void **state)
{
    struct fixture *f = *state;
    struct consume_log l = log_of(20);
    struct work w = {.fail_at = 9, .fail_times = 2, .fail_with = FERRY_ERR_DENIED};
    assert_int_equal(consume(f, &l, &w), FERRY_OK);
    expect_effects(f, 20);
    assert_int_equal(w.calls, 20 + 3 + 1); /* Offsets 7 to 9 in the batch, then 9 alone. */
}

/* What was rolled back counts as tried again, not as done; what came twice counts as that. */
static void what_the_loop_does_is_counted(void **state)
{
    struct fixture *f = *state;
    struct consume_log l = log_of(20);
    struct work w = {.fail_at = 9, .fail_times = 2, .fail_with = FERRY_ERR_DENIED};
    struct ferry_consume_figures seen;
    assert_int_equal(consume(f, &l, &w), FERRY_OK);
    ferry_consume_figures(&w.figures, &seen);
    assert_int_equal(seen.fresh, 20);
    assert_int_equal(seen.retries, 2);
    assert_int_equal(seen.handler_calls, w.calls);
    assert_true(seen.handler_us >= seen.handler_us_max);
    assert_int_equal(seen.duplicates + seen.gaps + seen.late + seen.dead, 0);
    l.jump_to = 5; /* 15 records again, and 3 new ones. */
    l.end = 23;
    assert_int_equal(consume(f, &l, &w), FERRY_OK);
    l.jump_to = 30;
    l.end = 40;
    assert_int_equal(consume(f, &l, &w), FERRY_OK);
    ferry_consume_figures(&w.figures, &seen);
    assert_int_equal(seen.fresh, 40);
    assert_int_equal(seen.duplicates, 15);
    assert_int_equal(seen.gaps, 1);
    assert_int_equal(seen.retries, 2);
}

static void a_handler_that_keeps_failing_ends_the_loop_with_its_error(void **state)
{
    struct fixture *f = *state;
    struct consume_log l = log_of(20);
    struct work w = {.fail_at = 9, .fail_times = 99, .fail_with = FERRY_ERR_DENIED};
    assert_int_equal(consume(f, &l, &w), FERRY_ERR_DENIED);
    assert_int_equal(99 - w.fail_times, 3); /* retries_max */
    expect_effects(f, 9);
    assert_int_equal(l.committed, 9);
}

static void a_handler_that_ends_the_transaction_is_told_off(void **state)
{
    struct fixture *f = *state;
    struct consume_log l = log_of(5);
    struct work w = {.fail_at = -1, .rolls_back = true};
    assert_int_equal(consume(f, &l, &w), FERRY_ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(ferry_db_detail(f->db), "offset 0"));
    expect_effects(f, 0);
}

static void errors_that_may_pass_are_waited_out(void **state)
{
    struct fixture *f = *state;
    struct consume_log l = log_of(5);
    struct work w = {.fail_at = -1};
    l.fetch_errors = 3;
    l.fetch_error = FERRY_ERR_NOT_LEADER;
    assert_int_equal(consume(f, &l, &w), FERRY_OK);
    expect_effects(f, 5);
}

/* Going on silently would lose them. */
static void records_dropped_by_retention_end_the_loop(void **state)
{
    struct fixture *f = *state;
    struct consume_log l = log_of(5);
    struct work w = {.fail_at = -1};
    l.fetch_errors = 1;
    l.fetch_error = FERRY_ERR_OFFSET_OUT_OF_RANGE;
    assert_int_equal(consume(f, &l, &w), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    assert_non_null(strstr(ferry_db_detail(f->db), "ferry_inbox_skip_to"));
}

static void without_a_subscription_nothing_is_committed_to_the_broker(void **state)
{
    struct fixture *f = *state;
    struct consume_log l = log_of(20);
    struct work w = {.fail_at = -1};
    l.commit_error = FERRY_ERR_INVALID_ARGUMENT;
    assert_int_equal(consume(f, &l, &w), FERRY_OK);
    assert_int_equal(l.committed, 7); /* Asked once. */
    expect_effects(f, 20);
}

static void stop_is_asked_between_batches(void **state)
{
    struct fixture *f = *state;
    struct consume_log l = log_of(100);
    struct work w = {.fail_at = -1, .stop_after_calls = 10};
    assert_int_equal(consume(f, &l, &w), FERRY_OK);
    expect_effects(f, 14);
}

/* Another writer holds the database until the loop has waited a few times. */
static sqlite3 *lock_holder;

static void pause_then_unlock(void *ctx, int ms)
{
    struct consume_log *l = ctx;
    l->now_ms += ms;
    if (l->now_ms > 50 && lock_holder != NULL) {
        fixture_exec_on(lock_holder, "COMMIT");
        sqlite3_close(lock_holder);
        lock_holder = NULL;
    }
}

static void a_busy_database_is_waited_out_however_long(void **state)
{
    struct fixture *f = *state;
    struct consume_log l = log_of(5);
    struct work w = {.fail_at = -1, .f = f};
    struct consume_source source = consume_log_source(&l);
    source.pause = pause_then_unlock;
    struct ferry_consume_options options = {
        .group = "ledger", .idle_exit_ms = 100, .retries_max = 1};
    lock_holder = fixture_connect(f);
    fixture_exec_on(lock_holder, "BEGIN IMMEDIATE");
    assert_int_equal(consume_loop(&source, f->db, insert_effect, &w, &options), FERRY_OK);
    expect_effects(f, 5);
}

static void a_group_and_no_open_transaction_are_required(void **state)
{
    struct fixture *f = *state;
    struct consume_log l = log_of(5);
    const struct consume_source source = {.ctx = &l};
    struct ferry_consume_options options = {.group = NULL};
    assert_int_equal(consume_loop(&source, f->db, insert_effect, NULL, &options),
                     FERRY_ERR_INVALID_ARGUMENT);
    options.group = "ledger";
    fixture_exec(f, "BEGIN");
    assert_int_equal(consume_loop(&source, f->db, insert_effect, NULL, &options),
                     FERRY_ERR_INVALID_ARGUMENT);
    fixture_exec(f, "ROLLBACK");
}

#define CONSUME_TEST(name) cmocka_unit_test_setup_teardown(name, consume_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONSUME_TEST(every_record_has_one_effect_and_the_position_is_committed),
        CONSUME_TEST(a_second_run_begins_where_the_database_says),
        CONSUME_TEST(a_repeated_delivery_has_no_second_effect),
        CONSUME_TEST(a_gap_is_sought_back),
        CONSUME_TEST(what_the_loop_does_is_counted),
        CONSUME_TEST(a_failing_handler_rolls_back_and_is_tried_again),
        CONSUME_TEST(a_handler_that_keeps_failing_ends_the_loop_with_its_error),
        CONSUME_TEST(a_handler_that_ends_the_transaction_is_told_off),
        CONSUME_TEST(errors_that_may_pass_are_waited_out),
        CONSUME_TEST(records_dropped_by_retention_end_the_loop),
        CONSUME_TEST(without_a_subscription_nothing_is_committed_to_the_broker),
        CONSUME_TEST(stop_is_asked_between_batches),
        CONSUME_TEST(a_busy_database_is_waited_out_however_long),
        CONSUME_TEST(a_group_and_no_open_transaction_are_required),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
