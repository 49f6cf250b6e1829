/* The disks under sim_store.c. */
#include <stdio.h>

#include "base/mem.h"
#include "sim/sim_disk_inner.h"

#define DISKS_MAX 128

static struct {
    struct sim_disk *disks[DISKS_MAX];
} all;

/* ---- Values and groups ---- */

struct value disk_copy_value(const void *data, size_t size)
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

struct sim_group *disk_find_group(const struct sim_disk *d, uint64_t id)
{
    size_t at = group_place(d, id);
    return at < d->group_count && d->groups[at]->id == id ? d->groups[at] : NULL;
}

struct sim_group *disk_need_group(struct sim_disk *d, uint64_t id)
{
    struct sim_group *g = disk_find_group(d, id);
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

struct value *disk_entry_at(const struct sim_group *g, uint64_t index)
{
    bool there = g != NULL && g->count > 0 && index >= g->first && index - g->first < g->count;
    return there ? &g->entries[g->head + (index - g->first)] : NULL;
}

uint64_t disk_last_index(const struct sim_group *g)
{
    return g == NULL || g->count == 0 ? 0 : g->first + g->count - 1;
}

void disk_push_back(struct sim_group *g, uint64_t index, struct value v)
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
        disk_push_back(g, index, v);
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

struct value disk_pop_front(struct sim_group *g)
{
    struct value v = g->entries[g->head++];
    g->first++;
    g->count--;
    return v;
}

struct value disk_pop_back(struct sim_group *g)
{
    return g->entries[g->head + --g->count];
}

/* ---- Rows ---- */

int disk_compare_keys(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes)
{
    size_t common = a_bytes < b_bytes ? a_bytes : b_bytes;
    int order = common > 0 ? memcmp(a, b, common) : 0;
    return order != 0 ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

size_t disk_row_place(const struct sim_group *g, const uint8_t *key, size_t key_bytes)
{
    size_t low = 0;
    size_t high = g->row_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct row *r = &g->rows[middle];
        if (disk_compare_keys(r->key, r->key_bytes, key, key_bytes) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct row *disk_find_row(const struct sim_group *g, const uint8_t *key, size_t key_bytes)
{
    size_t at = g != NULL ? disk_row_place(g, key, key_bytes) : 0;
    if (g == NULL || at == g->row_count ||
        disk_compare_keys(g->rows[at].key, g->rows[at].key_bytes, key, key_bytes) != 0) {
        return NULL;
    }
    return &g->rows[at];
}

/* Gives the row another value (none: it goes) and returns the one it had. */
struct value disk_set_row(struct sim_group *g, const uint8_t *key, size_t key_bytes,
                          struct value value)
{
    struct row *r = disk_find_row(g, key, key_bytes);
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
        size_t at = disk_row_place(g, key, key_bytes);
        must(mem_grow((void **)&g->rows, &g->row_capacity, g->row_count + 1, sizeof(*g->rows)));
        memmove(&g->rows[at + 1], &g->rows[at], (g->row_count - at) * sizeof(*g->rows));
        g->rows[at] = (struct row){
            .key = disk_copy_value(key, key_bytes).data, .key_bytes = key_bytes, .value = value};
        g->row_count++;
    }
    return was;
}

/* ---- Undo ---- */

struct undo *disk_note(struct sim_disk *d, enum undo_kind kind, uint64_t group, uint64_t index)
{
    must(mem_grow((void **)&d->undo, &d->undo_capacity, d->undo_count + 1, sizeof(*d->undo)));
    struct undo *u = &d->undo[d->undo_count++];
    *u = (struct undo){.kind = kind, .group = group, .index = index};
    return u;
}

void disk_forget_undo(struct sim_disk *d)
{
    for (size_t i = 0; i < d->undo_count; i++) {
        mem_free(d->undo[i].value.data);
        mem_free(d->undo[i].key);
    }
    d->undo_count = 0;
}

static void undo_one(struct sim_disk *d, struct undo *u)
{
    struct sim_group *g = u->kind != UNDO_CLUSTER ? disk_need_group(d, u->group) : NULL;
    switch (u->kind) {
    case UNDO_APPEND:
        mem_free(disk_pop_back(g).data);
        break;
    case UNDO_FRONT:
        push_front(g, u->index, u->value);
        break;
    case UNDO_BACK:
        disk_push_back(g, u->index, u->value);
        break;
    case UNDO_REPLACE:
        mem_free(disk_entry_at(g, u->index)->data);
        *disk_entry_at(g, u->index) = u->value;
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
        mem_free(disk_set_row(g, u->key, u->key_bytes, u->value).data);
        break;
    }
    u->value.data = NULL;
}

void disk_undo_all(struct sim_disk *d)
{
    for (size_t i = d->undo_count; i-- > 0;) {
        undo_one(d, &d->undo[i]);
    }
    disk_forget_undo(d);
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

void disk_add_disk(struct sim_disk *d)
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
        disk_undo_all(d);
    }
    disk_forget_undo(d);
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
    disk_forget_undo(d);
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
    struct sim_group *c = disk_need_group(to, g->id);
    c->has_marks = g->has_marks;
    memcpy(c->marks, g->marks, sizeof(c->marks));
    for (size_t i = 0; i < g->count; i++) {
        const struct value *v = &g->entries[g->head + i];
        disk_push_back(c, g->first + i, disk_copy_value(v->data, v->size));
    }
    for (size_t i = 0; i < g->row_count; i++) {
        const struct row *r = &g->rows[i];
        (void)disk_set_row(c, r->key, r->key_bytes, disk_copy_value(r->value.data, r->value.size));
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
    disk_add_disk(*copy);
    *copy = NULL;
}

bool sim_disk_rot(const char *path, uint64_t group, uint64_t index, uint64_t bit)
{
    const struct sim_disk *d = sim_disk_find(path);
    struct value *v = d != NULL ? disk_entry_at(disk_find_group(d, group), index) : NULL;
    if (v == NULL) {
        return false;
    }
    bit %= (uint64_t)v->size * 8;
    v->data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    return true;
}
