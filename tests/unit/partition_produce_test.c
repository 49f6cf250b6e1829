/* Produce: dense offsets, idempotence by sequence (INV-L03, INV-I01 to INV-I05), crashes. */
#include "lib/partition_fixture.h"

#include <stdio.h>

#define ALL_MAX 4096

static struct part_record records[ALL_MAX];

static void expect_end(struct part_fixture *f, int64_t end)
{
    assert_int_equal(partition_end_offset(f->p), end);
    assert_int_equal(part_read_all(f, 1 << 20, records, ALL_MAX),
                     end - partition_start_offset(f->p));
}

static void offsets_are_dense_over_batches_and_control_entries(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    int64_t next = 0;
    for (uint32_t i = 0; i < 20; i++) {
        struct partition_ticket *t =
            part_produce(f, &(struct batch_of){.count = 1 + i % 3, .content = (uint64_t)next});
        assert_int_equal(t->base_offset, next);
        next += 1 + i % 3;
        struct partition_ticket *s = part_ticket(f);
        char name[8];
        (void)snprintf(name, sizeof(name), "s%u", i);
        assert_int_equal(partition_subscription_create(f->p, bytes_of_string(name),
                                                       SUBSCRIPTION_STREAM, 0, f->now_ms, f->now_us,
                                                       s),
                         FERRY_OK);
    }
    part_turn(f);
    expect_end(f, next);
    for (int64_t i = 0; i < next; i++) {
        assert_int_equal(records[i].content, i);
    }
}

static void a_batch_is_not_answered_before_the_commit(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct partition_ticket *t = part_send(f, &(struct batch_of){.content = 1});
    assert_null(partition_next_done(f->p));
    part_begin_write(f);
    assert_null(partition_next_done(f->p));
    assert_int_equal(partition_end_offset(f->p), 0);
    assert_int_equal(store_commit(f->store), FERRY_OK);
    assert_null(partition_next_done(f->p));
    assert_int_equal(replica_stored(partition_replica(f->p), f->now_us), FERRY_OK);
    assert_ptr_equal(partition_next_done(f->p), t);
    assert_int_equal(partition_end_offset(f->p), 1);
}

static struct batch_of of_producer(uint64_t sequence, uint32_t count)
{
    return (struct batch_of){
        .producer = 9, .first_sequence = sequence, .count = count, .content = sequence};
}

static void a_repeat_gets_the_first_offset(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of first = of_producer(0, 3), second = of_producer(3, 2);
    assert_int_equal(part_produce(f, &first)->base_offset, 0);
    assert_int_equal(part_produce(f, &second)->base_offset, 3);
    struct partition_ticket *t = part_produce(f, &first);
    assert_true(t->duplicate && t->base_offset == 0 && t->base.index == 0);
    t = part_produce(f, &second);
    assert_true(t->duplicate && t->base_offset == 3);
    expect_end(f, 5);
}

static void a_repeat_of_what_is_on_its_way_waits_for_it(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of a = of_producer(0, 3), b = of_producer(3, 1);
    struct partition_ticket *first = part_send(f, &a);
    struct partition_ticket *second = part_send(f, &b);
    struct partition_ticket *repeat = part_send(f, &a);
    assert_int_equal(repeat->base.index, first->base.index);
    assert_false(part_is_done(f, repeat));
    part_turn(f);
    assert_true(part_is_done(f, repeat) && part_is_done(f, second));
    assert_true(repeat->duplicate && repeat->base_offset == 0);
    expect_end(f, 4);
}

static void gaps_old_sequences_and_old_epochs_are_refused(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of b = of_producer(1, 1);
    part_refuses(f, &b, FERRY_ERR_SEQUENCE_GAP); /* Nobody knows 0. */
    for (uint64_t i = 0; i < PRODUCER_BATCHES + 1; i++) {
        b = of_producer(i, 1);
        (void)part_produce(f, &b);
    }
    b = of_producer(0, 1);
    part_refuses(f, &b, FERRY_ERR_SEQUENCE_STALE);
    b = of_producer(1, 1);
    assert_int_equal(part_produce(f, &b)->base_offset, 1);
    b = of_producer(PRODUCER_BATCHES + 2, 1);
    part_refuses(f, &b, FERRY_ERR_SEQUENCE_GAP);
    b = of_producer(5, 2); /* Not the batch that was sent. */
    part_refuses(f, &b, FERRY_ERR_SEQUENCE_STALE);
    b = of_producer(1, 1);
    b.epoch = 1;
    part_refuses(f, &b, FERRY_ERR_SEQUENCE_GAP); /* A new epoch begins at 0. */
    b.first_sequence = 0;
    assert_int_equal(part_produce(f, &b)->base_offset, PRODUCER_BATCHES + 1);
    b = of_producer(PRODUCER_BATCHES + 1, 1);
    part_refuses(f, &b, FERRY_ERR_PRODUCER_FENCED);
    part_crash(f);
    part_open(f);
    part_refuses(f, &b, FERRY_ERR_PRODUCER_FENCED);
}

/* Even the new epoch's first batch on its way fences the old one. */
static void an_epoch_on_its_way_fences_the_one_before(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of old = of_producer(0, 1), next = of_producer(1, 1), taken = of_producer(0, 1);
    (void)part_send(f, &old);
    taken.epoch = 4;
    (void)part_send(f, &taken);
    part_refuses(f, &next, FERRY_ERR_PRODUCER_FENCED);
    part_refuses(f, &old, FERRY_ERR_PRODUCER_FENCED);
    part_turn(f);
    assert_true(part_produce(f, &taken)->duplicate);
    expect_end(f, 2);
}

static void many_batches_of_one_producer_in_one_turn(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of b;
    struct partition_ticket *tickets[3 * PRODUCER_BATCHES];
    for (uint64_t i = 0; i < 3 * PRODUCER_BATCHES; i++) {
        b = of_producer(i, 1);
        tickets[i] = part_send(f, &b);
    }
    b = of_producer(3 * PRODUCER_BATCHES - 2, 1);
    struct partition_ticket *repeat = part_send(f, &b);
    part_turn(f);
    for (uint64_t i = 0; i < 3 * PRODUCER_BATCHES; i++) {
        assert_int_equal(tickets[i]->base_offset, i);
    }
    assert_int_equal(repeat->base_offset, 3 * PRODUCER_BATCHES - 2);
    part_crash(f);
    part_open(f);
    assert_true(part_produce(f, &b)->duplicate);
    expect_end(f, 3 * PRODUCER_BATCHES);
}

/* The rows are written in a transaction that also holds 20 batches not yet applied. */
static void a_flush_amid_many_batches_keeps_the_producer(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of b = of_producer(0, 1);
    (void)part_produce(f, &b);
    f->now_us += REPLICA_FLUSH_MS * 1000;
    for (uint64_t i = 1; i < 21; i++) {
        b = of_producer(i, 1);
        (void)part_send(f, &b);
    }
    part_crash_at(f, CRASH_BEFORE_STORED);
    part_open(f);
    for (uint64_t i = 21 - PRODUCER_BATCHES; i < 21; i++) {
        b = of_producer(i, 1);
        struct partition_ticket *t = part_produce(f, &b);
        assert_true(t->duplicate && t->base_offset == (int64_t)i);
    }
    b = of_producer(21, 1);
    assert_int_equal(part_produce(f, &b)->base_offset, 21);
}

/* INV-I02 through a crash at each point of the turn, with the rows flushed before and not. */
static void a_batch_sent_again_after_any_crash_is_stored_once(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    uint64_t sequence = 0;
    for (int round = 0; round < 4 * CRASH_POINTS; round++) {
        struct batch_of b = of_producer(sequence, 2);
        int64_t end = partition_end_offset(f->p);
        if (round % 4 >= 2) {
            part_flush(f);
        }
        if (round % 2 == 1) {
            f->now_us += REPLICA_FLUSH_MS * 1000; /* The crash hits a flush as well. */
        }
        (void)part_send(f, &b);
        enum crash_point point = (enum crash_point)(round / 4);
        part_crash_at(f, point);
        part_open(f);
        bool survived = point == CRASH_BEFORE_STORED;
        assert_int_equal(partition_end_offset(f->p), survived ? end + 2 : end);
        struct partition_ticket *t = part_produce(f, &b);
        assert_int_equal(t->base_offset, end);
        assert_int_equal(t->duplicate, survived);
        sequence += 2;
        expect_end(f, (int64_t)sequence);
    }
}

static void a_batch_with_damage_is_refused(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct bytes batch = part_batch(f, &(struct batch_of){.count = 2});
    uint8_t *bad = part_keep(f, batch.data, batch.size);
    struct partition_ticket *t = part_ticket(f);
    bad[batch.size - 1] ^= 1;
    assert_int_equal(
        partition_produce(f->p, bytes_of(bad, batch.size), f->now_ms, f->now_us, t, &f->detail),
        FERRY_ERR_BAD_CHECKSUM);
    assert_int_equal(partition_produce(f->p, bytes_of(batch.data, batch.size - 1), f->now_ms,
                                       f->now_us, t, &f->detail),
                     FERRY_ERR_BAD_BATCH);
    assert_int_equal(
        partition_produce(f->p, bytes_of(NULL, 0), f->now_ms, f->now_us, t, &f->detail),
        FERRY_ERR_BAD_BATCH);
    part_refuses(f, &(struct batch_of){.payload_bytes = (1 << 20) + (64 << 10)},
                 FERRY_ERR_TOO_LARGE);
    part_turn(f);
    expect_end(f, 0);
}

static void the_log_s_time_does_not_step_back_with_the_clock(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    (void)part_produce(f, &(struct batch_of){.content = 1});
    f->now_ms -= HOUR_MS;
    (void)part_send(f, &(struct batch_of){.content = 2});
    f->now_ms -= HOUR_MS;
    (void)part_produce(f, &(struct batch_of){.content = 3});
    part_crash(f);
    part_open(f);
    (void)part_produce(f, &(struct batch_of){.content = 4});
    part_flush(f);
    part_crash(f);
    part_open(f);
    (void)part_produce(f, &(struct batch_of){.content = 5});
    expect_end(f, 5); /* part_read_all checks that times rise. */
    assert_int_equal(records[4].append_time_ms, PART_START_MS);
}

/* ---- A full table ---- */

static void fill_producers(struct part_fixture *f)
{
    for (uint64_t id = 1; id <= PARTITION_PRODUCERS_MAX; id++) {
        (void)part_send(f, &(struct batch_of){.producer = id});
        if (id == 5) {
            part_turn(f);
            f->now_ms++; /* 1 to 5 are the oldest. */
        }
    }
    part_turn(f);
}

static void a_full_producer_table_lets_the_longest_silent_go(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    fill_producers(f);
    struct batch_of one_more = {.producer = PARTITION_PRODUCERS_MAX + 1};
    part_refuses(f, &one_more, FERRY_ERR_LIMIT_REACHED);
    part_turn(f);
    part_refuses(f, &one_more, FERRY_ERR_LIMIT_REACHED);
    f->now_ms += PRODUCER_IDLE_MS + 1; /* Now 1 to 5 were silent for long enough. */
    f->now_ms -= 1;
    part_refuses(f, &one_more, FERRY_ERR_LIMIT_REACHED); /* Makes room, for the next try. */
    part_turn(f);
    assert_int_equal(part_produce(f, &one_more)->base_offset, PARTITION_PRODUCERS_MAX);
    /* 1 went; what it sends is new to the partition. */
    part_refuses(f, &(struct batch_of){.producer = 1, .first_sequence = 1}, FERRY_ERR_SEQUENCE_GAP);
    assert_true(part_produce(f, &(struct batch_of){.producer = 2})->duplicate);
    part_crash(f);
    part_open(f);
    assert_true(part_produce(f, &one_more)->duplicate);
    assert_true(part_produce(f, &(struct batch_of){.producer = 2})->duplicate);
    part_refuses(f, &(struct batch_of){.producer = 1, .first_sequence = 1}, FERRY_ERR_SEQUENCE_GAP);
    part_flush(f);
    part_crash(f);
    part_open(f);
    part_refuses(f, &(struct batch_of){.producer = 1, .first_sequence = 1}, FERRY_ERR_SEQUENCE_GAP);
}

/* The producer that is let go sends its next batch in that very turn. */
static void a_producer_let_go_while_it_sends_is_kept_whole(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    fill_producers(f);
    f->now_ms += PRODUCER_IDLE_MS;
    part_refuses(f, &(struct batch_of){.producer = PARTITION_PRODUCERS_MAX + 1},
                 FERRY_ERR_LIMIT_REACHED);
    struct batch_of next = {.producer = 1, .first_sequence = 1, .content = 77};
    struct partition_ticket *t = part_send(f, &next);
    part_turn(f);
    assert_int_equal(t->base_offset, PARTITION_PRODUCERS_MAX);
    for (int i = 0; i < 2; i++) {
        struct partition_ticket *repeat = part_produce(f, &next);
        assert_true(repeat->duplicate && repeat->base_offset == PARTITION_PRODUCERS_MAX);
        part_flush(f);
        part_crash(f);
        part_open(f);
    }
    next.first_sequence = 2;
    assert_int_equal(part_produce(f, &next)->base_offset, PARTITION_PRODUCERS_MAX + 1);
}

/* ---- Requests while it does not lead ---- */

static void before_it_leads_nothing_is_answered(void **state)
{
    struct part_fixture *f = *state;
    assert_int_equal(part_try_open(f), FERRY_OK);
    part_refuses(f, &(struct batch_of){.count = 1}, FERRY_ERR_NOT_READY);
    assert_int_equal(part_read_error(f, 0), FERRY_ERR_NOT_READY);
    part_turn(f);
    (void)part_produce(f, &(struct batch_of){.count = 1});
}

static void when_the_store_fails_who_waits_is_told_and_nobody_is_taken(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct batch_of b = of_producer(0, 1);
    struct partition_ticket *t = part_send(f, &b);
    replica_fail(partition_replica(f->p), FERRY_ERR_STORE_FAILED);
    assert_ptr_equal(partition_next_done(f->p), t);
    assert_int_equal(t->base.err, FERRY_ERR_NOT_LEADER);
    part_refuses(f, &b, FERRY_ERR_STORE_FAILED);
    assert_false(replica_wants_write(partition_replica(f->p), f->now_us));
    assert_int_equal(replica_deadline_us(partition_replica(f->p)), RAFT_NEVER);
    part_crash(f);
    part_open(f);
    expect_end(f, 0);
    assert_false(part_produce(f, &b)->duplicate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(offsets_are_dense_over_batches_and_control_entries),
        part_test(a_batch_is_not_answered_before_the_commit),
        part_test(a_repeat_gets_the_first_offset),
        part_test(a_repeat_of_what_is_on_its_way_waits_for_it),
        part_test(gaps_old_sequences_and_old_epochs_are_refused),
        part_test(an_epoch_on_its_way_fences_the_one_before),
        part_test(many_batches_of_one_producer_in_one_turn),
        part_test(a_flush_amid_many_batches_keeps_the_producer),
        part_test(a_batch_sent_again_after_any_crash_is_stored_once),
        part_test(a_batch_with_damage_is_refused),
        part_test(the_log_s_time_does_not_step_back_with_the_clock),
        part_test(a_full_producer_table_lets_the_longest_silent_go),
        part_test(a_producer_let_go_while_it_sends_is_kept_whole),
        part_test(before_it_leads_nothing_is_answered),
        part_test(when_the_store_fails_who_waits_is_told_and_nobody_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
