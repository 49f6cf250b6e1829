/* Groups of 1, 3 and 5 under faults, a few hundred seeds; see lib/raft_cluster.h. A failing seed is
 * printed; FERRY_RAFT_SEED=N runs that one alone. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/raft_cluster.h"

#define SEEDS 150

static void add(struct raft_cluster_result *sum, const struct raft_cluster_result *one)
{
    sum->steps += one->steps;
    sum->committed += one->committed;
    sum->elections += one->elections;
    sum->crashes += one->crashes;
    sum->truncations += one->truncations;
    sum->refusals += one->refusals;
    sum->late_stored += one->late_stored;
    sum->trims += one->trims;
}

static struct raft_cluster_result run_seeds(size_t node_count, uint64_t first, uint64_t count)
{
    const char *only = getenv("FERRY_RAFT_SEED");
    if (only != NULL) {
        first = strtoull(only, NULL, 10);
        count = 1;
    }
    struct raft_cluster_result sum = {0};
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct raft_cluster_result one;
        raft_cluster_run(seed, node_count, &one);
        if (one.violation[0] != 0) {
            fail_msg("%zu nodes, seed %" PRIu64 ": %s", node_count, seed, one.violation);
        }
        add(&sum, &one);
    }
    printf("%zu nodes, seeds %" PRIu64 "..%" PRIu64 ": %" PRIu64 " steps, %" PRIu64
           " committed, %" PRIu64 " elections, %" PRIu64 " crashes, %" PRIu64
           " truncations, %" PRIu64 " refusals, %" PRIu64 " late syncs, %" PRIu64 " trims\n",
           node_count, first, first + count - 1, sum.steps, sum.committed, sum.elections,
           sum.crashes, sum.truncations, sum.refusals, sum.late_stored, sum.trims);
    return sum;
}

/* The faults must have happened, or the run proves nothing. */
static void assert_covered(const struct raft_cluster_result *sum)
{
    if (getenv("FERRY_RAFT_SEED") != NULL) {
        return;
    }
    assert_true(sum->committed > SEEDS * 10);
    assert_true(sum->elections > SEEDS * 2);
    assert_true(sum->crashes > SEEDS);
    assert_true(sum->truncations > SEEDS / 10);
    assert_true(sum->refusals > SEEDS);
    assert_true(sum->late_stored > 0);
    assert_true(sum->trims > SEEDS / 10);
}

static void one_node_keeps_what_it_committed(void **state)
{
    (void)state;
    struct raft_cluster_result sum = run_seeds(1, 1, SEEDS);
    assert_true(sum.crashes > 0);
}

static void three_nodes_stay_safe_and_recover(void **state)
{
    (void)state;
    struct raft_cluster_result sum = run_seeds(3, 1000, SEEDS);
    assert_covered(&sum);
}

static void five_nodes_stay_safe_and_recover(void **state)
{
    (void)state;
    struct raft_cluster_result sum = run_seeds(5, 2000, SEEDS);
    assert_covered(&sum);
}

/* Invariant 8: no address, clock or hash order gets into a decision. */
static void the_same_seed_gives_the_same_trace(void **state)
{
    (void)state;
    for (uint64_t seed = 3000; seed < 3010; seed++) {
        struct raft_cluster_result first;
        struct raft_cluster_result second;
        raft_cluster_run(seed, 3, &first);
        raft_cluster_run(seed, 3, &second);
        assert_true(first.trace_hash == second.trace_hash);
        assert_true(first.steps == second.steps && first.steps > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_node_keeps_what_it_committed),
        cmocka_unit_test(three_nodes_stay_safe_and_recover),
        cmocka_unit_test(five_nodes_stay_safe_and_recover),
        cmocka_unit_test(the_same_seed_gives_the_same_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
