/* The one way in which a run of a delivery changes. What it was is cut out, what it is put in its
 * place and made one with neighbours that are alike; all that is counted by runs follows. */
#include "base/mem.h"
#include "partition/delivery_internal.h"

/* ---- What follows from runs ---- */

static void count_key(struct delivery *d, const struct delivery_run *run, bool in)
{
    if (run->key_hash == 0) {
        return;
    }
    struct key_state *key = in ? key_add(d, run->key_hash) : key_find(d, run->key_hash);
    if (key == NULL) {
        must(d->no_memory);
        return;
    }
    uint32_t *count = run->state == DELIVERY_LEASED ? &key->leased : &key->waiting;
    must(in || *count > 0);
    *count = in ? *count + 1 : *count - 1;
    if (!in) {
        key_drop_if_idle(d, key);
    }
}

static void count_lease(struct delivery *d, const struct delivery_run *run, bool in)
{
    struct lease *lease = lease_find(d, run->lease);
    must(lease != NULL);
    if (in) {
        lease_gain(d, lease, run->count);
    } else {
        lease_lose(d, lease, run->count);
    }
}

static void count_run(struct delivery *d, const struct delivery_run *run, bool in)
{
    if (run->state != DELIVERY_LEASED && run->state != DELIVERY_WAITING) {
        return;
    }
    uint64_t *count = run->state == DELIVERY_LEASED ? &d->counters.leased : &d->counters.waiting;
    must(in || *count >= run->count);
    *count = in ? *count + run->count : *count - run->count;
    count_key(d, run, in);
    if (run->state == DELIVERY_LEASED) {
        count_lease(d, run, in);
    }
}

void delivery_mark_segment(struct delivery *d, int64_t offset)
{
    uint64_t segment = (uint64_t)(offset / SEGMENT_OFFSETS);
    size_t at = d->segment_count;
    while (at > 0 && d->segments[at - 1] > segment) {
        at--; /* Nearly always among the last. */
    }
    if (at > 0 && d->segments[at - 1] == segment) {
        return;
    }
    if (!mem_grow((void **)&d->segments, &d->segment_capacity, d->segment_count + 1,
                  sizeof(uint64_t))) {
        d->no_memory = true;
        return;
    }
    memmove(d->segments + at + 1, d->segments + at, (d->segment_count - at) * sizeof(uint64_t));
    d->segments[at] = segment;
    d->segment_count++;
}

/* ---- Cutting out ---- */

static void insert(struct delivery *d, const struct delivery_run *run)
{
    delivery_mark_segment(d, run->first);
    history_hold(run->history);
    if (delivery_runs_insert(&d->runs, run) != FERRY_OK) {
        d->no_memory = true;
    }
}

static void take_out(struct delivery *d, struct run_place place)
{
    struct delivery_run run = *delivery_runs_at(&d->runs, place);
    delivery_mark_segment(d, run.first);
    delivery_runs_remove(&d->runs, place);
    history_release(d, run.history);
}

/* No run crosses the offset any more. */
static void cut(struct delivery *d, int64_t offset)
{
    struct run_place place;
    if (!delivery_runs_find(&d->runs, offset - 1, &place)) {
        return;
    }
    struct delivery_run *run = delivery_runs_at(&d->runs, place);
    if (run_end(run) <= offset) {
        return;
    }
    struct delivery_run upper = *run;
    upper.first = offset;
    upper.count = (uint32_t)(run_end(run) - offset);
    run->count -= upper.count;
    delivery_mark_segment(d, run->first);
    insert(d, &upper);
}

static void clear(struct delivery *d, int64_t first, int64_t end)
{
    struct run_place place;
    while (!d->no_memory && delivery_runs_from(&d->runs, first, &place)) {
        const struct delivery_run run = *delivery_runs_at(&d->runs, place);
        if (run.first >= end) {
            return;
        }
        must(run.first >= first && run_end(&run) <= end);
        take_out(d, place);
        count_run(d, &run, false);
    }
}

/* ---- Putting in ---- */

static bool are_alike(const struct delivery_run *a, const struct delivery_run *b)
{
    return run_end(a) == b->first && a->first / RUN_OFFSETS_MAX == b->first / RUN_OFFSETS_MAX &&
           a->state == b->state && a->handed == b->handed && a->failed == b->failed &&
           a->lease == b->lease && a->due_ms == b->due_ms && a->key_hash == 0 && b->key_hash == 0 &&
           a->dead == 0 && b->dead == 0 && a->history == b->history;
}

/* The run at `place` and the one behind it become one if they are alike. */
static void join_next(struct delivery *d, struct run_place place)
{
    struct delivery_run *run = delivery_runs_at(&d->runs, place);
    struct run_place next = place;
    if (!delivery_runs_next(&d->runs, &next)) {
        return;
    }
    const struct delivery_run *right = delivery_runs_at(&d->runs, next);
    if (are_alike(run, right)) {
        run->count += right->count;
        delivery_mark_segment(d, run->first);
        take_out(d, next);
    }
}

static bool join_left(struct delivery *d, const struct delivery_run *run)
{
    struct run_place place;
    if (!delivery_runs_find(&d->runs, run->first, &place)) {
        return false;
    }
    struct delivery_run *left = delivery_runs_at(&d->runs, place);
    if (!are_alike(left, run)) {
        return false;
    }
    left->count += run->count;
    delivery_mark_segment(d, left->first);
    join_next(d, place);
    return true;
}

static bool join_right(struct delivery *d, const struct delivery_run *run)
{
    struct run_place place;
    if (!delivery_runs_from(&d->runs, run->first, &place)) {
        return false;
    }
    const struct delivery_run *right = delivery_runs_at(&d->runs, place);
    if (!are_alike(run, right)) {
        return false;
    }
    delivery_mark_segment(d, right->first);
    delivery_mark_segment(d, run->first);
    delivery_runs_move_front(&d->runs, place, run->first);
    return true;
}

static void paint_block(struct delivery *d, const struct delivery_run *run)
{
    count_run(d, run, true); /* First, so that what goes over into it never seems to be none. */
    cut(d, run->first);
    cut(d, run_end(run));
    clear(d, run->first, run_end(run));
    if (!d->no_memory && run->state != DELIVERY_FRESH && !join_left(d, run) &&
        !join_right(d, run)) {
        insert(d, run);
    }
}

static int64_t block_end(int64_t offset)
{
    return offset < INT64_MAX - RUN_OFFSETS_MAX ? (offset / RUN_OFFSETS_MAX + 1) * RUN_OFFSETS_MAX
                                                : INT64_MAX;
}

void delivery_paint(struct delivery *d, const struct delivery_run *run)
{
    must(run->first >= 0 && run->count > 0);
    int64_t end = run_end(run);
    d->base_dirty = true;
    history_hold(run->history); /* The run that it was read from may go. */
    struct delivery_run part = *run;
    while (part.first < end && !d->no_memory) {
        int64_t until = block_end(part.first);
        part.count = (uint32_t)((until < end ? until : end) - part.first);
        paint_block(d, &part);
        part.first += part.count;
    }
    history_release(d, run->history);
}

void delivery_paint_done(struct delivery *d, int64_t first, uint32_t count)
{
    int64_t end = first + count;
    int64_t middle = d->floor < first ? first : (d->floor > end ? end : d->floor);
    if (first < middle) {
        struct delivery_run gap = {.first = first, .count = (uint32_t)(middle - first)};
        delivery_paint(d, &gap);
    }
    if (middle < end) {
        struct delivery_run done = {
            .first = middle, .count = (uint32_t)(end - middle), .state = DELIVERY_DONE};
        delivery_paint(d, &done);
    }
}

/* ---- Looking ---- */

struct delivery_run delivery_piece(const struct delivery *d, int64_t first, int64_t end)
{
    must(first >= 0 && first < end);
    struct delivery_run piece = {.first = first};
    struct run_place place;
    int64_t until = end;
    if (delivery_runs_from(&d->runs, first, &place)) {
        const struct delivery_run *run = delivery_runs_at(&d->runs, place);
        bool holds = run->first <= first;
        int64_t bound = holds ? run_end(run) : run->first;
        until = bound < end ? bound : end;
        if (holds) {
            piece = *run;
            piece.first = first;
            piece.count = (uint32_t)(until - first);
            return piece;
        }
    }
    if (first < d->floor) {
        piece.state = DELIVERY_DONE;
        until = d->floor < until ? d->floor : until;
    }
    until = block_end(first) < until ? block_end(first) : until;
    piece.count = (uint32_t)(until - first);
    return piece;
}

/* Revived ones do not hold it back: their records are with the dead letters. */
void delivery_advance_floor(struct delivery *d)
{
    struct run_place place;
    while (!d->no_memory && delivery_runs_from(&d->runs, d->floor, &place)) {
        const struct delivery_run run = *delivery_runs_at(&d->runs, place);
        if (run.first > d->floor || (run.state != DELIVERY_DONE && run.dead == 0)) {
            return;
        }
        must(run.first == d->floor);
        d->floor = run_end(&run);
        d->base_dirty = true;
        if (run.state == DELIVERY_DONE) {
            take_out(d, place);
        }
    }
}

void delivery_load_run(struct delivery *d, const struct delivery_run *run)
{
    count_run(d, run, true);
    insert(d, run);
}

void delivery_remove_all_runs(struct delivery *d)
{
    struct run_place place;
    bool more = delivery_runs_from(&d->runs, INT64_MIN, &place);
    for (; more; more = delivery_runs_next(&d->runs, &place)) {
        const struct delivery_run *run = delivery_runs_at(&d->runs, place);
        delivery_mark_segment(d, run->first);
        history_release(d, run->history);
    }
    delivery_runs_fini(&d->runs);
}
