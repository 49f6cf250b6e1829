/* Priorities within mode queue, with ageing; what comes back goes first. And retention of what
 * every subscription is done with. */
#include "lib/hand_fixture.h"

#define Q "q"

static void open_queue(struct part_fixture *f, uint32_t age_ms)
{
    struct subscription_create_request q = {.from = FERRY_FROM_START,
                                            .lease_ms = 600000,
                                            .backoff_min_ms = 1000,
                                            .backoff_max_ms = 1000,
                                            .priority_age_ms = age_ms};
    part_open(f);
    hand_make(f, Q, SUBSCRIPTION_QUEUE, &q);
}

static void produce(struct part_fixture *f, uint32_t count, const uint32_t *priorities)
{
    hand_produce(f, &(struct keyed_of){.count = count, .priorities = priorities});
}

static void expect_one(struct part_fixture *f, int64_t offset)
{
    struct hand *h = hand_take(f, Q, "m", 1);
    assert_int_equal(h->messages[0].offset, offset);
}

/* The highest first, then by offset; within a batch and over batches. */
static void the_highest_goes_first(void **state)
{
    struct part_fixture *f = *state;
    static const uint32_t first[] = {0, 3, 0, 7};
    static const uint32_t second[] = {3, 0, 7};
    static const int64_t order[] = {3, 6, 1, 4, 0, 2, 5};
    open_queue(f, 10000);
    produce(f, 4, first);
    produce(f, 3, second);
    for (size_t i = 0; i < 7; i++) {
        expect_one(f, order[i]);
    }
    hand_nothing(f, Q, "m");
}

/* Each priority_age_ms of waiting is worth a level, so nothing starves. */
static void waiting_raises_a_message(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f, 1000);
    produce(f, 1, (const uint32_t[]){0});
    for (int i = 1; i <= 30; i++) {
        part_pass_ms(f, 100);
        produce(f, 1, (const uint32_t[]){2});
    }
    /* Those that came within its first two seconds are ahead of it still. */
    for (int i = 1; i < 20; i++) {
        expect_one(f, i);
    }
    expect_one(f, 0);
    expect_one(f, 20);
}

/* A stream of urgent messages that never ends lets the others through. */
static void nothing_starves(void **state)
{
    struct part_fixture *f = *state;
    static const uint32_t low[] = {0, 0, 0, 0, 0};
    open_queue(f, 1000);
    produce(f, 5, low);
    uint32_t seen = 0;
    for (int i = 0; i < 200 && seen < 5; i++) {
        part_pass_ms(f, 100);
        produce(f, 2, (const uint32_t[]){7, 7});
        struct hand *h = hand_take(f, Q, "m", 1);
        seen += h->messages[0].offset < 5;
    }
    assert_int_equal(seen, 5);
}

static void no_ageing_is_first_come_first_served(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f, 0);
    produce(f, 1, (const uint32_t[]){0});
    part_pass_ms(f, 1);
    produce(f, 1, (const uint32_t[]){7});
    expect_one(f, 0);
    expect_one(f, 1);
}

/* What failed goes before what was never out, whatever its priority; a hand-out may mix both. */
static void what_came_back_goes_first(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f, 10000);
    produce(f, 4, (const uint32_t[]){0, 0, 7, 7});
    struct hand *h = hand_take(f, Q, "m", 1);
    assert_int_equal(h->messages[0].offset, 2);
    expect_one(f, 3);
    struct hand *low = hand_take(f, Q, "m", 1);
    assert_int_equal(low->messages[0].offset, 0);
    assert_int_equal(hand_settle(f, Q, low, SETTLE_NACK, 0, 1, 0), FERRY_OK);
    assert_int_equal(hand_settle(f, Q, h, SETTLE_NACK, 2, 1, 500), FERRY_OK);
    produce(f, 1, (const uint32_t[]){7});
    part_pass_ms(f, 500);
    expect_one(f, 0);
    expect_one(f, 2);
    expect_one(f, 4);
    expect_one(f, 1);
}

/* An order that is not that of offsets, in one answer; after a crash the same. */
static void priorities_survive_a_crash(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f, 10000);
    produce(f, 6, (const uint32_t[]){1, 5, 0, 5, 2, 7});
    expect_one(f, 5);
    part_crash(f);
    part_open(f);
    struct hand *h = hand_take(f, Q, "m", 3);
    assert_int_equal(h->messages[0].offset, 1);
    assert_int_equal(h->messages[1].offset, 3);
    assert_int_equal(h->messages[2].offset, 4);
    hand_conserves(f, Q, 0);
}

/* ---- retention = acked ---- */

static void open_acked(struct part_fixture *f)
{
    f->config.settings.retention_acked = true;
    part_open(f);
}

static void ack(struct part_fixture *f, const char *name, uint32_t count)
{
    hand_settle_all(f, name, hand_take(f, name, "m", count), SETTLE_ACK);
}

/* What all are done with goes, and nothing else; leased and waiting messages hold it. */
static void acked_messages_are_dropped(void **state)
{
    struct part_fixture *f = *state;
    open_acked(f);
    for (int i = 0; i < 4; i++) {
        (void)part_produce(f, &(struct batch_of){.count = 5});
    }
    part_pass_seconds(f, 5);
    assert_int_equal(partition_start_offset(f->p), 0); /* Nobody is there to be done with it. */
    hand_make(f, "a", SUBSCRIPTION_QUEUE, NULL);
    hand_make(f, "b", SUBSCRIPTION_STREAM, NULL);
    ack(f, "a", 12);
    part_pass_seconds(f, 5);
    assert_int_equal(partition_start_offset(f->p), 0);
    assert_int_equal(partition_subscription_commit(f->p, bytes_of_string("b"), 7, f->now_ms,
                                                   f->now_us, part_ticket(f)),
                     FERRY_OK);
    part_pass_seconds(f, 5);
    assert_int_equal(partition_start_offset(f->p), 5);
    assert_int_equal(partition_subscription_commit(f->p, bytes_of_string("b"), 20, f->now_ms,
                                                   f->now_us, part_ticket(f)),
                     FERRY_OK);
    part_pass_seconds(f, 5);
    assert_int_equal(partition_start_offset(f->p), 10);
    struct hand *h = hand_take(f, "a", "m", 3);
    ack(f, "a", 5);
    part_pass_seconds(f, 5);
    assert_int_equal(partition_start_offset(f->p), 10);
    hand_settle_all(f, "a", h, SETTLE_REJECT); /* Dead letters hold nothing. */
    part_pass_seconds(f, 5);
    assert_int_equal(partition_start_offset(f->p), 20);
    assert_int_equal(hand_get(f, "a").dead, 3);
    assert_int_equal(hand_get(f, "a").expired, 0);
    hand_conserves(f, "a", 0);
}

/* The log of a work queue does not grow, nor write for ever. */
static void a_work_queue_stays_small(void **state)
{
    struct part_fixture *f = *state;
    open_acked(f);
    hand_make(f, Q, SUBSCRIPTION_QUEUE, NULL);
    for (int i = 0; i < 50; i++) {
        (void)part_produce(f, &(struct batch_of){.count = 5});
        ack(f, Q, 5);
        part_pass_ms(f, 300);
    }
    part_pass_seconds(f, 5);
    part_flush(f);
    part_pass_seconds(f, 5);
    assert_int_equal(partition_start_offset(f->p), 250);
    assert_true(part_count_entries_on_disk(f) < 20);
    uint64_t last = replica_last_index(partition_replica(f->p));
    part_pass_seconds(f, 20);
    assert_int_equal(replica_last_index(partition_replica(f->p)), last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(the_highest_goes_first),
        part_test(waiting_raises_a_message),
        part_test(nothing_starves),
        part_test(no_ageing_is_first_come_first_served),
        part_test(what_came_back_goes_first),
        part_test(priorities_survive_a_crash),
        part_test(acked_messages_are_dropped),
        part_test(a_work_queue_stays_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
