#include "partition/versions.h"

#include "base/checksum.h"
#include "base/mem.h"
#include "wire/pack.h"

#define HASHED_KEY_BYTES (NAME_MAX_BYTES * 4u) /* Longer keys are named by their hash. */

struct proposed_version {
    struct version_key key;
    uint64_t version;
    uint64_t index; /* Of the entry that sets it; 0: reserved. */
    struct list node;
};

void versions_init(struct versions *t, uint8_t table)
{
    *t = (struct versions){0};
    rows_init(&t->rows, table);
    map_init(&t->proposed);
    list_init(&t->queue);
    list_init(&t->spare);
}

void versions_fini(struct versions *t)
{
    uint8_t table = t->rows.table;
    versions_forget(t);
    map_fini(&t->proposed);
    rows_fini(&t->rows);
    versions_init(t, table);
}

struct version_key version_key_of(struct bytes key)
{
    struct version_key v;
    checksum_128_of(key.data, key.size, v.bytes);
    if (key.size > HASHED_KEY_BYTES) {
        struct version_key hash = v;
        checksum_128_of(hash.bytes, sizeof(hash.bytes), v.bytes);
    }
    return v;
}

bool versions_is_full(const struct versions *t)
{
    return rows_is_full(&t->rows) || rows_pending(&t->rows) + t->proposed.count >= ROWS_PENDING_MAX;
}

/* ---- Asking ---- */

static uint64_t hash_of(const struct version_key *key)
{
    return get_le64(key->bytes);
}

static bool has_key(const void *item, const void *key)
{
    return memcmp(((const struct proposed_version *)item)->key.bytes, key, VERSION_KEY_BYTES) == 0;
}

static struct proposed_version *find(const struct versions *t, const struct version_key *key)
{
    return map_find(&t->proposed, hash_of(key), has_key, key->bytes);
}

enum ferry_err versions_get(struct versions *t, struct store *store, uint64_t group,
                            const struct version_key *key, uint64_t *version)
{
    struct bytes value;
    bool found = false;
    *version = 0;
    enum ferry_err err =
        rows_get(&t->rows, store, group, bytes_of(key->bytes, VERSION_KEY_BYTES), &found, &value);
    if (err != FERRY_OK || !found) {
        return err;
    }
    if (value.size != 8) {
        return FERRY_ERR_CORRUPT;
    }
    *version = get_le64(value.data);
    return FERRY_OK;
}

enum ferry_err versions_expect(struct versions *t, struct store *store, uint64_t group,
                               const struct version_key *key, uint64_t *version)
{
#ifndef MUT_73 /* an expectation does not see what is on its way */
    const struct proposed_version *v = find(t, key);
    if (v != NULL && v->index != 0) {
        *version = v->version;
        return FERRY_OK;
    }
#endif
    return versions_get(t, store, group, key, version);
}

bool versions_is_moving(const struct versions *t, const struct version_key *key)
{
    const struct proposed_version *v = find(t, key);
    return v != NULL && v->index != 0;
}

/* ---- Proposing ---- */

static void drop(struct versions *t, struct proposed_version *v)
{
    map_remove(&t->proposed, hash_of(&v->key), v);
    list_remove(&v->node);
    mem_free(v);
}

enum ferry_err versions_reserve(struct versions *t, const struct version_key *key)
{
    if (find(t, key) != NULL) {
        return FERRY_OK;
    }
    struct proposed_version *v = mem_zalloc(1, sizeof(*v));
    if (v == NULL || !map_add(&t->proposed, hash_of(key), v)) {
        mem_free(v);
        return FERRY_ERR_NO_MEMORY;
    }
    v->key = *key;
    list_init(&v->node);
    list_push_back(&t->spare, &v->node);
    return FERRY_OK;
}

static void drop_all(struct versions *t, struct list *list)
{
    while (!list_is_empty(list)) {
        drop(t, list_entry(list->next, struct proposed_version, node));
    }
}

void versions_unreserve(struct versions *t)
{
    drop_all(t, &t->spare);
}

void versions_note(struct versions *t, const struct version_key *key, uint64_t version,
                   uint64_t index)
{
    struct proposed_version *v = find(t, key);
    must(v != NULL);
    must(index > v->index);
    v->version = version;
    v->index = index;
    list_remove(&v->node);
    list_push_back(&t->queue, &v->node);
}

void versions_forget(struct versions *t)
{
    drop_all(t, &t->queue);
    drop_all(t, &t->spare);
}

/* ---- Entries ---- */

void versions_encode(struct buf *b, struct bytes versions)
{
    pack_array(b, 2);
    pack_uint(b, CONTROL_PUBLISH);
    pack_bin(b, versions);
}

static void settle(struct versions *t, uint64_t index)
{
    while (!list_is_empty(&t->queue)) {
        struct proposed_version *v = list_entry(t->queue.next, struct proposed_version, node);
        if (v->index > index) {
            return;
        }
        drop(t, v);
    }
}

enum ferry_err versions_apply(struct versions *t, uint64_t index, struct bytes control)
{
    struct unpack u;
    unpack_begin(&u, control);
    uint64_t kind = unpack_uint(&u, UINT8_MAX);
    struct bytes list = unpack_bin(&u, PUBLISH_EXPECT_MAX * VERSION_BYTES);
    if (unpack_end(&u) != FERRY_OK || kind != CONTROL_PUBLISH || list.size % VERSION_BYTES != 0) {
        return FERRY_ERR_CORRUPT;
    }
    enum ferry_err err = FERRY_OK;
    for (size_t at = 0; at < list.size && err == FERRY_OK; at += VERSION_BYTES) {
        err = rows_put(&t->rows, bytes_of(list.data + at, VERSION_KEY_BYTES),
                       bytes_of(list.data + at + VERSION_KEY_BYTES, 8));
    }
    settle(t, index);
    return err;
}
