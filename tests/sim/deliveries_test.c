/* The checkers of deliveries, groups and versions against histories that are made by hand: each bad
 * one is flagged by the invariant it breaks, and the good ones by none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sim/chains.h"
#include "sim/deliveries.h"
#include "sim/groups.h"

#define LIMIT 3

_Noreturn void must_fail(const char *expression, const char *file, int line)
{
    print_error("%s:%d: must(%s) does not hold\n", file, line, expression);
    abort();
}

struct fixture {
    struct world world;
    struct history history;
    struct deliveries deliveries;
    struct group group;
    struct key_chains versions;
    uint32_t topic;
    int64_t end;
};

static int setup(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof(f));
    world_init(&f.world, 1);
    history_init(&f.history);
    f.topic = history_add_topic(&f.history, "t", 1);
    deliveries_init(&f.deliveries, &f.history, "s", f.topic, true, LIMIT);
    group_init(&f.group, "g");
    chains_init(&f.versions, &f.history);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    deliveries_fini(&f->deliveries);
    group_fini(&f->group);
    chains_fini(&f->versions);
    history_fini(&f->history);
    world_fini(&f->world);
    return 0;
}

/* ---- Steps; each takes a moment ---- */

static int64_t pass(struct fixture *f)
{
    world_run(&f->world, f->world.now_us + SIM_MS);
    return f->world.now_us;
}

/* A message of the key (0: none) is stored behind the others. */
static uint64_t stored(struct fixture *f, uint32_t key)
{
    (void)pass(f);
    uint64_t number = history_new(&f->history, f->topic, 1);
    f->history.messages[number].key = key;
    history_sending(&f->history, number);
    (void)pass(f);
    history_outcome(&f->history, number, FERRY_STORED, 0, f->end++, false);
    return number;
}

static uint32_t got_since(struct fixture *f, uint64_t number, uint32_t handed, uint32_t failed,
                          int64_t opened_us)
{
    uint8_t payload[HISTORY_PAYLOAD_MAX];
    (void)pass(f);
    struct ferry_delivery d = {.record = {.partition = 0,
                                          .offset = f->history.messages[number].offset,
                                          .payload = payload,
                                          .payload_bytes = history_payload(number, payload)},
                               .handed_out = handed,
                               .failed = failed};
    return deliveries_got(&f->deliveries, 1, opened_us, &d);
}

static uint32_t got(struct fixture *f, uint64_t number, uint32_t handed, uint32_t failed)
{
    return got_since(f, number, handed, failed, 0);
}

static void asked(struct fixture *f, uint32_t hand_out, enum ferry_settle settle)
{
    (void)pass(f);
    deliveries_asked(&f->deliveries, hand_out, settle, -1);
}

static void told(struct fixture *f, uint32_t hand_out, enum ferry_err err)
{
    (void)pass(f);
    deliveries_told(&f->deliveries, hand_out, err);
}

static void settled(struct fixture *f, uint32_t hand_out, enum ferry_settle settle)
{
    asked(f, hand_out, settle);
    told(f, hand_out, FERRY_OK);
}

static void dead(struct fixture *f, uint64_t number, uint32_t handed, uint32_t failed,
                 enum ferry_failure_kind how)
{
    struct ferry_dead d = {.offset = f->history.messages[number].offset,
                           .handed_out = handed,
                           .failed = failed,
                           .failure_count = 1,
                           .failures = {{.kind = how}}};
    deliveries_dead(&f->deliveries, &d);
}

static void end(struct fixture *f)
{
    (void)pass(f);
    history_read_out(&f->history, f->topic, 0, 0, f->end);
    deliveries_check_end(&f->deliveries);
}

static void assert_flagged(const struct fixture *f, const char *invariant)
{
    assert_true(f->world.ended);
    assert_int_equal(f->world.end, SIM_INVARIANT);
    if (strncmp(f->world.verdict, invariant, strlen(invariant)) != 0) {
        fail_msg("%s expected: %s", invariant, f->world.verdict);
    }
}

static void assert_not_flagged(const struct fixture *f)
{
    if (f->world.ended) {
        fail_msg("flagged: %s", f->world.verdict);
    }
}

/* ---- Good ones ---- */

static void a_message_that_fails_and_is_acked_is_not_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    settled(f, got(f, m, 1, 0), FERRY_NACK);
    settled(f, got(f, m, 2, 1), FERRY_RELEASE);
    settled(f, got(f, m, 3, 1), FERRY_ACK);
    end(f);
    assert_not_flagged(f);
}

static void a_hand_out_that_nobody_saw_may_have_failed_or_not(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    (void)got(f, m, 1, 0);
    settled(f, got(f, m, 3, 1), FERRY_ACK);
    uint64_t n = stored(f, 0);
    (void)got(f, n, 1, 0);
    settled(f, got(f, n, 3, 2), FERRY_ACK);
    end(f);
    assert_not_flagged(f);
}

static void a_late_ack_that_is_refused_is_not_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    uint32_t first = got(f, m, 1, 0);
    uint32_t second = got(f, m, 2, 1);
    asked(f, first, FERRY_ACK);
    told(f, first, FERRY_ERR_LEASE_EXPIRED);
    settled(f, second, FERRY_ACK);
    end(f);
    assert_not_flagged(f);
}

static void an_ack_without_an_answer_counts_when_nothing_comes_after_it(void **state)
{
    struct fixture *f = *state;
    uint32_t h = got(f, stored(f, 1), 1, 0);
    asked(f, h, FERRY_ACK);
    told(f, h, FERRY_ERR_TIMEOUT);
    settled(f, got(f, stored(f, 1), 1, 0), FERRY_ACK);
    end(f);
    assert_not_flagged(f);
}

static void a_dead_letter_that_is_replayed_counts_anew(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    settled(f, got(f, m, 1, 0), FERRY_REJECT);
    assert_true(deliveries_replaying(&f->deliveries, 0, 0));
    settled(f, got(f, m, 1, 0), FERRY_ACK);
    end(f);
    assert_not_flagged(f);
}

static void keys_wait_for_themselves_only(void **state)
{
    struct fixture *f = *state;
    uint64_t a = stored(f, 1);
    uint64_t b = stored(f, 2);
    uint64_t c = stored(f, 1);
    uint32_t first = got(f, a, 1, 0);
    settled(f, got(f, b, 1, 0), FERRY_ACK);
    settled(f, first, FERRY_ACK);
    settled(f, got(f, c, 1, 0), FERRY_ACK);
    end(f);
    assert_not_flagged(f);
}

static void numbers_that_add_up_are_not_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t a = stored(f, 0);
    uint64_t b = stored(f, 0);
    settled(f, got(f, a, 1, 0), FERRY_ACK);
    settled(f, got(f, b, 1, 0), FERRY_REJECT);
    dead(f, b, 1, 0, FERRY_FAILURE_REJECT);
    struct ferry_subscription_partition p = {
        .end_offset = 2, .acked = 1, .died = 1, .dead = 1, .handed_out = 2};
    deliveries_counted(&f->deliveries, &p);
    end(f);
    assert_not_flagged(f);
}

/* ---- Bad ones ---- */

static void a_message_that_nobody_acked_is_flagged(void **state)
{
    struct fixture *f = *state;
    settled(f, got(f, stored(f, 0), 1, 0), FERRY_NACK);
    end(f);
    assert_flagged(f, "INV-Q01");
}

static void a_message_that_was_never_handed_out_is_flagged(void **state)
{
    struct fixture *f = *state;
    (void)stored(f, 0);
    end(f);
    assert_flagged(f, "INV-Q01");
}

static void a_message_whose_only_ack_was_refused_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint32_t h = got(f, stored(f, 0), 1, 0);
    asked(f, h, FERRY_ACK);
    told(f, h, FERRY_ERR_LEASE_EXPIRED);
    end(f);
    assert_flagged(f, "INV-Q01");
}

static void an_old_lease_that_settles_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    uint32_t first = got(f, m, 1, 0);
    (void)got(f, m, 2, 1);
    settled(f, first, FERRY_NACK);
    assert_flagged(f, "INV-Q02");
}

static void an_old_lease_that_is_extended_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    uint32_t first = got(f, m, 1, 0);
    (void)got(f, m, 2, 1);
    deliveries_extended(&f->deliveries, first, pass(f), 1000, FERRY_OK);
    assert_flagged(f, "INV-Q02");
}

static void a_lease_that_ends_before_its_time_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    uint32_t first = got(f, m, 1, 0);
    deliveries_extended(&f->deliveries, first, pass(f), 1000, FERRY_OK);
    (void)got(f, m, 2, 1);
    assert_flagged(f, "INV-Q02");
}

static void an_acked_message_that_comes_again_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    settled(f, got(f, m, 1, 0), FERRY_ACK);
    (void)got(f, m, 2, 1);
    assert_flagged(f, "INV-Q03");
}

static void an_ack_confirmed_after_the_message_came_again_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    uint32_t h = got(f, m, 1, 0);
    asked(f, h, FERRY_ACK);
    (void)got(f, m, 2, 1);
    told(f, h, FERRY_OK);
    assert_flagged(f, "INV-Q03");
}

static void a_replayed_and_acked_message_that_comes_again_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    settled(f, got(f, m, 1, 0), FERRY_REJECT);
    assert_true(deliveries_replaying(&f->deliveries, 0, 0));
    settled(f, got(f, m, 1, 0), FERRY_ACK);
    int64_t opened_us = pass(f);
    (void)got_since(f, m, 2, 0, opened_us);
    assert_flagged(f, "INV-Q03");
}

static void two_hand_outs_of_one_number_are_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    (void)got(f, m, 1, 0);
    (void)got(f, m, 1, 0);
    assert_flagged(f, "INV-Q04");
}

static void a_count_of_hand_outs_that_goes_back_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    (void)got(f, m, 2, 1);
    int64_t opened_us = pass(f);
    (void)got_since(f, m, 1, 0, opened_us);
    assert_flagged(f, "INV-Q04");
}

static void a_failure_that_is_not_counted_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    settled(f, got(f, m, 1, 0), FERRY_NACK);
    settled(f, got(f, m, 2, 0), FERRY_ACK);
    end(f);
    assert_flagged(f, "INV-Q04");
}

static void a_release_that_counts_as_failed_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    settled(f, got(f, m, 1, 0), FERRY_RELEASE);
    settled(f, got(f, m, 2, 1), FERRY_ACK);
    end(f);
    assert_flagged(f, "INV-Q04");
}

static void a_message_handed_out_beyond_the_limit_is_flagged(void **state)
{
    struct fixture *f = *state;
    (void)got(f, stored(f, 0), LIMIT + 1, LIMIT);
    assert_flagged(f, "INV-Q04");
}

static void a_message_that_comes_before_its_delay_is_over_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    uint32_t h = got(f, m, 1, 0);
    deliveries_asked(&f->deliveries, h, FERRY_NACK, 1000);
    told(f, h, FERRY_OK);
    settled(f, got(f, m, 2, 1), FERRY_ACK);
    end(f);
    assert_flagged(f, "INV-Q04");
}

static void a_dead_letter_before_the_limit_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    settled(f, got(f, m, 1, 0), FERRY_NACK);
    settled(f, got(f, m, 2, 1), FERRY_NACK);
    dead(f, m, 2, 2, FERRY_FAILURE_NACK);
    assert_flagged(f, "INV-Q04");
}

static void an_acked_dead_letter_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    settled(f, got(f, m, 1, 0), FERRY_ACK);
    dead(f, m, 1, 0, FERRY_FAILURE_REJECT);
    assert_flagged(f, "INV-Q04");
}

static void a_message_that_is_dead_twice_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    settled(f, got(f, m, 1, 0), FERRY_REJECT);
    dead(f, m, 1, 0, FERRY_FAILURE_REJECT);
    dead(f, m, 1, 0, FERRY_FAILURE_REJECT);
    assert_flagged(f, "INV-Q04");
}

static void numbers_that_do_not_add_up_are_flagged(void **state)
{
    struct fixture *f = *state;
    settled(f, got(f, stored(f, 0), 1, 0), FERRY_ACK);
    struct ferry_subscription_partition p = {.end_offset = 2, .acked = 1, .handed_out = 1};
    deliveries_counted(&f->deliveries, &p);
    assert_flagged(f, "INV-Q05");
}

static void an_ack_that_is_not_counted_is_flagged(void **state)
{
    struct fixture *f = *state;
    settled(f, got(f, stored(f, 0), 1, 0), FERRY_ACK);
    struct ferry_subscription_partition p = {.end_offset = 1, .expired = 1, .handed_out = 1};
    deliveries_counted(&f->deliveries, &p);
    assert_flagged(f, "INV-Q05");
}

static void a_hand_out_that_is_not_counted_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 0);
    settled(f, got(f, m, 1, 0), FERRY_NACK);
    settled(f, got(f, m, 2, 1), FERRY_ACK);
    struct ferry_subscription_partition p = {.end_offset = 1, .acked = 1, .handed_out = 1};
    deliveries_counted(&f->deliveries, &p);
    assert_flagged(f, "INV-Q04");
}

static void an_expired_message_of_a_topic_that_keeps_them_is_flagged(void **state)
{
    struct fixture *f = *state;
    (void)stored(f, 0);
    struct ferry_subscription_partition p = {.end_offset = 1, .expired = 1};
    deliveries_counted(&f->deliveries, &p);
    assert_flagged(f, "INV-Q05");
}

static void a_message_dropped_before_its_end_is_flagged(void **state)
{
    struct fixture *f = *state;
    f->history.topics[f->topic].retained = f->history.topics[f->topic].by_acks = true;
    (void)stored(f, 0);
    settled(f, got(f, stored(f, 0), 1, 0), FERRY_ACK);
    (void)pass(f);
    history_read_out(&f->history, f->topic, 0, 2, f->end);
    deliveries_check_end(&f->deliveries);
    assert_flagged(f, "INV-Q01");
}

static void a_message_that_overtakes_its_key_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint32_t first = got(f, stored(f, 1), 1, 0);
    settled(f, got(f, stored(f, 1), 1, 0), FERRY_ACK);
    settled(f, first, FERRY_ACK);
    end(f);
    assert_flagged(f, "INV-Q06");
}

static void a_message_that_overtakes_a_failed_one_of_its_key_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t m = stored(f, 1);
    settled(f, got(f, m, 1, 0), FERRY_NACK);
    settled(f, got(f, stored(f, 1), 1, 0), FERRY_ACK);
    settled(f, got(f, m, 2, 1), FERRY_ACK);
    end(f);
    assert_flagged(f, "INV-Q06");
}

/* ---- Groups ---- */

static uint32_t given(struct fixture *f, int64_t position)
{
    int64_t joined_us = pass(f);
    (void)pass(f);
    return group_given(&f->group, group_joins(&f->group), joined_us, 0, position);
}

static void commits(struct fixture *f, uint32_t ownership, int64_t offset, enum ferry_err err)
{
    int64_t asked_us = pass(f);
    group_asked(&f->group, ownership, offset);
    (void)pass(f);
    group_told(&f->group, ownership, asked_us, offset, err);
}

static void a_group_that_hands_on_is_not_flagged(void **state)
{
    struct fixture *f = *state;
    uint32_t a = given(f, 0);
    commits(f, a, 5, FERRY_OK);
    uint32_t b = given(f, 5);
    commits(f, a, 7, FERRY_ERR_MEMBER_FENCED);
    commits(f, b, 9, FERRY_OK);
    group_check_position(&f->group, 0, 9);
    assert_not_flagged(f);
}

static void a_zombie_that_commits_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint32_t a = given(f, 0);
    (void)given(f, 0);
    commits(f, a, 7, FERRY_OK);
    assert_flagged(f, "INV-P03");
}

static void two_that_commit_in_turn_are_flagged(void **state)
{
    struct fixture *f = *state;
    int64_t joined_us = pass(f);
    uint32_t a = group_given(&f->group, 1, joined_us, 0, 0);
    uint32_t b = group_given(&f->group, 2, joined_us, 0, 0);
    commits(f, a, 5, FERRY_OK);
    commits(f, b, 5, FERRY_OK);
    assert_flagged(f, "INV-P04");
}

static void two_that_commit_by_turns_are_flagged(void **state)
{
    struct fixture *f = *state;
    int64_t joined_us = pass(f);
    uint32_t a = group_given(&f->group, 1, joined_us, 0, 9);
    uint32_t b = group_given(&f->group, 2, joined_us, 0, 9);
    commits(f, a, 5, FERRY_OK);
    commits(f, b, 6, FERRY_OK);
    commits(f, a, 7, FERRY_OK);
    assert_flagged(f, "INV-P03");
}

static void a_position_that_went_back_is_flagged(void **state)
{
    struct fixture *f = *state;
    commits(f, given(f, 0), 5, FERRY_OK);
    group_check_position(&f->group, 0, 4);
    assert_flagged(f, "INV-P04");
}

static void a_position_that_nobody_asked_for_is_flagged(void **state)
{
    struct fixture *f = *state;
    commits(f, given(f, 0), 5, FERRY_OK);
    group_check_position(&f->group, 0, 6);
    assert_flagged(f, "INV-P04");
}

static void reset(struct fixture *f, int64_t to)
{
    int64_t asked_us = pass(f);
    group_resetting(&f->group);
    (void)pass(f);
    group_reset(&f->group, 0, asked_us, to);
}

static void a_position_that_went_back_by_a_reset_is_not_flagged(void **state)
{
    struct fixture *f = *state;
    uint32_t a = given(f, 0);
    commits(f, a, 5, FERRY_OK);
    reset(f, 0);
    commits(f, a, 6, FERRY_ERR_MEMBER_FENCED);
    commits(f, given(f, 0), 2, FERRY_OK);
    group_check_position(&f->group, 0, 2);
    assert_not_flagged(f);
}

static void a_commit_over_a_reset_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint32_t a = given(f, 0);
    reset(f, 0);
    commits(f, a, 6, FERRY_OK);
    assert_flagged(f, "INV-P04");
}

/* ---- Versions ---- */

static struct publishing publish(struct fixture *f, uint64_t expected)
{
    (void)pass(f);
    uint64_t number = history_new(&f->history, f->topic, 1);
    history_sending(&f->history, number);
    return chains_publishing(&f->versions, number, 1, expected);
}

static void published(struct fixture *f, const struct publishing *p, enum ferry_err err,
                      uint64_t version)
{
    (void)pass(f);
    if (err == FERRY_OK) {
        history_outcome(&f->history, p->message, FERRY_STORED, 0, f->end++, false);
    }
    chains_published(&f->versions, p, err, version);
}

static void versions_in_a_row_are_not_flagged(void **state)
{
    struct fixture *f = *state;
    struct publishing a = publish(f, 0);
    struct publishing b = publish(f, 0);
    published(f, &a, FERRY_OK, 0);
    published(f, &b, FERRY_ERR_VERSION_CONFLICT, 1);
    struct publishing c = publish(f, 1);
    published(f, &c, FERRY_OK, 0);
    chains_check_end(&f->versions, 1, 2);
    assert_not_flagged(f);
}

static void two_at_one_version_are_flagged(void **state)
{
    struct fixture *f = *state;
    struct publishing a = publish(f, 0);
    struct publishing b = publish(f, 0);
    published(f, &a, FERRY_OK, 0);
    published(f, &b, FERRY_OK, 0);
    assert_flagged(f, "INV-R16");
}

static void one_without_an_answer_counts_too(void **state)
{
    struct fixture *f = *state;
    struct publishing a = publish(f, 0);
    struct publishing b = publish(f, 0);
    published(f, &a, FERRY_OK, 0);
    published(f, &b, FERRY_ERR_TIMEOUT, 0);
    history_outcome(&f->history, b.message, FERRY_STORED, 0, f->end++, false);
    chains_check_end(&f->versions, 1, 1);
    assert_flagged(f, "INV-R16");
}

static void a_read_of_the_past_is_flagged(void **state)
{
    struct fixture *f = *state;
    struct publishing a = publish(f, 0);
    published(f, &a, FERRY_OK, 0);
    uint64_t known = chains_reading(&f->versions, 1);
    chains_read(&f->versions, 1, known, 0);
    assert_flagged(f, "INV-R16");
}

static void a_conflict_of_the_past_is_flagged(void **state)
{
    struct fixture *f = *state;
    struct publishing a = publish(f, 0);
    published(f, &a, FERRY_OK, 0);
    struct publishing b = publish(f, 1);
    published(f, &b, FERRY_ERR_VERSION_CONFLICT, 0);
    assert_flagged(f, "INV-R16");
}

static void a_version_that_the_log_does_not_have_is_flagged(void **state)
{
    struct fixture *f = *state;
    struct publishing a = publish(f, 0);
    published(f, &a, FERRY_ERR_TIMEOUT, 0);
    chains_check_end(&f->versions, 1, 1);
    assert_flagged(f, "INV-R16");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_message_that_fails_and_is_acked_is_not_flagged),
        T(a_hand_out_that_nobody_saw_may_have_failed_or_not),
        T(a_late_ack_that_is_refused_is_not_flagged),
        T(an_ack_without_an_answer_counts_when_nothing_comes_after_it),
        T(a_dead_letter_that_is_replayed_counts_anew),
        T(keys_wait_for_themselves_only),
        T(numbers_that_add_up_are_not_flagged),
        T(a_message_that_nobody_acked_is_flagged),
        T(a_message_that_was_never_handed_out_is_flagged),
        T(a_message_whose_only_ack_was_refused_is_flagged),
        T(an_old_lease_that_settles_is_flagged),
        T(an_old_lease_that_is_extended_is_flagged),
        T(a_lease_that_ends_before_its_time_is_flagged),
        T(an_acked_message_that_comes_again_is_flagged),
        T(an_ack_confirmed_after_the_message_came_again_is_flagged),
        T(a_replayed_and_acked_message_that_comes_again_is_flagged),
        T(two_hand_outs_of_one_number_are_flagged),
        T(a_count_of_hand_outs_that_goes_back_is_flagged),
        T(a_failure_that_is_not_counted_is_flagged),
        T(a_release_that_counts_as_failed_is_flagged),
        T(a_message_handed_out_beyond_the_limit_is_flagged),
        T(a_message_that_comes_before_its_delay_is_over_is_flagged),
        T(a_dead_letter_before_the_limit_is_flagged),
        T(an_acked_dead_letter_is_flagged),
        T(a_message_that_is_dead_twice_is_flagged),
        T(numbers_that_do_not_add_up_are_flagged),
        T(an_ack_that_is_not_counted_is_flagged),
        T(a_hand_out_that_is_not_counted_is_flagged),
        T(an_expired_message_of_a_topic_that_keeps_them_is_flagged),
        T(a_message_dropped_before_its_end_is_flagged),
        T(a_message_that_overtakes_its_key_is_flagged),
        T(a_message_that_overtakes_a_failed_one_of_its_key_is_flagged),
        T(a_group_that_hands_on_is_not_flagged),
        T(a_zombie_that_commits_is_flagged),
        T(two_that_commit_in_turn_are_flagged),
        T(two_that_commit_by_turns_are_flagged),
        T(a_position_that_went_back_is_flagged),
        T(a_position_that_nobody_asked_for_is_flagged),
        T(a_position_that_went_back_by_a_reset_is_not_flagged),
        T(a_commit_over_a_reset_is_flagged),
        T(versions_in_a_row_are_not_flagged),
        T(two_at_one_version_are_flagged),
        T(one_without_an_answer_counts_too),
        T(a_read_of_the_past_is_flagged),
        T(a_conflict_of_the_past_is_flagged),
        T(a_version_that_the_log_does_not_have_is_flagged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
