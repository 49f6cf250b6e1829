/* Deliveries, rule by rule. */
#include "delivery_fixture.h"

static struct delivery_run at(const struct delivery *d, int64_t offset)
{
    return delivery_at(d, offset, 1LL << 40);
}

static void expect_state(const struct delivery *d, int64_t first, uint32_t count,
                         enum delivery_state state)
{
    for (int64_t o = first; o < first + count; o++) {
        assert_int_equal(at(d, o).state, state);
    }
}

/* ---- Hand-outs ---- */

/* What is fresh goes out once; the rest of the log is as before. */
static void what_is_handed_out_is_leased_and_nothing_else_is(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 10);
    uint64_t lease = give(d, "m", 12, 5);
    assert_int_equal(lease, 1);
    expect_state(d, 0, 10, DELIVERY_DONE);
    expect_state(d, 10, 2, DELIVERY_FRESH);
    expect_state(d, 12, 5, DELIVERY_LEASED);
    expect_state(d, 17, 5, DELIVERY_FRESH);
    assert_int_equal(at(d, 12).handed, 1);
    assert_int_equal(at(d, 11).first, 10);
    assert_int_equal(at(d, 11).count, 2);
    assert_int_equal(delivery_find_lease(d, lease)->left, 5);
    assert_int_equal(delivery_counters(d)->handed_out, 5);
    assert_int_equal(delivery_counters(d)->leased, 5);
    delivery_check(d, 30);
    delivery_free(&d);
}

/* Parts that are under lease, done or below the floor are passed over. */
static void what_cannot_be_handed_out_is_passed_over(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 10);
    uint64_t first = give(d, "m", 12, 2);
    uint64_t second = give(d, "m", 5, 10);
    assert_int_equal(delivery_find_lease(d, second)->left, 3);
    assert_int_equal(at(d, 12).lease, first);
    assert_int_equal(at(d, 11).lease, second);
    uint64_t third = give(d, "m", 0, 14);
    assert_null(delivery_find_lease(d, third));
    assert_int_equal(delivery_next_lease_number(d), third + 1);
    delivery_check(d, 30);
    delivery_free(&d);
}

/* A lease number is used once, even one that was passed over. */
static void an_old_lease_number_gives_nothing(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    struct delivery_range range = {.first = 0, .count = 1};
    assert_int_equal(hand_out(d, 7, "m", &range, 1), FERRY_OK);
    range.first = 1;
    assert_int_equal(hand_out(d, 7, "m", &range, 1), FERRY_OK);
    assert_int_equal(hand_out(d, 5, "m", &range, 1), FERRY_OK);
    expect_state(d, 1, 1, DELIVERY_FRESH);
    assert_int_equal(delivery_next_lease_number(d), 8);
    delivery_free(&d);
}

/* What each member holds, over all its leases. */
static void what_a_member_holds_is_counted(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    uint64_t one = give(d, "a", 0, 10);
    (void)give(d, "a", 10, 5);
    (void)give(d, "b", 15, 1);
    assert_int_equal(delivery_held(d, bytes_of_string("a")), 15);
    assert_int_equal(ack(d, one, 2, 3), FERRY_OK);
    assert_int_equal(delivery_held(d, bytes_of_string("a")), 12);
    assert_int_equal(delivery_held(d, bytes_of_string("b")), 1);
    assert_int_equal(delivery_held(d, bytes_of_string("c")), 0);
    delivery_free(&d);
}

/* ---- Acks ---- */

/* In any order; the floor follows what is done without a gap. */
static void acks_in_any_order_move_the_floor(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    uint64_t lease = give(d, "m", 0, 10);
    assert_int_equal(ack(d, lease, 5, 5), FERRY_OK);
    assert_int_equal(delivery_floor(d), 0);
    assert_int_equal(ack(d, lease, 1, 4), FERRY_OK);
    assert_int_equal(delivery_floor(d), 0);
    assert_int_equal(at(d, 3).first, 1);
    assert_int_equal(at(d, 3).count, 9);
    assert_int_equal(ack(d, lease, 0, 1), FERRY_OK);
    assert_int_equal(delivery_floor(d), 10);
    assert_int_equal(delivery_counters(d)->acked, 10);
    assert_int_equal(delivery_counters(d)->leased, 0);
    delivery_check(d, 10);
    delivery_free(&d);
}

/* One that is not held makes the whole item fail, and nothing changes. */
static void an_item_is_carried_out_whole_or_not_at_all(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    uint64_t lease = give(d, "m", 0, 5);
    uint64_t other = give(d, "m", 5, 5);
    assert_int_equal(ack(d, lease, 3, 3), FERRY_ERR_LEASE_EXPIRED);
    expect_state(d, 0, 10, DELIVERY_LEASED);
    assert_int_equal(settle(d, SETTLE_NACK, lease, 0, 2), FERRY_OK);
    assert_int_equal(ack(d, lease, 0, 5), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(at(d, 3).state, DELIVERY_LEASED);
    assert_int_equal(ack(d, other, 5, 5), FERRY_OK);
    delivery_check(d, 10);
    delivery_free(&d);
}

/* Ranges that are none, unknown leases and foreign tokens. */
static void items_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    uint64_t lease = give(d, "m", 0, 5);
    struct delivery_settle_item item = item_of(SETTLE_ACK, lease, 0, 5);
    item.token.bytes[15] ^= 1;
    assert_int_equal(settle_dead(d, NULL, &item, NULL, 0), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(ack(d, lease + 1, 0, 5), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(ack(d, lease, 0, 0), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ack(d, lease, -1, 2), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(ack(d, lease, INT64_MAX, 2), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(settle(d, 99, lease, 0, 5), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(delivery_counters(d)->acked, 0);
    delivery_free(&d);
}

/* Whether the lease still has something or has ended; in other pieces too. */
static void the_same_item_again_is_answered_as_the_first_time(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    uint64_t lease = give(d, "m", 0, 9);
    assert_int_equal(ack(d, lease, 0, 3), FERRY_OK);
    assert_int_equal(ack(d, lease, 0, 3), FERRY_OK);
    assert_int_equal(settle(d, SETTLE_NACK, lease, 3, 3), FERRY_OK);
    assert_int_equal(settle(d, SETTLE_RELEASE, lease, 6, 3), FERRY_OK);
    assert_int_equal(delivery_find_lease(d, lease)->left, 0);
    (void)give(d, "n", 3, 6);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ack(d, lease, 1, 2), FERRY_OK);
        assert_int_equal(settle(d, SETTLE_NACK, lease, 3, 3), FERRY_OK);
        assert_int_equal(settle(d, SETTLE_RELEASE, lease, 7, 1), FERRY_OK);
        assert_int_equal(ack(d, lease, 3, 1), FERRY_ERR_LEASE_EXPIRED);
        assert_int_equal(settle(d, SETTLE_RELEASE, lease, 3, 1), FERRY_ERR_LEASE_EXPIRED);
    }
    expect_state(d, 3, 6, DELIVERY_LEASED);
    assert_int_equal(delivery_counters(d)->acked, 3);
    assert_int_equal(delivery_counters(d)->failed, 3);
    assert_int_equal(delivery_counters(d)->released, 3);
    delivery_check(d, 9);
    delivery_free(&d);
}

/* Acks that come in larger pieces the second time are still of the same messages. */
static void an_ack_may_name_again_what_is_acked_already(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    uint64_t lease = give(d, "m", 0, 9);
    assert_int_equal(ack(d, lease, 2, 3), FERRY_OK);
    assert_int_equal(ack(d, lease, 0, 9), FERRY_OK);
    assert_int_equal(delivery_counters(d)->acked, 9);
    assert_int_equal(delivery_floor(d), 9);
    delivery_free(&d);
}

/* The last DELIVERY_SETTLED_KEPT that have ended, in the order in which they did. */
static void the_last_ended_leases_are_remembered(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    uint64_t late = give(d, "m", 0, 1);
    uint64_t early = give(d, "m", 1, 1);
    assert_int_equal(ack(d, early, 1, 1), FERRY_OK);
    assert_int_equal(ack(d, late, 0, 1), FERRY_OK);
    for (int64_t o = 2; o < (int64_t)DELIVERY_SETTLED_KEPT + 1; o++) {
        assert_int_equal(ack(d, give(d, "m", o, 1), o, 1), FERRY_OK);
    }
    assert_null(delivery_find_lease(d, early));
    assert_int_equal(ack(d, early, 1, 1), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(ack(d, late, 0, 1), FERRY_OK);
    int64_t next = delivery_floor(d);
    assert_int_equal(ack(d, give(d, "m", next, 1), next, 1), FERRY_OK);
    assert_int_equal(ack(d, late, 0, 1), FERRY_ERR_LEASE_EXPIRED);
    delivery_check(d, 2 * (int64_t)DELIVERY_SETTLED_KEPT);
    delivery_free(&d);
}

/* ---- What comes back ---- */

/* It waits until its own due time and is handed out again. */
static void a_nacked_message_waits_and_comes_again(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    uint64_t lease = give(d, "m", 0, 3);
    assert_int_equal(settle(d, SETTLE_NACK, lease, 1, 1), FERRY_OK);
    struct delivery_run run = at(d, 1);
    assert_int_equal(run.state, DELIVERY_WAITING);
    assert_int_equal(run.due_ms, 6000);
    assert_int_equal(run.handed, 1);
    assert_int_equal(run.failed, 1);
    struct failure failures[HISTORY_MAX];
    assert_int_equal(delivery_failures(&run, failures), 1);
    assert_int_equal(failures[0].time_ms, SETTLE_TIME_MS);
    assert_int_equal(failures[0].kind, FAILURE_NACK);
    assert_true(bytes_equal(failures[0].member, bytes_of_string("m")));
    assert_true(bytes_equal(failures[0].reason, bytes_of_string("why")));
    uint64_t again = give(d, "n", 1, 1);
    assert_int_equal(at(d, 1).handed, 2);
    assert_int_equal(at(d, 1).failed, 1);
    assert_int_equal(ack(d, lease, 1, 1), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(ack(d, again, 1, 1), FERRY_OK);
    delivery_check(d, 3);
    delivery_free(&d);
}

/* Where the entry tells due times by runs, each has its own. */
static void due_times_are_told_by_runs(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    uint64_t lease = give(d, "m", 0, 10);
    const struct delivery_due dues[] = {{1, 2, 101}, {3, 1, 102}, {8, 100, 103}};
    struct delivery_settle_item item = item_of(SETTLE_NACK, lease, 0, 10);
    struct delivery_settlement s = {.count = 1, .items = &item, .due_count = 3, .dues = dues};
    uint16_t status;
    item.due_ms = 100;
    assert_int_equal(delivery_apply_settlement(d, &s, 1, NULL, &status), FERRY_OK);
    assert_int_equal(status, FERRY_OK);
    static const int64_t expected[] = {100, 101, 101, 102, 100, 100, 100, 100, 103, 103};
    for (int64_t o = 0; o < 10; o++) {
        assert_int_equal(at(d, o).due_ms, expected[o]);
    }
    assert_int_equal(at(d, 5).count, 4);
    delivery_check(d, 10);
    delivery_free(&d);
}

/* It was not tried: due at once, and no failure. */
static void a_released_message_has_not_failed(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    uint64_t lease = give(d, "m", 0, 1);
    assert_int_equal(settle(d, SETTLE_RELEASE, lease, 0, 1), FERRY_OK);
    assert_int_equal(at(d, 0).state, DELIVERY_WAITING);
    assert_int_equal(at(d, 0).due_ms, SETTLE_TIME_MS);
    assert_int_equal(at(d, 0).failed, 0);
    assert_int_equal(at(d, 0).handed, 1);
    assert_null(at(d, 0).history);
    assert_int_equal(delivery_counters(d)->released, 1);
    delivery_free(&d);
}

/* All that is left, or of a range; an ack behind it in the log is refused. */
static void an_expired_lease_gives_back_what_is_left(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    uint64_t lease = give(d, "m", 0, 10);
    assert_int_equal(ack(d, lease, 4, 2), FERRY_OK);
    assert_int_equal(settle(d, DELIVERY_EXPIRE, lease, 8, 5), FERRY_OK);
    expect_state(d, 8, 2, DELIVERY_WAITING);
    expect_state(d, 6, 2, DELIVERY_LEASED);
    assert_int_equal(settle(d, DELIVERY_EXPIRE, lease, 0, 0), FERRY_OK);
    expect_state(d, 0, 4, DELIVERY_WAITING);
    expect_state(d, 4, 2, DELIVERY_DONE);
    assert_int_equal(at(d, 0).failed, 1);
    assert_int_equal(delivery_counters(d)->failed, 8);
    assert_int_equal(delivery_find_lease(d, lease)->left, 0);
    assert_int_equal(ack(d, lease, 0, 1), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(ack(d, lease, 4, 2), FERRY_OK);
    assert_int_equal(settle(d, DELIVERY_EXPIRE, lease, 0, 0), FERRY_ERR_LEASE_EXPIRED);
    delivery_check(d, 10);
    delivery_free(&d);
}

/* The whole hand-out's duration; not of one that has ended. */
static void a_lease_is_extended_while_something_is_left(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    uint64_t lease = give(d, "m", 0, 2);
    struct delivery_settle_item item = item_of(SETTLE_EXTEND, lease, 0, 0);
    item.extend_ms = 77;
    assert_int_equal(settle_dead(d, NULL, &item, NULL, 0), FERRY_OK);
    assert_int_equal(delivery_find_lease(d, lease)->lease_ms, 77);
    assert_int_equal(ack(d, lease, 0, 2), FERRY_OK);
    assert_int_equal(settle_dead(d, NULL, &item, NULL, 0), FERRY_ERR_LEASE_EXPIRED);
    delivery_free(&d);
}

/* The latest HISTORY_MAX failures; the count goes on. */
static void the_latest_failures_are_remembered(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    struct failure failures[HISTORY_MAX];
    for (uint32_t i = 0; i < HISTORY_MAX + 3; i++) {
        struct delivery_settle_item item = item_of(SETTLE_NACK, give(d, "m", 0, 1), 0, 1);
        struct delivery_settlement s = {.count = 1, .items = &item};
        uint16_t status;
        assert_int_equal(delivery_apply_settlement(d, &s, 100 + i, NULL, &status), FERRY_OK);
    }
    struct delivery_run run = at(d, 0);
    assert_int_equal(run.failed, HISTORY_MAX + 3);
    assert_int_equal(delivery_failures(&run, failures), HISTORY_MAX);
    assert_int_equal(failures[0].time_ms, 103);
    assert_int_equal(failures[HISTORY_MAX - 1].time_ms, 100 + HISTORY_MAX + 2);
    delivery_free(&d);
}

/* ---- Dead letters ---- */

static struct dead_letter letter_at(struct rows *rows, uint64_t number)
{
    struct dead_letter letter = {0};
    bool found;
    load_letter(rows, NULL, number, &letter, &found);
    assert_true(found);
    return letter;
}

/* Where the entry has the record, the message ends as a dead letter with its whole history. */
static void a_nack_with_the_record_makes_a_dead_letter(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    struct rows rows;
    rows_init(&rows, TABLE_DEAD);
    assert_int_equal(settle(d, SETTLE_NACK, give(d, "a", 0, 3), 0, 3), FERRY_OK);
    uint64_t lease = give(d, "b", 0, 3);
    struct delivery_settle_item item = item_of(SETTLE_NACK, lease, 0, 3);
    item.reason = bytes_of_string("broken");
    struct delivery_dead dead = dead_of(1);
    assert_int_equal(settle_dead(d, &rows, &item, &dead, 1), FERRY_OK);
    assert_int_equal(at(d, 0).state, DELIVERY_WAITING);
    assert_int_equal(at(d, 1).state, DELIVERY_DONE);
    struct dead_letter letter = letter_at(&rows, 1);
    assert_int_equal(letter.offset, 1);
    assert_int_equal(letter.append_time_ms, 101);
    assert_int_equal(letter.died_ms, SETTLE_TIME_MS);
    assert_int_equal(letter.handed_out, 2);
    assert_int_equal(letter.failed, 2);
    assert_int_equal(letter.failure_count, 2);
    assert_true(bytes_equal(letter.failures[0].member, bytes_of_string("a")));
    assert_true(bytes_equal(letter.failures[1].member, bytes_of_string("b")));
    assert_true(bytes_equal(letter.failures[1].reason, bytes_of_string("broken")));
    assert_true(bytes_equal(letter.record, bytes_of_string("R")));
    assert_int_equal(delivery_counters(d)->died, 1);
    assert_int_equal(delivery_counters(d)->dead, 1);
    assert_int_equal(settle_dead(d, &rows, &item, NULL, 0), FERRY_OK); /* Again. */
    assert_int_equal(delivery_counters(d)->died, 1);
    delivery_check(d, 3);
    delivery_free(&d);
    rows_fini(&rows);
}

/* A reject needs all records; else nothing of it is done. */
static void a_reject_without_a_record_is_corrupt(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    struct rows rows;
    rows_init(&rows, TABLE_DEAD);
    uint64_t lease = give(d, "m", 0, 3);
    struct delivery_settle_item item = item_of(SETTLE_REJECT, lease, 0, 3);
    const struct delivery_dead dead[] = {dead_of(0), dead_of(2), dead_of(3)};
    assert_int_equal(settle_dead(d, &rows, &item, dead, 3), FERRY_ERR_CORRUPT);
    expect_state(d, 0, 3, DELIVERY_LEASED);
    const struct delivery_dead all[] = {dead_of(0), dead_of(1), dead_of(2)};
    assert_int_equal(settle_dead(d, &rows, &item, all, 3), FERRY_OK);
    assert_int_equal(settle_dead(d, &rows, &item, NULL, 0), FERRY_OK);
    assert_int_equal(delivery_floor(d), 3);
    assert_int_equal(delivery_counters(d)->died, 3);
    assert_int_equal(letter_at(&rows, 3).failures[0].kind, FAILURE_REJECT);
    delivery_check(d, 3);
    delivery_free(&d);
    rows_fini(&rows);
}

static struct delivery *with_one_dead(struct rows *rows, bool keyed, uint64_t key_hash)
{
    struct delivery *d = delivery_made(keyed, 0);
    rows_init(rows, TABLE_DEAD);
    uint64_t lease = give_key(d, "m", 0, keyed ? 5 : 0);
    struct delivery_settle_item item = item_of(SETTLE_REJECT, lease, 0, 1);
    struct delivery_dead dead = dead_of(0);
    dead.key_hash = key_hash;
    assert_int_equal(settle_dead(d, rows, &item, &dead, 1), FERRY_OK);
    return d;
}

/* As the leader does it: what the letter says goes into the entry. */
static uint32_t change_dead(struct delivery *d, struct rows *rows, enum dead_change_kind change,
                            uint64_t number, const char *record)
{
    static struct dead_change_entry e;
    struct buf letter;
    uint32_t done = 99;
    bool found;
    struct dead_letter got = {0};
    load_letter(rows, NULL, number, &got, &found);
    got.record = bytes_of_string(record);
    buf_init(&letter, 65536);
    dead_encode(&letter, &got);
    e = (struct dead_change_entry){.change = change, .count = 1};
    e.parts[0] = (struct dead_change_part){
        .number = number, .key_hash = 5, .parked = got.key_hash, .letter = buf_bytes(&letter)};
    assert_int_equal(delivery_apply_dead_change(d, &e, 9000, rows, &done), FERRY_OK);
    buf_fini(&letter);
    return done;
}

/* It comes below the floor, with counters at 0; acked it is gone. */
static void a_replayed_letter_is_handed_out_again(void **state)
{
    (void)state;
    struct rows rows;
    int64_t offset;
    struct delivery *d = with_one_dead(&rows, false, 0);
    assert_int_equal(delivery_floor(d), 1);
    assert_int_equal(change_dead(d, &rows, DEAD_REPLAY, 1, ""), 1);
    struct delivery_run run = at(d, 0);
    assert_int_equal(run.state, DELIVERY_WAITING);
    assert_int_equal(run.dead, 1);
    assert_int_equal(run.handed, 0);
    assert_int_equal(run.failed, 0);
    assert_non_null(run.history);
    assert_true(delivery_is_revived(d, 1, &offset));
    assert_int_equal(change_dead(d, &rows, DEAD_REPLAY, 1, ""), 0);
    uint64_t lease = give(d, "m", 0, 1);
    assert_int_equal(at(d, 0).handed, 1);
    delivery_check(d, 1);
    struct delivery_settle_item item = item_of(SETTLE_ACK, lease, 0, 1);
    assert_int_equal(settle_dead(d, &rows, &item, NULL, 0), FERRY_OK);
    assert_false(delivery_dead_is_kept(d, 1));
    assert_int_equal(rows_pending(&rows), 0);
    assert_int_equal(delivery_counters(d)->dead, 0);
    assert_int_equal(change_dead(d, &rows, DEAD_REPLAY, 1, ""), 0);
    delivery_check(d, 1);
    delivery_free(&d);
    rows_fini(&rows);
}

/* It keeps its number; the history goes on. An edited record takes the old one's place. */
static void a_replayed_letter_that_dies_again_keeps_its_number(void **state)
{
    (void)state;
    struct rows rows;
    int64_t offset;
    struct delivery *d = with_one_dead(&rows, false, 0);
    assert_int_equal(change_dead(d, &rows, DEAD_REPLAY, 1, "edited"), 1);
    assert_true(bytes_equal(letter_at(&rows, 1).record, bytes_of_string("edited")));
    struct delivery_settle_item item = item_of(SETTLE_REJECT, give(d, "m", 0, 1), 0, 1);
    struct delivery_dead dead = dead_of(0);
    dead.record = bytes_of_string("edited");
    assert_int_equal(settle_dead(d, &rows, &item, &dead, 1), FERRY_OK);
    struct dead_letter letter = letter_at(&rows, 1);
    assert_int_equal(letter.failure_count, 2);
    assert_int_equal(letter.handed_out, 1);
    assert_false(delivery_is_revived(d, 1, &offset));
    assert_int_equal(delivery_counters(d)->died, 2);
    assert_int_equal(delivery_counters(d)->revived, 1);
    assert_int_equal(delivery_counters(d)->dead, 1);
    delivery_check(d, 1);
    delivery_free(&d);
    rows_fini(&rows);
}

/* Whether it lies or is on its way; a second time there is nothing to drop. */
static void a_dropped_letter_is_gone(void **state)
{
    (void)state;
    for (int revived = 0; revived < 2; revived++) {
        struct rows rows;
        struct delivery *d = with_one_dead(&rows, false, 0);
        if (revived) {
            assert_int_equal(change_dead(d, &rows, DEAD_REPLAY, 1, ""), 1);
        }
        assert_int_equal(change_dead(d, &rows, DEAD_DROP, 1, ""), 1);
        assert_int_equal(change_dead(d, &rows, DEAD_DROP, 1, ""), 0);
        assert_int_equal(at(d, 0).state, DELIVERY_DONE);
        assert_int_equal(rows_pending(&rows), 0);
        assert_int_equal(delivery_counters(d)->dead, 0);
        delivery_check(d, 1);
        delivery_free(&d);
        rows_fini(&rows);
    }
}

/* ---- Keys ---- */

/* A second one of the key is passed over until the first is settled. */
static void one_of_a_key_is_leased_at_a_time(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(true, 0);
    uint64_t lease = give_key(d, "m", 0, 5);
    assert_null(delivery_find_lease(d, give_key(d, "m", 1, 5)));
    assert_non_null(delivery_find_lease(d, give_key(d, "m", 2, 6)));
    (void)give(d, "m", 3, 2); /* Without a key: as they like. */
    expect_state(d, 3, 2, DELIVERY_LEASED);
    assert_int_equal(settle(d, SETTLE_NACK, lease, 0, 1), FERRY_OK);
    assert_int_equal(at(d, 0).key_hash, 5);
    assert_non_null(delivery_find_lease(d, give_key(d, "m", 0, 5)));
    delivery_check(d, 5);
    delivery_free(&d);
}

static bool told(struct delivery *d, enum delivery_change_kind kind, uint64_t key_hash)
{
    struct delivery_change change;
    bool seen = false;
    while (delivery_next_change(d, &change)) {
        seen = seen || (change.kind == kind && change.key_hash == key_hash);
    }
    return seen;
}

/* Told when nothing of the key is leased any more, or nothing waits, and not for a hand-out. */
static void a_key_that_is_free_again_is_told(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(true, 0);
    uint32_t leased;
    uint32_t waiting;
    delivery_watch(d, true);
    uint64_t lease = give_key(d, "m", 0, 5);
    assert_false(told(d, DELIVERY_CHANGED_KEY, 5));
    assert_int_equal(settle(d, SETTLE_NACK, lease, 0, 1), FERRY_OK);
    assert_true(told(d, DELIVERY_CHANGED_KEY, 5));
    delivery_key_counts(d, 5, &leased, &waiting);
    assert_int_equal(leased, 0);
    assert_int_equal(waiting, 1);
    lease = give_key(d, "m", 0, 5);
    assert_true(told(d, DELIVERY_CHANGED_KEY, 5));
    assert_int_equal(ack(d, lease, 0, 1), FERRY_OK);
    assert_true(told(d, DELIVERY_CHANGED_KEY, 5));
    delivery_key_counts(d, 5, &leased, &waiting);
    assert_int_equal(leased + waiting, 0);
    delivery_free(&d);
}

/* Until it has no dead letter left: replayed or dropped. */
static void a_dead_letter_parks_its_key_if_the_entry_says_so(void **state)
{
    (void)state;
    struct rows rows;
    struct delivery *d = with_one_dead(&rows, true, 5);
    assert_true(delivery_key_is_parked(d, 5));
    assert_int_equal(delivery_parked(d), 1);
    struct delivery_settle_item item = item_of(DELIVERY_PARK, 0, 1, 1);
    struct delivery_dead dead = dead_of(1);
    dead.key_hash = 5;
    assert_int_equal(settle_dead(d, &rows, &item, &dead, 1), FERRY_OK);
    assert_int_equal(letter_at(&rows, 2).failures[0].kind, FAILURE_PARKED);
    assert_int_equal(letter_at(&rows, 2).handed_out, 0);
    assert_int_equal(settle_dead(d, &rows, &item, &dead, 1), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(change_dead(d, &rows, DEAD_REPLAY, 1, ""), 1);
    assert_int_equal(at(d, 0).key_hash, 5);
    assert_true(delivery_key_is_parked(d, 5));
    assert_int_equal(change_dead(d, &rows, DEAD_DROP, 2, ""), 1);
    assert_false(delivery_key_is_parked(d, 5));
    delivery_check(d, 2);
    delivery_free(&d);
    rows_fini(&rows);
}

/* ---- Trims and resets ---- */

/* Whatever it was but done; its lease goes on with the rest. */
static void what_retention_drops_has_expired(void **state)
{
    (void)state;
    struct rows rows;
    struct delivery *d = with_one_dead(&rows, false, 0);
    assert_int_equal(change_dead(d, &rows, DEAD_REPLAY, 1, ""), 1);
    uint64_t lease = give(d, "m", 3, 4);
    assert_int_equal(ack(d, lease, 4, 1), FERRY_OK);
    assert_int_equal(delivery_apply_trim(d, 5), FERRY_OK);
    assert_int_equal(delivery_floor(d), 5);
    assert_int_equal(delivery_counters(d)->expired, 3);
    assert_int_equal(delivery_find_lease(d, lease)->left, 2);
    assert_int_equal(at(d, 0).state, DELIVERY_WAITING);
    assert_int_equal(ack(d, lease, 3, 4), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(ack(d, lease, 5, 2), FERRY_OK);
    assert_int_equal(delivery_apply_trim(d, 2), FERRY_OK);
    assert_int_equal(delivery_floor(d), 7);
    delivery_check(d, 9);
    delivery_free(&d);
    rows_fini(&rows);
}

/* Both ways; dead letters stay, what was revived lies again, lease numbers go on. */
static void a_reset_starts_anew(void **state)
{
    (void)state;
    struct rows rows;
    int64_t offset;
    struct delivery *d = with_one_dead(&rows, true, 5);
    assert_int_equal(change_dead(d, &rows, DEAD_REPLAY, 1, ""), 1);
    uint64_t lease = give(d, "m", 3, 4);
    assert_int_equal(delivery_apply_reset(d, 2), FERRY_OK);
    assert_int_equal(delivery_floor(d), 2);
    expect_state(d, 0, 2, DELIVERY_DONE);
    expect_state(d, 2, 8, DELIVERY_FRESH);
    assert_null(delivery_find_lease(d, lease));
    assert_int_equal(ack(d, lease, 3, 4), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(delivery_held(d, bytes_of_string("m")), 0);
    assert_false(delivery_is_revived(d, 1, &offset));
    assert_false(delivery_key_is_parked(d, 5));
    assert_int_equal(delivery_counters(d)->dead, 1);
    assert_int_equal(delivery_counters(d)->handed_out, 0);
    assert_int_equal(delivery_next_lease_number(d), lease + 1);
    delivery_check(d, 10);
    assert_int_equal(change_dead(d, &rows, DEAD_REPLAY, 1, ""), 1);
    delivery_check(d, 10);
    assert_int_equal(delivery_apply_reset(d, 0), FERRY_OK);
    assert_int_equal(change_dead(d, &rows, DEAD_REPLAY, 1, ""), 0); /* It comes anyway. */
    delivery_check(d, 10);
    delivery_free(&d);
    rows_fini(&rows);
}

/* ---- Questions ---- */

/* Gaps between runs, from the floor to the end. */
static void the_next_fresh_ones_are_found(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 10);
    int64_t first;
    (void)give(d, "m", 10, 5);
    (void)give(d, "m", 15, 2);
    (void)give(d, "m", 20, 2);
    assert_int_equal(delivery_next_fresh(d, 0, 40, &first), 3);
    assert_int_equal(first, 17);
    assert_int_equal(delivery_next_fresh(d, 19, 40, &first), 1);
    assert_int_equal(delivery_next_fresh(d, 20, 40, &first), 18);
    assert_int_equal(first, 22);
    assert_int_equal(delivery_next_fresh(d, 0, 17, &first), 0);
    assert_int_equal(delivery_next_fresh(d, 0, 19, &first), 2);
    assert_int_equal(delivery_next_fresh(d, 50, 40, &first), 0);
    delivery_free(&d);
}

/* Runs one after another, a hole in none. */
static void runs_are_walked_in_order(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    struct delivery_run run;
    int64_t after = INT64_MIN;
    assert_false(delivery_next_run(d, &after, &run));
    for (int64_t o = 0; o < 1000; o++) {
        (void)give(d, "m", o * 2, 1);
    }
    for (int64_t o = 0; o < 1000; o++) {
        assert_true(delivery_next_run(d, &after, &run));
        assert_int_equal(run.first, o * 2);
    }
    assert_false(delivery_next_run(d, &after, &run));
    delivery_free(&d);
}

/* ---- Changes ---- */

/* Watched, what is told is bounded: then the leader looks at everything. */
static void too_many_changes_are_told_as_a_reset(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    struct delivery_change change;
    (void)give(d, "m", 0, 1);
    assert_false(delivery_next_change(d, &change));
    delivery_watch(d, true);
    uint64_t lease = give(d, "m", 1, 1);
    assert_true(delivery_next_change(d, &change));
    assert_int_equal(change.kind, DELIVERY_CHANGED_LEASED);
    assert_int_equal(change.lease, lease);
    assert_int_equal(ack(d, lease, 1, 1), FERRY_OK);
    assert_true(delivery_next_change(d, &change));
    assert_int_equal(change.kind, DELIVERY_CHANGED_ENDED);
    assert_false(delivery_next_change(d, &change));
    for (int64_t o = 2; o < 40000; o++) {
        assert_int_equal(settle(d, SETTLE_NACK, give(d, "m", o, 1), o, 1), FERRY_OK);
    }
    assert_true(delivery_next_change(d, &change));
    assert_int_equal(change.kind, DELIVERY_CHANGED_RESET);
    assert_false(delivery_next_change(d, &change));
    assert_true(delivery_memory_bytes(d) < 12u << 20);
    delivery_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_handed_out_is_leased_and_nothing_else_is),
        cmocka_unit_test(what_cannot_be_handed_out_is_passed_over),
        cmocka_unit_test(an_old_lease_number_gives_nothing),
        cmocka_unit_test(what_a_member_holds_is_counted),
        cmocka_unit_test(acks_in_any_order_move_the_floor),
        cmocka_unit_test(an_item_is_carried_out_whole_or_not_at_all),
        cmocka_unit_test(items_that_cannot_be_are_refused),
        cmocka_unit_test(the_same_item_again_is_answered_as_the_first_time),
        cmocka_unit_test(an_ack_may_name_again_what_is_acked_already),
        cmocka_unit_test(the_last_ended_leases_are_remembered),
        cmocka_unit_test(a_nacked_message_waits_and_comes_again),
        cmocka_unit_test(due_times_are_told_by_runs),
        cmocka_unit_test(a_released_message_has_not_failed),
        cmocka_unit_test(an_expired_lease_gives_back_what_is_left),
        cmocka_unit_test(a_lease_is_extended_while_something_is_left),
        cmocka_unit_test(the_latest_failures_are_remembered),
        cmocka_unit_test(a_nack_with_the_record_makes_a_dead_letter),
        cmocka_unit_test(a_reject_without_a_record_is_corrupt),
        cmocka_unit_test(a_replayed_letter_is_handed_out_again),
        cmocka_unit_test(a_replayed_letter_that_dies_again_keeps_its_number),
        cmocka_unit_test(a_dropped_letter_is_gone),
        cmocka_unit_test(one_of_a_key_is_leased_at_a_time),
        cmocka_unit_test(a_key_that_is_free_again_is_told),
        cmocka_unit_test(a_dead_letter_parks_its_key_if_the_entry_says_so),
        cmocka_unit_test(what_retention_drops_has_expired),
        cmocka_unit_test(a_reset_starts_anew),
        cmocka_unit_test(the_next_fresh_ones_are_found),
        cmocka_unit_test(runs_are_walked_in_order),
        cmocka_unit_test(too_many_changes_are_told_as_a_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
