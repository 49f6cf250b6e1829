/* Nodes in the metadata group: lives of folders, weights, draining, removing; who is a member. */
#include <stdio.h>

#include "base/mem.h"
#include "cluster/meta_internal.h"
#include "lib/meta_fixture.h"
#include "wire/pack.h"

/* ---- Registering ---- */

static void a_node_registers_and_is_found_again_after_a_restart(void **state)
{
    struct meta_fixture *f = *state;
    meta_start(f);
    struct meta_node node = meta_node_with(7, "cellar");
    node.shards = 3;
    node.client_endpoints = "tcp://a:1 tcp://a:2 tcp://a:3";
    node.peer_endpoints = "tcp://a:4 tcp://a:5 tcp://a:6";
    assert_int_equal(meta_join(f, &node), FERRY_OK);
    struct meta_change *c = meta_next_change(f->m);
    assert_true(c != NULL && c->kind == META_NODE_CHANGED && c->node_id == 7);
    mem_free(c);
    for (int round = 0; round < 2; round++) {
        const struct meta_node *n = meta_node_of_member(f->m, node.member);
        assert_non_null(n);
        assert_true(n == meta_node_find(f->m, 7) && n == meta_node_at(f->m, 0));
        assert_string_equal(n->zone, "cellar");
        assert_true(n->boot == 1 && n->boot_id == 107 && n->weight == 1 && !n->draining);
        struct bytes third = meta_endpoint(n->peer_endpoints, 2);
        assert_true(bytes_equal(third, bytes_of_string("tcp://a:6")));
        assert_int_equal(meta_endpoint(n->client_endpoints, 3).size, 0);
        meta_flush(f);
        meta_crash(f);
        meta_start(f);
    }
    assert_null(meta_node_find(f->m, 6));
    assert_null(meta_node_at(f->m, 1));
    assert_null(meta_node_of_member(f->m, node.member + (1ull << 32)));
}

/* A folder that is empty now is no founder of what was there before it. */
static void what_was_there_before_a_member_is_known(void **state)
{
    struct meta_fixture *f = *state;
    meta_start(f);
    meta_join_all(f, 1, 1);
    uint64_t made = meta_make_topic(f, "t", 1, 1, 1)->created_index;
    struct meta_node node = meta_node_with(1, "");
    node.boot = 2;
    assert_int_equal(meta_join(f, &node), FERRY_OK); /* Started again: the same member. */
    assert_true(meta_node_find(f->m, 1)->member_index < made);
    node.member += 1ull << 32;
    assert_int_equal(meta_join(f, &node), FERRY_OK);
    for (int round = 0; round < 2; round++) {
        assert_true(meta_node_find(f->m, 1)->member_index > made);
        assert_int_equal(meta_topic_find(f->m, bytes_of_string("t"))->created_index, made);
        meta_flush(f);
        meta_crash(f);
        meta_start(f);
    }
}

static void the_same_start_may_register_again(void **state)
{
    struct meta_fixture *f = *state;
    meta_start(f);
    struct meta_node node = meta_node_with(1, "");
    assert_int_equal(meta_join(f, &node), FERRY_OK);
    meta_forget_changes(f);
    uint64_t last = replica_last_index(meta_replica(f->m));
    assert_int_equal(meta_join(f, &node), FERRY_OK);
    assert_int_equal(replica_last_index(meta_replica(f->m)), last); /* Nothing new, no entry. */
    assert_null(meta_next_change(f->m));
    node.client_endpoints = "tcp://elsewhere:1";
    assert_int_equal(meta_join(f, &node), FERRY_OK);
    assert_string_equal(meta_node_find(f->m, 1)->client_endpoints, "tcp://elsewhere:1");
}

/* SIM-P08: a copy of the folder that was put back has counted fewer starts, or as many by another
 * start. */
static void a_folder_from_a_copy_is_refused(void **state)
{
    struct meta_fixture *f = *state;
    meta_start(f);
    struct meta_node node = meta_node_with(1, "");
    node.boot = 5;
    assert_int_equal(meta_join(f, &node), FERRY_OK);
    node.boot = 6;
    node.boot_id = 77;
    assert_int_equal(meta_join(f, &node), FERRY_OK);
    node.boot_id = 78;
    assert_int_equal(meta_join(f, &node), FERRY_ERR_OLD_FOLDER); /* Also the sixth start. */
    node.boot = 4;
    assert_int_equal(meta_join(f, &node), FERRY_ERR_OLD_FOLDER);
    meta_flush(f);
    meta_crash(f);
    meta_start(f);
    assert_int_equal(meta_join(f, &node), FERRY_ERR_OLD_FOLDER);
    assert_int_equal(meta_node_find(f->m, 1)->boot, 6);
    node.boot = 7;
    assert_int_equal(meta_join(f, &node), FERRY_OK);
}

/* SIM-P07: a wiped folder comes back as another member, and the old one is gone for ever. */
static void a_wiped_folder_replaces_its_old_life_for_ever(void **state)
{
    struct meta_fixture *f = *state;
    meta_start(f);
    meta_join_all(f, 1, 2);
    struct meta_node old = meta_node_with(2, "");
    assert_int_equal(meta_change_node(f, 2, META_NODE_WEIGHT, 5), FERRY_OK);
    struct meta_node new = old;
    new.member += 1ull << 32;
    assert_int_equal(meta_join(f, &new), FERRY_OK);
    assert_int_equal(meta_node_find(f->m, 2)->member, new.member);
    assert_int_equal(meta_node_find(f->m, 2)->weight, 5); /* What people set stays. */
    assert_int_equal(meta_node_count(f->m), 2);
    old.boot = 99;
    for (int round = 0; round < 3; round++) {
        assert_true(meta_member_is_gone(f->m, old.member));
        assert_false(meta_member_is_gone(f->m, new.member));
        assert_int_equal(meta_join(f, &old), FERRY_ERR_NODE_REPLACED);
        meta_flush(f);
        meta_crash(f);
        meta_start(f);
    }
}

/* Two registrations on the way: the entries decide, in their order. */
static void what_was_registered_meanwhile_is_seen_by_the_entry(void **state)
{
    struct meta_fixture *f = *state;
    struct meta_ticket t[3];
    struct meta_node node[3];
    meta_start(f);
    meta_join_all(f, 1, 1);
    for (int i = 0; i < 3; i++) {
        node[i] = meta_node_with(2, "");
        meta_ticket_init(&t[i]);
    }
    node[1].member += 1ull << 32; /* Replaces node[0], */
    node[2].boot = 2;             /*   which comes again. */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(
            meta_node_register(f->m, &node[i], f->now_ms, f->now_us, &t[i], &f->detail), FERRY_OK);
        assert_true(t[i].waits);
    }
    meta_turn(f);
    meta_expect_done(f, &t[0], FERRY_OK);
    meta_expect_done(f, &t[1], FERRY_OK);
    meta_expect_done(f, &t[2], FERRY_ERR_NODE_REPLACED);
    assert_int_equal(meta_node_find(f->m, 2)->member, node[1].member);
    for (int i = 0; i < 3; i++) {
        meta_ticket_fini(&t[i]);
    }
}

static void bad_nodes_are_refused(void **state)
{
    struct meta_fixture *f = *state;
    meta_start(f);
    struct meta_node n = meta_node_with(0, "");
    assert_int_equal(meta_join(f, &n), FERRY_ERR_INVALID_ARGUMENT);
    n = meta_node_with(META_NODE_ID_MAX + 1, "");
    assert_int_equal(meta_join(f, &n), FERRY_ERR_INVALID_ARGUMENT);
    n = meta_node_with(3, "");
    n.id = 4; /* Not its member's. */
    assert_int_equal(meta_join(f, &n), FERRY_ERR_INVALID_ARGUMENT);
    n = meta_node_with(3, "");
    n.weight = RING_WEIGHT_MAX + 1;
    assert_int_equal(meta_join(f, &n), FERRY_ERR_INVALID_ARGUMENT);
    n = meta_node_with(3, "");
    memset(n.zone, 'z', sizeof(n.zone));
    assert_int_equal(meta_join(f, &n), FERRY_ERR_INVALID_ARGUMENT);
    static const uint32_t shards[] = {0, 2, META_SHARDS_MAX + 1};
    for (int i = 0; i < 3; i++) {
        n = meta_node_with(3, "");
        n.shards = shards[i];
        assert_int_equal(meta_join(f, &n), FERRY_ERR_INVALID_ARGUMENT);
    }
    static const char *const endpoints[] = {"", " tcp://a:1", "tcp://a:1 tcp://a:2"};
    for (int i = 0; i < 3; i++) {
        n = meta_node_with(3, "");
        n.peer_endpoints = endpoints[i];
        assert_int_equal(meta_join(f, &n), FERRY_ERR_INVALID_ARGUMENT);
    }
    assert_int_equal(meta_node_count(f->m), 0);
}

static void there_are_only_so_many_nodes(void **state)
{
    struct meta_fixture *f = *state;
    meta_start(f);
    meta_join_all(f, 1, META_NODES_MAX);
    struct meta_node n = meta_node_with(META_NODES_MAX + 1, "");
    assert_int_equal(meta_join(f, &n), FERRY_ERR_LIMIT_REACHED);
    n = meta_node_with(META_NODES_MAX, ""); /* A known one may still come back. */
    n.member += 1ull << 32;
    assert_int_equal(meta_join(f, &n), FERRY_OK);
    struct raft_members members;
    meta_wanted_members(f->m, &members);
    assert_int_equal(members.voter_count + members.learner_count, META_NODES_MAX);
}

/* ---- Changing ---- */

static void weights_and_marks_survive(void **state)
{
    struct meta_fixture *f = *state;
    meta_start(f);
    meta_join_all(f, 1, 3);
    assert_int_equal(meta_change_node(f, 2, META_NODE_WEIGHT, 9), FERRY_OK);
    assert_int_equal(meta_change_node(f, 3, META_NODE_DRAIN, 0), FERRY_OK);
    assert_int_equal(meta_change_node(f, 2, META_NODE_WEIGHT, RING_WEIGHT_MAX + 1),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(meta_change_node(f, 9, META_NODE_WEIGHT, 1), FERRY_ERR_UNKNOWN_NODE);
    assert_int_equal(meta_change_node(f, 9, META_NODE_DRAIN, 1), FERRY_ERR_UNKNOWN_NODE);
    assert_int_equal(meta_change_node(f, 1, (enum meta_node_change_kind)9, 1),
                     FERRY_ERR_INVALID_ARGUMENT);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(meta_node_find(f->m, 2)->weight, 9);
        assert_true(meta_node_find(f->m, 3)->draining);
        assert_int_equal(meta_ring_permille(f->m, 1), 100);
        assert_int_equal(meta_ring_permille(f->m, 2), 900);
        assert_int_equal(meta_ring_permille(f->m, 3), 0);
        meta_flush(f);
        meta_crash(f);
        meta_start(f);
    }
    assert_int_equal(meta_change_node(f, 3, META_NODE_UNDRAIN, 0), FERRY_OK);
    assert_false(meta_node_find(f->m, 3)->draining);
    assert_int_equal(meta_change_node(f, 2, META_NODE_WEIGHT, 0), FERRY_OK);
    assert_int_equal(meta_ring_permille(f->m, 1), 500);
}

static void a_node_is_removed_when_it_is_empty(void **state)
{
    struct meta_fixture *f = *state;
    meta_start(f);
    meta_join_all(f, 1, 4);
    (void)meta_make_topic(f, "t", 8, 2, 1);
    assert_int_equal(meta_change_node(f, 2, META_NODE_REMOVE, 0), FERRY_ERR_NODE_NOT_EMPTY);
    assert_int_equal(meta_change_node(f, 2, META_NODE_DRAIN, 0), FERRY_OK);
    assert_int_equal(meta_change_node(f, 2, META_NODE_REMOVE, 0), FERRY_ERR_NODE_NOT_EMPTY);
    (void)meta_finish_moves(f);
    assert_int_equal(meta_change_node(f, 2, META_NODE_REMOVE, 0), FERRY_OK);
    struct meta_node node = meta_node_with(2, "");
    for (int round = 0; round < 2; round++) {
        assert_null(meta_node_find(f->m, 2));
        assert_int_equal(meta_node_count(f->m), 3);
        assert_int_equal(meta_join(f, &node), FERRY_ERR_NODE_REPLACED);
        meta_flush(f);
        meta_crash(f);
        meta_start(f);
    }
    node.member += 1ull << 32; /* With an empty folder it may. */
    assert_int_equal(meta_join(f, &node), FERRY_OK);
}

static void the_last_node_stays(void **state)
{
    struct meta_fixture *f = *state;
    meta_start(f);
    meta_join_all(f, 1, 1);
    assert_int_equal(meta_change_node(f, 1, META_NODE_REMOVE, 0), FERRY_ERR_INVALID_ARGUMENT);
    assert_non_null(meta_node_find(f->m, 1));
}

/* A removal and a new topic on the way together: whichever entry is first decides. */
static void a_topic_is_not_placed_on_a_node_that_goes_meanwhile(void **state)
{
    struct meta_fixture *f = *state;
    struct meta_ticket a, b;
    meta_start(f);
    meta_join_all(f, 1, 2);
    meta_ticket_init(&a);
    meta_ticket_init(&b);
    struct topic_create_request spec = meta_spec("t", 4, 2);
    assert_int_equal(
        meta_node_change(f->m, 2, META_NODE_REMOVE, 0, f->now_ms, f->now_us, &a, &f->detail),
        FERRY_OK);
    assert_int_equal(meta_try_topic(f, &spec, 1, &b), FERRY_OK);
    meta_turn(f);
    meta_expect_done(f, &a, FERRY_OK);
    meta_expect_done(f, &b, FERRY_ERR_NOT_READY);
    assert_null(meta_topic_find(f->m, spec.name));
    meta_ticket_fini(&a);
    meta_ticket_fini(&b);

    meta_join_all(f, 3, 3);
    meta_ticket_init(&a);
    meta_ticket_init(&b);
    assert_int_equal(meta_try_topic(f, &spec, 1, &b), FERRY_OK);
    assert_int_equal(
        meta_node_change(f->m, 3, META_NODE_REMOVE, 0, f->now_ms, f->now_us, &a, &f->detail),
        FERRY_OK);
    meta_turn(f);
    meta_expect_done(f, &b, FERRY_OK);
    meta_expect_done(f, &a, FERRY_ERR_NODE_NOT_EMPTY);
    assert_int_equal(meta_node_count(f->m), 2);
    meta_ticket_fini(&a);
    meta_ticket_fini(&b);
}

/* ---- Placement of topics ---- */

static void a_topic_is_placed_on_as_many_nodes_as_it_asks_for(void **state)
{
    struct meta_fixture *f = *state;
    struct meta_ticket t;
    meta_start(f);
    meta_ticket_init(&t);
    struct topic_create_request spec = meta_spec("t", 4, 1);
    assert_int_equal(meta_try_topic(f, &spec, 1, &t), FERRY_ERR_NOT_READY); /* No nodes yet. */
    meta_join_all(f, 1, 5);
    spec.replicas = 6;
    assert_int_equal(meta_try_topic(f, &spec, 1, &t), FERRY_ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(f->detail.text, "5 nodes"));
    spec.replicas = RING_REPLICAS_MAX + 1;
    assert_int_equal(meta_try_topic(f, &spec, 1, &t), FERRY_ERR_INVALID_ARGUMENT);
    meta_ticket_fini(&t);
    const struct meta_topic *topic = meta_make_topic(f, "t", 4, 5, 1);
    uint32_t nodes[2 * RING_REPLICAS_MAX];
    for (uint64_t group = 1; group <= 4; group++) {
        uint32_t partition = 9;
        assert_ptr_equal(meta_topic_of_group(f->m, group, &partition), topic);
        assert_int_equal(partition, group - 1);
        assert_int_equal(meta_placement(f->m, group, nodes), 5);
        assert_memory_equal(nodes, topic->placement + (group - 1) * 5, 5 * sizeof(*nodes));
        assert_int_equal(meta_holders(f->m, group, nodes), 5);
        assert_true(meta_holds(f->m, group, 3));
    }
    assert_int_equal(meta_placement(f->m, 5, nodes), 0);
    assert_int_equal(meta_placement(f->m, 0, nodes), 0);
    assert_false(meta_holds(f->m, 5, 3));
}

static void replicas_are_three_unless_asked_for_or_there_are_fewer_nodes(void **state)
{
    struct meta_fixture *f = *state;
    meta_start(f);
    meta_join_all(f, 1, 2);
    assert_int_equal(meta_make_topic(f, "two", 1, 0, 1)->replicas, 2);
    meta_join_all(f, 3, 5);
    assert_int_equal(meta_make_topic(f, "three", 1, 0, 2)->replicas, 3);
    assert_int_equal(meta_make_topic(f, "two", 1, 0, 3)->replicas, 2); /* It is there already. */
    assert_int_equal(meta_change_node(f, 1, META_NODE_DRAIN, 0), FERRY_OK);
    assert_int_equal(meta_change_node(f, 2, META_NODE_DRAIN, 0), FERRY_OK);
    const struct meta_topic *t = meta_make_topic(f, "t", 50, 0, 4);
    uint32_t counts[META_NODES_MAX];
    (void)meta_finish_moves(f);
    meta_count_replicas(f->m, counts);
    assert_int_equal(t->replicas, 3);
    assert_true(counts[0] == 0 && counts[1] == 0);
    assert_int_equal(counts[2] + counts[3] + counts[4], 2 + 3 + 150);
}

/* A folder from before there were nodes has topics without places. The first node that registers is
 * the one that was alone. */
static void topics_from_before_nodes_are_on_the_first_that_registers(void **state)
{
    struct meta_fixture *f = *state;
    for (int flushed = 0; flushed < 2; flushed++) {
        uint32_t nodes[RING_REPLICAS_MAX];
        char name[8] = {'o', (char)('0' + flushed), '\0'};
        struct meta_fixture *g = meta_fixture_new();
        assert_non_null(g);
        meta_start(g);
        /* As its entry was then: nine elements. */
        struct buf b;
        struct ferry_id id = part_id(1);
        buf_init(&b, 1000);
        pack_array(&b, 9);
        pack_uint(&b, META_TOPIC_CREATE);
        pack_str(&b, bytes_of_string(name));
        pack_id(&b, &id);
        pack_uint(&b, 2);
        pack_uint(&b, 1);
        for (int i = 0; i < 3; i++) {
            pack_int(&b, -1);
        }
        pack_uint(&b, 1);
        struct store_entry entry = {
            .type = STORE_ENTRY_CONTROL, .append_time_ms = g->now_ms, .payload = buf_bytes(&b)};
        uint64_t index = 0;
        assert_int_equal(replica_propose(meta_replica(g->m), &entry, g->now_us, &index), FERRY_OK);
        meta_turn(g);
        if (flushed == 1) {
            meta_flush(g);
        }
        meta_crash(g);
        meta_start(g);
        assert_int_equal(meta_placement(g->m, 1, nodes), 0);
        assert_false(meta_holds(g->m, 1, 0));
        meta_join_all(g, 3, 4);
        bool all_changed = false;
        for (struct meta_change *c; (c = meta_next_change(g->m)) != NULL;) {
            all_changed = all_changed || c->kind == META_ALL_CHANGED;
            mem_free(c);
        }
        assert_true(all_changed);
        for (int round = 0; round < 2; round++) {
            assert_int_equal(meta_placement(g->m, 2, nodes), 1);
            assert_int_equal(nodes[0], 3);
            meta_flush(g);
            meta_crash(g);
            meta_start(g);
        }
        buf_fini(&b);
        meta_fixture_free(g);
    }
    meta_start(f);
}

/* Two creations of one name on the way: the second is answered with what the first made. */
static void a_topic_that_was_made_meanwhile_answers_with_its_id(void **state)
{
    struct meta_fixture *f = *state;
    struct meta_ticket t[3];
    meta_start(f);
    meta_join_all(f, 1, 1);
    struct topic_create_request spec = meta_spec("t", 4, 1);
    for (uint64_t i = 0; i < 3; i++) {
        meta_ticket_init(&t[i]);
        spec.partitions = i == 2 ? 5 : 4;
        assert_int_equal(meta_try_topic(f, &spec, i + 1, &t[i]), FERRY_OK);
    }
    meta_turn(f);
    struct ferry_id id = part_id(1);
    meta_expect_done(f, &t[0], FERRY_OK);
    meta_expect_done(f, &t[1], FERRY_OK);
    meta_expect_done(f, &t[2], FERRY_ERR_TOPIC_EXISTS);
    assert_memory_equal(&t[1].topic_id, &id, sizeof(id));
    for (int i = 0; i < 3; i++) {
        meta_ticket_fini(&t[i]);
    }
}

/* ---- Members ---- */

/* A founder that is still starting keeps its vote until it registers or its id does as another. */
static void founders_that_have_not_registered_keep_their_votes(void **state)
{
    struct meta_fixture *f = *state;
    struct raft_members members;
    meta_start(f);
    meta_join_all(f, 2, 2);
    meta_wanted_members(f->m, &members);
    assert_true(raft_members_has_voter(&members, 1)); /* In force, by its folder from before. */
    struct meta_node node = meta_node_with(1, "");
    assert_int_equal(meta_join(f, &node), FERRY_OK);
    meta_wanted_members(f->m, &members);
    assert_false(raft_members_has_voter(&members, 1));
    assert_int_equal(members.voter_count + members.learner_count, 2);
}

static void a_replaced_life_is_no_member_and_the_new_one_is(void **state)
{
    struct meta_fixture *f = *state;
    struct raft_members members;
    meta_start(f);
    struct meta_node node = meta_node_with(1, "");
    node.member = 1; /* Of a folder from before incarnations: the voter in force. */
    assert_int_equal(meta_join(f, &node), FERRY_OK);
    meta_join_all(f, 2, 6);
    meta_wanted_members(f->m, &members);
    assert_int_equal(members.voter_count, 5);
    assert_true(raft_members_has_voter(&members, 1));
    node.member = 1 + (3ull << 32);
    assert_int_equal(meta_join(f, &node), FERRY_OK);
    meta_wanted_members(f->m, &members);
    assert_int_equal(members.voter_count + members.learner_count, 6);
    assert_false(raft_members_has_voter(&members, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        meta_unit(a_node_registers_and_is_found_again_after_a_restart),
        meta_unit(what_was_there_before_a_member_is_known),
        meta_unit(the_same_start_may_register_again),
        meta_unit(a_folder_from_a_copy_is_refused),
        meta_unit(a_wiped_folder_replaces_its_old_life_for_ever),
        meta_unit(what_was_registered_meanwhile_is_seen_by_the_entry),
        meta_unit(bad_nodes_are_refused),
        meta_unit(there_are_only_so_many_nodes),
        meta_unit(weights_and_marks_survive),
        meta_unit(a_node_is_removed_when_it_is_empty),
        meta_unit(the_last_node_stays),
        meta_unit(a_topic_is_not_placed_on_a_node_that_goes_meanwhile),
        meta_unit(a_topic_is_placed_on_as_many_nodes_as_it_asks_for),
        meta_unit(replicas_are_three_unless_asked_for_or_there_are_fewer_nodes),
        meta_unit(topics_from_before_nodes_are_on_the_first_that_registers),
        meta_unit(a_topic_that_was_made_meanwhile_answers_with_its_id),
        meta_unit(founders_that_have_not_registered_keep_their_votes),
        meta_unit(a_replaced_life_is_no_member_and_the_new_one_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
