/* Elections and votes: the claims of the dissertation (2014), sections 3.3, 3.4 and 3.6.1. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/raft_fixture.h"

static void assert_vote(const struct raft_update *u, bool granted)
{
    assert_int_equal(u->send_now_count, 0);
    assert_int_equal(u->send_after_sync_count, 1);
    assert_int_equal(u->send_after_sync[0].type, RAFT_VOTE_REPLY);
    assert_int_equal(u->send_after_sync[0].success, granted);
    assert_int_equal(u->send_after_sync[0].term, u->term);
}

/* 3.4: servers start up as followers and stay so until the election timeout. */
static void a_node_starts_as_follower_and_waits_its_timeout(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 0, NULL, 0);
    assert_int_equal(raft_role(r), RAFT_FOLLOWER);
    assert_true(raft_deadline_us(r) >= RAFT_ELECTION_MIN_US);
    assert_true(raft_deadline_us(r) <= RAFT_ELECTION_MAX_US);
    struct raft_event early = {.type = RAFT_TICK, .now_us = raft_deadline_us(r) - 1};
    struct raft_update u = fixture_step(r, early);
    assert_int_equal(raft_role(r), RAFT_FOLLOWER);
    assert_false(u.hard_state_changed);
    raft_free(&r);
}

/* 3.4: it increments its term, votes for itself and asks all; all of it waits for the fsync. */
static void a_timeout_makes_a_candidate_that_asks_after_sync(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 2, 2};
    struct raft *r = fixture_new(5, 2, terms, 3);
    struct raft_update u = fixture_campaign(r, 5);
    assert_int_equal(u.term, 3);
    assert_int_equal(u.vote, FIXTURE_SELF);
    assert_true(u.hard_state_changed);
    assert_int_equal(u.send_now_count, 0);
    assert_int_equal(u.send_after_sync_count, 4);
    for (raft_id to = 2; to <= 5; to++) {
        const struct raft_message *m =
            fixture_message_to(u.send_after_sync, u.send_after_sync_count, to);
        assert_int_equal(m->type, RAFT_VOTE_REQUEST);
        assert_int_equal(m->prev_index, 3);
        assert_int_equal(m->prev_term, 2);
    }
    raft_free(&r);
}

/* 3.4: votes from a majority of the full cluster for the same term. */
static void a_majority_makes_a_leader_and_less_does_not(void **state)
{
    (void)state;
    struct raft *r = fixture_new(5, 0, NULL, 0);
    (void)fixture_campaign(r, 5);
    (void)fixture_stored(r);
    (void)fixture_receive(r, fixture_vote_reply(2, 1, true));
    (void)fixture_receive(r, fixture_vote_reply(2, 1, true)); /* Doubled by the network. */
    (void)fixture_receive(r, fixture_vote_reply(3, 1, false));
    assert_int_equal(raft_role(r), RAFT_CANDIDATE);
    struct raft_update u = fixture_receive(r, fixture_vote_reply(4, 1, true));
    assert_true(u.became_leader);
    assert_int_equal(u.append_kind, RAFT_APPENDED_NOOP);
    assert_int_equal(u.send_now_count, 0);
    u = fixture_send(r);
    assert_int_equal(u.send_now_count, 4);
    assert_int_equal(u.send_now[0].entry_count, 1);
    raft_free(&r);
}

/* Votes of others do not help while the own one can be forgotten in a crash. */
static void a_candidate_does_not_lead_before_its_own_vote_is_stored(void **state)
{
    (void)state;
    struct raft *r = fixture_new(5, 0, NULL, 0);
    (void)fixture_campaign(r, 5);
    for (raft_id voter = 2; voter <= 4; voter++) {
        (void)fixture_receive(r, fixture_vote_reply(voter, 1, true));
    }
    assert_int_equal(raft_role(r), RAFT_CANDIDATE);
    assert_true(fixture_stored(r).became_leader);
    raft_free(&r);
}

/* 3.4: votes of an earlier election do not count in the next. */
static void votes_of_an_earlier_term_do_not_count(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 0, NULL, 0);
    (void)fixture_campaign(r, 3);
    (void)fixture_stored(r);
    (void)fixture_campaign(r, 3);
    (void)fixture_stored(r);
    assert_int_equal(raft_current_term(r), 2);
    (void)fixture_receive(r, fixture_vote_reply(2, 1, true));
    assert_int_equal(raft_role(r), RAFT_CANDIDATE);
    (void)fixture_receive(r, fixture_vote_reply(2, 2, true));
    assert_int_equal(raft_role(r), RAFT_LEADER);
    raft_free(&r);
}

/* 3.4: each server votes for at most one candidate in a term, first come, first served. */
static void a_node_votes_once_a_term(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 0, NULL, 0);
    struct raft_update u = fixture_receive(r, fixture_vote_request(2, 1, 0, 0));
    assert_vote(&u, true);
    assert_true(u.hard_state_changed);
    assert_int_equal(u.vote, 2);
    u = fixture_receive(r, fixture_vote_request(3, 1, 0, 0));
    assert_vote(&u, false);
    assert_false(u.hard_state_changed);
    u = fixture_receive(r, fixture_vote_request(2, 1, 0, 0)); /* The reply was lost. */
    assert_vote(&u, true);
    u = fixture_receive(r, fixture_vote_request(3, 2, 0, 0));
    assert_vote(&u, true);
    raft_free(&r);
}

/* NATS #5314, CCF #8094: stepping down within the term must not free the vote. */
static void a_candidate_that_meets_the_leader_of_its_term_keeps_its_vote(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 0, NULL, 0);
    (void)fixture_campaign(r, 3);
    struct raft_update u = fixture_receive(r, fixture_append(2, 1, 0, 0, 0, NULL, 0, 0));
    assert_int_equal(raft_role(r), RAFT_FOLLOWER);
    assert_int_equal(raft_leader(r), 2);
    assert_int_equal(u.vote, FIXTURE_SELF);
    struct raft_message m = fixture_vote_request(3, 1, 0, 0);
    m.transfer = true;
    u = fixture_receive(r, m);
    assert_vote(&u, false);
    raft_free(&r);
}

/* 3.6.1: the voter denies its vote if its own log is more up to date. */
static void a_vote_needs_a_log_as_up_to_date(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 1, 3};
    static const struct {
        raft_index last_index;
        raft_term last_term;
        bool granted;
    } cases[] = {
        {0, 0, false}, {9, 1, false}, {9, 2, false}, {2, 3, false},
        {3, 3, true},  {4, 3, true},  {1, 4, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct raft *r = fixture_new(3, 3, terms, 3);
        struct raft_update u =
            fixture_receive(r, fixture_vote_request(2, 5, cases[i].last_index, cases[i].last_term));
        assert_vote(&u, cases[i].granted);
        assert_int_equal(u.term, 5);
        raft_free(&r);
    }
}

/* 3.4: only a granted vote, or the leader, restarts the election timer. */
static void a_refused_vote_does_not_restart_the_timer(void **state)
{
    (void)state;
    const raft_term terms[] = {2};
    struct raft *r = fixture_new(3, 2, terms, 1);
    int64_t deadline_us = raft_deadline_us(r);
    struct raft_message m = fixture_vote_request(2, 3, 5, 1);
    struct raft_event event = {.type = RAFT_RECEIVE, .now_us = 400000, .message = &m};
    (void)fixture_step(r, event);
    assert_int_equal(raft_deadline_us(r), deadline_us);
    m = fixture_vote_request(3, 3, 1, 2);
    (void)fixture_step(r, event);
    assert_true(raft_deadline_us(r) >= 400000 + RAFT_ELECTION_MIN_US);
    raft_free(&r);
}

/* 3.3: a request with a stale term is rejected, and the sender learns the term. */
static void requests_of_an_earlier_term_are_refused_with_the_present_one(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 5, NULL, 0);
    struct raft_update u = fixture_receive(r, fixture_vote_request(2, 4, 0, 0));
    assert_vote(&u, false);
    assert_int_equal(u.send_after_sync[0].term, 5);
    u = fixture_receive(r, fixture_append(2, 4, 0, 0, 0, NULL, 0, 0));
    assert_int_equal(u.send_after_sync[0].type, RAFT_APPEND_REPLY);
    assert_false(u.send_after_sync[0].success);
    assert_int_equal(u.send_after_sync[0].term, 5);
    assert_int_equal(raft_leader(r), 0);
    raft_free(&r);
}

/* 3.3: a leader that discovers a later term becomes a follower at once, from any message. */
static void a_leader_steps_down_for_any_message_of_a_later_term(void **state)
{
    (void)state;
    for (int kind = 0; kind < 5; kind++) {
        struct raft *r = fixture_new(3, 0, NULL, 0);
        fixture_lead(r, 3);
        struct raft_message messages[] = {
            fixture_vote_request(2, 9, 0, 0), fixture_vote_reply(2, 9, false),
            fixture_append(2, 9, 0, 0, 0, NULL, 0, 0), fixture_append_reply(2, 9, false, 0, 0, 1),
            fixture_pre_vote_reply(2, 9, false, 1)};
        messages[0].transfer = true; /* Else the leader's lease refuses it. */
        struct raft_update u = fixture_receive(r, messages[kind]);
        assert_true(u.lost_leadership);
        assert_true(u.hard_state_changed);
        assert_int_equal(u.term, 9);
        assert_int_equal(raft_role(r), RAFT_FOLLOWER);
        assert_false(raft_is_ready(r));
        struct raft_event event = {.type = RAFT_PROPOSE, .count = 1};
        assert_int_equal(raft_step(r, &event, &u), FERRY_ERR_NOT_LEADER);
        raft_free(&r);
    }
}

/* E04, nebula #2405; 3.4: term and vote come back from the disk, so a restart frees neither. */
static void a_restart_keeps_term_and_vote(void **state)
{
    (void)state;
    struct raft_config config = {.self = FIXTURE_SELF, .seed = 1};
    struct raft_disk disk = {.term = 6,
                             .vote = 3,
                             .config = {.members = fixture_members(3, 0)},
                             .previous_config = {.members = fixture_members(3, 0)}};
    struct raft *r = NULL;
    assert_int_equal(raft_new(&config, &disk, 0, &r), FERRY_OK);
    struct raft_update u = fixture_receive(r, fixture_vote_request(2, 6, 0, 0));
    assert_vote(&u, false);
    u = fixture_receive(r, fixture_vote_request(2, 5, 0, 0));
    assert_vote(&u, false);
    u = fixture_receive(r, fixture_vote_request(3, 6, 0, 0));
    assert_vote(&u, true);
    raft_free(&r);
}

/* E02 (hashicorp #695, NuRaft #293), E08 (etcd-io/raft TestLeaderMsgAppSelfAckAfterTermChange): a
 * leader steps down while its proposal is being written. The fsync then counts for a follower's
 * log and commits nothing. */
static void a_proposal_stored_after_the_step_down_commits_nothing(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    struct raft_update proposal = fixture_propose(r, 2);
    (void)fixture_send(r);
    (void)fixture_acknowledge(r, 2);
    (void)fixture_receive(r, fixture_append_reply(3, 4, false, 0, 0, 0));
    struct raft_event stored = {
        .type = RAFT_STORED, .number = proposal.number, .index = 3, .term = 1};
    assert_int_equal(fixture_step(r, stored).commit, 1);
    assert_int_equal(raft_stored_index(r), 3);
    assert_int_equal(fixture_acknowledge(r, 3).commit, 1);
    raft_free(&r);
}

/* What no correct peer sends changes nothing: strangers, two leaders in a term, terms out of range.
 */
static void messages_no_correct_peer_sends_are_refused(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 1, NULL, 0);
    const struct raft_run first[] = {{.first = 1, .term = 1}};
    const struct raft_run second[] = {{.first = 2, .term = 1}};
    const struct raft_run future[] = {{.first = 1, .term = 7}};
    const struct raft_run falling[] = {{.first = 1, .term = 2}, {.first = 2, .term = 1}};
    struct raft_message elsewhere = fixture_vote_reply(2, 1, true);
    elsewhere.to = 3;
    struct raft_message unknown = fixture_vote_reply(2, 1, true);
    unknown.type = (enum raft_message_type)77;
    struct raft_message bad[] = {
        elsewhere,
        unknown,
        fixture_vote_reply(FIXTURE_SELF, 1, true),
        fixture_vote_reply(2, 0, true),
        fixture_vote_reply(2, RAFT_TERM_MAX + 1, true),
        fixture_vote_request(2, 3, 4, 0),
        fixture_vote_request(2, 3, 0, 1),
        fixture_vote_request(2, 3, 4, 3),
        fixture_vote_request(2, 3, RAFT_INDEX_MAX + 1, 1),
        fixture_append(2, 2, 0, 0, 1, NULL, 0, 0),
        fixture_append(2, 2, 0, 0, 0, first, 1, 0),
        fixture_append(2, 2, 0, 0, 1, second, 1, 0),
        fixture_append(2, 2, 0, 0, 1, future, 1, 0),
        fixture_append(2, 2, 0, 0, 2, falling, 2, 0),
        fixture_append(2, 2, 0, 0, RAFT_APPEND_ENTRIES_MAX + 1, first, 1, 0),
        fixture_append(2, 2, 1, 3, 0, NULL, 0, 0),
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(fixture_refused(r, bad[i]), FERRY_ERR_INVALID_ARGUMENT);
    }
    assert_int_equal(raft_current_term(r), 1);
    (void)fixture_receive(r, fixture_append(2, 2, 0, 0, 0, NULL, 0, 0));
    assert_int_equal(fixture_refused(r, fixture_append(3, 2, 0, 0, 0, NULL, 0, 0)),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(raft_leader(r), 2);
    raft_free(&r);
}

/* A member whose log was deleted at (term 4, index 9): it votes for nobody with less, in no phase,
 * and does not ask for votes itself before its log is as long again. */
static void a_member_below_its_floor_votes_as_if_it_still_had_its_log(void **state)
{
    (void)state;
    struct raft_members m = fixture_members(3, 0);
    struct raft_config config = {.self = FIXTURE_SELF, .seed = 1};
    struct raft_disk disk = {.term = 5,
                             .config.members = m,
                             .previous_config.members = m,
                             .floor_index = 9,
                             .floor_term = 4};
    struct raft *r = NULL;
    assert_int_equal(raft_new(&config, &disk, 0, &r), FERRY_OK);
    assert_int_equal(raft_deadline_us(r), RAFT_NEVER);
    fixture_step(r, (struct raft_event){.type = RAFT_CAMPAIGN});
    assert_int_equal(raft_role(r), RAFT_FOLLOWER);
    struct raft_update u = fixture_receive(r, fixture_pre_vote_request(2, 6, 8, 4));
    assert_false(u.send_now[0].success);
    u = fixture_receive(r, fixture_vote_request(2, 6, 8, 4));
    assert_vote(&u, false);
    u = fixture_receive(r, fixture_vote_request(2, 7, 20, 3));
    assert_vote(&u, false);
    u = fixture_receive(r, fixture_vote_request(2, 8, 9, 4));
    assert_vote(&u, true);
    const struct raft_run runs[] = {{1, 4}};
    (void)fixture_receive(r, fixture_append(2, 8, 0, 0, 9, runs, 1, 0));
    assert_int_not_equal(raft_deadline_us(r), RAFT_NEVER);
    raft_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_starts_as_follower_and_waits_its_timeout),
        cmocka_unit_test(a_timeout_makes_a_candidate_that_asks_after_sync),
        cmocka_unit_test(a_majority_makes_a_leader_and_less_does_not),
        cmocka_unit_test(a_candidate_does_not_lead_before_its_own_vote_is_stored),
        cmocka_unit_test(votes_of_an_earlier_term_do_not_count),
        cmocka_unit_test(a_member_below_its_floor_votes_as_if_it_still_had_its_log),
        cmocka_unit_test(a_node_votes_once_a_term),
        cmocka_unit_test(a_candidate_that_meets_the_leader_of_its_term_keeps_its_vote),
        cmocka_unit_test(a_vote_needs_a_log_as_up_to_date),
        cmocka_unit_test(a_refused_vote_does_not_restart_the_timer),
        cmocka_unit_test(requests_of_an_earlier_term_are_refused_with_the_present_one),
        cmocka_unit_test(a_leader_steps_down_for_any_message_of_a_later_term),
        cmocka_unit_test(a_restart_keeps_term_and_vote),
        cmocka_unit_test(a_proposal_stored_after_the_step_down_commits_nothing),
        cmocka_unit_test(messages_no_correct_peer_sends_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
