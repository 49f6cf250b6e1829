/* Every allocation fails once in turn: the step answers NO_MEMORY, the core is as it was, and the
 * same step succeeds afterwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "lib/raft_fixture.h"

#define ALLOCATIONS_MAX 32
#define TERMS_MANY      300

struct picture {
    enum raft_role role;
    raft_term term, last_term;
    raft_id leader;
    raft_index commit, last, trim;
    int64_t deadline_us;
};

static struct picture picture_of(const struct raft *r)
{
    return (struct picture){.role = raft_role(r),
                            .term = raft_current_term(r),
                            .last_term = raft_term_at(r, raft_last_index(r)),
                            .leader = raft_leader(r),
                            .commit = raft_commit_index(r),
                            .last = raft_last_index(r),
                            .trim = raft_trim_index(r),
                            .deadline_us = raft_deadline_us(r)};
}

static void assert_same(struct picture a, struct picture b)
{
    assert_int_equal(a.role, b.role);
    assert_int_equal(a.term, b.term);
    assert_int_equal(a.last_term, b.last_term);
    assert_int_equal(a.leader, b.leader);
    assert_int_equal(a.commit, b.commit);
    assert_int_equal(a.last, b.last);
    assert_int_equal(a.trim, b.trim);
    assert_int_equal(a.deadline_us, b.deadline_us);
}

/* Steps with the next allocation failing; then again with memory. True when the first failed. */
static bool step_fails_then_succeeds(struct raft *r, struct raft_event event, struct raft_update *u)
{
    struct picture before = picture_of(r);
    mem_test_fail_after(1);
    enum ferry_err err = raft_step(r, &event, u);
    mem_test_fail_after(0);
    if (err == FERRY_OK) {
        return false;
    }
    assert_int_equal(err, FERRY_ERR_NO_MEMORY);
    assert_int_equal(u->number, 0);
    raft_check(r);
    assert_same(before, picture_of(r));
    *u = fixture_step(r, event);
    return true;
}

static void a_core_that_cannot_be_made_leaves_nothing(void **state)
{
    (void)state;
    struct raft_run runs[] = {{.first = 1, .term = 1}};
    struct raft_config config = {.self = 1};
    struct raft_members members = fixture_members(3, 1);
    struct raft_disk disk = {
        .term = 1, .last_index = 4, .runs = runs, .run_count = 1, .config = {.members = members}};
    struct raft *r = NULL;
    long n = 1;
    for (; r == NULL && n < ALLOCATIONS_MAX; n++) {
        mem_test_fail_after(n);
        enum ferry_err err = raft_new(&config, &disk, 0, &r);
        mem_test_fail_after(0);
        assert_true(err == (r == NULL ? FERRY_ERR_NO_MEMORY : FERRY_OK));
    }
    assert_true(n > 4);
    raft_free(&r);
}

/* Every received append brings a new term, so the run list grows again and again. */
static void a_received_append_that_finds_no_memory_changes_nothing(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 0, NULL, 0);
    int failures = 0;
    for (raft_term term = 1; term <= TERMS_MANY; term++) {
        struct raft_run run = {.first = term, .term = term};
        struct raft_message m =
            fixture_append(2 + term % 2, term, term - 1, term - 1, 1, &run, 1, 0);
        struct raft_event event = {.type = RAFT_RECEIVE, .message = &m};
        struct raft_update u;
        failures += step_fails_then_succeeds(r, event, &u) ? 1 : 0;
        assert_int_equal(u.append_last, term);
    }
    assert_true(failures >= 4);
    raft_free(&r);
}

/* Each allocation in turn, until the step has all it wants. How many failed. */
static int step_until_enough(struct raft *r, struct raft_event event, struct raft_update *u)
{
    struct picture before = picture_of(r);
    int failures = 0;
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    while (err == FERRY_ERR_NO_MEMORY && failures < ALLOCATIONS_MAX) {
        mem_test_fail_after(failures + 1);
        err = raft_step(r, &event, u);
        mem_test_fail_after(0);
        raft_check(r);
        if (err == FERRY_ERR_NO_MEMORY) {
            failures++;
            assert_same(before, picture_of(r));
        }
    }
    assert_int_equal(err, FERRY_OK);
    return failures;
}

/* A configuration brings peers: their room is taken before anything changes. */
static void a_configuration_that_finds_no_memory_changes_nothing(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    struct raft_members many = fixture_members(7, RAFT_LEARNERS_MAX);
    struct raft_update u;
    struct raft_event configure = {.type = RAFT_CONFIGURE, .members = &many};
    assert_true(step_until_enough(r, configure, &u) >= 5);
    assert_true(u.config_changed);
    assert_int_equal(fixture_send(r).send_now_count, RAFT_LEARNERS_MAX + 6);
    raft_free(&r);
    r = fixture_new(1, 0, NULL, 0);
    struct raft_config_entry entry = {.index = 1, .members = many};
    const struct raft_run run = {.first = 1, .term = 1};
    struct raft_message m = fixture_append(9, 1, 0, 0, 1, &run, 1, 0);
    m.configs = &entry;
    m.config_count = 1;
    struct raft_event receive = {.type = RAFT_RECEIVE, .message = &m};
    assert_true(step_until_enough(r, receive, &u) >= 5);
    assert_int_equal(raft_configuration(r)->index, 1);
    raft_free(&r);
}

/* The peers of the configuration before fit too: a truncation cannot wait for memory. */
static void a_rollback_needs_no_memory(void **state)
{
    (void)state;
    struct raft_config config = {.self = FIXTURE_SELF, .seed = 1};
    struct raft_run runs[] = {{.first = 1, .term = 1}};
    struct raft_disk disk = {.term = 1,
                             .last_index = 2,
                             .runs = runs,
                             .run_count = 1,
                             .config = {.index = 2, .members = fixture_members(1, 0)},
                             .previous_config = {.index = 1, .members = fixture_members(7, 20)}};
    struct raft *r = NULL;
    assert_int_equal(raft_new(&config, &disk, 0, &r), FERRY_OK);
    const struct raft_run other = {.first = 2, .term = 2};
    struct raft_message m = fixture_append(2, 2, 1, 1, 1, &other, 1, 1);
    mem_test_fail_after(1);
    struct raft_update u = fixture_receive(r, m);
    mem_test_fail_after(0);
    assert_int_equal(u.config.index, 1);
    raft_free(&r);
}

/* A broker that starts while memory is short still gets to lead: raft_new took the room for the
 * no-op's run. */
static void the_first_election_after_a_start_needs_no_memory(void **state)
{
    (void)state;
    int failures = 0;
    for (size_t terms_before = 1; terms_before <= 64; terms_before++) {
        raft_term terms[64];
        for (size_t i = 0; i < terms_before; i++) {
            terms[i] = i + 1;
        }
        struct raft *r = fixture_new(1, terms_before, terms, terms_before);
        struct raft_event tick = {.type = RAFT_TICK};
        struct raft_update u;
        failures += step_fails_then_succeeds(r, tick, &u) ? 1 : 0;
        failures += step_fails_then_succeeds(r, (struct raft_event){.type = RAFT_STORED}, &u);
        assert_true(u.became_leader);
        raft_free(&r);
    }
    assert_int_equal(failures, 0);
}

/* After warm-up the leader's path allocates nothing: with every allocation failing it goes on. */
static void the_steady_path_does_not_allocate(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 0, NULL, 0);
    fixture_lead(r, 3);
    for (int i = 0; i < 1000; i++) {
        mem_test_fail_after(1);
        raft_index last = fixture_propose(r, 50).append_last;
        (void)fixture_send(r);
        (void)fixture_stored(r);
        (void)fixture_receive(r, fixture_append_reply(2, 1, true, last, 1, 0));
        (void)fixture_receive(r, fixture_append_reply(3, 1, true, last, 1, 0));
        assert_int_equal(raft_commit_index(r), last);
        (void)fixture_tick(r);
        (void)fixture_step(r, (struct raft_event){.type = RAFT_TRIM, .index = last - 10});
        mem_test_fail_after(0);
    }
    raft_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_core_that_cannot_be_made_leaves_nothing),
        cmocka_unit_test(a_received_append_that_finds_no_memory_changes_nothing),
        cmocka_unit_test(a_configuration_that_finds_no_memory_changes_nothing),
        cmocka_unit_test(a_rollback_needs_no_memory),
        cmocka_unit_test(the_first_election_after_a_start_needs_no_memory),
        cmocka_unit_test(the_steady_path_does_not_allocate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
