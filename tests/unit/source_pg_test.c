/* The PostgreSQL source on a real server. */
#include "source_pg_fixture.h"

#include "outbox/app/wake.h"
#include "outbox/postgresql/source_postgresql.h"

/* A page; a read that waits too long for the server is empty and goes on at the next one. */
static size_t read_some(struct fixture *f, size_t rows, size_t bytes)
{
    bool more = true;
    struct err_text e = {{0}};
    const struct source *source = &f->twin.source;
    for (int i = 0; i < 100 && more; i++) {
        assert_int_equal(source->ops->read(source->driver, rows, bytes, &f->twin.page, &more, &e),
                         FERRY_OK);
        if (f->twin.page.count > 0) {
            break;
        }
    }
    return f->twin.page.count;
}

/* What is put comes once, with all that it has. */
static void rows_come_once(void **state)
{
    struct fixture *f = fixture_of(state);
    put(&f->db.a, "k", "hello");
    assert_int_equal(read_some(f, 10, 1000), 1);
    const struct ferry_message *m = &f->twin.page.rows[0].message;
    assert_string_equal(m->topic, "t");
    assert_memory_equal(m->payload, "hello", 5);
    assert_int_equal(m->payload_bytes, 5);
    assert_memory_equal(m->key, "k", 1);
    assert_true(m->timestamp_ms > 1700000000000);
    f->twin.source.ops->rewind(f->twin.source.driver, 0);
    twin_drain(&f->twin);
    assert_int_equal(twin_total(&f->twin), 1);
    twin_drain(&f->twin);
    twin_check_all(&f->twin, &f->db);
}

/* The relay looks at a row before it has it in hand. */
static void a_row_comes_bare_and_the_rest_is_fetched(void **state)
{
    struct fixture *f = fixture_of(state);
    struct err_text e = {{0}};
    bool there = false;
    put(&f->db.a, "k", "first");
    put(&f->db.a, "l", "second");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(read_some(f, 1, 0), 1);
        const struct source_row bare = f->twin.page.rows[0];
        assert_int_equal(bare.message.payload_bytes, 0);
        assert_null(bare.invalid);
        assert_memory_equal(bare.message.key, i == 0 ? "k" : "l", 1);
        assert_string_equal(bare.message.topic, "t");
        assert_int_equal(source_fetch(&f->twin.source, &f->twin.page, &there, &e), FERRY_OK);
        assert_true(there);
        const struct source_row *row = &f->twin.page.rows[0];
        assert_int_equal(row->position, bare.position);
        assert_int_equal(row->number, bare.number);
        assert_int_equal(row->transaction, bare.transaction);
        assert_memory_equal(row->message.payload, i == 0 ? "first" : "second",
                            row->message.payload_bytes);
    }
    assert_int_equal(read_some(f, 1, 0), 0);
    f->twin.source.ops->rewind(f->twin.source.driver, 0);
    twin_drain(&f->twin);
    twin_check_all(&f->twin, &f->db);
}

/* A has number 1 and commits after B, which has number 2: both come. */
static void a_late_commit_comes(void **state)
{
    struct fixture *f = fixture_of(state);
    struct database_link a = {0};
    database_connect(&f->db, &a);
    database_exec(&a, "BEGIN");
    put(&a, "a", "1");
    put(&f->db.a, "b", "2");
    twin_drain(&f->twin);
    assert_int_equal(twin_total(&f->twin), 1);
    assert_true(twin_has(&f->twin, 2));
    database_exec(&a, "COMMIT");
    twin_drain(&f->twin);
    assert_int_equal(twin_total(&f->twin), 2);
    twin_check_all(&f->twin, &f->db);
    database_disconnect(&a);
}

/* A transaction of somebody else that stays open holds nobody back. */
static void an_open_transaction_stalls_nobody(void **state)
{
    struct fixture *f = fixture_of(state);
    struct database_link a = {0};
    database_connect(&f->db, &a);
    database_exec(&a, "CREATE TABLE other (n int); BEGIN; INSERT INTO other VALUES (1)");
    for (int i = 0; i < 20; i++) {
        put(&f->db.a, "k", "x");
        twin_drain(&f->twin);
        assert_int_equal(twin_total(&f->twin), i + 1);
    }
    database_exec(&a, "ROLLBACK");
    twin_drain(&f->twin);
    twin_check_all(&f->twin, &f->db);
    database_disconnect(&a);
}

/* 300 transactions with a number each, open at once, ended in any order. */
static void hundreds_of_open_transactions_fit(void **state)
{
    struct fixture *f = fixture_of(state);
    enum { MANY = 300 };
    static struct database_link links[MANY];
    for (int i = 0; i < MANY; i++) {
        database_connect(&f->db, &links[i]);
        database_exec(&links[i], "BEGIN");
        put(&links[i], "many", "x");
        put(&f->db.a, "between", "x");
    }
    twin_drain(&f->twin);
    assert_int_equal(twin_total(&f->twin), MANY);
    twin_checkpoint(&f->twin);
    twin_kill(&f->twin);
    twin_open(&f->twin, f->db.url);
    for (int i = 0; i < MANY; i++) {
        database_exec(&links[(i * 7) % MANY], i % 5 == 0 ? "ROLLBACK" : "COMMIT");
        if (i % 9 == 0) {
            twin_drain(&f->twin);
        }
    }
    twin_drain(&f->twin);
    twin_check_all(&f->twin, &f->db);
    for (int i = 0; i < MANY; i++) {
        database_disconnect(&links[i]);
    }
}

static int64_t flushed(struct fixture *f)
{
    return database_number(&f->db.a, "SELECT pg_current_wal_flush_lsn() - '0/0'");
}

/* What an application commits without waiting for the disk is on the disk before it goes out. */
static void nothing_goes_out_before_it_is_on_disk(void **state)
{
    struct fixture *f = fixture_of(state);
    database_exec(&f->db.a, "SET synchronous_commit = off");
    for (int i = 0; i < 30; i++) {
        put(&f->db.a, "k", "x");
        int64_t written = database_number(&f->db.a, "SELECT pg_current_wal_insert_lsn() - '0/0'");
        twin_drain(&f->twin);
        assert_int_equal(twin_total(&f->twin), i + 1);
        assert_true(flushed(f) >= written);
    }
    struct err_text e;
    struct source_figures figures;
    assert_int_equal(f->twin.source.ops->figures(f->twin.source.driver, 0, &figures, &e), FERRY_OK);
    assert_true(figures.barriers > 0);
    printf("%llu barriers for 30 commits\n", (unsigned long long)figures.barriers);
}

/* Without a barrier of its own the relay waits for the server's writer. */
static void without_a_barrier_it_waits_for_the_disk(void **state)
{
    struct fixture *f = fixture_of(state);
    twin_kill(&f->twin);
    struct source_options options = twin_options();
    options.barrier = false;
    twin_open_with(&f->twin, f->db.url, &options);
    database_exec(&f->db.a, "SET synchronous_commit = off");
    put(&f->db.a, "k", "x");
    int64_t written = database_number(&f->db.a, "SELECT pg_current_wal_insert_lsn() - '0/0'");
    while (twin_total(&f->twin) == 0) {
        bool more = false;
        (void)twin_step(&f->twin, &more);
    }
    assert_true(flushed(f) >= written);
}

/* A message that needs its transaction's number flushes; one that does not, does not. */
static void only_a_transactional_message_flushes(void **state)
{
    struct fixture *f = fixture_of(state);
    int flushed_by[2] = {0, 0};
    for (int which = 0; which < 2; which++) {
        for (int i = 0; i < 10; i++) {
            char sql[128];
            database_exec(&f->db.a, "SET synchronous_commit = off");
            put(&f->db.a, "k", "x");
            int64_t written =
                database_number(&f->db.a, "SELECT pg_current_wal_insert_lsn() - '0/0'");
            database_exec(&f->db.a, "SET synchronous_commit = on");
            snprintf(sql, sizeof(sql), "SELECT pg_logical_emit_message(%s, 'ferry.barrier', '')",
                     which == 0 ? "false" : "true");
            (void)database_text(&f->db.a, sql);
            flushed_by[which] += flushed(f) >= written;
        }
    }
    printf("flushed: %d of 10 without, %d of 10 with a transaction\n", flushed_by[0],
           flushed_by[1]);
    assert_int_equal(flushed_by[1], 10);
}

/* Headers of the library, and of everybody else. */
static void headers_of_json_come(void **state)
{
    struct fixture *f = fixture_of(state);
    database_exec(&f->db.a,
                  "INSERT INTO ferry.outbox (topic, payload, headers_json) VALUES ('t', 'x', "
                  "jsonb_build_object('a', 'one', 'ferry-deliver-at', '1900000000000'))");
    database_exec(&f->db.a, "INSERT INTO ferry.outbox (topic, payload, headers_json) VALUES "
                            "('t', 'x', jsonb_build_object('a', 1))");
    database_exec(&f->db.a, "INSERT INTO ferry.outbox (topic, payload, headers) VALUES "
                            "('t', 'x', decode('81a161c40162', 'hex'))");
    assert_int_equal(read_some(f, 10, 1000), 3);
    const struct source_row *rows = f->twin.page.rows;
    assert_int_equal(rows[0].message.header_count, 1);
    assert_string_equal(rows[0].message.headers[0].name, "a");
    assert_memory_equal(rows[0].message.headers[0].value, "one", 3);
    assert_int_equal(rows[0].message.due_ms, 1900000000000);
    assert_null(rows[0].message.key);
    assert_non_null(rows[1].invalid);
    assert_int_equal(rows[2].message.header_count, 1);
    assert_memory_equal(rows[2].message.headers[0].value, "b", 1);
}

/* A page ends by its bytes, and goes on where it ended. */
static void pages_end_by_their_bytes(void **state)
{
    struct fixture *f = fixture_of(state);
    database_exec(&f->db.a,
                  "WITH p AS (INSERT INTO ferry.outbox (topic, mkey, payload) SELECT 't', 'k', "
                  "convert_to(repeat('x', 1000), 'UTF8') FROM generate_series(1, 100) "
                  "RETURNING seq, mkey) INSERT INTO ledger SELECT seq, mkey FROM p");
    f->twin.page_bytes = 4000;
    bool more = false;
    assert_true(twin_step(&f->twin, &more));
    assert_int_equal(f->twin.page.count, 4);
    twin_drain(&f->twin);
    twin_check_all(&f->twin, &f->db);
}

/* A payload that fits no batch is not fetched, and ends its page all the same: the rows behind it
 * come with the next. */
static void a_huge_row_hides_nobody(void **state)
{
    struct fixture *f = fixture_of(state);
    database_exec(&f->db.a,
                  "WITH p AS (INSERT INTO ferry.outbox (topic, mkey, payload) VALUES "
                  "('t', 'k', convert_to(repeat('x', 40 << 20), 'UTF8')) RETURNING seq, mkey) "
                  "INSERT INTO ledger SELECT seq, mkey FROM p");
    for (int i = 0; i < 3; i++) {
        put(&f->db.a, "k", "behind it");
    }
    f->twin.page_bytes = 32u << 20;
    twin_drain(&f->twin);
    twin_check_all(&f->twin, &f->db);
}

/* The next page was asked for ahead, and the relay loses its lease, for hours perhaps: the server
 * does not hold a snapshot for an answer that nobody takes. */
static void no_snapshot_is_held_for_nobody(void **state)
{
    struct fixture *f = fixture_of(state);
    const char *held = "SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL "
                       "AND application_name = 'ferry-outbox reader' "
                       "AND datname = current_database()";
    database_exec(&f->db.a,
                  "WITH p AS (INSERT INTO ferry.outbox (topic, mkey, payload) SELECT 't', 'k', "
                  "convert_to(repeat('x', 1000), 'UTF8') FROM generate_series(1, 10000) "
                  "RETURNING seq, mkey) INSERT INTO ledger SELECT seq, mkey FROM p");
    bool more = false;
    assert_true(twin_step(&f->twin, &more));
    usleep(100000);
    assert_int_equal(database_number(&f->db.a, held), 1);
    struct source_word word = {.state = "outage"};
    for (int i = 0; i < 100 && database_number(&f->db.a, held) != 0; i++) {
        source_leave_word(&f->twin.source, &word);
        usleep(10000);
    }
    assert_int_equal(database_number(&f->db.a, held), 0);
    twin_drain(&f->twin);
    twin_check_all(&f->twin, &f->db);
}

static struct source_row row_of(int64_t number)
{
    return (struct source_row){.number = number};
}

static bool set_aside(struct fixture *f, int64_t number, enum source_aside why)
{
    struct err_text e = {{0}};
    bool done = false;
    struct source_row row = row_of(number);
    enum ferry_err err =
        f->twin.source.ops->set_aside(f->twin.source.driver, &row, why, "because", &done, &e);
    if (err != FERRY_OK) {
        fail_msg("%s", e.text);
    }
    return done;
}

static void count_parked(const char *topic, struct bytes key, int64_t until, void *arg)
{
    assert_string_equal(topic, "t");
    assert_int_equal(key.size, 1);
    *(int64_t *)arg += until == 0 ? 1 : 100;
}

/* Setting aside, parking, and what a person decides. */
static void rows_are_set_aside(void **state)
{
    struct fixture *f = fixture_of(state);
    const struct source_ops *ops = f->twin.source.ops;
    struct err_text e;
    bool yes = false;
    int64_t parked = 0;
    for (int i = 0; i < 4; i++) {
        put(&f->db.a, "k", "x");
    }
    assert_true(set_aside(f, 1, SOURCE_ASIDE_REFUSED));
    assert_true(set_aside(f, 1, SOURCE_ASIDE_REFUSED));
    assert_true(set_aside(f, 999, SOURCE_ASIDE_REFUSED));
    assert_false(set_aside(f, 2, SOURCE_ASIDE_PARKED));
    assert_true(set_aside(f, 2, SOURCE_ASIDE_PARK));
    assert_true(set_aside(f, 3, SOURCE_ASIDE_PARKED));
    assert_int_equal(ops->parked(f->twin.source.driver, count_parked, &parked, &e), FERRY_OK);
    assert_int_equal(parked, 1);
    database_exec(&f->db.a, "UPDATE ferry.parked_key SET until_no = 5");
    assert_false(set_aside(f, 4, SOURCE_ASIDE_PARKED));
    assert_int_equal(ops->decided(f->twin.source.driver, 1, &yes, &e), FERRY_OK);
    assert_true(yes);
    assert_int_equal(ops->decided(f->twin.source.driver, 4, &yes, &e), FERRY_OK);
    assert_false(yes);
    assert_int_equal(database_number(&f->db.a, "SELECT count(*) FROM ferry.outbox_dead"), 3);
    assert_int_equal(database_number(&f->db.a, "SELECT count(*) FROM ferry.outbox_dead "
                                               "WHERE parked"),
                     1);
    assert_int_equal(ops->paused(f->twin.source.driver, &yes, &e), FERRY_OK);
    assert_false(yes);
    database_exec(&f->db.a, "UPDATE ferry.meta SET value = '1' WHERE name = 'paused'");
    assert_int_equal(ops->paused(f->twin.source.driver, &yes, &e), FERRY_OK);
    assert_true(yes);
}

/* The core does this: `other` is the relay of lane 1; NULL: nobody has it. */
static void tell_lane(struct fixture *f, const struct relay_twin *other)
{
    const struct source *source = &f->twin.source;
    uint32_t lane = 0;
    if (source_wants_lane(source, &lane)) {
        assert_int_equal(lane, 1);
        source->ops->take_lane(source->driver, lane, other != NULL,
                               other == NULL
                                   ? bytes_of(NULL, 0)
                                   : bytes_of(other->checkpoint.data, other->checkpoint.size));
    }
}

static size_t tidy_beside(struct fixture *f, const struct relay_twin *other)
{
    struct err_text e = {{0}};
    size_t removed = 0;
    bool again = false;
    twin_checkpoint(&f->twin);
    struct source_progress progress = {.settled = twin_low(&f->twin),
                                       .checkpointed = twin_low(&f->twin)};
    size_t total = 0;
    for (int i = 0; i < 8; i++) {
        progress.now_us = clock_monotonic_us() + (int64_t)f->ring_looks++ * 2000000;
        enum ferry_err err =
            f->twin.source.ops->tidy(f->twin.source.driver, &progress, &removed, &again, &e);
        if (err != FERRY_OK) {
            fail_msg("tidy: %s", e.text);
        }
        total += removed;
        tell_lane(f, other);
    }
    return total;
}

static size_t tidy(struct fixture *f)
{
    return tidy_beside(f, NULL);
}

static int64_t rows_in(struct fixture *f, int leaf)
{
    char sql[64];
    snprintf(sql, sizeof(sql), "SELECT count(*) FROM ferry.outbox_%d", leaf);
    return database_number(&f->db.a, sql);
}

/* A leaf is emptied when all of it is published and nobody has a row in it, and not before. */
static void the_ring_is_emptied(void **state)
{
    struct fixture *f = fixture_of(state);
    struct database_link a = {0};
    database_connect(&f->db, &a);
    database_exec(&f->db.a, "SET default_transaction_read_only = off");
    put(&f->db.a, "k", "x");
    database_exec(&a, "BEGIN");
    put(&a, "late", "x");
    twin_drain(&f->twin);
    assert_int_equal(tidy(f), 0); /* The leaf being filled. */
    database_exec(&f->db.a, "SELECT setval('ferry.outbox_seq', 1048576 + 5)");
    put(&f->db.a, "k", "x");
    twin_drain(&f->twin);
    assert_int_equal(tidy(f), 0); /* Somebody has a row in it. */
    assert_int_equal(rows_in(f, 0), 1);
    database_exec(&a, "COMMIT");
    assert_int_equal(tidy(f), 0); /* And that is not published. */
    twin_drain(&f->twin);
    assert_true(tidy(f) > 0);
    assert_int_equal(rows_in(f, 0), 0);
    assert_int_equal(rows_in(f, 1), 1);
    for (int lap = 2; lap < 9; lap++) {
        char sql[80];
        snprintf(sql, sizeof(sql), "SELECT setval('ferry.outbox_seq', %d)", lap << 20);
        database_exec(&f->db.a, sql);
        put(&f->db.a, "k", "x");
        twin_drain(&f->twin);
        (void)tidy(f);
        assert_int_equal(rows_in(f, (lap - 1) & 3), 0);
        assert_int_equal(rows_in(f, lap & 3), 1);
    }
    twin_check_all(&f->twin, &f->db);
    database_disconnect(&a);
}

static void set_number(struct fixture *f, int64_t number);

/* Readers would queue behind it: for the link's lock_timeout, 50 ms each time. */
static void nobody_waits_for_the_lock_of_a_leaf(void **state)
{
    struct fixture *f = fixture_of(state);
    struct database_link a = {0};
    int64_t shortest_us = INT64_MAX;
    database_connect(&f->db, &a);
    put(&f->db.a, "k", "x");
    database_exec(&a, "BEGIN");
    put(&a, "late", "x");
    set_number(f, 1 << 20);
    put(&f->db.a, "k", "x");
    twin_drain(&f->twin);
    for (int i = 0; i < 5; i++) {
        int64_t from_us = clock_monotonic_us();
        assert_int_equal(tidy(f), 0); /* Looks at each leaf twice. */
        int64_t took_us = clock_monotonic_us() - from_us;
        shortest_us = took_us < shortest_us ? took_us : shortest_us;
    }
    assert_true(shortest_us < 90000);
    database_exec(&a, "COMMIT");
    twin_drain(&f->twin);
    assert_int_equal(tidy(f), 1 << 20);
    database_disconnect(&a);
}

static void set_number(struct fixture *f, int64_t number)
{
    char sql[96];
    snprintf(sql, sizeof(sql), "SELECT setval('ferry.outbox_seq', %lld)", (long long)number);
    (void)database_text(&f->db.a, sql);
}

/* The relay was down for more than a lap of the ring, and somebody set the sequence far ahead: the
 * rows of two laps in one leaf come in order, a late one of the first lap too, and the leaf is
 * emptied after the last. */
static void two_laps_in_one_leaf_come(void **state)
{
    struct fixture *f = fixture_of(state);
    struct database_link a = {0};
    database_connect(&f->db, &a);
    database_exec(&a, "BEGIN");
    put(&a, "late", "first lap");
    for (int64_t lap = 0; lap < 3; lap++) {
        set_number(f, (lap << 22) + 100);
        for (int i = 0; i < 5; i++) {
            put(&f->db.a, "k", "x");
        }
    }
    set_number(f, INT64_C(1) << 45);
    put(&f->db.a, "k", "x");
    f->twin.page_rows = 2;
    int64_t from_us = clock_monotonic_us();
    twin_drain(&f->twin);
    assert_true(clock_monotonic_us() - from_us < 10000000);
    assert_int_equal(twin_total(&f->twin), 16);
    set_number(f, (INT64_C(1) << 45) + (1 << 20));
    put(&f->db.a, "k", "x");
    assert_int_equal(tidy(f), 0); /* The late one has a row in it. */
    database_exec(&a, "COMMIT");
    assert_int_equal(tidy(f), 0);
    twin_drain(&f->twin);
    assert_int_equal(tidy(f), 1 << 20);
    assert_int_equal(rows_in(f, 0), 0);
    twin_check_all(&f->twin, &f->db);
    for (int i = 0; i < TARGETS; i++) {
        for (size_t at = 1; at + 1 < f->twin.targets[i].count; at++) {
            assert_true(f->twin.targets[i].log[at] > f->twin.targets[i].log[at - 1]);
        }
    }
    database_disconnect(&a);
}

static void put_in_lane(struct fixture *f, int lane)
{
    char sql[160];
    snprintf(sql, sizeof(sql),
             "WITH p AS (INSERT INTO ferry.outbox (lane, topic, mkey, payload) VALUES (%d, 't', "
             "'k', 'x') RETURNING seq, mkey) INSERT INTO ledger SELECT seq, mkey FROM p",
             lane);
    database_exec(&f->db.a, sql);
}

/* A relay of one lane hands out the rows of its lane only, and nobody empties a leaf in which
 * another lane has rows, also when lanes were added while the relay ran. */
static void lanes_leave_each_other_alone(void **state)
{
    struct fixture *f = fixture_of(state);
    struct source_options options = twin_options();
    struct relay_twin second = {0};
    put_in_lane(f, 0);
    database_exec(&f->db.a, "UPDATE ferry.meta SET value = '2' WHERE name = 'lanes'");
    put_in_lane(f, 1);
    put_in_lane(f, 0);
    set_number(f, 1 << 20);
    put_in_lane(f, 0);
    twin_drain(&f->twin);
    assert_int_equal(twin_total(&f->twin), 3);
    assert_int_equal(tidy(f), 0); /* It was opened with one lane. */
    options.lane = 1;
    twin_open_with(&second, f->db.url, &options);
    twin_drain(&second);
    assert_int_equal(twin_total(&second), 1);
    assert_true(twin_has(&second, 2));
    twin_checkpoint(&second);
    assert_int_equal(tidy_beside(f, &second), 0);
    twin_kill(&f->twin);
    twin_open(&f->twin, f->db.url);
    twin_drain(&f->twin);
    assert_int_equal(tidy(f), 0); /* Nobody has lane 1. */
    assert_int_equal(twin_total(&f->twin), 3);
    twin_kill(&second);
    twin_free(&second);
}

/* The relay of lane 0 empties a leaf once every lane's checkpoint covers it. */
static void the_ring_is_emptied_with_several_lanes(void **state)
{
    struct fixture *f = fixture_of(state);
    struct source_options options = twin_options();
    struct relay_twin second = {0};
    struct relay_twin nothing_yet = {0};
    database_exec(&f->db.a, "UPDATE ferry.meta SET value = '2' WHERE name = 'lanes'");
    twin_kill(&f->twin);
    twin_open(&f->twin, f->db.url);
    options.lane = 1;
    twin_open_with(&second, f->db.url, &options);
    put_in_lane(f, 0);
    put_in_lane(f, 1);
    set_number(f, 1 << 20);
    put_in_lane(f, 0);
    twin_drain(&f->twin);
    assert_int_equal(tidy_beside(f, &nothing_yet), 0);
    twin_drain(&second);
    assert_int_equal(tidy_beside(f, &second), 0); /* It is not in the checkpoint. */
    twin_checkpoint(&second);
    struct source_blob of_another = second.checkpoint;
    second.checkpoint.data[8] ^= 1; /* The system identifier. */
    assert_int_equal(tidy_beside(f, &second), 0);
    second.checkpoint = of_another;
    assert_int_equal(tidy(f), 0); /* Nobody has the lane. */
    assert_int_equal(rows_in(f, 0), 2);
    database_exec(&f->db.a, "INSERT INTO ferry.outbox (seq, lane, topic, payload) VALUES "
                            "(7, 2, 't', 'x')");
    assert_int_equal(tidy_beside(f, &second), 0); /* There is no lane 2. */
    database_exec(&f->db.a, "DELETE FROM ferry.outbox WHERE seq = 7");
    assert_int_equal(tidy_beside(f, &second), 1 << 20);
    assert_int_equal(rows_in(f, 0), 0);
    assert_int_equal(rows_in(f, 1), 1);
    put_in_lane(f, 1);
    set_number(f, 2 << 20);
    put_in_lane(f, 0);
    twin_drain(&f->twin);
    assert_int_equal(tidy_beside(f, &second), 0); /* What the checkpoint of lane 1 lacks. */
    twin_drain(&second);
    twin_checkpoint(&second);
    assert_int_equal(tidy_beside(f, &second), 1 << 20);
    assert_int_equal(twin_total(&f->twin) + twin_total(&second), 5);
    twin_kill(&second);
    twin_free(&second);
}

/* Opened again with the words that the database went back in time. */
static void check_set_back_at(struct fixture *f, const char *url, const char *words)
{
    struct err_text e = {{0}};
    struct source source = {0};
    struct source_options options = twin_options();
    bool same = true;
    int64_t settled = 0;
    assert_int_equal(ferry_outbox_driver_postgresql()->source_open(&source, url, &options, &e),
                     FERRY_OK);
    assert_int_equal(source.ops->begin(source.driver,
                                       bytes_of(f->twin.checkpoint.data, f->twin.checkpoint.size),
                                       &settled, &same, &e),
                     FERRY_OK);
    assert_false(same);
    printf("%s\n", e.text);
    assert_non_null(strstr(e.text, words));
    source_close(&source);
}

static void check_set_back(struct fixture *f, const char *words)
{
    check_set_back_at(f, f->db.url, words);
}

static void run_shell(const char *format, const char *folder)
{
    char command[1024];
    snprintf(command, sizeof(command), format, folder, folder, folder);
    assert_int_equal(system(command), 0);
}

/* A copy of the data folder is put back: told at begin, and by a relay that was there. */
static void a_restored_copy_is_noticed(void **state)
{
    struct fixture *f = fixture_of(state);
    char folder[256];
    snprintf(folder, sizeof(folder), "%s", database_text(&f->db.a, "SHOW data_directory"));
    put(&f->db.a, "k", "x");
    twin_drain(&f->twin);
    database_server_crash(DATABASE_POSTGRESQL);
    run_shell("rm -rf %s.copy && cp -a %s %s.copy", folder);
    database_server_start(DATABASE_POSTGRESQL);
    database_reconnect(&f->db, &f->db.a);
    for (int i = 0; i < 50; i++) {
        put(&f->db.a, "k", "x");
    }
    twin_drain(&f->twin);
    assert_int_equal(twin_total(&f->twin), 51);
    twin_checkpoint(&f->twin);
    database_server_crash(DATABASE_POSTGRESQL);
    run_shell("rm -rf %s && cp -a %s.copy %s", folder);
    database_server_start(DATABASE_POSTGRESQL);
    database_reconnect(&f->db, &f->db.a);
    check_set_back(f, "set back in time");
    bool same = true;
    struct err_text e = {{0}};
    for (int i = 0; i < 100 && same; i++) {
        (void)f->twin.source.ops->verify(f->twin.source.driver, &same, &e);
        usleep(20000);
    }
    assert_false(same);
    /* It goes on until its log is longer than it was: then a row's id tells. */
    database_exec(&f->db.a, "CREATE TABLE filler AS SELECT repeat('x', 100) FROM "
                            "generate_series(1, 50000)");
    for (int i = 0; i < 60; i++) {
        put(&f->db.a, "k", "other");
    }
    check_set_back(f, "another message");
    run_shell("rm -rf %s.copy", folder);
}

/* A dump that is restored beside the database: the same id, the same cluster. */
static void a_restored_dump_is_noticed(void **state)
{
    struct fixture *f = fixture_of(state);
    struct database other = {0};
    char command[1024];
    put(&f->db.a, "k", "x");
    twin_drain(&f->twin);
    twin_checkpoint(&f->twin);
    database_open(&other, DATABASE_POSTGRESQL);
    snprintf(command, sizeof(command),
             "PATH=/usr/lib/postgresql/15/bin:$PATH; pg_dump -h %s -U ferry %s | "
             "psql -q -v ON_ERROR_STOP=1 -h %s -U ferry %s > /dev/null",
             f->db.folder, f->db.name, other.folder, other.name);
    assert_int_equal(system(command), 0);
    check_set_back_at(f, other.url, "dumped and restored");
    database_close(&other);
}

/* A new source id is told. */
static void a_new_source_id_is_noticed(void **state)
{
    struct fixture *f = fixture_of(state);
    bool same = true;
    struct err_text e = {{0}};
    assert_int_equal(f->twin.source.ops->verify(f->twin.source.driver, &same, &e), FERRY_OK);
    assert_true(same);
    database_exec(&f->db.a, "UPDATE ferry.meta SET value = gen_random_uuid()::text "
                            "WHERE name = 'source_uuid'");
    assert_int_equal(f->twin.source.ops->verify(f->twin.source.driver, &same, &e), FERRY_OK);
    assert_false(same);
}

/* A server that crashes is found again, and nothing comes twice. */
static void a_crash_of_the_server_is_survived(void **state)
{
    struct fixture *f = fixture_of(state);
    for (int round = 0; round < 3; round++) {
        put(&f->db.a, "k", "x");
        twin_drain(&f->twin);
        database_server_crash(DATABASE_POSTGRESQL);
        bool more = false;
        (void)twin_step(&f->twin, &more);
        database_server_start(DATABASE_POSTGRESQL);
        database_reconnect(&f->db, &f->db.a);
        put(&f->db.a, "k", "x");
    }
    twin_drain(&f->twin);
    twin_check_all(&f->twin, &f->db);
}

/* A snapshot in which nothing was new waits for the disk; the server crashes before it gets there,
 * and uses the numbers of transactions again that the snapshot saw as finished. */
static void a_snapshot_of_before_a_crash_is_forgotten(void **state)
{
    struct fixture *f = fixture_of(state);
    struct database_link a = {0};
    bool more = false;
    database_exec(&f->db.a, "ALTER SYSTEM SET wal_writer_delay = '10s'");
    (void)database_text(&f->db.a, "SELECT pg_reload_conf()::int");
    database_exec(&f->db.a, "CREATE TABLE other (n int)");
    put(&f->db.a, "k", "x");
    twin_drain(&f->twin);
    for (int i = 0; i < 50 && inside(f)->idle == NULL; i++) {
        usleep(300000);
        database_exec(&f->db.a, "SET synchronous_commit = off");
        for (int n = 0; n < 60; n++) {
            database_exec(&f->db.a, "INSERT INTO other VALUES (1)");
        }
        (void)twin_step(&f->twin, &more);
    }
    assert_non_null(inside(f)->idle);
    database_server_crash(DATABASE_POSTGRESQL);
    database_server_start(DATABASE_POSTGRESQL);
    database_reconnect(&f->db, &f->db.a);
    database_connect(&f->db, &a);
    database_exec(&a, "BEGIN");
    put(&a, "late", "x");
    database_exec(&f->db.a, "CREATE TABLE filler AS SELECT repeat('x', 100) FROM "
                            "generate_series(1, 50000)");
    database_exec(&f->db.a, "SET synchronous_commit = off");
    for (uint64_t reads = f->twin.reads; f->twin.reads < reads + 2;) { /* Till it is connected. */
        database_exec(&f->db.a, "INSERT INTO filler VALUES ('x')");
        (void)twin_step(&f->twin, &more);
    }
    database_exec(&a, "COMMIT");
    twin_drain(&f->twin);
    twin_check_all(&f->twin, &f->db);
    database_exec(&f->db.a, "ALTER SYSTEM RESET wal_writer_delay");
    (void)database_text(&f->db.a, "SELECT pg_reload_conf()::int");
    database_disconnect(&a);
}

/* The relay's checkpoint is of a future that was taken back: what it covers is not published. */
static void a_restored_copy_is_not_emptied(void **state)
{
    struct fixture *f = fixture_of(state);
    char folder[256];
    snprintf(folder, sizeof(folder), "%s", database_text(&f->db.a, "SHOW data_directory"));
    put(&f->db.a, "k", "x");
    twin_drain(&f->twin);
    database_server_crash(DATABASE_POSTGRESQL);
    run_shell("rm -rf %s.copy && cp -a %s %s.copy", folder);
    database_server_start(DATABASE_POSTGRESQL);
    database_reconnect(&f->db, &f->db.a);
    for (int i = 0; i < 50; i++) {
        put(&f->db.a, "k", "x");
    }
    twin_drain(&f->twin);
    struct err_text e = {{0}};
    bool same = true;
    while (f->twin.source.ops->verify(f->twin.source.driver, &same, &e) != FERRY_OK) {
        usleep(5000);
    }
    assert_true(same);
    (void)tidy(f);
    assert_non_null(inside(f)->kept);
    database_server_crash(DATABASE_POSTGRESQL);
    run_shell("rm -rf %s && mv %s.copy %s", folder);
    database_server_start(DATABASE_POSTGRESQL);
    database_reconnect(&f->db, &f->db.a);
    for (int i = 0; i < 3; i++) {
        put(&f->db.a, "k", "not published");
    }
    (void)database_text(&f->db.a, "SELECT setval('ferry.outbox_seq', 1048576)");
    for (int i = 0; i < 40; i++) {
        struct source_progress progress = {.settled = twin_low(&f->twin),
                                           .checkpointed = twin_low(&f->twin),
                                           .now_us = clock_monotonic_us() +
                                                     (int64_t)f->ring_looks++ * 2000000};
        size_t removed = 0;
        bool again = false;
        (void)f->twin.source.ops->tidy(f->twin.source.driver, &progress, &removed, &again, &e);
        assert_int_equal(removed, 0);
        usleep(5000);
    }
    assert_int_equal(rows_in(f, 0), 4);
    assert_int_equal(f->twin.source.ops->verify(f->twin.source.driver, &same, &e), FERRY_OK);
    assert_false(same);
}

/* Settings that turn a key's order around are refused. */
/* The rights that postgresql_1.sql names for the relay's role. */
static void a_role_with_the_named_rights_can_relay(void **state)
{
    struct fixture *f = fixture_of(state);
    char url[sizeof(f->db.url)];
    const char *host = strchr(f->db.url, '@');
    assert_non_null(host);
    snprintf(url, sizeof(url), "postgresql://ferry_test_relay%.*s", (int)sizeof(url) - 64, host);
    database_exec(&f->db.a, "DROP ROLE IF EXISTS ferry_test_relay; CREATE ROLE ferry_test_relay "
                            "LOGIN");
    database_exec(
        &f->db.a,
        "GRANT USAGE ON SCHEMA ferry TO ferry_test_relay; "
        "GRANT SELECT ON ALL TABLES IN SCHEMA ferry TO ferry_test_relay; "
        "GRANT SELECT ON SEQUENCE ferry.outbox_seq TO ferry_test_relay; "
        "GRANT INSERT ON ferry.outbox_dead TO ferry_test_relay; "
        "GRANT INSERT, UPDATE ON ferry.parked_key TO ferry_test_relay; "
        "GRANT TRUNCATE ON ferry.outbox_0, ferry.outbox_1, ferry.outbox_2, ferry.outbox_3 TO "
        "ferry_test_relay");
    twin_kill(&f->twin);
    twin_open(&f->twin, url);
    put(&f->db.a, "k", "x");
    twin_drain(&f->twin);
    set_number(f, 1 << 20);
    put(&f->db.a, "k", "x");
    twin_drain(&f->twin);
    assert_int_equal(tidy(f), 1 << 20);
    struct err_text e = {{0}};
    bool done = false;
    struct source_row row = {.number = (1 << 20) + 1, .message = {.topic = "t"}};
    assert_int_equal(f->twin.source.ops->set_aside(f->twin.source.driver, &row, SOURCE_ASIDE_PARK,
                                                   "refused", &done, &e),
                     FERRY_OK);
    assert_int_equal(database_number(&f->db.a, "SELECT count(*) FROM ferry.outbox_dead"), 1);
    twin_kill(&f->twin);
    twin_open(&f->twin, f->db.url);
    database_exec(&f->db.a, "DROP OWNED BY ferry_test_relay; DROP ROLE ferry_test_relay");
}

static void a_cached_sequence_is_refused(void **state)
{
    struct fixture *f = fixture_of(state);
    struct source source = {0};
    struct source_options options = twin_options();
    struct err_text e = {{0}};
    database_exec(&f->db.a, "ALTER SEQUENCE ferry.outbox_seq CACHE 10");
    assert_int_equal(
        ferry_outbox_driver_postgresql()->source_open(&source, f->db.url, &options, &e),
        FERRY_ERR_DB);
    assert_non_null(strstr(e.text, "CACHE 1"));
}

/* What a person sees of an address has no password, and ours is no option of the library. */
static void urls_are_shown_without_password(void **state)
{
    (void)state;
    char shown[200];
    struct err_text e = {{0}};
    const struct outbox_driver *driver = ferry_outbox_driver_postgresql();
    assert_int_equal(driver->url_check("postgresql://bob:secret@db.example:5433/shop"
                                       "?schema=other&sslmode=require",
                                       shown, sizeof(shown), &e),
                     FERRY_OK);
    assert_string_equal(shown, "postgresql://bob@db.example:5433/shop (schema other)");
    assert_int_equal(
        driver->url_check("postgresql://bob:secret@h/shop?scheme=x", shown, sizeof(shown), &e),
        FERRY_ERR_INVALID_ARGUMENT);
    assert_null(strstr(e.text, "secret"));
    assert_int_equal(driver->url_check("postgres://h/shop?schema=No", shown, sizeof(shown), &e),
                     FERRY_ERR_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_are_shown_without_password),
        cmocka_unit_test_setup_teardown(rows_come_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_row_comes_bare_and_the_rest_is_fetched, setup, teardown),
        cmocka_unit_test_setup_teardown(a_late_commit_comes, setup, teardown),
        cmocka_unit_test_setup_teardown(an_open_transaction_stalls_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(hundreds_of_open_transactions_fit, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_goes_out_before_it_is_on_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_barrier_it_waits_for_the_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(only_a_transactional_message_flushes, setup, teardown),
        cmocka_unit_test_setup_teardown(headers_of_json_come, setup, teardown),
        cmocka_unit_test_setup_teardown(pages_end_by_their_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_huge_row_hides_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(no_snapshot_is_held_for_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(rows_are_set_aside, setup, teardown),
        cmocka_unit_test_setup_teardown(the_ring_is_emptied, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_waits_for_the_lock_of_a_leaf, setup, teardown),
        cmocka_unit_test_setup_teardown(two_laps_in_one_leaf_come, setup, teardown),
        cmocka_unit_test_setup_teardown(lanes_leave_each_other_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(the_ring_is_emptied_with_several_lanes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_restored_copy_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_restored_dump_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_new_source_id_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_crash_of_the_server_is_survived, setup, teardown),
        cmocka_unit_test_setup_teardown(a_snapshot_of_before_a_crash_is_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(a_restored_copy_is_not_emptied, setup, teardown),
        cmocka_unit_test_setup_teardown(a_role_with_the_named_rights_can_relay, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cached_sequence_is_refused, setup, teardown),
    };
    cmocka_set_test_filter(getenv("FERRY_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
