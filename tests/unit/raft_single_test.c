/* A group of one takes the same path as any other: vote, fsync, lead, no-op, fsync, commit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raft/raft.h"

#define ALONE                                                                                      \
    .config.members = {.voters = {7}, .voter_count = 1},                                           \
    .previous_config.members = {.voters = {7}, .voter_count = 1}

static const struct raft_disk empty_disk = {ALONE};

static struct raft *new_single(const struct raft_disk *disk)
{
    struct raft_config config = {.self = 7, .seed = 1};
    struct raft *r = NULL;
    assert_int_equal(raft_new(&config, disk, 1000, &r), FERRY_OK);
    return r;
}

static struct raft_update step(struct raft *r, struct raft_event event)
{
    struct raft_update u;
    event.now_us = 1000;
    assert_int_equal(raft_step(r, &event, &u), FERRY_OK);
    raft_check(r);
    return u;
}

static struct raft_update tick(struct raft *r)
{
    return step(r, (struct raft_event){.type = RAFT_TICK});
}

static struct raft_update propose(struct raft *r, uint32_t count)
{
    return step(r, (struct raft_event){.type = RAFT_PROPOSE, .count = count});
}

/* What a driver says that steps nothing between its fsync and this. */
static struct raft_update stored_all(struct raft *r)
{
    raft_index last = raft_last_index(r);
    return step(
        r, (struct raft_event){.type = RAFT_STORED, .index = last, .term = raft_term_at(r, last)});
}

static struct raft *new_leader(void)
{
    struct raft *r = new_single(&empty_disk);
    tick(r);
    stored_all(r);
    stored_all(r);
    assert_true(raft_is_ready(r));
    return r;
}

/* 3.4; invariant 7. */
static void a_group_of_one_leads_only_after_its_vote_is_stored(void **state)
{
    (void)state;
    struct raft *r = new_single(&empty_disk);
    assert_int_equal(raft_deadline_us(r), 1000);
    struct raft_update u = tick(r);
    assert_true(u.hard_state_changed);
    assert_int_equal(u.term, 1);
    assert_int_equal(u.vote, 7);
    assert_int_equal(raft_role(r), RAFT_CANDIDATE);
    assert_int_equal(raft_deadline_us(r), RAFT_NEVER);
    u = stored_all(r);
    assert_true(u.became_leader);
    assert_int_equal(u.append_kind, RAFT_APPENDED_NOOP);
    assert_int_equal(u.append_first, 1);
    assert_int_equal(u.append_last, 1);
    assert_int_equal(u.append_term, 1);
    assert_int_equal(raft_leader(r), 7);
    assert_false(raft_is_ready(r));
    raft_free(&r);
}

/* etcd-io/etcd #14370; 10.2.1. */
static void a_group_of_one_does_not_commit_before_stored(void **state)
{
    (void)state;
    struct raft *r = new_leader();
    assert_int_equal(raft_commit_index(r), 1);
    struct raft_update u = propose(r, 5);
    assert_int_equal(u.append_first, 2);
    assert_int_equal(u.append_last, 6);
    assert_int_equal(u.commit, 1);
    u = tick(r);
    assert_int_equal(u.commit, 1);
    u = stored_all(r);
    assert_int_equal(u.commit, 6);
    raft_free(&r);
}

/* An fsync that began before the last proposals covers only what was appended before it. */
static void stored_commits_no_further_than_it_covers(void **state)
{
    (void)state;
    struct raft *r = new_leader();
    struct raft_update first = propose(r, 2);
    propose(r, 2);
    struct raft_update u = step(
        r, (struct raft_event){.type = RAFT_STORED, .number = first.number, .index = 3, .term = 1});
    assert_int_equal(u.commit, 3);
    u = stored_all(r);
    assert_int_equal(u.commit, 5);
    raft_free(&r);
}

/* A fsync that began before the vote was cast does not make the vote durable. */
static void stored_of_an_earlier_update_does_not_cover_the_vote(void **state)
{
    (void)state;
    struct raft *r = new_single(&empty_disk);
    struct raft_update before = step(r, (struct raft_event){.type = RAFT_TRIM, .index = 0});
    struct raft_update vote = tick(r);
    step(r, (struct raft_event){.type = RAFT_STORED, .number = before.number});
    assert_int_equal(raft_role(r), RAFT_CANDIDATE);
    step(r, (struct raft_event){.type = RAFT_STORED, .number = vote.number});
    assert_int_equal(raft_role(r), RAFT_LEADER);
    raft_free(&r);
}

static void stored_of_an_update_not_yet_given_is_refused(void **state)
{
    (void)state;
    struct raft *r = new_leader();
    struct raft_update last = propose(r, 1);
    struct raft_event event = {
        .type = RAFT_STORED, .number = last.number + 1, .index = 2, .term = 1};
    struct raft_update u;
    assert_int_equal(raft_step(r, &event, &u), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(raft_commit_index(r), 1);
    raft_free(&r);
}

/* 5.4.2 of the paper: what an earlier term left is committed by the new term's no-op. */
static void a_restart_commits_the_old_log_with_a_new_no_op(void **state)
{
    (void)state;
    struct raft_run runs[] = {{.first = 5, .term = 2}, {.first = 8, .term = 3}};
    struct raft_disk disk = {ALONE,           .term = 3,       .vote = 7,
                             .commit = 5,     .trim_index = 4, .trim_term = 1,
                             .last_index = 9, .runs = runs,    .run_count = 2};
    struct raft *r = new_single(&disk);
    assert_int_equal(raft_commit_index(r), 5);
    assert_int_equal(raft_term_at(r, 4), 1);
    assert_int_equal(raft_term_at(r, 7), 2);
    assert_int_equal(raft_term_at(r, 9), 3);
    assert_int_equal(raft_term_at(r, 10), 0);
    tick(r);
    assert_int_equal(raft_current_term(r), 4);
    assert_int_equal(stored_all(r).append_first, 10);
    assert_int_equal(raft_commit_index(r), 5);
    assert_int_equal(stored_all(r).commit, 10);
    assert_true(raft_is_ready(r));
    raft_free(&r);
}

static void proposals_before_leading_are_refused(void **state)
{
    (void)state;
    struct raft *r = new_single(&empty_disk);
    struct raft_event event = {.type = RAFT_PROPOSE, .now_us = 1000, .count = 1};
    struct raft_update u;
    assert_int_equal(raft_step(r, &event, &u), FERRY_ERR_NOT_LEADER);
    assert_int_equal(u.append_first, 0);
    assert_int_equal(raft_last_index(r), 0);
    raft_free(&r);
}

/* etcd-io/raft TestUncommittedEntryLimit; E29. */
static void a_leader_with_too_much_uncommitted_throttles(void **state)
{
    (void)state;
    struct raft *r = new_leader();
    propose(r, RAFT_UNCOMMITTED_MAX - 1);
    propose(r, 1);
    struct raft_event event = {.type = RAFT_PROPOSE, .now_us = 1000, .count = 1};
    struct raft_update u;
    assert_int_equal(raft_step(r, &event, &u), FERRY_ERR_THROTTLED);
    assert_int_equal(raft_last_index(r), 1 + RAFT_UNCOMMITTED_MAX);
    stored_all(r);
    assert_int_equal(raft_step(r, &event, &u), FERRY_OK);
    event.count = 0;
    assert_int_equal(raft_step(r, &event, &u), FERRY_ERR_INVALID_ARGUMENT);
    event.count = RAFT_UNCOMMITTED_MAX + 1;
    assert_int_equal(raft_step(r, &event, &u), FERRY_ERR_INVALID_ARGUMENT);
    raft_free(&r);
}

static void a_trim_forgets_entries_up_to_commit_and_no_further(void **state)
{
    (void)state;
    struct raft *r = new_leader();
    propose(r, 9);
    struct raft_event event = {.type = RAFT_TRIM, .now_us = 1000, .index = 2};
    struct raft_update u;
    assert_int_equal(raft_step(r, &event, &u), FERRY_ERR_INVALID_ARGUMENT);
    stored_all(r);
    assert_int_equal(raft_step(r, &event, &u), FERRY_OK);
    assert_int_equal(raft_trim_index(r), 2);
    assert_int_equal(raft_term_at(r, 1), 0);
    assert_int_equal(raft_term_at(r, 2), 1);
    event.index = 10;
    assert_int_equal(raft_step(r, &event, &u), FERRY_OK);
    assert_int_equal(raft_last_index(r), 10);
    propose(r, 1);
    assert_int_equal(stored_all(r).commit, 11);
    raft_free(&r);
}

/* Configurations and disks that cannot be are refused with the right name. */
static void a_bad_configuration_or_disk_is_refused(void **state)
{
    (void)state;
    struct raft *r = NULL;
    struct raft_config good = {.self = 7};
    struct raft_disk twice = {.config.members = {.voters = {7, 7}, .voter_count = 2}};
    assert_int_equal(raft_new(&good, &twice, 0, &r), FERRY_ERR_INVALID_ARGUMENT);
    struct raft_disk late_config = {.config = {.index = 1}};
    assert_int_equal(raft_new(&good, &late_config, 0, &r), FERRY_ERR_CORRUPT);
    struct raft_config nobody = {.self = 0};
    assert_int_equal(raft_new(&nobody, &empty_disk, 0, &r), FERRY_ERR_INVALID_ARGUMENT);
    struct raft_config slow = {
        .self = 7, .election_min_us = 10, .election_max_us = 20, .heartbeat_us = 10};
    assert_int_equal(raft_new(&slow, &empty_disk, 0, &r), FERRY_ERR_INVALID_ARGUMENT);
    struct raft_run gap[] = {{.first = 2, .term = 1}};
    struct raft_disk hole = {ALONE, .term = 1, .last_index = 3, .runs = gap, .run_count = 1};
    assert_int_equal(raft_new(&good, &hole, 0, &r), FERRY_ERR_CORRUPT);
    struct raft_run late[] = {{.first = 1, .term = 5}};
    struct raft_disk old_term = {ALONE, .term = 4, .last_index = 3, .runs = late, .run_count = 1};
    assert_int_equal(raft_new(&good, &old_term, 0, &r), FERRY_ERR_CORRUPT);
    struct raft_disk beyond = {ALONE,       .term = 5,    .last_index = 3,
                               .commit = 4, .runs = late, .run_count = 1};
    assert_int_equal(raft_new(&good, &beyond, 0, &r), FERRY_ERR_CORRUPT);
    assert_null(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_of_one_leads_only_after_its_vote_is_stored),
        cmocka_unit_test(a_group_of_one_does_not_commit_before_stored),
        cmocka_unit_test(stored_commits_no_further_than_it_covers),
        cmocka_unit_test(stored_of_an_earlier_update_does_not_cover_the_vote),
        cmocka_unit_test(stored_of_an_update_not_yet_given_is_refused),
        cmocka_unit_test(a_restart_commits_the_old_log_with_a_new_no_op),
        cmocka_unit_test(proposals_before_leading_are_refused),
        cmocka_unit_test(a_leader_with_too_much_uncommitted_throttles),
        cmocka_unit_test(a_trim_forgets_entries_up_to_commit_and_no_further),
        cmocka_unit_test(a_bad_configuration_or_disk_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
