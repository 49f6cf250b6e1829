/* Changes of the configuration: chapter 4, and the correction of 2015 to single-server changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/raft_fixture.h"

static enum ferry_err configure(struct raft *r, const struct raft_members *m, struct raft_update *u)
{
    struct raft_event event = {.type = RAFT_CONFIGURE, .members = m};
    enum ferry_err err = raft_step(r, &event, u);
    raft_check(r);
    return err;
}

static struct raft_members voters(size_t count, const raft_id *ids)
{
    struct raft_members m = {.voter_count = (uint32_t)count};
    for (size_t i = 0; i < count; i++) {
        m.voters[i] = ids[i];
    }
    return m;
}

static struct raft_update success(struct raft *r, raft_id peer, raft_index match)
{
    return fixture_receive(r, fixture_append_reply(peer, raft_current_term(r), true, match,
                                                   raft_term_at(r, match), 0));
}

static void members_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const struct raft_members bad[] = {
        {.voters = {2, 1}, .voter_count = 2},
        {.voters = {1, 1}, .voter_count = 2},
        {.voters = {0, 1}, .voter_count = 2},
        {.voter_count = RAFT_VOTERS_MAX + 1},
        {.voters = {1}, .voter_count = 1, .learners = {1}, .learner_count = 1},
        {.voters = {1}, .voter_count = 1, .learner_count = RAFT_LEARNERS_MAX + 1},
        {.old_voters = {1}, .old_voter_count = 1},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(raft_members_check(&bad[i]), FERRY_ERR_INVALID_ARGUMENT);
    }
    struct raft_members nobody = {0};
    assert_int_equal(raft_members_check(&nobody), FERRY_OK);
    /* Who votes until the joint configuration is left may be a learner after it. */
    struct raft_members demoted = {.voters = {1},
                                   .voter_count = 1,
                                   .old_voters = {1, 2},
                                   .old_voter_count = 2,
                                   .learners = {2},
                                   .learner_count = 1};
    assert_int_equal(raft_members_check(&demoted), FERRY_OK);
    assert_true(raft_members_has_voter(&demoted, 2));
    assert_false(raft_members_has(&demoted, 3));
    assert_false(raft_members_equal(&demoted, &nobody));
    struct raft *r = fixture_new_leader(3, 0);
    struct raft_update u;
    assert_int_equal(configure(r, &nobody, &u), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(configure(r, &demoted, &u), FERRY_ERR_INVALID_ARGUMENT);
    raft_free(&r);
}

/* 4.3: two adds, two removes, in one change: through C_old,new, which decides by both majorities,
 * and is left by itself. 4.1: each is in force from its append on. */
static void a_change_of_voters_goes_through_a_joint_configuration(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    const raft_id ids[] = {1, 4, 5};
    struct raft_members target = voters(3, ids);
    struct raft_update u;
    assert_int_equal(configure(r, &target, &u), FERRY_OK);
    assert_int_equal(u.append_kind, RAFT_APPENDED_CONFIG);
    assert_int_equal(u.append_first, 2);
    assert_true(u.config_changed);
    assert_int_equal(u.config.index, 2);
    assert_int_equal(u.config.members.old_voter_count, 3);
    assert_int_equal(u.previous_config.index, 0);
    assert_int_equal(fixture_send(r).send_now_count, 4);
    (void)fixture_stored(r);
    assert_int_equal(success(r, 4, 2).commit, 1);
    assert_int_equal(success(r, 5, 2).commit, 1); /* All of the new, one of the old. */
    u = success(r, 2, 2);
    assert_int_equal(u.commit, 2);
    assert_int_equal(u.append_kind, RAFT_APPENDED_CONFIG);
    assert_int_equal(u.append_first, 3);
    assert_int_equal(u.config.members.old_voter_count, 0);
    assert_true(raft_members_equal(&u.config.members, &target));
    assert_int_equal(u.previous_config.index, 2);
    (void)fixture_stored(r);
    assert_int_equal(success(r, 2, 2).commit, 2); /* Counts no more. */
    assert_int_equal(success(r, 4, 3).commit, 3);
    struct raft_progress progress[4];
    assert_int_equal(raft_progress(r, progress, 4), 2);
    assert_true(progress[0].id == 4 && progress[0].voter && progress[1].id == 5);
    raft_free(&r);
}

/* E16: a majority of the old alone is not enough either, nor for an election. */
static void a_joint_configuration_needs_both_majorities_for_an_election(void **state)
{
    (void)state;
    struct raft_members joint = {
        .voters = {1, 4, 5}, .voter_count = 3, .old_voters = {1, 2, 3}, .old_voter_count = 3};
    struct raft *r = fixture_new_with(&joint, 1, NULL, 0);
    struct raft_update u = fixture_tick(r);
    assert_int_equal(u.send_now_count, 4);
    uint64_t attempt = u.send_now[0].sequence;
    (void)fixture_receive(r, fixture_pre_vote_reply(2, 1, true, attempt));
    (void)fixture_receive(r, fixture_pre_vote_reply(3, 1, true, attempt));
    assert_int_equal(raft_role(r), RAFT_PRE_CANDIDATE);
    (void)fixture_receive(r, fixture_pre_vote_reply(5, 1, true, attempt));
    assert_int_equal(raft_role(r), RAFT_CANDIDATE);
    (void)fixture_stored(r);
    (void)fixture_receive(r, fixture_vote_reply(4, 2, true));
    (void)fixture_receive(r, fixture_vote_reply(5, 2, true));
    assert_int_equal(raft_role(r), RAFT_CANDIDATE);
    (void)fixture_receive(r, fixture_vote_reply(2, 2, true));
    assert_int_equal(raft_role(r), RAFT_LEADER);
    raft_free(&r);
}

/* E16: a leader that finds a joint configuration in its log leaves it, once its no-op, and so that,
 * is committed. */
static void a_new_leader_leaves_the_joint_configuration_it_inherits(void **state)
{
    (void)state;
    struct raft *r = fixture_new(2, 1, NULL, 0);
    struct raft_config_entry entry = {
        .index = 2,
        .members = {.voters = {1, 2}, .voter_count = 2, .old_voters = {2}, .old_voter_count = 1}};
    const struct raft_run runs[] = {{.first = 1, .term = 1}};
    struct raft_message m = fixture_append(2, 1, 0, 0, 2, runs, 1, 0);
    m.configs = &entry;
    m.config_count = 1;
    struct raft_update u = fixture_receive(r, m);
    assert_true(u.config_changed && u.config.index == 2);
    assert_int_equal(u.append_kind, RAFT_APPENDED_RECEIVED);
    (void)fixture_stored(r);
    fixture_lead(r, 2);
    assert_int_equal(raft_commit_index(r), 0);
    u = success(r, 2, 3);
    assert_int_equal(u.commit, 3);
    assert_int_equal(u.append_first, 4);
    assert_int_equal(u.config.members.old_voter_count, 0);
    assert_int_equal(u.config.members.voter_count, 2);
    raft_free(&r);
}

/* E15; the bug of 2015 (Ongaro, raft-dev): not before an entry of the own term is committed; and
 * one at a time. */
static void a_change_waits_for_the_own_no_op_and_for_the_one_before(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 0, NULL, 0);
    struct raft_members five = fixture_members(5, 0);
    struct raft_members learner = fixture_members(3, 1);
    struct raft_update u;
    assert_int_equal(configure(r, &five, &u), FERRY_ERR_NOT_LEADER);
    fixture_lead(r, 3);
    assert_int_equal(configure(r, &five, &u), FERRY_ERR_NOT_READY);
    (void)success(r, 2, 1);
    assert_int_equal(configure(r, &learner, &u), FERRY_OK);
    assert_int_equal(configure(r, &five, &u), FERRY_ERR_NOT_READY);
    (void)fixture_stored(r);
    (void)success(r, 2, 2);
    assert_int_equal(configure(r, &five, &u), FERRY_OK);
    (void)fixture_stored(r);
    (void)success(r, 2, 3);
    (void)success(r, 4, 3);
    assert_int_equal(raft_last_index(r), 4); /* The joint one is committed and left. */
    assert_int_equal(configure(r, &learner, &u), FERRY_ERR_NOT_READY);
    (void)fixture_stored(r);
    (void)success(r, 2, 4);
    (void)success(r, 4, 4);
    assert_int_equal(raft_commit_index(r), 4);
    assert_int_equal(configure(r, &learner, &u), FERRY_OK);
    raft_free(&r);
}

/* 4.2.2; E16: a leader that C_new leaves out leads until that is committed, without counting
 * itself, then steps down and lets the best of the others campaign. */
static void a_leader_that_is_left_out_leads_until_that_is_committed(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    const raft_id ids[] = {2, 3, 4};
    struct raft_members target = voters(3, ids);
    struct raft_update u;
    assert_int_equal(configure(r, &target, &u), FERRY_OK);
    (void)fixture_send(r);
    (void)fixture_stored(r);
    (void)success(r, 2, 2);
    u = success(r, 3, 2);
    assert_int_equal(u.append_first, 3);
    assert_false(raft_members_has(&u.config.members, FIXTURE_SELF));
    (void)fixture_stored(r);
    assert_int_equal(raft_role(r), RAFT_LEADER);
    assert_int_equal(success(r, 3, 3).commit, 2); /* One of three: its own does not count. */
    u = success(r, 4, 3);
    assert_int_equal(u.commit, 3);
    assert_true(u.lost_leadership);
    assert_int_equal(raft_role(r), RAFT_FOLLOWER);
    assert_int_equal(raft_current_term(r), 1);
    assert_int_equal(u.send_now_count, 4);
    assert_int_equal(u.send_now[0].commit, 3);
    assert_int_equal(u.send_now[3].type, RAFT_TIMEOUT_NOW);
    assert_true(raft_deadline_us(r) == RAFT_NEVER);
    raft_free(&r);
}

/* 4.2.2: until it knows that to be committed it may be the only one with the longest log; it
 * campaigns, and does not count itself. */
static void a_voter_that_an_uncommitted_configuration_leaves_out_still_campaigns(void **state)
{
    (void)state;
    struct raft *r = fixture_new(2, 1, NULL, 0);
    struct raft_config_entry entry = {.index = 1, .members = {.voters = {2}, .voter_count = 1}};
    const struct raft_run runs[] = {{.first = 1, .term = 1}};
    struct raft_message m = fixture_append(2, 1, 0, 0, 1, runs, 1, 0);
    m.configs = &entry;
    m.config_count = 1;
    (void)fixture_receive(r, m);
    assert_true(raft_deadline_us(r) != RAFT_NEVER);
    struct raft_update u = fixture_tick(r);
    assert_int_equal(raft_role(r), RAFT_PRE_CANDIDATE);
    assert_int_equal(u.send_now_count, 1);
    (void)fixture_receive(r, fixture_append(2, 1, 1, 1, 0, NULL, 0, 1));
    assert_true(raft_deadline_us(r) == RAFT_NEVER);
    raft_free(&r);
}

/* E19; canonical/raft #323, scylladb #30984. Invariant 9: exactly the one before. */
static void a_truncated_configuration_gives_way_to_the_one_before(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 0, NULL, 0);
    struct raft_members first = raft_configuration(r)->members;
    struct raft_config_entry entries[] = {
        {.index = 1, .members = {.voters = {1, 2, 3, 4}, .voter_count = 4}},
        {.index = 3, .members = {.voters = {1, 2}, .voter_count = 2}},
    };
    const struct raft_run ours[] = {{.first = 1, .term = 1}};
    struct raft_message m = fixture_append(2, 1, 0, 0, 3, ours, 1, 1);
    m.configs = entries;
    m.config_count = 2;
    struct raft_update u = fixture_receive(r, m);
    assert_int_equal(u.config.index, 3);
    assert_int_equal(u.previous_config.index, 1);
    assert_true(raft_members_equal(&u.previous_config.members, &entries[0].members));
    const struct raft_run others[] = {{.first = 2, .term = 2}};
    u = fixture_receive(r, fixture_append(3, 2, 1, 1, 1, others, 1, 1));
    assert_int_equal(u.truncate_from, 2);
    assert_true(u.config_changed);
    assert_int_equal(u.config.index, 1);
    assert_true(raft_members_equal(&u.config.members, &entries[0].members));
    assert_true(raft_members_equal(&raft_configuration(r)->members, &entries[0].members));
    assert_false(raft_members_equal(&first, &entries[0].members));
    /* It campaigns among four again. */
    assert_int_equal(fixture_tick(r).send_now_count, 3);
    raft_free(&r);
}

/* The one before the last is committed, whether this node knows or not: nobody takes it away. */
static void an_append_that_would_cut_two_configurations_is_corrupt(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 0, NULL, 0);
    struct raft_config_entry entries[] = {
        {.index = 2, .members = {.voters = {1, 2, 3, 4}, .voter_count = 4}},
        {.index = 3, .members = {.voters = {1, 2}, .voter_count = 2}},
    };
    const struct raft_run ours[] = {{.first = 1, .term = 1}};
    struct raft_message m = fixture_append(2, 1, 0, 0, 3, ours, 1, 0);
    m.configs = entries;
    m.config_count = 2;
    (void)fixture_receive(r, m);
    const struct raft_run others[] = {{.first = 2, .term = 2}};
    assert_int_equal(fixture_refused(r, fixture_append(3, 2, 1, 1, 1, others, 1, 0)),
                     FERRY_ERR_CORRUPT);
    raft_free(&r);
}

static void configurations_beside_an_append_must_be_among_its_entries(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 0, NULL, 0);
    struct raft_config_entry good = {.index = 1, .members = {.voters = {1}, .voter_count = 1}};
    struct raft_config_entry bad[] = {good, good, good};
    bad[0].index = 3;
    bad[1].index = 0;
    bad[2].members.voter_count = 0;
    const struct raft_run runs[] = {{.first = 1, .term = 1}};
    struct raft_message m = fixture_append(2, 1, 0, 0, 2, runs, 1, 0);
    m.config_count = 1;
    for (size_t i = 0; i < 3; i++) {
        m.configs = &bad[i];
        assert_int_equal(fixture_refused(r, m), FERRY_ERR_INVALID_ARGUMENT);
    }
    struct raft_config_entry twice[] = {good, good};
    m.configs = twice;
    m.config_count = 2;
    assert_int_equal(fixture_refused(r, m), FERRY_ERR_INVALID_ARGUMENT);
    raft_free(&r);
}

/* 4.2.1; E18: a learner is fed, and neither counts nor campaigns. */
static void a_learner_is_fed_and_does_not_count(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 2);
    (void)fixture_propose(r, 1);
    assert_int_equal(fixture_send(r).send_now_count, 4);
    (void)fixture_stored(r);
    assert_int_equal(success(r, 4, 2).commit, 1);
    assert_int_equal(success(r, 5, 2).commit, 1);
    assert_int_equal(success(r, 3, 2).commit, 2);
    struct raft_progress progress[4];
    assert_int_equal(raft_progress(r, progress, 4), 4);
    assert_true(progress[3].id == 5 && progress[3].learner && !progress[3].voter);
    raft_free(&r);
    struct raft_members as_learner = {
        .voters = {2, 3}, .voter_count = 2, .learners = {1}, .learner_count = 1};
    r = fixture_new_with(&as_learner, 1, NULL, 0);
    assert_true(raft_deadline_us(r) == RAFT_NEVER);
    (void)fixture_step(r, (struct raft_event){.type = RAFT_CAMPAIGN});
    assert_int_equal(raft_role(r), RAFT_FOLLOWER);
    raft_free(&r);
}

/* E18: its own configuration may be the stale one; the candidate counts by the newer. */
static void a_learner_that_is_asked_votes(void **state)
{
    (void)state;
    struct raft_members as_learner = {
        .voters = {2, 3}, .voter_count = 2, .learners = {1}, .learner_count = 1};
    struct raft *r = fixture_new_with(&as_learner, 1, NULL, 0);
    assert_true(fixture_receive(r, fixture_vote_request(2, 2, 5, 1)).send_after_sync[0].success);
    raft_free(&r);
}

/* E18: made a voter, it counts from the append on. */
static void a_learner_that_is_made_a_voter_counts_at_once(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(1, 1);
    struct raft_members two = fixture_members(2, 0);
    struct raft_update u;
    assert_int_equal(configure(r, &two, &u), FERRY_OK);
    assert_int_equal(fixture_stored(r).commit, 1); /* Not without 2 any more. */
    assert_int_equal(success(r, 2, 2).commit, 2);
    raft_free(&r);
}

/* Learners come and go in one step: no quorum changes. */
static void a_change_of_learners_alone_needs_no_joint_configuration(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 1);
    struct raft_members m = fixture_members(3, 5);
    struct raft_update u;
    assert_int_equal(configure(r, &m, &u), FERRY_OK);
    assert_int_equal(u.config.members.old_voter_count, 0);
    assert_int_equal(u.config.members.learner_count, 5);
    struct raft_progress progress[8];
    assert_int_equal(raft_progress(r, progress, 8), 7);
    assert_int_equal(progress[2].match, 1); /* Who stays is known as before. */
    assert_int_equal(progress[3].match, 0);
    raft_free(&r);
}

/* Voters that are to be learners vote until the joint configuration is left. */
static void a_voter_can_be_made_a_learner(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    struct raft_members m = fixture_members(2, 1);
    struct raft_update u;
    assert_int_equal(configure(r, &m, &u), FERRY_OK);
    assert_int_equal(u.config.members.old_voter_count, 3);
    (void)fixture_stored(r);
    u = success(r, 2, 2);
    assert_int_equal(u.append_first, 3);
    assert_true(raft_members_equal(&u.config.members, &m));
    raft_free(&r);
}

/* E20: a node that was removed and comes back as the member it was, with what it had: nothing is
 * known of it, so it is asked. */
static void a_member_that_comes_back_is_fed_from_what_it_says(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 1);
    struct raft_members without = fixture_members(3, 0);
    struct raft_members with = fixture_members(3, 1);
    struct raft_update u;
    assert_int_equal(configure(r, &without, &u), FERRY_OK);
    (void)fixture_stored(r);
    (void)success(r, 2, 2);
    (void)fixture_receive(r, fixture_append_reply(4, 1, true, 2, 1, 0)); /* Late: ignored. */
    assert_int_equal(configure(r, &with, &u), FERRY_OK);
    struct raft_progress progress[4];
    assert_int_equal(raft_progress(r, progress, 4), 3);
    assert_true(progress[2].id == 4 && progress[2].match == 0);
    u = fixture_send(r);
    const struct raft_message *probe = fixture_message_to(u.send_now, u.send_now_count, 4);
    assert_int_equal(probe->prev_index, 2);
    (void)fixture_receive(r, fixture_append_reply(4, 1, false, 1, 1, probe->sequence));
    u = fixture_send(r);
    assert_int_equal(fixture_message_to(u.send_now, u.send_now_count, 4)->prev_index, 1);
    raft_free(&r);
}

/* 4.1: a member that knows nobody takes any leader that feeds it, and its configuration. */
static void a_member_that_knows_nobody_learns_the_group_from_its_leader(void **state)
{
    (void)state;
    struct raft_members nobody = {0};
    struct raft *r = fixture_new_with(&nobody, 0, NULL, 0);
    assert_true(raft_deadline_us(r) == RAFT_NEVER);
    struct raft_config_entry entry = {.index = 3, .members = fixture_members(3, 0)};
    const struct raft_run runs[] = {{.first = 1, .term = 1}};
    struct raft_message m = fixture_append(9, 1, 0, 0, 3, runs, 1, 2);
    m.configs = &entry;
    m.config_count = 1;
    struct raft_update u = fixture_receive(r, m);
    assert_true(u.send_after_sync[0].success);
    assert_int_equal(raft_leader(r), 9);
    assert_int_equal(raft_configuration(r)->index, 3);
    assert_true(raft_deadline_us(r) != RAFT_NEVER);
    raft_free(&r);
}

/* A group of one that takes in learners, then voters: the way in which a cluster grows. */
static void a_group_of_one_can_grow(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(1, 0);
    assert_true(raft_deadline_us(r) == RAFT_NEVER);
    struct raft_members m = fixture_members(1, 1);
    struct raft_update u;
    assert_int_equal(configure(r, &m, &u), FERRY_OK);
    assert_true(raft_deadline_us(r) != RAFT_NEVER);
    assert_int_equal(fixture_stored(r).commit, 2);
    u = fixture_tick(r);
    assert_false(u.lost_leadership);
    assert_int_equal(u.send_now_count, 1);
    raft_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_that_cannot_be_are_refused),
        cmocka_unit_test(a_change_of_voters_goes_through_a_joint_configuration),
        cmocka_unit_test(a_joint_configuration_needs_both_majorities_for_an_election),
        cmocka_unit_test(a_new_leader_leaves_the_joint_configuration_it_inherits),
        cmocka_unit_test(a_change_waits_for_the_own_no_op_and_for_the_one_before),
        cmocka_unit_test(a_leader_that_is_left_out_leads_until_that_is_committed),
        cmocka_unit_test(a_voter_that_an_uncommitted_configuration_leaves_out_still_campaigns),
        cmocka_unit_test(a_truncated_configuration_gives_way_to_the_one_before),
        cmocka_unit_test(an_append_that_would_cut_two_configurations_is_corrupt),
        cmocka_unit_test(configurations_beside_an_append_must_be_among_its_entries),
        cmocka_unit_test(a_learner_is_fed_and_does_not_count),
        cmocka_unit_test(a_learner_that_is_asked_votes),
        cmocka_unit_test(a_learner_that_is_made_a_voter_counts_at_once),
        cmocka_unit_test(a_change_of_learners_alone_needs_no_joint_configuration),
        cmocka_unit_test(a_voter_can_be_made_a_learner),
        cmocka_unit_test(a_member_that_comes_back_is_fed_from_what_it_says),
        cmocka_unit_test(a_member_that_knows_nobody_learns_the_group_from_its_leader),
        cmocka_unit_test(a_group_of_one_can_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
