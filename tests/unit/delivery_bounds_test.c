/* Deliveries that are large, short of memory, or read back from rows that somebody changed. */
#include "delivery_fixture.h"

static struct delivery_run at(const struct delivery *d, int64_t offset)
{
    return delivery_at(d, offset, 1LL << 40);
}

/* ---- Bounds ---- */

/* A million under lease costs next to nothing, as long as they go out in numbers. */
static void a_million_leased_messages_take_little_memory(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    for (int64_t i = 0; i < 1000; i++) {
        (void)give(d, "m", i * 1000, 1000);
    }
    assert_int_equal(delivery_counters(d)->leased, 1000000);
    assert_true(delivery_memory_bytes(d) < 1u << 20);
    delivery_check(d, 1000000);
    delivery_free(&d);
}

/* Told to the leader: no fresh ones while there are too many single ones. */
static void a_million_messages_nacked_one_by_one_are_bounded(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    int64_t o = 0;
    for (; delivery_has_room(d); o++) {
        struct delivery_settle_item item = item_of(SETTLE_NACK, give(d, "m", o, 1), o, 1);
        item.due_ms = o * 7 % 1000;
        assert_int_equal(settle_dead(d, NULL, &item, NULL, 0), FERRY_OK);
        assert_true(o < 1000000);
    }
    assert_int_equal(o, DELIVERY_RUNS_MAX);
    assert_true(delivery_memory_bytes(d) < 24u << 20);
    for (o = 0; o < (int64_t)DELIVERY_RUNS_MAX; o++) {
        assert_int_equal(ack(d, give(d, "m", o, 1), o, 1), FERRY_OK);
    }
    assert_true(delivery_has_room(d));
    assert_true(delivery_memory_bytes(d) < DELIVERY_SETTLED_KEPT * 512u);
    delivery_check(d, DELIVERY_RUNS_MAX);
    delivery_free(&d);
}

/* Long reasons, all different: beyond the limit the words are left out. */
static void histories_are_bounded(void **state)
{
    (void)state;
    struct delivery *d = delivery_made(false, 0);
    char reason[REASON_MAX_BYTES + 1];
    bool was_full = false;
    for (int round = 0; round < 4; round++) {
        for (int64_t o = 0; o < 20000; o++) {
            was_full = was_full || !delivery_has_room(d);
            assert_true(delivery_memory_bytes(d) < DELIVERY_HISTORY_MAX_BYTES + (8u << 20));
            struct delivery_settle_item item = item_of(SETTLE_NACK, give(d, "m", o, 1), o, 1);
            (void)snprintf(reason, sizeof(reason), "%0*d", (int)REASON_MAX_BYTES,
                           (int)o + round * 100000);
            item.reason = bytes_of_string(reason);
            assert_int_equal(settle_dead(d, NULL, &item, NULL, 0), FERRY_OK);
        }
    }
    assert_true(was_full);
    assert_int_equal(at(d, 19999).failed, 4);
    delivery_check(d, 20000);
    delivery_free(&d);
}

/* One message that is stuck, with more than four billion done behind it. */
static void billions_done_behind_one_that_is_stuck(void **state)
{
    (void)state;
    const int64_t end = 5LL << 31;
    struct fixture *f = *state;
    fixture_open(f);
    struct rows rows;
    rows_init(&rows, TABLE_DEAD);
    struct delivery *d = delivery_made(false, 0);
    uint64_t stuck = give(d, "m", 0, 1);
    for (int64_t o = 1; o < end;) {
        uint32_t count = end - o < (1LL << 30) ? (uint32_t)(end - o) : 1u << 30;
        assert_int_equal(ack(d, give(d, "m", o, count), o, count), FERRY_OK);
        o += count;
    }
    delivery_check(d, end);
    assert_int_equal(delivery_at(d, end - 1, end).state, DELIVERY_DONE);
    reload_delivery(&d, &rows, f->store, GROUP);
    delivery_check(d, end);
    assert_int_equal(ack(d, stuck, 0, 1), FERRY_OK);
    assert_int_equal(delivery_floor(d), end);
    delivery_check(d, end);
    delivery_free(&d);
    rows_fini(&rows);
}

/* It moves from one row to the other, in both directions. */
static void a_run_that_grows_over_a_segments_border_is_kept_once(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    struct rows rows;
    rows_init(&rows, TABLE_DEAD);
    struct delivery *d = delivery_made(false, 4000);
    uint64_t lease = give(d, "m", 4000, 200);
    assert_int_equal(settle(d, SETTLE_ACK, lease, 4096, 10), FERRY_OK);
    reload_delivery(&d, &rows, f->store, GROUP);
    assert_int_equal(settle(d, SETTLE_ACK, lease, 4090, 6), FERRY_OK);
    reload_delivery(&d, &rows, f->store, GROUP);
    assert_int_equal(at(d, 4096).first, 4090);
    assert_int_equal(at(d, 4096).count, 16);
    delivery_check(d, 4200);
    assert_int_equal(delivery_apply_trim(d, 4095), FERRY_OK);
    reload_delivery(&d, &rows, f->store, GROUP);
    assert_int_equal(delivery_floor(d), 4106);
    assert_int_equal(settle(d, SETTLE_ACK, lease, 4106, 94), FERRY_OK);
    reload_delivery(&d, &rows, f->store, GROUP);
    assert_int_equal(delivery_floor(d), 4200);
    delivery_check(d, 4200);
    delivery_free(&d);
    rows_fini(&rows);
}

/* ---- Memory and disk that fail ---- */

static enum ferry_err some_entries(struct delivery *d, struct rows *rows)
{
    const struct delivery_range ranges[] = {{0, 3, 0}, {5, 1, 9}, {7, 1, 8}};
    struct delivery_settle_item items[] = {item_of(SETTLE_NACK, 1, 2, 1),
                                           item_of(SETTLE_ACK, 1, 5, 1),
                                           item_of(SETTLE_REJECT, 1, 7, 1)};
    struct delivery_dead dead = dead_of(7);
    struct delivery_settlement s = {.count = 3, .items = items, .dead_count = 1, .dead = &dead};
    uint16_t status[3];
    dead.key_hash = 8;
    delivery_watch(d, true);
    enum ferry_err err = hand_out(d, 1, "m", ranges, 3);
    if (err == FERRY_OK) {
        err = delivery_apply_settlement(d, &s, 100, rows, status);
    }
    if (err == FERRY_OK) {
        err = delivery_apply_trim(d, 2);
    }
    return err;
}

/* Each allocation fails once in turn: NO_MEMORY, and what is left can be freed. */
static void each_failing_allocation_is_told(void **state)
{
    (void)state;
    bool failed = true;
    for (long n = 1; failed && n < 200; n++) {
        struct rows rows;
        struct delivery *d = delivery_made(true, 0);
        rows_init(&rows, TABLE_DEAD);
        mem_test_fail_after(n);
        enum ferry_err err = some_entries(d, &rows);
        failed = err != FERRY_OK;
        assert_true(err == FERRY_OK || err == FERRY_ERR_NO_MEMORY);
        mem_test_fail_after(0);
        delivery_free(&d);
        rows_fini(&rows);
    }
    assert_false(failed);
}

struct kept_rows {
    uint32_t count;
    struct {
        uint8_t table, key[16];
        size_t size;
        uint8_t value[600];
    } rows[32];
    uint8_t table;
};

static enum ferry_err keep_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct kept_rows *k = arg;
    assert_true(k->count < 32 && key.size == 16 && value.size <= 600);
    k->rows[k->count].table = k->table;
    memcpy(k->rows[k->count].key, key.data, 16);
    memcpy(k->rows[k->count].value, value.data, value.size);
    k->rows[k->count++].size = value.size;
    return FERRY_OK;
}

static const uint8_t own_tables[] = {TABLE_RUNS, TABLE_LEASES, TABLE_PARKED, TABLE_HISTORIES,
                                     TABLE_DEAD_NUMBERS};

static void keep_rows(struct store *s, struct kept_rows *k)
{
    k->count = 0;
    assert_int_equal(store_read_begin(s), FERRY_OK);
    for (size_t i = 0; i < sizeof(own_tables); i++) {
        k->table = own_tables[i];
        assert_int_equal(store_each_row(s, GROUP, k->table, bytes_of(NULL, 0), keep_row, k),
                         FERRY_OK);
    }
    store_read_end(s);
}

static void put_row(struct store *s, const struct kept_rows *k, size_t i, const uint8_t *value,
                    size_t size)
{
    assert_int_equal(
        store_put(s, GROUP, k->rows[i].table, bytes_of(k->rows[i].key, 16), bytes_of(value, size)),
        FERRY_OK);
}

/* A few entries on what was loaded: its bounds must hold, whatever the rows said. */
static void use_loaded(struct delivery *d)
{
    struct rows rows;
    rows_init(&rows, TABLE_DEAD);
    for (uint64_t lease = 1; lease < 3; lease++) {
        struct delivery_settle_item item = item_of(DELIVERY_EXPIRE, lease, 0, 0);
        (void)settle_dead(d, &rows, &item, NULL, 0);
    }
    if (delivery_next_lease_number(d) < UINT64_MAX / 2) {
        (void)give(d, "m", 0, 50);
    }
    assert_int_equal(delivery_apply_trim(d, delivery_floor(d) + 3), FERRY_OK);
    rows_fini(&rows);
}

static struct delivery *some_state(struct rows *rows)
{
    struct delivery *d = delivery_made(true, 0);
    rows_init(rows, TABLE_DEAD);
    assert_int_equal(some_entries(d, rows), FERRY_OK);
    (void)give(d, "n", 20, 10);
    assert_int_equal(ack(d, 2, 23, 2), FERRY_OK);
    return d;
}

/* One byte of one row at a time: CORRUPT, or something that can be worked with. */
static void rows_with_changed_bytes_do_no_harm(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    static struct kept_rows kept;
    struct rows rows;
    struct prng p;
    uint32_t refused = 0;
    struct delivery *d = some_state(&rows);
    print_message("seed 3\n");
    prng_init(&p, 3);
    flush_delivery(d, &rows, f->store, GROUP);
    struct buf base = base_of(d);
    delivery_free(&d);
    keep_rows(f->store, &kept);
    assert_true(kept.count >= 6);
    for (int round = 0; round < 300; round++) {
        uint8_t changed[600];
        size_t i = (size_t)prng_below(&p, kept.count);
        memcpy(changed, kept.rows[i].value, kept.rows[i].size);
        changed[prng_below(&p, kept.rows[i].size)] = (uint8_t)prng_next(&p);
        size_t size =
            prng_below(&p, 4) == 0 ? (size_t)prng_below(&p, kept.rows[i].size) : kept.rows[i].size;
        assert_int_equal(store_begin(f->store), FERRY_OK);
        put_row(f->store, &kept, i, changed, size);
        assert_int_equal(store_commit(f->store), FERRY_OK);
        assert_int_equal(store_read_begin(f->store), FERRY_OK);
        enum ferry_err err = delivery_load(SUBSCRIPTION, true, &some_settings, buf_bytes(&base),
                                           f->store, GROUP, &d);
        store_read_end(f->store);
        assert_true(err == FERRY_OK || err == FERRY_ERR_CORRUPT);
        refused += err == FERRY_ERR_CORRUPT;
        if (err == FERRY_OK) {
            use_loaded(d);
            delivery_free(&d);
        }
        assert_int_equal(store_begin(f->store), FERRY_OK);
        put_row(f->store, &kept, i, kept.rows[i].value, kept.rows[i].size);
        assert_int_equal(store_commit(f->store), FERRY_OK);
    }
    assert_true(refused > 100);
    buf_fini(&base);
    rows_fini(&rows);
}

/* Each allocation of a load fails once in turn: NO_MEMORY, never CORRUPT. */
static void a_load_without_memory_says_so(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    struct rows rows;
    struct delivery *d = some_state(&rows);
    flush_delivery(d, &rows, f->store, GROUP);
    struct buf base = base_of(d);
    delivery_free(&d);
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    for (long n = 1; err == FERRY_ERR_NO_MEMORY && n < 200; n++) {
        mem_test_fail_after(n);
        err = delivery_load(SUBSCRIPTION, true, &some_settings, buf_bytes(&base), f->store, GROUP,
                            &d);
        mem_test_fail_after(0);
    }
    store_read_end(f->store);
    assert_int_equal(err, FERRY_OK);
    delivery_check(d, 40);
    delivery_free(&d);
    buf_fini(&base);
    rows_fini(&rows);
}

/* What another subscription of the partition has is its own. */
static void rows_of_other_subscriptions_are_left_alone(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    struct rows rows;
    struct delivery *d = some_state(&rows);
    flush_delivery(d, &rows, f->store, GROUP);
    struct delivery *other = delivery_new(SUBSCRIPTION + 1, false, 3, &some_settings);
    (void)give(other, "x", 5, 1);
    flush_delivery(other, &rows, f->store, GROUP);
    delivery_free(&other);
    reload_delivery(&d, &rows, f->store, GROUP);
    delivery_check(d, 40);
    assert_int_equal(at(d, 5).state, DELIVERY_DONE);
    delivery_free(&d);
    rows_fini(&rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_million_leased_messages_take_little_memory),
        cmocka_unit_test(a_million_messages_nacked_one_by_one_are_bounded),
        cmocka_unit_test(histories_are_bounded),
        store_test(billions_done_behind_one_that_is_stuck),
        store_test(a_run_that_grows_over_a_segments_border_is_kept_once),
        cmocka_unit_test(each_failing_allocation_is_told),
        store_test(rows_with_changed_bytes_do_no_harm),
        store_test(a_load_without_memory_says_so),
        store_test(rows_of_other_subscriptions_are_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
