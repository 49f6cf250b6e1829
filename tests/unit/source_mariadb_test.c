/* The source of MariaDB, on a real server: what is handed out, when, and in which order. */
#include <stdio.h>

#if FERRY_HAVE_MARIADB

#include "unit/maria_fixture.h"

static void begin(struct maria_fixture *f, struct bytes checkpoint)
{
    struct err_text e = {{0}};
    int64_t settled = -1;
    bool same = false;
    if (f->source.ops->begin(f->source.driver, checkpoint, &settled, &same, &e) != FERRY_OK ||
        !same) {
        fail_msg("begin: %s", e.text);
    }
}

static size_t read_page(struct maria_fixture *f, struct source_page *page)
{
    struct err_text e = {{0}};
    bool more = false;
    if (f->source.ops->read(f->source.driver, 1000, 1 << 20, page, &more, &e) != FERRY_OK) {
        fail_msg("read: %s", e.text);
    }
    handout_check(&f->s->handout);
    return page->count;
}

static bool changed(struct maria_fixture *f)
{
    struct err_text e = {{0}};
    bool yes = false;
    if (f->source.ops->changed(f->source.driver, &yes, &e) != FERRY_OK) {
        fail_msg("changed: %s", e.text);
    }
    return yes;
}

static void put_on(MYSQL *connection, const char *key, const char *payload)
{
    char sql[256];
    snprintf(sql, sizeof(sql),
             "INSERT INTO ferry_outbox (topic, mkey, payload) VALUES ('t', '%s', '%s')", key,
             payload);
    maria_exec_on(connection, sql);
}

static struct source_mark *open_mark(struct maria_fixture *f, struct bytes blob)
{
    struct err_text e = {{0}};
    struct source_mark *mark = NULL;
    bool same = false;
    bool again = false;
    if (f->source.ops->mark_open(f->source.driver, blob, &mark, &same, &again, &e) != FERRY_OK ||
        !same) {
        fail_msg("mark_open: %s", e.text);
    }
    return mark;
}

static void tidy(struct maria_fixture *f, int64_t settled)
{
    struct err_text e = {{0}};
    size_t removed = 0;
    bool again = false;
    struct source_progress progress = {.settled = settled, .quiet = true, .stopping = true};
    if (source_tidy(&f->source, &progress, &removed, &again, &e) != FERRY_OK) {
        fail_msg("tidy: %s", e.text);
    }
    handout_check(&f->s->handout);
}

/* Rows come with all that they hold, in order, once, and not again until a rewind. */
static void rows_are_handed_out_once(void **state)
{
    struct maria_fixture *f = *state;
    struct source_page page;
    source_page_init(&page);
    begin(f, bytes_of(NULL, 0));
    assert_false(changed(f));
    maria_exec(f, "INSERT INTO ferry_outbox (topic, mkey, msg_id, headers, payload) VALUES "
                  "('orders', 'k\\0x', UNHEX('00112233445566778899aabbccddeeff'), "
                  "'{\"a\": \"b\\\\u00e4\"}', 'hello'), ('orders', NULL, DEFAULT, NULL, '')");
    assert_true(changed(f));
    assert_int_equal(read_page(f, &page), 2);
    const struct source_row *row = &page.rows[0];
    assert_int_equal(row->number, 1);
    assert_string_equal(row->message.topic, "orders");
    assert_int_equal(row->message.key_bytes, 3);
    assert_memory_equal(row->message.key, "k\0x", 3);
    assert_memory_equal(row->message.payload, "hello", 5);
    assert_int_equal(row->message.id.bytes[1], 0x11);
    assert_int_equal(row->message.header_count, 1);
    assert_string_equal(row->message.headers[0].name, "a");
    assert_memory_equal(row->message.headers[0].value, "b\xc3\xa4", 3);
    assert_null(page.rows[1].message.key);
    assert_int_equal(page.rows[1].message.payload_bytes, 0);
    assert_true(page.rows[1].position > row->position);
    int64_t first = row->position;
    assert_false(changed(f));
    assert_int_equal(read_page(f, &page), 0);
    f->source.ops->rewind(f->source.driver, first);
    assert_int_equal(read_page(f, &page), 1);
    assert_int_equal(page.rows[0].number, 2);
    assert_true(page.rows[0].position > first + 1);
    source_page_fini(&page);
}

/* A transaction that took its id first and commits last is handed out; one that is rolled back
 * never. */
static void late_commits_are_seen(void **state)
{
    struct maria_fixture *f = *state;
    struct source_page page;
    source_page_init(&page);
    begin(f, bytes_of(NULL, 0));
    MYSQL *early = maria_connect(f);
    MYSQL *never = maria_connect(f);
    maria_exec_on(early, "BEGIN");
    put_on(early, "a", "early");
    maria_exec_on(never, "BEGIN");
    put_on(never, "b", "never");
    put_on(f->connection, "c", "late");
    assert_true(changed(f));
    assert_int_equal(read_page(f, &page), 1);
    assert_int_equal(page.rows[0].number, 3);
    assert_false(changed(f));
    maria_exec_on(never, "ROLLBACK");
    assert_false(changed(f));
    maria_exec_on(early, "COMMIT");
    assert_true(changed(f));
    assert_int_equal(read_page(f, &page), 1);
    assert_int_equal(page.rows[0].number, 1);
    assert_false(changed(f));
    mysql_close(early);
    mysql_close(never);
    source_page_fini(&page);
}

/* What is in a mark is not wanted, and deleted; the mark forgets it. */
static void acknowledged_rows_are_deleted(void **state)
{
    struct maria_fixture *f = *state;
    struct source_page page;
    struct source_blob blob;
    source_page_init(&page);
    begin(f, bytes_of(NULL, 0));
    for (int i = 0; i < 10; i++) {
        put_on(f->connection, "a", "x");
    }
    struct source_mark *mark = open_mark(f, bytes_of(NULL, 0));
    assert_int_equal(read_page(f, &page), 10);
    const struct source_row *rows[10];
    for (int i = 0; i < 10; i++) {
        rows[i] = &page.rows[i];
        assert_true(f->source.ops->wants(f->source.driver, mark, rows[i]));
    }
    assert_int_equal(f->source.ops->mark_encode(f->source.driver, mark, rows, 6, true, &blob), 6);
    assert_int_equal(f->source.ops->mark_add(f->source.driver, mark, rows, 6, true), FERRY_OK);
    assert_false(f->source.ops->wants(f->source.driver, mark, rows[5]));
    assert_true(f->source.ops->wants(f->source.driver, mark, rows[6]));
    f->source.ops->mark_acked(f->source.driver, mark, 4);
    tidy(f, page.rows[3].position);
    assert_int_equal(maria_number(f, "SELECT COUNT(*) FROM ferry_outbox"), 6);
    assert_int_equal(mark->count, 2);
    assert_false(changed(f));
    f->source.ops->mark_close(f->source.driver, mark);
    /* As a relay that takes over: the blob covers six rows, two of them are still there. */
    source_close(&f->source);
    maria_open_source(f);
    begin(f, bytes_of(NULL, 0));
    mark = open_mark(f, bytes_of(blob.data, blob.size));
    assert_int_equal(read_page(f, &page), 4);
    assert_int_equal(page.rows[0].number, 7);
    tidy(f, 0);
    assert_int_equal(maria_number(f, "SELECT MIN(id) FROM ferry_outbox"), 7);
    assert_int_equal(maria_number(f, "SELECT COUNT(*) FROM ferry_outbox"), 4);
    f->source.ops->mark_close(f->source.driver, mark);
    source_page_fini(&page);
}

int main(void)
{
    if (!maria_installed()) {
        fprintf(stderr, "SKIPPED: mariadbd is not installed\n");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        MARIA_TEST(rows_are_handed_out_once),
        MARIA_TEST(late_commits_are_seen),
        MARIA_TEST(acknowledged_rows_are_deleted),
    };
    return cmocka_run_group_tests(tests, maria_group_setup, maria_group_teardown);
}

#else

int main(void)
{
    fprintf(stderr, "SKIPPED: built without libmariadb\n");
    return 0;
}

#endif
