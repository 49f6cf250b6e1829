/* Sagas in all orders of their messages: every interleaving of small ones, and thousands of random
 * large ones, with repeats, losses, failed transactions, timers at any time and operators. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "lib/saga_world.h"

#define SEEDS       10000
#define CHOICES_MAX 400
#define RUNS_MAX    300000

/* ---- Random runs ----------------------------------------------------------------------------- */

static uint64_t choose_random(void *arg, uint64_t bound)
{
    return prng_below(arg, bound);
}

static bool one_in(struct prng *p, uint64_t n)
{
    return prng_below(p, n) == 0;
}

static struct world_plan random_plan(struct prng *p, enum ferry_saga_kind kind, bool deadlines)
{
    struct world_plan plan = {.kind = kind, .steps = 1 + prng_below(p, WORLD_STEPS_MAX)};
    plan.whole_ms = kind == FERRY_SAGA_CHOREOGRAPHED && one_in(p, 2) ? 1000 : 0;
    for (size_t i = 0; i < plan.steps; i++) {
        plan.no_undo[i] = one_in(p, 6);
        plan.refuse[i] = one_in(p, 6);
        plan.undo_refusals[i] = one_in(p, 8) ? 1 + (int)prng_below(p, 3) : 0;
        plan.deadline_ms[i] = deadlines || one_in(p, 2) ? 1000 : 0;
    }
    return plan;
}

/* Which faults there are differs from seed to seed. What is lost comes again only by timers, so
 * only orchestrated sagas with deadlines lose anything. */
static void random_run(struct world *w, uint64_t seed, bool barrier_broken)
{
    struct prng p;
    prng_init(&p, seed);
    saga_world_reset(w);
    w->choose = choose_random;
    w->arg = &p;
    w->barrier_broken = barrier_broken;
    w->database_count = 2 + prng_below(&p, WORLD_DATABASES_MAX - 1);
    bool lossy = one_in(&p, 3);
    w->budget = (struct world_budget){
        .in_order = one_in(&p, 2),
        .repeats = one_in(&p, 2) ? (int)prng_below(&p, 10) : 0,
        .failures = one_in(&p, 2) ? (int)prng_below(&p, 10) : 0,
        .losses = lossy ? 1 + (int)prng_below(&p, 4) : 0,
        .timers = one_in(&p, 2) ? (int)prng_below(&p, 12) : 0,
        .retries = one_in(&p, 4) ? (int)prng_below(&p, 4) : 0,
        .aborts = one_in(&p, 4) ? 1 + (int)prng_below(&p, 2) : 0,
    };
    size_t sagas = 1 + prng_below(&p, WORLD_SAGAS_MAX);
    for (size_t i = 0; i < sagas; i++) {
        enum ferry_saga_kind kind =
            !lossy && one_in(&p, 2) ? FERRY_SAGA_CHOREOGRAPHED : FERRY_SAGA_ORCHESTRATED;
        struct world_plan plan = random_plan(&p, kind, lossy);
        saga_world_start(w, &plan);
    }
    (void)saga_world_run(w);
}

static void every_seed_ends_all_done_or_all_compensated(void **state)
{
    struct world *w = *state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        random_run(w, seed, false);
        if (w->wrong[0] != '\0') {
            fail_msg("seed %llu: %s", (unsigned long long)seed, w->wrong);
        }
    }
}

/* The checker would notice: a barrier that lets everything through is found out soon. */
static void without_a_barrier_the_checker_complains(void **state)
{
    struct world *w = *state;
    int found = 0;
    for (uint64_t seed = 1; seed <= 500; seed++) {
        random_run(w, seed, true);
        found += w->wrong[0] != '\0';
    }
    assert_true(found > 100);
}

/* ---- Every interleaving ---------------------------------------------------------------------- */

/* The choices of a run, and how many there were at each place: an odometer. */
struct all {
    uint64_t at[CHOICES_MAX], bound[CHOICES_MAX];
    size_t used, kept;
};

static uint64_t choose_next(void *arg, uint64_t bound)
{
    struct all *a = arg;
    assert_true(a->used < CHOICES_MAX);
    if (a->used >= a->kept) {
        a->at[a->used] = 0;
        a->kept = a->used + 1;
    }
    a->bound[a->used] = bound;
    return a->at[a->used++];
}

static bool next_run(struct all *a)
{
    while (a->used > 0) {
        size_t last = a->used - 1;
        if (a->at[last] + 1 < a->bound[last]) {
            a->at[last]++;
            a->kept = a->used;
            return true;
        }
        a->used = last;
    }
    return false;
}

static void try_all(struct world *w, const struct world_plan *plan,
                    const struct world_budget *budget)
{
    static struct all a;
    memset(&a, 0, sizeof(a));
    long runs = 0;
    do {
        a.used = 0;
        saga_world_reset(w);
        w->choose = choose_next;
        w->arg = &a;
        w->all = true;
        w->budget = *budget;
        saga_world_start(w, plan);
        (void)saga_world_run(w);
        if (w->wrong[0] != '\0') {
            fail_msg("run %ld: %s", runs, w->wrong);
        }
        runs++;
        assert_true(runs < RUNS_MAX);
    } while (next_run(&a));
    printf("%ld interleavings\n", runs);
}

static const struct world_plan orchestrated = {
    .kind = FERRY_SAGA_ORCHESTRATED, .steps = 2, .deadline_ms = {1000, 1000}};
static const struct world_plan choreographed = {.kind = FERRY_SAGA_CHOREOGRAPHED, .steps = 3};

/* Up to two timers come at any time: before the do, between do and done, between undo and undone,
 * and so on; messages overtake each other. */
static void timers_race_answers_in_every_order(void **state)
{
    struct world_plan plan = orchestrated;
    const struct world_budget budget = {.timers = 2};
    try_all(*state, &plan, &budget);
    plan.refuse[1] = true;
    try_all(*state, &plan, &budget);
    plan.refuse[0] = true;
    try_all(*state, &plan, &budget);
}

static void refused_compensations_race_retries_in_every_order(void **state)
{
    struct world_plan plan = orchestrated;
    plan.steps = 1;
    plan.undo_refusals[0] = 1;
    const struct world_budget budget = {.timers = 2, .retries = 1};
    try_all(*state, &plan, &budget);
}

static void repeats_change_nothing_in_every_order(void **state)
{
    struct world_plan plan = orchestrated;
    plan.steps = 1;
    const struct world_budget budget = {.timers = 1, .repeats = 2};
    try_all(*state, &plan, &budget);
}

/* The deadline of the whole passes before, between and after all that is on its way. */
static void a_deadline_meets_a_slip_in_every_order(void **state)
{
    struct world_plan plan = choreographed;
    plan.whole_ms = 1000;
    const struct world_budget budget = {.timers = 1, .repeats = 1};
    try_all(*state, &plan, &budget);
    plan.refuse[2] = true;
    try_all(*state, &plan, &budget);
    plan.refuse[1] = true;
    plan.no_undo[1] = true;
    try_all(*state, &plan, &budget);
}

/* The undo of an abort meets the do that is under way, or a compensation that is. */
static void an_abort_meets_a_slip_in_every_order(void **state)
{
    struct world_plan plan = choreographed;
    const struct world_budget budget = {.aborts = 1};
    try_all(*state, &plan, &budget);
    plan.refuse[2] = true;
    try_all(*state, &plan, &budget);
    plan.refuse[1] = true;
    plan.no_undo[1] = true;
    try_all(*state, &plan, &budget);
}

static void an_abort_meets_timers_in_every_order(void **state)
{
    struct world_plan plan = orchestrated;
    const struct world_budget budget = {.aborts = 1, .timers = 1};
    try_all(*state, &plan, &budget);
}

static int setup(void **state)
{
    *state = saga_world_new();
    return 0;
}

static int teardown(void **state)
{
    saga_world_free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_seed_ends_all_done_or_all_compensated),
        cmocka_unit_test(without_a_barrier_the_checker_complains),
        cmocka_unit_test(timers_race_answers_in_every_order),
        cmocka_unit_test(refused_compensations_race_retries_in_every_order),
        cmocka_unit_test(repeats_change_nothing_in_every_order),
        cmocka_unit_test(an_abort_meets_a_slip_in_every_order),
        cmocka_unit_test(a_deadline_meets_a_slip_in_every_order),
        cmocka_unit_test(an_abort_meets_timers_in_every_order),
    };
    return cmocka_run_group_tests_name("saga_model", tests, setup, teardown);
}
