/* Fetch and long poll: at once, in time, when there is enough; over several partitions and shards.
 */
#include <stdio.h>

#include "base/clock.h"
#include "lib/broker_fixture.h"

#define CONTENTS_MAX 4096

static uint64_t contents[CONTENTS_MAX];
static struct fetch_reply reply;

static void start(struct broker_fixture *f, struct wire_client *c)
{
    broker_up(f);
    wire_connect(f, c, NULL);
}

static size_t fetch_now(struct wire_client *c, uint64_t group, int64_t offset)
{
    struct fetch_request q = wire_fetch_of(group, offset, 0);
    struct wire_reply r;
    (void)wire_send_fetch(c, &q);
    wire_receive(c, &r);
    size_t count = wire_contents(&r, 0, contents, CONTENTS_MAX);
    wire_fetch_reply(&r, &reply);
    wire_reply_close(&r);
    return count;
}

static void what_there_is_comes_at_once(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    start(f, &c);
    uint64_t g = wire_new_topic(&c, "t");
    assert_int_equal(fetch_now(&c, g, 0), 0);
    assert_int_equal(wire_produce(&c, g, 3, 10, NULL), FERRY_OK);
    assert_int_equal(fetch_now(&c, g, 0), 3);
    assert_int_equal(contents[2], 12);
    assert_int_equal(reply.items[0].end_offset, 3);
    (void)fetch_now(&c, g, 4);
    assert_int_equal(reply.items[0].status, FERRY_ERR_OFFSET_OUT_OF_RANGE);
    assert_int_equal(reply.items[0].start_offset, 0);
    wire_close(&c);
}

static void a_fetch_that_asks_for_nothing_is_refused(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct wire_reply r;
    start(f, &c);
    struct fetch_request q = wire_fetch_of(1, 0, 1000);
    q.count = 0;
    (void)wire_send_fetch(&c, &q);
    wire_receive(&c, &r);
    assert_int_equal(r.status, FERRY_ERR_INVALID_ARGUMENT);
    wire_reply_close(&r);
    wire_close(&c);
}

static void a_waiting_fetch_is_answered_when_something_comes(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, producer;
    struct wire_reply r;
    start(f, &c);
    wire_connect(f, &producer, NULL);
    uint64_t g = wire_new_topic(&c, "t");
    struct fetch_request q = wire_fetch_of(g, 0, 30000);
    uint64_t id = wire_send_fetch(&c, &q);
    assert_false(wire_receive_within(&c, &r, 20));
    wire_reply_close(&r);
    assert_int_equal(wire_produce(&producer, g, 2, 5, NULL), FERRY_OK);
    wire_receive(&c, &r);
    assert_int_equal(r.frame.request_id, id);
    assert_int_equal(wire_contents(&r, 0, contents, CONTENTS_MAX), 2);
    wire_reply_close(&r);
    wire_close(&producer);
    wire_close(&c);
}

static void a_waiting_fetch_waits_for_min_bytes_or_its_time(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, producer;
    struct wire_reply r;
    start(f, &c);
    wire_connect(f, &producer, NULL);
    uint64_t g = wire_new_topic(&c, "t");
    struct fetch_request q = wire_fetch_of(g, 0, 30000);
    q.min_bytes = 4000;
    (void)wire_send_fetch(&c, &q);
    for (uint64_t i = 0; i < 10; i++) { /* Some 100 bytes each. */
        assert_int_equal(wire_produce(&producer, g, 1, i, NULL), FERRY_OK);
    }
    assert_false(wire_receive_within(&c, &r, 20));
    wire_reply_close(&r);
    struct buf batch;
    wire_batch(&batch, 0, 0, 1, 5000, 10);
    (void)wire_send_produce(&producer, g, buf_bytes(&batch));
    buf_fini(&batch);
    wire_receive(&c, &r);
    assert_int_equal(wire_contents(&r, 0, contents, CONTENTS_MAX), 11);
    wire_reply_close(&r);
    q.max_wait_ms = 50;
    q.min_bytes = 1 << 20;
    int64_t began_us = clock_monotonic_us();
    (void)wire_send_fetch(&c, &q);
    wire_receive(&c, &r);
    assert_true(clock_monotonic_us() - began_us >= 49000);
    assert_int_equal(wire_contents(&r, 0, contents, CONTENTS_MAX), 11);
    wire_reply_close(&r);
    wire_close(&producer);
    wire_close(&c);
}

static void several_partitions_share_what_a_fetch_may_take(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, producer;
    struct wire_reply r;
    struct wire_topic t;
    start(f, &c);
    wire_connect(f, &producer, NULL);
    assert_int_equal(wire_topic_create(&c, "t", 4, NULL), FERRY_OK);
    assert_int_equal(wire_metadata(&c, "t", &t), FERRY_OK);
    struct fetch_request q = {.max_wait_ms = 30000, .min_bytes = 1, .max_bytes = 4000, .count = 4};
    for (uint32_t p = 0; p < 4; p++) {
        q.items[p] = (struct fetch_item){.group = t.groups[p]};
        for (uint64_t i = 0; i < 50; i++) {
            assert_int_equal(wire_produce(&c, t.groups[p], 1, p * 100 + i, NULL), FERRY_OK);
        }
    }
    (void)wire_send_fetch(&c, &q);
    wire_receive(&c, &r);
    for (uint32_t p = 0; p < 4; p++) {
        size_t count = wire_contents(&r, p, contents, CONTENTS_MAX);
        assert_in_range(count, 5, 12);
        assert_int_equal(contents[0], p * 100);
        q.items[p].offset = 50;
    }
    assert_true(r.frame.attachment.size <= 4000);
    wire_reply_close(&r);
    (void)wire_send_fetch(&c, &q);
    assert_int_equal(wire_produce(&producer, t.groups[2], 1, 7, NULL), FERRY_OK);
    wire_receive(&c, &r);
    assert_int_equal(wire_contents(&r, 2, contents, CONTENTS_MAX), 1);
    assert_int_equal(wire_contents(&r, 1, contents, CONTENTS_MAX), 0);
    wire_reply_close(&r);
    wire_close(&producer);
    wire_close(&c);
}

static void one_partition_named_twice_is_answered_twice(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, producer;
    struct wire_reply r;
    struct wire_topic t;
    start(f, &c);
    wire_connect(f, &producer, NULL);
    assert_int_equal(wire_topic_create(&c, "t", 2, NULL), FERRY_OK);
    assert_int_equal(wire_metadata(&c, "t", &t), FERRY_OK);
    uint64_t a = t.groups[0], b = t.groups[1];
    struct fetch_request q = {.max_wait_ms = 30000, .min_bytes = 1, .max_bytes = 1 << 20};
    q.items[q.count++].group = a;
    q.items[q.count++].group = b;
    q.items[q.count++].group = a;
    q.items[q.count++].group = a;
    for (int i = 0; i < 3; i++) { /* Several wait, woken together. */
        (void)wire_send_fetch(&c, &q);
    }
    assert_false(wire_receive_within(&c, &r, 20));
    wire_reply_close(&r);
    assert_int_equal(wire_produce(&producer, a, 2, 1, NULL), FERRY_OK);
    for (int i = 0; i < 3; i++) {
        wire_receive(&c, &r);
        wire_fetch_reply(&r, &reply);
        assert_int_equal(reply.count, 4);
        assert_int_equal(wire_contents(&r, 0, contents, CONTENTS_MAX), 2);
        assert_int_equal(wire_contents(&r, 1, contents, CONTENTS_MAX), 0);
        assert_int_equal(wire_contents(&r, 3, contents, CONTENTS_MAX), 2);
        wire_reply_close(&r);
    }
    wire_close(&producer);
    wire_close(&c);
}

/* First batches that are each larger than their share, together larger than any frame. */
static void large_batches_of_many_partitions_come_in_whole_frames(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct wire_reply r;
    struct wire_topic t;
    broker_set(f, "limit.message_max_bytes", "8M");
    broker_set(f, "limit.fetch_max_bytes", "16M");
    start(f, &c);
    assert_int_equal(wire_topic_create(&c, "t", 3, NULL), FERRY_OK);
    assert_int_equal(wire_metadata(&c, "t", &t), FERRY_OK);
    struct fetch_request q = {.min_bytes = 1, .max_bytes = 16 << 20, .count = 3};
    struct buf batch;
    wire_batch(&batch, 0, 0, 1, 8000000, 42);
    for (uint32_t p = 0; p < 3; p++) {
        q.items[p].group = t.groups[p];
        (void)wire_send_produce(&c, t.groups[p], buf_bytes(&batch));
        wire_receive(&c, &r);
        assert_int_equal(r.status, FERRY_OK);
        wire_reply_close(&r);
    }
    buf_fini(&batch);
    uint32_t got = 0;
    for (int round = 0; round < 3 && got < 3; round++) {
        (void)wire_send_fetch(&c, &q);
        wire_receive(&c, &r);
        for (uint32_t p = 0; p < 3; p++) {
            size_t count = wire_contents(&r, p, contents, CONTENTS_MAX);
            wire_fetch_reply(&r, &reply);
            assert_int_equal(reply.items[p].status, FERRY_OK);
            q.items[p].offset += (int64_t)count;
            got += (uint32_t)count;
        }
        wire_reply_close(&r);
    }
    assert_int_equal(got, 3);
    wire_close(&c);
}

static void a_shard_serves_its_own_partitions_and_names_the_first(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, other;
    struct wire_reply r;
    struct wire_topic t;
    broker_set(f, "node.shards", "2");
    start(f, &c);
    for (int life = 0; life < 2; life++) {
        assert_int_equal(wire_topic_create(&c, "t", 4, NULL), FERRY_OK);
        assert_int_equal(wire_metadata(&c, "t", &t), FERRY_OK);
        wire_connect(f, &other, t.endpoints[1]);
        assert_int_equal(wire_topic_create(&other, "u", 1, NULL), FERRY_ERR_NOT_LEADER);
        for (uint32_t p = 0; p < 4; p++) {
            bool on_other = t.endpoint[p] == 1;
            struct wire_client *mine = on_other ? &other : &c, *wrong = on_other ? &c : &other;
            assert_int_equal(wire_produce(mine, t.groups[p], 1, p, NULL), FERRY_OK);
            assert_int_equal(wire_produce(wrong, t.groups[p], 1, p, NULL),
                             FERRY_ERR_UNKNOWN_PARTITION);
            assert_int_equal(fetch_now(mine, t.groups[p], 0), 1 + life);
        }
        struct fetch_request q =
            wire_fetch_of(t.groups[0] % 2 == 1 ? t.groups[0] : t.groups[1], 1 + life, 30000);
        (void)wire_send_fetch(&other, &q);
        assert_int_equal(wire_topic_delete(&c, "none"), FERRY_ERR_UNKNOWN_TOPIC);
        if (life == 1) { /* A topic's deletion answers who waits on another shard. */
            assert_int_equal(wire_topic_delete(&c, "t"), FERRY_OK);
            wire_receive(&other, &r);
            wire_fetch_reply(&r, &reply);
            assert_int_equal(reply.items[0].status, FERRY_ERR_UNKNOWN_TOPIC);
            wire_reply_close(&r);
        }
        wire_close(&other);
        wire_close(&c);
        broker_down(f);
        broker_up(f);
        wire_connect(f, &c, NULL);
    }
    assert_int_equal(wire_metadata(&c, "t", &t), FERRY_ERR_UNKNOWN_TOPIC);
    wire_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        broker_test(what_there_is_comes_at_once),
        broker_test(a_fetch_that_asks_for_nothing_is_refused),
        broker_test(a_waiting_fetch_is_answered_when_something_comes),
        broker_test(a_waiting_fetch_waits_for_min_bytes_or_its_time),
        broker_test(several_partitions_share_what_a_fetch_may_take),
        broker_test(one_partition_named_twice_is_answered_twice),
        broker_test(large_batches_of_many_partitions_come_in_whole_frames),
        broker_test(a_shard_serves_its_own_partitions_and_names_the_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
