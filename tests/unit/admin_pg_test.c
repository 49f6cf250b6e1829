/* admin.h on PostgreSQL: what people ask and decide, on a real server. */
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

#if FERRY_HAVE_POSTGRESQL

outbox_driver_fn ferry_outbox_driver_postgresql;

#define READS_MAX 200

static const struct outbox_admin_ops *admin(void)
{
    return ferry_outbox_driver_postgresql()->admin;
}

static int setup(void **state)
{
    struct database *d = calloc(1, sizeof(*d));
    assert_non_null(d);
    *state = d;
    if (!database_available(DATABASE_POSTGRESQL)) {
        return 0;
    }
    database_open_migrated(d, DATABASE_POSTGRESQL);
    return 0;
}

static int teardown(void **state)
{
    database_close(*state);
    free(*state);
    return 0;
}

#define NEEDS_SERVER(state)                                                                        \
    struct database *d = *(state);                                                                 \
    struct err_text e = {{0}};                                                                     \
    (void)e;                                                                                       \
    if (d->url[0] == '\0') {                                                                       \
        skip();                                                                                    \
    }

static void put(struct database *d, const char *key, const char *payload)
{
    char sql[300];
    (void)snprintf(sql, sizeof(sql), "SELECT ferry.put('orders', '%s'::text, '%s'::text)", key,
                   payload);
    assert_non_null(database_text(&d->a, sql));
}

#define OK(call)                                                                                   \
    do {                                                                                           \
        enum ferry_err ok_err = (call);                                                            \
        if (ok_err != FERRY_OK) {                                                                  \
            fail_msg("%s: %s: %s", #call, ferry_err_name(ok_err), e.text);                         \
        }                                                                                          \
    } while (0)

/* ---- Listings. */

struct listed {
    char text[1000]; /* "number:payload;" of each row. */
    size_t used;
    int64_t settled, dead;
};

static bool list_row(const struct outbox_row *row, void *arg)
{
    struct listed *l = arg;
    l->used += (size_t)snprintf(l->text + l->used, sizeof(l->text) - l->used, "%lld:%.*s;",
                                (long long)row->number, (int)row->payload.size,
                                (const char *)row->payload.data);
    l->settled += row->settled_known && row->settled;
    l->dead += row->reason != NULL && row->reason[0] != '\0';
    return true;
}

static void expect_rows(struct database *d, enum outbox_table table,
                        const struct outbox_filter *filter, const char *wanted)
{
    struct listed l = {.used = 0};
    struct err_text e = {{0}};
    OK(admin()->rows(d->url, table, filter, list_row, &l, &e));
    assert_string_equal(l.text, wanted);
}

static const struct outbox_filter all;

/* Tables are made once; what is printed is what makes them. */
static void init_makes_the_tables_and_says_so_once(void **state)
{
    NEEDS_SERVER(state);
    bool created = true;
    FILE *file = tmpfile();
    assert_non_null(file);
    OK(admin()->init(d->url, &created, &e));
    assert_false(created);
    OK(admin()->print_sql(d->url, 0, file, &e));
    assert_true(ftell(file) > 1000);
    fclose(file);
    assert_int_equal(admin()->print_sql(d->url, 99, stdout, &e), FERRY_ERR_INVALID_ARGUMENT);
    database_exec(&d->a, "DROP SCHEMA ferry CASCADE");
    struct outbox_status status;
    assert_int_equal(admin()->status(d->url, NULL, 0, &status, &e), FERRY_ERR_DB_SCHEMA);
    assert_non_null(strstr(e.text, "ferry outbox init"));
    OK(admin()->init(d->url, &created, &e));
    assert_true(created);
    OK(admin()->status(d->url, NULL, 0, &status, &e));
    assert_int_equal(status.schema_version, 1);
}

/* The checkpoint of a source that has read everything up to some moment. */
static void checkpoint_of(struct database *d, uint32_t lane, size_t rows, struct source_blob *blob)
{
    struct source source = {0};
    struct source_options options = {.barrier = true,
                                     .lane = lane,
                                     .stand_by = true,
                                     .copy_rows = 50000,
                                     .connect_timeout_ms = 5000,
                                     .statement_timeout_ms = 30000};
    struct err_text e = {{0}};
    struct source_page page;
    int64_t settled = 0;
    size_t seen = 0;
    bool same = false, more = false;
    OK(ferry_outbox_driver_postgresql()->source_open(&source, d->url, &options, &e));
    OK(source.ops->begin(source.driver, bytes_of(NULL, 0), &settled, &same, &e));
    source_page_init(&page);
    for (int i = 0; i < READS_MAX && (seen < rows || more); i++) {
        source_page_clear(&page);
        enum ferry_err err = source.ops->read(source.driver, 100, 1 << 20, &page, &more, &e);
        assert_true(err == FERRY_OK || err == FERRY_ERR_DB_RETRY);
        seen += page.count;
        settled = page.count > 0 ? page.rows[page.count - 1].position : settled;
    }
    assert_int_equal(seen, rows);
    source_page_clear(&page);
    (void)source.ops->read(source.driver, 100, 1 << 20, &page, &more, &e); /* The tick is over. */
    source.ops->checkpoint(source.driver, settled, blob);
    assert_true(blob->size > 0);
    source_page_fini(&page);
    source_close(&source);
}

/* What is pending is what the brokers' checkpoint does not cover; without one it is not known. */
static void status_judges_rows_by_the_checkpoint(void **state)
{
    NEEDS_SERVER(state);
    struct outbox_status status;
    struct source_blob blob;
    for (int i = 0; i < 3; i++) {
        put(d, "k", "before");
    }
    checkpoint_of(d, 0, 3, &blob);
    struct bytes checkpoint = bytes_of(blob.data, blob.size);
    OK(admin()->status(d->url, &checkpoint, 1, &status, &e));
    assert_true(status.pending_known);
    assert_int_equal(status.pending_rows, 0);
    assert_false(status.oldest_known);
    put(d, "k", "a");
    put(d, "k", "b");
    OK(admin()->status(d->url, &checkpoint, 1, &status, &e));
    assert_int_equal(status.pending_rows, 2);
    assert_true(status.oldest_known && status.oldest_pending_ms >= 0);
    assert_int_equal(status.stored_rows, 5);
    assert_int_equal(status.last_id, 5);
    assert_int_equal(status.lanes, 1);
    assert_false(id_is_zero(&status.source_id));
    OK(admin()->status(d->url, NULL, 0, &status, &e));
    assert_false(status.pending_known);
    struct listed l = {.used = 0};
    struct outbox_filter filter = {.checkpoint = checkpoint};
    OK(admin()->rows(d->url, OUTBOX_TABLE_PENDING, &filter, list_row, &l, &e));
    assert_int_equal(l.settled, 3);
    checkpoint = bytes_of("\1x", 2);
    assert_int_equal(admin()->status(d->url, &checkpoint, 1, &status, &e), FERRY_ERR_CORRUPT);
}

static void put_in_lane(struct database *d, int lane)
{
    char sql[200];
    (void)snprintf(sql, sizeof(sql),
                   "INSERT INTO ferry.outbox (lane, topic, payload) VALUES (%d, 'orders', 'x')",
                   lane);
    database_exec(&d->a, sql);
}

static void status_adds_up_the_lanes(void **state)
{
    NEEDS_SERVER(state);
    struct outbox_status status;
    struct source_blob first, second;
    database_exec(&d->a, "UPDATE ferry.meta SET value = '2' WHERE name = 'lanes'");
    put_in_lane(d, 0);
    put_in_lane(d, 0);
    checkpoint_of(d, 0, 2, &first);
    struct bytes checkpoints[] = {bytes_of(first.data, first.size), bytes_of(NULL, 0)};
    OK(admin()->status(d->url, checkpoints, 1, &status, &e));
    assert_false(status.pending_known); /* One lane alone says too little. */
    OK(admin()->status(d->url, checkpoints, 2, &status, &e));
    assert_true(status.pending_known); /* Nothing was ever put in the other. */
    assert_int_equal(status.pending_rows, 0);
    put_in_lane(d, 1);
    OK(admin()->status(d->url, checkpoints, 2, &status, &e));
    assert_false(status.pending_known);
    assert_int_equal(status.pending_rows, 0);
    checkpoint_of(d, 1, 1, &second);
    checkpoints[1] = bytes_of(second.data, second.size);
    OK(admin()->status(d->url, checkpoints, 2, &status, &e));
    assert_true(status.pending_known);
    assert_int_equal(status.pending_rows, 0);
    assert_false(status.oldest_known);
    put_in_lane(d, 1);
    put_in_lane(d, 0);
    put_in_lane(d, 1);
    OK(admin()->status(d->url, checkpoints, 2, &status, &e));
    assert_int_equal(status.pending_rows, 3);
    assert_true(status.oldest_known);
    database_exec(&d->a, "UPDATE ferry.meta SET value = '3' WHERE name = 'lanes'");
    OK(admin()->status(d->url, checkpoints, 2, &status, &e));
    assert_false(status.pending_known); /* The brokers were asked about two. */
}

/* Lowered while rows are there: nobody would ever publish those. */
static void a_relay_does_not_pass_over_a_lane_that_is_no_more(void **state)
{
    NEEDS_SERVER(state);
    struct source source = {0};
    struct source_options options = {
        .stand_by = true, .connect_timeout_ms = 5000, .statement_timeout_ms = 30000};
    const struct outbox_driver *driver = ferry_outbox_driver_postgresql();
    database_exec(&d->a, "UPDATE ferry.meta SET value = '4' WHERE name = 'lanes'");
    put_in_lane(d, 1);
    put_in_lane(d, 2);
    OK(driver->source_open(&source, d->url, &options, &e));
    source_close(&source);
    database_exec(&d->a, "UPDATE ferry.meta SET value = '1' WHERE name = 'lanes'");
    assert_int_equal(driver->source_open(&source, d->url, &options, &e), FERRY_ERR_DB);
    assert_non_null(strstr(e.text, "rows of lane 2"));
    assert_non_null(strstr(e.text, "ferry.meta to 3"));
    database_exec(&d->a, "UPDATE ferry.meta SET value = '3' WHERE name = 'lanes'");
    OK(driver->source_open(&source, d->url, &options, &e));
    source_close(&source);
    database_exec(&d->a, "UPDATE ferry.meta SET value = '1' WHERE name = 'lanes'");
    database_exec(&d->a, "DELETE FROM ferry.outbox WHERE lane >= 1");
    OK(driver->source_open(&source, d->url, &options, &e));
    source_close(&source);
}

/* Filters are anded; a page has its limit. */
static void rows_are_found_by_what_is_known_of_them(void **state)
{
    NEEDS_SERVER(state);
    put(d, "k", "a");
    put(d, "other", "b");
    put(d, "k", "c");
    expect_rows(d, OUTBOX_TABLE_PENDING, &all, "1:a;2:b;3:c;");
    struct outbox_filter filter = {.key = bytes_of("k", 1)};
    expect_rows(d, OUTBOX_TABLE_PENDING, &filter, "1:a;3:c;");
    filter.after = 1;
    expect_rows(d, OUTBOX_TABLE_PENDING, &filter, "3:c;");
    filter = (struct outbox_filter){.one = true, .number = 2};
    expect_rows(d, OUTBOX_TABLE_PENDING, &filter, "2:b;");
    filter = (struct outbox_filter){.limit = 1, .topic = "orders"};
    expect_rows(d, OUTBOX_TABLE_PENDING, &filter, "1:a;");
    filter = (struct outbox_filter){.topic = "none"};
    expect_rows(d, OUTBOX_TABLE_PENDING, &filter, "");
    struct ferry_id id;
    assert_true(id_parse(database_text(&d->a, "SELECT msg_id FROM {outbox} WHERE seq = 3"), &id));
    filter = (struct outbox_filter){.id = &id};
    expect_rows(d, OUTBOX_TABLE_PENDING, &filter, "3:c;");
}

/* A skipped row is dead; requeued it is put anew under its id, and nothing of it is left behind. */
static void a_row_is_skipped_and_put_again(void **state)
{
    NEEDS_SERVER(state);
    int64_t count = 0;
    put(d, "k", "a");
    put(d, "k", "b");
    char id[64];
    (void)snprintf(id, sizeof(id), "%s",
                   database_text(&d->a, "SELECT msg_id FROM {outbox} WHERE seq = 1"));
    OK((admin()->skip)(d->url, 1, "not wanted", &e));
    assert_int_equal((admin()->skip)(d->url, 1, "again", &e), FERRY_ERR_UNKNOWN_MESSAGE);
    assert_int_equal((admin()->skip)(d->url, 77, "none", &e), FERRY_ERR_UNKNOWN_MESSAGE);
    expect_rows(d, OUTBOX_TABLE_DEAD, &all, "1:a;");
    expect_rows(d, OUTBOX_TABLE_PENDING, &all, "2:b;");
    OK(admin()->requeue(d->url, &all, &count, &e));
    assert_int_equal(count, 1);
    expect_rows(d, OUTBOX_TABLE_DEAD, &all, "");
    expect_rows(d, OUTBOX_TABLE_PENDING, &all, "2:b;3:a;");
    assert_string_equal(database_text(&d->a, "SELECT msg_id FROM {outbox} WHERE seq = 3"), id);
}

static void a_pause_is_a_word_in_the_database(void **state)
{
    NEEDS_SERVER(state);
    struct outbox_status status;
    OK(admin()->set_paused(d->url, true, &e));
    OK(admin()->status(d->url, NULL, 0, &status, &e));
    assert_true(status.paused);
    OK(admin()->set_paused(d->url, false, &e));
    OK(admin()->status(d->url, NULL, 0, &status, &e));
    assert_false(status.paused);
}

static bool count_parked(const struct outbox_parked_key *key, void *arg)
{
    int64_t *rows = arg;
    assert_memory_equal(key->key.data, "k", 1);
    *rows = key->rows;
    return true;
}

/* Rows of a parked key that a relay set aside, and those that wait behind them, come out in their
 * order above a new number; a key without any is just free. */
static void a_key_is_parked_and_let_go_in_order(void **state)
{
    NEEDS_SERVER(state);
    struct bytes key = bytes_of("k", 1);
    int64_t rows = -1, count = -1;
    assert_int_equal(admin()->unpark(d->url, "orders", key, &count, &e), FERRY_ERR_UNKNOWN_MESSAGE);
    OK(admin()->park(d->url, "orders", key, &e));
    OK(admin()->parked(d->url, count_parked, &rows, &e));
    assert_int_equal(rows, 0);
    OK(admin()->unpark(d->url, "orders", key, &count, &e));
    assert_int_equal(count, 0);
    assert_int_equal(database_number(&d->a, "SELECT until_no FROM ferry.parked_key"), 2);

    OK(admin()->park(d->url, "orders", key, &e));
    put(d, "k", "a");
    put(d, "other", "x");
    put(d, "k", "b");
    put(d, "k", "c");
    database_exec(&d->a,
                  "INSERT INTO ferry.outbox_dead (seq, lane, topic, mkey, msg_id, payload, "
                  "created_ms, reason, parked) SELECT seq, lane, topic, mkey, msg_id, payload, "
                  "created_ms, 'parked', true FROM ferry.outbox WHERE payload IN ('a', 'b')");
    OK(admin()->parked(d->url, count_parked, &rows, &e));
    assert_int_equal(rows, 2);
    OK(admin()->unpark(d->url, "orders", key, &count, &e));
    assert_int_equal(count, 3);
    expect_rows(d, OUTBOX_TABLE_DEAD, &all, "");
    expect_rows(d, OUTBOX_TABLE_PENDING, &all, "4:x;8:a;9:b;10:c;");
    assert_int_equal(database_number(&d->a, "SELECT until_no FROM ferry.parked_key"), 7);
    char large[OUTBOX_KEY_MAX + 1] = {0};
    assert_int_equal(admin()->park(d->url, "orders", bytes_of(large, sizeof(large)), &e),
                     FERRY_ERR_INVALID_ARGUMENT);
}

/* ---- Rebase. */

struct judging {
    char published[3][ID_TEXT_BYTES];
    int64_t count;
};

static enum outbox_verdict judge(const struct ferry_id *id, int64_t created_ms, void *arg)
{
    struct judging *j = arg;
    char text[ID_TEXT_BYTES];
    id_format(id, text);
    assert_true(created_ms > 0);
    j->count++;
    if (strcmp(text, j->published[0]) == 0) {
        return OUTBOX_VERDICT_DELETE;
    }
    return strcmp(text, j->published[1]) == 0 || strcmp(text, j->published[2]) == 0
               ? OUTBOX_VERDICT_MARK
               : OUTBOX_VERDICT_KEEP;
}

/* What is in the log goes, what may be there is marked, whatever its headers are, and the source
 * has another id; rows of the dead stay dead. */
static void a_rebase_keeps_what_is_not_in_the_log(void **state)
{
    NEEDS_SERVER(state);
    struct judging j = {.count = 0};
    struct outbox_rebased done;
    struct outbox_status before, after;
    put(d, "k", "published");
    database_exec(
        &d->a,
        "SELECT ferry.put('orders', 'k'::text, 'maybe'::text, jsonb_build_object('a', 'b'))");
    put(d, "k", "plain");
    put(d, "k", "kept");
    put(d, "k", "dead");
    database_exec(&d->a,
                  "INSERT INTO ferry.outbox_dead (seq, lane, topic, mkey, msg_id, payload, "
                  "created_ms, reason) SELECT seq, lane, topic, mkey, msg_id, payload, created_ms, "
                  "'refused' FROM ferry.outbox WHERE payload = 'dead'");
    for (int i = 0; i < 3; i++) {
        char sql[100];
        (void)snprintf(sql, sizeof(sql), "SELECT msg_id FROM {outbox} WHERE seq = %d", i + 1);
        (void)snprintf(j.published[i], sizeof(j.published[i]), "%s", database_text(&d->a, sql));
    }
    OK(admin()->status(d->url, NULL, 0, &before, &e));
    OK(admin()->rebase(d->url, judge, &j, true, &done, &e));
    assert_int_equal(j.count, 4);
    assert_int_equal(done.deleted, 1);
    assert_int_equal(done.marked, 2);
    assert_int_equal(done.kept, 3);
    assert_true(id_is_zero(&done.new_id));
    expect_rows(d, OUTBOX_TABLE_PENDING, &all, "1:published;2:maybe;3:plain;4:kept;5:dead;");
    OK(admin()->rebase(d->url, judge, &j, false, &done, &e));
    expect_rows(d, OUTBOX_TABLE_PENDING, &all, "2:maybe;3:plain;4:kept;");
    expect_rows(d, OUTBOX_TABLE_DEAD, &all, "5:dead;");
    OK(admin()->status(d->url, NULL, 0, &after, &e));
    assert_true(id_equal(&after.source_id, &done.new_id));
    assert_false(id_equal(&after.source_id, &before.source_id));
    assert_string_equal(database_text(&d->a,
                                      "SELECT headers_json->>'" FERRY_HEADER_POSSIBLE_DUPLICATE
                                      "' || (headers_json->>'a') FROM {outbox} WHERE seq = 2"),
                        "1b");
    assert_int_equal(database_number(&d->a, "SELECT length(headers) FROM {outbox} WHERE seq = 3"),
                     1 + 1 + (int64_t)sizeof(FERRY_HEADER_POSSIBLE_DUPLICATE) - 1 + 2 + 1);
}

/* ---- The inbox. */

static bool inbox_one(const struct inbox_status *status, void *arg)
{
    if (!status->by_id) {
        *(struct inbox_status *)arg = *status;
    }
    return true;
}

static bool trace_one(const struct inbox_trace *trace, void *arg)
{
    int64_t *done = arg;
    *done += trace->done ? trace->by_chain ? 1 : 100 : 0;
    return true;
}

static void the_inbox_tells_what_is_done(void **state)
{
    NEEDS_SERVER(state);
    struct inbox_status status = {0};
    struct ferry_id topic, id;
    int64_t done = 0, count = 0;
    assert_true(id_parse("00000000-0000-0000-0000-000000000001", &topic));
    assert_true(id_parse("00000000-0000-0000-0000-000000000002", &id));
    database_exec(&d->a, "INSERT INTO ferry.inbox_chain (grp, topic_id, part, start_off, end_off) "
                         "VALUES ('g', '00000000-0000-0000-0000-000000000001', 3, -1, 10), "
                         "('g', '00000000-0000-0000-0000-000000000001', 3, 12, 20)");
    database_exec(&d->a, "INSERT INTO ferry.inbox_id (grp, msg_id, day) VALUES "
                         "('q', '00000000-0000-0000-0000-000000000002', 1)");
    database_exec(&d->a, "INSERT INTO ferry.inbox_dead (grp, topic_id, part, off, msg_id, reason, "
                         "payload, ts_ms) VALUES ('g', '00000000-0000-0000-0000-000000000001', 3, "
                         "5, '00000000-0000-0000-0000-000000000002', 'bad', 'p', 1)");
    OK(admin()->inbox(d->url, inbox_one, &status, &e));
    assert_int_equal(status.partition, 3);
    assert_int_equal(status.position, 20);
    assert_int_equal(status.rows, 2);
    assert_int_equal(status.holes, 1);
    assert_int_equal(status.dead, 1);
    assert_true(id_equal(&status.topic_id, &topic));
    OK(admin()->inbox_trace(d->url, &id, &topic, 3, 15, trace_one, &done, &e));
    assert_int_equal(done, 101);
    OK(admin()->inbox_trace(d->url, &id, NULL, 0, -1, trace_one, &done, &e));
    assert_int_equal(done, 201);
    OK(admin()->inbox_trace(d->url, NULL, &topic, 3, 20, trace_one, &done, &e));
    assert_int_equal(done, 201);
    expect_rows(d, INBOX_TABLE_DEAD, &all, "1:p;");
    struct outbox_filter filter = {.topic = "orders"};
    assert_int_equal(admin()->rows(d->url, INBOX_TABLE_DEAD, &filter, list_row, NULL, &e),
                     FERRY_ERR_INVALID_ARGUMENT);
    filter = (struct outbox_filter){.group = "g"};
    OK(admin()->inbox_requeue(d->url, &filter, &count, &e));
    assert_int_equal(count, 1);
    OK(admin()->inbox_requeue(d->url, &filter, &count, &e));
    assert_int_equal(count, 0);
}

/* ---- Queries and sagas. */

static bool count_id(const struct ferry_id *id, void *arg)
{
    int64_t *count = arg;
    assert_false(id_is_zero(id));
    (*count)++;
    return true;
}

/* Ids come as uuid, as text and as bytes; nothing but one SELECT is run, and it changes nothing. */
static void ids_come_from_one_select(void **state)
{
    NEEDS_SERVER(state);
    int64_t count = 0;
    put(d, "k", "a");
    put(d, "k", "b");
    OK(admin()->ids(d->url, "SELECT msg_id FROM ferry.outbox;", count_id, &count, &e));
    OK(admin()->ids(d->url, "SELECT msg_id::text FROM ferry.outbox", count_id, &count, &e));
    OK(admin()->ids(d->url, "SELECT uuid_send(msg_id) FROM ferry.outbox", count_id, &count, &e));
    assert_int_equal(count, 6);
    const char *const wrong[] = {
        "DELETE FROM ferry.outbox",
        "SELECT msg_id FROM ferry.outbox; DELETE FROM ferry.outbox",
        "WITH x AS (DELETE FROM ferry.outbox RETURNING msg_id) SELECT * FROM x",
        "SELECT payload FROM ferry.outbox",
        "SELECT NULL::uuid",
        "nonsense",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(admin()->ids(d->url, wrong[i], count_id, &count, &e),
                         FERRY_ERR_INVALID_ARGUMENT);
    }
    assert_int_not_equal(
        admin()->ids(d->url, "SELECT ferry.put('t', 'k'::text, 'p'::text)", count_id, &count, &e),
        FERRY_OK);
    assert_int_equal(database_number(&d->a, "SELECT count(*) FROM {outbox}"), 2);
}

static bool count_saga(const struct outbox_saga *saga, void *arg)
{
    int64_t *count = arg;
    assert_string_equal(saga->state, "running");
    (*count)++;
    return true;
}

static void sagas_are_listed_and_decided_about(void **state)
{
    NEEDS_SERVER(state);
    struct ferry_saga_step steps[] = {{.topic = "debit"}, {.topic = "credit"}};
    struct ferry_id id, other;
    int64_t count = 0;
    struct ferry_saga_def def = {
        .type = "transfer", .steps = steps, .count = 2, .reply_topic = "replies"};
    assert_true(id_parse("00000000-0000-0000-0000-000000000009", &other));
    database_exec(&d->a, "BEGIN");
    assert_int_equal(ferry_saga_start(d->a.db, &def, NULL, 0, "d", 1, &id), FERRY_OK);
    database_exec(&d->a, "COMMIT");
    OK(admin()->sagas(d->url, NULL, NULL, count_saga, &count, &e));
    OK(admin()->sagas(d->url, &id, "running", count_saga, &count, &e));
    OK(admin()->sagas(d->url, &id, "done", count_saga, &count, &e));
    OK(admin()->sagas(d->url, &other, NULL, count_saga, &count, &e));
    assert_int_equal(count, 2);
    OK(admin()->saga_retry(d->url, &id, &e));
    assert_int_equal(admin()->saga_retry(d->url, &other, &e), FERRY_ERR_UNKNOWN_MESSAGE);
    OK(admin()->saga_abort(d->url, &id, "enough", &e));
    assert_int_equal(database_number(&d->a, "SELECT state FROM ferry.saga"),
                     FERRY_SAGA_COMPENSATING);
}

static void a_bench_puts_rows(void **state)
{
    NEEDS_SERVER(state);
    int64_t us = 0;
    OK(admin()->bench_put(d->url, "orders", 250, 100, 100, 10, &us, &e));
    assert_true(us > 0);
    assert_int_equal(database_number(&d->a, "SELECT count(*) FROM {outbox}"), 250);
    assert_int_equal(database_number(&d->a, "SELECT count(DISTINCT mkey) FROM {outbox}"), 10);
}

/* Nobody answers: told with the place, never with the password. */
static void an_unreachable_server_is_told_without_its_password(void **state)
{
    NEEDS_SERVER(state);
    struct outbox_status status;
    assert_int_equal(admin()->status("postgresql://u:geheim@127.0.0.1:9/d", NULL, 0, &status, &e),
                     FERRY_ERR_IO);
    assert_non_null(strstr(e.text, "127.0.0.1"));
    assert_null(strstr(e.text, "geheim"));
}

#define SERVER_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SERVER_TEST(init_makes_the_tables_and_says_so_once),
        SERVER_TEST(status_judges_rows_by_the_checkpoint),
        SERVER_TEST(status_adds_up_the_lanes),
        SERVER_TEST(a_relay_does_not_pass_over_a_lane_that_is_no_more),
        SERVER_TEST(rows_are_found_by_what_is_known_of_them),
        SERVER_TEST(a_row_is_skipped_and_put_again),
        SERVER_TEST(a_pause_is_a_word_in_the_database),
        SERVER_TEST(a_key_is_parked_and_let_go_in_order),
        SERVER_TEST(a_rebase_keeps_what_is_not_in_the_log),
        SERVER_TEST(the_inbox_tells_what_is_done),
        SERVER_TEST(ids_come_from_one_select),
        SERVER_TEST(sagas_are_listed_and_decided_about),
        SERVER_TEST(a_bench_puts_rows),
        SERVER_TEST(an_unreachable_server_is_told_without_its_password),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    (void)fprintf(stderr, "built without PostgreSQL: nothing to test\n");
    return 0;
}

#endif
