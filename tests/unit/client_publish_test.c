/* Publishing on condition, delayed messages, priorities, the choice of a partition, and reading
 * dead letters, against a broker that does as it is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/id.h"
#include "lib/fake_broker.h"

#define WAIT_MS 10000

struct fixture {
    struct fake_broker *broker;
    struct ferry_conf *conf;
    struct ferry_client *client;
    int reports;
    struct ferry_report last;
    struct ferry_schedule_id schedules[64];
    int by_partition[4];
};

static void on_report(const struct ferry_report *report, void *arg)
{
    struct fixture *f = arg;
    f->last = *report;
    if (f->reports < 64) {
        f->schedules[f->reports] = report->schedule;
    }
    f->by_partition[report->partition >= 0 ? report->partition : 0]++;
    f->reports++;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->broker = fake_broker_start(4, NULL, NULL);
    f->conf = fake_conf(f->broker);
    ferry_conf_on_report(f->conf, on_report, f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ferry_close(&f->client, 0);
    ferry_conf_free(&f->conf);
    fake_broker_stop(&f->broker);
    free(f);
    return 0;
}

static void open_client(struct fixture *f)
{
    assert_int_equal(ferry_open(&f->client, &f->conf, NULL, 0), FERRY_OK);
}

static struct ferry_message message(const char *key, int32_t partition)
{
    return (struct ferry_message){.topic = FAKE_TOPIC,
                                  .partition = partition,
                                  .key = key,
                                  .key_bytes = key != NULL ? strlen(key) : 0,
                                  .payload = "x",
                                  .payload_bytes = 1};
}

/* ---- Publishing. */

static void a_publish_raises_the_version_of_its_key(void **state)
{
    struct fixture *f = *state;
    struct ferry_message m[2] = {message("order-1", FERRY_PARTITION_ANY),
                                 message(NULL, FERRY_PARTITION_ANY)};
    struct ferry_publish_result result;
    uint64_t version = 99, versions[2] = {0, FERRY_ANY_VERSION};
    int32_t partition = ferry_partition_of_key("order-1", 7, 4);
    open_client(f);
    assert_int_equal(ferry_key_version(f->client, FAKE_TOPIC, "order-1", 7, WAIT_MS, &version),
                     FERRY_OK);
    assert_int_equal(version, 0);
    assert_int_equal(ferry_publish(f->client, m, 2, versions, WAIT_MS, &result), FERRY_OK);
    assert_int_equal(result.base_offset, 0);
    assert_false(result.duplicate);
    assert_int_equal(fake_end(f->broker, partition), 2);
    assert_int_equal(ferry_key_version(f->client, FAKE_TOPIC, "order-1", 7, WAIT_MS, &version),
                     FERRY_OK);
    assert_int_equal(version, 1);
    assert_int_equal(ferry_publish(f->client, m, 2, versions, WAIT_MS, &result),
                     FERRY_ERR_VERSION_CONFLICT);
    assert_int_equal(result.conflict, 0);
    assert_int_equal(result.version, 1);
    assert_int_equal(fake_end(f->broker, partition), 2);
}

/* The answer to the first try is lost: the second is known as its repeat. */
static void a_lost_answer_does_not_publish_twice(void **state)
{
    struct fixture *f = *state;
    struct ferry_message m = message("k", 2);
    struct ferry_publish_result result;
    uint64_t version = 0;
    open_client(f);
    assert_int_equal(ferry_publish(f->client, &m, 1, &version, WAIT_MS, &result), FERRY_OK);
    version = 1;
    fake_rule(f->broker, COMMAND_PUBLISH, 0, 2, FAKE_DROP_REPLY, 0);
    assert_int_equal(ferry_publish(f->client, &m, 1, &version, WAIT_MS, &result), FERRY_OK);
    assert_true(result.duplicate);
    assert_int_equal(result.base_offset, 1); /* Of the first try. */
    assert_int_equal(fake_end(f->broker, 2), 2);
}

static void publishes_that_cannot_be_are_refused(void **state)
{
    struct fixture *f = *state;
    struct ferry_publish_result result;
    struct ferry_message m[2] = {message("a", 1), message("b", 2)};
    uint64_t version = 0;
    open_client(f);
    assert_int_equal(ferry_publish(f->client, m, 0, NULL, WAIT_MS, &result),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_publish(f->client, m, 2, NULL, WAIT_MS, &result),
                     FERRY_ERR_INVALID_ARGUMENT); /* Two partitions. */
    m[0].delay_ms = 5;
    assert_int_equal(ferry_publish(f->client, m, 1, NULL, WAIT_MS, &result),
                     FERRY_ERR_INVALID_ARGUMENT);
    m[0] = message(NULL, 1);
    assert_int_equal(ferry_publish(f->client, m, 1, &version, WAIT_MS, &result),
                     FERRY_ERR_INVALID_ARGUMENT); /* A version, and no key. */
    m[0] = message("a", 9);
    assert_int_equal(ferry_publish(f->client, m, 1, NULL, WAIT_MS, &result),
                     FERRY_ERR_UNKNOWN_PARTITION);
    m[0].topic = "t.dlq.work";
    assert_int_equal(ferry_publish(f->client, m, 1, NULL, WAIT_MS, &result), FERRY_ERR_BAD_NAME);
    char *large = calloc(1, 2 << 20);
    m[0] = message("a", 1);
    m[0].payload = large;
    m[0].payload_bytes = 2 << 20;
    assert_int_equal(ferry_publish(f->client, m, 1, NULL, WAIT_MS, &result), FERRY_ERR_TOO_LARGE);
    free(large);
}

/* Counts and records that do not fit. */
static void answers_that_do_not_fit_are_not_believed(void **state)
{
    struct fixture *f = *state;
    struct ferry_message m = message("k", 2);
    struct ferry_publish_result result;
    struct publish_reply lies[] = {
        {.base_offset = 3, .duplicate_count = 9},  /* More than were published, */
        {.base_offset = -1, .duplicate_count = 1}, /*   not named. */
        {.base_offset = -7},
        {.base_offset = -1}};
    open_client(f);
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct buf b;
        buf_init(&b, 64);
        publish_reply_encode(&b, &lies[i]);
        fake_can(f->broker, COMMAND_PUBLISH, buf_bytes(&b));
        buf_fini(&b);
    }
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        assert_int_equal(ferry_publish(f->client, &m, 1, NULL, WAIT_MS, &result),
                         FERRY_ERR_BAD_FRAME);
    }
}

static void derived_ids_are_the_same_each_time(void **state)
{
    struct ferry_id topic = {{1, 2, 3}};
    struct ferry_id a = ferry_id_derive(&topic, 1, 1000, 0);
    struct ferry_id again = ferry_id_derive(&topic, 1, 1000, 0);
    (void)state;
    assert_memory_equal(&a, &again, sizeof(a));
    assert_int_equal(a.bytes[6] >> 4, 8);
    assert_int_equal(a.bytes[8] >> 6, 2);
    struct ferry_id others[] = {
        ferry_id_derive(&topic, 2, 1000, 0), ferry_id_derive(&topic, 1, 1001, 0),
        ferry_id_derive(&topic, 1, 1000, 1), ferry_id_derive(&(struct ferry_id){{9}}, 1, 1000, 0)};
    for (size_t i = 0; i < 4; i++) {
        assert_memory_not_equal(&a, &others[i], sizeof(a));
    }
}

/* ---- Delays and priorities. */

/* Delayed ones and others in turn: each kind in batches of its own, and reports tell the place. */
static void delayed_messages_are_kept_aside(void **state)
{
    struct fixture *f = *state;
    open_client(f);
    for (int i = 0; i < 20; i++) {
        struct ferry_message m = message(NULL, 1);
        m.delay_ms = i % 2 == 0 ? 0 : 60000 + i;
        assert_int_equal(ferry_send(f->client, &m), FERRY_OK);
    }
    assert_int_equal(ferry_flush(f->client, WAIT_MS), FERRY_OK);
    assert_int_equal(f->reports, 20);
    assert_int_equal(fake_end(f->broker, 1), 10);
    assert_int_equal(fake_delayed(f->broker, 1), 10);
    int delayed = 0;
    bool numbers[10] = {false};
    for (int i = 0; i < 20; i++) {
        if (f->schedules[i].due_ms != 0) {
            delayed++;
            assert_int_equal(f->schedules[i].partition, 1);
            assert_true(f->schedules[i].due_ms > 1060000);
            assert_false(numbers[f->schedules[i].number]);
            numbers[f->schedules[i].number] = true;
        }
    }
    assert_int_equal(delayed, 10);
    assert_in_range(fake_requests(f->broker, COMMAND_PRODUCE), 2, 12);
    struct ferry_message m = message(NULL, 1);
    struct ferry_report report;
    m.due_ms = clock_wall_ms() + 5000;
    assert_int_equal(ferry_send_sync(f->client, &m, &report), FERRY_OK);
    assert_int_equal(report.outcome, FERRY_STORED);
    assert_int_equal(report.offset, -1);
    assert_int_equal(report.schedule.due_ms, m.due_ms);
    assert_int_equal(report.schedule.number, 10);
}

static void delays_and_priorities_have_their_bounds(void **state)
{
    struct fixture *f = *state;
    open_client(f);
    struct ferry_message m = message(NULL, 1);
    m.priority = 8;
    assert_int_equal(ferry_send(f->client, &m), FERRY_ERR_INVALID_ARGUMENT);
    m = message(NULL, 1);
    m.delay_ms = -1;
    assert_int_equal(ferry_send(f->client, &m), FERRY_ERR_INVALID_ARGUMENT);
    m.delay_ms = DELAY_MAX_MS + 1;
    assert_int_equal(ferry_send(f->client, &m), FERRY_ERR_INVALID_ARGUMENT);
    m.delay_ms = 0;
    m.due_ms = clock_wall_ms() + DELAY_MAX_MS + 60000;
    assert_int_equal(ferry_send(f->client, &m), FERRY_ERR_INVALID_ARGUMENT);
    m = message(NULL, 1);
    m.topic = "t.dlq.work";
    assert_int_equal(ferry_send(f->client, &m), FERRY_ERR_BAD_NAME);
}

static void visit_priority(const struct batch_record *record, int64_t offset, void *arg)
{
    uint32_t *priorities = arg;
    priorities[offset] = record->priority;
}

static void priorities_travel_with_their_messages(void **state)
{
    struct fixture *f = *state;
    uint32_t priorities[8] = {0};
    open_client(f);
    for (uint32_t i = 0; i < 8; i++) {
        struct ferry_message m = message(NULL, 3);
        m.priority = 7 - i;
        assert_int_equal(ferry_send(f->client, &m), FERRY_OK);
    }
    assert_int_equal(ferry_flush(f->client, WAIT_MS), FERRY_OK);
    fake_each_record(f->broker, 3, visit_priority, priorities);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(priorities[i], 7 - i);
    }
}

/* ---- Which partition. */

static void send_without_key(struct fixture *f, int count)
{
    for (int i = 0; i < count; i++) {
        struct ferry_message m = message(NULL, FERRY_PARTITION_ANY);
        assert_int_equal(ferry_send(f->client, &m), FERRY_OK);
    }
    assert_int_equal(ferry_flush(f->client, WAIT_MS), FERRY_OK);
}

static void round_robin_is_even_in_small_numbers(void **state)
{
    struct fixture *f = *state;
    fake_set(f->conf, "producer.partitioner", "round_robin");
    open_client(f);
    send_without_key(f, 40);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(f->by_partition[i], 10);
    }
}

/* A partition whose answers take long has more waiting, and gets less. */
static void a_loaded_partition_gets_less(void **state)
{
    struct fixture *f = *state;
    fake_set(f->conf, "producer.partitioner", "least_loaded");
    fake_set(f->conf, "producer.batch_bytes", "1024");
    open_client(f);
    struct ferry_message slow = message(NULL, 0);
    static const char bulk[100000];
    slow.payload = bulk;
    slow.payload_bytes = sizeof(bulk);
    struct ferry_report report;
    struct ferry_message first = message(NULL, 1); /* The topic is known. */
    assert_int_equal(ferry_send_sync(f->client, &first, &report), FERRY_OK);
    fake_rule(f->broker, COMMAND_PRODUCE, 0, 1, FAKE_DELAY, 250);
    assert_int_equal(ferry_send(f->client, &slow), FERRY_OK);
    memset(f->by_partition, 0, sizeof(f->by_partition));
    for (int i = 0; i < 600; i++) {
        struct ferry_message m = message(NULL, FERRY_PARTITION_ANY);
        m.payload = bulk;
        m.payload_bytes = 200;
        assert_int_equal(ferry_send(f->client, &m), FERRY_OK);
    }
    assert_int_equal(ferry_flush(f->client, WAIT_MS), FERRY_OK);
    assert_in_range(f->by_partition[0], 0, 100); /* Fair would be 150. */
}

/* ---- Quotas. */

static void throttling_is_waited_out(void **state)
{
    struct fixture *f = *state;
    open_client(f);
    fake_rule(f->broker, COMMAND_PRODUCE, 0, 3, FAKE_REFUSE, FERRY_ERR_THROTTLED);
    send_without_key(f, 1);
    assert_int_equal(f->last.outcome, FERRY_STORED);
}

/* ---- Dead letters as a topic. */

static void dead_letters_are_read_as_a_topic(void **state)
{
    struct fixture *f = *state;
    struct ferry_consumer *consumer;
    int64_t numbers = 0, records = 0, next[4] = {0};
    open_client(f);
    for (int i = 0; i < 10; i++) {
        struct ferry_message m = message(NULL, 2);
        struct ferry_report report;
        assert_int_equal(ferry_send_sync(f->client, &m, &report), FERRY_OK);
    }
    assert_int_equal(
        ferry_consumer_open(&consumer, f->client, "t.dlq.work", "sub", FERRY_FROM_START, WAIT_MS),
        FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(
        ferry_consumer_open(&consumer, f->client, "t.dlq.work", NULL, FERRY_FROM_START, WAIT_MS),
        FERRY_OK);
    while (records < 10) {
        struct ferry_batch *batch;
        assert_int_equal(ferry_consumer_fetch(consumer, WAIT_MS, &batch), FERRY_OK);
        assert_int_equal(ferry_batch_partition(batch), 2);
        for (size_t i = 0; i < ferry_batch_count(batch); i++) {
            struct ferry_record r;
            ferry_batch_record(batch, i, &r);
            assert_string_equal(r.topic, "t.dlq.work");
            assert_int_equal(r.offset, records * FAKE_DEAD_GAP);
            assert_true(r.offset >= next[2]);
            next[2] = r.offset + 1;
            numbers += r.offset;
            records++;
        }
        ferry_batch_free(&batch);
    }
    assert_int_equal(numbers, 45 * FAKE_DEAD_GAP);
    assert_int_equal(ferry_consumer_position(consumer, 2), 9 * FAKE_DEAD_GAP + 1);
    assert_int_equal(ferry_consumer_seek(consumer, 2, FERRY_FROM_END), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_consumer_seek(consumer, 2, FERRY_FROM_START), FERRY_OK);
    ferry_consumer_close(&consumer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(a_publish_raises_the_version_of_its_key),
        TEST(a_lost_answer_does_not_publish_twice),
        TEST(publishes_that_cannot_be_are_refused),
        TEST(answers_that_do_not_fit_are_not_believed),
        cmocka_unit_test(derived_ids_are_the_same_each_time),
        TEST(delayed_messages_are_kept_aside),
        TEST(delays_and_priorities_have_their_bounds),
        TEST(priorities_travel_with_their_messages),
        TEST(round_robin_is_even_in_small_numbers),
        TEST(a_loaded_partition_gets_less),
        TEST(throttling_is_waited_out),
        TEST(dead_letters_are_read_as_a_topic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
