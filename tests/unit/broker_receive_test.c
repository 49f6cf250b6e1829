/* Receive and settle by raw frames: at once, long poll, who is woken, what is refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/id.h"
#include "lib/broker_deliver.h"

#define CROWD       1000u
#define CROWD_LINKS 8u
#define QUIET_MS    50 /* So long nothing must come. */

static struct wire_delivery d, e;

static uint64_t start(struct broker_fixture *f, struct wire_client *c, uint32_t mode)
{
    broker_up(f);
    wire_connect(f, c, NULL);
    uint64_t g = wire_new_topic(c, "t");
    assert_int_equal(wire_subscribe(c, g, "s", mode), FERRY_OK);
    return g;
}

static enum ferry_err receive(struct wire_client *c, uint64_t group, const char *member,
                              uint32_t max_messages, struct wire_delivery *out)
{
    struct receive_request q = wire_receive_of(group, "s", member, max_messages, 0);
    return wire_receive_now(c, &q, out);
}

static void wait_for(struct wire_client *c, uint64_t group, const char *member)
{
    struct receive_request q = wire_receive_of(group, "s", member, 1, 30000);
    (void)wire_send_receive(c, &q);
}

static void expect_silence(struct wire_client *c)
{
    struct wire_reply r;
    assert_false(wire_receive_within(c, &r, QUIET_MS));
    wire_reply_close(&r);
}

/* ---- Handing out ---- */

static void what_there_is_is_handed_out_at_once(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    assert_int_equal(wire_produce(&c, g, 3, 10, NULL), FERRY_OK);
    assert_int_equal(receive(&c, g, "a", 2, &d), FERRY_OK);
    assert_int_equal(d.reply.group, g);
    assert_int_equal(d.count, 2);
    assert_int_equal(d.contents[0], 10);
    assert_int_equal(d.offsets[1], 1);
    assert_int_equal(d.reply.lease_ms, 30000);
    assert_int_equal(d.reply.repeats.size, 0);
    assert_int_equal(d.reply.refused_count, 0);
    assert_int_equal(receive(&c, g, "b", 1000, &e), FERRY_OK);
    assert_int_equal(e.count, 1);
    assert_int_equal(e.contents[0], 12);
    assert_true(e.reply.lease > d.reply.lease);
    assert_false(id_equal(&e.reply.token, &d.reply.token));
    assert_int_equal(receive(&c, g, "b", 1000, &e), FERRY_OK);
    assert_int_equal(e.reply.group, 0);
    assert_int_equal(e.count, 0);
    wire_close(&c);
}

static void a_waiting_receive_is_woken_by_a_message(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, producer;
    uint64_t g = start(f, &c, SUBSCRIPTION_KEYED);
    wire_connect(f, &producer, NULL);
    wait_for(&c, g, "a");
    expect_silence(&c);
    assert_int_equal(wire_produce(&producer, g, 2, 5, NULL), FERRY_OK);
    assert_int_equal(wire_read_delivery(&c, &d), FERRY_OK);
    assert_int_equal(d.count, 1);
    assert_int_equal(d.contents[0], 5);
    wire_close(&producer);
    wire_close(&c);
}

static void a_receive_waits_no_longer_than_it_says(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    struct receive_request q = wire_receive_of(g, "s", "a", 1, 60);
    int64_t began_us = clock_monotonic_us();
    assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_OK);
    assert_true(clock_monotonic_us() - began_us >= 59000);
    assert_int_equal(d.reply.group, 0);
    assert_int_equal(d.reply.refused_count, 0);
    wire_close(&c);
}

static void the_first_partition_that_has_something_answers(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, producer;
    struct wire_topic t;
    broker_up(f);
    wire_connect(f, &c, NULL);
    wire_connect(f, &producer, NULL);
    assert_int_equal(wire_topic_create(&c, "t", 4, NULL), FERRY_OK);
    assert_int_equal(wire_metadata(&c, "t", &t), FERRY_OK);
    struct receive_request q = wire_receive_of(0, "s", "a", 10, 30000);
    q.count = 4;
    for (uint32_t p = 0; p < 4; p++) {
        assert_int_equal(wire_subscribe(&c, t.groups[p], "s", SUBSCRIPTION_QUEUE), FERRY_OK);
        q.items[p].group = t.groups[3 - p];
    }
    assert_int_equal(wire_produce(&c, t.groups[0], 1, 100, NULL), FERRY_OK);
    assert_int_equal(wire_produce(&c, t.groups[2], 1, 102, NULL), FERRY_OK);
    assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_OK);
    assert_int_equal(d.contents[0], 102);
    assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_OK);
    assert_int_equal(d.contents[0], 100);
    /* Two wait for all four: each message goes to one of them. */
    (void)wire_send_receive(&c, &q);
    (void)wire_send_receive(&c, &q);
    expect_silence(&c);
    assert_int_equal(wire_produce(&producer, t.groups[1], 1, 201, NULL), FERRY_OK);
    assert_int_equal(wire_read_delivery(&c, &d), FERRY_OK);
    assert_int_equal(d.reply.group, t.groups[1]);
    assert_int_equal(d.contents[0], 201);
    expect_silence(&c);
    assert_int_equal(wire_produce(&producer, t.groups[1], 1, 202, NULL), FERRY_OK);
    assert_int_equal(wire_read_delivery(&c, &d), FERRY_OK);
    assert_int_equal(d.contents[0], 202);
    wire_close(&producer);
    wire_close(&c);
}

/* A thousand wait: a message wakes one of them, the one that came first. */
static void one_message_wakes_one_of_a_thousand(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, crowd[CROWD_LINKS];
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    for (uint32_t i = 0; i < CROWD_LINKS; i++) {
        wire_connect(f, &crowd[i], NULL);
        for (uint32_t k = 0; k < CROWD / CROWD_LINKS; k++) {
            wait_for(&crowd[i], g, "m");
        }
        wire_hello(&c, "after them"); /* What another connection sends next is taken later. */
        expect_silence(&crowd[i]);
    }
    uint64_t next = 0;
    for (uint32_t i = 0; i < CROWD_LINKS; i++) {
        for (uint32_t k = 0; k < CROWD / CROWD_LINKS; k++) {
            assert_int_equal(wire_produce(&c, g, 1, next, NULL), FERRY_OK);
            assert_int_equal(wire_read_delivery(&crowd[i], &d), FERRY_OK);
            assert_int_equal(d.count, 1);
            assert_int_equal(d.contents[0], next++);
        }
        if (i % 4 == 0 && i + 1 < CROWD_LINKS) {
            expect_silence(&crowd[i + 1]);
        }
    }
    for (uint32_t i = 0; i < CROWD_LINKS; i++) {
        wire_close(&crowd[i]);
    }
    wire_close(&c);
}

/* One batch for many: each gets its part at once. */
static void many_messages_wake_many(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, crowd;
    bool seen[200] = {false};
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    wire_connect(f, &crowd, NULL);
    for (int i = 0; i < 200; i++) {
        wait_for(&crowd, g, "m");
    }
    assert_int_equal(wire_produce(&c, g, 150, 0, NULL), FERRY_OK);
    assert_int_equal(wire_produce(&c, g, 50, 150, NULL), FERRY_OK);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(wire_read_delivery(&crowd, &d), FERRY_OK);
        assert_int_equal(d.count, 1);
        assert_true(d.contents[0] < 200 && !seen[d.contents[0]]);
        seen[d.contents[0]] = true;
    }
    wire_close(&crowd);
    wire_close(&c);
}

/* A member that holds as much as it may does not stand in the way of those behind it. */
static void a_full_member_holds_up_nobody(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client full, other, producer;
    broker_up(f);
    wire_connect(f, &full, NULL);
    wire_connect(f, &other, NULL);
    wire_connect(f, &producer, NULL);
    uint64_t g = wire_new_topic(&full, "t");
    struct subscription_create_request create = {.group = g,
                                                 .name = bytes_of_string("s"),
                                                 .mode = SUBSCRIPTION_QUEUE,
                                                 .from = FERRY_FROM_START,
                                                 .inflight_max = 1};
    assert_int_equal(wire_subscribe_with(&full, &create), FERRY_OK);
    assert_int_equal(wire_produce(&producer, g, 1, 1, NULL), FERRY_OK);
    assert_int_equal(receive(&full, g, "a", 1, &d), FERRY_OK);
    for (int i = 0; i < 100; i++) {
        wait_for(&full, g, "a");
    }
    expect_silence(&full);
    wait_for(&other, g, "b");
    expect_silence(&other);
    assert_int_equal(wire_produce(&producer, g, 2, 2, NULL), FERRY_OK);
    assert_int_equal(wire_read_delivery(&other, &e), FERRY_OK);
    assert_int_equal(e.contents[0], 2);
    expect_silence(&full);
    assert_int_equal(wire_settle(&producer, g, "s", &d, SETTLE_ACK, 0, 1, 0), FERRY_OK);
    assert_int_equal(wire_read_delivery(&full, &e), FERRY_OK);
    assert_int_equal(e.contents[0], 3);
    wire_close(&producer);
    wire_close(&other);
    wire_close(&full);
}

/* A member that goes takes back what it asked for, and nothing of others. */
static void waiting_receives_are_taken_back(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, other;
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    wire_connect(f, &other, NULL);
    wait_for(&c, g, "a");
    wait_for(&c, g, "b");
    wait_for(&c, g, "a");
    wait_for(&other, g, "a");
    expect_silence(&other);
    struct receive_request q = wire_receive_of(g, "s", "a", 0, 0);
    q.max_bytes = 0;
    (void)wire_send_receive(&c, &q);
    for (int i = 0; i < 3; i++) { /* Both that waited, and the one that took them back. */
        assert_int_equal(wire_read_delivery(&c, &d), FERRY_OK);
        assert_int_equal(d.reply.group, 0);
        assert_int_equal(d.count, 0);
    }
    expect_silence(&c);
    expect_silence(&other);
    wire_close(&other);
    wire_close(&c);
}

/* ---- What is refused ---- */

static void bad_receives_are_refused(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    const struct receive_request good = wire_receive_of(g, "s", "a", 1, 0);
    struct receive_request q = good;
    q.count = 0;
    assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_ERR_INVALID_ARGUMENT);
    q = good;
    q.max_messages = 0;
    assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_ERR_INVALID_ARGUMENT);
    q.max_messages = RECEIVE_MESSAGES_MAX + 1;
    assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_ERR_INVALID_ARGUMENT);
    q = good;
    q.max_bytes = 0;
    assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_ERR_INVALID_ARGUMENT);
    q = good;
    q.lease_ms = LEASE_MIN_MS - 1;
    assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_ERR_INVALID_ARGUMENT);
    q.lease_ms = LEASE_MAX_MS + 1;
    assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_ERR_INVALID_ARGUMENT);
    q = good;
    q.items[q.count++].group = g;
    assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_ERR_INVALID_ARGUMENT);
    q = good;
    q.member = bytes_of_string("");
    assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_ERR_BAD_NAME);
    assert_int_equal(wire_receive_now(&c, &good, &d), FERRY_OK);
    wire_close(&c);
}

/* The reply to a receive that nobody serves comes at once, however long it would have waited. */
static void what_is_not_served_is_told_at_once(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    assert_int_equal(wire_subscribe(&c, g, "stream", SUBSCRIPTION_STREAM), FERRY_OK);
    static const struct {
        const char *subscription;
        uint64_t group; /* Added. */
        enum ferry_err status;
    } cases[] = {
        {"none", 0, FERRY_ERR_UNKNOWN_SUBSCRIPTION},
        {"stream", 0, FERRY_ERR_INVALID_ARGUMENT},
        {"s", 7, FERRY_ERR_UNKNOWN_PARTITION},
        {"s", UINT64_MAX / 2, FERRY_ERR_UNKNOWN_PARTITION},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct receive_request q =
            wire_receive_of(g + cases[i].group, cases[i].subscription, "a", 1, 30000);
        assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_OK);
        assert_int_equal(d.reply.group, 0);
        assert_int_equal(d.reply.refused_count, 1);
        assert_int_equal(d.reply.refused[0].group, g + cases[i].group);
        assert_int_equal(d.reply.refused[0].status, cases[i].status);
    }
    struct receive_request q = wire_receive_of(0, "s", "a", 1, 30000);
    assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_OK);
    assert_int_equal(d.reply.refused[0].status, FERRY_ERR_UNKNOWN_PARTITION);
    wire_close(&c);
}

/* What is served is waited for; the answer tells of the rest. */
static void some_may_be_refused_and_others_not(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, producer;
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    wire_connect(f, &producer, NULL);
    struct receive_request q = wire_receive_of(g + 9, "s", "a", 1, 30000);
    q.items[q.count++].group = g;
    (void)wire_send_receive(&c, &q);
    expect_silence(&c);
    assert_int_equal(wire_produce(&producer, g, 1, 1, NULL), FERRY_OK);
    assert_int_equal(wire_read_delivery(&c, &d), FERRY_OK);
    assert_int_equal(d.count, 1);
    assert_int_equal(d.reply.refused_count, 1);
    assert_int_equal(d.reply.refused[0].group, g + 9);
    wire_close(&producer);
    wire_close(&c);
}

static enum ferry_err delete_subscription(struct wire_client *c, uint64_t group, const char *name)
{
    struct subscription_delete_request q = {.group = group, .name = bytes_of_string(name)};
    struct buf b;
    wire_begin(c, &b, COMMAND_SUBSCRIPTION_DELETE);
    subscription_delete_request_encode(&b, &q);
    return wire_call(c, &b, bytes_of(NULL, 0), NULL);
}

static void who_waits_is_told_when_it_is_in_vain(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, other;
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    wire_connect(f, &other, NULL);
    wait_for(&c, g, "a");
    wait_for(&c, g, "b");
    expect_silence(&c);
    assert_int_equal(delete_subscription(&other, g, "s"), FERRY_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(wire_read_delivery(&c, &d), FERRY_OK);
        assert_int_equal(d.reply.refused[0].status, FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    }
    assert_int_equal(wire_subscribe(&other, g, "s", SUBSCRIPTION_QUEUE), FERRY_OK);
    wait_for(&c, g, "a");
    expect_silence(&c);
    assert_int_equal(wire_topic_delete(&other, "t"), FERRY_OK);
    assert_int_equal(wire_read_delivery(&c, &d), FERRY_OK);
    assert_int_equal(d.reply.refused_count, 1);
    assert_int_equal(d.reply.refused[0].status, FERRY_ERR_UNKNOWN_TOPIC);
    wire_close(&other);
    wire_close(&c);
}

/* Paused: nothing comes; resumed: who waited is served. */
static void a_pause_holds_back_what_waits(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, other;
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    wire_connect(f, &other, NULL);
    for (uint32_t pause = 1; pause <= 2; pause++) {
        struct subscription_alter_request q = {
            .group = g, .name = bytes_of_string("s"), .pause = pause};
        struct buf b;
        wire_begin(&other, &b, COMMAND_SUBSCRIPTION_ALTER);
        subscription_alter_request_encode(&b, &q);
        assert_int_equal(wire_call(&other, &b, bytes_of(NULL, 0), NULL), FERRY_OK);
        if (pause == 1) {
            assert_int_equal(wire_produce(&other, g, 1, 1, NULL), FERRY_OK);
            wait_for(&c, g, "a");
            expect_silence(&c);
        }
    }
    assert_int_equal(wire_read_delivery(&c, &d), FERRY_OK);
    assert_int_equal(d.count, 1);
    wire_close(&other);
    wire_close(&c);
}

/* ---- Settling ---- */

static void what_is_settled_is_done_or_comes_again(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct subscription_get_reply get;
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    assert_int_equal(wire_produce(&c, g, 6, 10, NULL), FERRY_OK);
    assert_int_equal(receive(&c, g, "a", 6, &d), FERRY_OK);
    assert_int_equal(d.count, 6);
    assert_int_equal(wire_settle(&c, g, "s", &d, SETTLE_ACK, 0, 3, 0), FERRY_OK);
    assert_int_equal(wire_settle(&c, g, "s", &d, SETTLE_RELEASE, 3, 1, 0), FERRY_OK);
    assert_int_equal(receive(&c, g, "b", 6, &e), FERRY_OK);
    assert_int_equal(e.count, 1);
    assert_int_equal(e.contents[0], 13);
    assert_int_equal(wire_settle(&c, g, "s", &d, SETTLE_NACK, 4, 1, 20), FERRY_OK);
    assert_int_equal(wire_settle(&c, g, "s", &d, SETTLE_REJECT, 5, 1, 0), FERRY_OK);
    struct receive_request q = wire_receive_of(g, "s", "b", 6, 30000);
    assert_int_equal(wire_receive_now(&c, &q, &e), FERRY_OK);
    assert_int_equal(e.count, 1);
    assert_int_equal(e.contents[0], 14);
    assert_int_equal(e.reply.repeats.size, DELIVERY_REPEAT_BYTES);
    assert_int_equal(wire_settle(&c, g, "s", &e, SETTLE_EXTEND, 0, 0, 60000), FERRY_OK);
    assert_int_equal(wire_settle(&c, g, "s", &e, SETTLE_ACK, 4, 1, 0), FERRY_OK);
    assert_int_equal(wire_subscription(&c, g, "s", &get), FERRY_OK);
    assert_int_equal(get.acked, 4);
    assert_int_equal(get.dead, 1);
    assert_int_equal(get.leased, 1);
    assert_int_equal(get.handed_out, 8);
    wire_close(&c);
}

/* A lease that is too old, a token that was guessed, offsets that are nowhere. */
static void what_is_not_held_is_not_settled(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    struct subscription_get_reply get;
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    assert_int_equal(wire_produce(&c, g, 3, 10, NULL), FERRY_OK);
    assert_int_equal(receive(&c, g, "a", 2, &d), FERRY_OK);
    e = d;
    e.reply.token.bytes[7] ^= 1;
    assert_int_equal(wire_settle(&c, g, "s", &e, SETTLE_ACK, 0, 1, 0), FERRY_ERR_LEASE_EXPIRED);
    e = d;
    e.reply.lease++;
    assert_int_equal(wire_settle(&c, g, "s", &e, SETTLE_ACK, 0, 1, 0), FERRY_ERR_LEASE_EXPIRED);
    assert_int_not_equal(wire_settle(&c, g, "s", &d, SETTLE_ACK, 2, 1, 0), FERRY_OK);
    assert_int_not_equal(wire_settle(&c, g, "s", &d, SETTLE_ACK, 0, 3, 0), FERRY_OK);
    assert_int_not_equal(wire_settle(&c, g, "s", &d, SETTLE_ACK, -1, 1, 0), FERRY_OK);
    assert_int_not_equal(wire_settle(&c, g, "s", &d, SETTLE_ACK, INT64_MAX, 1, 0), FERRY_OK);
    assert_int_not_equal(wire_settle(&c, g, "s", &d, SETTLE_ACK, INT64_MAX, UINT32_MAX, 0),
                         FERRY_OK);
    assert_int_not_equal(wire_settle(&c, g, "s", &d, SETTLE_ACK, INT64_MIN, 1, 0), FERRY_OK);
    assert_int_not_equal(wire_settle(&c, g, "s", &d, SETTLE_ACK, 0, 0, 0), FERRY_OK);
    assert_int_not_equal(wire_settle(&c, g, "s", &d, SETTLE_NACK, 0, 1, INT64_MAX), FERRY_OK);
    assert_int_not_equal(wire_settle(&c, g, "s", &d, SETTLE_EXTEND, 0, 0, -5), FERRY_OK);
    assert_int_not_equal(wire_settle(&c, g, "s", &d, 77, 0, 1, 0), FERRY_OK);
    assert_int_equal(wire_settle(&c, g, "none", &d, SETTLE_ACK, 0, 1, 0),
                     FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    assert_int_equal(wire_subscription(&c, g, "s", &get), FERRY_OK);
    assert_int_equal(get.acked, 0);
    assert_int_equal(get.leased, 2);
    assert_int_equal(wire_settle(&c, g, "s", &d, SETTLE_ACK, 0, 2, 0), FERRY_OK);
    assert_int_equal(wire_settle(&c, g, "s", &d, SETTLE_ACK, 0, 2, 0), FERRY_OK); /* Repeated. */
    wire_close(&c);
}

/* Each item has its own outcome. */
static void items_of_one_settlement_stand_alone(void **state)
{
    static struct settle_request q;
    static struct settle_reply reply;
    struct broker_fixture *f = *state;
    struct wire_client c;
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    assert_int_equal(wire_produce(&c, g, 4, 10, NULL), FERRY_OK);
    assert_int_equal(receive(&c, g, "a", 4, &d), FERRY_OK);
    q = (struct settle_request){.group = g,
                                .subscription = bytes_of_string("s"),
                                .member = bytes_of_string("a"),
                                .count = 4};
    for (uint32_t i = 0; i < 4; i++) {
        q.items[i] = (struct settle_item){.lease = d.reply.lease + (i == 2 ? 100 : 0),
                                          .token = d.reply.token,
                                          .kind = SETTLE_ACK,
                                          .first = i,
                                          .count = 1};
    }
    assert_int_equal(wire_settle_items(&c, &q, &reply), FERRY_OK);
    assert_int_equal(reply.count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(reply.results[i].status, i == 2 ? FERRY_ERR_LEASE_EXPIRED : FERRY_OK);
    }
    q.count = 0;
    assert_int_equal(wire_settle_items(&c, &q, &reply), FERRY_ERR_INVALID_ARGUMENT);
    wire_close(&c);
}

/* A lease that ends wakes who waits, and what it held is not settled by it any more. */
static void a_lease_that_ends_wakes_who_waits(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    struct subscription_alter_request alter = {
        .group = g, .name = bytes_of_string("s"), .backoff_min_ms = 1, .backoff_max_ms = 2};
    struct buf b;
    wire_begin(&c, &b, COMMAND_SUBSCRIPTION_ALTER);
    subscription_alter_request_encode(&b, &alter);
    assert_int_equal(wire_call(&c, &b, bytes_of(NULL, 0), NULL), FERRY_OK);
    assert_int_equal(wire_produce(&c, g, 1, 10, NULL), FERRY_OK);
    struct receive_request q = wire_receive_of(g, "s", "a", 1, 30000);
    q.lease_ms = 100;
    assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_OK);
    assert_int_equal(d.reply.lease_ms, 100);
    assert_int_equal(wire_receive_now(&c, &q, &e), FERRY_OK);
    assert_int_equal(e.count, 1);
    assert_int_equal(e.reply.repeats.size, DELIVERY_REPEAT_BYTES);
    assert_int_equal(wire_settle(&c, g, "s", &d, SETTLE_ACK, 0, 1, 0), FERRY_ERR_LEASE_EXPIRED);
    wire_close(&c);
}

/* The number behind a name in the status of the broker's first shard. */
static long long status_of(struct wire_client *c, const char *name)
{
    struct broker_status_reply reply;
    struct wire_reply r;
    struct buf b;
    char key[64], text[STATUS_JSON_MAX_BYTES + 1] = "";
    wire_begin(c, &b, COMMAND_BROKER_STATUS);
    empty_encode(&b);
    assert_int_equal(wire_call(c, &b, bytes_of(NULL, 0), &r), FERRY_OK);
    assert_int_equal(broker_status_reply_decode(r.frame.body, &reply), FERRY_OK);
    memcpy(text, reply.json.data, reply.json.size);
    wire_reply_close(&r);
    (void)snprintf(key, sizeof(key), "\"%s\":", name);
    const char *at = strstr(text, key);
    assert_non_null(at);
    return strtoll(at + strlen(key), NULL, 10);
}

static void the_status_counts_deliveries(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c;
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    assert_int_equal(wire_produce(&c, g, 3, 10, NULL), FERRY_OK);
    struct receive_request q = wire_receive_of(g, "s", "a", 2, 0);
    q.lease_ms = 100;
    assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_OK);
    assert_int_equal(receive(&c, g, "a", 1, &e), FERRY_OK);
    assert_int_equal(wire_settle(&c, g, "s", &e, SETTLE_REJECT, 2, 1, 0), FERRY_OK);
    int64_t until_us = clock_monotonic_us() + 10000000;
    while (status_of(&c, "leases_ended") == 0 && clock_monotonic_us() < until_us) {
        (void)net_poll(NULL, 0, 10);
    }
    assert_int_equal(wire_settle(&c, g, "s", &d, SETTLE_ACK, 0, 1, 0), FERRY_ERR_LEASE_EXPIRED);
    struct subscription_create_request empty = {.group = g,
                                                .name = bytes_of_string("empty"),
                                                .mode = SUBSCRIPTION_QUEUE,
                                                .from = FERRY_FROM_END};
    assert_int_equal(wire_subscribe_with(&c, &empty), FERRY_OK);
    q = wire_receive_of(g, "empty", "a", 1, 30000);
    (void)wire_send_receive(&c, &q);
    assert_int_equal(status_of(&c, "hand_outs"), 2);
    assert_int_equal(status_of(&c, "handed_out"), 3);
    assert_int_equal(status_of(&c, "settlements"), 2);
    assert_int_equal(status_of(&c, "settlements_refused"), 1);
    assert_int_equal(status_of(&c, "leases_ended"), 1);
    assert_int_equal(status_of(&c, "dead_letters"), 1);
    assert_int_equal(status_of(&c, "receives_waiting"), 1);
    wire_close(&c);
}

/* ---- Quotas ---- */

/* What a receive took is paid when it is known. */
static void receives_count_in_quotas(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client c, other;
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    wire_hello(&c, "a");
    wire_connect(f, &other, NULL);
    assert_int_equal(wire_produce(&other, g, 1000, 10, NULL), FERRY_OK);
    assert_int_equal(wire_quota_set(&other, "a", "t", 0, 100, 0), FERRY_OK);
    assert_int_equal(receive(&c, g, "a", 500, &d), FERRY_OK);
    assert_int_equal(d.count, 500);
    assert_int_equal(receive(&c, g, "a", 1, &d), FERRY_ERR_THROTTLED);
    assert_int_equal(receive(&other, g, "a", 1, &d), FERRY_OK);
    assert_int_equal(d.count, 1);
    assert_true(status_of(&other, "throttled_by_quota") > 0);
    wire_close(&other);
    wire_close(&c);
}

/* ---- Clients that misbehave ---- */

/* Who is gone gets nothing: the message goes to the next in line. */
static void who_is_gone_gets_nothing(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client gone, c, producer;
    broker_set(f, "listen.endpoint", "tcp://127.0.0.1:*");
    uint64_t g = start(f, &gone, SUBSCRIPTION_QUEUE);
    wire_connect(f, &c, NULL);
    wire_connect(f, &producer, NULL);
    wait_for(&gone, g, "a");
    expect_silence(&gone);
    wire_close(&gone);
    wait_for(&c, g, "b");
    (void)net_poll(NULL, 0, 300);
    assert_int_equal(wire_produce(&producer, g, 1, 7, NULL), FERRY_OK);
    assert_int_equal(wire_read_delivery(&c, &d), FERRY_OK);
    assert_int_equal(d.contents[0], 7);
    assert_int_equal(d.reply.repeats.size, 0);
    wire_close(&producer);
    wire_close(&c);
}

/* One that asks for much and reads nothing costs the others nothing, and is cut off in the end. */
static void who_does_not_read_costs_others_nothing(void **state)
{
    struct broker_fixture *f = *state;
    struct wire_client slow, c;
    struct buf batch;
    broker_set(f, "listen.endpoint", "tcp://127.0.0.1:*");
    uint64_t g = start(f, &c, SUBSCRIPTION_QUEUE);
    wire_connect(f, &slow, NULL);
    assert_int_equal(wire_subscribe(&c, g, "other", SUBSCRIPTION_QUEUE), FERRY_OK);
    for (int i = 0; i < 200; i++) {
        wait_for(&slow, g, "slow");
    }
    wire_batch(&batch, 0, 0, 1, 900000, 1);
    int64_t began_us = clock_monotonic_us();
    for (int i = 0; i < 150; i++) { /* Twice what a connection may leave unread. */
        struct wire_reply r;
        (void)wire_send_produce(&c, g, buf_bytes(&batch));
        wire_receive(&c, &r);
        assert_int_equal(r.status, FERRY_OK);
        wire_reply_close(&r);
        struct receive_request q = wire_receive_of(g, "other", "b", 1, 10000);
        assert_int_equal(wire_receive_now(&c, &q, &d), FERRY_OK);
        assert_int_equal(d.count, 1);
    }
    assert_true(clock_monotonic_us() - began_us < 60000000);
    buf_fini(&batch);
    wire_close(&slow);
    wire_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        broker_test(what_there_is_is_handed_out_at_once),
        broker_test(a_waiting_receive_is_woken_by_a_message),
        broker_test(a_receive_waits_no_longer_than_it_says),
        broker_test(the_first_partition_that_has_something_answers),
        broker_test(one_message_wakes_one_of_a_thousand),
        broker_test(many_messages_wake_many),
        broker_test(a_full_member_holds_up_nobody),
        broker_test(waiting_receives_are_taken_back),
        broker_test(bad_receives_are_refused),
        broker_test(what_is_not_served_is_told_at_once),
        broker_test(some_may_be_refused_and_others_not),
        broker_test(who_waits_is_told_when_it_is_in_vain),
        broker_test(a_pause_holds_back_what_waits),
        broker_test(what_is_settled_is_done_or_comes_again),
        broker_test(what_is_not_held_is_not_settled),
        broker_test(items_of_one_settlement_stand_alone),
        broker_test(a_lease_that_ends_wakes_who_waits),
        broker_test(the_status_counts_deliveries),
        broker_test(receives_count_in_quotas),
        broker_test(who_is_gone_gets_nothing),
        broker_test(who_does_not_read_costs_others_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
