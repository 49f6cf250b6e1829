/* ferry_outbox_put, ferry_migrate and the DDL. */
#include "outbox_fixture.h"

#include "outbox/sqlite/schema_sqlite.h"
#include "wire/batch.h"

static struct ferry_message message_of(const char *topic, const char *payload)
{
    return (struct ferry_message){
        .topic = topic, .payload = payload, .payload_bytes = strlen(payload)};
}

static void put_outside_a_transaction_is_refused(void **state)
{
    struct fixture *f = *state;
    struct ferry_message m = message_of("orders", "x");
    assert_int_equal(ferry_outbox_put(f->db, &m, NULL), FERRY_ERR_NO_TRANSACTION);
    assert_non_null(strstr(ferry_db_detail(f->db), "BEGIN"));
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM ferry_outbox"), 0);
}

static void a_put_message_is_a_row_after_commit(void **state)
{
    struct fixture *f = *state;
    struct ferry_header headers[] = {{"traceparent", "00-1", 4}};
    struct ferry_message m = message_of("orders", "paid");
    m.key = "k1";
    m.key_bytes = 2;
    m.headers = headers;
    m.header_count = 1;
    struct ferry_id id = {{0}};
    fixture_exec(f, "BEGIN");
    assert_int_equal(ferry_outbox_put(f->db, &m, &id), FERRY_OK);
    fixture_exec(f, "COMMIT");
    assert_int_equal(id.bytes[6] >> 4, 7); /* UUIDv7 */
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM ferry_outbox WHERE topic = 'orders' "
                                       "AND mkey = x'6b31' AND payload = x'70616964' AND "
                                       "length(msg_id) = 16 AND typeof(headers) = 'blob' AND "
                                       "created_ms > 1600000000000"),
                     1);
}

static void a_rolled_back_put_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct ferry_message m = message_of("orders", "x");
    fixture_exec(f, "BEGIN");
    assert_int_equal(ferry_outbox_put(f->db, &m, NULL), FERRY_OK);
    fixture_exec(f, "ROLLBACK");
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM ferry_outbox"), 0);
}

static void the_callers_id_and_time_are_kept(void **state)
{
    struct fixture *f = *state;
    struct ferry_message m = message_of("orders", "x");
    struct ferry_id id = {{0}};
    memset(m.id.bytes, 0xab, sizeof(m.id.bytes));
    m.timestamp_ms = 1234;
    fixture_exec(f, "BEGIN");
    assert_int_equal(ferry_outbox_put(f->db, &m, &id), FERRY_OK);
    fixture_exec(f, "COMMIT");
    assert_memory_equal(id.bytes, m.id.bytes, sizeof(id.bytes));
    assert_int_equal(fixture_number(f, "SELECT created_ms FROM ferry_outbox WHERE msg_id = "
                                       "x'abababababababababababababababab'"),
                     1234);
}

static void names_that_no_topic_may_have_are_refused(void **state)
{
    struct fixture *f = *state;
    char long_name[202];
    memset(long_name, 'a', 201);
    long_name[201] = '\0';
    const char *const names[] = {"", "a/b", ".hidden", "a b", "ümlaut", long_name, NULL};
    fixture_exec(f, "BEGIN");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct ferry_message m = {.topic = names[i], .payload = "x", .payload_bytes = 1};
        assert_int_equal(ferry_outbox_put(f->db, &m, NULL), FERRY_ERR_BAD_NAME);
    }
    fixture_exec(f, "COMMIT");
}

static void a_message_over_the_limit_is_refused_and_one_at_it_is_taken(void **state)
{
    struct fixture *f = *state;
    size_t max = FERRY_OUTBOX_MESSAGE_MAX_BYTES;
    char *payload = calloc(1, max + 1);
    assert_non_null(payload);
    struct ferry_message m = {.topic = "t", .payload = payload, .payload_bytes = max};
    fixture_exec(f, "BEGIN");
    assert_int_equal(ferry_outbox_put(f->db, &m, NULL), FERRY_OK);
    m.payload_bytes = max + 1;
    assert_int_equal(ferry_outbox_put(f->db, &m, NULL), FERRY_ERR_TOO_LARGE);
    m.payload_bytes = max;
    m.key = "k";
    m.key_bytes = 1;
    assert_int_equal(ferry_outbox_put(f->db, &m, NULL), FERRY_ERR_TOO_LARGE);
    m.payload_bytes = SIZE_MAX; /* The sum would wrap. */
    assert_int_equal(ferry_outbox_put(f->db, &m, NULL), FERRY_ERR_TOO_LARGE);
    fixture_exec(f, "COMMIT");
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM ferry_outbox"), 1);
    free(payload);
}

static void a_header_without_a_name_is_refused(void **state)
{
    struct fixture *f = *state;
    struct ferry_header headers[] = {{"", "v", 1}};
    struct ferry_message m = message_of("t", "x");
    m.headers = headers;
    m.header_count = 1;
    fixture_exec(f, "BEGIN");
    assert_int_equal(ferry_outbox_put(f->db, &m, NULL), FERRY_ERR_INVALID_ARGUMENT);
    fixture_exec(f, "COMMIT");
}

static void put_without_tables_says_what_to_run(void **state)
{
    (void)state;
    sqlite3 *connection = NULL;
    struct ferry_db *db = NULL;
    assert_int_equal(sqlite3_open(":memory:", &connection), SQLITE_OK);
    assert_int_equal(ferry_db_sqlite(&db, connection), FERRY_OK);
    fixture_exec_on(connection, "BEGIN");
    struct ferry_message m = message_of("t", "x");
    assert_int_equal(ferry_outbox_put(db, &m, NULL), FERRY_ERR_DB_SCHEMA);
    assert_non_null(strstr(ferry_db_detail(db), "ferry outbox init"));
    ferry_db_free(&db);
    sqlite3_close(connection);
}

/* Another connection holds the write lock. */
static void a_busy_database_asks_to_retry(void **state)
{
    struct fixture *f = *state;
    sqlite3 *other = fixture_connect(f);
    fixture_exec_on(other, "BEGIN IMMEDIATE");
    fixture_exec(f, "BEGIN");
    struct ferry_message m = message_of("t", "x");
    assert_int_equal(ferry_outbox_put(f->db, &m, NULL), FERRY_ERR_DB_RETRY);
    fixture_exec(f, "ROLLBACK");
    fixture_exec_on(other, "COMMIT");
    sqlite3_close(other);
}

/* A transaction that has read cannot write once another has committed: SQLITE_BUSY_SNAPSHOT. */
static void an_old_snapshot_asks_to_retry(void **state)
{
    struct fixture *f = *state;
    sqlite3 *other = fixture_connect(f);
    fixture_exec(f, "CREATE TABLE account (n)");
    fixture_exec(f, "BEGIN");
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM account"), 0);
    fixture_exec_on(other, "INSERT INTO account VALUES (1)");
    struct ferry_message m = message_of("t", "x");
    assert_int_equal(ferry_outbox_put(f->db, &m, NULL), FERRY_ERR_DB_RETRY);
    fixture_exec(f, "ROLLBACK");
    sqlite3_close(other);
}

static void a_plain_insert_works_and_gets_an_id_and_a_time(void **state)
{
    struct fixture *f = *state;
    fixture_exec(f, "INSERT INTO ferry_outbox (topic, mkey, headers, payload) VALUES ('orders', "
                    "'k', '{\"a\":\"b\"}', 'text'), ('orders', NULL, NULL, x'00ff')");
    assert_int_equal(fixture_number(f, "SELECT count(DISTINCT msg_id) FROM ferry_outbox WHERE "
                                       "length(msg_id) = 16 AND created_ms > 1600000000000"),
                     2);
}

static void the_table_keeps_rubbish_out(void **state)
{
    struct fixture *f = *state;
    const char *const rubbish[] = {
        "INSERT INTO ferry_outbox (topic, payload) VALUES ('', 'x')",
        "INSERT INTO ferry_outbox (topic, payload) VALUES ('a/b', 'x')",
        "INSERT INTO ferry_outbox (topic, payload) VALUES (printf('%201s', 'a'), 'x')",
        "INSERT INTO ferry_outbox (topic, payload) VALUES ('t', NULL)",
        "INSERT INTO ferry_outbox (topic, payload) VALUES ('t', 7)",
        "INSERT INTO ferry_outbox (topic, mkey, payload) VALUES ('t', 7, 'x')",
        "INSERT INTO ferry_outbox (topic, msg_id, payload) VALUES ('t', x'00', 'x')",
        "INSERT INTO ferry_outbox (topic, headers, payload) VALUES ('t', '[1]', 'x')",
        "INSERT INTO ferry_outbox (topic, headers, payload) VALUES ('t', '{', 'x')",
        "INSERT INTO ferry_outbox (topic, headers, payload) VALUES ('t', 1.5, 'x')",
    };
    for (size_t i = 0; i < sizeof(rubbish) / sizeof(rubbish[0]); i++) {
        if (sqlite3_exec(f->connection, rubbish[i], NULL, NULL, NULL) == SQLITE_OK) {
            fail_msg("taken: %s", rubbish[i]);
        }
    }
}

/* One that the relay has passed would be deleted with what is published. */
static void an_id_that_was_given_out_is_refused(void **state)
{
    struct fixture *f = *state;
    char *why = NULL;
    fixture_exec(f, "INSERT INTO ferry_outbox (topic, payload) VALUES ('t', 'a'), ('t', 'b'); "
                    "DELETE FROM ferry_outbox");
    fixture_exec(f, "BEGIN; CREATE TABLE account (n); INSERT INTO account VALUES (1)");
    for (int id = 1; id <= 2; id++) {
        char sql[128];
        snprintf(sql, sizeof(sql),
                 "INSERT INTO ferry_outbox (id, topic, payload) VALUES (%d, 't', 'x')", id);
        assert_int_equal(sqlite3_exec(f->connection, sql, NULL, NULL, &why), SQLITE_CONSTRAINT);
        assert_non_null(strstr(why, "leave the id out"));
        sqlite3_free(why);
    }
    fixture_exec(f, "CREATE TRIGGER told AFTER INSERT ON account BEGIN INSERT INTO ferry_outbox "
                    "(topic, payload) VALUES ('t', 'c'), ('t', 'd'); END; "
                    "INSERT INTO account VALUES (2), (3); "
                    "INSERT INTO ferry_outbox (topic, payload) VALUES ('t', 'e'); "
                    "INSERT INTO ferry_outbox (id, topic, payload) VALUES (20, 't', 'f'); COMMIT");
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM account"), 3);
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM ferry_outbox WHERE id > 2"), 6);
}

static void tables_of_an_older_version_are_brought_up_to_date(void **state)
{
    struct fixture *f = *state;
    for (int version = 1; version < SCHEMA_SQLITE_VERSION; version++) {
        char path[128];
        sqlite3 *connection = NULL;
        struct ferry_db *db = NULL;
        snprintf(path, sizeof(path), "%s/version-%d.db", f->folder, version);
        assert_int_equal(sqlite3_open(path, &connection), SQLITE_OK);
        for (int step = 1; step <= version; step++) {
            fixture_exec_on(connection, schema_sqlite_step(step));
        }
        fixture_exec_on(connection, "INSERT INTO ferry_outbox (topic, payload) VALUES ('t', 'x')");
        assert_int_equal(ferry_db_sqlite(&db, connection), FERRY_OK);
        assert_int_equal(ferry_migrate(db), FERRY_OK);
        fixture_exec_on(connection, "BEGIN");
        struct ferry_message m = message_of("t", "y");
        assert_int_equal(ferry_outbox_put(db, &m, NULL), FERRY_OK);
        fixture_exec_on(connection, "COMMIT");
        ferry_db_free(&db);
        assert_int_equal(sqlite3_exec(connection,
                                      "DELETE FROM ferry_outbox WHERE id = 1; INSERT INTO "
                                      "ferry_outbox (id, topic, payload) VALUES (1, 't', 'x')",
                                      NULL, NULL, NULL),
                         SQLITE_CONSTRAINT);
        sqlite3_close(connection);
    }
}

static void migrating_again_changes_nothing(void **state)
{
    struct fixture *f = *state;
    fixture_exec(f, "CREATE TABLE keep AS SELECT * FROM ferry_meta");
    assert_int_equal(ferry_migrate(f->db), FERRY_OK);
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM (SELECT * FROM keep EXCEPT SELECT * "
                                       "FROM ferry_meta)"),
                     0);
}

static void migrating_inside_a_transaction_is_refused(void **state)
{
    struct fixture *f = *state;
    fixture_exec(f, "BEGIN");
    assert_int_equal(ferry_migrate(f->db), FERRY_ERR_INVALID_ARGUMENT);
    fixture_exec(f, "ROLLBACK");
}

static void migrating_sets_the_journal_to_wal(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fixture_number(f, "SELECT journal_mode = 'wal' FROM pragma_journal_mode()"),
                     1);
}

static void tables_of_a_newer_version_are_left_alone(void **state)
{
    struct fixture *f = *state;
    fixture_exec(f, "UPDATE ferry_meta SET value = 99 WHERE name = 'schema_version'");
    assert_int_equal(ferry_migrate(f->db), FERRY_ERR_NEWER_FORMAT);
    fixture_exec(f, "BEGIN");
    struct ferry_message m = message_of("t", "x");
    assert_int_equal(ferry_outbox_put(f->db, &m, NULL), FERRY_ERR_NEWER_FORMAT);
    fixture_exec(f, "ROLLBACK");
}

static void migrating_a_locked_database_asks_to_retry(void **state)
{
    struct fixture *f = *state;
    char path[128];
    snprintf(path, sizeof(path), "%s/other.db", f->folder);
    sqlite3 *holder = NULL;
    sqlite3 *late = NULL;
    struct ferry_db *db = NULL;
    assert_int_equal(sqlite3_open(path, &holder), SQLITE_OK);
    assert_int_equal(sqlite3_open(path, &late), SQLITE_OK);
    fixture_exec_on(holder, "BEGIN EXCLUSIVE");
    assert_int_equal(ferry_db_sqlite(&db, late), FERRY_OK);
    assert_int_equal(ferry_migrate(db), FERRY_ERR_DB_RETRY);
    fixture_exec_on(holder, "COMMIT");
    assert_int_equal(ferry_migrate(db), FERRY_OK);
    ferry_db_free(&db);
    sqlite3_close(late);
    sqlite3_close(holder);
}

/* The binary carries the file as it is; a stale object file would show here. */
static void the_embedded_ddl_is_the_file(void **state)
{
    (void)state;
    const char *source = getenv("FERRY_SOURCE");
    if (source == NULL) {
        skip();
    }
    for (int version = 1; version <= SCHEMA_SQLITE_VERSION; version++) {
        char path[1024];
        static char text[65536];
        snprintf(path, sizeof(path), "%s/outbox/sqlite/schema/sqlite_%d.sql", source, version);
        FILE *file = fopen(path, "re");
        assert_non_null(file);
        size_t bytes = fread(text, 1, sizeof(text) - 1, file);
        fclose(file);
        text[bytes] = '\0';
        assert_string_equal(schema_sqlite_step(version), text);
    }
    assert_null(schema_sqlite_step(SCHEMA_SQLITE_VERSION + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(put_outside_a_transaction_is_refused),
        FIXTURE_TEST(a_put_message_is_a_row_after_commit),
        FIXTURE_TEST(a_rolled_back_put_leaves_nothing),
        FIXTURE_TEST(the_callers_id_and_time_are_kept),
        FIXTURE_TEST(names_that_no_topic_may_have_are_refused),
        FIXTURE_TEST(a_message_over_the_limit_is_refused_and_one_at_it_is_taken),
        FIXTURE_TEST(a_header_without_a_name_is_refused),
        cmocka_unit_test(put_without_tables_says_what_to_run),
        FIXTURE_TEST(a_busy_database_asks_to_retry),
        FIXTURE_TEST(an_old_snapshot_asks_to_retry),
        FIXTURE_TEST(a_plain_insert_works_and_gets_an_id_and_a_time),
        FIXTURE_TEST(the_table_keeps_rubbish_out),
        FIXTURE_TEST(an_id_that_was_given_out_is_refused),
        FIXTURE_TEST(tables_of_an_older_version_are_brought_up_to_date),
        FIXTURE_TEST(migrating_again_changes_nothing),
        FIXTURE_TEST(migrating_inside_a_transaction_is_refused),
        FIXTURE_TEST(migrating_sets_the_journal_to_wal),
        FIXTURE_TEST(tables_of_a_newer_version_are_left_alone),
        FIXTURE_TEST(migrating_a_locked_database_asks_to_retry),
        cmocka_unit_test(the_embedded_ddl_is_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
