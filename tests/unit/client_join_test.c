/* Members of a group against a broker that does as it is told: partitions come and go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "client/consumer.h"
#include "client/member.h"
#include "lib/fake_broker.h"

#define PARTITIONS 4
#define WAIT_US    INT64_C(10000000)

struct reading {
    struct ferry_consumer *consumer;
    int64_t next[PARTITIONS]; /* To be committed; -1: nothing was read. */
    int given[PARTITIONS], gone[PARTITIONS];
    int64_t records;
    enum ferry_err commit_err; /* Of the last commit as a partition went. */
};

struct fixture {
    struct fake_broker *broker;
    struct ferry_conf *conf;
    struct ferry_client *client;
    struct reading a, b;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->broker = fake_broker_start(PARTITIONS, NULL, NULL);
    f->conf = fake_conf(f->broker);
    assert_int_equal(ferry_open(&f->client, &f->conf, NULL, 0), FERRY_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ferry_consumer_close(&f->a.consumer);
    ferry_consumer_close(&f->b.consumer);
    ferry_close(&f->client, 0);
    ferry_conf_free(&f->conf);
    fake_broker_stop(&f->broker);
    free(f);
    return 0;
}

static void store(struct fixture *f, int count)
{
    for (int partition = 0; partition < PARTITIONS; partition++) {
        struct batch_writer w;
        struct bytes batch;
        batch_writer_init(&w, BATCH_MAX_BYTES);
        for (int i = 0; i < count; i++) {
            struct batch_record r = {.timestamp_ms = 5, .payload = bytes_of_string("x")};
            assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
        }
        assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
        fake_store(f->broker, partition, batch);
        batch_writer_fini(&w);
    }
}

/* Commits what was read of a partition that goes. */
static void on_assignment(struct ferry_consumer *consumer, int32_t partition, bool given, void *arg)
{
    struct reading *r = arg;
    assert_true(ferry_consumer_has(consumer, partition));
    if (given) {
        r->given[partition]++;
        r->next[partition] = -1;
        return;
    }
    r->gone[partition]++;
    if (r->next[partition] >= 0) {
        r->commit_err = ferry_consumer_commit(consumer, partition, r->next[partition], 2000);
    }
}

static void join(struct fixture *f, struct reading *r, const char *member, int session_ms)
{
    struct ferry_join_spec spec = {.member = member, .session_ms = session_ms};
    for (int i = 0; i < PARTITIONS; i++) {
        r->next[i] = -1;
    }
    assert_int_equal(ferry_consumer_join(&r->consumer, f->client, FAKE_TOPIC, "readers",
                                         FERRY_FROM_START, &spec, 10000),
                     FERRY_OK);
    ferry_consumer_on_assignment(r->consumer, on_assignment, r);
}

/* One fetch; what comes must be of a partition that is ours, and go on where it was. */
static enum ferry_err read_once(struct reading *r, int timeout_ms)
{
    struct ferry_batch *batch;
    enum ferry_err err = ferry_consumer_fetch(r->consumer, timeout_ms, &batch);
    if (err == FERRY_OK) {
        int32_t partition = ferry_batch_partition(batch);
        assert_true(ferry_consumer_has(r->consumer, partition));
        assert_true(r->next[partition] < 0 ||
                    r->next[partition] == ferry_batch_first_offset(batch));
        r->next[partition] = ferry_batch_next_offset(batch);
        r->records += (int64_t)ferry_batch_count(batch);
        ferry_batch_free(&batch);
    }
    return err;
}

static int held(const struct reading *r)
{
    int count = 0;
    for (int i = 0; i < PARTITIONS; i++) {
        count += ferry_consumer_has(r->consumer, i) ? 1 : 0;
    }
    return count;
}

/* Both read until they hold so many. */
static void read_until_held(struct fixture *f, int a, int b)
{
    int64_t give_up_us = clock_monotonic_us() + WAIT_US;
    bool done = false;
    while (!done && clock_monotonic_us() < give_up_us) {
        (void)read_once(&f->a, 5);
        if (f->b.consumer != NULL) {
            (void)read_once(&f->b, 5);
        }
        done = held(&f->a) == a && (f->b.consumer == NULL || held(&f->b) == b);
    }
    assert_true(done);
}

static void a_lone_member_reads_all_partitions(void **state)
{
    struct fixture *f = *state;
    store(f, 10);
    join(f, &f->a, NULL, 0);
    read_until_held(f, PARTITIONS, 0);
    while (f->a.records < 10 * PARTITIONS) {
        assert_int_equal(read_once(&f->a, 5000), FERRY_OK);
    }
    for (int i = 0; i < PARTITIONS; i++) {
        assert_int_equal(f->a.given[i], 1);
        assert_int_equal(ferry_consumer_commit(f->a.consumer, i, 10, 5000), FERRY_OK);
        assert_int_equal(fake_committed(f->broker, i), 10);
    }
    assert_true(ferry_consumer_at_end(f->a.consumer));
}

/* The second gets half, after the first has committed what it read of it: nothing is read twice. */
static void partitions_are_handed_over_with_their_positions(void **state)
{
    struct fixture *f = *state;
    store(f, 10);
    join(f, &f->a, "a", 0);
    read_until_held(f, PARTITIONS, 0);
    while (f->a.records < 10 * PARTITIONS) {
        assert_int_equal(read_once(&f->a, 5000), FERRY_OK);
    }
    join(f, &f->b, "b", 0);
    read_until_held(f, 2, 2);
    assert_int_equal(f->a.commit_err, FERRY_OK);
    for (int i = 0; i < PARTITIONS; i++) {
        assert_int_equal(fake_committed(f->broker, i), f->a.gone[i] > 0 ? 10 : 0);
        if (f->a.gone[i] > 0) {
            assert_int_equal(ferry_consumer_commit(f->a.consumer, i, 10, 5000),
                             FERRY_ERR_MEMBER_FENCED);
        }
    }
    store(f, 5);
    int64_t give_up_us = clock_monotonic_us() + WAIT_US;
    while (f->a.records + f->b.records < 15 * PARTITIONS && clock_monotonic_us() < give_up_us) {
        (void)read_once(&f->a, 5);
        (void)read_once(&f->b, 5);
    }
    assert_int_equal(f->b.records, 10);
    ferry_consumer_close(&f->b.consumer); /* Says good-bye: the first has them again at once. */
    read_until_held(f, PARTITIONS, 0);
    assert_int_equal(fake_members(f->broker), 1);
}

static void another_instance_of_the_name_ends_it(void **state)
{
    struct fixture *f = *state;
    store(f, 1);
    join(f, &f->a, "a", 0);
    read_until_held(f, PARTITIONS, 0);
    fake_usurp(f->broker, "a");
    enum ferry_err err = FERRY_OK;
    int64_t give_up_us = clock_monotonic_us() + WAIT_US;
    while (err != FERRY_ERR_MEMBER_FENCED && clock_monotonic_us() < give_up_us) {
        err = read_once(&f->a, 50);
    }
    assert_int_equal(err, FERRY_ERR_MEMBER_FENCED);
    assert_int_equal(held(&f->a), 0);
    assert_int_equal(ferry_consumer_commit(f->a.consumer, 0, 1, 5000), FERRY_ERR_MEMBER_FENCED);
}

static void a_pause_stops_the_reading(void **state)
{
    struct fixture *f = *state;
    join(f, &f->a, "a", 0);
    read_until_held(f, PARTITIONS, 0);
    fake_pause(f->broker, true);
    for (int i = 0; i < 20; i++) { /* Heartbeats tell it, and what is out is answered. */
        assert_int_equal(read_once(&f->a, 10), FERRY_ERR_TIMEOUT);
    }
    store(f, 3);
    assert_int_equal(read_once(&f->a, 200), FERRY_ERR_TIMEOUT);
    fake_pause(f->broker, false);
    while (f->a.records < 3 * PARTITIONS) {
        assert_int_equal(read_once(&f->a, 5000), FERRY_OK);
    }
}

/* Nobody hears its heartbeats: it lets go when its session is over, and comes back. */
static void a_member_that_is_not_heard_lets_go(void **state)
{
    struct fixture *f = *state;
    join(f, &f->a, "a", 500);
    read_until_held(f, PARTITIONS, 0);
    fake_rule(f->broker, COMMAND_MEMBER_HEARTBEAT, 0, 1000000, FAKE_DROP_REQUEST, 0);
    int64_t began_us = clock_monotonic_us();
    read_until_held(f, 0, 0);
    assert_true(clock_monotonic_us() - began_us > 300000);
    fake_rules_clear(f->broker);
    read_until_held(f, PARTITIONS, 0);
}

/* ---- Brokers that lie. */

static void can_assign(struct fixture *f, const struct member_heartbeat_reply *reply)
{
    struct buf b;
    buf_init(&b, 1 << 16);
    member_heartbeat_reply_encode(&b, reply);
    fake_can(f->broker, COMMAND_MEMBER_HEARTBEAT, buf_bytes(&b));
    buf_fini(&b);
}

static void assignments_that_do_not_fit_are_not_believed(void **state)
{
    struct fixture *f = *state;
    struct member_heartbeat_reply twice = {.count = 2, .assigned = {{1, 5}, {1, 6}}};
    struct member_heartbeat_reply beyond = {.count = 1, .assigned = {{PARTITIONS, 5}}};
    struct member_heartbeat_reply good = {.count = 1, .assigned = {{2, 5}}, .heartbeat_ms = 20};
    store(f, 2);
    can_assign(f, &twice);
    can_assign(f, &beyond);
    can_assign(f, &good);
    join(f, &f->a, "a", 0);
    read_until_held(f, 1, 0);
    assert_true(ferry_consumer_has(f->a.consumer, 2));
    assert_int_equal(f->a.given[1], 0);
}

/* Another epoch of a partition that is held: it is let go of, told, and claimed anew. */
static void another_epoch_is_another_assignment(void **state)
{
    struct fixture *f = *state;
    struct member_heartbeat_reply first = {.count = 1, .assigned = {{2, 5}}, .heartbeat_ms = 20};
    struct member_heartbeat_reply second = {.count = 1, .assigned = {{2, 6}}, .heartbeat_ms = 20};
    can_assign(f, &first);
    can_assign(f, &first);
    can_assign(f, &first);
    can_assign(f, &second);
    join(f, &f->a, "a", 0);
    int64_t give_up_us = clock_monotonic_us() + WAIT_US;
    while (f->a.given[2] < 2 && clock_monotonic_us() < give_up_us) {
        (void)read_once(&f->a, 10);
    }
    assert_int_equal(f->a.given[2], 2);
    assert_int_equal(f->a.gone[2], 1);
}

/* What a leader that is none any more says of the past is passed over: nothing is let go of. */
static void an_answer_of_an_earlier_epoch_is_passed_over(void **state)
{
    struct fixture *f = *state;
    struct member_heartbeat_reply now = {
        .epoch = 9, .count = 2, .assigned = {{1, 8}, {2, 9}}, .heartbeat_ms = 20};
    struct member_heartbeat_reply old = {
        .epoch = 8, .count = 2, .assigned = {{1, 8}, {3, 7}}, .heartbeat_ms = 20};
    can_assign(f, &now);
    can_assign(f, &old);
    can_assign(f, &old);
    can_assign(f, &now);
    join(f, &f->a, "a", 0);
    read_until_held(f, 2, 0);
    for (int i = 0; i < 30; i++) {
        (void)read_once(&f->a, 10);
    }
    assert_int_equal(f->a.given[1], 1);
    assert_int_equal(f->a.given[2], 1);
    assert_int_equal(f->a.gone[2], 0);
    assert_int_equal(f->a.given[3], 0);
}

/* Unless nothing else comes for a session: then all was let go of, and it is the truth now. */
static void an_earlier_epoch_is_believed_when_nothing_else_comes(void **state)
{
    struct fixture *f = *state;
    struct member_heartbeat_reply first = {
        .epoch = 9, .count = 1, .assigned = {{2, 9}}, .heartbeat_ms = 20};
    struct member_heartbeat_reply old = {
        .epoch = 3, .count = 1, .assigned = {{1, 3}}, .heartbeat_ms = 20};
    can_assign(f, &first);
    can_assign(f, &old); /* From now on. */
    join(f, &f->a, "a", 500);
    int64_t give_up_us = clock_monotonic_us() + WAIT_US;
    while (f->a.given[1] == 0 && clock_monotonic_us() < give_up_us) {
        (void)read_once(&f->a, 10);
    }
    assert_int_equal(f->a.given[1], 1);
    assert_int_equal(f->a.gone[2], 1);
}

static void claims_that_fail_are_tried_again(void **state)
{
    struct fixture *f = *state;
    fake_rule(f->broker, COMMAND_SUBSCRIPTION_CLAIM, 0, 2, FAKE_REFUSE, FERRY_ERR_MEMBER_FENCED);
    fake_rule(f->broker, COMMAND_SUBSCRIPTION_CLAIM, 0, 2, FAKE_GARBLE, 0);
    fake_rule(f->broker, COMMAND_SUBSCRIPTION_CLAIM, 0, 1, FAKE_DROP_REPLY, 0);
    store(f, 1);
    join(f, &f->a, "a", 0);
    read_until_held(f, PARTITIONS, 0);
}

static void joins_that_fail_say_why(void **state)
{
    struct fixture *f = *state;
    struct ferry_consumer *s;
    struct ferry_join_spec spec = {.member = "a b"};
    assert_int_equal(ferry_consumer_join(&s, f->client, FAKE_TOPIC, "readers", 0, &spec, 5000),
                     FERRY_ERR_BAD_NAME);
    spec = (struct ferry_join_spec){.session_ms = 1};
    assert_int_equal(ferry_consumer_join(&s, f->client, FAKE_TOPIC, "readers", 0, &spec, 5000),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_consumer_join(&s, f->client, FAKE_TOPIC, NULL, 0, NULL, 5000),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ferry_consumer_join(&s, f->client, "no", "readers", 0, NULL, 5000),
                     FERRY_ERR_UNKNOWN_TOPIC);
    fake_subscribe(f->broker, SUBSCRIPTION_QUEUE);
    assert_int_equal(ferry_consumer_join(&s, f->client, FAKE_TOPIC, "readers", 0, NULL, 5000),
                     FERRY_ERR_SUBSCRIPTION_EXISTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(a_lone_member_reads_all_partitions),
        TEST(partitions_are_handed_over_with_their_positions),
        TEST(another_instance_of_the_name_ends_it),
        TEST(a_pause_stops_the_reading),
        TEST(a_member_that_is_not_heard_lets_go),
        TEST(assignments_that_do_not_fit_are_not_believed),
        TEST(another_epoch_is_another_assignment),
        TEST(an_answer_of_an_earlier_epoch_is_passed_over),
        TEST(an_earlier_epoch_is_believed_when_nothing_else_comes),
        TEST(claims_that_fail_are_tried_again),
        TEST(joins_that_fail_say_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
