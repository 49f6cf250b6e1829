/* Three brokers found a cluster once, and find each other again. */
#include "lib/broker_cluster.h"

#include <stdio.h>
#include <string.h>

#include "net/net.h"

static bool all_up(const struct ferry_nodes *nodes, uint32_t count)
{
    bool up = nodes->count == count && nodes->leader_node != 0;
    for (size_t i = 0; i < nodes->count; i++) {
        up = up && nodes->nodes[i].state == FERRY_NODE_UP &&
             nodes->nodes[i].metadata_role != FERRY_METADATA_NONE;
    }
    return up;
}

/* One cluster, three nodes, whatever the order they come in. */
static void three_brokers_found_one_cluster(void **state)
{
    struct broker_cluster *c = *state;
    struct ferry_nodes *nodes;
    cluster_found(c);
    cluster_wait(c, all_up, 3, "three nodes are up");
    assert_int_equal(ferry_nodes_list(c->client, CLUSTER_WAIT_MS, &nodes), FERRY_OK);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(nodes->nodes[i].node_id, i + 1);
    }
    ferry_nodes_free(&nodes);
}

/* A founder that nobody answers waits: a cluster is not founded by a part of the list. */
static void two_of_three_found_nothing(void **state)
{
    struct broker_cluster *c = *state;
    cluster_up(c, 1);
    cluster_up(c, 2);
    (void)net_poll(NULL, 0, 1500);
    assert_false(broker_is_ready(c->nodes[1].broker));
    assert_false(broker_is_ready(c->nodes[2].broker));
    cluster_up(c, 3);
    cluster_ready(c, 1);
    cluster_ready(c, 2);
    cluster_ready(c, 3);
}

/* Another list of founders is another cluster: nobody guesses which was meant. */
static void founders_with_different_lists_wait(void **state)
{
    struct broker_cluster *c = *state;
    char list[SEEDS_MAX_BYTES + 300];
    (void)snprintf(list, sizeof(list), "%s,4=%s", c->nodes[3].options.bootstrap,
                   c->nodes[4].options.peer_listen);
    cluster_set(c, 3, "node.bootstrap", list);
    for (uint32_t i = 1; i <= 3; i++) {
        cluster_up(c, i);
    }
    (void)net_poll(NULL, 0, 1500);
    for (uint32_t i = 1; i <= 3; i++) {
        assert_false(broker_is_ready(c->nodes[i].broker));
        assert_int_equal(broker_failure(c->nodes[i].broker), FERRY_OK);
    }
}

/* All stop, all start: the same cluster with what was in it. */
static void a_cluster_that_was_stopped_goes_on(void **state)
{
    struct broker_cluster *c = *state;
    cluster_found(c);
    cluster_topic(c, "t", 4, 3);
    cluster_produce(c, "t", 100);
    for (uint32_t i = 1; i <= 3; i++) {
        cluster_crash(c, i);
    }
    for (uint32_t i = 1; i <= 3; i++) {
        cluster_up(c, i);
    }
    for (uint32_t i = 1; i <= 3; i++) {
        cluster_ready(c, i);
    }
    cluster_produce(c, "t", 100);
    cluster_check(c, "t");
}

/* A node of its own becomes the first of a cluster when it is given a port for peers, and keeps
 * what it had. */
static void a_single_broker_becomes_a_cluster(void **state)
{
    struct broker_cluster *c = *state;
    char peers[256];
    memcpy(peers, c->nodes[1].options.peer_listen, sizeof(peers));
    cluster_set(c, 1, "node.bootstrap", "");
    cluster_set(c, 1, "node.peer_listen", "");
    cluster_up(c, 1);
    cluster_ready(c, 1);
    cluster_client(c);
    cluster_topic(c, "t", 2, 1);
    cluster_produce(c, "t", 50);
    cluster_down(c, 1);
    cluster_set(c, 1, "node.peer_listen", peers);
    cluster_up(c, 1);
    cluster_ready(c, 1);
    cluster_set(c, 4, "node.join", peers);
    cluster_up(c, 4);
    cluster_ready(c, 4);
    cluster_wait(c, all_up, 2, "two nodes are up");
    cluster_produce(c, "t", 50);
    cluster_check(c, "t");
}

/* Nodes with different numbers of shards find each other's. */
static void nodes_with_two_and_three_shards_form_a_cluster(void **state)
{
    struct broker_cluster *c = *state;
    cluster_set(c, 1, "node.shards", "2");
    cluster_set(c, 2, "node.shards", "3");
    cluster_found(c);
    cluster_topic(c, "t", 12, 3);
    cluster_produce(c, "t", 300);
    cluster_check(c, "t");
    cluster_settle(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cluster_test(three_brokers_found_one_cluster),
        cluster_test(two_of_three_found_nothing),
        cluster_test(founders_with_different_lists_wait),
        cluster_test(a_cluster_that_was_stopped_goes_on),
        cluster_test(a_single_broker_becomes_a_cluster),
        cluster_test(nodes_with_two_and_three_shards_form_a_cluster),
    };
    return cmocka_run_group_tests_name("cluster_form", tests, NULL, NULL);
}
