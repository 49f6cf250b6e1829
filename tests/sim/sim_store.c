/* store.h in memory. Changes are made in place, with what undoes them beside. A view that is opened
 * during a transaction shows rows as they were before it, by the same notes; entries and marks
 * nobody reads then (must). The bytes of entries and rows are those of the real store
 * (store_layout.c), checksums and all. */
#include <stdio.h>

#include "base/id.h"
#include "base/mem.h"
#include "sim/sim_disk_inner.h"
#include "sim/world.h"

struct store {
    struct sim_disk *disk;
    struct sim_disk_faults *faults;
    bool writing, viewing, failed;
    struct err_text failure;
    size_t turn_bytes;
    uint64_t commits, written_bytes;
};

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
    disk_add_disk(d);
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
        disk_undo_all(s->disk);
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
    disk_forget_undo(store->disk);
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
            disk_undo_all(s->disk);
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
        disk_undo_all(store->disk);
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
    struct sim_group *g = disk_need_group(store->disk, group);
    must(index > 0 && index < UINT64_MAX && (g->count == 0 || index == disk_last_index(g) + 1));
    struct value v = {.size = store_entry_bytes(entry)};
    v.data = mem_alloc(v.size);
    must(v.data != NULL);
    store_entry_encode(v.data, entry);
    count_bytes(store, v.size);
    disk_push_back(g, index, v);
    (void)disk_note(store->disk, UNDO_APPEND, group, index);
    return FERRY_OK;
}

enum ferry_err store_replace_entry(struct store *store, uint64_t group, uint64_t index,
                                   const struct store_entry *entry)
{
    enum ferry_err err = check_writing(store);
    if (err != FERRY_OK) {
        return err;
    }
    struct value *v = disk_entry_at(disk_find_group(store->disk, group), index);
    if (v == NULL) {
        return FERRY_ERR_CORRUPT;
    }
    struct undo *u = disk_note(store->disk, UNDO_REPLACE, group, index);
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
        (void)disk_note(store->disk, UNDO_CLUSTER, 0, 0);
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
    struct sim_group *g = disk_find_group(store->disk, group);
    while (err == FERRY_OK && g != NULL && g->count > 0 && *deleted < max_count &&
           g->first <= last) {
        must(g->first >= first); /* From the front only. */
        uint64_t index = g->first;
        struct value v = disk_pop_front(g);
        *bytes += v.size;
        *deleted += 1;
        disk_note(store->disk, UNDO_FRONT, group, index)->value = v;
    }
    return err;
}

enum ferry_err store_truncate(struct store *store, uint64_t group, uint64_t first,
                              uint32_t max_count, uint32_t *deleted)
{
    *deleted = 0;
    enum ferry_err err = check_writing(store);
    struct sim_group *g = disk_find_group(store->disk, group);
    while (err == FERRY_OK && g != NULL && *deleted < max_count && disk_last_index(g) >= first) {
        uint64_t index = disk_last_index(g);
        *deleted += 1;
        disk_note(store->disk, UNDO_BACK, group, index)->value = disk_pop_back(g);
    }
    return err;
}

static enum ferry_err put_marks(struct store *s, uint64_t group, const uint8_t *marks)
{
    enum ferry_err err = check_writing(s);
    if (err != FERRY_OK) {
        return err;
    }
    struct sim_group *g = disk_need_group(s->disk, group);
    struct undo *u = disk_note(s->disk, UNDO_MARKS, group, 0);
    if (g->has_marks) {
        u->value = disk_copy_value(g->marks, sizeof(g->marks));
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
    struct sim_group *g = disk_need_group(s->disk, group);
    struct undo *u = disk_note(s->disk, UNDO_ROW, group, 0);
    u->key = disk_copy_value(key, key_bytes).data;
    u->key_bytes = key_bytes;
    u->value = disk_set_row(g, u->key, key_bytes, value);
    return FERRY_OK;
}

enum ferry_err store_put(struct store *store, uint64_t group, uint8_t table, struct bytes key,
                         struct bytes value)
{
    uint8_t row[1 + STORE_KEY_MAX_BYTES];
    return change_row(store, group, row, row_key(row, table, key),
                      disk_copy_value(value.data, value.size));
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
    struct sim_group *g = disk_find_group(store->disk, group);
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
    const struct sim_group *g = disk_find_group(store->disk, group);
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
    const struct value *v = disk_entry_at(disk_find_group(store->disk, group), index);
    return v != NULL ? store_entry_decode(bytes_of(v->data, v->size), entry)
                     : FERRY_ERR_OFFSET_OUT_OF_RANGE;
}

enum ferry_err store_log_bounds(struct store *store, uint64_t group, uint64_t *first,
                                uint64_t *last)
{
    enum ferry_err err = check_view(store);
    const struct sim_group *g = disk_find_group(store->disk, group);
    bool some = err == FERRY_OK && g != NULL && g->count > 0;
    *first = some ? g->first : 0;
    *last = some ? disk_last_index(g) : 0;
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
    const struct row *r = disk_find_row(disk_find_group(s->disk, group), key, key_bytes);
    const struct value *v = r != NULL ? &r->value : NULL;
    for (size_t i = s->writing ? s->disk->undo_count : 0; i-- > 0;) {
        const struct undo *u = &s->disk->undo[i];
        if (u->kind == UNDO_ROW && u->group == group &&
            disk_compare_keys(u->key, u->key_bytes, key, key_bytes) == 0) {
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
    const struct sim_group *g = disk_find_group(s->disk, group);
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
        struct row *r = disk_find_row(&before, u->key, u->key_bytes);
        if (r != NULL) {
            r->value = u->value; /* Empty: it is not there. */
        } else if (u->value.data != NULL) {
            size_t at = disk_row_place(&before, u->key, u->key_bytes);
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
    size_t at = disk_row_place(&g, row, row_key(row, table, from));
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
