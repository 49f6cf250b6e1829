/* Leases of a delivery, by number in one array: those with something left, and the last
 * DELIVERY_SETTLED_KEPT that have ended, for repeats of what settled them. */
#include "base/checksum.h"
#include "base/mem.h"
#include "partition/delivery_internal.h"

#define RANGES_FIRST 2u

/* ---- Ranges ---- */

/* The place of the first span that ends at or after the offset. */
static uint32_t span_from(const struct delivery_ranges *ranges, int64_t offset)
{
    uint32_t low = 0;
    uint32_t high = ranges != NULL ? ranges->count : 0;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (ranges->spans[middle].end < offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

int64_t ranges_end_of(const struct delivery_ranges *ranges, int64_t offset)
{
    if (ranges == NULL) {
        return offset;
    }
    uint32_t at = span_from(ranges, offset + 1);
    bool has = at < ranges->count && ranges->spans[at].first <= offset;
    return has ? ranges->spans[at].end : offset;
}

static size_t ranges_memory(uint32_t capacity)
{
    return sizeof(struct delivery_ranges) + capacity * sizeof(struct delivery_span);
}

static bool grow_ranges(struct delivery *d, struct delivery_ranges **ranges)
{
    uint32_t capacity = *ranges == NULL ? 0 : (*ranges)->capacity;
    uint32_t count = *ranges == NULL ? 0 : (*ranges)->count;
    if (count < capacity) {
        return true;
    }
    uint32_t wanted = capacity == 0 ? RANGES_FIRST : capacity * 2;
    struct delivery_ranges *grown = mem_realloc(*ranges, ranges_memory(wanted));
    if (grown == NULL) {
        return false;
    }
    d->range_bytes += ranges_memory(wanted) - (capacity == 0 ? 0 : ranges_memory(capacity));
    grown->count = count;
    grown->capacity = wanted;
    *ranges = grown;
    return true;
}

static void free_ranges(struct delivery *d, struct delivery_ranges **ranges)
{
    if (*ranges != NULL) {
        d->range_bytes -= ranges_memory((*ranges)->capacity);
        mem_free(*ranges);
        *ranges = NULL;
    }
}

static bool ranges_add(struct delivery *d, struct delivery_ranges **ranges, int64_t first,
                       int64_t end)
{
    if (!grow_ranges(d, ranges)) {
        return false;
    }
    struct delivery_ranges *r = *ranges;
    uint32_t at = span_from(r, first);
    uint32_t after = at; /* Those that touch it become one with it. */
    while (after < r->count && r->spans[after].first <= end) {
        first = r->spans[after].first < first ? r->spans[after].first : first;
        end = r->spans[after].end > end ? r->spans[after].end : end;
        after++;
    }
    memmove(r->spans + at + 1, r->spans + after, (r->count - after) * sizeof(struct delivery_span));
    r->spans[at] = (struct delivery_span){.first = first, .end = end};
    r->count = r->count - (after - at) + 1;
    return true;
}

struct delivery_ranges **lease_ranges(struct lease *lease, enum lease_list list)
{
    switch (list) {
    case LEASE_GIVEN:
        return &lease->l.given;
    case LEASE_ACKED:
        return &lease->l.acked;
    case LEASE_NACKED:
        return &lease->l.nacked;
    case LEASE_RELEASED:
        return &lease->l.released;
    case LEASE_REJECTED:
        return &lease->l.rejected;
    }
    must(false);
    return NULL;
}

void lease_note(struct delivery *d, struct lease *lease, enum lease_list list, int64_t first,
                uint32_t count)
{
    if (!ranges_add(d, lease_ranges(lease, list), first, first + count)) {
        d->no_memory = true;
    }
    lease_touch(d, lease);
}

/* ---- Who holds them ---- */

static bool has_name(const void *item, const void *key)
{
    const struct holder *h = item;
    return bytes_equal(bytes_of(h->name, h->name_bytes), *(const struct bytes *)key);
}

static uint64_t hash_of(struct bytes name)
{
    return name.size > 0 ? checksum_of(name.data, name.size) : 0;
}

static struct holder *holder_find(const struct delivery *d, struct bytes name)
{
    return map_find(&d->holders, hash_of(name), has_name, &name);
}

static struct holder *holder_hold(struct delivery *d, struct bytes name)
{
    struct holder *h = holder_find(d, name);
    if (h == NULL) {
        h = mem_alloc(sizeof(*h) + name.size);
        if (h == NULL) {
            return NULL;
        }
        *h = (struct holder){.hash = hash_of(name), .name_bytes = (uint32_t)name.size};
        if (name.size > 0) {
            memcpy(h->name, name.data, name.size);
        }
        if (!map_add(&d->holders, h->hash, h)) {
            mem_free(h);
            return NULL;
        }
    }
    h->leases++;
    return h;
}

static void holder_release(struct delivery *d, struct holder *h)
{
    must(h->leases > 0);
    if (--h->leases == 0) {
        must(h->held == 0);
        map_remove(&d->holders, h->hash, h);
        mem_free(h);
    }
}

uint32_t delivery_held(const struct delivery *d, struct bytes member)
{
    const struct holder *h = holder_find(d, member);
    return h != NULL ? h->held : 0;
}

/* ---- Leases ---- */

/* The place of the first lease with a number >= it. */
static size_t place_of(const struct delivery *d, uint64_t number)
{
    size_t low = 0;
    size_t high = d->lease_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (d->leases[middle].number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct lease *lease_find(const struct delivery *d, uint64_t number)
{
    size_t at = place_of(d, number);
    return at < d->lease_count && d->leases[at].number == number ? d->leases[at].lease : NULL;
}

const struct delivery_lease *delivery_find_lease(const struct delivery *d, uint64_t number)
{
    const struct lease *lease = lease_find(d, number);
    return lease != NULL ? &lease->l : NULL;
}

bool delivery_next_leased(const struct delivery *d, const struct delivery_lease *l, int64_t *after,
                          struct delivery_run *run)
{
    uint32_t count = l->given != NULL ? l->given->count : 0;
    for (uint32_t i = 0; i < count; i++) {
        struct delivery_span span = l->given->spans[i];
        for (int64_t at = span.first > *after ? span.first : *after; at < span.end;) {
            *run = delivery_piece(d, at, span.end);
            at = run_end(run);
            if (run->state == DELIVERY_LEASED && run->lease == l->number) {
                *after = at;
                return true;
            }
        }
    }
    return false;
}

const struct delivery_lease *delivery_next_lease(const struct delivery *d, uint64_t after)
{
    for (size_t at = place_of(d, after + 1); at < d->lease_count; at++) {
        const struct lease *lease = d->leases[at].lease;
        if (lease != NULL && lease->l.left > 0) {
            return &lease->l;
        }
    }
    return NULL;
}

void lease_touch(struct delivery *d, struct lease *lease)
{
    if (list_is_empty(&lease->dirty_node)) {
        list_push_back(&d->dirty_leases, &lease->dirty_node);
        d->dirty_lease_count++;
    }
}

struct lease *lease_add(struct delivery *d, const struct delivery_hand_out *h)
{
    must(d->lease_count == 0 || d->leases[d->lease_count - 1].number < h->lease);
    must(h->member.size <= NAME_MAX_BYTES);
    struct lease *lease = mem_zalloc(1, sizeof(*lease));
    if (lease == NULL || !mem_grow((void **)&d->leases, &d->lease_capacity, d->lease_count + 1,
                                   sizeof(struct lease_slot))) {
        mem_free(lease);
        d->no_memory = true;
        return NULL;
    }
    lease->l.number = h->lease;
    lease->l.token = h->token;
    lease->l.lease_ms = h->lease_ms;
    lease->l.member_bytes = (uint32_t)h->member.size;
    if (h->member.size > 0) {
        memcpy(lease->l.member, h->member.data, h->member.size);
    }
    list_init(&lease->dirty_node);
    list_init(&lease->settled_node);
    d->leases[d->lease_count++] = (struct lease_slot){.number = h->lease, .lease = lease};
    return lease;
}

void lease_gain(struct delivery *d, struct lease *lease, uint32_t count)
{
    if (lease->holder == NULL) {
        must(lease->l.left == 0 && lease->ended == 0);
        lease->holder = holder_hold(d, bytes_of(lease->l.member, lease->l.member_bytes));
        if (lease->holder == NULL) {
            d->no_memory = true;
            return;
        }
        d->active_count++;
    }
    lease->l.left += count; /* Not stored: it follows from the runs. */
    lease->holder->held += count;
}

static void forget_oldest(struct delivery *d)
{
    struct lease *oldest = list_entry(d->settled.next, struct lease, settled_node);
    lease_forget(d, oldest);
}

void lease_end(struct delivery *d, struct lease *lease)
{
    must(lease->l.left == 0 && lease->ended == 0);
    if (lease->holder != NULL) {
        holder_release(d, lease->holder);
        lease->holder = NULL;
        d->active_count--;
    }
    lease->ended = d->next_ended++;
    list_push_back(&d->settled, &lease->settled_node);
    d->settled_count++;
    lease_touch(d, lease);
    delivery_push_change(
        d, &(struct delivery_change){.kind = DELIVERY_CHANGED_ENDED, .lease = lease->l.number});
    if (d->settled_count > DELIVERY_SETTLED_KEPT) {
        forget_oldest(d);
    }
}

void lease_lose(struct delivery *d, struct lease *lease, uint32_t count)
{
    must(lease->l.left >= count);
    must(lease->holder != NULL && lease->holder->held >= count);
    lease->l.left -= count;
    lease->holder->held -= count;
    if (lease->l.left == 0) {
        lease_end(d, lease);
    }
}

static void free_lease(struct delivery *d, struct lease *lease)
{
    for (uint32_t i = 0; i < LEASE_LISTS; i++) {
        free_ranges(d, lease_ranges(lease, (enum lease_list)i));
    }
    if (!list_is_empty(&lease->dirty_node)) {
        list_remove(&lease->dirty_node);
        d->dirty_lease_count--;
    }
    if (!list_is_empty(&lease->settled_node)) {
        list_remove(&lease->settled_node);
        d->settled_count--;
    }
    if (lease->holder != NULL) {
        lease->holder->held -= lease->l.left;
        holder_release(d, lease->holder);
        d->active_count--;
    }
    mem_free(lease);
}

/* Forgotten ones leave holes, closed up once they are as many as the rest. */
static void close_holes(struct delivery *d)
{
    size_t kept = 0;
    for (size_t i = 0; i < d->lease_count; i++) {
        if (d->leases[i].lease != NULL) {
            d->leases[kept++] = d->leases[i];
        }
    }
    d->lease_count = kept;
    d->lease_holes = 0;
}

void lease_forget(struct delivery *d, struct lease *lease)
{
    size_t at = place_of(d, lease->l.number);
    must(at < d->lease_count && d->leases[at].lease == lease);
    if (lease->stored) {
        buf_append_le64(&d->removed_leases, lease->l.number);
    }
    free_lease(d, lease);
    d->leases[at].lease = NULL;
    d->lease_holes++;
    if (d->lease_holes > d->lease_count / 2) {
        close_holes(d);
    }
}

void lease_forget_all(struct delivery *d)
{
    for (size_t i = 0; i < d->lease_count; i++) {
        struct lease *lease = d->leases[i].lease;
        if (lease != NULL && lease->stored) {
            buf_append_le64(&d->removed_leases, lease->l.number);
        }
        if (lease != NULL) {
            free_lease(d, lease);
        }
    }
    d->lease_count = 0;
    d->lease_holes = 0;
}
