/* The entries of deliveries: there and back, and from hostile hands. */
#include "delivery_fixture.h"

#include "wire/pack.h"

static struct buf encoded(void)
{
    struct buf b;
    buf_init(&b, 16u << 20);
    return b;
}

static struct buf scratch_made(void)
{
    struct buf b;
    buf_init(&b, ENTRY_SCRATCH_MAX_BYTES);
    return b;
}

/* ---- There and back ---- */

static struct buf some_hand_outs(struct hand_out_entry *e)
{
    static const struct delivery_range first[] = {{0, 1, 0}, {1, 999, 0}};
    static const struct delivery_range second[] = {{77, 1, UINT64_MAX}, {INT64_MAX - 2, 1, 3}};
    *e = (struct hand_out_entry){.subscription = UINT64_MAX, .node = 3, .count = 3};
    e->hand_outs[0] = (struct delivery_hand_out){.lease = 1,
                                                 .token = token_of(1),
                                                 .lease_ms = 30000,
                                                 .member = bytes_of_string("m"),
                                                 .range_count = 2,
                                                 .ranges = first};
    e->hand_outs[1] = (struct delivery_hand_out){.lease = UINT64_MAX - 1, .token = token_of(2)};
    e->hand_outs[2] = (struct delivery_hand_out){
        .lease = 5, .token = token_of(3), .range_count = 2, .ranges = second};
    struct buf b = encoded();
    hand_out_encode(&b, e);
    assert_true(buf_ok(&b));
    return b;
}

/* What goes in comes out, ends of the numbers included. */
static void hand_outs_come_back_as_they_were(void **state)
{
    (void)state;
    static struct hand_out_entry e;
    static struct hand_out_entry got;
    struct buf b = some_hand_outs(&e);
    struct buf scratch = scratch_made();
    assert_int_equal(hand_out_decode(buf_bytes(&b), &scratch, &got), FERRY_OK);
    assert_int_equal(got.subscription, e.subscription);
    assert_int_equal(got.node, 3);
    assert_int_equal(got.count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        const struct delivery_hand_out *x = &e.hand_outs[i];
        const struct delivery_hand_out *y = &got.hand_outs[i];
        assert_int_equal(y->lease, x->lease);
        assert_memory_equal(&y->token, &x->token, 16);
        assert_int_equal(y->lease_ms, x->lease_ms);
        assert_true(bytes_equal(y->member, x->member));
        assert_int_equal(y->range_count, x->range_count);
        for (uint32_t k = 0; k < x->range_count; k++) {
            assert_int_equal(y->ranges[k].first, x->ranges[k].first);
            assert_int_equal(y->ranges[k].count, x->ranges[k].count);
            assert_int_equal(y->ranges[k].key_hash, x->ranges[k].key_hash);
        }
    }
    buf_fini(&b);
    buf_fini(&scratch);
}

/* The largest entry: more numbers than a payload may have msgpack objects. */
static void the_largest_hand_out_entry_comes_back(void **state)
{
    (void)state;
    static struct hand_out_entry e;
    static struct hand_out_entry got;
    static struct delivery_range ranges[HAND_OUT_RANGES_MAX];
    for (uint32_t i = 0; i < HAND_OUT_RANGES_MAX; i++) {
        ranges[i] = (struct delivery_range){.first = 1 + 3 * i, .count = 1, .key_hash = ~0ull - i};
    }
    e = (struct hand_out_entry){.count = HAND_OUTS_MAX};
    for (uint32_t i = 0; i < HAND_OUTS_MAX; i++) {
        e.hand_outs[i] = (struct delivery_hand_out){
            .lease = i, .range_count = HAND_OUT_RANGES_MAX, .ranges = ranges};
    }
    struct buf b = encoded();
    struct buf scratch = scratch_made();
    hand_out_encode(&b, &e);
    assert_true(buf_ok(&b));
    assert_int_equal(hand_out_decode(buf_bytes(&b), &scratch, &got), FERRY_OK);
    for (uint32_t i = 0; i < HAND_OUTS_MAX; i++) {
        assert_memory_equal(got.hand_outs[i].ranges, ranges, sizeof(ranges));
    }
    buf_fini(&b);
    buf_fini(&scratch);
}

static struct buf some_settlement(enum control_kind kind)
{
    static struct delivery_settle_item items[3];
    static const struct delivery_due dues[] = {
        {0, 5, 1000}, {5, UINT32_MAX, -1}, {1LL << 40, 1, 9}};
    static struct delivery_dead dead[2];
    items[0] = item_of(SETTLE_NACK, 9, 100, 7);
    items[0].due_ms = 12345;
    items[0].reason = bytes_of_string("no paper");
    items[1] = item_of(SETTLE_EXTEND, UINT64_MAX, -5, 0);
    items[1].extend_ms = UINT32_MAX;
    items[2] = item_of(DELIVERY_PARK, 0, INT64_MIN, UINT32_MAX);
    dead[0] = dead_of(-3);
    dead[1] = dead_of(1LL << 50);
    dead[1].key_hash = 77;
    struct delivery_settlement s = {.subscription = 8,
                                    .node = 2,
                                    .member = bytes_of_string("me"),
                                    .count = 3,
                                    .items = items,
                                    .due_count = 3,
                                    .dues = dues,
                                    .dead_count = 2,
                                    .dead = dead};
    struct buf b = encoded();
    settlement_encode(&b, kind, &s);
    assert_true(buf_ok(&b));
    return b;
}

/* Items, due times and dead letters. */
static void settlements_come_back_as_they_were(void **state)
{
    (void)state;
    struct delivery_settlement s;
    struct buf b = some_settlement(CONTROL_SETTLE);
    struct buf scratch = scratch_made();
    assert_int_equal(settlement_decode(buf_bytes(&b), &scratch, &s), FERRY_OK);
    assert_int_equal(s.subscription, 8);
    assert_int_equal(s.node, 2);
    assert_true(bytes_equal(s.member, bytes_of_string("me")));
    assert_int_equal(s.count, 3);
    assert_int_equal(s.items[0].kind, SETTLE_NACK);
    assert_int_equal(s.items[0].lease, 9);
    assert_int_equal(s.items[0].first, 100);
    assert_int_equal(s.items[0].count, 7);
    assert_int_equal(s.items[0].due_ms, 12345);
    assert_true(bytes_equal(s.items[0].reason, bytes_of_string("no paper")));
    assert_int_equal(s.items[1].extend_ms, UINT32_MAX);
    assert_int_equal(s.items[1].first, -5);
    assert_int_equal(s.items[2].first, INT64_MIN);
    assert_int_equal(s.due_count, 3);
    assert_int_equal(s.dues[0].due_ms, 1000);
    assert_int_equal(s.dues[1].first, 5);
    assert_int_equal(s.dues[1].count, UINT32_MAX);
    assert_int_equal(s.dues[1].due_ms, -1);
    assert_int_equal(s.dues[2].first, 1LL << 40);
    assert_int_equal(s.dead_count, 2);
    assert_int_equal(s.dead[0].offset, -3);
    assert_int_equal(s.dead[1].offset, 1LL << 50);
    assert_int_equal(s.dead[1].key_hash, 77);
    assert_true(bytes_equal(s.dead[1].record, bytes_of_string("R")));
    buf_fini(&b);
    buf_fini(&scratch);
}

static struct buf some_dead_change(struct dead_change_entry *e)
{
    *e = (struct dead_change_entry){.subscription = 4,
                                    .node = 1,
                                    .change = DEAD_REPLAY,
                                    .member = bytes_of_string("cli"),
                                    .count = DEAD_CHANGE_MAX};
    for (uint32_t i = 0; i < DEAD_CHANGE_MAX; i++) {
        e->parts[i] = (struct dead_change_part){.number = i + 1,
                                                .key_hash = i * 3,
                                                .parked = i * 5,
                                                .letter = bytes_of("letter", i % 7)};
    }
    struct buf b = encoded();
    dead_change_encode(&b, e);
    assert_true(buf_ok(&b));
    return b;
}

/* As many parts as there may be. */
static void dead_changes_come_back_as_they_were(void **state)
{
    (void)state;
    static struct dead_change_entry e;
    static struct dead_change_entry got;
    struct buf b = some_dead_change(&e);
    assert_int_equal(dead_change_decode(buf_bytes(&b), &got), FERRY_OK);
    assert_int_equal(got.subscription, 4);
    assert_int_equal(got.change, DEAD_REPLAY);
    assert_int_equal(got.count, DEAD_CHANGE_MAX);
    assert_true(bytes_equal(got.member, bytes_of_string("cli")));
    for (uint32_t i = 0; i < DEAD_CHANGE_MAX; i++) {
        assert_int_equal(got.parts[i].number, e.parts[i].number);
        assert_int_equal(got.parts[i].key_hash, e.parts[i].key_hash);
        assert_int_equal(got.parts[i].parked, e.parts[i].parked);
        assert_true(bytes_equal(got.parts[i].letter, e.parts[i].letter));
    }
    buf_fini(&b);
}

/* ---- Hostile ---- */

/* Decodes the payload with each decoder; what is taken is then applied, and must leave a delivery
 * that holds its invariants. */
static void decode_all(struct bytes payload, struct buf *scratch)
{
    static struct hand_out_entry hand_outs;
    static struct dead_change_entry change;
    struct delivery_settlement s;
    uint16_t status[SETTLE_ITEMS_MAX];
    struct rows rows;
    struct delivery *d = delivery_made(true, 0);
    rows_init(&rows, TABLE_DEAD);
    (void)give(d, "m", 90, 30);
    if (hand_out_decode(payload, scratch, &hand_outs) == FERRY_OK) {
        for (uint32_t i = 0; i < hand_outs.count; i++) {
            assert_int_equal(delivery_apply_hand_out(d, &hand_outs.hand_outs[i]), FERRY_OK);
        }
    }
    if (settlement_decode(payload, scratch, &s) == FERRY_OK) {
        assert_int_equal(delivery_apply_settlement(d, &s, 1000, &rows, status), FERRY_OK);
    }
    if (dead_change_decode(payload, &change) == FERRY_OK) {
        uint32_t done;
        enum ferry_err err = delivery_apply_dead_change(d, &change, 1000, &rows, &done);
        assert_true(err == FERRY_OK || err == FERRY_ERR_CORRUPT);
    }
    delivery_check(d, INT64_MAX);
    delivery_free(&d);
    rows_fini(&rows);
}

static void expect_refused(struct bytes payload, struct buf *scratch)
{
    static struct hand_out_entry hand_outs;
    static struct dead_change_entry change;
    struct delivery_settlement s;
    assert_int_equal(hand_out_decode(payload, scratch, &hand_outs), FERRY_ERR_CORRUPT);
    assert_int_equal(settlement_decode(payload, scratch, &s), FERRY_ERR_CORRUPT);
    assert_int_equal(dead_change_decode(payload, &change), FERRY_ERR_CORRUPT);
}

static void cut_and_change(const struct buf *b, struct prng *p)
{
    struct buf scratch = scratch_made();
    for (size_t size = 0; size < b->size; size++) {
        uint8_t *cut =
            mem_dup(b->data, size > 0 ? size : 1); /* So that a sanitizer sees its end. */
        expect_refused(bytes_of(cut, size), &scratch);
        mem_free(cut);
    }
    for (int round = 0; round < 3000; round++) {
        uint8_t *changed = mem_dup(b->data, b->size);
        uint64_t count = 1 + prng_below(p, 3);
        for (uint64_t i = 0; i < count; i++) {
            changed[prng_below(p, b->size)] = (uint8_t)prng_next(p);
        }
        decode_all(bytes_of(changed, b->size), &scratch);
        mem_free(changed);
    }
    buf_fini(&scratch);
}

/* Every length, and bytes changed at random: an error or an entry that does no harm. */
static void cut_and_changed_payloads_do_no_harm(void **state)
{
    (void)state;
    static struct hand_out_entry hand_outs;
    static struct dead_change_entry change;
    struct prng p;
    print_message("seed 99\n");
    prng_init(&p, 99);
    struct buf payloads[] = {some_hand_outs(&hand_outs), some_settlement(CONTROL_SETTLE),
                             some_settlement(CONTROL_EXPIRE_LEASES), some_dead_change(&change)};
    for (size_t i = 0; i < 4; i++) {
        cut_and_change(&payloads[i], &p);
        buf_fini(&payloads[i]);
    }
}

static enum ferry_err decode_ranges(const uint8_t *ranges, size_t size)
{
    static struct hand_out_entry got;
    const struct ferry_id token = token_of(1);
    struct buf b = encoded();
    struct buf scratch = scratch_made();
    pack_array(&b, 4);
    pack_uint(&b, CONTROL_HAND_OUT);
    pack_uint(&b, 1);
    pack_uint(&b, 1);
    pack_array(&b, 5);
    pack_uint(&b, 1);
    pack_id(&b, &token);
    pack_uint(&b, 1000);
    pack_str(&b, bytes_of_string("m"));
    pack_bin(&b, bytes_of(ranges, size));
    enum ferry_err err = hand_out_decode(buf_bytes(&b), &scratch, &got);
    buf_fini(&b);
    buf_fini(&scratch);
    return err;
}

/* Of a hand-out: no message twice, none beyond the last offset, not too many, a key for one. */
static void ranges_that_cannot_be_are_refused(void **state)
{
    (void)state;
    assert_int_equal(decode_ranges((const uint8_t[]){5, 1, 0}, 3), FERRY_OK);
    assert_int_equal(decode_ranges((const uint8_t[]){5, 0, 0}, 3), FERRY_ERR_CORRUPT);
    assert_int_equal(decode_ranges((const uint8_t[]){5, 2, 1}, 3), FERRY_ERR_CORRUPT);
    assert_int_equal(decode_ranges((const uint8_t[]){5, 1}, 2), FERRY_ERR_CORRUPT);
    assert_int_equal(decode_ranges((const uint8_t[]){0, 0xe8, 7, 0}, 4), FERRY_OK);
    assert_int_equal(decode_ranges((const uint8_t[]){0, 0xe8, 7, 0, 0, 1, 0}, 7),
                     FERRY_ERR_CORRUPT);
    const uint8_t last[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 0};
    assert_int_equal(decode_ranges(last, sizeof(last)), FERRY_ERR_CORRUPT);
}

/* A control payload of another kind is none of these. */
static void other_kinds_are_refused(void **state)
{
    (void)state;
    struct buf scratch = scratch_made();
    struct buf b = encoded();
    struct control c = {.kind = CONTROL_EXPIRE_IDS, .before_ms = 5};
    control_encode(&b, &c);
    expect_refused(buf_bytes(&b), &scratch);
    buf_fini(&b);
    buf_fini(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hand_outs_come_back_as_they_were),
        cmocka_unit_test(the_largest_hand_out_entry_comes_back),
        cmocka_unit_test(settlements_come_back_as_they_were),
        cmocka_unit_test(dead_changes_come_back_as_they_were),
        cmocka_unit_test(cut_and_changed_payloads_do_no_harm),
        cmocka_unit_test(ranges_that_cannot_be_are_refused),
        cmocka_unit_test(other_kinds_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
