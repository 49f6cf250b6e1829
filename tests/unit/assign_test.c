/* The assignment of partitions: whole, balanced, sticky to the minimum, by zone, and the same for
 * everybody who computes it; held against properties and against the least that can move. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/prng.h"
#include "partition/assign.h"

struct group {
    uint32_t members, partitions;
    struct bytes member_zones[MEMBERS_MAX];
    struct bytes partition_zones[PARTITIONS_MAX];
    int32_t owners[PARTITIONS_MAX];
};

static const char *const zones[] = {"a", "b", "c"};

static void start(struct group *g, uint32_t members, uint32_t partitions)
{
    *g = (struct group){.members = members, .partitions = partitions};
    for (uint32_t p = 0; p < partitions; p++) {
        g->owners[p] = ASSIGN_NOBODY;
    }
}

static void balance(struct group *g)
{
    struct assign a = {.member_count = g->members,
                       .partition_count = g->partitions,
                       .member_zones = g->member_zones,
                       .partition_zones = g->partition_zones};
    assign_balance(&a, g->owners);
}

static void count(const struct group *g, uint32_t counts[MEMBERS_MAX])
{
    memset(counts, 0, MEMBERS_MAX * sizeof(counts[0]));
    for (uint32_t p = 0; p < g->partitions; p++) {
        if (g->owners[p] != ASSIGN_NOBODY) {
            counts[g->owners[p]]++;
        }
    }
}

/* The most partitions that may stay: what each has up to the base, and one more for as many as may
 * have one more. */
static uint32_t most_that_may_stay(const struct group *g)
{
    uint32_t counts[MEMBERS_MAX], stay = 0, more = 0;
    uint32_t base = g->partitions / g->members, extras = g->partitions % g->members;
    count(g, counts);
    for (uint32_t m = 0; m < g->members; m++) {
        stay += counts[m] < base ? counts[m] : base;
        more += counts[m] > base ? 1 : 0;
    }
    return stay + (more < extras ? more : extras);
}

static uint32_t count_same(const struct group *a, const struct group *b)
{
    uint32_t same = 0;
    for (uint32_t p = 0; p < a->partitions; p++) {
        same += a->owners[p] != ASSIGN_NOBODY && a->owners[p] == b->owners[p] ? 1 : 0;
    }
    return same;
}

static void check(const struct group *g)
{
    uint32_t counts[MEMBERS_MAX];
    count(g, counts);
    uint32_t base = g->partitions / g->members, all = 0;
    for (uint32_t m = 0; m < g->members; m++) {
        assert_true(counts[m] == base || counts[m] == base + 1);
        all += counts[m];
    }
    assert_int_equal(all, g->partitions);
}

static void balance_and_check(struct group *g)
{
    struct group before = *g;
    uint32_t stay = most_that_may_stay(g);
    balance(g);
    check(g);
    assert_int_equal(count_same(&before, g), stay);
    struct group again = *g;
    balance(&again);
    assert_memory_equal(again.owners, g->owners, sizeof(g->owners)); /* It has settled. */
}

/* A member goes: those behind it move up a place, what it had is free. */
static void leave(struct group *g, uint32_t gone)
{
    for (uint32_t p = 0; p < g->partitions; p++) {
        if (g->owners[p] == (int32_t)gone) {
            g->owners[p] = ASSIGN_NOBODY;
        } else if (g->owners[p] > (int32_t)gone) {
            g->owners[p]--;
        }
    }
    memmove(g->member_zones + gone, g->member_zones + gone + 1,
            (g->members - gone - 1) * sizeof(g->member_zones[0]));
    g->members--;
}

static void join(struct group *g, uint32_t at)
{
    for (uint32_t p = 0; p < g->partitions; p++) {
        g->owners[p] += g->owners[p] >= (int32_t)at ? 1 : 0;
    }
    memmove(g->member_zones + at + 1, g->member_zones + at,
            (g->members - at) * sizeof(g->member_zones[0]));
    g->member_zones[at] = bytes_of(NULL, 0);
    g->members++;
}

static void a_hundred_members_over_256_partitions_move_only_what_must_move(void **state)
{
    (void)state;
    struct group g;
    struct prng r;
    prng_init(&r, 1);
    start(&g, 100, 256);
    balance_and_check(&g);
    for (int i = 0; i < 400; i++) {
        if (prng_below(&r, 2) == 0 ? g.members > 1 : g.members >= 120) {
            leave(&g, (uint32_t)prng_below(&r, g.members));
        } else {
            join(&g, (uint32_t)prng_below(&r, g.members + 1));
        }
        balance_and_check(&g);
    }
}

static void one_that_leaves_moves_its_own_and_one_that_joins_its_share(void **state)
{
    (void)state;
    struct group g;
    start(&g, 100, 256);
    balance(&g);
    struct group before = g;
    leave(&g, 40);
    leave(&before, 40);
    balance(&g);
    assert_true(256 - count_same(&before, &g) <= 3); /* What it had. */
    before = g;
    join(&g, 7);
    join(&before, 7);
    balance(&g);
    assert_true(256 - count_same(&before, &g) <= 2); /* Its share: 256 / 100. */
}

static void anything_random_is_whole_balanced_and_sticky(void **state)
{
    (void)state;
    static struct group g;
    struct prng r;
    prng_init(&r, 2);
    for (int i = 0; i < 500; i++) {
        start(&g, 1 + (uint32_t)prng_below(&r, 40), 1 + (uint32_t)prng_below(&r, 90));
        for (uint32_t m = 0; m < g.members; m++) {
            g.member_zones[m] = bytes_of_string(zones[prng_below(&r, 3)]);
        }
        uint32_t owners = 1 + (uint32_t)prng_below(&r, g.members);
        for (uint32_t p = 0; p < g.partitions; p++) {
            g.owners[p] = (int32_t)prng_below(&r, owners + 1) - 1;
            g.partition_zones[p] = prng_below(&r, 3) == 0
                                       ? bytes_of(NULL, 0)
                                       : bytes_of_string(zones[prng_below(&r, 3)]);
        }
        balance_and_check(&g);
    }
}

static void more_members_than_partitions_leave_some_idle(void **state)
{
    (void)state;
    static struct group g;
    start(&g, MEMBERS_MAX, 3);
    balance_and_check(&g);
    start(&g, 1, PARTITIONS_MAX);
    balance_and_check(&g);
    start(&g, 5, 0);
    balance(&g);
}

static void nobody_has_anything_when_there_are_no_members(void **state)
{
    (void)state;
    static struct group g;
    start(&g, 2, 4);
    balance(&g);
    g.members = 0;
    balance(&g);
    for (uint32_t p = 0; p < g.partitions; p++) {
        assert_int_equal(g.owners[p], ASSIGN_NOBODY);
    }
}

static uint32_t count_home(const struct group *g)
{
    uint32_t home = 0;
    for (uint32_t p = 0; p < g->partitions; p++) {
        home += bytes_equal(g->partition_zones[p], g->member_zones[g->owners[p]]) ? 1 : 0;
    }
    return home;
}

static void free_partitions_go_to_members_in_their_leaders_zone(void **state)
{
    (void)state;
    static struct group g;
    start(&g, 3, 12);
    for (uint32_t m = 0; m < 3; m++) {
        g.member_zones[m] = bytes_of_string(zones[m]);
    }
    for (uint32_t p = 0; p < 12; p++) {
        g.partition_zones[p] = bytes_of_string(zones[(p * 5 + p / 3) % 3]);
    }
    balance_and_check(&g);
    assert_int_equal(count_home(&g), 12);
}

static void who_must_give_some_up_keeps_those_of_its_zone(void **state)
{
    (void)state;
    static struct group g;
    start(&g, 1, 6);
    g.member_zones[0] = bytes_of_string("a");
    for (uint32_t p = 0; p < 6; p++) {
        g.partition_zones[p] = bytes_of_string(p % 2 == 0 ? "a" : "b");
    }
    balance_and_check(&g);
    join(&g, 1);
    g.member_zones[1] = bytes_of_string("b");
    balance_and_check(&g);
    assert_int_equal(count_home(&g), 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hundred_members_over_256_partitions_move_only_what_must_move),
        cmocka_unit_test(one_that_leaves_moves_its_own_and_one_that_joins_its_share),
        cmocka_unit_test(anything_random_is_whole_balanced_and_sticky),
        cmocka_unit_test(more_members_than_partitions_leave_some_idle),
        cmocka_unit_test(nobody_has_anything_when_there_are_no_members),
        cmocka_unit_test(free_partitions_go_to_members_in_their_leaders_zone),
        cmocka_unit_test(who_must_give_some_up_keeps_those_of_its_zone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
