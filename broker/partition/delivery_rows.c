/* Rows of a delivery. The base is the subscription's own; runs are kept by the segment in which
 * they begin, so that one that grows or goes is one row.
 *
 *   base          [start, floor, next lease, next dead, next history, next ended, acked, died,
 *                 expired, revived, handed out, failed, released]
 *   runs          [[first - segment's, count, state, handed, failed, history, key hash, dead,
 *                 lease or due]…]; of DONE ones the first three
 *   leases        [token, lease ms, member, ended, [given], [acked], [nacked], [released],
 *                 [rejected]], each list first, count, first, count…
 *   histories     [[time, kind, member, reason]…]
 *   parked        [count]
 *   dead numbers  [a bin of 512 bytes: a bit each]
 *
 * What follows from these is not stored: counts of what is leased, waiting and dead, what a lease
 * has left. */
#include "base/mem.h"
#include "partition/delivery_internal.h"
#include "partition/tables.h"
#include "wire/pack.h"

#define RUN_ROW_MAX_BYTES   ((size_t)SEGMENT_OFFSETS * 80u)
#define LEASE_ROW_MAX_BYTES ((size_t)LEASE_LISTS * RECEIVE_MESSAGES_MAX * 16u + 512u)
/* A row of so many bytes counts as two, and so on: a transaction has room for so much. */
#define ROW_WEIGHT_BYTES 256u

/* ---- Base ---- */

void delivery_encode_base(const struct delivery *d, struct buf *b)
{
    const struct delivery_counters *c = &d->counters;
    const uint64_t values[] = {d->next_lease, d->next_dead, d->next_history, d->next_ended,
                               c->acked,      c->died,      c->expired,      c->revived,
                               c->handed_out, c->failed,    c->released};
    const uint32_t count = sizeof(values) / sizeof(values[0]);
    pack_array(b, 2 + count);
    pack_int(b, d->start);
    pack_int(b, d->floor);
    for (uint32_t i = 0; i < count; i++) {
        pack_uint(b, values[i]);
    }
}

enum ferry_err delivery_decode_base(struct delivery *d, struct bytes base)
{
    struct delivery_counters *c = &d->counters;
    uint64_t *const values[] = {&d->next_lease, &d->next_dead, &d->next_history, &d->next_ended,
                                &c->acked,      &c->died,      &c->expired,      &c->revived,
                                &c->handed_out, &c->failed,    &c->released};
    struct unpack u;
    unpack_begin(&u, base);
    d->start = unpack_int(&u);
    d->floor = unpack_int(&u);
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        *values[i] = unpack_uint(&u, UINT64_MAX);
    }
    bool ok = unpack_end(&u) == FERRY_OK && d->start >= 0 && d->floor >= d->start;
    return ok ? FERRY_OK : FERRY_ERR_CORRUPT;
}

bool delivery_is_dirty(const struct delivery *d)
{
    return d->base_dirty || delivery_dirty_rows(d) > 0;
}

uint32_t delivery_dirty_rows(const struct delivery *d)
{
    return (uint32_t)(d->segment_count + d->dirty_lease_count + d->dirty_history_count +
                      d->dirty_history_bytes / ROW_WEIGHT_BYTES + d->dirty_parked_count +
                      d->dirty_dead_count * 3 + d->removed_leases.size / 8 +
                      d->removed_histories.size / 8);
}

/* ---- Flush ---- */

struct flush {
    struct delivery *d;
    struct store *store;
    uint64_t group;
    struct buf row;
    enum ferry_err err;
};

static void put_row(struct flush *f, uint8_t table, uint64_t number)
{
    uint8_t key[16];
    put_be64(key, f->d->number);
    put_be64(key + 8, number);
    f->err = FERRY_ERR_NO_MEMORY;
    if (buf_ok(&f->row)) {
        f->err =
            store_put(f->store, f->group, table, bytes_of(key, sizeof(key)), buf_bytes(&f->row));
    }
    buf_clear(&f->row);
}

static void delete_row(struct flush *f, uint8_t table, uint64_t number)
{
    uint8_t key[16];
    put_be64(key, f->d->number);
    put_be64(key + 8, number);
    f->err = store_delete(f->store, f->group, table, bytes_of(key, sizeof(key)));
}

static void delete_rows(struct flush *f, uint8_t table, struct buf *numbers)
{
    for (size_t at = 0; at < numbers->size && f->err == FERRY_OK; at += 8) {
        delete_row(f, table, get_le64(numbers->data + at));
    }
    buf_clear(numbers);
}

static void pack_run(struct buf *b, const struct delivery_run *run, int64_t segment_start)
{
    bool done = run->state == DELIVERY_DONE;
    pack_array(b, done ? 3 : 9);
    pack_int(b, run->first - segment_start);
    pack_uint(b, run->count);
    pack_uint(b, run->state);
    if (done) {
        return;
    }
    pack_uint(b, run->handed);
    pack_uint(b, run->failed);
    pack_uint(b, run->history != NULL ? run->history->number : 0);
    pack_uint(b, run->key_hash);
    pack_uint(b, run->dead);
    if (run->state == DELIVERY_LEASED) {
        pack_uint(b, run->lease);
    } else {
        pack_int(b, run->due_ms);
    }
}

/* The place of the first run that begins in the segment. */
static bool first_in(const struct delivery *d, int64_t segment_start, struct run_place *place)
{
    bool more = delivery_runs_from(&d->runs, segment_start, place);
    if (more && delivery_runs_at(&d->runs, *place)->first < segment_start) {
        more = delivery_runs_next(&d->runs, place);
    }
    return more && delivery_runs_at(&d->runs, *place)->first < segment_start + SEGMENT_OFFSETS;
}

static void flush_segment(struct flush *f, uint64_t segment)
{
    struct run_place first;
    int64_t start = (int64_t)segment * SEGMENT_OFFSETS;
    if (!first_in(f->d, start, &first)) {
        delete_row(f, TABLE_RUNS, segment);
        return;
    }
    uint32_t count = 0;
    bool more = true;
    for (struct run_place p = first; more; more = delivery_runs_next(&f->d->runs, &p)) {
        if (delivery_runs_at(&f->d->runs, p)->first >= start + SEGMENT_OFFSETS) {
            break;
        }
        count++;
    }
    pack_array(&f->row, count);
    for (struct run_place p = first; count > 0; count--) {
        pack_run(&f->row, delivery_runs_at(&f->d->runs, p), start);
        (void)delivery_runs_next(&f->d->runs, &p);
    }
    put_row(f, TABLE_RUNS, segment);
}

static void flush_runs(struct flush *f)
{
    for (size_t i = 0; i < f->d->segment_count && f->err == FERRY_OK; i++) {
        flush_segment(f, f->d->segments[i]);
    }
    f->d->segment_count = 0;
}

static void flush_lease(struct flush *f, struct lease *lease)
{
    struct buf *b = &f->row;
    pack_array(b, 4 + LEASE_LISTS);
    pack_id(b, &lease->l.token);
    pack_uint(b, lease->l.lease_ms);
    pack_str(b, bytes_of(lease->l.member, lease->l.member_bytes));
    pack_uint(b, lease->ended);
    for (uint32_t i = 0; i < LEASE_LISTS; i++) {
        const struct delivery_ranges *ranges = *lease_ranges(lease, (enum lease_list)i);
        uint32_t count = ranges != NULL ? ranges->count : 0;
        pack_array(b, count * 2);
        for (uint32_t k = 0; k < count; k++) {
            pack_int(b, ranges->spans[k].first);
            pack_int(b, ranges->spans[k].end - ranges->spans[k].first);
        }
    }
    put_row(f, TABLE_LEASES, lease->l.number);
    lease->stored = true;
}

static void flush_leases(struct flush *f)
{
    struct delivery *d = f->d;
    delete_rows(f, TABLE_LEASES, &d->removed_leases);
    for (struct list *n; f->err == FERRY_OK && (n = list_pop_front(&d->dirty_leases)) != NULL;) {
        flush_lease(f, list_entry(n, struct lease, dirty_node));
        d->dirty_lease_count--;
    }
}

static void flush_histories(struct flush *f)
{
    struct delivery *d = f->d;
    delete_rows(f, TABLE_HISTORIES, &d->removed_histories);
    for (struct list *n; f->err == FERRY_OK && (n = list_pop_front(&d->dirty_histories)) != NULL;) {
        struct delivery_history *h = list_entry(n, struct delivery_history, node);
        buf_append(&f->row, h->data, h->size);
        put_row(f, TABLE_HISTORIES, h->number);
        h->dirty = false;
        h->stored = true;
        d->dirty_history_count--;
        d->dirty_history_bytes -= h->size;
    }
}

static void flush_parked(struct flush *f)
{
    struct delivery *d = f->d;
    for (struct list *n; f->err == FERRY_OK && (n = list_pop_front(&d->dirty_parked)) != NULL;) {
        struct parked_key *key = list_entry(n, struct parked_key, node);
        d->dirty_parked_count--;
        if (key->count > 0) {
            pack_array(&f->row, 1);
            pack_uint(&f->row, key->count);
            put_row(f, TABLE_PARKED, key->hash);
        } else {
            delete_row(f, TABLE_PARKED, key->hash);
            map_remove(&d->parked, map_hash_u64(key->hash), key);
            mem_free(key);
        }
    }
}

static void flush_dead(struct flush *f)
{
    struct delivery *d = f->d;
    size_t kept = 0;
    for (size_t i = 0; i < d->dead_count; i++) {
        struct dead_chunk *chunk = d->dead[i];
        if (f->err == FERRY_OK && chunk->dirty && chunk->count > 0) {
            pack_array(&f->row, 1);
            pack_bin(&f->row, bytes_of(chunk->bits, sizeof(chunk->bits)));
            put_row(f, TABLE_DEAD_NUMBERS, chunk->segment);
            chunk->dirty = false;
        } else if (f->err == FERRY_OK && chunk->count == 0) {
            delete_row(f, TABLE_DEAD_NUMBERS, chunk->segment);
            mem_free(chunk);
            continue;
        }
        d->dead[kept++] = chunk;
    }
    d->dead_count = kept;
    d->dirty_dead_count = 0;
}

enum ferry_err delivery_flush(struct delivery *d, struct store *store, uint64_t group)
{
    struct flush f = {.d = d, .store = store, .group = group};
    buf_init(&f.row,
             RUN_ROW_MAX_BYTES > LEASE_ROW_MAX_BYTES ? RUN_ROW_MAX_BYTES : LEASE_ROW_MAX_BYTES);
    flush_histories(&f);
    if (f.err == FERRY_OK) {
        flush_leases(&f);
    }
    if (f.err == FERRY_OK) {
        flush_parked(&f);
    }
    if (f.err == FERRY_OK) {
        flush_dead(&f);
    }
    if (f.err == FERRY_OK) {
        flush_runs(&f);
    }
    buf_fini(&f.row);
    d->base_dirty = false;
    return f.err;
}
