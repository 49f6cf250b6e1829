/* Subscriptions: the named positions of a partition's readers (invariant 5 of partition.h). */
#include "base/checksum.h"
#include "base/mem.h"
#include "partition/pick.h"
#include "partition/tables.h"
#include "wire/pack.h"

/* Names deleted between two flushes. A flush comes after REPLICA_FLUSH_ENTRIES entries and the turn
 * that crosses it; a turn's requests are bounded by the shard's receive budget. */
#define REMOVED_MAX_BYTES (64u << 20)
/* Of a row: a delivery's base, with its counters and marks, and the rest. */
#define ROW_MAX_BYTES     (1u << 20)
#define LEAVING_KEY_BYTES 9u
/* Tables whose keys begin with a subscription's number. */
static const uint8_t numbered_tables[] = {TABLE_RUNS,      TABLE_LEASES,      TABLE_DEAD,
                                          TABLE_PARKED,    TABLE_MEMBERS,     TABLE_EVENTS,
                                          TABLE_HISTORIES, TABLE_DEAD_NUMBERS};

void subscriptions_init(struct subscriptions *t)
{
    *t = (struct subscriptions){0};
    buf_init(&t->removed, REMOVED_MAX_BYTES);
}

static void free_subscription(struct subscription *s)
{
    pick_free(&s->pick);
    delivery_free(&s->delivery);
    members_free(&s->members);
    mem_free(s);
}

static void free_retired(struct subscriptions *t)
{
    while (t->retired != NULL) {
        struct members *next = t->retired->retired;
        members_free(&t->retired);
        t->retired = next;
    }
}

void subscriptions_fini(struct subscriptions *t)
{
    for (size_t i = 0; i < t->count; i++) {
        free_subscription(t->items[i]);
    }
    free_retired(t);
    mem_free(t->items);
    mem_free(t->leaving);
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

uint64_t subscription_old_number(struct bytes name)
{
    return checksum_of(name.data, name.size) | (UINT64_C(1) << 63);
}

int64_t subscription_position(const struct subscription *s)
{
    return s->delivery != NULL ? delivery_floor(s->delivery) : s->position;
}

/* Takes its place in the order; its name is set. */
static enum ferry_err insert(struct subscriptions *t, struct subscription *s)
{
    if (!mem_grow((void **)&t->items, &t->capacity, t->count + 1, sizeof(struct subscription *))) {
        return FERRY_ERR_NO_MEMORY;
    }
    size_t at = lower_bound(t, bytes_of(s->name, s->name_bytes));
    memmove(t->items + at + 1, t->items + at, (t->count - at) * sizeof(struct subscription *));
    t->items[at] = s;
    t->count++;
    return FERRY_OK;
}

static struct subscription *new_subscription(struct bytes name, uint64_t number, uint32_t mode,
                                             int64_t position)
{
    must(name.size > 0 && name.size <= NAME_MAX_BYTES);
    struct subscription *s = mem_zalloc(1, sizeof(*s));
    if (s != NULL) {
        s->number = number;
        s->mode = mode;
        s->position = position;
        s->dirty = true;
        s->name_bytes = (uint32_t)name.size;
        memcpy(s->name, name.data, name.size);
    }
    return s;
}

enum ferry_err subscriptions_create(struct subscriptions *t, struct bytes name, uint64_t number,
                                    uint32_t mode, int64_t position,
                                    const struct delivery_settings *settings)
{
    struct subscription *s = new_subscription(name, number, mode, position);
    if (s == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    s->settings = *settings;
    enum ferry_err err = FERRY_OK;
    if (mode != SUBSCRIPTION_STREAM) {
        s->delivery = delivery_new(number, mode == SUBSCRIPTION_KEYED, position, settings);
        err = s->delivery != NULL ? FERRY_OK : FERRY_ERR_NO_MEMORY;
    }
    if (err == FERRY_OK) {
        err = insert(t, s);
    }
    if (err != FERRY_OK) {
        free_subscription(s);
    }
    return err;
}

static enum ferry_err add_leaving(struct subscriptions *t, uint64_t number, bool flushed)
{
    if (!mem_grow((void **)&t->leaving, &t->leaving_capacity, t->leaving_count + 1,
                  sizeof(*t->leaving))) {
        return FERRY_ERR_NO_MEMORY;
    }
    t->leaving[t->leaving_count++] =
        (struct subscription_leaving){.number = number, .flushed = flushed};
    return FERRY_OK;
}

bool subscriptions_are_leaving(const struct subscriptions *t)
{
    return t->leaving_count > 0;
}

enum ferry_err subscriptions_remove(struct subscriptions *t, struct bytes name)
{
    size_t at = lower_bound(t, name);
    if (at == t->count || compare_name(t->items[at], name) != 0) {
        return FERRY_OK;
    }
    struct subscription *s = t->items[at];
    if (!buf_reserve(&t->removed, name.size + 1)) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (s->delivery != NULL || s->members != NULL) {
        enum ferry_err err = add_leaving(t, s->number, false);
        if (err != FERRY_OK) {
            return err;
        }
    }
    buf_append_u8(&t->removed, (uint8_t)name.size);
    buf_append_bytes(&t->removed, name);
    if (s->members != NULL) {
        s->members->retired = t->retired;
        t->retired = s->members;
        s->members = NULL;
    }
    free_subscription(s);
    memmove(t->items + at, t->items + at + 1, (t->count - at - 1) * sizeof(struct subscription *));
    t->count--;
    return FERRY_OK;
}

/* ---- Rows (their layout: tables.h) ---- */

static void pack_row(struct buf *row, const struct subscription *s, struct bytes base)
{
    pack_array(row, 14);
    pack_uint(row, s->mode);
    pack_int(row, s->position);
    pack_uint(row, s->number);
    pack_bool(row, s->paused);
    pack_uint(row, s->epoch);
    pack_bool(row, s->claimed);
    pack_uint(row, s->settings.lease_ms);
    pack_uint(row, s->settings.max_deliveries);
    pack_uint(row, s->settings.backoff_min_ms);
    pack_uint(row, s->settings.backoff_max_ms);
    pack_uint(row, s->settings.key_policy);
    pack_uint(row, s->settings.inflight_max);
    pack_uint(row, s->settings.priority_age_ms);
    pack_bin(row, base);
}

static enum ferry_err write_row(const struct subscription *s, struct store *store, uint64_t group)
{
    struct buf row, base;
    buf_init(&row, ROW_MAX_BYTES);
    buf_init(&base, ROW_MAX_BYTES / 2);
    if (s->delivery != NULL) {
        delivery_encode_base(s->delivery, &base);
    }
    pack_row(&row, s, buf_bytes(&base));
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    if (buf_ok(&base) && buf_ok(&row)) {
        err = store_put(store, group, TABLE_SUBSCRIPTIONS, bytes_of(s->name, s->name_bytes),
                        buf_bytes(&row));
    }
    buf_fini(&base);
    buf_fini(&row);
    return err;
}

static enum ferry_err flush_one(struct subscription *s, struct store *store, uint64_t group)
{
    bool delivered = s->delivery != NULL && delivery_is_dirty(s->delivery);
    enum ferry_err err = FERRY_OK;
    if (s->dirty || delivered) {
        err = write_row(s, store, group);
        s->dirty = false;
    }
    if (err == FERRY_OK && s->members != NULL) {
        err = members_flush(s->members, store, group);
    }
    return err == FERRY_OK && delivered ? delivery_flush(s->delivery, store, group) : err;
}

uint32_t subscriptions_dirty_rows(const struct subscriptions *t)
{
    uint32_t rows = 0;
    for (size_t i = 0; i < t->count; i++) {
        const struct subscription *s = t->items[i];
        rows += s->delivery != NULL ? delivery_dirty_rows(s->delivery) : 0;
        rows += s->members != NULL ? members_dirty_rows(s->members) : 0;
    }
    return rows;
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

/* ---- Rows of those that were deleted ---- */

struct leaving_rows {
    uint64_t number;
    struct buf keys; /* u8 length, bytes; of one table. */
    uint32_t count;  /* Of all tables, of one flush. */
    size_t bytes;
    bool full; /* More are left. */
};

static enum ferry_err collect_leaving(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    struct leaving_rows *r = arg;
    if (key.size < 8 || get_be64(key.data) != r->number) {
        *stop = true;
        return FERRY_OK;
    }
    if (r->count == SUBSCRIPTION_DELETE_MAX || r->bytes >= SUBSCRIPTION_DELETE_MAX_BYTES) {
        *stop = r->full = true;
        return FERRY_OK;
    }
    r->count++;
    r->bytes += value.size;
    buf_append_u8(&r->keys, (uint8_t)key.size);
    buf_append_bytes(&r->keys, key);
    return buf_ok(&r->keys) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

static enum ferry_err delete_leaving_table(struct leaving_rows *r, uint8_t table,
                                           struct store *store, uint64_t group)
{
    uint8_t from[8];
    put_be64(from, r->number);
    buf_clear(&r->keys);
    enum ferry_err err =
        store_each_row(store, group, table, bytes_of(from, sizeof(from)), collect_leaving, r);
    for (size_t at = 0; at < r->keys.size && err == FERRY_OK;) {
        size_t length = r->keys.data[at];
        err = store_delete(store, group, table, bytes_of(r->keys.data + at + 1, length));
        at += length + 1;
    }
    return err;
}

static struct bytes leaving_key(uint8_t key[LEAVING_KEY_BYTES], uint64_t number)
{
    key[0] = 0; /* No name begins so. */
    put_be64(key + 1, number);
    return bytes_of(key, LEAVING_KEY_BYTES);
}

/* Deletes some of what is left of the first one; when nothing is left, the mark too. */
static enum ferry_err delete_leaving(struct subscriptions *t, struct leaving_rows *r,
                                     struct store *store, uint64_t group)
{
    uint8_t key[LEAVING_KEY_BYTES];
    enum ferry_err err = FERRY_OK;
    r->number = t->leaving[0].number;
    for (size_t i = 0; i < sizeof(numbered_tables) && err == FERRY_OK && !r->full; i++) {
        err = delete_leaving_table(r, numbered_tables[i], store, group);
    }
    if (err != FERRY_OK || r->full) {
        return err;
    }
    t->leaving_count--;
    memmove(t->leaving, t->leaving + 1, t->leaving_count * sizeof(*t->leaving));
    return store_delete(store, group, TABLE_SUBSCRIPTIONS, leaving_key(key, r->number));
}

/* Those that were marked by an earlier transaction: the view shows all that was ever written. */
static enum ferry_err delete_all_leaving(struct subscriptions *t, struct store *store,
                                         uint64_t group)
{
    struct leaving_rows r = {0};
    if (t->leaving_count == 0 || !t->leaving[0].flushed) {
        return FERRY_OK;
    }
    buf_init(&r.keys, SUBSCRIPTION_DELETE_MAX * 256u);
    enum ferry_err err = store_read_begin(store);
    if (err == FERRY_OK) {
        while (err == FERRY_OK && !r.full && t->leaving_count > 0 && t->leaving[0].flushed) {
            err = delete_leaving(t, &r, store, group);
        }
        store_read_end(store);
    }
    buf_fini(&r.keys);
    return err;
}

static enum ferry_err mark_leaving(struct subscriptions *t, struct store *store, uint64_t group)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; i < t->leaving_count && err == FERRY_OK; i++) {
        uint8_t key[LEAVING_KEY_BYTES];
        if (!t->leaving[i].flushed) {
            err = store_put(store, group, TABLE_SUBSCRIPTIONS,
                            leaving_key(key, t->leaving[i].number), bytes_of(NULL, 0));
            t->leaving[i].flushed = true;
        }
    }
    return err;
}

enum ferry_err subscriptions_flush(struct subscriptions *t, struct store *store, uint64_t group)
{
    /* Deletions first: a name removed and made again is among the dirty ones. */
    free_retired(t);
    enum ferry_err err = delete_all_leaving(t, store, group);
    if (err == FERRY_OK) {
        err = delete_removed(t, store, group);
    }
    if (err == FERRY_OK) {
        err = mark_leaving(t, store, group);
    }
    for (size_t i = 0; i < t->count && err == FERRY_OK; i++) {
        err = flush_one(t->items[i], store, group);
    }
    return err;
}

/* ---- Loading ---- */

struct loading {
    struct subscriptions *t;
    struct store *store;
    uint64_t group;
};

static void unpack_row(struct unpack *u, struct subscription *s, struct bytes *base)
{
    s->number = unpack_uint(u, UINT64_MAX);
    s->paused = unpack_bool(u);
    s->epoch = unpack_uint(u, UINT64_MAX);
    s->claimed = unpack_bool(u);
    s->settings.lease_ms = (uint32_t)unpack_uint(u, UINT32_MAX);
    s->settings.max_deliveries = (uint32_t)unpack_uint(u, UINT32_MAX);
    s->settings.backoff_min_ms = (uint32_t)unpack_uint(u, UINT32_MAX);
    s->settings.backoff_max_ms = (uint32_t)unpack_uint(u, UINT32_MAX);
    s->settings.key_policy = (uint32_t)unpack_uint(u, UINT32_MAX);
    s->settings.inflight_max = (uint32_t)unpack_uint(u, UINT32_MAX);
    s->settings.priority_age_ms = (uint32_t)unpack_uint(u, UINT32_MAX);
    *base = unpack_bin(u, ROW_MAX_BYTES);
    s->dirty = false;
}

static enum ferry_err load_subscription(struct loading *l, struct bytes key, struct bytes value)
{
    struct unpack u;
    struct bytes base = {0};
    unpack_begin(&u, value);
    uint32_t mode = (uint32_t)unpack_uint(&u, UINT32_MAX);
    int64_t position = unpack_int(&u);
    struct subscription *s = new_subscription(key, subscription_old_number(key), mode, position);
    if (s == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (unpack_has_more(&u)) { /* Else it stays dirty: the next flush writes it as it is now. */
        unpack_row(&u, s, &base);
    }
    enum ferry_err err = unpack_end(&u) == FERRY_OK ? FERRY_OK : FERRY_ERR_CORRUPT;
    if (err == FERRY_OK && mode != SUBSCRIPTION_STREAM) {
        err = delivery_load(s->number, mode == SUBSCRIPTION_KEYED, &s->settings, base, l->store,
                            l->group, &s->delivery);
    }
    if (err == FERRY_OK) {
        err = members_load(s->number, l->store, l->group, &s->members);
    }
    if (err == FERRY_OK) {
        err = insert(l->t, s);
    }
    if (err != FERRY_OK) {
        free_subscription(s);
    }
    return err;
}

static enum ferry_err load_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct loading *l = arg;
    if (key.size == LEAVING_KEY_BYTES && key.data[0] == 0) {
        return add_leaving(l->t, get_be64(key.data + 1), true);
    }
    if (key.size == 0 || key.size > NAME_MAX_BYTES) {
        return FERRY_ERR_CORRUPT;
    }
    return load_subscription(l, key, value);
}

enum ferry_err subscriptions_load(struct subscriptions *t, struct store *store, uint64_t group)
{
    struct loading l = {.t = t, .store = store, .group = group};
    return store_each_row(store, group, TABLE_SUBSCRIPTIONS, bytes_of(NULL, 0), load_row, &l);
}
