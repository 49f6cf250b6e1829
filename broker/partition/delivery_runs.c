/* The sorted runs of a delivery: chunks of up to RUN_CHUNK_MAX, under an array of their first
 * offsets. A search is two binary ones; an insertion moves at most one chunk. */
#include "base/mem.h"
#include "partition/delivery_internal.h"

void delivery_runs_fini(struct delivery_runs *t)
{
    for (size_t i = 0; i < t->slot_count; i++) {
        mem_free(t->slots[i].chunk);
    }
    mem_free(t->slots);
    *t = (struct delivery_runs){0};
}

/* ---- Search ---- */

/* Slots that begin at or before the offset. */
static size_t slots_until(const struct delivery_runs *t, int64_t offset)
{
    size_t low = 0;
    size_t high = t->slot_count;
    if (high > 0 && t->slots[high - 1].first <= offset) {
        return high; /* Most of what happens, happens at the end. */
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->slots[middle].first <= offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static uint32_t items_until(const struct run_chunk *chunk, int64_t offset)
{
    uint32_t low = 0;
    uint32_t high = chunk->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (chunk->items[middle].first <= offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct delivery_run *delivery_runs_at(const struct delivery_runs *t, struct run_place place)
{
    must(place.slot < t->slot_count);
    must(place.at < t->slots[place.slot].chunk->count);
    return &t->slots[place.slot].chunk->items[place.at];
}

bool delivery_runs_find(const struct delivery_runs *t, int64_t offset, struct run_place *place)
{
    size_t slots = slots_until(t, offset);
    *place = (struct run_place){0};
    if (slots == 0) {
        return false;
    }
    place->slot = slots - 1;
    place->at = items_until(t->slots[slots - 1].chunk, offset) - 1;
    return true;
}

bool delivery_runs_next(const struct delivery_runs *t, struct run_place *place)
{
    if (place->at + 1 < t->slots[place->slot].chunk->count) {
        place->at++;
        return true;
    }
    place->slot++;
    place->at = 0;
    return place->slot < t->slot_count;
}

bool delivery_runs_from(const struct delivery_runs *t, int64_t offset, struct run_place *place)
{
    if (!delivery_runs_find(t, offset, place)) {
        return t->slot_count > 0; /* The very first one. */
    }
    return run_end(delivery_runs_at(t, *place)) > offset || delivery_runs_next(t, place);
}

/* ---- Change ---- */

static bool add_slot(struct delivery_runs *t, size_t at, struct run_chunk *chunk)
{
    if (!mem_grow((void **)&t->slots, &t->slot_capacity, t->slot_count + 1,
                  sizeof(struct run_slot))) {
        return false;
    }
    memmove(t->slots + at + 1, t->slots + at, (t->slot_count - at) * sizeof(struct run_slot));
    t->slots[at] = (struct run_slot){.first = chunk->items[0].first, .chunk = chunk};
    t->slot_count++;
    return true;
}

static void drop_slot(struct delivery_runs *t, size_t at)
{
    mem_free(t->slots[at].chunk);
    t->slot_count--;
    memmove(t->slots + at, t->slots + at + 1, (t->slot_count - at) * sizeof(struct run_slot));
}

static bool insert_alone(struct delivery_runs *t, size_t slot, const struct delivery_run *run)
{
    struct run_chunk *chunk = mem_alloc(sizeof(*chunk));
    if (chunk == NULL) {
        return false;
    }
    chunk->count = 1;
    chunk->items[0] = *run;
    if (!add_slot(t, slot, chunk)) {
        mem_free(chunk);
        return false;
    }
    return true;
}

/* The upper half gets a chunk of its own. */
static bool halve(struct delivery_runs *t, size_t slot)
{
    struct run_chunk *lower = t->slots[slot].chunk;
    struct run_chunk *upper = mem_alloc(sizeof(*upper));
    if (upper == NULL) {
        return false;
    }
    upper->count = lower->count / 2;
    uint32_t kept = lower->count - upper->count;
    memcpy(upper->items, lower->items + kept, upper->count * sizeof(struct delivery_run));
    if (!add_slot(t, slot + 1, upper)) {
        mem_free(upper);
        return false;
    }
    lower->count = kept;
    return true;
}

static void insert_into(struct delivery_runs *t, size_t slot, uint32_t at,
                        const struct delivery_run *run)
{
    struct run_chunk *chunk = t->slots[slot].chunk;
    must(chunk->count < RUN_CHUNK_MAX);
    memmove(chunk->items + at + 1, chunk->items + at,
            (chunk->count - at) * sizeof(struct delivery_run));
    chunk->items[at] = *run;
    chunk->count++;
    t->slots[slot].first = chunk->items[0].first;
}

enum ferry_err delivery_runs_insert(struct delivery_runs *t, const struct delivery_run *run)
{
    size_t slots = slots_until(t, run->first);
    size_t slot = slots > 0 ? slots - 1 : 0;
    bool is_last = slots == t->slot_count;
    bool ok = true;
    if (t->slot_count == 0) {
        ok = insert_alone(t, 0, run);
    } else {
        uint32_t at = items_until(t->slots[slot].chunk, run->first);
        must(at == 0 || t->slots[slot].chunk->items[at - 1].first < run->first);
        if (t->slots[slot].chunk->count < RUN_CHUNK_MAX) {
            insert_into(t, slot, at, run);
        } else if (is_last && at == RUN_CHUNK_MAX) {
            ok = insert_alone(t, slot + 1, run); /* Growing at the end leaves full chunks behind. */
        } else if ((ok = halve(t, slot))) {
            uint32_t kept = t->slots[slot].chunk->count;
            insert_into(t, at > kept ? slot + 1 : slot, at > kept ? at - kept : at, run);
        }
    }
    t->count += ok ? 1 : 0;
    return ok ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

/* Puts a chunk and its neighbour together when both are rather empty. */
static void join_next(struct delivery_runs *t, size_t slot)
{
    if (slot + 1 >= t->slot_count) {
        return;
    }
    struct run_chunk *a = t->slots[slot].chunk;
    const struct run_chunk *b = t->slots[slot + 1].chunk;
    if (a->count + b->count > RUN_CHUNK_MAX / 2) {
        return;
    }
    memcpy(a->items + a->count, b->items, b->count * sizeof(struct delivery_run));
    a->count += b->count;
    drop_slot(t, slot + 1);
}

void delivery_runs_remove(struct delivery_runs *t, struct run_place place)
{
    must(place.slot < t->slot_count);
    struct run_chunk *chunk = t->slots[place.slot].chunk;
    must(place.at < chunk->count);
    chunk->count--;
    t->count--;
    memmove(chunk->items + place.at, chunk->items + place.at + 1,
            (chunk->count - place.at) * sizeof(struct delivery_run));
    if (chunk->count == 0) {
        drop_slot(t, place.slot);
        return;
    }
    t->slots[place.slot].first = chunk->items[0].first;
    join_next(t, place.slot);
}

void delivery_runs_move_front(struct delivery_runs *t, struct run_place place, int64_t first)
{
    struct delivery_run *run = delivery_runs_at(t, place);
    must(first < run_end(run));
    must(place.at == 0 || run_end(run - 1) <= first);
    run->count = (uint32_t)(run_end(run) - first);
    run->first = first;
    t->slots[place.slot].first = t->slots[place.slot].chunk->items[0].first;
}
