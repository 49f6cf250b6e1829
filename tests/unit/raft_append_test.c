/* Append requests at a follower: sections 3.5 and 3.6, paper figure 2 and section 5.3. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/raft_fixture.h"

static const struct raft_message *reply_of(const struct raft_update *u)
{
    assert_int_equal(u->send_now_count, 0);
    assert_int_equal(u->send_after_sync_count, 1);
    assert_int_equal(u->send_after_sync[0].type, RAFT_APPEND_REPLY);
    return &u->send_after_sync[0];
}

/* 3.5: entries that fit are appended; the reply, which says "stored", waits for the fsync. */
static void entries_that_fit_are_appended_and_answered_after_sync(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 1};
    struct raft *r = fixture_new(3, 1, terms, 2);
    const struct raft_run runs[] = {{.first = 3, .term = 1}, {.first = 4, .term = 2}};
    struct raft_message m = fixture_append(2, 2, 2, 1, 3, runs, 2, 4);
    m.sequence = 77;
    struct raft_update u = fixture_receive(r, m);
    assert_int_equal(u.truncate_from, 0);
    assert_int_equal(u.append_first, 3);
    assert_int_equal(u.append_last, 5);
    assert_int_equal(u.append_term, 0);
    assert_int_equal(u.commit, 4);
    assert_true(reply_of(&u)->success);
    assert_int_equal(reply_of(&u)->match_index, 5);
    assert_int_equal(reply_of(&u)->sequence, 77);
    assert_int_equal(raft_term_at(r, 3), 1);
    assert_int_equal(raft_term_at(r, 5), 2);
    raft_free(&r);
}

/* 3.5: without the entry before, refused; the hint is where the leader should try. */
static void a_gap_is_refused_with_the_end_of_the_log_as_hint(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 1};
    struct raft *r = fixture_new(3, 1, terms, 2);
    struct raft_update u = fixture_receive(r, fixture_append(2, 1, 9, 1, 0, NULL, 0, 9));
    assert_false(reply_of(&u)->success);
    assert_int_equal(reply_of(&u)->match_index, 2);
    assert_int_equal(reply_of(&u)->match_term, 1);
    assert_int_equal(u.append_first, 0);
    assert_int_equal(u.commit, 0);
    raft_free(&r);
}

/* Paper 5.3: one refusal skips all entries of a term the leader does not have. */
static void a_conflict_is_refused_with_a_hint_before_the_conflicting_terms(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 1, 3, 3, 3, 4, 4};
    struct raft *r = fixture_new(3, 4, terms, 7);
    struct raft_update u = fixture_receive(r, fixture_append(2, 5, 6, 2, 0, NULL, 0, 0));
    assert_false(reply_of(&u)->success);
    assert_int_equal(reply_of(&u)->match_index, 2);
    assert_int_equal(reply_of(&u)->match_term, 1);
    assert_int_equal(u.truncate_from, 0);
    raft_free(&r);
}

/* 3.5: an existing entry that conflicts goes, with all that follow it. */
static void a_conflicting_suffix_is_replaced(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 1, 2, 2, 2};
    struct raft *r = fixture_new(3, 2, terms, 5);
    const struct raft_run runs[] = {{.first = 2, .term = 1}, {.first = 3, .term = 3}};
    struct raft_update u = fixture_receive(r, fixture_append(2, 3, 1, 1, 2, runs, 2, 0));
    assert_int_equal(u.truncate_from, 3);
    assert_int_equal(u.append_first, 3);
    assert_int_equal(u.append_last, 3);
    assert_int_equal(raft_last_index(r), 3);
    assert_int_equal(raft_term_at(r, 3), 3);
    raft_free(&r);
}

/* Figure 2, step 3 ("if an existing entry conflicts"): RedisRaft, E21. */
static void a_late_reordered_append_does_not_truncate(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 1, 1, 1, 1};
    struct raft *r = fixture_new(3, 1, terms, 5);
    const struct raft_run runs[] = {{.first = 2, .term = 1}};
    struct raft_update u = fixture_receive(r, fixture_append(2, 1, 1, 1, 2, runs, 1, 0));
    assert_int_equal(u.truncate_from, 0);
    assert_int_equal(u.append_first, 0);
    assert_int_equal(raft_last_index(r), 5);
    assert_true(reply_of(&u)->success);
    assert_int_equal(reply_of(&u)->match_index, 3); /* What was proved, not what is there. */
    raft_free(&r);
}

/* Figure 2, step 5; E22: a heartbeat proves nothing beyond its prev_index. */
static void commit_goes_no_further_than_the_message_proves(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 1, 1, 2, 2};
    struct raft *r = fixture_new(3, 2, terms, 5);
    struct raft_update u = fixture_receive(r, fixture_append(2, 3, 3, 1, 0, NULL, 0, 5));
    assert_int_equal(u.commit, 3);
    u = fixture_receive(r, fixture_append(2, 3, 2, 1, 0, NULL, 0, 5));
    assert_int_equal(u.commit, 3);
    raft_free(&r);
}

/* 3.6.3: if it happens all the same, a promise is broken somewhere; this node must stop. */
static void an_append_that_contradicts_a_committed_entry_is_corrupt(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 1, 1};
    struct raft *r = fixture_new(3, 1, terms, 3);
    (void)fixture_receive(r, fixture_append(2, 1, 3, 1, 0, NULL, 0, 3));
    const struct raft_run runs[] = {{.first = 3, .term = 2}};
    assert_int_equal(fixture_refused(r, fixture_append(3, 2, 2, 1, 1, runs, 1, 0)),
                     FERRY_ERR_CORRUPT);
    assert_int_equal(fixture_refused(r, fixture_append(3, 2, 2, 2, 0, NULL, 0, 0)),
                     FERRY_ERR_CORRUPT);
    assert_int_equal(raft_current_term(r), 1);
    assert_int_equal(raft_last_index(r), 3);
    /* Of a deposed leader the same bytes are just late. */
    struct raft_message vote = fixture_vote_request(3, 4, 3, 1);
    vote.transfer = true;
    (void)fixture_receive(r, vote);
    struct raft_update u = fixture_receive(r, fixture_append(2, 2, 2, 2, 0, NULL, 0, 0));
    assert_false(reply_of(&u)->success);
    raft_free(&r);
}

/* Entries at or below the trim point are committed: they count as there. */
static void an_append_that_begins_below_the_trim_point_fits(void **state)
{
    (void)state;
    const raft_term terms[] = {1, 1, 1, 1};
    struct raft *r = fixture_new(3, 1, terms, 4);
    (void)fixture_receive(r, fixture_append(2, 1, 4, 1, 0, NULL, 0, 4));
    (void)fixture_step(r, (struct raft_event){.type = RAFT_TRIM, .index = 3});
    const struct raft_run runs[] = {{.first = 2, .term = 1}};
    struct raft_update u = fixture_receive(r, fixture_append(2, 1, 1, 1, 5, runs, 1, 4));
    assert_true(reply_of(&u)->success);
    assert_int_equal(u.append_first, 5);
    assert_int_equal(u.append_last, 6);
    u = fixture_receive(r, fixture_append(2, 1, 0, 0, 0, NULL, 0, 4));
    assert_true(reply_of(&u)->success);
    raft_free(&r);
}

/* E21: the entry before is the one at the trim point, or the end of a snapshot: its term is known.
 */
static void an_append_just_after_the_trim_point_is_compared_with_it(void **state)
{
    (void)state;
    struct raft_config config = {.self = FIXTURE_SELF, .seed = 1};
    struct raft_disk disk = {.term = 4,
                             .commit = 10,
                             .trim_index = 10,
                             .trim_term = 3,
                             .last_index = 10,
                             .config = {.members = fixture_members(3, 0)},
                             .previous_config = {.members = fixture_members(3, 0)}};
    struct raft *r = NULL;
    assert_int_equal(raft_new(&config, &disk, 0, &r), FERRY_OK);
    const struct raft_run runs[] = {{.first = 11, .term = 4}};
    assert_int_equal(fixture_refused(r, fixture_append(2, 4, 10, 2, 1, runs, 1, 0)),
                     FERRY_ERR_CORRUPT);
    struct raft_update u = fixture_receive(r, fixture_append(2, 4, 10, 3, 1, runs, 1, 0));
    assert_true(reply_of(&u)->success);
    assert_int_equal(u.append_first, 11);
    raft_free(&r);
}

/* E07, etcd-io/raft async_storage_writes_append_aba_race: an entry is appended, cut away and
 * appended again with the same term; the fsync of the first writing comes back last. A crash now
 * could still lose the entry, so this node must not count it. Only what is stored can be trimmed:
 * that shows what the core counts. */
static void a_late_stored_of_a_rewritten_entry_does_not_count(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 1, NULL, 0);
    const struct raft_run ours[] = {{.first = 1, .term = 1}};
    const struct raft_run others[] = {{.first = 1, .term = 2}};
    struct raft_update first = fixture_receive(r, fixture_append(2, 1, 0, 0, 2, ours, 1, 0));
    (void)fixture_receive(r, fixture_append(3, 2, 0, 0, 1, others, 1, 0));
    struct raft_update third = fixture_receive(r, fixture_append(2, 3, 0, 0, 2, ours, 1, 2));
    assert_int_equal(third.truncate_from, 1);
    assert_int_equal(third.commit, 2);
    struct raft_event stored = {.type = RAFT_STORED, .number = first.number, .index = 2, .term = 1};
    struct raft_event trim = {.type = RAFT_TRIM, .index = 2};
    struct raft_update u;
    (void)fixture_step(r, stored);
    assert_int_equal(raft_step(r, &trim, &u), FERRY_ERR_INVALID_ARGUMENT);
    stored.number = third.number;
    (void)fixture_step(r, stored);
    assert_int_equal(raft_step(r, &trim, &u), FERRY_OK);
    raft_free(&r);
}

/* The same without a rewrite: the entry is gone, or is another. */
static void a_stored_of_a_truncated_entry_does_not_count(void **state)
{
    (void)state;
    struct raft *r = fixture_new(3, 1, NULL, 0);
    const struct raft_run old_entries[] = {{.first = 1, .term = 1}};
    const struct raft_run others[] = {{.first = 1, .term = 2}};
    (void)fixture_receive(r, fixture_append(2, 1, 0, 0, 2, old_entries, 1, 0));
    (void)fixture_receive(r, fixture_append(3, 2, 0, 0, 1, others, 1, 1));
    (void)fixture_step(r, (struct raft_event){.type = RAFT_STORED, .index = 2, .term = 1});
    (void)fixture_step(r, (struct raft_event){.type = RAFT_STORED, .index = 1, .term = 1});
    struct raft_event trim = {.type = RAFT_TRIM, .index = 1};
    struct raft_update u;
    assert_int_equal(raft_step(r, &trim, &u), FERRY_ERR_INVALID_ARGUMENT);
    (void)fixture_stored(r);
    assert_int_equal(raft_step(r, &trim, &u), FERRY_OK);
    raft_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_that_fit_are_appended_and_answered_after_sync),
        cmocka_unit_test(a_gap_is_refused_with_the_end_of_the_log_as_hint),
        cmocka_unit_test(a_conflict_is_refused_with_a_hint_before_the_conflicting_terms),
        cmocka_unit_test(a_conflicting_suffix_is_replaced),
        cmocka_unit_test(a_late_reordered_append_does_not_truncate),
        cmocka_unit_test(commit_goes_no_further_than_the_message_proves),
        cmocka_unit_test(an_append_that_contradicts_a_committed_entry_is_corrupt),
        cmocka_unit_test(an_append_that_begins_below_the_trim_point_fits),
        cmocka_unit_test(an_append_just_after_the_trim_point_is_compared_with_it),
        cmocka_unit_test(a_late_stored_of_a_rewritten_entry_does_not_count),
        cmocka_unit_test(a_stored_of_a_truncated_entry_does_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
