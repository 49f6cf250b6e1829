/* What the tests of deliveries share: one in a store of its own, entries in a line or two. */
#ifndef FERRY_DELIVERY_FIXTURE_H
#define FERRY_DELIVERY_FIXTURE_H

#include "store_fixture.h"

#include "base/mem.h"
#include "partition/dead.h"
#include "partition/delivery_entry.h"
#include "partition/tables.h"

#define SUBSCRIPTION 77u
#define GROUP        5u

static const struct delivery_settings some_settings = {.lease_ms = 30000,
                                                       .max_deliveries = 10,
                                                       .backoff_min_ms = 1000,
                                                       .backoff_max_ms = 600000,
                                                       .inflight_max = 1000};

/* A token that tells the lease. */
static inline struct ferry_id token_of(uint64_t lease)
{
    struct ferry_id id = {{0}};
    put_le64(id.bytes, lease * 31 + 7);
    return id;
}

static inline enum ferry_err hand_out(struct delivery *d, uint64_t lease, const char *member,
                                      const struct delivery_range *ranges, uint32_t count)
{
    struct delivery_hand_out h = {.lease = lease,
                                  .token = token_of(lease),
                                  .lease_ms = 30000,
                                  .member = bytes_of_string(member),
                                  .range_count = count,
                                  .ranges = ranges};
    return delivery_apply_hand_out(d, &h);
}

/* [first, first + count) under the next lease, whose number it returns. */
static inline uint64_t give(struct delivery *d, const char *member, int64_t first, uint32_t count)
{
    struct delivery_range range = {.first = first, .count = count};
    uint64_t lease = delivery_next_lease_number(d);
    assert_int_equal(hand_out(d, lease, member, &range, 1), FERRY_OK);
    return lease;
}

static inline uint64_t give_key(struct delivery *d, const char *member, int64_t offset,
                                uint64_t key_hash)
{
    struct delivery_range range = {.first = offset, .count = 1, .key_hash = key_hash};
    uint64_t lease = delivery_next_lease_number(d);
    assert_int_equal(hand_out(d, lease, member, &range, 1), FERRY_OK);
    return lease;
}

static inline struct delivery_settle_item item_of(uint32_t kind, uint64_t lease, int64_t first,
                                                  uint32_t count)
{
    return (struct delivery_settle_item){
        .kind = kind, .lease = lease, .token = token_of(lease), .first = first, .count = count};
}

#define SETTLE_TIME_MS 5000

/* One item; dead letters with a record of one byte are given where they are named. */
static inline uint16_t settle_dead(struct delivery *d, struct rows *dead_rows,
                                   const struct delivery_settle_item *item,
                                   const struct delivery_dead *dead, uint32_t dead_count)
{
    uint16_t status = 999;
    struct delivery_settlement s = {.subscription = SUBSCRIPTION,
                                    .member = bytes_of_string("asker"),
                                    .count = 1,
                                    .items = item,
                                    .dead_count = dead_count,
                                    .dead = dead};
    assert_int_equal(delivery_apply_settlement(d, &s, SETTLE_TIME_MS, dead_rows, &status),
                     FERRY_OK);
    return status;
}

static inline uint16_t settle(struct delivery *d, uint32_t kind, uint64_t lease, int64_t first,
                              uint32_t count)
{
    struct delivery_settle_item item = item_of(kind, lease, first, count);
    item.due_ms = 6000;
    item.reason = bytes_of_string("why");
    return settle_dead(d, NULL, &item, NULL, 0);
}

static inline uint16_t ack(struct delivery *d, uint64_t lease, int64_t first, uint32_t count)
{
    return settle(d, SETTLE_ACK, lease, first, count);
}

static inline struct delivery_dead dead_of(int64_t offset)
{
    return (struct delivery_dead){
        .offset = offset, .append_time_ms = 100 + offset, .record = bytes_of_string("R")};
}

static inline struct delivery *delivery_made(bool keyed, int64_t position)
{
    struct delivery *d = delivery_new(SUBSCRIPTION, keyed, position, &some_settings);
    assert_non_null(d);
    return d;
}

/* ---- Store ---- */

static inline struct buf base_of(const struct delivery *d)
{
    struct buf b;
    buf_init(&b, 4096);
    delivery_encode_base(d, &b);
    assert_true(buf_ok(&b));
    return b;
}

static inline void flush_delivery(struct delivery *d, struct rows *dead_rows, struct store *s,
                                  uint64_t group)
{
    assert_int_equal(store_begin(s), FERRY_OK);
    assert_int_equal(delivery_flush(d, s, group), FERRY_OK);
    assert_int_equal(rows_flush(dead_rows, s, group), FERRY_OK);
    assert_int_equal(store_commit(s), FERRY_OK);
    assert_false(delivery_is_dirty(d));
}

/* Flushes, forgets, and loads. */
static inline void reload_delivery(struct delivery **d, struct rows *dead_rows, struct store *s,
                                   uint64_t group)
{
    flush_delivery(*d, dead_rows, s, group);
    struct buf base = base_of(*d);
    bool keyed = delivery_is_keyed(*d);
    delivery_free(d);
    rows_fini(dead_rows);
    rows_init(dead_rows, TABLE_DEAD);
    assert_int_equal(store_read_begin(s), FERRY_OK);
    assert_int_equal(rows_load(dead_rows, s, group), FERRY_OK);
    assert_int_equal(
        delivery_load(SUBSCRIPTION, keyed, &some_settings, buf_bytes(&base), s, group, d),
        FERRY_OK);
    store_read_end(s);
    assert_false(delivery_is_dirty(*d));
    buf_fini(&base);
}

static inline void load_letter(struct rows *dead_rows, struct store *s, uint64_t number,
                               struct dead_letter *letter, bool *found)
{
    uint8_t key[16];
    struct bytes row;
    dead_key(SUBSCRIPTION, number, key);
    assert_int_equal(rows_get(dead_rows, s, GROUP, bytes_of(key, sizeof(key)), found, &row),
                     FERRY_OK);
    if (*found) {
        assert_int_equal(dead_decode(bytes_of(key, sizeof(key)), row, letter), FERRY_OK);
    }
}

#endif
