/* Rows that end the relay's process whoever has them in hand: they are found, others are not
 * blamed. A death is played: the row is met, the relay is never stepped again, and the next one
 * begins. */
#include "relay_fixture.h"

#include "base/prng.h"
#include "outbox/sqlite/cursor.h"

#define KILLERS_MAX 8

/* Rows "row N" that kill, where, and whether one just did. */
static struct {
    int rows[KILLERS_MAX];
    size_t count;
    bool at_sending;
    bool killed;
    struct fake_append late; /* Sent as the last one died; it lands right before a fence. */
    bool keeps_late;
    int fences, fences_to_fail; /* They were asked for; so many of them get no answer. */
    const struct source_ops *real;
    struct source_ops ops;
} fate;

static bool kills(const struct ferry_message *m)
{
    char text[32];
    for (size_t i = 0; i < fate.count; i++) {
        int bytes = snprintf(text, sizeof(text), "row %d", fate.rows[i]);
        if (m->payload_bytes == (size_t)bytes && memcmp(m->payload, text, (size_t)bytes) == 0) {
            return true;
        }
    }
    return false;
}

static enum ferry_err die_if_there(struct source_page *page)
{
    for (size_t i = 0; !fate.at_sending && i < page->count; i++) {
        fate.killed = fate.killed || kills(&page->rows[i].message);
    }
    if (fate.killed) {
        source_page_clear(page);
    }
    return fate.killed ? FERRY_ERR_DB_RETRY : FERRY_OK;
}

static enum ferry_err fatal_read(void *driver, size_t rows_max, size_t bytes_max,
                                 struct source_page *page, bool *more, struct err_text *e)
{
    enum ferry_err err = fate.real->read(driver, rows_max, bytes_max, page, more, e);
    return err == FERRY_OK ? die_if_there(page) : err;
}

static enum ferry_err fatal_fetch(void *driver, struct source_page *page, bool *there,
                                  struct err_text *e)
{
    enum ferry_err err = fate.real->fetch(driver, page, there, e);
    return err == FERRY_OK ? die_if_there(page) : err;
}

static enum ferry_err fatal_append(void *ctx, const char *topic, int32_t partition, uint64_t expect,
                                   const void *blob, size_t blob_bytes,
                                   const struct ferry_message *messages, size_t count,
                                   ferry_append_cb *callback, void *arg)
{
    for (size_t i = 0; fate.at_sending && i < count; i++) {
        fate.killed = fate.killed || kills(&messages[i]);
    }
    if (fate.killed && !fate.keeps_late) {
        return FERRY_ERR_QUEUE_FULL;
    }
    enum ferry_err err = fake_append_queue(ctx, topic, partition, expect, blob, blob_bytes,
                                           messages, count, callback, arg);
    if (fate.killed) {
        struct fake_link *link = ctx;
        assert_int_equal(err, FERRY_OK);
        free(fate.late.records);
        fate.late = link->pending[--link->pending_count];
        err = FERRY_ERR_QUEUE_FULL; /* Its callback will not run. */
    }
    return err;
}

static enum ferry_err late_fence(void *ctx, const char *topic, int32_t partition, uint64_t version,
                                 int timeout_ms)
{
    struct fake_link *link = ctx;
    struct ferry_append_result result;
    if (!fate.killed && fate.late.records != NULL) {
        fate.late.epoch = link->fake->epoch; /* The partition does not know of a later one. */
        fake_store(link->fake, &fate.late, &result);
        free(fate.late.records);
        fate.late.records = NULL;
    }
    return ++fate.fences <= fate.fences_to_fail
               ? FERRY_ERR_TIMEOUT
               : fake_fence(ctx, topic, partition, version, timeout_ms);
}

static void make_fatal(struct rig *g)
{
    fate.real = g->source.ops;
    fate.ops = *fate.real;
    fate.ops.read = fatal_read;
    fate.ops.fetch = fatal_fetch;
    g->source.ops = &fate.ops;
    g->broker.append = fatal_append;
    g->broker.fence = late_fence;
}

static void set_fate(struct rig *g, int row, bool at_sending)
{
    fate.rows[0] = row;
    fate.count = 1;
    fate.at_sending = at_sending;
    fate.killed = false;
    fate.keeps_late = false;
    fate.fences = 0;
    fate.fences_to_fail = 0;
    make_fatal(g);
}

static void die(struct rig *g, bool stored)
{
    static int who = 100;
    fate.killed = false;
    rig_kill_relay(g, stored);
    g->fake.now_us = g->fake.lease_until_us + 1;
    rig_start_relay(g, ++who);
    make_fatal(g);
}

/* Relays one after another until one has lived for two seconds; how many have died. */
static int live(struct rig *g)
{
    int deaths = 0;
    int64_t until_us = g->fake.now_us + 2000000;
    while (g->fake.now_us < until_us) {
        g->due_us = relay_step(g->relay, g->fake.now_us);
        g->fake.now_us += 1000;
        if (fate.killed) {
            assert_in_range(++deaths, 1, 100);
            die(g, deaths % 2 == 0);
            until_us = g->fake.now_us + 2000000;
        } else {
            relay_check(g->relay);
            fake_answer(&g->link);
        }
    }
    return deaths;
}

static struct relay_kept kept(const struct rig *g)
{
    struct relay_kept kept;
    struct err_text e;
    assert_int_equal(
        relay_kept_decode(bytes_of(g->fake.checkpoint, g->fake.checkpoint_bytes), &kept, &e),
        FERRY_OK);
    return kept;
}

static void expect_dead(struct rig *g, int row)
{
    char sql[200];
    (void)snprintf(sql, sizeof(sql),
                   "SELECT count(*) FROM ferry_outbox_dead WHERE id = %d AND "
                   "reason LIKE 'the relay''s process has ended 3 times%%'",
                   row);
    assert_int_equal(fixture_number(g->f, sql), 1);
}

/* ---- Found. */

/* 3 deaths of pages of 100 rows, 1 of 100 with care, 1 of 12, 3 of the row alone. */
static void a_row_that_kills_when_it_is_read_is_set_aside(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 4);
    rig_put(g, "orders", 1, 1000, 9);
    set_fate(g, 557, false);
    assert_in_range(live(g), 6, 8);
    rig_expect(g, "orders", 1, 1000, 557);
    expect_dead(g, 557);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox_dead"), 1);
    assert_int_equal(kept(g).rows, 0); /* All is well again. */
    rig_put(g, "orders", 1001, 1100, 9);
    assert_int_equal(live(g), 0);
    rig_expect(g, "orders", 1, 1100, 557);
}

static void a_row_that_kills_when_it_is_sent_is_set_aside(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 4);
    rig_put(g, "orders", 1, 300, 9);
    set_fate(g, 1, true);
    assert_in_range(live(g), 6, 8);
    rig_expect(g, "orders", 1, 300, 1);
    expect_dead(g, 1);
}

/* One row in an outbox without any other. */
static void a_single_row_that_kills_is_set_aside(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 1, 1);
    set_fate(g, 1, false);
    assert_in_range(live(g), 6, 8);
    expect_dead(g, 1);
}

static void its_key_is_parked_where_the_policy_says_so(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 4);
    g->options.poison = RELAY_POISON_PARK_KEY;
    rig_put(g, "orders", 1, 200, 5);
    set_fate(g, 57, false); /* Key k2; 62, 67, … come after it. */
    assert_in_range(live(g), 6, 8);
    expect_dead(g, 57);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox_dead"), 29);
    assert_int_equal(
        fixture_number(g->f,
                       "SELECT count(*) FROM ferry_outbox_dead WHERE mkey = CAST('k2' AS BLOB)"),
        29);
    assert_int_equal(rig_status(g).stats.published_rows + rig_status(g).stats.covered_rows > 0,
                     true);
}

static void a_person_decides_where_the_policy_says_so(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 4);
    g->options.poison = RELAY_POISON_BLOCK;
    rig_put(g, "orders", 1, 200, 5);
    set_fate(g, 57, false);
    assert_in_range(live(g), 6, 8);
    assert_int_equal(rig_status(g).state, RELAY_BLOCKED);
    assert_int_equal(rig_status(g).undecided, 57);
    die(g, true); /* The next one knows without trying it again. */
    assert_int_equal(live(g), 0);
    assert_int_equal(rig_status(g).state, RELAY_BLOCKED);
    fixture_exec(g->f, "DELETE FROM ferry_outbox WHERE id = 57");
    rig_run(g, 5000);
    rig_expect(g, "orders", 1, 200, 57);
}

/* It would have the row in hand, too. */
static void the_callback_is_not_asked(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    g->options.poison = RELAY_POISON_CALLBACK;
    rig_put(g, "orders", 1, 3, 1);
    set_fate(g, 2, false);
    (void)live(g);
    assert_int_equal(rig_status(g).state, RELAY_BLOCKED);
    assert_int_equal(rig_status(g).undecided, 2);
}

/* It is hardly the rows, when all of them do. */
static void after_three_in_a_row_a_person_decides(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 100, 5);
    set_fate(g, 10, false);
    for (int i = 0; i < 6; i++) {
        fate.rows[i] = 10 + i;
    }
    fate.count = 6;
    assert_in_range(live(g), 14, 20);
    assert_int_equal(rig_status(g).state, RELAY_BLOCKED);
    assert_int_equal(rig_status(g).undecided, 13);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox_dead"), 3);
}

/* A row before it waits for its topic, so the place to begin at stands still. */
static void it_is_found_behind_a_row_that_waits(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "missing", 1, 1, 1);
    rig_put(g, "orders", 2, 60, 5);
    set_fate(g, 20, false);
    assert_in_range(live(g), 6, 12);
    rig_expect(g, "orders", 2, 60, 20);
    expect_dead(g, 20);
}

/* Nobody can say whether it is in the log until its partition answers. */
static void it_waits_while_its_partition_does_not_answer(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 1, 1);
    rig_drain(g); /* A mark says by how many partitions: no fence is needed for that. */
    rig_put(g, "orders", 2, 40, 7);
    set_fate(g, 20, false);
    fate.fences_to_fail = 5;
    (void)live(g);
    assert_true(fate.fences > fate.fences_to_fail);
    rig_run(g, 5000);
    rig_expect(g, "orders", 1, 40, 20);
    expect_dead(g, 20);
}

static void make_keys_long(struct rig *g, const char *of)
{
    char sql[200];
    (void)snprintf(sql, sizeof(sql), "UPDATE ferry_outbox SET mkey = zeroblob(1100) WHERE id %s",
                   of);
    fixture_exec(g->f, sql);
}

/* Its partition is not known; but none has anything of it or behind it. */
static void a_row_with_a_long_key_is_set_aside(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 3);
    rig_put(g, "orders", 1, 20, 7);
    make_keys_long(g, "= 10");
    set_fate(g, 10, false);
    (void)live(g);
    expect_dead(g, 10);
    rig_expect(g, "orders", 1, 20, 10);
    assert_true(fate.fences >= 3);
}

/* ---- Not blamed. */

/* The append of the last death was on its way, and lands as its partition is fenced. */
static void a_row_whose_append_comes_late_is_not_blamed(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 10, 3);
    rig_drain(g);
    rig_put(g, "orders", 11, 60, 7);
    set_fate(g, 30, true);
    fate.keeps_late = true;
    assert_in_range(live(g), 6, 8);
    assert_true(fate.fences > 0);
    assert_null(fate.late.records);
    rig_expect(g, "orders", 1, 60, 0);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox_dead"), 0);
}

static void expect_nothing_blamed(struct rig *g, int last)
{
    fate.count = 0;
    rig_drain(g);
    rig_expect(g, "orders", 1, last, 0);
    assert_int_equal(fixture_number(g->f, "SELECT count(*) FROM ferry_outbox_dead"), 0);
}

static void relays_killed_at_any_moment_blame_no_row(void **state)
{
    struct rig *g = *state;
    struct prng prng;
    int last = 300;
    prng_init(&prng, 4);
    fake_create(&g->fake, "orders", 3);
    rig_put(g, "orders", 1, last, 7);
    set_fate(g, 0, false);
    for (int i = 0; i < 500; i++) {
        uint64_t steps = 1 + prng_below(&prng, i % 3 == 0 ? 600 : 40);
        for (uint64_t n = 0; n < steps; n++) {
            rig_step(g);
            fake_answer(&g->link);
        }
        rig_put(g, "orders", last + 1, last + 3, 7);
        last += 3;
        die(g, i % 2 == 0);
    }
    expect_nothing_blamed(g, last);
}

/* Nothing is answered, and a supervisor kills what does not get on. */
static void relays_killed_in_an_outage_blame_no_row(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 20, 3);
    set_fate(g, 0, false);
    for (int i = 0; i < 100; i++) {
        for (int n = 0; n < 1000; n++) {
            rig_step(g);
        }
        die(g, false);
    }
    expect_nothing_blamed(g, 20);
}

/* A row that kills in one outbox of the process kills the relays of the others, too. */
static void a_neighbour_is_not_blamed(void **state)
{
    struct rig *g = *state;
    struct prng prng;
    prng_init(&prng, 9);
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 1, 1);
    g->fake.down = false;
    set_fate(g, 0, false);
    for (int i = 0; i < 60; i++) {
        /* The neighbour dies at once, or after the pause before it tries its row alone. */
        uint64_t steps = i < 7 ? 1 : 50 + prng_below(&prng, 250);
        for (uint64_t n = 0; n < steps; n++) {
            rig_step(g); /* Not answered in time. */
        }
        die(g, false);
    }
    expect_nothing_blamed(g, 1);
}

static void a_lease_that_is_lost_is_no_death(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 20, 3);
    for (int i = 0; i < 20; i++) {
        rig_step(g); /* Nothing is answered. */
        g->fake.now_us = g->fake.lease_until_us + 1;
        g->fake.holder = 0;
        g->fake.epoch++;
        rig_step(g);
    }
    assert_int_equal(kept(g).rows, 0);
    assert_int_equal(kept(g).deaths, 0);
    expect_nothing_blamed(g, 20);
}

static void progress_forgets_deaths(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 10, 3);
    set_fate(g, 0, false);
    for (int i = 0; i < 10; i++) {
        for (int n = 0; n < 1100; n++) {
            rig_step(g);
            fake_answer(&g->link);
        }
        assert_int_equal(kept(g).deaths, 0);
        die(g, true);
        rig_step(g);
        assert_int_equal(kept(g).deaths, 1);
        assert_int_equal(kept(g).rows, 0);
    }
}

/* ---- What is kept. */

static void a_clean_stop_leaves_the_drivers_checkpoint_alone(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 10, 3);
    rig_drain(g);
    assert_true(kept(g).at_risk);
    relay_stop(g->relay);
    for (int i = 0; i < 5000 && rig_status(g).state != RELAY_STOPPED; i++) {
        rig_step(g);
    }
    struct source_cursor cursor;
    struct err_text e;
    assert_int_equal(
        cursor_decode(bytes_of(g->fake.checkpoint, g->fake.checkpoint_bytes), &cursor, &e),
        FERRY_OK); /* A relay of before reads it. */
    assert_int_equal(cursor.position, 10);
    assert_false(kept(g).at_risk);
}

static void a_checkpoint_of_before_is_read(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 10, 3);
    const struct source_cursor cursor = {.position = 4};
    cursor_encode(&cursor, g->fake.checkpoint);
    g->fake.checkpoint_bytes = CURSOR_BYTES;
    rig_drain(g);
    rig_expect(g, "orders", 5, 10, 0);
}

static void a_relay_of_before_says_that_it_is_too_old(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 10, 3);
    rig_drain(g);
    struct source_cursor cursor;
    struct err_text e;
    assert_int_equal(
        cursor_decode(bytes_of(g->fake.checkpoint, g->fake.checkpoint_bytes), &cursor, &e),
        FERRY_ERR_NEWER_FORMAT);
}

static void a_checkpoint_of_a_newer_relay_halts(void **state)
{
    struct rig *g = *state;
    rig_step(g);
    g->fake.checkpoint[1] = 2;
    die(g, true);
    rig_step(g);
    assert_int_equal(rig_status(g).state, RELAY_HALTED);
    assert_non_null(strstr(rig_status(g).error.text, "newer Ferry"));
}

static void what_is_kept_comes_back(void **state)
{
    (void)state;
    struct relay_kept_blob blob;
    struct relay_kept back;
    struct err_text e;
    const struct relay_kept in = {.at_risk = true,
                                  .deaths = 2,
                                  .blamed = 3,
                                  .rows = 512,
                                  .suspect = INT64_MAX,
                                  .tried = 77,
                                  .who = UINT64_MAX - 1,
                                  .checkpoint = bytes_of_string("the driver's")};
    relay_kept_encode(&in, &blob);
    assert_int_equal(relay_kept_decode(bytes_of(blob.data, blob.size), &back, &e), FERRY_OK);
    assert_true(back.at_risk);
    assert_int_equal(back.deaths, 2);
    assert_int_equal(back.blamed, 3);
    assert_int_equal(back.rows, 512);
    assert_true(back.suspect == INT64_MAX && back.tried == 77 && back.who == UINT64_MAX - 1);
    assert_true(bytes_equal(back.checkpoint, in.checkpoint));
    for (size_t size = 2; size < RELAY_KEPT_HEAD; size++) {
        assert_int_equal(relay_kept_decode(bytes_of(blob.data, size), &back, &e),
                         FERRY_ERR_CORRUPT);
    }
    assert_int_equal(relay_kept_decode(bytes_of(blob.data, 1), &back, &e), FERRY_ERR_NEWER_FORMAT);
    assert_int_equal(relay_kept_decode(bytes_of(blob.data, 0), &back, &e), FERRY_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(a_row_that_kills_when_it_is_read_is_set_aside),
        RIG_TEST(a_row_that_kills_when_it_is_sent_is_set_aside),
        RIG_TEST(a_single_row_that_kills_is_set_aside),
        RIG_TEST(its_key_is_parked_where_the_policy_says_so),
        RIG_TEST(a_person_decides_where_the_policy_says_so),
        RIG_TEST(the_callback_is_not_asked),
        RIG_TEST(after_three_in_a_row_a_person_decides),
        RIG_TEST(it_is_found_behind_a_row_that_waits),
        RIG_TEST(it_waits_while_its_partition_does_not_answer),
        RIG_TEST(a_row_with_a_long_key_is_set_aside),
        RIG_TEST(a_row_whose_append_comes_late_is_not_blamed),
        RIG_TEST(relays_killed_at_any_moment_blame_no_row),
        RIG_TEST(relays_killed_in_an_outage_blame_no_row),
        RIG_TEST(a_neighbour_is_not_blamed),
        RIG_TEST(a_lease_that_is_lost_is_no_death),
        RIG_TEST(progress_forgets_deaths),
        RIG_TEST(a_clean_stop_leaves_the_drivers_checkpoint_alone),
        RIG_TEST(a_checkpoint_of_before_is_read),
        RIG_TEST(a_relay_of_before_says_that_it_is_too_old),
        RIG_TEST(a_checkpoint_of_a_newer_relay_halts),
        cmocka_unit_test(what_is_kept_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
