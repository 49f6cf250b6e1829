#include "sim/observe.h"

#include "base/checksum.h"
#include "base/mem.h"
#include "partition/peer_item.h"
#include "sim/coverage.h"
#include "sim/sim_disk.h"

#define SHADOWS_MAX 128

enum op_kind { OP_APPEND, OP_REPLACE, OP_FRONT, OP_TRUNCATE, OP_MARKS, OP_NO_MARKS };

struct shadow_op {
    enum op_kind kind;
    uint64_t group, index;
    uint32_t count;
    struct shadow_entry entry;
    struct store_group marks;
};

static struct {
    struct shadow *disks[SHADOWS_MAX];
} seen;

void observe_init(void)
{
    memset(&seen, 0, sizeof(seen));
}

static void free_groups(struct shadow *d)
{
    for (size_t i = 0; i < d->group_count; i++) {
        mem_free(d->groups[i]->entries);
        mem_free(d->groups[i]);
    }
    d->group_count = 0;
}

void observe_fini(void)
{
    for (size_t i = 0; i < SHADOWS_MAX && seen.disks[i] != NULL; i++) {
        free_groups(seen.disks[i]);
        mem_free(seen.disks[i]->groups);
        mem_free(seen.disks[i]->ops);
        mem_free(seen.disks[i]);
    }
    observe_init();
}

struct shadow *observe_disk(const char *path)
{
    for (size_t i = 0; i < SHADOWS_MAX && seen.disks[i] != NULL; i++) {
        if (strcmp(seen.disks[i]->path, path) == 0) {
            return seen.disks[i];
        }
    }
    return NULL;
}

struct shadow *observe_store(const struct store *s)
{
    for (size_t i = 0; i < SHADOWS_MAX && seen.disks[i] != NULL; i++) {
        if (seen.disks[i]->store == s) {
            return seen.disks[i];
        }
    }
    return NULL;
}

/* ---- Groups ---- */

struct shadow_group *shadow_find(const struct shadow *d, uint64_t group)
{
    for (size_t i = 0; i < d->group_count; i++) {
        if (d->groups[i]->id == group) {
            return d->groups[i];
        }
    }
    return NULL;
}

static struct shadow_group *need(struct shadow *d, uint64_t group)
{
    struct shadow_group *g = shadow_find(d, group);
    if (g == NULL) {
        g = mem_zalloc(1, sizeof(*g));
        must(g != NULL && mem_grow((void **)&d->groups, &d->group_capacity, d->group_count + 1,
                                   sizeof(struct shadow_group *)));
        g->id = group;
        d->groups[d->group_count++] = g;
    }
    return g;
}

const struct shadow_entry *shadow_at(const struct shadow_group *g, uint64_t index)
{
    bool there = g != NULL && g->count > 0 && index >= g->first && index - g->first < g->count;
    return there ? &g->entries[index - g->first] : NULL;
}

uint64_t shadow_last(const struct shadow_group *g)
{
    return g == NULL || g->count == 0 ? 0 : g->first + g->count - 1;
}

static void append_entry(struct shadow_group *g, uint64_t index, struct shadow_entry e)
{
    if (g->count == 0) {
        g->first = index;
    }
    must(index == g->first + g->count);
    must(mem_grow((void **)&g->entries, &g->capacity, g->count + 1, sizeof(*g->entries)));
    g->entries[g->count++] = e;
}

static void drop_front(struct shadow_group *g, uint32_t count)
{
    must(count <= g->count);
    g->count -= count;
    g->first += count;
    memmove(g->entries, g->entries + count, g->count * sizeof(*g->entries));
}

static void apply(struct shadow *d, const struct shadow_op *op)
{
    struct shadow_group *g = need(d, op->group);
    switch (op->kind) {
    case OP_APPEND:
        append_entry(g, op->index, op->entry);
        break;
    case OP_REPLACE:
        must(shadow_at(g, op->index) != NULL);
        g->entries[op->index - g->first] = op->entry;
        break;
    case OP_FRONT:
        drop_front(g, op->count);
        break;
    case OP_TRUNCATE:
        must(op->count <= g->count);
        g->count -= op->count;
        break;
    case OP_MARKS:
        g->has_marks = true;
        g->marks = op->marks;
        break;
    case OP_NO_MARKS:
        g->has_marks = false;
        g->drops++;
        break;
    }
}

static uint64_t hash_entry(const struct store_entry *e)
{
    int64_t head[4] = {e->base_offset, e->append_time_ms, (int64_t)e->type, e->skip_count};
    uint64_t skips = checksum_of(e->skips, (size_t)e->skip_count * 4);
    return checksum_of_two(head, sizeof(head), &skips, sizeof(skips)) ^
           checksum_of(e->payload.data, e->payload.size);
}

static void add_op(const struct store *s, struct shadow_op op)
{
    struct shadow *d = observe_store(s);
    if (d != NULL) {
        must(mem_grow((void **)&d->ops, &d->op_capacity, d->op_count + 1, sizeof(*d->ops)));
        d->ops[d->op_count++] = op;
    }
}

/* ---- Opening ---- */

struct reading {
    struct store *store;
    struct shadow *to;
};

/* An entry that does not read keeps what the shadow knew of it. */
static enum ferry_err read_group(const struct store_group *marks, void *arg)
{
    struct reading *r = arg;
    struct shadow_group *g = need(r->to, marks->group);
    uint64_t first = 0;
    uint64_t last = 0;
    g->has_marks = true;
    g->marks = *marks;
    enum ferry_err err = store_log_bounds(r->store, marks->group, &first, &last);
    for (uint64_t i = first; err == FERRY_OK && last != 0 && i <= last; i++) {
        struct store_entry e;
        struct shadow_entry known = {0};
        if (store_get_entry(r->store, marks->group, i, &e) == FERRY_OK &&
            peer_entry_check(&e) == FERRY_OK) {
            known = (struct shadow_entry){.term = e.term, .hash = hash_entry(&e), .type = e.type};
        }
        append_entry(g, i, known);
    }
    return err;
}

static void compare_group(const struct shadow *was, const struct shadow_group *before,
                          const struct shadow_group *after)
{
    for (uint64_t i = before->first; before->count > 0 && i <= shadow_last(before); i++) {
        const struct shadow_entry *a = shadow_at(before, i);
        const struct shadow_entry *b = shadow_at(after, i);
        bool same = b != NULL && (b->term == 0 || (a->term == b->term && a->hash == b->hash));
        if (!same && after != NULL && i > after->marks.trim_index) {
            sim_fail(SIM_INVARIANT,
                     "INV-D01: %s: entry %llu of group %llu was durable and is not there after a "
                     "start",
                     was->path, (unsigned long long)i, (unsigned long long)before->id);
            return;
        }
    }
}

/* Entries that rotted keep the term and hash they had. */
static void keep_known(struct shadow_group *after, const struct shadow_group *before)
{
    for (size_t i = 0; i < after->count; i++) {
        const struct shadow_entry *known = shadow_at(before, after->first + i);
        if (after->entries[i].term == 0 && known != NULL) {
            after->entries[i] = *known;
        }
    }
}

static void keep_all_known(struct shadow *d, struct shadow *fresh)
{
    for (size_t i = 0; i < d->group_count; i++) {
        struct shadow_group *before = d->groups[i];
        struct shadow_group *after = shadow_find(fresh, before->id);
        if (after != NULL) {
            after->drops = before->drops;
            keep_known(after, before);
        }
    }
}

static void read_again(struct shadow *d, struct store *s)
{
    struct shadow fresh = {0};
    struct reading r = {.store = s, .to = &fresh};
    memcpy(fresh.path, d->path, sizeof(fresh.path));
    if (store_read_begin(s) != FERRY_OK) {
        return;
    }
    enum ferry_err err = store_each_group(s, read_group, &r);
    store_read_end(s);
    if (err != FERRY_OK) {
        sim_say("%s does not read: %s", d->path, ferry_err_name(err));
    }
    keep_all_known(d, &fresh);
    for (size_t i = 0; i < d->group_count && !d->changed_below; i++) {
        const struct shadow_group *before = d->groups[i];
        if (before->count > 0 && before->has_marks) {
            compare_group(d, before, shadow_find(&fresh, before->id));
        }
    }
    d->changed_below = false;
    free_groups(d);
    mem_free(d->groups);
    d->groups = fresh.groups;
    d->group_count = fresh.group_count;
    d->group_capacity = fresh.group_capacity;
}

/* ---- The wrapped functions ---- */

enum ferry_err __real_store_open(const struct store_config *config, struct store **store,
                                 struct err_text *e);
enum ferry_err __wrap_store_open(const struct store_config *config, struct store **store,
                                 struct err_text *e);
void __real_store_close(struct store **store);
void __wrap_store_close(struct store **store);
enum ferry_err __real_store_begin(struct store *store);
enum ferry_err __wrap_store_begin(struct store *store);
enum ferry_err __real_store_append(struct store *store, uint64_t group, uint64_t index,
                                   const struct store_entry *entry);
enum ferry_err __wrap_store_append(struct store *store, uint64_t group, uint64_t index,
                                   const struct store_entry *entry);
enum ferry_err __real_store_replace_entry(struct store *store, uint64_t group, uint64_t index,
                                          const struct store_entry *entry);
enum ferry_err __wrap_store_replace_entry(struct store *store, uint64_t group, uint64_t index,
                                          const struct store_entry *entry);
enum ferry_err __real_store_delete_entries(struct store *store, uint64_t group, uint64_t first,
                                           uint64_t last, uint32_t max_count, uint32_t *deleted,
                                           uint64_t *bytes);
enum ferry_err __wrap_store_delete_entries(struct store *store, uint64_t group, uint64_t first,
                                           uint64_t last, uint32_t max_count, uint32_t *deleted,
                                           uint64_t *bytes);
enum ferry_err __real_store_truncate(struct store *store, uint64_t group, uint64_t first,
                                     uint32_t max_count, uint32_t *deleted);
enum ferry_err __wrap_store_truncate(struct store *store, uint64_t group, uint64_t first,
                                     uint32_t max_count, uint32_t *deleted);
enum ferry_err __real_store_put_group(struct store *store, const struct store_group *g);
enum ferry_err __wrap_store_put_group(struct store *store, const struct store_group *g);
enum ferry_err __real_store_delete_group(struct store *store, uint64_t group);
enum ferry_err __wrap_store_delete_group(struct store *store, uint64_t group);
enum ferry_err __real_store_commit(struct store *store);
enum ferry_err __wrap_store_commit(struct store *store);
void __real_store_abort(struct store *store);
void __wrap_store_abort(struct store *store);

static struct shadow *shadow_of_path(const char *path)
{
    struct shadow *d = observe_disk(path);
    if (d != NULL) {
        return d;
    }
    size_t i = 0;
    while (seen.disks[i] != NULL) {
        must(++i < SHADOWS_MAX);
    }
    d = mem_zalloc(1, sizeof(*d));
    must(d != NULL && strlen(path) < sizeof(d->path));
    (void)snprintf(d->path, sizeof(d->path), "%s", path);
    seen.disks[i] = d;
    return d;
}

enum ferry_err __wrap_store_open(const struct store_config *config, struct store **store,
                                 struct err_text *e)
{
    enum ferry_err err = __real_store_open(config, store, e);
    if (err == FERRY_OK && sim != NULL) {
        struct shadow *d = shadow_of_path(config->path);
        d->store = *store;
        d->host = sim->current->host;
        d->op_count = 0;
        read_again(d, *store);
    }
    return err;
}

void __wrap_store_close(struct store **store)
{
    struct shadow *d = *store != NULL ? observe_store(*store) : NULL;
    if (d != NULL) {
        d->store = NULL;
        d->op_count = 0;
    }
    __real_store_close(store);
}

enum ferry_err __wrap_store_begin(struct store *store)
{
    struct shadow *d = observe_store(store);
    if (d != NULL) {
        d->op_count = 0;
    }
    return __real_store_begin(store);
}

enum ferry_err __wrap_store_append(struct store *store, uint64_t group, uint64_t index,
                                   const struct store_entry *entry)
{
    enum ferry_err err = __real_store_append(store, group, index, entry);
    if (err == FERRY_OK) {
        struct shadow_entry e = {
            .term = entry->term, .hash = hash_entry(entry), .type = entry->type};
        add_op(store, (struct shadow_op){OP_APPEND, group, index, 1, e, {0}});
    }
    return err;
}

enum ferry_err __wrap_store_replace_entry(struct store *store, uint64_t group, uint64_t index,
                                          const struct store_entry *entry)
{
    enum ferry_err err = __real_store_replace_entry(store, group, index, entry);
    if (err == FERRY_OK) {
        struct shadow_entry e = {
            .term = entry->term, .hash = hash_entry(entry), .type = entry->type};
        add_op(store, (struct shadow_op){OP_REPLACE, group, index, 1, e, {0}});
    }
    return err;
}

enum ferry_err __wrap_store_delete_entries(struct store *store, uint64_t group, uint64_t first,
                                           uint64_t last, uint32_t max_count, uint32_t *deleted,
                                           uint64_t *bytes)
{
    enum ferry_err err =
        __real_store_delete_entries(store, group, first, last, max_count, deleted, bytes);
    if (*deleted > 0) {
        add_op(store, (struct shadow_op){.kind = OP_FRONT, .group = group, .count = *deleted});
    }
    return err;
}

enum ferry_err __wrap_store_truncate(struct store *store, uint64_t group, uint64_t first,
                                     uint32_t max_count, uint32_t *deleted)
{
    enum ferry_err err = __real_store_truncate(store, group, first, max_count, deleted);
    if (*deleted > 0) {
        add_op(store, (struct shadow_op){.kind = OP_TRUNCATE, .group = group, .count = *deleted});
        mark(MARK_E21_TRUNCATED);
    }
    return err;
}

enum ferry_err __wrap_store_put_group(struct store *store, const struct store_group *g)
{
    enum ferry_err err = __real_store_put_group(store, g);
    if (err == FERRY_OK) {
        add_op(store, (struct shadow_op){.kind = OP_MARKS, .group = g->group, .marks = *g});
    }
    return err;
}

enum ferry_err __wrap_store_delete_group(struct store *store, uint64_t group)
{
    enum ferry_err err = __real_store_delete_group(store, group);
    if (err == FERRY_OK) {
        add_op(store, (struct shadow_op){.kind = OP_NO_MARKS, .group = group});
    }
    return err;
}

static void committed(struct shadow *d)
{
    for (size_t i = 0; i < d->op_count; i++) {
        apply(d, &d->ops[i]);
    }
    d->op_count = 0;
    d->commits++;
}

static enum ferry_err die(struct sim_node *n, struct store *store)
{
    n->host->dead = true;
    __wrap_store_abort(store);
    return FERRY_ERR_STORE_FAILED;
}

enum ferry_err __wrap_store_commit(struct store *store)
{
    struct shadow *d = observe_store(store);
    struct sim_node *n = sim_node_current();
    if (n != NULL && (n->host->dead || n->doom == DOOM_BEFORE_COMMIT)) {
        if (!n->host->dead) {
            mark(MARK_P01_BEFORE_COMMIT);
        }
        return die(n, store);
    }
    enum ferry_err err = d != NULL ? sim_disk_before_commit(d->path) : FERRY_OK;
    if (err == FERRY_OK) {
        err = __real_store_commit(store);
    } else {
        __real_store_abort(store);
    }
    if (d != NULL && err == FERRY_OK) {
        sim_disk_after_commit(d->path);
    }
    if (d != NULL && err == FERRY_OK) {
        committed(d);
    } else if (d != NULL) {
        mark(MARK_D10_COMMIT_FAILS);
        d->changed_below = true; /* Whether it is there, the disk alone knows. */
    }
    if (n != NULL && n->doom == DOOM_AFTER_COMMIT) {
        mark(MARK_P01_AFTER_COMMIT);
        n->host->dead = true;
    }
    return err;
}

void __wrap_store_abort(struct store *store)
{
    struct shadow *d = observe_store(store);
    if (d != NULL) {
        d->op_count = 0;
    }
    __real_store_abort(store);
}
