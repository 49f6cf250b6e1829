/* Check-quorum (6.2), muted nodes and quiet groups (raft.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/raft_fixture.h"

/* The next heartbeat, answered by the peers 2..most. `quiet`: they agree when they are asked. */
static struct raft_update heartbeat(struct raft *r, raft_id most, bool quiet)
{
    struct raft_update u = fixture_tick(r);
    struct raft_message sent[8];
    size_t count = u.send_now_count;
    for (size_t i = 0; i < count; i++) {
        sent[i] = u.send_now[i];
    }
    for (size_t i = 0; i < count; i++) {
        if (sent[i].type == RAFT_APPEND_REQUEST && sent[i].to <= most) {
            struct raft_message reply =
                fixture_append_reply(sent[i].to, sent[i].term, true, sent[i].prev_index,
                                     sent[i].prev_term, sent[i].sequence);
            reply.quiet = quiet && sent[i].quiet;
            (void)fixture_receive(r, reply);
        }
    }
    return u;
}

/* 6.2; E13. */
static void a_leader_that_no_quorum_answers_steps_down_in_its_term(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(5, 0);
    for (int i = 0; i < 40; i++) {
        (void)heartbeat(r, 3, false); /* Two of four, and itself. */
    }
    assert_int_equal(raft_role(r), RAFT_LEADER);
    int ticks = 0;
    bool lost = false;
    for (; !lost && ticks < 100; ticks++) {
        lost = heartbeat(r, 2, false).lost_leadership;
    }
    assert_true(lost);
    assert_int_equal(ticks, RAFT_ELECTION_MAX_US / RAFT_HEARTBEAT_US);
    assert_int_equal(raft_role(r), RAFT_FOLLOWER);
    assert_int_equal(raft_current_term(r), 1);
    struct raft_event propose = {.type = RAFT_PROPOSE, .count = 1};
    struct raft_update u;
    assert_int_equal(raft_step(r, &propose, &u), FERRY_ERR_NOT_LEADER);
    raft_free(&r);
}

/* Learners do not hold a leader up (invariant 10). */
static void learners_that_answer_do_not_keep_a_leader(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 4);
    bool lost = false;
    for (int i = 0; !lost && i < 20; i++) {
        struct raft_update u = fixture_tick(r);
        lost = u.lost_leadership;
        for (raft_id learner = 4; !lost && learner <= 7; learner++) {
            (void)fixture_acknowledge(r, learner);
        }
    }
    assert_true(lost);
    raft_free(&r);
}

/* SIM-P04: a node that was stopped for long leads no more when it wakes, before it sends. */
static void a_leader_that_was_paused_steps_down_at_its_first_tick(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    struct raft_event late = {.type = RAFT_TICK,
                              .now_us = raft_deadline_us(r) + 2 * RAFT_ELECTION_MAX_US};
    struct raft_update u = fixture_step(r, late);
    assert_true(u.lost_leadership);
    assert_int_equal(u.send_now_count, 0);
    raft_free(&r);
}

/* Invariant 11; INV-R17. */
static void a_muted_node_grants_no_vote_and_does_not_campaign(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 1, 1};
    struct raft *r = fixture_new(3, 1, terms, 3);
    (void)fixture_step(r, (struct raft_event){.type = RAFT_MUTE, .index = 2});
    assert_true(raft_deadline_us(r) == RAFT_NEVER);
    (void)fixture_step(r, (struct raft_event){.type = RAFT_CAMPAIGN});
    assert_int_equal(raft_role(r), RAFT_FOLLOWER);
    assert_false(fixture_receive(r, fixture_pre_vote_request(2, 2, 9, 1)).send_now[0].success);
    struct raft_update u = fixture_receive(r, fixture_vote_request(2, 2, 9, 1));
    assert_false(u.send_after_sync[0].success);
    assert_int_equal(u.term, 2); /* It learns the term like anybody. */
    struct raft_message now = {.type = RAFT_TIMEOUT_NOW, .from = 2, .to = FIXTURE_SELF, .term = 2};
    assert_int_equal(fixture_receive(r, now).term, 2);
    (void)fixture_step(r, (struct raft_event){.type = RAFT_MUTE});
    assert_true(fixture_receive(r, fixture_vote_request(2, 2, 9, 1)).send_after_sync[0].success);
    assert_true(raft_deadline_us(r) != RAFT_NEVER);
    raft_free(&r);
}

static void a_muted_node_acknowledges_nothing_at_or_past_the_bound(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 1, 1};
    struct raft *r = fixture_new(3, 1, terms, 3);
    (void)fixture_step(r, (struct raft_event){.type = RAFT_MUTE, .index = 2});
    const struct raft_run runs[] = {{.first = 4, .term = 1}};
    struct raft_message m = fixture_append(2, 1, 3, 1, 2, runs, 1, 0);
    struct raft_update u = fixture_receive(r, m);
    assert_true(u.send_after_sync[0].success);
    assert_int_equal(u.send_after_sync[0].match_index, 1);
    assert_int_equal(u.append_last, 5); /* It takes what comes. */
    (void)fixture_step(r, (struct raft_event){.type = RAFT_MUTE});
    assert_int_equal(fixture_receive(r, m).send_after_sync[0].match_index, 5);
    raft_free(&r);
}

/* It hands over to who has most, and tells all: followers may be quiet. */
static void a_leader_that_is_muted_steps_down_and_names_a_successor(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    (void)fixture_propose(r, 1);
    (void)fixture_send(r);
    (void)fixture_acknowledge(r, 3);
    struct raft_update u = fixture_step(r, (struct raft_event){.type = RAFT_MUTE, .index = 1});
    assert_true(u.lost_leadership);
    assert_int_equal(u.send_now_count, 3);
    assert_int_equal(u.send_now[2].type, RAFT_TIMEOUT_NOW);
    assert_int_equal(u.send_now[2].to, 3);
    assert_true(raft_deadline_us(r) == RAFT_NEVER);
    raft_free(&r);
}

static struct raft *new_quiet_leader(void)
{
    struct raft *r = fixture_new_leader(3, 1);
    for (int i = 0; i < RAFT_QUIET_ROUNDS; i++) {
        assert_false(raft_is_quiet(r));
        (void)heartbeat(r, 4, true);
    }
    assert_true(raft_is_quiet(r));
    assert_true(raft_deadline_us(r) == RAFT_NEVER);
    return r;
}

static void a_leader_with_nothing_to_do_goes_quiet_when_all_agree(void **state)
{
    (void)state;
    struct raft *r = new_quiet_leader();
    raft_free(&r);
    r = fixture_new_leader(3, 1);
    for (int i = 0; i < 3 * RAFT_QUIET_ROUNDS; i++) {
        (void)heartbeat(r, 3, true); /* The learner does not answer. */
    }
    assert_false(raft_is_quiet(r));
    assert_true(raft_deadline_us(r) != RAFT_NEVER);
    raft_free(&r);
}

/* Whatever has to be sent wakes the leader; check-quorum starts over. */
static void work_wakes_a_quiet_leader(void **state)
{
    (void)state;
    struct raft_members m = fixture_members(3, 0);
    struct raft_event events[] = {{.type = RAFT_PROPOSE, .count = 1},
                                  {.type = RAFT_CONFIGURE, .members = &m},
                                  {.type = RAFT_TRANSFER, .peer = 2},
                                  {.type = RAFT_READ, .number = 1},
                                  {.type = RAFT_WAKE}};
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        struct raft *r = new_quiet_leader();
        events[i].now_us = INT64_C(3600000000);
        (void)fixture_step(r, events[i]);
        assert_false(raft_is_quiet(r));
        assert_true(raft_deadline_us(r) == events[i].now_us);
        struct raft_update u = fixture_tick(r);
        assert_false(u.lost_leadership);
        assert_false(fixture_message_to(u.send_now, u.send_now_count, 3)->quiet);
        raft_free(&r);
    }
}

/* A member that restarted asks for votes: it has to be told who leads. Who was removed does not
 * wake anybody (4.2.3). */
static void a_members_pre_vote_wakes_a_quiet_leader_and_a_strangers_does_not(void **state)
{
    (void)state;
    struct raft *r = new_quiet_leader();
    (void)fixture_receive(r, fixture_pre_vote_request(77, 2, 1, 1));
    assert_true(raft_is_quiet(r));
    struct raft_update u = fixture_receive(r, fixture_pre_vote_request(2, 1, 0, 0));
    assert_false(u.send_now[0].success);
    assert_false(raft_is_quiet(r));
    assert_int_equal(raft_role(r), RAFT_LEADER);
    raft_free(&r);
}

/* A quiet answer that was on its way when the group woke is no agreement. */
static void a_late_agreement_does_not_make_a_leader_quiet(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(2, 0);
    for (int i = 0; i < RAFT_QUIET_ROUNDS; i++) {
        (void)heartbeat(r, 1, true);
    }
    (void)fixture_step(r, (struct raft_event){.type = RAFT_WAKE});
    for (int i = 0; i < RAFT_QUIET_ROUNDS; i++) {
        (void)fixture_tick(r);
    }
    struct raft_message late = fixture_append_reply(2, 1, true, 1, 1, 5);
    late.quiet = true;
    (void)fixture_receive(r, late);
    assert_false(raft_is_quiet(r));
    raft_free(&r);
}

/* A follower of leader 2 in term 1 with three entries, all committed, that has gone quiet. */
static struct raft *new_quiet_follower(void)
{
    const raft_term terms[] = {1, 1, 1};
    struct raft *r = fixture_new(3, 1, terms, 3);
    struct raft_message m = fixture_append(2, 1, 3, 1, 0, NULL, 0, 3);
    m.quiet = true;
    struct raft_update u = fixture_receive(r, m);
    assert_true(u.send_after_sync[0].quiet);
    assert_true(raft_is_quiet(r));
    assert_true(raft_deadline_us(r) == RAFT_NEVER);
    return r;
}

static void a_follower_agrees_only_with_everything_committed_and_stored(void **state)
{
    (void)state;
    struct raft *r = new_quiet_follower();
    raft_free(&r);
    const raft_term terms[] = {1, 1, 1};
    static const struct {
        raft_index prev, commit;
    } cases[] = {{3, 2}, {2, 3}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        r = fixture_new(3, 1, terms, 3);
        struct raft_message m = fixture_append(2, 1, cases[i].prev, 1, 0, NULL, 0, cases[i].commit);
        m.quiet = true;
        assert_false(fixture_receive(r, m).send_after_sync[0].quiet);
        assert_false(raft_is_quiet(r));
        raft_free(&r);
    }
    r = fixture_new(3, 1, terms, 2);
    const struct raft_run runs[] = {{.first = 3, .term = 1}};
    (void)fixture_receive(r, fixture_append(2, 1, 2, 1, 1, runs, 1, 3));
    struct raft_message m = fixture_append(2, 1, 3, 1, 0, NULL, 0, 3);
    m.quiet = true;
    assert_false(fixture_receive(r, m).send_after_sync[0].quiet); /* Not on its disk yet. */
    (void)fixture_stored(r);
    assert_true(fixture_receive(r, m).send_after_sync[0].quiet);
    raft_free(&r);
}

/* 9.6: silence was agreed on, so it is no reason to vote; until somebody says otherwise. */
static void a_quiet_follower_stands_by_its_leader_however_long(void **state)
{
    (void)state;
    struct raft *r = new_quiet_follower();
    struct raft_message m = fixture_pre_vote_request(77, 2, 9, 1);
    struct raft_event event = {.type = RAFT_RECEIVE, .now_us = INT64_C(3600000000), .message = &m};
    assert_false(fixture_step(r, event).send_now[0].success);
    assert_true(raft_is_quiet(r));
    m = fixture_vote_request(77, 2, 9, 1);
    assert_int_equal(fixture_step(r, event).term, 1);
    /* A member's question is refused too, but starts the timer: the leader shows, or does not. */
    m = fixture_pre_vote_request(3, 2, 9, 1);
    assert_false(fixture_step(r, event).send_now[0].success);
    assert_false(raft_is_quiet(r));
    assert_true(raft_deadline_us(r) >= event.now_us + RAFT_ELECTION_MIN_US);
    event.now_us += RAFT_ELECTION_MIN_US;
    assert_true(fixture_step(r, event).send_now[0].success);
    raft_free(&r);
}

/* A leader that stepped down meets followers that are quiet with it; without this all would wait.
 */
static void a_quiet_follower_grants_its_own_leader_a_pre_vote(void **state)
{
    (void)state;
    struct raft *r = new_quiet_follower();
    assert_true(fixture_receive(r, fixture_pre_vote_request(2, 2, 3, 1)).send_now[0].success);
    assert_false(raft_is_quiet(r));
    raft_free(&r);
}

/* The driver has waited for election_min already. */
static void a_woken_follower_waits_only_the_random_part_of_its_timeout(void **state)
{
    (void)state;
    struct raft *r = new_quiet_follower();
    int64_t now_us = INT64_C(3600000000);
    (void)fixture_step(r, (struct raft_event){.type = RAFT_WAKE, .now_us = now_us});
    assert_true(raft_deadline_us(r) >= now_us);
    assert_true(raft_deadline_us(r) <= now_us + RAFT_ELECTION_MAX_US - RAFT_ELECTION_MIN_US);
    raft_free(&r);
}

static void an_append_that_is_not_quiet_wakes_a_follower(void **state)
{
    (void)state;
    struct raft *r = new_quiet_follower();
    (void)fixture_receive(r, fixture_append(2, 1, 3, 1, 0, NULL, 0, 3));
    assert_false(raft_is_quiet(r));
    assert_true(raft_deadline_us(r) != RAFT_NEVER);
    raft_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_leader_that_no_quorum_answers_steps_down_in_its_term),
        cmocka_unit_test(learners_that_answer_do_not_keep_a_leader),
        cmocka_unit_test(a_leader_that_was_paused_steps_down_at_its_first_tick),
        cmocka_unit_test(a_muted_node_grants_no_vote_and_does_not_campaign),
        cmocka_unit_test(a_muted_node_acknowledges_nothing_at_or_past_the_bound),
        cmocka_unit_test(a_leader_that_is_muted_steps_down_and_names_a_successor),
        cmocka_unit_test(a_leader_with_nothing_to_do_goes_quiet_when_all_agree),
        cmocka_unit_test(work_wakes_a_quiet_leader),
        cmocka_unit_test(a_members_pre_vote_wakes_a_quiet_leader_and_a_strangers_does_not),
        cmocka_unit_test(a_late_agreement_does_not_make_a_leader_quiet),
        cmocka_unit_test(a_follower_agrees_only_with_everything_committed_and_stored),
        cmocka_unit_test(a_quiet_follower_stands_by_its_leader_however_long),
        cmocka_unit_test(a_quiet_follower_grants_its_own_leader_a_pre_vote),
        cmocka_unit_test(a_woken_follower_waits_only_the_random_part_of_its_timeout),
        cmocka_unit_test(an_append_that_is_not_quiet_wakes_a_follower),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
