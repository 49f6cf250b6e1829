/* Brokers that go away, by crash and by order, and come back. */
#include "lib/broker_cluster.h"

#include "base/clock.h"
#include "net/net.h"

/* The leader dies; what it acked is there, and the next leader takes more. */
static void what_was_acked_survives_its_leader(void **state)
{
    struct broker_cluster *c = *state;
    cluster_found(c);
    cluster_topic(c, "t", 1, 3);
    for (int round = 0; round < 3; round++) {
        cluster_produce(c, "t", 100);
        uint32_t leader = cluster_leader(c, "t", 0);
        cluster_crash(c, leader);
        cluster_produce(c, "t", 100);
        cluster_check(c, "t");
        cluster_up(c, leader);
        cluster_ready(c, leader);
    }
    cluster_settle(c);
}

/* The metadata leader dies: topics are made all the same. */
static void topics_are_made_without_the_first_metadata_leader(void **state)
{
    struct broker_cluster *c = *state;
    struct ferry_nodes *nodes;
    cluster_found(c);
    assert_int_equal(ferry_nodes_list(c->client, CLUSTER_WAIT_MS, &nodes), FERRY_OK);
    uint32_t leader = nodes->leader_node;
    ferry_nodes_free(&nodes);
    cluster_crash(c, leader);
    cluster_topic(c, "t", 4, 3);
    cluster_produce(c, "t", 100);
    cluster_up(c, leader);
    cluster_ready(c, leader);
    cluster_check(c, "t");
}

/* Two of three are gone: nothing is acked. They come back: it goes on by itself. */
static void without_a_quorum_nothing_is_acked(void **state)
{
    struct broker_cluster *c = *state;
    cluster_found(c);
    cluster_topic(c, "t", 1, 3);
    cluster_produce(c, "t", 10);
    cluster_crash(c, 1);
    cluster_crash(c, 2);
    (void)net_poll(NULL, 0, 2000); /* Longer than the last one may believe that it leads. */
    struct ferry_topic_spec spec = {.name = "u", .partitions = 1};
    assert_int_not_equal(ferry_topic_create(c->client, &spec, 1500), FERRY_OK);
    cluster_up(c, 1);
    cluster_up(c, 2);
    cluster_ready(c, 1);
    cluster_ready(c, 2);
    cluster_produce(c, "t", 10);
    cluster_check(c, "t");
}

/* Told to stop, a broker hands its leaderships over first: clients hardly notice. */
static void a_broker_that_stops_hands_over(void **state)
{
    struct broker_cluster *c = *state;
    cluster_found(c);
    cluster_topic(c, "t", 9, 3);
    cluster_produce(c, "t", 100);
    for (uint32_t i = 1; i <= 3; i++) {
        int64_t began_us = clock_monotonic_us();
        cluster_down(c, i);
        assert_true(clock_monotonic_us() - began_us < 5000000);
        for (int32_t p = 0; p < 9; p++) {
            assert_int_not_equal(cluster_leader(c, "t", p), i);
        }
        cluster_produce(c, "t", 50);
        cluster_up(c, i);
        cluster_ready(c, i);
        cluster_settle(c);
    }
    cluster_check(c, "t");
}

/* A lost folder: the node comes back as another member and is filled by the others. */
static void a_wiped_node_comes_back_as_another(void **state)
{
    struct broker_cluster *c = *state;
    struct ferry_nodes *nodes;
    cluster_found(c);
    cluster_topic(c, "t", 6, 3);
    cluster_produce(c, "t", 300);
    cluster_settle(c);
    assert_int_equal(ferry_nodes_list(c->client, CLUSTER_WAIT_MS, &nodes), FERRY_OK);
    uint64_t before = nodes->nodes[1].member;
    ferry_nodes_free(&nodes);
    cluster_crash(c, 2);
    cluster_wipe(c, 2);
    cluster_up(c, 2);
    cluster_ready(c, 2);
    cluster_settle(c);
    assert_int_equal(ferry_nodes_list(c->client, CLUSTER_WAIT_MS, &nodes), FERRY_OK);
    assert_true(nodes->nodes[1].member != before);
    ferry_nodes_free(&nodes);
    /* What it holds now counts: the two others may go one after the other. */
    cluster_crash(c, 1);
    cluster_produce(c, "t", 100);
    cluster_check(c, "t");
}

/* A folder restored from a copy has forgotten what it acked: it is noticed, and says so. */
static void an_old_copy_of_a_folder_is_refused(void **state)
{
    struct broker_cluster *c = *state;
    cluster_found(c);
    cluster_topic(c, "t", 3, 3);
    cluster_down(c, 3);
    cluster_copy_folder(c, 3, "copy");
    cluster_up(c, 3);
    cluster_ready(c, 3);
    cluster_produce(c, "t", 100);
    cluster_settle(c);
    cluster_down(c, 3);
    cluster_restore_folder(c, 3, "copy");
    cluster_up(c, 3);
    assert_int_equal(cluster_failure(c, 3), FERRY_ERR_OLD_FOLDER);
    cluster_down(c, 3);
    cluster_wipe(c, 3);
    cluster_up(c, 3);
    cluster_ready(c, 3);
    cluster_settle(c);
    cluster_check(c, "t");
}

/* As the leader of a partition sees it: this node votes, and has what is committed. */
static bool votes_and_has_all(struct broker_cluster *c, const char *topic, uint32_t node)
{
    struct ferry_nodes *nodes;
    struct ferry_groups *groups;
    bool found = false;
    if (ferry_nodes_list(c->client, CLUSTER_WAIT_MS, &nodes) != FERRY_OK) {
        return false;
    }
    bool listed = ferry_groups_list(c->client, nodes, 1000, &groups) == FERRY_OK;
    ferry_nodes_free(&nodes);
    for (size_t i = 0; listed && i < groups->count; i++) {
        for (size_t k = 0; k < groups->shards[i].count; k++) {
            const struct ferry_group *g = &groups->shards[i].groups[k];
            bool led = g->state == FERRY_GROUP_LEADER && strcmp(g->topic, topic) == 0;
            for (uint32_t m = 0; led && m < g->member_count; m++) {
                found = found || (g->members[m].node_id == node && g->commit > 0 &&
                                  g->members[m].kind == FERRY_MEMBER_VOTER &&
                                  g->members[m].match >= g->commit);
            }
        }
    }
    if (listed) {
        ferry_groups_free(&groups);
    }
    return found;
}

/* Of five replicas one is dead and another loses its folder: that the first does not answer does
 * not keep the second from being replaced. */
static void a_lost_folder_is_replaced_while_another_node_is_dead(void **state)
{
    struct broker_cluster *c = *state;
    cluster_found(c);
    for (uint32_t node = 4; node <= 5; node++) {
        cluster_up(c, node);
        cluster_ready(c, node);
    }
    cluster_topic(c, "t", 1, 5);
    cluster_produce(c, "t", 50);
    cluster_settle(c);
    cluster_crash(c, 5);
    cluster_crash(c, 4);
    cluster_wipe(c, 4);
    cluster_up(c, 4);
    cluster_ready(c, 4);
    cluster_produce(c, "t", 10); /* More than the old life of node 4 ever had. */
    for (int tries = 0; !votes_and_has_all(c, "t", 4); tries++) {
        assert_in_range(tries, 0, 15);
        (void)net_poll(NULL, 0, 100);
    }
    cluster_produce(c, "t", 50);
    cluster_check(c, "t");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cluster_test(a_lost_folder_is_replaced_while_another_node_is_dead),
        cluster_test(what_was_acked_survives_its_leader),
        cluster_test(topics_are_made_without_the_first_metadata_leader),
        cluster_test(without_a_quorum_nothing_is_acked),
        cluster_test(a_broker_that_stops_hands_over),
        cluster_test(a_wiped_node_comes_back_as_another),
        cluster_test(an_old_copy_of_a_folder_is_refused),
    };
    return cmocka_run_group_tests_name("cluster_failover", tests, NULL, NULL);
}
