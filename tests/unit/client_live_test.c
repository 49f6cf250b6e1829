/* The client against the real broker, embedded: the same calls end to end. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "ferry_broker.h"

#define MESSAGES 50000

struct fixture {
    char folder[64];
    struct ferry_broker *broker;
    struct ferry_client *client;
    int stored;
    int others;
};

static void on_report(const struct ferry_report *report, void *arg)
{
    struct fixture *f = arg;
    f->stored += report->outcome == FERRY_STORED;
    f->others += report->outcome != FERRY_STORED;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

/* inproc:// hands memory from thread to thread inside a library that the thread sanitizer cannot
 * see into: under it the test goes over TCP. */
static size_t options_used(void)
{
#if defined(__SANITIZE_THREAD__)
    return 2;
#else
    return 1;
#endif
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char detail[512] = "";
    char data[128];
    struct ferry_conf *conf;
    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/ferry_client_XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    (void)snprintf(data, sizeof(data), "node.data=%s", f->folder);
    const char *options[] = {data, "listen.endpoint=tcp://127.0.0.1:*"};
    if (ferry_broker_start(&f->broker, options, options_used(), detail, sizeof(detail)) !=
        FERRY_OK) {
        fail_msg("%s", detail);
    }
    assert_int_equal(ferry_conf_new(&conf), FERRY_OK);
    assert_int_equal(ferry_broker_conf(f->broker, conf), FERRY_OK);
    ferry_conf_on_report(conf, on_report, f);
    if (ferry_open(&f->client, &conf, detail, sizeof(detail)) != FERRY_OK) {
        fail_msg("%s", detail);
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ferry_close(&f->client, 1000);
    ferry_broker_stop(&f->broker);
    (void)nftw(f->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

static void create(struct fixture *f, uint32_t partitions)
{
    struct ferry_topic_spec spec = {.name = "live", .partitions = partitions};
    assert_int_equal(ferry_topic_create(f->client, &spec, 10000), FERRY_OK);
}

static void what_is_sent_is_read(void **state)
{
    struct fixture *f = *state;
    struct ferry_consumer *consumer;
    create(f, 4);
    for (int i = 0; i < MESSAGES; i++) {
        char payload[100];
        int key = i % 100;
        (void)snprintf(payload, sizeof(payload), "%d", i);
        struct ferry_message m = {.topic = "live",
                                  .partition = FERRY_PARTITION_ANY,
                                  .key = &key,
                                  .key_bytes = sizeof(key),
                                  .payload = payload,
                                  .payload_bytes = sizeof(payload)};
        while (ferry_send(f->client, &m) == FERRY_ERR_QUEUE_FULL) {
            (void)ferry_poll(f->client, 100);
        }
    }
    assert_int_equal(ferry_flush(f->client, 30000), FERRY_OK);
    assert_int_equal(f->stored, MESSAGES);
    assert_int_equal(
        ferry_consumer_open(&consumer, f->client, "live", "s", FERRY_FROM_START, 10000), FERRY_OK);
    int read = 0;
    int last_of_key[100] = {0};
    while (read < MESSAGES) {
        struct ferry_batch *batch;
        assert_int_equal(ferry_consumer_fetch(consumer, 10000, &batch), FERRY_OK);
        for (size_t i = 0; i < ferry_batch_count(batch); i++) {
            struct ferry_record r;
            int key;
            ferry_batch_record(batch, i, &r);
            memcpy(&key, r.key, sizeof(key));
            int number = atoi(r.payload);
            assert_true(number >= last_of_key[key]);
            last_of_key[key] = number;
            read++;
        }
        assert_int_equal(ferry_consumer_commit(consumer, ferry_batch_partition(batch),
                                               ferry_batch_next_offset(batch), 10000),
                         FERRY_OK);
        ferry_batch_free(&batch);
    }
    assert_true(ferry_consumer_at_end(consumer));
    ferry_consumer_close(&consumer);
    struct ferry_subscription_info *info;
    assert_int_equal(ferry_subscription_info(f->client, "live", "s", 10000, &info), FERRY_OK);
    for (size_t i = 0; i < info->partition_count; i++) {
        assert_int_equal(info->partitions[i].lag_messages, 0);
    }
    ferry_subscription_info_free(&info);
}

static void one_at_a_time_gets_its_offset(void **state)
{
    struct fixture *f = *state;
    create(f, 1);
    struct ferry_message m = {.topic = "live", .payload = "x", .payload_bytes = 1};
    for (int i = 0; i < 200; i++) {
        struct ferry_report report;
        assert_int_equal(ferry_send_sync(f->client, &m, &report), FERRY_OK);
        assert_int_equal(report.outcome, FERRY_STORED);
        assert_int_equal(report.offset, i);
    }
}

static void an_id_seen_before_is_reported_as_a_duplicate(void **state)
{
    struct fixture *f = *state;
    create(f, 1);
    struct ferry_message m = {
        .topic = "live", .payload = "x", .payload_bytes = 1, .id = ferry_id_new(f->client)};
    struct ferry_report first;
    struct ferry_report second;
    assert_int_equal(ferry_send_sync(f->client, &m, &first), FERRY_OK);
    assert_int_equal(ferry_send_sync(f->client, &m, &second), FERRY_OK);
    assert_false(first.duplicate);
    assert_true(second.duplicate);
    assert_int_equal(second.offset, first.offset);
}

static void on_append(const struct ferry_append_result *result, void *arg)
{
    int *done = arg;
    assert_int_equal(result->err, FERRY_OK);
    (*done)++;
}

static void a_source_appends_a_chain(void **state)
{
    struct fixture *f = *state;
    struct ferry_source *source;
    struct ferry_source_grant grant;
    struct ferry_cursor cursor;
    struct ferry_id id = ferry_id_new(f->client);
    struct ferry_message m = {.payload = "x", .payload_bytes = 1};
    int done = 0;
    create(f, 1);
    assert_int_equal(ferry_source_open(&source, f->client, &id, 0, "test"), FERRY_OK);
    assert_int_equal(ferry_source_elect(source, 10000, 10000, &grant), FERRY_OK);
    for (uint64_t i = 0; i < 50; i++) {
        assert_int_equal(
            ferry_source_append(source, "live", 0, i, &i, sizeof(i), &m, 1, on_append, &done),
            FERRY_OK);
    }
    assert_int_equal(ferry_flush(f->client, 10000), FERRY_OK);
    assert_int_equal(done, 50);
    assert_int_equal(ferry_source_cursor(source, "live", 0, 10000, &cursor), FERRY_OK);
    assert_int_equal(cursor.version, 50);
    assert_int_equal(ferry_source_resign(source, 10000), FERRY_OK);
    ferry_source_close(&source);
}

static void note_err(const struct ferry_append_result *result, void *arg)
{
    enum ferry_err *err = arg;
    *err = result->err;
}

static enum ferry_err append_one(struct fixture *f, struct ferry_source *source, uint64_t version)
{
    struct ferry_message m = {.payload = "x", .payload_bytes = 1};
    enum ferry_err err = FERRY_OK;
    assert_int_equal(ferry_source_append(source, "live", 0, version, "a", 1, &m, 1, note_err, &err),
                     FERRY_OK);
    assert_int_equal(ferry_flush(f->client, 10000), FERRY_OK);
    return err;
}

/* The next one was elected and has appended nothing: only its fence tells the partition. */
static void a_fence_ends_the_election_before(void **state)
{
    struct fixture *f = *state;
    struct ferry_source *old, *next;
    struct ferry_source_grant grant;
    struct ferry_cursor cursor;
    struct ferry_id id = ferry_id_new(f->client);
    create(f, 1);
    assert_int_equal(ferry_source_open(&old, f->client, &id, 0, "old"), FERRY_OK);
    assert_int_equal(ferry_source_open(&next, f->client, &id, 0, "next"), FERRY_OK);
    assert_int_equal(ferry_source_fence(next, "live", 0, 0, 10000), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_source_elect(old, 200, 10000, &grant), FERRY_OK);
    assert_int_equal(append_one(f, old, 0), FERRY_OK);
    do {
        assert_int_equal(ferry_source_elect(next, 10000, 10000, &grant), FERRY_OK);
    } while (grant.standby && usleep(20000) == 0);
    assert_int_equal(append_one(f, old, 1), FERRY_OK); /* The hole. */
    assert_int_equal(ferry_source_fence(next, "live", 0, 0, 10000), FERRY_OK);
    assert_int_equal(append_one(f, old, 2), FERRY_ERR_SOURCE_FENCED);
    assert_int_equal(ferry_source_fence(old, "live", 0, 0, 10000), FERRY_ERR_SOURCE_FENCED);
    assert_int_equal(ferry_source_fence(next, "live", 0, 0, 10000), FERRY_OK);
    assert_int_equal(ferry_source_cursor(next, "live", 0, 10000, &cursor), FERRY_OK);
    assert_int_equal(cursor.version, 2);
    assert_int_equal(cursor.epoch, grant.epoch);
    assert_int_equal(cursor.blob_bytes, 1);
    assert_int_equal(append_one(f, next, 2), FERRY_OK);
    assert_int_equal(ferry_source_fence(next, "live", 0, 8, 10000), FERRY_OK);
    assert_int_equal(append_one(f, next, 3), FERRY_ERR_CURSOR_CONFLICT);
    assert_int_equal(append_one(f, next, 8), FERRY_OK);
    assert_int_equal(ferry_source_fence(next, "live", 1, 0, 3000), FERRY_ERR_UNKNOWN_PARTITION);
    ferry_source_close(&old);
    ferry_source_close(&next);
}

static void a_source_is_shown_without_being_touched(void **state)
{
    struct fixture *f = *state;
    struct ferry_source *source;
    struct ferry_source_grant grant;
    struct ferry_source_info info;
    struct ferry_id id = ferry_id_new(f->client);
    assert_int_equal(ferry_source_show(f->client, &id, 0, 10000, &info), FERRY_OK);
    assert_false(info.known);
    assert_int_equal(ferry_source_open(&source, f->client, &id, 0, "relay-1"), FERRY_OK);
    assert_int_equal(ferry_source_elect(source, 10000, 10000, &grant), FERRY_OK);
    assert_int_equal(ferry_source_checkpoint(source, "kept", 4, 10000), FERRY_OK);
    assert_int_equal(ferry_source_show(f->client, &id, 0, 10000, &info), FERRY_OK);
    assert_true(info.known);
    assert_int_equal(info.epoch, grant.epoch);
    assert_string_equal(info.holder, "relay-1");
    assert_true(info.left_ms > 0 && info.left_ms <= 10000);
    assert_int_equal(info.checkpoint_bytes, 4);
    assert_memory_equal(info.checkpoint, "kept", 4);
    assert_int_equal(ferry_source_show(f->client, &id, 1, 10000, &info), FERRY_OK);
    assert_false(info.known);
    assert_int_equal(ferry_source_resign(source, 10000), FERRY_OK);
    assert_int_equal(ferry_source_show(f->client, &id, 0, 10000, &info), FERRY_OK);
    assert_int_equal(info.left_ms, 0);
    ferry_source_close(&source);
}

static void a_topic_made_again_is_another_one(void **state)
{
    struct fixture *f = *state;
    struct ferry_report report;
    struct ferry_message m = {.topic = "live", .payload = "x", .payload_bytes = 1};
    create(f, 1);
    assert_int_equal(ferry_send_sync(f->client, &m, &report), FERRY_OK);
    assert_int_equal(ferry_send_sync(f->client, &m, &report), FERRY_OK);
    assert_int_equal(report.offset, 1);
    assert_int_equal(ferry_topic_delete(f->client, "live", 10000), FERRY_OK);
    create(f, 1);
    assert_int_equal(ferry_send_sync(f->client, &m, &report), FERRY_OK);
    assert_int_equal(report.outcome, FERRY_STORED);
    assert_int_equal(report.offset, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(what_is_sent_is_read),
        T(one_at_a_time_gets_its_offset),
        T(an_id_seen_before_is_reported_as_a_duplicate),
        T(a_source_appends_a_chain),
        T(a_fence_ends_the_election_before),
        T(a_source_is_shown_without_being_touched),
        T(a_topic_made_again_is_another_one),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
