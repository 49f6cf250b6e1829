#include "partition/recurring.h"

#include "base/checksum.h"
#include "base/mem.h"
#include "partition/tables.h"
#include "wire/pack.h"

#define REMOVED_MAX_BYTES (1u << 20)

void recurring_init(struct recurring *t)
{
    *t = (struct recurring){.look_us = INT64_MAX};
    buf_init(&t->removed, REMOVED_MAX_BYTES);
}

static void free_message(struct recurring_message *m)
{
    if (m != NULL) {
        buf_fini(&m->record);
        buf_fini(&m->payload);
        mem_free(m);
    }
}

void recurring_fini(struct recurring *t)
{
    for (size_t i = 0; i < t->count; i++) {
        free_message(t->items[i]);
    }
    mem_free(t->items);
    buf_fini(&t->removed);
    recurring_init(t);
}

static int compare(struct bytes a, struct bytes b)
{
    int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

/* The place of the first name not below this one. */
static size_t place_of(const struct recurring *t, struct bytes name)
{
    size_t i = 0;
    while (i < t->count &&
           compare(bytes_of(t->items[i]->name, t->items[i]->name_bytes), name) < 0) {
        i++;
    }
    return i;
}

struct recurring_message *recurring_find(const struct recurring *t, struct bytes name)
{
    size_t i = place_of(t, name);
    bool found =
        i < t->count && bytes_equal(bytes_of(t->items[i]->name, t->items[i]->name_bytes), name);
    return found ? t->items[i] : NULL;
}

struct ferry_id recurring_id(const struct ferry_id *topic, struct bytes name, int64_t time_ms)
{
    uint8_t bytes[sizeof(*topic) + 8 + NAME_MAX_BYTES];
    struct ferry_id id;
    must(name.size <= NAME_MAX_BYTES);
    memcpy(bytes, topic->bytes, sizeof(*topic));
    put_le64(bytes + sizeof(*topic), (uint64_t)time_ms);
    memcpy(bytes + sizeof(*topic) + 8, name.data, name.size);
    checksum_128_of(bytes, sizeof(*topic) + 8 + name.size, id.bytes);
    return id;
}

/* ---- Applying ---- */

static enum ferry_err insert(struct recurring *t, struct bytes name, struct recurring_message **out)
{
    size_t at = place_of(t, name);
    if (t->count == t->capacity) {
        size_t capacity = t->capacity == 0 ? 8 : t->capacity * 2;
        struct recurring_message **items = mem_realloc(t->items, capacity * sizeof(items[0]));
        if (items == NULL) {
            return FERRY_ERR_NO_MEMORY;
        }
        t->items = items;
        t->capacity = capacity;
    }
    struct recurring_message *m = mem_zalloc(1, sizeof(*m));
    if (m == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    m->name_bytes = (uint32_t)name.size;
    memcpy(m->name, name.data, name.size);
    buf_init(&m->record, RECURRING_RECORD_MAX_BYTES);
    buf_init(&m->payload, 2 * RECURRING_RECORD_MAX_BYTES);
    memmove(&t->items[at + 1], &t->items[at], (t->count - at) * sizeof(t->items[0]));
    t->items[at] = m;
    t->count++;
    *out = m;
    return FERRY_OK;
}

static uint32_t copy_text(char *to, struct bytes text)
{
    if (text.size > 0) {
        memcpy(to, text.data, text.size);
    }
    return (uint32_t)text.size;
}

static enum ferry_err fill(struct recurring_message *m, const struct recurring_entry *e)
{
    m->spec_bytes = copy_text(m->spec, e->spec);
    m->zone_bytes = copy_text(m->zone, e->zone);
    m->next_ms = e->next_ms;
    m->fired = 0;
    m->dirty = true;
    buf_clear(&m->record);
    buf_append_bytes(&m->record, e->record);
    return buf_ok(&m->record) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

static enum ferry_err remove_name(struct recurring *t, struct bytes name)
{
    size_t at = place_of(t, name);
    buf_append_u8(&t->removed, (uint8_t)name.size);
    buf_append_bytes(&t->removed, name);
    if (!buf_ok(&t->removed)) {
        return FERRY_ERR_NO_MEMORY;
    }
    free_message(t->items[at]);
    t->count--;
    memmove(&t->items[at], &t->items[at + 1], (t->count - at) * sizeof(t->items[0]));
    return FERRY_OK;
}

static enum ferry_err apply_set(struct recurring *t, const struct recurring_entry *e,
                                struct recurring_message *m)
{
    t->proposed -= t->proposed > 0;
    if (e->record.size == 0) {
        return m != NULL ? remove_name(t, e->name) : FERRY_OK;
    }
    enum ferry_err err = m == NULL ? insert(t, e->name, &m) : FERRY_OK;
    return err == FERRY_OK ? fill(m, e) : err;
}

enum ferry_err recurring_apply(struct recurring *t, uint64_t index, const struct recurring_entry *e)
{
    struct recurring_message *m = recurring_find(t, e->name);
    if (m != NULL && m->busy_index <= index) {
        m->busy_index = 0;
    }
    t->look_us = 0;
    if (e->kind == CONTROL_RECURRING_SET) {
        return apply_set(t, e, m);
    }
    if (m != NULL) {
        m->next_ms = e->next_ms;
        m->fired++;
        m->dirty = true;
    }
    return FERRY_OK;
}

void recurring_forget(struct recurring *t)
{
    t->proposed = 0;
    t->look_us = 0;
    for (size_t i = 0; i < t->count; i++) {
        t->items[i]->busy_index = 0;
    }
}

/* ---- Rows ---- */

static enum ferry_err flush_removed(struct recurring *t, struct store *store, uint64_t group)
{
    enum ferry_err err = FERRY_OK;
    for (size_t at = 0; at < t->removed.size && err == FERRY_OK; at += 1 + t->removed.data[at]) {
        err = store_delete(store, group, TABLE_RECURRING,
                           bytes_of(t->removed.data + at + 1, t->removed.data[at]));
    }
    if (err == FERRY_OK) {
        buf_clear(&t->removed);
    }
    return err;
}

static enum ferry_err flush_one(const struct recurring_message *m, struct store *store,
                                uint64_t group)
{
    struct buf row;
    buf_init(&row, RECURRING_RECORD_MAX_BYTES + 1024);
    pack_array(&row, 5);
    pack_str(&row, bytes_of(m->spec, m->spec_bytes));
    pack_str(&row, bytes_of(m->zone, m->zone_bytes));
    pack_int(&row, m->next_ms);
    pack_uint(&row, m->fired);
    pack_bin(&row, buf_bytes(&m->record));
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    if (buf_ok(&row)) {
        err = store_put(store, group, TABLE_RECURRING, bytes_of(m->name, m->name_bytes),
                        buf_bytes(&row));
    }
    buf_fini(&row);
    return err;
}

enum ferry_err recurring_flush(struct recurring *t, struct store *store, uint64_t group)
{
    /* A name may have been removed and set again since. */
    enum ferry_err err = flush_removed(t, store, group);
    for (size_t i = 0; i < t->count && err == FERRY_OK; i++) {
        struct recurring_message *m = t->items[i];
        err = m->dirty ? flush_one(m, store, group) : FERRY_OK;
        m->dirty = m->dirty && err != FERRY_OK;
    }
    return err;
}

static enum ferry_err load_row(struct bytes key, struct bytes row, bool *stop, void *arg)
{
    struct recurring *t = arg;
    struct recurring_message *m = NULL;
    struct recurring_entry e = {.name = key};
    struct unpack u;
    (void)stop;
    unpack_begin(&u, row);
    e.spec = unpack_str(&u, RECURRING_SPEC_MAX_BYTES);
    e.zone = unpack_str(&u, NAME_MAX_BYTES);
    e.next_ms = unpack_int(&u);
    uint64_t fired = unpack_uint(&u, UINT64_MAX);
    e.record = unpack_bin(&u, RECURRING_RECORD_MAX_BYTES);
    if (unpack_end(&u) != FERRY_OK || key.size == 0 || key.size > NAME_MAX_BYTES) {
        return FERRY_ERR_CORRUPT;
    }
    enum ferry_err err = insert(t, key, &m);
    if (err == FERRY_OK) {
        err = fill(m, &e);
        m->fired = fired;
        m->dirty = false;
    }
    return err;
}

enum ferry_err recurring_load(struct recurring *t, struct store *store, uint64_t group)
{
    return store_each_row(store, group, TABLE_RECURRING, bytes_of(NULL, 0), load_row, t);
}
