/* Dead letters: at exactly the limit, whole, with their history; replayed, edited, dropped, read
 * like a topic; also when the log has dropped them (INV-Q01, INV-Q04). */
#include "lib/hand_fixture.h"

#define Q "q"

static const struct subscription_create_request quick = {.from = FERRY_FROM_START,
                                                         .lease_ms = 5000,
                                                         .max_deliveries = 3,
                                                         .backoff_min_ms = 1000,
                                                         .backoff_max_ms = 1000,
                                                         .priority_age_ms = UINT32_MAX};
static struct dead_item dead[300];
static struct part_record records[300];
static const struct bytes nobody = {0};

static void open_queue(struct part_fixture *f, uint32_t count)
{
    part_open(f);
    hand_make(f, Q, SUBSCRIPTION_QUEUE, &quick);
    (void)part_produce(f, &(struct batch_of){.count = count, .content = 100});
}

static enum ferry_err settle(struct part_fixture *f, const struct hand *h, uint32_t kind,
                             int64_t first, uint32_t count)
{
    return hand_settle(f, Q, h, kind, first, count, -1);
}

static void reject_all(struct part_fixture *f, uint32_t count)
{
    hand_settle_all(f, Q, hand_take(f, Q, "a", count), SETTLE_REJECT);
}

/* Twice it comes back, the third failure ends it: not one sooner, not one later. */
static void a_message_dies_at_the_limit(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f, 1);
    for (uint32_t i = 1; i <= 3; i++) {
        struct hand *h = hand_take(f, Q, "a", 1);
        assert_int_equal(h->messages[0].handed, i);
        assert_int_equal(hand_get(f, Q).dead, 0);
        assert_int_equal(settle(f, h, SETTLE_NACK, 0, 1), FERRY_OK);
        part_pass_ms(f, 1000);
    }
    hand_nothing(f, Q, "a");
    struct subscription_get_reply r = hand_get(f, Q);
    assert_true(r.dead == 1 && r.died == 1 && r.failed == 3 && r.handed_out == 3);
    assert_int_equal(hand_dead(f, Q, dead, 300), 1);
    assert_int_equal(dead[0].number, 1);
    assert_int_equal(dead[0].offset, 0);
    assert_int_equal(dead[0].failed, 3);
    assert_int_equal(dead[0].handed_out, 3);
    assert_int_equal(dead[0].failure_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        const struct failure *x = &dead[0].failures[i];
        assert_int_equal(x->kind, FAILURE_NACK);
        assert_true(bytes_equal(x->reason, bytes_of_string("why")));
        assert_true(i == 0 || x->time_ms >= dead[0].failures[i - 1].time_ms + 500);
    }
    hand_conserves(f, Q, 0);
}

/* An ended lease is a failure like others, and may be the last one. */
static void a_message_dies_when_its_lease_ends(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f, 2);
    for (int i = 0; i < 3; i++) {
        (void)hand_take(f, Q, "b", 2);
        part_pass_ms(f, 5000);
        part_pass_ms(f, 1000);
    }
    hand_nothing(f, Q, "b");
    assert_int_equal(hand_dead(f, Q, dead, 300), 2);
    assert_int_equal(dead[1].failure_count, 3);
    assert_int_equal(dead[1].failures[2].kind, FAILURE_EXPIRED);
    assert_true(bytes_equal(dead[1].failures[2].member, bytes_of_string("b")));
    assert_int_equal(hand_get(f, Q).failed, 6);
    hand_conserves(f, Q, 0);
}

/* Rejected: never again, at once. */
static void a_rejected_message_is_dead_at_once(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f, 3);
    struct hand *h = hand_take(f, Q, "a", 3);
    assert_int_equal(settle(f, h, SETTLE_REJECT, 1, 2), FERRY_OK);
    assert_int_equal(settle(f, h, SETTLE_REJECT, 1, 2), FERRY_OK);
    assert_int_equal(hand_dead(f, Q, dead, 300), 2);
    assert_int_equal(dead[0].offset, 1);
    assert_int_equal(dead[0].failures[0].kind, FAILURE_REJECT);
    assert_true(bytes_equal(dead[0].reason, bytes_of_string("why")));
    assert_int_equal(hand_get(f, Q).dead, 2);
    assert_int_equal(settle(f, h, SETTLE_ACK, 0, 1), FERRY_OK);
    assert_int_equal(hand_get(f, Q).position, 3);
    hand_conserves(f, Q, 0);
}

static void trim_all(struct part_fixture *f)
{
    struct topic_settings s = {.retention_ms = 1, .retention_bytes = -1, .dedupe_window_ms = -1};
    f->config.settings = s;
    partition_configure(f->p, &s);
    part_pass_seconds(f, 5);
    assert_int_equal(partition_start_offset(f->p), partition_end_offset(f->p));
    part_flush(f);
}

/* It is whole though the log has dropped it, and after a crash. */
static void a_dead_letter_outlives_the_log(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f, 4);
    struct hand *h = hand_take(f, Q, "a", 4);
    assert_int_equal(settle(f, h, SETTLE_REJECT, 1, 2), FERRY_OK);
    trim_all(f);
    part_crash(f);
    part_open(f);
    assert_int_equal(hand_read_dead(f, Q, records, 300), 2);
    assert_int_equal(records[0].offset, 1);
    assert_int_equal(records[0].content, 101);
    assert_int_equal(records[1].content, 102);
    assert_int_equal(hand_get(f, Q).expired, 2);
    hand_conserves(f, Q, 0);
    /* And is handed out again from there. */
    assert_int_equal(hand_dead_change(f, Q, DEAD_REPLAY, 2, nobody), 1);
    h = hand_take(f, Q, "a", 1);
    assert_int_equal(h->messages[0].offset, 2);
    assert_int_equal(h->messages[0].content, 102);
    assert_int_equal(h->messages[0].handed, 1);
    assert_int_equal(settle(f, h, SETTLE_ACK, 2, 1), FERRY_OK);
    assert_int_equal(hand_dead(f, Q, dead, 300), 1);
    hand_conserves(f, Q, 0);
}

/* Replayed: counters at 0, the history kept; it may die again. */
static void a_replayed_message_lives_another_life(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f, 1);
    reject_all(f, 1);
    assert_int_equal(hand_dead_change(f, Q, DEAD_REPLAY, 1, nobody), 1);
    assert_int_equal(hand_dead_change(f, Q, DEAD_REPLAY, 1, nobody), 0);
    assert_int_equal(hand_dead_change(f, Q, DEAD_REPLAY, 9, nobody), 0);
    assert_int_equal(hand_dead(f, Q, dead, 300), 1);
    assert_true(dead[0].revived);
    for (uint32_t i = 1; i <= 3; i++) {
        struct hand *h = hand_take(f, Q, "a", 1);
        assert_int_equal(h->messages[0].handed, i);
        assert_int_equal(settle(f, h, SETTLE_NACK, 0, 1), FERRY_OK);
        part_pass_ms(f, 1000);
    }
    hand_nothing(f, Q, "a");
    assert_int_equal(hand_dead(f, Q, dead, 300), 1);
    assert_false(dead[0].revived);
    assert_int_equal(dead[0].failure_count, 4);
    assert_int_equal(dead[0].failures[0].kind, FAILURE_REJECT);
    assert_int_equal(dead[0].failures[3].kind, FAILURE_NACK);
    assert_int_equal(hand_read_dead(f, Q, records, 300), 1);
    assert_int_equal(records[0].content, 100);
    struct subscription_get_reply r = hand_get(f, Q);
    assert_true(r.died == 2 && r.revived == 1 && r.dead == 1);
    hand_conserves(f, Q, 0);
}

/* The edited one takes the place of the first. */
static void an_edited_message_takes_its_place(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f, 1);
    reject_all(f, 1);
    struct bytes edited = part_batch(f, &(struct batch_of){.count = 1, .content = 777});
    assert_int_equal(hand_dead_change(f, Q, DEAD_REPLAY, 1, edited), 1);
    struct hand *h = hand_take(f, Q, "a", 1);
    assert_int_equal(h->messages[0].content, 777);
    assert_int_equal(h->messages[0].offset, 0);
    part_crash(f);
    part_open(f);
    assert_int_equal(settle(f, h, SETTLE_REJECT, 0, 1), FERRY_OK);
    assert_int_equal(hand_read_dead(f, Q, records, 300), 1);
    assert_int_equal(records[0].content, 777);
    assert_int_equal(hand_dead_change(f, Q, DEAD_REPLAY, 1, nobody), 1);
    h = hand_take(f, Q, "a", 1);
    assert_int_equal(h->messages[0].content, 777);
    assert_int_equal(settle(f, h, SETTLE_ACK, 0, 1), FERRY_OK);
    assert_int_equal(hand_dead(f, Q, dead, 300), 0);
    hand_conserves(f, Q, 0);
}

static void a_dropped_dead_letter_is_gone(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f, 3);
    reject_all(f, 3);
    assert_int_equal(hand_dead_change(f, Q, DEAD_DROP, 2, nobody), 1);
    assert_int_equal(hand_dead_change(f, Q, DEAD_DROP, 2, nobody), 0);
    assert_int_equal(hand_dead(f, Q, dead, 300), 2);
    assert_int_equal(dead[1].number, 3);
    /* One that is on its way again goes too, and can be settled no more. */
    assert_int_equal(hand_dead_change(f, Q, DEAD_REPLAY, 3, nobody), 1);
    struct hand *h = hand_take(f, Q, "a", 1);
    assert_int_equal(hand_dead_change(f, Q, DEAD_DROP, 3, nobody), 1);
    assert_int_equal(settle(f, h, SETTLE_ACK, 2, 1), FERRY_ERR_LEASE_EXPIRED);
    assert_int_equal(hand_dead(f, Q, dead, 300), 1);
    part_pass_seconds(f, 10);
    hand_nothing(f, Q, "a");
    hand_conserves(f, Q, 0);
}

/* After a reset a message may die twice, with two numbers. All this at one time of the log. */
static void letters_of_one_offset_are_handed_out_once(void **state)
{
    struct part_fixture *f = *state;
    struct subscription_reset_request reset = {.name = bytes_of_string(Q), .to = FERRY_FROM_START};
    open_queue(f, 1);
    reject_all(f, 1);
    assert_int_equal(
        partition_subscription_reset(f->p, &reset, nobody, f->now_ms, f->now_us, part_ticket(f)),
        FERRY_OK);
    part_turn(f);
    reject_all(f, 1);
    assert_int_equal(hand_dead(f, Q, dead, 300), 2);
    assert_true(dead[0].offset == 0 && dead[1].offset == 0);
    assert_int_equal(hand_dead_change(f, Q, DEAD_REPLAY, 1, nobody), 1);
    assert_int_equal(hand_dead_change(f, Q, DEAD_DROP, 1, nobody), 1);
    assert_int_equal(hand_dead_change(f, Q, DEAD_REPLAY, 2, nobody), 1);
    struct hand *h = hand_receive(f, Q, "a", 10);
    assert_int_equal(h->count, 1);
    hand_nothing(f, Q, "b");
    assert_int_equal(settle(f, h, SETTLE_ACK, 0, 1), FERRY_OK);
    assert_int_equal(hand_dead(f, Q, dead, 300), 0);
    hand_conserves(f, Q, 0);
}

static void bad_changes_are_refused(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f, 1);
    reject_all(f, 1);
    struct dead_change_request q = {
        .subscription = bytes_of_string(Q), .kind = 3, .count = 1, .items = {{.number = 1}}};
    struct bytes two = part_batch(f, &(struct batch_of){.count = 2});
    struct partition_ticket *t = part_ticket(f);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(
        partition_dead_change(f->p, &q, nobody, nobody, f->now_ms, f->now_us, t, &f->detail),
        FERRY_ERR_INVALID_ARGUMENT);
    q.kind = DEAD_REPLAY;
    assert_int_equal(
        partition_dead_change(f->p, &q, two, nobody, f->now_ms, f->now_us, t, &f->detail),
        FERRY_ERR_BAD_BATCH);
    assert_int_equal(partition_dead_change(f->p, &q, bytes_of("junk", 4), nobody, f->now_ms,
                                           f->now_us, t, &f->detail),
                     FERRY_ERR_BAD_BATCH);
    q.kind = DEAD_DROP;
    assert_int_equal(partition_dead_change(f->p, &q, part_batch(f, &(struct batch_of){.count = 1}),
                                           nobody, f->now_ms, f->now_us, t, &f->detail),
                     FERRY_ERR_INVALID_ARGUMENT);
    store_read_end(f->store);
    assert_int_equal(hand_dead(f, Q, dead, 300), 1);
}

/* Pages, by number; a reason filters. */
static void dead_letters_are_listed_in_pages(void **state)
{
    struct part_fixture *f = *state;
    open_queue(f, 250);
    reject_all(f, 250);
    part_flush(f);
    (void)part_produce(f, &(struct batch_of){.count = 40, .content = 350});
    reject_all(f, 40);
    assert_int_equal(hand_dead(f, Q, dead, 300), 290);
    assert_int_equal(hand_read_dead(f, Q, records, 300), 290);
    for (uint32_t i = 0; i < 290; i++) {
        assert_int_equal(dead[i].number, i + 1);
        assert_int_equal(records[i].offset, i + 1);
        assert_int_equal(records[i].content, 100 + i);
    }
    static struct dead_list_reply reply;
    struct dead_list_request q = {.subscription = bytes_of_string(Q),
                                  .reason = bytes_of_string("another")};
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_dead_list(f->p, &q, &reply), FERRY_OK);
    store_read_end(f->store);
    assert_true(reply.count == 0 && reply.next == 0 && reply.total == 290);
}

/* One entry holds so many bytes of records: requests come again, leases end in parts. */
static void large_messages_die_in_several_entries(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    hand_make(f, Q, SUBSCRIPTION_QUEUE, &quick);
    for (uint64_t i = 0; i < 12; i++) {
        (void)part_produce(f, &(struct batch_of){.payload_bytes = 900000, .content = i});
    }
    struct receive r = {.subscription = bytes_of_string(Q),
                        .member = bytes_of_string("m"),
                        .max_messages = 12,
                        .max_bytes = 64u << 20};
    struct hand *h = hand_receive_with(f, &r);
    assert_int_equal(h->count, 12);
    struct settle_item items[4] = {
        hand_item(h, SETTLE_REJECT, 0, 2, -1), hand_item(h, SETTLE_REJECT, 2, 2, -1),
        hand_item(h, SETTLE_REJECT, 4, 1, -1), hand_item(h, SETTLE_ACK, 5, 1, -1)};
    struct partition_ticket *t = hand_propose(f, Q, items, 4);
    part_turn(f);
    assert_int_equal(hand_status(t, 0), FERRY_OK);
    assert_int_equal(hand_status(t, 1), FERRY_OK);
    assert_int_equal(hand_status(t, 2), FERRY_ERR_THROTTLED);
    assert_int_equal(hand_status(t, 3), FERRY_OK);
    assert_int_equal(settle(f, h, SETTLE_REJECT, 6, 6), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(hand_get(f, Q).leased, 7);
    for (int i = 0; i < 3; i++) {
        part_pass_seconds(f, 8);
        h = i < 2 ? hand_receive_with(f, &r) : h;
        assert_int_equal(h->count, 7);
    }
    assert_int_equal(hand_get(f, Q).leased, 0);
    assert_int_equal(hand_dead(f, Q, dead, 300), 11);
    hand_conserves(f, Q, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(a_message_dies_at_the_limit),
        part_test(a_message_dies_when_its_lease_ends),
        part_test(a_rejected_message_is_dead_at_once),
        part_test(a_dead_letter_outlives_the_log),
        part_test(a_replayed_message_lives_another_life),
        part_test(an_edited_message_takes_its_place),
        part_test(a_dropped_dead_letter_is_gone),
        part_test(letters_of_one_offset_are_handed_out_once),
        part_test(bad_changes_are_refused),
        part_test(dead_letters_are_listed_in_pages),
        part_test(large_messages_die_in_several_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
