/* The consumer against a broker that misbehaves, and the calls of administration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "lib/fake_broker.h"

struct fixture {
    struct fake_broker *broker;
    struct ferry_conf *conf;
    struct ferry_client *client;
    struct ferry_consumer *consumer;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->broker = fake_broker_start(2, NULL, NULL);
    f->conf = fake_conf(f->broker);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ferry_consumer_close(&f->consumer);
    ferry_close(&f->client, 0);
    ferry_conf_free(&f->conf);
    fake_broker_stop(&f->broker);
    free(f);
    return 0;
}

/* Stores `batches` batches of `each` records in a partition; the payload is the offset, ended by a
 * NUL. */
static void store(struct fixture *f, int partition, int batches, int each, size_t padding)
{
    struct batch_writer w;
    struct bytes batch;
    char payload[2048];
    assert_true(padding < sizeof(payload) - 32);
    for (int i = 0; i < batches; i++) {
        int64_t base = fake_end(f->broker, partition);
        batch_writer_init(&w, BATCH_MAX_BYTES);
        for (int k = 0; k < each; k++) {
            memset(payload, 'x', sizeof(payload));
            int size = snprintf(payload, sizeof(payload), "%lld", (long long)base + k);
            struct batch_record r = {.timestamp_ms = 5,
                                     .payload = bytes_of(payload, (size_t)size + 1 + padding)};
            assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
        }
        assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
        fake_store(f->broker, partition, batch);
        batch_writer_fini(&w);
    }
}

static void open_consumer(struct fixture *f, const char *subscription, int64_t from)
{
    if (f->client == NULL) {
        assert_int_equal(ferry_open(&f->client, &f->conf, NULL, 0), FERRY_OK);
    }
    assert_int_equal(
        ferry_consumer_open(&f->consumer, f->client, FAKE_TOPIC, subscription, from, 10000),
        FERRY_OK);
}

/* Checks every record of the batch and that it begins where the last one ended. */
static void check_batch(struct ferry_batch *batch, int64_t *expected)
{
    int64_t *next = &expected[ferry_batch_partition(batch)];
    assert_int_equal(ferry_batch_first_offset(batch), *next);
    for (size_t i = 0; i < ferry_batch_count(batch); i++) {
        struct ferry_record r;
        ferry_batch_record(batch, i, &r);
        assert_int_equal(r.offset, *next);
        assert_int_equal(strtoll((const char *)r.payload, NULL, 10), *next);
        assert_string_equal(r.topic, FAKE_TOPIC);
        assert_null(r.key);
        (*next)++;
    }
    assert_int_equal(ferry_batch_next_offset(batch), *next);
}

static int64_t read_until(struct fixture *f, int64_t *expected, int64_t end0, int64_t end1)
{
    int64_t fetched = 0;
    while (expected[0] < end0 || expected[1] < end1) {
        struct ferry_batch *batch;
        enum ferry_err err = ferry_consumer_fetch(f->consumer, 10000, &batch);
        assert_int_equal(err, FERRY_OK);
        check_batch(batch, expected);
        ferry_batch_free(&batch);
        assert_null(batch);
        fetched++;
    }
    return fetched;
}

static void everything_is_read_once_and_in_order(void **state)
{
    struct fixture *f = *state;
    int64_t expected[2] = {0, 0};
    store(f, 0, 200, 50, 0);
    store(f, 1, 10, 1, 0);
    open_consumer(f, NULL, FERRY_FROM_START);
    read_until(f, expected, 10000, 10);
    assert_true(ferry_consumer_at_end(f->consumer));
    struct ferry_batch *batch;
    assert_int_equal(ferry_consumer_fetch(f->consumer, 20, &batch), FERRY_ERR_TIMEOUT);
    store(f, 1, 3, 2, 0);
    read_until(f, expected, 10000, 16);
    assert_int_equal(ferry_consumer_position(f->consumer, 1), 16);
}

static void reading_from_the_end_sees_only_what_comes(void **state)
{
    struct fixture *f = *state;
    int64_t expected[2] = {5, 0};
    store(f, 0, 1, 5, 0);
    open_consumer(f, NULL, FERRY_FROM_END);
    store(f, 0, 1, 5, 0);
    read_until(f, expected, 10, 0);
}

/* Offset 7 is inside the first batch: its first records are cut off. */
static void records_before_the_offset_are_cut_off(void **state)
{
    struct fixture *f = *state;
    int64_t expected[2] = {7, 7};
    store(f, 0, 2, 10, 0);
    store(f, 1, 1, 7, 0);
    open_consumer(f, NULL, 7);
    read_until(f, expected, 20, 7);
}

static void a_batch_may_be_read_in_any_order(void **state)
{
    struct fixture *f = *state;
    struct ferry_batch *batch;
    struct ferry_record r;
    store(f, 0, 5, 20, 0);
    store(f, 1, 1, 3, 0);
    open_consumer(f, NULL, 3);
    assert_int_equal(ferry_consumer_fetch(f->consumer, 10000, &batch), FERRY_OK);
    size_t count = ferry_batch_count(batch);
    assert_int_equal(count, 97);
    for (size_t i = 0; i < 1000; i++) {
        size_t at = (i * 37) % count;
        ferry_batch_record(batch, at, &r);
        assert_int_equal(r.offset, 3 + (int64_t)at);
        assert_int_equal(strtoll((const char *)r.payload, NULL, 10), r.offset);
    }
    ferry_consumer_close(&f->consumer);
    ferry_batch_record(batch, 1, &r); /* Lives longer than its consumer. */
    assert_int_equal(r.offset, 4);
    ferry_batch_free(&batch);
    ferry_batch_free(&batch);
}

static void read_ahead_stays_within_its_bound(void **state)
{
    struct fixture *f = *state;
    int64_t expected[2] = {0, 0};
    fake_set(f->conf, "fetch.queue_bytes", "128K");
    fake_set(f->conf, "fetch.max_bytes", "16K");
    store(f, 0, 1000, 1, 1000);
    open_consumer(f, NULL, FERRY_FROM_START);
    int before = -1;
    int sent = 0;
    while (sent != before) { /* Until it rests, the application taking nothing. */
        before = sent;
        (void)ferry_poll(f->client, 200);
        sent = fake_requests(f->broker, COMMAND_FETCH);
    }
    assert_in_range(sent, 4, 9); /* 128K in steps of 16K. */
    read_until(f, expected, 1000, 0);
}

static void a_seek_drops_what_was_read_ahead(void **state)
{
    struct fixture *f = *state;
    int64_t expected[2] = {0, 0};
    store(f, 0, 100, 10, 0);
    open_consumer(f, NULL, FERRY_FROM_START);
    struct ferry_batch *batch;
    assert_int_equal(ferry_consumer_fetch(f->consumer, 10000, &batch), FERRY_OK);
    assert_int_equal(ferry_consumer_seek(f->consumer, 0, 555), FERRY_OK);
    expected[0] = 0;
    check_batch(batch, expected); /* What was handed out stays valid. */
    ferry_batch_free(&batch);
    expected[0] = 555;
    read_until(f, expected, 1000, 0);
    assert_int_equal(ferry_consumer_seek(f->consumer, 0, FERRY_FROM_START), FERRY_OK);
    expected[0] = 0;
    read_until(f, expected, 1000, 0);
    assert_int_equal(ferry_consumer_seek_time(f->consumer, 0, 1000 + 200, 5000), FERRY_OK);
    expected[0] = 200;
    read_until(f, expected, 1000, 0);
    assert_int_equal(ferry_consumer_seek(f->consumer, 2, 0), FERRY_ERR_UNKNOWN_PARTITION);
}

static void a_position_out_of_range_is_told_once_and_moves(void **state)
{
    struct fixture *f = *state;
    int64_t expected[2] = {40, 40};
    struct ferry_batch *batch;
    store(f, 0, 10, 10, 0);
    store(f, 1, 4, 10, 0);
    fake_trim(f->broker, 40);
    open_consumer(f, NULL, 40);
    read_until(f, expected, 100, 40);
    assert_int_equal(ferry_consumer_seek(f->consumer, 0, 10), FERRY_OK);
    assert_int_equal(ferry_consumer_fetch(f->consumer, 5000, &batch),
                     FERRY_ERR_OFFSET_OUT_OF_RANGE);
    assert_int_equal(ferry_consumer_position(f->consumer, 0), 40);
    expected[0] = 40;
    read_until(f, expected, 100, 40);
    assert_int_equal(ferry_consumer_seek(f->consumer, 0, 5000), FERRY_OK);
    assert_int_equal(ferry_consumer_fetch(f->consumer, 5000, &batch),
                     FERRY_ERR_OFFSET_OUT_OF_RANGE);
    assert_int_equal(ferry_consumer_position(f->consumer, 0), 100);
}

static void flipped_bits_are_fetched_again_and_then_told(void **state)
{
    struct fixture *f = *state;
    int64_t expected[2] = {0, 0};
    struct ferry_batch *batch;
    store(f, 0, 1, 10, 0);
    fake_rule(f->broker, COMMAND_FETCH, 0, 2, FAKE_FLIP, 0);
    open_consumer(f, NULL, FERRY_FROM_START);
    read_until(f, expected, 10, 0);
    ferry_consumer_close(&f->consumer);
    fake_rule(f->broker, COMMAND_FETCH, 0, 1000, FAKE_FLIP, 0);
    open_consumer(f, NULL, FERRY_FROM_START);
    assert_int_equal(ferry_consumer_fetch(f->consumer, 5000, &batch), FERRY_ERR_CORRUPT);
    fake_rules_clear(f->broker);
    expected[0] = 0;
    enum ferry_err err = FERRY_ERR_CORRUPT; /* It may have been told again meanwhile. */
    while (err == FERRY_ERR_CORRUPT) {
        err = ferry_consumer_fetch(f->consumer, 5000, &batch);
    }
    assert_int_equal(err, FERRY_OK);
    check_batch(batch, expected);
    ferry_batch_free(&batch);
}

static void garbage_lost_and_refused_fetches_lose_nothing(void **state)
{
    struct fixture *f = *state;
    int64_t expected[2] = {0, 0};
    store(f, 0, 50, 10, 0);
    fake_set(f->conf, "fetch.max_bytes", "4K");
    for (int i = 0; i < 5; i++) {
        fake_rule(f->broker, COMMAND_FETCH, 1, 1, FAKE_GARBLE, 0);
        fake_rule(f->broker, COMMAND_FETCH, 0, 1, FAKE_DUPLICATE, 0);
        fake_rule(f->broker, COMMAND_FETCH, 0, 1, FAKE_REFUSE, FERRY_ERR_NOT_LEADER);
    }
    fake_rule(f->broker, COMMAND_FETCH, 0, 1, FAKE_GARBAGE, 200);
    fake_rule(f->broker, COMMAND_FETCH, 0, 1, FAKE_DROP_REPLY, 0);
    open_consumer(f, NULL, FERRY_FROM_START);
    read_until(f, expected, 500, 0);
}

static void a_broker_that_comes_back_is_read_on(void **state)
{
    struct fixture *f = *state;
    int64_t expected[2] = {0, 0};
    store(f, 0, 10, 10, 0);
    open_consumer(f, NULL, FERRY_FROM_START);
    read_until(f, expected, 100, 0);
    fake_broker_kill(f->broker);
    store(f, 0, 10, 10, 0);
    fake_broker_revive(f->broker);
    read_until(f, expected, 200, 0);
}

static void a_deleted_topic_is_told(void **state)
{
    struct fixture *f = *state;
    struct ferry_batch *batch;
    open_consumer(f, NULL, FERRY_FROM_START);
    fake_drop_topic(f->broker);
    enum ferry_err err = FERRY_ERR_TIMEOUT;
    for (int i = 0; i < 100 && err == FERRY_ERR_TIMEOUT; i++) {
        err = ferry_consumer_fetch(f->consumer, 100, &batch);
    }
    assert_int_equal(err, FERRY_ERR_UNKNOWN_TOPIC);
}

static void a_subscription_goes_on_where_it_was_committed(void **state)
{
    struct fixture *f = *state;
    int64_t expected[2] = {0, 0};
    store(f, 0, 10, 10, 0);
    open_consumer(f, "s", FERRY_FROM_START);
    read_until(f, expected, 100, 0);
    assert_int_equal(ferry_consumer_commit(f->consumer, 0, 60, 5000), FERRY_OK);
    assert_int_equal(ferry_consumer_commit(f->consumer, 0, 30, 5000), FERRY_OK);
    assert_int_equal(fake_committed(f->broker, 0), 60);
    ferry_consumer_close(&f->consumer);
    open_consumer(f, "s", FERRY_FROM_START);
    expected[0] = 60;
    read_until(f, expected, 100, 0);
    ferry_consumer_close(&f->consumer);
    open_consumer(f, NULL, FERRY_FROM_END);
    assert_int_equal(ferry_consumer_commit(f->consumer, 0, 1, 100), FERRY_ERR_INVALID_ARGUMENT);
}

static void opening_says_what_is_wrong(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(ferry_open(&f->client, &f->conf, NULL, 0), FERRY_OK);
    assert_int_equal(ferry_consumer_open(&f->consumer, f->client, "missing", NULL, 0, 5000),
                     FERRY_ERR_UNKNOWN_TOPIC);
    assert_int_equal(ferry_consumer_open(&f->consumer, f->client, "a/b", NULL, 0, 5000),
                     FERRY_ERR_BAD_NAME);
    assert_int_equal(ferry_consumer_open(&f->consumer, f->client, FAKE_TOPIC, "", 0, 5000),
                     FERRY_ERR_BAD_NAME);
    fake_broker_kill(f->broker);
    int64_t begun_us = clock_monotonic_us();
    enum ferry_err err = ferry_consumer_open(&f->consumer, f->client, FAKE_TOPIC, NULL, 0, 500);
    assert_true(err == FERRY_ERR_TIMEOUT || err == FERRY_ERR_UNREACHABLE);
    assert_true(clock_monotonic_us() - begun_us < 5000000);
}

static void administration_asks_until_it_is_answered(void **state)
{
    struct fixture *f = *state;
    struct ferry_topic_info *info;
    struct ferry_topic_spec spec = {.name = FAKE_TOPIC};
    struct ferry_subscription_info *subscription;
    char **names;
    char *json;
    size_t count;
    int32_t partitions;
    fake_rule(f->broker, COMMAND_TOPIC_CREATE, 0, 1, FAKE_DROP_REPLY, 0);
    fake_rule(f->broker, COMMAND_TOPIC_CREATE, 0, 2, FAKE_REFUSE, FERRY_ERR_NOT_READY);
    fake_rule(f->broker, COMMAND_BROKER_STATUS, 0, 1, FAKE_GARBAGE, 40);
    assert_int_equal(ferry_open(&f->client, &f->conf, NULL, 0), FERRY_OK);
    assert_int_equal(ferry_topic_create(f->client, &spec, 5000), FERRY_OK);
    assert_int_equal(ferry_broker_status(f->client, 5000, &json), FERRY_OK);
    assert_string_equal(json, "{\"fake\":true}");
    ferry_text_free(&json);
    store(f, 1, 1, 3, 0);
    assert_int_equal(ferry_topic_info(f->client, FAKE_TOPIC, 5000, &info), FERRY_OK);
    assert_int_equal(info->partition_count, 2);
    assert_int_equal(info->partitions[1].end_offset, 3);
    ferry_topic_info_free(&info);
    assert_int_equal(ferry_topic_list(f->client, 5000, &names, &count), FERRY_OK);
    assert_int_equal(count, 2);
    assert_string_equal(names[1], "b");
    ferry_names_free(&names);
    assert_int_equal(ferry_topic_partitions(f->client, FAKE_TOPIC, 5000, &partitions), FERRY_OK);
    assert_int_equal(partitions, 2);
    assert_int_equal(ferry_subscription_info(f->client, FAKE_TOPIC, "s", 5000, &subscription),
                     FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    assert_int_equal(ferry_subscription_create(f->client, FAKE_TOPIC, "s", FERRY_FROM_START, 5000),
                     FERRY_OK);
    assert_int_equal(ferry_subscription_info(f->client, FAKE_TOPIC, "s", 5000, &subscription),
                     FERRY_OK);
    assert_int_equal(subscription->partitions[1].lag_messages, 3);
    assert_string_equal(subscription->mode, "stream");
    ferry_subscription_info_free(&subscription);
    fake_rule(f->broker, COMMAND_TOPIC_DELETE, 0, 1, FAKE_REFUSE, FERRY_ERR_DENIED);
    assert_int_equal(ferry_topic_delete(f->client, FAKE_TOPIC, 5000), FERRY_ERR_DENIED);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(everything_is_read_once_and_in_order),
        T(reading_from_the_end_sees_only_what_comes),
        T(records_before_the_offset_are_cut_off),
        T(a_batch_may_be_read_in_any_order),
        T(read_ahead_stays_within_its_bound),
        T(a_seek_drops_what_was_read_ahead),
        T(a_position_out_of_range_is_told_once_and_moves),
        T(flipped_bits_are_fetched_again_and_then_told),
        T(garbage_lost_and_refused_fetches_lose_nothing),
        T(a_broker_that_comes_back_is_read_on),
        T(a_deleted_topic_is_told),
        T(a_subscription_goes_on_where_it_was_committed),
        T(opening_says_what_is_wrong),
        T(administration_asks_until_it_is_answered),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
