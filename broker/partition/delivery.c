#include "partition/delivery.h"

#include "base/mem.h"
#include "partition/delivery_internal.h"

#define CHANGES_MAX       65536u
#define REMOVED_MAX_BYTES (64u << 20)

/* ---- Life ---- */

struct delivery *delivery_new(uint64_t number, bool keyed, int64_t position,
                              const struct delivery_settings *settings)
{
    must(position >= 0);
    struct delivery *d = mem_zalloc(1, sizeof(*d));
    if (d == NULL) {
        return NULL;
    }
    d->number = number;
    d->keyed = keyed;
    d->settings = *settings;
    d->start = position;
    d->floor = position;
    d->next_lease = 1;
    d->next_dead = 1;
    d->next_history = 1;
    d->next_ended = 1;
    d->base_dirty = true;
    list_init(&d->settled);
    list_init(&d->dirty_leases);
    list_init(&d->dirty_histories);
    list_init(&d->dirty_parked);
    buf_init(&d->removed_leases, REMOVED_MAX_BYTES);
    buf_init(&d->removed_histories, REMOVED_MAX_BYTES);
    return d;
}

static void free_items(struct map *m)
{
    size_t at = 0;
    for (void *item; (item = map_next(m, &at)) != NULL;) {
        mem_free(item);
    }
    map_fini(m);
}

void delivery_forget_derived(struct delivery *d)
{
    free_items(&d->keys);
    free_items(&d->revived);
}

void delivery_free(struct delivery **d)
{
    if (*d == NULL) {
        return;
    }
    struct delivery *gone = *d;
    *d = NULL;
    lease_forget_all(gone);
    delivery_forget_derived(gone);
    free_items(&gone->holders);
    free_items(&gone->histories);
    free_items(&gone->parked);
    delivery_runs_fini(&gone->runs);
    for (size_t i = 0; i < gone->dead_count; i++) {
        mem_free(gone->dead[i]);
    }
    mem_free(gone->dead);
    mem_free(gone->leases);
    mem_free(gone->segments);
    mem_free(gone->changes);
    buf_fini(&gone->removed_leases);
    buf_fini(&gone->removed_histories);
    mem_free(gone);
}

enum ferry_err delivery_result(const struct delivery *d)
{
    bool failed = d->no_memory || !buf_ok(&d->removed_leases) || !buf_ok(&d->removed_histories);
    return failed ? FERRY_ERR_NO_MEMORY : FERRY_OK;
}

/* ---- Questions ---- */

int64_t delivery_floor(const struct delivery *d)
{
    return d->floor;
}

uint64_t delivery_number(const struct delivery *d)
{
    return d->number;
}

bool delivery_is_keyed(const struct delivery *d)
{
    return d->keyed;
}

const struct delivery_settings *delivery_settings(const struct delivery *d)
{
    return &d->settings;
}

void delivery_set_settings(struct delivery *d, const struct delivery_settings *settings)
{
    d->settings = *settings;
}

const struct delivery_counters *delivery_counters(const struct delivery *d)
{
    return &d->counters;
}

uint64_t delivery_next_lease_number(const struct delivery *d)
{
    return d->next_lease;
}

/* Where the gap that holds the offset begins. */
static int64_t gap_start(const struct delivery *d, int64_t offset)
{
    struct run_place place;
    int64_t start = offset < d->floor ? 0 : d->floor;
    if (delivery_runs_find(&d->runs, offset, &place)) {
        int64_t end = run_end(delivery_runs_at(&d->runs, place));
        start = end > start ? end : start;
    }
    return start;
}

struct delivery_run delivery_at(const struct delivery *d, int64_t offset, int64_t end)
{
    struct run_place place;
    must(offset >= 0);
    if (delivery_runs_find(&d->runs, offset, &place)) {
        const struct delivery_run *run = delivery_runs_at(&d->runs, place);
        if (run_end(run) > offset) {
            return *run;
        }
    }
    int64_t until = end > offset ? end : offset + 1;
    int64_t start = gap_start(d, offset);
    if (start < offset - INT32_MAX) {
        start = offset - INT32_MAX; /* A count must hold it. */
    }
    struct delivery_run rest = delivery_piece(d, offset, until);
    rest.count += (uint32_t)(offset - start);
    rest.first = start;
    return rest;
}

uint64_t delivery_next_fresh(const struct delivery *d, int64_t from, int64_t end, int64_t *first)
{
    struct run_place place;
    int64_t at = from < d->floor ? d->floor : from;
    *first = at;
    if (at >= end) {
        return 0;
    }
    bool more = delivery_runs_from(&d->runs, at, &place);
    for (; more; more = delivery_runs_next(&d->runs, &place)) {
        const struct delivery_run *run = delivery_runs_at(&d->runs, place);
        if (run->first > at) {
            break;
        }
        at = run_end(run);
    }
    *first = at;
    int64_t until = more ? delivery_runs_at(&d->runs, place)->first : end;
    until = until < end ? until : end;
    return until > at ? (uint64_t)(until - at) : 0;
}

bool delivery_next_run(const struct delivery *d, int64_t *after, struct delivery_run *run)
{
    struct run_place place;
    bool more = delivery_runs_from(&d->runs, *after, &place);
    while (more && delivery_runs_at(&d->runs, place)->first <= *after) {
        more = delivery_runs_next(&d->runs, &place);
    }
    if (more) {
        *run = *delivery_runs_at(&d->runs, place);
        *after = run->first;
    }
    return more;
}

uint64_t delivery_next_dead_number(const struct delivery *d)
{
    return d->next_dead;
}

bool delivery_has_room(const struct delivery *d)
{
    return d->active_count < DELIVERY_LEASES_MAX && d->runs.count < DELIVERY_RUNS_MAX &&
           d->counters.leased + d->counters.waiting < DELIVERY_OUTSTANDING_MAX &&
           d->history_bytes < DELIVERY_HISTORY_MAX_BYTES;
}

static size_t map_memory(const struct map *m, size_t item_bytes)
{
    return m->capacity * sizeof(struct map_slot) + m->count * item_bytes;
}

size_t delivery_memory_bytes(const struct delivery *d)
{
    return sizeof(*d) + d->runs.slot_count * sizeof(struct run_chunk) +
           d->runs.slot_capacity * sizeof(struct run_slot) +
           (d->active_count + d->settled_count) * sizeof(struct lease) +
           d->lease_capacity * sizeof(struct lease_slot) + d->range_bytes + d->history_bytes +
           d->dead_count * sizeof(struct dead_chunk) +
           map_memory(&d->holders, sizeof(struct holder) + NAME_MAX_BYTES) +
           map_memory(&d->keys, sizeof(struct key_state)) +
           map_memory(&d->revived, sizeof(struct revived)) +
           map_memory(&d->parked, sizeof(struct parked_key)) +
           d->segment_capacity * sizeof(uint64_t) + d->removed_leases.capacity +
           d->removed_histories.capacity + d->change_capacity * sizeof(struct delivery_change);
}

/* ---- Changes, for the leader ---- */

static void overflow(struct delivery *d)
{
    d->overflowed = true;
    d->change_count = 0;
    d->change_first = 0;
}

void delivery_watch(struct delivery *d, bool watched)
{
    d->watched = watched;
    d->overflowed = false;
    d->change_first = 0;
    d->change_count = 0;
    d->change_capacity = 0;
    mem_free(d->changes);
    d->changes = NULL;
}

/* Room for one more; the ring begins at 0 then. */
static bool grow_changes(struct delivery *d)
{
    size_t capacity = d->change_capacity == 0 ? 64 : d->change_capacity * 2;
    struct delivery_change *grown = mem_alloc(capacity * sizeof(*grown));
    if (grown == NULL) {
        return false;
    }
    for (size_t i = 0; i < d->change_count; i++) {
        grown[i] = d->changes[(d->change_first + i) % d->change_capacity];
    }
    mem_free(d->changes);
    d->changes = grown;
    d->change_capacity = capacity;
    d->change_first = 0;
    return true;
}

void delivery_push_change(struct delivery *d, const struct delivery_change *change)
{
    if (!d->watched || d->overflowed) {
        return;
    }
    bool is_full = d->change_count == d->change_capacity;
    if (change->kind == DELIVERY_CHANGED_RESET || d->change_count == CHANGES_MAX ||
        (is_full && !grow_changes(d))) {
        overflow(d); /* What led up to it does not matter any more. */
        return;
    }
    d->changes[(d->change_first + d->change_count) % d->change_capacity] = *change;
    d->change_count++;
}

bool delivery_next_change(struct delivery *d, struct delivery_change *change)
{
    if (d->overflowed) {
        d->overflowed = false;
        *change = (struct delivery_change){.kind = DELIVERY_CHANGED_RESET};
        return true;
    }
    if (d->change_count == 0) {
        return false;
    }
    *change = d->changes[d->change_first];
    d->change_first = (d->change_first + 1) % d->change_capacity;
    d->change_count--;
    return true;
}
