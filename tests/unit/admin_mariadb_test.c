/* What people ask and decide about an outbox and an inbox of MariaDB, on a real server. */
#include <stdio.h>

#if FERRY_HAVE_MARIADB

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#undef skip /* Of cmocka: an operation of the table has the name. */

#include "lib/database_fixture.h"
#include "outbox/mariadb/admin_mariadb.h"
#include "outbox/relay/driver.h"

extern outbox_driver_fn ferry_outbox_driver_mariadb;

struct fixture {
    struct database d;
    const struct outbox_admin_ops *admin;
    struct err_text e;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    database_open_migrated(&f->d, DATABASE_MARIADB);
    f->admin = ferry_outbox_driver_mariadb()->admin;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    database_close(&f->d);
    free(f);
    return 0;
}

static void exec(struct fixture *f, const char *sql)
{
    database_exec(&f->d.a, sql);
}

static int64_t number(struct fixture *f, const char *sql)
{
    return database_number(&f->d.a, sql);
}

static void good(struct fixture *f, enum ferry_err err)
{
    if (err != FERRY_OK) {
        fail_msg("%d: %s", (int)err, f->e.text);
    }
}

static struct bytes key_of(const char *text)
{
    return bytes_of_string(text);
}

static void put(struct fixture *f, const char *key, const char *payload)
{
    char sql[256];
    snprintf(sql, sizeof(sql),
             "INSERT INTO ferry_outbox (topic, mkey, payload) VALUES ('t', '%s', '%s')", key,
             payload);
    exec(f, sql);
}

/* ---- Listing. */

struct list {
    char text[2000];
    size_t count, stop_after;
};

static bool list_row(const struct outbox_row *row, void *arg)
{
    struct list *l = arg;
    snprintf(l->text + strlen(l->text), sizeof(l->text) - strlen(l->text),
             "%lld %s %.*s %.*s%s%s\n", (long long)row->number, row->topic, (int)row->key.size,
             (const char *)row->key.data, (int)row->payload.size, (const char *)row->payload.data,
             row->parked ? " parked" : "", row->requeued ? " requeued" : "");
    return ++l->count != l->stop_after;
}

static const char *rows(struct fixture *f, enum outbox_table table,
                        const struct outbox_filter *filter, struct list *l)
{
    static const struct outbox_filter all;
    memset(l, 0, sizeof(*l));
    good(f, f->admin->rows(f->d.url, table, filter == NULL ? &all : filter, list_row, l, &f->e));
    return l->text;
}

/* An outbox is made once; its status tells figures of it. */
static void status_tells_what_is_there(void **state)
{
    struct fixture *f = *state;
    struct outbox_status status;
    bool created = true;
    good(f, f->admin->init(f->d.url, &created, &f->e));
    assert_false(created);
    good(f, f->admin->status(f->d.url, bytes_of(NULL, 0), &status, &f->e));
    assert_int_equal(status.last_id, 0);
    assert_true(status.pending_known && status.pending_rows == 0 && !status.oldest_known);
    put(f, "a", "1");
    put(f, "b", "2");
    good(f, f->admin->skip(f->d.url, 1, "a person's \"reason\"", &f->e));
    good(f, f->admin->park(f->d.url, "t", key_of("a"), &f->e));
    good(f, f->admin->set_paused(f->d.url, true, &f->e));
    good(f, f->admin->status(f->d.url, bytes_of(NULL, 0), &status, &f->e));
    assert_int_equal(status.schema_version, 1);
    assert_int_equal(status.lanes, 1);
    assert_int_equal(status.last_id, 2);
    assert_int_equal(status.stored_rows, 1);
    assert_int_equal(status.dead_rows, 1);
    assert_int_equal(status.parked_keys, 1);
    assert_true(status.paused && status.oldest_known && status.open_tx_known);
    good(f, f->admin->set_paused(f->d.url, false, &f->e));
    good(f, f->admin->status(f->d.url, bytes_of(NULL, 0), &status, &f->e));
    assert_false(status.paused);
}

static void rows_are_filtered(void **state)
{
    struct fixture *f = *state;
    struct list l;
    put(f, "a", "1");
    put(f, "b", "2");
    put(f, "a", "3");
    assert_string_equal(rows(f, OUTBOX_TABLE_PENDING, NULL, &l), "1 t a 1\n2 t b 2\n3 t a 3\n");
    struct outbox_filter filter = {.key = key_of("a"), .after = 1};
    assert_string_equal(rows(f, OUTBOX_TABLE_PENDING, &filter, &l), "3 t a 3\n");
    filter = (struct outbox_filter){.one = true, .number = 2};
    assert_string_equal(rows(f, OUTBOX_TABLE_PENDING, &filter, &l), "2 t b 2\n");
    filter = (struct outbox_filter){.limit = 1, .topic = "t"};
    assert_string_equal(rows(f, OUTBOX_TABLE_PENDING, &filter, &l), "1 t a 1\n");
    filter = (struct outbox_filter){.topic = "it's another"};
    assert_string_equal(rows(f, OUTBOX_TABLE_PENDING, &filter, &l), "");
}

/* Dead rows go behind what is there, with their ids as messages. */
static void dead_rows_are_put_anew(void **state)
{
    struct fixture *f = *state;
    struct list l;
    int64_t count = 0;
    put(f, "a", "1");
    put(f, "b", "2");
    exec(f, "CREATE TABLE before_it AS SELECT msg_id FROM ferry_outbox WHERE id = 1");
    good(f, f->admin->skip(f->d.url, 1, "no", &f->e));
    assert_int_equal(f->admin->skip(f->d.url, 1, "no", &f->e), FERRY_ERR_UNKNOWN_MESSAGE);
    assert_string_equal(rows(f, OUTBOX_TABLE_DEAD, NULL, &l), "1 t a 1\n");
    struct outbox_filter filter = {.key = key_of("b")};
    good(f, f->admin->requeue(f->d.url, &filter, &count, &f->e));
    assert_int_equal(count, 0);
    filter = (struct outbox_filter){0};
    good(f, f->admin->requeue(f->d.url, &filter, &count, &f->e));
    assert_int_equal(count, 1);
    assert_string_equal(rows(f, OUTBOX_TABLE_PENDING, NULL, &l), "2 t b 2\n3 t a 1\n");
    assert_string_equal(rows(f, OUTBOX_TABLE_DEAD, NULL, &l), "");
    assert_int_equal(
        number(f, "SELECT COUNT(*) FROM ferry_outbox JOIN before_it USING (msg_id) WHERE id = 3"),
        1);
}

/* The parked rows of a key and those that wait behind them keep their order; not while somebody has
 * a message open. */
static void a_freed_key_keeps_its_order(void **state)
{
    struct fixture *f = *state;
    struct list l;
    int64_t count = 0;
    for (int i = 1; i <= 6; i++) {
        char text[2] = {(char)('0' + i), 0};
        put(f, i == 3 ? "other" : "k", text);
    }
    assert_int_equal(f->admin->unpark(f->d.url, "t", key_of("k"), &count, &f->e),
                     FERRY_ERR_UNKNOWN_MESSAGE);
    good(f, f->admin->park(f->d.url, "t", key_of("k"), &f->e));
    /* As the relay does with what it comes to. */
    exec(f, "INSERT INTO ferry_outbox_dead (id, topic, mkey, msg_id, payload, created_ms, reason, "
            "parked) SELECT id, topic, mkey, msg_id, payload, created_ms, 'x', id > 1 FROM "
            "ferry_outbox WHERE id IN (1, 2, 4)");
    exec(f, "DELETE FROM ferry_outbox WHERE id IN (1, 2, 4)");
    struct database_link open = {0};
    database_connect(&f->d, &open);
    database_exec(&open, "BEGIN");
    database_exec(&open, "INSERT INTO ferry_outbox (topic, mkey, payload) VALUES ('t', 'k', '7')");
    assert_int_equal(f->admin->unpark(f->d.url, "t", key_of("k"), &count, &f->e),
                     FERRY_ERR_DB_RETRY);
    assert_non_null(strstr(f->e.text, "is open"));
    database_exec(&open, "COMMIT");
    database_disconnect(&open);
    good(f, f->admin->unpark(f->d.url, "t", key_of("k"), &count, &f->e));
    assert_int_equal(count, 5);
    struct outbox_filter filter = {.key = key_of("k")};
    rows(f, OUTBOX_TABLE_PENDING, &filter, &l);
    int64_t until = number(f, "SELECT until_no FROM ferry_parked_key WHERE mkey = 'k'");
    assert_int_equal(until, 8);
    char *at = l.text;
    for (int i = 0; i < 5; i++) {
        static const char payloads[] = "24567";
        assert_true(strtoll(at, &at, 10) >= until);
        assert_int_equal(at[5], payloads[i]);
        at += 7;
    }
    assert_string_equal(rows(f, OUTBOX_TABLE_DEAD, NULL, &l), "1 t k 1\n");
}

/* ---- Rebase. */

static enum outbox_verdict judge(const struct ferry_id *id, int64_t created_ms, void *arg)
{
    (void)created_ms;
    (void)arg;
    return id->bytes[15] == 1   ? OUTBOX_VERDICT_DELETE
           : id->bytes[15] == 2 ? OUTBOX_VERDICT_MARK
                                : OUTBOX_VERDICT_KEEP;
}

static void rebase_gives_a_new_id(void **state)
{
    struct fixture *f = *state;
    struct outbox_rebased rebased;
    struct outbox_status before;
    struct outbox_status after;
    exec(
        f,
        "INSERT INTO ferry_outbox (topic, msg_id, headers, payload) SELECT 't', "
        "UNHEX(LPAD(HEX(1 + seq MOD 3), 32, '0')), IF(seq MOD 2, JSON_OBJECT('a', 'b'), NULL), 'x' "
        "FROM seq_0_to_2999");
    good(f, f->admin->status(f->d.url, bytes_of(NULL, 0), &before, &f->e));
    good(f, f->admin->rebase(f->d.url, judge, NULL, true, &rebased, &f->e));
    assert_int_equal(rebased.deleted, 1000);
    assert_int_equal(number(f, "SELECT COUNT(*) FROM ferry_outbox"), 3000);
    good(f, f->admin->rebase(f->d.url, judge, NULL, false, &rebased, &f->e));
    assert_int_equal(rebased.deleted, 1000);
    assert_int_equal(rebased.marked, 1000);
    assert_int_equal(rebased.kept, 2000);
    assert_int_equal(number(f, "SELECT COUNT(*) FROM ferry_outbox"), 2000);
    assert_int_equal(number(f, "SELECT COUNT(*) FROM ferry_outbox WHERE headers LIKE "
                               "'%ferry-possible-duplicate%'"),
                     1000);
    assert_int_equal(number(f, "SELECT COUNT(*) FROM ferry_outbox WHERE ORD(headers) = 123 AND "
                               "JSON_VALUE(headers, '$.\"ferry-possible-duplicate\"') = '1' AND "
                               "JSON_VALUE(headers, '$.a') = 'b'"),
                     500);
    good(f, f->admin->status(f->d.url, bytes_of(NULL, 0), &after, &f->e));
    assert_memory_equal(&after.source_id, &rebased.new_id, sizeof(rebased.new_id));
    assert_memory_not_equal(&after.source_id, &before.source_id, sizeof(after.source_id));
}

/* ---- Inbox and sagas. */

static bool list_inbox(const struct inbox_status *status, void *arg)
{
    struct list *l = arg;
    snprintf(l->text + strlen(l->text), sizeof(l->text) - strlen(l->text),
             "%s/%d at %lld: %lld rows, %lld holes, %lld dead\n", status->group, status->partition,
             (long long)status->position, (long long)status->rows, (long long)status->holes,
             (long long)status->dead);
    return true;
}

static bool list_trace(const struct inbox_trace *trace, void *arg)
{
    struct list *l = arg;
    snprintf(l->text + strlen(l->text), sizeof(l->text) - strlen(l->text), "%s %s %s%s\n",
             trace->group, trace->by_chain ? "chain" : "id", trace->done ? "done" : "not done",
             trace->when_known ? " when" : "");
    return true;
}

static void the_inbox_is_shown(void **state)
{
    struct fixture *f = *state;
    struct list l = {{0}, 0, 0};
    int64_t count = 0;
    struct ferry_id topic = {{1}};
    struct ferry_id id = {{2}};
    exec(f, "INSERT INTO ferry_inbox_chain (grp, topic_id, part, start_off, end_off) VALUES "
            "('g', UNHEX('01000000000000000000000000000000'), 0, -1, 5), "
            "('g', UNHEX('01000000000000000000000000000000'), 0, 5, 9), "
            "('h', UNHEX('01000000000000000000000000000000'), 0, -1, 2), "
            "('h', UNHEX('01000000000000000000000000000000'), 0, 3, 4)");
    exec(f, "INSERT INTO ferry_inbox_id (grp, msg_id, day) VALUES ('q', "
            "UNHEX('02000000000000000000000000000000'), 1)");
    exec(f, "INSERT INTO ferry_inbox_dead (grp, topic_id, part, off, msg_id, reason, payload, "
            "ts_ms) VALUES ('g', UNHEX('01000000000000000000000000000000'), 0, 7, "
            "UNHEX('03000000000000000000000000000000'), 'r', 'p', 1)");
    good(f, f->admin->inbox(f->d.url, list_inbox, &l, &f->e));
    assert_string_equal(l.text, "g/0 at 9: 2 rows, 0 holes, 1 dead\n"
                                "h/0 at 4: 2 rows, 1 holes, 0 dead\n"
                                "q/0 at 0: 1 rows, 0 holes, 0 dead\n");
    memset(&l, 0, sizeof(l));
    good(f, f->admin->inbox_trace(f->d.url, &id, &topic, 0, 6, list_trace, &l, &f->e));
    assert_string_equal(l.text, "g chain done when\nh chain not done\nq id done\n");
    struct outbox_filter filter = {.group = "g"};
    good(f, f->admin->inbox_requeue(f->d.url, &filter, &count, &f->e));
    assert_int_equal(count, 1);
    assert_string_equal(rows(f, INBOX_TABLE_DEAD, &filter, &l),
                        "1 01000000-0000-0000-0000-000000000000  p requeued\n");
    filter.group = "h";
    assert_string_equal(rows(f, INBOX_TABLE_DEAD, &filter, &l), "");
}

static bool count_ids(const struct ferry_id *id, void *arg)
{
    (void)id;
    ++*(int *)arg;
    return true;
}

static enum ferry_err ids(struct fixture *f, const char *sql, int *count)
{
    *count = 0;
    return f->admin->ids(f->d.url, sql, count_ids, count, &f->e);
}

/* One query that only reads; its first column is a message id as bytes or as text. */
static void ids_come_from_one_query(void **state)
{
    struct fixture *f = *state;
    int count = 0;
    put(f, "a", "1");
    put(f, "a", "2");
    good(f, ids(f, "SELECT msg_id, payload FROM ferry_outbox;", &count));
    assert_int_equal(count, 2);
    good(f, ids(f, "SELECT '01000000-0000-0000-0000-000000000000' -- so", &count));
    assert_int_equal(count, 1);
    static const char *const bad[] = {
        "SELECT payload FROM ferry_outbox",
        "DELETE FROM ferry_outbox",
        "SELECT msg_id FROM ferry_outbox; DELETE FROM ferry_outbox",
        "SELECT msg_id FROM ferry_outbox INTO OUTFILE '/tmp/x'",
        "SELECT msg_id FROM ferry_outbox) AS x; DELETE FROM ferry_outbox -- ",
        "SELECT NULL",
        "",
        "SELECT msg_id FROM nothing",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (ids(f, bad[i], &count) != FERRY_ERR_INVALID_ARGUMENT) {
            fail_msg("%s: %s", bad[i], f->e.text);
        }
    }
    assert_int_equal(number(f, "SELECT COUNT(*) FROM ferry_outbox"), 2);
}

static bool list_saga(const struct outbox_saga *saga, void *arg)
{
    struct list *l = arg;
    snprintf(l->text + strlen(l->text), sizeof(l->text) - strlen(l->text), "%s %s %d/%d v%lld\n",
             saga->type, saga->state, saga->step, saga->steps, (long long)saga->version);
    return true;
}

static void sagas_are_listed_and_decided(void **state)
{
    struct fixture *f = *state;
    struct list l = {{0}, 0, 0};
    struct ferry_id id;
    struct ferry_id none = {{9}};
    static const struct ferry_saga_step steps[] = {{.topic = "a"}, {.topic = "b"}};
    const struct ferry_saga_def def = {.type = "pay",
                                       .kind = FERRY_SAGA_ORCHESTRATED,
                                       .steps = steps,
                                       .count = 2,
                                       .reply_topic = "r"};
    exec(f, "BEGIN");
    assert_int_equal(ferry_saga_start(f->d.a.db, &def, NULL, 0, "x", 1, &id), FERRY_OK);
    exec(f, "COMMIT");
    good(f, f->admin->sagas(f->d.url, NULL, NULL, list_saga, &l, &f->e));
    assert_string_equal(l.text, "pay running 0/2 v0\n");
    memset(&l, 0, sizeof(l));
    good(f, f->admin->sagas(f->d.url, &id, "stuck", list_saga, &l, &f->e));
    assert_string_equal(l.text, "");
    assert_int_equal(f->admin->saga_retry(f->d.url, &none, &f->e), FERRY_ERR_UNKNOWN_MESSAGE);
    int64_t rows_before = number(f, "SELECT COUNT(*) FROM ferry_outbox");
    good(f, f->admin->saga_retry(f->d.url, &id, &f->e));
    assert_true(number(f, "SELECT COUNT(*) FROM ferry_outbox") > rows_before);
    good(f, f->admin->saga_abort(f->d.url, &id, "enough", &f->e));
    good(f, f->admin->sagas(f->d.url, &id, "compensating", list_saga, &l, &f->e));
    assert_non_null(strstr(l.text, "pay compensating"));
}

static void bench_rows_are_put(void **state)
{
    struct fixture *f = *state;
    int64_t us = 0;
    good(f, f->admin->bench_put(f->d.url, "bench", 1000, 200, 100, 10, &us, &f->e));
    assert_true(us > 0);
    assert_int_equal(number(f, "SELECT COUNT(*) FROM ferry_outbox WHERE topic = 'bench'"), 1000);
}

/* The script makes the tables in a database that has none. */
static void the_script_is_complete(void **state)
{
    struct fixture *f = *state;
    FILE *out = tmpfile();
    char line[64] = "";
    good(f, f->admin->print_sql(f->d.url, 0, out, &f->e));
    assert_true(ftell(out) > 5000);
    rewind(out);
    assert_non_null(fgets(line, sizeof(line), out));
    fclose(out);
    assert_int_equal(f->admin->print_sql(f->d.url, 99, stderr, &f->e), FERRY_ERR_INVALID_ARGUMENT);
    exec(f, "DROP TABLE ferry_meta");
    struct outbox_status status;
    assert_int_equal(f->admin->status(f->d.url, bytes_of(NULL, 0), &status, &f->e),
                     FERRY_ERR_DB_SCHEMA);
    assert_non_null(strstr(f->e.text, "ferry outbox init"));
    assert_int_equal(f->admin->status("mariadb://root:secret@/x?socket=/nowhere", bytes_of(NULL, 0),
                                      &status, &f->e),
                     FERRY_ERR_IO);
    assert_null(strstr(f->e.text, "secret"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    if (!database_available(DATABASE_MARIADB)) {
        fprintf(stderr, "SKIPPED: mariadbd is not installed\n");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        TEST(status_tells_what_is_there), TEST(rows_are_filtered),
        TEST(dead_rows_are_put_anew),     TEST(a_freed_key_keeps_its_order),
        TEST(rebase_gives_a_new_id),      TEST(the_inbox_is_shown),
        TEST(ids_come_from_one_query),    TEST(sagas_are_listed_and_decided),
        TEST(bench_rows_are_put),         TEST(the_script_is_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    fprintf(stderr, "SKIPPED: built without libmariadb\n");
    return 0;
}

#endif
