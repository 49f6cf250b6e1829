/* Moves: planned, a few at a time, done, taken back; draining. */
#include <stdio.h>

#include "base/mem.h"
#include "base/prng.h"
#include "cluster/meta_internal.h"
#include "lib/meta_fixture.h"

struct planned {
    enum ferry_err err;
    uint64_t id;
    size_t count;
    uint32_t logged;
};

static uint64_t plan_now(struct meta_fixture *f, size_t *count)
{
    struct plan plan;
    plan_init(&plan);
    assert_int_equal(meta_plan(f->m, &plan), FERRY_OK);
    uint64_t id = plan.id;
    *count = plan.count;
    plan_fini(&plan);
    return id;
}

static enum ferry_err apply_id(struct meta_fixture *f, uint64_t id, uint32_t *logged)
{
    struct meta_ticket t;
    meta_ticket_init(&t);
    enum ferry_err err = meta_apply_plan(f->m, id, f->now_ms, f->now_us, &t);
    if (err == FERRY_OK && t.waits) {
        meta_turn(f);
        assert_ptr_equal(meta_next_done(f->m), &t);
        err = t.base.err;
    }
    *logged = t.moves;
    meta_ticket_fini(&t);
    return err;
}

static struct planned apply_now(struct meta_fixture *f)
{
    struct planned p = {0};
    p.id = plan_now(f, &p.count);
    p.err = apply_id(f, p.id, &p.logged);
    return p;
}

static void abort_now(struct meta_fixture *f, uint32_t *dropped, uint32_t *reverting)
{
    struct meta_ticket t;
    meta_ticket_init(&t);
    assert_int_equal(meta_abort_moves(f->m, f->now_ms, f->now_us, &t), FERRY_OK);
    if (t.waits) {
        meta_turn(f);
        meta_expect_done(f, &t, FERRY_OK);
    }
    *dropped = t.dropped;
    *reverting = t.reverting;
    meta_ticket_fini(&t);
}

/* Three nodes with a topic, and a fourth that has nothing yet. */
static void start_with_four(struct meta_fixture *f)
{
    meta_start(f);
    meta_join_all(f, 1, 3);
    (void)meta_make_topic(f, "t", 60, 2, 1);
    meta_join_all(f, 4, 4);
    meta_forget_changes(f);
}

static size_t count_state(const struct meta_fixture *f, enum meta_move_state wanted)
{
    size_t count = 0;
    const struct meta_move *move;
    for (size_t i = 0; (move = meta_move_at(f->m, i)) != NULL; i++) {
        count += move->state == wanted ? 1 : 0;
    }
    return count;
}

static const struct meta_move *first_active(const struct meta_fixture *f)
{
    const struct meta_move *move;
    for (size_t i = 0; (move = meta_move_at(f->m, i)) != NULL; i++) {
        if (move->state == META_MOVE_ACTIVE) {
            return move;
        }
    }
    fail_msg("no move is active");
    return NULL;
}

/* ---- Plan and apply ---- */

static void a_plan_is_applied_a_few_moves_at_a_time(void **state)
{
    struct meta_fixture *f = *state;
    start_with_four(f);
    struct planned p = apply_now(f);
    assert_int_equal(p.err, FERRY_OK);
    assert_true(p.count > 10 && p.logged == p.count && meta_move_count(f->m) == p.count);
    meta_turn(f);
    size_t started = 0;
    while (meta_move_count(f->m) > 0) {
        uint32_t busy[5] = {0};
        const struct meta_move *move;
        for (size_t i = 0; (move = meta_move_at(f->m, i)) != NULL; i++) {
            for (uint32_t k = 0; k < 2 && move->state == META_MOVE_ACTIVE; k++) {
                bool comes = move->step.to[k] != move->step.from[0] &&
                             move->step.to[k] != move->step.from[1];
                busy[move->step.to[k]] += comes ? 1 : 0;
            }
        }
        for (uint32_t id = 1; id <= 4; id++) {
            assert_true(busy[id] <= META_ACTIVE_MOVES_NODE);
        }
        move = first_active(f);
        uint64_t group = move->step.group;
        assert_int_equal(meta_report_done(f, group, move->step.to, 2), FERRY_OK);
        meta_turn(f);
        started++;
        assert_true(started <= p.count && meta_moves_done(f->m) == started);
    }
    size_t left = 1;
    (void)plan_now(f, &left);
    assert_int_equal(left, 0);
    uint32_t counts[META_NODES_MAX];
    meta_count_replicas(f->m, counts);
    assert_true(counts[3] > 15 && counts[0] + counts[1] + counts[2] + counts[3] == 120);
}

/* What a shard sees: the placement stays until the move is done, the target leads the way. */
static void an_active_move_has_a_target_and_both_sets_hold_the_group(void **state)
{
    struct meta_fixture *f = *state;
    uint32_t from[RING_REPLICAS_MAX], nodes[2 * RING_REPLICAS_MAX];
    start_with_four(f);
    (void)apply_now(f);
    meta_turn(f);
    struct plan_step step = first_active(f)->step;
    assert_int_equal(meta_placement(f->m, step.group, from), 2);
    assert_memory_equal(from, step.from, 2 * sizeof(*from));
    assert_int_equal(meta_target(f->m, step.group, nodes), 2);
    assert_memory_equal(nodes, step.to, 2 * sizeof(*nodes));
    assert_int_equal(meta_holders(f->m, step.group, nodes), 2 + plan_step_copies(&step));
    assert_true(meta_holds(f->m, step.group, step.to[0]) &&
                meta_holds(f->m, step.group, step.to[1]));
    bool told = false;
    for (struct meta_change *c; (c = meta_next_change(f->m)) != NULL;) {
        told = told || (c->kind == META_PLACEMENT_CHANGED && c->group == step.group);
        mem_free(c);
    }
    assert_true(told);
    assert_int_equal(meta_report_done(f, step.group, step.to, 2), FERRY_OK);
    assert_null(meta_move_of(f->m, step.group));
    assert_int_equal(meta_placement(f->m, step.group, nodes), 2);
    assert_memory_equal(nodes, step.to, 2 * sizeof(*nodes));
    assert_int_equal(meta_holders(f->m, step.group, nodes), 2);
}

static void a_planned_move_changes_nothing_yet(void **state)
{
    struct meta_fixture *f = *state;
    uint32_t nodes[2 * RING_REPLICAS_MAX];
    start_with_four(f);
    (void)apply_now(f);
    meta_turn(f);
    const struct meta_move *move = NULL;
    for (size_t i = 0; (move = meta_move_at(f->m, i)) != NULL; i++) {
        if (move->state == META_MOVE_PLANNED) {
            break;
        }
    }
    assert_non_null(move);
    struct plan_step step = move->step;
    assert_int_equal(meta_target(f->m, step.group, nodes), 2);
    assert_memory_equal(nodes, step.from, 2 * sizeof(*nodes));
    assert_int_equal(meta_holders(f->m, step.group, nodes), 2);
    assert_int_equal(meta_report_done(f, step.group, step.to, 2), FERRY_OK);
    assert_int_equal(meta_move_of(f->m, step.group)->state, META_MOVE_PLANNED);
}

static void another_plan_than_the_one_shown_is_refused(void **state)
{
    struct meta_fixture *f = *state;
    uint32_t logged = 0;
    size_t count = 0;
    start_with_four(f);
    uint64_t shown = plan_now(f, &count);
    assert_int_equal(meta_change_node(f, 4, META_NODE_WEIGHT, 7), FERRY_OK);
    assert_int_equal(apply_id(f, shown, &logged), FERRY_ERR_PLAN_CHANGED);
    assert_int_equal(meta_move_count(f->m), 0);
    struct planned p = apply_now(f);
    assert_true(p.err == FERRY_OK && p.logged > 0);
    assert_int_equal(apply_now(f).err, FERRY_ERR_MOVES_RUNNING);
    (void)meta_finish_moves(f);
    p = apply_now(f); /* Nothing to do is not an error. */
    assert_true(p.err == FERRY_OK && p.count == 0 && p.logged == 0);
}

/* Two people apply the same plan at once. */
static void the_second_apply_on_the_way_is_refused(void **state)
{
    struct meta_fixture *f = *state;
    struct meta_ticket a, b;
    size_t count = 0;
    start_with_four(f);
    uint64_t id = plan_now(f, &count);
    meta_ticket_init(&a);
    meta_ticket_init(&b);
    assert_int_equal(meta_apply_plan(f->m, id, f->now_ms, f->now_us, &a), FERRY_OK);
    assert_int_equal(meta_apply_plan(f->m, id, f->now_ms, f->now_us, &b), FERRY_OK);
    meta_turn(f);
    meta_expect_done(f, &a, FERRY_OK);
    meta_expect_done(f, &b, FERRY_ERR_MOVES_RUNNING);
    assert_int_equal(meta_move_count(f->m), count);
    meta_ticket_fini(&a);
    meta_ticket_fini(&b);
}

/* A node that a plan counts on is removed by an entry before it. */
static void a_plan_to_a_node_that_goes_meanwhile_is_refused(void **state)
{
    struct meta_fixture *f = *state;
    struct meta_ticket a, b;
    size_t count = 0;
    start_with_four(f);
    uint64_t id = plan_now(f, &count);
    meta_ticket_init(&a);
    meta_ticket_init(&b);
    assert_int_equal(
        meta_node_change(f->m, 4, META_NODE_REMOVE, 0, f->now_ms, f->now_us, &a, &f->detail),
        FERRY_OK);
    assert_int_equal(meta_apply_plan(f->m, id, f->now_ms, f->now_us, &b), FERRY_OK);
    meta_turn(f);
    meta_expect_done(f, &a, FERRY_OK);
    meta_expect_done(f, &b, FERRY_ERR_PLAN_CHANGED);
    assert_int_equal(meta_move_count(f->m), 0);
    meta_ticket_fini(&a);
    meta_ticket_fini(&b);
}

static void moves_of_a_deleted_topic_are_gone(void **state)
{
    struct meta_fixture *f = *state;
    start_with_four(f);
    (void)meta_make_topic(f, "other", 20, 1, 2);
    assert_int_equal(meta_change_node(f, 4, META_NODE_DRAIN, 0), FERRY_OK);
    size_t of_other = meta_move_count(f->m);
    (void)meta_finish_moves(f);
    assert_int_equal(meta_change_node(f, 4, META_NODE_UNDRAIN, 0), FERRY_OK);
    assert_int_equal(apply_now(f).err, FERRY_OK);
    size_t all = meta_move_count(f->m);
    assert_true(of_other > 0 && all > of_other);
    meta_drop_topic(f, "t");
    assert_true(meta_move_count(f->m) > 0 && meta_move_count(f->m) < all);
    meta_turn(f);
    meta_flush(f);
    meta_crash(f);
    meta_start(f);
    assert_true(meta_finish_moves(f) > 0);
}

/* ---- Reports ---- */

static void a_report_counts_only_when_the_target_is_reached(void **state)
{
    struct meta_fixture *f = *state;
    start_with_four(f);
    (void)apply_now(f);
    meta_turn(f);
    struct plan_step step = first_active(f)->step;
    uint32_t wrong[RING_REPLICAS_MAX] = {step.to[0], step.to[1] == 1 ? 2 : 1};
    assert_int_equal(meta_report_done(f, step.group, step.from, 2), FERRY_OK);
    assert_int_equal(meta_report_done(f, step.group, wrong, 2), FERRY_OK);
    assert_int_equal(meta_report_done(f, step.group, step.to, 1), FERRY_OK);
    assert_int_equal(meta_move_of(f->m, step.group)->state, META_MOVE_ACTIVE);
    uint32_t turned[RING_REPLICAS_MAX] = {step.to[1], step.to[0]};
    assert_int_equal(meta_report_done(f, step.group, turned, 2),
                     FERRY_OK); /* A set has no order. */
    assert_null(meta_move_of(f->m, step.group));
    assert_int_equal(meta_report_done(f, step.group, step.to, 2), FERRY_OK); /* Again: no matter. */
    assert_int_equal(meta_report_done(f, 12345, step.to, 2), FERRY_OK);
}

/* The abort and the report cross each other. */
static void a_report_that_an_abort_overtook_counts_for_nothing(void **state)
{
    struct meta_fixture *f = *state;
    struct meta_ticket a, b;
    uint32_t nodes[RING_REPLICAS_MAX];
    start_with_four(f);
    (void)apply_now(f);
    meta_turn(f);
    struct plan_step step = first_active(f)->step;
    meta_ticket_init(&a);
    meta_ticket_init(&b);
    assert_int_equal(meta_abort_moves(f->m, f->now_ms, f->now_us, &a), FERRY_OK);
    assert_int_equal(meta_move_done(f->m, step.group, step.to, 2, f->now_ms, f->now_us, &b),
                     FERRY_OK);
    assert_true(b.waits);
    meta_turn(f);
    meta_expect_done(f, &a, FERRY_OK);
    meta_expect_done(f, &b, FERRY_OK);
    assert_int_equal(meta_move_of(f->m, step.group)->state, META_MOVE_REVERTING);
    assert_int_equal(meta_placement(f->m, step.group, nodes), 2);
    assert_memory_equal(nodes, step.from, 2 * sizeof(*nodes));
    meta_ticket_fini(&a);
    meta_ticket_fini(&b);
}

/* ---- Abort ---- */

static void an_abort_drops_what_was_planned_and_turns_back_what_runs(void **state)
{
    struct meta_fixture *f = *state;
    uint32_t dropped = 0, reverting = 0;
    uint32_t nodes[2 * RING_REPLICAS_MAX];
    start_with_four(f);
    char *before = meta_dump(f->m);
    struct planned p = apply_now(f);
    meta_turn(f);
    size_t active = count_state(f, META_MOVE_ACTIVE);
    struct plan_step step = first_active(f)->step;
    abort_now(f, &dropped, &reverting);
    assert_true(active > 0 && reverting == active && dropped == p.count - active);
    assert_int_equal(meta_move_count(f->m), active);
    assert_int_equal(meta_target(f->m, step.group, nodes), 2);
    assert_memory_equal(nodes, step.from, 2 * sizeof(*nodes));
    assert_true(meta_holds(f->m, step.group, step.to[0]));
    abort_now(f, &dropped, &reverting);
    assert_true(dropped == 0 && reverting == 0);
    meta_crash(f);
    meta_start(f);
    assert_int_equal(count_state(f, META_MOVE_REVERTING), active);
    assert_int_equal(meta_finish_moves(f), active);
    assert_int_equal(meta_moves_done(f->m), 0);
    char *after = meta_dump(f->m);
    assert_string_equal(before, after);
    mem_free(before);
    mem_free(after);
    abort_now(f, &dropped, &reverting);
    assert_true(dropped == 0 && reverting == 0);
}

/* ---- Drain ---- */

static void a_drain_empties_exactly_that_node(void **state)
{
    struct meta_fixture *f = *state;
    uint32_t before[META_NODES_MAX], after[META_NODES_MAX];
    start_with_four(f);
    assert_int_equal(apply_now(f).err, FERRY_OK);
    (void)meta_finish_moves(f);
    meta_count_replicas(f->m, before);
    assert_int_equal(meta_change_node(f, 3, META_NODE_DRAIN, 0), FERRY_OK);
    assert_int_equal(meta_move_count(f->m), before[2]); /* With the answer the moves are there. */
    assert_int_equal(meta_finish_moves(f), before[2]);
    meta_count_replicas(f->m, after);
    assert_true(after[2] == 0 && after[0] >= before[0] && after[1] >= before[1] &&
                after[3] >= before[3]);
    assert_int_equal(meta_change_node(f, 3, META_NODE_REMOVE, 0), FERRY_OK);
}

/* It waits for moves that run, and goes on by itself, also after a restart. */
static void a_drain_during_other_moves_begins_when_they_are_done(void **state)
{
    struct meta_fixture *f = *state;
    uint32_t counts[META_NODES_MAX];
    start_with_four(f);
    assert_int_equal(apply_now(f).err, FERRY_OK);
    assert_int_equal(meta_change_node(f, 2, META_NODE_DRAIN, 0), FERRY_OK);
    meta_flush(f);
    meta_crash(f);
    meta_start(f);
    (void)meta_finish_moves(f);
    meta_count_replicas(f->m, counts);
    assert_int_equal(counts[1], 0);
}

static void an_aborted_drain_does_not_go_on_by_itself(void **state)
{
    struct meta_fixture *f = *state;
    uint32_t dropped = 0, reverting = 0;
    uint32_t counts[META_NODES_MAX];
    start_with_four(f);
    assert_int_equal(meta_change_node(f, 2, META_NODE_DRAIN, 0), FERRY_OK);
    meta_turn(f);
    abort_now(f, &dropped, &reverting);
    (void)meta_finish_moves(f);
    for (int i = 0; i < 5; i++) {
        meta_pass_ms(f, 1000);
        assert_int_equal(meta_move_count(f->m), 0);
    }
    assert_true(meta_node_find(f->m, 2)->draining);
    assert_int_equal(meta_change_node(f, 2, META_NODE_DRAIN, 0), FERRY_OK);
    assert_true(meta_finish_moves(f) > 0);
    meta_count_replicas(f->m, counts);
    assert_int_equal(counts[1], 0);
}

static void an_undrain_takes_back_what_empties_the_node(void **state)
{
    struct meta_fixture *f = *state;
    start_with_four(f);
    char *before = meta_dump(f->m);
    assert_int_equal(meta_change_node(f, 2, META_NODE_DRAIN, 0), FERRY_OK);
    meta_turn(f);
    assert_int_equal(meta_change_node(f, 2, META_NODE_UNDRAIN, 0), FERRY_OK);
    assert_int_equal(count_state(f, META_MOVE_PLANNED) + count_state(f, META_MOVE_ACTIVE), 0);
    (void)meta_finish_moves(f);
    char *after = meta_dump(f->m);
    assert_string_equal(before, after);
    mem_free(before);
    mem_free(after);
}

static void a_drain_that_leaves_too_few_nodes_is_refused(void **state)
{
    struct meta_fixture *f = *state;
    meta_start(f);
    meta_join_all(f, 1, 3);
    (void)meta_make_topic(f, "wide", 4, 3, 1);
    assert_int_equal(meta_change_node(f, 1, META_NODE_DRAIN, 0), FERRY_ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(f->detail.text, "wide"));
    assert_false(meta_node_find(f->m, 1)->draining);
    meta_join_all(f, 4, 4);
    assert_int_equal(meta_change_node(f, 1, META_NODE_DRAIN, 0), FERRY_OK);
    assert_int_equal(meta_finish_moves(f), 4);
}

/* ---- The shape of plans ---- */

static void a_plan_counts_moves_that_run_as_done(void **state)
{
    struct meta_fixture *f = *state;
    uint32_t dropped = 0, reverting = 0;
    size_t count = 1;
    start_with_four(f);
    struct planned p = apply_now(f);
    (void)plan_now(f, &count);
    assert_int_equal(count, 0);
    meta_turn(f);
    abort_now(f, &dropped, &reverting); /* And those that go back as back. */
    assert_int_equal(plan_now(f, &count), p.id);
    assert_int_equal(count, p.count);
}

/* A node dies while it empties itself for a snapshot of the metadata: the rows that are left do not
 * fit together, a move whose topic is gone already. It starts all the same, and is fed. */
static void rows_of_half_a_snapshot_are_not_read(void **state)
{
    struct meta_fixture *f = *state;
    uint32_t deleted = 0;
    meta_start(f);
    meta_join_all(f, 1, 3);
    (void)meta_make_topic(f, "t", 8, 2, 1);
    assert_int_equal(meta_change_node(f, 1, META_NODE_DRAIN, 0), FERRY_OK);
    assert_true(meta_move_count(f->m) > 0);
    meta_flush(f);
    struct store_group half = {.group = META_GROUP, .term = 5, .installing = true};
    assert_int_equal(store_begin(f->store), FERRY_OK);
    assert_int_equal(store_put_group(f->store, &half), FERRY_OK);
    assert_int_equal(store_delete_rows(f->store, META_GROUP, META_TABLE_TOPICS, 100, &deleted),
                     FERRY_OK);
    assert_true(deleted > 0);
    assert_int_equal(store_commit(f->store), FERRY_OK);
    replica_fail(meta_replica(f->m), FERRY_ERR_SHUTTING_DOWN);
    meta_close(&f->m);
    struct meta_config config = {.store = f->store, .self = 1, .seed = 1};
    assert_int_equal(meta_open(&config, f->now_us, &f->m, &f->detail), FERRY_OK);
    assert_int_equal(replica_state(meta_replica(f->m)), REPLICA_INSTALLING);
    assert_int_equal(meta_move_count(f->m), 0);
    assert_int_equal(meta_node_count(f->m), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        meta_unit(rows_of_half_a_snapshot_are_not_read),
        meta_unit(a_plan_is_applied_a_few_moves_at_a_time),
        meta_unit(an_active_move_has_a_target_and_both_sets_hold_the_group),
        meta_unit(a_planned_move_changes_nothing_yet),
        meta_unit(another_plan_than_the_one_shown_is_refused),
        meta_unit(the_second_apply_on_the_way_is_refused),
        meta_unit(a_plan_to_a_node_that_goes_meanwhile_is_refused),
        meta_unit(moves_of_a_deleted_topic_are_gone),
        meta_unit(a_report_counts_only_when_the_target_is_reached),
        meta_unit(a_report_that_an_abort_overtook_counts_for_nothing),
        meta_unit(an_abort_drops_what_was_planned_and_turns_back_what_runs),
        meta_unit(a_drain_empties_exactly_that_node),
        meta_unit(a_drain_during_other_moves_begins_when_they_are_done),
        meta_unit(an_aborted_drain_does_not_go_on_by_itself),
        meta_unit(an_undrain_takes_back_what_empties_the_node),
        meta_unit(a_drain_that_leaves_too_few_nodes_is_refused),
        meta_unit(a_plan_counts_moves_that_run_as_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
