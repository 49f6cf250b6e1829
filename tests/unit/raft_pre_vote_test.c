/* Pre-votes and the leader's lease: sections 9.6, 6.4.1 and 4.2.3. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/raft_fixture.h"

static struct raft_update step_at(struct raft *r, int64_t now_us, struct raft_message m)
{
    return fixture_step(r,
                        (struct raft_event){.type = RAFT_RECEIVE, .now_us = now_us, .message = &m});
}

static void assert_pre_vote(const struct raft_update *u, bool granted, raft_term term)
{
    assert_int_equal(u->send_after_sync_count, 0);
    assert_int_equal(u->send_now_count, 1);
    assert_int_equal(u->send_now[0].type, RAFT_PRE_VOTE_REPLY);
    assert_int_equal(u->send_now[0].success, granted);
    assert_int_equal(u->send_now[0].term, term);
    assert_int_equal(u->send_now[0].sequence, 5);
    assert_false(u->hard_state_changed);
}

/* 9.6: the timer makes a pre-candidate, which asks everybody and changes nothing. */
static void a_timeout_asks_for_pre_votes_and_changes_no_term(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 2, 2};
    struct raft *r = fixture_new(3, 2, terms, 3);
    struct raft_update u = fixture_tick(r);
    assert_int_equal(raft_role(r), RAFT_PRE_CANDIDATE);
    assert_false(u.hard_state_changed);
    assert_int_equal(u.term, 2);
    assert_int_equal(u.send_now_count, 2);
    assert_int_equal(u.send_now[0].type, RAFT_PRE_VOTE_REQUEST);
    assert_int_equal(u.send_now[0].term, 3);
    assert_int_equal(u.send_now[0].prev_index, 3);
    assert_int_equal(u.send_now[0].prev_term, 2);
    /* A partitioned node does this for ever, and comes back with the term it had. */
    for (int i = 0; i < 50; i++) {
        (void)fixture_tick(r);
    }
    assert_int_equal(raft_current_term(r), 2);
    raft_free(&r);
}

/* 9.6: a majority that would vote makes a candidate, which votes for itself. */
static void a_majority_of_pre_votes_makes_a_candidate(void **state)
{
    (void)state;
    struct raft *r = fixture_new(5, 2, NULL, 0);
    uint64_t attempt = fixture_tick(r).send_now[0].sequence;
    (void)fixture_receive(r, fixture_pre_vote_reply(2, 2, true, attempt));
    (void)fixture_receive(r, fixture_pre_vote_reply(2, 2, true, attempt)); /* Doubled. */
    (void)fixture_receive(r, fixture_pre_vote_reply(3, 2, false, attempt));
    (void)fixture_receive(r, fixture_pre_vote_reply(4, 2, true, attempt - 1)); /* Late. */
    assert_int_equal(raft_role(r), RAFT_PRE_CANDIDATE);
    /* Who has seen no term yet may say yes. */
    struct raft_update u = fixture_receive(r, fixture_pre_vote_reply(4, 0, true, attempt));
    assert_int_equal(raft_role(r), RAFT_CANDIDATE);
    assert_int_equal(u.term, 3);
    assert_int_equal(u.vote, FIXTURE_SELF);
    assert_int_equal(u.send_after_sync_count, 4);
    raft_free(&r);
}

/* 9.6; E11 (redpanda #2071: the log was not looked at). Invariant 12. */
static void a_pre_vote_needs_a_later_term_and_a_log_as_up_to_date(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 1, 3};
    static const struct {
        raft_term term;
        raft_index last_index;
        raft_term last_term;
        bool granted;
    } cases[] = {
        {4, 2, 3, false}, {4, 9, 2, false}, {4, 0, 0, false}, {3, 9, 2, false},
        {4, 3, 3, true},  {4, 4, 3, true},  {9, 1, 8, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct raft *r = fixture_new(3, 3, terms, 3);
        int64_t deadline_us = raft_deadline_us(r);
        struct raft_message m =
            fixture_pre_vote_request(2, cases[i].term, cases[i].last_index, cases[i].last_term);
        struct raft_update u = fixture_receive(r, m);
        assert_pre_vote(&u, cases[i].granted, 3);
        assert_int_equal(raft_deadline_us(r), deadline_us);
        raft_free(&r);
    }
}

/* 6.4.1, 4.2.3: who hears a leader stands by it, for votes as for pre-votes; then no more. */
static void a_follower_that_hears_a_leader_refuses_votes_until_it_falls_silent(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 1, NULL, 0);
    int64_t heard_us = 1000000;
    (void)step_at(r, heard_us, fixture_append(2, 1, 0, 0, 0, NULL, 0, 0));
    int64_t last_us = heard_us + RAFT_ELECTION_MIN_US - 1;
    struct raft_update u = step_at(r, last_us, fixture_pre_vote_request(3, 2, 9, 1));
    assert_pre_vote(&u, false, 1);
    u = step_at(r, last_us, fixture_vote_request(3, 2, 9, 1));
    assert_false(u.send_after_sync[0].success);
    assert_int_equal(u.term, 1); /* Not even the term is taken: it would depose the leader. */
    u = step_at(r, last_us + 1, fixture_pre_vote_request(3, 2, 9, 1));
    assert_pre_vote(&u, true, 1);
    u = step_at(r, last_us + 1, fixture_vote_request(3, 2, 9, 1));
    assert_true(u.send_after_sync[0].success);
    assert_int_equal(u.term, 2);
    raft_free(&r);
}

/* 3.10: what the leader itself asked for goes through. */
static void a_transfers_vote_request_passes_the_lease(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 1, NULL, 0);
    (void)step_at(r, 1000, fixture_append(2, 1, 0, 0, 0, NULL, 0, 0));
    struct raft_message m = fixture_vote_request(3, 2, 9, 1);
    m.transfer = true;
    struct raft_update u = step_at(r, 1001, m);
    assert_true(u.send_after_sync[0].success);
    assert_int_equal(u.term, 2);
    raft_free(&r);
}

/* 9.6: a leader is no candidate's voter while it leads. */
static void a_leader_refuses_and_keeps_its_term(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    struct raft_update u = fixture_receive(r, fixture_pre_vote_request(2, 9, 9, 8));
    assert_pre_vote(&u, false, 1);
    u = fixture_receive(r, fixture_vote_request(2, 9, 9, 8));
    assert_false(u.send_after_sync[0].success);
    assert_int_equal(raft_role(r), RAFT_LEADER);
    raft_free(&r);
}

/* E11 (hashicorp #605): a leader that steps down and asks is not refused for its own lease. */
static void a_leader_that_asks_for_pre_votes_leads_no_more(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 1, NULL, 0);
    (void)step_at(r, 1000, fixture_append(2, 1, 0, 0, 0, NULL, 0, 0));
    struct raft_update u = step_at(r, 1001, fixture_pre_vote_request(3, 2, 0, 0));
    assert_pre_vote(&u, false, 1);
    u = step_at(r, 1001, fixture_pre_vote_request(2, 2, 0, 0));
    assert_pre_vote(&u, true, 1);
    raft_free(&r);
}

/* E11 (etcd #8243): who is behind learns the term from a refusal, or it would ask for ever. */
static void a_node_of_an_earlier_term_learns_it_from_the_refusal(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 7, NULL, 0);
    struct raft_update u = fixture_receive(r, fixture_pre_vote_request(2, 4, 0, 0));
    assert_pre_vote(&u, false, 7);
    raft_free(&r);
    r = fixture_new(3, 3, NULL, 0);
    uint64_t attempt = fixture_tick(r).send_now[0].sequence;
    u = fixture_receive(r, fixture_pre_vote_reply(2, 7, false, attempt));
    assert_int_equal(u.term, 7);
    assert_true(u.hard_state_changed);
    assert_int_equal(raft_role(r), RAFT_FOLLOWER);
    assert_int_equal(fixture_tick(r).send_now[0].term, 8);
    raft_free(&r);
}

/* E11 (openraft #1796): a later term with a shorter log, an earlier term with a longer one, and no
 * third node: the longer log gets there by the second attempt. */
static void a_longer_log_of_an_earlier_term_wins_by_its_second_attempt(void **state)
{
    (void)state;
    const raft_term long_log[] = {1, 2, 2};
    const raft_term short_log[] = {1};
    struct raft *behind = fixture_new(2, 2, long_log, 3);
    struct raft *ahead = fixture_new(2, 9, short_log, 1);
    for (int attempt = 1; attempt <= 2; attempt++) {
        struct raft_update u = fixture_tick(behind);
        struct raft_message m = u.send_now[0];
        m.from = 2;
        m.to = FIXTURE_SELF;
        u = fixture_receive(ahead, m);
        assert_int_equal(u.send_now[0].success, attempt == 2);
        m = u.send_now[0];
        m.from = 2;
        m.to = FIXTURE_SELF;
        (void)fixture_receive(behind, m);
    }
    assert_int_equal(raft_role(behind), RAFT_CANDIDATE);
    assert_int_equal(raft_current_term(behind), 10);
    raft_free(&behind);
    raft_free(&ahead);
}

/* E11 (canonical/raft #279): a leader of an earlier term is told, though a quorum follows it. */
static void an_append_of_an_earlier_term_is_answered_with_the_later_one(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 9, NULL, 0);
    struct raft_message m = fixture_append(2, 4, 0, 0, 0, NULL, 0, 0);
    m.sequence = 33;
    struct raft_update u = fixture_receive(r, m);
    assert_int_equal(u.send_after_sync[0].term, 9);
    /* It must not look like an answer of term 9: the sender may lead in it by the time. */
    assert_int_equal(u.send_after_sync[0].sequence, 0);
    raft_free(&r);
    r = fixture_new_leader(3, 0);
    u = fixture_receive(r, fixture_append_reply(2, 9, false, 0, 0, 0));
    assert_true(u.lost_leadership);
    assert_int_equal(u.term, 9);
    raft_free(&r);
}

/* E14: the timeout is drawn anew each time, and from the whole range. */
static void election_timeouts_are_spread(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 0, NULL, 0);
    int64_t least_us = RAFT_NEVER;
    int64_t most_us = 0;
    int64_t at_us = 0;
    for (int i = 0; i < 200; i++) {
        int64_t took_us = raft_deadline_us(r) - at_us;
        at_us = raft_deadline_us(r);
        least_us = took_us < least_us ? took_us : least_us;
        most_us = took_us > most_us ? took_us : most_us;
        (void)fixture_tick(r);
    }
    int64_t tenth_us = (RAFT_ELECTION_MAX_US - RAFT_ELECTION_MIN_US) / 10;
    assert_true(least_us >= RAFT_ELECTION_MIN_US && least_us < RAFT_ELECTION_MIN_US + tenth_us);
    assert_true(most_us <= RAFT_ELECTION_MAX_US && most_us > RAFT_ELECTION_MAX_US - tenth_us);
    raft_free(&r);
}

/* A pre-candidate has given nothing away yet: it votes for another of its own term. */
static void a_pre_candidate_may_vote_for_another(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 4, NULL, 0);
    (void)fixture_tick(r);
    struct raft_update u = fixture_receive(r, fixture_vote_request(2, 4, 0, 0));
    assert_true(u.send_after_sync[0].success);
    assert_int_equal(raft_role(r), RAFT_FOLLOWER);
    assert_int_equal(u.vote, 2);
    raft_free(&r);
}

/* A new group's preferred leader. */
static void a_node_told_to_campaign_does_not_wait(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 0, NULL, 0);
    struct raft_update u = fixture_step(r, (struct raft_event){.type = RAFT_CAMPAIGN});
    assert_int_equal(raft_role(r), RAFT_PRE_CANDIDATE);
    assert_int_equal(u.send_now_count, 2);
    u = fixture_step(r, (struct raft_event){.type = RAFT_CAMPAIGN});
    assert_int_equal(u.send_now_count, 0);
    raft_free(&r);
}

/* 4.1: who asks is not looked up; what a stranger answers is. */
static void strangers_may_ask_and_their_answers_do_not_count(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 1, NULL, 0);
    struct raft_update u = fixture_receive(r, fixture_pre_vote_request(77, 2, 0, 0));
    assert_pre_vote(&u, true, 1);
    uint64_t attempt = fixture_tick(r).send_now[0].sequence;
    (void)fixture_receive(r, fixture_pre_vote_reply(77, 1, true, attempt));
    (void)fixture_receive(r, fixture_pre_vote_reply(78, 9, false, attempt));
    assert_int_equal(raft_role(r), RAFT_PRE_CANDIDATE);
    assert_int_equal(raft_current_term(r), 1);
    (void)fixture_receive(r, fixture_pre_vote_reply(2, 1, true, attempt));
    (void)fixture_stored(r);
    (void)fixture_receive(r, fixture_vote_reply(77, 2, true));
    assert_int_equal(raft_role(r), RAFT_CANDIDATE);
    raft_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_timeout_asks_for_pre_votes_and_changes_no_term),
        cmocka_unit_test(a_majority_of_pre_votes_makes_a_candidate),
        cmocka_unit_test(a_pre_vote_needs_a_later_term_and_a_log_as_up_to_date),
        cmocka_unit_test(a_follower_that_hears_a_leader_refuses_votes_until_it_falls_silent),
        cmocka_unit_test(a_transfers_vote_request_passes_the_lease),
        cmocka_unit_test(a_leader_refuses_and_keeps_its_term),
        cmocka_unit_test(a_leader_that_asks_for_pre_votes_leads_no_more),
        cmocka_unit_test(a_node_of_an_earlier_term_learns_it_from_the_refusal),
        cmocka_unit_test(a_longer_log_of_an_earlier_term_wins_by_its_second_attempt),
        cmocka_unit_test(an_append_of_an_earlier_term_is_answered_with_the_later_one),
        cmocka_unit_test(election_timeouts_are_spread),
        cmocka_unit_test(a_pre_candidate_may_vote_for_another),
        cmocka_unit_test(a_node_told_to_campaign_does_not_wait),
        cmocka_unit_test(strangers_may_ask_and_their_answers_do_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
