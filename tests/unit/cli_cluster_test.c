/* What `ferry cluster status`, `partition info` and `node check safe-to-stop` conclude from what
 * the nodes say, and how progress is told. The sources under test are included; see
 * cli_args_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/cluster_view.c"
#include "cli/format.c"
#include "cli/progress_text.c"

#define NODES        4
#define GROUP        100u
#define MEMBER(node) (0x100000000u + (node))

/* Three nodes with "orders"/0 and the metadata group, led by node 1; node 4 is a bystander. */
struct cluster {
    struct cluster_view view;
    struct ferry_nodes nodes;
    struct ferry_node node[NODES];
    struct ferry_placements placements;
    struct ferry_placement placement;
    struct ferry_groups groups;
    struct ferry_shard_groups shard[NODES];
    struct ferry_group replica[NODES][2];
    char why[VIEW_WORDS_BYTES];
};

static void set_members(struct ferry_group *g, bool leader)
{
    g->member_count = 3;
    for (uint32_t i = 0; i < 3; i++) {
        g->members[i] = (struct ferry_group_member){.node_id = i + 1,
                                                    .member = MEMBER(i + 1),
                                                    .kind = FERRY_MEMBER_VOTER,
                                                    .match = leader ? 5000 : 0,
                                                    .silent_ms = leader ? 20 : 0};
    }
}

static int setup(void **state)
{
    struct cluster *c = calloc(1, sizeof(*c));
    c->view.nodes = &c->nodes;
    c->view.placements = &c->placements;
    c->view.groups = &c->groups;
    c->nodes = (struct ferry_nodes){.count = NODES, .nodes = c->node, .leader_node = 1};
    c->groups = (struct ferry_groups){.count = NODES, .shards = c->shard};
    c->placements = (struct ferry_placements){.count = 1, .placements = &c->placement};
    c->placement = (struct ferry_placement){.topic = "orders",
                                            .group = GROUP,
                                            .leader_node = 1,
                                            .replica_count = 3,
                                            .replicas = {1, 2, 3},
                                            .wanted_replicas = 3};
    for (uint32_t i = 0; i < NODES; i++) {
        c->node[i] = (struct ferry_node){.node_id = i + 1,
                                         .member = MEMBER(i + 1),
                                         .state = FERRY_NODE_UP,
                                         .metadata_role = i == 0  ? FERRY_METADATA_LEADER
                                                          : i < 3 ? FERRY_METADATA_VOTER
                                                                  : FERRY_METADATA_LEARNER};
        c->shard[i] = (struct ferry_shard_groups){.node_id = i + 1, .groups = c->replica[i]};
        c->shard[i].count = i < 3 ? 2 : 0;
        for (uint32_t k = 0; k < 2; k++) {
            c->replica[i][k] =
                (struct ferry_group){.group = k == 0 ? 0 : GROUP,
                                     .state = i == 0 ? FERRY_GROUP_LEADER : FERRY_GROUP_FOLLOWER,
                                     .term = 7,
                                     .commit = 5000,
                                     .last = 5001,
                                     .leader_node = 1};
            set_members(&c->replica[i][k], i == 0);
        }
    }
    *state = c;
    return 0;
}

static int teardown(void **state)
{
    struct cluster *c = *state;
    mem_free(c->view.partitions);
    free(c);
    return 0;
}

/* The leader's word on "orders"/0. */
static struct ferry_group *word(struct cluster *c)
{
    return &c->replica[0][1];
}

static const struct view_partition *build(struct cluster *c)
{
    mem_free(c->view.partitions);
    assert_int_equal(view_build(&c->view), FERRY_OK);
    assert_int_equal(c->view.count, 2);
    return &c->view.partitions[1];
}

static enum view_health health(struct cluster *c)
{
    return view_health_of(&c->view, build(c), c->why);
}

static enum view_safety safety(struct cluster *c, uint32_t node_id)
{
    return view_safety_of(&c->view, build(c), node_id, c->why);
}

/* ---- Health. */

static void a_partition_with_all_in_sync_is_healthy_and_any_node_may_stop(void **state)
{
    struct cluster *c = *state;
    char name[VIEW_WORDS_BYTES];
    uint64_t lag;
    assert_int_equal(health(c), VIEW_HEALTHY);
    assert_int_equal(c->view.partitions[1].leader_node, 1);
    view_name(&c->view.partitions[0], name);
    assert_string_equal(name, "metadata");
    view_name(&c->view.partitions[1], name);
    assert_string_equal(name, "orders/0");
    for (uint32_t node_id = 1; node_id <= NODES; node_id++) {
        assert_int_equal(safety(c, node_id), VIEW_SAFE);
        assert_true(view_node_lag(&c->view, node_id, &lag));
        assert_int_equal(lag, 0);
    }
}

static void a_follower_that_is_silent_behind_or_broken_is_named(void **state)
{
    struct cluster *c = *state;
    uint64_t lag;
    word(c)->members[2].silent_ms = 73000;
    assert_int_equal(health(c), VIEW_UNDER_REPLICATED);
    assert_string_equal(c->why, "node 3 is silent for 73.0 s");
    word(c)->members[2].silent_ms = -1;
    assert_int_equal(health(c), VIEW_UNDER_REPLICATED);
    assert_string_equal(c->why, "node 3 was not heard since 1 leads");
    word(c)->members[2].silent_ms = 5;
    word(c)->members[2].match = 3000;
    assert_int_equal(health(c), VIEW_UNDER_REPLICATED);
    assert_string_equal(c->why, "node 3 is 2,000 entries behind");
    assert_true(view_node_lag(&c->view, 3, &lag));
    assert_int_equal(lag, 2000);
    word(c)->members[2].match = 4990;
    assert_int_equal(health(c), VIEW_HEALTHY);
    c->replica[2][1].state = FERRY_GROUP_DAMAGED;
    assert_int_equal(health(c), VIEW_UNDER_REPLICATED);
    assert_string_equal(c->why, "node 3 repairs a damaged entry");
    c->replica[2][1].state = FERRY_GROUP_FOLLOWER;
    c->node[2].member++;
    assert_int_equal(health(c), VIEW_UNDER_REPLICATED);
    assert_string_equal(c->why, "node 3 has another data folder now");
}

static void a_quiet_group_hears_of_its_members_by_their_nodes(void **state)
{
    struct cluster *c = *state;
    word(c)->quiet = true;
    word(c)->members[1].silent_ms = 900000;
    assert_int_equal(health(c), VIEW_HEALTHY);
    c->node[1].state = FERRY_NODE_SILENT;
    c->node[1].silent_ms = 4000;
    assert_int_equal(health(c), VIEW_UNDER_REPLICATED);
}

static void a_group_that_was_just_woken_tells_the_silence_of_the_node(void **state)
{
    struct cluster *c = *state;
    c->node[1].state = FERRY_NODE_SILENT;
    c->node[1].silent_ms = 4000;
    word(c)->members[1].silent_ms = 900000;
    assert_int_equal(health(c), VIEW_UNDER_REPLICATED);
    assert_string_equal(c->why, "node 2 is silent for 4.00 s");
    word(c)->members[1].silent_ms = -1;
    assert_int_equal(health(c), VIEW_UNDER_REPLICATED);
    assert_string_equal(c->why, "node 2 is silent for 4.00 s");
}

static void fewer_voters_than_wanted_are_under_replicated(void **state)
{
    struct cluster *c = *state;
    word(c)->members[2].kind = FERRY_MEMBER_LEARNER;
    assert_int_equal(health(c), VIEW_UNDER_REPLICATED);
    assert_string_equal(c->why, "2 of 3 replicas");
}

static void of_two_that_say_they_lead_the_higher_term_does(void **state)
{
    struct cluster *c = *state;
    c->replica[1][1].state = FERRY_GROUP_LEADER_NOT_READY;
    c->replica[1][1].term = 8;
    set_members(&c->replica[1][1], true);
    assert_int_equal(build(c)->leader_node, 2);
}

/* Nobody leads, or whoever does has not answered: these are not the same. */
static void no_leader_and_no_answer_are_not_the_same(void **state)
{
    struct cluster *c = *state;
    uint64_t lag;
    word(c)->state = FERRY_GROUP_FOLLOWER;
    assert_int_equal(health(c), VIEW_NO_LEADER);
    assert_int_equal(safety(c, 2), VIEW_NOT_SAFE);
    assert_int_equal(safety(c, 4), VIEW_SAFE); /* It has no replica. */
    c->shard[0].err = FERRY_ERR_TIMEOUT;
    c->shard[0].count = 0;
    assert_int_equal(health(c), VIEW_UNKNOWN);
    assert_int_equal(safety(c, 2), VIEW_SAFETY_UNKNOWN);
    assert_false(view_node_lag(&c->view, 2, &lag));
    assert_true(view_node_lag(&c->view, 4, &lag)); /* Has nothing of it. */
    c->shard[0].err = FERRY_OK;
    c->shard[3].err = FERRY_ERR_TIMEOUT; /* Cannot be the leader: has no replica. */
    assert_int_equal(health(c), VIEW_NO_LEADER);
}

/* ---- Safety. */

static void a_node_whose_stop_would_break_the_quorum_is_not_safe(void **state)
{
    struct cluster *c = *state;
    word(c)->members[2].silent_ms = 73000;
    assert_int_equal(safety(c, 2), VIEW_NOT_SAFE);
    assert_string_equal(c->why, "1 of 3 would be left, 2 are needed: node 3 is silent for 73.0 s");
    assert_int_equal(safety(c, 1), VIEW_NOT_SAFE);
    assert_int_equal(safety(c, 3), VIEW_SAFE); /* It is gone already. */
    assert_int_equal(safety(c, 4), VIEW_SAFE);
}

static void the_only_replica_must_not_stop(void **state)
{
    struct cluster *c = *state;
    word(c)->member_count = 1;
    c->placement.replica_count = 1;
    c->placement.wanted_replicas = 1;
    assert_int_equal(health(c), VIEW_HEALTHY);
    assert_int_equal(safety(c, 1), VIEW_NOT_SAFE);
    assert_string_equal(c->why, "node 1 has the only replica");
    assert_int_equal(safety(c, 2), VIEW_SAFE);
}

static void two_replicas_need_both(void **state)
{
    struct cluster *c = *state;
    word(c)->member_count = 2;
    assert_int_equal(safety(c, 2), VIEW_NOT_SAFE);
}

static void a_partition_that_changes_its_members_is_left_alone(void **state)
{
    struct cluster *c = *state;
    word(c)->member_count = 4;
    word(c)->members[3] = (struct ferry_group_member){
        .node_id = 4, .member = MEMBER(4), .kind = FERRY_MEMBER_LEAVING, .match = 5000};
    assert_int_equal(safety(c, 2), VIEW_NOT_SAFE);
    assert_int_equal(safety(c, 4), VIEW_NOT_SAFE);
    word(c)->members[3].kind = FERRY_MEMBER_LEARNER;
    assert_int_equal(safety(c, 4), VIEW_SAFE);
    assert_int_equal(safety(c, 2), VIEW_SAFE);
}

static void the_metadata_group_is_judged_like_a_partition(void **state)
{
    struct cluster *c = *state;
    c->replica[0][0].members[2].silent_ms = 9000;
    (void)build(c);
    const struct view_partition *metadata = &c->view.partitions[0];
    assert_int_equal(view_health_of(&c->view, metadata, c->why), VIEW_UNDER_REPLICATED);
    assert_int_equal(view_safety_of(&c->view, metadata, 2, c->why), VIEW_NOT_SAFE);
    assert_int_equal(view_safety_of(&c->view, metadata, 4, c->why), VIEW_SAFE);
}

static void a_node_answers_when_all_its_shards_do(void **state)
{
    struct cluster *c = *state;
    enum ferry_err err = FERRY_OK;
    assert_true(view_node_answers(&c->view, 2, NULL));
    c->shard[3].node_id = 2; /* Its second shard. */
    c->shard[3].err = FERRY_ERR_TIMEOUT;
    assert_false(view_node_answers(&c->view, 2, &err));
    assert_int_equal(err, FERRY_ERR_TIMEOUT);
    assert_false(view_node_answers(&c->view, 9, &err));
    assert_int_equal(err, FERRY_ERR_UNREACHABLE);
}

/* ---- Progress. */

static void progress_is_told_in_moves_bytes_and_time(void **state)
{
    (void)state;
    char text[PROGRESS_TEXT_BYTES];
    struct progress p = {.moves_total = 12, .bytes_total = INT64_C(4) << 30};
    progress_describe(&p, text);
    assert_string_equal(text, "0 of 12 moves, 0 B of 4.00 GiB");
    p.moves_done = 3;
    p.bytes_done = UINT64_C(1) << 30;
    p.elapsed_us = 50000000;
    progress_describe(&p, text);
    assert_string_equal(text, "3 of 12 moves, 1.00 GiB of 4.00 GiB, about 2 min 31 s left");
    assert_true(progress_part(&p) > 0.249 && progress_part(&p) < 0.251);
    p.moves_done = 12;
    p.bytes_done = UINT64_C(5) << 30;
    progress_describe(&p, text);
    assert_string_equal(text, "12 of 12 moves, 5.00 GiB of 4.00 GiB");
    assert_true(progress_part(&p) == 1);
}

static void moves_without_bytes_count_by_themselves(void **state)
{
    (void)state;
    char text[PROGRESS_TEXT_BYTES];
    struct progress p = {.moves_total = 4, .moves_done = 2, .elapsed_us = 2000000};
    progress_describe(&p, text);
    assert_string_equal(text, "2 of 4 moves, about 3.00 s left");
    p = (struct progress){.moves_total = 0};
    progress_describe(&p, text);
    assert_string_equal(text, "0 of 0 moves");
    assert_true(progress_part(&p) == 0);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_partition_with_all_in_sync_is_healthy_and_any_node_may_stop),
        CASE(a_follower_that_is_silent_behind_or_broken_is_named),
        CASE(a_quiet_group_hears_of_its_members_by_their_nodes),
        CASE(a_group_that_was_just_woken_tells_the_silence_of_the_node),
        CASE(fewer_voters_than_wanted_are_under_replicated),
        CASE(of_two_that_say_they_lead_the_higher_term_does),
        CASE(no_leader_and_no_answer_are_not_the_same),
        CASE(a_node_whose_stop_would_break_the_quorum_is_not_safe),
        CASE(the_only_replica_must_not_stop),
        CASE(two_replicas_need_both),
        CASE(a_partition_that_changes_its_members_is_left_alone),
        CASE(the_metadata_group_is_judged_like_a_partition),
        CASE(a_node_answers_when_all_its_shards_do),
        cmocka_unit_test(progress_is_told_in_moves_bytes_and_time),
        cmocka_unit_test(moves_without_bytes_count_by_themselves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
