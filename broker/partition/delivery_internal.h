/* delivery_internal: what the files of delivery.h share. Not for others.
 *
 *   delivery_runs.c     the sorted runs: knows order and places, not what a state means
 *   delivery_history.c  failures, each content once
 *   delivery_lease.c    leases, those that hold them, what was settled how
 *   delivery_dead.c     numbers of dead letters, revived ones, parked keys
 *   delivery_paint.c    the one way a run changes: counted, merged, marked for the next flush
 *   delivery_apply.c    hand-outs and settlements
 *   delivery_change.c   trims, resets, changes of dead letters
 *   delivery_rows.c     flush
 *   delivery_load.c     load
 *   delivery_check.c    the invariants
 *   delivery.c          questions, the queue of changes
 *
 * Lack of memory: what cannot say so at once sets `no_memory`, and the entry that is being applied
 * answers NO_MEMORY at its end. The state is then of no use but to be freed. */
#ifndef FERRY_PARTITION_DELIVERY_INTERNAL_H
#define FERRY_PARTITION_DELIVERY_INTERNAL_H

#include "base/list.h"
#include "base/map.h"
#include "partition/dead.h"
#include "partition/delivery_entry.h"

/* Runs are kept in the row of the segment in which they begin. */
#define SEGMENT_OFFSETS 4096
/* No run crosses a multiple of this, so that counts fit and there is one way to cut. */
#define RUN_OFFSETS_MAX (1LL << 31)

/* ---- Runs ---- */

#define RUN_CHUNK_MAX 64u

struct run_chunk {
    uint32_t count;
    struct delivery_run items[RUN_CHUNK_MAX];
};
struct run_slot {
    int64_t first; /* Of the chunk's first run. */
    struct run_chunk *chunk;
};
struct delivery_runs {
    struct run_slot *slots; /* Ascending; no chunk is empty. */
    size_t slot_count, slot_capacity;
    size_t count; /* Runs. */
};
struct run_place {
    size_t slot;
    uint32_t at;
};

void delivery_runs_fini(struct delivery_runs *t);
/* The last run that begins at or before the offset. */
bool delivery_runs_find(const struct delivery_runs *t, int64_t offset, struct run_place *place);
/* The first run that ends after the offset. */
bool delivery_runs_from(const struct delivery_runs *t, int64_t offset, struct run_place *place);
bool delivery_runs_next(const struct delivery_runs *t, struct run_place *place);
struct delivery_run *delivery_runs_at(const struct delivery_runs *t, struct run_place place);
/* Places are no longer valid after these. */
MUST_CHECK enum ferry_err delivery_runs_insert(struct delivery_runs *t,
                                               const struct delivery_run *run);
void delivery_runs_remove(struct delivery_runs *t, struct run_place place);
/* The run begins at `first` from now on; the order is as before (must). */
void delivery_runs_move_front(struct delivery_runs *t, struct run_place place, int64_t first);

static inline int64_t run_end(const struct delivery_run *run)
{
    return run->first + run->count;
}

/* ---- Histories: a msgpack array of [time, kind, member, reason]. ---- */

struct delivery_history {
    uint64_t number; /* Of its row. */
    uint64_t hash;
    uint32_t refs; /* Runs. */
    bool dirty, stored;
    struct list node; /* In dirty_histories, or alone. */
    uint32_t size;
    uint8_t data[];
};

/* `before` (may be NULL) and one more, the oldest dropped when there are too many. The caller holds
 * it. NULL: no memory. */
struct delivery_history *history_add(struct delivery *d, const struct delivery_history *before,
                                     const struct failure *failure);
/* The same of failures that were read from elsewhere; count > 0. */
struct delivery_history *history_of(struct delivery *d, const struct failure *failures,
                                    uint32_t count);
void history_hold(struct delivery_history *h); /* NULL: none. */
void history_release(struct delivery *d, struct delivery_history *h);
struct delivery_history *history_find(const struct delivery *d, struct bytes content);
MUST_CHECK enum ferry_err history_load(struct delivery *d, uint64_t number, struct bytes row);

/* ---- Leases ---- */

struct delivery_span {
    int64_t first, end;
};
struct delivery_ranges {
    uint32_t count, capacity;
    struct delivery_span spans[]; /* Ascending, disjoint, not touching. */
};
enum lease_list { LEASE_GIVEN, LEASE_ACKED, LEASE_NACKED, LEASE_RELEASED, LEASE_REJECTED };
#define LEASE_LISTS 5u

struct holder {
    uint64_t hash;
    uint32_t leases; /* With something left. */
    uint32_t held;   /* Messages. */
    uint32_t name_bytes;
    char name[];
};
struct lease {
    struct delivery_lease l;
    struct holder *holder; /* NULL: nothing is left. */
    uint64_t ended;        /* Ended leases are forgotten in this order; 0: something is left. */
    bool stored;
    struct list dirty_node, settled_node;
};
struct lease_slot {
    uint64_t number;
    struct lease *lease; /* NULL: forgotten. */
};

struct lease *lease_find(const struct delivery *d, uint64_t number);
/* With nothing given yet. Its number is above all (must). */
struct lease *lease_add(struct delivery *d, const struct delivery_hand_out *h);
void lease_gain(struct delivery *d, struct lease *lease, uint32_t count);
void lease_lose(struct delivery *d, struct lease *lease, uint32_t count);
/* Nothing is left of it, or was ever given. */
void lease_end(struct delivery *d, struct lease *lease);
void lease_forget(struct delivery *d, struct lease *lease);
void lease_forget_all(struct delivery *d);
void lease_touch(struct delivery *d, struct lease *lease); /* Is written with the next flush. */
void lease_note(struct delivery *d, struct lease *lease, enum lease_list list, int64_t first,
                uint32_t count);
struct delivery_ranges **lease_ranges(struct lease *lease, enum lease_list list);
/* The end of the span that has the offset; the offset itself: none has. */
int64_t ranges_end_of(const struct delivery_ranges *ranges, int64_t offset);

/* ---- Dead letters ---- */

#define DEAD_CHUNK_NUMBERS 4096u

struct dead_chunk {
    uint64_t segment; /* number / DEAD_CHUNK_NUMBERS */
    uint32_t count;   /* Bits set. */
    bool dirty;
    uint64_t bits[DEAD_CHUNK_NUMBERS / 64];
};
struct revived {
    uint64_t number;
    int64_t offset;
};
struct parked_key {
    uint64_t hash;
    uint64_t count; /* Dead letters that park it; 0: no longer. */
    bool stored;
    struct list node; /* In dirty_parked, or alone. */
};
struct key_state {
    uint64_t hash;
    uint32_t leased, waiting;
};

bool dead_has(const struct delivery *d, uint64_t number);
void dead_add(struct delivery *d, uint64_t number);
void dead_remove(struct delivery *d, uint64_t number);
void revived_add(struct delivery *d, uint64_t number, int64_t offset);
void revived_remove(struct delivery *d, uint64_t number);
const struct revived *revived_find(const struct delivery *d, uint64_t number);
void parked_change(struct delivery *d, uint64_t hash, int by); /* +1 or -1. */
void parked_clear(struct delivery *d);
struct parked_key *parked_find(const struct delivery *d, uint64_t hash);
struct parked_key *parked_add(struct delivery *d, uint64_t hash);
struct key_state *key_find(const struct delivery *d, uint64_t hash);
struct key_state *key_add(struct delivery *d, uint64_t hash);
void key_drop_if_idle(struct delivery *d, struct key_state *key);

/* ---- All of it ---- */

struct delivery {
    uint64_t number;
    bool keyed;
    struct delivery_settings settings;

    /* The replicated state: rows. */
    int64_t start; /* Where it was made, or reset to: counters count from here. */
    int64_t floor;
    uint64_t next_lease, next_dead, next_history, next_ended;
    struct delivery_counters counters;
    struct delivery_runs runs;
    struct lease_slot *leases; /* Ascending by number. */
    size_t lease_count, lease_capacity, lease_holes;
    struct list settled; /* Ended ones, the first ended first. */
    uint32_t settled_count, active_count;
    struct map histories; /* struct delivery_history, by content */
    size_t history_bytes;
    struct map parked; /* struct parked_key */
    size_t parked_count;
    struct dead_chunk **dead; /* Ascending by segment. */
    size_t dead_count, dead_capacity;

    /* Follows from it. */
    struct map holders, keys, revived;
    size_t range_bytes;

    /* For the next flush. */
    bool base_dirty;
    uint64_t *segments; /* Ascending. */
    size_t segment_count, segment_capacity;
    struct list dirty_leases, dirty_histories, dirty_parked;
    uint32_t dirty_lease_count, dirty_history_count, dirty_parked_count, dirty_dead_count;
    size_t dirty_history_bytes;
    struct buf removed_leases, removed_histories; /* u64 each. */

    bool no_memory;

    /* For the leader. */
    bool watched, overflowed;
    struct delivery_change *changes; /* A ring. */
    size_t change_first, change_count, change_capacity;
};

enum ferry_err delivery_result(const struct delivery *d); /* NO_MEMORY, or OK. */
void delivery_push_change(struct delivery *d, const struct delivery_change *change);

/* What [run->first, run->first + run->count) is from now on: FRESH is a gap. Everything that
 * follows is brought up to date: counters.leased and waiting, leases, holders, keys, histories. The
 * caller's reference to the history stays the caller's. */
void delivery_paint(struct delivery *d, const struct delivery_run *run);
/* DONE, or below floor a gap. */
void delivery_paint_done(struct delivery *d, int64_t first, uint32_t count);
/* The part of a run, or of a gap, that is within [first, end). */
struct delivery_run delivery_piece(const struct delivery *d, int64_t first, int64_t end);
void delivery_advance_floor(struct delivery *d);
void delivery_mark_segment(struct delivery *d, int64_t offset);
void delivery_remove_all_runs(struct delivery *d);
/* As it was stored: counted, not marked. */
void delivery_load_run(struct delivery *d, const struct delivery_run *run);
/* Keys and revived ones: there are no runs. */
void delivery_forget_derived(struct delivery *d);
MUST_CHECK enum ferry_err delivery_decode_base(struct delivery *d, struct bytes base);
MUST_CHECK enum ferry_err delivery_put_letter(struct delivery *d, const struct dead_letter *letter,
                                              struct rows *dead_rows);
/* It is not kept any more; it is not revived (any more). */
MUST_CHECK enum ferry_err delivery_forget_letter(struct delivery *d, uint64_t number,
                                                 struct rows *dead_rows);

#endif
