/* Message ids seen within the dedupe window (invariant 4 of partition.h).
 *
 * New ids wait in memory until the next flush; the store has the rest, once by id and once by time,
 * so that expiry deletes from the old end without a scan. */
#include "base/checksum.h"
#include "base/mem.h"
#include "partition/tables.h"

#define ID_VALUE_BYTES    16u
#define ID_TIME_KEY_BYTES 24u

struct recent_id {
    struct ferry_id id;
    int64_t offset;
    int64_t time_ms;
    uint64_t index;
    struct list node;
    /* The same id of an earlier, or later, entry that is still here: the window of the earlier had
     * passed. The map has the latest. */
    struct recent_id *older, *newer;
};

void ids_init(struct ids *t)
{
    *t = (struct ids){0};
    map_init(&t->recent);
    list_init(&t->queue);
}

void ids_fini(struct ids *t)
{
    for (struct list *n; (n = list_pop_front(&t->queue)) != NULL;) {
        mem_free(list_entry(n, struct recent_id, node));
    }
    map_fini(&t->recent);
    ids_init(t);
}

static uint64_t hash_of(const struct ferry_id *id)
{
    return checksum_of(id->bytes, sizeof(id->bytes));
}

static bool has_id(const void *item, const void *key)
{
    return memcmp(&((const struct recent_id *)item)->id, key, sizeof(struct ferry_id)) == 0;
}

enum ferry_err ids_find(const struct ids *t, struct store *store, uint64_t group,
                        const struct ferry_id *id, int64_t not_before_ms, bool *found,
                        int64_t *offset)
{
    *found = false;
    const struct recent_id *recent = map_find(&t->recent, hash_of(id), has_id, id);
    if (recent != NULL) {
        *found = recent->time_ms >= not_before_ms;
        *offset = recent->offset;
        return FERRY_OK;
    }
    if (!t->disk_has_rows) {
        return FERRY_OK;
    }
    struct bytes value;
    bool row = false;
    enum ferry_err err =
        store_get(store, group, TABLE_IDS, bytes_of(id->bytes, sizeof(id->bytes)), &row, &value);
    if (err != FERRY_OK || !row) {
        return err;
    }
    if (value.size != ID_VALUE_BYTES) {
        return FERRY_ERR_CORRUPT;
    }
    int64_t floor = not_before_ms > t->expire_before_ms ? not_before_ms : t->expire_before_ms;
    *found = (int64_t)get_le64(value.data + 8) >= floor;
    *offset = (int64_t)get_le64(value.data);
    return FERRY_OK;
}

static void drop(struct ids *t, struct recent_id *r)
{
    if (r->newer != NULL) {
        r->newer->older = r->older;
    } else {
        map_remove(&t->recent, hash_of(&r->id), r);
    }
    if (r->older != NULL) {
        r->older->newer = r->newer;
    }
    if (r->newer == NULL && r->older != NULL) {
        /* It takes the place that was just given free. */
        must(map_add(&t->recent, hash_of(&r->id), r->older));
    }
    list_remove(&r->node);
    mem_free(r);
    t->count--;
}

enum ferry_err ids_note(struct ids *t, const struct ferry_id *id, int64_t offset, int64_t time_ms,
                        uint64_t index)
{
    struct recent_id *old = map_find(&t->recent, hash_of(id), has_id, id);
    for (const struct recent_id *same = old; same != NULL; same = same->older) {
        if (same->index == index) {
            return FERRY_OK;
        }
    }
    struct recent_id *r = mem_zalloc(1, sizeof(*r));
    if (r == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    *r = (struct recent_id){.id = *id, .offset = offset, .time_ms = time_ms, .index = index};
    list_init(&r->node);
    if (old != NULL) {
        /* Its window has passed: the id counts from now on as new. */
        map_remove(&t->recent, hash_of(id), old);
        r->older = old;
        old->newer = r;
        must(map_add(&t->recent, hash_of(id), r));
    } else if (!map_add(&t->recent, hash_of(id), r)) {
        mem_free(r);
        return FERRY_ERR_NO_MEMORY;
    }
    list_push_back(&t->queue, &r->node);
    t->count++;
    return FERRY_OK;
}

void ids_forget(struct ids *t, uint64_t applied)
{
    while (!list_is_empty(&t->queue)) {
        struct recent_id *last = list_entry(t->queue.prev, struct recent_id, node);
        if (last->index <= applied) {
            return;
        }
        drop(t, last);
    }
}

static void time_key(uint8_t key[ID_TIME_KEY_BYTES], int64_t time_ms, const struct ferry_id *id)
{
    put_be64(key, (uint64_t)time_ms);
    memcpy(key + 8, id->bytes, sizeof(id->bytes));
}

static enum ferry_err write_rows(const struct recent_id *r, struct store *store, uint64_t group)
{
    uint8_t value[ID_VALUE_BYTES], key[ID_TIME_KEY_BYTES];
    put_le64(value, (uint64_t)r->offset);
    put_le64(value + 8, (uint64_t)r->time_ms);
    time_key(key, r->time_ms, &r->id);
    enum ferry_err err =
        store_put(store, group, TABLE_IDS, bytes_of(r->id.bytes, sizeof(r->id.bytes)),
                  bytes_of(value, sizeof(value)));
    if (err == FERRY_OK) {
        err =
            store_put(store, group, TABLE_ID_TIMES, bytes_of(key, sizeof(key)), bytes_of(NULL, 0));
    }
    return err;
}

/* The oldest expired rows, copied out: a table must not change under the walk over it. */
struct expired {
    int64_t before_ms;
    uint32_t count;
    uint8_t keys[IDS_EXPIRE_MAX][ID_TIME_KEY_BYTES];
};

static enum ferry_err collect_expired(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)value;
    struct expired *e = arg;
    if (key.size != ID_TIME_KEY_BYTES) {
        return FERRY_ERR_CORRUPT;
    }
    if ((int64_t)get_be64(key.data) >= e->before_ms || e->count == IDS_EXPIRE_MAX) {
        *stop = true;
        return FERRY_OK;
    }
    memcpy(e->keys[e->count++], key.data, ID_TIME_KEY_BYTES);
    return FERRY_OK;
}

static enum ferry_err delete_expired_row(const uint8_t key[ID_TIME_KEY_BYTES], struct store *store,
                                         uint64_t group)
{
    struct bytes id = bytes_of(key + 8, 16);
    struct bytes value;
    bool found = false;
    enum ferry_err err = store_get(store, group, TABLE_IDS, id, &found, &value);
    /* The id may have been stored again since: then its row carries a later time. */
    if (err == FERRY_OK && found && value.size == ID_VALUE_BYTES &&
        get_le64(value.data + 8) == get_be64(key)) {
        err = store_delete(store, group, TABLE_IDS, id);
    }
    if (err == FERRY_OK) {
        err = store_delete(store, group, TABLE_ID_TIMES, bytes_of(key, ID_TIME_KEY_BYTES));
    }
    return err;
}

static enum ferry_err expire_rows(struct ids *t, struct store *store, uint64_t group)
{
    struct expired *e = mem_zalloc(1, sizeof(*e));
    if (e == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    e->before_ms = t->expire_before_ms;
    enum ferry_err err = store_read_begin(store);
    if (err == FERRY_OK) {
        err = store_each_row(store, group, TABLE_ID_TIMES, bytes_of(NULL, 0), collect_expired, e);
        for (uint32_t i = 0; i < e->count && err == FERRY_OK; i++) {
            err = delete_expired_row(e->keys[i], store, group);
        }
        store_read_end(store);
    }
    t->expiring = e->count == IDS_EXPIRE_MAX;
    mem_free(e);
    return err;
}

enum ferry_err ids_flush(struct ids *t, struct store *store, uint64_t group, uint64_t applied)
{
    /* Expiry looks at what was committed before this transaction, so it goes first: a row that is
     * written again below must not be deleted for its old time. */
    enum ferry_err err = t->expiring ? expire_rows(t, store, group) : FERRY_OK;
    while (err == FERRY_OK && !list_is_empty(&t->queue)) {
        struct recent_id *r = list_entry(t->queue.next, struct recent_id, node);
        if (r->index > applied) {
            break;
        }
        /* One that is over already: another replica may have written and deleted it by now. */
        if (r->time_ms >= t->expire_before_ms) {
            err = write_rows(r, store, group);
        }
        drop(t, r);
        t->disk_has_rows = true;
    }
    return err;
}

static enum ferry_err see_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)key;
    (void)value;
    *stop = true;
    ((struct ids *)arg)->disk_has_rows = true;
    return FERRY_OK;
}

enum ferry_err ids_load(struct ids *t, struct store *store, uint64_t group)
{
    return store_each_row(store, group, TABLE_IDS, bytes_of(NULL, 0), see_row, t);
}
