/* Hand-outs and settlements: who has which message, and how that ends. */
#include "partition/delivery_internal.h"

/* ---- Hand-outs ---- */

static void give_piece(struct delivery *d, const struct delivery_hand_out *h, struct lease *lease,
                       const struct delivery_run *piece, uint64_t key_hash)
{
    struct delivery_run run = *piece;
    if (piece->state == DELIVERY_FRESH) {
        run.key_hash = d->keyed ? key_hash : 0;
    }
    const struct key_state *key = run.key_hash != 0 ? key_find(d, run.key_hash) : NULL;
    if (key != NULL && key->leased > 0) {
        return; /* One of a key at a time. */
    }
    run.state = DELIVERY_LEASED;
    run.handed++;
    run.lease = h->lease;
    run.due_ms = 0;
    delivery_paint(d, &run);
    lease_note(d, lease, LEASE_GIVEN, run.first, run.count);
    d->counters.handed_out += run.count;
}

static void give_range(struct delivery *d, const struct delivery_hand_out *h, struct lease *lease,
                       const struct delivery_range *range)
{
    if (range->first < 0 || range->count == 0 || range->first > INT64_MAX - range->count ||
        (range->key_hash != 0 && range->count != 1)) {
        return;
    }
    int64_t end = range->first + range->count;
    for (int64_t at = range->first; at < end && !d->no_memory;) {
        struct delivery_run piece = delivery_piece(d, at, end);
        at = run_end(&piece);
        if (piece.state == DELIVERY_FRESH || piece.state == DELIVERY_WAITING) {
            give_piece(d, h, lease, &piece, range->key_hash);
        }
    }
}

enum ferry_err delivery_apply_hand_out(struct delivery *d, const struct delivery_hand_out *h)
{
    if (h->lease < d->next_lease || h->lease == UINT64_MAX) {
        return FERRY_OK;
    }
    d->next_lease = h->lease + 1;
    d->base_dirty = true;
    struct lease *lease = lease_add(d, h);
    for (uint32_t i = 0; i < h->range_count && !d->no_memory; i++) {
        give_range(d, h, lease, &h->ranges[i]);
    }
    if (d->no_memory) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (lease->l.left == 0) {
        lease_forget(d, lease);
        return delivery_result(d);
    }
    delivery_push_change(
        d, &(struct delivery_change){.kind = DELIVERY_CHANGED_LEASED, .lease = h->lease});
    return delivery_result(d);
}

/* ---- Settlements ---- */

struct settling {
    struct delivery *d;
    const struct delivery_settlement *s;
    const struct delivery_settle_item *item;
    int64_t time_ms;
    struct rows *dead_rows;
    enum ferry_err err;
};

static bool goes_on(const struct settling *c)
{
    return c->err == FERRY_OK && !c->d->no_memory;
}

/* The place of the first dead letter at or after the offset. */
static uint32_t dead_from(const struct delivery_settlement *s, int64_t offset)
{
    uint32_t low = 0;
    uint32_t high = s->dead_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->dead[middle].offset < offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool has_all_records(const struct delivery_settlement *s, int64_t first, int64_t end)
{
    uint32_t at = dead_from(s, first);
    uint64_t wanted = (uint64_t)(end - first);
    return wanted <= s->dead_count - at && s->dead[at].offset == first &&
           s->dead[at + (uint32_t)wanted - 1].offset == end - 1;
}

/* When what is given back at the offset is due, and up to where that holds. */
static int64_t due_at(const struct settling *c, int64_t offset, int64_t *until)
{
    const struct delivery_settlement *s = c->s;
    uint32_t low = 0;
    uint32_t high = s->due_count;
    while (low < high) { /* The first that ends after the offset. */
        uint32_t middle = low + (high - low) / 2;
        if (s->dues[middle].first + s->dues[middle].count <= offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == s->due_count) {
        *until = INT64_MAX;
        return c->item->due_ms;
    }
    const struct delivery_due *due = &s->dues[low];
    *until = due->first <= offset ? due->first + due->count : due->first;
    return due->first <= offset ? due->due_ms : c->item->due_ms;
}

/* ---- Dead letters ---- */

static void forget_letter(struct settling *c, uint64_t number)
{
    revived_remove(c->d, number);
    c->err = delivery_forget_letter(c->d, number, c->dead_rows);
}

static void write_letter(struct settling *c, uint64_t number, const struct delivery_run *run,
                         const struct delivery_dead *dead, const struct failure *failure)
{
    struct failure failures[HISTORY_MAX + 1];
    uint32_t count = delivery_failures(run, failures);
    failures[count++] = *failure;
    uint32_t skipped = count > HISTORY_MAX ? 1 : 0;
    struct dead_letter letter = {.number = number,
                                 .offset = dead->offset,
                                 .append_time_ms = dead->append_time_ms,
                                 .died_ms = c->time_ms,
                                 .handed_out = run->handed,
                                 .failed = run->failed,
                                 .key_hash = dead->key_hash,
                                 .failure_count = count - skipped,
                                 .record = dead->record};
    memcpy(letter.failures, failures + skipped, (count - skipped) * sizeof(failures[0]));
    c->err = delivery_put_letter(c->d, &letter, c->dead_rows);
}

static void die(struct settling *c, const struct delivery_run *piece,
                const struct delivery_dead *dead, const struct failure *failure)
{
    struct delivery *d = c->d;
    struct delivery_run run = *piece;
    uint64_t number = run.dead;
    run.failed += failure->kind == FAILURE_PARKED ? 0 : 1;
    if (number == 0) {
        number = d->next_dead++;
        dead_add(d, number);
    } else {
        revived_remove(d, number);
    }
    write_letter(c, number, &run, dead, failure);
    parked_change(d, dead->key_hash, 1);
    d->counters.died++;
    delivery_paint_done(d, dead->offset, 1);
}

/* All of the piece; their records are there. */
static void die_all(struct settling *c, const struct delivery_run *piece,
                    const struct failure *failure)
{
    uint32_t at = dead_from(c->s, piece->first);
    history_hold(piece->history);
    for (uint32_t i = 0; i < piece->count && goes_on(c); i++) {
        die(c, piece, &c->s->dead[at + i], failure);
    }
    history_release(c->d, piece->history);
}

/* ---- How a piece of a lease ends ---- */

static struct failure failure_of(const struct settling *c, const struct lease *lease,
                                 enum failure_kind kind)
{
    return (struct failure){.time_ms = c->time_ms,
                            .kind = kind,
                            .member = bytes_of(lease->l.member, lease->l.member_bytes),
                            .reason = c->item->reason};
}

static void ack_piece(struct settling *c, const struct delivery_run *piece)
{
    c->d->counters.acked += piece->count;
    if (piece->dead != 0) {
        forget_letter(c, piece->dead);
    }
    delivery_paint_done(c->d, piece->first, piece->count);
}

static void wait_piece(struct settling *c, const struct delivery_run *piece, int64_t due_ms)
{
    struct delivery_run run = *piece;
    run.state = DELIVERY_WAITING;
    run.lease = 0;
    run.due_ms = due_ms;
    delivery_paint(c->d, &run);
    delivery_push_change(c->d, &(struct delivery_change){.kind = DELIVERY_CHANGED_WAITING,
                                                         .first = run.first,
                                                         .count = run.count});
}

/* Failed: waits, or is dead where the entry has its record. */
static void fail_piece(struct settling *c, const struct lease *lease,
                       const struct delivery_run *piece, enum failure_kind kind)
{
    struct delivery *d = c->d;
    struct failure failure = failure_of(c, lease, kind);
    struct delivery_history *after = history_add(d, piece->history, &failure);
    int64_t end = run_end(piece);
    d->counters.failed += piece->count;
    history_hold(piece->history);
    for (int64_t at = piece->first; at < end && goes_on(c);) {
        struct delivery_run part = *piece;
        uint32_t dead = dead_from(c->s, at);
        int64_t dead_offset = dead < c->s->dead_count ? c->s->dead[dead].offset : INT64_MAX;
        int64_t until;
        int64_t due_ms = due_at(c, at, &until);
        until = until < end ? until : end;
        part.first = at;
        if (dead_offset == at) {
            part.count = 1;
            die(c, &part, &c->s->dead[dead], &failure);
        } else {
            part.count = (uint32_t)((dead_offset < until ? dead_offset : until) - at);
#ifdef MUT_62 /* a lease that ends is no failure of what it held */
            part.failed += kind != FAILURE_EXPIRED;
#else
            part.failed++;
#endif
            part.history = after;
            wait_piece(c, &part, due_ms);
        }
        at = run_end(&part);
    }
    history_release(d, piece->history);
    history_release(d, after);
}

static void reject_piece(struct settling *c, const struct lease *lease,
                         const struct delivery_run *piece)
{
    struct failure failure = failure_of(c, lease, FAILURE_REJECT);
    c->d->counters.failed += piece->count;
    die_all(c, piece, &failure);
}

static void settle_piece(struct settling *c, const struct lease *lease,
                         const struct delivery_run *piece)
{
    switch (c->item->kind) {
    case SETTLE_ACK:
        ack_piece(c, piece);
        return;
    case SETTLE_NACK:
        fail_piece(c, lease, piece, FAILURE_NACK);
        return;
    case SETTLE_RELEASE:
#ifdef MUT_66 /* a released message has failed */
        fail_piece(c, lease, piece, FAILURE_NACK);
        return;
#endif
        c->d->counters.released += piece->count;
        wait_piece(c, piece, c->time_ms);
        return;
    case SETTLE_REJECT:
        reject_piece(c, lease, piece);
        return;
    default:
        must(false);
    }
}

/* ---- Items ---- */

static bool is_range(const struct delivery_settle_item *item)
{
    return item->first >= 0 && item->count > 0 && item->first <= INT64_MAX - item->count;
}

static enum lease_list list_of(uint32_t kind)
{
    switch (kind) {
    case SETTLE_ACK:
        return LEASE_ACKED;
    case SETTLE_NACK:
        return LEASE_NACKED;
    case SETTLE_RELEASE:
        return LEASE_RELEASED;
    default:
        must(kind == SETTLE_REJECT);
        return LEASE_REJECTED;
    }
}

static bool is_held(const struct delivery_run *piece, const struct lease *lease)
{
    return piece->state == DELIVERY_LEASED && piece->lease == lease->l.number;
}

static bool may_settle(const struct delivery_run *piece, const struct lease *lease)
{
#ifdef MUT_60 /* what comes with the lease of before counts */
    return piece->state == DELIVERY_LEASED || piece->state == DELIVERY_WAITING;
#endif
    return is_held(piece, lease);
}

/* Whether each message of the item is held under the lease, or was settled so before. */
static enum ferry_err check_range(const struct settling *c, struct lease *lease)
{
    const struct delivery_ranges *before = *lease_ranges(lease, list_of(c->item->kind));
    int64_t end = c->item->first + c->item->count;
    for (int64_t at = c->item->first; at < end;) {
        struct delivery_run piece = delivery_piece(c->d, at, end);
        int64_t settled = ranges_end_of(before, at);
        if (may_settle(&piece, lease)) {
            if (c->item->kind == SETTLE_REJECT && !has_all_records(c->s, at, run_end(&piece))) {
                return FERRY_ERR_CORRUPT;
            }
            at = run_end(&piece);
        } else if (settled > at) {
            at = settled;
        } else {
            return FERRY_ERR_LEASE_EXPIRED;
        }
    }
    return FERRY_OK;
}

static enum ferry_err settle_range(struct settling *c)
{
    const struct delivery_settle_item *item = c->item;
    struct lease *lease = lease_find(c->d, item->lease);
    if (!is_range(item)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    if (lease == NULL || memcmp(&lease->l.token, &item->token, sizeof(item->token)) != 0) {
        return FERRY_ERR_LEASE_EXPIRED;
    }
    enum ferry_err err = check_range(c, lease);
    if (err != FERRY_OK) {
        return err;
    }
    int64_t end = item->first + item->count;
    bool any = false;
    for (int64_t at = item->first; at < end && goes_on(c);) {
        struct delivery_run piece = delivery_piece(c->d, at, end);
        at = run_end(&piece);
        if (may_settle(&piece, lease)) {
            settle_piece(c, lease, &piece);
            any = true;
        }
    }
    if (any) {
        lease_note(c->d, lease, list_of(item->kind), item->first, item->count);
    }
    return FERRY_OK;
}

static enum ferry_err extend(struct settling *c)
{
    struct lease *lease = lease_find(c->d, c->item->lease);
    if (lease == NULL || lease->l.left == 0 ||
        memcmp(&lease->l.token, &c->item->token, sizeof(c->item->token)) != 0) {
        return FERRY_ERR_LEASE_EXPIRED;
    }
    lease->l.lease_ms = c->item->extend_ms;
    lease_touch(c->d, lease);
    delivery_push_change(
        c->d, &(struct delivery_change){.kind = DELIVERY_CHANGED_LEASED, .lease = lease->l.number});
    return FERRY_OK;
}

static void expire_span(struct settling *c, const struct lease *lease, int64_t first, int64_t end)
{
    for (int64_t at = first; at < end && goes_on(c);) {
        struct delivery_run piece = delivery_piece(c->d, at, end);
        at = run_end(&piece);
        if (is_held(&piece, lease)) {
            fail_piece(c, lease, &piece, FAILURE_EXPIRED);
        }
    }
}

static enum ferry_err expire(struct settling *c)
{
    const struct delivery_settle_item *item = c->item;
    const struct lease *lease = lease_find(c->d, item->lease);
    if (item->count != 0 && !is_range(item)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    if (lease == NULL || lease->l.left == 0) {
        return FERRY_ERR_LEASE_EXPIRED;
    }
    int64_t from = item->count == 0 ? 0 : item->first;
    int64_t until = item->count == 0 ? INT64_MAX : item->first + item->count;
    const struct delivery_ranges *given = lease->l.given;
    for (uint32_t i = 0; i < given->count && goes_on(c); i++) {
        const struct delivery_span *span = &given->spans[i];
        expire_span(c, lease, span->first > from ? span->first : from,
                    span->end < until ? span->end : until);
    }
    return FERRY_OK;
}

static enum ferry_err park(struct settling *c)
{
    const struct delivery_settle_item *item = c->item;
    if (!is_range(item) || !has_all_records(c->s, item->first, item->first + item->count)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    int64_t end = item->first + item->count;
    for (int64_t at = item->first; at < end;) {
        struct delivery_run piece = delivery_piece(c->d, at, end);
        if (piece.state != DELIVERY_FRESH && piece.state != DELIVERY_WAITING) {
            return FERRY_ERR_INVALID_ARGUMENT;
        }
        at = run_end(&piece);
    }
    struct failure failure = {.time_ms = c->time_ms,
                              .kind = FAILURE_PARKED,
                              .member = c->s->member,
                              .reason = item->reason};
    for (int64_t at = item->first; at < end && goes_on(c);) {
        struct delivery_run piece = delivery_piece(c->d, at, end);
        at = run_end(&piece);
        die_all(c, &piece, &failure);
    }
    return FERRY_OK;
}

static enum ferry_err settle_item(struct settling *c)
{
    switch (c->item->kind) {
    case SETTLE_ACK:
    case SETTLE_NACK:
    case SETTLE_RELEASE:
    case SETTLE_REJECT:
        return settle_range(c);
    case SETTLE_EXTEND:
        return extend(c);
    case DELIVERY_EXPIRE:
        return expire(c);
    case DELIVERY_PARK:
        return park(c);
    default:
        return FERRY_ERR_INVALID_ARGUMENT;
    }
}

enum ferry_err delivery_apply_settlement(struct delivery *d, const struct delivery_settlement *s,
                                         int64_t time_ms, struct rows *dead_rows, uint16_t *status)
{
    struct settling c = {.d = d, .s = s, .time_ms = time_ms, .dead_rows = dead_rows};
    for (uint32_t i = 0; i < s->count && goes_on(&c); i++) {
        c.item = &s->items[i];
        status[i] = (uint16_t)settle_item(&c);
        delivery_advance_floor(d);
    }
    return c.err != FERRY_OK ? c.err : delivery_result(d);
}
