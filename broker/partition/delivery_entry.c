#include "partition/delivery_entry.h"

#include "wire/pack.h"
#include "wire/varint.h"

_Static_assert(sizeof(struct delivery_range) % 8 == 0, "lists lie one behind another in scratch");
_Static_assert(sizeof(struct delivery_settle_item) % 8 == 0, "as above");
_Static_assert(sizeof(struct delivery_due) % 8 == 0, "as above");
_Static_assert(sizeof(struct delivery_dead) % 8 == 0, "as above");
_Static_assert(HAND_OUTS_MAX *HAND_OUT_RANGES_MAX * sizeof(struct delivery_range) <=
                   ENTRY_SCRATCH_MAX_BYTES,
               "hand-outs fit");
_Static_assert(SETTLE_ITEMS_MAX * sizeof(struct delivery_settle_item) +
                       SETTLE_DUES_MAX * sizeof(struct delivery_due) +
                       SETTLE_DEAD_MAX * sizeof(struct delivery_dead) <=
                   ENTRY_SCRATCH_MAX_BYTES,
               "a settlement fits");

/* ---- Lists of runs of offsets: ascending and disjoint by their form. ---- */

#define VARINT_MAX_BYTES 10u

static void put_varint(struct buf *b, uint64_t v)
{
    uint8_t bytes[VARINT_MAX_BYTES];
    buf_append(b, bytes, (size_t)(varint_write(bytes, v) - bytes));
}

/* Gap and count of the run at first; *next is the offset after the one before. */
static void put_run(struct buf *b, int64_t first, uint32_t count, int64_t *next)
{
    must(count > 0);
    must(first >= *next && first <= INT64_MAX - count);
    put_varint(b, (uint64_t)(first - *next));
    put_varint(b, count);
    *next = first + count;
}

static uint64_t take_varint(struct bytes *rest, uint64_t max, bool *failed)
{
    uint64_t v = 0;
    if (rest->size == 0) {
        *failed = true;
        return 0;
    }
    const uint8_t *end = rest->data + rest->size;
    const uint8_t *after = varint_read(rest->data, end, max, &v);
    if (after == NULL) {
        *failed = true;
        *rest = bytes_of(NULL, 0);
        return 0;
    }
    *rest = bytes_of(after, (size_t)(end - after));
    return v;
}

static void take_run(struct bytes *rest, uint32_t count_max, int64_t *next, int64_t *first,
                     uint32_t *count, bool *failed)
{
    *first = *next + (int64_t)take_varint(rest, (uint64_t)(INT64_MAX - *next), failed);
    *count = (uint32_t)take_varint(rest, count_max, failed);
    if (*count == 0 || *first > INT64_MAX - *count) {
        *failed = true;
        return;
    }
    *next = *first + *count;
}

/* A bin is written in one piece, so it is made aside. */
static void pack_made(struct buf *b, struct buf *made)
{
    b->failed = b->failed || made->failed;
    pack_bin(b, buf_bytes(made));
    buf_fini(made);
}

/* ---- Hand-outs ---- */

static void pack_ranges(struct buf *b, const struct delivery_hand_out *h)
{
    struct buf made;
    int64_t next = 0;
    must(h->range_count <= HAND_OUT_RANGES_MAX);
    buf_init(&made, (size_t)HAND_OUT_RANGES_MAX * 3 * VARINT_MAX_BYTES);
    for (uint32_t i = 0; i < h->range_count; i++) {
        const struct delivery_range *range = &h->ranges[i];
        must(range->key_hash == 0 || range->count == 1);
        put_run(&made, range->first, range->count, &next);
        put_varint(&made, range->key_hash);
    }
    pack_made(b, &made);
}

void hand_out_encode(struct buf *b, const struct hand_out_entry *e)
{
    must(e->count <= HAND_OUTS_MAX);
    pack_array(b, 3 + e->count);
    pack_uint(b, CONTROL_HAND_OUT);
    pack_uint(b, e->subscription);
    pack_uint(b, e->node);
    for (uint32_t i = 0; i < e->count; i++) {
        const struct delivery_hand_out *h = &e->hand_outs[i];
        pack_array(b, 5);
        pack_uint(b, h->lease);
        pack_id(b, &h->token);
        pack_uint(b, h->lease_ms);
        pack_str(b, h->member);
        pack_ranges(b, h);
    }
}

/* Their place in scratch is known by the caller, because it moves as scratch grows. */
static enum ferry_err take_ranges(struct bytes rest, struct buf *scratch,
                                  struct delivery_hand_out *h)
{
    int64_t next = 0;
    uint64_t messages = 0;
    bool failed = false;
    h->range_count = 0;
    while (rest.size > 0 && !failed) {
        struct delivery_range range = {0};
        take_run(&rest, RECEIVE_MESSAGES_MAX, &next, &range.first, &range.count, &failed);
        range.key_hash = take_varint(&rest, UINT64_MAX, &failed);
        messages += range.count;
        failed =
            failed || messages > RECEIVE_MESSAGES_MAX || (range.key_hash != 0 && range.count != 1);
        buf_append(scratch, &range, sizeof(range));
        h->range_count++;
    }
    if (failed) {
        return FERRY_ERR_CORRUPT;
    }
    return buf_ok(scratch) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

static enum ferry_err take_hand_out(struct unpack *u, struct buf *scratch,
                                    struct delivery_hand_out *h)
{
    (void)unpack_array(u, UNPACK_OBJECTS_MAX);
    h->lease = unpack_uint(u, UINT64_MAX - 1);
    h->token = unpack_id(u);
    h->lease_ms = (uint32_t)unpack_uint(u, UINT32_MAX);
    h->member = unpack_str(u, NAME_MAX_BYTES);
    struct bytes ranges = unpack_bin(u, SIZE_MAX);
    unpack_array_end(u);
    return u->failed ? FERRY_ERR_CORRUPT : take_ranges(ranges, scratch, h);
}

enum ferry_err hand_out_decode(struct bytes payload, struct buf *scratch, struct hand_out_entry *e)
{
    struct unpack u;
    size_t places[HAND_OUTS_MAX] = {0};
    buf_clear(scratch);
    unpack_begin(&u, payload);
    if (unpack_uint(&u, UINT8_MAX) != CONTROL_HAND_OUT) {
        return FERRY_ERR_CORRUPT;
    }
    e->subscription = unpack_uint(&u, UINT64_MAX);
    e->node = (uint32_t)unpack_uint(&u, UINT32_MAX);
    for (e->count = 0; unpack_has_more(&u); e->count++) {
        if (e->count == HAND_OUTS_MAX) {
            return FERRY_ERR_CORRUPT;
        }
        places[e->count] = scratch->size;
        enum ferry_err err = take_hand_out(&u, scratch, &e->hand_outs[e->count]);
        if (err != FERRY_OK) {
            return err;
        }
    }
    for (uint32_t i = 0; i < e->count; i++) {
        struct delivery_hand_out *h = &e->hand_outs[i];
        h->ranges = h->range_count > 0 ? (const void *)(scratch->data + places[i]) : NULL;
    }
    return unpack_end(&u) == FERRY_OK ? FERRY_OK : FERRY_ERR_CORRUPT;
}

/* ---- Settlements ---- */

static void pack_item(struct buf *b, const struct delivery_settle_item *item)
{
    pack_array(b, 8);
    pack_uint(b, item->kind);
    pack_uint(b, item->lease);
    pack_id(b, &item->token);
    pack_int(b, item->first);
    pack_uint(b, item->count);
    pack_uint(b, item->extend_ms);
    pack_int(b, item->due_ms);
    pack_str(b, item->reason);
}

static void pack_dues(struct buf *b, const struct delivery_settlement *s)
{
    struct buf made;
    int64_t next = 0;
    uint64_t due = 0;
    buf_init(&made, (size_t)SETTLE_DUES_MAX * 3 * VARINT_MAX_BYTES);
    for (uint32_t i = 0; i < s->due_count; i++) {
        put_run(&made, s->dues[i].first, s->dues[i].count, &next);
        put_varint(&made, varint_zigzag((uint64_t)s->dues[i].due_ms - due));
        due = (uint64_t)s->dues[i].due_ms;
    }
    pack_made(b, &made);
}

static void pack_dead(struct buf *b, const struct delivery_dead *dead)
{
    pack_array(b, 4);
    pack_int(b, dead->offset);
    pack_int(b, dead->append_time_ms);
    pack_uint(b, dead->key_hash);
    pack_bin(b, dead->record);
}

void settlement_encode(struct buf *b, enum control_kind kind, const struct delivery_settlement *s)
{
    must(kind == CONTROL_SETTLE || kind == CONTROL_EXPIRE_LEASES);
    must(s->count <= SETTLE_ITEMS_MAX);
    must(s->due_count <= SETTLE_DUES_MAX && s->dead_count <= SETTLE_DEAD_MAX);
    pack_array(b, 7);
    pack_uint(b, kind);
    pack_uint(b, s->subscription);
    pack_uint(b, s->node);
    pack_str(b, s->member);
    pack_array(b, s->count);
    for (uint32_t i = 0; i < s->count; i++) {
        pack_item(b, &s->items[i]);
    }
    pack_dues(b, s);
    pack_array(b, s->dead_count);
    for (uint32_t i = 0; i < s->dead_count; i++) {
        must(i == 0 || s->dead[i].offset > s->dead[i - 1].offset);
        pack_dead(b, &s->dead[i]);
    }
}

static void take_item(struct unpack *u, struct delivery_settle_item *item)
{
    (void)unpack_array(u, UNPACK_OBJECTS_MAX);
    item->kind = (uint32_t)unpack_uint(u, DELIVERY_PARK);
    item->lease = unpack_uint(u, UINT64_MAX);
    item->token = unpack_id(u);
    item->first = unpack_int(u);
    item->count = (uint32_t)unpack_uint(u, UINT32_MAX);
    item->extend_ms = (uint32_t)unpack_uint(u, UINT32_MAX);
    item->due_ms = unpack_int(u);
    item->reason = unpack_str(u, REASON_MAX_BYTES);
    unpack_array_end(u);
    u->failed = u->failed || item->kind == 0;
}

static void take_items(struct unpack *u, struct buf *scratch, struct delivery_settlement *s)
{
    s->count = unpack_array(u, SETTLE_ITEMS_MAX);
    for (uint32_t i = 0; i < s->count && !u->failed; i++) {
        struct delivery_settle_item item;
        take_item(u, &item);
        buf_append(scratch, &item, sizeof(item));
    }
    unpack_array_end(u);
}

static void take_dues(struct unpack *u, struct buf *scratch, struct delivery_settlement *s)
{
    struct bytes rest = unpack_bin(u, SIZE_MAX);
    int64_t next = 0;
    uint64_t due = 0;
    bool failed = false;
    s->due_count = 0;
    while (rest.size > 0 && !failed) {
        struct delivery_due d = {0};
        take_run(&rest, UINT32_MAX, &next, &d.first, &d.count, &failed);
        due += varint_unzigzag(take_varint(&rest, UINT64_MAX, &failed));
        d.due_ms = (int64_t)due;
        failed = failed || s->due_count == SETTLE_DUES_MAX;
        buf_append(scratch, &d, sizeof(d));
        s->due_count++;
    }
    u->failed = u->failed || failed;
}

static void take_dead(struct unpack *u, struct buf *scratch, struct delivery_settlement *s)
{
    int64_t next = INT64_MIN;
    s->dead_count = unpack_array(u, SETTLE_DEAD_MAX);
    for (uint32_t i = 0; i < s->dead_count && !u->failed; i++) {
        struct delivery_dead dead;
        (void)unpack_array(u, UNPACK_OBJECTS_MAX);
        dead.offset = unpack_int(u);
        dead.append_time_ms = unpack_int(u);
        dead.key_hash = unpack_uint(u, UINT64_MAX);
        dead.record = unpack_bin(u, SIZE_MAX);
        unpack_array_end(u);
        u->failed = u->failed || dead.offset < next || dead.offset == INT64_MAX;
        next = u->failed ? next : dead.offset + 1;
        buf_append(scratch, &dead, sizeof(dead));
    }
    unpack_array_end(u);
}

enum ferry_err settlement_decode(struct bytes payload, struct buf *scratch,
                                 struct delivery_settlement *s)
{
    struct unpack u;
    buf_clear(scratch);
    unpack_begin(&u, payload);
    uint64_t kind = unpack_uint(&u, UINT8_MAX);
    if (kind != CONTROL_SETTLE && kind != CONTROL_EXPIRE_LEASES) {
        return FERRY_ERR_CORRUPT;
    }
    s->subscription = unpack_uint(&u, UINT64_MAX);
    s->node = (uint32_t)unpack_uint(&u, UINT32_MAX);
    s->member = unpack_str(&u, NAME_MAX_BYTES);
    take_items(&u, scratch, s);
    size_t dues_at = scratch->size;
    take_dues(&u, scratch, s);
    size_t dead_at = scratch->size;
    take_dead(&u, scratch, s);
    if (unpack_end(&u) != FERRY_OK) {
        return FERRY_ERR_CORRUPT;
    }
    if (!buf_ok(scratch)) {
        return FERRY_ERR_NO_MEMORY;
    }
    s->items = (const void *)scratch->data;
    s->dues = s->due_count > 0 ? (const void *)(scratch->data + dues_at) : NULL;
    s->dead = s->dead_count > 0 ? (const void *)(scratch->data + dead_at) : NULL;
    return FERRY_OK;
}

/* ---- Changes of dead letters ---- */

void dead_change_encode(struct buf *b, const struct dead_change_entry *e)
{
    must(e->count <= DEAD_CHANGE_MAX);
    pack_array(b, 5 + e->count);
    pack_uint(b, CONTROL_DEAD_CHANGE);
    pack_uint(b, e->subscription);
    pack_uint(b, e->node);
    pack_uint(b, e->change);
    pack_str(b, e->member);
    for (uint32_t i = 0; i < e->count; i++) {
        const struct dead_change_part *part = &e->parts[i];
        pack_array(b, 4);
        pack_uint(b, part->number);
        pack_uint(b, part->key_hash);
        pack_uint(b, part->parked);
        pack_bin(b, part->letter);
    }
}

static void take_part(struct unpack *u, struct dead_change_part *part)
{
    (void)unpack_array(u, UNPACK_OBJECTS_MAX);
    part->number = unpack_uint(u, UINT64_MAX);
    part->key_hash = unpack_uint(u, UINT64_MAX);
    part->parked = unpack_uint(u, UINT64_MAX);
    part->letter = unpack_bin(u, SIZE_MAX);
    unpack_array_end(u);
}

enum ferry_err dead_change_decode(struct bytes payload, struct dead_change_entry *e)
{
    struct unpack u;
    unpack_begin(&u, payload);
    if (unpack_uint(&u, UINT8_MAX) != CONTROL_DEAD_CHANGE) {
        return FERRY_ERR_CORRUPT;
    }
    e->subscription = unpack_uint(&u, UINT64_MAX);
    e->node = (uint32_t)unpack_uint(&u, UINT32_MAX);
    e->change = (uint32_t)unpack_uint(&u, DEAD_DROP);
    e->member = unpack_str(&u, DETAIL_MAX_BYTES);
    for (e->count = 0; unpack_has_more(&u); e->count++) {
        if (e->count == DEAD_CHANGE_MAX) {
            return FERRY_ERR_CORRUPT;
        }
        take_part(&u, &e->parts[e->count]);
    }
    u.failed = u.failed || e->change < DEAD_REPLAY;
    return unpack_end(&u) == FERRY_OK ? FERRY_OK : FERRY_ERR_CORRUPT;
}
