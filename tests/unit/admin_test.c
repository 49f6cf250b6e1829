/* What people ask of an outbox and decide about it, on each database whose driver answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/id.h"
#include "lib/database_fixture.h"
#include "outbox/relay/driver.h"

struct rig {
    struct database d;
    const struct outbox_admin_ops *admin;
    enum database_kind kind;
};

static struct rig rigs[DATABASE_KINDS]; /* `kind` of each, for cmocka's initial state. */

static int rig_open(void **state)
{
    struct rig *r = *state;
    const struct outbox_driver *driver = NULL;
    struct err_text e = {{0}};
    database_open_migrated(&r->d, r->kind);
    if (outbox_driver_load(r->d.url, &driver, &e) != FERRY_OK) {
        fail_msg("%s", e.text);
    }
    r->admin = driver->admin;
    return 0;
}

static int rig_close(void **state)
{
    struct rig *r = *state;
    database_close(&r->d);
    return 0;
}

/* ---- Rows, as text: "1:topic/key=payload …" without numbers. -------------------------------- */

struct text {
    char text[1000];
    size_t used;
    int64_t numbers[64];
    struct ferry_id ids[64];
    size_t count;
};

static bool note_row(const struct outbox_row *row, void *arg)
{
    struct text *t = arg;
    bool dead = row->reason != NULL && row->reason[0] != '\0';
    assert_true(t->count < 64);
    t->numbers[t->count] = row->number;
    t->ids[t->count++] = row->id;
    int n = snprintf(t->text + t->used, sizeof(t->text) - t->used, "%s%s/%.*s=%.*s%s%s",
                     t->used == 0 ? "" : " ", row->topic, (int)row->key.size,
                     row->has_key ? (const char *)row->key.data : "", (int)row->payload.size,
                     (const char *)row->payload.data, dead ? ":" : "", dead ? row->reason : "");
    assert_true(n > 0);
    t->used += (size_t)n;
    return true;
}

static struct text rows_of(struct rig *r, enum outbox_table table,
                           const struct outbox_filter *filter)
{
    static const struct outbox_filter all;
    struct text t = {.text = ""};
    struct err_text e = {{0}};
    if (r->admin->rows(r->d.url, table, filter == NULL ? &all : filter, note_row, &t, &e) !=
        FERRY_OK) {
        fail_msg("%s", e.text);
    }
    return t;
}

static void expect_rows(struct rig *r, enum outbox_table table, const char *wanted)
{
    struct text t = rows_of(r, table, NULL);
    assert_string_equal(t.text, wanted);
}

static void put(struct rig *r, const char *key, const char *payload)
{
    char sql[300];
    snprintf(sql, sizeof(sql),
             "INSERT INTO {outbox} (topic, mkey, payload) VALUES ('orders', '%s', '%s')", key,
             payload);
    database_exec(&r->d.a, sql);
}

static void skip_row(struct rig *r, int64_t number)
{
    struct err_text e = {{0}};
    if ((r->admin->skip)(r->d.url, number, "why", &e) != FERRY_OK) {
        fail_msg("%s", e.text);
    }
}

/* As the relay does with a row whose key is parked. */
static void set_aside_as_parked(struct rig *r, int64_t number)
{
    char sql[200];
    skip_row(r, number);
    snprintf(sql, sizeof(sql), "UPDATE {outbox_dead} SET parked = TRUE WHERE %s = %lld",
             r->kind == DATABASE_POSTGRESQL ? "seq" : "id", (long long)number);
    database_exec(&r->d.a, sql);
}

/* ---- Tests ---------------------------------------------------------------------------------- */

/* Pages, and each filter alone. */
static void rows_are_found_by_number_topic_key_and_id(void **state)
{
    struct rig *r = *state;
    put(r, "a", "1");
    put(r, "b", "2");
    put(r, "a", "3");
    struct text all = rows_of(r, OUTBOX_TABLE_PENDING, NULL);
    assert_string_equal(all.text, "orders/a=1 orders/b=2 orders/a=3");
    struct outbox_filter filter = {.limit = 2};
    assert_string_equal(rows_of(r, OUTBOX_TABLE_PENDING, &filter).text, "orders/a=1 orders/b=2");
    filter.after = all.numbers[1];
    assert_string_equal(rows_of(r, OUTBOX_TABLE_PENDING, &filter).text, "orders/a=3");
    filter = (struct outbox_filter){.one = true, .number = all.numbers[1]};
    assert_string_equal(rows_of(r, OUTBOX_TABLE_PENDING, &filter).text, "orders/b=2");
    filter = (struct outbox_filter){.key = bytes_of_string("a")};
    assert_string_equal(rows_of(r, OUTBOX_TABLE_PENDING, &filter).text, "orders/a=1 orders/a=3");
    filter = (struct outbox_filter){.id = &all.ids[2]};
    assert_string_equal(rows_of(r, OUTBOX_TABLE_PENDING, &filter).text, "orders/a=3");
    filter = (struct outbox_filter){.topic = "others"};
    assert_string_equal(rows_of(r, OUTBOX_TABLE_PENDING, &filter).text, "");
}

/* A row that is skipped and put back has its id, and stands behind the others. */
static void a_skipped_row_is_requeued_behind_the_others(void **state)
{
    struct rig *r = *state;
    struct err_text e = {{0}};
    int64_t count = 0;
    put(r, "a", "1");
    put(r, "b", "2");
    struct text before = rows_of(r, OUTBOX_TABLE_PENDING, NULL);
    skip_row(r, before.numbers[0]);
    expect_rows(r, OUTBOX_TABLE_PENDING, "orders/b=2");
    expect_rows(r, OUTBOX_TABLE_DEAD, "orders/a=1:why");
    assert_int_equal((r->admin->skip)(r->d.url, before.numbers[0], "again", &e),
                     FERRY_ERR_UNKNOWN_MESSAGE);
    const struct outbox_filter all = {.limit = 0};
    assert_int_equal(r->admin->requeue(r->d.url, &all, &count, &e), FERRY_OK);
    assert_int_equal(count, 1);
    expect_rows(r, OUTBOX_TABLE_DEAD, "");
    struct text after = rows_of(r, OUTBOX_TABLE_PENDING, NULL);
    assert_string_equal(after.text, "orders/b=2 orders/a=1");
    assert_true(id_equal(&after.ids[1], &before.ids[0]));
    assert_true(after.numbers[1] > before.numbers[1]);
}

/* The parked rows come first, then those of the key that wait behind them; the row below the first
 * parked one was published before and stays as it is. */
static void an_unparked_key_is_put_anew_in_order(void **state)
{
    struct rig *r = *state;
    struct err_text e = {{0}};
    int64_t count = 0;
    struct bytes key = bytes_of_string("k");
    put(r, "k", "published");
    put(r, "k", "1");
    put(r, "other", "2");
    put(r, "k", "3");
    struct text before = rows_of(r, OUTBOX_TABLE_PENDING, NULL);
    assert_int_equal(r->admin->unpark(r->d.url, "orders", key, &count, &e),
                     FERRY_ERR_UNKNOWN_MESSAGE);
    assert_int_equal(r->admin->park(r->d.url, "orders", key, &e), FERRY_OK);
    set_aside_as_parked(r, before.numbers[1]);
    assert_int_equal(r->admin->unpark(r->d.url, "orders", key, &count, &e), FERRY_OK);
    assert_int_equal(count, 2);
    struct text after = rows_of(r, OUTBOX_TABLE_PENDING, NULL);
    assert_string_equal(after.text, "orders/k=published orders/other=2 orders/k=1 orders/k=3");
    assert_true(id_equal(&after.ids[2], &before.ids[1]));
    int64_t until = database_number(&r->d.a, "SELECT until_no FROM {parked_key}");
    assert_true(until > before.numbers[3] && until <= after.numbers[2]);
    expect_rows(r, OUTBOX_TABLE_DEAD, "");
}

/* Nothing was passed over, so nothing has to move. */
static void a_key_without_parked_rows_is_just_free(void **state)
{
    struct rig *r = *state;
    struct err_text e = {{0}};
    int64_t count = 7;
    put(r, "k", "1");
    int64_t waits = rows_of(r, OUTBOX_TABLE_PENDING, NULL).numbers[0];
    assert_int_equal(r->admin->park(r->d.url, "orders", bytes_of_string("k"), &e), FERRY_OK);
    assert_int_equal(r->admin->unpark(r->d.url, "orders", bytes_of_string("k"), &count, &e),
                     FERRY_OK);
    assert_int_equal(count, 0);
    assert_int_equal(database_number(&r->d.a, "SELECT until_no FROM {parked_key}"), waits + 1);
    expect_rows(r, OUTBOX_TABLE_PENDING, "orders/k=1");
}

/* Requeue leaves rows of a parked key alone. */
static void parked_rows_are_not_requeued(void **state)
{
    struct rig *r = *state;
    struct err_text e = {{0}};
    int64_t count = 7;
    put(r, "k", "1");
    assert_int_equal(r->admin->park(r->d.url, "orders", bytes_of_string("k"), &e), FERRY_OK);
    set_aside_as_parked(r, rows_of(r, OUTBOX_TABLE_PENDING, NULL).numbers[0]);
    const struct outbox_filter all = {.limit = 0};
    assert_int_equal(r->admin->requeue(r->d.url, &all, &count, &e), FERRY_OK);
    assert_int_equal(count, 0);
    struct outbox_status status;
    assert_int_equal(r->admin->status(r->d.url, bytes_of(NULL, 0), &status, &e), FERRY_OK);
    assert_int_equal(status.parked_keys, 1);
    assert_int_equal(status.parked_rows, 1);
    assert_int_equal(status.dead_rows, 0);
}

/* ---- Rebase. */

struct verdicts {
    struct ferry_id deleted, marked;
};

static enum outbox_verdict judge(const struct ferry_id *id, int64_t created_ms, void *arg)
{
    const struct verdicts *v = arg;
    assert_true(created_ms > 0);
    return id_equal(id, &v->deleted)  ? OUTBOX_VERDICT_DELETE
           : id_equal(id, &v->marked) ? OUTBOX_VERDICT_MARK
                                      : OUTBOX_VERDICT_KEEP;
}

static bool note_headers(const struct outbox_row *row, void *arg)
{
    struct text *t = arg;
    assert_true(row->headers.size < sizeof(t->text));
    memcpy(t->text, row->headers.data, row->headers.size);
    t->used = row->headers.size;
    return true;
}

static bool headers_have(const struct text *t, const char *word)
{
    return memmem(t->text, t->used, word, strlen(word)) != NULL;
}

/* Each row as it was judged, and a new id; a dry run changes nothing. */
static void a_rebase_does_as_it_is_told_and_renames_the_source(void **state)
{
    struct rig *r = *state;
    struct err_text e = {{0}};
    struct outbox_rebased rebased = {0};
    struct outbox_status before;
    struct outbox_status after;
    put(r, "a", "1");
    put(r, "a", "2");
    put(r, "a", "3");
    struct text rows = rows_of(r, OUTBOX_TABLE_PENDING, NULL);
    struct verdicts v = {.deleted = rows.ids[0], .marked = rows.ids[1]};
    assert_int_equal(r->admin->status(r->d.url, bytes_of(NULL, 0), &before, &e), FERRY_OK);
    assert_int_equal(r->admin->rebase(r->d.url, judge, &v, true, &rebased, &e), FERRY_OK);
    assert_true(rebased.deleted == 1 && rebased.kept == 2 && rebased.marked == 1);
    expect_rows(r, OUTBOX_TABLE_PENDING, "orders/a=1 orders/a=2 orders/a=3");
    assert_int_equal(r->admin->rebase(r->d.url, judge, &v, false, &rebased, &e), FERRY_OK);
    assert_true(rebased.deleted == 1 && rebased.kept == 2 && rebased.marked == 1);
    expect_rows(r, OUTBOX_TABLE_PENDING, "orders/a=2 orders/a=3");
    assert_int_equal(r->admin->status(r->d.url, bytes_of(NULL, 0), &after, &e), FERRY_OK);
    assert_false(id_equal(&before.source_id, &after.source_id));
    assert_true(id_equal(&rebased.new_id, &after.source_id));
    struct text headers = {.text = ""};
    const struct outbox_filter marked = {.id = &v.marked};
    assert_int_equal(
        r->admin->rows(r->d.url, OUTBOX_TABLE_PENDING, &marked, note_headers, &headers, &e),
        FERRY_OK);
    assert_true(headers_have(&headers, OUTBOX_HEADER_DUPLICATE));
}

/* Headers that are there stay, of the library's kind as of JSON's. */
static void a_mark_keeps_the_headers_that_are_there(void **state)
{
    struct rig *r = *state;
    struct err_text e = {{0}};
    struct outbox_rebased rebased = {0};
    const struct ferry_header own = {"colour", "blue", 4};
    const struct ferry_message message = {.topic = "orders",
                                          .partition = FERRY_PARTITION_ANY,
                                          .payload = "1",
                                          .payload_bytes = 1,
                                          .headers = &own,
                                          .header_count = 1};
    struct verdicts v = {.marked = {{0}}};
    database_exec(&r->d.a, "BEGIN");
    assert_int_equal(ferry_outbox_put(r->d.a.db, &message, &v.marked), FERRY_OK);
    database_exec(&r->d.a, "COMMIT");
    assert_int_equal(r->admin->rebase(r->d.url, judge, &v, false, &rebased, &e), FERRY_OK);
    assert_int_equal(rebased.marked, 1);
    struct text headers = {.text = ""};
    const struct outbox_filter one = {.id = &v.marked};
    assert_int_equal(
        r->admin->rows(r->d.url, OUTBOX_TABLE_PENDING, &one, note_headers, &headers, &e), FERRY_OK);
    assert_true(headers_have(&headers, OUTBOX_HEADER_DUPLICATE));
    assert_true(headers_have(&headers, "colour"));
    assert_true(headers_have(&headers, "blue"));
}

/* ---- Others. */

static void a_pause_is_kept(void **state)
{
    struct rig *r = *state;
    struct err_text e = {{0}};
    struct outbox_status status;
    for (int paused = 1; paused >= 0; paused--) {
        assert_int_equal(r->admin->set_paused(r->d.url, paused, &e), FERRY_OK);
        assert_int_equal(r->admin->status(r->d.url, bytes_of(NULL, 0), &status, &e), FERRY_OK);
        assert_int_equal(status.paused, paused);
    }
}

static bool count_id(const struct ferry_id *id, void *arg)
{
    int *sum = arg;
    *sum += id->bytes[15];
    return true;
}

static void queries_that_write_or_return_no_ids_are_refused(void **state)
{
    struct rig *r = *state;
    struct err_text e = {{0}};
    int sum = 0;
    put(r, "a", "1");
    assert_int_equal(r->admin->ids(r->d.url, "SELECT '00000000-0000-0000-0000-000000000004'",
                                   count_id, &sum, &e),
                     FERRY_OK);
    assert_int_equal(sum, 4);
    const char *const wrong[] = {"SELECT 1; SELECT 2", "SELECT 'no id'", "SELECT NULL", "no sql",
                                 ""};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(r->admin->ids(r->d.url, wrong[i], count_id, &sum, &e),
                         FERRY_ERR_INVALID_ARGUMENT);
    }
    const char *const table = r->kind == DATABASE_POSTGRESQL ? "ferry.outbox" : "ferry_outbox";
    char sql[100];
    snprintf(sql, sizeof(sql), "DELETE FROM %s", table);
    assert_int_not_equal(r->admin->ids(r->d.url, sql, count_id, &sum, &e), FERRY_OK);
    expect_rows(r, OUTBOX_TABLE_PENDING, "orders/a=1");
    assert_int_equal(sum, 4);
}

static void a_bench_puts_so_many_rows(void **state)
{
    struct rig *r = *state;
    struct err_text e = {{0}};
    int64_t us = 0;
    assert_int_equal(r->admin->bench_put(r->d.url, "orders", 25, 100, 10, 3, &us, &e), FERRY_OK);
    assert_true(us > 0);
    assert_int_equal(database_number(&r->d.a, "SELECT count(*) FROM {outbox}"), 25);
    assert_int_equal(database_number(&r->d.a, "SELECT count(DISTINCT mkey) FROM {outbox}"), 3);
}

#define RIG_TEST(f)                                                                                \
    {                                                                                              \
#f, f, rig_open, rig_close, NULL                                                           \
    }
#define TESTS 10

/* A driver that does not answer people yet is passed over, and that is said. */
static bool is_ready(enum database_kind kind)
{
    static const char *const urls[DATABASE_KINDS] = {"sqlite:x", "postgresql://x/x",
                                                     "mariadb://x/x"};
    const struct outbox_driver *driver = NULL;
    struct err_text e = {.text = "its driver answers relays only"};
    if (!database_available(kind)) {
        return false;
    }
    bool ready = outbox_driver_load(urls[kind], &driver, &e) == FERRY_OK && driver->admin != NULL;
    if (!ready) {
        fprintf(stderr, "passed over: %s: %s\n", database_kind_name(kind), e.text);
    }
    return ready;
}

int main(void)
{
    const struct CMUnitTest each[TESTS] = {
        RIG_TEST(rows_are_found_by_number_topic_key_and_id),
        RIG_TEST(a_skipped_row_is_requeued_behind_the_others),
        RIG_TEST(an_unparked_key_is_put_anew_in_order),
        RIG_TEST(a_key_without_parked_rows_is_just_free),
        RIG_TEST(parked_rows_are_not_requeued),
        RIG_TEST(a_rebase_does_as_it_is_told_and_renames_the_source),
        RIG_TEST(a_mark_keeps_the_headers_that_are_there),
        RIG_TEST(a_pause_is_kept),
        RIG_TEST(queries_that_write_or_return_no_ids_are_refused),
        RIG_TEST(a_bench_puts_so_many_rows),
    };
    struct CMUnitTest tests[TESTS * DATABASE_KINDS];
    size_t count = 0;
    for (enum database_kind kind = DATABASE_SQLITE; kind < DATABASE_KINDS; kind++) {
        rigs[kind].kind = kind;
        bool ready = is_ready(kind);
        for (size_t i = 0; ready && i < TESTS; i++) {
            tests[count] = each[i];
            tests[count++].initial_state = &rigs[kind];
        }
    }
    return _cmocka_run_group_tests("admin", tests, count, NULL, NULL);
}
