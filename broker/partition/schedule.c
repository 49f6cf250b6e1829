#include "partition/schedule.h"

#include "base/mem.h"
#include "wire/pack.h"

#define ROW_MAX_BYTES (BATCH_MAX_BYTES + 256u)
#define SIGN          (1ull << 63)

/* A message that a cancellation on its way names. */
struct claim {
    uint64_t number;
    uint64_t index;
    struct list node;
};

void schedule_init(struct schedule *t, uint8_t table)
{
    *t = (struct schedule){.next_number = 1,
                           .proposed_next_number = 1,
                           .look_us = SCHEDULE_NEVER,
                           .next_due_ms = SCHEDULE_NEVER};
    rows_init(&t->rows, table);
    map_init(&t->cancelled);
    list_init(&t->claims);
    buf_init(&t->row, ROW_MAX_BYTES);
    buf_init(&t->release_payload, 2 * BATCH_MAX_BYTES);
}

void schedule_fini(struct schedule *t)
{
    schedule_unclaim(t, 0);
    map_fini(&t->cancelled);
    rows_fini(&t->rows);
    buf_fini(&t->row);
    buf_fini(&t->release_payload);
    schedule_init(t, t->rows.table);
}

bool schedule_is_full(const struct schedule *t)
{
    return rows_is_full(&t->rows) ||
           rows_pending(&t->rows) + t->proposed_rows >= ROWS_PENDING_MAX ||
           t->rows.pending_bytes + t->proposed_bytes >= ROWS_PENDING_MAX_BYTES;
}

/* ---- Rows ---- */

void schedule_put_key(uint8_t bytes[SCHEDULE_KEY_BYTES], const struct schedule_key *key)
{
    put_be64(bytes, (uint64_t)key->due_ms ^ SIGN);
    put_be64(bytes + 8, key->number);
}

enum ferry_err schedule_read_key(struct bytes bytes, struct schedule_key *key)
{
    if (bytes.size != SCHEDULE_KEY_BYTES) {
        return FERRY_ERR_CORRUPT;
    }
    key->due_ms = (int64_t)(get_be64(bytes.data) ^ SIGN);
    key->number = get_be64(bytes.data + 8);
    return FERRY_OK;
}

static void encode_row(struct buf *b, int64_t added_ms, const struct batch_record *r)
{
    pack_array(b, 8);
    pack_int(b, added_ms);
    pack_int(b, r->timestamp_ms);
    pack_uint(b, r->priority);
    pack_id(b, &r->id);
    pack_bool(b, r->has_key);
    pack_bin(b, r->key);
    pack_bin(b, r->headers);
    pack_bin(b, r->payload);
}

enum ferry_err schedule_read_row(struct bytes row, int64_t *added_ms, struct batch_record *record)
{
    struct unpack u;
    *record = (struct batch_record){0};
    unpack_begin(&u, row);
    *added_ms = unpack_int(&u);
    record->timestamp_ms = unpack_int(&u);
    record->priority = (uint32_t)unpack_uint(&u, BATCH_PRIORITY_MAX);
    record->id = unpack_id(&u);
    record->has_key = unpack_bool(&u);
    record->key = unpack_bin(&u, BATCH_MAX_BYTES);
    record->headers = unpack_bin(&u, BATCH_MAX_BYTES);
    record->payload = unpack_bin(&u, BATCH_MAX_BYTES);
    return unpack_end(&u) == FERRY_OK ? FERRY_OK : FERRY_ERR_CORRUPT;
}

int64_t schedule_due(struct bytes batch, const struct batch_header *h, uint32_t i,
                     int64_t append_ms)
{
    int64_t due = batch_due(batch, h, i);
    return due > 0 ? due : append_ms - due;
}

/* ---- Applying ---- */

static enum ferry_err put_row(struct schedule *t, const struct schedule_key *key, int64_t added_ms,
                              const struct batch_record *r)
{
    uint8_t bytes[SCHEDULE_KEY_BYTES];
    schedule_put_key(bytes, key);
    buf_clear(&t->row);
    encode_row(&t->row, added_ms, r);
    if (!buf_ok(&t->row)) {
        return FERRY_ERR_NO_MEMORY;
    }
    return rows_put(&t->rows, bytes_of(bytes, sizeof(bytes)), buf_bytes(&t->row));
}

static void settle_proposed(struct schedule *t, uint32_t rows, size_t bytes)
{
    t->proposed_rows -= rows < t->proposed_rows ? rows : t->proposed_rows;
    t->proposed_bytes -= bytes < t->proposed_bytes ? bytes : t->proposed_bytes;
}

/* What comes before the earliest known one: somebody has to look. */
static void see_due(struct schedule *t, int64_t due_ms)
{
    if (due_ms < t->next_due_ms) {
        t->next_due_ms = due_ms;
        t->look_us = 0;
    }
}

enum ferry_err schedule_apply_batch(struct schedule *t, const struct store_entry *entry,
                                    struct bytes batch)
{
    struct batch_reader reader;
    struct batch_record r;
    enum ferry_err err = FERRY_OK;
    uint32_t skip = 0;
    batch_reader_init(&reader, batch);
    for (uint32_t i = 0; batch_reader_next(&reader, &r, &err); i++) {
        if (skip < entry->skip_count && get_le32(entry->skips + (size_t)skip * 4) == i) {
            skip++;
            continue;
        }
        struct schedule_key key = {
            .due_ms = schedule_due(batch, &reader.header, i, entry->append_time_ms),
            .number = t->next_number++};
        err = put_row(t, &key, entry->append_time_ms, &r);
        if (err != FERRY_OK) {
            return err;
        }
        see_due(t, key.due_ms);
        t->waiting++;
    }
    if (t->proposed_next_number < t->next_number) {
        t->proposed_next_number = t->next_number; /* Another led. */
    }
    settle_proposed(t, reader.header.count - entry->skip_count, batch.size);
    return err == FERRY_ERR_BAD_BATCH ? FERRY_ERR_CORRUPT : err;
}

/* What was proposed up to there is applied now. */
static void settle_claims(struct schedule *t, uint64_t index)
{
    while (!list_is_empty(&t->claims)) {
        struct claim *c = list_entry(t->claims.next, struct claim, node);
        if (c->index > index) {
            return;
        }
        map_remove(&t->cancelled, map_hash_u64(c->number), c);
        list_remove(&c->node);
        mem_free(c);
    }
}

enum ferry_err schedule_apply_keys(struct schedule *t, uint64_t index, enum control_kind kind,
                                   struct bytes control)
{
    struct schedule_key_reader reader;
    struct schedule_key key;
    enum ferry_err err = schedule_keys_decode(control, &reader);
    while (err == FERRY_OK && schedule_keys_next(&reader, &key, &err)) {
        uint8_t bytes[SCHEDULE_KEY_BYTES];
        schedule_put_key(bytes, &key);
#ifdef MUT_70 /* a released message stays in the table */
        if (kind == CONTROL_SCHEDULE_RELEASE) {
            continue;
        }
#endif
#ifdef MUT_71 /* a new leader releases again what its predecessor released */
        if (kind == CONTROL_SCHEDULE_RELEASE && t->release_index != index) {
            continue;
        }
#endif
        if (t->waiting == 0) {
            return FERRY_ERR_CORRUPT; /* More comes out than went in. */
        }
        err = rows_delete(&t->rows, bytes_of(bytes, sizeof(bytes)));
        t->waiting--;
    }
    settle_claims(t, index);
    if (kind == CONTROL_SCHEDULE_RELEASE && t->release_index == index) {
        t->release_index = 0;
        t->look_us = 0; /* There may be more. */
    }
    return err;
}

void schedule_forget(struct schedule *t)
{
    schedule_unclaim(t, 0);
    t->proposed_next_number = t->next_number;
    t->proposed_rows = 0;
    t->proposed_bytes = 0;
    /* The payload may still be on its way to the disk: it is written again by the next release. */
    t->release_index = 0;
    t->next_due_ms = SCHEDULE_NEVER;
    t->look_us = 0;
}

enum ferry_err schedule_flush(struct schedule *t, struct store *store, uint64_t group)
{
    return rows_flush(&t->rows, store, group);
}

enum ferry_err schedule_load(struct schedule *t, struct store *store, uint64_t group)
{
    t->proposed_next_number = t->next_number;
    return rows_load(&t->rows, store, group);
}

/* ---- Leader ---- */

void schedule_note_batch(struct schedule *t, const struct batch_header *h, uint32_t kept)
{
    t->proposed_next_number += kept;
    t->proposed_rows += kept;
    t->proposed_bytes += h->batch_bytes;
}

static bool has_number(const void *item, const void *key)
{
    return ((const struct claim *)item)->number == *(const uint64_t *)key;
}

bool schedule_is_claimed(const struct schedule *t, const struct schedule_key *key)
{
    return map_find(&t->cancelled, map_hash_u64(key->number), has_number, &key->number) != NULL;
}

enum ferry_err schedule_find(struct schedule *t, struct store *store, uint64_t group,
                             const struct schedule_key *key, bool *found)
{
    uint8_t bytes[SCHEDULE_KEY_BYTES];
    struct bytes value;
    bool releasing = t->release_index != 0 && schedule_key_compare(key, &t->release_last) <= 0;
    *found = false;
    if (releasing || schedule_is_claimed(t, key)) {
        return FERRY_OK;
    }
    schedule_put_key(bytes, key);
    return rows_get(&t->rows, store, group, bytes_of(bytes, sizeof(bytes)), found, &value);
}

enum ferry_err schedule_claim(struct schedule *t, const struct schedule_key *key, uint64_t index)
{
    struct claim *c = mem_zalloc(1, sizeof(*c));
    if (c == NULL || !map_add(&t->cancelled, map_hash_u64(key->number), c)) {
        mem_free(c);
        return FERRY_ERR_NO_MEMORY;
    }
    c->number = key->number;
    c->index = index;
    list_init(&c->node);
    list_push_back(&t->claims, &c->node);
    return FERRY_OK;
}

void schedule_unclaim(struct schedule *t, uint64_t from_index)
{
    while (!list_is_empty(&t->claims)) {
        struct claim *c = list_entry(t->claims.prev, struct claim, node);
        if (c->index < from_index) {
            return;
        }
        map_remove(&t->cancelled, map_hash_u64(c->number), c);
        list_remove(&c->node);
        mem_free(c);
    }
}

void schedule_check(const struct schedule *t)
{
    must(t->next_number > 0);
    must(t->waiting < t->next_number);
    must(t->proposed_next_number >= t->next_number);
    must(t->release_index == 0 || t->release_payload.size > 0);
}
