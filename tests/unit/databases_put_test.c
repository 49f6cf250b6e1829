/* ferry_outbox_put and its kin, and ferry_migrate, on every database. */
#include "databases_fixture.h"

#include <poll.h>
#include <pthread.h>
#if FERRY_HAVE_POSTGRESQL
#include <libpq-fe.h>
#endif

#include "outbox/app/db.h"
#include "outbox/postgresql/db_postgresql.h"

static struct ferry_message message_of(const char *key, const char *payload)
{
    return (struct ferry_message){.topic = "orders",
                                  .key = key,
                                  .key_bytes = key == NULL ? 0 : strlen(key),
                                  .payload = payload,
                                  .payload_bytes = strlen(payload)};
}

static int64_t rows(struct database *d)
{
    return database_number(&d->a, "SELECT count(*) FROM {outbox}");
}

static void well(struct ferry_db *db, enum ferry_err err)
{
    if (err != FERRY_OK) {
        fail_msg("%s: %s", ferry_err_name(err), ferry_db_detail(db));
    }
}

static void a_put_message_is_a_row_after_commit(void **state)
{
    struct database *d = database_of(state);
    struct ferry_header header = {"traceparent", "00-1", 4};
    struct ferry_message m = message_of("k1", "paid");
    m.headers = &header;
    m.header_count = 1;
    m.timestamp_ms = 1234;
    struct ferry_id id = {{0}};
    database_exec(&d->a, "BEGIN");
    well(d->a.db, ferry_outbox_put(d->a.db, &m, &id));
    m = message_of(NULL, "");
    well(d->a.db, ferry_outbox_put(d->a.db, &m, NULL));
    database_exec(&d->a, "COMMIT");
    assert_int_equal(id.bytes[6] >> 4, 7); /* UUIDv7 */
    assert_int_equal(rows(d), 2);
    assert_int_equal(database_number(&d->a, "SELECT count(*) FROM {outbox} WHERE topic = 'orders' "
                                            "AND length(mkey) = 2 AND length(payload) = 4 "
                                            "AND length(headers) > 10 AND created_ms = 1234"),
                     1);
    assert_int_equal(database_number(&d->a, "SELECT count(*) FROM {outbox} WHERE mkey IS NULL AND "
                                            "length(payload) = 0 AND headers IS NULL"),
                     1);
}

static void a_rolled_back_put_leaves_nothing(void **state)
{
    struct database *d = database_of(state);
    struct ferry_message m = message_of("k", "x");
    database_exec(&d->a, "BEGIN");
    well(d->a.db, ferry_outbox_put(d->a.db, &m, NULL));
    database_exec(&d->a, "ROLLBACK");
    assert_int_equal(rows(d), 0);
}

static void a_put_outside_a_transaction_is_refused(void **state)
{
    struct database *d = database_of(state);
    struct ferry_message m = message_of("k", "x");
    assert_int_equal(ferry_outbox_put(d->a.db, &m, NULL), FERRY_ERR_NO_TRANSACTION);
    assert_int_equal(rows(d), 0);
}

static void the_largest_message_is_taken(void **state)
{
    struct database *d = database_of(state);
    char *payload = malloc(FERRY_OUTBOX_MESSAGE_MAX_BYTES + 1);
    assert_non_null(payload);
    memset(payload, 0xff, FERRY_OUTBOX_MESSAGE_MAX_BYTES + 1);
    struct ferry_message m = {.topic = "orders", .payload = payload};
    m.payload_bytes = FERRY_OUTBOX_MESSAGE_MAX_BYTES;
    database_exec(&d->a, "BEGIN");
    well(d->a.db, ferry_outbox_put(d->a.db, &m, NULL));
    m.payload_bytes++;
    assert_int_equal(ferry_outbox_put(d->a.db, &m, NULL), FERRY_ERR_TOO_LARGE);
    database_exec(&d->a, "COMMIT");
    assert_int_equal(database_number(&d->a, "SELECT length(payload) FROM {outbox}"),
                     FERRY_OUTBOX_MESSAGE_MAX_BYTES);
    free(payload);
}

static void a_plain_insert_gets_what_is_missing(void **state)
{
    struct database *d = database_of(state);
    database_exec(&d->a, "INSERT INTO {outbox} (topic, mkey, payload) VALUES ('orders', 'k', 'x')");
    assert_int_equal(database_number(&d->a,
                                     "SELECT count(*) FROM {outbox} WHERE msg_id IS NOT NULL "
                                     "AND created_ms > 1600000000000"),
                     1);
    assert_false(database_try(&d->a, "INSERT INTO {outbox} (topic, payload) VALUES ('a/b', 'x')"));
    assert_false(database_try(&d->a, "INSERT INTO {outbox} (topic, payload) VALUES ('', 'x')"));
}

/* Below, at and above the limits of one statement and of COPY. */
static void many_are_put_at_once_in_order(void **state)
{
    struct database *d = database_of(state);
    static const size_t counts[] = {1, 63, 64, 65, 256, 257, 1000};
    static struct ferry_message messages[1000];
    static struct ferry_id ids[1000];
    static char payloads[1000][24];
    struct ferry_header header = {"h", "v", 1};
    int64_t expected = 0;
    for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
        for (size_t i = 0; i < counts[c]; i++) {
            snprintf(payloads[i], sizeof(payloads[i]), "%06zu", i);
            messages[i] = message_of(i % 3 == 0 ? NULL : "k", payloads[i]);
            messages[i].headers = &header;
            messages[i].header_count = i % 5 == 0 ? 1 : 0;
            messages[i].timestamp_ms = (int64_t)c + 1;
        }
        database_exec(&d->a, "BEGIN");
        well(d->a.db, ferry_outbox_putv(d->a.db, messages, counts[c], ids));
        database_exec(&d->a, "COMMIT");
        expected += (int64_t)counts[c];
        assert_int_equal(rows(d), expected);
    }
    const char *number = d->kind == DATABASE_POSTGRESQL ? "seq" : "id";
    char sql[512];
    snprintf(
        sql, sizeof(sql),
        "SELECT count(*) FROM {outbox} a JOIN {outbox} b ON b.%s = a.%s + 1 AND b.created_ms = "
        "7 WHERE a.created_ms = 7 AND b.payload > a.payload",
        number, number);
    assert_int_equal(database_number(&d->a, sql), 999);
    assert_int_equal(
        database_number(&d->a,
                        "SELECT count(*) FROM {outbox} WHERE created_ms = 7 AND mkey IS NULL"),
        334);
    assert_int_equal(database_number(&d->a,
                                     "SELECT count(*) FROM {outbox} WHERE created_ms = 7 AND "
                                     "headers IS NOT NULL"),
                     200);
}

static void a_bad_one_among_many_leaves_nothing(void **state)
{
    struct database *d = database_of(state);
    struct ferry_message messages[3] = {message_of("k", "1"), message_of("k", "2"),
                                        message_of("k", "3")};
    messages[2].topic = "a/b";
    database_exec(&d->a, "BEGIN");
    assert_int_equal(ferry_outbox_putv(d->a.db, messages, 3, NULL), FERRY_ERR_BAD_NAME);
    assert_int_equal(ferry_outbox_putv(d->a.db, messages, FERRY_OUTBOX_PUTV_MAX + 1, NULL),
                     FERRY_ERR_INVALID_ARGUMENT);
    well(d->a.db, ferry_outbox_putv(d->a.db, messages, 0, NULL));
    database_exec(&d->a, "COMMIT");
    assert_int_equal(rows(d), 0);
}

static void large_ones_together_are_taken(void **state)
{
    struct database *d = database_of(state);
    static char payload[400000];
    struct ferry_message messages[80];
    memset(payload, 7, sizeof(payload));
    for (size_t i = 0; i < 80; i++) {
        messages[i] = message_of("k", "");
        messages[i].payload = payload;
        messages[i].payload_bytes = sizeof(payload);
    }
    database_exec(&d->a, "BEGIN");
    well(d->a.db, ferry_outbox_putv(d->a.db, messages, 80, NULL));
    database_exec(&d->a, "COMMIT");
    assert_int_equal(database_number(&d->a, "SELECT sum(length(payload)) FROM {outbox}"),
                     80 * (int64_t)sizeof(payload));
}

static void a_due_time_becomes_a_header(void **state)
{
    struct database *d = database_of(state);
    struct ferry_message m = message_of("k", "x");
    m.delay_ms = 60000;
    database_exec(&d->a, "BEGIN");
    well(d->a.db, ferry_outbox_put(d->a.db, &m, NULL));
    m.due_ms = 5;
    assert_int_equal(ferry_outbox_put(d->a.db, &m, NULL), FERRY_ERR_INVALID_ARGUMENT);
    m.delay_ms = 0;
    struct ferry_header header = {FERRY_HEADER_DELIVER_AT, "7", 1};
    m.headers = &header;
    m.header_count = 1;
    assert_int_equal(ferry_outbox_put(d->a.db, &m, NULL), FERRY_ERR_INVALID_ARGUMENT);
    m.due_ms = 0;
    well(d->a.db, ferry_outbox_put(d->a.db, &m, NULL));
    database_exec(&d->a, "COMMIT");
    assert_int_equal(rows(d), 2);
    /* A map of one: 0x81, the name with its size, 13 digits with theirs. */
    assert_int_equal(
        database_number(&d->a, "SELECT count(*) FROM {outbox} WHERE length(headers) = 1 + 1 + 16 + "
                               "2 + 13"),
        1);
}

struct locker {
    struct database_link link;
    volatile bool got;
};

static void *lock_in_thread(void *arg)
{
    struct locker *l = arg;
    well(l->link.db, ferry_outbox_lock_key(l->link.db, "k", 1));
    l->got = true;
    return NULL;
}

static void a_keys_lock_is_held_to_the_end_of_the_transaction(void **state)
{
    struct database *d = database_of(state);
    struct locker locker = {.got = false};
    pthread_t thread;
    assert_int_equal(ferry_outbox_lock_key(d->a.db, "k", 1), FERRY_ERR_NO_TRANSACTION);
    database_connect(d, &locker.link);
    database_exec(&d->a, "BEGIN");
    database_exec(&locker.link, "BEGIN");
    well(d->a.db, ferry_outbox_lock_key(d->a.db, "k", 1));
    well(d->a.db, ferry_outbox_lock_key(d->a.db, "k", 1)); /* Once more is no harm. */
    well(locker.link.db, ferry_outbox_lock_key(locker.link.db, "another", 7));
    assert_int_equal(pthread_create(&thread, NULL, lock_in_thread, &locker), 0);
    poll(NULL, 0, 200);
    assert_false(locker.got);
    database_exec(&d->a, "COMMIT");
    pthread_join(thread, NULL);
    assert_true(locker.got);
    database_exec(&locker.link, "COMMIT");
    database_disconnect(&locker.link);
}

/* Whoever inserts by hand can say the same. */
static void lanes_are_the_same_for_library_and_sql(void **state)
{
    struct database *d = database_of(state);
    database_exec(&d->a, "UPDATE {meta} SET value = '4' WHERE name = 'lanes'");
    database_reconnect(d, &d->a);
    static struct ferry_message messages[300];
    static char keys[300][8];
    for (size_t i = 0; i < 300; i++) {
        snprintf(keys[i], sizeof(keys[i]), "key-%zu", i);
        messages[i] = message_of(keys[i], "x");
    }
    database_exec(&d->a, "BEGIN");
    well(d->a.db, ferry_outbox_put(d->a.db, &messages[0], NULL));
    well(d->a.db, ferry_outbox_putv(d->a.db, messages, 300, NULL));
    database_exec(&d->a, "COMMIT");
    assert_int_equal(
        database_number(&d->a, d->kind == DATABASE_POSTGRESQL
                                   ? "SELECT count(*) FROM {outbox} WHERE lane = {lane_of}(mkey)"
                                   : "SELECT count(*) FROM {outbox} WHERE lane = "
                                     "COALESCE(MOD(CONV(LEFT(MD5(mkey), 7), 16, 10), 4), 0)"),
        301);
    assert_int_equal(database_number(&d->a, "SELECT count(DISTINCT lane) FROM {outbox}"), 4);
}

/* Both ends compute the same place. */
static void a_commit_wakes_the_relay(void **state)
{
    struct database *d = database_of(state);
    struct ferry_message m = message_of("k", "x");
    struct err_text e;
    int fd = -1;
    database_exec(&d->a, "BEGIN");
    well(d->a.db, ferry_outbox_put(d->a.db, &m, NULL));
    const char *place = d->a.db->ops->path(d->a.db->driver);
    assert_non_null(place);
    assert_int_equal(wake_listen(place, &fd, &e), FERRY_OK);
    database_exec(&d->a, "COMMIT");
    ferry_outbox_committed(d->a.db);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 1000), 1);
    wake_drain(fd);
    assert_int_equal(poll(&p, 1, 0), 0);
    wake_close(place, &fd);
    ferry_outbox_committed(d->a.db); /* Nobody is there. */
}

#if FERRY_HAVE_POSTGRESQL
/* The rights that postgresql_1.sql names: enough for every way of putting, and for nothing that
 * gives a row another place in the order. */
static void a_role_with_the_named_rights_can_put(void **state)
{
    struct database *d = database_of(state);
    static struct ferry_message messages[DB_POSTGRESQL_COPY_ROWS + 10];
    struct ferry_message m = message_of("k", "x");
    const size_t many = sizeof(messages) / sizeof(messages[0]);
    for (size_t i = 0; i < many; i++) {
        messages[i] = m;
    }
    database_exec(&d->a, "DROP ROLE IF EXISTS ferry_test_app; CREATE ROLE ferry_test_app");
    database_exec(&d->a, "GRANT USAGE ON SCHEMA ferry TO ferry_test_app; "
                         "GRANT SELECT ON ferry.meta TO ferry_test_app; "
                         "GRANT INSERT (lane, topic, mkey, msg_id, headers, headers_json, payload, "
                         "created_ms) ON ferry.outbox TO ferry_test_app; "
                         "GRANT USAGE ON SEQUENCE ferry.outbox_seq TO ferry_test_app; "
                         "GRANT SELECT (msg_id) ON ferry.outbox TO ferry_test_app; "
                         "SET ROLE ferry_test_app; BEGIN");
    well(d->a.db, ferry_outbox_put(d->a.db, &m, NULL));
    well(d->a.db, ferry_outbox_putv(d->a.db, messages, 3, NULL));
    well(d->a.db, ferry_outbox_putv(d->a.db, messages, many, NULL));
    database_exec(&d->a, "SELECT ferry.put('t', 'k', 'x')");
    database_exec(&d->a, "COMMIT");
    PGresult *r = PQexec(d->a.connection, "INSERT INTO ferry.outbox (xid, topic, payload) VALUES "
                                          "('3', 't', 'x')");
    assert_string_equal(PQresultErrorField(r, PG_DIAG_SQLSTATE), "42501");
    PQclear(r);
    database_exec(&d->a, "RESET ROLE");
    assert_int_equal(database_number(&d->a, "SELECT count(*) FROM ferry.outbox"),
                     (int64_t)many + 5);
    database_exec(&d->a, "DROP OWNED BY ferry_test_app; DROP ROLE ferry_test_app");
}

static void put_with_others_in_a_pipeline(void **state)
{
    struct database *d = database_of(state);
    PGconn *connection = d->a.connection;
    struct ferry_message m = message_of("k", "x");
    assert_int_equal(PQenterPipelineMode(connection), 1);
    assert_int_equal(ferry_outbox_put_async(d->a.db, &m, NULL), FERRY_ERR_NO_TRANSACTION);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(PQsendQueryParams(connection, "BEGIN", 0, NULL, NULL, NULL, NULL, 0), 1);
        well(d->a.db, ferry_outbox_put_async(d->a.db, &m, NULL));
        well(d->a.db, ferry_outbox_put_async(d->a.db, &m, NULL));
        assert_int_equal(PQsendQueryParams(connection, "COMMIT", 0, NULL, NULL, NULL, NULL, 0), 1);
        assert_int_equal(PQpipelineSync(connection), 1);
        for (int i = 0; i < 4; i++) {
            PGresult *result = PQgetResult(connection);
            assert_int_equal(PQresultStatus(result), PGRES_COMMAND_OK);
            PQclear(result);
            assert_null(PQgetResult(connection));
        }
        PGresult *sync = PQgetResult(connection);
        assert_int_equal(PQresultStatus(sync), PGRES_PIPELINE_SYNC);
        PQclear(sync);
        if (round == 0) { /* And once its statement is prepared. */
            assert_int_equal(PQexitPipelineMode(connection), 1);
            assert_int_equal(rows(d), 2);
            database_exec(&d->a, "BEGIN");
            assert_int_equal(ferry_outbox_put_async(d->a.db, &m, NULL), FERRY_ERR_INVALID_ARGUMENT);
            well(d->a.db, ferry_outbox_put(d->a.db, &m, NULL));
            database_exec(&d->a, "COMMIT");
            assert_int_equal(PQenterPipelineMode(connection), 1);
        }
    }
    assert_int_equal(PQexitPipelineMode(connection), 1);
    assert_int_equal(rows(d), 5);
}

static void pipelined_put(struct database *d, const char *key)
{
    PGconn *connection = d->a.connection;
    struct ferry_message m = message_of(key, "x");
    database_exec(&d->a, "BEGIN");
    assert_int_equal(PQenterPipelineMode(connection), 1);
    assert_int_equal(ferry_outbox_prepare(d->a.db), FERRY_ERR_INVALID_ARGUMENT);
    well(d->a.db, ferry_outbox_put_async(d->a.db, &m, NULL));
    assert_int_equal(PQpipelineSync(connection), 1);
    PGresult *result = PQgetResult(connection);
    assert_int_equal(PQresultStatus(result), PGRES_COMMAND_OK);
    PQclear(result);
    assert_null(PQgetResult(connection));
    PQclear(PQgetResult(connection)); /* The sync. */
    assert_int_equal(PQexitPipelineMode(connection), 1);
    database_exec(&d->a, "COMMIT");
}

/* Also while the driver has not asked yet how many there are. */
static void rows_of_a_pipeline_go_into_their_lanes(void **state)
{
    struct database *d = database_of(state);
    database_exec(&d->a, "UPDATE {meta} SET value = '4' WHERE name = 'lanes'");
    char key[8];
    for (int i = 0; i < 16; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        if (i == 8) {
            well(d->a.db, ferry_outbox_prepare(d->a.db));
            assert_int_equal(database_number(&d->a, "SELECT count(*) FROM pg_prepared_statements"),
                             1);
        }
        pipelined_put(d, key);
    }
    assert_int_equal(database_number(&d->a, "SELECT count(*) FROM {outbox} WHERE lane <> "
                                            "ferry.lane_of(mkey)"),
                     0);
    assert_true(database_number(&d->a, "SELECT count(DISTINCT lane) FROM {outbox}") > 1);
}

static void another_schema_holds_the_tables(void **state)
{
    struct database *d = database_of(state);
    struct ferry_db *db = NULL;
    struct ferry_message m = message_of("k", "x");
    const char *const wrong[] = {"",
                                 "Ferry",
                                 "a b",
                                 "x\"; DROP",
                                 "1a",
                                 "pg_x",
                                 "a2345678901234567890123456789012345678901234567890"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(ferry_db_postgresql(&db, d->a.connection, wrong[i]),
                         FERRY_ERR_INVALID_ARGUMENT);
    }
    assert_int_equal(ferry_db_postgresql(&db, d->a.connection, "shop_2"), FERRY_OK);
    well(db, ferry_migrate(db));
    database_exec(&d->a, "BEGIN");
    well(db, ferry_outbox_put(db, &m, NULL));
    well(d->a.db, ferry_outbox_put(d->a.db, &m, NULL)); /* Two adapters on one connection. */
    database_exec(&d->a, "SELECT shop_2.put('orders', 'k', 'text', '{\"a\":\"b\"}')");
    database_exec(&d->a, "COMMIT");
    assert_int_equal(database_number(&d->a, "SELECT count(*) FROM shop_2.outbox"), 2);
    assert_int_equal(rows(d), 1);
    ferry_db_free(&db);
}

static void a_failed_statement_is_no_commit(void **state)
{
    struct database *d = database_of(state);
    struct ferry_db *db = d->a.db;
    struct ferry_message m = message_of("k", "x");
    well(db, db->ops->begin(db->driver, &db->error));
    assert_false(database_try(&d->a, "SELECT 1 / 0"));
    assert_int_equal(ferry_outbox_put(db, &m, NULL), FERRY_ERR_DB);
    assert_int_equal(db->ops->commit(db->driver, &db->error), FERRY_ERR_DB);
    assert_int_equal(rows(d), 0);
}
#endif

static void *hold_and_wait(void *arg)
{
    struct database_link *other = arg;
    database_try(other, "UPDATE pair SET n = 3 WHERE n = 1");
    return NULL;
}

/* MariaDB has rolled all back, and the put would commit on its own. */
static void a_put_behind_a_swallowed_deadlock_is_refused(void **state)
{
    struct database *d = database_of(state);
    struct ferry_message m = message_of("k", "x");
    struct database_link other;
    pthread_t thread;
    database_exec(&d->a, "CREATE TABLE weight (n INTEGER)");
    database_exec(&d->a, "CREATE TABLE pair (n INTEGER PRIMARY KEY)");
    database_exec(&d->a, "INSERT INTO pair VALUES (1), (2)");
    database_connect(d, &other);
    database_exec(&other, "START TRANSACTION");
    database_exec(&other, "INSERT INTO weight SELECT seq FROM seq_1_to_500");
    database_exec(&other, "UPDATE pair SET n = 4 WHERE n = 2");
    database_exec(&d->a, "START TRANSACTION");
    well(d->a.db, ferry_outbox_put(d->a.db, &m, NULL));
    database_exec(&d->a, "SELECT n FROM pair WHERE n = 1 FOR UPDATE");
    assert_int_equal(pthread_create(&thread, NULL, hold_and_wait, &other), 0);
    assert_false(database_try(&d->a, "SELECT n FROM pair WHERE n = 2 FOR UPDATE"));
    pthread_join(thread, NULL);
    database_disconnect(&other);
    assert_int_equal(ferry_outbox_put(d->a.db, &m, NULL), FERRY_ERR_NO_TRANSACTION);
    assert_int_equal(rows(d), 0);
}

static void a_pipeline_is_postgresqls(void **state)
{
    struct database *d = database_of(state);
    struct ferry_message m = message_of("k", "x");
    database_exec(&d->a, "BEGIN");
    assert_int_equal(ferry_outbox_put_async(d->a.db, &m, NULL), FERRY_ERR_INVALID_ARGUMENT);
    database_exec(&d->a, "ROLLBACK");
}

static void migrating_again_changes_nothing(void **state)
{
    struct database *d = database_of(state);
    char before[64];
    snprintf(before, sizeof(before), "%s",
             database_text(&d->a, d->kind == DATABASE_SQLITE
                                      ? "SELECT hex(value) FROM {meta} WHERE name = 'source_uuid'"
                                      : "SELECT value FROM {meta} WHERE name = 'source_uuid'"));
    well(d->a.db, ferry_migrate(d->a.db));
    assert_string_equal(
        before,
        database_text(&d->a, d->kind == DATABASE_SQLITE
                                 ? "SELECT hex(value) FROM {meta} WHERE name = 'source_uuid'"
                                 : "SELECT value FROM {meta} WHERE name = 'source_uuid'"));
}

struct migration {
    struct database_link link;
    enum ferry_err err;
};

static void *migrate_in_thread(void *arg)
{
    struct migration *m = arg;
    do {
        m->err = ferry_migrate(m->link.db);
    } while (m->err == FERRY_ERR_DB_RETRY);
    return NULL;
}

static void migrations_at_once_wait_for_each_other(void **state)
{
    struct database *migrated = database_of(state);
    struct database d;
    database_open(&d, migrated->kind);
    struct migration migrations[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        database_connect(&d, &migrations[i].link);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, migrate_in_thread, &migrations[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        well(migrations[i].link.db, migrations[i].err);
        database_disconnect(&migrations[i].link);
    }
    assert_int_equal(
        database_number(&d.a, "SELECT count(*) FROM {meta} WHERE name = 'source_uuid'"), 1);
    database_close(&d);
}

static void tables_of_a_newer_version_are_left_alone(void **state)
{
    struct database *d = database_of(state);
    struct ferry_message m = message_of("k", "x");
    database_exec(&d->a, "UPDATE {meta} SET value = '99' WHERE name = 'schema_version'");
    assert_int_equal(ferry_migrate(d->a.db), FERRY_ERR_NEWER_FORMAT);
    database_exec(&d->a, "BEGIN");
    assert_int_equal(ferry_outbox_put(d->a.db, &m, NULL), FERRY_ERR_NEWER_FORMAT);
    database_exec(&d->a, "ROLLBACK");
}

static void a_put_without_tables_says_what_to_run(void **state)
{
    struct database *migrated = database_of(state);
    struct database d;
    struct ferry_message m = message_of("k", "x");
    database_open(&d, migrated->kind);
    database_exec(&d.a, "BEGIN");
    assert_int_equal(ferry_outbox_put(d.a.db, &m, NULL), FERRY_ERR_DB_SCHEMA);
    assert_non_null(strstr(ferry_db_detail(d.a.db), "ferry outbox init"));
    database_exec(&d.a, "ROLLBACK");
    database_close(&d);
}

static void a_killed_connection_asks_to_retry(void **state)
{
    struct database *d = database_of(state);
    struct ferry_message m = message_of("k", "x");
    database_exec(&d->a, "BEGIN");
    well(d->a.db, ferry_outbox_put(d->a.db, &m, NULL));
    database_kill(d, &d->a);
    assert_int_equal(ferry_outbox_put(d->a.db, &m, NULL), FERRY_ERR_DB_RETRY);
    database_reconnect(d, &d->a);
    assert_int_equal(rows(d), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DATABASE_TESTS(a_put_message_is_a_row_after_commit),
        DATABASE_TESTS(a_rolled_back_put_leaves_nothing),
        DATABASE_TESTS(a_put_outside_a_transaction_is_refused),
        DATABASE_TESTS(the_largest_message_is_taken),
        DATABASE_TESTS(a_plain_insert_gets_what_is_missing),
        DATABASE_TESTS(many_are_put_at_once_in_order),
        DATABASE_TESTS(a_bad_one_among_many_leaves_nothing),
        DATABASE_TESTS(large_ones_together_are_taken),
        DATABASE_TESTS(a_due_time_becomes_a_header),
        SERVER_TESTS(a_keys_lock_is_held_to_the_end_of_the_transaction),
        SERVER_TESTS(lanes_are_the_same_for_library_and_sql),
        DATABASE_TESTS(a_commit_wakes_the_relay),
        DATABASE_TEST_ON(a_put_behind_a_swallowed_deadlock_is_refused, mariadb),
        DATABASE_TEST_ON(a_pipeline_is_postgresqls, sqlite),
        DATABASE_TEST_ON(a_pipeline_is_postgresqls, mariadb),
#if FERRY_HAVE_POSTGRESQL
        DATABASE_TEST_ON(a_role_with_the_named_rights_can_put, postgresql),
        DATABASE_TEST_ON(put_with_others_in_a_pipeline, postgresql),
        DATABASE_TEST_ON(rows_of_a_pipeline_go_into_their_lanes, postgresql),
        DATABASE_TEST_ON(another_schema_holds_the_tables, postgresql),
        DATABASE_TEST_ON(a_failed_statement_is_no_commit, postgresql),
#endif
        DATABASE_TESTS(migrating_again_changes_nothing),
        DATABASE_TESTS(migrations_at_once_wait_for_each_other),
        DATABASE_TESTS(tables_of_a_newer_version_are_left_alone),
        DATABASE_TESTS(a_put_without_tables_says_what_to_run),
        SERVER_TESTS(a_killed_connection_asks_to_retry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
