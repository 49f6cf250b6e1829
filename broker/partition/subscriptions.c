/* Subscriptions: the named positions of a partition's readers (invariant 5 of partition.h). */
#include "base/mem.h"
#include "partition/tables.h"
#include "wire/pack.h"

/* Names deleted between two flushes. A flush comes after REPLICA_FLUSH_ENTRIES entries and the turn
 * that crosses it; a turn's requests are bounded by the shard's receive budget. */
#define REMOVED_MAX_BYTES (64u << 20)

void subscriptions_init(struct subscriptions *t)
{
    *t = (struct subscriptions){0};
    buf_init(&t->removed, REMOVED_MAX_BYTES);
}

void subscriptions_fini(struct subscriptions *t)
{
    for (size_t i = 0; i < t->count; i++) {
        mem_free(t->items[i]);
    }
    mem_free(t->items);
    buf_fini(&t->removed);
    subscriptions_init(t);
}

static int compare_name(const struct subscription *s, struct bytes name)
{
    size_t shorter = s->name_bytes < name.size ? s->name_bytes : name.size;
    int order = memcmp(s->name, name.data, shorter);
    if (order != 0) {
        return order;
    }
    return s->name_bytes < name.size ? -1 : s->name_bytes > name.size;
}

/* The place of the first name >= `name`. */
static size_t lower_bound(const struct subscriptions *t, struct bytes name)
{
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_name(t->items[middle], name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct subscription *subscriptions_find(const struct subscriptions *t, struct bytes name)
{
    size_t at = lower_bound(t, name);
    return at < t->count && compare_name(t->items[at], name) == 0 ? t->items[at] : NULL;
}

size_t subscriptions_after(const struct subscriptions *t, struct bytes after)
{
    if (after.size == 0) {
        return 0;
    }
    size_t at = lower_bound(t, after);
    return at < t->count && compare_name(t->items[at], after) == 0 ? at + 1 : at;
}

struct subscription *subscriptions_by_number(const struct subscriptions *t, uint64_t number)
{
    for (size_t i = 0; i < t->count; i++) {
        if (t->items[i]->number == number) {
            return t->items[i];
        }
    }
    return NULL;
}

enum ferry_err subscriptions_create(struct subscriptions *t, struct bytes name, uint64_t number,
                                    uint32_t mode, int64_t position,
                                    const struct delivery_settings *settings)
{
    must(name.size > 0 && name.size <= NAME_MAX_BYTES);
    struct subscription *s = mem_zalloc(1, sizeof(*s));
    if (s == NULL ||
        !mem_grow((void **)&t->items, &t->capacity, t->count + 1, sizeof(struct subscription *))) {
        mem_free(s);
        return FERRY_ERR_NO_MEMORY;
    }
    s->number = number;
    s->mode = mode;
    s->position = position;
    s->settings = *settings;
    s->dirty = true;
    s->name_bytes = (uint32_t)name.size;
    memcpy(s->name, name.data, name.size);
    size_t at = lower_bound(t, name);
    memmove(t->items + at + 1, t->items + at, (t->count - at) * sizeof(struct subscription *));
    t->items[at] = s;
    t->count++;
    return FERRY_OK;
}

enum ferry_err subscriptions_remove(struct subscriptions *t, struct bytes name)
{
    size_t at = lower_bound(t, name);
    if (at == t->count || compare_name(t->items[at], name) != 0) {
        return FERRY_OK;
    }
    if (!buf_reserve(&t->removed, name.size + 1)) {
        return FERRY_ERR_NO_MEMORY;
    }
    buf_append_u8(&t->removed, (uint8_t)name.size);
    buf_append_bytes(&t->removed, name);
    mem_free(t->items[at]);
    memmove(t->items + at, t->items + at + 1, (t->count - at - 1) * sizeof(struct subscription *));
    t->count--;
    return FERRY_OK;
}

/* ---- Rows: [mode, position] ---- */

static enum ferry_err write_row(const struct subscription *s, struct store *store, uint64_t group)
{
    struct buf row;
    buf_init(&row, 64);
    pack_array(&row, 2);
    pack_uint(&row, s->mode);
    pack_int(&row, s->position);
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    if (buf_ok(&row)) {
        err = store_put(store, group, TABLE_SUBSCRIPTIONS, bytes_of(s->name, s->name_bytes),
                        buf_bytes(&row));
    }
    buf_fini(&row);
    return err;
}

static enum ferry_err delete_removed(struct subscriptions *t, struct store *store, uint64_t group)
{
    enum ferry_err err = FERRY_OK;
    for (size_t at = 0; at < t->removed.size && err == FERRY_OK;) {
        size_t length = t->removed.data[at];
        err = store_delete(store, group, TABLE_SUBSCRIPTIONS,
                           bytes_of(t->removed.data + at + 1, length));
        at += length + 1;
    }
    buf_clear(&t->removed);
    return err;
}

enum ferry_err subscriptions_flush(struct subscriptions *t, struct store *store, uint64_t group)
{
    /* Deletions first: a name removed and made again is among the dirty ones. */
    enum ferry_err err = delete_removed(t, store, group);
    for (size_t i = 0; i < t->count && err == FERRY_OK; i++) {
        if (t->items[i]->dirty) {
            err = write_row(t->items[i], store, group);
            t->items[i]->dirty = false;
        }
    }
    return err;
}

static enum ferry_err load_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct unpack u;
    unpack_begin(&u, value);
    uint32_t mode = (uint32_t)unpack_uint(&u, UINT32_MAX);
    int64_t position = unpack_int(&u);
    if (unpack_end(&u) != FERRY_OK || key.size == 0 || key.size > NAME_MAX_BYTES) {
        return FERRY_ERR_CORRUPT;
    }
    struct subscriptions *t = arg;
    static const struct delivery_settings none = {0};
    enum ferry_err err = subscriptions_create(t, key, 0, mode, position, &none);
    if (err == FERRY_OK) {
        subscriptions_find(t, key)->dirty = false;
    }
    return err;
}

enum ferry_err subscriptions_load(struct subscriptions *t, struct store *store, uint64_t group)
{
    return store_each_row(store, group, TABLE_SUBSCRIPTIONS, bytes_of(NULL, 0), load_row, t);
}
