/* Three brokers serve: topics, records, positions, leases, whoever is asked. */
#include <poll.h>

#include "base/clock.h"
#include "lib/broker_cluster.h"
#include "lib/broker_fixture.h"

#include "net/net.h"

/* Any broker says where things are, and whoever does not lead says who does. */
static void what_is_stored_is_read_whoever_is_asked_first(void **state)
{
    struct broker_cluster *c = *state;
    cluster_found(c);
    cluster_topic(c, "t", 8, 3);
    cluster_produce(c, "t", 500);
    cluster_check(c, "t");
    cluster_settle(c);
}

static bool each_leads_its_part(struct broker_cluster *c, uint32_t least)
{
    uint32_t led[CLUSTER_NODES + 1] = {0};
    struct ferry_topic_info *info;
    assert_int_equal(ferry_topic_info(c->client, "t", CLUSTER_WAIT_MS, &info), FERRY_OK);
    for (size_t i = 0; i < info->partition_count; i++) {
        if (info->partitions[i].err == FERRY_OK) {
            led[info->partitions[i].leader_node]++;
        }
    }
    ferry_topic_info_free(&info);
    return led[1] >= least && led[2] >= least && led[3] >= least;
}

/* As many partitions as there are, led by all nodes in turn. Where somebody else was quicker at the
 * founding, the leadership is handed on a while later. */
static void leaders_are_spread(void **state)
{
    struct broker_cluster *c = *state;
    cluster_found(c);
    cluster_topic(c, "t", 30, 3);
    int64_t until_us = clock_monotonic_us() + (int64_t)CLUSTER_WAIT_MS * 1000;
    while (!each_leads_its_part(c, 8)) {
        assert_true(clock_monotonic_us() < until_us);
        (void)poll(NULL, 0, 100);
    }
}

/* Deleted is deleted on every node; a topic of the same name is another. */
static void a_topic_is_deleted_everywhere(void **state)
{
    struct broker_cluster *c = *state;
    cluster_found(c);
    for (int round = 0; round < 2; round++) {
        c->sent = 0;
        cluster_topic(c, "t", 3, 3);
        cluster_produce(c, "t", 50);
        cluster_check(c, "t");
        assert_int_equal(ferry_topic_delete(c->client, "t", CLUSTER_WAIT_MS), FERRY_OK);
    }
    cluster_settle(c); /* No replica of it is left that would be counted. */
    struct ferry_topic_info *info;
    assert_int_equal(ferry_topic_info(c->client, "t", CLUSTER_WAIT_MS, &info),
                     FERRY_ERR_UNKNOWN_TOPIC);
}

/* More replicas than nodes is refused with what to do. */
static void more_replicas_than_nodes_are_refused(void **state)
{
    struct broker_cluster *c = *state;
    struct ferry_topic_spec spec = {.name = "t", .partitions = 1, .replicas = 4};
    cluster_found(c);
    assert_int_equal(ferry_topic_create(c->client, &spec, CLUSTER_WAIT_MS),
                     FERRY_ERR_INVALID_ARGUMENT);
}

/* Positions are as new as the question, also on a partition that has gone quiet. */
static void positions_are_kept_by_the_cluster(void **state)
{
    struct broker_cluster *c = *state;
    struct ferry_consumer *consumer;
    struct ferry_subscription_info *info;
    cluster_found(c);
    cluster_topic(c, "t", 1, 3);
    cluster_produce(c, "t", 20);
    assert_int_equal(
        ferry_consumer_open(&consumer, c->client, "t", "s", FERRY_FROM_START, CLUSTER_WAIT_MS),
        FERRY_OK);
    assert_int_equal(ferry_consumer_commit(consumer, 0, 7, CLUSTER_WAIT_MS), FERRY_OK);
    ferry_consumer_close(&consumer);
    (void)net_poll(NULL, 0, 1500); /* Quiet now. */
    assert_int_equal(ferry_subscription_info(c->client, "t", "s", CLUSTER_WAIT_MS, &info),
                     FERRY_OK);
    assert_int_equal(info->partitions[0].position, 7);
    ferry_subscription_info_free(&info);
}

/* A partition is handed to another node on request, and nothing is lost or doubled by it. */
static void a_partition_is_handed_to_another_node(void **state)
{
    struct broker_cluster *c = *state;
    cluster_found(c);
    cluster_topic(c, "t", 1, 3);
    for (int round = 0; round < 4; round++) {
        cluster_produce(c, "t", 50);
        uint32_t to = cluster_leader(c, "t", 0) % 3 + 1;
        assert_int_equal(ferry_partition_transfer(c->client, "t", 0, to, CLUSTER_WAIT_MS),
                         FERRY_OK);
        assert_int_equal(cluster_leader(c, "t", 0), to);
    }
    cluster_produce(c, "t", 50);
    cluster_check(c, "t");
    assert_int_equal(ferry_partition_transfer(c->client, "t", 0, 4, CLUSTER_WAIT_MS),
                     FERRY_ERR_UNKNOWN_NODE);
}

/* ---- What is said on the wire ---- */

/* Raw frames to one node of the cluster. */
static void connect_to(struct broker_cluster *c, struct broker_fixture *f, uint32_t node,
                       struct wire_client *client)
{
    f->broker = c->nodes[node].broker;
    wire_connect(f, client, NULL);
}

static uint64_t group_of(struct broker_cluster *c, const char *topic)
{
    struct ferry_placements *placements;
    assert_int_equal(ferry_placements_list(c->client, topic, CLUSTER_WAIT_MS, &placements),
                     FERRY_OK);
    uint64_t group = placements->placements[0].group;
    ferry_placements_free(&placements);
    return group;
}

/* A node that follows says who leads: the endpoint, and nothing that a person would have to read.
 */
static void who_does_not_lead_says_who_does(void **state)
{
    struct broker_cluster *c = *state;
    struct broker_fixture f = {.root = ""};
    struct wire_client client;
    struct wire_reply r;
    struct buf batch;
    cluster_found(c);
    cluster_topic(c, "t", 1, 3);
    cluster_produce(c, "t", 1);
    uint64_t group = group_of(c, "t");
    uint32_t leader = cluster_leader(c, "t", 0);
    connect_to(c, &f, leader % 3 + 1, &client);
    wire_batch(&batch, 0, 0, 1, 8, 1);
    (void)wire_send_produce(&client, group, buf_bytes(&batch));
    buf_fini(&batch);
    wire_receive(&client, &r);
    assert_int_equal(r.status, FERRY_ERR_NOT_LEADER);
    assert_true(bytes_equal(r.error.detail, bytes_of_string(c->nodes[leader].options.endpoint)));
    wire_reply_close(&r);
    wire_close(&client);
}

/* A reader that waits at a leader is sent away when the leader is one no longer, not left to wait.
 */
static void a_long_poll_ends_with_the_leadership(void **state)
{
    struct broker_cluster *c = *state;
    static struct fetch_reply reply;
    struct broker_fixture f = {.root = ""};
    struct wire_client client;
    struct wire_reply r;
    cluster_found(c);
    cluster_topic(c, "t", 1, 3);
    uint64_t group = group_of(c, "t");
    uint32_t leader = cluster_leader(c, "t", 0);
    connect_to(c, &f, leader, &client);
    struct fetch_request q = wire_fetch_of(group, 0, 60000);
    (void)wire_send_fetch(&client, &q);
    assert_false(wire_receive_within(&client, &r, 300));
    net_message_close(&r.message);
    assert_int_equal(ferry_partition_transfer(c->client, "t", 0, leader % 3 + 1, CLUSTER_WAIT_MS),
                     FERRY_OK);
    wire_receive(&client, &r);
    wire_fetch_reply(&r, &reply);
    assert_int_equal(reply.items[0].status, FERRY_ERR_NOT_LEADER);
    wire_reply_close(&r);
    wire_close(&client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cluster_test(what_is_stored_is_read_whoever_is_asked_first),
        cluster_test(leaders_are_spread),
        cluster_test(a_topic_is_deleted_everywhere),
        cluster_test(more_replicas_than_nodes_are_refused),
        cluster_test(positions_are_kept_by_the_cluster),
        cluster_test(a_partition_is_handed_to_another_node),
        cluster_test(who_does_not_lead_says_who_does),
        cluster_test(a_long_poll_ends_with_the_leadership),
    };
    return cmocka_run_group_tests_name("cluster_produce", tests, NULL, NULL);
}
