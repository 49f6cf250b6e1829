/* store.h in memory. Changes are made in place, with what undoes them beside. A view that is opened
 * during a transaction shows rows as they were before it, by the same notes; entries and marks
 * nobody reads then (must). The bytes of entries and rows are those of the real store
 * (store_layout.c), checksums and all. */
#include <stdio.h>

#include "base/id.h"
#include "base/mem.h"
#include "sim/sim_disk.h"
#include "sim/world.h"
#include "store/store.h"
/* The real store's struct goes by another name here; wanted are the bytes on disk. */
#define store lmdb_store
#include "store/store_core.h"
#undef store

#define DISKS_MAX 128
#define PATH_MAX_ 1100

struct value {
    uint8_t *data; /* Owned. NULL: none. */
    size_t size;
};

struct row {
    uint8_t *key; /* Owned: table, then the key's bytes. */
    size_t key_bytes;
    struct value value;
};

struct sim_group {
    uint64_t id;
    bool has_marks;
    uint8_t marks[STORE_GROUP_BYTES];
    uint64_t first; /* Of entries[head]; the log is first..first + count - 1. */
    struct value *entries;
    size_t head, count, capacity;
    struct row *rows; /* Sorted by key. */
    size_t row_count, row_capacity;
};

enum undo_kind {
    UNDO_APPEND,
    UNDO_FRONT,
    UNDO_BACK,
    UNDO_REPLACE,
    UNDO_MARKS,
    UNDO_ROW,
    UNDO_CLUSTER
};

struct undo {
    enum undo_kind kind;
    uint64_t group, index;
    struct value value; /* What was there. */
    uint8_t *key;
    size_t key_bytes;
};

struct sim_disk {
    char path[PATH_MAX_];
    struct store_identity identity;
    struct sim_group **groups; /* Sorted by id; each owned. */
    size_t group_count, group_capacity;
    struct undo *undo; /* Of the open transaction, or of the last one while it may be lost. */
    size_t undo_count, undo_capacity;
    int64_t durable_us; /* When the last commit is over. */
    bool open;
};

struct store {
    struct sim_disk *disk;
    struct sim_disk_faults *faults;
    bool writing, viewing, failed;
    struct err_text failure;
    size_t turn_bytes;
    uint64_t commits, written_bytes;
};

static struct {
    struct sim_disk *disks[DISKS_MAX];
} all;

/* ---- Values and groups ---- */

static struct value copy_value(const void *data, size_t size)
{
    struct value v = {.data = mem_dup(data, size), .size = size};
    must(v.data != NULL);
    return v;
}

static size_t group_place(const struct sim_disk *d, uint64_t id)
{
    size_t low = 0;
    size_t high = d->group_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (d->groups[middle]->id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct sim_group *find_group(const struct sim_disk *d, uint64_t id)
{
    size_t at = group_place(d, id);
    return at < d->group_count && d->groups[at]->id == id ? d->groups[at] : NULL;
}

static struct sim_group *need_group(struct sim_disk *d, uint64_t id)
{
    struct sim_group *g = find_group(d, id);
    if (g != NULL) {
        return g;
    }
    g = mem_zalloc(1, sizeof(*g));
    must(g != NULL);
    g->id = id;
    size_t at = group_place(d, id);
    must(mem_grow((void **)&d->groups, &d->group_capacity, d->group_count + 1,
                  sizeof(struct sim_group *)));
    memmove(&d->groups[at + 1], &d->groups[at], (d->group_count - at) * sizeof(struct sim_group *));
    d->groups[at] = g;
    d->group_count++;
    return g;
}

static struct value *entry_at(const struct sim_group *g, uint64_t index)
{
    bool there = g != NULL && g->count > 0 && index >= g->first && index - g->first < g->count;
    return there ? &g->entries[g->head + (index - g->first)] : NULL;
}

static uint64_t last_index(const struct sim_group *g)
{
    return g == NULL || g->count == 0 ? 0 : g->first + g->count - 1;
}

static void push_back(struct sim_group *g, uint64_t index, struct value v)
{
    if (g->count == 0) {
        g->head = 0;
        g->first = index;
    }
    must(index == g->first + g->count);
    if (g->head > 0 && g->head + g->count == g->capacity) {
        memmove(g->entries, g->entries + g->head, g->count * sizeof(*g->entries));
        g->head = 0;
    }
    must(mem_grow((void **)&g->entries, &g->capacity, g->head + g->count + 1, sizeof(*g->entries)));
    g->entries[g->head + g->count++] = v;
}

static void push_front(struct sim_group *g, uint64_t index, struct value v)
{
    if (g->count == 0) {
        push_back(g, index, v);
        return;
    }
    must(index + 1 == g->first);
    if (g->head == 0) {
        must(mem_grow((void **)&g->entries, &g->capacity, g->count + 1, sizeof(*g->entries)));
        memmove(g->entries + 1, g->entries, g->count * sizeof(*g->entries));
        g->head = 1;
    }
    g->entries[--g->head] = v;
    g->first = index;
    g->count++;
}

static struct value pop_front(struct sim_group *g)
{
    struct value v = g->entries[g->head++];
    g->first++;
    g->count--;
    return v;
}

static struct value pop_back(struct sim_group *g)
{
    return g->entries[g->head + --g->count];
}

/* ---- Rows ---- */

static int compare_keys(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes)
{
    size_t common = a_bytes < b_bytes ? a_bytes : b_bytes;
    int order = common > 0 ? memcmp(a, b, common) : 0;
    return order != 0 ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static size_t row_place(const struct sim_group *g, const uint8_t *key, size_t key_bytes)
{
    size_t low = 0;
    size_t high = g->row_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct row *r = &g->rows[middle];
        if (compare_keys(r->key, r->key_bytes, key, key_bytes) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct row *find_row(const struct sim_group *g, const uint8_t *key, size_t key_bytes)
{
    size_t at = g != NULL ? row_place(g, key, key_bytes) : 0;
    if (g == NULL || at == g->row_count ||
        compare_keys(g->rows[at].key, g->rows[at].key_bytes, key, key_bytes) != 0) {
        return NULL;
    }
    return &g->rows[at];
}

/* Gives the row another value (none: it goes) and returns the one it had. */
static struct value set_row(struct sim_group *g, const uint8_t *key, size_t key_bytes,
                            struct value value)
{
    struct row *r = find_row(g, key, key_bytes);
    struct value was = {0};
    if (r != NULL) {
        was = r->value;
        r->value = value;
    }
    if (r != NULL && value.data == NULL) {
        mem_free(r->key);
        size_t at = (size_t)(r - g->rows);
        g->row_count--;
        memmove(r, r + 1, (g->row_count - at) * sizeof(*r));
    } else if (r == NULL && value.data != NULL) {
        size_t at = row_place(g, key, key_bytes);
        must(mem_grow((void **)&g->rows, &g->row_capacity, g->row_count + 1, sizeof(*g->rows)));
        memmove(&g->rows[at + 1], &g->rows[at], (g->row_count - at) * sizeof(*g->rows));
        g->rows[at] = (struct row){
            .key = copy_value(key, key_bytes).data, .key_bytes = key_bytes, .value = value};
        g->row_count++;
    }
    return was;
}

/* ---- Undo ---- */

static struct undo *note(struct sim_disk *d, enum undo_kind kind, uint64_t group, uint64_t index)
{
    must(mem_grow((void **)&d->undo, &d->undo_capacity, d->undo_count + 1, sizeof(*d->undo)));
    struct undo *u = &d->undo[d->undo_count++];
    *u = (struct undo){.kind = kind, .group = group, .index = index};
    return u;
}

static void forget_undo(struct sim_disk *d)
{
    for (size_t i = 0; i < d->undo_count; i++) {
        mem_free(d->undo[i].value.data);
        mem_free(d->undo[i].key);
    }
    d->undo_count = 0;
}

static void undo_one(struct sim_disk *d, struct undo *u)
{
    struct sim_group *g = u->kind != UNDO_CLUSTER ? need_group(d, u->group) : NULL;
    switch (u->kind) {
    case UNDO_APPEND:
        mem_free(pop_back(g).data);
        break;
    case UNDO_FRONT:
        push_front(g, u->index, u->value);
        break;
    case UNDO_BACK:
        push_back(g, u->index, u->value);
        break;
    case UNDO_REPLACE:
        mem_free(entry_at(g, u->index)->data);
        *entry_at(g, u->index) = u->value;
        break;
    case UNDO_MARKS:
        g->has_marks = u->value.data != NULL;
        if (g->has_marks) {
            memcpy(g->marks, u->value.data, sizeof(g->marks));
        }
        mem_free(u->value.data);
        break;
    case UNDO_CLUSTER:
        memset(&d->identity.cluster_id, 0, sizeof(d->identity.cluster_id));
        break;
    case UNDO_ROW:
        mem_free(set_row(g, u->key, u->key_bytes, u->value).data);
        break;
    }
    u->value.data = NULL;
}

static void undo_all(struct sim_disk *d)
{
    for (size_t i = d->undo_count; i-- > 0;) {
        undo_one(d, &d->undo[i]);
    }
    forget_undo(d);
}

/* ---- Disks ---- */

static struct sim_disk **slot_of_path(const char *path)
{
    for (size_t i = 0; i < DISKS_MAX; i++) {
        if (all.disks[i] != NULL && strcmp(all.disks[i]->path, path) == 0) {
            return &all.disks[i];
        }
    }
    return NULL;
}

static void add_disk(struct sim_disk *d)
{
    size_t i = 0;
    while (all.disks[i] != NULL) {
        must(++i < DISKS_MAX);
    }
    all.disks[i] = d;
}

void sim_disks_init(void)
{
    memset(&all, 0, sizeof(all));
}

const char *sim_disks_root(void)
{
    return "/sim";
}

void sim_disks_make_folder(const char *path)
{
    (void)path;
}

void sim_disks_remove(long pid)
{
    (void)pid;
}

enum ferry_err sim_disk_before_commit(const char *path)
{
    (void)path; /* This store has its faults inside. */
    return FERRY_OK;
}

void sim_disk_after_commit(const char *path)
{
    (void)path;
}

void sim_disks_fini(void)
{
    for (size_t i = 0; i < DISKS_MAX; i++) {
        sim_disk_free(&all.disks[i]);
    }
}

struct sim_disk *sim_disk_find(const char *path)
{
    struct sim_disk **slot = slot_of_path(path);
    return slot != NULL ? *slot : NULL;
}

bool sim_disk_crash(const char *path, int64_t when_us, bool keeps)
{
    struct sim_disk *d = sim_disk_find(path);
    if (d == NULL) {
        return false;
    }
    bool undone = d->durable_us > when_us && !keeps && d->undo_count > 0;
    if (undone) {
        undo_all(d);
    }
    forget_undo(d);
    d->durable_us = 0;
    return undone;
}

static void free_group(struct sim_group *g)
{
    for (size_t i = 0; i < g->count; i++) {
        mem_free(g->entries[g->head + i].data);
    }
    for (size_t i = 0; i < g->row_count; i++) {
        mem_free(g->rows[i].key);
        mem_free(g->rows[i].value.data);
    }
    mem_free(g->entries);
    mem_free(g->rows);
    mem_free(g);
}

void sim_disk_free(struct sim_disk **disk)
{
    struct sim_disk *d = *disk;
    if (d == NULL) {
        return;
    }
    forget_undo(d);
    mem_free(d->undo);
    for (size_t i = 0; i < d->group_count; i++) {
        free_group(d->groups[i]);
    }
    mem_free(d->groups);
    mem_free(d);
    *disk = NULL;
}

void sim_disk_wipe(const char *path)
{
    struct sim_disk **slot = slot_of_path(path);
    if (slot != NULL) {
        must(!(*slot)->open);
        sim_disk_free(slot);
    }
}

static void copy_group(struct sim_disk *to, const struct sim_group *g)
{
    struct sim_group *c = need_group(to, g->id);
    c->has_marks = g->has_marks;
    memcpy(c->marks, g->marks, sizeof(c->marks));
    for (size_t i = 0; i < g->count; i++) {
        const struct value *v = &g->entries[g->head + i];
        push_back(c, g->first + i, copy_value(v->data, v->size));
    }
    for (size_t i = 0; i < g->row_count; i++) {
        const struct row *r = &g->rows[i];
        (void)set_row(c, r->key, r->key_bytes, copy_value(r->value.data, r->value.size));
    }
}

struct sim_disk *sim_disk_copy(const char *path)
{
    const struct sim_disk *d = sim_disk_find(path);
    if (d == NULL) {
        return NULL;
    }
    struct sim_disk *c = mem_zalloc(1, sizeof(*c));
    must(c != NULL);
    memcpy(c->path, d->path, sizeof(c->path));
    c->identity = d->identity;
    for (size_t i = 0; i < d->group_count; i++) {
        copy_group(c, d->groups[i]);
    }
    return c;
}

void sim_disk_restore(const char *path, struct sim_disk **copy)
{
    sim_disk_wipe(path);
    add_disk(*copy);
    *copy = NULL;
}

bool sim_disk_rot(const char *path, uint64_t group, uint64_t index, uint64_t bit)
{
    const struct sim_disk *d = sim_disk_find(path);
    struct value *v = d != NULL ? entry_at(find_group(d, group), index) : NULL;
    if (v == NULL) {
        return false;
    }
    bit %= (uint64_t)v->size * 8;
    v->data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    return true;
}

/* ---- Opening ---- */

static enum ferry_err check_owner(const struct store_config *c, const struct store_identity *id,
                                  struct err_text *e)
{
    bool other = id->node_id != c->node_id || id->shard != c->shard || id->shards != c->shards ||
                 (c->incarnation != 0 && c->incarnation != id->incarnation) ||
                 (!id_is_zero(&c->cluster_id) && !id_equal(&id->cluster_id, &c->cluster_id));
    return other ? err_set(e, FERRY_ERR_WRONG_NODE, "%s is another's", c->path) : FERRY_OK;
}

static struct sim_disk *make_disk(const struct store_config *c)
{
    struct sim_disk *d = mem_zalloc(1, sizeof(*d));
    struct id_gen ids;
    must(d != NULL && strlen(c->path) < sizeof(d->path));
    must(id_gen_init(&ids, 0) == FERRY_OK);
    (void)snprintf(d->path, sizeof(d->path), "%s", c->path);
    d->identity = (struct store_identity){
        .format = STORE_FORMAT,
        .cluster_id =
            id_is_zero(&c->cluster_id) && !c->no_cluster ? id_random(&ids) : c->cluster_id,
        .node_id = c->node_id,
        .shard = c->shard,
        .shards = c->shards,
        .incarnation =
            c->incarnation != 0 ? c->incarnation : 1 + (uint32_t)prng_below(&ids.prng, UINT32_MAX),
    };
    add_disk(d);
    return d;
}

enum ferry_err store_open(const struct store_config *config, struct store **store,
                          struct err_text *e)
{
    struct sim_disk *d = sim_disk_find(config->path);
    if (d == NULL) {
        d = make_disk(config);
    }
    if (d->open) {
        return err_set(e, FERRY_ERR_LOCKED, "%s is open", config->path);
    }
    enum ferry_err err = check_owner(config, &d->identity, e);
    if (err != FERRY_OK) {
        return err;
    }
    struct store *s = mem_zalloc(1, sizeof(*s));
    must(s != NULL);
    s->disk = d;
    s->faults = sim_disk_faults(config->path);
    d->open = true;
    *store = s;
    return FERRY_OK;
}

void store_close(struct store **store)
{
    struct store *s = *store;
    *store = NULL;
    if (s == NULL) {
        return;
    }
    if (s->writing) {
        undo_all(s->disk);
    }
    s->disk->open = false;
    mem_free(s);
}

struct ferry_id store_cluster_id(const struct store *store)
{
    return store->disk->identity.cluster_id;
}

uint32_t store_incarnation(const struct store *store)
{
    return store->disk->identity.incarnation;
}

enum ferry_err store_failure(const struct store *store, struct err_text *e)
{
    return store->failed ? err_set(e, FERRY_ERR_STORE_FAILED, "%s", store->failure.text) : FERRY_OK;
}

/* ---- Transactions ---- */

enum ferry_err store_begin(struct store *store)
{
    must(!store->writing && !store->viewing); /* A view would see it happen. */
    if (store->failed) {
        return FERRY_ERR_STORE_FAILED;
    }
    forget_undo(store->disk);
    store->writing = true;
    store->turn_bytes = 0;
    return FERRY_OK;
}

enum ferry_err store_commit(struct store *store)
{
    struct store *s = store;
    must(s->writing);
    if (s->failed) {
        store_abort(s);
        return FERRY_ERR_STORE_FAILED;
    }
    s->writing = false;
    if (sim != NULL) {
        task_spend(sim_disk_commit_time(s->faults));
        s->disk->durable_us = world_now();
    }
    if (s->faults->fail_next) {
        s->faults->fail_next = false;
        if (!s->faults->fail_keeps) {
            undo_all(s->disk);
        }
        s->failed = true;
        return err_set(&s->failure, FERRY_ERR_STORE_FAILED, "%s: a commit failed", s->disk->path);
    }
    s->commits++;
    s->written_bytes += s->turn_bytes;
    return FERRY_OK;
}

void store_abort(struct store *store)
{
    if (store->writing) {
        undo_all(store->disk);
        store->writing = false;
    }
}

static void count_bytes(struct store *s, size_t bytes)
{
    s->turn_bytes += bytes;
    must(s->turn_bytes <= STORE_TURN_MAX_BYTES);
}

static enum ferry_err check_writing(const struct store *s)
{
    must(s->writing);
    return s->failed ? FERRY_ERR_STORE_FAILED : FERRY_OK;
}

enum ferry_err store_append(struct store *store, uint64_t group, uint64_t index,
                            const struct store_entry *entry)
{
    enum ferry_err err = check_writing(store);
    if (err != FERRY_OK) {
        return err;
    }
    struct sim_group *g = need_group(store->disk, group);
    must(index > 0 && index < UINT64_MAX && (g->count == 0 || index == last_index(g) + 1));
    struct value v = {.size = store_entry_bytes(entry)};
    v.data = mem_alloc(v.size);
    must(v.data != NULL);
    store_entry_encode(v.data, entry);
    count_bytes(store, v.size);
    push_back(g, index, v);
    (void)note(store->disk, UNDO_APPEND, group, index);
    return FERRY_OK;
}

enum ferry_err store_replace_entry(struct store *store, uint64_t group, uint64_t index,
                                   const struct store_entry *entry)
{
    enum ferry_err err = check_writing(store);
    if (err != FERRY_OK) {
        return err;
    }
    struct value *v = entry_at(find_group(store->disk, group), index);
    if (v == NULL) {
        return FERRY_ERR_CORRUPT;
    }
    struct undo *u = note(store->disk, UNDO_REPLACE, group, index);
    u->value = *v;
    v->size = store_entry_bytes(entry);
    v->data = mem_alloc(v->size);
    must(v->data != NULL);
    store_entry_encode(v->data, entry);
    count_bytes(store, v->size);
    return FERRY_OK;
}

enum ferry_err store_set_cluster(struct store *store, const struct ferry_id *cluster_id)
{
    enum ferry_err err = check_writing(store);
    if (err == FERRY_OK) {
        must(id_is_zero(&store->disk->identity.cluster_id) && !id_is_zero(cluster_id));
        (void)note(store->disk, UNDO_CLUSTER, 0, 0);
        store->disk->identity.cluster_id = *cluster_id;
    }
    return err;
}

enum ferry_err store_delete_entries(struct store *store, uint64_t group, uint64_t first,
                                    uint64_t last, uint32_t max_count, uint32_t *deleted,
                                    uint64_t *bytes)
{
    *deleted = 0;
    *bytes = 0;
    enum ferry_err err = check_writing(store);
    struct sim_group *g = find_group(store->disk, group);
    while (err == FERRY_OK && g != NULL && g->count > 0 && *deleted < max_count &&
           g->first <= last) {
        must(g->first >= first); /* From the front only. */
        uint64_t index = g->first;
        struct value v = pop_front(g);
        *bytes += v.size;
        *deleted += 1;
        note(store->disk, UNDO_FRONT, group, index)->value = v;
    }
    return err;
}

enum ferry_err store_truncate(struct store *store, uint64_t group, uint64_t first,
                              uint32_t max_count, uint32_t *deleted)
{
    *deleted = 0;
    enum ferry_err err = check_writing(store);
    struct sim_group *g = find_group(store->disk, group);
    while (err == FERRY_OK && g != NULL && *deleted < max_count && last_index(g) >= first) {
        uint64_t index = last_index(g);
        *deleted += 1;
        note(store->disk, UNDO_BACK, group, index)->value = pop_back(g);
    }
    return err;
}

static enum ferry_err put_marks(struct store *s, uint64_t group, const uint8_t *marks)
{
    enum ferry_err err = check_writing(s);
    if (err != FERRY_OK) {
        return err;
    }
    struct sim_group *g = need_group(s->disk, group);
    struct undo *u = note(s->disk, UNDO_MARKS, group, 0);
    if (g->has_marks) {
        u->value = copy_value(g->marks, sizeof(g->marks));
    }
    g->has_marks = marks != NULL;
    if (marks != NULL) {
        memcpy(g->marks, marks, sizeof(g->marks));
        count_bytes(s, sizeof(g->marks));
    }
    return FERRY_OK;
}

enum ferry_err store_put_group(struct store *store, const struct store_group *g)
{
    uint8_t marks[STORE_GROUP_BYTES];
    must(g->deleted_index <= g->trim_index);
    layout_group_encode(marks, g);
    return put_marks(store, g->group, marks);
}

enum ferry_err store_delete_group(struct store *store, uint64_t group)
{
    return put_marks(store, group, NULL);
}

static size_t row_key(uint8_t out[1 + STORE_KEY_MAX_BYTES], uint8_t table, struct bytes key)
{
    must(key.size <= STORE_KEY_MAX_BYTES);
    out[0] = table;
    if (key.size > 0) {
        memcpy(out + 1, key.data, key.size);
    }
    return key.size + 1;
}

static enum ferry_err change_row(struct store *s, uint64_t group, const uint8_t *key,
                                 size_t key_bytes, struct value value)
{
    enum ferry_err err = check_writing(s);
    if (err != FERRY_OK) {
        mem_free(value.data);
        return err;
    }
    count_bytes(s, value.size + key_bytes);
    struct sim_group *g = need_group(s->disk, group);
    struct undo *u = note(s->disk, UNDO_ROW, group, 0);
    u->key = copy_value(key, key_bytes).data;
    u->key_bytes = key_bytes;
    u->value = set_row(g, u->key, key_bytes, value);
    return FERRY_OK;
}

enum ferry_err store_put(struct store *store, uint64_t group, uint8_t table, struct bytes key,
                         struct bytes value)
{
    uint8_t row[1 + STORE_KEY_MAX_BYTES];
    return change_row(store, group, row, row_key(row, table, key),
                      copy_value(value.data, value.size));
}

enum ferry_err store_delete(struct store *store, uint64_t group, uint8_t table, struct bytes key)
{
    uint8_t row[1 + STORE_KEY_MAX_BYTES];
    return change_row(store, group, row, row_key(row, table, key), (struct value){0});
}

enum ferry_err store_delete_rows(struct store *store, uint64_t group, uint8_t table,
                                 uint32_t max_count, uint32_t *deleted)
{
    *deleted = 0;
    enum ferry_err err = check_writing(store);
    struct sim_group *g = find_group(store->disk, group);
    size_t at = 0;
    while (err == FERRY_OK && g != NULL && at < g->row_count && *deleted < max_count) {
        if (table != 0 && g->rows[at].key[0] != table) {
            at++;
            continue;
        }
        uint8_t key[1 + STORE_KEY_MAX_BYTES];
        size_t key_bytes = g->rows[at].key_bytes;
        memcpy(key, g->rows[at].key, key_bytes);
        err = change_row(store, group, key, key_bytes, (struct value){0});
        *deleted += err == FERRY_OK;
    }
    return err;
}

/* ---- Views ---- */

enum ferry_err store_read_begin(struct store *store)
{
    must(!store->viewing);
    if (store->failed) {
        return FERRY_ERR_STORE_FAILED;
    }
    store->viewing = true;
    return FERRY_OK;
}

void store_read_end(struct store *store)
{
    store->viewing = false;
}

static enum ferry_err check_view(const struct store *s)
{
    must(s->viewing);
    return s->failed ? FERRY_ERR_STORE_FAILED : FERRY_OK;
}

static enum ferry_err read_marks(const struct sim_group *g, struct store_group *out)
{
    uint8_t key[STORE_GROUP_KEY_BYTES];
    put_be64(key, g->id);
    return layout_group_decode(bytes_of(key, sizeof(key)), bytes_of(g->marks, sizeof(g->marks)),
                               out);
}

enum ferry_err store_get_group(struct store *store, uint64_t group, struct store_group *out)
{
    enum ferry_err err = check_view(store);
    const struct sim_group *g = find_group(store->disk, group);
    if (err == FERRY_OK && (g == NULL || !g->has_marks)) {
        err = FERRY_ERR_UNKNOWN_PARTITION;
    }
    return err == FERRY_OK ? read_marks(g, out) : err;
}

enum ferry_err store_each_group(struct store *store, store_group_cb *callback, void *arg)
{
    enum ferry_err err = check_view(store);
    for (size_t i = 0; i < store->disk->group_count && err == FERRY_OK; i++) {
        struct store_group g;
        if (store->disk->groups[i]->has_marks) {
            err = read_marks(store->disk->groups[i], &g);
            err = err == FERRY_OK ? callback(&g, arg) : err;
        }
    }
    return err;
}

enum ferry_err store_get_entry(struct store *store, uint64_t group, uint64_t index,
                               struct store_entry *entry)
{
    enum ferry_err err = check_view(store);
    if (err != FERRY_OK) {
        return err;
    }
    must(!store->writing);
    const struct value *v = entry_at(find_group(store->disk, group), index);
    return v != NULL ? store_entry_decode(bytes_of(v->data, v->size), entry)
                     : FERRY_ERR_OFFSET_OUT_OF_RANGE;
}

enum ferry_err store_log_bounds(struct store *store, uint64_t group, uint64_t *first,
                                uint64_t *last)
{
    enum ferry_err err = check_view(store);
    const struct sim_group *g = find_group(store->disk, group);
    bool some = err == FERRY_OK && g != NULL && g->count > 0;
    *first = some ? g->first : 0;
    *last = some ? last_index(g) : 0;
    return err;
}

enum ferry_err store_cursor_open(struct store *store, uint64_t group, uint64_t index,
                                 struct store_cursor *c)
{
    enum ferry_err err = check_view(store);
    if (err == FERRY_OK) {
        *c = (struct store_cursor){.store = store, .group = group, .next_index = index};
    }
    return err;
}

enum ferry_err store_cursor_next(struct store_cursor *c, uint64_t *index, struct store_entry *entry)
{
    enum ferry_err err = store_get_entry(c->store, c->group, c->next_index, entry);
    if (err == FERRY_OK) {
        *index = c->next_index++;
    }
    return err;
}

void store_cursor_close(struct store_cursor *c)
{
    *c = (struct store_cursor){0};
}

/* The row before the open transaction; NULL: there was none. */
static const struct value *row_before(const struct store *s, uint64_t group, const uint8_t *key,
                                      size_t key_bytes)
{
    const struct row *r = find_row(find_group(s->disk, group), key, key_bytes);
    const struct value *v = r != NULL ? &r->value : NULL;
    for (size_t i = s->writing ? s->disk->undo_count : 0; i-- > 0;) {
        const struct undo *u = &s->disk->undo[i];
        if (u->kind == UNDO_ROW && u->group == group &&
            compare_keys(u->key, u->key_bytes, key, key_bytes) == 0) {
            v = &u->value;
        }
    }
    return v != NULL && v->data != NULL ? v : NULL;
}

enum ferry_err store_get(struct store *store, uint64_t group, uint8_t table, struct bytes key,
                         bool *found, struct bytes *value)
{
    uint8_t row[1 + STORE_KEY_MAX_BYTES];
    *found = false;
    enum ferry_err err = check_view(store);
    const struct value *v = row_before(store, group, row, row_key(row, table, key));
    if (err == FERRY_OK && v != NULL) {
        *found = true;
        *value = bytes_of(v->data, v->size);
    }
    return err;
}

/* The group's rows before the open transaction: names only, the bytes are the disk's. */
static struct sim_group rows_before(const struct store *s, uint64_t group)
{
    struct sim_group before = {.id = group};
    const struct sim_group *g = find_group(s->disk, group);
    if (g != NULL) {
        before.row_count = g->row_count;
        must(mem_grow((void **)&before.rows, &before.row_capacity, g->row_count,
                      sizeof(struct row)));
        if (g->row_count > 0) {
            memcpy(before.rows, g->rows, g->row_count * sizeof(struct row));
        }
    }
    for (size_t i = s->writing ? s->disk->undo_count : 0; i-- > 0;) {
        const struct undo *u = &s->disk->undo[i];
        if (u->kind != UNDO_ROW || u->group != group) {
            continue;
        }
        struct row *r = find_row(&before, u->key, u->key_bytes);
        if (r != NULL) {
            r->value = u->value; /* Empty: it is not there. */
        } else if (u->value.data != NULL) {
            size_t at = row_place(&before, u->key, u->key_bytes);
            must(mem_grow((void **)&before.rows, &before.row_capacity, before.row_count + 1,
                          sizeof(struct row)));
            memmove(&before.rows[at + 1], &before.rows[at],
                    (before.row_count - at) * sizeof(struct row));
            before.rows[at] =
                (struct row){.key = u->key, .key_bytes = u->key_bytes, .value = u->value};
            before.row_count++;
        }
    }
    return before;
}

enum ferry_err store_each_row(struct store *store, uint64_t group, uint8_t table, struct bytes from,
                              store_row_cb *callback, void *arg)
{
    uint8_t row[1 + STORE_KEY_MAX_BYTES];
    enum ferry_err err = check_view(store);
    if (err != FERRY_OK) {
        return err;
    }
    struct sim_group g = rows_before(store, group);
    size_t at = row_place(&g, row, row_key(row, table, from));
    bool stop = false;
    for (; err == FERRY_OK && at < g.row_count && !stop && g.rows[at].key[0] == table; at++) {
        const struct row *r = &g.rows[at];
        if (r->value.data != NULL) {
            err = callback(bytes_of(r->key + 1, r->key_bytes - 1),
                           bytes_of(r->value.data, r->value.size), &stop, arg);
        }
    }
    mem_free(g.rows);
    return err;
}

/* ---- Room ---- */

bool store_has_room(struct store *store, size_t bytes)
{
    (void)bytes;
    return !store->faults->full && !store->failed;
}

const char *store_library_version(void)
{
    return "simulated";
}

void store_stats(const struct store *store, struct store_stats *stats)
{
    *stats = (struct store_stats){.file_bytes = 1 << 20,
                                  .used_bytes = 1 << 19,
                                  .commits = store->commits,
                                  .written_bytes = store->written_bytes};
}

void store_check(const struct store *store)
{
    must(!store->failed || store->failure.text[0] != '\0');
}
