/* Groups under faults, some hundred seeds; see lib/raft_cluster.h. A failing seed is printed;
 * FERRY_RAFT_SEED=N runs that one alone, FERRY_RAFT_SEEDS=N so many of each. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
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
    sum->lost_leads += one->lost_leads;
    sum->crashes += one->crashes;
    sum->truncations += one->truncations;
    sum->refusals += one->refusals;
    sum->late_stored += one->late_stored;
    sum->trims += one->trims;
    sum->configs += one->configs;
    sum->rolled_back += one->rolled_back;
    sum->not_in_new += one->not_in_new;
    sum->transfers += one->transfers;
    sum->timeout_nows += one->timeout_nows;
    sum->reads += one->reads;
    sum->reads_failed += one->reads_failed;
    sum->snapshots += one->snapshots;
    sum->quiet += one->quiet;
    sum->wakes += one->wakes;
    sum->mutes += one->mutes;
}

static void show(const struct raft_cluster_result *sum)
{
    printf("  %" PRIu64 " steps, %" PRIu64 " committed, %" PRIu64 " elections, %" PRIu64
           " leaderships lost, %" PRIu64 " crashes, %" PRIu64 " truncations, %" PRIu64
           " refusals, %" PRIu64 " late syncs, %" PRIu64 " trims, %" PRIu64 " snapshots\n",
           sum->steps, sum->committed, sum->elections, sum->lost_leads, sum->crashes,
           sum->truncations, sum->refusals, sum->late_stored, sum->trims, sum->snapshots);
    printf("  %" PRIu64 " configurations, %" PRIu64 " rolled back, %" PRIu64
           " without their leader, %" PRIu64 " transfers, %" PRIu64 " timeout-nows, %" PRIu64
           " reads, %" PRIu64 " failed, %" PRIu64 " times quiet, %" PRIu64 " wakes, %" PRIu64
           " mutes\n",
           sum->configs, sum->rolled_back, sum->not_in_new, sum->transfers, sum->timeout_nows,
           sum->reads, sum->reads_failed, sum->quiet, sum->wakes, sum->mutes);
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static bool is_hunt(void)
{
    return getenv("FERRY_RAFT_FIRST") != NULL;
}

static bool is_whole_run(void)
{
    return getenv("FERRY_RAFT_SEED") == NULL && getenv("FERRY_RAFT_SEEDS") == NULL;
}

static struct raft_cluster_result run_seeds(size_t node_count, size_t voter_count, uint64_t first)
{
    uint64_t count = number_from("FERRY_RAFT_SEEDS", SEEDS);
    if (getenv("FERRY_RAFT_SEED") != NULL) {
        first = number_from("FERRY_RAFT_SEED", 0);
        count = 1;
    }
    printf("%zu nodes, %zu voters, seeds %" PRIu64 "..%" PRIu64 "\n", node_count, voter_count,
           first, first + count - 1);
    struct raft_cluster_result sum = {0};
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct raft_cluster_result one;
        raft_cluster_run(seed, node_count, voter_count, &one);
        if (one.violation[0] != 0) {
            fail_msg("%zu nodes, %zu voters, seed %" PRIu64 ": %s", node_count, voter_count, seed,
                     one.violation);
        }
        add(&sum, &one);
    }
    show(&sum);
    return sum;
}

/* For raft_mutants.sh: seeds of all sizes in turn, each told before it is run, for a mutant may die
 * of it, until one fails. */
static int hunt(uint64_t first)
{
    static const size_t sizes[][2] = {{5, 3}, {7, 5}, {4, 1}, {3, 3}};
    uint64_t count = number_from("FERRY_RAFT_SEEDS", SEEDS);
    for (uint64_t seed = first; seed < first + count; seed++) {
        printf("seed %" PRIu64 "\n", seed);
        (void)fflush(stdout);
        struct raft_cluster_result one;
        raft_cluster_run(seed, sizes[seed % 4][0], sizes[seed % 4][1], &one);
        if (one.violation[0] != 0) {
            printf("%s\n", one.violation);
            return 1;
        }
    }
    return 0;
}

/* The faults must have happened, or the run proves nothing. */
static void assert_covered(const struct raft_cluster_result *sum)
{
    if (!is_whole_run()) {
        return;
    }
    assert_true(sum->committed > SEEDS * 10);
    assert_true(sum->elections > SEEDS * 2);
    assert_true(sum->lost_leads > SEEDS);
    assert_true(sum->crashes > SEEDS);
    assert_true(sum->truncations > SEEDS / 10);
    assert_true(sum->refusals > SEEDS);
    assert_true(sum->late_stored > 0);
    assert_true(sum->trims > SEEDS);
    assert_true(sum->snapshots > SEEDS / 10);
    assert_true(sum->configs > SEEDS);
    assert_true(sum->rolled_back > 0);
    assert_true(sum->not_in_new > SEEDS / 10);
    assert_true(sum->transfers > SEEDS / 2);
    assert_true(sum->timeout_nows > SEEDS / 2);
    assert_true(sum->reads > SEEDS * 10);
    assert_true(sum->reads_failed > 0);
    assert_true(sum->quiet > SEEDS / 10);
    assert_true(sum->wakes > 0);
    assert_true(sum->mutes > SEEDS / 10);
}

static void one_node_keeps_what_it_committed(void **state)
{
    (void)state;
    struct raft_cluster_result sum = run_seeds(1, 1, 1);
    assert_true(sum.crashes > 0 || !is_whole_run());
}

static void three_voters_of_five_nodes_stay_safe_and_recover(void **state)
{
    (void)state;
    struct raft_cluster_result sum = run_seeds(5, 3, 1000);
    assert_covered(&sum);
}

static void five_voters_of_seven_nodes_stay_safe_and_recover(void **state)
{
    (void)state;
    struct raft_cluster_result sum = run_seeds(7, 5, 2000);
    assert_covered(&sum);
}

static void a_group_that_grows_from_one_node_stays_safe_and_recovers(void **state)
{
    (void)state;
    struct raft_cluster_result sum = run_seeds(4, 1, 3000);
    assert_true(sum.configs > 0 || !is_whole_run());
}

/* Invariant 8: no address, clock or hash order gets into a decision. */
static void the_same_seed_gives_the_same_trace(void **state)
{
    (void)state;
    for (uint64_t seed = 4000; seed < 4010; seed++) {
        struct raft_cluster_result first;
        struct raft_cluster_result second;
        raft_cluster_run(seed, 5, 3, &first);
        raft_cluster_run(seed, 5, 3, &second);
        assert_true(first.trace_hash == second.trace_hash);
        assert_true(first.steps == second.steps && first.steps > 0);
    }
}

int main(void)
{
    if (is_hunt()) {
        return hunt(number_from("FERRY_RAFT_FIRST", 1));
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_node_keeps_what_it_committed),
        cmocka_unit_test(three_voters_of_five_nodes_stay_safe_and_recover),
        cmocka_unit_test(five_voters_of_seven_nodes_stay_safe_and_recover),
        cmocka_unit_test(a_group_that_grows_from_one_node_stays_safe_and_recovers),
        cmocka_unit_test(the_same_seed_gives_the_same_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
