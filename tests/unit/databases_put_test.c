/* ferry_outbox_put and its kin, and ferry_migrate, on every database. */
#include "databases_fixture.h"

#include <pthread.h>

#include "outbox/app/db.h"

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
        DATABASE_TESTS(migrating_again_changes_nothing),
        DATABASE_TESTS(migrations_at_once_wait_for_each_other),
        DATABASE_TESTS(tables_of_a_newer_version_are_left_alone),
        DATABASE_TESTS(a_put_without_tables_says_what_to_run),
        SERVER_TESTS(a_killed_connection_asks_to_retry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
