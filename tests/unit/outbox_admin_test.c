/* What the command line asks of a database, the wake, the report, and the cursor's bytes. */
#include "outbox_fixture.h"

#include <poll.h>
#include <sys/stat.h>

#include "outbox/app/wake.h"
#include "outbox/sqlite/admin_sqlite.h"
#include "outbox/sqlite/cursor.h"
#include "outbox/sqlite/schema_sqlite.h"

static const char *url_of(const struct fixture *f)
{
    static char url[128];
    snprintf(url, sizeof(url), "sqlite:%s", f->path);
    return url;
}

static void only_sqlite_urls_are_taken(void **state)
{
    (void)state;
    const char *path = NULL;
    struct err_text e = {{0}};
    assert_int_equal(admin_sqlite_path("sqlite:/a/b.db", &path, &e), FERRY_OK);
    assert_string_equal(path, "/a/b.db");
    const char *const wrong[] = {"", "sqlite:", "/a/b.db", "postgres://x", "SQLITE:/a"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(admin_sqlite_path(wrong[i], &path, &e), FERRY_ERR_INVALID_ARGUMENT);
    }
    assert_non_null(strstr(e.text, "sqlite:PATH"));
}

static enum ferry_err status_of(const char *url, struct outbox_status *status, struct err_text *e)
{
    return admin_sqlite_ops.status(url, NULL, 0, status, e);
}

static void init_makes_the_file_and_says_so_once(void **state)
{
    struct fixture *f = *state;
    struct err_text e = {{0}};
    char url[160];
    bool created = false;
    snprintf(url, sizeof(url), "sqlite:%s/new.db", f->folder);
    assert_int_equal(admin_sqlite_ops.init(url, &created, &e), FERRY_OK);
    assert_true(created);
    assert_int_equal(admin_sqlite_ops.init(url, &created, &e), FERRY_OK);
    assert_false(created);
    struct outbox_status status;
    assert_int_equal(status_of(url, &status, &e), FERRY_OK);
    assert_int_equal(status.schema_version, SCHEMA_SQLITE_VERSION);
    assert_int_equal(status.pending_rows, 0);
    assert_false(status.word_known);
    assert_true(status.relay_known && !status.relay_running);
}

/* The usual one: the file is the application's already. */
static void init_says_that_tables_are_made_in_a_file_that_is_there(void **state)
{
    struct fixture *f = *state;
    struct err_text e = {{0}};
    sqlite3 *shop = NULL;
    char url[160];
    bool created = false;
    snprintf(url, sizeof(url), "sqlite:%s/old.db", f->folder);
    assert_int_equal(sqlite3_open(url + strlen("sqlite:"), &shop), SQLITE_OK);
    assert_int_equal(sqlite3_exec(shop, "CREATE TABLE account (id)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(shop);
    assert_int_equal(admin_sqlite_ops.init(url, &created, &e), FERRY_OK);
    assert_true(created);
    assert_int_equal(admin_sqlite_ops.init(url, &created, &e), FERRY_OK);
    assert_false(created);
    snprintf(url, sizeof(url), "sqlite:%s", f->folder);
    assert_int_equal(admin_sqlite_ops.init(url, &created, &e), FERRY_ERR_IO);
    assert_non_null(strstr(e.text, "it is a folder"));
}

static void status_of_what_is_not_there_or_not_ours_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct err_text e = {{0}};
    struct outbox_status status;
    char url[160];
    snprintf(url, sizeof(url), "sqlite:%s/none.db", f->folder);
    assert_int_equal(status_of(url, &status, &e), FERRY_ERR_IO);
    assert_int_not_equal(access(url + strlen("sqlite:"), F_OK), 0); /* Looking made no file. */
    fixture_exec(f, "DROP TABLE ferry_meta");
    assert_int_equal(status_of(url_of(f), &status, &e), FERRY_ERR_DB_SCHEMA);
    FILE *file = fopen(f->path, "we");
    assert_non_null(file);
    fputs("this is no database, however long one looks at it; it is only a file of text", file);
    for (int i = 0; i < 100; i++) {
        fputs("................................................................", file);
    }
    fclose(file);
    assert_int_not_equal(status_of(url_of(f), &status, &e), FERRY_OK);
}

static bool count_id(const struct ferry_id *id, void *arg)
{
    int *sum = arg;
    *sum += id->bytes[15];
    return true;
}

static void ids_come_as_blobs_and_as_text(void **state)
{
    struct fixture *f = *state;
    struct err_text e = {{0}};
    int sum = 0;
    assert_int_equal(admin_sqlite_ops.ids(url_of(f),
                                          "SELECT x'00000000000000000000000000000003' UNION ALL "
                                          "SELECT '00000000-0000-0000-0000-000000000004';",
                                          count_id, &sum, &e),
                     FERRY_OK);
    assert_int_equal(sum, 7);
}

static void queries_that_write_or_return_no_ids_are_refused(void **state)
{
    struct fixture *f = *state;
    struct err_text e = {{0}};
    int sum = 0;
    const char *const wrong[] = {
        "DELETE FROM ferry_outbox",
        "DELETE FROM ferry_outbox RETURNING msg_id",
        "SELECT 1; SELECT 2",
        "SELECT 'not an id'",
        "SELECT x'00'",
        "SELECT NULL",
        "not sql",
        "",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(admin_sqlite_ops.ids(url_of(f), wrong[i], count_id, &sum, &e),
                         FERRY_ERR_INVALID_ARGUMENT);
    }
    assert_int_equal(sum, 0);
}

static enum outbox_verdict mark_all(const struct ferry_id *id, int64_t created_ms, void *arg)
{
    (void)id;
    (void)created_ms;
    (void)arg;
    return OUTBOX_VERDICT_MARK;
}

/* Text stays text, with what was in it; where there was none, a map is made. */
static void a_rebase_marks_headers_of_either_kind(void **state)
{
    struct fixture *f = *state;
    struct err_text e = {{0}};
    struct outbox_rebased rebased = {0};
    fixture_exec(f, "INSERT INTO ferry_outbox (topic, headers, payload) VALUES "
                    "('orders', '{\"a\":\"b\"}', 'x'), ('orders', NULL, 'y')");
    assert_int_equal(admin_sqlite_ops.rebase(url_of(f), mark_all, NULL, false, &rebased, &e),
                     FERRY_OK);
    assert_int_equal(rebased.marked, 2);
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM ferry_outbox WHERE payload = 'x' AND "
                                       "headers ->> 'a' = 'b' AND headers ->> "
                                       "'$.\"ferry-possible-duplicate\"' = '1'"),
                     1);
    assert_int_equal(fixture_number(f, "SELECT count(*) FROM ferry_outbox WHERE payload = 'y' AND "
                                       "typeof(headers) = 'blob' AND instr(headers, "
                                       "'ferry-possible-duplicate') > 0"),
                     1);
}

static bool arrives(int fd)
{
    struct pollfd item = {.fd = fd, .events = POLLIN};
    return poll(&item, 1, 1000) == 1;
}

static void wake_over(const char *database)
{
    struct err_text e = {{0}};
    struct wake_sender sender;
    int fd = -1;
    wake_sender_init(&sender);
    wake_sender_send(&sender, database); /* Nobody listens: nothing happens. */
    if (wake_listen(database, &fd, &e) != FERRY_OK) {
        fail_msg("%s", e.text);
    }
    wake_sender_send(&sender, database);
    assert_true(arrives(fd));
    wake_drain(fd);
    for (int i = 0; i < 2000; i++) { /* Its queue fills: sending neither blocks nor fails. */
        wake_sender_send(&sender, database);
    }
    wake_close(database, &fd);
    wake_sender_send(&sender, database);
    assert_int_equal(wake_listen(database, &fd, &e), FERRY_OK); /* The relay started again. */
    wake_sender_send(&sender, database);
    assert_true(arrives(fd));
    wake_close(database, &fd);
    wake_sender_fini(&sender);
}

static void a_wake_arrives_and_survives_a_restart_of_the_relay(void **state)
{
    struct fixture *f = *state;
    wake_over(f->path);
}

/* Longer than a socket's address holds; and a file name that is too long by itself. */
static void a_wake_arrives_over_a_long_path(void **state)
{
    struct fixture *f = *state;
    char folder[256];
    char path[600];
    snprintf(folder, sizeof(folder), "%s/%0100d", f->folder, 7);
    assert_int_equal(mkdir(folder, 0700), 0);
    snprintf(path, sizeof(path), "%s/shop.db", folder);
    wake_over(path);
    snprintf(path, sizeof(path), "%s/%0150d.db", folder, 7);
    wake_over(path);
}

static void a_cursor_comes_back_as_it_was(void **state)
{
    (void)state;
    struct source_cursor in = {INT64_MAX, {{9, 8, 7}}};
    struct source_cursor out = {0};
    struct err_text e = {{0}};
    uint8_t blob[CURSOR_BYTES];
    cursor_encode(&in, blob);
    assert_int_equal(cursor_decode(bytes_of(blob, sizeof(blob)), &out, &e), FERRY_OK);
    assert_int_equal(out.position, in.position);
    assert_memory_equal(out.id.bytes, in.id.bytes, sizeof(in.id.bytes));
}

static void a_cursor_that_is_not_ours_is_refused(void **state)
{
    (void)state;
    struct source_cursor in = {5, {{0}}};
    struct source_cursor out = {0};
    struct err_text e = {{0}};
    uint8_t blob[CURSOR_BYTES];
    for (size_t size = 0; size < sizeof(blob); size++) {
        cursor_encode(&in, blob);
        assert_int_not_equal(cursor_decode(bytes_of(blob, size), &out, &e), FERRY_OK);
    }
    blob[0] = 2;
    assert_int_equal(cursor_decode(bytes_of(blob, sizeof(blob)), &out, &e), FERRY_ERR_NEWER_FORMAT);
    cursor_encode(&in, blob);
    blob[9] = 0x80; /* Negative. */
    assert_int_equal(cursor_decode(bytes_of(blob, sizeof(blob)), &out, &e), FERRY_ERR_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_sqlite_urls_are_taken),
        FIXTURE_TEST(init_makes_the_file_and_says_so_once),
        FIXTURE_TEST(init_says_that_tables_are_made_in_a_file_that_is_there),
        FIXTURE_TEST(status_of_what_is_not_there_or_not_ours_is_an_error),
        FIXTURE_TEST(ids_come_as_blobs_and_as_text),
        FIXTURE_TEST(queries_that_write_or_return_no_ids_are_refused),
        FIXTURE_TEST(a_rebase_marks_headers_of_either_kind),
        FIXTURE_TEST(a_wake_arrives_and_survives_a_restart_of_the_relay),
        FIXTURE_TEST(a_wake_arrives_over_a_long_path),
        cmocka_unit_test(a_cursor_comes_back_as_it_was),
        cmocka_unit_test(a_cursor_that_is_not_ours_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
