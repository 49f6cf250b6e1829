/* Epochs of a group when a reset comes between a change and its being applied: no two members, nor
 * two instances of one, ever have the same partition with the same epoch (INV-P03). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "partition/members.h"

#define NUMBER     5u
#define PARTITIONS 2u

struct group {
    struct members *m;
    struct members_entry *e;
};

static int setup(void **state)
{
    struct group *g = mem_zalloc(1, sizeof(*g));
    g->m = members_new(NUMBER);
    g->e = mem_zalloc(1, sizeof(*g->e));
    *state = g;
    return g->m != NULL && g->e != NULL ? 0 : 1;
}

static int teardown(void **state)
{
    struct group *g = *state;
    members_check(g->m);
    members_free(&g->m);
    mem_free(g->e);
    mem_free(g);
    return 0;
}

static struct members_entry *decide(struct group *g, uint64_t epoch)
{
    *g->e =
        (struct members_entry){.subscription = NUMBER, .epoch = epoch, .partitions = PARTITIONS};
    return g->e;
}

static void comes(struct group *g, const char *name, uint8_t instance)
{
    g->e->in[g->e->in_count++] = (struct member_in){
        .name = bytes_of_string(name), .instance = {{instance}}, .session_ms = 1000};
}

/* All partitions are the first member's. */
static void gives_all(struct group *g)
{
    g->e->target_count = g->e->give_count = PARTITIONS;
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        g->e->targets[p] = 1;
        g->e->gives[p] = p;
    }
}

static void apply(struct group *g)
{
    assert_int_equal(members_apply(g->m, g->e, 1000), FERRY_OK);
}

static uint64_t start(struct group *g)
{
    (void)decide(g, g->m->epoch + 1);
    comes(g, "b", 1);
    gives_all(g);
    apply(g);
    assert_int_equal(g->m->shares[0].epoch, g->m->epoch);
    return g->m->epoch;
}

/* "b" is silent and its partitions are to be "a"'s; the reset gives them to "b" anew before that.
 */
static void a_reset_before_a_member_goes_leaves_it_behind(void **state)
{
    struct group *g = *state;
    uint64_t epoch = start(g);
    (void)decide(g, epoch + 1);
    g->e->out[g->e->out_count++] =
        (struct member_out){.name = bytes_of_string("b"), .cause = MEMBER_EXPIRED};
    comes(g, "a", 2);
    gives_all(g);
    members_give_anew(g->m);
    uint64_t told = g->m->shares[1].epoch;
    assert_true(told > epoch);
    apply(g);
    assert_true(g->m->shares[1].epoch > told);
    assert_true(g->m->shares[1].holder == members_find(g->m, bytes_of_string("a")));
}

static void a_reset_before_a_name_is_taken_over_leaves_the_old_one_behind(void **state)
{
    struct group *g = *state;
    uint64_t epoch = start(g);
    (void)decide(g, epoch + 1);
    comes(g, "b", 9);
    g->e->target_count = PARTITIONS;
    g->e->targets[0] = g->e->targets[1] = 1;
    members_give_anew(g->m);
    uint64_t told = g->m->shares[1].epoch;
    apply(g);
    assert_true(g->m->shares[1].epoch > told);
}

/* Without a reset epochs are those that were decided. */
static void epochs_rise_by_one_with_each_change(void **state)
{
    struct group *g = *state;
    uint64_t epoch = start(g);
    (void)decide(g, epoch + 1);
    comes(g, "b", 9);
    g->e->target_count = PARTITIONS;
    g->e->targets[0] = g->e->targets[1] = 1;
    apply(g);
    assert_int_equal(g->m->epoch, epoch + 1);
    assert_int_equal(g->m->shares[0].epoch, epoch + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(a_reset_before_a_member_goes_leaves_it_behind),
        TEST(a_reset_before_a_name_is_taken_over_leaves_the_old_one_behind),
        TEST(epochs_rise_by_one_with_each_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
