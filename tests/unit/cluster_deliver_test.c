/* Receives, settlements and quotas where leaders change: by raw frames to three brokers. */
#include "base/clock.h"
#include "base/mem.h"
#include "lib/broker_cluster.h"
#include "lib/broker_samples.h"
#include "net/net.h"

static struct wire_delivery d;

/* Links to any node live in the context of one that stays. */
static void connect_to(struct broker_cluster *c, struct broker_fixture *f, struct wire_client *w,
                       uint32_t stays, uint32_t node)
{
    f->broker = c->nodes[stays].broker;
    wire_connect(f, w, c->nodes[node].options.endpoint);
}

static uint64_t group_of(struct broker_cluster *c, const char *topic, uint32_t partition)
{
    struct broker_fixture f = {0};
    struct wire_client w;
    struct wire_topic t;
    connect_to(c, &f, &w, 1, 1);
    assert_int_equal(wire_metadata(&w, topic, &t), FERRY_OK);
    wire_close(&w);
    return t.groups[partition];
}

static uint32_t other_than(uint32_t node)
{
    return node % CLUSTER_FOUNDERS + 1;
}

static uint64_t make_queue(struct broker_cluster *c, uint32_t *leader)
{
    struct broker_fixture f = {0};
    struct wire_client w;
    cluster_found(c);
    cluster_topic(c, "t", 1, 3);
    uint64_t g = group_of(c, "t", 0);
    *leader = cluster_leader(c, "t", 0);
    connect_to(c, &f, &w, *leader, *leader);
    assert_int_equal(wire_subscribe(&w, g, "s", SUBSCRIPTION_QUEUE), FERRY_OK);
    wire_close(&w);
    return g;
}

/* Who waits is told that somebody else leads now, at once. */
static void a_leader_that_goes_tells_who_waits(void **state)
{
    struct broker_cluster *c = *state;
    struct broker_fixture f = {0};
    struct wire_client w;
    uint32_t leader;
    uint64_t g = make_queue(c, &leader);
    uint32_t next = other_than(leader);
    connect_to(c, &f, &w, leader, leader);
    for (int i = 0; i < 20; i++) {
        struct receive_request q = wire_receive_of(g, "s", "m", 1, 60000);
        (void)wire_send_receive(&w, &q);
    }
    int64_t began_us = clock_monotonic_us();
    assert_int_equal(ferry_partition_transfer(c->client, "t", 0, next, CLUSTER_WAIT_MS), FERRY_OK);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(wire_read_delivery(&w, &d), FERRY_OK);
        assert_int_equal(d.reply.group, 0);
        assert_int_equal(d.reply.refused_count, 1);
        assert_int_equal(d.reply.refused[0].group, g);
        assert_int_equal(d.reply.refused[0].status, FERRY_ERR_NOT_LEADER);
    }
    assert_true(clock_monotonic_us() - began_us < 30000000);
    wire_close(&w);
}

/* What was handed out and what was settled is so with the next leader, too. */
static void leases_and_acks_survive_their_leader(void **state)
{
    struct broker_cluster *c = *state;
    struct broker_fixture f = {0};
    struct wire_client w;
    struct subscription_get_reply get;
    uint32_t leader;
    uint64_t g = make_queue(c, &leader);
    cluster_produce(c, "t", 10);
    connect_to(c, &f, &w, leader, leader);
    struct receive_request q = wire_receive_of(g, "s", "m", 6, 10000);
    assert_int_equal(wire_receive_now(&w, &q, &d), FERRY_OK);
    uint32_t held = d.count;
    assert_in_range(held, 1, 6);
    assert_int_equal(wire_settle(&w, g, "s", &d, SETTLE_ACK, 0, 1, 0), FERRY_OK);
    wire_close(&w);
    cluster_crash(c, leader);
    uint32_t next = cluster_leader(c, "t", 0);
    connect_to(c, &f, &w, next, next);
    assert_int_equal(wire_subscription(&w, g, "s", &get), FERRY_OK);
    assert_int_equal(get.acked, 1);
    assert_int_equal(get.leased, held - 1);
    assert_int_equal(wire_settle(&w, g, "s", &d, SETTLE_ACK, 0, 1, 0), FERRY_OK); /* Repeated. */
    if (held > 1) {
        assert_int_equal(wire_settle(&w, g, "s", &d, SETTLE_ACK, 1, held - 1, 0), FERRY_OK);
    }
    uint64_t acked = held;
    while (acked < 10) {
        q.max_messages = 10;
        assert_int_equal(wire_receive_now(&w, &q, &d), FERRY_OK);
        assert_true(d.count > 0);
        assert_true(d.offsets[0] >= (int64_t)held); /* Nothing acked comes again. */
        assert_int_equal(wire_settle(&w, g, "s", &d, SETTLE_ACK, d.offsets[0], d.count, 0),
                         FERRY_OK);
        acked += d.count;
    }
    assert_int_equal(wire_subscription(&w, g, "s", &get), FERRY_OK);
    assert_int_equal(get.acked, 10);
    assert_int_equal(get.position, 10);
    wire_close(&w);
    cluster_up(c, leader);
    cluster_ready(c, leader);
}

/* Nobody but the leader serves any of the commands. */
static void a_follower_serves_none_of_the_commands(void **state)
{
    struct broker_cluster *c = *state;
    struct broker_fixture f = {0};
    struct wire_client w;
    uint32_t leader;
    uint64_t g = make_queue(c, &leader);
    uint32_t follower = other_than(leader);
    connect_to(c, &f, &w, follower, follower);
    for (size_t i = 0; i < wire_sample_count; i++) {
        enum ferry_err err = wire_ask_sample(&w, &wire_samples[i], g);
        if (err != FERRY_ERR_NOT_LEADER) {
            fail_msg("%s: %s", command_name((uint16_t)wire_samples[i].command),
                     ferry_err_name(err));
        }
    }
    wire_close(&w);
}

/* Set at one node, a quota counts at all, also at one that comes back. */
static void quotas_count_on_every_node(void **state)
{
    struct broker_cluster *c = *state;
    struct broker_fixture f = {0};
    struct wire_client w;
    struct ferry_nodes *nodes;
    uint32_t leader;
    uint64_t g = make_queue(c, &leader);
    assert_int_equal(ferry_nodes_list(c->client, CLUSTER_WAIT_MS, &nodes), FERRY_OK);
    uint32_t controller = nodes->leader_node;
    ferry_nodes_free(&nodes);
    connect_to(c, &f, &w, controller, controller);
    assert_int_equal(wire_quota_set(&w, "a", "", 1, 0, 0), FERRY_OK);
    wire_close(&w);
    for (int round = 0; round < 3; round++) {
        leader = cluster_leader(c, "t", 0);
        connect_to(c, &f, &w, leader, leader);
        wire_hello(&w, "a");
        enum ferry_err err = FERRY_OK; /* The first of a node is let in and is a long debt. */
        int64_t until_us = clock_monotonic_us() + (int64_t)CLUSTER_WAIT_MS * 1000;
        while (err != FERRY_ERR_THROTTLED && clock_monotonic_us() < until_us) {
            err = wire_produce(&w, g, 1, 1, NULL);
        }
        assert_int_equal(err, FERRY_ERR_THROTTLED);
        wire_close(&w);
        if (round == 0) {
            cluster_down(c, leader);
            cluster_up(c, leader);
            cluster_ready(c, leader);
        } else {
            assert_int_equal(
                ferry_partition_transfer(c->client, "t", 0, other_than(leader), CLUSTER_WAIT_MS),
                FERRY_OK);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cluster_test(a_leader_that_goes_tells_who_waits),
        cluster_test(leases_and_acks_survive_their_leader),
        cluster_test(a_follower_serves_none_of_the_commands),
        cluster_test(quotas_count_on_every_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
