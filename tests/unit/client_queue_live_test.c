/* Receivers, members, delays and publishes against the real broker, embedded. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "client/receiver.h"
#include "ferry_broker.h"

#define WAIT_MS    20000
#define WAIT_US    (WAIT_MS * INT64_C(1000))
#define PARTITIONS 3
#define MANY       30000

struct fixture {
    char folder[64];
    struct ferry_broker *broker;
    struct ferry_client *client;
    struct ferry_receiver *receiver, *second;
    struct ferry_consumer *a, *b;
    int64_t acked, others;
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

/* See client_live_test.c. */
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
    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/ferry_queue_XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    (void)snprintf(data, sizeof(data), "node.data=%s", f->folder);
    const char *options[] = {data, "listen.endpoint=tcp://127.0.0.1:*"};
    if (ferry_broker_start(&f->broker, options, options_used(), detail, sizeof(detail)) !=
        FERRY_OK) {
        fail_msg("%s", detail);
    }
    assert_int_equal(ferry_conf_new(&conf), FERRY_OK);
    assert_int_equal(ferry_broker_conf(f->broker, conf), FERRY_OK);
    assert_int_equal(ferry_open(&f->client, &conf, detail, sizeof(detail)), FERRY_OK);
    struct ferry_topic_spec spec = {.name = "jobs", .partitions = PARTITIONS};
    assert_int_equal(ferry_topic_create(f->client, &spec, WAIT_MS), FERRY_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ferry_receiver_close(&f->receiver, 1000);
    ferry_receiver_close(&f->second, 1000);
    ferry_consumer_close(&f->a);
    ferry_consumer_close(&f->b);
    ferry_close(&f->client, 1000);
    ferry_broker_stop(&f->broker);
    (void)nftw(f->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

static void make(struct fixture *f, const char *name, const struct ferry_subscription_spec *spec)
{
    enum ferry_err err = ferry_subscription_make(f->client, "jobs", name, spec, WAIT_MS);
    char detail[512];
    if (err != FERRY_OK) {
        ferry_error_detail(f->client, detail, sizeof(detail));
        fail_msg("%s: %s", ferry_err_name(err), detail);
    }
}

static void send(struct fixture *f, const char *key, const char *payload, int64_t delay_ms)
{
    struct ferry_message m = {.topic = "jobs",
                              .partition = FERRY_PARTITION_ANY,
                              .key = key,
                              .key_bytes = key != NULL ? strlen(key) : 0,
                              .payload = payload,
                              .payload_bytes = strlen(payload) + 1, /* With its end. */
                              .delay_ms = delay_ms};
    assert_int_equal(ferry_send(f->client, &m), FERRY_OK);
}

static void flush(struct fixture *f)
{
    assert_int_equal(ferry_flush(f->client, WAIT_MS), FERRY_OK);
}

static void open_receiver(struct fixture *f, struct ferry_receiver **receiver, const char *name,
                          const struct ferry_receiver_spec *spec)
{
    assert_int_equal(ferry_receiver_open(receiver, f->client, "jobs", name, spec, WAIT_MS),
                     FERRY_OK);
}

static size_t take(struct ferry_receiver *r, struct ferry_delivery *deliveries, size_t max,
                   int timeout_ms)
{
    size_t count = 0;
    enum ferry_err err = ferry_receive(r, timeout_ms, deliveries, max, &count);
    assert_true(err == FERRY_OK || err == FERRY_ERR_TIMEOUT);
    receiver_check(r);
    return err == FERRY_OK ? count : 0;
}

static void on_settled(const struct ferry_settled *settled, void *arg)
{
    struct fixture *f = arg;
    if (settled->err == FERRY_OK) {
        f->acked++;
    } else {
        f->others++;
    }
}

/* Two receivers share a queue: each message goes to one of them, once. */
static void a_queue_is_worked_off_by_two(void **state)
{
    struct fixture *f = *state;
    struct ferry_delivery deliveries[256];
    char *seen = calloc(1, MANY);
    char payload[16];
    int64_t give_up_us = clock_monotonic_us() + 3 * WAIT_US;
    make(f, "work", &(struct ferry_subscription_spec){.mode = FERRY_MODE_QUEUE});
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(payload, sizeof(payload), "%d", i);
        send(f, NULL, payload, 0);
    }
    flush(f);
    open_receiver(f, &f->receiver, "work", NULL);
    open_receiver(f, &f->second, "work", NULL);
    ferry_receiver_on_settled(f->receiver, on_settled, f);
    ferry_receiver_on_settled(f->second, on_settled, f);
    struct ferry_receiver *receivers[] = {f->receiver, f->second};
    int done = 0;
    for (int turn = 0; done < MANY && clock_monotonic_us() < give_up_us; turn++) {
        struct ferry_receiver *r = receivers[turn % 2];
        size_t count = take(r, deliveries, 256, 20);
        for (size_t i = 0; i < count; i++, done++) {
            int which = (int)strtol(deliveries[i].record.payload, NULL, 10);
            assert_int_equal(seen[which], 0);
            seen[which] = 1;
            assert_int_equal(ferry_ack(r, &deliveries[i]), FERRY_OK);
        }
    }
    assert_int_equal(done, MANY);
    assert_int_equal(ferry_receiver_flush(f->receiver, WAIT_MS, NULL), FERRY_OK);
    assert_int_equal(ferry_receiver_flush(f->second, WAIT_MS, NULL), FERRY_OK);
    assert_int_equal(f->acked, MANY);
    assert_int_equal(f->others, 0);
    free(seen);
}

/* Of each key one at a time and in order, whatever comes back in between. */
static void keys_keep_their_order(void **state)
{
    struct fixture *f = *state;
    struct ferry_delivery deliveries[16];
    int next[4] = {0};
    char key[2] = "a", payload[16];
    int64_t give_up_us = clock_monotonic_us() + WAIT_US;
    make(f, "keyed",
         &(struct ferry_subscription_spec){
             .mode = FERRY_MODE_KEYED, .backoff_min_ms = 1, .backoff_max_ms = 5});
    for (int i = 0; i < 200; i++) {
        key[0] = (char)('a' + i % 4);
        (void)snprintf(payload, sizeof(payload), "%d", i / 4);
        send(f, key, payload, 0);
    }
    flush(f);
    open_receiver(f, &f->receiver, "keyed", NULL);
    int done = 0;
    while (done < 200 && clock_monotonic_us() < give_up_us) {
        size_t count = take(f->receiver, deliveries, 16, 50);
        for (size_t i = 0; i < count; i++) {
            const struct ferry_record *r = &deliveries[i].record;
            int which = ((const char *)r->key)[0] - 'a';
            assert_int_equal(strtol(r->payload, NULL, 10), next[which]);
            if (deliveries[i].failed == 0 && next[which] % 7 == 3) {
                assert_int_equal(ferry_nack(f->receiver, &deliveries[i], -1, "again"), FERRY_OK);
            } else {
                next[which]++;
                done++;
                assert_int_equal(ferry_ack(f->receiver, &deliveries[i]), FERRY_OK);
            }
        }
    }
    assert_int_equal(done, 200);
    assert_int_equal(ferry_receiver_flush(f->receiver, WAIT_MS, NULL), FERRY_OK);
}

/* Failed too often, or rejected: a dead letter, which is read as a topic. */
static void what_fails_too_often_is_read_as_a_dead_letter(void **state)
{
    struct fixture *f = *state;
    struct ferry_delivery d;
    struct ferry_batch *batch = NULL;
    struct ferry_record r;
    make(f, "fails",
         &(struct ferry_subscription_spec){.mode = FERRY_MODE_QUEUE,
                                           .max_deliveries = 2,
                                           .backoff_min_ms = 1,
                                           .backoff_max_ms = 5});
    send(f, NULL, "poison", 0);
    flush(f);
    open_receiver(f, &f->receiver, "fails", NULL);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(take(f->receiver, &d, 1, WAIT_MS), 1);
        assert_int_equal(d.handed_out, i + 1);
        assert_int_equal(d.failed, i);
        assert_int_equal(ferry_nack(f->receiver, &d, 0, "broken"), FERRY_OK);
    }
    assert_int_equal(ferry_receiver_flush(f->receiver, WAIT_MS, NULL), FERRY_OK);
    assert_int_equal(
        ferry_consumer_open(&f->a, f->client, "jobs.dlq.fails", NULL, FERRY_FROM_START, WAIT_MS),
        FERRY_OK);
    assert_int_equal(ferry_consumer_fetch(f->a, WAIT_MS, &batch), FERRY_OK);
    assert_int_equal(ferry_batch_count(batch), 1);
    ferry_batch_record(batch, 0, &r);
    assert_string_equal((const char *)r.payload, "poison");
    assert_string_equal(r.topic, "jobs.dlq.fails");
    ferry_batch_free(&batch);
}

/* A lease that is not extended ends; what was done is too late then. */
static void a_lease_that_has_ended_is_told(void **state)
{
    struct fixture *f = *state;
    struct ferry_delivery d, again;
    uint64_t failed = 0;
    make(f, "leases",
         &(struct ferry_subscription_spec){
             .mode = FERRY_MODE_QUEUE, .lease_ms = 1500, .backoff_min_ms = 1, .backoff_max_ms = 5});
    send(f, NULL, "slow", 0);
    flush(f);
    open_receiver(f, &f->receiver, "leases", &(struct ferry_receiver_spec){.no_extend = true});
    open_receiver(f, &f->second, "leases", NULL);
    struct ferry_receiver *first = f->receiver, *other = f->second;
    if (take(first, &d, 1, 1000) == 0) { /* The other one had it: it lets go of it. */
        assert_int_equal(take(other, &d, 1, WAIT_MS), 1);
        ferry_receiver_close(&f->second, WAIT_MS);
        assert_int_equal(take(first, &d, 1, WAIT_MS), 1);
        open_receiver(f, &f->second, "leases", NULL);
        other = f->second;
    }
    assert_int_equal(take(other, &again, 1, WAIT_MS), 1);
    assert_int_equal(again.record.offset, d.record.offset);
    assert_true(again.failed >= 1);
    assert_int_equal(ferry_ack(first, &d), FERRY_OK);
    assert_int_equal(ferry_receiver_flush(first, WAIT_MS, &failed), FERRY_OK);
    assert_int_equal(failed, 1);
    int64_t until_us = clock_monotonic_us() + 3000000; /* Extended meanwhile. */
    while (clock_monotonic_us() < until_us) {
        assert_int_equal(take(first, &d, 1, 100), 0);
    }
    assert_int_equal(ferry_ack(other, &again), FERRY_OK);
    assert_int_equal(ferry_receiver_flush(other, WAIT_MS, &failed), FERRY_OK);
    assert_int_equal(failed, 0);
}

/* What a receiver is told when what it reads is deleted, with messages in its hands; and that it
 * can still be closed at once. */
static void deleting_ends_receivers(void **state)
{
    struct fixture *f = *state;
    struct ferry_delivery d[2];
    size_t got;
    uint64_t failed = 0;
    make(f, "goes", &(struct ferry_subscription_spec){.mode = FERRY_MODE_QUEUE});
    make(f, "stays", &(struct ferry_subscription_spec){.mode = FERRY_MODE_QUEUE});
    send(f, "k", "one", 0);
    flush(f);
    open_receiver(f, &f->receiver, "goes", NULL);
    open_receiver(f, &f->second, "stays", NULL);
    assert_int_equal(take(f->receiver, &d[0], 1, WAIT_MS), 1);
    assert_int_equal(take(f->second, &d[1], 1, WAIT_MS), 1);
    assert_int_equal(ferry_subscription_delete(f->client, "jobs", "goes", WAIT_MS), FERRY_OK);
    assert_int_equal(ferry_receive(f->receiver, WAIT_MS, &d[0], 1, &got),
                     FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    assert_int_equal(ferry_ack(f->receiver, &d[0]), FERRY_OK);
    assert_int_equal(ferry_receiver_flush(f->receiver, WAIT_MS, &failed), FERRY_OK);
    assert_int_equal(failed, 1);
    int64_t began_us = clock_monotonic_us();
    assert_int_equal(ferry_topic_delete(f->client, "jobs", WAIT_MS), FERRY_OK);
    assert_int_equal(ferry_receive(f->second, WAIT_MS, &d[1], 1, &got), FERRY_ERR_UNKNOWN_TOPIC);
    assert_int_equal(ferry_ack(f->second, &d[1]), FERRY_OK);
    assert_int_equal(ferry_receiver_flush(f->second, WAIT_MS, &failed), FERRY_OK);
    assert_int_equal(failed, 1);
    ferry_receiver_close(&f->second, WAIT_MS);
    ferry_receiver_close(&f->receiver, WAIT_MS);
    assert_true(clock_monotonic_us() - began_us < WAIT_US / 2);
}

static void delayed_messages_come_when_they_are_due(void **state)
{
    struct fixture *f = *state;
    struct ferry_delivery d[2];
    make(f, "late", &(struct ferry_subscription_spec){.mode = FERRY_MODE_QUEUE});
    int64_t sent_us = clock_monotonic_us();
    send(f, "k", "later", 400);
    send(f, "k", "now", 0);
    flush(f);
    open_receiver(f, &f->receiver, "late", NULL);
    assert_int_equal(take(f->receiver, &d[0], 1, WAIT_MS), 1);
    assert_memory_equal(d[0].record.payload, "now", 3);
    assert_int_equal(take(f->receiver, &d[1], 1, WAIT_MS), 1);
    assert_memory_equal(d[1].record.payload, "later", 5);
    assert_true(clock_monotonic_us() - sent_us >= 400000);
}

static void publishing_expects_a_version(void **state)
{
    struct fixture *f = *state;
    struct ferry_message m = {.topic = "jobs",
                              .partition = FERRY_PARTITION_ANY,
                              .key = "account-1",
                              .key_bytes = 9,
                              .payload = "x",
                              .payload_bytes = 1};
    struct ferry_publish_result result;
    uint64_t version = 99;
    assert_int_equal(ferry_key_version(f->client, "jobs", "account-1", 9, WAIT_MS, &version),
                     FERRY_OK);
    assert_int_equal(version, 0);
    assert_int_equal(ferry_publish(f->client, &m, 1, &version, WAIT_MS, &result), FERRY_OK);
    assert_int_equal(ferry_publish(f->client, &m, 1, &version, WAIT_MS, &result),
                     FERRY_ERR_VERSION_CONFLICT);
    assert_int_equal(result.version, 1);
    m.id.bytes[0] = 5;
    version = 1;
    assert_int_equal(ferry_publish(f->client, &m, 1, &version, WAIT_MS, &result), FERRY_OK);
    assert_false(result.duplicate);
    int64_t offset = result.base_offset;
    assert_int_equal(ferry_publish(f->client, &m, 1, &version, WAIT_MS, &result), FERRY_OK);
    assert_true(result.duplicate);
    assert_int_equal(result.base_offset, offset);
    char *key = malloc(2000);
    memset(key, 'k', 2000);
    m = (struct ferry_message){.topic = "jobs",
                               .partition = FERRY_PARTITION_ANY,
                               .key = key,
                               .key_bytes = 2000,
                               .payload = "x",
                               .payload_bytes = 1};
    version = 0;
    assert_int_equal(ferry_publish(f->client, &m, 1, &version, WAIT_MS, &result), FERRY_OK);
    assert_int_equal(ferry_key_version(f->client, "jobs", key, 2000, WAIT_MS, &version), FERRY_OK);
    assert_int_equal(version, 1);
    free(key);
}

/* ---- Members. */

static int held(const struct ferry_consumer *s)
{
    int count = 0;
    for (int i = 0; i < PARTITIONS; i++) {
        count += ferry_consumer_has(s, i) ? 1 : 0;
    }
    return count;
}

static void read_until_held(struct ferry_consumer *a, int wanted_a, struct ferry_consumer *b,
                            int wanted_b)
{
    int64_t give_up_us = clock_monotonic_us() + WAIT_US;
    bool done = false;
    while (!done && clock_monotonic_us() < give_up_us) {
        struct ferry_batch *batch = NULL;
        if (ferry_consumer_fetch(a, 20, &batch) == FERRY_OK) {
            ferry_batch_free(&batch);
        }
        if (b != NULL && ferry_consumer_fetch(b, 20, &batch) == FERRY_OK) {
            ferry_batch_free(&batch);
        }
        done = held(a) == wanted_a && (b == NULL || held(b) == wanted_b);
    }
    assert_true(done);
}

static void members_share_the_partitions(void **state)
{
    struct fixture *f = *state;
    struct ferry_member *members = NULL;
    size_t count = 0;
    struct ferry_join_spec spec = {.member = "a", .session_ms = 3000};
    assert_int_equal(
        ferry_consumer_join(&f->a, f->client, "jobs", "group", FERRY_FROM_START, &spec, WAIT_MS),
        FERRY_OK);
    read_until_held(f->a, PARTITIONS, NULL, 0);
    spec.member = "b";
    assert_int_equal(
        ferry_consumer_join(&f->b, f->client, "jobs", "group", FERRY_FROM_START, &spec, WAIT_MS),
        FERRY_OK);
    int64_t give_up_us = clock_monotonic_us() + WAIT_US;
    while (held(f->a) + held(f->b) != PARTITIONS || held(f->b) == 0) {
        struct ferry_batch *batch = NULL;
        (void)ferry_consumer_fetch(f->a, 20, &batch);
        ferry_batch_free(&batch);
        (void)ferry_consumer_fetch(f->b, 20, &batch);
        ferry_batch_free(&batch);
        assert_true(clock_monotonic_us() < give_up_us);
    }
    assert_int_equal(ferry_members_list(f->client, "jobs", "group", WAIT_MS, &members, &count),
                     FERRY_OK);
    assert_int_equal(count, 2);
    ferry_members_free(&members);
    for (int32_t i = 0; i < PARTITIONS; i++) {
        bool ours = ferry_consumer_has(f->a, i);
        assert_int_equal(ferry_consumer_commit(f->a, i, 0, WAIT_MS),
                         ours ? FERRY_OK : FERRY_ERR_MEMBER_FENCED);
    }
    ferry_consumer_close(&f->b); /* Says good-bye. */
    read_until_held(f->a, PARTITIONS, NULL, 0);
}

/* The same name again, as after a crash: it takes over, and the older one is told. */
static void a_newer_instance_takes_over(void **state)
{
    struct fixture *f = *state;
    struct ferry_join_spec spec = {.member = "a", .session_ms = 3000};
    struct ferry_batch *batch = NULL;
    assert_int_equal(
        ferry_consumer_join(&f->a, f->client, "jobs", "group", FERRY_FROM_START, &spec, WAIT_MS),
        FERRY_OK);
    read_until_held(f->a, PARTITIONS, NULL, 0);
    assert_int_equal(
        ferry_consumer_join(&f->b, f->client, "jobs", "group", FERRY_FROM_START, &spec, WAIT_MS),
        FERRY_OK);
    read_until_held(f->b, PARTITIONS, NULL, 0);
    enum ferry_err err = FERRY_ERR_TIMEOUT;
    int64_t give_up_us = clock_monotonic_us() + WAIT_US;
    while (err == FERRY_ERR_TIMEOUT && clock_monotonic_us() < give_up_us) {
        err = ferry_consumer_fetch(f->a, 50, &batch);
    }
    assert_int_equal(err, FERRY_ERR_MEMBER_FENCED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(a_queue_is_worked_off_by_two),
        TEST(keys_keep_their_order),
        TEST(what_fails_too_often_is_read_as_a_dead_letter),
        TEST(a_lease_that_has_ended_is_told),
        TEST(deleting_ends_receivers),
        TEST(delayed_messages_come_when_they_are_due),
        TEST(publishing_expects_a_version),
        TEST(members_share_the_partitions),
        TEST(a_newer_instance_takes_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
