/* The planner on random clusters: what it moves, where to, and that everybody computes the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/prng.h"
#include "cluster/plan.h"

#define SEED       0x504c414eu
#define TOPICS_MAX 40
#define ROUNDS     60

struct cluster {
    struct prng prng;
    struct plan_node nodes[64];
    size_t node_count;
    struct plan_topic topics[TOPICS_MAX];
    uint32_t *placements[TOPICS_MAX]; /* What the topics point at. */
    size_t topic_count;
};

static uint32_t below(struct cluster *c, uint32_t bound)
{
    return (uint32_t)prng_below(&c->prng, bound);
}

/* ---- Making clusters ---- */

static void add_node(struct cluster *c, uint32_t id, uint32_t zones, uint32_t weight)
{
    struct plan_node *n = &c->nodes[c->node_count++];
    *n = (struct plan_node){.id = id, .member = (9ull << 32) | id, .weight = weight};
    if (zones > 0) {
        (void)snprintf(n->zone, sizeof(n->zone), "zone-%u", id % zones);
    }
}

static void add_topic(struct cluster *c, uint32_t partitions, uint32_t replicas)
{
    size_t i = c->topic_count++;
    uint64_t group = i == 0 ? 1 : c->topics[i - 1].first_group + c->topics[i - 1].partitions;
    struct ferry_id id;
    put_le64(id.bytes, prng_next(&c->prng));
    put_le64(id.bytes + 8, prng_next(&c->prng));
    c->placements[i] = mem_zalloc((size_t)partitions * replicas, sizeof(uint32_t));
    assert_non_null(c->placements[i]);
    c->topics[i] = (struct plan_topic){.id = id,
                                       .first_group = group,
                                       .partitions = partitions,
                                       .replicas = replicas,
                                       .placement = c->placements[i]};
    assert_int_equal(
        plan_place(c->nodes, c->node_count, &id, partitions, replicas, c->placements[i]), FERRY_OK);
}

/* `nodes` of weight 1 in `zones` zones (0: none is named) and topics of all sizes. */
static void make_cluster(struct cluster *c, uint64_t seed, uint32_t nodes, uint32_t zones)
{
    *c = (struct cluster){0};
    prng_init(&c->prng, seed);
    for (uint32_t id = 1; id <= nodes; id++) {
        add_node(c, id, zones, 1);
    }
    uint32_t most = nodes < RING_REPLICAS_MAX ? nodes : RING_REPLICAS_MAX;
    for (int i = 0; i < TOPICS_MAX; i++) {
        uint32_t replicas = 1 + below(c, most < 3 ? most : 3);
        add_topic(c, 1 + below(c, below(c, 2) == 0 ? 8 : 96), replicas);
    }
}

static void free_cluster(struct cluster *c)
{
    for (size_t i = 0; i < c->topic_count; i++) {
        mem_free(c->placements[i]);
    }
}

static uint64_t count_all(const struct cluster *c)
{
    uint64_t all = 0;
    for (size_t i = 0; i < c->topic_count; i++) {
        all += (uint64_t)c->topics[i].partitions * c->topics[i].replicas;
    }
    return all;
}

static uint32_t *set_of(const struct cluster *c, uint64_t group, uint32_t *replicas)
{
    for (size_t i = 0; i < c->topic_count; i++) {
        const struct plan_topic *t = &c->topics[i];
        if (group >= t->first_group && group < t->first_group + t->partitions) {
            *replicas = t->replicas;
            return c->placements[i] + (group - t->first_group) * t->replicas;
        }
    }
    fail_msg("no group %llu", (unsigned long long)group);
    return NULL;
}

/* Carries the plan out; returns how many replicas were copied. */
static uint64_t carry_out(struct cluster *c, const struct plan *plan)
{
    uint64_t copies = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const struct plan_step *step = &plan->steps[i];
        uint32_t replicas = 0;
        uint32_t *set = set_of(c, step->group, &replicas);
        assert_int_equal(replicas, step->replicas);
        assert_memory_equal(set, step->from, replicas * sizeof(*set));
        assert_true(i == 0 || plan->steps[i - 1].group < step->group);
        memcpy(set, step->to, replicas * sizeof(*set));
        copies += plan_step_copies(step);
    }
    return copies;
}

static struct plan balance(const struct cluster *c)
{
    struct plan plan;
    plan_init(&plan);
    assert_int_equal(plan_balance(c->nodes, c->node_count, c->topics, c->topic_count, &plan),
                     FERRY_OK);
    return plan;
}

static struct plan evacuate(const struct cluster *c)
{
    struct plan plan;
    plan_init(&plan);
    assert_int_equal(plan_evacuate(c->nodes, c->node_count, c->topics, c->topic_count, &plan),
                     FERRY_OK);
    return plan;
}

static bool has(const uint32_t *ids, uint32_t count, uint32_t id)
{
    bool found = false;
    for (uint32_t k = 0; k < count; k++) {
        found = found || ids[k] == id;
    }
    return found;
}

static const struct plan_node *node_of(const struct cluster *c, uint32_t id)
{
    for (size_t i = 0; i < c->node_count; i++) {
        if (c->nodes[i].id == id) {
            return &c->nodes[i];
        }
    }
    fail_msg("no node %u", id);
    return NULL;
}

static bool is_usable(const struct plan_node *n)
{
    return n->weight > 0 && !n->draining;
}

static uint32_t count_zones(const struct cluster *c, const uint32_t *ids, uint32_t count)
{
    uint32_t zones = 0;
    for (uint32_t k = 0; k < count; k++) {
        bool is_new = true;
        for (uint32_t j = 0; j < k; j++) {
            const char *zone = node_of(c, ids[k])->zone;
            bool same = zone[0] != '\0' && strcmp(zone, node_of(c, ids[j])->zone) == 0;
            is_new = is_new && !same && ids[j] != ids[k];
        }
        zones += is_new ? 1 : 0;
    }
    return zones;
}

/* Invariant 1, for every topic that the usable nodes can hold. */
static void check_placements(const struct cluster *c)
{
    uint32_t usable[64];
    uint32_t count = 0;
    for (size_t i = 0; i < c->node_count; i++) {
        if (is_usable(&c->nodes[i])) {
            usable[count++] = c->nodes[i].id;
        }
    }
    uint32_t zones = count_zones(c, usable, count);
    for (size_t i = 0; i < c->topic_count; i++) {
        const struct plan_topic *t = &c->topics[i];
        for (uint32_t p = 0; p < t->partitions && t->replicas <= count; p++) {
            const uint32_t *set = t->placement + (size_t)p * t->replicas;
            for (uint32_t k = 0; k < t->replicas; k++) {
                assert_true(has(usable, count, set[k]) && !has(set, k, set[k]));
            }
            assert_int_equal(count_zones(c, set, t->replicas),
                             zones < t->replicas ? zones : t->replicas);
        }
    }
}

static uint64_t load_of(const struct plan_topic *t, uint32_t id)
{
    uint64_t load = 0;
    for (size_t k = 0; k < (size_t)t->partitions * t->replicas; k++) {
        load += t->placement[k] == id ? 1 : 0;
    }
    return load;
}

/* No node of a cluster of equal nodes without zones holds more of a topic than 125 % of its part.
 */
static void check_bounded_load(const struct cluster *c)
{
    for (size_t i = 0; i < c->topic_count && c->nodes[0].zone[0] == '\0'; i++) {
        const struct plan_topic *t = &c->topics[i];
        uint64_t all = (uint64_t)t->partitions * t->replicas;
        uint64_t limit =
            (all * PLAN_LOAD_PERCENT + c->node_count * 100 - 1) / (c->node_count * 100);
        for (size_t n = 0; n < c->node_count; n++) {
            assert_true(load_of(t, c->nodes[n].id) <= limit);
        }
    }
}

/* ---- Balance ---- */

/* INV-C02, over whole clusters: a node that joins takes its part, and hardly anything else moves.
 */
static void a_node_that_joins_moves_its_part_and_5_percent(void **state)
{
    (void)state;
    printf("seed %#x\n", SEED);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct cluster c;
        uint32_t nodes = 2 + round % 20;
        uint32_t zones = nodes >= 6 && round % 2 == 0 ? 3 : 0;
        make_cluster(&c, SEED + round, nodes, zones);
        check_bounded_load(&c);
        add_node(&c, nodes + 1, zones, 1);
        struct plan plan = balance(&c);
        double moved = (double)carry_out(&c, &plan) / (double)count_all(&c);
        double allowed = 1.0 / (nodes + 1) + 0.05;
        if (round % 7 == 0 || moved > allowed) {
            printf("%u nodes in %u zones: one more moves %.1f %%, allowed %.1f %%\n", nodes, zones,
                   moved * 100, allowed * 100);
        }
        assert_true(moved <= allowed);
        check_placements(&c);
        check_bounded_load(&c);
        plan_fini(&plan);
        free_cluster(&c);
    }
}

/* Invariant 2: after a plan there is nothing left to plan; before, nothing that is right moves. */
static void a_plan_that_was_carried_out_leaves_nothing_to_plan(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct cluster c;
        make_cluster(&c, SEED + 1000 + round, 3 + round % 9, round % 4);
        struct plan plan = balance(&c);
        assert_int_equal(plan.count, 0); /* As it was placed. */
        uint64_t empty = plan.id;
        c.nodes[below(&c, 3)].weight = below(&c, 4);
        add_node(&c, 50, round % 4, 1 + below(&c, 3));
        plan_fini(&plan);
        plan = balance(&c);
        assert_true(plan.id != empty || plan.count == 0);
        (void)carry_out(&c, &plan);
        check_placements(&c);
        plan_fini(&plan);
        plan = balance(&c);
        assert_true(plan.count == 0 && plan.id == empty && plan.id != 0);
        plan_fini(&plan);
        free_cluster(&c);
    }
}

static void shuffle(struct cluster *c)
{
    for (size_t i = c->node_count; i > 1; i--) {
        size_t j = below(c, (uint32_t)i);
        struct plan_node kept = c->nodes[i - 1];
        c->nodes[i - 1] = c->nodes[j];
        c->nodes[j] = kept;
    }
    for (size_t i = c->topic_count; i > 1; i--) {
        size_t j = below(c, (uint32_t)i);
        struct plan_topic kept = c->topics[i - 1];
        uint32_t *kept_placement = c->placements[i - 1];
        c->topics[i - 1] = c->topics[j];
        c->placements[i - 1] = c->placements[j];
        c->topics[j] = kept;
        c->placements[j] = kept_placement;
    }
}

/* INV-C01: nothing depends on the order in which nodes and topics are named. */
static void everybody_computes_the_same_plan(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 12; round++) {
        struct cluster c;
        make_cluster(&c, SEED + 2000 + round, 4 + round, round % 3);
        add_node(&c, 60, round % 3, 2);
        c.nodes[round % 4].draining = true;
        struct plan first = balance(&c);
        struct plan first_off = evacuate(&c);
        assert_true(first.count > 0 && first_off.count > 0);
        for (int i = 0; i < 5; i++) {
            shuffle(&c);
            struct plan again = balance(&c);
            struct plan again_off = evacuate(&c);
            assert_true(again.id == first.id && again.count == first.count);
            assert_memory_equal(again.steps, first.steps, first.count * sizeof(*first.steps));
            assert_true(again_off.id == first_off.id && again_off.count == first_off.count);
            plan_fini(&again);
            plan_fini(&again_off);
        }
        plan_fini(&first);
        plan_fini(&first_off);
        free_cluster(&c);
    }
}

/* Nodes without weight and draining ones lose what they have; a plan of more steps than fit is cut,
 * and the rest comes with the next one. */
static void a_large_plan_is_cut_and_goes_on(void **state)
{
    (void)state;
    struct cluster c = {0};
    prng_init(&c.prng, SEED);
    for (uint32_t id = 1; id <= 4; id++) {
        add_node(&c, id, 0, 1);
    }
    for (int i = 0; i < 12; i++) {
        add_topic(&c, 1024, 1);
    }
    c.nodes[0].weight = 0;
    c.nodes[1].draining = true;
    struct plan plan = balance(&c);
    assert_true(plan.cut && plan.count == PLAN_STEPS_MAX);
    (void)carry_out(&c, &plan);
    plan_fini(&plan);
    plan = balance(&c);
    assert_false(plan.cut);
    (void)carry_out(&c, &plan);
    check_placements(&c);
    plan_fini(&plan);
    free_cluster(&c);
}

static void a_topic_with_more_replicas_than_nodes_is_left_alone(void **state)
{
    (void)state;
    struct cluster c = {0};
    prng_init(&c.prng, SEED);
    for (uint32_t id = 1; id <= 3; id++) {
        add_node(&c, id, 0, 1);
    }
    add_topic(&c, 16, 3);
    add_topic(&c, 16, 2);
    c.nodes[2].draining = true;
    struct plan plan = balance(&c);
    assert_true(plan.count > 0 && plan.steps[0].group > 16);
    plan_fini(&plan);
    plan = evacuate(&c);
    assert_true(plan.count > 0 && plan.steps[0].group > 16);
    (void)carry_out(&c, &plan);
    assert_int_equal(load_of(&c.topics[0], 3), 16);
    assert_int_equal(load_of(&c.topics[1], 3), 0);
    plan_fini(&plan);
    uint32_t placement[4];
    assert_int_equal(plan_place(c.nodes, 3, &c.topics[0].id, 1, 3, placement),
                     FERRY_ERR_INVALID_ARGUMENT);
    free_cluster(&c);
}

/* ---- Evacuation ---- */

/* Invariant 3. */
static void a_drain_moves_exactly_what_the_node_holds(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct cluster c;
        make_cluster(&c, SEED + 3000 + round, 4 + round % 9, round % 5);
        uint32_t off = below(&c, (uint32_t)c.node_count);
        uint64_t held = 0;
        for (size_t i = 0; i < c.topic_count; i++) {
            held += load_of(&c.topics[i], c.nodes[off].id);
        }
        c.nodes[off].draining = true;
        struct plan plan = evacuate(&c);
        assert_int_equal(plan.count, held); /* A node holds a partition once. */
        for (size_t i = 0; i < plan.count; i++) {
            const struct plan_step *s = &plan.steps[i];
            assert_true(has(s->from, s->replicas, c.nodes[off].id));
            assert_int_equal(plan_step_copies(s), 1);
            if (s->from[0] != c.nodes[off].id) {
                assert_int_equal(s->to[0], s->from[0]); /* Its leader need not change. */
            }
        }
        assert_int_equal(carry_out(&c, &plan), held);
        check_placements(&c);
        plan_fini(&plan);
        plan = evacuate(&c);
        assert_int_equal(plan.count, 0);
        plan_fini(&plan);
        free_cluster(&c);
    }
}

/* What is moved off goes to all the others, not to one. */
static void a_drain_spreads_what_it_moves(void **state)
{
    (void)state;
    struct cluster c = {0};
    prng_init(&c.prng, SEED);
    for (uint32_t id = 1; id <= 6; id++) {
        add_node(&c, id, 0, 1);
    }
    add_topic(&c, 600, 2);
    c.nodes[3].draining = true;
    struct plan plan = evacuate(&c);
    (void)carry_out(&c, &plan);
    for (size_t i = 0; i < 6; i++) {
        uint64_t load = load_of(&c.topics[0], c.nodes[i].id);
        assert_true(i == 3 ? load == 0 : load <= 300 && load >= 150); /* 240 each, and a quarter. */
    }
    plan_fini(&plan);
    free_cluster(&c);
}

/* Two nodes at once, of which one partition may have both. */
static void two_nodes_drain_together(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct cluster c;
        make_cluster(&c, SEED + 4000 + round, 5 + round % 5, round % 3);
        c.nodes[0].draining = true;
        c.nodes[2].weight = 0;
        struct plan plan = evacuate(&c);
        (void)carry_out(&c, &plan);
        check_placements(&c);
        plan_fini(&plan);
        free_cluster(&c);
    }
}

/* ---- Members of the metadata group ---- */

static void check_members(const struct cluster *c, const struct raft_members *m)
{
    uint32_t wanted = c->node_count < PLAN_VOTERS_MAX ? (uint32_t)c->node_count : PLAN_VOTERS_MAX;
    assert_int_equal(m->voter_count, wanted % 2 == 0 ? wanted - 1 : wanted);
    assert_int_equal(m->voter_count + m->learner_count, c->node_count);
    assert_int_equal(m->old_voter_count, 0);
    for (uint32_t i = 1; i < m->voter_count; i++) {
        assert_true(m->voters[i - 1] < m->voters[i]);
    }
    for (uint32_t i = 0; i < m->learner_count; i++) {
        assert_true(i == 0 || m->learners[i - 1] < m->learners[i]);
        assert_false(raft_members_has_voter(m, m->learners[i]));
    }
}

/* An odd number of voters, the rest learners; asked again it is the same; one that joins in a zone
 * that has voters already changes nobody. */
static void voters_are_odd_and_stay(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 200; round++) {
        struct cluster c = {0};
        struct raft_members now = {0}, next, again;
        prng_init(&c.prng, SEED + round);
        uint32_t zones = round % 4;
        for (uint32_t id = 1; id <= 1 + round % 12; id++) {
            add_node(&c, id, zones, below(&c, 3));
        }
        plan_members(c.nodes, c.node_count, &now, &next);
        check_members(&c, &next);
        shuffle(&c);
        plan_members(c.nodes, c.node_count, &next, &again);
        assert_memory_equal(&next, &again, sizeof(next));
        if (c.node_count >= PLAN_VOTERS_MAX) {
            add_node(&c, 40, 1, 1);
            (void)snprintf(c.nodes[c.node_count - 1].zone, RING_ZONE_BYTES, "%s", c.nodes[0].zone);
            plan_members(c.nodes, c.node_count, &next, &again);
            bool has_zone = c.nodes[0].zone[0] != '\0';
            assert_true(!has_zone || memcmp(next.voters, again.voters, sizeof(next.voters)) == 0);
        }
    }
}

static void voters_spread_over_zones(void **state)
{
    (void)state;
    struct cluster c = {0};
    struct raft_members now = {0}, members;
    for (uint32_t id = 1; id <= 12; id++) {
        add_node(&c, id, 0, 1);
        (void)snprintf(c.nodes[id - 1].zone, RING_ZONE_BYTES, "%s",
                       id <= 8 ? "a" : (id <= 10 ? "b" : "c"));
    }
    plan_members(c.nodes, 12, &now, &members);
    uint32_t in_zone[3] = {0};
    for (uint32_t i = 0; i < members.voter_count; i++) {
        uint32_t id = (uint32_t)members.voters[i];
        in_zone[id <= 8 ? 0 : (id <= 10 ? 1 : 2)]++;
    }
    assert_true(in_zone[0] >= 1 && in_zone[1] >= 1 && in_zone[2] >= 1);
    assert_true(in_zone[0] <= 2 && in_zone[1] <= 2 && in_zone[2] <= 2);
}

/* A draining node votes only while there are not enough others; its number stays. */
static void a_draining_node_gives_its_vote_away_when_it_can(void **state)
{
    (void)state;
    struct cluster c = {0};
    struct raft_members now = {0}, members;
    for (uint32_t id = 1; id <= 3; id++) {
        add_node(&c, id, 0, 1);
    }
    plan_members(c.nodes, 3, &now, &now);
    c.nodes[0].draining = true;
    plan_members(c.nodes, 3, &now, &members);
    assert_int_equal(members.voter_count, 3);
    add_node(&c, 4, 0, 1);
    plan_members(c.nodes, 4, &now, &members);
    assert_int_equal(members.voter_count, 3);
    assert_false(raft_members_has_voter(&members, c.nodes[0].member));
    assert_true(raft_members_has_voter(&members, c.nodes[3].member));
}

static void a_failed_allocation_is_an_error_and_leaks_nothing(void **state)
{
    (void)state;
    struct cluster c;
    make_cluster(&c, SEED, 4, 0);
    c.nodes[1].draining = true;
    bool failed = true;
    for (long n = 1; failed && n < 1000; n++) {
        struct plan plan;
        plan_init(&plan);
        mem_test_fail_after(n);
        enum ferry_err err = n % 2 == 0 ? plan_balance(c.nodes, 4, c.topics, c.topic_count, &plan)
                                        : plan_evacuate(c.nodes, 4, c.topics, c.topic_count, &plan);
        mem_test_fail_after(0);
        failed = err != FERRY_OK;
        assert_true(err == FERRY_OK || err == FERRY_ERR_NO_MEMORY);
        assert_true(n > 3 || failed);
        plan_fini(&plan);
    }
    assert_false(failed);
    free_cluster(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_that_joins_moves_its_part_and_5_percent),
        cmocka_unit_test(a_plan_that_was_carried_out_leaves_nothing_to_plan),
        cmocka_unit_test(everybody_computes_the_same_plan),
        cmocka_unit_test(a_large_plan_is_cut_and_goes_on),
        cmocka_unit_test(a_topic_with_more_replicas_than_nodes_is_left_alone),
        cmocka_unit_test(a_drain_moves_exactly_what_the_node_holds),
        cmocka_unit_test(a_drain_spreads_what_it_moves),
        cmocka_unit_test(two_nodes_drain_together),
        cmocka_unit_test(voters_are_odd_and_stay),
        cmocka_unit_test(voters_spread_over_zones),
        cmocka_unit_test(a_draining_node_gives_its_vote_away_when_it_can),
        cmocka_unit_test(a_failed_allocation_is_an_error_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
