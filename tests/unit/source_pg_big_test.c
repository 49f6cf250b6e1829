/* A backlog: it is read by bounded index reads only, also right after a bulk insert of which the
 * planner knows nothing. FERRY_ROWS sets its size. */
#include "source_pg_fixture.h"

#include "outbox/postgresql/source_postgresql.h"

static int64_t resident_kib(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    int64_t kib = -1;
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "VmHWM:", 6) == 0) {
            kib = atoll(line + 6);
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return kib;
}

static void backlog_is_read_in_bounded_steps(void **state)
{
    if (!database_available(DATABASE_POSTGRESQL)) {
        skip();
    }
    bool copies = *state != NULL;
    const char *given = getenv("FERRY_ROWS");
    int64_t rows = given != NULL ? atoll(given) : 120000;
    struct database db = {0};
    struct relay_twin twin = {0};
    char sql[512];
    fixture_open(&db);
    struct source_options options = twin_options();
    options.copy_rows = copies ? 50000 : INT64_MAX;
    twin_open_with(&twin, db.url, &options);
    for (int64_t done = 0; done < rows; done += 10000) {
        snprintf(
            sql, sizeof(sql),
            "INSERT INTO ferry.outbox (topic, mkey, payload, msg_id, created_ms, tli) "
            "SELECT 't', convert_to('key-' || g %% 1000, 'UTF8'), convert_to(repeat('x', 200), "
            "'UTF8'), gen_random_uuid(), 1, 1 FROM generate_series(1, 10000) g");
        database_exec(&db.a, sql);
    }
    bool more = true;
    int64_t longest_us = 0;
    int64_t from_us = clock_monotonic_us();
    int64_t base_kib = resident_kib();
    while (more) {
        struct err_text e = {{0}};
        int64_t at_us = clock_monotonic_us();
        assert_int_equal(
            twin.source.ops->read(twin.source.driver, 4096, 4u << 20, &twin.page, &more, &e),
            FERRY_OK);
        int64_t took_us = clock_monotonic_us() - at_us;
        longest_us = took_us > longest_us ? took_us : longest_us;
        twin.rows += twin.page.count;
        if (twin.page.count > 0) {
            assert_true(twin.page.rows[0].position > twin.read_pos);
            twin.read_pos = twin.page.rows[twin.page.count - 1].position;
        }
    }
    int64_t took_us = clock_monotonic_us() - from_us;
    printf("%s: %llu rows in %lld ms (%lld rows/s), longest read %lld us, memory +%lld KiB\n",
           copies ? "COPY" : "windows", (unsigned long long)twin.rows, (long long)(took_us / 1000),
           (long long)(twin.rows * 1000000 / (uint64_t)took_us), (long long)longest_us,
           (long long)(resident_kib() - base_kib));
    assert_int_equal(twin.rows, rows);
    assert_true(longest_us < 1000000);
    twin_kill(&twin);
    twin_free(&twin);
    database_close(&db);
}

/* A COPY whose rows nobody takes, as when the brokers are away: its snapshot goes. */
static void a_copy_is_given_up(void **state)
{
    (void)state;
    if (!database_available(DATABASE_POSTGRESQL)) {
        skip();
    }
    const char *held = "SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL "
                       "AND application_name = 'ferry-outbox reader'";
    struct database db = {0};
    struct relay_twin twin = {.copies = true, .page_rows = 100};
    struct source_word word = {.state = "outage"};
    bool more = false;
    fixture_open(&db);
    twin_open(&twin, db.url);
    database_exec(&db.a,
                  "WITH p AS (INSERT INTO ferry.outbox (topic, mkey, payload) SELECT 't', 'k', "
                  "convert_to(repeat('x', 1000), 'UTF8') FROM generate_series(1, 20000) "
                  "RETURNING seq, mkey) INSERT INTO ledger SELECT seq, mkey FROM p");
    while (!twin_step(&twin, &more)) {
    }
    assert_int_equal(database_number(&db.a, held), 1);
    for (int i = 0; i < 500 && database_number(&db.a, held) != 0; i++) {
        source_leave_word(&twin.source, &word);
        usleep(10000);
    }
    assert_int_equal(database_number(&db.a, held), 0);
    twin_drain(&twin);
    twin_check_all(&twin, &db);
    twin_kill(&twin);
    twin_free(&twin);
    database_close(&db);
}

/* The plan that the relay's session gets for a statement. The caller clears it. */
static PGresult *plan_of(struct database *db, enum pg_statement which, const char *values)
{
    char sql[8192];
    struct pg_target target = {.schema = "ferry"};
    struct pg_link link = {.target = &target};
    struct buf text;
    buf_init(&text, sizeof(sql));
    pg_link_text(&link, source_pg_statements[which], &text);
    snprintf(sql, sizeof(sql), "PREPARE s%d AS %s; EXPLAIN %s EXECUTE s%d(%s)", (int)which,
             (const char *)text.data, getenv("FERRY_PLANS") != NULL ? "ANALYZE" : "", (int)which,
             values);
    buf_fini(&text);
    PGresult *result = PQexec(db->a.connection, sql);
    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        fail_msg("%s: %s", sql, PQresultErrorMessage(result));
    }
    return result;
}

static void put_many(struct database *db, int64_t rows)
{
    char sql[512];
    snprintf(sql, sizeof(sql),
             "INSERT INTO ferry.outbox (topic, mkey, payload, msg_id, created_ms, tli) "
             "SELECT 't', 'k', convert_to(repeat('x', 200), 'UTF8'), gen_random_uuid(), 1, 1 "
             "FROM generate_series(1, %lld) g",
             (long long)rows);
    database_exec(&db->a, sql);
}

static void check_plan(struct database *db, enum pg_statement which, const char *values)
{
    PGresult *plan = plan_of(db, which, values);
    bool has_index = false;
    for (int i = 0; i < PQntuples(plan); i++) {
        const char *line = PQgetvalue(plan, i, 0);
        if (getenv("FERRY_PLANS") != NULL) {
            printf("%s\n", line);
        }
        assert_null(strstr(line, "Seq Scan"));
        assert_null(strstr(line, "Bitmap"));
        has_index = has_index || strstr(line, "Index") != NULL;
    }
    assert_true(has_index);
    PQclear(plan);
}

static void session_like_the_relays(struct database *db)
{
    database_exec(&db->a, "SET enable_seqscan = off; SET enable_bitmapscan = off; "
                          "SET plan_cache_mode = force_generic_plan; SET jit = off");
}

static bool goes_by_number(struct database *db, enum pg_statement which, const char *values)
{
    PGresult *plan = plan_of(db, which, values);
    bool by_number = false;
    for (int i = 0; i < PQntuples(plan); i++) {
        by_number = by_number || strstr(PQgetvalue(plan, i, 0), "lane_seq") != NULL;
    }
    PQclear(plan);
    return by_number;
}

/* A plan is made once, while a leaf is new and small, and kept while it grows: one that goes by
 * (lane, seq) would soon read the whole leaf in each tick. */
static void plans_of_a_small_outbox_look_transactions_up(void **state)
{
    (void)state;
    if (!database_available(DATABASE_POSTGRESQL)) {
        skip();
    }
    const char *late = "0, '1000', '2000', '2000:2000:', 0, ARRAY['7', '8']::xid8[], 4096";
    char small[128];
    struct database db = {0};
    fixture_open(&db);
    session_like_the_relays(&db);
    snprintf(small, sizeof(small), "%s, 4000000", late);
    for (int rows = 0; rows < 3000; rows += 100) {
        assert_false(goes_by_number(&db, PG_PROBE, "0, '1000', ARRAY['7', '8']::xid8[], 4097"));
        assert_false(goes_by_number(&db, PG_SIZE, late));
        assert_false(goes_by_number(&db, PG_SMALL, small));
        assert_false(goes_by_number(&db, PG_OLDEST, "0, '1000', ARRAY['7', '8']::xid8[]"));
        database_exec(&db.a, "DEALLOCATE ALL");
        put_many(&db, 100);
    }
    database_close(&db);
}

/* Also when the planner knows nothing of a million rows, and after an ANALYZE. */
static void plans_use_the_indexes_only(void **state)
{
    (void)state;
    if (!database_available(DATABASE_POSTGRESQL)) {
        skip();
    }
    struct database db = {0};
    fixture_open(&db);
    put_many(&db, 150000);
    for (int round = 0; round < 2; round++) {
        session_like_the_relays(&db);
        check_plan(&db, PG_PROBE, "0, '1000', ARRAY['7', '8']::xid8[], 4097");
        check_plan(&db, PG_SIZE,
                   "0, '1000', '2000', '2000:2000:', 0, ARRAY['7', '8']::xid8[], 4097");
        check_plan(&db, PG_BOUNDS, "0, 70000");
        check_plan(&db, PG_SMALL,
                   "0, '1000', '2000', '2000:2000:', 0, ARRAY['7', '8']::xid8[], 4096, 4000000");
        check_plan(&db, PG_WINDOW,
                   "0, '700', 65536, '200000:200000:', 0, ARRAY['7', '8']::xid8[], 4096, 4000000");
        check_plan(&db, PG_MSG_ID, "0, 7");
        check_plan(&db, PG_OLDEST, "0, '1000', ARRAY['7', '8']::xid8[]");
        database_exec(&db.a, "DEALLOCATE ALL; ANALYZE ferry.outbox");
    }
    database_close(&db);
}

int main(void)
{
    static bool copies = true;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_use_the_indexes_only),
        cmocka_unit_test(plans_of_a_small_outbox_look_transactions_up),
        cmocka_unit_test(a_copy_is_given_up),
        cmocka_unit_test(backlog_is_read_in_bounded_steps),
        cmocka_unit_test_prestate(backlog_is_read_in_bounded_steps, &copies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
