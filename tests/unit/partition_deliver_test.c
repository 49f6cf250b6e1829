/* Mode queue: handing out, settling, leases, counters; also after a crash (INV-Q01 to INV-Q05). */
#include "lib/hand_fixture.h"

#include "base/mem.h"

#define Q "q"

static const struct subscription_create_request quick = {.from = FERRY_FROM_START,
                                                         .lease_ms = 5000,
                                                         .max_deliveries = 3,
                                                         .backoff_min_ms = 1000,
                                                         .backoff_max_ms = 8000,
                                                         .inflight_max = 100,
                                                         .priority_age_ms = UINT32_MAX};

static void open_queue(struct part_fixture *f, uint32_t records)
{
    part_open(f);
    hand_make(f, Q, SUBSCRIPTION_QUEUE, &quick);
    if (records > 0) {
        (void)part_produce(f, &(struct batch_of){.count = records, .content = 100});
    }
}

static enum ferry_err settle(struct part_fixture *f, const struct hand *h, uint32_t kind,
                             int64_t first, uint32_t count)
{
    return hand_settle(f, Q, h, kind, first, count, -1);
}

static struct part_fixture *of(void **state)
{
    return *state;
}

/* ---- Handing out ---- */

/* Each message goes to one member, in order; nothing is left over. */
static void each_message_is_handed_out_once(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 10);
    struct hand *a = hand_take(f, Q, "a", 4);
    struct hand *b = hand_take(f, Q, "b", 6);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(a->messages[i].offset, i);
        assert_int_equal(a->messages[i].content, 100 + i);
        assert_int_equal(a->messages[i].handed, 1);
    }
    assert_int_equal(b->messages[0].offset, 4);
    assert_int_equal(b->messages[5].content, 109);
    assert_int_equal(a->lease_ms, 5000);
    assert_true(a->lease < b->lease);
    hand_nothing(f, Q, "a");
    hand_conserves(f, Q, 0);
}

/* Several hand-outs may be under way in one turn; they do not overlap. */
static void hand_outs_of_one_turn_do_not_overlap(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 10);
    struct partition_ticket *t[3];
    enum receive_answer answer;
    struct receive r = {.subscription = bytes_of_string(Q),
                        .member = bytes_of_string("m"),
                        .max_messages = 4,
                        .max_bytes = 1 << 20};
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    for (int i = 0; i < 3; i++) {
        t[i] = part_ticket(f);
        assert_int_equal(partition_receive(f->p, &r, f->now_ms, f->now_us, t[i], &answer),
                         FERRY_OK);
        assert_int_equal(answer, RECEIVE_PROPOSED);
    }
    store_read_end(f->store);
    part_turn(f);
    assert_int_equal(t[0]->count, 4);
    assert_int_equal(t[1]->count, 4);
    assert_int_equal(t[2]->count, 2);
    assert_int_equal(hand_get(f, Q).leased, 10);
    assert_int_equal(hand_get(f, Q).handed_out, 10);
}

/* A whole batch comes byte for byte, a part as a batch of its own. */
static void parts_of_batches_are_handed_out(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 5);
    (void)part_produce(f, &(struct batch_of){.count = 5, .content = 200});
    (void)hand_take(f, Q, "a", 3);
    struct hand *h = hand_take(f, Q, "b", 4);
    assert_int_equal(h->messages[0].content, 103);
    assert_int_equal(h->messages[1].content, 104);
    assert_int_equal(h->messages[2].content, 200);
    assert_int_equal(h->messages[3].offset, 6);
}

/* Records dropped as repeats are no messages. */
static void skipped_records_are_not_handed_out(void **state)
{
    struct part_fixture *f = of(state);
    f->config.settings.dedupe_window_ms = HOUR_MS;
    open_queue(f, 0);
    struct ferry_id ids[4] = {part_id(1), part_id(2), part_id(1), part_id(3)};
    (void)part_produce(f, &(struct batch_of){.count = 4, .ids = ids, .content = 100});
    struct hand *a = hand_take(f, Q, "a", 2);
    struct hand *b = hand_take(f, Q, "a", 1);
    assert_int_equal(a->messages[1].content, 101);
    assert_int_equal(b->messages[0].content, 103);
}

/* One message comes even if it is larger; else the answer stays within max_bytes. */
static void bytes_are_limited(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 0);
    for (int i = 0; i < 4; i++) {
        (void)part_produce(f, &(struct batch_of){.count = 5, .payload_bytes = 1000});
    }
    struct receive r = {.subscription = bytes_of_string(Q),
                        .member = bytes_of_string("m"),
                        .max_messages = 100,
                        .max_bytes = 10};
    assert_int_equal(hand_receive_with(f, &r)->count, 1);
    r.max_bytes = 7500;
    assert_int_equal(hand_receive_with(f, &r)->count, 7);
    assert_int_equal(hand_receive(f, Q, "m", 100)->count, 12);
}

static void bad_requests_are_refused(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 1);
    hand_make(f, "stream", SUBSCRIPTION_STREAM, NULL);
    struct receive r = {.subscription = bytes_of_string("none"),
                        .member = bytes_of_string("m"),
                        .max_messages = 1,
                        .max_bytes = 10};
    assert_int_equal(hand_receive_error(f, &r), FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    r.subscription = bytes_of_string("stream");
    assert_int_equal(hand_receive_error(f, &r), FERRY_ERR_INVALID_ARGUMENT);
    r.subscription = bytes_of_string(Q);
    r.member = bytes_of_string("bad name");
    assert_int_equal(hand_receive_error(f, &r), FERRY_ERR_BAD_NAME);
    r.member = bytes_of_string("m");
    r.max_messages = 0;
    assert_int_equal(hand_receive_error(f, &r), FERRY_ERR_INVALID_ARGUMENT);
    r.max_messages = RECEIVE_MESSAGES_MAX + 1;
    assert_int_equal(hand_receive_error(f, &r), FERRY_ERR_INVALID_ARGUMENT);
    r.max_messages = 1;
    r.lease_ms = LEASE_MIN_MS - 1;
    assert_int_equal(hand_receive_error(f, &r), FERRY_ERR_INVALID_ARGUMENT);
    r.lease_ms = LEASE_MAX_MS;
    struct hand *h = hand_receive_with(f, &r);
    assert_int_equal(h->lease_ms, LEASE_MAX_MS);
    assert_int_equal(hand_settle(f, Q, h, 9, 0, 1, -1), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(hand_settle(f, Q, h, SETTLE_ACK, 0, 0, -1), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(hand_settle(f, Q, h, SETTLE_ACK, -1, 1, -1), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(hand_settle(f, Q, h, SETTLE_NACK, 0, 1, -2), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(hand_settle(f, Q, h, SETTLE_NACK, 0, 1, DELAY_MAX_MS + 1),
                     FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(hand_settle(f, Q, h, SETTLE_EXTEND, 0, 0, 1), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(hand_get(f, Q).leased, 1);
}

/* What a member may hold is limited; acks make room, and whoever waits is told. */
static void a_member_holds_no_more_than_it_may(void **state)
{
    struct part_fixture *f = of(state);
    struct bytes name = bytes_of_string(Q);
    open_queue(f, 150);
    struct hand *h = hand_receive(f, Q, "a", 1000);
    assert_int_equal(h->count, 100);
    assert_int_equal(hand_receive(f, Q, "a", 1)->answer, RECEIVE_MEMBER_FULL);
    (void)hand_take(f, Q, "b", 10);
    uint64_t wake = partition_wake_sequence(f->p, name);
    assert_int_equal(settle(f, h, SETTLE_ACK, 5, 3), FERRY_OK);
    assert_true(partition_wake_sequence(f->p, name) > wake);
    assert_int_equal(hand_receive(f, Q, "a", 1000)->count, 3);
}

static void paused_hands_out_nothing(void **state)
{
    struct part_fixture *f = of(state);
    struct bytes name = bytes_of_string(Q);
    struct subscription_alter_request q = {.name = name, .pause = 1, .priority_age_ms = UINT32_MAX};
    open_queue(f, 5);
    struct hand *h = hand_take(f, Q, "a", 2);
    assert_int_equal(partition_subscription_alter(f->p, &q, bytes_of(NULL, 0), f->now_ms, f->now_us,
                                                  part_ticket(f)),
                     FERRY_OK);
    part_turn(f);
    hand_nothing(f, Q, "a");
    assert_int_equal(settle(f, h, SETTLE_ACK, 0, 2), FERRY_OK);
    uint64_t wake = partition_wake_sequence(f->p, name);
    q.pause = 2;
    assert_int_equal(partition_subscription_alter(f->p, &q, bytes_of(NULL, 0), f->now_ms, f->now_us,
                                                  part_ticket(f)),
                     FERRY_OK);
    part_turn(f);
    assert_true(partition_wake_sequence(f->p, name) > wake);
    (void)hand_take(f, Q, "a", 3);
}

/* ---- Settling ---- */

/* Acked is done: not handed out again, now or after a crash (INV-Q03). */
static void acked_never_comes_again(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 10);
    struct hand *h = hand_take(f, Q, "a", 10);
    assert_int_equal(settle(f, h, SETTLE_ACK, 0, 4), FERRY_OK);
    assert_int_equal(settle(f, h, SETTLE_ACK, 7, 1), FERRY_OK);
    assert_int_equal(hand_get(f, Q).position, 4);
    assert_int_equal(hand_get(f, Q).acked, 5);
    part_crash(f);
    part_open(f);
    assert_int_equal(settle(f, h, SETTLE_ACK, 8, 2), FERRY_OK);
    part_pass_seconds(f, 20);
    struct hand *again = hand_receive(f, Q, "b", 10);
    assert_int_equal(again->count, 3);
    assert_int_equal(again->messages[0].offset, 4);
    assert_int_equal(again->messages[2].offset, 6);
    hand_conserves(f, Q, 0);
}

/* A repeated settlement is answered as the first time. */
static void settling_again_is_answered_as_before(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 4);
    struct hand *h = hand_take(f, Q, "a", 4);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(settle(f, h, SETTLE_ACK, 0, 2), FERRY_OK);
        assert_int_equal(settle(f, h, SETTLE_NACK, 2, 1), FERRY_OK);
        assert_int_equal(settle(f, h, SETTLE_RELEASE, 3, 1), FERRY_OK);
    }
    assert_int_equal(settle(f, h, SETTLE_NACK, 0, 1), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(hand_get(f, Q).acked, 2);
    assert_int_equal(hand_get(f, Q).failed, 1);
    assert_int_equal(hand_get(f, Q).released, 1);
}

/* Only who has the token may settle. */
static void a_wrong_token_settles_nothing(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 1);
    struct hand *h = hand_take(f, Q, "a", 1);
    struct hand forged = *h;
    forged.token.bytes[15] ^= 1;
    assert_int_equal(settle(f, &forged, SETTLE_ACK, 0, 1), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(settle(f, h, SETTLE_ACK, 1, 1), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(settle(f, h, SETTLE_ACK, 0, 1), FERRY_OK);
    assert_false(id_equal(&h->token, &hand_receive(f, Q, "a", 1)->token));
}

/* Items of one request have their own outcomes. */
static void items_are_answered_one_by_one(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 6);
    struct hand *h = hand_take(f, Q, "a", 6);
    struct settle_item items[4] = {hand_item(h, SETTLE_ACK, 0, 2, -1), hand_item(h, 77, 2, 1, -1),
                                   hand_item(h, SETTLE_ACK, 5, 2, -1),
                                   hand_item(h, SETTLE_NACK, 2, 2, -1)};
    struct partition_ticket *t = hand_propose(f, Q, items, 4);
    part_turn(f);
    assert_int_equal(hand_status(t, 0), FERRY_OK);
    assert_int_equal(hand_status(t, 1), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(hand_status(t, 2), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(hand_status(t, 3), FERRY_OK);
    assert_int_equal(hand_get(f, Q).acked, 2);
    assert_int_equal(hand_get(f, Q).failed, 2);
}

/* The back-off doubles with each failure, less up to a half; nothing comes before it is over. */
static void a_failed_message_waits_its_time(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 1);
    struct hand *h = hand_take(f, Q, "a", 1);
    assert_int_equal(settle(f, h, SETTLE_NACK, 0, 1), FERRY_OK);
    part_pass_ms(f, 499);
    hand_nothing(f, Q, "a");
    uint64_t wake = partition_wake_sequence(f->p, bytes_of_string(Q));
    part_pass_ms(f, 501);
    assert_true(partition_wake_sequence(f->p, bytes_of_string(Q)) > wake);
    h = hand_take(f, Q, "a", 1);
    assert_int_equal(h->messages[0].handed, 2);
    assert_int_equal(h->messages[0].failed, 1);
    assert_int_equal(settle(f, h, SETTLE_NACK, 0, 1), FERRY_OK);
    part_pass_ms(f, 999);
    hand_nothing(f, Q, "a");
    part_pass_ms(f, 1001);
    (void)hand_take(f, Q, "a", 1);
}

/* A delay of the request's own goes before the back-off. */
static void a_delay_of_its_own_counts(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 2);
    struct hand *h = hand_take(f, Q, "a", 2);
    assert_int_equal(hand_settle(f, Q, h, SETTLE_NACK, 0, 1, 60000), FERRY_OK);
    assert_int_equal(hand_settle(f, Q, h, SETTLE_NACK, 1, 1, 0), FERRY_OK);
    assert_int_equal(hand_take(f, Q, "a", 1)->messages[0].offset, 1);
    for (int i = 0; i < 59; i++) {
        part_pass_ms(f, 1000);
        hand_settle_all(f, Q, hand_receive(f, Q, "a", 10), SETTLE_ACK);
    }
    part_pass_ms(f, 999);
    hand_nothing(f, Q, "a");
    part_pass_ms(f, 1);
    assert_int_equal(hand_take(f, Q, "a", 1)->messages[0].offset, 0);
}

/* Released: not tried, so it does not count and comes at once. */
static void a_released_message_has_not_failed(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 1);
    for (uint32_t i = 1; i <= 10; i++) {
        struct hand *h = hand_take(f, Q, "a", 1);
        assert_int_equal(h->messages[0].handed, i);
        assert_int_equal(h->messages[0].failed, 0);
        assert_int_equal(settle(f, h, SETTLE_RELEASE, 0, 1), FERRY_OK);
    }
    struct subscription_get_reply r = hand_get(f, Q);
    assert_int_equal(r.handed_out, 10);
    assert_int_equal(r.released, 10);
    assert_int_equal(r.failed, 0);
}

/* ---- Leases ---- */

/* When its time is over what was handed out has failed and comes again; the old lease settles
 * nothing (INV-Q02). */
static void an_ended_lease_counts_as_a_failure(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 3);
    struct hand *old = hand_take(f, Q, "a", 3);
    part_pass_ms(f, 4999);
    assert_int_equal(settle(f, old, SETTLE_ACK, 0, 1), FERRY_OK);
    part_pass_ms(f, 1);
    assert_int_equal(hand_get(f, Q).leased, 0);
    assert_int_equal(hand_get(f, Q).failed, 2);
    assert_int_equal(settle(f, old, SETTLE_ACK, 1, 1), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(settle(f, old, SETTLE_ACK, 0, 1), FERRY_OK);
    part_pass_ms(f, 1000);
    struct hand *h = hand_take(f, Q, "b", 2);
    assert_int_equal(h->messages[0].offset, 1);
    assert_int_equal(h->messages[0].handed, 2);
    assert_int_equal(h->messages[0].failed, 1);
    assert_int_equal(settle(f, old, SETTLE_ACK, 1, 1), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(settle(f, h, SETTLE_ACK, 1, 2), FERRY_OK);
    assert_int_equal(hand_get(f, Q).acked, 3);
    hand_conserves(f, Q, 0);
}

/* Who extends in time keeps it; also while the end of others is being written. */
static void an_extended_lease_lives_on(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 2);
    struct hand *h = hand_take(f, Q, "a", 2);
    for (int i = 0; i < 5; i++) {
        part_pass_ms(f, 4000);
        assert_int_equal(hand_settle(f, Q, h, SETTLE_EXTEND, 0, 0, 5000), FERRY_OK);
    }
    assert_int_equal(hand_get(f, Q).leased, 2);
    part_pass_ms(f, 5000);
    assert_int_equal(hand_get(f, Q).leased, 0);
    assert_int_equal(hand_settle(f, Q, h, SETTLE_EXTEND, 0, 0, 5000), FERRY_ERR_LEASE_EXPIRED);
}

/* A settlement that is in the log behind the end of its lease is refused, before it is not. */
static void the_order_in_the_log_decides(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 2);
    struct hand *a = hand_take(f, Q, "a", 1);
    struct hand *b = hand_take(f, Q, "b", 1);
    struct settle_item first = hand_item(a, SETTLE_ACK, 0, 1, -1);
    struct settle_item late = hand_item(b, SETTLE_ACK, 1, 1, -1);
    f->now_ms += 5000;
    f->now_us += 5000000;
    struct partition_ticket *before = hand_propose(f, Q, &first, 1);
    assert_int_equal(partition_tick(f->p, f->now_ms, f->now_us), FERRY_OK);
    struct partition_ticket *behind = hand_propose(f, Q, &late, 1);
    part_turn(f);
    assert_int_equal(hand_status(before, 0), FERRY_OK);
    assert_int_equal(hand_status(behind, 0), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(hand_get(f, Q).acked, 1);
    assert_int_equal(hand_get(f, Q).failed, 1);
    hand_conserves(f, Q, 0);
}

/* A wall clock that jumps ends no lease and no back-off early, and holds none up. */
static void jumps_of_the_wall_clock_move_nothing(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 2);
    struct hand *h = hand_take(f, Q, "a", 2);
    assert_int_equal(settle(f, h, SETTLE_NACK, 0, 1), FERRY_OK);
    part_turn(f);
    f->now_ms += 10 * HOUR_MS;
    part_turn(f);
    hand_nothing(f, Q, "a");
    assert_int_equal(hand_get(f, Q).leased, 1);
    f->now_us += 1000000;
    part_turn(f);
    assert_int_equal(hand_take(f, Q, "a", 1)->messages[0].offset, 0);
    f->now_ms -= 20 * HOUR_MS;
    f->now_us += 4000000;
    part_turn(f);
    assert_int_equal(hand_get(f, Q).failed, 2);
}

/* After a crash each lease has its whole time again, and all that was known is known. */
static void leases_and_counters_survive_a_crash(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 6);
    struct hand *h = hand_take(f, Q, "a", 4);
    assert_int_equal(settle(f, h, SETTLE_NACK, 0, 1), FERRY_OK);
    assert_int_equal(settle(f, h, SETTLE_ACK, 1, 1), FERRY_OK);
    part_pass_ms(f, 4900);
    struct hand *second = hand_take(f, Q, "b", 1);
    assert_int_equal(second->messages[0].offset, 0);
    struct subscription_get_reply before = hand_get(f, Q);
    part_crash(f);
    part_open(f);
    struct subscription_get_reply after = hand_get(f, Q);
    assert_int_equal(after.handed_out, before.handed_out);
    assert_int_equal(after.failed, before.failed);
    assert_int_equal(after.leased, 3);
    part_pass_ms(f, 4900);
    assert_int_equal(hand_get(f, Q).leased, 3);
    assert_int_equal(settle(f, h, SETTLE_ACK, 2, 1), FERRY_OK);
    assert_int_equal(settle(f, second, SETTLE_ACK, 0, 1), FERRY_OK);
    part_pass_ms(f, 100);
    assert_int_equal(hand_get(f, Q).leased, 0);
    hand_conserves(f, Q, 0);
}

/* A hand-out that was not proposed is given back whole. */
static void a_refused_hand_out_is_not_lost(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 10);
    struct hand *h = hand_take(f, Q, "a", 2);
    assert_int_equal(settle(f, h, SETTLE_RELEASE, 0, 2), FERRY_OK);
    enum receive_answer answer;
    enum ferry_err err = FERRY_OK;
    struct receive r = {.subscription = bytes_of_string(Q),
                        .member = bytes_of_string("m"),
                        .max_messages = 1,
                        .max_bytes = 100};
    /* Until no more may be uncommitted. */
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    int taken = 0;
    while (err == FERRY_OK) {
        struct bytes name = bytes_of_string(Q);
        err = partition_subscription_delete(f->p, bytes_of_string("none"), f->now_ms, f->now_us,
                                            part_ticket(f));
        assert_int_equal(err, FERRY_ERR_UNKNOWN_SUBSCRIPTION);
        struct subscription_alter_request q = {
            .name = name, .pause = 2, .priority_age_ms = UINT32_MAX};
        err = partition_subscription_alter(f->p, &q, bytes_of(NULL, 0), f->now_ms, f->now_us,
                                           part_ticket(f));
    }
    assert_int_equal(err, FERRY_ERR_THROTTLED);
    for (int i = 0; i < 3; i++) {
        err = partition_receive(f->p, &r, f->now_ms, f->now_us, part_ticket(f), &answer);
        assert_int_equal(err, FERRY_ERR_THROTTLED);
    }
    store_read_end(f->store);
    part_turn(f);
    for (int i = 0; i < 10; i++) {
        taken += (int)hand_take(f, Q, "b", 1)->count;
    }
    assert_int_equal(taken, 10);
    assert_int_equal(hand_get(f, Q).handed_out, 12);
}

/* Each allocation of a receive, a settlement and the timer fails once: the request is refused, or
 * it is carried out; nothing is lost, and nothing is in two hands. */
static void try_without_memory(struct part_fixture *f)
{
    enum receive_answer answer;
    struct receive r = {.subscription = bytes_of_string("m"),
                        .member = bytes_of_string("m"),
                        .max_messages = 3,
                        .max_bytes = 1 << 20};
    struct settle_request *q = mem_zalloc(1, sizeof(*q));
    assert_non_null(q);
    q->subscription = r.subscription;
    q->member = r.member;
    q->count = 1;
    for (long n = 1; n < 60; n++) {
        struct partition_ticket *t = part_ticket(f), *back = part_ticket(f);
        assert_int_equal(store_read_begin(f->store), FERRY_OK);
        mem_test_fail_after(n);
        enum ferry_err err = partition_receive(f->p, &r, f->now_ms, f->now_us, t, &answer);
        mem_test_fail_after(0);
        assert_true(err == FERRY_OK || err == FERRY_ERR_NO_MEMORY);
        store_read_end(f->store);
        part_turn(f);
        if (err == FERRY_OK && answer == RECEIVE_PROPOSED) {
            int64_t first = (int64_t)get_le64(t->ranges.data);
            q->items[0] = (struct settle_item){.lease = t->lease,
                                               .token = t->token,
                                               .kind = SETTLE_NACK,
                                               .first = first,
                                               .count = 1,
                                               .delay_ms = -1};
            assert_int_equal(store_read_begin(f->store), FERRY_OK);
            mem_test_fail_after(n % 7 + 1);
            err = partition_settle(f->p, q, f->now_ms, f->now_us, back);
            mem_test_fail_after(0);
            assert_true(err == FERRY_OK || err == FERRY_ERR_NO_MEMORY);
            store_read_end(f->store);
        }
        part_turn(f);
        f->now_ms += 300;
        f->now_us += 300000;
        mem_test_fail_after(n % 11 + 1);
        (void)!partition_tick(f->p, f->now_ms, f->now_us);
        mem_test_fail_after(0);
        part_turn(f);
        hand_conserves(f, "m", 0);
    }
    mem_free(q);
}

static void lack_of_memory_loses_nothing(void **state)
{
    static const uint32_t modes[] = {SUBSCRIPTION_QUEUE, SUBSCRIPTION_KEYED};
    static const char *const keys[] = {"a", "b", "a", "c", "", "b", "d", "e", "a", "f"};
    struct part_fixture *f = of(state);
    part_open(f);
    for (int i = 0; i < 10; i++) {
        hand_produce(f, &(struct keyed_of){.count = 10, .keys = keys});
    }
    for (int i = 0; i < 2; i++) {
        struct subscription_create_request q = quick;
        q.max_deliveries = 1000;
        hand_make(f, "m", modes[i], &q);
        try_without_memory(f);
        for (int rounds = 0; rounds < 400 && hand_get(f, "m").acked < 100; rounds++) {
            part_pass_ms(f, 1000);
            hand_settle_all(f, "m", hand_receive(f, "m", "z", 100), SETTLE_ACK);
        }
        assert_int_equal(hand_get(f, "m").acked, 100);
        hand_conserves(f, "m", 0);
        assert_int_equal(partition_subscription_delete(f->p, bytes_of_string("m"), f->now_ms,
                                                       f->now_us, part_ticket(f)),
                         FERRY_OK);
        part_turn(f);
    }
}

/* ---- Resets ---- */

static struct partition_ticket *propose_receive(struct part_fixture *f, uint32_t max)
{
    struct receive r = {.subscription = bytes_of_string(Q),
                        .member = bytes_of_string("m"),
                        .max_messages = max,
                        .max_bytes = 1 << 20};
    enum receive_answer answer;
    struct partition_ticket *t = part_ticket(f);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_receive(f->p, &r, f->now_ms, f->now_us, t, &answer), FERRY_OK);
    store_read_end(f->store);
    assert_int_equal(answer, RECEIVE_PROPOSED);
    return t;
}

static void propose_reset(struct part_fixture *f, int64_t to)
{
    struct subscription_reset_request q = {.name = bytes_of_string(Q), .to = to};
    assert_int_equal(partition_subscription_reset(f->p, &q, bytes_of(NULL, 0), f->now_ms, f->now_us,
                                                  part_ticket(f)),
                     FERRY_OK);
}

/* What of a hand-out a reset in front of it made void is in nobody's hands; the rest is in one's.
 */
static void a_reset_passes_by_hand_outs_under_way(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 20);
    struct hand *old = hand_take(f, Q, "a", 3);
    propose_reset(f, 5);
    struct partition_ticket *t = propose_receive(f, 4); /* 3 .. 6 */
    part_turn(f);
    assert_int_equal(hand_get(f, Q).leased, 2);
    assert_int_equal(settle(f, old, SETTLE_ACK, 0, 1), FERRY_ERR_LEASE_EXPIRED);
    struct buf repeats, out;
    buf_init(&repeats, 1000);
    buf_init(&out, 100000);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_read_delivery(f->p, t, &repeats, &out), FERRY_OK);
    store_read_end(f->store);
    struct bytes rest = buf_bytes(&out);
    struct fetch_entry entry;
    struct batch_header h;
    assert_int_equal(fetch_entry_next(&rest, &entry, &h, &f->detail), FERRY_OK);
    assert_true(rest.size == 0 && entry.base_offset == 5 && h.count == 2);
    assert_int_equal(t->count, 2); /* What the answer says is what is in it. */
    buf_fini(&repeats);
    buf_fini(&out);
    struct hand *next = hand_take(f, Q, "a", 13);
    assert_int_equal(next->messages[0].offset, 7);
    hand_nothing(f, Q, "a");
    hand_conserves(f, Q, 5);
    propose_reset(f, FERRY_FROM_START);
    part_turn(f);
    assert_int_equal(settle(f, next, SETTLE_ACK, 7, 1), FERRY_ERR_LEASE_EXPIRED);
    (void)hand_take(f, Q, "a", 20);
    hand_conserves(f, Q, 0);
}

/* Made anew it is another subscription: a hand-out of the one before is of nobody. */
static void a_deleted_subscription_hands_out_nothing(void **state)
{
    struct part_fixture *f = of(state);
    open_queue(f, 5);
    struct hand *old = hand_take(f, Q, "a", 1);
    assert_int_equal(partition_subscription_delete(f->p, bytes_of_string(Q), f->now_ms, f->now_us,
                                                   part_ticket(f)),
                     FERRY_OK);
    struct partition_ticket *t = propose_receive(f, 2);
    struct settle_item item = hand_item(old, SETTLE_ACK, 0, 1, -1);
    struct partition_ticket *late = hand_propose(f, Q, &item, 1);
    part_turn(f);
    assert_int_equal(late->base.err, FERRY_ERR_UNKNOWN_SUBSCRIPTION);
    struct buf repeats, out;
    buf_init(&repeats, 1000);
    buf_init(&out, 100000);
    assert_int_equal(partition_read_delivery(f->p, t, &repeats, &out), FERRY_OK);
    assert_int_equal(out.size, 0);
    assert_int_equal(t->count, 0);
    hand_make(f, Q, SUBSCRIPTION_QUEUE, &quick);
    assert_int_equal(settle(f, old, SETTLE_ACK, 0, 1), FERRY_ERR_LEASE_EXPIRED);
    (void)hand_take(f, Q, "a", 5);
    hand_conserves(f, Q, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(each_message_is_handed_out_once),
        part_test(hand_outs_of_one_turn_do_not_overlap),
        part_test(parts_of_batches_are_handed_out),
        part_test(skipped_records_are_not_handed_out),
        part_test(bytes_are_limited),
        part_test(bad_requests_are_refused),
        part_test(a_member_holds_no_more_than_it_may),
        part_test(paused_hands_out_nothing),
        part_test(acked_never_comes_again),
        part_test(settling_again_is_answered_as_before),
        part_test(a_wrong_token_settles_nothing),
        part_test(items_are_answered_one_by_one),
        part_test(a_failed_message_waits_its_time),
        part_test(a_delay_of_its_own_counts),
        part_test(a_released_message_has_not_failed),
        part_test(an_ended_lease_counts_as_a_failure),
        part_test(an_extended_lease_lives_on),
        part_test(the_order_in_the_log_decides),
        part_test(jumps_of_the_wall_clock_move_nothing),
        part_test(leases_and_counters_survive_a_crash),
        part_test(a_refused_hand_out_is_not_lost),
        part_test(lack_of_memory_loses_nothing),
        part_test(a_reset_passes_by_hand_outs_under_way),
        part_test(a_deleted_subscription_hands_out_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
