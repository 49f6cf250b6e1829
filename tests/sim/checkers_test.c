/* The history checker against histories that are made by hand: each bad one is flagged by the
 * invariant it breaks, and the good ones by none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sim/history.h"

_Noreturn void must_fail(const char *expression, const char *file, int line)
{
    print_error("%s:%d: must(%s) does not hold\n", file, line, expression);
    abort();
}

struct fixture {
    struct world world;
    struct history history;
    uint32_t topic;
    struct history_session reader;
};

static int setup(void **state)
{
    static struct fixture f;
    world_init(&f.world, 1);
    history_init(&f.history);
    f.topic = history_add_topic(&f.history, "t", 1);
    f.reader = (struct history_session){.topic = f.topic, .next = -1};
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    history_fini(&f->history);
    world_fini(&f->world);
    return 0;
}

/* ---- Steps; each takes a moment ---- */

static void pass(struct fixture *f)
{
    world_run(&f->world, f->world.now_us + 1000);
}

static uint64_t sent(struct fixture *f, uint32_t producer)
{
    pass(f);
    uint64_t number = history_new(&f->history, f->topic, producer);
    history_sending(&f->history, number);
    return number;
}

static void told(struct fixture *f, uint64_t number, enum ferry_outcome outcome, int64_t offset)
{
    pass(f);
    history_outcome(&f->history, number, outcome, 0, offset, false);
}

static void read_at(struct fixture *f, uint64_t number, int64_t offset)
{
    uint8_t payload[HISTORY_PAYLOAD_MAX];
    pass(f);
    size_t bytes = history_payload(number, payload);
    history_saw(&f->history, &f->reader, offset, payload, bytes);
}

static void reader_begins_anew(struct fixture *f)
{
    f->reader.next = -1;
}

static void end_at(struct fixture *f, int64_t end)
{
    history_read_out(&f->history, f->topic, 0, 0, end);
    history_check_end(&f->history);
}

static void assert_flagged(const struct fixture *f, const char *invariant)
{
    assert_true(f->world.ended);
    assert_int_equal(f->world.end, SIM_INVARIANT);
    if (strncmp(f->world.verdict, invariant, strlen(invariant)) != 0) {
        fail_msg("%s expected: %s", invariant, f->world.verdict);
    }
}

/* ---- Tests ---- */

static void a_good_history_is_not_flagged(void **state)
{
    struct fixture *f = *state;
    for (int64_t i = 0; i < 5; i++) {
        uint64_t number = sent(f, 1);
        told(f, number, FERRY_STORED, i);
        read_at(f, number, i);
    }
    end_at(f, 5);
    assert_false(f->world.ended);
}

static void an_unknown_send_may_be_there_or_not(void **state)
{
    struct fixture *f = *state;
    uint64_t there = sent(f, 1);
    uint64_t gone = sent(f, 1);
    told(f, there, FERRY_UNKNOWN, -1);
    told(f, gone, FERRY_UNKNOWN, -1);
    read_at(f, there, 0);
    end_at(f, 1);
    assert_false(f->world.ended);
}

static void an_acked_message_that_is_lost_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t first = sent(f, 1);
    uint64_t second = sent(f, 1);
    told(f, first, FERRY_STORED, 0);
    told(f, second, FERRY_STORED, 1);
    read_at(f, first, 0);
    end_at(f, 1);
    assert_flagged(f, "INV-L01");
}

static void a_read_message_that_vanishes_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t number = sent(f, 1);
    read_at(f, number, 0);
    end_at(f, 0);
    assert_flagged(f, "INV-L01");
}

static void two_messages_at_one_offset_are_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t one = sent(f, 1);
    uint64_t other = sent(f, 1);
    told(f, one, FERRY_STORED, 0);
    read_at(f, other, 0);
    assert_flagged(f, "INV-L02");
}

static void a_message_at_two_offsets_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t number = sent(f, 1);
    read_at(f, number, 0);
    read_at(f, number, 1);
    assert_flagged(f, "INV-I01");
}

static void a_gap_in_a_session_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t number = sent(f, 1);
    read_at(f, sent(f, 1), 0);
    read_at(f, number, 2);
    assert_flagged(f, "INV-L04");
}

static void a_repeat_in_a_session_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t number = sent(f, 1);
    read_at(f, number, 0);
    read_at(f, number, 0);
    assert_flagged(f, "INV-L04");
}

static void a_message_that_nobody_sent_is_flagged(void **state)
{
    struct fixture *f = *state;
    read_at(f, 7, 0);
    assert_flagged(f, "INV-L05");
}

static void a_changed_payload_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint8_t payload[HISTORY_PAYLOAD_MAX];
    size_t bytes = history_payload(sent(f, 1), payload);
    payload[bytes - 1] ^= 1;
    history_saw(&f->history, &f->reader, 0, payload, bytes);
    assert_flagged(f, "INV-L05");
}

static void a_message_in_another_topic_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint32_t other = history_add_topic(&f->history, "u", 1);
    uint64_t number = sent(f, 1);
    f->reader.topic = other;
    read_at(f, number, 0);
    assert_flagged(f, "INV-L05");
}

static void a_message_told_to_be_not_stored_and_read_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t number = sent(f, 1);
    told(f, number, FERRY_NOT_STORED, -1);
    read_at(f, number, 0);
    assert_flagged(f, "INV-L06");
}

static void a_message_read_and_then_told_to_be_not_stored_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t number = sent(f, 1);
    read_at(f, number, 0);
    told(f, number, FERRY_NOT_STORED, -1);
    assert_flagged(f, "INV-L06");
}

static void a_producers_messages_out_of_order_are_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t first = sent(f, 1);
    uint64_t second = sent(f, 1);
    read_at(f, second, 0);
    read_at(f, first, 1);
    end_at(f, 2);
    assert_flagged(f, "INV-L03");
}

static void a_message_acked_before_one_in_front_of_it_was_sent_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t early = sent(f, 1);
    told(f, early, FERRY_STORED, 1);
    uint64_t late = sent(f, 2);
    reader_begins_anew(f);
    read_at(f, late, 0);
    end_at(f, 2);
    assert_flagged(f, "INV-L09");
}

static void an_offset_without_a_message_is_flagged(void **state)
{
    struct fixture *f = *state;
    read_at(f, sent(f, 1), 0);
    reader_begins_anew(f);
    read_at(f, sent(f, 1), 2);
    end_at(f, 3);
    assert_flagged(f, "INV-L03");
}

/* After an unknown end the client goes on with its next epoch, which refuses a late copy. */
static void an_unknown_send_that_comes_late_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t first = sent(f, 1);
    told(f, first, FERRY_UNKNOWN, -1);
    read_at(f, sent(f, 1), 0);
    read_at(f, first, 1);
    end_at(f, 2);
    assert_flagged(f, "INV-L03");
}

static uint64_t delayed(struct fixture *f, int64_t due_ms)
{
    uint64_t number = sent(f, 1);
    history_delaying(&f->history, number);
    told(f, number, FERRY_STORED, -1);
    history_scheduled(&f->history, number, due_ms);
    return number;
}

static void a_delayed_message_that_comes_behind_others_is_not_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t late = delayed(f, 500);
    read_at(f, sent(f, 1), 0);
    read_at(f, late, 1);
    history_appeared(&f->history, late, 500);
    end_at(f, 2);
    assert_false(f->world.ended);
}

static void a_delayed_message_that_comes_early_is_flagged(void **state)
{
    struct fixture *f = *state;
    history_appeared(&f->history, delayed(f, 500), 499);
    assert_flagged(f, "INV-L05");
}

static void a_delayed_message_that_never_comes_is_flagged(void **state)
{
    struct fixture *f = *state;
    (void)delayed(f, 500);
    end_at(f, 0);
    assert_flagged(f, "INV-L01");
}

static void a_delayed_message_that_comes_twice_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t number = delayed(f, 500);
    read_at(f, number, 0);
    read_at(f, number, 1);
    assert_flagged(f, "INV-I01");
}

static void a_cancelled_message_that_comes_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t number = delayed(f, 500);
    history_cancelling(&f->history, number);
    history_cancelled(&f->history, number);
    read_at(f, number, 0);
    assert_flagged(f, "INV-L06");
}

static void a_message_cancelled_after_it_came_is_flagged(void **state)
{
    struct fixture *f = *state;
    uint64_t number = delayed(f, 500);
    read_at(f, number, 0);
    history_cancelling(&f->history, number);
    history_cancelled(&f->history, number);
    assert_flagged(f, "INV-L06");
}

static void the_first_violation_is_kept(void **state)
{
    struct fixture *f = *state;
    uint64_t number = sent(f, 1);
    read_at(f, number, 0);
    read_at(f, number, 1);
    read_at(f, 99, 5);
    assert_flagged(f, "INV-I01");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_good_history_is_not_flagged),
        T(an_unknown_send_may_be_there_or_not),
        T(an_acked_message_that_is_lost_is_flagged),
        T(a_read_message_that_vanishes_is_flagged),
        T(two_messages_at_one_offset_are_flagged),
        T(a_message_at_two_offsets_is_flagged),
        T(a_gap_in_a_session_is_flagged),
        T(a_repeat_in_a_session_is_flagged),
        T(a_message_that_nobody_sent_is_flagged),
        T(a_changed_payload_is_flagged),
        T(a_message_in_another_topic_is_flagged),
        T(a_message_told_to_be_not_stored_and_read_is_flagged),
        T(a_message_read_and_then_told_to_be_not_stored_is_flagged),
        T(a_producers_messages_out_of_order_are_flagged),
        T(a_message_acked_before_one_in_front_of_it_was_sent_is_flagged),
        T(an_offset_without_a_message_is_flagged),
        T(an_unknown_send_that_comes_late_is_flagged),
        T(a_delayed_message_that_comes_behind_others_is_not_flagged),
        T(a_delayed_message_that_comes_early_is_flagged),
        T(a_delayed_message_that_never_comes_is_flagged),
        T(a_delayed_message_that_comes_twice_is_flagged),
        T(a_cancelled_message_that_comes_is_flagged),
        T(a_message_cancelled_after_it_came_is_flagged),
        T(the_first_violation_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
