/* Leadership transfer (3.10) and reads without a log entry (6.4). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/raft_fixture.h"

static struct raft_update transfer(struct raft *r, raft_id peer)
{
    return fixture_step(r, (struct raft_event){.type = RAFT_TRANSFER, .peer = peer});
}

static enum ferry_err try_transfer(struct raft *r, raft_id peer)
{
    struct raft_event event = {.type = RAFT_TRANSFER, .peer = peer};
    struct raft_update u;
    return raft_step(r, &event, &u);
}

static enum ferry_err try_propose(struct raft *r)
{
    struct raft_event event = {.type = RAFT_PROPOSE, .count = 1};
    struct raft_update u;
    return raft_step(r, &event, &u);
}

static size_t timeout_nows(const struct raft_update *u, raft_id to)
{
    size_t count = 0;
    for (size_t i = 0; i < u->send_now_count; i++) {
        count += u->send_now[i].type == RAFT_TIMEOUT_NOW && u->send_now[i].to == to ? 1 : 0;
    }
    return count;
}

/* 3.10: a target that has everything is told at once. */
static void a_target_that_has_everything_is_told_at_once(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    struct raft_update u = transfer(r, 2);
    assert_int_equal(timeout_nows(&u, 2), 1);
    assert_true(raft_is_transferring(r));
    assert_int_equal(raft_role(r), RAFT_LEADER);
    raft_free(&r);
}

/* E26: a target that is behind is fed first; meanwhile nothing new is taken in. */
static void a_target_that_is_behind_is_fed_first(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    (void)fixture_propose(r, 3);
    struct raft_update u = transfer(r, 2);
    assert_int_equal(timeout_nows(&u, 2), 0);
    assert_int_equal(try_propose(r), FERRY_ERR_NOT_READY);
    struct raft_members m = fixture_members(3, 1);
    struct raft_event configure = {.type = RAFT_CONFIGURE, .members = &m};
    assert_int_equal(raft_step(r, &configure, &u), FERRY_ERR_NOT_READY);
    u = fixture_send(r);
    assert_int_equal(fixture_message_to(u.send_now, u.send_now_count, 2)->entry_count, 3);
    u = fixture_acknowledge(r, 3);
    assert_int_equal(u.send_now_count, 0);
    u = fixture_acknowledge(r, 2);
    assert_int_equal(timeout_nows(&u, 2), 1);
    raft_free(&r);
}

/* E26: the message may be lost; the target may be dead. After an election timeout all is as before.
 */
static void a_transfer_is_tried_again_and_given_up_after_an_election_timeout(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    (void)transfer(r, 2);
    size_t told = 0;
    int ticks = 0;
    for (; raft_is_transferring(r) && ticks < 100; ticks++) {
        (void)fixture_acknowledge(r, 3);
        assert_int_equal(try_propose(r), FERRY_ERR_NOT_READY);
        struct raft_update u = fixture_tick(r);
        told += timeout_nows(&u, 2);
    }
    assert_int_equal(ticks, RAFT_ELECTION_MAX_US / RAFT_HEARTBEAT_US);
    assert_int_equal(told, ticks - 1);
    assert_int_equal(try_propose(r), FERRY_OK);
    raft_free(&r);
}

/* E26: a second one while one runs; to a learner; to nobody; to itself. */
static void transfers_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 0, NULL, 0);
    assert_int_equal(try_transfer(r, 2), FERRY_ERR_NOT_LEADER);
    raft_free(&r);
    r = fixture_new_leader(3, 1);
    assert_int_equal(try_transfer(r, 4), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(try_transfer(r, 9), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(try_transfer(r, FIXTURE_SELF), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(try_transfer(r, 2), FERRY_OK);
    assert_int_equal(try_transfer(r, 3), FERRY_ERR_NOT_READY);
    assert_int_equal(try_transfer(r, 0), FERRY_OK);
    assert_false(raft_is_transferring(r));
    assert_int_equal(try_propose(r), FERRY_OK);
    raft_free(&r);
}

/* 3.10: the target campaigns at once, without pre-votes, and says why. */
static void a_target_campaigns_without_asking_first(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 1, NULL, 0);
    (void)fixture_receive(r, fixture_append(2, 1, 0, 0, 0, NULL, 0, 0));
    struct raft_message now = {.type = RAFT_TIMEOUT_NOW, .from = 2, .to = FIXTURE_SELF, .term = 1};
    struct raft_update u = fixture_receive(r, now);
    assert_int_equal(raft_role(r), RAFT_CANDIDATE);
    assert_int_equal(u.term, 2);
    assert_int_equal(u.send_after_sync_count, 2);
    assert_true(u.send_after_sync[0].transfer);
    u = fixture_receive(r, now); /* Doubled: its term is over. */
    assert_int_equal(u.term, 2);
    raft_free(&r);
}

/* The old leader votes for the new one and loses nothing. */
static void the_old_leader_steps_down_for_the_target(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    (void)transfer(r, 2);
    struct raft_message m = fixture_vote_request(2, 2, 1, 1);
    m.transfer = true;
    struct raft_update u = fixture_receive(r, m);
    assert_true(u.lost_leadership);
    assert_true(u.send_after_sync[0].success);
    assert_false(raft_is_transferring(r));
    raft_free(&r);
}

static enum ferry_err try_read(struct raft *r, uint64_t number, struct raft_update *u)
{
    struct raft_event event = {.type = RAFT_READ, .number = number};
    enum ferry_err err = raft_step(r, &event, u);
    raft_check(r);
    return err;
}

/* The next send, answered by one peer; what that confirms. */
static struct raft_update answer_of(struct raft *r, const struct raft_update *sent, raft_id peer)
{
    const struct raft_message *m = fixture_message_to(sent->send_now, sent->send_now_count, peer);
    return fixture_receive(r, fixture_append_reply(peer, raft_current_term(r), true, m->prev_index,
                                                   m->prev_term, m->sequence));
}

/* 6.4, steps 1 to 3: a round of heartbeats after the read was asked. */
static void a_read_is_confirmed_by_a_quorum_that_answers_after_it(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(5, 0);
    struct raft_update before = fixture_tick(r);
    struct raft_message early[4];
    for (size_t i = 0; i < 4; i++) {
        early[i] = before.send_now[i];
    }
    struct raft_update u;
    assert_int_equal(try_read(r, 7, &u), FERRY_OK);
    assert_int_equal(u.read_number, 0);
    for (size_t i = 0; i < 4; i++) { /* Asked before the read: they say nothing about now. */
        u = fixture_receive(r, fixture_append_reply(early[i].to, 1, true, 1, 1, early[i].sequence));
        assert_int_equal(u.read_number, 0);
    }
    assert_true(raft_wants_send(r));
    struct raft_update sent = fixture_send(r);
    assert_int_equal(sent.send_now_count, 4);
    assert_false(raft_wants_send(r));
    struct raft_message m3 = *fixture_message_to(sent.send_now, sent.send_now_count, 3);
    assert_int_equal(answer_of(r, &sent, 2).read_number, 0);
    u = fixture_receive(r, fixture_append_reply(3, 1, true, 1, 1, m3.sequence));
    assert_int_equal(u.read_number, 7);
    assert_int_equal(u.read_index, 1);
    raft_free(&r);
}

/* A learner's answer is no vote for the leader. */
static void a_learners_answer_confirms_no_read(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 2);
    struct raft_update u;
    assert_int_equal(try_read(r, 1, &u), FERRY_OK);
    u = fixture_tick(r);
    struct raft_message sent[4];
    for (size_t i = 0; i < 4; i++) {
        sent[i] = u.send_now[i];
    }
    for (size_t i = 4; i > 0; i--) {
        u = fixture_receive(
            r, fixture_append_reply(sent[i - 1].to, 1, true, 1, 1, sent[i - 1].sequence));
        assert_int_equal(u.read_number, sent[i - 1].to == 3 ? 1 : 0);
        if (u.read_number != 0) {
            break;
        }
    }
    raft_free(&r);
}

/* E24 (etcd-io/raft TestReadOnlyForNewLeader): its commit index may be behind what its predecessor
 * answered, until its no-op is committed. */
static void a_new_leader_answers_no_read_before_its_no_op_is_committed(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 0, NULL, 0);
    struct raft_update u;
    assert_int_equal(try_read(r, 1, &u), FERRY_ERR_NOT_LEADER);
    fixture_lead(r, 3);
    assert_int_equal(try_read(r, 1, &u), FERRY_ERR_NOT_READY);
    (void)fixture_acknowledge(r, 2);
    assert_int_equal(try_read(r, 1, &u), FERRY_OK);
    raft_free(&r);
}

/* E24: numbers that do not rise would confuse who is waiting. */
static void a_reads_number_must_rise(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    struct raft_update u;
    assert_int_equal(try_read(r, 0, &u), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(try_read(r, 3, &u), FERRY_OK);
    assert_int_equal(try_read(r, 3, &u), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(try_read(r, 4, &u), FERRY_OK);
    raft_free(&r);
}

/* Reads of a turn share a round; those of a later turn get their own, with a later index. */
static void reads_of_later_turns_wait_for_their_own_round(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    struct raft_update u;
    assert_int_equal(try_read(r, 1, &u), FERRY_OK);
    assert_int_equal(try_read(r, 2, &u), FERRY_OK);
    u = fixture_send(r);
    assert_int_equal(u.send_now_count, 2);
    uint64_t first = fixture_message_to(u.send_now, u.send_now_count, 2)->sequence;
    (void)fixture_propose(r, 1);
    u = fixture_send(r);
    (void)fixture_stored(r);
    (void)fixture_receive(r, fixture_append_reply(3, 1, true, 2, 1, 0));
    assert_int_equal(raft_commit_index(r), 2);
    assert_int_equal(try_read(r, 3, &u), FERRY_OK);
    u = fixture_send(r);
    uint64_t second = fixture_message_to(u.send_now, u.send_now_count, 2)->sequence;
    u = fixture_receive(r, fixture_append_reply(2, 1, true, 1, 1, first));
    assert_int_equal(u.read_number, 2);
    assert_int_equal(u.read_index, 1);
    u = fixture_receive(r, fixture_append_reply(2, 1, true, 2, 1, second));
    assert_int_equal(u.read_number, 3);
    assert_int_equal(u.read_index, 2);
    raft_free(&r);
}

/* E24: deposed before the round ended. */
static void reads_fail_with_the_leadership(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    struct raft_update u;
    assert_int_equal(try_read(r, 1, &u), FERRY_OK);
    u = fixture_receive(r, fixture_append_reply(2, 5, false, 0, 0, 0));
    assert_true(u.reads_failed);
    assert_int_equal(u.read_number, 0);
    raft_free(&r);
    r = fixture_new_leader(3, 0);
    assert_false(fixture_receive(r, fixture_append_reply(2, 5, false, 0, 0, 0)).reads_failed);
    raft_free(&r);
}

/* Who decides alone has asked its quorum. */
static void a_group_of_one_confirms_reads_at_once(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(1, 0);
    struct raft_update u;
    assert_int_equal(try_read(r, 5, &u), FERRY_OK);
    assert_int_equal(u.read_number, 5);
    assert_int_equal(u.read_index, 1);
    raft_free(&r);
}

/* An answer to an append that this leadership never sent. */
static void an_answer_to_an_append_not_sent_is_refused(void **state)
{
    (void)state;
    struct raft *r = fixture_new_leader(3, 0);
    struct raft_update u;
    assert_int_equal(try_read(r, 1, &u), FERRY_OK);
    assert_int_equal(fixture_refused(r, fixture_append_reply(2, 1, true, 1, 1, 1000)),
                     FERRY_ERR_INVALID_ARGUMENT);
    raft_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_target_that_has_everything_is_told_at_once),
        cmocka_unit_test(a_target_that_is_behind_is_fed_first),
        cmocka_unit_test(a_transfer_is_tried_again_and_given_up_after_an_election_timeout),
        cmocka_unit_test(transfers_that_cannot_be_are_refused),
        cmocka_unit_test(a_target_campaigns_without_asking_first),
        cmocka_unit_test(the_old_leader_steps_down_for_the_target),
        cmocka_unit_test(a_read_is_confirmed_by_a_quorum_that_answers_after_it),
        cmocka_unit_test(a_learners_answer_confirms_no_read),
        cmocka_unit_test(a_new_leader_answers_no_read_before_its_no_op_is_committed),
        cmocka_unit_test(a_reads_number_must_rise),
        cmocka_unit_test(reads_of_later_turns_wait_for_their_own_round),
        cmocka_unit_test(reads_fail_with_the_leadership),
        cmocka_unit_test(a_group_of_one_confirms_reads_at_once),
        cmocka_unit_test(an_answer_to_an_append_not_sent_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
