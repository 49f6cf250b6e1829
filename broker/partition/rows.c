#include "partition/rows.h"

#include <stdlib.h>

#include "base/checksum.h"
#include "base/mem.h"

/* A pending change: the key's value, or a tombstone. */
struct row {
    uint64_t hash;
    uint32_t key_bytes;
    bool deleted;
    size_t value_bytes;
    uint8_t data[]; /* The key, the value. */
};

static struct bytes key_of(const struct row *r)
{
    return bytes_of(r->data, r->key_bytes);
}

static struct bytes value_of(const struct row *r)
{
    return bytes_of(r->data + r->key_bytes, r->value_bytes);
}

static size_t memory_of(const struct row *r)
{
    return sizeof(*r) + r->key_bytes + r->value_bytes + 2 * sizeof(struct map_slot);
}

/* The order in which the store has keys. */
static int compare(struct bytes a, struct bytes b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common > 0 ? memcmp(a.data, b.data, common) : 0;
    if (order != 0) {
        return order;
    }
    return (a.size > b.size) - (a.size < b.size);
}

static int compare_rows(const void *a, const void *b)
{
    return compare(key_of(*(struct row *const *)a), key_of(*(struct row *const *)b));
}

static bool has_key(const void *item, const void *key)
{
    return bytes_equal(key_of(item), *(const struct bytes *)key);
}

static uint64_t hash_of(struct bytes key)
{
    return key.size > 0 ? checksum_of(key.data, key.size) : 0;
}

static void forget_pending(struct rows *t)
{
    size_t at = 0;
    for (struct row *r; (r = map_next(&t->pending, &at)) != NULL;) {
        mem_free(r);
    }
    map_fini(&t->pending);
    map_init(&t->pending);
    mem_free(t->sorted);
    t->sorted = NULL;
    t->sorted_count = 0;
    t->is_sorted = false;
    t->pending_bytes = 0;
}

void rows_init(struct rows *t, uint8_t table)
{
    *t = (struct rows){.table = table};
    map_init(&t->pending);
}

void rows_fini(struct rows *t)
{
    forget_pending(t);
}

bool rows_is_full(const struct rows *t)
{
    return t->pending.count >= ROWS_PENDING_MAX || t->pending_bytes >= ROWS_PENDING_MAX_BYTES;
}

uint32_t rows_pending(const struct rows *t)
{
    return (uint32_t)t->pending.count;
}

/* ---- Changes ---- */

static void remove_pending(struct rows *t, struct row *r)
{
    must(t->pending_bytes >= memory_of(r));
    t->pending_bytes -= memory_of(r);
    t->is_sorted = false;
    map_remove(&t->pending, r->hash, r);
    mem_free(r);
}

static enum ferry_err change(struct rows *t, struct bytes key, struct bytes value, bool deleted)
{
    must(key.size <= STORE_KEY_MAX_BYTES);
    uint64_t hash = hash_of(key);
    struct row *r = mem_alloc(sizeof(*r) + key.size + value.size);
    if (r == NULL || !map_reserve(&t->pending, t->pending.count + 1)) {
        mem_free(r);
        return FERRY_ERR_NO_MEMORY;
    }
    *r = (struct row){.hash = hash,
                      .key_bytes = (uint32_t)key.size,
                      .deleted = deleted,
                      .value_bytes = value.size};
    if (key.size > 0) {
        memcpy(r->data, key.data, key.size);
    }
    if (value.size > 0) {
        memcpy(r->data + key.size, value.data, value.size);
    }
    struct row *old = map_find(&t->pending, hash, has_key, &key);
    if (old != NULL) {
        remove_pending(t, old); /* Not before: the new value may lie in it. */
    }
    must(map_add(&t->pending, hash, r));
    t->pending_bytes += memory_of(r);
    t->is_sorted = false;
    return FERRY_OK;
}

enum ferry_err rows_put(struct rows *t, struct bytes key, struct bytes value)
{
    return change(t, key, value, false);
}

enum ferry_err rows_delete(struct rows *t, struct bytes key)
{
    if (t->disk_has_rows) {
        return change(t, key, bytes_of(NULL, 0), true);
    }
    struct row *old = map_find(&t->pending, hash_of(key), has_key, &key);
    if (old != NULL) {
        remove_pending(t, old);
    }
    return FERRY_OK;
}

/* ---- Questions ---- */

enum ferry_err rows_get(struct rows *t, struct store *store, uint64_t group, struct bytes key,
                        bool *found, struct bytes *value)
{
    const struct row *r = map_find(&t->pending, hash_of(key), has_key, &key);
    if (r != NULL) {
        *found = !r->deleted;
        *value = value_of(r);
        return FERRY_OK;
    }
    *found = false;
    *value = bytes_of(NULL, 0);
    return t->disk_has_rows ? store_get(store, group, t->table, key, found, value) : FERRY_OK;
}

static enum ferry_err sort_pending(struct rows *t)
{
    if (t->is_sorted) {
        return FERRY_OK;
    }
    size_t count = t->pending.count;
    struct row **sorted = mem_realloc(t->sorted, (count + 1) * sizeof(struct row *));
    if (sorted == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    t->sorted = sorted;
    t->sorted_count = 0;
    size_t at = 0;
    for (struct row *r; (r = map_next(&t->pending, &at)) != NULL;) {
        sorted[t->sorted_count++] = r;
    }
    must(t->sorted_count == count);
    qsort(sorted, count, sizeof(struct row *), compare_rows);
    t->is_sorted = true;
    return FERRY_OK;
}

/* The place of the first pending key >= from. */
static size_t first_from(const struct rows *t, struct bytes from)
{
    size_t low = 0;
    size_t high = t->sorted_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(key_of(t->sorted[middle]), from) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* A walk over both: the store's rows come by callback, the pending ones go in between. */
struct merge {
    const struct rows *t;
    size_t next; /* Of sorted. */
    bool stop;
    store_row_cb *callback;
    void *arg;
};

static enum ferry_err give_pending(struct merge *m)
{
    const struct row *r = m->t->sorted[m->next++];
    return r->deleted ? FERRY_OK : m->callback(key_of(r), value_of(r), &m->stop, m->arg);
}

static enum ferry_err merge_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    struct merge *m = arg;
    enum ferry_err err = FERRY_OK;
    int order = 1;
    while (err == FERRY_OK && !m->stop && m->next < m->t->sorted_count &&
           (order = compare(key_of(m->t->sorted[m->next]), key)) <= 0) {
        err = give_pending(m);
        if (order == 0) {
            break; /* The pending one instead of the store's. */
        }
    }
    if (err == FERRY_OK && !m->stop && order != 0) {
        err = m->callback(key, value, &m->stop, m->arg);
    }
    *stop = m->stop;
    return err;
}

enum ferry_err rows_each(struct rows *t, struct store *store, uint64_t group, struct bytes from,
                         store_row_cb *callback, void *arg)
{
    enum ferry_err err = sort_pending(t);
    if (err != FERRY_OK) {
        return err;
    }
    struct merge m = {.t = t, .next = first_from(t, from), .callback = callback, .arg = arg};
    if (t->disk_has_rows) {
        err = store_each_row(store, group, t->table, from, merge_row, &m);
    }
    while (err == FERRY_OK && !m.stop && m.next < t->sorted_count) {
        err = give_pending(&m);
    }
    return err;
}

/* ---- Store ---- */

enum ferry_err rows_flush(struct rows *t, struct store *store, uint64_t group)
{
    enum ferry_err err = sort_pending(t); /* In key order, neighbours share pages. */
    for (size_t i = 0; i < t->sorted_count && err == FERRY_OK; i++) {
        const struct row *r = t->sorted[i];
        if (r->deleted) {
            err = store_delete(store, group, t->table, key_of(r));
        } else {
            err = store_put(store, group, t->table, key_of(r), value_of(r));
            t->disk_has_rows = true;
        }
    }
    if (err == FERRY_OK) {
        forget_pending(t);
    }
    return err;
}

static enum ferry_err see_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)key;
    (void)value;
    *stop = true;
    ((struct rows *)arg)->disk_has_rows = true;
    return FERRY_OK;
}

enum ferry_err rows_load(struct rows *t, struct store *store, uint64_t group)
{
    forget_pending(t);
    t->disk_has_rows = false;
    return store_each_row(store, group, t->table, bytes_of(NULL, 0), see_row, t);
}
