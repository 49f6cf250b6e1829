/* The rows of a delivery, read back; see delivery_rows.c. What they say is checked here, so that a
 * delivery that was loaded keeps its invariants. */
#include <stdlib.h>

#include "base/mem.h"
#include "partition/delivery_internal.h"
#include "partition/tables.h"
#include "wire/pack.h"

struct load {
    struct delivery *d;
    struct delivery_history **histories; /* By number. */
    size_t history_count, history_capacity;
    int64_t next; /* The end of the run before. */
};

typedef enum ferry_err load_row(struct load *l, uint64_t number, struct bytes value);

struct walk {
    struct load *load;
    load_row *row;
};

static enum ferry_err take_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    struct walk *w = arg;
    if (key.size != 16) {
        return FERRY_ERR_CORRUPT;
    }
    if (get_be64(key.data) != w->load->d->number) {
        *stop = true; /* Of the next subscription. */
        return FERRY_OK;
    }
    return w->row(w->load, get_be64(key.data + 8), value);
}

static enum ferry_err walk_table(struct load *l, struct store *store, uint64_t group, uint8_t table,
                                 load_row *row)
{
    uint8_t from[16];
    struct walk w = {.load = l, .row = row};
    put_be64(from, l->d->number);
    put_be64(from + 8, 0);
    return store_each_row(store, group, table, bytes_of(from, sizeof(from)), take_row, &w);
}

/* ---- Histories, keys, numbers ---- */

static enum ferry_err load_history(struct load *l, uint64_t number, struct bytes value)
{
    enum ferry_err err = history_load(l->d, number, value);
    if (err != FERRY_OK) {
        return err;
    }
    if (!mem_grow((void **)&l->histories, &l->history_capacity, l->history_count + 1,
                  sizeof(struct delivery_history *))) {
        return FERRY_ERR_NO_MEMORY;
    }
    l->histories[l->history_count++] = history_find(l->d, value);
    return FERRY_OK;
}

/* NULL: there is none of that number. */
static struct delivery_history *history_numbered(const struct load *l, uint64_t number)
{
    size_t low = 0;
    size_t high = l->history_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (l->histories[middle]->number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < l->history_count && l->histories[low]->number == number;
    return found ? l->histories[low] : NULL;
}

static enum ferry_err load_parked(struct load *l, uint64_t number, struct bytes value)
{
    struct unpack u;
    unpack_begin(&u, value);
    uint64_t count = unpack_uint(&u, UINT64_MAX);
    if (unpack_end(&u) != FERRY_OK || count == 0 || number == 0) {
        return FERRY_ERR_CORRUPT;
    }
    struct parked_key *key = parked_add(l->d, number);
    if (key == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    key->count = count;
    l->d->parked_count++;
    return FERRY_OK;
}

static enum ferry_err load_numbers(struct load *l, uint64_t segment, struct bytes value)
{
    struct unpack u;
    unpack_begin(&u, value);
    struct bytes bits = unpack_bin(&u, DEAD_CHUNK_NUMBERS / 8);
    if (unpack_end(&u) != FERRY_OK || bits.size != DEAD_CHUNK_NUMBERS / 8 ||
        segment > l->d->next_dead / DEAD_CHUNK_NUMBERS) {
        return FERRY_ERR_CORRUPT;
    }
    for (uint64_t i = 0; i < DEAD_CHUNK_NUMBERS; i++) {
        if ((bits.data[i / 8] >> (i % 8) & 1) == 0) {
            continue;
        }
        uint64_t number = segment * DEAD_CHUNK_NUMBERS + i;
        if (number == 0 || number >= l->d->next_dead) {
            return FERRY_ERR_CORRUPT;
        }
        dead_add(l->d, number);
    }
    return FERRY_OK;
}

/* ---- Leases ---- */

static void take_list(struct unpack *u, struct delivery *d, struct lease *lease,
                      enum lease_list list)
{
    int64_t next = 0;
    uint32_t count = unpack_array(u, RECEIVE_MESSAGES_MAX * 2);
    u->failed = u->failed || count % 2 != 0;
    for (uint32_t i = 0; i < count && !u->failed; i += 2) {
        int64_t first = unpack_int(u);
        int64_t size = (int64_t)unpack_uint(u, UINT32_MAX);
        if (u->failed || first < next || size == 0 || first > INT64_MAX - size) {
            u->failed = true;
            return;
        }
        lease_note(d, lease, list, first, (uint32_t)size);
        next = first + size;
    }
    unpack_array_end(u);
}

static enum ferry_err load_lease(struct load *l, uint64_t number, struct bytes value)
{
    struct unpack u;
    struct delivery_hand_out h = {.lease = number};
    unpack_begin(&u, value);
    h.token = unpack_id(&u);
    h.lease_ms = (uint32_t)unpack_uint(&u, UINT32_MAX);
    h.member = unpack_str(&u, NAME_MAX_BYTES);
    uint64_t ended = unpack_uint(&u, UINT64_MAX);
    if (u.failed || number >= l->d->next_lease || ended >= l->d->next_ended) {
        return FERRY_ERR_CORRUPT;
    }
    struct lease *lease = lease_add(l->d, &h);
    if (lease == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; i < LEASE_LISTS && !u.failed; i++) {
        take_list(&u, l->d, lease, (enum lease_list)i);
    }
    lease->ended = ended;
    lease->stored = true;
    return unpack_end(&u) == FERRY_OK ? FERRY_OK : FERRY_ERR_CORRUPT;
}

static int compare_ended(const void *a, const void *b)
{
    uint64_t left = (*(struct lease *const *)a)->ended;
    uint64_t right = (*(struct lease *const *)b)->ended;
    return (left > right) - (left < right);
}

/* Those that have ended, in the order in which they did. */
static enum ferry_err order_settled(struct delivery *d)
{
    struct lease **ended = mem_zalloc(d->lease_count + 1, sizeof(struct lease *));
    if (ended == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    size_t count = 0;
    bool ok = true;
    for (size_t i = 0; i < d->lease_count; i++) {
        struct lease *lease = d->leases[i].lease;
        ok = ok && (lease->ended == 0) == (lease->l.left > 0);
        if (lease->ended != 0) {
            ended[count++] = lease;
        }
    }
    qsort(ended, count, sizeof(struct lease *), compare_ended);
    for (size_t i = 0; i < count; i++) {
        ok = ok && (i == 0 || ended[i - 1]->ended < ended[i]->ended);
        list_push_back(&d->settled, &ended[i]->settled_node);
        d->settled_count++;
    }
    mem_free(ended);
    return ok && count <= DELIVERY_SETTLED_KEPT ? FERRY_OK : FERRY_ERR_CORRUPT;
}

/* ---- Runs ---- */

static struct delivery_run take_run(struct unpack *u, const struct load *l, int64_t start)
{
    struct delivery_run run = {0};
    (void)unpack_array(u, UNPACK_OBJECTS_MAX);
    run.first = start + (int64_t)unpack_uint(u, SEGMENT_OFFSETS - 1);
    run.count = (uint32_t)unpack_uint(u, UINT32_MAX);
    run.state = (enum delivery_state)unpack_uint(u, DELIVERY_DONE);
    if (run.state != DELIVERY_DONE) {
        run.handed = (uint32_t)unpack_uint(u, UINT32_MAX);
        run.failed = (uint32_t)unpack_uint(u, UINT32_MAX);
        uint64_t history = unpack_uint(u, UINT64_MAX);
        run.history = history_numbered(l, history);
        u->failed = u->failed || (history != 0 && run.history == NULL);
        run.key_hash = unpack_uint(u, UINT64_MAX);
        run.dead = unpack_uint(u, UINT64_MAX);
        run.lease = run.state == DELIVERY_LEASED ? unpack_uint(u, UINT64_MAX) : 0;
        run.due_ms = run.state == DELIVERY_WAITING ? unpack_int(u) : 0;
    }
    unpack_array_end(u);
    return run;
}

static bool lease_fits(const struct delivery *d, const struct delivery_run *run)
{
    if (run->state != DELIVERY_LEASED) {
        return true;
    }
    const struct lease *lease = lease_find(d, run->lease);
    return lease != NULL && lease->ended == 0 &&
           ranges_end_of(lease->l.given, run->first) >= run_end(run) &&
           lease->l.left <= UINT32_MAX - run->count;
}

static bool key_fits(const struct delivery *d, const struct delivery_run *run)
{
    if (run->key_hash == 0) {
        return true;
    }
    const struct key_state *key = key_find(d, run->key_hash);
    return d->keyed && run->count == 1 &&
           (run->state != DELIVERY_LEASED || key == NULL || key->leased == 0);
}

static bool dead_fits(const struct delivery *d, const struct delivery_run *run)
{
    if (run->dead == 0) {
        return run->first >= d->floor && (run->state == DELIVERY_DONE || run->handed > 0);
    }
    return run->count == 1 && dead_has(d, run->dead) && revived_find(d, run->dead) == NULL;
}

static bool run_fits(const struct load *l, const struct delivery_run *run)
{
    const struct delivery *d = l->d;
    return run->count > 0 && run->state != DELIVERY_FRESH && run->first >= l->next &&
           run->first % RUN_OFFSETS_MAX + run->count <= RUN_OFFSETS_MAX &&
           run->failed <= run->handed && lease_fits(d, run) && key_fits(d, run) &&
           dead_fits(d, run);
}

static enum ferry_err load_segment(struct load *l, uint64_t segment, struct bytes value)
{
    struct unpack u;
    if (segment > (uint64_t)(INT64_MAX / SEGMENT_OFFSETS) - 1) {
        return FERRY_ERR_CORRUPT;
    }
    unpack_begin(&u, value);
    while (unpack_has_more(&u)) {
        struct delivery_run run = take_run(&u, l, (int64_t)segment * SEGMENT_OFFSETS);
        if (u.failed || !run_fits(l, &run)) {
            return FERRY_ERR_CORRUPT;
        }
        delivery_load_run(l->d, &run);
        if (run.dead != 0) {
            revived_add(l->d, run.dead, run.first);
        }
        if (l->d->no_memory) {
            return FERRY_ERR_NO_MEMORY;
        }
        l->next = run_end(&run);
    }
    return unpack_end(&u) == FERRY_OK ? FERRY_OK : FERRY_ERR_CORRUPT;
}

/* ---- All ---- */

static enum ferry_err load_tables(struct load *l, struct store *store, uint64_t group)
{
    static const struct {
        uint8_t table;
        load_row *row;
    } tables[] = {{TABLE_HISTORIES, load_history},
                  {TABLE_PARKED, load_parked},
                  {TABLE_DEAD_NUMBERS, load_numbers},
                  {TABLE_LEASES, load_lease},
                  {TABLE_RUNS, load_segment}};
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]) && err == FERRY_OK; i++) {
        err = walk_table(l, store, group, tables[i].table, tables[i].row);
        err = err == FERRY_OK ? delivery_result(l->d) : err; /* Before what lacks looks corrupt. */
    }
    for (size_t i = 0; i < l->history_count && err == FERRY_OK; i++) {
        err = l->histories[i]->refs > 0 ? FERRY_OK : FERRY_ERR_CORRUPT;
    }
    if (err == FERRY_OK) {
        err = order_settled(l->d);
    }
    return err;
}

/* It is as it was stored. */
static void make_clean(struct delivery *d)
{
    while (list_pop_front(&d->dirty_leases) != NULL) {
        d->dirty_lease_count--;
    }
    for (size_t i = 0; i < d->dead_count; i++) {
        d->dead[i]->dirty = false;
    }
    d->dirty_dead_count = 0;
    d->segment_count = 0;
    d->base_dirty = false;
}

enum ferry_err delivery_load(uint64_t number, bool keyed, const struct delivery_settings *settings,
                             struct bytes base, struct store *store, uint64_t group,
                             struct delivery **d)
{
    struct load l = {.d = delivery_new(number, keyed, 0, settings)};
    if (l.d == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = delivery_decode_base(l.d, base);
    if (err == FERRY_OK) {
        err = load_tables(&l, store, group);
    }
    if (err == FERRY_OK) {
        err = delivery_result(l.d);
    }
    mem_free(l.histories);
    if (err != FERRY_OK) {
        delivery_free(&l.d);
        return err;
    }
    make_clean(l.d);
    *d = l.d;
    return FERRY_OK;
}
