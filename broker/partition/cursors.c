/* Source cursors: how far each relay's source is in this partition (invariant 3 of partition.h). */
#include "base/mem.h"
#include "partition/tables.h"
#include "wire/pack.h"

#define CURSOR_KEY_BYTES 20u

void cursors_init(struct cursors *t)
{
    *t = (struct cursors){0};
}

void cursors_fini(struct cursors *t)
{
    for (size_t i = 0; i < t->count; i++) {
        mem_free(t->items[i]);
    }
    mem_free(t->items);
    cursors_init(t);
}

struct source_cursor *cursors_find(const struct cursors *t, const struct ferry_id *source,
                                   uint32_t lane)
{
    for (size_t i = 0; i < t->count; i++) {
        if (t->items[i]->lane == lane &&
            memcmp(&t->items[i]->source, source, sizeof(*source)) == 0) {
            return t->items[i];
        }
    }
    return NULL;
}

enum ferry_err cursors_reserve(struct cursors *t, const struct ferry_id *source, uint32_t lane,
                               struct source_cursor **cursor)
{
    *cursor = cursors_find(t, source, lane);
    if (*cursor != NULL) {
        return FERRY_OK;
    }
    if (t->count >= PARTITION_CURSORS_MAX) {
        return FERRY_ERR_LIMIT_REACHED;
    }
    struct source_cursor *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL ||
        !mem_grow((void **)&t->items, &t->capacity, t->count + 1, sizeof(struct source_cursor *))) {
        mem_free(made);
        return FERRY_ERR_NO_MEMORY;
    }
    made->source = *source;
    made->lane = lane;
    t->items[t->count++] = made;
    *cursor = made;
    return FERRY_OK;
}

void cursor_note(struct source_cursor *c, uint64_t version, uint64_t epoch, struct bytes blob)
{
    must(blob.size <= CURSOR_MAX_BYTES);
    c->version = version;
    c->epoch = epoch;
    c->blob_bytes = (uint32_t)blob.size;
    if (blob.size > 0) {
        memcpy(c->blob, blob.data, blob.size);
    }
}

void cursor_apply(struct source_cursor *c, uint64_t version, uint64_t epoch, struct bytes blob)
{
    must(blob.size <= CURSOR_MAX_BYTES);
    if (c->version < version) {
        cursor_note(c, version, epoch, blob); /* Applied without having been proposed here. */
    }
    c->applied_version = version;
    c->applied_epoch = epoch;
    c->applied_blob_bytes = (uint32_t)blob.size;
    if (blob.size > 0) {
        memcpy(c->applied_blob, blob.data, blob.size);
    }
    c->dirty = true;
}

void cursor_note_fence(struct source_cursor *c, uint64_t version, uint64_t epoch)
{
    c->version = c->version < version ? version : c->version;
    c->epoch = c->epoch < epoch ? epoch : c->epoch;
}

void cursor_apply_fence(struct source_cursor *c, uint64_t version, uint64_t epoch)
{
    cursor_note_fence(c, version, epoch); /* It may not have been proposed here. */
    c->dirty = c->dirty || c->applied_version < version || c->applied_epoch < epoch;
    c->applied_version = c->applied_version < version ? version : c->applied_version;
    c->applied_epoch = c->applied_epoch < epoch ? epoch : c->applied_epoch;
}

void cursors_forget(struct cursors *t)
{
    size_t kept = 0;
    for (size_t i = 0; i < t->count; i++) {
        struct source_cursor *c = t->items[i];
        if (c->applied_version == 0 && c->applied_epoch == 0) {
            mem_free(c); /* Only ever proposed: it must not take the place of one that is. */
            continue;
        }
        t->items[kept++] = c;
        cursor_note(c, c->applied_version, c->applied_epoch,
                    bytes_of(c->applied_blob, c->applied_blob_bytes));
    }
    t->count = kept;
}

/* ---- Rows: [version, epoch, blob] ---- */

static enum ferry_err write_row(const struct source_cursor *c, struct store *store, uint64_t group)
{
    uint8_t key[CURSOR_KEY_BYTES];
    memcpy(key, c->source.bytes, 16);
    put_be32(key + 16, c->lane);
    struct buf row;
    buf_init(&row, CURSOR_MAX_BYTES + 64);
    pack_array(&row, 3);
    pack_uint(&row, c->applied_version);
    pack_uint(&row, c->applied_epoch);
    pack_bin(&row, bytes_of(c->applied_blob, c->applied_blob_bytes));
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    if (buf_ok(&row)) {
        err = store_put(store, group, TABLE_CURSORS, bytes_of(key, sizeof(key)), buf_bytes(&row));
    }
    buf_fini(&row);
    return err;
}

enum ferry_err cursors_flush(struct cursors *t, struct store *store, uint64_t group)
{
    for (size_t i = 0; i < t->count; i++) {
        if (!t->items[i]->dirty) {
            continue;
        }
        enum ferry_err err = write_row(t->items[i], store, group);
        if (err != FERRY_OK) {
            return err;
        }
        t->items[i]->dirty = false;
    }
    return FERRY_OK;
}

static enum ferry_err load_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    if (key.size != CURSOR_KEY_BYTES) {
        return FERRY_ERR_CORRUPT;
    }
    struct ferry_id source;
    memcpy(source.bytes, key.data, 16);
    struct source_cursor *c = NULL;
    enum ferry_err err = cursors_reserve(arg, &source, get_be32(key.data + 16), &c);
    if (err != FERRY_OK) {
        return err;
    }
    struct unpack u;
    unpack_begin(&u, value);
    uint64_t version = unpack_uint(&u, UINT64_MAX);
    uint64_t epoch = unpack_uint(&u, UINT64_MAX);
    struct bytes blob = unpack_bin(&u, CURSOR_MAX_BYTES);
    if (unpack_end(&u) != FERRY_OK) {
        return FERRY_ERR_CORRUPT;
    }
    cursor_note(c, version, epoch, blob); /* One that was only fenced has no blob. */
    cursor_apply(c, version, epoch, blob);
    c->dirty = false;
    return FERRY_OK;
}

enum ferry_err cursors_load(struct cursors *t, struct store *store, uint64_t group)
{
    return store_each_row(store, group, TABLE_CURSORS, bytes_of(NULL, 0), load_row, t);
}
