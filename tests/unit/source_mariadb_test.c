/* The source of MariaDB, on a real server: what is handed out, when, and in which order. */
#include <stdio.h>

#if FERRY_HAVE_MARIADB

#include <poll.h>

#include "base/clock.h"
#include "ferry_outbox.h"
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

/* An id by hand, beyond what a row's number may be: what is before it goes out, and it is told. */
static void an_id_that_is_no_number_is_told(void **state)
{
    struct maria_fixture *f = *state;
    struct source_page page;
    struct err_text e = {{0}};
    bool more = false;
    source_page_init(&page);
    begin(f, bytes_of(NULL, 0));
    maria_exec(f, "INSERT INTO ferry_outbox (id, topic, payload) VALUES (1, 't', 'a'), "
                  "(18446744073709551614, 't', 'b')");
    assert_int_equal(read_page(f, &page), 1);
    assert_int_equal(page.rows[0].number, 1);
    assert_int_equal(f->source.ops->read(f->source.driver, 10, 4096, &page, &more, &e),
                     FERRY_ERR_DB);
    assert_non_null(strstr(e.text, "row 18446744073709551614 cannot be published"));
    maria_exec(f, "DELETE FROM ferry_outbox WHERE id > 1");
    assert_non_null(strstr(e.text, "AUTO_INCREMENT=1000001 "));
    maria_exec(f, "ALTER TABLE ferry_outbox AUTO_INCREMENT=1000001");
    maria_exec(f, "INSERT INTO ferry_outbox (topic, payload) VALUES ('t', 'c')");
    assert_int_equal(read_page(f, &page), 1);
    assert_int_equal(page.rows[0].number, 1000001);
    source_page_fini(&page);
}

/* The relay looks at a row before it has it in hand. */
static void a_row_comes_bare_and_the_rest_is_fetched(void **state)
{
    struct maria_fixture *f = *state;
    struct source_page page;
    struct err_text e = {{0}};
    bool more = false;
    bool there = false;
    source_page_init(&page);
    begin(f, bytes_of(NULL, 0));
    maria_exec(f, "INSERT INTO ferry_outbox (topic, mkey, payload) VALUES ('t', 'k', 'first'), "
                  "('t', 'l', 'second')");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(f->source.ops->read(f->source.driver, 1, 0, &page, &more, &e), FERRY_OK);
        assert_int_equal(page.count, 1);
        const struct source_row bare = page.rows[0];
        assert_int_equal(bare.message.payload_bytes, 0);
        assert_null(bare.invalid);
        assert_memory_equal(bare.message.key, i == 0 ? "k" : "l", 1);
        assert_int_equal(source_fetch(&f->source, &page, &there, &e), FERRY_OK);
        assert_true(there);
        assert_int_equal(page.rows[0].position, bare.position);
        assert_int_equal(page.rows[0].number, bare.number);
        assert_memory_equal(page.rows[0].message.payload, i == 0 ? "first" : "second",
                            page.rows[0].message.payload_bytes);
        if (i == 1) {
            maria_exec(f, "DELETE FROM ferry_outbox WHERE mkey = 'l'");
            assert_int_equal(source_fetch(&f->source, &page, &there, &e), FERRY_OK);
            assert_false(there);
        }
    }
    source_page_fini(&page);
}

/* The header that asks for a delay is obeyed and taken out, in both forms; one that is no time
 * makes the row no message. */
static void a_delay_is_taken_from_the_headers(void **state)
{
    struct maria_fixture *f = *state;
    struct source_page page;
    source_page_init(&page);
    begin(f, bytes_of(NULL, 0));
    maria_exec(f, "INSERT INTO ferry_outbox (topic, headers, payload) VALUES "
                  "('orders', '{\"ferry-deliver-at\": \"1795735270000\"}', 'json'), "
                  "('orders', CONCAT(X'82', X'A161', X'A178', X'B0', 'ferry-deliver-at', X'AD', "
                  "'1795735270001'), 'map'), "
                  "('orders', '{\"ferry-deliver-at\": \"tomorrow\"}', 'bad')");
    assert_true(changed(f));
    assert_int_equal(read_page(f, &page), 3);
    assert_int_equal(page.rows[0].message.due_ms, 1795735270000);
    assert_int_equal(page.rows[0].message.header_count, 0);
    assert_null(page.rows[0].invalid);
    assert_int_equal(page.rows[1].message.due_ms, 1795735270001);
    assert_int_equal(page.rows[1].message.header_count, 1);
    assert_string_equal(page.rows[1].message.headers[0].name, "a");
    assert_string_equal(page.rows[2].invalid, "headers: ferry-deliver-at is not Unix ms");
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

static bool verified(struct maria_fixture *f, struct err_text *e)
{
    bool same = false;
    assert_int_equal(source_verify(&f->source, &same, e), FERRY_OK);
    return same;
}

/* The server's files as they were before: what was published since is told, and nothing is read. */
static void a_restored_backup_is_told(void **state)
{
    struct maria_fixture *f = *state;
    struct err_text e = {{0}};
    struct source_page page;
    struct source_blob blob;
    struct source_blob checkpoint;
    source_page_init(&page);
    begin(f, bytes_of(NULL, 0));
    put_on(f->connection, "a", "before");
    maria_stop(f->server, SIGTERM);
    maria_shell("cp -r %s/data %s/backup", f->server->folder, f->server->folder);
    maria_start(f->server);
    mysql_close(f->connection);
    f->connection = maria_connect(f);
    for (int i = 0; i < 3; i++) {
        put_on(f->connection, "a", "after");
    }
    source_close(&f->source);
    maria_open_source(f);
    begin(f, bytes_of(NULL, 0));
    struct source_mark *mark = open_mark(f, bytes_of(NULL, 0));
    assert_int_equal(read_page(f, &page), 4);
    const struct source_row *rows[] = {&page.rows[0], &page.rows[1], &page.rows[2], &page.rows[3]};
    assert_int_equal(f->source.ops->mark_encode(f->source.driver, mark, rows, 4, true, &blob), 4);
    assert_int_equal(f->source.ops->mark_add(f->source.driver, mark, rows, 4, true), FERRY_OK);
    f->source.ops->mark_acked(f->source.driver, mark, 4);
    f->source.ops->checkpoint(f->source.driver, page.rows[3].position, &checkpoint);
    assert_true(verified(f, &e));

    maria_stop(f->server, SIGKILL);
    maria_shell("rm -r %s/data && mv %s/backup %s/data", f->server->folder, f->server->folder,
                f->server->folder);
    maria_start(f->server);
    mysql_close(f->connection);
    f->connection = maria_connect(f);
    /* The relay that has worked all the time. */
    bool same = true;
    enum ferry_err err = FERRY_ERR_DB_RETRY;
    for (int i = 0; i < 100 && err == FERRY_ERR_DB_RETRY; i++) {
        err = source_verify(&f->source, &same, &e);
        usleep(20000);
    }
    assert_int_equal(err, FERRY_OK);
    assert_false(same);
    assert_non_null(strstr(e.text, "set back in time"));
    bool more = false;
    assert_int_equal(f->source.ops->read(f->source.driver, 10, 1000, &page, &more, &e),
                     FERRY_ERR_DB_RETRY);
    assert_int_equal(page.count, 0);
    f->source.ops->mark_close(f->source.driver, mark);
    /* One that is started now, by the checkpoint and by a mark, also when ids have risen again. */
    for (int round = 0; round < 2; round++) {
        source_close(&f->source);
        maria_open_source(f);
        int64_t settled = 0;
        bool again = false;
        assert_int_equal(f->source.ops->begin(f->source.driver,
                                              bytes_of(checkpoint.data, checkpoint.size), &settled,
                                              &same, &e),
                         FERRY_OK);
        assert_false(same);
        begin(f, bytes_of(NULL, 0));
        assert_int_equal(f->source.ops->mark_open(f->source.driver, bytes_of(blob.data, blob.size),
                                                  &mark, &same, &again, &e),
                         FERRY_OK);
        assert_false(same);
        assert_non_null(strstr(e.text, "set back in time"));
        /* The same number of deletions, and more ids than before. */
        maria_exec(f, "UPDATE ferry_meta SET value = '1000' WHERE name = 'delete_stamp'");
        for (int i = 0; i < 10; i++) {
            put_on(f->connection, "b", "other");
        }
    }
    assert_non_null(strstr(e.text, "another message"));
    assert_int_equal(maria_number(f, "SELECT COUNT(*) FROM ferry_outbox WHERE mkey = 'b'"), 20);
    source_page_fini(&page);
}

/* A mark holds 4 KiB: rows that do not fit wait until others are deleted. */
static void a_full_mark_takes_more_after_deletions(void **state)
{
    struct maria_fixture *f = *state;
    struct source_page page;
    struct source_blob blob;
    static const struct source_row *rows[6000];
    source_page_init(&page);
    begin(f, bytes_of(NULL, 0));
    /* Ids that lie too far apart for one byte each. */
    maria_exec(f, "INSERT INTO ferry_outbox (id, topic, payload) "
                  "SELECT seq * 70, 't', 'x' FROM seq_1_to_3000");
    struct source_mark *mark = open_mark(f, bytes_of(NULL, 0));
    bool more = false;
    struct err_text e = {{0}};
    assert_int_equal(f->source.ops->read(f->source.driver, 6000, 8 << 20, &page, &more, &e),
                     FERRY_OK);
    assert_int_equal(page.count, 3000);
    for (size_t i = 0; i < page.count; i++) {
        rows[i] = &page.rows[i];
    }
    size_t fits = f->source.ops->mark_encode(f->source.driver, mark, rows, page.count, true, &blob);
    assert_in_range(fits, 2000, 2100);
    assert_true(blob.size <= SOURCE_BLOB_MAX && blob.size > SOURCE_BLOB_MAX - 4);
    assert_int_equal(f->source.ops->mark_add(f->source.driver, mark, rows, fits, false), FERRY_OK);
    assert_int_equal(
        f->source.ops->mark_encode(f->source.driver, mark, rows + fits, 100, true, &blob), 0);
    f->source.ops->mark_acked(f->source.driver, mark, 500);
    tidy(f, rows[499]->position);
    assert_int_equal(
        f->source.ops->mark_encode(f->source.driver, mark, rows + fits, 100, true, &blob), 100);
    assert_int_equal(maria_number(f, "SELECT COUNT(*) FROM ferry_outbox"), 2500);
    f->source.ops->mark_close(f->source.driver, mark);
    source_page_fini(&page);
}

static bool set_aside(struct maria_fixture *f, const struct source_row *row, enum source_aside why)
{
    struct err_text e = {{0}};
    bool done = false;
    if (f->source.ops->set_aside(f->source.driver, row, why, "it's no good", &done, &e) !=
        FERRY_OK) {
        fail_msg("set_aside: %s", e.text);
    }
    return done;
}

static void keep_key(const char *topic, struct bytes key, int64_t until, void *arg)
{
    snprintf(arg, 64, "%s %.*s until %lld", topic, (int)key.size, (const char *)key.data,
             (long long)until);
}

/* Refused rows go to the dead ones; a parked key's rows follow while it is parked. */
static void rows_are_set_aside(void **state)
{
    struct maria_fixture *f = *state;
    struct err_text e = {{0}};
    struct source_page page;
    source_page_init(&page);
    begin(f, bytes_of(NULL, 0));
    for (int i = 0; i < 4; i++) {
        put_on(f->connection, "k", "x");
    }
    assert_int_equal(read_page(f, &page), 4);
    assert_false(set_aside(f, &page.rows[1], SOURCE_ASIDE_PARKED)); /* It is not parked. */
    assert_true(set_aside(f, &page.rows[0], SOURCE_ASIDE_PARK));
    assert_true(set_aside(f, &page.rows[0], SOURCE_ASIDE_PARK)); /* Again: nothing changes. */
    assert_true(set_aside(f, &page.rows[1], SOURCE_ASIDE_PARKED));
    assert_true(set_aside(f, &page.rows[2], SOURCE_ASIDE_REFUSED));
    assert_int_equal(maria_number(f, "SELECT COUNT(*) FROM ferry_outbox"), 1);
    assert_int_equal(maria_number(f, "SELECT SUM(id) FROM ferry_outbox_dead"), 6);
    assert_int_equal(maria_number(f, "SELECT id FROM ferry_outbox_dead WHERE parked"), 2);
    assert_int_equal(
        maria_number(f, "SELECT COUNT(*) FROM ferry_outbox_dead WHERE reason = 'it''s no good'"),
        3);
    bool decided = false;
    assert_int_equal(source_decided(&f->source, 3, &decided, &e), FERRY_OK);
    assert_true(decided);
    assert_int_equal(source_decided(&f->source, 4, &decided, &e), FERRY_OK);
    assert_false(decided);
    char text[64] = "";
    assert_int_equal(source_parked(&f->source, keep_key, text, &e), FERRY_OK);
    assert_string_equal(text, "t k until 0");
    assert_false(changed(f));
    struct source_figures figures;
    assert_int_equal(source_figures(&f->source, 0, &figures, &e), FERRY_OK);
    assert_true(figures.pending_known && figures.oldest_known && figures.open_tx_known);
    assert_int_equal(figures.pending_rows, 1);
    source_page_fini(&page);
}

/* A transaction of an application that holds rows, or waits with some, is in no deletion's way, and
 * the other way round. */
static void deletions_and_applications_do_not_wait(void **state)
{
    struct maria_fixture *f = *state;
    struct source_page page;
    source_page_init(&page);
    begin(f, bytes_of(NULL, 0));
    MYSQL *open = maria_connect(f);
    for (int i = 0; i < 6; i++) {
        put_on(f->connection, "k", "x");
        if (i == 2) {
            maria_exec_on(open, "BEGIN");
            put_on(open, "k", "held");
        }
    }
    assert_int_equal(read_page(f, &page), 6);
    /* All but the held one are deleted while it is held: the planner sees a table of seven rows. */
    maria_exec(f, "ANALYZE TABLE ferry_outbox");
    int64_t before_us = clock_monotonic_us();
    tidy(f, page.rows[5].position);
    assert_true(clock_monotonic_us() - before_us < 500000);
    assert_int_equal(maria_number(f, "SELECT COUNT(*) FROM ferry_outbox"), 0);
    /* While a deletion is open, an application puts. */
    put_on(f->connection, "k", "y");
    MYSQL *deleting = maria_connect(f);
    maria_exec_on(deleting, "SET SESSION tx_isolation = 'READ-COMMITTED', sql_safe_updates = 1");
    maria_exec_on(deleting, "BEGIN; DELETE FROM ferry_outbox WHERE id IN (1,2,3,5,6,7,8,9)");
    maria_exec_on(open, "SET SESSION innodb_lock_wait_timeout = 1");
    put_on(open, "k", "held too");
    put_on(f->connection, "k", "z");
    maria_exec_on(open, "COMMIT");
    maria_exec_on(deleting, "COMMIT");
    mysql_close(open);
    mysql_close(deleting);
    assert_true(changed(f));
    source_page_fini(&page);
}

static void put_many(struct maria_fixture *f, int count)
{
    maria_exec(f,
               "INSERT INTO ferry_outbox (topic, mkey, payload) SELECT 't', 'k', seq FROM "
               "seq_1_to_%d",
               count);
}

/* Rows one after another are deleted as ranges, which stop before a row that somebody holds, and
 * spare what is not ours among them. */
static void ranges_are_deleted_around_others_rows(void **state)
{
    struct maria_fixture *f = *state;
    struct source_page page;
    source_page_init(&page);
    begin(f, bytes_of(NULL, 0));
    MYSQL *open = maria_connect(f);
    put_many(f, 100);
    maria_exec_on(open, "BEGIN");
    put_on(open, "k", "held");
    put_many(f, 100);
    put_on(open, "k", "held behind the last");
    assert_int_equal(read_page(f, &page), 200);
    int64_t before_us = clock_monotonic_us();
    tidy(f, page.rows[199].position);
    assert_true(clock_monotonic_us() - before_us < 900000);
    assert_int_equal(maria_number(f, "SELECT COUNT(*) FROM ferry_outbox"), 0);
    maria_exec_on(open, "COMMIT");
    mysql_close(open);
    assert_true(changed(f));
    assert_int_equal(read_page(f, &page), 2);
    source_page_fini(&page);
}

/* Where a range's last row is gone, somebody's row may lie next to it: then the list serves. */
static void a_range_that_fails_is_deleted_by_list(void **state)
{
    struct maria_fixture *f = *state;
    struct source_page page;
    struct err_text e = {{0}};
    size_t removed = 0;
    bool again = false;
    source_page_init(&page);
    begin(f, bytes_of(NULL, 0));
    MYSQL *open = maria_connect(f);
    put_many(f, 100);
    assert_int_equal(read_page(f, &page), 100);
    maria_exec(f, "DELETE FROM ferry_outbox WHERE id >= 100");
    maria_exec(f, "SET GLOBAL innodb_max_purge_lag_wait = 0"); /* It is purged. */
    maria_exec_on(open, "BEGIN");
    put_on(open, "k", "held");
    struct source_progress progress = {
        .settled = page.rows[99].position, .quiet = true, .stopping = true};
    assert_int_equal(source_tidy(&f->source, &progress, &removed, &again, &e), FERRY_ERR_DB_RETRY);
    assert_int_equal(source_tidy(&f->source, &progress, &removed, &again, &e), FERRY_OK);
    assert_int_equal(removed, 100);
    assert_int_equal(maria_number(f, "SELECT COUNT(*) FROM ferry_outbox"), 0);
    mysql_close(open);
    source_page_fini(&page);
}

static int64_t pending(struct maria_fixture *f, int64_t settled)
{
    struct err_text e = {{0}};
    struct source_figures figures;
    assert_int_equal(source_figures(&f->source, settled, &figures, &e), FERRY_OK);
    assert_true(figures.pending_known);
    assert_true(figures.oldest_known == (figures.pending_rows > 0));
    return figures.pending_rows;
}

/* What is pending is told exactly, and of a large backlog about. */
static void figures_tell_of_a_backlog(void **state)
{
    struct maria_fixture *f = *state;
    struct source_page page;
    source_page_init(&page);
    begin(f, bytes_of(NULL, 0));
    assert_int_equal(pending(f, 0), 0);
    put_many(f, 3000);
    assert_int_equal(pending(f, 0), 3000);
    assert_int_equal(read_page(f, &page), 1000);
    assert_int_equal(pending(f, 0), 3000);
    assert_int_equal(pending(f, page.rows[399].position), 2600);
    tidy(f, page.rows[599].position);
    assert_int_equal(pending(f, page.rows[599].position), 2400);
    put_many(f, 40000);
    assert_in_range(pending(f, page.rows[599].position), 35000, 50000);
    source_page_fini(&page);
}

/* A server that does not answer costs a call little, and is found again when it does. */
static void a_stopped_server_holds_nobody_up(void **state)
{
    struct maria_fixture *f = *state;
    struct err_text e = {{0}};
    struct source_page page;
    bool yes = false;
    source_page_init(&page);
    begin(f, bytes_of(NULL, 0));
    enum ferry_err told[3];
    int64_t longest_us = 0;
    maria_pause(f->server);
    for (int i = 0; i < 3; i++) {
        int64_t before_us = clock_monotonic_us();
        told[i] = f->source.ops->changed(f->source.driver, &yes, &e);
        int64_t took_us = clock_monotonic_us() - before_us;
        longest_us = took_us > longest_us ? took_us : longest_us;
    }
    kill(f->server->pid, SIGCONT); /* Before a judgement: the next test needs the server. */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(told[i], FERRY_ERR_DB_RETRY);
    }
    assert_true(longest_us < 900000);
    enum ferry_err err = FERRY_ERR_DB_RETRY;
    for (int i = 0; i < 100 && err == FERRY_ERR_DB_RETRY; i++) {
        err = f->source.ops->changed(f->source.driver, &yes, &e);
        usleep(20000);
    }
    assert_int_equal(err, FERRY_OK);
    put_on(f->connection, "k", "x");
    assert_int_equal(read_page(f, &page), 1);
    source_page_fini(&page);
}

/* Settings that can take back or reorder rows: refused if the options say so. */
static void doubtful_settings_are_refused(void **state)
{
    struct maria_fixture *f = *state;
    struct err_text e = {{0}};
    struct source_options options = maria_options();
    struct source other = {0};
    maria_exec(f, "SET GLOBAL innodb_flush_log_at_trx_commit = 2");
    assert_int_equal(source_open_mariadb(&other, f->url, &options, &e), FERRY_ERR_DB);
    assert_non_null(strstr(e.text, "innodb_flush_log_at_trx_commit"));
    options.strict = false;
    assert_int_equal(source_open_mariadb(&other, f->url, &options, &e), FERRY_OK);
    source_close(&other);
    maria_exec(f, "SET GLOBAL innodb_flush_log_at_trx_commit = 1");
    options.lane = 1;
    assert_int_equal(source_open_mariadb(&other, f->url, &options, &e), FERRY_ERR_INVALID_ARGUMENT);
    maria_exec(f, "ALTER TABLE ferry_outbox ENGINE = Aria");
    options.lane = 0;
    assert_int_equal(source_open_mariadb(&other, f->url, &options, &e), FERRY_ERR_DB_SCHEMA);
    assert_non_null(strstr(e.text, "InnoDB"));
    assert_int_equal(
        source_open_mariadb(&other, "mariadb://root@/nothing?socket=/nothing", &options, &e),
        FERRY_ERR_IO);
}

/* Lowered while rows wait: nobody would ever publish those. */
static void a_lane_that_is_no_more_is_not_passed_over(void **state)
{
    struct maria_fixture *f = *state;
    struct source other = {0};
    struct source_options options = maria_options();
    struct err_text e = {{0}};
    maria_exec(f, "INSERT INTO ferry_outbox (lane, topic, payload) VALUES (1, 'a', 'x'), "
                  "(2, 'a', 'x'), (0, 'a', 'x')");
    assert_int_equal(source_open_mariadb(&other, f->url, &options, &e), FERRY_ERR_DB);
    assert_non_null(strstr(e.text, "rows of lane 2 wait"));
    assert_non_null(strstr(e.text, "to 3 again"));
    maria_exec(f, "UPDATE ferry_meta SET value = '3' WHERE name = 'lanes'");
    assert_int_equal(source_open_mariadb(&other, f->url, &options, &e), FERRY_OK);
    source_close(&other);
    maria_exec(f, "DELETE FROM ferry_outbox WHERE lane > 0");
    maria_exec(f, "UPDATE ferry_meta SET value = '1' WHERE name = 'lanes'");
    assert_int_equal(source_open_mariadb(&other, f->url, &options, &e), FERRY_OK);
    source_close(&other);
}

/* The active relay is woken by an application of the same machine. */
static void an_application_wakes_the_relay(void **state)
{
    struct maria_fixture *f = *state;
    struct source_word word = {.active = true};
    struct ferry_db *db = NULL;
    assert_int_equal(source_wake_fd(&f->source), -1);
    source_leave_word(&f->source, &word);
    struct pollfd p = {.fd = source_wake_fd(&f->source), .events = POLLIN};
    assert_true(p.fd >= 0);
    assert_int_equal(ferry_db_mariadb(&db, f->connection), FERRY_OK);
    struct ferry_message message = {.topic = "t", .payload = "x", .payload_bytes = 1};
    maria_exec(f, "BEGIN");
    assert_int_equal(ferry_outbox_put(db, &message, NULL), FERRY_OK);
    maria_exec(f, "COMMIT");
    assert_int_equal(poll(&p, 1, 0), 0);
    ferry_outbox_committed(db);
    assert_int_equal(poll(&p, 1, 1000), 1);
    source_wake_drain(&f->source);
    assert_int_equal(poll(&p, 1, 0), 0);
    word.active = false;
    source_leave_word(&f->source, &word);
    assert_int_equal(source_wake_fd(&f->source), -1);
    ferry_db_free(&db);
}

/* One relay of a machine has the database's place; who comes after it was killed has the same. */
static void a_relay_started_again_has_the_same_place(void **state)
{
    struct maria_fixture *f = *state;
    struct source_options options = maria_options();
    struct err_text e = {{0}};
    struct source second = {0};
    char first_place[SOURCE_PLACE_MAX + 1];
    char place[SOURCE_PLACE_MAX + 1];
    source_place(&f->source, first_place);
    assert_true(first_place[0] != '\0');
    assert_int_equal(source_open_mariadb(&second, f->url, &options, &e), FERRY_OK);
    source_place(&second, place);
    assert_string_equal(place, "");
    source_close(&f->source);
    maria_open_source(f);
    source_place(&f->source, place);
    assert_string_equal(place, first_place);
    source_place(&second, place); /* It keeps the name that it began with. */
    assert_string_equal(place, "");
    source_close(&second);
}

static void published_rows_cannot_be_kept(void **state)
{
    struct maria_fixture *f = *state;
    struct source_options options = maria_options();
    struct err_text e = {{0}};
    struct source source = {0};
    options.tidy = false;
    assert_int_equal(source_open_mariadb(&source, f->url, &options, &e),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.text, "relay.tidy"));
}

int main(void)
{
    if (!maria_installed()) {
        fprintf(stderr, "SKIPPED: mariadbd is not installed\n");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        MARIA_TEST(rows_are_handed_out_once),
        MARIA_TEST(an_id_that_is_no_number_is_told),
        MARIA_TEST(a_row_comes_bare_and_the_rest_is_fetched),
        MARIA_TEST(a_delay_is_taken_from_the_headers),
        MARIA_TEST(late_commits_are_seen),
        MARIA_TEST(acknowledged_rows_are_deleted),
        MARIA_TEST(rows_are_set_aside),
        MARIA_TEST(deletions_and_applications_do_not_wait),
        MARIA_TEST(ranges_are_deleted_around_others_rows),
        MARIA_TEST(a_range_that_fails_is_deleted_by_list),
        MARIA_TEST(figures_tell_of_a_backlog),
        MARIA_TEST(a_full_mark_takes_more_after_deletions),
        MARIA_TEST(a_stopped_server_holds_nobody_up),
        MARIA_TEST(doubtful_settings_are_refused),
        MARIA_TEST(a_lane_that_is_no_more_is_not_passed_over),
        MARIA_TEST(an_application_wakes_the_relay),
        MARIA_TEST(a_restored_backup_is_told),
        MARIA_TEST(a_relay_started_again_has_the_same_place),
        MARIA_TEST(published_rows_cannot_be_kept),
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
