/* Hand-outs that are larger than the answer can be: how large a message is, is known by the mean of
 * its batch, so the large ones of uneven batches, asked for alone, are more than they seemed. */
#include "base/mem.h"
#include "lib/hand_fixture.h"

#define Q           "q"
#define BATCHES     20
#define SMALL       50 /* Of each batch, behind a large one. */
#define LARGE_BYTES (200 << 10)
#define ROOM_BYTES  (1u << 20)

static void produce_uneven(struct part_fixture *f, uint64_t content)
{
    struct batch_writer w;
    struct bytes batch;
    uint8_t *payload = mem_zalloc(1, LARGE_BYTES);
    batch_writer_init(&w, BATCH_MAX_BYTES);
    for (uint32_t i = 0; i <= SMALL; i++) {
        put_le64(payload, content + i);
        struct batch_record r = {.timestamp_ms = f->now_ms,
                                 .payload = bytes_of(payload, i == 0 ? LARGE_BYTES : 8)};
        assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
    }
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    struct partition_ticket *t = part_ticket(f);
    batch = bytes_of(part_keep(f, batch.data, batch.size), batch.size);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_produce(f->p, batch, f->now_ms, f->now_us, t, &f->detail), FERRY_OK);
    store_read_end(f->store);
    part_turn(f);
    batch_writer_fini(&w);
    mem_free(payload);
}

/* The large ones wait, all others are acked. */
static void leave_large_ones(struct part_fixture *f)
{
    int64_t next = 0;
    while (hand_get(f, Q).acked < BATCHES * SMALL) {
        struct hand *h = hand_receive(f, Q, "first", 1 + SMALL);
        assert_int_equal(h->count, 1 + SMALL);
        assert_int_equal(h->messages[0].offset, next);
        assert_int_equal(hand_settle(f, Q, h, SETTLE_NACK, next, 1, 0), FERRY_OK);
        assert_int_equal(hand_settle(f, Q, h, SETTLE_ACK, next + 1, SMALL, -1), FERRY_OK);
        next += 1 + SMALL;
        if (next < BATCHES * (1 + SMALL)) { /* Not at once again. */
            struct hand *again = hand_take(f, Q, "keeper", 1);
            assert_int_equal(
                hand_settle(f, Q, again, SETTLE_NACK, again->messages[0].offset, 1, 60000),
                FERRY_OK);
        }
    }
    part_pass_seconds(f, 61);
    assert_int_equal(hand_get(f, Q).ready, BATCHES);
}

static uint32_t count_in(struct part_fixture *f, const struct buf *out)
{
    uint32_t count = 0;
    for (struct bytes rest = buf_bytes(out); rest.size > 0;) {
        struct fetch_entry entry;
        struct batch_header h;
        assert_int_equal(fetch_entry_next(&rest, &entry, &h, &f->detail), FERRY_OK);
        count += h.count - entry.skip_count;
    }
    return count;
}

/* Receives into an answer of ROOM_BYTES and acks what came. */
static uint32_t receive_and_ack(struct part_fixture *f)
{
    struct receive r = {.subscription = bytes_of_string(Q),
                        .member = bytes_of_string("m"),
                        .max_messages = HAND_MAX,
                        .max_bytes = ROOM_BYTES / 2};
    enum receive_answer answer;
    struct partition_ticket *t = part_ticket(f);
    struct buf repeats, out;
    buf_init(&repeats, HAND_MAX * DELIVERY_REPEAT_BYTES);
    buf_init(&out, ROOM_BYTES);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_receive(f->p, &r, f->now_ms, f->now_us, t, &answer), FERRY_OK);
    assert_int_equal(answer, RECEIVE_PROPOSED);
    store_read_end(f->store);
    part_turn(f);
    uint32_t chosen = t->count;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    enum ferry_err err = partition_read_delivery(f->p, t, &repeats, &out);
    assert_string_equal(ferry_err_name(err), ferry_err_name(FERRY_OK));
    assert_true(t->count > 0);
    assert_int_equal(count_in(f, &out), t->count);
    assert_int_equal(repeats.size, t->count * DELIVERY_REPEAT_BYTES);
    assert_int_equal(t->cut, t->count < chosen);
    assert_int_equal(partition_release_rest(f->p, t, f->now_ms, f->now_us), FERRY_OK);
    store_read_end(f->store);
    part_turn(f);
    assert_int_equal(hand_get(f, Q).leased, t->count);
    struct hand h = {.lease = t->lease, .token = t->token};
    for (size_t at = 0; at < repeats.size; at += DELIVERY_REPEAT_BYTES) {
        int64_t offset = (int64_t)get_le64(repeats.data + at);
        assert_int_equal(hand_settle(f, Q, &h, SETTLE_ACK, offset, 1, -1), FERRY_OK);
    }
    buf_fini(&repeats);
    buf_fini(&out);
    return t->count;
}

/* They come in as many answers as it takes, and none has failed by that. */
static void what_an_answer_has_no_room_for_is_given_back(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    hand_make(f, Q, SUBSCRIPTION_QUEUE, NULL);
    for (uint64_t i = 0; i < BATCHES; i++) {
        produce_uneven(f, i * 1000);
    }
    leave_large_ones(f);
    uint64_t failed = hand_get(f, Q).failed;
    uint32_t left = BATCHES;
    while (left > 0) {
        left -= receive_and_ack(f);
    }
    struct subscription_get_reply s = hand_get(f, Q);
    assert_int_equal(s.failed, failed);
    assert_int_equal(s.acked, BATCHES * (1 + SMALL));
    assert_int_equal(s.dead, 0);
    hand_conserves(f, Q, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(what_an_answer_has_no_room_for_is_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
