/* The leader's side of appends and commit: sections 3.5, 3.6.2 and 10.2.1. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/raft_fixture.h"

/* The one message to the peer in this update. */
static const struct raft_message *sent_to(const struct raft_update *u, raft_id peer)
{
    const struct raft_message *m = fixture_message_to(u->send_now, u->send_now_count, peer);
    assert_int_equal(m->type, RAFT_APPEND_REQUEST);
    return m;
}

static struct raft_update success(struct raft *r, raft_id peer, raft_index match)
{
    return fixture_receive(r, fixture_append_reply(peer, raft_current_term(r), true, match,
                                                   raft_term_at(r, match), 0));
}

static struct raft_update refusal(struct raft *r, raft_id peer, raft_index hint, raft_term term,
                                  uint64_t sequence)
{
    return fixture_receive(
        r, fixture_append_reply(peer, raft_current_term(r), false, hint, term, sequence));
}

static struct raft *new_leader_of_three(void)
{
    return fixture_new_leader(3, 0);
}

/* A turn: propose, then send. */
static struct raft_update propose_and_send(struct raft *r, uint32_t count)
{
    assert_int_equal(fixture_propose(r, count).send_now_count, 0);
    return fixture_send(r);
}

/* An answer, then what it makes the leader send. */
static struct raft_update refusal_and_send(struct raft *r, raft_id peer, raft_index hint,
                                           raft_term term, uint64_t sequence)
{
    (void)refusal(r, peer, hint, term, sequence);
    return fixture_send(r);
}

/* A leader whose no-op is on its way to all: the first probes. */
static struct raft_update lead_with_votes_of_two(struct raft *r)
{
    (void)fixture_campaign(r, 3);
    (void)fixture_stored(r);
    (void)fixture_receive(r, fixture_vote_reply(2, raft_current_term(r), true));
    return fixture_send(r);
}

/* Figure 8 (paper 5.4.2; 3.6.2): S1 leads in term 4 with entry 2 of term 2, now on a majority. It
 * is not committed by that; it comes along with an entry of term 4. */
static void an_entry_of_an_earlier_term_is_not_committed_by_counting(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 2};
    struct raft *r = fixture_new(5, 3, terms, 2);
    fixture_lead(r, 5);
    assert_int_equal(raft_current_term(r), 4);
    assert_int_equal(raft_last_index(r), 3);
    assert_int_equal(success(r, 2, 2).commit, 0);
    assert_int_equal(success(r, 3, 2).commit, 0);
    assert_int_equal(success(r, 4, 2).commit, 0);
    assert_int_equal(success(r, 5, 2).commit, 0);
    assert_false(raft_is_ready(r));
    assert_int_equal(success(r, 2, 3).commit, 0);
    assert_int_equal(success(r, 3, 3).commit, 3);
    assert_true(raft_is_ready(r));
    raft_free(&r);
}

/* 10.2.1: followers' disks work while the leader's does; its own copy counts from its fsync on. */
static void the_leader_sends_at_once_and_counts_itself_only_when_stored(void **state)
{
    (void)state;
    struct raft *r = new_leader_of_three();
    struct raft_update u = propose_and_send(r, 10);
    assert_int_equal(u.send_after_sync_count, 0);
    assert_int_equal(sent_to(&u, 2)->prev_index, 1);
    assert_int_equal(sent_to(&u, 2)->entry_count, 10);
    assert_int_equal(sent_to(&u, 2)->runs[0].first, 2);
    assert_int_equal(sent_to(&u, 3)->run_count, 1);
    assert_int_equal(success(r, 2, 11).commit, 1);
    assert_int_equal(fixture_stored(r).commit, 11);
    (void)propose_and_send(r, 1);
    assert_int_equal(success(r, 2, 12).commit, 11);
    assert_int_equal(success(r, 3, 12).commit, 12); /* A majority without the leader. */
    raft_free(&r);
}

/* Appends follow each other unanswered, up to the window; an answer opens it again. */
static void appends_are_pipelined_up_to_the_window(void **state)
{
    (void)state;
    struct raft *r = new_leader_of_three();
    struct raft_update u = propose_and_send(r, 3);
    assert_int_equal(sent_to(&u, 2)->entry_count, 3);
    u = propose_and_send(r, 2);
    assert_int_equal(sent_to(&u, 2)->prev_index, 4);
    u = propose_and_send(r, 2 * RAFT_APPEND_WINDOW_MAX);
    uint64_t entries = 5;
    for (size_t i = 0; i < u.send_now_count; i++) {
        assert_true(u.send_now[i].entry_count <= RAFT_APPEND_ENTRIES_MAX);
        entries += u.send_now[i].to == 2 ? u.send_now[i].entry_count : 0;
    }
    assert_int_equal(entries, RAFT_APPEND_WINDOW_MAX);
    u = propose_and_send(r, 1);
    assert_int_equal(u.send_now_count, 0);
    (void)success(r, 2, 101);
    u = fixture_send(r);
    assert_int_equal(u.send_now_count, 1);
    assert_int_equal(sent_to(&u, 2)->entry_count, 100);
    raft_free(&r);
}

/* Paper 5.3: the leader has terms 1 1 2 2 2 5; the follower 1 1 3 3 3 3 4. Two probes. */
static void a_refusal_backs_up_over_whole_terms(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 1, 2, 2, 2};
    struct raft *r = fixture_new(3, 4, terms, 5);
    struct raft_update u = lead_with_votes_of_two(r);
    const struct raft_message *probe = sent_to(&u, 3);
    assert_int_equal(probe->prev_index, 5);
    u = refusal_and_send(r, 3, 2, 1, probe->sequence);
    probe = sent_to(&u, 3);
    assert_int_equal(probe->prev_index, 2);
    assert_int_equal(probe->entry_count, 4);
    assert_int_equal(probe->run_count, 2);
    assert_int_equal(probe->runs[1].term, 5);
    raft_free(&r);
}

/* A hint with a term the leader passed long ago: it goes to its own last entry not beyond it. */
static void a_hint_of_a_later_term_backs_up_to_the_leaders_own(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 2, 4, 4, 4, 4};
    struct raft *r = fixture_new(3, 4, terms, 6);
    struct raft_update u = lead_with_votes_of_two(r);
    u = refusal_and_send(r, 3, 5, 3, sent_to(&u, 3)->sequence);
    assert_int_equal(sent_to(&u, 3)->prev_index, 2);
    raft_free(&r);
}

/* Doubled and late refusals must not send the same entries again and again. */
static void a_late_refusal_is_ignored(void **state)
{
    (void)state;
    struct raft *r = new_leader_of_three();
    struct raft_update u = propose_and_send(r, 5);
    uint64_t sequence = sent_to(&u, 2)->sequence;
    u = refusal_and_send(r, 2, 1, 1, sequence);
    assert_int_equal(sent_to(&u, 2)->prev_index, 1);
    u = refusal_and_send(r, 2, 1, 1, sequence);
    assert_int_equal(u.send_now_count, 0);
    (void)success(r, 2, 6);
    u = propose_and_send(r, 1);
    assert_int_equal(sent_to(&u, 2)->prev_index, 6);
    u = refusal_and_send(r, 2, 1, 1, sequence);
    assert_int_equal(u.send_now_count, 0);
    u = propose_and_send(r, 1); /* Still pipelined. */
    assert_int_equal(sent_to(&u, 2)->prev_index, 7);
    raft_free(&r);
}

/* 3.5: while a peer's log is being found, one message at a time; heartbeats try again. */
static void a_silent_peer_gets_heartbeats_and_no_more_entries(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 0, NULL, 0);
    fixture_lead(r, 3);
    (void)success(r, 2, 1);
    struct raft_update u = propose_and_send(r, 4);
    assert_int_equal(u.send_now_count, 1);
    assert_int_equal(u.send_now[0].to, 2);
    u = fixture_tick(r);
    assert_int_equal(u.send_now_count, 2);
    assert_int_equal(sent_to(&u, 3)->entry_count, 0);
    assert_int_equal(sent_to(&u, 3)->prev_index, 0);
    assert_int_equal(sent_to(&u, 2)->prev_index, 5);
    (void)fixture_receive(r, fixture_append_reply(3, 1, true, 0, 0, sent_to(&u, 3)->sequence));
    u = fixture_send(r);
    assert_int_equal(sent_to(&u, 3)->entry_count, 5);
    raft_free(&r);
}

/* A lost append shows when the next heartbeat is refused. */
static void a_lost_append_is_sent_again_after_a_heartbeat(void **state)
{
    (void)state;
    struct raft *r = new_leader_of_three();
    (void)propose_and_send(r, 4);
    struct raft_update u = fixture_tick(r);
    assert_int_equal(sent_to(&u, 2)->prev_index, 5);
    assert_int_equal(sent_to(&u, 2)->commit, 1);
    u = refusal_and_send(r, 2, 1, 1, sent_to(&u, 2)->sequence);
    assert_int_equal(sent_to(&u, 2)->prev_index, 1);
    assert_int_equal(sent_to(&u, 2)->entry_count, 4);
    raft_free(&r);
}

/* Acknowledgements that no log can have given. */
static void an_acknowledgement_past_the_log_is_refused(void **state)
{
    (void)state;
    struct raft *r = new_leader_of_three();
    assert_int_equal(fixture_refused(r, fixture_append_reply(2, 1, true, 2, 1, 1)),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(raft_commit_index(r), 1);
    raft_free(&r);
}

/* 5 (log compaction): what a peer needs is gone; it is named once, then kept from campaigning. */
static struct raft *new_leader_with_a_peer_behind_the_trim_point(void)
{
    struct raft *r = new_leader_of_three();
    (void)propose_and_send(r, 9);
    (void)fixture_stored(r);
    (void)success(r, 2, 10);
    (void)fixture_step(r, (struct raft_event){.type = RAFT_TRIM, .index = 8});
    struct raft_update u = fixture_tick(r);
    u = refusal(r, 3, 1, 1, sent_to(&u, 3)->sequence);
    assert_int_equal(u.snapshot_to_count, 1);
    assert_int_equal(u.snapshot_to[0], 3);
    return r;
}

static void a_peer_behind_the_trim_point_is_named_once_and_gets_heartbeats_only(void **state)
{
    (void)state;
    struct raft *r = new_leader_with_a_peer_behind_the_trim_point();
    struct raft_progress progress[2];
    assert_int_equal(raft_progress(r, progress, 2), 2);
    assert_true(progress[1].snapshotting && progress[1].id == 3 && progress[1].match == 1);
    for (int i = 0; i < 3; i++) {
        struct raft_update u = fixture_tick(r);
        assert_int_equal(sent_to(&u, 3)->prev_index, 8);
        assert_int_equal(sent_to(&u, 3)->entry_count, 0);
        u = refusal(r, 3, 1, 1, sent_to(&u, 3)->sequence);
        assert_int_equal(u.snapshot_to_count, 0);
        (void)fixture_propose(r, 1);
        u = fixture_send(r);
        for (size_t k = 0; k < u.send_now_count; k++) {
            assert_int_equal(u.send_now[k].to, 2);
        }
    }
    raft_free(&r);
}

/* E23: after it the log goes on where the snapshot ends. */
static void a_peer_is_fed_from_the_end_of_its_snapshot(void **state)
{
    (void)state;
    struct raft *r = new_leader_with_a_peer_behind_the_trim_point();
    struct raft_event done = {.type = RAFT_SNAPSHOT_DONE, .peer = 3, .index = 9};
    assert_int_equal(fixture_step(r, done).snapshot_to_count, 0);
    struct raft_update u = fixture_send(r);
    assert_int_equal(sent_to(&u, 3)->prev_index, 9);
    assert_int_equal(sent_to(&u, 3)->entry_count, 1);
    (void)success(r, 3, 10);
    struct raft_progress progress[2];
    assert_int_equal(raft_progress(r, progress, 2), 2);
    assert_true(!progress[1].snapshotting && progress[1].match == 10);
    assert_int_equal(fixture_step(r, done).snapshot_to_count, 0); /* Doubled: nothing. */
    raft_free(&r);
}

/* E23: compaction past a slow follower; and no loop faster than heartbeats when it fails. */
static void a_snapshot_that_failed_or_came_too_late_is_asked_for_again(void **state)
{
    (void)state;
    struct raft *r = new_leader_with_a_peer_behind_the_trim_point();
    (void)fixture_step(r, (struct raft_event){.type = RAFT_TRIM, .index = 10});
    struct raft_event done = {.type = RAFT_SNAPSHOT_DONE, .peer = 3, .index = 9};
    assert_int_equal(fixture_step(r, done).snapshot_to_count, 1);
    done.index = 0;
    assert_int_equal(fixture_step(r, done).snapshot_to_count, 0);
    assert_false(raft_wants_send(r));
    struct raft_update u = fixture_tick(r);
    assert_int_equal(refusal(r, 3, 1, 1, sent_to(&u, 3)->sequence).snapshot_to_count, 1);
    raft_free(&r);
}

/* E23: a log that differs from the leader's just at the trim point. */
static void a_peer_that_differs_at_the_trim_point_needs_a_snapshot(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 2, 4, 4, 4};
    struct raft *r = fixture_new(3, 4, terms, 5);
    struct raft_update u = lead_with_votes_of_two(r);
    (void)fixture_stored(r);
    (void)success(r, 2, 6);
    (void)fixture_step(r, (struct raft_event){.type = RAFT_TRIM, .index = 3});
    u = refusal(r, 3, 3, 3, sent_to(&u, 3)->sequence);
    assert_int_equal(u.snapshot_to_count, 1);
    raft_free(&r);
}

/* The last entry needs nothing but the entry at the trim point to be named. */
static void a_peer_that_has_the_trim_point_needs_no_snapshot(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 2, 4, 4, 4};
    struct raft *r = fixture_new(3, 4, terms, 5);
    struct raft_update u = lead_with_votes_of_two(r);
    (void)fixture_stored(r);
    (void)success(r, 2, 6);
    (void)fixture_step(r, (struct raft_event){.type = RAFT_TRIM, .index = 3});
    u = refusal_and_send(r, 3, 3, 4, sent_to(&u, 3)->sequence);
    assert_int_equal(u.snapshot_to_count, 0);
    assert_int_equal(sent_to(&u, 3)->prev_index, 3);
    raft_free(&r);
}

/* A late ack says that the peer needs no snapshot any more, while it has begun to take one and
 * refuses everything else: it gets another. */
static void a_peer_that_refuses_what_it_has_gets_a_snapshot(void **state)
{
    (void)state;
    struct raft *r = new_leader_with_a_peer_behind_the_trim_point();
    (void)success(r, 3, 8);
    struct raft_event failed = {.type = RAFT_SNAPSHOT_DONE, .peer = 3, .index = 0};
    (void)fixture_step(r, failed);
    struct raft_update u = fixture_send(r);
    (void)refusal(r, 3, 8, 1, sent_to(&u, 3)->sequence);
    int snapshots = 0;
    for (int i = 0; i < 3 && snapshots == 0; i++) {
        u = fixture_tick(r);
        snapshots = (int)refusal(r, 3, 8, 1, sent_to(&u, 3)->sequence).snapshot_to_count;
    }
    assert_int_equal(snapshots, 1);
    raft_free(&r);
}

/* SIM-P08: a folder restored from an old copy. Its refusal answers a message that was sent after it
 * had acknowledged more. */
static void a_peer_that_lost_what_it_acknowledged_is_fed_no_more(void **state)
{
    (void)state;
    struct raft *r = new_leader_of_three();
    (void)propose_and_send(r, 4);
    (void)success(r, 3, 5);
    struct raft_update u = fixture_tick(r);
    u = refusal(r, 3, 2, 1, sent_to(&u, 3)->sequence);
    assert_int_equal(u.regressed, 3);
    (void)propose_and_send(r, 1);
    u = fixture_tick(r);
    assert_int_equal(u.send_now_count, 1);
    assert_int_equal(u.send_now[0].to, 2);
    /* What it held counts no more: 5 is stored here alone. */
    assert_int_equal(fixture_stored(r).commit, 1);
    (void)propose_and_send(r, 1);
    (void)success(r, 3, 7);
    assert_int_equal(fixture_stored(r).commit, 1);
    raft_free(&r);
}

/* Refused before it was stored, and told after: the network changed their order. */
static void a_refusal_from_before_the_acknowledgement_is_no_loss(void **state)
{
    (void)state;
    struct raft *r = new_leader_of_three();
    (void)propose_and_send(r, 4);
    struct raft_update u = fixture_tick(r);
    uint64_t overtaking = sent_to(&u, 3)->sequence;
    (void)success(r, 3, 5);
    assert_int_equal(refusal(r, 3, 1, 1, overtaking).regressed, 0);
    u = fixture_tick(r);
    assert_int_equal(sent_to(&u, 3)->prev_index, 5);
    raft_free(&r);
}

/* One turn's proposals travel together, and nothing travels before the turn's end. */
static void proposals_of_a_turn_share_an_append(void **state)
{
    (void)state;
    struct raft *r = new_leader_of_three();
    assert_false(raft_wants_send(r));
    (void)fixture_propose(r, 2);
    (void)fixture_propose(r, 3);
    assert_true(raft_wants_send(r));
    struct raft_update u = fixture_send(r);
    assert_int_equal(u.send_now_count, 2);
    assert_int_equal(sent_to(&u, 2)->entry_count, 5);
    assert_false(raft_wants_send(r));
    assert_int_equal(fixture_send(r).send_now_count, 0);
    raft_free(&r);
}

/* Followers hear of a commit in the turn that made it, not a heartbeat later. */
static void a_commit_is_told_at_the_next_send(void **state)
{
    (void)state;
    struct raft *r = new_leader_of_three();
    (void)propose_and_send(r, 1);
    (void)fixture_stored(r);
    (void)success(r, 2, 2);
    assert_true(raft_wants_send(r));
    struct raft_update u = fixture_send(r);
    assert_int_equal(sent_to(&u, 2)->commit, 2);
    assert_int_equal(sent_to(&u, 2)->entry_count, 0);
    assert_int_equal(sent_to(&u, 3)->commit, 2);
    assert_int_equal(fixture_send(r).send_now_count, 0);
    raft_free(&r);
}

/* With a notice the news of a commit travels with the next entries. */
static void a_commit_may_wait_for_the_next_entries(void **state)
{
    (void)state;
    struct raft *r = new_leader_of_three();
    raft_set_notice(r, RAFT_HEARTBEAT_US / 10);
    (void)propose_and_send(r, 1);
    (void)fixture_stored(r);
    assert_int_equal(success(r, 2, 2).commit, 2);
    assert_false(raft_wants_send(r));
    struct raft_update u = propose_and_send(r, 1);
    assert_int_equal(u.send_now_count, 2);
    assert_int_equal(sent_to(&u, 2)->commit, 2);
    assert_int_equal(sent_to(&u, 2)->entry_count, 1);
    raft_free(&r);
}

/* When none come it is told alone, long before the heartbeat, which keeps its own time. */
static void a_commit_does_not_wait_longer_than_its_notice(void **state)
{
    (void)state;
    struct raft *r = new_leader_of_three();
    int64_t heartbeat_us = raft_deadline_us(r);
    raft_set_notice(r, RAFT_HEARTBEAT_US / 10);
    (void)propose_and_send(r, 1);
    (void)fixture_stored(r);
    (void)success(r, 2, 2);
    assert_true(raft_deadline_us(r) < heartbeat_us);
    assert_int_equal(fixture_tick(r).send_now_count, 0);
    assert_int_equal(raft_deadline_us(r), heartbeat_us);
    struct raft_update u = fixture_send(r);
    assert_int_equal(u.send_now_count, 2);
    assert_int_equal(sent_to(&u, 2)->commit, 2);
    assert_int_equal(sent_to(&u, 2)->entry_count, 0);
    assert_false(raft_wants_send(r));
    raft_free(&r);
}

static void the_drivers_window_bounds_what_is_on_the_way(void **state)
{
    (void)state;
    struct raft *r = new_leader_of_three();
    raft_set_window(r, 7);
    struct raft_update u = propose_and_send(r, 20);
    assert_int_equal(u.send_now_count, 2);
    assert_int_equal(sent_to(&u, 2)->entry_count, 7);
    assert_false(raft_wants_send(r));
    (void)success(r, 2, 4);
    u = fixture_send(r);
    assert_int_equal(u.send_now_count, 1);
    assert_int_equal(sent_to(&u, 2)->prev_index, 8);
    assert_int_equal(sent_to(&u, 2)->entry_count, 3);
    raft_free(&r);
}

/* A log with more terms than a message may name is sent in pieces. */
static void an_append_names_no_more_terms_than_fit(void **state)
{
    (void)state;
    raft_term terms[2 * RAFT_APPEND_RUNS_MAX];
    for (size_t i = 0; i < 2 * RAFT_APPEND_RUNS_MAX; i++) {
        terms[i] = i + 1;
    }
    struct raft *r = fixture_new(3, 2 * RAFT_APPEND_RUNS_MAX, terms, 2 * RAFT_APPEND_RUNS_MAX);
    struct raft_update u = lead_with_votes_of_two(r);
    u = refusal_and_send(r, 3, 0, 0, sent_to(&u, 3)->sequence);
    assert_int_equal(sent_to(&u, 3)->prev_index, 0);
    assert_int_equal(sent_to(&u, 3)->run_count, RAFT_APPEND_RUNS_MAX);
    assert_int_equal(sent_to(&u, 3)->entry_count, RAFT_APPEND_RUNS_MAX);
    (void)success(r, 3, RAFT_APPEND_RUNS_MAX);
    u = fixture_send(r);
    assert_int_equal(u.send_now_count, 2);
    assert_int_equal(u.send_now[0].entry_count, RAFT_APPEND_RUNS_MAX);
    assert_int_equal(u.send_now[1].entry_count, 1);
    raft_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_of_an_earlier_term_is_not_committed_by_counting),
        cmocka_unit_test(the_leader_sends_at_once_and_counts_itself_only_when_stored),
        cmocka_unit_test(appends_are_pipelined_up_to_the_window),
        cmocka_unit_test(a_refusal_backs_up_over_whole_terms),
        cmocka_unit_test(a_hint_of_a_later_term_backs_up_to_the_leaders_own),
        cmocka_unit_test(a_late_refusal_is_ignored),
        cmocka_unit_test(a_silent_peer_gets_heartbeats_and_no_more_entries),
        cmocka_unit_test(a_lost_append_is_sent_again_after_a_heartbeat),
        cmocka_unit_test(an_acknowledgement_past_the_log_is_refused),
        cmocka_unit_test(a_peer_behind_the_trim_point_is_named_once_and_gets_heartbeats_only),
        cmocka_unit_test(a_peer_is_fed_from_the_end_of_its_snapshot),
        cmocka_unit_test(a_snapshot_that_failed_or_came_too_late_is_asked_for_again),
        cmocka_unit_test(a_peer_that_differs_at_the_trim_point_needs_a_snapshot),
        cmocka_unit_test(a_peer_that_refuses_what_it_has_gets_a_snapshot),
        cmocka_unit_test(a_peer_that_has_the_trim_point_needs_no_snapshot),
        cmocka_unit_test(a_peer_that_lost_what_it_acknowledged_is_fed_no_more),
        cmocka_unit_test(a_refusal_from_before_the_acknowledgement_is_no_loss),
        cmocka_unit_test(proposals_of_a_turn_share_an_append),
        cmocka_unit_test(a_commit_is_told_at_the_next_send),
        cmocka_unit_test(a_commit_may_wait_for_the_next_entries),
        cmocka_unit_test(a_commit_does_not_wait_longer_than_its_notice),
        cmocka_unit_test(the_drivers_window_bounds_what_is_on_the_way),
        cmocka_unit_test(an_append_names_no_more_terms_than_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
