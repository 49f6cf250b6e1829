/* Building the index, taking in what was applied, choosing. */
#include "partition/pick.h"

#include <stdlib.h>

#include "base/mem.h"
#include "partition/pick_internal.h"

/* ---- What came back ---- */

static enum ferry_err add_wait(struct pick *k, const struct delivery_run *run,
                               const struct pick_clock *now)
{
    struct pick_wait *w = mem_zalloc(1, sizeof(*w));
    if (w == NULL || !heap_reserve(&k->waiting, k->waiting.count + 1)) {
        mem_free(w);
        return FERRY_ERR_NO_MEMORY;
    }
    *w = (struct pick_wait){
        .first = run->first, .count = run->count, .due_ms = run->due_ms, .key_hash = run->key_hash};
    heap_node_init(&w->due);
    list_init(&w->node);
    int64_t left_ms = run->due_ms > now->ms ? run->due_ms - now->ms : 0;
#ifdef MUT_65 /* what waits is handed out before it is due */
    left_ms = 0;
#endif
    heap_set(&k->waiting, &w->due, now->us + left_ms * 1000);
    return FERRY_OK;
}

static void push_ready(struct pick *k, struct pick_wait *w, bool front)
{
    if (front) {
        list_push_front(&k->ready, &w->node);
    } else {
        list_push_back(&k->ready, &w->node);
    }
    k->ready_count++;
}

static void wait_fini(struct pick *k)
{
    for (struct heap_node *n; (n = heap_first(&k->waiting)) != NULL;) {
        heap_remove(&k->waiting, n);
        mem_free(list_entry(n, struct pick_wait, due));
    }
    for (struct list *n; (n = list_pop_front(&k->ready)) != NULL;) {
        mem_free(list_entry(n, struct pick_wait, node));
    }
    k->ready_count = 0;
    heap_fini(&k->waiting);
    heap_init(&k->waiting);
}

static void make_due_ready(struct pick *k, int64_t now_us)
{
    for (struct heap_node *n; (n = heap_first(&k->waiting)) != NULL && n->due <= now_us;) {
        heap_remove(&k->waiting, n);
        push_ready(k, list_entry(n, struct pick_wait, due), false);
        k->wake++;
    }
}

/* ---- Building ---- */

static void clear(struct pick *k)
{
    wait_fini(k);
    fresh_fini(k);
    keyed_fini(k);
    pick_lease_clear(k);
    k->rebuild = true;
    k->scan_more = false;
}

static enum ferry_err build(struct pick *k, const struct pick_clock *now)
{
    struct delivery *d = k->delivery;
    struct delivery_run run;
    enum ferry_err err = FERRY_OK;
    delivery_watch(d, true);
    k->scanned = delivery_floor(d);
    for (int64_t after = INT64_MIN; err == FERRY_OK && delivery_next_run(d, &after, &run);) {
        if (run.state == DELIVERY_WAITING) {
            err = add_wait(k, &run, now);
        }
    }
    const struct delivery_lease *l = NULL;
    for (uint64_t at = 0; err == FERRY_OK && (l = delivery_next_lease(d, at)) != NULL;) {
        at = l->number;
        err = pick_lease_begin(k, at, now->us);
    }
#ifdef MUT_67 /* a new leader ends the leases that its predecessor gave */
    for (struct heap_node *n = heap_first(&k->leases_by_end); n != NULL && n->due > now->us;
         n = heap_first(&k->leases_by_end)) {
        heap_set(&k->leases_by_end, n, now->us);
    }
#endif
    k->rebuild = err != FERRY_OK;
    k->wake++;
    return err;
}

struct pick *pick_new(struct delivery *d, uint64_t wake, const struct pick_clock *now)
{
    struct pick *k = mem_zalloc(1, sizeof(*k));
    if (k == NULL) {
        return NULL;
    }
    k->delivery = d;
    k->keyed = delivery_is_keyed(d);
    k->wake = wake;
    k->next_lease = delivery_next_lease_number(d);
    heap_init(&k->waiting);
    list_init(&k->ready);
    fresh_init(k);
    keyed_init(k);
    pick_lease_init(k);
    buf_init(&k->taken, RECEIVE_MESSAGES_MAX * sizeof(struct pick_taken));
    if (build(k, now) != FERRY_OK) {
        pick_free(&k);
    }
    return k;
}

void pick_free(struct pick **kp)
{
    struct pick *k = *kp;
    if (k == NULL) {
        return;
    }
    clear(k);
    pick_lease_fini(k);
    buf_fini(&k->taken);
    delivery_watch(k->delivery, false);
    mem_free(k);
    *kp = NULL;
}

/* ---- Changes ---- */

void pick_touch(struct pick *k, bool freed)
{
    k->touched = true;
    k->freed = k->freed || freed;
}

/* Some of it may have gone on since: only what is waiting now counts. */
static enum ferry_err came_back(struct pick *k, const struct delivery_change *c,
                                const struct pick_clock *now)
{
    int64_t end = c->first + c->count;
    enum ferry_err err = FERRY_OK;
    for (int64_t at = c->first; at < end && err == FERRY_OK;) {
        struct delivery_run run = delivery_at(k->delivery, at, end);
        int64_t run_end = run.first + run.count < end ? run.first + run.count : end;
        must(run.first <= at && at < run_end);
        run.first = at;
        run.count = (uint32_t)(run_end - at);
        if (run.state == DELIVERY_WAITING) {
            err = add_wait(k, &run, now);
        }
        at = run_end;
    }
    return err;
}

static enum ferry_err take_change(struct pick *k, const struct delivery_change *c,
                                  const struct pick_clock *now)
{
    switch (c->kind) {
    case DELIVERY_CHANGED_WAITING:
        return came_back(k, c, now);
    case DELIVERY_CHANGED_LEASED:
        return pick_lease_begin(k, c->lease, now->us);
    case DELIVERY_CHANGED_ENDED:
        pick_lease_end(k, c->lease);
        return FERRY_OK;
    case DELIVERY_CHANGED_KEY:
        return keyed_changed(k, c->key_hash);
    case DELIVERY_CHANGED_RESET:
        clear(k);
        return FERRY_OK;
    }
    must(false);
    return FERRY_OK;
}

/* What is on its way was decided by the state before: the index is made anew behind it. */
static enum ferry_err update_rebuilt(struct pick *k, const struct pick_clock *now)
{
    enum ferry_err err = FERRY_OK;
    if (k->rebuild && list_is_empty(&k->flights)) {
        err = build(k, now);
    }
    return err;
}

enum ferry_err pick_update(struct pick *k, const struct pick_clock *now)
{
    struct delivery_change c;
    bool freed = k->freed;
    k->touched = k->freed = false;
    enum ferry_err err = flights_land(k);
    while (err == FERRY_OK && !k->rebuild && delivery_next_change(k->delivery, &c)) {
        err = take_change(k, &c, now);
    }
    if (freed && k->told_full) {
        k->told_full = false;
        k->wake++;
    }
    if (err == FERRY_OK) {
        err = update_rebuilt(k, now);
    }
    if (err != FERRY_OK) {
        clear(k);
        return err;
    }
    make_due_ready(k, now->us);
    return FERRY_OK;
}

/* ---- Choosing ---- */

uint32_t pick_room_for(const struct pick_room *room, uint32_t bytes_each, uint32_t count)
{
    uint32_t fits = count < room->messages ? count : room->messages;
    uint64_t by_bytes = bytes_each > 0 ? room->bytes / bytes_each : fits;
    if (fits <= by_bytes) {
        return fits;
    }
    return by_bytes == 0 && room->count == 0 ? 1 : (uint32_t)by_bytes;
}

enum ferry_err pick_take(struct pick *k, struct pick_room *room, const struct pick_taken *taken)
{
    uint64_t bytes = (uint64_t)taken->bytes_each * taken->count;
    must(taken->count > 0 && taken->count <= room->messages);
    buf_append(&k->taken, taken, sizeof(*taken));
    if (!buf_ok(&k->taken)) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = keyed_flies(k, taken->key_hash);
    if (err != FERRY_OK) {
        k->taken.size -= sizeof(*taken);
        return err;
    }
    room->messages -= taken->count;
    room->bytes -= bytes < room->bytes ? bytes : room->bytes;
    room->count += taken->count;
    return FERRY_OK;
}

static void forget_front(struct pick *k, struct pick_wait *w, uint32_t count)
{
    must(count <= w->count);
    w->first += count;
    w->count -= count;
    if (w->count == 0) {
        list_remove(&w->node);
        k->ready_count--;
        mem_free(w);
    }
}

/* The part of the first one that waits still; 0: it went on (trimmed, dropped, reset). */
static uint32_t still_waiting(struct pick *k, struct pick_wait *w, struct delivery_run *run)
{
    *run = delivery_at(k->delivery, w->first, w->first + w->count);
    uint64_t rest = (uint64_t)(run->first + run->count - w->first);
    uint32_t part = rest < w->count ? (uint32_t)rest : w->count;
    if (run->state == DELIVERY_WAITING && run->due_ms == w->due_ms &&
        run->key_hash == w->key_hash) {
        return part;
    }
    uint64_t key_hash = w->key_hash;
    forget_front(k, w, part);
    enum ferry_err err = keyed_changed(k, key_hash);
    must(err == FERRY_OK);
    return 0;
}

static enum ferry_err take_waiting(struct pick *k, const struct pick_log *log,
                                   struct pick_room *room)
{
    while (!list_is_empty(&k->ready) && room->messages > 0) {
        struct pick_wait *w = list_entry(k->ready.next, struct pick_wait, node);
        struct delivery_run run;
        struct pick_taken t = {.first = w->first, .key_hash = w->key_hash, .waited = true};
        uint32_t part = still_waiting(k, w, &run);
        if (part == 0) {
            continue;
        }
        bool may = true;
        list_remove(&w->node);
        enum ferry_err err = keyed_admit(k, w, &may);
        if (err != FERRY_OK || may) {
            list_push_front(&k->ready, &w->node);
        } else {
            k->ready_count--;
            continue;
        }
        run.first = w->first;
        err = err == FERRY_OK ? log->size(log->arg, &run, &t.bytes_each) : err;
        t.count = pick_room_for(room, t.bytes_each, part);
        t.due_ms = w->due_ms;
        if (err != FERRY_OK || t.count == 0) {
            return err;
        }
        err = pick_take(k, room, &t);
        if (err != FERRY_OK) {
            return err;
        }
        forget_front(k, w, t.count);
    }
    return FERRY_OK;
}

static enum ferry_err take_fresh(struct pick *k, const struct pick_log *log,
                                 const struct pick_clock *now, struct pick_room *room)
{
    if (!delivery_has_room(k->delivery)) {
        k->told_full = true;
        return FERRY_OK;
    }
    if (k->keyed) {
        enum ferry_err err = keyed_scan(k, log, room->messages);
        enum ferry_err taken = keyed_take(k, room);
        return err != FERRY_OK ? err : taken;
    }
    enum ferry_err err = fresh_scan(k, log);
    enum ferry_err taken = fresh_take(k, now, room);
    return err != FERRY_OK ? err : taken;
}

static int by_first(const void *a, const void *b)
{
    int64_t x = ((const struct delivery_range *)a)->first;
    int64_t y = ((const struct delivery_range *)b)->first;
    return x < y ? -1 : x > y;
}

/* Sorted, with neighbours joined. Twice the same is named once: dead letters of one offset, one
 * dropped and another replayed at the same time, are alike to those who wait. */
static enum ferry_err make_ranges(const struct pick *k, struct buf *out)
{
    const struct pick_taken *taken = (const void *)k->taken.data;
    size_t count = k->taken.size / sizeof(*taken);
    buf_clear(out);
    struct delivery_range *r = (void *)buf_extend(out, count * sizeof(*r));
    if (r == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < count; i++) {
        r[i] = (struct delivery_range){
            .first = taken[i].first, .count = taken[i].count, .key_hash = taken[i].key_hash};
    }
    qsort(r, count, sizeof(*r), by_first);
    size_t kept = 0;
    for (size_t i = 1; i < count; i++) {
        if (r[kept].first == r[i].first && r[kept].count == r[i].count) {
            continue;
        }
        must(r[kept].first + r[kept].count <= r[i].first);
        if (r[kept].first + r[kept].count == r[i].first && r[kept].key_hash == 0 &&
            r[i].key_hash == 0) {
            r[kept].count += r[i].count;
        } else {
            r[++kept] = r[i];
        }
    }
    out->size = (kept + 1) * sizeof(*r);
    return FERRY_OK;
}

static uint32_t count_messages(const struct buf *ranges)
{
    const struct delivery_range *r = (const void *)ranges->data;
    uint32_t count = 0;
    for (size_t i = 0; i < ranges->size / sizeof(*r); i++) {
        count += r[i].count;
    }
    return count;
}

static enum ferry_err give_back_one(struct pick *k, const struct pick_taken *t)
{
    struct pick_wait *w = NULL;
#ifdef MUT_69 /* a message whose hand-out was refused is lost from the index */
    return FERRY_OK;
#endif
    if (!t->waited) {
        return k->keyed ? keyed_give_back(k, t) : fresh_give_back(k, t);
    }
    w = mem_zalloc(1, sizeof(*w));
    if (w == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    *w = (struct pick_wait){
        .first = t->first, .count = t->count, .due_ms = t->due_ms, .key_hash = t->key_hash};
    heap_node_init(&w->due);
    list_init(&w->node);
    push_ready(k, w, true);
    return keyed_changed(k, t->key_hash);
}

/* Last first, so that what comes to the front is in order. */
static void give_back_all(struct pick *k, const struct pick_taken *taken, size_t count)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = count; i-- > 0 && err == FERRY_OK && !k->rebuild;) {
        keyed_returned(k, taken[i].key_hash);
        err = give_back_one(k, &taken[i]);
    }
    if (err != FERRY_OK) {
        clear(k);
    }
    k->wake++;
}

void pick_give_back(struct pick *k, uint64_t lease)
{
    must(!list_is_empty(&k->flights));
    struct pick_flight *f = list_entry(k->flights.prev, struct pick_flight, node);
    must(f->lease == lease);
    give_back_all(k, f->taken, f->count);
    flight_end(k, f);
}

static enum ferry_err choose(struct pick *k, struct pick_member *m, const struct pick_ask *ask,
                             const struct pick_log *log, const struct pick_clock *now,
                             struct pick_choice *choice)
{
    uint32_t room_messages = member_room(k, m);
    struct pick_room room = {.messages = ask->max_messages, .bytes = ask->max_bytes};
    room.messages = room.messages < room_messages ? room.messages : room_messages;
    choice->answer = room_messages == 0 ? PICK_MEMBER_FULL : PICK_NOTHING;
    if (room_messages == 0 || k->rebuild) {
        k->told_full = true;
        return FERRY_OK;
    }
    buf_clear(&k->taken);
    enum ferry_err err = take_waiting(k, log, &room);
    if (err == FERRY_OK && room.messages > 0) {
        err = take_fresh(k, log, now, &room);
    }
    if (room.count == 0) {
        return err;
    }
    /* What was found goes out; an error comes again with the next call. */
    err = make_ranges(k, choice->ranges);
    if (err == FERRY_OK) {
        err = flight_begin(k, m, room.count);
    }
    if (err != FERRY_OK) {
        give_back_all(k, (const void *)k->taken.data, k->taken.size / sizeof(struct pick_taken));
        return err;
    }
    choice->lease = k->next_lease - 1;
    choice->count = count_messages(choice->ranges);
    choice->answer = PICK_SOME;
    return FERRY_OK;
}

enum ferry_err pick_next(struct pick *k, const struct pick_ask *ask, const struct pick_log *log,
                         const struct pick_clock *now, struct pick_choice *choice)
{
    struct pick_member *m = NULL;
    must(ask->max_messages > 0 && ask->max_messages <= RECEIVE_MESSAGES_MAX);
    choice->answer = PICK_NOTHING;
    choice->count = 0;
    enum ferry_err err = member_get(k, ask->member, &m);
    if (err != FERRY_OK) {
        return err;
    }
    err = choose(k, m, ask, log, now, choice);
    member_let_go(k, m);
    return err;
}

bool pick_wants_more(const struct pick *k)
{
    return k->scan_more;
}

int64_t pick_scanned(const struct pick *k)
{
    return k->scanned;
}

/* ---- Asking ---- */

static int64_t first_due(const struct heap *h, int64_t due)
{
    const struct heap_node *n = heap_first(h);
    return n != NULL && n->due < due ? n->due : due;
}

int64_t pick_deadline_us(const struct pick *k)
{
    bool parks = k->parking_count > 0 && list_is_empty(&k->parked);
    if (k->touched || parks) {
        return 0;
    }
    return first_due(&k->waiting, first_due(&k->leases_by_end, PICK_NEVER));
}

uint64_t pick_wake(const struct pick *k)
{
    return k->wake;
}

void pick_rouse(struct pick *k)
{
    k->wake++;
}

static void check_flights(const struct pick *k)
{
    uint64_t last = 0;
    for (const struct list *n = k->flights.next; n != &k->flights; n = n->next) {
        const struct pick_flight *f = list_entry(n, const struct pick_flight, node);
        must(f->lease > last && f->lease < k->next_lease);
        must(f->messages > 0 && f->member->in_flight >= f->messages);
        last = f->lease;
    }
}

void pick_check(const struct pick *k)
{
    check_flights(k);
    keyed_check(k);
    heap_check(&k->waiting);
    heap_check(&k->leases_by_end);
    must(k->leases.count >= k->leases_by_end.count);
    size_t at = 0;
    const struct pick_member *m = NULL;
    for (int i = 0; i < 1024 && (m = map_next(&k->members, &at)) != NULL; i++) {
        must(m->flights > 0);
    }
}
