/* Nodes that join and leave, and the partitions that move with them. */
#include "lib/broker_cluster.h"

static uint32_t replicas_of(const struct ferry_nodes *nodes, uint32_t node)
{
    for (size_t i = 0; i < nodes->count; i++) {
        if (nodes->nodes[i].node_id == node) {
            return nodes->nodes[i].replicas;
        }
    }
    return 0;
}

static bool has_replicas(const struct ferry_nodes *nodes, uint32_t node)
{
    return replicas_of(nodes, node) > 0;
}

static bool is_drained(const struct ferry_nodes *nodes, uint32_t node)
{
    return nodes->nodes[node - 1].state == FERRY_NODE_DRAINED;
}

static bool is_gone(const struct ferry_nodes *nodes, uint32_t node)
{
    for (size_t i = 0; i < nodes->count; i++) {
        if (nodes->nodes[i].node_id == node) {
            return false;
        }
    }
    return true;
}

static void apply_plan(struct broker_cluster *c)
{
    struct ferry_moves *plan;
    uint32_t moves = 0;
    assert_int_equal(ferry_cluster_plan(c->client, CLUSTER_WAIT_MS, &plan), FERRY_OK);
    assert_true(plan->count > 0);
    assert_int_equal(ferry_cluster_apply(c->client, plan->plan_id, CLUSTER_WAIT_MS, &moves),
                     FERRY_OK);
    assert_int_equal(moves, plan->count);
    ferry_moves_free(&plan);
}

/* A fourth node joins and gets its share, while records come in. */
static void a_node_joins_and_takes_its_share(void **state)
{
    struct broker_cluster *c = *state;
    cluster_found(c);
    cluster_topic(c, "t", 12, 3);
    cluster_produce(c, "t", 300);
    cluster_up(c, 4);
    cluster_ready(c, 4);
    apply_plan(c);
    cluster_produce(c, "t", 300);
    cluster_wait(c, has_replicas, 4, "the fourth node has replicas");
    cluster_settle(c);
    cluster_produce(c, "t", 100);
    cluster_check(c, "t");
}

/* A node is emptied, removed, and ends; nothing is lost. */
static void a_node_is_drained_and_removed(void **state)
{
    struct broker_cluster *c = *state;
    cluster_found(c);
    cluster_topic(c, "t", 6, 3);
    cluster_produce(c, "t", 200);
    cluster_up(c, 4);
    cluster_ready(c, 4);
    assert_int_equal(ferry_node_change(c->client, 1, FERRY_NODE_REMOVE, 0, CLUSTER_WAIT_MS),
                     FERRY_ERR_NODE_NOT_EMPTY);
    assert_int_equal(ferry_node_change(c->client, 1, FERRY_NODE_DRAIN, 0, CLUSTER_WAIT_MS),
                     FERRY_OK);
    cluster_produce(c, "t", 200);
    cluster_wait(c, is_drained, 1, "node 1 is drained");
    cluster_settle(c);
    assert_int_equal(ferry_node_change(c->client, 1, FERRY_NODE_REMOVE, 0, CLUSTER_WAIT_MS),
                     FERRY_OK);
    assert_int_equal(cluster_failure(c, 1), FERRY_ERR_NODE_REPLACED);
    cluster_wait(c, is_gone, 1, "node 1 is gone");
    cluster_produce(c, "t", 100);
    cluster_check(c, "t");
    /* Its folder is no member any more, and says so at the next start. */
    cluster_crash(c, 1);
    cluster_up(c, 1);
    assert_int_equal(cluster_failure(c, 1), FERRY_ERR_NODE_REPLACED);
}

/* The leader of everything dies in the middle of the moves: the others go on with them. */
static void moves_go_on_after_a_crash(void **state)
{
    struct broker_cluster *c = *state;
    cluster_found(c);
    cluster_topic(c, "t", 12, 3);
    cluster_produce(c, "t", 300);
    cluster_up(c, 4);
    cluster_ready(c, 4);
    apply_plan(c);
    cluster_crash(c, 1);
    cluster_produce(c, "t", 100);
    cluster_up(c, 1);
    cluster_ready(c, 1);
    cluster_settle(c);
    cluster_check(c, "t");
}

/* An aborted drain leaves the cluster as it was. */
static void an_aborted_drain_goes_back(void **state)
{
    struct broker_cluster *c = *state;
    cluster_found(c);
    cluster_topic(c, "t", 12, 3);
    cluster_produce(c, "t", 200);
    cluster_up(c, 4);
    cluster_ready(c, 4);
    assert_int_equal(ferry_node_change(c->client, 2, FERRY_NODE_DRAIN, 0, CLUSTER_WAIT_MS),
                     FERRY_OK);
    assert_int_equal(ferry_node_change(c->client, 2, FERRY_NODE_UNDRAIN, 0, CLUSTER_WAIT_MS),
                     FERRY_OK);
    cluster_settle(c);
    cluster_produce(c, "t", 100);
    cluster_check(c, "t");
}

/* Back where it was before: the old replica's data is not in the way. */
static void a_partition_moves_away_and_back(void **state)
{
    struct broker_cluster *c = *state;
    cluster_found(c);
    cluster_topic(c, "t", 4, 3);
    cluster_produce(c, "t", 200);
    cluster_up(c, 4);
    cluster_ready(c, 4);
    for (int round = 0; round < 2; round++) {
        uint32_t node = round == 0 ? 2 : 4;
        assert_int_equal(ferry_node_change(c->client, node, FERRY_NODE_DRAIN, 0, CLUSTER_WAIT_MS),
                         FERRY_OK);
        cluster_wait(c, is_drained, node, "it is drained");
        assert_int_equal(ferry_node_change(c->client, node, FERRY_NODE_UNDRAIN, 0, CLUSTER_WAIT_MS),
                         FERRY_OK);
        cluster_produce(c, "t", 100);
    }
    cluster_settle(c);
    cluster_check(c, "t");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cluster_test(a_node_joins_and_takes_its_share), cluster_test(a_node_is_drained_and_removed),
        cluster_test(moves_go_on_after_a_crash),        cluster_test(an_aborted_drain_goes_back),
        cluster_test(a_partition_moves_away_and_back),
    };
    return cmocka_run_group_tests_name("cluster_move", tests, NULL, NULL);
}
