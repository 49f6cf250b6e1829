/* Mode keyed: one message of a key in flight, in order, keys beside each other; a failing key holds
 * back itself alone, or is parked (INV-Q06). */
#include "base/checksum.h"
#include "lib/hand_fixture.h"

#define K "k"

static const struct subscription_create_request quick = {.from = FERRY_FROM_START,
                                                         .lease_ms = 5000,
                                                         .max_deliveries = 2,
                                                         .backoff_min_ms = 1000,
                                                         .backoff_max_ms = 1000,
                                                         .priority_age_ms = UINT32_MAX};
static struct dead_item dead[300];
static const struct bytes nobody = {0};

static void open_keyed(struct part_fixture *f, const char *const *keys, uint32_t count, bool parks)
{
    struct subscription_create_request q = quick;
    q.key_policy = parks ? KEY_POLICY_PARK : KEY_POLICY_WAIT;
    part_open(f);
    hand_make(f, K, SUBSCRIPTION_KEYED, &q);
    if (count > 0) {
        hand_produce(f, &(struct keyed_of){.count = count, .keys = keys, .content = 100});
    }
}

static enum ferry_err settle(struct part_fixture *f, const struct hand *h, uint32_t kind,
                             int64_t first)
{
    return hand_settle(f, K, h, kind, first, 1, -1);
}

/* Exactly these offsets come, in this order. */
static struct hand *expect(struct part_fixture *f, uint32_t count, const int64_t *offsets)
{
    struct hand *h = hand_receive(f, K, "m", 100);
    assert_int_equal(h->answer, RECEIVE_PROPOSED);
    assert_int_equal(h->count, count);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(h->messages[i].offset, offsets[i]);
    }
    return h;
}
#define EXPECT(f, ...)                                                                             \
    expect((f), sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (int64_t[]){__VA_ARGS__})

/* The first of each key, then the next as the one before is acked. */
static void one_of_a_key_is_out_at_a_time(void **state)
{
    struct part_fixture *f = *state;
    static const char *const keys[] = {"a", "a", "b", "a", "b", "c"};
    open_keyed(f, keys, 6, false);
    struct hand *h = EXPECT(f, 0, 2, 5);
    hand_nothing(f, K, "m");
    assert_int_equal(settle(f, h, SETTLE_ACK, 0), FERRY_OK);
    struct hand *second = EXPECT(f, 1);
    assert_int_equal(settle(f, h, SETTLE_ACK, 2), FERRY_OK);
    assert_int_equal(settle(f, second, SETTLE_ACK, 1), FERRY_OK);
    struct hand *third = EXPECT(f, 3, 4);
    hand_settle_all(f, K, third, SETTLE_ACK);
    assert_int_equal(settle(f, h, SETTLE_ACK, 5), FERRY_OK);
    assert_int_equal(hand_get(f, K).position, 6);
    hand_conserves(f, K, 0);
}

/* Records without a key wait for nobody. */
static void messages_without_a_key_are_free(void **state)
{
    struct part_fixture *f = *state;
    static const char *const keys[] = {"a", "", "a", "", ""};
    open_keyed(f, keys, 5, false);
    (void)EXPECT(f, 0, 1, 3, 4);
}

/* Several hand-outs of one turn do not give one key to two members. */
static void hand_outs_under_way_hold_their_keys(void **state)
{
    struct part_fixture *f = *state;
    static const char *const keys[] = {"a", "a", "b", "b"};
    open_keyed(f, keys, 4, false);
    struct receive r = {.subscription = bytes_of_string(K),
                        .member = bytes_of_string("m"),
                        .max_messages = 1,
                        .max_bytes = 1000};
    enum receive_answer answer[3];
    struct partition_ticket *t[3];
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    for (int i = 0; i < 3; i++) {
        t[i] = part_ticket(f);
        assert_int_equal(partition_receive(f->p, &r, f->now_ms, f->now_us, t[i], &answer[i]),
                         FERRY_OK);
    }
    store_read_end(f->store);
    assert_int_equal(answer[0], RECEIVE_PROPOSED);
    assert_int_equal(answer[1], RECEIVE_PROPOSED);
    assert_int_equal(answer[2], RECEIVE_NOTHING);
    part_turn(f);
    assert_int_equal(hand_get(f, K).leased, 2);
    hand_nothing(f, K, "m");
}

/* What failed is tried again before those behind it; other keys go on. */
static void a_failing_key_holds_back_itself_alone(void **state)
{
    struct part_fixture *f = *state;
    static const char *const keys[] = {"a", "a", "b", "b"};
    open_keyed(f, keys, 4, false);
    struct hand *h = EXPECT(f, 0, 2);
    assert_int_equal(settle(f, h, SETTLE_NACK, 0), FERRY_OK);
    assert_int_equal(settle(f, h, SETTLE_ACK, 2), FERRY_OK);
    struct hand *b = EXPECT(f, 3);
    assert_int_equal(settle(f, b, SETTLE_ACK, 3), FERRY_OK);
    hand_nothing(f, K, "m");
    part_pass_ms(f, 1000);
    h = EXPECT(f, 0);
    hand_nothing(f, K, "m");
    assert_int_equal(settle(f, h, SETTLE_NACK, 0), FERRY_OK);
    /* Dead: the next of the key is free. */
    assert_int_equal(hand_get(f, K).dead, 1);
    h = EXPECT(f, 1);
    assert_int_equal(settle(f, h, SETTLE_ACK, 1), FERRY_OK);
    hand_conserves(f, K, 0);
}

/* The same after a crash: who is out and who waits is in the log. */
static void keys_are_held_after_a_crash(void **state)
{
    struct part_fixture *f = *state;
    static const char *const keys[] = {"a", "a", "b", "b", "c"};
    open_keyed(f, keys, 5, false);
    struct hand *h = EXPECT(f, 0, 2, 4);
    assert_int_equal(settle(f, h, SETTLE_NACK, 2), FERRY_OK);
    assert_int_equal(settle(f, h, SETTLE_ACK, 4), FERRY_OK);
    part_crash(f);
    part_open(f);
    hand_nothing(f, K, "m");
    assert_int_equal(settle(f, h, SETTLE_ACK, 0), FERRY_OK);
    (void)EXPECT(f, 1);
    part_pass_ms(f, 1000);
    (void)EXPECT(f, 2);
    hand_nothing(f, K, "m");
}

/* Released goes at once, in front of those behind it. */
static void a_released_message_keeps_its_place(void **state)
{
    struct part_fixture *f = *state;
    static const char *const keys[] = {"a", "a"};
    open_keyed(f, keys, 2, false);
    struct hand *h = EXPECT(f, 0);
    assert_int_equal(settle(f, h, SETTLE_RELEASE, 0), FERRY_OK);
    h = EXPECT(f, 0);
    assert_int_equal(settle(f, h, SETTLE_ACK, 0), FERRY_OK);
    (void)EXPECT(f, 1);
}

/* ---- Parking ---- */

/* Once one of a key is dead those after it follow, until the key has none left. */
static void a_parked_key_goes_to_the_dead_letters(void **state)
{
    struct part_fixture *f = *state;
    static const char *const keys[] = {"a", "a", "b", "a", "b"};
    open_keyed(f, keys, 5, true);
    struct hand *h = EXPECT(f, 0, 2);
    assert_int_equal(settle(f, h, SETTLE_REJECT, 0), FERRY_OK);
    part_turn(f);
    assert_int_equal(hand_dead(f, K, dead, 300), 3);
    for (uint32_t i = 1; i < 3; i++) {
        assert_int_equal(dead[i].offset, i == 1 ? 1 : 3);
        assert_int_equal(dead[i].failures[0].kind, FAILURE_PARKED);
        assert_int_equal(dead[i].handed_out, 0);
    }
    hand_nothing(f, K, "m");
    assert_int_equal(settle(f, h, SETTLE_ACK, 2), FERRY_OK);
    h = EXPECT(f, 4);
    assert_int_equal(settle(f, h, SETTLE_ACK, 4), FERRY_OK);
    /* Also what comes later. */
    static const char *const more[] = {"b", "a"};
    hand_produce(f, &(struct keyed_of){.count = 2, .keys = more, .content = 105});
    h = EXPECT(f, 5);
    assert_int_equal(settle(f, h, SETTLE_ACK, 5), FERRY_OK);
    part_turn(f);
    assert_int_equal(hand_dead(f, K, dead, 300), 4);
    hand_conserves(f, K, 0);
    /* All dropped: the key is free. */
    for (uint64_t n = 1; n <= 4; n++) {
        assert_int_equal(hand_dead_change(f, K, DEAD_DROP, n, nobody), 1);
    }
    hand_produce(f, &(struct keyed_of){.count = 2, .keys = more, .content = 107});
    (void)EXPECT(f, 7, 8);
    hand_conserves(f, K, 0);
}

/* Replayed in order they come one after another, before what is behind them. */
static void a_parked_key_is_replayed_in_order(void **state)
{
    struct part_fixture *f = *state;
    static const char *const keys[] = {"a", "a", "a"};
    open_keyed(f, keys, 3, true);
    struct hand *h = EXPECT(f, 0);
    assert_int_equal(settle(f, h, SETTLE_REJECT, 0), FERRY_OK);
    part_turn(f);
    assert_int_equal(hand_get(f, K).dead, 3);
    for (uint64_t n = 1; n <= 3; n++) {
        assert_int_equal(hand_dead_change(f, K, DEAD_REPLAY, n, nobody), 1);
    }
    hand_produce(f, &(struct keyed_of){.count = 1, .keys = keys, .content = 103});
    for (int64_t at = 0; at <= 3; at++) {
        h = EXPECT(f, at);
        hand_nothing(f, K, "m");
        assert_int_equal(settle(f, h, SETTLE_ACK, at), FERRY_OK);
    }
    hand_nothing(f, K, "m");
    assert_int_equal(hand_get(f, K).dead, 0);
    hand_conserves(f, K, 0);
}

/* A message replayed while another of its key is out waits for it. */
static void a_replayed_message_waits_for_its_key(void **state)
{
    struct part_fixture *f = *state;
    static const char *const keys[] = {"a", "a", "a"};
    open_keyed(f, keys, 3, false);
    struct hand *h = EXPECT(f, 0);
    assert_int_equal(settle(f, h, SETTLE_REJECT, 0), FERRY_OK);
    h = EXPECT(f, 1);
    assert_int_equal(hand_dead_change(f, K, DEAD_REPLAY, 1, nobody), 1);
    hand_nothing(f, K, "m");
    assert_int_equal(settle(f, h, SETTLE_ACK, 1), FERRY_OK);
    h = EXPECT(f, 0);
    hand_nothing(f, K, "m");
    assert_int_equal(settle(f, h, SETTLE_ACK, 0), FERRY_OK);
    (void)EXPECT(f, 2);
}

/* ---- Many ---- */

/* A backlog of one key does not hide the others behind it, however long it is. */
static void a_long_key_hides_nobody(void **state)
{
    struct part_fixture *f = *state;
    static const char *one[2000];
    static const char *const other[] = {"b"};
    for (size_t i = 0; i < 2000; i++) {
        one[i] = "a";
    }
    open_keyed(f, NULL, 0, false);
    for (int i = 0; i < 5; i++) {
        hand_produce(f, &(struct keyed_of){.count = 2000, .keys = one, .payload_bytes = 300});
    }
    hand_produce(f, &(struct keyed_of){.count = 1, .keys = other, .content = 5});
    (void)EXPECT(f, 0, 10000);
}

/* Trimmed while they wait behind a key: gone, and the key goes on. */
static void trimmed_messages_leave_their_key(void **state)
{
    struct part_fixture *f = *state;
    static const char *const keys[] = {"a", "a", "a"};
    open_keyed(f, keys, 3, false);
    (void)EXPECT(f, 0);
    struct topic_settings s = {.retention_ms = 3000, .retention_bytes = -1, .dedupe_window_ms = -1};
    partition_configure(f->p, &s);
    part_pass_seconds(f, 3);
    hand_produce(f, &(struct keyed_of){.count = 2, .keys = keys, .content = 200});
    part_pass_seconds(f, 2);
    assert_int_equal(partition_start_offset(f->p), 3);
    struct hand *h = EXPECT(f, 3);
    assert_int_equal(settle(f, h, SETTLE_ACK, 3), FERRY_OK);
    (void)EXPECT(f, 4);
    assert_int_equal(hand_get(f, K).expired, 3);
    hand_conserves(f, K, 0);
}

/* Trimmed before they could be parked: gone, and nothing is amiss with the log. */
static void trimmed_messages_are_not_parked(void **state)
{
    struct part_fixture *f = *state;
    static const char *const keys[] = {"a", "a", "a", "b"};
    open_keyed(f, keys, 4, true);
    struct hand *h = EXPECT(f, 0, 3);
    struct topic_settings s = {.retention_ms = 2000, .retention_bytes = -1, .dedupe_window_ms = -1};
    struct settle_item item = hand_item(h, SETTLE_REJECT, 0, 1, -1);
    (void)hand_propose(f, K, &item, 1);
    partition_configure(f->p, &s);
    f->now_ms += 3000;
    f->now_us += 3000000;
    part_turn(f);
    part_pass_seconds(f, 3);
    assert_int_equal(partition_start_offset(f->p), 4);
    uint32_t letters = hand_dead(f, K, dead, 300);
    assert_true(letters >= 1 && letters <= 3);
    assert_int_equal(hand_get(f, K).expired, 4 - letters);
    static const char *const more[] = {"b", "a"};
    hand_produce(f, &(struct keyed_of){.count = 2, .keys = more, .content = 200});
    (void)EXPECT(f, 4);
    part_turn(f);
    assert_int_equal(hand_get(f, K).dead, letters + 1);
    hand_conserves(f, K, 0);
}

static struct bytes record_of(struct part_fixture *f, const char *key, struct batch_writer *w)
{
    struct bytes batch;
    uint8_t payload[8] = {0};
    struct batch_record r = {.timestamp_ms = f->now_ms,
                             .has_key = true,
                             .key = bytes_of_string(key),
                             .payload = bytes_of(payload, sizeof(payload))};
    assert_int_equal(batch_writer_add(w, &r), FERRY_OK);
    assert_int_equal(batch_writer_finish(w, 0, 0, 0, &batch), FERRY_OK);
    return batch;
}

/* Replayed with another key it parks that one when it dies again. A drop behind that end, before it
 * is applied, would not know: the key would be parked for ever. */
static void a_drop_does_not_pass_by_the_end_of_what_was_replayed(void **state)
{
    struct part_fixture *f = *state;
    static const char *const keys[] = {"a", "c", "b"};
    struct batch_writer w;
    batch_writer_init(&w, BATCH_MAX_BYTES);
    open_keyed(f, keys, 2, true);
    hand_settle_all(f, K, EXPECT(f, 0, 1), SETTLE_REJECT);
    assert_int_equal(hand_dead_change(f, K, DEAD_REPLAY, 1, record_of(f, "b", &w)), 1);
    struct hand *h = EXPECT(f, 0);
    struct settle_item reject = hand_item(h, SETTLE_REJECT, 0, 1, -1);
    (void)hand_propose(f, K, &reject, 1);
    struct dead_change_request q = {.subscription = bytes_of_string(K),
                                    .kind = DEAD_DROP,
                                    .count = 1,
                                    .items = {{.number = 1}}};
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_dead_change(f->p, &q, nobody, nobody, f->now_ms, f->now_us,
                                           part_ticket(f), &f->detail),
                     FERRY_ERR_THROTTLED);
    store_read_end(f->store);
    part_turn(f);
    assert_int_equal(hand_dead_change(f, K, DEAD_DROP, 1, nobody), 1);
    hand_produce(f, &(struct keyed_of){.count = 1, .keys = keys + 2, .content = 200});
    (void)EXPECT(f, 2);
    hand_conserves(f, K, 0);
    batch_writer_fini(&w);
}

/* The checksum holds, the records' sizes add up, and one record's key runs past its end: it could
 * neither be handed out nor become a dead letter, and nothing behind it would be found. */
static void a_record_that_cannot_be_read_is_not_taken(void **state)
{
    struct part_fixture *f = *state;
    static const char *const keys[] = {"a", "b"};
    struct batch_writer w;
    struct batch_header h;
    batch_writer_init(&w, BATCH_MAX_BYTES);
    open_keyed(f, keys, 1, false);
    struct bytes good = record_of(f, "k", &w);
    uint8_t *bad = part_keep(f, good.data, good.size);
    bad[BATCH_HEADER_BYTES + 2] = 0x7f; /* The key's size. */
    put_le64(bad + 8, checksum_of(bad + 16, good.size - 16));
    struct bytes batch = bytes_of(bad, good.size);
    assert_int_equal(batch_check(batch, &h, NULL), FERRY_OK);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(
        partition_produce(f->p, batch, f->now_ms, f->now_us, part_ticket(f), &f->detail),
        FERRY_ERR_BAD_BATCH);
    store_read_end(f->store);
    hand_produce(f, &(struct keyed_of){.count = 1, .keys = keys + 1, .content = 300});
    hand_settle_all(f, K, EXPECT(f, 0, 1), SETTLE_REJECT);
    struct dead_change_request q = {.subscription = bytes_of_string(K),
                                    .kind = DEAD_REPLAY,
                                    .count = 1,
                                    .items = {{.number = 1}}};
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_dead_change(f->p, &q, batch, nobody, f->now_ms, f->now_us,
                                           part_ticket(f), &f->detail),
                     FERRY_ERR_BAD_BATCH);
    store_read_end(f->store);
    batch_writer_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(one_of_a_key_is_out_at_a_time),
        part_test(messages_without_a_key_are_free),
        part_test(hand_outs_under_way_hold_their_keys),
        part_test(a_failing_key_holds_back_itself_alone),
        part_test(keys_are_held_after_a_crash),
        part_test(a_released_message_keeps_its_place),
        part_test(a_parked_key_goes_to_the_dead_letters),
        part_test(a_parked_key_is_replayed_in_order),
        part_test(a_replayed_message_waits_for_its_key),
        part_test(a_long_key_hides_nobody),
        part_test(trimmed_messages_leave_their_key),
        part_test(trimmed_messages_are_not_parked),
        part_test(a_drop_does_not_pass_by_the_end_of_what_was_replayed),
        part_test(a_record_that_cannot_be_read_is_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
